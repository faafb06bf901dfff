"""BottleneckPolicy: what a workload should reach, and what the operator may do for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .meta import ContainerResources, Model, Rule, Setting, TargetRef, Time
from .telemetry import Telemetry
from .units import DURATION_PATTERN, NUMBER_PATTERN, PERCENT_PATTERN, QUANTITY_PATTERN

Duration = Annotated[
    str,
    Field(pattern=DURATION_PATTERN, max_length=32),
    Rule(
        f"self.matches(r'{DURATION_PATTERN}')",
        'write a duration with its unit (ms, s, m or h), such as "250ms", "60s" or "1m30s"',
    ),
]
Percent = Annotated[
    str,
    Field(pattern=PERCENT_PATTERN, max_length=16),
    Rule(
        f"self.matches(r'{PERCENT_PATTERN}') && double(self.replace('%', '')) <= 100.0",
        'write a percentage from 0 to 100, such as "1%" or "2.5%"',
    ),
]
Number = Annotated[
    str,
    Field(pattern=NUMBER_PATTERN, max_length=32),
    Rule(
        f"self.matches(r'{NUMBER_PATTERN}') && double(self) > 0.0",
        'write a number above zero in quotes, without a unit, such as "500" or "12.5"',
    ),
]

Quantity = Annotated[
    str,
    Field(pattern=QUANTITY_PATTERN, max_length=32),
    Rule(
        f"self.matches(r'{QUANTITY_PATTERN}') && quantity(self).isGreaterThan(quantity('0'))",
        'write a quantity above zero, such as "500m" or "2" for CPU and "4Gi" for memory',
    ),
]


class Mode(StrEnum):
    """How far the operator may go by itself."""

    OBSERVE = "Observe"
    RECOMMEND = "Recommend"
    AUTO = "Auto"


class Latency(Model):
    """A percentile of the time from a request's arrival to its last byte."""

    rules = (
        Rule(
            f"!self.target.matches(r'{DURATION_PATTERN}')"
            " || duration(self.target) > duration('0s')",
            'write a duration longer than zero, such as "250ms"',
            ".target",
        ),
    )

    percentile: int = Field(95, ge=50, le=99, description="Which percentile, 50 to 99.")
    target: Duration = Field(description='The most it may be, for instance "250ms".')


class ErrorRate(Model):
    """The share of requests that fail."""

    max: Percent = Field(description='The most it may be, for instance "1%".')


class Goodput(Model):
    """Samples per second that all replicas or ranks train on together."""

    min: Number = Field(description='The least it may be, in samples per second: "500".')


class DataWait(Model):
    """The share of a training step that is spent waiting for input."""

    max: Percent = Field(description='The most it may be, for instance "20%".')


class StepTime(Model):
    """How much slower than this workload's own usual a training step may become."""

    max_regression: Percent = Field(
        description="The most that a step may be slower than the learnt baseline at the same batch"
        ' and ranks, for instance "20%". There is nothing to judge by until it has been learnt.'
    )


class Device(StrEnum):
    """What a utilization is of."""

    GPU = "GPU"
    CPU = "CPU"


class Utilization(Model):
    """Bounds within which a device should be busy."""

    rules = (
        Rule(
            "has(self.min) || has(self.max)",
            "write min, max or both, as whole percent: {device: GPU, min: 40, max: 90}",
        ),
        Rule(
            "!has(self.min) || !has(self.max) || self.min < self.max",
            "write a min that is below max",
            ".min",
        ),
    )

    device: Device = Field(description="GPU, or CPU: the share of the CPUs the container may use.")
    min: int | None = Field(None, ge=1, le=100, description="The least, in whole percent: 40.")
    max: int | None = Field(None, ge=1, le=100, description="The most, in whole percent: 90.")


class Objectives(Model):
    """What "breached" means; at least one."""

    rules = (
        Rule(
            "has(self.latency) || has(self.errorRate) || has(self.goodput) || has(self.dataWait)"
            " || has(self.stepTime) || has(self.utilization)",
            "write at least one objective: latency or errorRate for serving,"
            " goodput, dataWait or stepTime for training, utilization for either",
        ),
    )

    latency: Latency | None = Field(None, description="For serving: a latency percentile.")
    error_rate: ErrorRate | None = Field(None, description="For serving: the share of failures.")
    goodput: Goodput | None = Field(None, description="For training: samples per second.")
    data_wait: DataWait | None = Field(
        None, description="For training: the share of the step spent waiting for input."
    )
    step_time: StepTime | None = Field(
        None, description="For training: how much slower than usual a step may become."
    )
    utilization: Utilization | None = Field(
        None, description="For either: how busy the GPUs or the CPUs should be."
    )


