"""The training SDK on real steps of real PyTorch, with a real agent or none at all."""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import client, clock, knobs, training, wire
from bottleneck_sidecar.training import StepMonitor
from bottleneck_sidecar.wire import TrainingRank
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from .conftest import Agent, Inbox, eventually  # type: ignore[import-not-found]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step looks and reports, so that no test has to wait."""
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    for name in ("RANK", "WORLD_SIZE", "BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"):
        monkeypatch.delenv(name, raising=False)


def data(size: int = 24) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(float(size)).unsqueeze(1)), batch_size=4)


class Numbers(IterableDataset[Any]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(8))


class Trainer:
    """A model of one weight, and the monitor that watches it."""

    def __init__(self, **options: Any) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-6)
        self.monitor = StepMonitor(**options)

    def step(self, batch: torch.Tensor, loss: Any = None) -> None:
        with self.monitor.phase("forward"):
            output = self.model(batch).mean()
        with self.monitor.phase("backward"):
            output.backward()
        self.optimizer.step()
        self.monitor.step(samples=len(batch), loss=output if loss is None else loss)


def test_steps_samples_and_seconds_add_up(inbox: Inbox) -> None:
    trainer = Trainer(socket=inbox.path)
    for _ in range(2):
        for (batch,) in trainer.monitor.loader(data()):
            trainer.step(trainer.monitor.to_device(batch, "cpu"))
            (report,) = inbox.read()[-1:]
            assert report.step_seconds == pytest.approx(sum(report.seconds.values()))
    assert (report.steps, report.samples, report.rank, report.world_size) == (12, 48, 0, 1)
    assert set(report.seconds) == set(wire.PHASES)
    for phase in ("data", "transfer", "forward", "backward", "optimizer", "other"):
        assert report.seconds[phase] > 0, f"{phase} was measured"
    assert report.seconds["collective"] == 0
    assert report.knobs == {
        "dataLoader.workers": 0.0,
        "dataLoader.prefetch": 2.0,
        "dataLoader.pinMemory": "off",
        "dataLoader.persistentWorkers": "off",
    }
    trainer.monitor.close()


def test_time_is_counted_once_even_where_phases_are_nested(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(float(second) for second in range(1000))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(now))
    monitor = StepMonitor(socket=inbox.path)
    # 0 → 1: backward, 1 → 2: collective, 2 → 3: backward
    with monitor.phase("backward"), monitor.phase("collective"):
        pass
    with monitor.excluded():  # 3 → 4: other, 4 → 5: nobody's
        pass
    monitor.step()  # 5 → 6: other
    seconds = inbox.read()[-1].seconds
    assert {name: value for name, value in seconds.items() if value} == {
        "backward": 2.0,
        "collective": 1.0,
        "other": 2.0,
    }
    with monitor.phase("forward"):
        monitor.step()  # a step that ends within a phase
    with pytest.raises(ValueError, match="there is no phase 'eval'; the phases are data, trans"):
        monitor.phase("eval")
    monitor.close()


