"""Facts of the cluster as signals and texts, from what was read of it. Pure.

A fact has no window: its statistic is "last". What was not asked for is ``NoData``, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .changes import Change, precedes
from .documents import clean, clock
from .observation import NoData, Reading, Signal
from .pods import Pod
from .troubles import End, Trouble
from .workload import Gaps, Workload, listed

SOURCE = "API server"


@dataclass(frozen=True, slots=True)
class Refused:
    """A pod that the API server did not let the target's controller make."""

    message: str

    @property
    def quota(self) -> bool:
        """Whether a ResourceQuota was the reason."""
        return "quota" in self.message


class Topic(StrEnum):
    """What the API server is asked only while something is wrong."""

    CHANGE = "change"
    REFUSAL = "refusal"
    HPA = "HPA"
    PODS = "pods"


NOT_ASKED = "it is asked only while something is wrong"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the API server answered. A topic in ``asked`` was answered, be it with None; one in
    ``failed`` was not, for the reason given; any other was not asked."""

    change: Change | None = None
    refused: Refused | None = None
    hpa: str | None = None
    pods: tuple[Pod, ...] = ()
    asked: frozenset[Topic] = frozenset()
    failed: Mapping[Topic, str] = field(default_factory=dict)

    def with_hpa(self, hpa: str | None) -> Answers:
        """The same, with what is known of the autoscaler already."""
        return replace(self, hpa=hpa, asked=self.asked | {Topic.HPA})

    def unknown(self, topic: Topic) -> NoData:
        """Why there is no answer."""
        return NoData(self.failed.get(topic, NOT_ASKED))


@dataclass(frozen=True, slots=True)
class Moments:
    """When things went wrong, seconds since the Unix epoch. ``learnt_since`` is since when the
    baseline has been learnt; None where there is none."""

    now: float
    onset: float | None = None
    learnt_since: float | None = None


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Facts by signal name; ``texts`` has other people's words under the same names."""

    signals: dict[str, Signal] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: float, unit: str = "", text: str = "") -> None:
        """Enters a fact."""
        self.signals[name] = Reading(value, unit, 0.0, "last", 0.0, SOURCE)
        if text:
            self.texts[name] = clean(text)


def facts_of(
    workload: Workload,
    replicas: int | None,
    pods: Sequence[Pod],
    answers: Answers,
    moments: Moments,
) -> ClusterFacts:
    """All facts about a target. ``pods`` are those that the watch knows; where it knows none, those
    that were asked for are taken. ``replicas`` is None where the target has no scale."""
    facts = ClusterFacts()
    if replicas is not None:
        facts.put("replicas.desired", replicas, "replicas")
        if Topic.HPA not in answers.asked:
            facts.signals["replicas.unowned"] = answers.unknown(Topic.HPA)
        elif answers.hpa is None:
            facts.put("replicas.unowned", 1)
        else:
            owner = NoData(f"HorizontalPodAutoscaler {answers.hpa} scales it")
            facts.signals["replicas.unowned"] = owner
    _of_pods(facts, workload, pods or answers.pods, answers, moments.now)
    _of_refusals(facts, workload, answers)
    _of_change(facts, answers, moments)
    _of_gaps(facts, workload.gaps)
    return facts


def _of_pods(
    facts: ClusterFacts, workload: Workload, pods: Sequence[Pod], answers: Answers, now: float
) -> None:
    if not pods and workload.wanted != 0 and Topic.PODS not in answers.asked:
        names = ("unschedulable", "unschedulableSeconds", "oomKilled", "restarts")
        for name in (*names, "crashLooping", "notReady"):
            facts.signals[f"pods.{name}"] = answers.unknown(Topic.PODS)
        return
    troubled = [(pod, pod.trouble) for pod in pods if pod.trouble is not None]
    alive = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed", "Terminating")]

    waiting = [(pod, t) for pod, t in troubled if t.unschedulable and pod.phase != "Terminating"]
    since = [t.unschedulable_since for _, t in waiting if t.unschedulable_since is not None]
    words = f"{waiting[0][0].name}: {waiting[0][1].unschedulable}" if waiting else ""
    facts.put("pods.unschedulable", len(waiting), "pods", words)
    facts.put("pods.unschedulableSeconds", now - min(since, default=now), "s")

    killed = list(_killed(troubled, now))
    facts.put("pods.oomKilled", len(killed), "containers", _killed_text(killed, workload.gaps))
    restarts = sum(trouble.restarts(now) for _, trouble in troubled)
    last = max((e for _, t in troubled for e in t.ends), key=lambda end: end.at, default=None)
    facts.put("pods.restarts", restarts, "restarts", _end_text(last) if restarts else "")
    looping = [(pod, t) for pod, t in troubled if t.crash_looping and pod in alive]
    words = f"{looping[0][0].name}: {looping[0][1].waiting}" if looping else ""
    facts.put("pods.crashLooping", sum(t.crash_looping for _, t in looping), "containers", words)

    unready = [pod for pod in alive if not pod.ready]
    words = listed(
        f"{pod.name} ({_why_not_ready(pod)})"
        for pod in sorted(unready, key=lambda pod: pod.trouble is None)
    )
    facts.put("pods.notReady", len(unready), "pods", words)


