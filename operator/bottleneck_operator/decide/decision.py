"""What the decision takes besides the diagnosis, and what it gives. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..api.conditions import Reason
from ..api.consequences import Circumstances
from ..api.ledger import Ledger
from ..api.meta import Setting
from ..api.report import Action, Alternative, BottleneckReport, Symptom, Trade
from ..observe.containers import ResizeState
from ..observe.owners import Hpa, ScaledObject
from ..observe.rollout import Rollout
from ..observe.scale import Scale
from ..observe.trail import Trail


@dataclass(frozen=True, slots=True)
class Gift:
    """What one policy of a pool is to give to another one. ``before`` and ``after`` are its own
    metric, now and as predicted."""

    replicas: int
    before: float
    after: float
    trade: Trade


@dataclass(frozen=True, slots=True)
class Facts:
    """What the cluster says about the target and about what was done before.

    ``replicas`` is None where the target has no scale, or one that cannot be set; ``scale`` says
    more of kinds that are scaled by path. ``hpa`` is a HorizontalPodAutoscaler that owns them,
    ``scaled_object`` one of KEDA's, ``kueue`` the queue that admits the pods, ``gitops`` names a
    program that sets them to what its repository says, ``vpa`` a VerticalPodAutoscaler that owns
    the resources. ``generation`` is the newest knobs generation
    ever issued for this policy.
    ``containers`` are those of the running pods, by name, without the sidecar. ``reports`` are the
    policy's earlier reports, oldest first. ``breached_since`` is when the objective broke, seconds
    since the Unix epoch, None where that is not known.
    """

    policy_generation: int = 0
    replicas: int | None = None
    ready: int | None = None
    hpa: Hpa | None = None
    scaled_object: ScaledObject | None = None
    kueue: str = ""
    scale: Scale | None = None
    gitops: str = ""
    vpa: str | None = None
    generation: int = 0
    knobs: Mapping[str, Setting] = field(default_factory=dict)
    settable: frozenset[str] = frozenset()
    containers: Mapping[str, tuple[ResizeState, ...]] = field(default_factory=dict)
    reports: tuple[BottleneckReport, ...] = ()
    unplaced: str = ""
    """Why pods of the target cannot run, in the scheduler's or the API server's words; empty where
    none waits for room."""
    trail: Trail = field(default_factory=Trail)
    """What a few signals were over the last minutes."""
    gift: Gift | None = None
    """What the pool asks of this policy now."""
    rollout: Rollout | None = None
    """The images of the target and how it replaces its pods."""
    breached_since: float | None = None
    circumstances: Circumstances = field(default_factory=Circumstances)
    """Under what is decided now; a miss under other ones may be tried again."""
    ledger: Ledger = field(default_factory=Ledger)
    """Outcomes of actions whose reports may be gone."""
    resumed_at: float | None = None
    """When people said that the operator may go on, seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One action to take. ``symptom`` says what it is for where no objective is breached, ``trade``
    with whom it is made; ``supersedes`` names the open report whose action it carries further."""

    action: Action
    symptom: Symptom | None = None
    alternatives: tuple[Alternative, ...] = ()
    trade: Trade | None = None
    supersedes: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is done, and why: as much an answer as an action."""

    reason: Reason
    message: str
    retry_after: float | None = None


Decision = Plan | Refusal
