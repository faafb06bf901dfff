"""16-bit arithmetic: autocast in training, 16-bit weights in serving."""

from __future__ import annotations

from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import Action, Cause, Prediction
from ...observe.observation import Observation, WorkloadType
from ..accuracy import over_budget
from ..decision import Facts, Refusal
from .common import knobs_change, listed, not_allowed, not_settable, word

AUTOCAST = "precision.autocast"
WEIGHTS = "precision.weights"

FULL = {AUTOCAST: "off", WEIGHTS: "fp32"}
"""The word with which a process says that it computes in 32 bits."""

SPEEDUP = 1.5
"""What a model whose time is known only as a whole is predicted to gain: the least that PyTorch
measures with mixed precision on hardware made for it."""

FULL_SERVER = 0.70
"""Occupancy from which requests wait for those before them."""


def precision(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """The first allowed format that the hardware computes fast, where 32 bits are in use."""
    bounds = spec.actions.precision
    if bounds is None:
        return not_allowed("the precision", "actions: {precision: {allowed: [bf16]}}")
    training = observation.type is WorkloadType.TRAINING
    name = AUTOCAST if training else WEIGHTS
    if name not in facts.settable:
        return not_settable(
            "its precision",
            "run the forward pass under monitor.forward(model) of the SDK"
            if training
            else "hand the model to Weights of the SDK",
        )
    now = word(observation, name)
    if now is None:
        return Refusal(Reason.NO_DATA, f"{name} is not known, or not the same in every process")
    if now != FULL[name]:
        return Refusal(Reason.AT_MAXIMUM, f"{name} is {now} already; 16 bits are in use")
    fast = observation.value("hardware.bf16")
    if not fast:
        known = "unknown" if fast is None else "none here"
        return Refusal(
            Reason.NO_REMEDY,
            f"16 bits pay on hardware with fast arithmetic for them ({known}); elsewhere they are"
            " slower",
        )
    wanted = f"{name} {bounds.allowed[0]}"
    if refusal := over_budget(spec, facts, bounds.accuracy_loss, wanted, "precision"):
        return refusal
    metric = "training.samplesPerSecond" if training else "inference.latency"
    before = observation.value(metric)
    if before is None:
        return Refusal(Reason.NO_DATA, f"{metric} is not known")
    current, desired = {name: now}, {name: str(bounds.allowed[0])}
    if training:
        # The catalogue's share is what the cause costs: without it the step is as much shorter.
        after, basis = before / (1 - min(cause.share, 0.9)), "the step without the cause's share"
    else:
        part = min(1.0, (observation.value("inference.serviceSeconds") or 0.0) / before)
        occupancy = observation.value("inference.occupancy")
        if occupancy is not None and occupancy >= FULL_SERVER:
            # Who waits for others that are served waits for the model's time, too.
            part = max(part, observation.value("inference.queueShare") or 0.0)
        after = before * (1 - part * (1 - 1 / SPEEDUP))
        basis = f"the model's own time, {SPEEDUP} times as fast, and the queue behind it"
    return Action(
        type="Precision",
        summary=listed(current, desired),
        cause=cause.id,
        knobs=knobs_change(facts, current, desired),
        prediction=Prediction(before=round(before, 4), after=round(after, 4), basis=basis),
    )
