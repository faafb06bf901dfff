"""The newest samples of each pod, on the operator's clock. Pure data, bounded.

Besides the samples a history keeps the little that would otherwise have to be looked for in all
of them in every turn: when processes came or went, and where each rank stood when it last ended a
step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from operator import itemgetter

from bottleneck_sidecar.wire import Sample, TrainingRank

KEEP_SECONDS = 180.0
"""How far back samples are kept: the longest before-window plus the longest warm-up."""

MAX_SAMPLES = 400
"""Most samples kept of one pod, whatever it sends."""

Received = tuple[float, Sample]
"""A sample, behind the operator's time of its arrival."""

Seat = tuple[str, int]
"""What only one process of a pod can be at a time: a rank of training or a worker of serving."""

_RECEIVED = itemgetter(0)


@dataclass(slots=True)
class History:
    """Samples of one pod, oldest first, each with the operator's time of its arrival.

    Windows are laid out on the operator's clock, so that an action and its effect are compared on
    one time axis even where a node's clock is off.
    """

    samples: deque[Received] = field(default_factory=deque)
    changed: deque[float] = field(default_factory=deque)
    """When a sample had other processes than the one before it; the first one counts as well."""
    restarted: deque[float] = field(default_factory=deque)
    """When a process was gone and another one sat in its seat; one entry for each such seat."""
    progress: dict[str, TrainingRank] = field(default_factory=dict)
    """What each rank (by epoch) said when its steps had last grown."""
    _seats: dict[str, Seat] = field(default_factory=dict)
    """The processes of the newest sample: epoch and seat."""

    def add(self, received: float, sample: Sample) -> bool:
        """Takes a sample; a duplicate or an older one (reordered) is refused with False."""
        if self.samples:
            last_received, last = self.samples[-1]
            # Each stream counts from one; a new agent may also have a clock that was set back.
            later = sample.time > last.time or sample.agent != last.agent
            restarted = sample.sequence < last.sequence and later
            if sample.sequence <= last.sequence and not restarted:
                return False
            received = max(received, last_received)
        self.samples.append((received, sample))
        self._follow(received, sample)
        while self.samples and (
            received - self.samples[0][0] > KEEP_SECONDS or len(self.samples) > MAX_SAMPLES
        ):
            self.samples.popleft()
        oldest = self.samples[0][0]
        for marks in (self.changed, self.restarted):
            while marks and marks[0] < oldest:
                marks.popleft()
        return True

    def _follow(self, received: float, sample: Sample) -> None:
        seats: dict[str, Seat] = {}
        for rank in sample.training:
            seats[rank.epoch] = ("training", rank.rank)
            known = self.progress.get(rank.epoch)
            if known is None or rank.steps != known.steps:
                self.progress[rank.epoch] = rank
        for server in sample.inference:
            seats[server.epoch] = ("inference", server.worker)
        if seats.keys() != self._seats.keys():
            self.changed.append(received)
            taken = set(seats.values())
            for epoch, seat in self._seats.items():
                if epoch not in seats:
                    self.progress.pop(epoch, None)
                    if seat in taken:
                        self.restarted.append(received)
        self._seats = seats

    @property
    def last(self) -> Received | None:
        """The newest sample and when it came."""
        return self.samples[-1] if self.samples else None

    def since(self, start: float, covered: bool) -> list[Received]:
        """The samples from ``start`` on, oldest first; where it should be ``covered`` wholly, also
        the one at or before it."""
        found: list[Received] = []
        for each in reversed(self.samples):
            if each[0] < start or (covered and each[0] == start):
                if covered:
                    found.append(each)
                break
            found.append(each)
        found.reverse()
        return found

    def changed_since(self, moment: float) -> bool:
        """Whether a process came or went after ``moment``."""
        return bool(self.changed) and self.changed[-1] > moment

    def rank_at(self, start: float, epoch: str) -> tuple[float, TrainingRank] | None:
        """The first word of a rank from ``start`` on, or the last one before it: when the agent
        said it, and what."""
        first = max(0, bisect_right(self.samples, start, key=_RECEIVED) - 1)
        for index in range(first, len(self.samples)):
            sample = self.samples[index][1]
            for rank in sample.training:
                if rank.epoch == epoch:
                    return sample.time, rank
        return None
