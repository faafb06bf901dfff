"""The checker: reads the audit log and the API's objects, and nothing of the operator.

It has its own idea of what an action may do, from the documentation: it imports only ``audit`` and
``story`` beside it, which import the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from .audit import Change, Object
from .story import OPEN, PodStory, Policy, Report, Story, Target, flat, story_of

GRACE_SECONDS = 30.0
"""How long after the last word of a workload something may still be decided on it: samples count
for 15 s, and a write may take ten."""

MOST_REPORTS = 40
"""Reports of one policy that may be there at once: 30 closed ones, and those whose effect lasts."""

EVER = float("inf")


@dataclass(frozen=True)
class Violation:
    """What must never be. ``rule`` is one of the rules' names in docs/chaos.md."""

    rule: str
    name: str
    text: str

    def document(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def check(
    changes: Iterable[Change],
    settled: Sequence[Object],
    left: Sequence[Object],
    ended: int,
    factor: float = 1.0,
) -> list[Violation]:
    """All violations of a round. ``settled`` are the reports when the world had had time to settle,
    ``left`` the policies when they had had time to go; ``ended`` is the resource version at which
    the runner began to clear away. ``factor``: how much faster than the audit log's clock the
    operator's ran."""
    story = story_of(changes)
    grace = GRACE_SECONDS / factor
    found = [
        Violation("no-report-before", change.name, f"the operator did this: {what}")
        for change, what in story.strange
    ]
    for report in story.reports.values():
        found += _begun(story, report, grace)
        found += _ended(story, report, ended)
    for target in story.targets.values():
        found += _replicas(story, target, ended)
    for pod in story.pods.values():
        found += _knobs(story, pod)
    for policy in story.policies.values():
        found += _one_at_a_time(story, policy)
    found += _lasting(settled, story, ended)
    found += [
        Violation("finalizer-left", each["metadata"]["name"], "the policy does not go")
        for each in left
    ]
    return found


def _of(story: Story, target: str) -> Iterator[tuple[Report, Policy]]:
    for report in story.reports.values():
        if report.spec["targetRef" if "targetRef" in report.spec else "target"]["name"] == target:
            yield report, story.policies[report.policy]


# -- each effect against the reports ---------------------------------------------------------------


def _replicas(story: Story, target: Target, ended: int) -> Iterator[Violation]:
    applied: dict[str, int] = {}
    for write in target.writes[1:]:
        if not write.operator or write.old == write.new:
            continue
        words = f"replicas {write.old} → {write.new}"
        known = [
            (report, policy, report.action["replicas"], report.phase_at(write.order))
            for report, policy in _of(story, target.name)
            if report.created.order < write.order and report.action.get("replicas")
        ]
        if any(c["replaces"] == write.new and phase == "Reverting" for _, _, c, phase in known):
            continue
        apply = [
            (report, policy)
            for report, policy, change, phase in known
            if change["desired"] == write.new and phase in ("Planned", "Applied", "Verifying")
        ]
        if not apply:
            again = any(c["desired"] == write.old for _, _, c, _ in known)
            rule = "applied-twice" if again else "no-report-before"
            yield Violation(rule, target.name, f"{words}, which no open report says")
            continue
        report, policy = apply[-1]
        applied[report.name] = applied.get(report.name, 0) + 1
        if applied[report.name] > 1:
            yield Violation("applied-twice", report.name, words)
        bounds = policy.spec["actions"].get("replicas") or {}
        if not bounds or not bounds.get("min", 1) <= write.new <= bounds["max"]:
            yield Violation("out-of-bounds", report.name, f"{words}, where {bounds} are allowed")


def _knobs(story: Story, pod: PodStory) -> Iterator[Violation]:
    before = 0
    for write in pod.writes:
        if not write.operator:
            continue
        generation, settings = flat(write.new)
        words = f"{pod.name} got {write.new}"
        if generation <= before:
            yield Violation("applied-twice", pod.name, f"{words} after generation {before}")
        before = max(before, generation)
        fits = False
        for report, policy in _of(story, pod.target):
            change = report.action.get("knobs")
            if not change or report.created.order >= write.order:
                continue
            phase = report.phase_at(write.order)
            undone = phase in ("Reverting", "Reverted")
            if undone and (generation, settings) == (change["generation"] + 1, change["replaces"]):
                fits = True
            elif not undone and (generation, settings) == (change["generation"], change["desired"]):
                fits = True
                bounds = policy.spec["actions"].get("dataLoader") or {}
                most = {
                    "dataLoader.workers": bounds.get("maxWorkers", -1),
                    "dataLoader.prefetch": bounds.get("maxPrefetch", 4),
                }
                for name, value in settings.items():
                    if value > most.get(name, -1):
                        yield Violation("out-of-bounds", report.name, f"{words}: {name}")
        if not fits:
            yield Violation("no-report-before", pod.name, f"{words}, which no report says")


def _one_at_a_time(story: Story, policy: Policy) -> Iterator[Violation]:
    own = [r for r in story.reports.values() if r.policy == policy.name and r.action]
    for report in own:
        for other in own:
            if other.created.order <= report.created.order:
                continue
            until = EVER if report.closed is None else report.closed
            if other.created.order < until and other.spec.get("supersedes") != report.name:
                text = f"begun while {report.name} was open"
                yield Violation("applied-twice", other.name, text)


# -- each report against its effects ---------------------------------------------------------------


def _begun(story: Story, report: Report, grace: float) -> Iterator[Violation]:
    """Whether there was data when it was decided and when it was judged."""
    target = story.targets.get(report.spec["target"]["name"])
    if target is None or not report.action:
        return
    if _silent(target, report.created.at, grace):
        text = f"decided while nothing was heard: {report.action['summary']}"
        yield Violation("missing-data", report.name, text)
    judged = None
    for change, phase in report.phases:
        verdict = (change.result.get("status") or {}).get("verdict") or {}
        new = verdict.get("result") if judged is None else None
        judged = judged or new
        if new in (None, "NoData") or "guardrail" in verdict.get("reason", ""):
            continue
        if _silent(target, change.at, grace):
            text = f"{phase} by the verdict {new} while nothing was heard"
            yield Violation("missing-data", report.name, text)


def _silent(target: Target, at: float, grace: float) -> bool:
    newest = next(((t, s) for t, s in reversed(target.silences) if t <= at), None)
    return newest is not None and newest[1] and at > newest[0] + grace


def _ended(story: Story, report: Report, ended: int) -> Iterator[Violation]:
    """Whether what it says of its end is so."""
    done = [e for e in report.status.get("timeline", []) if e["what"] == "ActionApplied"]
    if len(done) > 1:
        yield Violation("applied-twice", report.name, "ActionApplied is twice in its timeline")
    target = story.targets.get(report.spec["target"]["name"])
    policy = story.policies[report.policy]
    freed = policy.deleted is not None and policy.deleted <= ended
    if target is None or (target.deleted is not None and target.deleted <= ended):
        return
    change = report.action.get("replicas")
    if change:
        yield from _ended_replicas(report, target, freed, ended)
    elif report.action.get("knobs"):
        pods = [p for p in story.pods.values() if p.target == target.name]
        yield from _ended_knobs(report, pods, target, freed, ended)


def _ended_replicas(report: Report, target: Target, freed: bool, ended: int) -> Iterator[Violation]:
    change = report.action["replicas"]
    there = target.replicas_at(report.created.order)
    if change["replaces"] != there:
        text = f"it says that it replaces {change['replaces']}, where {there} were wanted"
        yield Violation("not-restored", report.name, text)
    found = target.replicas_at(ended if report.closed is None else report.closed)
    if report.phase == "Kept" and found != change["desired"] and not _carried(report):
        text = f"Kept with {found} replicas instead of {change['desired']}"
        yield Violation("lost", report.name, text)
    if report.phase == "Reverted" and found != change["replaces"]:
        text = f"Reverted to {found} replicas instead of {change['replaces']}"
        yield Violation("not-restored", report.name, text)
    given_up = report.phase == "Abandoned" or (freed and report.phase in OPEN)
    ours = any(w.operator and w.new == change["desired"] for w in target.writes)
    stays = target.replicas_at(ended) == change["desired"] != change["replaces"]
    if given_up and ours and stays:
        text = f"given up as {report.phase}, and {change['desired']} replicas stay"
        yield Violation("not-restored", report.name, text)


def _carried(report: Report) -> bool:
    return "carried further" in str((report.status.get("timeline") or [{}])[-1].get("message"))


def _ended_knobs(
    report: Report, pods: Sequence[PodStory], target: Target, freed: bool, ended: int
) -> Iterator[Violation]:
    change, begun = report.action["knobs"], report.created.order
    closed = ended if report.closed is None else report.closed
    given_up = report.phase == "Abandoned" or (freed and report.phase in OPEN)
    for pod in pods:
        if (pod.deleted or EVER) <= closed or pod.created > begun:
            continue
        settings = dict(target.settings) | flat(pod.knobs_at(closed))[1]
        before = dict(target.settings) | flat(pod.knobs_at(begun))[1]
        touched = any(begun < w.order <= ended and w.operator for w in pod.writes)
        desired = {**before, **change["desired"]}
        if report.phase == "Kept" and settings != desired:
            yield Violation("lost", report.name, f"Kept, and {pod.name} has {settings}")
        if report.phase == "Reverted" and settings != before:
            text = f"{pod.name} had {before} and has {settings}"
            yield Violation("not-restored", report.name, text)
        settings = dict(target.settings) | flat(pod.knobs_at(ended))[1]
        if given_up and touched and settings == desired != before:
            text = f"given up as {report.phase}, and {pod.name} keeps {settings}"
            yield Violation("not-restored", report.name, text)


def _lasting(settled: Sequence[Object], story: Story, ended: int) -> Iterator[Violation]:
    counts: dict[str, int] = {}
    for report in settled:
        name, policy = report["metadata"]["name"], report["spec"]["policy"]
        counts[policy] = counts.get(policy, 0) + 1
        phase = (report.get("status") or {}).get("phase", "Planned")
        known = story.policies.get(policy)
        freed = known is None or (known.deleted is not None and known.deleted <= ended)
        if phase in OPEN and not freed:
            yield Violation("without-end", name, f"still {phase}")
        if name not in story.reports:
            yield Violation("audit", name, "a report of which the audit log knows nothing")
    for policy, count in counts.items():
        if count > MOST_REPORTS:
            yield Violation("without-end", policy, f"{count} reports")
