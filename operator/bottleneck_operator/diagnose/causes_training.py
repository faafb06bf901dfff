"""The catalogue: how training jobs stand still, and wait for each other.

A rank that waits for its data, or is slow by itself, shows up as everybody else's communication:
what comes first explains what comes later.
"""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .effects import (
    KINETO,
    RANKS_WAIT,
)
from .groups import (
    COMPUTING,
    DATA,
    FLAG,
)
from .hypotheses import CauseEntry, Explains, Veto, Why, explains
from .predicates import START, Predicate, all_of, either

STRAGGLER = 1.45
STRAGGLER_SOURCE = (
    "between NVIDIA Resiliency Extension's 1.33 (a relative score under 0.75) and DLRover's 2:"
    " two equal ranks of a healthy run were measured 1.37 apart"
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
            either(
                Predicate("training.coresPerRank", "<", 0.5, f"{START}: it does nothing"),
                Predicate(
                    "training.sinceStepSeconds",
                    ">=",
                    60.0,
                    f"{START}: what computes may be an evaluation that it does not tell of",
                ),
            ),
        ),
        vetoes=(
            Veto(
                Predicate("training.longPhase", ">=", 1, FLAG, flag=True),
                "the process says that it writes a checkpoint or evaluates, which takes long",
            ),
        ),
        share=shares.fixed(1.0, "nothing gets done"),
        explains=explains(
            "straggler-rank", "communication-bound", "checkpoint-stalls", *DATA, *COMPUTING
        ),
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
                Predicate("training.coresPerRank", "<", 0.5, START),
                optional=True,
            ),
            Why(
                "it is busy all the same, with {cpu.usedCores}: it waits actively, or it loops",
                ("cpu.usedCores",),
                Predicate("training.coresPerRank", ">=", 0.5, START),
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
            Predicate("training.stragglerRatio", ">=", STRAGGLER, STRAGGLER_SOURCE),
            Predicate("training.collectiveShare", ">=", 0.10, KINETO),
        ),
        share=shares.first_of(
            shares.signal("training.stragglerShare"),
            shares.scaled(
                shares.slowdown("training.stragglerRatio"), "training.collectiveFloorShare"
            ),
        ),
        vetoes=(
            Veto(
                Predicate("training.stragglerShare", "<", 0.10, f"{START}; Kineto's 10%"),
                "what it is slower by is a small part of the step",
            ),
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
                    Predicate("training.stragglerRatio", ">=", STRAGGLER, STRAGGLER_SOURCE),
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
                Predicate("training.stragglerRatio", "<", STRAGGLER, STRAGGLER_SOURCE),
            ),
        ),
        remedies=("BatchSize",),
        advice="Exchange less (16-bit gradients, gradient accumulation, a larger batch for each"
        " rank), let it overlap with the backward pass, use a faster link, fewer and nearer"
        " ranks (one zone, one rack: pod affinity), or send less (LoRA adapters).",
    ),
)
