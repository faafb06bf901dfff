"""An AdmissionReview request → its response. Pure, and always "allowed": fail open."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

from .patch import json_patch
from .pod import InjectSettings, inject, refusal

logger = logging.getLogger(__name__)

Object = dict[str, Any]


class ReviewError(ValueError):
    """Not an AdmissionReview: without its uid there is nobody to answer."""


def review(request: object, settings: InjectSettings) -> Object:
    """The answer to one AdmissionReview. Whatever goes wrong with the pod, the pod is allowed and
    the one who creates it is told why it comes without its sidecar."""
    admission = request.get("request") if isinstance(request, dict) else None
    if not isinstance(admission, dict) or not isinstance(admission.get("uid"), str):
        raise ReviewError("expected an AdmissionReview of admission.k8s.io/v1 with a request.uid")
    response: Object = {"uid": admission["uid"], "allowed": True}
    try:
        response |= _changes(admission, settings)
    except Exception as error:
        logger.exception("pod %s is admitted without the sidecar", _name(admission))
        response["warnings"] = [_warning(f"{type(error).__name__}: {error}")]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _changes(admission: Object, settings: InjectSettings) -> Object:
    pod = admission["object"]
    reason = refusal(pod)
    if reason is not None:
        logger.info("pod %s is left as it is: %s", _name(admission), reason)
        return {"warnings": [_warning(reason)]}
    patch = json_patch(pod, inject(pod, settings))
    if not patch:  # called again, and nothing was added meanwhile
        return {}
    logger.info("pod %s gets the sidecar", _name(admission))
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
    return f"{admission.get('namespace', '?')}/{name}"
