"""A quantized, pruned or distilled image of the model, and back to the original."""

from __future__ import annotations

from ...api import units
from ...api.allowed import VariantAction
from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import (
    Action,
    Aim,
    BottleneckReport,
    Cause,
    Evidence,
    ImageChange,
    Phase,
    Prediction,
    Symptom,
)
from ...observe.observation import Observation, WorkloadType
from ...observe.rollout import Rollout
from ...observe.trail import Stretch
from ..accuracy import in_force, over_budget
from ..decision import Facts, Plan, Refusal
from .common import SURPLUS, not_allowed

SPEEDUP = 1.5
"""How much faster a variant is taken to be before it was ever tried: the least that PyTorch reports
for dynamic int8 quantization on a CPU. Its first report tells better."""

STABLE_SECONDS = 600.0
"""How long the load must have been low enough for the original, at its highest."""

BUSY = 0.6
"""How busy the servers may be with the original at that load: the mean wait in an M/G/1 queue is
1.5 service times there, and 4 at 0.8."""

MARGIN = 0.8
"""Share of the latency objective that the original is predicted to need at most: one that only
just meets it would have to go again with the next gust."""


def variants(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """The variant that costs least accuracy of those predicted to meet the latency objective, else
    the fastest; within the budget, and none that failed under this policy before."""
    offered = spec.actions.variants
    if not offered:
        return not_allowed(
            "the image",
            'actions: {variants: [{name: int8, image: "…@sha256:…", container: model,'
            ' accuracyLoss: "0.4%"}]} and limits: {accuracyLoss: "1%"}',
        )
    if observation.type is not WorkloadType.INFERENCE:
        return Refusal(Reason.NO_REMEDY, "a variant is of a model that serves; this one trains")
    latency = observation.value("inference.latency")
    if latency is None:
        return Refusal(Reason.NO_DATA, "inference.latency is not known")
    refusals: list[Refusal] = []
    plans: list[Action] = []
    for variant in sorted(offered, key=lambda each: units.fraction(each.accuracy_loss)):
        answer = _switch(variant, cause, observation, latency, spec, facts)
        if isinstance(answer, Action):
            plans.append(answer)
        else:
            refusals.append(answer)
    if not plans:
        first = (r for r in refusals if r.reason is not Reason.AT_MAXIMUM)
        return next(first, refusals[0])
    objective = spec.objectives.latency
    target = units.seconds(objective.target) if objective is not None else 0.0
    enough = [plan for plan in plans if _after(plan) <= target]
    return enough[0] if enough else min(plans, key=_after)


def _after(action: Action) -> float:
    assert action.prediction is not None
    return action.prediction.after


def _switch(
    variant: VariantAction,
    cause: Cause,
    observation: Observation,
    latency: float,
    spec: PolicySpec,
    facts: Facts,
) -> Action | Refusal:
    rollout = facts.rollout
    if rollout is None:
        return Refusal(Reason.NO_DATA, "the target is not known")
    container = _container(variant.container, rollout)
    if isinstance(container, Refusal):
        return container
    now = rollout.images[container]
    if now == variant.image:
        return Refusal(Reason.AT_MAXIMUM, f"{container} runs variant {variant.name} already")
    cost = variant.accuracy_loss
    refusal = (
        _hindered(rollout, container)
        or over_budget(spec, facts, cost, f"variant {variant.name}", container)
        or _quarantined(variant, facts)
    )
    if refusal is not None:
        return refusal
    earlier = in_force(facts, container)
    change = earlier.spec.action.image if earlier and earlier.spec.action else None
    service = observation.value("inference.serviceSeconds")
    ratio, basis = _speed(variant, facts)
    if ratio is None:
        ratio = _ratio(observation, facts, service, 1 / SPEEDUP)
        basis = f"the model {SPEEDUP} times as fast, which no report has measured yet"
    return Action(
        type="Variant",
        summary=f"{container}: variant {variant.name}, canary first ({now} → {variant.image})",
        cause=cause.id,
        image=ImageChange(
            container=container,
            desired=variant.image,
            replaces=now,
            variant=variant.name,
            accuracy_loss=cost,
            original=change.original if change else now,
            original_seconds=change.original_seconds if change else service,
            holds=rollout.held(),
            restores=rollout.fields,
        ),
        prediction=Prediction(
            before=round(latency, 4), after=round(latency * ratio, 4), basis=basis
        ),
    )


def _container(name: str, rollout: Rollout) -> str | Refusal:
    names = sorted(rollout.images)
    if name in names:
        return name
    if not name and len(names) == 1:
        return names[0]
    listed = ", ".join(names)
    what = f"the pods have no container {name}" if name else "the pods have several containers"
    return Refusal(Reason.NO_REMEDY, f"{what}; write one of {listed} as container of the variant")


def _hindered(rollout: Rollout, container: str) -> Refusal | None:
    if owner := rollout.owners.get(container):
        return Refusal(
            Reason.IMAGE_OWNED_BY_GITOPS,
            f"{owner} sets the image of {container} to what its repository says; write the variant"
            " there, or leave actions.variants out of the policy",
        )
    if rollout.hindrance:
        return Refusal(Reason.NO_REMEDY, f"no pod can go ahead of the others: {rollout.hindrance}")
    if not rollout.replicas:
        return Refusal(Reason.REPLICAS_PENDING, "there is no replica to try it beside")
    if not rollout.settled:
        return Refusal(
            Reason.REPLICAS_PENDING, "not all replicas are up to date and ready; it waits for them"
        )
    return None


def _quarantined(variant: VariantAction, facts: Facts) -> Refusal | None:
    """One that was tried in vain is not tried for another cause either, until the policy changes:
    the image is still the same."""
    for report in facts.reports:
        action = report.spec.action
        if (
            action is not None
            and action.image is not None
            and action.aim is Aim.IMPROVE
            and action.image.desired == variant.image
            and report.status.phase is Phase.REVERTED
            and report.spec.policy_generation == facts.policy_generation
        ):
            return Refusal(
                Reason.QUARANTINED,
                f"variant {variant.name} was tried by {report.metadata.name} and undone; it is"
                " tried again when the policy changes",
            )
    return None


def _speed(variant: VariantAction, facts: Facts) -> tuple[float | None, str]:
    """Latency with the variant over that without, as the newest canary of it has shown."""
    for report in reversed(facts.reports):
        verdict, action = report.status.verdict, report.spec.action
        if action is None or action.image is None or action.image.desired != variant.image:
            continue
        if verdict is not None and verdict.before and verdict.after and action.aim is Aim.IMPROVE:
            name = report.metadata.name
            return verdict.after / verdict.before, f"as {name} has measured of the same image"
    return None, ""


def _ratio(observation: Observation, facts: Facts, service: float | None, slower: float) -> float:
    """Latency after over latency before when the model takes ``slower`` times as long."""
    rate = observation.value("inference.arrivalRate")
    if service is None or rate is None or not service:
        return slower
    before = _latency(observation, facts, rate, service)
    after = _latency(observation, facts, rate, service * slower)
    if after is None:
        return 1.0
    latency = observation.value("inference.latency") or after
    # Saturated, the latency now is that of a queue that only grows.
    return after / before if before is not None else min(1.0, after / latency)


def _latency(observation: Observation, facts: Facts, rate: float, service: float) -> float | None:
    """A p95 in an M/M/1 queue for each place of each replica: about three mean waits behind the
    model's own time. None where the servers could not keep up."""
    busy = _busy(observation, facts, rate, service)
    return None if busy >= 1 else service * (1 + 3 * busy / (1 - busy))


def _busy(observation: Observation, facts: Facts, rate: float, service: float) -> float:
    processes = max(1.0, len(observation.ranks) / max(1, observation.streaming))
    at_once = max(
        observation.value("inference.concurrency") or 1.0,
        observation.value("inference.batchSize") or 1.0,
    )
    replicas = max(1, facts.rollout.replicas if facts.rollout is not None else 1)
    return rate * service / (at_once * processes * replicas)


# -- back to the original --------------------------------------------------------------------------


def back(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Plan | None:
    """The original image again, where the highest load of the last ``STABLE_SECONDS`` would have
    left it within the latency objective."""
    objective, rollout = spec.objectives.latency, facts.rollout
    if objective is None or rollout is None or not spec.actions.variants:
        return None
    report = next((r for name in rollout.images if (r := in_force(facts, name))), None)
    change = report.spec.action.image if report and report.spec.action else None
    if report is None or change is None or _hindered(rollout, change.container) is not None:
        return None
    closed = report.status.closed_at
    if closed is None or now - closed.timestamp() < STABLE_SECONDS:
        return None
    load = facts.trail.over("inference.arrivalRate", STABLE_SECONDS, now)
    service, latency = change.original_seconds, observation.value("inference.latency")
    current = observation.value("inference.serviceSeconds")
    if load is None or not service or latency is None or not current:
        return None
    busy = _busy(observation, facts, load.most, service)
    modelled = _latency(observation, facts, load.most, service)
    if busy > BUSY or modelled is None:
        return None
    # What the model knows nothing of is as much longer as the model's own time is.
    predicted = max(modelled, latency * max(1.0, service / current))
    if predicted > MARGIN * units.seconds(objective.target):
        return None
    return Plan(_return(report, change, rollout, latency, predicted, busy), _symptom(change, load))


def _return(
    report: BottleneckReport,
    change: ImageChange,
    rollout: Rollout,
    latency: float,
    predicted: float,
    busy: float,
) -> Action:
    return Action(
        type="Variant",
        summary=f"{change.container}: back to the original, canary first"
        f" ({change.desired} → {change.original})",
        cause=SURPLUS,
        aim=Aim.SAVE,
        image=ImageChange(
            container=change.container,
            desired=change.original,
            replaces=change.desired,
            original=change.original,
            original_seconds=change.original_seconds,
            holds=rollout.held(),
            restores=rollout.fields,
        ),
        prediction=Prediction(
            before=round(latency, 4),
            after=round(predicted, 4),
            basis=f"the original's time as {report.metadata.name} has measured it, at {busy:.0%}"
            " busy",
        ),
    )


def _symptom(change: ImageChange, load: Stretch) -> Symptom:
    return Symptom(
        objective="Accuracy",
        text=f"variant {change.variant} costs {change.accuracy_loss} of accuracy, and the load of"
        f" the last {STABLE_SECONDS / 60:.0f} minutes does not need it",
        evidence=Evidence(
            signal="inference.arrivalRate",
            window=f"{STABLE_SECONDS:.0f}s",
            statistic="maximum",
            value=round(load.most, 3),
            unit="requests/s",
            source="sidecar",
        ),
    )
