"""What kopf calls: watches fill the stores, and each policy gets one daemon that runs its loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import defaultdict
from typing import Any

import aiohttp
import kopf
from pydantic import ValidationError

from ..api.conditions import (
    FINALIZER,
    GROUP,
    INJECTED_LABEL,
    POLICIES,
    POLICY_LABEL,
    REPORTS,
    VERSION,
)
from ..api.policy import BottleneckPolicy
from ..kube import Kube, KubeError
from ..observe.cluster import TargetError
from ..report import metrics
from ..report.events import Recorder
from .loop import PolicyLoop
from .services import Services

log = logging.getLogger(__name__)

TURN_SECONDS = 1.0
"""Longest time between two turns; telemetry wakes a loop earlier."""

LEAST_SECONDS = 0.2
"""Least time between two turns, however much the sidecars have to say."""

SERVED_SECONDS = 60
"""Longest that the operator's own kinds are waited for."""

RETRY_SECONDS = 2.0
"""Until a deleted policy's action is taken back again where that failed."""

_services: Services | None = None

_at_work: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
"""For each policy: who works for it now, its loop or its end."""


def services() -> Services:
    """What all loops share. Raises RuntimeError before the operator has started."""
    if _services is None:
        raise RuntimeError("the operator has not started")
    return _services


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    global _services
    settings.posting.enabled = False  # the recorder posts, with less noise
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.watching.label_selectors["", "v1", "pods"] = f"{INJECTED_LABEL}=true"
    settings.watching.label_selectors[GROUP, VERSION, REPORTS] = POLICY_LABEL
    settings.watching.server_timeout = 300
    # kopf's default backs off for up to minutes; an API server that came back is wanted at once.
    settings.networking.error_backoffs = [0.1, 0.5, 1, 1, 2, 2, 5, 5, 5]
    kube = await Kube.connect(os.environ.get("KUBECONFIG"))
    kube.fence = memo.fence
    _services = Services(kube=kube, recorder=Recorder(kube, socket.gethostname()))
    _services.prometheus.allowed = tuple(os.environ.get("BOTTLENECK_PROMETHEUS_URLS", "").split())
    metrics.tell_of(_services.streams)
    await _until_served(kube)
    await _claim_all(_services)


async def _claim_all(shared: Services) -> None:
    """Enters the claims of all policies before any loop begins: of two on one target the older one
    has precedence, whichever is seen first."""
    try:
        listed = (await shared.kube.get(f"/apis/{GROUP}/{VERSION}/{POLICIES}")).get("items", [])
    except (KubeError, aiohttp.ClientError, OSError, TimeoutError) as error:
        # Each loop enters its own claim all the same; without the CRD there is none yet.
        log.info("the policies could not be listed beforehand: %s", error)
        return
    for item in listed:
        with contextlib.suppress(ValidationError):
            policy = BottleneckPolicy.model_validate(item)
            metadata = policy.metadata
            shared.claims.claim(f"{metadata.namespace}/{metadata.name}", policy)


@kopf.on.event(GROUP, VERSION, POLICIES, when=lambda event, **_: event["type"] == "DELETED")
async def policy_gone(name: str, namespace: str | None, **_: Any) -> None:
    services().claims.drop(f"{namespace}/{name}")  # perhaps its loop had not begun


