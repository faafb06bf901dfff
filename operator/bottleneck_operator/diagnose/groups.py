"""Names of causes and effects that several others explain together. Pure data."""

from __future__ import annotations

from .effects import COMPUTE, DEPENDENCY_WAIT, INPUT_WAIT, MODEL_TIME, QUEUE_WAIT, RANKS_WAIT

FLAG = "yes or no"
"""Source of a threshold that needs none."""

DEGRADED = "≥20% slower than its own baseline at the same load counts as degraded"
DCGM = "NVIDIA DCGM profiling metrics, as read by its users' guide"

DATA = ("loader-without-workers", "cpu-heavy-preprocessing", "slow-storage")
COMPUTING = ("host-bound", "precision-unused", "memory-bandwidth-bound", "compute-bound")
OTHERS = ("communication-bound", "slow-dependency", "checkpoint-stalls")
"""Waiting for something outside of the process."""

MODEL = ("batching-delay", "batch-too-large", "slow-model")
SERVING = ("queueing", *MODEL)
EFFECTS_OF_A_SHORTAGE = (
    INPUT_WAIT,
    COMPUTE,
    RANKS_WAIT,
    QUEUE_WAIT,
    MODEL_TIME,
    DEPENDENCY_WAIT,
)

HALF = 0.5
"""A shortage explains a wait only where it is at least half as large (start)."""

SOME = 0.1
"""What a task waits for memory leaves out the time in which it itself looks for pages to drop, so a
smaller part is enough (start)."""