class HpaMode(StrEnum):
    """What becomes of a HorizontalPodAutoscaler that scales the target."""

    RESPECT = "Respect"
    ADJUST_BOUNDS = "AdjustBounds"


class ReplicasAction(Model):
    """Bounds within which the operator may set the number of replicas."""

    rules = (
        Rule(
            "self.min <= self.max",
            "write a min that is not above max (min is 1 when it is left out)",
            ".min",
        ),
        Rule(
            f"!self.idle.matches(r'{DURATION_PATTERN}') || duration(self.idle) >= duration('10s')",
            'write an idle of at least "10s", the window over which requests are counted',
            ".idle",
        ),
    )

    min: int = Field(
        1,
        ge=0,
        le=10000,
        description="Fewest replicas. 0 lets an idle workload sleep; that takes a gate, which keeps"
        " the requests that come meanwhile.",
    )
    max: int = Field(ge=1, le=10000, description="Most replicas.")
    idle: Duration = Field(
        "5m",
        description="With min 0: how long no request may have come, been answered or waited before"
        ' the workload is scaled to zero, at least "10s".',
    )
    group: str = Field(
        "",
        max_length=63,
        description="Name of the worker group of a RayCluster or RayService; may be left out where"
        " it has one.",
    )
    hpa: HpaMode = Field(
        HpaMode.RESPECT,
        description="Respect (the default): replicas that a HorizontalPodAutoscaler scales are left"
        " to it. AdjustBounds: its minReplicas and maxReplicas are changed, within min and max.",
    )
    stabilization: Duration = Field(
        "10m",
        description="How far back load is looked at: fewer replicas must have been enough for so"
        " long before any is taken away, and bursts of that time are expected again.",
    )


class DataLoaderAction(Model):
    """Bounds within which the operator may change how training data is loaded."""

    max_workers: int = Field(ge=0, le=64, description="Most loader worker processes of one rank.")
    max_prefetch: int = Field(
        4, ge=1, le=64, description="Most batches that one worker prepares ahead."
    )
    persistent_workers: bool = Field(
        False,
        description="Whether workers that are added may live on from epoch to epoch.",
    )
    pin_memory: bool = Field(
        False,
        description="Whether batches may be copied to page-locked memory, from which a GPU takes"
        " them sooner. Without a GPU nothing comes of it.",
    )


class GlobalBatch(StrEnum):
    """What becomes of the number of samples behind one optimizer step."""

    PRESERVE = "Preserve"
    GROW = "Grow"


class LearningRateRule(StrEnum):
    """What becomes of the learning rate when the global batch grows."""

    ADA_SCALE = "AdaScale"
    SQUARE_ROOT = "SquareRoot"
    LINEAR = "Linear"


class BatchSizeAction(Model):
    """Bounds within which the operator may set the batch size: samples of one forward pass in
    training, requests in one batch in serving."""

    rules = (
        Rule(
            "self.min <= self.max",
            "write a min that is not above max (min is 1 when it is left out)",
            ".min",
        ),
        Rule(
            "self.globalBatch != 'Grow' || (has(self.maxGlobal) && has(self.learningRate))",
            "write maxGlobal (samples of an optimizer step, over all ranks) and learningRate"
            " (AdaScale, SquareRoot or Linear) beside globalBatch: Grow",
        ),
        Rule(
            "self.globalBatch == 'Grow' || (!has(self.maxGlobal) && !has(self.learningRate))",
            "write globalBatch: Grow beside maxGlobal and learningRate, or remove both: otherwise"
            " the global batch stays as it is",
        ),
        Rule(
            "!has(self.maxGlobal) || self.maxGlobal >= self.min",
            "write a maxGlobal that is not below min: a step has at least one batch",
            ".maxGlobal",
        ),
    )

    min: int = Field(1, ge=1, le=65536, description="Smallest batch.")
    max: int = Field(ge=1, le=65536, description="Largest batch.")
    global_batch: GlobalBatch = Field(
        GlobalBatch.PRESERVE,
        description="Training only. Preserve: as many more or fewer micro-batches are accumulated,"
        " so that an optimizer step is of the same samples. Grow: an optimizer step may become one"
        " of more samples, up to the gradient noise scale and maxGlobal.",
    )
    max_global: int | None = Field(
        None,
        ge=2,
        le=2**31 - 1,
        description="With Grow: most samples of an optimizer step, over all ranks.",
    )
    learning_rate: LearningRateRule | None = Field(
        None,
        description="With Grow: what becomes of the learning rate. AdaScale: times the gain that"
        " the noise scale promises. SquareRoot: times the root of the growth, usual for Adam."
        " Linear: times the growth, usual for SGD.",
    )


