"""BottleneckReport: one incident, from what was seen to what the action really did.

The spec is the intent. It is written before anything changes and is immutable afterwards; it holds
all that is needed to finish the action or to undo it. The status tells how far it got.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from .meta import Model, Rule, Setting, TargetRef, Time
from .policy import ObjectMeta


class Phase(StrEnum):
    """How far a report has got. Recommended and Observed have had no effect."""

    OBSERVED = "Observed"
    RECOMMENDED = "Recommended"
    PLANNED = "Planned"
    APPLIED = "Applied"
    VERIFYING = "Verifying"
    KEPT = "Kept"
    REVERTING = "Reverting"
    REVERTED = "Reverted"
    ABANDONED = "Abandoned"

    @property
    def open(self) -> bool:
        """An open report is an action under way: no other may begin."""
        return self in (Phase.PLANNED, Phase.APPLIED, Phase.VERIFYING, Phase.REVERTING)


class VerdictResult(StrEnum):
    """What an action did, as far as the figures tell."""

    IMPROVED = "Improved"
    NO_EFFECT = "NoEffect"
    WORSE = "Worse"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"


class Evidence(Model):
    """One figure behind a statement: which signal, over which window, which statistic."""

    signal: str
    window: str = Field(description='For instance "15s".')
    statistic: str = Field(description='For instance "ratio of sums" or "p95".')
    value: float
    unit: str = ""
    threshold: float | None = None
    source: str = Field("", description="Where the figure and the threshold come from.")


class Cause(Model):
    """A confirmed cause with its evidence."""

    id: str
    class_: str = Field(alias="class")
    category: str
    title: str
    share: float = Field(ge=0, le=1)
    confidence: float = Field(ge=0, le=1)
    evidence: list[Evidence] = Field(default_factory=list)
    explained_by: str = Field("", description="Id of the cause that it only follows from, if any.")


class RuledOut(Model):
    """A hypothesis that was tried and does not hold, or could not be tried."""

    id: str
    reason: str


class HypothesisState(StrEnum):
    """What became of a hypothesis. NoData is neither of the others."""

    CONFIRMED = "Confirmed"
    RULED_OUT = "RuledOut"
    NO_DATA = "NoData"


class Bone(Model):
    """One hypothesis on the fishbone; the reason says by which figure it is so."""

    id: str
    title: str
    state: HypothesisState
    reason: str = ""


class Fishbone(Model):
    """Every hypothesis that was tried, under Infrastructure, Data, Models, People, Processes."""

    effect: str = Field(description="What is to be explained: the symptom.")
    bones: dict[str, list[Bone]] = Field(
        default_factory=dict, description="By category; each of the five is there."
    )


class FaultCondition(Model):
    """One condition under a cause's AND gate."""

    text: str
    holds: bool | None = Field(None, description="Absent while there is no data.")


class FaultCause(Model):
    """A cause in the fault tree: it holds when all of its conditions do."""

    id: str
    title: str
    gate: str = "AND"
    state: HypothesisState
    conditions: list[FaultCondition] = Field(default_factory=list, max_length=16)


class FaultStage(Model):
    """A stage of the pipeline: it is at fault when any of its causes holds."""

    id: str = Field(description="ingestion, preprocessing, model, serving or integration.")
    title: str
    gate: str = "OR"
    state: HypothesisState
    causes: list[FaultCause] = Field(default_factory=list, max_length=64)


class FaultTree(Model):
    """The symptom as the top event over the stages of the pipeline."""

    top: str
    state: HypothesisState
    gate: str = "OR"
    stages: list[FaultStage] = Field(default_factory=list, max_length=8)


class Symptom(Model):
    """The breached objective, or the fault itself where there is no policy."""

    objective: str
    text: str
    evidence: Evidence


class KnobsChange(Model):
    """New knobs for running processes, and what they replace."""

    generation: int = Field(ge=1)
    desired: dict[str, Setting]
    replaces: dict[str, Setting]


class ReplicasChange(Model):
    """A new number of replicas, and the one it replaces."""

    desired: int = Field(ge=0)
    replaces: int = Field(ge=0)


class ContainerResources(Model):
    """CPU and memory of a container, as quantities; what is absent is not set."""

    cpu_request: str | None = None
    cpu_limit: str | None = None
    memory_request: str | None = None
    memory_limit: str | None = None


class ResourcesChange(Model):
    """New CPU and memory of one container of the running pods, and what they replace."""

    container: str
    desired: ContainerResources
    replaces: ContainerResources
    earlier: list[ContainerResources] = Field(
        default_factory=list,
        max_length=16,
        description="Sizes that pods of this workload began with before earlier changes; one that"
        " begins later has such a size, and gets the desired one too.",
    )


