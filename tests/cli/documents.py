"""Diagnosis documents as the engine writes them, for the renderers."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

TRIED: dict[str, list[tuple[str, str, str]]] = {
    "Infrastructure": [
        ("cpu-throttled", "The CPU limit throttles the workload", "model"),
        ("node-oversubscribed", "Other work on the node takes the CPUs", "model"),
        ("memory-pressure", "Memory is short: the kernel reclaims instead of running it", "model"),
        ("oom-loop", "Containers are killed for memory and start again", "model"),
        ("gpu-throttled", "The GPU slows itself down", "model"),
        ("straggler-rank", "One rank is slower than all others", "model"),
        ("communication-bound", "Ranks wait for each other's gradients", "integration"),
        ("queueing", "Requests queue: more arrive than the replicas can serve", "serving"),
        ("slow-dependency", "Another service answers slowly", "integration"),
        ("cold-start", "New replicas are slow at first", "serving"),
        ("unschedulable", "Pods find no node or no quota", "serving"),
    ],
    "Data": [
        ("loader-without-workers", "The training process loads its own data", "ingestion"),
        ("cpu-heavy-preprocessing", "Preprocessing takes more CPU than there is", "preprocessing"),
        ("slow-storage", "The storage is slow", "ingestion"),
    ],
    "Models": [
        ("hang", "It stands still: no step for long", "model"),
        ("gpu-memory-full", "The GPU's memory is nearly full", "model"),
        ("batching-delay", "The server waits too long for a batch to fill", "serving"),
        ("batch-too-large", "Batches are too large for the objective", "serving"),
        ("error-burst", "Requests fail", "serving"),
        ("host-bound", "The host cannot feed the device", "model"),
        ("memory-bandwidth-bound", "The device waits for its memory", "model"),
        ("compute-bound", "The device computes all the time", "model"),
        ("precision-unused", "16-bit arithmetic is there and not used", "model"),
        ("slow-model", "The model itself is slower than the objective", "model"),
    ],
    "People": [("recent-change", "A change came just before", "integration")],
    "Processes": [
        ("checkpoint-stalls", "Checkpoints stop the training", "model"),
        ("drift", "It became slower without more load", "model"),
    ],
}

STAGES = ("ingestion", "preprocessing", "model", "serving", "integration")

IDS = [id for items in TRIED.values() for id, _, _ in items]


def evidence(signal: str, value: float, threshold: float | None, **changes: Any) -> Object:
    return {
        "signal": signal,
        "window": "10s",
        "statistic": "ratio of sums",
        "value": value,
        "unit": "",
        "threshold": threshold,
        "source": "XProf input-pipeline analysis: ≥20% of the step waiting for input",
        **changes,
    }


def starved() -> Object:
    """A training job without loader workers, with one cause behind it; the rest is ruled out, or
    could not be tried."""
    confirmed = {"loader-without-workers", "cpu-throttled"}
    causes = [
        {
            "id": "loader-without-workers",
            "class": "data-loading",
            "category": "Data",
            "title": "The training process loads its own data: no loader workers",
            "share": 0.634,
            "confidence": 0.92,
            "evidence": [
                evidence("training.dataShare", 0.634, 0.2),
                evidence(
                    "dataLoader.workers",
                    0,
                    1,
                    unit="workers",
                    statistic="minimum over ranks",
                    source="PyTorch: 0 workers load in the main process",
                ),
            ],
        },
        {
            "id": "cpu-throttled",
            "class": "cpu",
            "category": "Infrastructure",
            "title": "The CPU limit throttles the workload",
            "share": 0.27,
            "confidence": 0.54,
            "evidence": [evidence("cpu.throttledShare", 0.271, 0.25, source="starting value")],
        },
    ]
    return diagnosis(confirmed, causes) | {
        "symptom": {
            "objective": "DataWait",
            "text": "Waiting for input is 63%, over its objective of at most 20%",
            "evidence": evidence(
                "training.dataShare", 0.634, 0.2, source="objective of the policy"
            ),
        },
        "whys": [
            "Waiting for input is 63%, over its objective of at most 20%",
            "Because 63% of each step waits for input [training.dataShare ratio of sums over 10s]",
            "Because samples are decoded in the training process itself: dataLoader.workers is 0,"
            " so loading and computing never overlap [dataLoader.workers minimum over ranks over"
            " 10s]",
            "Because nobody set workers, though the container used only 1 cores of the 4 cores it"
            " may use: CPUs stood idle while it waited [cpu.usedCores mean over 10s;"
            " cpu.availableCores last over 10s]",
        ],
        "runnerUp": "cpu-throttled",
    }


def healthy() -> Object:
    """Nothing is wrong: everything is ruled out."""
    return diagnosis(set(), [])


def diagnosis(confirmed: set[str], causes: list[Object]) -> Object:
    """A document in which the named causes are confirmed; every fifth of the others lacks data."""

    def state(id: str) -> str:
        if id in confirmed:
            return "Confirmed"
        return "NoData" if IDS.index(id) % 5 == 4 else "RuledOut"

    def reason(id: str) -> str:
        signal = f"{id.replace('-', '.')}Share"
        return {
            "Confirmed": "",
            "NoData": f"no data: {signal} is not measured",
            "RuledOut": f"{signal} is 3.1% over 10s, not at least 25%",
        }[state(id)]

    def conditions(id: str) -> list[Object]:
        holds = {"Confirmed": True, "NoData": None, "RuledOut": False}[state(id)]
        signal = f"{id.replace('-', '.')}Share"
        return [
            {
                "text": f"{signal} ≥ 25%" if holds is None else f"{signal} 3.1% ≥ 25%",
                "holds": holds,
            },
            {"text": "cpu.busyShare 31% < 80%", "holds": True},
        ]

    def either(states: list[str]) -> str:
        return next((s for s in ("Confirmed", "NoData") if s in states), "RuledOut")

    stages: list[Object] = []
    for stage in STAGES:
        members = [(id, t) for items in TRIED.values() for id, t, at in items if at == stage]
        stages.append(
            {
                "id": stage,
                "title": stage.capitalize(),
                "gate": "OR",
                "state": either([state(id) for id, _ in members]),
                "causes": [
                    {
                        "id": id,
                        "title": title,
                        "gate": "AND",
                        "state": state(id),
                        "conditions": conditions(id),
                    }
                    for id, title in members
                ],
            }
        )
    effect = "Waiting for input is 63%" if causes else "No objective is breached"
    return {
        "symptom": None,
        "causes": causes,
        "ruledOut": [{"id": id, "reason": reason(id)} for id in IDS if id not in confirmed],
        "whys": [],
        "runnerUp": "",
        "fishbone": {
            "effect": effect,
            "bones": {
                name: [
                    {"id": id, "title": title, "state": state(id), "reason": reason(id)}
                    for id, title, _ in items
                ]
                for name, items in TRIED.items()
            },
        },
        "faultTree": {
            "top": effect,
            "state": either([state(id) for id in IDS]),
            "gate": "OR",
            "stages": stages,
        },
    }
