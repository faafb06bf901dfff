"""The answers to how far an effect has come, and what is known when it is asked. Pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ...api.report import HpaBounds, Stage, Verdict
from ...api.split import Split
from ...observe.containers import ResizeState
from ...observe.observation import Observation
from ...observe.rollout import PodImage, Rollout
from ..trading import OtherSide


class Standing(StrEnum):
    """Where an effect stands."""

    UNKNOWN = "Unknown"
    MISSING = "Missing"
    """It has to be brought about, or brought about again where something came later."""
    UNDER_WAY = "UnderWay"
    IN_FORCE = "InForce"
    FOREIGN = "Foreign"
    """Somebody else has changed the same thing; it is left alone."""
    OVERTAKEN = "Overtaken"
    """The same, and what was set beside it has to be taken back."""
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class Effect:
    """The answer, in words for people. ``deadline`` in seconds since it was begun; None while it
    cannot be told whether the workload failed or only its telemetry. ``at`` is when it came into
    force, where that was seen."""

    standing: Standing
    message: str = ""
    deadline: float | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known of an action's effect. ``replicas``, ``ready`` and ``containers`` (of running
    pods, by pod) come from the API server. While an action is on some replicas only,
    ``observation``, ``containers``, ``annotated`` and ``in_force_at`` are about those."""

    observation: Observation
    replicas: int | None = None
    ready: int | None = None
    containers: Sequence[ResizeState] = ()
    elastic: bool = False
    """Whether ranks form their group anew when their number changes."""
    hpa: HpaBounds | None = None
    """Bounds of the HorizontalPodAutoscaler, None while they are not known."""
    hpa_gone: bool = False
    """Whether no autoscaler of the action's name scales the target any more."""
    annotated: bool = False
    """Whether every running pod carries the generation that the report wants now."""
    in_force_at: float | None = None
    """When every rank ran with the report's knobs, seconds since the Unix epoch. An API server that
    is away must not move it: what was measured since would count as measured before."""
    target_gone: bool = False
    newest_generation: int = 0
    """Newest knobs generation that another report has brought into force."""
    another_open: bool = False
    """Whether another action is under way: a workload gets one experiment at a time."""
    verdict: Verdict | None = None
    trade: OtherSide | None = None
    """The other side of the trade that the report is in, if any."""
    stage: Stage | None = None
    choice: Split | None = None
    """On which replicas the action could begin now, where there are any to choose from."""
    gathering: bool = False
    """Whether there will be a choice soon: not all pods are known yet, or too few figures."""
    halves: tuple[int, int] | None = None
    """How many of the treated replicas still run, and how many to compare them with; None while not
    all pods of the target are known."""
    rollout: Rollout | None = None
    images: Sequence[PodImage] = ()
    """The changed container of every pod that is not going, whether it runs or not."""
    met: bool = False
    """Whether every objective is known to be met now."""
    beyond: str = ""
    """Why the policy does not allow the action (any more), empty where it does."""
    superseded_by: str = ""
    """Name of the report that carries this one's action further, if any."""
    built_upon: str = ""
    """Name of a later report that changed the same thing and stands, if any."""
    issued_generation: int = 0
    """Newest knobs generation that any report has reserved."""
