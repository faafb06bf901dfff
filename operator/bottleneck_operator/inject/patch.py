"""The JSON Patch (RFC 6902) from one object to another."""

from __future__ import annotations

from typing import Any

Operation = dict[str, Any]


def json_patch(before: Any, after: Any, path: str = "") -> list[Operation]:
    """Operations that turn ``before`` into ``after``.

    Lists are compared by position and extended at their end, which is all that injection does to
    them; a list that became shorter is replaced as a whole.
    """
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return _dict_patch(before, after, path)
    if isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        changed = (
            operation
            for index, (old, new) in enumerate(zip(before, after, strict=False))
            for operation in json_patch(old, new, f"{path}/{index}")
        )
        added = ({"op": "add", "path": f"{path}/-", "value": new} for new in after[len(before) :])
        return [*changed, *added]
    return [{"op": "replace", "path": path, "value": after}]


def _dict_patch(before: dict[str, Any], after: dict[str, Any], path: str) -> list[Operation]:
    operations: list[Operation] = []
    for key in sorted(before.keys() | after.keys()):
        where = f"{path}/{_escaped(key)}"
        if key not in after:
            operations.append({"op": "remove", "path": where})
        elif key not in before:
            operations.append({"op": "add", "path": where, "value": after[key]})
        else:
            operations += json_patch(before[key], after[key], where)
    return operations


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
