"""What became of earlier actions, in little: it outlives the reports that it was taken from."""

from __future__ import annotations

from pydantic import Field

from .consequences import Circumstances
from .meta import Model, Time

MOST_MISSES = 16
MOST_COUNTED = 256


class LedgerEntry(Model):
    """Outcomes of one type of action against one cause. A policy has one workload."""

    cause: str = Field(max_length=63, description="The cause's id in the catalogue.")
    type: str = Field(max_length=63, description="Type of the action.")
    aim: str = Field(max_length=63, description="Improve or Save.")
    hits: int = Field(0, ge=0, description="Actions that did what they were for.")
    misses: int = Field(0, ge=0, description="Actions that were judged and did not.")
    reverts: int = Field(0, ge=0, description="Actions that the operator has undone.")
    compared: int = Field(
        0, ge=0, description="Hits and misses that had a prediction to compare with."
    )
    realised: float = Field(
        0, ge=0, description="Sum of the parts of those predicted gains that came true."
    )


class Miss(Model):
    """An action that did not help, and under what it was tried."""

    report: str
    change: str = Field(max_length=512, description="What was changed against what.")
    result: str
    policy_generation: int = Field(0, ge=0)
    circumstances: Circumstances | None = None
    closed_at: Time


class Ledger(Model):
    """Every closed action, counted once."""

    entries: list[LedgerEntry] = Field(default_factory=list, max_length=64)
    misses: list[Miss] = Field(
        default_factory=list,
        max_length=MOST_MISSES,
        description="The newest ones, oldest first; they are not tried again until something"
        " changes.",
    )
    counted: list[str] = Field(
        default_factory=list,
        max_length=MOST_COUNTED,
        description="Reports that are in the figures above. A report is deleted only after that.",
    )
