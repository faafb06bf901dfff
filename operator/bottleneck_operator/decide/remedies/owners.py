"""Who else sets the replicas, and what that leaves to the operator: stands before every remedy that
changes their number."""

from __future__ import annotations

from dataclasses import replace

from ...api.allowed import HpaMode, ReplicasAction
from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import Action, Cause, HpaBounds, HpaChange
from ...observe.observation import Observation, WorkloadType
from ..decision import Facts, Plan, Refusal
from .common import Remedy, Saving, not_allowed


def replicas_with(serving: Remedy, training: Remedy) -> Remedy:
    """The remedy for a workload's replicas: of servers or of ranks, within what their owners leave
    to the operator."""

    def remedy(
        cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
    ) -> Action | Refusal:
        room = room_for(spec, facts)
        if isinstance(room, Refusal):
            return room
        trains = observation.type is WorkloadType.TRAINING
        answer = (training if trains else serving)(cause, observation, *room)
        return through_hpa(answer, facts) if isinstance(answer, Action) else answer

    return remedy


def saving_of_replicas(saving: Saving) -> Saving:
    """A saving of replicas, within what their owners leave to the operator."""

    def within(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Plan | None:
        room = room_for(spec, facts)
        plan = None if isinstance(room, Refusal) else saving(observation, *room, now)
        action = None if plan is None else through_hpa(plan.action, facts)
        return replace(plan, action=action) if plan and isinstance(action, Action) else None

    return within


def room_for(spec: PolicySpec, facts: Facts) -> tuple[PolicySpec, Facts] | Refusal:
    """The policy with bounds that the object allows, too, and the facts without owners, since
    these are dealt with here; or who owns the replicas, and what to write."""
    bounds = spec.actions.replicas
    if bounds is None:
        return not_allowed("replicas", "actions: {replicas: {min: 1, max: 4}}")
    if refusal := _owned(bounds, facts):
        return refusal
    if facts.replicas is None:
        why = facts.scale.fixed if facts.scale else "the target has no scale subresource"
        reason = Reason.REPLICAS_FIXED if facts.scale else Reason.TARGET_NOT_SUPPORTED
        return Refusal(reason, f"the number of replicas cannot be changed: {why}")
    if (scale := facts.scale) is not None:
        least, most = max(bounds.min, scale.least), min(bounds.max, scale.most)
        if least > most:
            return Refusal(
                Reason.REPLICAS_FIXED,
                f"the policy allows {bounds.min} to {bounds.max} replicas and the target itself"
                f" {scale.least} to {scale.most}; write bounds that overlap",
            )
        bounds = bounds.model_copy(update={"min": least, "max": most})
        actions = spec.actions.model_copy(update={"replicas": bounds})
        spec = spec.model_copy(update={"actions": actions})
    return spec, replace(facts, hpa=None, gitops="")


def _owned(bounds: ReplicasAction, facts: Facts) -> Refusal | None:
    keda, hpa = facts.scaled_object, facts.hpa
    leave = "or leave actions.replicas out of the policy"
    if keda is not None and keda.paused:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_KEDA,
            f"ScaledObject {keda.name} is paused, which holds the replicas where they are; delete"
            f" it, {leave}",
        )
    made_by = keda.name if keda is not None else hpa.scaled_object if hpa is not None else ""
    if made_by:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_KEDA,
            f"ScaledObject {made_by} owns the replicas; change its minReplicaCount and"
            f" maxReplicaCount, {leave}",
        )
    if facts.kueue:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_KUEUE,
            f"Kueue admits the pods through queue {facts.kueue}, as many as were asked for; let the"
            ' workload grow with its annotation kueue.x-k8s.io/elastic-job: "true", where your'
            f" Kueue has that, {leave}",
        )
    if hpa is not None and bounds.hpa is HpaMode.RESPECT:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_HPA,
            f"HorizontalPodAutoscaler {hpa.name} owns the replicas; delete it, let its bounds be"
            f" changed with actions: {{replicas: {{hpa: AdjustBounds}}}}, {leave}",
        )
    gitops = facts.gitops if hpa is None else hpa.gitops
    if gitops:
        what = "replicas" if hpa is None else f"bounds of HorizontalPodAutoscaler {hpa.name}"
        field = "them" if hpa is None else "minReplicas and maxReplicas"
        return Refusal(
            Reason.REPLICAS_OWNED_BY_GITOPS,
            f"{gitops} sets the {what} to what its repository says; leave {field} out of the"
            f" manifest there, {leave}",
        )
    return None


def through_hpa(action: Action, facts: Facts) -> Action | Refusal:
    """The same number of replicas by way of the autoscaler that owns them, where there is one: at
    least so many, and room for them. It goes on scaling above that."""
    hpa, change = facts.hpa, action.replicas
    if hpa is None or change is None:
        return action
    old = hpa.bounds
    new = HpaBounds(min=change.desired, max=max(old.max, change.desired))
    if new == old:
        return Refusal(
            Reason.REPLICAS_PENDING,
            f"HorizontalPodAutoscaler {hpa.name} is to have at least {new.min} replicas already",
        )
    raised = f", maxReplicas {old.max} → {new.max}" if new.max != old.max else ""
    summary = f"{hpa.name}: minReplicas {old.min} → {new.min}{raised}"
    return action.model_copy(
        update={
            "replicas": None,
            "hpa": HpaChange(name=hpa.name, desired=new, replaces=old),
            "summary": summary,
        }
    )