async def _until_served(kube: Kube) -> None:
    """Waits until the API server serves the operator's own kinds. One that was just started does so
    later than anything else, and kopf, which asks once, would look after no policy ever after.
    Where they are still missing in the end, kopf waits for their CRDs."""
    for _ in range(SERVED_SECONDS):
        try:
            served = (await kube.get(f"/apis/{GROUP}/{VERSION}")).get("resources", [])
        except (KubeError, aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("the API server does not serve %s yet: %r", GROUP, error)
        else:
            if {POLICIES, REPORTS} <= {item["name"] for item in served}:
                return
        await asyncio.sleep(1.0)
    log.warning("the CRDs of %s are not there: install them", GROUP)


@kopf.on.cleanup()
async def stop(**_: Any) -> None:
    if _services is not None:
        await _services.streams.close()
        await _services.prometheus.close()
        await _services.kube.__aexit__()


@kopf.on.event("", "v1", "pods")
async def pod_changed(event: Any, **_: Any) -> None:
    services().pods.update(dict(event["object"]), deleted=event["type"] == "DELETED")


@kopf.on.event(GROUP, VERSION, REPORTS)
async def report_changed(event: Any, **_: Any) -> None:
    services().reports.update(dict(event["object"]), deleted=event["type"] == "DELETED")


@kopf.daemon(GROUP, VERSION, POLICIES, cancellation_timeout=15.0, cancellation_backoff=15.0)
async def look_after(
    body: kopf.Body, namespace: str | None, name: str, stopped: kopf.DaemonStopped, **_: Any
) -> None:
    """The loop of one policy, until the policy is deleted or the operator ends."""
    loop = PolicyLoop(services(), key=f"{namespace}/{name}")
    metrics.POLICIES.inc()
    async with _at_work[loop.key]:
        try:
            while not stopped:
                started = time.monotonic()
                with metrics.TURN_SECONDS.time():
                    await _turn(loop, body)
                await _pause(loop, stopped, started)
        finally:
            metrics.POLICIES.dec()
            loop.leave()
            services().claims.drop(loop.key)
            services().pools.drop(loop.key)


@kopf.on.delete(GROUP, VERSION, POLICIES, backoff=RETRY_SECONDS)
async def let_go(body: kopf.Body, namespace: str | None, name: str, **_: Any) -> None:
    """Takes back what is not judged yet, whichever process began it. As long as this fails, kopf
    keeps the finalizer and tries again; a daemon would not be started for a policy that was deleted
    while no operator ran."""
    key = f"{namespace}/{name}"
    async with _at_work[key]:
        try:
            await PolicyLoop(services(), key).release(_policy(body))
        except ValidationError:
            log.error("policy %s cannot be read; it goes as it is", key)
        except KubeError as error:
            if not error.refused:
                raise
            # Asking again would give the same answer, and the policy would never go.
            log.error("policy %s goes, and its last action stays: %s", key, error.message)
    _at_work.pop(key, None)


def _policy(body: kopf.Body) -> BottleneckPolicy:
    return BottleneckPolicy.model_validate(
        {key: dict(body[key]) for key in ("metadata", "spec", "status") if key in body}
    )


async def _turn(loop: PolicyLoop, body: kopf.Body) -> None:
    """One turn. A failure costs this turn and is counted; the loop goes on."""
    try:
        await loop.turn(_policy(body), time.time())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        log.error("policy %s cannot be read: %s: %s", loop.key, where, first["msg"])
        metrics.ERRORS.labels("invalid").inc()
    except TargetError as error:
        log.info("turn of %s: the target went away meanwhile: %s", loop.key, error)
    except KubeError as error:
        log.warning("turn of %s: the API server answered %s", loop.key, error)
        metrics.ERRORS.labels(f"http {error.status}").inc()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        log.warning("turn of %s: the API server did not answer: %r", loop.key, error)
        metrics.ERRORS.labels("no answer").inc()
    except Exception:
        # One policy's surprise must not end the loop of the policy, nor hide.
        log.exception("turn of %s failed", loop.key)
        metrics.ERRORS.labels("bug").inc()


async def _pause(loop: PolicyLoop, stopped: kopf.DaemonStopped, started: float) -> None:
    """Until something was said, a second has passed, or the daemon is to stop."""
    loop.wake.clear()
    await stopped.wait(max(0.0, LEAST_SECONDS - (time.monotonic() - started)))
    waits = [
        asyncio.ensure_future(loop.wake.wait()),
        asyncio.ensure_future(stopped.wait(TURN_SECONDS)),
    ]
    _, pending = await asyncio.wait(
        waits, timeout=TURN_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    for wait in pending:
        wait.cancel()
