"""The pure parts of ``make bench-tuning``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from bottleneck_operator.api.conditions import KNOBS_ANNOTATION
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.kube import KubeError
from bottleneck_sidecar.knobs import parse as parse_knobs

from examples.loadgen.trace import read
from hack.bench.tuning.__main__ import arguments, chosen, main
from hack.bench.tuning.cluster import Cluster
from hack.bench.tuning.figures import (
    Point,
    Result,
    below_floor,
    document,
    longest_below,
    oracle,
    table,
)
from hack.bench.tuning.overhead import parse
from hack.bench.tuning.session import poisson_trace
from hack.bench.tuning.workloads import WORKLOADS, Tunable, policy_of


def result(latency: bool = False, **changes: object) -> Result:
    fields: dict[str, object] = {"floor": 10.0, "ours": 30.0, "oracle": 40.0, "actions": 2}
    return Result("w", "training", "samples/s", latency, **{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("lower", "best"), [(False, 3), (True, 1)])
def test_the_oracle_is_the_best_point_and_of_equal_ones_the_first(lower: bool, best: int) -> None:
    values = [2.0, 1.0, 1.0, 5.0, 5.0]
    points = [Point({"batch.maxSize": size}, value) for size, value in enumerate(values)]
    assert oracle(points, lower).knobs == {"batch.maxSize": best}


def test_seconds_below_the_floor_count_what_is_worse_by_more_than_a_twentieth() -> None:
    assert below_floor([94.0, 95.0, 96.0, 50.0], 100.0, False, 0.5) == 1.0
    assert below_floor([0.104, 0.106, 0.2], 0.1, True, 1.0) == 2.0
    assert below_floor([], 100.0, False, 1.0) == 0.0


@pytest.mark.parametrize(
    ("bins", "lower", "longest"),
    [
        ([50.0, 100.0, 50.0, 50.0, 95.0, 50.0], False, 2.0),
        ([0.2, 0.2, 0.2, 0.1], True, 3.0),
        ([100.0], False, 0.0),
        ([], True, 0.0),
    ],
    ids=["two together", "of a latency", "never", "nothing measured"],
)
def test_the_longest_stretch_below_the_floor(
    bins: list[float], lower: bool, longest: float
) -> None:
    assert longest_below(bins, 0.1 if lower else 100.0, lower, 1.0) == longest


def test_of_a_latency_the_share_is_the_other_way_round() -> None:
    assert result().share == pytest.approx(0.75)
    assert result(latency=True, ours=0.2, oracle=0.1).share == pytest.approx(0.5)
    assert result(ours=0.0, latency=True).share == 0.0


def test_the_document_has_every_workload_and_the_acknowledgements_of_all() -> None:
    found = document(
        [result(acknowledged=(0.1, 0.4)), result(acknowledged=(0.2,)), result(failure="no")], 0.004
    )
    assert found["ackSeconds"] == {"p50": 0.2, "max": 0.4}
    assert found["sdkOverheadRatio"] == 0.004
    assert found["workloads"][0]["oursOfOracle"] == 0.75
    assert found["workloads"][2] == {
        "name": "w",
        "type": "training",
        "unit": "samples/s",
        "failure": "no",
    }
    assert document([], None)["ackSeconds"] == {"p50": None, "max": None}
    json.dumps(found)


def test_the_table_has_a_line_for_each_and_says_what_failed() -> None:
    lines = table([result(seconds=61.2), result(failure="no")]).splitlines()
    assert lines[0].split()[:2] == ["workload", "unit"]
    assert "75%" in lines[1]
    assert lines[2].split()[-1] == "failed"
    assert len({line.index("samples/s") for line in lines[1:]}) == 1


@pytest.mark.parametrize("work", WORKLOADS, ids=lambda work: work.name)
def test_a_workload_begins_at_its_default_and_its_policy_is_one(work: Tunable) -> None:
    points = work.configurations()
    default = {name: values[0] for name, values in work.grid.items()}
    assert default.items() <= points[0].items()
    assert len({json.dumps(point, sort_keys=True) for point in points}) == len(points)
    for point in points:
        if work.samples:
            assert int(point["batch.micro"]) * int(point["batch.accumulation"]) == work.samples
    policy = BottleneckPolicy.model_validate(policy_of(work))
    assert policy.spec.actions.replicas is None
    assert policy.spec.actions.resources is None


def test_an_annotation_becomes_the_knobs_file_and_a_name_is_taken_once(tmp_path: Path) -> None:
    told: list[str] = []
    cluster = Cluster(
        policy_of(WORKLOADS[0]), "pod-0", tmp_path / "knobs", lambda reason, _: told.append(reason)
    )
    changed: list[object] = []
    cluster.watch = changed.append
    text = '{"generation":2,"batch":{"maxSize":4}}'
    report = {"metadata": {"name": "r-1"}, "spec": {}}

    async def live() -> None:
        body = {"metadata": {"annotations": {KNOBS_ANNOTATION: text}}}
        await cluster.patch("/api/v1/namespaces/tuning/pods/pod-0", body)
        await cluster.create("/reports", dict(report))
        with pytest.raises(KubeError):
            await cluster.create("/reports", dict(report))
        await cluster.create("/v1/events", {"reason": "Kept", "message": ""})

    asyncio.run(live())
    assert parse_knobs((tmp_path / "knobs").read_bytes()).settings == {"batch.maxSize": 4}
    assert list(cluster.written) == [2]
    assert (told, changed) == (["Kept"], [cluster.pod])


def test_the_arrivals_are_a_trace_that_the_load_generator_reads(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(poisson_trace(10.0, rate=50.0))
    requests = read(path)
    assert 400 < len(requests) < 600
    assert requests[-1].at < 10.0
    assert poisson_trace(10.0, rate=50.0) == path.read_text()


def test_the_cost_is_read_from_what_the_script_prints() -> None:
    line = (
        "SDK, {} workers, {} ms of work: 66 µs a step (23 to 151 in the middle half of 16 pairs),"
        " {}% of 10 ms; 17 reports in 17 blocks; the bare step beside its work 794 µs\n"
    )
    text = line.format(0, 0, "0.38") + line.format(0, 10, "0.66") + line.format(2, 10, "0.87")
    assert parse(text) == 0.0066
    assert parse("nothing") is None


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert [work.name for work in chosen(["delay"])] == ["serving-delay"]
    assert main(["--only", "nowhere"]) == 1
    assert "serving-delay" in capsys.readouterr().err
    assert main(["--workloads-list"]) == 0
    assert "batch.micro 2, 4" in capsys.readouterr().out
    for wrong in (["--seconds", "1"], ["--rounds", "0"]):
        with pytest.raises(SystemExit):
            arguments(wrong)
