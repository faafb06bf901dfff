"""What the operator may do, each with its bounds: a part of the BottleneckPolicy."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from .meta import Model, Rule
from .scalars import Duration, Percent, Quantity
from .units import DURATION_PATTERN


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
