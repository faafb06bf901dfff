"""Whether people have paused a policy: by its spec, or for a while by an annotation, which leaves
the generation as it is: what was tried under it stays known as tried."""

from __future__ import annotations

from datetime import UTC, datetime

from .conditions import PAUSED_ANNOTATION, RESUMED_ANNOTATION
from .policy import BottleneckPolicy

UNTIL_RESUMED = "resumed"
"""Value of the annotation for a pause without an end."""


def moment_of(text: str) -> datetime | None:
    """``"2026-01-31T12:00:00Z"`` as a moment; None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def pause_of(policy: BottleneckPolicy, now: float) -> str:
    """Why a policy is paused and how it goes on, empty where it is not; ``now`` in seconds since
    the Unix epoch. An annotation that is no moment holds, too: people wanted something held."""
    name, namespace = policy.metadata.name, policy.metadata.namespace
    until = policy.metadata.annotations.get(PAUSED_ANNOTATION)
    end = moment_of(until) if until is not None else None
    if until is None or (end is not None and end.timestamp() <= now):
        return "spec.paused is true" if policy.spec.paused else ""
    how = f"kubectl bottleneck resume {name} -n {namespace}"
    if end is None:
        return f"paused until it is resumed: {how}"
    return f"paused until {end.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}; to go on earlier: {how}"


def with_pause(policy: BottleneckPolicy, now: float) -> BottleneckPolicy:
    """The policy with ``spec.paused`` where an annotation pauses it."""
    if policy.spec.paused or not pause_of(policy, now):
        return policy
    spec = policy.spec.model_copy(update={"paused": True})
    return policy.model_copy(update={"spec": spec})


def resumed_at(policy: BottleneckPolicy) -> float | None:
    """When people said that the operator may go on, seconds since the Unix epoch."""
    found = moment_of(policy.metadata.annotations.get(RESUMED_ANNOTATION, ""))
    return found.timestamp() if found is not None else None