def test_cpu_time_and_waiting_of_the_training_thread(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    with monitor.phase("forward"):
        begun = time.thread_time()
        while time.thread_time() - begun < 0.05:
            pass
    with monitor.phase("backward"):
        time.sleep(0.05)
    monitor.step()
    report = inbox.read()[-1]
    assert report.cpu_seconds is not None
    assert set(report.cpu_seconds) == set(wire.PHASES)
    assert 0.05 <= report.cpu_seconds["forward"] <= report.seconds["forward"] + 0.001
    assert report.seconds["backward"] >= 0.05
    assert report.cpu_seconds["backward"] < 0.5 * report.seconds["backward"], "it slept"
    if os.path.exists("/proc/self/schedstat"):
        assert report.run_queue_seconds is not None
    assert report.started_at is not None
    assert report.started_at < time.time() - time.process_time() / (os.cpu_count() or 1) / 2
    assert report.capabilities is not None
    assert report.loader_seconds is None
    monitor.close()


def phases(inbox: Inbox) -> list[str | None]:
    return [report.phase for report in inbox.read()]


def test_long_phases_are_told_at_once(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "REPORT_SECONDS", 60.0)
    monitor = StepMonitor(socket=inbox.path)
    monitor.step()
    assert phases(inbox) == ["step"]
    with monitor.checkpoint():
        assert phases(inbox) == ["checkpoint"], "before anything has been written"
        torch.save({"weight": torch.ones(3)}, tmp_path / "nested.pt")
        assert phases(inbox) == [], "it is one checkpoint"
    assert phases(inbox) == ["step"]
    torch.save({"weight": torch.ones(3)}, tmp_path / "alone.pt")
    assert phases(inbox) == ["checkpoint", "step"]
    with monitor.evaluation():
        torch.save({"weight": torch.ones(3)}, tmp_path / "best.pt")
    assert phases(inbox) == ["evaluation", "checkpoint", "evaluation", "step"]
    with pytest.raises(RuntimeError, match="does not exist"), monitor.evaluation():
        torch.save({}, str(tmp_path / "missing" / "model.pt"))
    assert phases(inbox) == ["evaluation", "checkpoint", "evaluation", "step"]
    assert torch.load(tmp_path / "alone.pt")["weight"].tolist() == [1, 1, 1]
    monitor.close()


def test_what_happens_in_a_long_phase_is_no_part_of_a_step(inbox: Inbox) -> None:
    trainer = Trainer(socket=inbox.path)
    monitor = trainer.monitor
    with monitor.excluded():
        for (batch,) in monitor.loader(data()):
            with monitor.phase("forward"):
                output = trainer.model(batch).mean()
            output.backward()
            trainer.optimizer.step()
    monitor.step()
    report = inbox.read()[-1]
    assert report.evaluation_seconds is not None
    assert report.evaluation_seconds > report.step_seconds
    for phase in ("data", "forward", "backward", "optimizer"):
        assert report.seconds[phase] == 0, phase
    monitor.close()


def test_a_long_evaluation_is_heard_of_while_it_goes_on(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    monitor.step()
    inbox.read()
    with monitor.evaluation():
        told = [phases(inbox) for _ in monitor.loader(data())]
    assert all(told), "with each batch"
    assert {phase for each in told for phase in each} == {"evaluation"}
    monitor.close()


def test_backward_counts_by_itself_but_not_against_the_users_word(inbox: Inbox) -> None:
    trainer = Trainer(socket=inbox.path)
    monitor, batch = trainer.monitor, torch.ones(4, 1)
    trainer.model(batch).mean().backward()
    monitor.step()
    first = inbox.read()[-1].seconds
    assert first["backward"] > 0
    with monitor.phase("forward"):
        torch.autograd.backward([trainer.model(batch).mean()])
    monitor.step()
    second = inbox.read()[-1].seconds
    assert second["backward"] == first["backward"]
    assert second["forward"] > 0

    def closure() -> torch.Tensor:
        loss = trainer.model(batch).pow(2).mean()
        loss.backward()
        return loss

    torch.optim.LBFGS(trainer.model.parameters(), max_iter=2).step(closure)
    monitor.step()
    third = inbox.read()[-1].seconds
    assert third["backward"] > second["backward"], "the optimizer's phase is none of the user's"
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.ones(1).backward()
    monitor.step()
    with monitor.phase("forward"):
        pass
    assert monitor.clock.slot == clock.OTHER, "errors leave nothing open"
    monitor.close()


@pytest.mark.parametrize(
    ("how", "steps"),
    [("fp32", 0), ("autocast", 2), ("around", 2), ("off", 0), ("weights", 2), ("eval", 0)],
)
def test_low_precision(inbox: Inbox, how: str, steps: int) -> None:
    trainer = Trainer(socket=inbox.path)
    batch = torch.ones(4, 1)
    if how == "weights":
        trainer.model.to(torch.bfloat16)
        batch = batch.to(torch.bfloat16)
    around = torch.autocast("cpu", torch.bfloat16, enabled=how == "around")
    with around:
        for _ in range(2):
            enabled = how == "autocast"
            if how == "eval":
                with trainer.monitor.evaluation(), torch.autocast("cpu", torch.bfloat16):
                    trainer.model(batch)
            with contextlib.ExitStack() as stack:
                if how in ("autocast", "off"):
                    stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=enabled))
                loss = trainer.model(batch).mean()
            loss.backward()
            trainer.optimizer.step()
            trainer.monitor.step(samples=4)
    assert inbox.read()[-1].low_precision_steps == steps
    trainer.monitor.close()


