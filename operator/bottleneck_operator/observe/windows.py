"""From counters to signals: differences over a window, for each replica and over all. Pure.

A figure over all replicas is a ratio of sums, never a mean of ratios: a rank that did twice the
steps counts twice. A percentile comes from the merged latency buckets. The signals themselves are
made in ``training_signals``, ``serving_signals``, ``container_signals`` and ``gpu_signals``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from bottleneck_sidecar.wire import InferenceServer, TrainingRank

from .container_signals import container
from .counters import STALE_SECONDS
from .documents import clean
from .gpu_signals import gpu, hardware
from .history import History
from .observation import NoData, Observation, Rank, Replica, Signal, WorkloadType
from .pod_window import WINDOW_SECONDS, Figures, PodWindow, oldest, pod_window
from .serving_signals import inference
from .training_signals import training

__all__ = ["WINDOW_SECONDS", "observe"]


def observe(
    histories: Mapping[str, History],
    expected: Sequence[str],
    now: float,
    percentile: int = 95,
    window: float = WINDOW_SECONDS,
    since: float | None = None,
) -> Observation:
    """The observation at ``now`` of the pods named in ``expected``; each is looked up in
    ``histories``. Nothing from before ``since`` is read (on the operator's clock), but for what is
    usual. A pod that is expected and silent leaves the workload's signals without data: a
    judgement on a part of the replicas would be a judgement on another workload."""
    fresh: dict[str, History] = {}
    silent: list[str] = []
    for pod in expected:
        history = histories.get(pod)
        if history is not None and history.last and now - history.last[0] <= STALE_SECONDS:
            fresh[pod] = history
        else:
            silent.append(pod)
    parts = [
        pod_window(number, history, now, window, since)
        for number, history in enumerate(fresh.values())
    ]
    replicas = tuple(
        Replica(pod, WhenAsked(partial(_signals, [part], now, percentile)))
        for pod, part in zip(fresh, parts, strict=True)
    )
    if not expected:
        signals: Mapping[str, Signal] = {}
    elif silent:
        missing = NoData(
            f"{len(silent)} of {len(expected)} replicas are silent, {silent[0]} among them"
        )
        names = {name for replica in replicas for name in replica.signals}
        signals = dict.fromkeys(names, missing)
    elif len(replicas) == 1:
        signals = dict(replicas[0].signals)
    else:
        signals = _signals(parts, now, percentile)
    newest = max((h.last[0] for h in fresh.values() if h.last), default=None)
    return Observation(
        time=now,
        type=_type(fresh.values()),
        signals=signals,
        replicas=replicas,
        ranks=tuple(_ranks(fresh, now)),
        expected=len(expected),
        streaming=len(fresh),
        newest=newest,
    )


class WhenAsked(Mapping[str, Signal]):
    """Signals that are made when somebody looks: those of a single replica seldom matter. They are
    of the moment of the observation, whenever that is."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Mapping[str, Signal]]) -> None:
        self._make = make
        self._made: Mapping[str, Signal] | None = None

    @property
    def made(self) -> Mapping[str, Signal]:
        """The signals."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> Signal:
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)


def _type(histories: Iterable[History]) -> WorkloadType:
    for history in histories:
        if history.last and history.last[1].training:
            return WorkloadType.TRAINING
        if history.last and history.last[1].inference:
            return WorkloadType.INFERENCE
    return WorkloadType.UNKNOWN


def _ranks(fresh: Mapping[str, History], now: float) -> Iterable[Rank]:
    for pod, history in fresh.items():
        if history.last is None:
            continue
        received, sample = history.last
        processes: list[TrainingRank | InferenceServer] = [*sample.training, *sample.inference]
        for process in processes:
            ack = process.acknowledgement
            yield Rank(
                pod=pod,
                epoch=process.epoch,
                rank=process.rank if isinstance(process, TrainingRank) else process.worker,
                knobs=process.knobs or {},
                settable=frozenset(process.settable or ()),
                generation=ack.generation if ack else None,
                result=ack.result if ack else "",
                message=clean(ack.message) if ack else "",
                fresh=now - received + sample.ages.get(process.epoch, 0.0) <= STALE_SECONDS,
                world_size=process.world_size if isinstance(process, TrainingRank) else None,
            )


def _signals(parts: Sequence[PodWindow], now: float, percentile: int) -> dict[str, Signal]:
    """Signals over the given pods together."""
    figures = Figures(oldest(parts, now))
    if any(part.ranks for part in parts):
        training(figures, parts, now)
    if any(part.newest and part.newest.inference for part in parts):
        inference(figures, parts, percentile)
    container(figures, parts)
    gpu(figures, parts)
    hardware(figures, parts)
    return figures.signals
