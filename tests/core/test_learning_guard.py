"""When learning suffers from a change: what is reverted at once, and what is left to its noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bottleneck_operator.api.report import Action, Phase
from bottleneck_operator.observe.history import History
from bottleneck_operator.verify.learning import suffering
from bottleneck_operator.verify.measure import guardrail

from .builders import NOW, history, knobs_action, moment, observation, policy, report, sample
from .telemetry import training_rank

SINCE = NOW - 10

Told = Callable[[int], dict[str, Any]]
"""What a rank says beside its steps at a second; the change is in force from the 60th on."""


def told(*ranks: Told, first: int = 0) -> list[History]:
    """Lines of 70 seconds, with the change at the 60th; two steps a second."""
    return [
        history(
            *(
                sample(NOW - 70 + t, t, training_rank(500 + t, number=number, **said(t)))
                for t in range(first, 71)
            )
        )
        for number, said in enumerate(ranks)
    ]


def losses(values: Callable[[int], float], bad: Callable[[int], int] = lambda t: 0) -> Told:
    """Two losses a second of these values; ``bad`` counts those so far that were no number."""
    sums = np.cumsum([2 * values(t) for t in range(71)])
    return lambda t: {
        "losses": 1000 + 2 * t,
        "loss_sum": float(sums[t]),
        "nonfinite_losses": bad(t),
    }


def noise(level: float, spread: float, seed: int = 0) -> list[float]:
    return [float(x) for x in level + spread * np.random.default_rng(seed).standard_normal(71)]


def step_up(level: float, to: float, spread: float = 0.02) -> Callable[[int], float]:
    before, after = noise(level, spread), noise(to, spread, 1)
    return lambda t: before[t] if t <= 60 else after[t]


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([losses(step_up(0.5, 0.5))], ""),
        ([losses(step_up(0.5, 0.9))], "the loss rose from 0.5"),
        ([losses(step_up(0.5, 0.55))], ""),
        ([losses(step_up(0.5, 0.9, spread=0.2))], ""),
        ([losses(step_up(-4.0, -2.0))], "the loss rose from -4"),
        ([losses(step_up(-4.0, -6.0))], ""),
        ([losses(step_up(0.5, 0.3))], ""),
        ([losses(lambda t: 5.0 if t == 65 else 0.5)], ""),
        ([losses(step_up(0.5, 0.9)), *[losses(step_up(0.5, 0.5))] * 2], ""),
        ([*[losses(step_up(0.5, 0.9))] * 2, losses(step_up(0.5, 0.5))], "the loss rose"),
    ],
    ids=[
        "as before",
        "diverges",
        "a tenth more",
        "as much more, and within its scatter",
        "a likelihood that falls",
        "a likelihood that gets better",
        "goes on falling",
        "one hard batch",
        "one rank of three has hard data",
        "most ranks",
    ],
)
def test_a_loss_that_rises(ranks: list[Told], words: str) -> None:
    found = suffering(told(*ranks), SINCE)
    assert found.startswith(words)
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda t: 0, ""),
        (lambda t: int(t > 62), "the loss of rank 0 was not finite 1 times of 20, and before 0"),
        (lambda t: int(t > 20), ""),
        (lambda t: t // 10, ""),
        (lambda t: 6 + 2 * max(0, t - 60), "the loss of rank 0 was not finite 20 times of 20"),
    ],
    ids=["none", "the first one ever", "only before", "as often as before", "far more often"],
)
def test_losses_that_are_no_number(bad: Callable[[int], int], words: str) -> None:
    found = suffering(told(losses(lambda t: 0.5, bad)), SINCE)
    assert found.startswith(words)
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("norm", "words"),
    [
        (lambda t: 2.0 + t % 3, ""),
        (lambda t: 2.0 if t <= 60 else 5.0, ""),
        (lambda t: 2.0 if t <= 60 else 2.0**t, "the gradient norm rose from 2 to"),
        (lambda t: 100.0 if t == 65 else 2.0, ""),
        (lambda t: None, ""),
    ],
    ids=["steady", "twice as large", "explodes", "one spike", "not measured"],
)
def test_a_gradient_norm_that_explodes(norm: Callable[[int], float | None], words: str) -> None:
    found = suffering(told(lambda t: {"gradient_norm": norm(t)}), SINCE)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_gradients_that_are_no_number() -> None:
    found = suffering(told(lambda t: {"nonfinite_gradient_norms": int(t > 65)}), SINCE)
    assert found.startswith("the gradient of rank 0 was not finite 1 times")


@pytest.mark.parametrize(
    ("skipped", "words"),
    [
        (lambda t: min(8, max(0, t - 60)), ""),
        (lambda t: 2 * max(0, t - 60) - (t > 65), "fp16 left out 19 of 20 steps of rank 0"),
    ],
    ids=["looks for its scale", "never finds it"],
)
def test_steps_that_fp16_leaves_out(skipped: Callable[[int], int], words: str) -> None:
    assert suffering(told(lambda t: {"skipped_steps": skipped(t)}), SINCE) == words


def test_without_a_before_nothing_is_said() -> None:
    spoilt = losses(lambda t: 9.0, lambda t: 2 * max(0, t - 60))
    assert suffering(told(spoilt), SINCE)
    assert suffering(told(spoilt, first=61), SINCE) == "", "the operator has been restarted"
    absent = dict.fromkeys(("losses", "loss_sum", "nonfinite_losses", "gradient_norm"))
    absent |= dict.fromkeys(("nonfinite_gradient_norms", "skipped_steps"))
    assert suffering(told(lambda t: dict(absent)), SINCE) == ""
    assert suffering([], SINCE) == ""


@pytest.mark.parametrize(
    ("type", "broken"), [("Precision", True), ("BatchSize", True), ("DataLoader", False)]
)
def test_only_what_changes_learning_is_blamed_for_it(type: str, broken: bool) -> None:
    action: Action = knobs_action().model_copy(update={"type": type})
    verifying = report(action, Phase.VERIFYING, acknowledged_at=moment(-10))
    (lines,) = told(losses(step_up(0.5, 5.0)))
    found = guardrail(policy(), verifying, observation(), {"pod-0": lines})
    assert bool(found) is broken
    applied = report(action, Phase.APPLIED)
    assert guardrail(policy(), applied, observation(), {"pod-0": lines}) == ""


def test_a_run_in_which_nothing_happens_is_left_in_peace() -> None:
    """A loss that falls, with the scatter of single steps: ten seconds after, at every second."""
    rng = np.random.default_rng(5)
    for trial in range(40):
        figures = 2.0 * np.exp(-np.arange(71) / 200) * rng.lognormal(0, 0.3, 71)
        lines = told(losses(lambda t, f=figures: float(f[t])))  # type: ignore[misc]
        assert suffering(lines, SINCE) == "", trial