def _killed(troubled: Iterable[tuple[Pod, Trouble]], now: float) -> Iterable[tuple[Pod, list[End]]]:
    """Containers whose last recent end was an out-of-memory kill, with all recent such ends."""
    for pod, trouble in troubled:
        for ends in trouble.recent_ends(now).values():
            if ends[-1].out_of_memory:
                yield pod, [end for end in ends if end.out_of_memory]


def _killed_text(killed: Sequence[tuple[Pod, list[End]]], gaps: Gaps) -> str:
    if not killed:
        return ""
    pod, ends = killed[0]
    last = ends[-1]
    limit = gaps.memory_limits.get(last.container)
    return (
        f"{pod.name}: container {last.container} was ended by the kernel for its memory (OOMKilled)"
        f", end {last.number}, at {clock(last.at)}"
        + (f"; its memory limit is {limit}" if limit else "; it has no memory limit of its own")
    )


def _end_text(end: End | None) -> str:
    if end is None:
        return ""
    return f"container {end.container} ended at {clock(end.at)}: {end.reason}, exit code " + str(
        end.exit_code
    )


def _why_not_ready(pod: Pod) -> str:
    if pod.trouble is not None:
        return pod.trouble.unschedulable or pod.trouble.waiting or "restarted"
    return "its containers are not ready" if pod.phase == "Running" else pod.phase or "no phase"


def _of_refusals(facts: ClusterFacts, workload: Workload, answers: Answers) -> None:
    """A refusal counts as many pods as are missing, at least one: a rollout that may not go below
    its number of replicas lacks none, and is refused all the same."""
    refused = Refused(workload.refused) if workload.refused else answers.refused
    if refused is not None and refused.quota:
        facts.put("pods.quotaRefused", max(1, workload.missing or 0), "pods", refused.message)
    elif refused is not None or workload.missing == 0 or Topic.REFUSAL in answers.asked:
        facts.put("pods.quotaRefused", 0, "pods")
    else:
        facts.signals["pods.quotaRefused"] = answers.unknown(Topic.REFUSAL)


def _of_change(facts: ClusterFacts, answers: Answers, moments: Moments) -> None:
    change = answers.change
    if change is None:
        reason = NoData("the cluster does not tell when the pod template changed")
        missing = reason if Topic.CHANGE in answers.asked else answers.unknown(Topic.CHANGE)
        facts.signals["change.ageSeconds"] = facts.signals["change.precedes"] = missing
        return
    facts.put("change.ageSeconds", max(0.0, moments.now - change.at), "s", change.text)
    if moments.onset is None:
        facts.signals["change.precedes"] = NoData("nothing has become slower since")
    elif moments.learnt_since is None:
        reason = NoData("nothing had been learnt of how fast it usually is")
        facts.signals["change.precedes"] = reason
    else:
        suspected = precedes(change.at, moments.onset, moments.learnt_since)
        facts.put("change.precedes", float(suspected), "", change.text)


def _of_gaps(facts: ClusterFacts, gaps: Gaps) -> None:
    """What people left out of the pod template."""
    if not gaps.containers:
        return
    for name, found in (
        ("withoutRequests", gaps.without_requests),
        ("withoutLimits", gaps.without_limits),
        ("unpinnedImage", gaps.unpinned),
        ("withoutProbe", gaps.without_probe),
    ):
        if found is not None:
            facts.put(f"pods.{name}", len(found), "containers", listed(found))
