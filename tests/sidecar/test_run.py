"""``python -m bottleneck_sidecar.run``: a script that knows nothing of telemetry, with it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bottleneck_sidecar.wire import TrainingRank

from .conftest import Inbox  # type: ignore[import-not-found]

SCRIPT = """
import sys, time
import torch
from torch.utils.data import DataLoader, TensorDataset

class Slow(TensorDataset):
    def __getitem__(self, index):
        begun = time.thread_time()
        while time.thread_time() - begun < 0.002:
            pass
        return {"x": super().__getitem__(index)[0], "name": str(index)}

assert __name__ == "__main__"
model = torch.nn.Linear(4, 1)
critic = torch.nn.Linear(1, 1)
optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, critic)]
train = DataLoader(Slow(torch.ones(30, 4)), batch_size=4, num_workers=int(sys.argv[1]))
held_out = DataLoader(TensorDataset(torch.ones(10, 4)), batch_size=5)
for epoch in range(2):
    for batch in train:
        for optimizer in optimizers:
            optimizer.zero_grad()
            critic(model(batch["x"])).mean().backward()
            optimizer.step()
    with torch.no_grad():
        for (x,) in held_out:
            model(x)
            time.sleep(0.02)
    torch.save(model.state_dict(), sys.argv[2])
print("arguments", sys.argv[1:], "file", __file__)
"""


def run(
    directory: Path, *arguments: str, program: str = SCRIPT, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = directory / "train.py"
    script.write_text(textwrap.dedent(program))
    kept = {key: value for key, value in os.environ.items() if "BOTTLENECK" not in key}
    return subprocess.run(
        [sys.executable, "-m", "bottleneck_sidecar.run", *(arguments or (str(script),))],
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=300,
        env={**kept, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path if p)}
        | environment,
    )


@contextmanager
def all_of(inbox: Inbox) -> Iterator[list[TrainingRank]]:
    """What is reported meanwhile. The inbox itself holds ten reports, fewer than a slow machine
    makes of a short training."""
    told: list[TrainingRank] = []
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.05):
            told.extend(inbox.read())
        told.extend(inbox.read())

    reading = threading.Thread(target=read)
    reading.start()
    try:
        yield told
    finally:
        done.set()
        reading.join()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_script_as_it_is(inbox: Inbox, tmp_path: Path, workers: int) -> None:
    arguments = [str(tmp_path / "train.py"), str(workers), str(tmp_path / "model.pt")]
    with all_of(inbox) as told:
        done = run(tmp_path, *arguments, BOTTLENECK_SOCKET=inbox.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"arguments {arguments[1:]} file {arguments[0]}\n"
    last = told[-1]
    assert (last.steps, last.samples) == (16, 60), "two optimizers, one step; no evaluation in it"
    assert last.evaluation_seconds is not None
    assert last.evaluation_seconds >= 4 * 0.02
    assert last.checkpoint_seconds is not None
    assert last.checkpoint_seconds > 0
    assert [report.phase for report in told].count("checkpoint") == 2
    assert [report.phase for report in told].count("evaluation") >= 2
    for phase in ("data", "backward", "optimizer", "other"):
        assert last.seconds[phase] > 0, phase
    assert (last.knobs, last.settable) == (
        {
            "dataLoader.workers": float(workers),
            "dataLoader.prefetch": 2.0,
            "dataLoader.pinMemory": "off",
            "dataLoader.persistentWorkers": "off",
        },
        [],
    )
    if workers:
        assert last.loader_cpu_seconds is not None
        assert last.loader_cpu_seconds >= 60 * 0.002 * 0.8
        assert last.loader_seconds is not None
        assert last.loader_seconds <= workers * (last.step_seconds + last.evaluation_seconds + 1)
    else:
        assert last.loader_seconds is None
        assert last.cpu_seconds is not None
        # of short steps one in several is asked, and these are few
        assert last.cpu_seconds["data"] >= 0.4 * 60 * 0.002


COMMON = """
import time, warnings
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
warnings.filterwarnings("ignore")

def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

class Slow(torch.autograd.Function):
    # 4 ms forward and 8 ms backward for each batch in training
    @staticmethod
    def forward(context, x):
        busy(0.004)
        return x.clone()
    @staticmethod
    def backward(context, gradient):
        busy(0.008)
        return gradient

class Data(TensorDataset):
    # 1 ms for each sample
    def __getitem__(self, index):
        busy(0.001)
        return super().__getitem__(index)

