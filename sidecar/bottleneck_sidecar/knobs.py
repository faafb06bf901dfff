"""Desired settings: reads the knobs file, checks it, and says in words what is wrong with it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

VARIABLE = "BOTTLENECK_KNOBS"

LOOK_SECONDS = 0.1
"""Least time between two looks at the file."""

MAX_BYTES = 64 * 1024

BOUNDS: dict[str, tuple[int, int]] = {
    "dataLoader.workers": (0, 64),
    "dataLoader.prefetch": (1, 64),
    "batch.micro": (1, 65536),
    "batch.accumulation": (1, 4096),
    "batch.maxSize": (1, 4096),
    "batch.delayMilliseconds": (0, 10000),
    "optimizer.learningRatePercent": (1, 10000),
}
"""Every knob that is a whole number, with the least and the greatest that it takes."""

WORDS: dict[str, tuple[str, ...]] = {
    "dataLoader.pinMemory": ("off", "on"),
    "dataLoader.persistentWorkers": ("off", "on"),
    "precision.autocast": ("off", "bf16", "fp16"),
    "precision.weights": ("fp32", "bf16", "fp16"),
}
"""Every other knob, with the words that it takes."""

KNOBS = (*BOUNDS, *WORDS)
"""Every knob there is. Each process takes only some of them, which it reports as ``settable``."""

EXAMPLE = '{"generation": 3, "dataLoader": {"workers": 2, "prefetch": 4}}'


@dataclass(frozen=True, slots=True)
class Wish:
    """What one state of the file asks for. With a ``refusal`` there is nothing to apply."""

    generation: int
    settings: dict[str, int | str]
    refusal: str = ""


class KnobsFile:
    """Watches one file. ``path`` defaults to the environment's BOTTLENECK_KNOBS."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path or os.environ.get(VARIABLE) or None
        self.generation = 0
        self._looked_at = float("-inf")
        self._seen: tuple[int, int, int] | None = None

    def poll(self) -> Wish | None:
        """What the file newly asks for; None while it says nothing new. Never raises.

        Costs one ``stat`` at most every ``LOOK_SECONDS``. The downward API replaces the file by
        swapping a symbolic link, which shows as another inode.
        """
        if self.path is None:
            return None
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return None
        self._looked_at = now
        try:
            stat = os.stat(self.path)
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen == self._seen:
                return None
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError):
            return None  # no file is no wish; the workload keeps what it has
        self._seen = seen
        if not data.strip():
            return None  # what the downward API writes while the annotation is absent
        wish = parse(data)
        if 0 < wish.generation <= self.generation:
            return None
        self.generation = max(self.generation, wish.generation)
        return wish


def parse(data: bytes) -> Wish:
    """Reads the content of a knobs file. Anything else than a knobs object gives a refusal."""
    if len(data) > MAX_BYTES:
        return _refused(0, f"the knobs are longer than {MAX_BYTES} bytes; write {EXAMPLE}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return _refused(0, f"the knobs are not a JSON document; write {EXAMPLE}")
    if not isinstance(document, dict):
        return _refused(0, f"the knobs are not a JSON object; write {EXAMPLE}")
    generation = document.pop("generation", None)
    if not _whole(generation, 1, 2**53):
        return _refused(0, f"generation must be a whole number from 1 on; write {EXAMPLE}")
    settings: dict[str, int | str] = {}
    for group, entries in document.items():
        if not isinstance(entries, dict) or not any(k.startswith(f"{group}.") for k in KNOBS):
            return _unknown(generation, group)
        for name, value in entries.items():
            knob = f"{group}.{name}"
            if knob not in KNOBS:
                return _unknown(generation, knob)
            if (expected := _expected(knob, value)) is not None:
                return _refused(generation, f"{knob} must be {expected}, not {_short(value)}")
            settings[knob] = value
    return Wish(generation, settings)


def _expected(knob: str, value: Any) -> str | None:
    """What the knob takes, in words; None if the value is one of these."""
    if knob in WORDS:
        words = WORDS[knob]
        if isinstance(value, str) and value in words:
            return None
        return "one of " + ", ".join(f'"{word}"' for word in words)
    low, high = BOUNDS[knob]
    return None if _whole(value, low, high) else f"a whole number from {low} to {high}"


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _unknown(generation: int, knob: str) -> Wish:
    known = ", ".join(KNOBS)
    return _refused(generation, f"unknown knob {_short(knob)}; there are {known}: write {EXAMPLE}")


def _refused(generation: int, message: str) -> Wish:
    return Wish(generation, {}, message)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
