"""What a workload's pods are made from, as a digest. Pure.

Revisions are no use here: undoing an image makes a new one, with the old content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256

from .documents import Document

DEEPEST = 12
"""Levels below the spec at which a pod template is looked for: kinds of Ray have it at the third.
"""


def digest_of(spec: Document) -> str:
    """A digest of every pod template in a target's spec, whatever its kind; empty where there is
    none."""
    found = list(_templates(spec, DEEPEST))
    if not found:
        return ""
    text = json.dumps(found, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]


def _templates(value: object, levels: int) -> Iterator[Document]:
    if levels == 0:
        return
    if isinstance(value, Mapping):
        inner = value.get("spec")
        if isinstance(inner, Mapping) and isinstance(inner.get("containers"), list):
            yield value
            return
        for each in value.values():
            yield from _templates(each, levels - 1)
    elif isinstance(value, list):
        for each in value:
            yield from _templates(each, levels - 1)
