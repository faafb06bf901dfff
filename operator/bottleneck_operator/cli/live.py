"""The cluster as the commands meet it: every failure becomes a sentence that says what to do."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from kubernetes.aio.config import ConfigException
from pydantic import ValidationError

from ..api.conditions import GROUP, INJECTED_LABEL, POLICIES, POLICY_LABEL, REPORTS, VERSION
from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport
from ..kube import Kube, KubeError, Object
from ..observe.cluster import Target, TargetError, read_target
from ..observe.pods import Pod, pod_of
from .output import RefusedError

_ROOT = f"/apis/{GROUP}/{VERSION}"


@asynccontextmanager
async def connected() -> AsyncIterator[Kube]:
    """A connection to the cluster of the KUBECONFIG. What goes wrong within comes out as
    ``RefusedError``."""
    try:
        async with await Kube.connect(os.environ.get("KUBECONFIG")) as kube:
            yield kube
    except ConfigException as error:
        raise RefusedError(f"no cluster: {error}; set KUBECONFIG") from None
    except KubeError as error:
        raise RefusedError(in_words(error)) from None
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        message = f"the cluster does not answer ({reason}); check it with kubectl cluster-info"
        raise RefusedError(message) from None


def in_words(error: KubeError) -> str:
    """A refusal of the API server, naming the verb that is missing where one is."""
    found = re.search(
        r'cannot (?P<verb>\w+) resource "(?P<what>[^"]+)" in API group "(?P<group>[^"]*)"'
        r'(?: in the namespace "(?P<where>[^"]+)")?',
        error.message,
    )
    if error.status == 401:
        return "the cluster does not know you; log in again (kubectl auth whoami)"
    if found is None:
        return error.message or f"the API server answered {error.status}"
    group = f"{found['group']}/" if found["group"] else ""
    where = f" in namespace {found['where']}" if found["where"] else " in all namespaces"
    return (
        f"you may not do this: it needs the verb {found['verb']} on {group}{found['what']}{where};"
        " ask whoever looks after the cluster for a role with it"
    )


async def read_policy(kube: Kube, namespace: str, name: str) -> BottleneckPolicy:
    """The policy of that name. Raises ``RefusedError`` for one that is not there, with the nearest
    name, or that another version wrote."""
    found = await _read(kube, namespace, POLICIES, "policy", name)
    try:
        return BottleneckPolicy.model_validate(found)
    except ValidationError as error:
        raise RefusedError(_other_version(f"policy {name}", error)) from None


async def read_report(kube: Kube, namespace: str, name: str) -> BottleneckReport:
    """The report of that name. Raises ``RefusedError`` like ``read_policy``."""
    found = await _read(kube, namespace, REPORTS, "report", name)
    try:
        return BottleneckReport.model_validate(found)
    except ValidationError as error:
        raise RefusedError(_other_version(f"report {name}", error)) from None


async def policies_of(kube: Kube, namespace: str) -> list[BottleneckPolicy]:
    """The policies of a namespace; those that cannot be read are left out."""
    policies = []
    for item in await _items(kube, f"{_ROOT}/namespaces/{namespace}/{POLICIES}"):
        try:
            policies.append(BottleneckPolicy.model_validate(item))
        except ValidationError:
            continue
    return policies


async def reports_of(kube: Kube, namespace: str, policy: str) -> list[BottleneckReport]:
    """Reports of a policy, oldest first; those that cannot be read are left out."""
    path = f"{_ROOT}/namespaces/{namespace}/{REPORTS}"
    reports = []
    for item in await _items(kube, path, labelSelector=f"{POLICY_LABEL}={policy}"):
        try:
            reports.append(BottleneckReport.model_validate(item))
        except ValidationError:
            continue
    return sorted(reports, key=lambda report: (report.spec.decided_at, report.number))


async def read_pod(kube: Kube, namespace: str, name: str) -> Pod:
    """The pod of that name. Raises ``RefusedError`` for one that is not there."""
    try:
        return pod_of(await kube.get(f"/api/v1/namespaces/{namespace}/pods/{name}"))
    except KubeError as error:
        if not error.not_found:
            raise
    names = [pod.name for pod in await pods_of(kube, namespace, "")]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise RefusedError(f"there is no pod {name} in namespace {namespace}{hint}")


async def pods_of(kube: Kube, namespace: str, selector: str) -> list[Pod]:
    """Injected and other pods that a selector matches, by name."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    items = await _items(kube, path, labelSelector=selector)
    return sorted((pod_of(item) for item in items), key=lambda pod: pod.name)


def with_sidecar(pods: Sequence[Pod], what: str) -> list[Pod]:
    """Of these pods the running ones that have a sidecar. Raises ``RefusedError`` if there are
    none, saying which of the two is missing."""
    running = [pod for pod in pods if pod.running]
    if not running:
        raise RefusedError(f"{what} has no running pod; look at it with kubectl get pods")
    injected = [pod for pod in running if INJECTED_LABEL in pod.labels]
    if not injected:
        raise RefusedError(
            f"the pods of {what} have no sidecar; set the label bottleneck.dev/inject: "
            '"true" in the pod template and roll it out, or use kubectl bottleneck inject'
        )
    return injected


async def read_target_of(kube: Kube, policy: BottleneckPolicy) -> Target:
    """The target of a policy; what is wrong with it comes out as ``RefusedError``."""
    try:
        bounds, ref = policy.spec.actions.replicas, policy.spec.target_ref
        group = bounds.group if bounds else ""
        return await read_target(kube, policy.metadata.namespace, ref, group)
    except TargetError as error:
        if error.kind == "forbidden":
            raise KubeError(403, str(error)) from None
        raise RefusedError(str(error)) from None


async def _read(kube: Kube, namespace: str, plural: str, kind: str, name: str) -> Object:
    collection = f"{_ROOT}/namespaces/{namespace}/{plural}"
    try:
        return await kube.get(f"{collection}/{name}")
    except KubeError as error:
        if not error.not_found:
            raise
    try:
        names = [item["metadata"]["name"] for item in await _items(kube, collection)]
    except KubeError as error:
        if error.not_found:
            raise RefusedError(
                "this cluster does not know BottleneckPolicies; install the operator first"
                " (docs/install.md)"
            ) from None
        raise
    message = f"there is no {kind} {name} in namespace {namespace}"
    elsewhere = await _namespaces_with(kube, plural, name)
    if elsewhere:
        raise RefusedError(f"{message}, but in {', '.join(elsewhere)}: add -n {elsewhere[0]}")
    if near := difflib.get_close_matches(name, names, n=1):
        raise RefusedError(f"{message}; did you mean {near[0]}?")
    known = f"; there are {', '.join(sorted(names)[:10])}" if names else "; it has none"
    raise RefusedError(message + known)


async def _namespaces_with(kube: Kube, plural: str, name: str) -> list[str]:
    try:
        items = await _items(kube, f"{_ROOT}/{plural}")
    except KubeError:  # not everybody may look into all namespaces
        return []
    found = [item["metadata"] for item in items]
    return sorted(meta["namespace"] for meta in found if meta["name"] == name)[:3]


async def _items(kube: Kube, path: str, **query: str) -> list[dict[str, Any]]:
    return list((await kube.get(path, **query)).get("items", []))


def _other_version(what: str, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return (
        f"{what} was written by another version ({where}: {first['msg']}); use a kubectl-bottleneck"
        " of the operator's release"
    )