def test_torch_is_put_back(inbox: Inbox) -> None:
    places = [
        (torch, "save"),
        (torch.serialization, "save"),
        (torch.autograd, "backward"),
        (torch.autocast, "__enter__"),
        (torch.distributed, "all_reduce"),
        (torch.distributed.distributed_c10d, "all_reduce"),
        (torch.distributed.Work, "wait"),
        (torch.utils.data.dataloader._MultiProcessingDataLoaderIter, "_shutdown_workers"),
    ]

    def present() -> list[Any]:
        return [vars(owner)[name] for owner, name in places]

    untouched = present()
    first, second = StepMonitor(socket=inbox.path), StepMonitor(socket=inbox.path)
    assert all(now is not before for now, before in zip(present(), untouched, strict=True))
    assert pickle.loads(pickle.dumps(torch.save)) is torch.save  # noqa: S301
    first.close()
    assert present() != untouched, "one is still watching"
    second.close()
    assert present() == untouched
    StepMonitor()
    assert present() == untouched, "without a socket nothing is touched"


def test_what_others_put_around_it_stays(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = StepMonitor(socket=inbox.path)
    within = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: within(*args))
    others = torch.save
    monitor.close()
    assert torch.save is others
    torch.save(1, io.BytesIO())
    again = StepMonitor(socket=inbox.path)
    torch.save(1, io.BytesIO())
    assert phases(inbox) == ["checkpoint", "step"], "counted once"
    again.close()
    monkeypatch.undo()
    torch.save, torch.serialization.save = (within.__wrapped__,) * 2


def test_another_thread_is_not_the_training_thread(inbox: Inbox) -> None:
    trainer = Trainer(socket=inbox.path)

    loader = trainer.monitor.loader(data())
    before = trainer.monitor.clock.seconds[clock.DATA]

    def beside() -> None:
        torch.save(1, io.BytesIO())
        trainer.model(torch.ones(4, 1)).mean().backward()
        assert len(list(loader)) == 6

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    trainer.monitor.step()
    report = inbox.read()[-1]
    assert (report.checkpoint_seconds, report.seconds["backward"]) == (0, 0)
    assert report.seconds["data"] == before
    trainer.monitor.close()


def test_a_forked_child_says_nothing_in_the_parents_name(inbox: Inbox) -> None:
    trainer = Trainer(socket=inbox.path)
    trainer.monitor.step(samples=1)
    inbox.read()
    child = os.fork()
    if child == 0:
        torch.save(1, io.BytesIO())
        trainer.monitor.step(samples=1)
        with trainer.monitor.checkpoint():
            pass
        trainer.monitor.close()
        os._exit(int(trainer.monitor.enabled))
    assert os.waitpid(child, 0)[1] == 0
    assert inbox.read() == []
    trainer.monitor.step(samples=1)
    assert inbox.read()[-1].steps == 2
    trainer.monitor.close()


