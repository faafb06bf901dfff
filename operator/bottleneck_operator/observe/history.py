"""The newest samples of each pod, on the operator's clock. Pure data, bounded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from bottleneck_sidecar.wire import Sample

KEEP_SECONDS = 180.0
"""How far back samples are kept: the longest before-window plus the longest warm-up."""

MAX_SAMPLES = 400
"""Most samples kept of one pod, whatever it sends."""


@dataclass(slots=True)
class History:
    """Samples of one pod, oldest first, each with the operator's time of its arrival.

    Windows are laid out on the operator's clock, so that an action and its effect are compared on
    one time axis even where a node's clock is off.
    """

    samples: deque[tuple[float, Sample]] = field(default_factory=deque)

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
        while self.samples and (
            received - self.samples[0][0] > KEEP_SECONDS or len(self.samples) > MAX_SAMPLES
        ):
            self.samples.popleft()
        return True

    @property
    def last(self) -> tuple[float, Sample] | None:
        """The newest sample and when it came."""
        return self.samples[-1] if self.samples else None
