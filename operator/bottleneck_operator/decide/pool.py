"""Who of a pool gives devices to whom. Pure.

Somebody's objective is breached, and replicas of it wait because no node has a device left. Then
one policy of the pool may give some of its own: one that has devices to spare, else one of lower
priority, and of those the one that loses least by it. At most one trade is under way in a pool.

Nothing goes back and forth. A giver is predicted to meet its objectives afterwards, so it is not
the next one in need; and who has taken gives nothing to anybody for ``HOLD_SECONDS``, so that no
chain of trades comes back to where it began, whatever the loads do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from .guards import REGRET_SECONDS
from .marginal import Forecast
from .remedies.common import WORTH

HOLD_SECONDS = 600.0
"""How long after a trade its taker gives nothing: ten times the longest verification."""

SHORT_SECONDS = 10.0
"""How long a replica has to wait for a device before one is taken from somebody else: a pod that is
being replaced leaves its own in that time."""

COMFORT = 0.8
"""What can be spared: with fewer replicas every objective is predicted to keep a fifth of room."""

BARELY = 1 / WORTH
"""What one of lower priority is left with: its objectives, and the least change that counts."""

CHECKPOINT_SECONDS = 30.0
"""How young the last checkpoint of a training giver has to be: all work since then is lost with a
rank that goes."""

HEARD_SECONDS = 15.0
"""How old what is known of a member may be: three readings of its target."""

MOST = 16
"""Most replicas of one trade."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """Replicas that wait for a device: how many, of which extended resource, since when (seconds
    since the Unix epoch), and who says so in which words."""

    pending: int
    resource: str
    since: float
    words: str


@dataclass(frozen=True, slots=True)
class Member:
    """One policy of a pool at ``time`` (seconds since the Unix epoch).

    ``devices`` are those of one replica, by extended resource. ``breached`` is None without data.
    ``forecast`` predicts the workload with another number of replicas. ``no_giver`` and
    ``no_taker`` say why it may not give or take, in words for people, empty where it may.
    ``disruptions`` is what PodDisruptionBudgets leave, None while they have not been asked.
    ``since_checkpoint`` in seconds; None where no checkpoint was seen.
    """

    policy: str
    time: float
    priority: int
    minimum: int
    replicas: int
    ready: int
    breached: bool | None
    forecast: Callable[[int], Forecast | None]
    devices: Mapping[str, float] = field(default_factory=dict)
    shortage: Shortage | None = None
    no_giver: str = ""
    no_taker: str = ""
    disruptions: int | None = None
    training: bool = False
    since_checkpoint: float | None = None
    trouble: str = ""
    """The breached objective in words."""


@dataclass(frozen=True, slots=True)
class Past:
    """A trade that was made at ``at``, or is under way. ``failed`` names the policy for whose sake
    it was undone."""

    giver: str
    taker: str
    at: float
    under_way: bool = False
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A trade: ``gives`` replicas of one policy for ``gains`` of the other, ``devices`` of
    ``resource`` in all. ``before`` and ``after`` are the giver's forecasts."""

    giver: str
    taker: str
    gives: int
    gains: int
    devices: float
    resource: str
    before: Forecast
    after: Forecast
    ready: int
    """Ready replicas that the taker has afterwards."""
    surplus: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The one trade to make now, if any, and for each policy that stays short why each of the
    others gives it nothing, or under its own name why it may not take."""

    exchange: Exchange | None = None
    refusals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def short(member: Member, now: float) -> bool:
    """Whether it is breached and has waited long enough for a device."""
    lack = member.shortage
    return bool(member.breached and lack and lack.pending > 0 and now - lack.since >= SHORT_SECONDS)


def settle(members: Sequence[Member], past: Sequence[Past], now: float) -> Answer:
    """The pool's answer to those that are short, the most important and longest waiting first.
    ``now`` in seconds since the Unix epoch."""
    refusals: dict[str, Mapping[str, str]] = {}
    waiting = [member for member in members if short(member, now)]
    for taker in sorted(waiting, key=_urgency):
        why = _may_not_take(taker, past, now)
        if why:
            refusals[taker.policy] = {taker.policy: why}
            continue
        offers: list[Exchange] = []
        reasons: dict[str, str] = {}
        for giver in members:
            if giver.policy == taker.policy:
                continue
            found = _may_not_give(giver, past, now) or _offer(giver, taker)
            if isinstance(found, Exchange):
                offers.append(found)
            else:
                reasons[giver.policy] = found
        if offers:
            priority = {member.policy: member.priority for member in members}
            best = min(offers, key=lambda offer: _price(offer, priority[offer.giver]))
            return Answer(best, refusals)
        refusals[taker.policy] = reasons
    return Answer(None, refusals)


def _urgency(member: Member) -> tuple[int, float, str]:
    since = member.shortage.since if member.shortage else math.inf
    return -member.priority, since, member.policy


def _price(offer: Exchange, priority: int) -> tuple[bool, float, int, str]:
    """What can be spared before what hurts, then the least loss for each device."""
    loss = (offer.after.strain - offer.before.strain) / offer.devices
    return not offer.surplus, loss, priority, offer.giver


def _may_not_take(taker: Member, past: Sequence[Past], now: float) -> str:
    lack = taker.shortage
    assert lack is not None
    if any(trade.under_way for trade in past):
        return "another trade of the pool is under way"
    if now - taker.time > HEARD_SECONDS:
        return f"nothing was heard of it for {now - taker.time:.0f}s"
    if taker.no_taker:
        return taker.no_taker
    if not taker.devices.get(lack.resource):
        return f"its pods do not say how many {lack.resource} they take"
    if any(trade.failed == taker.policy and now - trade.at < REGRET_SECONDS for trade in past):
        return "what it took last did not help it"
    present, more = taker.forecast(taker.ready), taker.forecast(taker.ready + 1)
    if present is None or more is None:
        return "it cannot be told what one more replica would do"
    if more.strain * WORTH > present.strain:
        return f"one more replica is not predicted to help: {more.text}, {present.text} now"
    return ""


def _may_not_give(giver: Member, past: Sequence[Past], now: float) -> str:
    """Why a member gives nothing to anybody now, or nothing."""
    if now - giver.time > HEARD_SECONDS:
        return f"nothing was heard of it for {now - giver.time:.0f}s"
    if giver.breached is None:
        return "it has no data"
    if giver.breached:
        return "its own objectives are breached"
    if giver.no_giver:
        return giver.no_giver
    for trade in past:
        ago = now - trade.at
        if trade.taker == giver.policy and not trade.failed and ago < HOLD_SECONDS:
            return f"it took from {trade.giver} {ago:.0f}s ago and keeps that for a while"
        if trade.giver == trade.failed == giver.policy and ago < REGRET_SECONDS:
            return f"what it gave to {trade.taker} {ago:.0f}s ago had to be given back"
    if giver.training and giver.since_checkpoint is None:
        return "no checkpoint of it was seen"
    if giver.training and (giver.since_checkpoint or 0.0) > CHECKPOINT_SECONDS:
        return f"its last checkpoint is {giver.since_checkpoint:.0f}s old; it gives after the next"
    return ""


def _offer(giver: Member, taker: Member) -> Exchange | str:
    """The most that a member can give of what is needed, or why it is nothing."""
    lack = taker.shortage
    assert lack is not None
    own = giver.devices.get(lack.resource, 0.0)
    if own <= 0:
        return f"its replicas have no {lack.resource}"
    if giver.ready < giver.replicas:
        return f"only {giver.ready} of its {giver.replicas} replicas are ready"
    least = max(1, giver.minimum)
    if giver.replicas <= least:
        return f"it has {giver.replicas} replicas, its minimum is {least}"
    before = giver.forecast(giver.replicas)
    if before is None:
        return "it cannot be told how it would do with fewer replicas"
    each = taker.devices[lack.resource]
    why = ""
    made: list[tuple[bool, Exchange]] = []
    for gains, gives in _sizes(_needed(taker), each, own):
        if giver.replicas - gives < least:
            why = why or f"with {gives} fewer it would be below its minimum of {least}"
            continue
        if giver.disruptions is not None and giver.disruptions < gives:
            allowed = giver.disruptions
            why = f"its PodDisruptionBudget allows {allowed} of {gives} pods to go"
            continue
        after = giver.forecast(giver.replicas - gives)
        if after is None:
            return "it cannot be told how it would do with fewer replicas"
        surplus = after.strain <= COMFORT
        if surplus or (giver.priority < taker.priority and after.strain <= BARELY):
            made.append((surplus, _exchange(giver, taker, (gives, gains), before, after)))
        elif giver.priority >= taker.priority:
            why = f"its priority {giver.priority} is not lower, and it has none to spare: "
            why += f"with {gives} fewer {after.text}"
        else:
            why = f"with {gives} fewer it would not meet its own objective: {after.text}"
    if not made:
        return why
    return max(made, key=itemgetter(0))[1]


def _needed(taker: Member) -> int:
    """Replicas that the taker needs: of those that wait as many as meet its objectives."""
    lack = taker.shortage
    assert lack is not None
    most = min(lack.pending, MOST)
    for gains in range(1, most):
        found = taker.forecast(taker.ready + gains)
        if found is not None and found.strain <= 1:
            return gains
    return most


def _sizes(needed: int, each: float, own: float) -> Iterator[tuple[int, int]]:
    """Replicas gained and replicas given for them, the largest trade first."""
    return ((gains, math.ceil(gains * each / own - 1e-9)) for gains in range(needed, 0, -1))


def _exchange(
    giver: Member, taker: Member, sizes: tuple[int, int], before: Forecast, after: Forecast
) -> Exchange:
    lack = taker.shortage
    assert lack is not None
    gives, gains = sizes
    devices = gives * giver.devices[lack.resource]
    return Exchange(
        giver=giver.policy,
        taker=taker.policy,
        gives=gives,
        gains=gains,
        devices=devices,
        resource=lack.resource,
        before=before,
        after=after,
        ready=taker.ready + gains,
        surplus=after.strain <= COMFORT,
        sentence=(
            f"gives {gives} of {giver.replicas} replicas ({devices:g} {lack.resource}) to "
            f"{taker.policy}, whose {taker.trouble}; predicted own {after.text} "
            f"({before.text.split(' of ')[0]} now)"
        ),
    )