class Optimizer(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        busy(0.006)
        return loss
"""

PLAIN = """
model = nn.Linear(4, 1)
optimizer = Optimizer(model.parameters(), lr=0.01)
train, held_out = (DataLoader(Data(torch.ones(22, 4)), 4) for _ in range(2))
for epoch in range(2):
    model.train()
    for index, (x,) in enumerate(train):
        Slow.apply(model(x)).mean().backward()
        if index % 2 == 1:
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    for (x,) in held_out:
        with torch.no_grad():
            Slow.apply(model(x))
"""

ACCELERATE = """
from accelerate import Accelerator
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = nn.Linear(4, 1)
optimizer = Optimizer(model.parameters(), lr=0.01)
train, held_out = (DataLoader(Data(torch.ones(22, 4)), 4) for _ in range(2))
model, optimizer, train, held_out = accelerator.prepare(model, optimizer, train, held_out)
for epoch in range(2):
    model.train()
    for (x,) in train:
        with accelerator.accumulate(model):
            accelerator.backward(Slow.apply(model(x)).mean())
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    for (x,) in held_out:
        with torch.no_grad():
            Slow.apply(model(x))
"""

LIGHTNING = """
import lightning.pytorch as pl

class Model(pl.LightningModule):
    def __init__(self, manual):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.automatic_optimization = not manual
    def training_step(self, batch, index):
        loss = Slow.apply(self.layer(batch[0])).mean()
        if self.automatic_optimization:
            return loss
        self.manual_backward(loss)
        if index % 2 == 1 or index == 5:
            self.optimizers().step()
            self.optimizers().zero_grad()
    def validation_step(self, batch, index):
        Slow.apply(self.layer(batch[0]))
    def configure_optimizers(self):
        return Optimizer(self.parameters(), lr=0.01)

import sys
manual = MANUAL
trainer = pl.Trainer(
    max_epochs=2, accumulate_grad_batches=1 if manual else 2, accelerator="cpu", logger=False,
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    num_sanity_val_steps=0,
)
train, held_out = (DataLoader(Data(torch.ones(22, 4)), 4) for _ in range(2))
trainer.fit(Model(manual), train, held_out)
"""

HUGGING_FACE = """
import transformers

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
    def forward(self, x, labels):
        output = Slow.apply(self.layer(x))
        return {"loss": nn.functional.mse_loss(output, labels), "logits": output}

class Pairs(Data):
    def __getitem__(self, index):
        return {"x": super().__getitem__(index)[0], "labels": torch.ones(1)}

model, data = Model(), Pairs(torch.ones(22, 4))
trainer = transformers.Trainer(
    model,
    transformers.TrainingArguments(
        output_dir="out", per_device_train_batch_size=4, per_device_eval_batch_size=4,
        gradient_accumulation_steps=2, num_train_epochs=2, eval_strategy="epoch",
        save_strategy="no", use_cpu=True, report_to=[], disable_tqdm=True,
    ),
    train_dataset=data,
    eval_dataset=data,
    optimizers=(Optimizer(model.parameters(), lr=0.01), None),
)
trainer.train()
"""


@pytest.mark.parametrize(
    ("library", "program"),
    [
        ("torch", PLAIN),
        ("accelerate", ACCELERATE),
        ("lightning", LIGHTNING.replace("MANUAL", "False")),
        ("lightning", LIGHTNING.replace("MANUAL", "True")),
        ("transformers", HUGGING_FACE),
    ],
    ids=["plain", "accelerate", "lightning", "lightning-manual", "hugging-face"],
)
def test_where_the_time_goes_is_seen_in_every_loop(
    inbox: Inbox, tmp_path: Path, library: str, program: str
) -> None:
    """The same training in each: 2 epochs of 22 samples in batches of 4, two to a step, and as many
    to evaluate. Others on the machine can only lengthen what is waited for here."""
    if library != "torch" and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not there")
    with all_of(inbox) as told:
        done = run(tmp_path, program=COMMON + program, BOTTLENECK_SOCKET=inbox.path)
    assert done.returncode == 0, done.stderr
    last = told[-1]
    assert (last.steps, last.samples) == (6, 44)
    assert last.seconds["data"] >= 44 * 0.001
    assert last.seconds["forward"] >= 12 * 0.004
    assert last.seconds["backward"] >= 12 * 0.008
    assert last.seconds["optimizer"] >= 6 * 0.006
    assert last.evaluation_seconds is not None
    assert last.evaluation_seconds >= 2 * (22 * 0.001 + 6 * 0.004)


def test_as_a_module_and_with_a_monitor_of_its_own(inbox: Inbox, tmp_path: Path) -> None:
    program = """
        from bottleneck_sidecar.training import StepMonitor
        monitor = StepMonitor(rank=3)
        for _ in range(7):
            monitor.step(samples=2)
    """
    done = run(tmp_path, "-m", "train", program=program, BOTTLENECK_SOCKET=inbox.path)
    assert done.returncode == 0, done.stderr
    told = inbox.read()
    assert (told[-1].rank, told[-1].steps, told[-1].samples) == (3, 7, 14)
    assert {report.rank for report in told} == {3}, "the other one has never said anything"


@pytest.mark.parametrize(
    ("program", "status", "error"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("raise KeyError('mine')", 1, "KeyError: 'mine'"),
        ("import torch; print(torch.save.__name__)", 0, ""),
    ],
)
@pytest.mark.parametrize("listening", [True, False])
def test_the_end_is_the_scripts_own(
    inbox: Inbox, tmp_path: Path, program: str, status: int, error: str, listening: bool
) -> None:
    environment = {"BOTTLENECK_SOCKET": inbox.path} if listening else {}
    done = run(tmp_path, program=program, **environment)
    assert done.returncode == status, done.stderr
    assert error in done.stderr


def test_without_torch_the_script_runs_all_the_same(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch here')")
    done = run(tmp_path, program="print('ran')", BOTTLENECK_SOCKET=inbox.path)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "running without telemetry: there is no torch here" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--help",), 0, "for instance: python -m bottleneck_sidecar.run train.py"),
        (("-m",), 2, "usage"),
        (("nothing.py",), 2, "there is no script nothing.py"),
    ],
)
def test_usage(tmp_path: Path, arguments: tuple[str, ...], status: int, text: str) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr
