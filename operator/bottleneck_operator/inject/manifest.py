"""The sidecar in manifests, for those who want no webhook: any workload with a pod template."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .pod import InjectSettings, Object, inject, refusal

_TEMPLATE = ("spec", "template")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "DaemonSet": _TEMPLATE,
    "Deployment": _TEMPLATE,
    "Job": _TEMPLATE,
    "ReplicaSet": _TEMPLATE,
    "ReplicationController": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
}
"""Where each kind keeps its pod template."""


@dataclass(frozen=True)
class Injected:
    """The documents in their order, and a line about each that was left as it was."""

    documents: list[Object]
    warnings: list[str]


def inject_manifest(documents: Iterable[Object], settings: InjectSettings) -> Injected:
    """Injects every document that has a pod template; the others are passed through."""
    results: list[Object] = []
    warnings: list[str] = []
    for document in documents:
        if document.get("kind") == "List" and isinstance(document.get("items"), list):
            inner = inject_manifest(document["items"], settings)
            results.append(document | {"items": inner.documents})
            warnings += inner.warnings
            continue
        try:
            results.append(_inject_document(document, settings))
        except _LeftError as left:
            results.append(document)
            warnings.append(f"{_name(document)} is left as it is: {left}")
    return Injected(results, warnings)


class _LeftError(Exception):
    """The document is passed through; the text says why."""


def _inject_document(document: Object, settings: InjectSettings) -> Object:
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in TEMPLATES:
        raise _LeftError("this kind has no pod template that we know")
    return _inject_at(document, TEMPLATES[kind], settings)


def _inject_at(holder: Object, path: tuple[str, ...], settings: InjectSettings) -> Object:
    """``holder`` with the pod template at ``path`` injected."""
    if not path:
        reason = refusal(holder)
        if reason is not None:
            raise _LeftError(reason)
        return inject(holder, settings)
    inner = holder.get(path[0])
    if not isinstance(inner, dict):
        raise _LeftError("it has no pod template")
    return holder | {path[0]: _inject_at(inner, path[1:], settings)}


def _name(document: Object) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{document.get('kind') or 'object'}/{name or '?'}"
