"""Batches and precision change on two real ranks over gloo at the same step, or on neither."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .batch_ranks import (  # type: ignore[import-not-found]
    ACCUMULATION,
    EPOCHS,
    KINDS,
    MEAN,
    MICRO,
    NOISE,
    SAMPLES,
    SEEN_AFTER,
    SIZE,
)

PER_EPOCH = -(-SAMPLES // 2 // (MICRO * ACCUMULATION))
STEPS = EPOCHS * PER_EPOCH


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """For each kind what the two ranks printed."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if "BOTTLENECK" not in key}
    program = Path(__file__).with_name("batch_ranks.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(program), str(rank), str(port), str(folder)],
            env={**environment, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found: list[list[dict[str, Any]]] = []
    try:
        for rank in ranks:
            out, errors = rank.communicate(timeout=300)
            assert rank.returncode == 0, errors
            found.append([json.loads(line) for line in out.splitlines()])
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    kinds = [*KINDS, *NOISE]
    return {kind: [each[number] for each in found] for number, kind in enumerate(kinds)}


def switched(rank: dict[str, Any]) -> int:
    """The step after which the settings were others for the first time."""
    settings = rank["settings"]
    return next((at for at, each in enumerate(settings, 1) if each != settings[0]), 0)


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        ("batch", [2, 6, 0, "off"]),
        ("workers", [2, 6, 1, "off"]),
        ("precision", [2, 6, 0, "bf16"]),
    ],
)
def test_both_ranks_switch_at_the_same_step(
    printed: dict[str, list[dict[str, Any]]], kind: str, after: list[Any]
) -> None:
    first, second = printed[kind]
    assert switched(first) == switched(second) > max(SEEN_AFTER)
    assert first["settings"] == second["settings"]
    assert len(first["settings"]) == STEPS
    assert first["settings"][0] == [MICRO, ACCUMULATION, 0, "off"]
    assert first["settings"][-1] == after
    for rank in (first, second):
        generation = list(KINDS).index(kind) + 1
        assert rank["answer"] == [generation, "Applied", switched(first), ""]


def test_the_weights_are_those_of_the_untouched_run(
    printed: dict[str, list[dict[str, Any]]],
) -> None:
    plain = [torch.tensor(each) for each in printed["untouched"][0]["weights"]]
    for kind in KINDS:
        first, second = printed[kind]
        assert first["weights"] == second["weights"], kind
        if kind == "grown":
            continue
        for weights, expected in zip(first["weights"], plain, strict=True):
            torch.testing.assert_close(torch.tensor(weights), expected, rtol=1e-12, atol=1e-14)


def test_gradients_are_exchanged_once_a_step(printed: dict[str, list[dict[str, Any]]]) -> None:
    for kind in KINDS:
        if kind != "grown":
            assert [rank["reduced"] for rank in printed[kind]] == [STEPS, STEPS], kind


def test_the_forward_pass_is_in_bf16_from_that_step_on(
    printed: dict[str, list[dict[str, Any]]],
) -> None:
    (rank, _) = printed["precision"]
    types, steps = rank["types"], switched(rank)
    full, rest = divmod(steps, PER_EPOCH)
    before = full * -(-SAMPLES // 2 // MICRO) + rest * ACCUMULATION
    assert types[:before] == ["torch.float32"] * before
    assert types[before:] == ["torch.bfloat16"] * (len(types) - before)


def test_a_rank_that_cannot_makes_both_refuse(printed: dict[str, list[dict[str, Any]]]) -> None:
    for rank in printed["refused"]:
        assert switched(rank) == 0
        generation, result, _, message = rank["answer"]
        assert (generation, result) == (list(KINDS).index("refused") + 1, "Refused")
        assert "its arithmetic is slow" in message
    assert "rank 1: its arithmetic" in printed["refused"][0]["answer"][3]


def test_what_one_rank_never_sees_is_done_by_none(printed: dict[str, list[dict[str, Any]]]) -> None:
    for rank in printed["unseen"]:
        assert switched(rank) == 0
        assert rank["answer"] is None


def test_a_larger_global_batch_and_its_learning_rate_come_at_the_same_step(
    printed: dict[str, list[dict[str, Any]]],
) -> None:
    first, second = printed["grown"]
    at = switched(first)
    assert at == switched(second) > max(SEEN_AFTER)
    assert first["settings"][-1] == [8, ACCUMULATION, 0, "off"]
    for rank in (first, second):
        assert rank["rates"] == [0.1] * at + [0.2] * (len(rank["rates"]) - at)


@pytest.mark.parametrize("kind", NOISE)
def test_the_noise_scale_is_known_on_several_ranks(
    printed: dict[str, list[dict[str, Any]]], kind: str
) -> None:
    """From the first batch of a step, or, where it has one only, from what each rank computed
    before the gradients were exchanged."""
    for rank in printed[kind]:
        assert rank["looks"] == 960 // 8 // NOISE[kind] - 1, "every step but the first"
        square, variance = rank["figures"]
        assert variance == pytest.approx(SIZE, rel=0.15)
        assert variance / square == pytest.approx(1 / MEAN**2, rel=0.5)


def test_a_batch_that_one_rank_has_no_memory_for_is_taken_by_none(
    printed: dict[str, list[dict[str, Any]]],
) -> None:
    """Tried before the change, so that no rank leaves the others waiting within a step."""
    for rank in printed["exhausted"]:
        assert switched(rank) == 0
        assert len(rank["settings"]) == STEPS
        generation, result, _, message = rank["answer"]
        assert (generation, result) == (list(KINDS).index("exhausted") + 1, "Refused")
        assert "rank 1: " in message or rank is printed["exhausted"][1]
        assert (
            "a try-out with batches of 12 samples ran out of memory: Tried to allocate 12 GiB"
            in message
        )