def test_an_error_of_ours_is_not_the_trainings(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(socket=inbox.path)
    monkeypatch.setattr(trainer.monitor, "_counts", lambda: 1 / 0)
    trainer.step(torch.ones(4, 1))
    with trainer.monitor.checkpoint():
        pass
    assert trainer.monitor._client.dropped == 3
    trainer.monitor.close()


def test_roots_of_every_kind(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several ranks backward's roots are hooked: nothing that torch takes may fail there."""
    monitor = StepMonitor(socket=inbox.path)
    monkeypatch.setattr(monitor, "_several_ranks", True)
    weight = torch.ones(2, requires_grad=True)
    product = weight * 3
    torch.autograd.backward(weight.sum())
    torch.autograd.backward((product.sum(), (weight * 2).sum()), retain_graph=True)
    torch.autograd.backward(
        torch.autograd.graph.get_gradient_edge(product), grad_tensors=(torch.ones(2),)
    )
    torch.autograd.backward(each for each in [weight.sum()])  # type: ignore[arg-type]
    assert weight.grad is not None
    assert weight.grad.tolist() == [10, 10]
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.backward(torch.ones(1))
    monitor.step()
    seconds = inbox.read()[-1].seconds
    assert seconds["backward"] > 0
    assert seconds["collective"] > 0, "what was left of backward after the last gradient"
    monitor.close()


def test_compiled_models(inbox: Inbox) -> None:
    trainer = Trainer(socket=inbox.path)
    weight = torch.ones(1, requires_grad=True)

    @torch.compile(backend="eager", fullgraph=True)
    def forward(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return (batch @ weight.unsqueeze(0)).float().mean()

    for _ in range(3):
        forward(torch.ones(4, 1)).backward()
        trainer.monitor.step(samples=4)
    assert weight.grad is not None
    assert weight.grad.item() == 3
    assert inbox.read()[-1].seconds["backward"] > 0
    trainer.monitor.close()


def test_the_first_report_comes_before_the_first_step(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path, rank=2, world_size=4)
    next(iter(monitor.loader(data())))
    (report,) = inbox.read()
    assert (report.rank, report.world_size, report.steps) == (2, 4, 0)
    monitor.close()


def test_rank_from_the_environment(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monitor = StepMonitor(socket=inbox.path)
    monitor.step()
    assert (inbox.read()[-1].rank, inbox.read()) == (3, [])
    monitor.close()


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (0.5, 0.5),
        (3, 3.0),
        (torch.tensor(0.25), 0.25),
        (math.nan, None),
        (math.inf, None),
        (torch.tensor([1.0, 2.0]), None),
        ("low", None),
        (10**400, None),
        (torch.empty((), device="meta"), None),
    ],
)
def test_losses(inbox: Inbox, loss: Any, told: float | None) -> None:
    monitor = StepMonitor(socket=inbox.path)
    monitor.step(samples=1, loss=loss)
    assert inbox.read()[-1].loss == told
    monitor.close()


def test_knobs_are_applied_between_steps_and_answered(inbox: Inbox, tmp_path: Path) -> None:
    path = tmp_path / "knobs"
    trainer = Trainer(socket=inbox.path, knobs=str(path))
    contents = [
        '{"generation": 1, "dataLoader": {"workers": 1, "prefetch": 3}}',
        '{"generation": 2, "dataLoader": {"workers": 1}}',
        "garbage",
        '{"generation": 4, "dataLoader": {"speed": 1}}',
        '{"generation": 3, "dataLoader": {"workers": 3}}',
        '{"generation": 5, "dataLoader": {"workers": 0}}',
    ]
    seen, answers = [], []
    for number, (batch,) in enumerate(trainer.monitor.loader(data(40))):
        if number < len(contents):
            path.write_text(contents[number])
            os.utime(path, ns=(0, number))
        seen += batch.flatten().tolist()
        trainer.step(batch)
        report = inbox.read()[-1]
        if number < len(contents):
            answer = report.acknowledgement
            assert answer is not None
            answers.append((answer.generation, answer.result, answer.step))
    assert answers == [
        (1, "Applied", 1),
        (2, "Unchanged", 2),
        (0, "Refused", 3),
        (4, "Refused", 4),
        (4, "Refused", 4),  # an older generation says nothing new
        (5, "Applied", 6),
    ]
    assert seen == [float(number) for number in range(40)]
    assert report.knobs == {
        "dataLoader.workers": 0.0,
        "dataLoader.prefetch": 3.0,
        "dataLoader.pinMemory": "off",
        "dataLoader.persistentWorkers": "off",
    }
    assert report.settable == [
        "dataLoader.workers",
        "dataLoader.prefetch",
        "dataLoader.persistentWorkers",
    ]
    trainer.monitor.close()


def test_knobs_that_are_there_at_the_start(inbox: Inbox, tmp_path: Path) -> None:
    path = tmp_path / "knobs"
    path.write_text('{"generation": 7, "dataLoader": {"workers": 1}}')
    monitor = StepMonitor(socket=inbox.path, knobs=str(path))
    monitor.step()
    refused = inbox.read()[-1].acknowledgement
    assert refused is not None
    assert (refused.generation, refused.result) == (7, "Refused")
    assert "monitor.loader()" in refused.message
    loader = monitor.loader(data())
    assert loader.workers == 1, "what was wished for holds for a loader that comes later"
    monitor.step()
    applied = inbox.read()[-1].acknowledgement
    assert applied is not None
    assert (applied.generation, applied.result) == (7, "Applied")
    monitor.close()


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(Numbers(), batch_size=2), "IterableDataset"),
        ([1, 2, 3], "no torch DataLoader"),
    ],
)
def test_what_cannot_be_changed_is_declared_and_refused(
    inbox: Inbox, tmp_path: Path, loader: Any, message: str
) -> None:
    path = tmp_path / "knobs"
    path.write_text(knobs.EXAMPLE)
    monitor = StepMonitor(socket=inbox.path, knobs=str(path))
    monitored = monitor.loader(loader)
    assert len(list(monitored)) == len(list(loader))
    monitor.step()
    report = inbox.read()[-1]
    assert report.settable == []
    assert report.acknowledgement is not None
    assert report.acknowledgement.result == "Refused"
    assert message in report.acknowledgement.message
    monitor.close()


