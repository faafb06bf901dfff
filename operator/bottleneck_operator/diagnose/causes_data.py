"""The catalogue: training jobs that wait for their data."""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .effects import (
    INPUT_WAIT,
    XPROF,
)
from .hypotheses import CauseEntry, Veto, Why, explains
from .predicates import START, Predicate, all_of, any_of

PYTORCH_WORKERS = "PyTorch: 0 workers load in the main process"
XPROF_SPLIT = "XProf: preprocessing of at least half of the input time is CPU work, else storage"
SHORT_WAIT = f"{START}: handing a batch over between processes takes milliseconds as well"
_DATA = Predicate("training.dataShare", ">=", 0.20, XPROF)
_SHORT = Veto(
    Predicate("training.dataSeconds", "<", 0.004, SHORT_WAIT),
    "the wait is too short for any other way of loading to shorten it",
)

DATA_CAUSES: tuple[CauseEntry, ...] = (
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
        advice="Read from faster or nearer storage (a bucket in the same zone), cache the data on"
        " the node, or partition it into fewer and larger files (shards), some for each rank. More"
        " loader workers help as far as the storage answers in parallel.",
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
)