class Precision(StrEnum):
    """A 16-bit format."""

    BF16 = "bf16"
    FP16 = "fp16"


class PrecisionAction(Model):
    """The number formats that the operator may switch on."""

    allowed: list[Precision] = Field(
        min_length=1,
        max_length=2,
        description="bf16, fp16 or both, the preferred one first. In training autocast is switched"
        " on, in serving the weights are converted.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    accuracy_loss: Percent = Field(
        "0%",
        description="What 16 bits cost this model in accuracy, as you measured it; it counts"
        " against limits.accuracyLoss.",
    )


class ResourceBound(Model):
    """Bounds of one resource."""

    rules = (
        Rule(
            "!has(self.min) || quantity(self.min).compareTo(quantity(self.max)) <= 0",
            "write a min that is not above max",
            ".min",
        ),
    )

    max: Quantity = Field(description='The most that the container may get: "4" or "8Gi".')
    min: Quantity | None = Field(
        None,
        description="The least that a request may be cut to where it was not used for an hour;"
        ' "500m" or "1Gi". Without it nothing is ever taken away.',
    )


class ResourcesAction(Model):
    """Bounds within which the operator may resize a container of running pods."""

    rules = (
        Rule(
            "has(self.cpu) || has(self.memory)",
            'write cpu, memory or both: {cpu: {max: "4"}, memory: {max: 8Gi}}',
        ),
    )

    container: str = Field(
        "",
        max_length=63,
        description="Name of the container; may be left out where a pod has one besides the"
        " sidecar.",
    )
    cpu: ResourceBound | None = Field(None, description="Change the CPU limit and request.")
    memory: ResourceBound | None = Field(None, description="Change the memory limit and request.")


class VariantAction(Model):
    """Another image of the same model, faster and a little less accurate."""

    rules = (
        Rule(
            "self.image.matches('^[^@]+@sha256:[a-f0-9]{64}$')"
            " || (self.image.matches('^[^@]+:[A-Za-z0-9_][A-Za-z0-9_.-]*$')"
            " && !self.image.endsWith(':latest'))",
            'write the image with its digest, such as "registry.example/ranker@sha256:…" with 64'
            " hexadecimal digits, or with a tag that never moves; latest does",
            ".image",
        ),
        Rule(
            "self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "write a name of lower-case letters, digits and '-', such as int8 or pruned-50",
            ".name",
        ),
    )

    name: str = Field(min_length=1, max_length=63, description="What reports call it: int8.")
    image: str = Field(
        min_length=1,
        max_length=512,
        description="The image, pinned by its digest or by a tag that never moves.",
    )
    container: str = Field(
        "",
        max_length=63,
        description="Name of the container; may be left out where a pod has one besides the"
        " sidecar.",
    )
    accuracy_loss: Percent = Field(
        description="What it costs in accuracy against the original image, as you measured it:"
        ' "0.4%".'
    )


class Actions(Model):
    """What the operator may do, each with its bounds; what is absent is never done."""

    rules = (
        Rule(
            "!has(self.variants) || self.variants.all(v,"
            " self.variants.exists_one(w, w.name == v.name))",
            "write another name for one of the variants: reports tell them apart by name",
            ".variants",
        ),
    )

    replicas: ReplicasAction | None = Field(None, description="Change the number of replicas.")
    data_loader: DataLoaderAction | None = Field(
        None, description="Change loader workers and prefetch of running training processes."
    )
    batch_size: BatchSizeAction | None = Field(
        None, description="Change the batch size of running processes."
    )
    precision: PrecisionAction | None = Field(
        None, description="Let running processes compute in 16 bits."
    )
    resources: ResourcesAction | None = Field(
        None, description="Resize running pods in place, without a restart."
    )
    variants: list[VariantAction] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="Roll out another image of the model, one pod first, and go back to the"
        " original when the load allows it.",
    )


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
    paused: bool = Field(
        False, description="Hold everything as it is; open actions are finished first."
    )


