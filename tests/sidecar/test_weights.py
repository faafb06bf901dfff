"""The weights of a served model, changed while it serves: real torch, real threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from bottleneck_sidecar import weights as subject
from bottleneck_sidecar.shared_lock import BusyError, SharedLock
from bottleneck_sidecar.weights import NotChangedError, Weights
from torch import nn

from .conftest import DEADLINE_SECONDS, eventually  # type: ignore[import-not-found]

BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


class Net(nn.Module):
    """A bit of everything that holds weights: tied ones, buffers of either kind, a GRU's list."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 7)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.rand(7))
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []

    def forward(self, numbers: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.head.weight.dtype, shift.dtype))
        states, _ = self.gru(self.embedding(numbers))
        return self.head(self.norm(states[:, -1])) * self.scale + shift


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def arguments() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(6).reshape(2, 3), torch.rand(7, generator=torch.Generator().manual_seed(1))


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.view(BITS.get(tensor.dtype, tensor.dtype)).clone()
        for name, tensor in model.state_dict().items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def types(model: nn.Module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in model.state_dict().values()}


def answer(weights: Weights) -> torch.Tensor:
    with torch.no_grad(), weights.use() as model:
        found = model(*arguments())
    assert isinstance(found, torch.Tensor)
    return found


def test_there_and_back_is_the_same_to_the_bit() -> None:
    model = net()
    weights = Weights(model)
    before, first = bits(model), answer(weights)
    assert (weights.precision, weights.settable()) == ("fp32", ["precision.weights"])
    tensors = [*model.parameters(), *model.buffers()]

    assert weights.change("bf16")
    assert types(model) == {torch.bfloat16, torch.int64}
    assert weights.knobs() == {"precision.weights": "bf16"}
    lower = answer(weights)
    assert model.seen[-1] == (torch.bfloat16, torch.bfloat16), "weights and inputs"
    assert lower.dtype == torch.float32
    assert not torch.equal(first, lower)
    assert torch.allclose(first, lower, atol=0.1)
    assert not weights.change("bf16")

    assert weights.change("fp32")
    assert same(before, bits(model))
    assert torch.equal(first, answer(weights))
    now = [*model.parameters(), *model.buffers()]
    assert all(one is other for one, other in zip(tensors, now, strict=True))
    assert model.head.weight is model.embedding.weight
    assert weights._kept == [], "the original is kept only while something else is in force"


@pytest.mark.parametrize("seed", range(5))
def test_any_bits_come_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(64, 64)
    content = torch.randint(-(2**31), 2**31, (64, 64), generator=generator, dtype=torch.int64)
    with torch.no_grad():  # NaN of every kind, infinities and subnormal numbers among them
        model.weight.view(torch.int32).copy_(content.to(torch.int32))
    weights = Weights(model)
    before = bits(model)
    for precision in ("bf16", "fp16", "bf16", "fp32"):
        assert weights.change(precision)
        original = before["weight"].view(torch.float32)
        expected = original.to(subject.TYPES[precision])
        assert torch.equal(model.weight.isnan(), expected.isnan())
        assert torch.equal(model.weight.nan_to_num(), expected.nan_to_num()), "from the original"
    assert same(before, bits(model))


def test_what_was_loaded_in_16_bits_comes_back_to_them() -> None:
    model = net().to(torch.bfloat16)
    weights = Weights(model)
    before = bits(model)
    assert weights.precision == "bf16"
    assert weights.change("fp32")
    assert types(model) == {torch.float32, torch.int64}
    assert answer(weights).dtype == torch.bfloat16, "as before the change"
    assert weights.change("bf16")
    assert same(before, bits(model))


class Pair(NamedTuple):
    one: Any
    other: Any


def test_inputs_and_outputs_of_any_shape_are_cast() -> None:
    seen: list[Any] = []

    class Odd(nn.Linear):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            seen.append((args, kwargs))
            y = super().forward(args[0]["x"])
            return Pair(OrderedDict(y=y), [y, (y.double(), torch.arange(2), "text", None)])

    weights = Weights(Odd(2, 2))
    x, mask = torch.rand(1, 2), torch.tensor([True])
    inputs = {"x": x, "mask": mask}
    weights.change("bf16")
    with weights.use() as model:
        found = model(inputs, [x.double()], scale=2.0)
        assert (model.dtype, model.module) == (torch.bfloat16, weights._model)
    (given, doubles), named = seen[0]
    assert (given["x"].dtype, given["mask"].dtype) == (torch.bfloat16, torch.bool)
    assert (doubles[0].dtype, named) == (torch.bfloat16, {"scale": 2.0})
    assert inputs["x"].dtype == torch.float32, "what was handed in is not touched"
    assert isinstance(found, Pair)
    assert isinstance(found.one, OrderedDict)
    assert found.one["y"].dtype == found.other[0].dtype == torch.float32
    rest = found.other[1]
    assert (rest[0].dtype, rest[1].dtype, *rest[2:]) == (torch.float64, torch.int64, "text", None)
    weights.change("fp32")
    with weights.use() as model:
        model(inputs, [x.double()])
    assert seen[1][0][0] is inputs, "with the loaded type nothing is touched"


