"""An action that begins on some of the replicas, as its report has it."""

from __future__ import annotations

from pydantic import Field

from .meta import Model, Time

MOST_TREATED = 100
"""Most replicas that an action begins on: more tell no more, and a report is no place for lists of
thousands."""


class Treated(Model):
    """A pod that is acted on first. The uid tells it from a later pod of its name."""

    name: str
    uid: str


class Split(Model):
    """On which replicas an action begins. The others stay as they are until it is judged against
    them. It is written before the first of them is changed."""

    treated: list[Treated] = Field(min_length=1, max_length=MOST_TREATED)
    at: Time = Field(description="When they were chosen; pods that started later are in no part.")
    treated_before: list[float] = Field(
        default_factory=list, description="Their metric before, one figure per bin."
    )
    untouched_before: list[float] = Field(
        default_factory=list, description="That of the others in the same bins."
    )
    chosen: int = Field(1, ge=1, description="How often some were chosen: pods can go away.")

    @property
    def names(self) -> str:
        """The treated pods in a few words."""
        names = [pod.name for pod in self.treated]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more
