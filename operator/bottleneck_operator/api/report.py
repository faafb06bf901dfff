"""BottleneckReport: one incident, from what was seen to what the action really did.

The spec is the intent. It is written before anything changes and is immutable afterwards; it holds
all that is needed to finish the action or to undo it. The status tells how far it got.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from .consequences import Circumstances, RevertVerdict, Rollback
from .meta import ContainerResources as ContainerResources
from .meta import Model, ObjectMeta, Rule, Setting, TargetRef, Time
from .policy import Disruption
from .split import Split


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


class Stage(StrEnum):
    """How far an action has come that begins on some of the replicas."""

    CANARY = "Canary"
    """Some pods have it, and take traffic beside the others until they are judged against them."""
    ROLLED = "Rolled"
    """It was judged good on those: all pods get it."""


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


class HpaBounds(Model):
    """Fewest and most replicas that a HorizontalPodAutoscaler sets."""

    min: int = Field(ge=0)
    max: int = Field(ge=1)


class HpaChange(Model):
    """New bounds of the HorizontalPodAutoscaler that scales the target, and what they replace."""

    name: str
    desired: HpaBounds
    replaces: HpaBounds


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


class RolloutFields(Model):
    """The fields of a workload that say how it replaces its pods; absent is not set."""

    max_surge: str | None = None
    max_unavailable: str | None = None
    min_ready_seconds: int | None = None
    progress_deadline_seconds: int | None = None
    partition: int | None = None


class ImageChange(Model):
    """Another image of one container, and what it replaces."""

    container: str
    desired: str
    replaces: str
    variant: str = Field("", description="Name of the variant; empty for the original.")
    accuracy_loss: str = Field("0%", description="What the desired image costs in accuracy.")
    original: str = Field(description="The image that no variant has replaced.")
    original_seconds: float | None = Field(
        None, ge=0, description="Time that the model took with the original image, as measured."
    )
    holds: RolloutFields = Field(description="With these the rolling update stops at one pod.")
    restores: RolloutFields = Field(description="The same fields as they were found.")


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


class Cost(Model):
    """What an action costs."""

    disruption: Disruption = Field(description="What it does to the pods that run.")
    replicas: int = Field(
        0, ge=0, description="Replicas that run more than before, for as long as it is kept."
    )
    accuracy_loss: str | None = Field(None, description="Of a variant, as its policy states it.")
    risk: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of earlier actions of this type against this cause that did not help;"
        " absent where none was tried.",
    )


class Alternative(Model):
    """What was considered besides, and why it was not done."""

    cause: str
    type: str
    summary: str = Field("", description="The change; absent where there was none to make.")
    reason: str = Field(max_length=1024)


class Action(Model):
    """What is to be done; exactly one of the changes is given."""

    rules = (
        Rule(
            "[has(self.knobs), has(self.replicas), has(self.resources), has(self.image),"
            " has(self.hpa)].filter(x, x).size() == 1",
            "write exactly one change: knobs, replicas, resources, image or hpa",
        ),
    )

    type: str = Field(
        description="DataLoader, BatchSize, Precision, Resources, Replicas or Variant."
    )
    summary: str
    cause: str = Field(
        description="Id of the cause that it is meant to remove; surplus where it is to save."
    )
    aim: Aim = Aim.IMPROVE
    knobs: KnobsChange | None = None
    replicas: ReplicasChange | None = None
    resources: ResourcesChange | None = None
    image: ImageChange | None = None
    hpa: HpaChange | None = None
    prediction: Prediction | None = None
    cost: Cost | None = None

    @property
    def judged(self) -> bool:
        """Whether what it did is measured. To wake is no experiment, and where nothing runs there
        is nothing to measure."""
        asleep = self.replicas is not None and self.replicas.desired == 0
        return self.aim is not Aim.WAKE and not asleep

    @property
    def grows(self) -> bool:
        """Whether it adds replicas."""
        return self.replicas is not None and self.replicas.desired > self.replicas.replaces


class Metric(Model):
    """By what the action is judged."""

    name: str
    unit: str
    lower_is_better: bool = False


class TradeRole(StrEnum):
    """Which side of a trade a report is."""

    GIVES = "Gives"
    TAKES = "Takes"


class Trade(Model):
    """Devices that one policy of a pool gives to another one. Each side has a report; what becomes
    of the one follows from the other."""

    pool: str
    role: TradeRole
    policy: str = Field(description="The policy on the other side.")
    report: str = Field(
        "", description="The other side's report; empty where that one is written in answer."
    )
    devices: float = Field(gt=0, description="How many devices change hands.")
    resource: str = Field(description="The extended resource, for instance nvidia.com/gpu.")
    ready: int = Field(ge=1, description="Ready replicas that the taking side has afterwards.")
    reason: str = Field(description="The trade in a sentence, with its figures.")


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
    target_uid: str = Field(
        "", description="UID of the workload: an action is not carried on at a namesake."
    )
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
    load: float | None = Field(
        None, ge=0, description="Requests that came in a second meanwhile; absent where none do."
    )
    bin_seconds: float = Field(1.0, gt=0, description="Width of a bin, in seconds.")
    action: Action | None = Field(None, description="Absent when only people can act.")
    alternatives: list[Alternative] = Field(
        default_factory=list,
        max_length=16,
        description="What was considered besides the action, and why it was not done.",
    )
    trade: Trade | None = Field(None, description="Where the action is one side of a trade.")
    supersedes: str = Field(
        "", description="Name of the open report whose action this one carries further, if any."
    )
    circumstances: Circumstances | None = Field(
        None, description="Under what it was decided: a miss is repeated only once this changed."
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
    confounders: list[str] = Field(
        default_factory=list,
        max_length=16,
        description="What else happened while it was measured, and may be behind the effect.",
    )
    reason: str = ""


class TimelineEntry(Model):
    """Something that happened to the action."""

    time: Time
    what: str
    message: str = ""


class ReportStatus(Model):
    """How far the action has got."""

    phase: Phase = Phase.PLANNED
    stage: Stage | None = Field(
        None, description="Of an action that begins on some replicas: whether the rest has it."
    )
    split: Split | None = Field(
        None, description="The replicas that it begins on; absent for an image, which shows itself."
    )
    applied_at: Time | None = None
    acknowledged_at: Time | None = None
    judged_at: Time | None = None
    closed_at: Time | None = None
    after: list[float] = Field(default_factory=list)
    verdict: Verdict | None = None
    revert: RevertVerdict | None = Field(
        None, description="Whether all is as it was before, once the action was undone."
    )
    rollback: Rollback | None = Field(
        None, description="The newest request of people to take the action back."
    )
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