class Chain(nn.Module):
    """Looks at every weight at every layer, and lets other threads run between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))
        self.wrong: list[set[torch.dtype]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            seen = {x.dtype} | {each.dtype for each in self.parameters()}
            if len(seen) > 1:
                self.wrong.append(seen)
            threading.Event().wait(0.0001)
            x = layer(x)
        return x


def background(count: int, work: Callable[[], object]) -> Callable[[], None]:
    """Does the work over and over in so many threads, until the answer is called; raises what the
    work raised."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def loop() -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop) for _ in range(count)]
    for thread in threads:
        thread.start()

    def end() -> None:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()
        assert not errors, errors

    return end


@pytest.mark.parametrize(
    ("threads", "patience", "hold"),
    [
        # One that comes back at once leaves a moment each time, which is kept for the change.
        (1, DEADLINE_SECONDS, 0.0),
        # Of several there is always one inside, until new ones are held up.
        (4, 0.2, DEADLINE_SECONDS),
    ],
)
def test_no_forward_pass_sees_two_types(
    threads: int, patience: float, hold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "PATIENCE_SECONDS", patience)
    monkeypatch.setattr(subject, "HOLD_SECONDS", hold)
    model = Chain().eval()
    weights = Weights(model)
    x = torch.rand(3, 16)
    with torch.no_grad(), weights.use() as served:
        expected = {"fp32": served(x)}
    passes: dict[str | None, int] = {}
    lock = threading.Lock()

    def work() -> None:
        with torch.no_grad(), weights.use() as served:
            precision, found = weights.precision, served(x)
            assert weights.precision == precision, "it stays as it is for the whole pass"
        with lock:
            passes[precision] = passes.get(precision, 0) + 1
            if precision == "fp32":
                assert torch.equal(found, expected["fp32"])

    end = background(threads, work)
    try:
        for precision in ("bf16", "fp32", "fp16", "bf16", "fp32"):
            before = passes.get(precision, 0)
            assert weights.change(precision)
            eventually(lambda: passes.get(precision, 0) > before)  # noqa: B023
    finally:
        end()
    assert model.wrong == []


def test_a_change_waits_for_the_pass_that_runs_and_tells_of_itself_meanwhile() -> None:
    model = net()
    weights = Weights(model)
    inside, leave, told = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with weights.use():
            inside.set()
            assert leave.wait(DEADLINE_SECONDS)
            assert types(model) == {torch.float32, torch.int64}

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(DEADLINE_SECONDS)

    def meanwhile() -> None:
        with weights.use() as served:  # nobody is held up by one who waits
            assert served.dtype == torch.float32
        told.set()
        leave.set()

    assert weights.change("bf16", meanwhile)
    thread.join(DEADLINE_SECONDS)
    assert told.is_set()
    assert types(model) == {torch.bfloat16, torch.int64}


def test_a_model_that_is_never_idle_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(subject, "HOLD_SECONDS", 0.05)
    model = net()
    weights = Weights(model)
    before = bits(model)
    with weights.use():
        with pytest.raises(NotChangedError, match="never idle: it was in use without a pause"):
            weights.change("bf16")
        answer(weights)
    assert same(before, bits(model))
    assert weights.change("bf16"), "a later wish is granted"


def test_who_is_inside_is_let_in_again_while_others_are_held_up() -> None:
    lock = SharedLock()
    done = threading.Event()
    outer = lock.enter()
    work: list[str] = []

    def alone() -> None:
        lock.alone(lambda: work.append("alone"), 0.0, DEADLINE_SECONDS)

    def other() -> None:
        lock.leave(lock.enter())
        work.append("other")
        done.set()

    changing = threading.Thread(target=alone)
    changing.start()
    eventually(lambda: lock._closed)
    coming = threading.Thread(target=other)
    coming.start()
    inner = lock.enter()
    lock.leave(inner)
    assert work == []
    assert not done.is_set()
    leaving = threading.Thread(target=lock.leave, args=(outer,))  # in whatever thread
    leaving.start()
    for thread in (changing, coming, leaving):
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
    assert work == ["alone", "other"]


def test_who_comes_back_at_once_does_not_take_the_moment_away() -> None:
    lock = SharedLock()
    work: list[str] = []
    for _ in range(50):
        inside = lock.enter()
        changing = threading.Thread(
            target=lambda: lock.alone(lambda: work.append("alone"), DEADLINE_SECONDS, 0.0)
        )
        changing.start()
        eventually(lambda: lock._awaited)
        lock.leave(inside)
        again = lock.enter()
        assert work.pop() == "alone"
        lock.leave(again)
        changing.join(DEADLINE_SECONDS)


def test_the_lock_opens_again_after_an_error() -> None:
    lock = SharedLock()
    with pytest.raises(ZeroDivisionError):
        lock.alone(lambda: 1 / 0, 0.0, 0.0)
    inside = lock.enter()
    with pytest.raises(BusyError):
        lock.alone(lambda: None, 0.0, 0.0)
    lock.leave(inside)
    assert lock.alone(lambda: "done", 0.0, 0.0) == "done"


