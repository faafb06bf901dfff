"""A stand-in for a workload: real pods and real telemetry, but steps and requests that only sleep.

It lets a test of the operator's wires choose how a workload answers a change. (The busy and the
tiny one really work.) What a real workload does is shown by the demo. Runs inside the sidecar's
image, which has the SDK and nothing else:

    python stand_in.py trainer starved|harmful
    python stand_in.py busy|tiny
    python stand_in.py server queueing|quick|slow|model
    python stand_in.py replica crowded|roomy|brittle|helpless
    python stand_in.py hog
"""

import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bottleneck_sidecar.client import Client, new_epoch
from bottleneck_sidecar.knobs import KnobsFile
from bottleneck_sidecar.wire import (
    LATENCY_BOUNDS_SECONDS,
    PHASES,
    Acknowledgement,
    InferenceServer,
    TrainingRank,
)

REPORT_SECONDS = 0.4


def trainer(behaviour: str) -> None:
    """Waits 80 of 100 ms for input without workers; with them 2 ms, or 300 where it is harmful."""
    client, knobs, epoch = Client(), KnobsFile(), new_epoch()
    settings: dict[str, float | str | bool] = {"dataLoader.workers": 0, "dataLoader.prefetch": 2}
    acknowledgement = None
    steps, data_seconds, forward_seconds, reported = 0, 0.0, 0.0, 0.0
    while True:
        if settings["dataLoader.workers"] == 0:
            wait = 0.08
        else:
            wait = 0.3 if behaviour == "harmful" else 0.002
        began = time.time()
        time.sleep(wait)
        waited = time.time()
        time.sleep(0.02)
        ended = time.time()
        steps += 1
        data_seconds += waited - began
        forward_seconds += ended - waited
        wish = knobs.poll()
        if wish is not None:
            if not wish.refusal:
                settings |= wish.settings
            acknowledgement = Acknowledgement(
                wish.generation,
                "Refused" if wish.refusal else "Applied",
                step=steps,
                message=wish.refusal,
            )
        if wish is not None or ended - reported >= REPORT_SECONDS:
            reported = ended
            client.send(
                training=TrainingRank(
                    epoch=epoch,
                    rank=0,
                    world_size=1,
                    steps=steps,
                    samples=steps * 32,
                    step_seconds=data_seconds + forward_seconds,
                    seconds={"data": data_seconds, "forward": forward_seconds},
                    last_step_at=ended,
                    knobs=dict(settings),
                    settable=["dataLoader.workers", "dataLoader.prefetch"],
                    acknowledgement=acknowledgement,
                )
            )


SERVERS = {"queueing": (0.4, 0.05), "quick": (0.005, 0.05), "slow": (0.005, 0.4)}
"""Seconds that a request waits, and seconds that the model takes for it."""

MODELS = {"": 0.4, "int8": 0.05, "bloated": 0.8}
"""Seconds that the model of an image takes: an image says which it has by its environment."""


def server(behaviour: str) -> None:
    """Claims ten requests a second that wait and are served as long as it is told, whatever is
    done."""
    if behaviour == "model":
        wait, service = 0.005, MODELS[os.environ.get("STAND_IN_MODEL", "")]
    else:
        wait, service = SERVERS[behaviour]
    client, epoch = Client(), new_epoch()
    buckets = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    slot = next(i for i, bound in enumerate(LATENCY_BOUNDS_SECONDS) if bound >= wait + service)
    requests = 0
    while True:
        time.sleep(0.1)
        requests += 1
        buckets[slot] += 1
        if requests % 5 == 0:
            client.send(
                inference=InferenceServer(
                    epoch=epoch,
                    worker=0,
                    requests=requests,
                    errors=0,
                    arrivals=requests,
                    latency_buckets=buckets,
                    latency_seconds=(wait + service) * requests,
                    queue_seconds=wait * requests,
                    service_seconds=service * requests,
                    in_flight=5,
                    queued=4,
                    concurrency=1,
                )
            )


REPLICAS = {
    "crowded": (0.4, 0.005),
    "roomy": (0.005, 0.005),
    "brittle": (0.4, 0.005),
    "helpless": (0.4, 0.4),
}
"""Seconds that a request waits: at a replica that is alone, and at one of several."""


