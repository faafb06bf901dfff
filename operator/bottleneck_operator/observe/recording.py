"""Replays recordings through the same code as the operator's, so that they show what it saw. Pure.

The format itself is in ``recording_format``; what both are for is in ``docs/recording.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .baseline import MIN_WINDOWS, Baselines
from .counters import STALE_SECONDS
from .history import History
from .observation import Observation, Reading, Signal, WorkloadType
from .onset import onset
from .pod_window import WINDOW_SECONDS
from .recording_format import (
    Recording,
    RecordingError,
    Told,
    facts_line,
    header,
    parse,
    sample_line,
)
from .windows import observe

__all__ = [
    "Recording",
    "RecordingError",
    "Replay",
    "Told",
    "facts_line",
    "header",
    "parse",
    "replay",
    "sample_line",
]

WARM_UP_SECONDS = 5.0
"""Left out at the beginning: what starts is not what runs."""

EVALUATION_SECONDS = 60.0
"""Longest window that a recording is judged by: its end."""

LEAST_STRIDE_SECONDS = 2.0
"""Least time between two windows that a baseline is learnt from, in a short recording."""

_CONTAINERS = ("oomKilled", "crashLooping", "without", "unpinned")


@dataclass(frozen=True, slots=True)
class Replay:
    """What the operator would know at the end of a recording.

    ``observation`` has the signals, those that compare with the usual among them; ``facts`` and
    ``texts`` are what the API server last said. ``onset`` is when the workload became slower (the
    operator's clock), None where it did not: nothing from before it is in the observation.
    ``span_seconds`` is the length of the recording."""

    observation: Observation
    facts: Mapping[str, Signal]
    texts: Mapping[str, str]
    histories: Mapping[str, History]
    baselines: Baselines
    span_seconds: float
    onset: float | None = None


def replay(recording: Recording, percentile: int = 95) -> Replay:
    """Feeds the samples in their order, learns what is usual before the stretch that is judged, and
    observes at the end: over the last minute, or since the workload became slower."""
    told = [line for line in recording.lines if line.sample is not None]
    baselines = Baselines.restored(recording.baselines)
    if not told:
        nothing = Observation(
            recording.created_at, WorkloadType.UNKNOWN, {}, expected=len(recording.names)
        )
        facts, texts = _facts(recording.lines, recording.created_at)
        return Replay(nothing, facts, texts, {}, baselines, 0.0)
    begin, end = told[0].received, max(line.received for line in told)
    # The operator's own window comes first: a recording as short as that is worth all of it.
    warm = max(begin, min(begin + WARM_UP_SECONDS, end - WINDOW_SECONDS))
    changed = onset(told, warm)
    start = max(warm, end - EVALUATION_SECONDS)
    histories = _fed(told, baselines, warm, start if changed is None else changed, percentile)
    observation = observe(
        histories,
        _expected(recording.names, told, end),
        end,
        percentile=percentile,
        window=end - start,
        since=changed,
    )
    signals = {**observation.signals, **baselines.compare(observation)}
    facts, texts = _facts(recording.lines, end)
    return Replay(
        replace(observation, signals=signals),
        facts,
        texts,
        histories,
        baselines,
        end - begin,
        changed,
    )


def _fed(
    told: Sequence[Told], baselines: Baselines, warm: float, until: float, percentile: int
) -> dict[str, History]:
    """The histories at the end; ``baselines`` learn from the windows between ``warm`` and
    ``until``."""
    stride = (until - warm - WINDOW_SECONDS) / (MIN_WINDOWS - 1)
    stride = min(WINDOW_SECONDS, max(LEAST_STRIDE_SECONDS, stride))
    histories: dict[str, History] = {}
    due = warm + WINDOW_SECONDS
    for line in told:
        assert line.sample is not None
        while due <= until and due <= line.received:
            speaking = [
                pod for pod, history in histories.items() if _age(history, due) <= STALE_SECONDS
            ]
            observation = observe(histories, speaking, due, percentile=percentile)
            baselines.learn(observation, due, every=stride)
            due += stride
        histories.setdefault(line.sample.pod, History()).add(line.received, line.sample)
    return histories


def _age(history: History, now: float) -> float:
    return now - history.last[0] if history.last else STALE_SECONDS + 1.0


def _expected(names: Sequence[str], told: Sequence[Told], end: float) -> list[str]:
    """The pods that should be speaking at the end. One that fell silent is expected still, unless
    another one came for it, as in a rollout."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for line in told:
        assert line.sample is not None
        first.setdefault(line.sample.pod, line.received)
        last[line.sample.pod] = line.received
    gone = sorted((at, pod) for pod, at in last.items() if end - at > STALE_SECONDS)
    came = [pod for pod, at in first.items() if at - told[0].received > STALE_SECONDS]
    replaced = {pod for _, pod in gone[: len(came)]}
    return [pod for pod in names if pod not in replaced]


def _facts(lines: Sequence[Told], end: float) -> tuple[dict[str, Signal], dict[str, str]]:
    """The last word of the API server on each fact."""
    facts: dict[str, Signal] = {}
    texts: dict[str, str] = {}
    for line in lines:
        age = max(0.0, end - line.received)
        for name, value in (line.facts or {}).items():
            facts[name] = Reading(value, _unit(name), 0.0, "last", age, "API server")
            texts.pop(name, None)
        texts.update(line.texts or {})
    return facts, texts


def _unit(fact: str) -> str:
    room, _, name = fact.partition(".")
    if name.endswith("Seconds"):
        return "s"
    if room == "pods":
        if name == "restarts":
            return "restarts"
        return "containers" if name.startswith(_CONTAINERS) else "pods"
    return "replicas" if fact == "replicas.desired" else ""
