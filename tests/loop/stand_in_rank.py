"""A stand-in for a rank of a training job that only computes: 16 samples in each step of 50 ms.

python stand_in_rank.py RANK WORLD_SIZE
"""

import sys
import time

from bottleneck_sidecar.client import Client, new_epoch
from bottleneck_sidecar.wire import PHASES, TrainingRank

client, epoch = Client(), new_epoch()
rank, world_size = (int(argument) for argument in sys.argv[1:])
nothing = dict.fromkeys(PHASES, 0.0)
steps, began = 0, time.time()
while True:
    time.sleep(0.05)
    steps, now = steps + 1, time.time()
    if steps % 8 == 0:
        client.send(
            training=TrainingRank(
                epoch=epoch,
                rank=rank,
                world_size=world_size,
                steps=steps,
                samples=16 * steps,
                step_seconds=now - began,
                seconds=nothing | {"forward": now - began},
                last_step_at=now,
                knobs={"batch.micro": 16, "batch.accumulation": 1},
            )
        )
