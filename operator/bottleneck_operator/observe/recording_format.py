"""Recordings as JSON Lines: read and written. Pure.

``docs/recording.md`` describes the format for people who write or read one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bottleneck_sidecar.wire import MAX_BYTES, Sample, WireError, decode_sample, encode
from pydantic import ValidationError

from ..api.policy_status import BaselineStatus

FORMAT_VERSION = 1
"""Version of the format; a reader refuses another one."""

MAX_LINE_BYTES = MAX_BYTES + 1024
"""Longest line that is read: a sample and what is around it."""

MAX_LINES = 1_000_000
"""Most lines that are read: ten replicas for a day."""


class RecordingError(ValueError):
    """A recording that cannot be read; the text names the line and says what to do."""


@dataclass(frozen=True, slots=True)
class Told:
    """One line behind the first: when it was received (seconds since the Unix epoch), and the
    sample or the facts in it."""

    received: float
    sample: Sample | None = None
    facts: Mapping[str, float] | None = None
    texts: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory. ``policy`` is the spec of a BottleneckPolicy as a document. ``cut`` is
    the number of lines that were left out because they were half written."""

    created_at: float
    by: str = ""
    pods: Sequence[str] = ()
    policy: Mapping[str, Any] | None = None
    baselines: Sequence[BaselineStatus] = ()
    lines: Sequence[Told] = field(default_factory=list)
    cut: int = 0

    @property
    def names(self) -> list[str]:
        """The pods that it is about: those that its first line names and those that speak."""
        found = dict.fromkeys(self.pods)
        found |= {line.sample.pod: None for line in self.lines if line.sample is not None}
        return list(found)


def header(
    created_at: float,
    by: str,
    pods: Sequence[str] = (),
    policy: Mapping[str, Any] | None = None,
    baselines: Sequence[BaselineStatus] = (),
) -> str:
    """The first line, with its end."""
    document: dict[str, Any] = {
        "recording": FORMAT_VERSION,
        "createdAt": created_at,
        "by": by,
        "pods": list(pods),
    }
    if policy is not None:
        document["policy"] = policy
    if baselines:
        document["baselines"] = [each.dump() for each in baselines]
    return _line(document)


def sample_line(received: float, sample: Sample) -> str:
    """A line that holds a sample, with its end."""
    return f'{{"received":{json.dumps(received)},"sample":{encode(sample).decode()}}}\n'


def facts_line(
    received: float, facts: Mapping[str, float], texts: Mapping[str, str] | None = None
) -> str:
    """A line that holds what the API server says, with its end."""
    document: dict[str, Any] = {"received": received, "facts": dict(facts)}
    if texts:
        document["texts"] = dict(texts)
    return _line(document)


def _line(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"


def parse(lines: Iterable[str]) -> Recording:
    """Reads a recording from its lines, with or without their ends. A last line that was not
    written to its end is left out and counted. Raises ``RecordingError``."""
    first: dict[str, Any] | None = None
    found: list[Told] = []
    broken: tuple[int, str] | None = None
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        if broken is not None:
            raise RecordingError(f"line {broken[0]}: {broken[1]}")
        if number > MAX_LINES:
            raise RecordingError(f"longer than {MAX_LINES} lines: record fewer pods, or less time")
        try:
            document = _document(text)
            if first is None:
                first = _first(document)
            else:
                found.append(_told(document))
        except _BrokenError as error:
            # Only the last line may be, and without its end: it was being written.
            if text.endswith("\n"):
                raise RecordingError(f"line {number}: {error}") from None
            broken = number, str(error)
        except RecordingError as error:
            raise RecordingError(f"line {number}: {error}") from None
    if first is None:
        what = f"line {broken[0]}: {broken[1]}" if broken else "it is empty"
        raise RecordingError(f"{what}; a recording begins with a line like {_EXAMPLE}")
    return Recording(**first, lines=found, cut=int(broken is not None))


_EXAMPLE = '{"recording": 1, "createdAt": 1764057600, "by": "me", "pods": []}'


class _BrokenError(RecordingError):
    """A line that is no JSON: garbage, or half of one."""


def _document(text: str) -> dict[str, Any]:
    if len(text) > MAX_LINE_BYTES:
        raise RecordingError(f"longer than {MAX_LINE_BYTES} bytes; it is no line of a recording")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _BrokenError(
            "this is no JSON; remove the line, or record again if there are more like it"
        ) from None
    if not isinstance(document, dict):
        raise RecordingError("expected an object in braces; remove the line")
    return document


def _first(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ``Recording`` that its first line gives."""
    version = document.get("recording")
    if version is None:
        raise RecordingError(f"not the first line of a recording; write one like {_EXAMPLE}")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise RecordingError(
            f"recording version {version!r}; this reader knows version {FORMAT_VERSION}: "
            "use a kubectl-bottleneck of the release that wrote it"
        )
    pods, policy = document.get("pods") or [], document.get("policy")
    if not isinstance(pods, list) or not all(isinstance(pod, str) for pod in pods):
        raise RecordingError("pods: expected a list of names")
    if policy is not None and not isinstance(policy, dict):
        raise RecordingError("policy: expected the spec of a BottleneckPolicy, or nothing")
    baselines = document.get("baselines") or []
    try:
        learnt = [BaselineStatus.model_validate(each) for each in baselines]
    except (ValidationError, TypeError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RecordingError(f"baselines: {told}; leave them out to do without") from None
    return {
        "created_at": _number(document, "createdAt"),
        "by": str(document.get("by", "")),
        "pods": pods,
        "policy": policy,
        "baselines": learnt,
    }


def _told(document: Mapping[str, Any]) -> Told:
    received = _number(document, "received")
    sample, facts, texts = (document.get(name) for name in ("sample", "facts", "texts"))
    if (sample is None) == (facts is None):
        raise RecordingError("expected one of sample and facts; remove the line")
    if sample is not None:
        try:
            return Told(received, decode_sample(json.dumps(sample, separators=(",", ":")).encode()))
        except WireError as error:
            raise RecordingError(f"sample: {error}") from None
    if not isinstance(facts, dict) or not all(_is_number(value) for value in facts.values()):
        raise RecordingError('facts: expected numbers by name, like {"pods.unschedulable": 2}')
    if texts is not None and (
        not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values())
    ):
        raise RecordingError("texts: expected texts by name")
    return Told(received, facts={k: float(v) for k, v in facts.items()}, texts=texts or {})


def _number(document: Mapping[str, Any], name: str) -> float:
    value = document.get(name)
    if not _is_number(value):
        raise RecordingError(f"{name}: expected seconds since the Unix epoch, like 1764057600.25")
    return float(value)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 2**63
        and math.isfinite(value)
    )
