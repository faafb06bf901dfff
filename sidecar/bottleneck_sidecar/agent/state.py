"""What the agent knows: the newest report of every process of the pod, as one sample."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bottleneck_sidecar import wire
from bottleneck_sidecar.client import new_epoch
from bottleneck_sidecar.wire import (
    Acknowledgement,
    Container,
    Gate,
    Gpu,
    Report,
    Sample,
    WireError,
)

MAX_REPORT_BYTES = 16 * 1024
"""Longest datagram that is read; a real one has about 1 KiB."""

MAX_PROCESSES = 64
"""Processes of one pod that are remembered; the ones silent for longest give way."""

SILENT_SECONDS = 600.0
"""A process silent for longer is forgotten. Long, because a training step or a checkpoint can take
minutes; the reader sees from ``ages`` how old each part is."""

SUPERSEDED_SECONDS = 5.0
"""A process silent for longer is forgotten at once if another one has taken its rank or worker
number: it was restarted."""

CONTAINER_SECONDS = 1.0
"""Least time between two readings of the fallback for container and GPUs."""


@dataclass(slots=True)
class _Process:
    report: Report
    heard_at: float
    """Seconds of the monotonic clock."""
    container: Container | None = None
    gpus: list[Gpu] | None = None

    @property
    def epoch(self) -> str:
        part = self.report.training or self.report.inference
        return part.epoch if part is not None else ""

    @property
    def seat(self) -> tuple[str, int]:
        """What only one process at a time can be: a rank, or a server's worker."""
        training, inference = self.report.training, self.report.inference
        if training is not None:
            return ("training", training.rank)
        return ("inference", inference.worker if inference is not None else 0)

    @property
    def acknowledgement(self) -> Acknowledgement | None:
        part = self.report.training or self.report.inference
        return part.acknowledgement if part is not None else None


@dataclass(frozen=True, slots=True)
class Identity:
    """Which agent of which pod speaks. ``agent`` names one life of the agent."""

    agent: str
    pod: str
    namespace: str
    uid: str

    @classmethod
    def of_this_pod(cls) -> Identity:
        """As the downward API tells it."""
        return cls(
            agent=new_epoch(),
            pod=os.environ.get("POD_NAME") or socket.gethostname(),
            namespace=os.environ.get("POD_NAMESPACE", ""),
            uid=os.environ.get("POD_UID", ""),
        )


class State:
    """Thread-safe. ``find_container`` and ``find_gpus`` are asked, at most once a second, while no
    process reports such figures itself."""

    def __init__(
        self,
        identity: Identity,
        find_container: Callable[[], Container | None] = lambda: None,
        find_gpus: Callable[[], list[Gpu]] = list,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self.reports = 0
        self.bad_reports = 0
        self.forgotten = 0
        self._find_container = find_container
        self._find_gpus = find_gpus
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._processes: dict[str, _Process] = {}
        self._found: tuple[Container | None, list[Gpu]] = (None, [])
        self._found_at = float("-inf")
        self._gate: tuple[float, Gate] | None = None

    def tell(self, gate: Gate) -> None:
        """Takes the newest figures of the gate whose process this is."""
        self._gate = self._monotonic(), gate

    def receive(self, data: bytes) -> bool:
        """Takes one datagram in; True if it brought a new acknowledgement.

        Raises ``WireError`` (and counts) for anything that is not a report.
        """
        try:
            if len(data) > MAX_REPORT_BYTES:
                raise WireError(f"longer than {MAX_REPORT_BYTES} bytes")
            process = _Process(wire.decode_report(data), self._monotonic())
            if not process.epoch:
                raise WireError("epoch: empty")
        except WireError:
            with self._lock:
                self.bad_reports += 1
            raise
        process.container, process.gpus = process.report.container, process.report.gpus
        with self._lock:
            self.reports += 1
            before = self._processes.get(process.epoch)
            if before is not None:
                process.container = process.container or before.container
                process.gpus = before.gpus if process.gpus is None else process.gpus
            self._processes[process.epoch] = process
            self._forget(process.heard_at)
        answer = process.acknowledgement
        return answer is not None and (before is None or before.acknowledgement != answer)

    def sample(self, sequence: int = 0) -> Sample:
        """All that is known now."""
        now = self._monotonic()
        with self._lock:
            self._forget(now)
            processes = sorted(self._processes.values(), key=lambda each: (each.seat, each.epoch))
        return self._merge(processes, now, sequence)

    def line(self, sequence: int) -> tuple[Sample, bytes]:
        """All that is known now, and as a line without its end. Forgets the processes silent for
        longest where that would be longer than a reader takes."""
        while True:
            sample = self.sample(sequence)
            line = wire.encode(sample)
            if len(line) <= wire.MAX_BYTES or not sample.ages:
                return sample, line
            with self._lock:
                self._drop(max(sample.ages, key=sample.ages.__getitem__))

    def _merge(self, processes: list[_Process], now: float, sequence: int) -> Sample:
        container, gpus = _container(processes), _gpus(processes)
        if (container is None or not gpus) and now - self._found_at >= CONTAINER_SECONDS:
            self._found_at = now
            self._found = self._find_container(), self._find_gpus()
        ages = {each.epoch: round(max(0.0, now - each.heard_at), 6) for each in processes}
        told = self._gate
        if told is not None:
            ages[told[1].epoch] = round(max(0.0, now - told[0]), 6)
        return Sample(
            version=wire.VERSION,
            time=time.time(),
            sequence=sequence,
            agent=self.identity.agent,
            pod=self.identity.pod,
            namespace=self.identity.namespace,
            uid=self.identity.uid,
            container=container or self._found[0],
            gpus=gpus or self._found[1],
            training=[each.report.training for each in processes if each.report.training],
            inference=[each.report.inference for each in processes if each.report.inference],
            ages=ages,
            gate=None if told is None else told[1],
        )

    def _forget(self, now: float) -> None:
        newest: dict[tuple[str, int], _Process] = {}
        for each in self._processes.values():
            known = newest.get(each.seat)
            if known is None or each.heard_at >= known.heard_at:
                newest[each.seat] = each
        for each in list(self._processes.values()):
            silent = now - each.heard_at
            superseded = newest[each.seat] is not each and silent > SUPERSEDED_SECONDS
            if silent > SILENT_SECONDS or superseded:
                self._drop(each.epoch)
        while len(self._processes) > MAX_PROCESSES:
            everything = list(self._processes.values())
            self._drop(everything[_oldest(everything)].epoch)

    def _drop(self, epoch: str) -> None:
        if self._processes.pop(epoch, None) is not None:
            self.forgotten += 1


def _oldest(processes: list[_Process]) -> int:
    return min(range(len(processes)), key=lambda index: processes[index].heard_at)


def _container(processes: list[_Process]) -> Container | None:
    """The container of the first process that tells of one, in its newest reading by anyone.

    Ranks of one container all read the same counters: only the newest reading never goes back."""
    telling = [each for each in processes if each.container is not None]
    if not telling:
        return None
    first = telling[0].container
    same = [
        each for each in telling if each.container and first and each.container.epoch == first.epoch
    ]
    return max(same, key=lambda each: each.heard_at).container


def _gpus(processes: list[_Process]) -> list[Gpu]:
    """Every device once, in its newest reading."""
    newest: dict[str, Gpu] = {}
    for each in sorted(processes, key=lambda each: each.heard_at):
        newest.update({gpu.uuid: gpu for gpu in each.gpus or []})
    return sorted(newest.values(), key=lambda gpu: (gpu.index, gpu.uuid))[: wire.MAX_ITEMS]
