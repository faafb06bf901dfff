"""One life of a job that is cut in two by a checkpoint, started by the tests:
``python checkpoint_ranks.py RANK WORLD PORT FOLDER LIFE``.

``whole`` trains all epochs with the settings of the script. ``first`` trains half of them, saves
before a change, changes its settings, and trains on; ``second`` loads that checkpoint with the new
settings wished for from the start, and trains the other half. Prints the loss over all data after
each step.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from bottleneck_sidecar import knobs
from bottleneck_sidecar.training import StepMonitor
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

EPOCHS, HALF, SAMPLES, MICRO, ACCUMULATION = 4, 2, 48, 4, 3

WISH = {
    "generation": 1,
    "batch": {"micro": 2, "accumulation": 6},
    "dataLoader": {"workers": 1, "prefetch": 3, "persistentWorkers": "on"},
}


def main(rank: int, world: int, port: int, folder: Path, life: str) -> None:
    torch.set_num_threads(1)
    knobs.LOOK_SECONDS = 0.0
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
        )
    torch.manual_seed(0)
    values, target = torch.randn(SAMPLES, 8).double(), torch.randn(SAMPLES, 1).double()
    data = TensorDataset(values, target)
    network: Any = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    model = DistributedDataParallel(network) if world > 1 else network
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    path, saved = folder / f"{life}-{rank}", folder / f"checkpoint-{rank}.pt"
    if life == "second":
        path.write_text(json.dumps(WISH))
    monitor = StepMonitor(knobs=str(path))
    sampler: Any = DistributedSampler(data, num_replicas=world, rank=rank)
    loader = monitor.loader(DataLoader(data, MICRO, sampler=sampler), accumulation=ACCUMULATION)
    begin = 0
    if life == "second":
        checkpoint = torch.load(saved)
        network.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        monitor.load_state_dict(checkpoint["monitor"])
        begin = checkpoint["epoch"]
    losses = []
    for epoch in range(begin, EPOCHS):
        if life == "first" and epoch == HALF:
            state = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "monitor": monitor.state_dict(), "epoch": epoch}, saved)
            path.write_text(json.dumps(WISH))
        loader.set_epoch(epoch)
        for x, y in loader:
            with monitor.forward(model):
                loss = nn.functional.mse_loss(model(x), y)
            monitor.backward(loss)
            if monitor.optimizer_step(optimizer):
                with torch.no_grad():
                    losses.append(float(nn.functional.mse_loss(network(values), target)))
    told = monitor._knobs.acknowledgement
    print(json.dumps([losses, told and told.result, loader.knobs()]), flush=True)
    monitor.close()
    if world > 1:
        distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see ranks.py


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), Path(sys.argv[4]), sys.argv[5])  # type: ignore[arg-type, call-arg]
