"""The two reports of a trade stand and fall together. Pure.

Neither side keeps the other's state: each looks at the other's report, which is in the API. So any
process can go on with a trade at any point.

- The giver begins when the taker's report is there, and takes its replicas back when the taker
  gave its own up.
- The taker goes by its own verdict, but is not kept before the giver's is: what the giver needs
  back has to be given back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ..api.conditions import Reason
from ..api.report import BottleneckReport, Phase, TradeRole

ANSWER_SECONDS = 60.0
"""How long a giver waits for the taker's report."""

SETTLE_SECONDS = 300.0
"""How long a taker whose action proved right waits for the giver's verdict: a giver that fell
silent is never judged."""


class Side(StrEnum):
    """How the other side's report stands."""

    AWAITED = "Awaited"
    UNDER_WAY = "UnderWay"
    SETTLED = "Settled"
    UNDONE = "Undone"


@dataclass(frozen=True, slots=True)
class OtherSide:
    """The other side of a trade: the policy, its report where it is known, how that stands, and
    the ready replicas of the taker with which the trade is fulfilled."""

    role: TradeRole
    """Of this side."""
    policy: str
    report: str
    side: Side
    ready: int
    sentence: str


def other_side(report: BottleneckReport, others: Iterable[BottleneckReport]) -> OtherSide | None:
    """The other side of a report's trade, None where it is not in one. ``others`` are all reports
    of the namespace, as far as they exist: what is not among them was deleted."""
    own, name = report.spec.trade, report.metadata.name
    others = [other for other in others if other.metadata.name != name]
    if own is not None and own.role is TradeRole.GIVES:
        found = next((r for r in others if _answers(r, report)), None)
        side = Side.UNDONE
        if not own.report and report.status.phase is Phase.PLANNED:
            side = Side.AWAITED
        if found is not None:
            side = _standing(found)
        return OtherSide(
            own.role, own.policy, found.metadata.name if found else "", side, own.ready, own.reason
        )
    gifts = [
        other
        for other in others
        if _answers(report, other)
        # One that never happened is nothing to a growth that would have been there without it.
        and not (own is None and _never_happened(other))
    ]
    gift = max(gifts, key=lambda each: each.spec.decided_at, default=None)
    if gift is None and own is None:
        return None
    if gift is None or gift.spec.trade is None:
        assert own is not None
        # The giver's policy was deleted, and its reports with it. What it gave is there or not.
        return OtherSide(TradeRole.TAKES, own.policy, "", Side.SETTLED, own.ready, own.reason)
    side = Side.UNDONE if _never_happened(gift) else _standing(gift)
    trade = gift.spec.trade
    return OtherSide(
        TradeRole.TAKES,
        gift.spec.policy,
        gift.metadata.name,
        side,
        trade.ready,
        f"{gift.spec.policy} {trade.reason}",
    )


def _answers(taker: BottleneckReport, giver: BottleneckReport) -> bool:
    """Whether these two are the sides of one trade."""
    trade, answer = giver.spec.trade, taker.spec.trade
    if trade is None or trade.role is not TradeRole.GIVES or trade.policy != taker.spec.policy:
        return False
    if trade.report:
        return trade.report == taker.metadata.name
    return (
        answer is not None
        and answer.role is TradeRole.TAKES
        and answer.report == giver.metadata.name
    )


def _never_happened(giver: BottleneckReport) -> bool:
    return giver.status.phase is Phase.ABANDONED and giver.status.applied_at is None


def _standing(report: BottleneckReport) -> Side:
    if report.status.phase in (Phase.REVERTING, Phase.REVERTED):
        return Side.UNDONE
    return Side.UNDER_WAY if report.status.phase.open else Side.SETTLED


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the other side makes of a report: nothing may happen yet (``phase`` None), or it moves
    to a phase for that reason."""

    phase: Phase | None
    reason: Reason
    message: str


def ruling(report: BottleneckReport, other: OtherSide, now: datetime) -> Ruling | None:
    """What follows from the other side before anything else, or None."""
    phase, begun = report.status.phase, report.status.phase is not Phase.PLANNED
    if other.side is Side.UNDONE and phase is not Phase.REVERTING:
        if not begun:
            message = f"{other.policy} has given the trade up"
            return Ruling(Phase.ABANDONED, Reason.ACTION_ABANDONED, message)
        word = "no longer takes it" if other.role is TradeRole.GIVES else "needs it back"
        return Ruling(Phase.REVERTING, Reason.REVERTING, f"{other.policy} {word}")
    if other.role is TradeRole.TAKES or begun:
        return None
    if other.side is Side.SETTLED:
        message = f"{other.policy} does not need it any more"
        return Ruling(Phase.ABANDONED, Reason.ACTION_ABANDONED, message)
    if other.side is Side.AWAITED:
        if (now - report.spec.decided_at).total_seconds() <= ANSWER_SECONDS:
            return Ruling(None, Reason.APPLYING, "")
        message = f"{other.policy} did not answer in {ANSWER_SECONDS:.0f}s"
        return Ruling(Phase.ABANDONED, Reason.ACTION_ABANDONED, message)
    return None


def unsettled(report: BottleneckReport, other: OtherSide, now: datetime) -> bool:
    """Whether a taker that would be kept has to wait for the giver's verdict."""
    if other.role is not TradeRole.TAKES or other.side is not Side.UNDER_WAY:
        return False
    since = report.status.acknowledged_at or report.spec.decided_at
    return (now - since).total_seconds() <= SETTLE_SECONDS
