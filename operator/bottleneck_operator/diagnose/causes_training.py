"""The catalogue, part one: causes of training jobs.

Their order is the order of evaluation: what comes earlier can make what comes later look bad, since
a rank that waits for its data shows up as everybody else's communication.
"""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .effects import COMPUTE, INPUT_WAIT, KINETO, RANKS_WAIT, XPROF
from .hypotheses import CauseEntry, Explains, Veto, Why, explains
from .predicates import START, Predicate, all_of, any_of, either

PYTORCH_WORKERS = "PyTorch: 0 workers load in the main process"
NVRX = "NVIDIA Resiliency Extension: a relative score under 0.75 is a straggler; DLRover: 2×"
XPROF_SPLIT = "XProf: preprocessing of at least half of the input time is CPU work, else storage"
SHORT_WAIT = f"{START}: handing a batch over between processes takes milliseconds as well"
FLAG = "yes or no"
DCGM = "NVIDIA DCGM profiling metrics, as read by its users' guide"

_DATA = Predicate("training.dataShare", ">=", 0.20, XPROF)
_SHORT = Veto(
    Predicate("training.dataSeconds", "<", 0.004, SHORT_WAIT),
    "the wait is too short for any other way of loading to shorten it",
)
_TRAINING_CAUSES = (
    "straggler-rank",
    "loader-without-workers",
    "cpu-heavy-preprocessing",
    "slow-storage",
    "checkpoint-stalls",
    "communication-bound",
    "host-bound",
    "precision-unused",
    "memory-bandwidth-bound",
    "compute-bound",
)

