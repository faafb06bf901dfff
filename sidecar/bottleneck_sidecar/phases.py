"""The contexts by which a script says what it is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottleneck_sidecar.clock import Clock

if TYPE_CHECKING:
    from bottleneck_sidecar.training import StepMonitor


class Phase:
    """A reusable context for one slot of the clock."""

    __slots__ = ("_clock", "_slot")

    def __init__(self, clock: Clock, slot: int) -> None:
        self._clock = clock
        self._slot = slot

    def __enter__(self) -> None:
        self._clock.enter(self._slot, True)

    def __exit__(self, *_: object) -> None:
        self._clock.leave()


class LongPhase:
    """The same for what can take minutes: it is told when it begins and when it ends, so that
    nobody takes the silence between for a hang."""

    __slots__ = ("_monitor", "_slot")

    def __init__(self, monitor: StepMonitor, slot: int) -> None:
        self._monitor = monitor
        self._slot = slot

    def __enter__(self) -> None:
        clock = self._monitor.clock
        before = clock.slot
        clock.enter(self._slot, user=True)
        self._tell(before)

    def __exit__(self, *_: object) -> None:
        clock = self._monitor.clock
        before = clock.slot
        clock.leave()
        self._tell(before)

    def _tell(self, before: int) -> None:
        monitor = self._monitor
        if monitor.clock.slot != before and monitor.enabled:
            monitor._report(monitor.clock.mark)


class Nothing:
    """What the contexts are without a monitor."""

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


NOTHING = Nothing()
