"""The catalogue: what limits a job that waits for nothing. Every healthy one has such a limit."""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .effects import (
    COMPUTE,
    XPROF,
)
from .groups import (
    DCGM,
)
from .hypotheses import CauseEntry, Veto, Why, explains
from .predicates import START, Predicate, all_of, either

COMPUTE_CAUSES: tuple[CauseEntry, ...] = (
    CauseEntry(
        id="host-bound",
        class_="host",
        category="Models",
        stage="model",
        title="Starting the work takes longer than the work: tiny batches",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate("training.cpuShare", ">=", 0.70, f"{START}: one core is full"),
            either(
                all_of(
                    Predicate("gpu.utilization", "<", 0.50, START),
                    Predicate("training.dataShare", "<", 0.20, XPROF),
                ),
                all_of(
                    Predicate("training.microBatch", "<", 8, START),
                    Predicate("training.microBatchSeconds", "<", 0.100, START),
                ),
            ),
        ),
        vetoes=(
            Veto(
                Predicate("gpu.utilization", ">=", 0.80, START),
                "the GPU is busy, so it is fed fast enough",
            ),
        ),
        share=shares.first_of(
            shares.rest_of("gpu.utilization"),
            shares.part_of(0.5, "training.computeShare", "half of the step is set-up"),
        ),
        explains=explains("precision-unused", "memory-bandwidth-bound", "compute-bound", COMPUTE),
        needs_breach=True,
        whys=(
            Why(
                "the training thread is busy {training.cpuShare} of the step on one core",
                ("training.cpuShare",),
            ),
            Why(
                "meanwhile the GPU works only {gpu.utilization} of the time",
                ("gpu.utilization",),
                optional=True,
            ),
            Why(
                "a batch is only {training.microBatch} and takes {training.microBatchSeconds}, of"
                " which a large part is the same for any batch",
                ("training.microBatch", "training.microBatchSeconds"),
                Predicate("training.microBatch", "<", 8, START),
            ),
        ),
        remedies=("BatchSize",),
        advice="Use a larger batch, compile the model (torch.compile, CUDA graphs), and read"
        " results (loss.item()) only now and then.",
    ),
    CauseEntry(
        id="precision-unused",
        class_="precision",
        category="Models",
        stage="model",
        title="The device computes faster in 16 bits, and they are not used",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate("hardware.bf16", ">=", 1, "capability 7.0, AMX or AVX512-BF16", flag=True),
            Predicate("training.lowPrecisionShare", "<", 0.10, START),
            Predicate("training.computeShare", ">=", 0.50, START),
        ),
        share=shares.part_of(
            1 / 3, "training.computeShare", "PyTorch measures 1.5× and more with mixed precision"
        ),
        explains=explains("memory-bandwidth-bound", "compute-bound", COMPUTE),
        needs_breach=True,
        whys=(
            Why(
                "the device has fast 16-bit arithmetic, and only {training.lowPrecisionShare} of"
                " the steps use it",
                ("hardware.bf16", "training.lowPrecisionShare"),
            ),
        ),
        remedies=("Precision",),
        advice="Run the forward pass under torch.autocast with bfloat16; float16 needs a gradient"
        " scaler.",
    ),
    CauseEntry(
        id="memory-bandwidth-bound",
        class_="compute",
        category="Models",
        stage="model",
        title="The GPU waits for its own memory",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            Predicate("gpu.dramActive", ">=", 0.50, DCGM),
            Predicate("gpu.smActive", "<", 0.50, DCGM),
        ),
        share=shares.part_of(0.5, "gpu.dramActive", "half the bytes take half the time"),
        explains=explains("compute-bound", "slow-model", COMPUTE),
        needs_breach=True,
        whys=(
            Why(
                "the GPU's memory is busy {gpu.dramActive} of the time, its arithmetic"
                " {gpu.smActive}",
                ("gpu.dramActive", "gpu.smActive"),
            ),
        ),
        remedies=("Precision", "Variant"),
        advice="Move fewer bytes: mixed precision, quantization, fused kernels (torch.compile), or"
        " a larger batch to use each byte more often.",
    ),
    CauseEntry(
        id="compute-bound",
        class_="compute",
        category="Models",
        stage="model",
        title="The step is computing: the device is the limit",
        workload=WorkloadType.TRAINING,
        predicates=(
            either(
                Predicate("training.computeShare", ">=", 0.70, START),
                all_of(
                    Predicate("gpu.tensorActive", ">=", 0.50, DCGM),
                    Predicate("gpu.smActive", ">=", 0.60, DCGM),
                ),
            ),
        ),
        share=shares.first_of(
            shares.part_of(0.5, "training.computeShare", "twice the speed takes half the time"),
            shares.part_of(0.5, "gpu.smActive", "twice the speed takes half the time"),
        ),
        explains=explains(COMPUTE),
        needs_breach=True,
        whys=(
            Why(
                "nothing else takes long: input is {training.dataShare} of the step",
                ("training.dataShare",),
                Predicate("training.dataShare", "<", 0.20, XPROF),
            ),
        ),
        remedies=("Replicas",),
        advice="Use mixed precision, train fewer parameters (LoRA adapters on a frozen model), a"
        " smaller model, a faster device, or more ranks.",
    ),
)