def test_disabled_it_does_nothing() -> None:
    trainer = Trainer()
    assert not trainer.monitor.enabled
    for (batch,) in trainer.monitor.loader(data()):
        trainer.step(batch)
    assert trainer.monitor._steps == 0
    trainer.monitor.close()


def blocked(path: Path) -> str:
    """A socket whose queue is full."""
    inbox = Inbox(path)
    sender = client.Client(inbox.path)
    part = TrainingRank("full", 0, 1, 0, 0, 0.0, {})
    while sender.send(training=part):
        pass
    return _kept(inbox).path


_alive: list[Inbox] = []


def _kept(inbox: Inbox) -> Inbox:
    _alive.append(inbox)
    return inbox


@pytest.mark.parametrize("fault", ["none", "long", "file", "full", "directory"])
def test_training_goes_on_whatever_is_wrong(tmp_path: Path, fault: str) -> None:
    (tmp_path / "file").write_text("no socket")
    paths = {
        "none": str(tmp_path / "none.sock"),
        "long": "/" + "x" * 300,
        "file": str(tmp_path / "file"),
        "full": blocked(tmp_path / "full.sock"),
        "directory": str(tmp_path),
    }
    trainer = Trainer(socket=paths[fault], knobs=str(tmp_path))
    for (batch,) in trainer.monitor.loader(data()):
        trainer.step(batch)
    assert trainer.monitor._steps == 6
    assert trainer.monitor._client.dropped >= 6
    assert trainer.monitor._client.sent == 0
    trainer.monitor.close()


def test_without_permission(tmp_path: Path) -> None:
    """As another user, since root may do anything."""
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else")
    (tmp_path / "locked").mkdir(mode=0o700)
    (tmp_path / "locked" / "knobs").write_text(knobs.EXAMPLE)
    program = (
        "import os\n"
        "from bottleneck_sidecar.client import Client; from bottleneck_sidecar.knobs import *\n"
        "from bottleneck_sidecar.wire import TrainingRank\n"
        "os.setuid(65532)\n"
        "sender = Client(os.sys.argv[1] + '/agent.sock')\n"
        "assert not sender.send(training=TrainingRank('e', 0, 1, 0, 0, 0.0, {}))\n"
        "assert sender.dropped == 1 and KnobsFile(os.sys.argv[1] + '/knobs').poll() is None\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "locked")],
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_the_agent_is_killed_and_comes_back(agent: Agent, tmp_path: Path) -> None:
    trainer = Trainer(socket=agent.socket)
    batch = torch.ones(4, 1)
    for _ in range(3):
        trainer.step(batch)
    agent.stop(signal.SIGKILL)
    sent = trainer.monitor._client.sent
    for _ in range(3):
        trainer.step(batch)
    assert trainer.monitor._client.sent == sent
    second = Agent(tmp_path)
    trainer.step(batch)
    assert trainer.monitor._client.sent == sent + 1
    name = 'bottleneck_training_steps_total{rank="0"}'
    eventually(lambda: second.metric(name) == 7, "the count of all steps, none lost")
    trainer.monitor.close()
    second.stop()


def test_an_acknowledgement_that_was_lost_is_sent_again(inbox: Inbox, tmp_path: Path) -> None:
    path = tmp_path / "knobs"
    path.write_text(knobs.EXAMPLE)
    monitor = StepMonitor(socket=str(tmp_path / "later.sock"), knobs=str(path))
    monitor.step()
    assert monitor._knobs.urgent
    os.rename(inbox.path, tmp_path / "later.sock")
    monitor.step()
    assert not monitor._knobs.urgent
    assert inbox.read()[-1].acknowledgement is not None
    monitor.close()


def test_the_last_steps_are_told_at_exit(agent: Agent) -> None:
    program = (
        "from bottleneck_sidecar.training import StepMonitor\n"
        "monitor = StepMonitor()\nfor _ in range(25): monitor.step(samples=2)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**os.environ, "BOTTLENECK_SOCKET": agent.socket},
    )
    eventually(lambda: agent.metric('bottleneck_training_samples_total{rank="0"}') == 50)
