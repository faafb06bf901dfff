"""What the decision takes besides the diagnosis, and what it gives. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..api.conditions import Reason
from ..api.meta import Setting
from ..api.report import Action, BottleneckReport
from ..observe.containers import ResizeState


@dataclass(frozen=True, slots=True)
class Facts:
    """What the cluster says about the target and about what was done before.

    ``replicas`` is None where the target has no scale; ``hpa`` names a HorizontalPodAutoscaler that
    owns them, ``gitops`` a program that sets them to what its repository says, ``vpa`` a
    VerticalPodAutoscaler that owns the resources. ``generation`` is the newest knobs generation
    ever issued for this policy.
    ``containers`` are those of the running pods, by name, without the sidecar. ``reports`` are the
    policy's earlier reports, oldest first. ``breached_since`` is when the objective broke, seconds
    since the Unix epoch, None where that is not known.
    """

    policy_generation: int = 0
    replicas: int | None = None
    ready: int | None = None
    hpa: str | None = None
    gitops: str = ""
    vpa: str | None = None
    generation: int = 0
    knobs: Mapping[str, Setting] = field(default_factory=dict)
    settable: frozenset[str] = frozenset()
    containers: Mapping[str, tuple[ResizeState, ...]] = field(default_factory=dict)
    reports: tuple[BottleneckReport, ...] = ()
    breached_since: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One action to take."""

    action: Action


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is done, and why: as much an answer as an action."""

    reason: Reason
    message: str
    retry_after: float | None = None


Decision = Plan | Refusal
