"""People's wish to take an action back: an annotation on its report, which the operator answers.
Pure; the undoing itself is that of any other action."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..api.conditions import ROLLBACK_ANNOTATION, Reason
from ..api.consequences import Rollback
from ..api.report import Action, BottleneckReport, Phase
from ..observe.documents import clean
from .effects.standing import Progress
from .restored import State, differences


@dataclass(frozen=True, slots=True)
class Wish:
    """Who asked, and when, in the words of the request: anybody who may write the report can write
    anything there. The API server's audit log knows who it was."""

    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a wish: the phase to move to (the same one where it is refused)."""

    phase: Phase
    reason: Reason
    message: str
    rollback: Rollback


def annotation(by: str, at: str) -> str:
    """The annotation's value."""
    return json.dumps({"by": by, "at": at}, ensure_ascii=False)


def wish_of(report: BottleneckReport) -> Wish | None:
    """The wish that is not answered yet, None without one. Once one was granted there is nothing
    more to wish."""
    text = report.metadata.annotations.get(ROLLBACK_ANNOTATION)
    if text is None:
        return None
    try:
        found = json.loads(text[:1024])
    except (ValueError, RecursionError):
        found = None
    fields = found if isinstance(found, dict) else {}
    wish = Wish(clean(fields.get("by"), 128) or "somebody", clean(fields.get("at"), 64))
    answered = report.status.rollback
    if answered is None:
        return wish
    again = (answered.by, answered.requested) == (wish.by, wish.at)
    return None if again or not answered.refused else wish


def answer(report: BottleneckReport, progress: Progress, now: datetime) -> Answer | None:
    """What to do about a wish now; None where there is none, or where it waits for an action that
    is being judged: undoing another one meanwhile would be taken for its doing."""
    wish = wish_of(report)
    if wish is None:
        return None
    phase, action = report.status.phase, report.spec.action
    refusal = standing_against(report, progress.built_upon)
    if not refusal and action is not None and phase is Phase.KEPT:
        if progress.target_gone:
            refusal = "the target no longer exists"
        elif found := differences(action, State.AFTER, progress):
            refusal = f"somebody else has changed it since: {'; '.join(found)}"
    if refusal:
        refused = _rollback(wish, now, refused=refusal)
        message = f"not taken back, as {wish.by} asked: {refusal}"
        return Answer(phase, Reason.ROLLBACK_REFUSED, message, refused)
    if phase is Phase.KEPT and progress.another_open:
        return None
    message = f"taken back, as {wish.by} asked"
    # Of one that is only planned the effect may be there already: a process may have died before it
    # wrote that down. Undoing what was never done changes nothing.
    done = _rollback(wish, now, generation=progress.issued_generation + 1)
    return Answer(Phase.REVERTING, Reason.ROLLED_BACK, message, done)


def standing_against(report: BottleneckReport, built_upon: str) -> str:
    """Why an action cannot be taken back, from the reports alone; empty where it can."""
    phase, name = report.status.phase, report.metadata.name
    if report.spec.action is None or phase in (Phase.OBSERVED, Phase.RECOMMENDED):
        return f"{name} is {phase}: nothing was done that could be taken back"
    if phase in (Phase.REVERTING, Phase.REVERTED):
        return f"{name} is {phase} already"
    if phase is Phase.ABANDONED:
        return f"{name} is {phase}: it was given up, and what there is now is not its doing"
    if built_upon:
        return f"{built_upon} builds on it; take that one back first"
    if phase is Phase.KEPT and report.spec.trade is not None:
        return (
            f"it is one side of a trade with {report.spec.trade.policy}, which has the devices by"
            " now; to move them, change the policies' priorities or bounds"
        )
    return ""


def built_upon(report: BottleneckReport, known: Iterable[BottleneckReport]) -> str:
    """The name of the newest later report that changed the same thing, and stands; empty without
    one. Taking this one back would take that one away, too."""
    if report.spec.action is None:
        return ""
    thing, found = _thing(report.spec.action), ""
    for other in sorted(known, key=lambda each: each.spec.decided_at):
        phase, action = other.status.phase, other.spec.action
        later = other.spec.decided_at > report.spec.decided_at
        stands = phase is Phase.KEPT or phase.open
        if later and stands and action is not None and _thing(action) == thing:
            found = other.metadata.name
    return found


def _thing(action: Action) -> tuple[str, ...]:
    """What an action changes; the knobs of a process go together."""
    if action.knobs is not None:
        return ("knobs",)
    if action.resources is not None:
        return ("resources", action.resources.container)
    if action.image is not None:
        return ("image", action.image.container)
    return ("replicas",)


def _rollback(wish: Wish, now: datetime, refused: str = "", generation: int = 0) -> Rollback:
    return Rollback(
        by=wish.by, requested=wish.at, answered_at=now, refused=refused, generation=generation
    )


def as_issued(report: BottleneckReport) -> Action | None:
    """The report's action. Knobs that people take back come back with a generation of their own:
    later actions have come and gone, and their numbers with them."""
    action, taken = report.spec.action, report.status.rollback
    if action is None or action.knobs is None or taken is None or not taken.generation:
        return action
    knobs = action.knobs.model_copy(update={"generation": taken.generation - 1})
    return action.model_copy(update={"knobs": knobs})
