"""How much accuracy has been given up, and how much may be. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ..api import units
from ..api.conditions import Reason
from ..api.meta import Setting
from ..api.policy import PolicySpec
from ..api.report import BottleneckReport, ImageChange, Phase
from .decision import Facts, Refusal

ROUNDING = 1e-9


def in_force(facts: Facts, container: str) -> BottleneckReport | None:
    """The report whose variant a container runs now, as the template says; None where it runs the
    original, or what somebody else has put there."""
    image = facts.rollout.images.get(container) if facts.rollout is not None else None
    kept: BottleneckReport | None = None
    for report in facts.reports:
        if report.status.phase is Phase.KEPT and _change(report, container) is not None:
            kept = report
    change = _change(kept, container) if kept is not None else None
    return kept if change is not None and change.variant and change.desired == image else None


def over_budget(
    spec: PolicySpec, facts: Facts, cost: str, what: str, instead_of: str
) -> Refusal | None:
    """Why ``what`` at a ``cost`` ("0.4%") does not fit into ``limits.accuracyLoss``; None where it
    does. ``instead_of`` is what it takes the place of: a container's name, or ``precision``."""
    loss = units.fraction(cost)
    if not loss:
        return None
    if spec.limits.accuracy_loss is None:
        return Refusal(
            Reason.ACCURACY_BUDGET,
            f"{what} costs {cost} of accuracy, and the policy gives no budget; write limits:"
            f' {{accuracyLoss: "{cost}"}} or more to allow it',
        )
    spent = sum(value for name, value in losses(spec, facts).items() if name != instead_of)
    if spent + loss <= units.fraction(spec.limits.accuracy_loss) + ROUNDING:
        return None
    gone = f" and {spent:.2%} are spent already" if spent else ""
    return Refusal(
        Reason.ACCURACY_BUDGET,
        f"{what} costs {cost} of accuracy,{gone} limits.accuracyLoss is"
        f" {spec.limits.accuracy_loss}; raise it, or measure a variant that costs less",
    )


def losses(spec: PolicySpec, facts: Facts) -> dict[str, float]:
    """What every switched variant (by container) and precision costs now, as fractions."""
    containers = facts.rollout.images if facts.rollout is not None else {}
    found = {}
    for name in containers:
        report = in_force(facts, name)
        change = _change(report, name) if report is not None else None
        if change is not None:
            found[name] = units.fraction(change.accuracy_loss)
    if spec.actions.precision is not None and _sixteen_bits(facts.knobs):
        found["precision"] = units.fraction(spec.actions.precision.accuracy_loss)
    return found


def _change(report: BottleneckReport, container: str) -> ImageChange | None:
    change = report.spec.action.image if report.spec.action is not None else None
    return change if change is not None and change.container == container else None


def _sixteen_bits(knobs: Mapping[str, Setting]) -> bool:
    full = {"precision.autocast": "off", "precision.weights": "fp32"}
    return any(knobs.get(name, word) != word for name, word in full.items())