def replica(behaviour: str) -> None:
    """One of several servers that share ten requests a second. They know of each other by the
    files that they touch in /shared."""
    alone, together = REPLICAS[behaviour]
    client, epoch = Client(), new_epoch()
    mark = Path("/shared") / os.environ["HOSTNAME"]
    buckets = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    requests, waited, owed, seen, service = 0, 0.0, 0.0, time.time(), 0.05
    while True:
        time.sleep(0.1)
        mark.touch()
        now = time.time()
        others = [path.stat().st_mtime for path in mark.parent.iterdir()]
        replicas = sum(now - each < 2.0 for each in others)
        wait = alone if replicas < 2 else together
        owed += (now - seen) * 10 / max(1, replicas)
        seen, came = now, int(owed)
        owed -= came
        requests += came
        waited += came * wait
        took = wait + service
        slot = next(i for i, bound in enumerate(LATENCY_BOUNDS_SECONDS) if bound >= took)
        buckets[slot] += came
        client.send(
            inference=InferenceServer(
                epoch=epoch,
                worker=0,
                requests=requests,
                errors=0,
                arrivals=requests,
                latency_buckets=list(buckets),
                latency_seconds=waited + service * requests,
                queue_seconds=waited,
                service_seconds=service * requests,
                in_flight=5 if wait > service else 0,
                queued=4 if wait > service else 0,
                concurrency=1,
            )
        )


def busy() -> None:
    """A trainer that works on two CPUs as fast as they are given to it."""
    client, epoch, data = Client(), new_epoch(), b"x" * (1 << 20)
    steps, seconds, reported = 0, 0.0, 0.0
    with ThreadPoolExecutor(2) as threads:
        while True:
            began = time.time()
            # Hashing lets go of the interpreter's lock.
            list(threads.map(lambda _: hashlib.sha256(data).digest(), range(8)))
            ended = time.time()
            steps += 1
            seconds += ended - began
            if ended - reported >= REPORT_SECONDS:
                reported = ended
                client.send(
                    training=TrainingRank(
                        epoch=epoch,
                        rank=0,
                        world_size=1,
                        steps=steps,
                        samples=steps,
                        step_seconds=seconds,
                        seconds={"forward": seconds},
                        last_step_at=ended,
                    )
                )


def tiny() -> None:
    """A trainer whose micro-batches of 2 samples cost 4 ms each, and a tenth of that a sample."""
    client, knobs, epoch = Client(), KnobsFile(), new_epoch()
    settings: dict[str, float | str | bool] = {"batch.micro": 2, "batch.accumulation": 16}
    acknowledgement, steps, samples, seconds, reported = None, 0, 0, 0.0, 0.0
    nothing = dict.fromkeys(PHASES, 0.0)
    while True:
        began, micro = time.time(), int(settings["batch.micro"])
        for _ in range(int(settings["batch.accumulation"])):
            until = time.thread_time() + 0.004 + 0.0004 * micro
            while time.thread_time() < until:
                pass
            samples += micro
        ended = time.time()
        steps += 1
        seconds += ended - began
        wish = knobs.poll()
        if wish is not None:
            settings |= wish.settings
            acknowledgement = Acknowledgement(wish.generation, "Applied", step=steps, message="")
        if wish is not None or ended - reported >= REPORT_SECONDS:
            reported = ended
            client.send(
                training=TrainingRank(
                    epoch=epoch,
                    rank=0,
                    world_size=1,
                    steps=steps,
                    samples=samples,
                    step_seconds=seconds,
                    seconds=nothing | {"forward": seconds},
                    cpu_seconds=nothing | {"forward": time.thread_time()},
                    last_step_at=ended,
                    knobs=dict(settings),
                    settable=list(settings),
                    acknowledgement=acknowledgement,
                )
            )


def hog() -> None:
    """Takes memory until the kernel ends it."""
    taken = []
    while True:
        # Written to: memory that nobody has touched counts for nothing.
        taken.append(b"x" * (4 << 20))
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "trainer":
        trainer(sys.argv[2])
    elif sys.argv[1] == "hog":
        hog()
    elif sys.argv[1] == "busy":
        busy()
    elif sys.argv[1] == "replica":
        replica(sys.argv[2])
    elif sys.argv[1] == "tiny":
        tiny()
    else:
        server(sys.argv[2])
