"""The API server's audit log as a list of changes. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

Object = Mapping[str, Any]

OPERATOR = "chaos-operator"
"""How the agent's name of an operator's requests begins."""


@dataclass(frozen=True)
class Change:
    """One write that the API server has carried out. ``order`` is the resource version that it got:
    all versions of one etcd are in one order. ``at`` in seconds since the Unix epoch."""

    order: int
    at: float
    operator: bool
    verb: str
    resource: str
    subresource: str
    name: str
    result: Object = field(default_factory=dict)
    """The object as it was afterwards; of a scale, the Scale."""

    @property
    def metadata(self) -> Object:
        """Of the result."""
        return self.result.get("metadata") or {}


def changes(lines: Iterable[str | bytes], namespace: str) -> list[Change]:
    """What was changed in a namespace, in order. Refused requests changed nothing."""
    found: list[Change] = []
    last = 0
    for line in lines:
        event = json.loads(line)
        about = event.get("objectRef") or {}
        code = (event.get("responseStatus") or {}).get("code", 0)
        if about.get("namespace") != namespace or not 200 <= code < 300:
            continue
        if event.get("stage") != "ResponseComplete":
            continue
        result = event.get("responseObject") or {}
        version = (result.get("metadata") or {}).get("resourceVersion", "")
        # A deletion answers with a Status, or with the object as it was.
        last = max(last, int(version)) if str(version).isdigit() else last
        deleted = event["verb"].startswith("delete")
        order = last if deleted or not str(version).isdigit() else int(version)
        moment = datetime.fromisoformat(event["stageTimestamp"].replace("Z", "+00:00"))
        found.append(
            Change(
                order,
                moment.timestamp(),
                event.get("userAgent", "").startswith(OPERATOR),
                event["verb"],
                about["resource"],
                about.get("subresource", ""),
                about.get("name") or (result.get("metadata") or {}).get("name", ""),
                result,
            )
        )
    return sorted(found, key=lambda change: change.order)


class Log:
    """Reads what was written since the last time, across the log's rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._file.seek(0, 2)

    def close(self) -> None:
        """The file."""
        self._file.close()

    def fresh(self) -> list[bytes]:
        """Whole lines since the last call."""
        lines = self._rest()
        if self._path.exists() and self._path.stat().st_ino != _inode(self._file):
            self._file.close()
            self._file = self._path.open("rb")
            lines += self._rest()
        return lines

    def _rest(self) -> list[bytes]:
        found = []
        while True:
            place = self._file.tell()
            line = self._file.readline()
            if not line.endswith(b"\n"):
                self._file.seek(place)
                return found
            found.append(line)


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino
