"""Whether a recorded action is one that the policy allows now. Pure.

The planner keeps to the policy; but a report may have been approved long after it was written, the
policy may have changed since, and who has the right to write reports could write one himself. So it
is asked again before an action has any effect. To undo what had one needs no leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..api import units
from ..api.allowed import Actions, HpaMode
from ..api.meta import ContainerResources, Setting
from ..api.report import (
    Action,
    BottleneckReport,
    HpaChange,
    ImageChange,
    Phase,
    ReplicasChange,
    ResourcesChange,
)
from .remedies.batch_growth import LEARNING_RATE
from .remedies.batch_size import DELAY, MAX_SIZE
from .remedies.common import ACCUMULATION, MAX_ACCUMULATION, MICRO
from .remedies.data_loader import PERSISTENT, PIN, PREFETCH, WORKERS
from .remedies.precision import AUTOCAST, WEIGHTS

SANE = 1_000_000
"""Most milliseconds that a batch is waited for, and most percent of a learning rate: the policy
bounds them by what they depend on only."""


def beyond(
    action: Action,
    allowed: Actions,
    knobs: Mapping[str, Setting],
    known: Iterable[BottleneckReport],
) -> str:
    """Why the policy does not allow an action, empty where it does. ``knobs`` are those in force
    without it, ``known`` the policy's reports."""
    if action.knobs is not None:
        changed = {k: v for k, v in action.knobs.desired.items() if knobs.get(k) != v}
        said = [f"{name}: {why}" for name, v in changed.items() if (why := _knob(name, v, allowed))]
        return "; ".join(said)
    if action.replicas is not None:
        return _replicas(action.replicas, allowed)
    if action.hpa is not None:
        return _hpa(action.hpa, allowed)
    if action.resources is not None:
        return _resources(action.resources, allowed)
    if action.image is not None:
        return _image(action.image, allowed, known)
    return "it changes nothing"


def _knob(name: str, value: Setting, allowed: Actions) -> str:
    most: dict[str, int] = {}
    if (loader := allowed.data_loader) is not None:
        most |= {WORKERS: loader.max_workers, PREFETCH: loader.max_prefetch, PERSISTENT: 1, PIN: 1}
    if (batch := allowed.batch_size) is not None:
        most |= {MICRO: batch.max, MAX_SIZE: batch.max, ACCUMULATION: MAX_ACCUMULATION}
        most |= {DELAY: SANE, LEARNING_RATE: SANE}
    if name in (AUTOCAST, WEIGHTS):
        return "" if allowed.precision else "actions.precision is not in the policy"
    if name not in most:
        return "there is no such knob, or the policy does not allow to change it"
    bound = most[name]
    number = value if isinstance(value, int) else -1
    return "" if 0 <= number <= bound else f"it may be 0 to {bound}"


def _replicas(change: ReplicasChange, allowed: Actions) -> str:
    bounds = allowed.replicas
    if bounds is None:
        return "actions.replicas is not in the policy"
    # From outside the bounds any step towards them is one that they allow.
    too_many = change.desired > max(bounds.max, change.replaces)
    too_few = change.desired < min(bounds.min, change.replaces)
    return f"replicas may be {bounds.min} to {bounds.max}" if too_many or too_few else ""


def _hpa(change: HpaChange, allowed: Actions) -> str:
    bounds = allowed.replicas
    if bounds is None or bounds.hpa is not HpaMode.ADJUST_BOUNDS:
        return "actions.replicas.hpa is not AdjustBounds in the policy"
    most = max(bounds.max, change.replaces.max)
    return f"replicas may be at most {bounds.max}" if change.desired.max > most else ""


def _resources(change: ResourcesChange, allowed: Actions) -> str:
    bounds = allowed.resources
    if bounds is None:
        return "actions.resources is not in the policy"
    if bounds.container and bounds.container != change.container:
        return f"the policy is about container {bounds.container}"
    for name, bound in (("cpu", bounds.cpu), ("memory", bounds.memory)):
        for field in (f"{name}_request", f"{name}_limit"):
            now, then = _amount(change.replaces, field), _amount(change.desired, field)
            if then == now:
                continue
            if bound is None:
                return f"actions.resources.{name} is not in the policy"
            if then is not None and then > max(units.quantity(bound.max), now or 0.0):
                return f"{name} may be at most {bound.max}"
    return ""


def _amount(size: ContainerResources, field: str) -> float | None:
    text = getattr(size, field)
    return None if text is None else units.quantity(text)


def _image(change: ImageChange, allowed: Actions, known: Iterable[BottleneckReport]) -> str:
    if change.desired in {variant.image for variant in allowed.variants or ()}:
        return ""
    replaced = {
        report.spec.action.image.original
        for report in known
        if report.status.phase is Phase.KEPT and report.spec.action and report.spec.action.image
    }
    if allowed.variants and change.desired in replaced:
        return ""
    return "it is no image of actions.variants, nor one that such an image has replaced"
