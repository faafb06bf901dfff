"""Recordings: what is written can be read, what cannot be read is refused, and what is replayed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from bottleneck_operator.observe.baseline import Baselines
from bottleneck_operator.observe.observation import NoData, Reading, Signal, WorkloadType
from bottleneck_operator.observe.recording import (
    Recording,
    RecordingError,
    Replay,
    facts_line,
    header,
    parse,
    replay,
    sample_line,
)
from bottleneck_sidecar.wire import Sample
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW, rank, sample, server
from .telemetry import container, device, model_server, training_rank

Said = Callable[[float], Sequence[object]]


def lines(said: Said, seconds: float, pod: str = "pod-0", start: float = 0.0) -> list[str]:
    """A pod that says ``said(seconds since the beginning)`` every second."""
    found = []
    for second in range(int(start), int(seconds) + 1):
        at = NOW + second
        told = sample(at, second, *said(float(second)), pod=pod, uid=pod)
        found.append(sample_line(at + 0.1, told))
    return found


def recorded(*pods: list[str], **fields: Any) -> list[str]:
    """A whole recording of these pods, in the order in which their lines came."""
    told = sorted((line for pod in pods for line in pod), key=lambda s: json.loads(s)["received"])
    return [header(NOW, "tests", **fields), *told]


def replayed(*pods: list[str], **fields: Any) -> Replay:
    return replay(parse(recorded(*pods, **fields)))


def figure(signal: Signal) -> float:
    assert isinstance(signal, Reading), signal
    return signal.value


# -- the format ------------------------------------------------------------------------------------


def test_what_is_written_is_read() -> None:
    (baseline,) = _learnt()
    policy = {"objectives": {"latency": {"target": "250ms"}}}
    told = sample(NOW, 1, training_rank(5.0), container(5.0), gpus=[device()])
    text = [
        header(NOW, "bottleneck-agent 0.1.0", ["pod-0", "pod-1"], policy, [baseline]),
        sample_line(NOW + 0.25, told),
        facts_line(NOW + 1, {"pods.unschedulable": 2}, {"pods.unschedulable": "no node"}),
    ]
    found = parse(text)
    assert (found.created_at, found.by) == (NOW, "bottleneck-agent 0.1.0")
    assert (found.pods, found.policy, found.baselines) == (["pod-0", "pod-1"], policy, [baseline])
    assert (found.lines[0].received, found.lines[0].sample) == (NOW + 0.25, told)
    assert found.lines[1].facts == {"pods.unschedulable": 2.0}
    assert found.lines[1].texts == {"pods.unschedulable": "no node"}
    assert found.cut == 0
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in text)


def _learnt() -> list[Any]:
    return replayed(lines(lambda t: [training_rank(t)], 180)).baselines.statuses()


FIRST = header(NOW, "tests")
GOOD = sample_line(NOW, sample(NOW, 1, rank("e0", 1, NOW)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([], "it is empty; a recording begins with a line like"),
        (["\n", "  \n"], "it is empty"),
        ([GOOD], "line 1: not the first line of a recording"),
        (["garbage\n"], "line 1: this is no JSON"),
        (["garb"], "line 1: this is no JSON.*a recording begins with a line like"),
        (["[1, 2]\n"], "line 1: expected an object"),
        ([FIRST.replace(":1,", ":2,", 1)], "line 1: recording version 2.*of the release"),
        ([FIRST.replace(":1,", ":true,", 1)], "line 1: recording version True"),
        (['{"recording": 1, "createdAt": "now"}\n'], "line 1: createdAt: expected seconds"),
        (['{"recording": 1, "createdAt": 1, "pods": "a"}\n'], "line 1: pods: expected a list"),
        (['{"recording": 1, "createdAt": 1, "policy": []}\n'], "line 1: policy: expected the spec"),
        (['{"recording": 1, "createdAt": 1, "baselines": [{}]}\n'], "line 1: baselines: .*leave"),
        (['{"recording": 1, "createdAt": 1, "baselines": 5}\n'], "line 1: baselines: .*leave"),
        ([FIRST, "garbage\n"], "line 2: this is no JSON; remove the line"),
        ([FIRST, "garbage", GOOD], "line 2: this is no JSON; remove the line"),
        ([FIRST, GOOD, "\n", "[]\n"], "line 4: expected an object"),
        ([FIRST, '{"received": 1}\n'], "line 2: expected one of sample and facts"),
        ([FIRST, '{"sample": {}, "received": NaN}\n'], "line 2: received: expected seconds"),
        ([FIRST, '{"received": true, "facts": {}}\n'], "line 2: received: expected seconds"),
        ([FIRST, '{"received": 1, "sample": {"version": 1}}\n'], "line 2: sample: time: missing"),
        ([FIRST, GOOD.replace('"version":1', '"version":2')], "line 2: sample: version 2"),
        ([FIRST, '{"received": 1, "facts": {"a": "b"}}\n'], "line 2: facts: expected numbers"),
        ([FIRST, '{"received": 1, "facts": []}\n'], "line 2: facts: expected numbers"),
        ([FIRST, '{"received":1,"facts":{},"texts":{"a":1}}\n'], "line 2: texts: expected texts"),
        ([FIRST, "[" * 100_000 + "\n"], "line 2: longer than"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_line_and_what_to_do(
    text: list[str], message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        parse(text)


@pytest.mark.parametrize("length", [1, 20, 100, len(GOOD) - 2])
def test_a_last_line_that_was_half_written_is_left_out_and_counted(length: int) -> None:
    found = parse([FIRST, GOOD, GOOD[:length]])
    assert (len(found.lines), found.cut) == (1, 1)


def test_a_last_line_without_its_end_counts_if_it_is_whole() -> None:
    found = parse([FIRST, GOOD.rstrip("\n")])
    assert (len(found.lines), found.cut) == (1, 0)


@CASES
@given(st.text(max_size=60), st.booleans())
def test_whatever_is_in_the_file_there_is_an_answer_or_an_error(text: str, headed: bool) -> None:
    try:
        found = parse([FIRST, text] if headed else [text])
    except RecordingError:
        return
    assert headed
    assert len(found.lines) + found.cut <= 1


# -- replay ----------------------------------------------------------------------------------------


def test_a_steady_recording_is_judged_by_its_last_minute() -> None:
    found = replayed(lines(lambda t: [training_rank(t), container(t)], 200))
    assert found.onset is None
    assert found.span_seconds == pytest.approx(200)
    assert found.observation.type is WorkloadType.TRAINING
    steps = found.observation.signal("training.stepSeconds")
    assert isinstance(steps, Reading)
    assert steps.value == pytest.approx(0.5)
    assert 60 <= steps.window <= 61.5
    assert figure(found.observation.signal("cpu.usedCores")) == pytest.approx(1.5)
    assert figure(found.observation.signal("training.stepSlowdown")) == 1.0
    assert list(found.histories) == ["pod-0"]


@pytest.mark.parametrize(("seconds", "judged"), [(7, 7), (10, 10), (12, 10), (20, 15), (45, 40)])
def test_a_short_recording_is_judged_by_what_lies_behind_its_warm_up(
    seconds: int, judged: int
) -> None:
    found = replayed(lines(lambda t: [training_rank(t)], seconds))
    steps = found.observation.signal("training.stepSeconds")
    assert isinstance(steps, Reading)
    assert judged - 1.5 <= steps.window <= judged + 1
    assert "nothing was learnt" in str(found.observation.signal("training.stepSlowdown"))


def slowing(at: float, factor: float) -> Said:
    """A rank that takes two steps a second, and ``factor`` times as long for each from ``at`` on,
    which it spends waiting for data."""

    def said(t: float) -> Sequence[object]:
        steps = int(2 * min(t, at)) + int(2 * max(0.0, t - at) / factor)
        spent = min(t, at) + max(0.0, t - at)
        waited = max(0.0, t - at) * max(0.0, 1 - 1 / factor)
        return [
            training_rank(
                t,
                steps=steps,
                samples=32 * steps,
                step_seconds=spent,
                seconds={"data": waited, "forward": spent - waited},
                last_step_at=NOW + t,
            )
        ]

    return said


@pytest.mark.parametrize("factor", [1.3, 2.0, 5.0])
@pytest.mark.parametrize(("seconds", "at"), [(60, 30), (66, 33), (120, 60), (300, 200), (400, 100)])
def test_a_fault_that_began_meanwhile_is_held_against_the_time_before_it(
    seconds: float, at: float, factor: float
) -> None:
    found = replayed(lines(slowing(at, factor), seconds))
    assert found.onset == pytest.approx(NOW + at, abs=5.1)
    slower = figure(found.observation.signal("training.stepSlowdown"))
    assert slower == pytest.approx(factor, rel=0.1)
    # Nothing of the better time is in what is judged.
    share = figure(found.observation.signal("training.dataShare"))
    assert share == pytest.approx(1 - 1 / factor, rel=0.15)


@pytest.mark.parametrize(
    "said",
    [
        slowing(30, 1.0),
        slowing(30, 1.1),
        slowing(30, 0.5),
        slowing(55, 2.0),
    ],
    ids=["steady", "10% slower", "faster", "only at the very end"],
)
def test_what_did_not_become_slower_is_judged_as_a_whole(said: Said) -> None:
    found = replayed(lines(said, 60))
    assert found.onset is None
    steps = found.observation.signal("training.stepSeconds")
    assert isinstance(steps, Reading)
    assert steps.window >= 50


def _uneven(t: float) -> Sequence[object]:
    # Bursts: 40 ms and 100 ms in turns of four seconds.
    slow = 4 * (int(t) // 8) + max(0, int(t) % 8 - 4)
    total = 20 * (0.1 * slow + 0.04 * (int(t) - slow))
    return [model_server(t, latency_seconds=total)]


def test_what_goes_up_and_down_did_not_become_slower() -> None:
    assert replayed(lines(_uneven, 60)).onset is None


@pytest.mark.parametrize("errors", [0.0, 0.04, 0.3])
def test_servers_that_begin_to_fail_or_to_be_slow_are_judged_from_then_on(errors: float) -> None:
    def said(t: float) -> Sequence[object]:
        late = max(0.0, t - 40)
        return [model_server(t, errors=int(20 * late * errors))]

    found = replayed(lines(said, 80))
    assert (found.onset is not None) == (errors > 0.05)
    if found.onset is not None:
        assert figure(found.observation.signal("inference.errorRate")) == pytest.approx(
            errors, rel=0.1
        )

    def slower(t: float) -> Sequence[object]:
        late = max(0.0, t - 40)
        return [model_server(t, latency_seconds=20 * (0.1 * (t - late) + 0.15 * late))]

    assert replayed(lines(slower, 80)).onset == pytest.approx(NOW + 40, abs=5.1)


def test_a_hang_in_a_recording_is_held_against_what_was_usual() -> None:
    found = replayed(lines(lambda t: [training_rank(min(t, 50.0))], 100)).observation
    assert figure(found.signal("training.usualStepSeconds")) == pytest.approx(0.5)
    assert isinstance(found.signal("training.stepSeconds"), NoData)
    assert found.value("training.longPhase") == 0.0


def test_a_baseline_that_came_along_is_what_a_fault_from_the_start_is_held_against() -> None:
    slow = lines(lambda t: [training_rank(t, pace=1.0)], 60)
    assert isinstance(replayed(slow).observation.signal("training.stepSlowdown"), NoData)
    found = replayed(slow, baselines=_learnt())
    assert figure(found.observation.signal("training.stepSlowdown")) == pytest.approx(2.0)
    assert found.baselines.statuses() == _learnt()


def test_the_last_word_of_the_api_server_counts_with_its_age() -> None:
    text = [
        *recorded(lines(lambda t: [training_rank(t)], 60)),
        facts_line(NOW + 10, {"pods.unschedulable": 3, "pods.restarts": 1}, {"pods.restarts": "a"}),
        facts_line(NOW + 30, {"pods.unschedulable": 2, "pods.unschedulableSeconds": 20}),
        facts_line(NOW + 40, {"pods.restarts": 0, "pods.withoutLimits": 1, "change.precedes": 1}),
    ]
    found = replay(parse(text))
    waiting = found.facts["pods.unschedulable"]
    assert waiting == Reading(2.0, "pods", 0.0, "last", pytest.approx(30.1), "API server")
    units = {name: fact.unit for name, fact in found.facts.items() if isinstance(fact, Reading)}
    assert units == {
        "pods.unschedulable": "pods",
        "pods.unschedulableSeconds": "s",
        "pods.restarts": "restarts",
        "pods.withoutLimits": "containers",
        "change.precedes": "",
    }
    assert found.texts == {}  # what was said of restarts was said of others


def test_a_pod_that_fell_silent_is_missed_unless_another_one_came_for_it() -> None:
    def said(number: int) -> Said:
        return lambda t: [training_rank(t, number=number)]

    stays, falls = lines(said(0), 100), lines(said(1), 50, "pod-1")
    silent = replayed(stays, falls).observation
    assert (silent.expected, silent.streaming) == (2, 1)
    assert isinstance(silent.signal("training.stepSeconds"), NoData)
    came = lines(said(1), 100, "pod-2", start=60)
    rolled = replayed(stays, falls, came).observation
    assert (rolled.expected, rolled.streaming) == (2, 2)
    assert figure(rolled.signal("training.stepSeconds")) == pytest.approx(0.5)


def test_a_pod_that_never_spoke_is_missed() -> None:
    found = replayed(lines(lambda t: [training_rank(t)], 60), pods=["pod-0", "pod-1"]).observation
    assert (found.expected, found.streaming) == (2, 1)
    assert isinstance(found.signal("training.stepSeconds"), NoData)


@pytest.mark.parametrize("pods", [[], ["pod-0"]])
def test_a_recording_without_samples_still_tells_the_facts(pods: list[str]) -> None:
    text = [header(NOW, "tests", pods), facts_line(NOW + 1, {"pods.unschedulable": 2})]
    found = replay(parse(text))
    assert found.observation.type is WorkloadType.UNKNOWN
    assert (found.observation.expected, found.observation.streaming) == (len(pods), 0)
    assert figure(found.facts["pods.unschedulable"]) == 2
    assert found.span_seconds == 0


def test_a_recording_of_an_older_release_is_replayed() -> None:
    """Without the fields that came later."""

    def old(t: float) -> Sequence[object]:
        steps = int(2 * t)
        return [rank("e0", steps, NOW + t, step_seconds=steps / 2, seconds={"data": steps / 4})]

    found = replayed(lines(old, 120)).observation
    assert figure(found.signal("training.dataShare")) == pytest.approx(0.5)
    assert figure(found.signal("training.stepSlowdown")) == 1.0
    assert isinstance(found.signal("loader.cpuShare"), NoData)
    served = replayed(lines(lambda t: [server("s0", [0.1] * int(20 * t))], 120)).observation
    assert figure(served.signal("inference.latency")) == pytest.approx(0.1, rel=0.2)
    assert isinstance(served.signal("inference.dependencyShare"), NoData)


def test_replaying_twice_says_the_same() -> None:
    recording: Recording = parse(recorded(lines(slowing(30, 2.0), 60)))
    first, second = replay(recording), replay(recording)
    assert first.observation == second.observation
    assert first.baselines.statuses() == second.baselines.statuses()
    assert isinstance(first.baselines, Baselines)


def test_lines_out_of_order_are_taken_as_the_operator_would() -> None:
    text = recorded(lines(lambda t: [training_rank(t)], 60))
    doubled = [*text, *text[5:20]]
    one, two = replay(parse(text)), replay(parse(doubled))
    assert one.observation == two.observation


def test_the_wire_keeps_what_a_recording_holds() -> None:
    told = sample(NOW, 1, model_server(10.0), container(10.0))
    (line,) = parse([FIRST, sample_line(NOW, told)]).lines
    assert isinstance(line.sample, Sample)
    assert line.sample == told


def test_the_example_in_the_docs_is_a_recording() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recording.md").read_text()
    (example,) = [block for block in page.split("```") if block.startswith('\n{"recording"')]
    found = replay(parse(example.strip().splitlines()))
    assert found.observation.type is WorkloadType.TRAINING
    assert figure(found.facts["pods.unschedulableSeconds"]) == 42
    assert "Insufficient" in found.texts["pods.unschedulable"]


# Of the first 500 seeds one looks like a change: 2, a third slower for its last 35 seconds.
@pytest.mark.parametrize("seed", range(3, 9))
def test_noise_alone_is_no_change(seed: int) -> None:
    noise = random.Random(seed)
    spent = [0.0]
    for _ in range(120):
        spent.append(spent[-1] + 20 * 0.1 * max(0.1, noise.gauss(1.0, 0.3)))
    found = replayed(lines(lambda t: [model_server(t, latency_seconds=spent[int(t)])], 120))
    assert found.onset is None
