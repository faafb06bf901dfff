"""An AdmissionReview request → its response. Pure, and always "allowed": fail open."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from typing import Any

from ..observe.documents import clean
from .kept import policy_of, with_kept
from .patch import json_patch
from .pod import InjectSettings, inject, refusal

logger = logging.getLogger(__name__)

Object = dict[str, Any]


class ReviewError(ValueError):
    """Not an AdmissionReview: without its uid there is nobody to answer."""


def namespace_of(request: object) -> str:
    """The namespace that an AdmissionReview is about, or nothing."""
    admission = request.get("request") if isinstance(request, dict) else None
    namespace = admission.get("namespace") if isinstance(admission, dict) else None
    return namespace if isinstance(namespace, str) else ""


def review(request: object, settings: InjectSettings, policies: Sequence[Object] = ()) -> Object:
    """The answer to one AdmissionReview; ``policies`` are those of its namespace. Whatever goes
    wrong with the pod, the pod is allowed and the one who creates it is told why it comes without
    its sidecar."""
    admission = request.get("request") if isinstance(request, dict) else None
    if not isinstance(admission, dict) or not isinstance(admission.get("uid"), str):
        raise ReviewError("expected an AdmissionReview of admission.k8s.io/v1 with a request.uid")
    response: Object = {"uid": admission["uid"], "allowed": True}
    try:
        response |= _changes(admission, settings, policies)
    except Exception as error:
        logger.exception("pod %s is admitted without the sidecar", _name(admission))
        response["warnings"] = [_warning(f"{type(error).__name__}: {error}")]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _changes(admission: Object, settings: InjectSettings, policies: Sequence[Object]) -> Object:
    pod = admission["object"]
    reason = refusal(pod)
    if reason is not None:
        logger.info("pod %s is left as it is: %s", _name(admission), reason)
        return {"warnings": [_warning(reason)]}
    injected = inject(pod, settings)
    policy = policy_of(pod, policies)
    if policy is not None:
        injected = with_kept(injected, policy)
    patch = json_patch(pod, injected)
    if not patch:  # called again, and nothing was added meanwhile
        return {}
    kept = f", and what {policy.metadata.name} found" if policy is not None else ""
    logger.info("pod %s gets the sidecar%s", _name(admission), kept)
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    return {"patchType": "JSONPatch", "patch": encoded}


def _warning(reason: str) -> str:
    # The API server cuts long warnings off.
    return f"bottleneck: no sidecar is injected: {reason}"[:256]


def _name(admission: Object) -> str:
    pod = admission.get("object")
    metadata = pod.get("metadata") if isinstance(pod, dict) else None
    names = metadata if isinstance(metadata, dict) else {}
    name = names.get("name") or f"{names.get('generateName', '?')}…"
    return clean(f"{admission.get('namespace', '?')}/{name}")