class Prediction(Model):
    """What the action is expected to do to the report's metric."""

    before: float
    after: float
    basis: str = Field(description="The model behind the prediction, in a sentence.")


class Aim(StrEnum):
    """What an action is for, and so by what it is judged."""

    IMPROVE = "Improve"
    """The metric gets better; what changes nothing is undone."""
    SAVE = "Save"
    """The objectives stay met with less; the metric may get worse within them."""
    WAKE = "Wake"
    """Somebody waits and nothing runs: kept as soon as it is there."""


class Action(Model):
    """What is to be done; exactly one of the changes is given."""

    rules = (
        Rule(
            "[has(self.knobs), has(self.replicas), has(self.resources)].filter(x, x).size() == 1",
            "write exactly one change: knobs, replicas or resources",
        ),
    )

    type: str = Field(description="DataLoader, BatchSize, Precision, Resources or Replicas.")
    summary: str
    cause: str = Field(
        description="Id of the cause that it is meant to remove; surplus where it is to save."
    )
    aim: Aim = Aim.IMPROVE
    knobs: KnobsChange | None = None
    replicas: ReplicasChange | None = None
    resources: ResourcesChange | None = None
    prediction: Prediction | None = None

    @property
    def grows(self) -> bool:
        """Whether it adds replicas."""
        return self.replicas is not None and self.replicas.desired > self.replicas.replaces


class Metric(Model):
    """By what the action is judged."""

    name: str
    unit: str
    lower_is_better: bool = False


class ReportSpec(Model):
    """The intent."""

    rules = (
        Rule(
            "self == oldSelf",
            "a report's spec is the record of an intent and cannot be changed",
        ),
    )

    policy: str
    policy_generation: int = Field(0, ge=0, description="Generation of the policy that decided.")
    target: TargetRef
    approval_required: bool = Field(
        False, description="Whether people have to approve the action before it has any effect."
    )
    breached_at: Time = Field(description="Time of the sample with which the objective broke.")
    decided_at: Time
    symptom: Symptom
    causes: list[Cause] = Field(default_factory=list)
    ruled_out: list[RuledOut] = Field(default_factory=list)
    whys: list[str] = Field(default_factory=list)
    runner_up: str = Field("", description="Id of the cause that comes next, if any.")
    fishbone: Fishbone | None = None
    fault_tree: FaultTree | None = None
    metric: Metric
    before: list[float] = Field(
        default_factory=list, description="The metric before the action, one figure per bin."
    )
    bin_seconds: float = Field(1.0, gt=0, description="Width of a bin, in seconds.")
    action: Action | None = Field(None, description="Absent when only people can act.")
    supersedes: str = Field(
        "", description="Name of the open report whose action this one carries further, if any."
    )
    refusal: str = Field("", description="Why nothing is done, when nothing is done.")


class Verdict(Model):
    """The judgement, with its statistics."""

    result: VerdictResult
    before: float | None = None
    after: float | None = None
    effect: float | None = Field(
        None, description="Relative change of the metric, after against before."
    )
    interval: list[float] = Field(
        default_factory=list, description="95% confidence interval of the effect."
    )
    p_value: float | None = None
    bins: list[int] = Field(
        default_factory=list, description="Number of figures before and after the action."
    )
    control: bool = Field(False, description="Whether untouched replicas were compared with.")
    reason: str = ""


class TimelineEntry(Model):
    """Something that happened to the action."""

    time: Time
    what: str
    message: str = ""


class ReportStatus(Model):
    """How far the action has got."""

    phase: Phase = Phase.PLANNED
    applied_at: Time | None = None
    acknowledged_at: Time | None = None
    judged_at: Time | None = None
    closed_at: Time | None = None
    after: list[float] = Field(default_factory=list)
    verdict: Verdict | None = None
    timeline: list[TimelineEntry] = Field(default_factory=list)
    next: str = Field("", description="What limits the workload now, after a kept action.")


class BottleneckReport(Model):
    """One incident: what was seen, why, what was done, and whether it helped."""

    api_version: str = "bottleneck.dev/v1alpha1"
    kind: str = "BottleneckReport"
    metadata: ObjectMeta
    spec: ReportSpec
    status: ReportStatus = Field(default_factory=ReportStatus)

    @property
    def number(self) -> int:
        """The number at the end of its name, 0 for a name without one."""
        tail = self.metadata.name.rpartition("-")[2]
        return int(tail) if tail.isdigit() else 0
