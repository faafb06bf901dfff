"""Splits the time of one thread into slots, without gaps or overlaps.

The time since the last mark belongs to the present slot, so that the slots add up to the time that
has passed. The same marks split the CPU time of the thread.

Asking for the CPU time is a system call, which makes the work after it slower too. So of short
steps only one in several is asked, each one for all of its block: which one is drawn by lot, so
that nothing regular in the steps can hide between the samples.
"""

from __future__ import annotations

import random
import time

from bottleneck_sidecar.wire import PHASES

INDEX = {name: index for index, name in enumerate(PHASES)}
DATA, FORWARD = INDEX["data"], INDEX["forward"]
BACKWARD, OPTIMIZER = INDEX["backward"], INDEX["optimizer"]
COLLECTIVE, OTHER = INDEX["collective"], INDEX["other"]

CHECKPOINT = len(PHASES)
EVALUATION = CHECKPOINT + 1
LONG = {CHECKPOINT: "checkpoint", EVALUATION: "evaluation"}
"""Slots from ``CHECKPOINT`` on belong to no step. Nothing within them counts as part of one: a
batch that an evaluation waits for is no delay of training."""

SAMPLE_SECONDS = 0.1
"""A block of steps whose CPU time is taken from one of them is about so long."""

MAX_BLOCK = 10


class Clock:
    """For the thread that made it only. ``seconds`` and ``cpu_seconds`` have one entry per slot."""

    __slots__ = (
        "_begun",
        "_block",
        "_cpu_mark",
        "_drawn",
        "_lots",
        "_position",
        "_sampled",
        "_stack",
        "cpu_seconds",
        "held",
        "mark",
        "seconds",
        "slot",
    )

    def __init__(self) -> None:
        self.seconds = [0.0] * (EVALUATION + 1)
        self.cpu_seconds = [0.0] * (EVALUATION + 1)
        self.slot = OTHER
        self.held = 0
        """How many of the open slots were opened by the user's own contexts."""
        self._stack: list[int] = []
        self.mark = -1.0
        """When the last switch was (``perf_counter``); negative before the first."""
        self._cpu_mark = 0.0
        self._lots = random.Random()  # noqa: S311 - the script's own random numbers stay as they are
        self._block, self._position, self._drawn = 1, 0, 0
        self._sampled = True
        """Whether the CPU time of this step is asked; so it is before the first mark."""
        self._begun = -1.0

    def switch(self, slot: int) -> float:
        """From now on the time belongs to ``slot``. Returns now."""
        now = time.perf_counter()
        if self.mark >= 0:
            self.seconds[self.slot] += now - self.mark
        if self._sampled:
            cpu = time.thread_time()
            if self.mark >= 0:
                self.cpu_seconds[self.slot] += (cpu - self._cpu_mark) * self._block
            self._cpu_mark = cpu
        self.mark = now
        self.slot = slot
        return now

    def enter(self, slot: int, user: bool = False) -> None:
        """Opens a slot within the present one."""
        present = self.slot
        if user:
            self.held += 1
            self._stack.append(~present)
        else:
            self._stack.append(present)
        if slot == present or slot < CHECKPOINT <= present:
            return
        if self._sampled:
            self.switch(slot)
            return
        # What switch() does, without calling it: these lines run several times in every step.
        now = time.perf_counter()
        self.seconds[present] += now - self.mark
        self.mark = now
        self.slot = slot

    def leave(self) -> None:
        """Goes back to the slot around the present one."""
        before = self._stack.pop() if self._stack else OTHER  # empty if the step ended within it
        if before < 0:
            self.held = max(0, self.held - 1)
            before = ~before
        if before == self.slot:
            return
        if self._sampled:
            self.switch(before)
            return
        now = time.perf_counter()
        self.seconds[self.slot] += now - self.mark
        self.mark = now
        self.slot = before

    def end_step(self) -> float:
        """Leaves everything that is open. Returns now."""
        self._stack.clear()
        self.held = 0
        before = self._sampled
        if before:
            now = self.switch(OTHER)
        else:
            now = time.perf_counter()
            self.seconds[self.slot] += now - self.mark
            self.mark = now
            self.slot = OTHER
        self._position += 1
        if self._position >= self._block:
            self._next_block(now)
        self._sampled = self._position == self._drawn
        if self._sampled and not before:
            self._cpu_mark = time.thread_time()
        return now

    def _next_block(self, now: float) -> None:
        step = (now - self._begun) / self._block if self._begun >= 0 else SAMPLE_SECONDS
        self._begun = now
        self._block = min(MAX_BLOCK, max(1, round(SAMPLE_SECONDS / max(step, 1e-6))))
        self._position = 0
        self._drawn = self._lots.randrange(self._block)

    def other(self) -> tuple[float, float]:
        """Seconds and CPU seconds that belonged to no phase up to now."""
        self.switch(self.slot)
        return self.seconds[OTHER], self.cpu_seconds[OTHER]

    def name_other(self, before: tuple[float, float], slot: int) -> tuple[float, float]:
        """Gives to ``slot`` what belonged to no phase since ``other`` said ``before``. Returns what
        it says now."""
        self.switch(self.slot)
        for figures, told in zip((self.seconds, self.cpu_seconds), before, strict=True):
            figures[slot] += figures[OTHER] - told
            figures[OTHER] = told
        return before

    def since(self, at: float, cpu: float | None, slot: int) -> None:
        """Gives what has passed since ``at`` (a reading of ``perf_counter``, ``cpu`` one of
        ``thread_time`` of this thread) to ``slot`` instead of the present one."""
        present = self.slot
        if self.mark < 0 or at < self.mark or present >= CHECKPOINT:
            return
        self.seconds[present] += at - self.mark
        self.mark = at
        if self._sampled:
            if cpu is None:  # seen by another thread, while this one waited
                cpu = time.thread_time()
            self.cpu_seconds[present] += (cpu - self._cpu_mark) * self._block
            self._cpu_mark = cpu
        self.slot = slot
        self.switch(present)
