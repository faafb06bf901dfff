"""Reads a trace of the Azure LLM inference dataset and turns it into a schedule."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]


class TraceError(ValueError):
    """A trace that cannot be replayed; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: seconds after the first, tokens read, tokens to write."""

    at: float
    context: int
    tokens: int


def read(path: Path) -> list[Request]:
    """Every request of the file. Raises ``TraceError``."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None
    if not rows or rows[0] != COLUMNS:
        raise TraceError(f"{path}: the first line must be {','.join(COLUMNS)}")
    times: list[datetime] = []
    requests: list[Request] = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            stamp, context, tokens = row
            # Seven decimals, one more than Python reads.
            time = datetime.fromisoformat(stamp[:26]).replace(tzinfo=UTC)
            request = Request(
                (time - (times or [time])[0]).total_seconds(), int(context), int(tokens)
            )
        except ValueError as error:
            raise TraceError(f"{path}, line {number}: {error}") from None
        if request.context < 0 or request.tokens < 0:
            raise TraceError(f"{path}, line {number}: a number of tokens is negative")
        if times and time < times[-1]:
            raise TraceError(f"{path}, line {number}: earlier than the line before")
        times.append(time)
        requests.append(request)
    if not requests:
        raise TraceError(f"{path}: no requests")
    return requests


def cut(requests: list[Request], start: float, duration: float) -> list[Request]:
    """The requests from ``start`` on, for ``duration`` seconds, with times counted from there."""
    chosen = [
        Request(request.at - start, request.context, request.tokens)
        for request in requests
        if start <= request.at < start + duration
    ]
    if not chosen:
        raise TraceError(
            f"no request between {start:g} s and {start + duration:g} s of the trace: "
            f"it lasts {requests[-1].at:g} s"
        )
    return chosen


def schedule(
    requests: list[Request], lap: float, speed: float, seconds: float
) -> Iterator[Request]:
    """The slice of ``lap`` trace seconds over and over, ``speed`` times as fast, for ``seconds``.

    Every lap has the same arrivals, so that figures of two laps may be compared."""
    for number in itertools.count():
        for request in requests:
            at = (number * lap + request.at) / speed
            if at >= seconds:
                return
            yield Request(at, request.context, request.tokens)
