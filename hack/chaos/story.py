"""What the audit log tells of one round, object by object. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .audit import Change, Object

KNOBS = "bottleneck.dev/knobs"
SILENT = "chaos.bottleneck.dev/silent"
"""Annotation on a Deployment: whoever runs the round says with it that nothing is heard."""
SETTINGS = "chaos.bottleneck.dev/settings"
"""Annotation on a Deployment: the settings with which its processes began."""

OPEN = ("Planned", "Applied", "Verifying", "Reverting")


@dataclass(frozen=True)
class Write:
    """A value that something got."""

    order: int
    at: float
    operator: bool
    old: Any
    new: Any


@dataclass
class Report:
    """A BottleneckReport. ``phases`` begins with Planned at its creation."""

    name: str
    policy: str
    spec: Object
    created: Change
    phases: list[tuple[Change, str]]
    deleted: int | None = None

    @property
    def action(self) -> Object:
        """What it is to do; empty for a report without an action."""
        return self.spec.get("action") or {}

    @property
    def status(self) -> Object:
        """The newest."""
        return self.phases[-1][0].result.get("status") or {}

    @property
    def phase(self) -> str:
        """The newest."""
        return self.phases[-1][1]

    def phase_at(self, order: int) -> str:
        """The one that was recorded when something was written."""
        return [phase for change, phase in self.phases if change.order <= order][-1]

    @property
    def closed(self) -> int | None:
        """When it was closed, if it was."""
        return next((c.order for c, phase in self.phases if phase not in OPEN), self.deleted)


@dataclass
class Target:
    """A Deployment."""

    name: str
    settings: Object
    writes: list[Write] = field(default_factory=list)
    silences: list[tuple[float, bool]] = field(default_factory=list)
    deleted: int | None = None

    def replicas_at(self, order: float) -> int:
        """How many were wanted."""
        return int([w.new for w in self.writes if w.order <= order][-1])


@dataclass
class PodStory:
    """A pod's knobs annotation."""

    name: str
    target: str
    created: int
    writes: list[Write] = field(default_factory=list)
    deleted: int | None = None

    def knobs_at(self, order: float) -> str:
        """The annotation, or nothing."""
        return next((w.new for w in reversed(self.writes) if w.order <= order), "")


@dataclass
class Policy:
    """A BottleneckPolicy."""

    name: str
    spec: Object
    deleted: int | None = None


@dataclass
class Story:
    """All of them, by name, and what the operator changed that is none of them."""

    policies: dict[str, Policy] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    pods: dict[str, PodStory] = field(default_factory=dict)
    strange: list[tuple[Change, str]] = field(default_factory=list)


def story_of(changes: Iterable[Change]) -> Story:
    """From changes in order."""
    story = Story()
    for change in changes:
        take = _TAKERS.get(change.resource)
        if take is not None:
            take(story, change)
        elif change.operator and change.resource not in ("events", "leases"):
            story.strange.append((change, f"{change.verb} of {change.resource}"))
    return story


def flat(text: str) -> tuple[int, dict[str, Any]]:
    """Generation and settings (dotted names) of a knobs annotation."""
    document = json.loads(text) if text else {}
    settings = {
        f"{group}.{name}": value
        for group, values in document.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }
    return document.get("generation", 0), settings


def _policy(story: Story, change: Change) -> None:
    if change.verb == "create":
        story.policies[change.name] = Policy(change.name, change.result["spec"])
        return
    known = story.policies.get(change.name)
    if known is None:
        return
    if change.verb == "delete":
        known.deleted = known.deleted or change.order
    elif change.operator and change.result.get("spec", known.spec) != known.spec:
        story.strange.append((change, "another spec of a policy"))


def _report(story: Story, change: Change) -> None:
    if change.verb == "create":
        spec = change.result["spec"]
        began = [(change, "Planned")]
        story.reports[change.name] = Report(change.name, spec["policy"], spec, change, began)
    elif (known := story.reports.get(change.name)) is not None:
        if change.verb == "delete":
            known.deleted = change.order
        elif phase := (change.result.get("status") or {}).get("phase"):
            known.phases.append((change, phase))


def _target(story: Story, change: Change) -> None:
    if change.verb == "create":
        marks = change.metadata.get("annotations") or {}
        target = Target(change.name, json.loads(marks.get(SETTINGS, "{}")))
        count = change.result["spec"]["replicas"]
        target.writes.append(Write(change.order, change.at, change.operator, None, count))
        story.targets[change.name] = target
    known = story.targets.get(change.name)
    if known is None or change.subresource == "status":
        return
    if change.verb == "delete":
        known.deleted = change.order
        return
    old, new = known.writes[-1].new, change.result["spec"].get("replicas", 0)
    if change.verb != "create" and (old != new or change.operator):
        known.writes.append(Write(change.order, change.at, change.operator, old, new))
    mark = (change.metadata.get("annotations") or {}).get(SILENT)
    if mark is not None and (mark == "true") != (known.silences[-1:] or [(0, False)])[0][1]:
        known.silences.append((change.at, mark == "true"))


def _pod(story: Story, change: Change) -> None:
    if change.verb == "create":
        app = (change.metadata.get("labels") or {}).get("app", "")
        story.pods[change.name] = PodStory(change.name, app, change.order)
        return
    known = story.pods.get(change.name)
    if known is None:
        return
    if change.verb == "delete":
        known.deleted = change.order
    else:
        text = (change.metadata.get("annotations") or {}).get(KNOBS, "")
        old = known.knobs_at(change.order)
        if text != old:
            known.writes.append(Write(change.order, change.at, change.operator, old, text))
    if change.operator and (change.verb == "delete" or change.subresource):
        story.strange.append((change, f"{change.verb} of a pod {change.subresource}"))


_TAKERS = {
    "bottleneckpolicies": _policy,
    "bottleneckreports": _report,
    "deployments": _target,
    "pods": _pod,
}
