"""One look at a running workload: a short sample, diagnosed as the operator would."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck_sidecar.wire import Sample

from ..api.policy import BottleneckPolicy
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.engine import diagnose
from ..kube import Kube
from ..observe.cluster import Pod, Target
from ..observe.history import History
from ..observe.observation import NoData, Observation
from ..observe.windows import WINDOW_SECONDS, observe
from ..verify.measure import percentile
from .facts import read_facts
from .tap import Tap

LONGEST_WINDOW = 60.0
"""Widest window, in seconds, however long was listened: what is wrong now is what counts."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look showed. ``unknown`` tells why nothing can be said, empty where it can."""

    diagnosis: Diagnosis
    basis: str
    unknown: str
    notes: tuple[str, ...]


async def look(
    kube: Kube, policy: BottleneckPolicy, target: Target, pods: Sequence[Pod], seconds: float
) -> Seen:
    """Listens to the pods for some seconds. Raises ``RefusedError`` where nothing came."""
    histories = {pod.name: History() for pod in pods}

    def take(received: float, pod: Pod, sample: Sample, line: bytes) -> None:
        histories[pod.name].add(received, sample)

    tap = Tap(kube, pods, take)
    took = await tap.run(seconds)
    if tap.stopped:
        raise KeyboardInterrupt
    facts = await read_facts(kube, policy, target)
    # The first second may have begun in the middle of a step; the window leaves it out.
    window = min(LONGEST_WINDOW, max(WINDOW_SECONDS, took - 2.0))
    names = [pod.name for pod in pods]
    now = time.time()
    observation = observe(histories, names, now, percentile(policy), window)
    diagnosis = diagnose(observation, policy.spec.objectives, facts.signals, facts.texts)
    silent = [name for name in names if not tap.lines[name]]
    return Seen(
        diagnosis=diagnosis,
        basis=f"{took:.0f} s of telemetry of {len(pods) - len(silent)} of {len(pods)} pods",
        unknown=unknown(diagnosis, observation),
        notes=tuple(f"nothing came of {n}: {tap.troubles.get(n, 'silence')}" for n in silent),
    )


def unknown(diagnosis: Diagnosis, observation: Observation) -> str:
    """Why a diagnosis can say nothing, empty where it can."""
    if diagnosis.known:
        return ""
    missing = [f"{s.name}: {s.reason}" for s in diagnosis.objectives if s.met is None and s.reason]
    if missing:
        return "; ".join(missing)
    reasons = (s.reason for s in observation.signals.values() if isinstance(s, NoData))
    return next(reasons, "there is no telemetry to judge by")
