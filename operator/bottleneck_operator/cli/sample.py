"""One look at a workload: a short sample of its telemetry, diagnosed as the operator would."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bottleneck_sidecar.wire import Sample

from ..api.policy import BottleneckPolicy
from ..decide.standstill import judge_workload
from ..diagnose.diagnosis import Diagnosis
from ..kube import Kube
from ..observe.baseline import Baselines
from ..observe.cluster import Target
from ..observe.history import History
from ..observe.pods import Pod
from ..observe.windows import WINDOW_SECONDS, observe
from ..verify.measure import percentile
from .facts import read_facts
from .knowledge import unknown
from .live import with_sidecar
from .output import RefusedError
from .tap import Tap, few

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
    """Listens to the pods for some seconds. A workload that is silent may still be explained: its
    pods find no node, or are killed. Raises ``RefusedError`` where nothing at all can be said."""
    histories = {pod.name: History() for pod in pods}
    took, problem = 0.0, None
    notes: list[str] = []
    running: list[Pod] = []

    def take(received: float, pod: Pod, sample: Sample, line: bytes) -> None:
        histories[pod.name].add(received, sample)

    try:
        running, remark = few(with_sidecar(pods, str(target.ref)))
        tap = Tap(kube, running, take)
        took = await tap.run(seconds)
        if tap.stopped:
            raise KeyboardInterrupt
        notes += [remark] if remark else []
        silent = [pod for pod, lines in tap.lines.items() if not lines]
        notes += [f"nothing came of {pod}: {tap.troubles.get(pod, 'silence')}" for pod in silent]
        basis = f"{took:.0f} s of telemetry of {len(running) - len(silent)} of {len(running)} pods"
    except RefusedError as error:
        problem, basis = error, "no telemetry, only what the API server tells"
        notes.append(str(error))
    facts = await read_facts(kube, policy, target, pods)
    # The first second may have begun in the middle of a step; the window leaves it out.
    window = min(LONGEST_WINDOW, max(WINDOW_SECONDS, took - 2.0))
    names = [pod.name for pod in running]
    observation = observe(histories, names, time.time(), percentile(policy), window)
    usual = Baselines.restored(policy.status.baselines).compare(observation)
    observation = replace(observation, signals={**observation.signals, **usual})
    objectives = policy.spec.objectives
    diagnosis = judge_workload(observation, objectives, facts.signals, facts.texts)
    telemetry = policy.spec.telemetry
    if telemetry is not None and telemetry.prometheus is not None:
        # Its address is one inside the cluster, which only the operator can be sure to reach.
        notes.append(f"What Prometheus at {telemetry.prometheus.url} has is not in this look.")
    elif problem is not None and not diagnosis.causes:
        raise problem
    missing = unknown(diagnosis, observation)
    if missing and problem is not None:
        missing = str(problem)
    return Seen(diagnosis, basis, missing, tuple(notes))
