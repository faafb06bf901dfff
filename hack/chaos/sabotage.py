"""Switches off one safeguard of the operator, in its process: the checker has to see it.

Only the nursery reads this (``--without NAME``); the product has no such switch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


def intent() -> None:
    """Acts, and writes the report afterwards."""
    from bottleneck_operator.act.replicas import set_replicas
    from bottleneck_operator.controller.loop import PolicyLoop

    record = PolicyLoop._record

    async def late(self: Any, policy: Any, planned: Any) -> Any:
        change = planned.action.replicas
        if change is not None:
            place, target = policy.metadata.namespace, self._gatherer.target
            kube = self.services.kube
            await set_replicas(kube, place, target, change.replaces, change.desired)
        return await record(self, policy, planned)

    PolicyLoop._record = late  # type: ignore[method-assign]


def absolute() -> None:
    """Adds to the replicas that are there instead of setting the recorded number, and tries again
    what it was not told the end of."""
    from bottleneck_operator.controller import actions

    async def relative(kube: Any, namespace: str, target: Any, old: int, new: int) -> None:
        path = target.resource.path(namespace, target.ref.name, "scale")
        for _ in range(2):
            scale = await kube.get(path)
            count = max(1, scale["spec"].get("replicas", 0) + new - old)
            await kube.patch(path, {"spec": {"replicas": count}})

    actions.set_replicas = relative  # type: ignore[assignment]


def bounds() -> None:
    """Takes no notice of the policy's bounds, neither when it plans nor when it acts."""
    from bottleneck_operator.controller import actions, loop

    actions.beyond = lambda *_: ""

    plan = loop.intent

    def beyond(*arguments: Any) -> Any:
        planned = plan(*arguments)
        action = getattr(planned, "action", None)
        if action is not None and action.grows:
            change = action.replicas.model_copy(update={"desired": 7})
            action = action.model_copy(update={"replicas": change})
            return planned.model_copy(update={"action": action})
        return planned

    loop.intent = beyond


def data() -> None:
    """Takes silence for idleness, and scales to zero. (Less would be refused: what is to be judged
    needs figures from before.)"""
    from bottleneck_operator.api.conditions import Reason
    from bottleneck_operator.api.report import Action, Aim, Evidence, ReplicasChange, Symptom
    from bottleneck_operator.controller import actions, loop
    from bottleneck_operator.decide.decision import Plan, Refusal

    actions.beyond = lambda *_: ""

    decide = loop.decide

    def eager(diagnosis: Any, observation: Any, spec: Any, facts: Any, now: float) -> Any:
        decision = decide(diagnosis, observation, spec, facts, now)
        silent = isinstance(decision, Refusal) and decision.reason is Reason.NO_DATA
        if not silent or not facts.replicas:
            return decision
        change = ReplicasChange(desired=0, replaces=facts.replicas)
        summary = f"replicas {facts.replicas} → 0"
        action = Action(type="Replicas", summary=summary, cause="surplus", replicas=change)
        reading = Evidence(signal="none", window="10s", statistic="none", value=0.0)
        symptom = Symptom(objective="Surplus", text="nobody says anything", evidence=reading)
        return Plan(action.model_copy(update={"aim": Aim.SAVE}), symptom)

    loop.decide = eager


def restore() -> None:
    """Undoes to what it thinks is good enough."""
    from bottleneck_operator.controller import actions

    replicas, knobs = actions.set_replicas, actions.own_knobs

    async def almost(kube: Any, namespace: str, target: Any, old: int, new: int) -> None:
        await replicas(kube, namespace, target, old, max(new, 2))

    def forgetful(report: Any) -> Any:
        wanted = knobs(report)
        if wanted is not None and wanted.values.get("dataLoader.workers") == 0:
            wanted.values["dataLoader.workers"] = 1
        return wanted

    actions.set_replicas, actions.own_knobs = almost, forgetful


def finalizer() -> None:
    """Never gets ready with a deleted policy."""
    from bottleneck_operator.controller.loop import PolicyLoop

    async def stuck(self: Any, policy: Any) -> None:
        await asyncio.Event().wait()

    PolicyLoop.release = stuck  # type: ignore[method-assign]


def memory() -> None:
    """Does not ask what an earlier process began, and does not listen to it either."""
    from bottleneck_operator.report import reports

    begun: set[str] = set()
    create, of = reports.create, reports.ReportStore.of

    async def remember(kube: Any, store: Any, policy: Any, spec: Any, phase: Any) -> Any:
        made = await create(kube, store, policy, spec, phase)
        begun.add(made.metadata.name)
        return made

    def own(self: Any, policy: Any) -> Any:
        # It still counts on from their names: a number is given once.
        return tuple(r for r in of(self, policy) if r.metadata.name in begun)

    reports.create = remember
    reports.ReportStore.of = own  # type: ignore[method-assign]


def effect() -> None:
    """Calls an action done without having done it."""
    from bottleneck_operator.controller import actions
    from bottleneck_operator.decide.lifecycle import Next, Step

    step = actions.next_step

    def trusting(report: Any, progress: Any, now: Any) -> Any:
        found = step(report, progress, now)
        phase = report.status.phase
        if found.step is Step.APPLY:
            return Next(Step.MOVE, actions.Phase.KEPT, actions.Reason.ACTION_KEPT, "surely")
        return found if phase.open else Next(Step.WAIT)

    async def nothing(*_: Any) -> None:
        return None

    actions.next_step = trusting
    actions.Actions._follow_up = nothing  # type: ignore[method-assign]


def verdict() -> None:
    """Never comes to an end with an action."""
    from bottleneck_operator.controller.judging import Judging

    Judging.verdict = lambda *_: None  # type: ignore[method-assign]


SAFEGUARDS: dict[str, tuple[Callable[[], None], str]] = {
    "intent": (intent, "no-report-before"),
    "absolute": (absolute, "applied-twice"),
    "bounds": (bounds, "out-of-bounds"),
    "data": (data, "missing-data"),
    "restore": (restore, "not-restored"),
    "finalizer": (finalizer, "finalizer-left"),
    "memory": (memory, "without-end"),
    "effect": (effect, "lost"),
    "verdict": (verdict, "without-end"),
}
"""Each with the rule that the checker then has to find broken."""


def switch_off(name: str) -> None:
    """One of ``SAFEGUARDS``, in this process."""
    SAFEGUARDS[name][0]()
