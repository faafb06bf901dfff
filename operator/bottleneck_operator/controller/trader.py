"""A policy's part in its pool: what it offers, what it is asked for, what it answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import aiohttp

from ..api.conditions import Reason
from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport, Phase, Trade, TradeRole
from ..decide.decision import Facts, Gift, Plan, Refusal
from ..decide.pool import Answer, Exchange, Member, Past, settle
from ..decide.pool_member import member_of, open_growth, past_of
from ..decide.remedies.gift import take
from ..decide.trading import Side, other_side
from ..kube import KubeError
from ..observe.checkpoints import since_checkpoint
from ..observe.cluster import disruptions_allowed
from .gather import Gatherer, Seen
from .services import Services

log = logging.getLogger(__name__)

BUDGET_SECONDS = 10.0
"""How old the answer of the PodDisruptionBudgets may be."""


@dataclass(slots=True)
class Trader:
    """Trades for one policy. Does nothing for one without ``spec.capacity``."""

    services: Services
    key: str
    gatherer: Gatherer
    _member: Member | None = None
    _allowed: int | None = None
    _asked: float | None = None

    def offer(self, policy: BottleneckPolicy, seen: Seen, facts: Facts, now: float) -> None:
        """Tells the pool what this policy is now. Asks nothing of the API server."""
        self._member = None
        if policy.spec.capacity is None or self.gatherer.target is None:
            self.services.pools.drop(self.key)
            return
        # It goes through everything that was said, so only when somebody asks for it.
        asked = self.services.pools.short(policy, now)
        since = since_checkpoint(seen.histories.values(), now) if asked else None
        member = member_of(
            policy,
            seen.observation,
            seen.diagnosis,
            facts,
            self.gatherer.pods(policy),
            since,
            now,
        )
        if self._asked is not None and now - self._asked < BUDGET_SECONDS:
            member = replace(member, disruptions=self._allowed)
        if self.sentences(policy):
            member = replace(member, no_taker="a trade that it is in is under way")
        self._member = member
        self.services.pools.offer(self.key, policy, member)

    async def gift(self, policy: BottleneckPolicy, now: float) -> Gift | None:
        """What the pool asks of this policy. Only then the PodDisruptionBudgets are read."""
        if not self._wanted(policy, now):
            return None
        exchange = self._answer(policy, now).exchange
        if exchange is None or exchange.giver != policy.metadata.name:
            return None
        if self._asked is None or now - self._asked >= BUDGET_SECONDS:
            self._allowed, self._asked = await self._budget(policy), now
            assert self._member is not None
            self._member = replace(self._member, disruptions=self._allowed)
            self.services.pools.offer(self.key, policy, self._member)
            exchange = self._answer(policy, now).exchange
            if exchange is None or exchange.giver != policy.metadata.name:
                return None
        return Gift(
            replicas=exchange.gives,
            before=exchange.before.value,
            after=exchange.after.value,
            trade=self._trade(policy, exchange),
        )

    def answer(self, policy: BottleneckPolicy, now: float) -> Plan | None:
        """The taking side of a trade that another policy has begun for this one."""
        if not self._wanted(policy, now) or self.gatherer.target is None:
            return None
        replicas = self.gatherer.target.replicas
        for report in self._reports(policy):
            trade = report.spec.trade
            asked = (
                report.status.phase is Phase.PLANNED
                and trade is not None
                and trade.role is TradeRole.GIVES
                and trade.policy == policy.metadata.name
                and not trade.report
            )
            other = other_side(report, self._reports(policy)) if asked else None
            if other is not None and other.side is Side.AWAITED and replicas:
                return take(report, replicas)
        return None

    async def refusal(self, policy: BottleneckPolicy, now: float) -> Refusal | None:
        """Why this policy stays short of devices, where it is; an event tells it, too."""
        member = self._member
        if member is None or member.shortage is None or not self._wanted(policy, now):
            return None
        name = policy.metadata.name
        refusals = self._answer(policy, now).refusals.get(name)
        if refusals is None or any(p.under_way and p.taker == name for p in self._past(policy)):
            return None
        assert policy.spec.capacity is not None
        pool, lack = policy.spec.capacity.pool, member.shortage
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(refusals.items()))
        # Without the figures of the reasons, so that the recorder knows it again.
        told = f"replicas wait for {lack.resource}, and in pool {pool} nobody gives one"
        await self.services.recorder.post(policy, Reason.CAPACITY_EXHAUSTED, told)
        return Refusal(
            Reason.CAPACITY_EXHAUSTED,
            f"replicas that wait for {lack.resource}: {lack.pending}. In pool {pool} nobody gives "
            f"one: {why or 'it has no other policy'}. {lack.words}",
        )

    def sentences(self, policy: BottleneckPolicy) -> Mapping[str, tuple[Reason, str]]:
        """For each report of an action under way that is in a trade: which side it is, and the
        trade in words."""
        if policy.spec.capacity is None:
            return {}
        found = {}
        for report in self.services.reports.of(policy):
            if report.status.phase.open and report.status.phase is not Phase.REVERTING:
                other = other_side(report, self._reports(policy))
                if other is not None:
                    gives = other.role is TradeRole.GIVES
                    reason = Reason.GIVES_TO_POOL if gives else Reason.TAKES_FROM_POOL
                    found[report.metadata.name] = reason, other.sentence
        return found

    # -- what it is made of ----------------------------------------------------------------------

    def _wanted(self, policy: BottleneckPolicy, now: float) -> bool:
        return policy.spec.capacity is not None and self.services.pools.short(policy, now)

    def _reports(self, policy: BottleneckPolicy) -> list[BottleneckReport]:
        return self.services.reports.in_namespace(policy.metadata.namespace)

    def _answer(self, policy: BottleneckPolicy, now: float) -> Answer:
        return settle(self.services.pools.members(policy), self._past(policy), now)

    def _past(self, policy: BottleneckPolicy) -> list[Past]:
        assert policy.spec.capacity is not None
        return past_of(self._reports(policy), policy.spec.capacity.pool)

    def _trade(self, policy: BottleneckPolicy, exchange: Exchange) -> Trade:
        assert policy.spec.capacity is not None
        growth = open_growth(
            report for report in self._reports(policy) if report.spec.policy == exchange.taker
        )
        return Trade(
            pool=policy.spec.capacity.pool,
            role=TradeRole.GIVES,
            policy=exchange.taker,
            report=growth.metadata.name if growth else "",
            devices=exchange.devices,
            resource=exchange.resource,
            ready=exchange.ready,
            reason=exchange.sentence,
        )

    async def _budget(self, policy: BottleneckPolicy) -> int | None:
        """What the budgets leave; nothing where they cannot be read: never against missing data."""
        namespace, pods = policy.metadata.namespace, self.gatherer.pods(policy)
        try:
            return await disruptions_allowed(self.services.kube, namespace, pods)
        except (KubeError, aiohttp.ClientError, OSError) as error:
            log.warning("the PodDisruptionBudgets of %s were not read: %s", namespace, error)
            return 0