def test_a_forked_process_begins_with_nobody_inside() -> None:
    weights = Weights(net())
    with weights.use():
        weights.forked()
        assert weights.change("bf16"), "the pass was in a thread that the child does not have"
    assert weights.change("fp32")


class Stubborn(nn.Linear):
    """Makes numbers of its own, of the type that it was written for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.ones(2))


class Fragile(nn.Linear):
    """Its numbers do not fit into 16 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if y.dtype == torch.float32 else y * float("nan")


@pytest.mark.parametrize(
    ("kind", "message"), [(Stubborn, "fails with torch.bfloat16"), (Fragile, "gives NaN")]
)
def test_a_model_that_cannot_do_it_is_put_back(kind: type[nn.Linear], message: str) -> None:
    model = kind(2, 2)
    weights = Weights(model, example=(torch.rand(1, 2),))
    before = bits(model)
    with pytest.raises(NotChangedError, match=message):
        weights.change("bf16")
    assert same(before, bits(model))
    assert (weights.precision, weights._kept) == ("fp32", [])
    with weights.use() as served:
        assert served(torch.rand(1, 2)).dtype == torch.float32
    with pytest.raises(NotChangedError, match=message):
        weights.change("bf16")


def test_from_one_lower_type_to_another_that_fails_stays_with_the_first() -> None:
    class NotHalf(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dtype == torch.float16:
                raise ValueError("too small")
            return super().forward(x)

    model = NotHalf(2, 2)
    weights = Weights(model, example=(torch.rand(1, 2),))
    before = bits(model)
    assert weights.change("bf16")
    with pytest.raises(NotChangedError, match="too small"):
        weights.change("fp16")
    assert types(model) == {torch.bfloat16}
    assert weights.change("fp32")
    assert same(before, bits(model))


@pytest.mark.parametrize(
    "write",
    [
        lambda model: model.load_state_dict(net(1).state_dict()),
        lambda model: model.load_state_dict(net(1).state_dict(), assign=True),
        lambda model: nn.init.zeros_(model.head.bias),
    ],
    ids=["copied", "assigned", "one of them"],
)
def test_weights_that_others_write_are_not_replaced_by_old_ones(
    write: Callable[[nn.Module], object],
) -> None:
    model = net()
    weights = Weights(model)
    assert weights.change("bf16")
    write(model)
    now = bits(model)
    with pytest.raises(NotChangedError, match="have been written since"):
        weights.change("fp32")
    assert same(now, bits(model))


@pytest.mark.parametrize("kind", ["compiled", "encoder"])
def test_models_with_ways_of_their_own(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "compiled":
        inner = nn.Linear(16, 16).eval()
        model: Any = torch.compile(inner, backend="eager")
    else:  # has a shortcut for inference that takes its weights itself
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        inner = model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.rand(1, 3, 16)
    weights = Weights(model, example=(x,))
    found = []
    for precision in ("fp32", "bf16", "fp32"):
        weights.change(precision)
        with torch.inference_mode(), weights.use() as served:
            found.append(served(x))
        assert types(inner) == {subject.TYPES[precision]}
    assert {each.dtype for each in found} == {torch.float32}
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_contents_are_exchanged_all_or_none() -> None:
    tensors = [torch.zeros(2) for _ in range(3)]
    kept = [subject._Tensor(each, each) for each in tensors]
    with pytest.raises(RuntimeError):
        subject._swap(kept, [torch.ones(2), torch.eye(2).to_sparse(), torch.ones(2)])
    assert all(torch.equal(each, torch.zeros(2)) for each in tensors)


def test_a_model_made_in_inference_mode_stays_as_it_is() -> None:
    with torch.inference_mode():
        model = net()
        weights = Weights(model)
        assert "was made in inference mode; make it outside" in weights.refusal("bf16")
        assert (weights.settable(), weights.knobs()) == ([], {})
        assert answer(weights).dtype == torch.float32, "it serves all the same"


@pytest.mark.parametrize(
    ("model", "precision", "message"),
    [
        (nn.Linear(2, 2), "fp16", "fp16 is for GPUs, and this model is on a CPU: write bf16"),
        (nn.Linear(2, 2), "bf16", ""),
        (nn.Linear(2, 2).double(), "bf16", "are torch.float64; load it with all of them in one"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).to(torch.bfloat16)),
            "bf16",
            "are torch.bfloat16, torch.float32; load it",
        ),
        (nn.ReLU(), "bf16", "are no floating-point numbers; load it"),
    ],
)
def test_refusals(model: nn.Module, precision: str, message: str) -> None:
    weights = Weights(model)
    refusal = weights.refusal(precision)
    assert (message in refusal) if message else not refusal
    if weights.obstacle:
        assert (weights.settable(), weights.knobs()) == ([], {})
        with weights.use() as served:
            assert served.module is model, "it serves all the same"