class ConditionStatus(Model):
    """One condition, after the Kubernetes API conventions."""

    type: str
    status: str = Field(description="True, False or Unknown.")
    reason: str
    message: str = ""
    last_transition_time: Time
    observed_generation: int | None = None


class BottleneckStatus(Model):
    """The bottleneck as it is seen now."""

    id: str = Field(description="The cause's id in the catalogue.")
    title: str = ""
    share: float | None = Field(
        None, ge=0, le=1, description="Share of the step or latency that removing it would return."
    )


class KnobsStatus(Model):
    """Settings of running processes that the operator stands for."""

    generation: int = Field(0, ge=0, description="Raised by one with every change.")
    desired: dict[str, Setting] = Field(
        default_factory=dict, description="Dotted knob names and their desired values."
    )
    acknowledged: int = Field(
        0, ge=0, description="The newest generation that every rank has acknowledged."
    )


class SizeStatus(Model):
    """The size of a container that the operator stands for."""

    container: str
    desired: ContainerResources
    replaces: list[ContainerResources] = Field(
        default_factory=list,
        max_length=17,
        description="Sizes that later pods are created with; any other one is left alone.",
    )


class ObjectiveStatus(Model):
    """One objective and where the workload stands."""

    name: str
    current: str = Field(description='The current figure with its unit, or "no data".')
    target: str
    met: bool | None = Field(None, description="Absent while there is no data.")


class LastAction(Model):
    """The newest action and what became of it."""

    report: str
    summary: str
    verdict: str = ""
    time: Time


class Recommendation(Model):
    """What people can do themselves about a confirmed cause."""

    cause: str = Field(description="The cause's id in the catalogue.")
    title: str
    how: str = Field(description="What to do.")
    expected_gain: str = Field(
        description='The most that it is expected to return: "up to +40% goodput".'
    )


class BaselineStatus(Model):
    """What one signal usually is at one load, learnt while nothing was known to be wrong."""

    signal: str = Field(max_length=63, description='For instance "inference.serviceSeconds".')
    load: str = Field(
        max_length=63,
        description="The load at which it was learnt: an octave of the arrival rate, or the"
        " micro-batch and the number of ranks.",
    )
    median: float
    spread: float = Field(ge=0, description="Typical distance of a window from the median.")
    anchor: float | None = Field(
        None, description="What is compared with: follows the median, but hardly gets worse."
    )
    count: int = Field(ge=0, description="Number of windows that it was learnt from.")
    since: Time | None = Field(None, description="When learning began.")
    updated_at: Time


class PolicyStatus(Model):
    """What the operator sees and did."""

    observed_generation: int | None = None
    conditions: list[ConditionStatus] = Field(
        default_factory=list,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    replicas: int | None = None
    streaming: int | None = Field(None, description="Replicas whose telemetry is fresh.")
    objectives: list[ObjectiveStatus] = Field(default_factory=list)
    bottleneck: BottleneckStatus | None = None
    why: str = Field("", description="The chain of causes in one paragraph.")
    recommendations: list[Recommendation] = Field(
        default_factory=list,
        max_length=5,
        description="What people can do about the confirmed causes, the largest gain first.",
    )
    knobs: KnobsStatus | None = None
    sizes: list[SizeStatus] = Field(
        default_factory=list,
        max_length=16,
        description="Sizes that were found to help and that later pods get as they are created.",
    )
    last_action: LastAction | None = None
    next: str = Field("", description="What limits the workload since the last kept action.")
    next_report: int = Field(1, ge=1, description="Number of the next report's name.")
    baselines: list[BaselineStatus] = Field(
        default_factory=list,
        max_length=64,
        description="What is usual for this workload; a restarted operator goes on from here.",
    )


class ObjectMeta(Model):
    """The part of an object's metadata that the operator reads."""

    model_config = Model.model_config | {"extra": "ignore"}

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None


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