TRAINING_CAUSES: tuple[CauseEntry, ...] = (
    CauseEntry(
        id="hang",
        class_="hang",
        category="Models",
        stage="model",
        title="Training hangs: no step ends any more",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate("training.sinceStepSeconds", ">=", 10.0, START),
            Predicate(
                "training.sinceStepSeconds", ">=", "training.usualStepSeconds", START, factor=20.0
            ),
        ),
        vetoes=(
            Veto(
                Predicate("training.longPhase", ">=", 1, FLAG, flag=True),
                "the process says that it writes a checkpoint or evaluates, which takes long",
            ),
        ),
        share=shares.fixed(1.0, "nothing gets done"),
        explains=explains(*_TRAINING_CAUSES, INPUT_WAIT, RANKS_WAIT, COMPUTE),
        breaks=True,
        whys=(
            Why(
                "no step has ended for {training.sinceStepSeconds}, where one usually takes"
                " {training.usualStepSeconds}",
                ("training.sinceStepSeconds", "training.usualStepSeconds"),
            ),
            Why(
                "the process says that it is in no checkpoint and no evaluation",
                ("training.longPhase",),
                Predicate("training.longPhase", "<", 1, FLAG, flag=True),
                optional=True,
            ),
            Why(
                "it waits for something: it used only {cpu.usedCores} meanwhile",
                ("cpu.usedCores",),
                Predicate("cpu.busyShare", "<", 0.05, START),
                optional=True,
            ),
            Why(
                "it is busy all the same, with {cpu.usedCores}: it waits actively, or it loops",
                ("cpu.usedCores",),
                Predicate("cpu.usedCores", ">=", 0.5, START),
                optional=True,
            ),
        ),
        advice="Look where every rank stands (py-spy dump), then restart from the last checkpoint."
        " With several ranks, one that waits in a collective waits for one that never got there.",
    ),
    CauseEntry(
        id="straggler-rank",
        class_="straggler",
        category="Infrastructure",
        stage="integration",
        title="One rank is slower than the others, and all wait for it",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate("training.stragglerRatio", ">=", 1.33, NVRX),
            Predicate("training.collectiveShare", ">=", 0.10, KINETO),
        ),
        share=shares.scaled(
            shares.slowdown("training.stragglerRatio"), "training.collectiveFloorShare"
        ),
        explains=(
            *explains(RANKS_WAIT),
            *explains("communication-bound", proportion=0.5),
            *explains(
                "loader-without-workers", "cpu-heavy-preprocessing", "slow-storage", proportion=0.5
            ),
            Explains(
                "cpu-throttled", Predicate("cpu.throttledReplicas", "<", 2, FLAG), deeper=True
            ),
            Explains(
                "node-oversubscribed", Predicate("cpu.contendedReplicas", "<", 2, FLAG), deeper=True
            ),
        ),
        whys=(
            Why(
                "all wait for the slowest: its own work of a step, collectives left out, takes"
                " {training.stragglerRatio} what the others' takes",
                ("training.stragglerRatio",),
            ),
            Why(
                "that is rank {training.stragglerRank}",
                ("training.stragglerRank",),
                optional=True,
            ),
        ),
        advice="Replace that rank's pod, or move it to a node like the others'; if its data is"
        " heavier, spread the data evenly.",
    ),
    CauseEntry(
        id="slow-storage",
        class_="data-loading",
        category="Data",
        stage="ingestion",
        title="Reading the data is slow: the loader waits for storage",
        workload=WorkloadType.TRAINING,
        predicates=(_DATA, Predicate("loader.blockedShare", ">=", 0.50, XPROF_SPLIT)),
        vetoes=(_SHORT,),
        share=shares.signal("training.dataShare"),
        explains=explains("loader-without-workers", INPUT_WAIT),
        whys=(
            Why(
                "whoever loads computes for only {loader.cpuShare} of that time; for"
                " {loader.blockedShare} it is blocked, waiting for files",
                ("loader.cpuShare", "loader.blockedShare"),
            ),
            Why(
                "the storage delivers {loader.readBytesPerSecond}",
                ("loader.readBytesPerSecond",),
                Predicate("loader.readBytesPerSecond", ">=", 1, START),
                optional=True,
            ),
            Why(
                "some task of the container waited for the disk {io.pressureShare} of the time",
                ("io.pressureShare",),
                Predicate("io.pressureShare", ">=", 0.1, START),
                optional=True,
            ),
        ),
        advice="Read from faster or nearer storage, cache the data on the node, or read fewer and"
        " larger files (shards). More loader workers help as far as the storage answers in"
        " parallel.",
    ),
    CauseEntry(
        id="loader-without-workers",
        class_="data-loading",
        category="Data",
        stage="preprocessing",
        title="The training process loads its own data: no loader workers",
        workload=WorkloadType.TRAINING,
        predicates=(
            _DATA,
            Predicate("dataLoader.workers", "<", 1, PYTORCH_WORKERS, flag=True),
        ),
        vetoes=(_SHORT,),
        share=shares.signal("training.dataShare"),
        explains=explains(INPUT_WAIT),
        remedies=("DataLoader",),
        whys=(
            Why(
                "samples are prepared in the training process itself: dataLoader.workers is 0, so"
                " loading and computing never overlap",
                ("dataLoader.workers",),
            ),
            Why(
                "nobody set workers, though the container used only {cpu.usedCores} of the"
                " {cpu.availableCores} it may use: CPUs stood idle while it waited",
                ("cpu.usedCores", "cpu.availableCores"),
                Predicate("cpu.busyShare", "<", 0.8, START),
            ),
        ),
        advice="Set num_workers of the DataLoader.",
    ),
    CauseEntry(
        id="cpu-heavy-preprocessing",
        class_="data-loading",
        category="Data",
        stage="preprocessing",
        title="Preprocessing is heavy: the loader workers cannot keep up",
        workload=WorkloadType.TRAINING,
        predicates=(
            _DATA,
            Predicate("dataLoader.workers", ">=", 1, PYTORCH_WORKERS, flag=True),
            any_of(
                Predicate("loader.blockedShare", "<", 0.50, XPROF_SPLIT),
                all_of(
                    Predicate("cpu.busyShare", ">=", 0.80, START),
                    Predicate("loader.cpuShare", ">=", 0.30, START),
                ),
            ),
        ),
        vetoes=(_SHORT,),
        share=shares.signal("training.dataShare"),
        explains=explains(INPUT_WAIT),
        remedies=("DataLoader",),
        whys=(
            Why(
                "{dataLoader.workers} prepare it and are behind in every step",
                ("dataLoader.workers",),
            ),
            Why(
                "they do not wait for files: they compute for {loader.cpuShare} of the time",
                ("loader.cpuShare",),
                Predicate("loader.cpuShare", ">=", 0.30, START),
                optional=True,
            ),
            Why(
                "for {loader.runQueueShare} of the time they are ready and get no CPU",
                ("loader.runQueueShare",),
                Predicate("loader.runQueueShare", ">=", 0.10, START),
                optional=True,
            ),
            Why(
                "the container has no CPU left for more: it used {cpu.usedCores} of the"
                " {cpu.availableCores} it may use",
                ("cpu.usedCores", "cpu.availableCores"),
                Predicate("cpu.busyShare", ">=", 0.8, START),
            ),
        ),
        advice="Make preprocessing cheaper (decode once, cache, smaller images), add loader workers"
        " where CPUs are idle, or give it more CPU.",
    ),
    CauseEntry(
        id="checkpoint-stalls",
        class_="checkpoint",
        category="Processes",
        stage="model",
        title="Training stands still while checkpoints are written",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate(
                "training.checkpointShare",
                ">=",
                0.05,
                f"{START}; CheckFreq (FAST '21) keeps checkpoints under 3.5% of the time",
            ),
        ),
        share=shares.signal("training.checkpointShare"),
        whys=(
            Why(
                "{training.checkpointShare} of the time goes into writing checkpoints, and no step"
                " runs meanwhile",
                ("training.checkpointShare",),
            ),
            Why(
                "some task of the container waited for the disk {io.pressureShare} of the time",
                ("io.pressureShare",),
                Predicate("io.pressureShare", ">=", 0.1, START),
                optional=True,
            ),
        ),
        advice="Write checkpoints less often, to faster storage, or in the background from a copy"
        " in memory.",
    ),
    CauseEntry(
        id="communication-bound",
        class_="communication",
        category="Infrastructure",
        stage="integration",
        title="The ranks spend their time talking to each other",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate(
                "training.collectiveShare",
                ">=",
                0.30,
                "XProf: at least 30% of the step; Kineto already warns at 10%",
            ),
        ),
        vetoes=(
            Veto(
                Predicate("training.collectiveSeconds", "<", 0.010, START),
                "the exchange takes only milliseconds, and so does the whole step",
            ),
            Veto(
                all_of(
                    Predicate("training.stragglerRatio", ">=", 1.33, NVRX),
                    Predicate("training.collectiveFloorShare", "<", 0.30, "as for all ranks"),
                ),
                "one rank is slower than the others, and waiting for it counts as communication",
            ),
            Veto(
                Predicate("training.collectiveFloorShare", "<", 0.20, START),
                "some rank hardly spends time in collectives: the others wait for it, not for the"
                " exchange",
            ),
        ),
        share=shares.signal("training.collectiveFloorShare", "training.collectiveShare"),
        explains=explains(RANKS_WAIT),
        whys=(
            Why(
                "even the rank that waits for no other one spends {training.collectiveFloorShare}"
                " of its step in them",
                ("training.collectiveFloorShare",),
                optional=True,
            ),
            Why(
                "no rank is behind: the slowest one's own work takes {training.stragglerRatio} of"
                " what the others' takes, so it is the exchange itself",
                ("training.stragglerRatio",),
                Predicate("training.stragglerRatio", "<", 1.33, NVRX),
            ),
        ),
        advice="Exchange less (16-bit gradients, gradient accumulation, a larger batch for each"
        " rank), let it overlap with the backward pass, use a faster link, or fewer and nearer"
        " ranks.",
    ),
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
                    Predicate("training.stepSeconds", "<", 0.100, START),
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
                "a step computes only {training.microBatch} and takes {training.stepSeconds}, of"
                " which a large part is the same for any batch",
                ("training.microBatch", "training.stepSeconds"),
                Predicate("training.microBatch", "<", 8, START),
            ),
        ),
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
        advice="Use mixed precision, a smaller model, a faster device, or more ranks.",
    ),
)
