"""BottleneckPolicy: what a workload should reach, and what the operator may do for it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from .allowed import Actions
from .meta import Model, ObjectMeta, Rule, TargetRef
from .objectives import Objectives
from .policy_status import PolicyStatus
from .scalars import Duration, Percent
from .telemetry import Telemetry


class Mode(StrEnum):
    """How far the operator may go by itself."""

    OBSERVE = "Observe"
    RECOMMEND = "Recommend"
    AUTO = "Auto"


class Disruption(StrEnum):
    """The means of an action, from the gentlest on."""

    HOT_ONLY = "HotOnly"
    IN_PLACE = "InPlace"
    ROLLING_RESTART = "RollingRestart"


class Limits(Model):
    """How often the operator may act."""

    cooldown: Duration = Field(
        "60s", description="Least time between the end of an action and the next one."
    )
    actions_per_hour: int = Field(10, ge=1, le=3600, description="Most actions in any hour.")
    disruption: Disruption = Field(
        Disruption.IN_PLACE,
        description="The strongest means allowed. HotOnly: only settings of running processes."
        " InPlace (the default): also the resources of running pods and the number of replicas."
        " RollingRestart: also another image, by rolling update.",
    )
    accuracy_loss: Percent | None = Field(
        None,
        description="The most accuracy that all switched variants and precisions together may cost;"
        ' variants need it: "1%".',
    )


class Capacity(Model):
    """The devices that a workload shares with others."""

    rules = (
        Rule(
            "self.pool.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "write the name of a pool: lower-case letters, digits and '-', such as gpu-a100",
            ".pool",
        ),
    )

    pool: str = Field(
        min_length=1,
        max_length=63,
        description="Policies of this namespace with the same pool trade devices.",
    )
    priority: int = Field(
        0,
        ge=0,
        le=1000000,
        description="Who of the pool comes first: a higher number may take from a lower one as long"
        " as that still meets its objectives.",
    )


class Reports(Model):
    """How many BottleneckReports of closed actions are kept."""

    keep: int = Field(30, ge=1, le=500, description="Most of them; the oldest go first.")
    max_age: Duration = Field("720h", description="How long after its end one is kept.")


class PolicySpec(Model):
    """Desired behaviour for one workload."""

    rules = (
        Rule(
            "self.targetRef == oldSelf.targetRef",
            "targetRef cannot be changed: create a new policy for the other workload",
            ".targetRef",
        ),
        Rule(
            "!has(self.actions) || !has(self.actions.replicas)"
            " || !(self.targetRef.kind in ['CronJob', 'DaemonSet', 'Pod'])",
            "a workload of this kind has no number of replicas to change: remove actions.replicas,"
            " or target a Deployment, a StatefulSet or a Job",
            ".actions",
        ),
        Rule(
            "!has(self.actions) || !has(self.actions.replicas)"
            " || !has(self.actions.replicas.group) || self.actions.replicas.group == ''"
            " || self.targetRef.kind in ['RayCluster', 'RayService']",
            "only a RayCluster or RayService has worker groups: remove actions.replicas.group",
            ".actions",
        ),
        Rule(
            "!has(self.capacity) || (has(self.actions) && has(self.actions.replicas))",
            "policies of a pool give and take replicas: add actions: {replicas: {min: 1, max: 4}},"
            " or remove capacity",
            ".capacity",
        ),
        Rule(
            "!has(self.actions) || !has(self.actions.variants)"
            " || self.targetRef.kind in ['Deployment', 'StatefulSet']",
            "a variant needs a rolling update that can be held at one pod: remove actions.variants,"
            " or target a Deployment or a StatefulSet",
            ".actions",
        ),
    )

    target_ref: TargetRef = Field(description="The workload; it cannot be changed later.")
    mode: Mode = Field(
        Mode.RECOMMEND,
        description="Observe: diagnose only. Recommend (the default): say what would be changed and"
        " wait for approval. Auto: act, verify, and revert what did not help.",
    )
    objectives: Objectives = Field(description="What the workload should reach; at least one.")
    actions: Actions = Field(
        default_factory=Actions,
        description="What may be done, each with its bounds; what is absent is never done.",
    )
    limits: Limits = Field(default_factory=Limits, description="How often the operator may act.")
    capacity: Capacity | None = Field(
        None, description="A pool of devices, within which policies give to each other."
    )
    telemetry: Telemetry | None = Field(
        None, description="Where figures come from besides, or instead of, the sidecar."
    )
    reports: Reports = Field(
        default_factory=Reports,
        description="What is kept of closed actions. Whatever later decisions ask for stays all the"
        " same: settings in force, quarantines, the last hour.",
    )
    paused: bool = Field(
        False, description="Hold everything as it is; open actions are finished first."
    )


class BottleneckPolicy(Model):
    """Finds, explains, fixes and verifies the bottleneck of one workload."""

    rules = (
        Rule(
            "self.metadata.name.size() <= 63",
            "write a metadata.name of at most 63 characters: it becomes a label of the reports",
        ),
    )

    api_version: str = "bottleneck.dev/v1alpha1"
    kind: str = "BottleneckPolicy"
    metadata: ObjectMeta
    spec: PolicySpec
    status: PolicyStatus = Field(default_factory=PolicyStatus)
