"""What the commands that write to the API have in common: the door, and the words of a refusal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..api.conditions import GROUP, VERSION
from .output import RefusedError, refuse

if TYPE_CHECKING:
    from ..kube import Kube


def path(plural: str, namespace: str | None, name: str = "") -> str:
    """URL path of objects of this group, in one namespace or (None) in all of them."""
    where = [] if namespace is None else ["namespaces", namespace]
    return "/".join(filter(None, [f"/apis/{GROUP}/{VERSION}", *where, plural, name]))


def talk(command: str, ask: Callable[[Kube], Awaitable[int]]) -> int:
    """The exit code that ``ask`` gives, with a door to the cluster of the kubeconfig; 1 with a
    sentence on standard error where it is refused or there is no cluster."""
    return asyncio.run(_talk(command, ask))


async def _talk(command: str, ask: Callable[[Kube], Awaitable[int]]) -> int:
    # Imported here: the client takes longer to import than the rest of the command line.
    from kubernetes.aio.config import ConfigException

    from ..kube import Kube, KubeError

    try:
        async with await Kube.connect(os.environ.get("KUBECONFIG")) as kube:
            return await ask(kube)
    except ConfigException as error:
        return refuse(command, f"no cluster: {error}; set KUBECONFIG")
    except RefusedError as error:
        return refuse(command, error)
    except KubeError as error:
        return refuse(command, error.message)
    except (OSError, TimeoutError) as error:
        return refuse(command, f"the cluster does not answer: {error}")


async def found(kube: Kube, plural: str, word: str, namespace: str, name: str) -> dict[str, Any]:
    """One object. Raises ``RefusedError`` where there is none, and ``KubeError``."""
    from ..kube import KubeError

    try:
        return await kube.get(path(plural, namespace, name))
    except KubeError as error:
        if not error.not_found:
            raise
        short = {"policy": "bnp", "report": "bnr"}[word]
        raise RefusedError(
            f"there is no {word} {name} in namespace {namespace}; kubectl get {short}"
            f" -n {namespace} shows which there are"
        ) from None


async def who(kube: Kube) -> str:
    """Who asks, as the API server knows them; empty where it does not say. Others can write another
    name, so this is for people to read: the audit log is the proof."""
    from ..kube import KubeError

    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await kube.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    except KubeError:
        return ""
    name = answer.get("status", {}).get("userInfo", {}).get("username", "")
    return name if isinstance(name, str) else ""
