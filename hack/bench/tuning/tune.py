"""The operator's own loop on a running workload. Every decision in here is the operator's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from bottleneck_operator.api.conditions import Condition, Reason
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.api.report import BottleneckReport
from bottleneck_operator.controller.loop import PolicyLoop
from bottleneck_operator.controller.services import Services
from bottleneck_operator.decide.lifecycle import desired_knobs, evidence_window, issued_generation
from bottleneck_operator.decide.standstill import judge_workload
from bottleneck_operator.diagnose.catalogue import CATALOGUE
from bottleneck_operator.kube import Kube
from bottleneck_operator.observe.series import in_force_at
from bottleneck_operator.observe.streams import Streams
from bottleneck_operator.observe.windows import WINDOW_SECONDS, observe
from bottleneck_operator.report.events import Recorder

from .cluster import Cluster, Lines
from .session import Session
from .workloads import Knobs, policy_of

TURN_SECONDS = 1.0
QUIET_SECONDS = WINDOW_SECONDS + 2.0
"""So long the operator must want nothing any more: more than a window of evidence."""

_PASSING = frozenset({Reason.COOLDOWN, Reason.NO_DATA, Reason.REPLICAS_PENDING})
"""Refusals that only say to wait."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What became of it. ``seconds`` from ``begun`` (since the Unix epoch) to the end of the last
    action; ``knobs`` is None where nothing was kept; ``acknowledged`` are the seconds from each
    write of the knobs to the agent's line that says that all ranks have them; ``diagnosis`` is the
    last one, by cause: its share, or why it is ruled out."""

    begun: float
    seconds: float
    actions: int
    knobs: Knobs | None
    steps: list[str]
    stopped: str
    acknowledged: list[float]
    diagnosis: dict[str, str]


def tune(session: Session, seconds: float, say: Callable[[str], None]) -> Tuned:
    """Turns the loop until it wants nothing more, or for so many seconds."""
    return asyncio.run(_tune(session, seconds, say))


async def _tune(session: Session, seconds: float, say: Callable[[str], None]) -> Tuned:
    document = policy_of(session.work)
    policy = BottleneckPolicy.model_validate(document)

    def told(reason: str, message: str) -> None:
        say(f"    {time.time() - begun:4.0f} s {reason}: {message[:200]}")

    begun = time.time()
    cluster = Cluster(document, "pod-0", session.knobs, told)
    kube = cast(Kube, cluster)
    streams = cast(Streams, Lines(session.history))
    services = Services(kube, Recorder(kube, "bench-tuning"), streams=streams)
    cluster.watch = services.pods.update
    services.pods.update(cluster.pod)
    loop = PolicyLoop(services, f"tuning/{session.work.name}")
    quiet, stopped = begun, f"the time was up after {seconds:g} s"
    turned = 0.0
    force: dict[int, float] = {}
    while (now := time.time()) - begun < seconds:
        if session.pump() or now - turned >= TURN_SECONDS:
            turned = now
            await loop.turn(policy, now)
            _note(cluster, session, force)
        known = services.reports.of(policy)
        ended = _ended(cluster.status)
        if ended is None or any(report.status.phase.open for report in known):
            quiet = now
        elif now - quiet >= QUIET_SECONDS:
            stopped = ended
            break
        await asyncio.sleep(0.05)
    known = services.reports.of(policy)
    diagnosis = _diagnosis(session, policy, known)
    return _tuned(session, begun, known, stopped, cluster, force, diagnosis)


def _diagnosis(
    session: Session, policy: BottleneckPolicy, known: tuple[BottleneckReport, ...]
) -> dict[str, str]:
    """What the engine says now of every cause that an action could remove, for whoever wants to
    know why nothing more was done."""
    now, histories = time.time(), {"pod-0": session.history}
    observation = observe(histories, list(histories), now, window=evidence_window(known, now))
    found = judge_workload(observation, policy.spec.objectives, {}, {})
    told = {cause.id: f"{cause.share:.0%}" for cause in found.causes}
    actionable = {entry.id for entry in CATALOGUE if entry.remedies}
    return told | {each.id: each.reason for each in found.ruled_out if each.id in actionable}


def _note(cluster: Cluster, session: Session, force: dict[int, float]) -> None:
    for generation in cluster.written.keys() - force.keys():
        if (at := in_force_at([session.history], generation)) is not None:
            force[generation] = at


def _ended(status: dict[str, Any]) -> str | None:
    """Why the operator does nothing more, in its own words; None while it may yet."""
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    limited = conditions.get(Condition.LIMITED)
    if limited and limited["status"] == "True" and limited["reason"] not in _PASSING:
        cause = (status.get("bottleneck") or {}).get("id", "no cause")
        return f"{cause}; {limited['reason']}: {limited.get('message', '')}"
    bottlenecked = conditions.get(Condition.BOTTLENECKED)
    if bottlenecked and bottlenecked["reason"] == Reason.OBJECTIVES_MET:
        return "every objective is met"
    return None


def _tuned(
    session: Session,
    begun: float,
    known: tuple[BottleneckReport, ...],
    stopped: str,
    cluster: Cluster,
    force: dict[int, float],
    diagnosis: dict[str, str],
) -> Tuned:
    wanted = desired_knobs(known)
    session.generation = max(session.generation, issued_generation(known))
    closed = [each.status.closed_at.timestamp() for each in known if each.status.closed_at]
    return Tuned(
        begun=begun,
        seconds=max(closed, default=begun) - begun,
        actions=sum(report.status.applied_at is not None for report in known),
        knobs=dict(wanted.values) if wanted else None,
        steps=[_step(report) for report in known],
        stopped=stopped,
        acknowledged=[force[each] - cluster.written[each] for each in sorted(force)],
        diagnosis=diagnosis,
    )


def _step(report: BottleneckReport) -> str:
    """An action in one line: what for, what, what was expected and what came of it."""
    action, verdict = report.spec.action, report.status.verdict
    assert action is not None
    text = f"{action.cause}: {action.summary}: {report.status.phase}"
    if action.prediction:
        before, after = action.prediction.before, action.prediction.after
        text += f", predicted {before:.4g} to {after:.4g}"
    if verdict:
        text += f", {verdict.result} ({verdict.reason})"
    elif report.status.timeline:
        text += f", {report.status.timeline[-1].message}"
    return text
