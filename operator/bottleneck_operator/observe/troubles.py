"""What keeps a pod from doing its work, from the Pod object. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..api.conditions import AGENT_CONTAINER
from .documents import Document, clean, items, part, seconds_of

RECENT_SECONDS = 600.0
"""How long an end of a container counts: the kubelet waits at most 5 minutes between restarts, so
a loop shows at least one in it."""

ENDS = 12
"""Most ends kept of one pod; the kubelet's growing wait leaves room for about 8 in 10 minutes."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a container's process. ``at`` in seconds since the Unix epoch; ``number`` counts
    the ends of that container in this pod, this one included."""

    container: str
    at: float
    reason: str
    exit_code: int
    number: int

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed it for its memory limit."""
        return self.reason == "OOMKilled"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Everything about a pod that is not as it should be. Texts are clean (``documents.clean``)."""

    unschedulable: str = ""
    """The scheduler's words."""
    unschedulable_since: float | None = None
    waiting: str = ""
    """Why a container waits: ``ImagePullBackOff: …``."""
    crash_looping: int = 0
    """Containers that the kubelet lets wait before it starts them again."""
    ends: tuple[End, ...] = ()
    """Ends of its containers, oldest first, at most ``ENDS``."""
    created: float | None = None

    def recent_ends(self, now: float) -> dict[str, list[End]]:
        """By container, its ends within ``RECENT_SECONDS``, oldest first."""
        found: dict[str, list[End]] = {}
        for end in self.ends:
            if now - end.at <= RECENT_SECONDS:
                found.setdefault(end.container, []).append(end)
        return found

    def restarts(self, now: float) -> int:
        """Ends of its containers within ``RECENT_SECONDS``. Their numbers also count those that no
        watch has shown, as far as they are known to be recent."""
        count = 0
        for container, recent in self.recent_ends(now).items():
            earlier = [e for e in self.ends if e.container == container and e.at < recent[0].at]
            if earlier:
                before = earlier[-1].number
            elif self.created is not None and now - self.created <= RECENT_SECONDS:
                before = 0
            else:
                before = recent[0].number - 1
            count += max(len(recent), recent[-1].number - before)
        return count


def trouble_of(pod: Document) -> Trouble | None:
    """What is wrong with a pod, or None: of most pods of a fleet there is nothing to keep. The
    sidecar's own container is left out: it is not the workload."""
    status = part(pod, "status")
    unschedulable, since = _unschedulable(status)
    waiting, looping = "", 0
    ends: list[End] = []
    containers = [
        *items(status.get("containerStatuses")),
        *items(status.get("initContainerStatuses")),
    ]
    for container in containers:
        if container.get("name") == AGENT_CONTAINER:
            continue
        reason = part(container, "state", "waiting").get("reason")
        if reason == "CrashLoopBackOff":
            looping += 1
        # A container that has not been started yet is what every young pod has.
        if reason and reason not in ("ContainerCreating", "PodInitializing") and not waiting:
            message = part(container, "state", "waiting").get("message")
            waiting = clean(f"{reason}: {message}" if message else reason)
        ends += _ends(container)
    if not (unschedulable or waiting or ends):
        return None
    return Trouble(
        unschedulable=unschedulable,
        unschedulable_since=since,
        waiting=waiting,
        crash_looping=looping,
        ends=tuple(sorted(ends, key=lambda end: end.at)),
        created=seconds_of(part(pod, "metadata").get("creationTimestamp")),
    )


def _unschedulable(status: Document) -> tuple[str, float | None]:
    for condition in items(status.get("conditions")):
        if (
            condition.get("type") == "PodScheduled"
            and condition.get("status") == "False"
            and condition.get("reason") == "Unschedulable"
        ):
            words = clean(condition.get("message")) or "the scheduler gives no reason"
            return words, seconds_of(condition.get("lastTransitionTime"))
    return "", None


def _ends(container: Document) -> list[End]:
    restarts = container.get("restartCount")
    number = restarts if isinstance(restarts, int) else 0
    running = bool(part(container, "state", "running"))
    found = []
    # restartCount grows with the next start: until then the newest end is not in it.
    for state, count in (("lastState", number if running else number + 1), ("state", number + 1)):
        ended = part(container, state, "terminated")
        at = seconds_of(ended.get("finishedAt"))
        # One that has done its work and is not started again is no trouble.
        if at is not None and (state == "lastState" or ended.get("exitCode")):
            code = ended.get("exitCode")
            found.append(
                End(
                    container=clean(container.get("name"), 63),
                    at=at,
                    reason=clean(ended.get("reason"), 63),
                    exit_code=code if isinstance(code, int) else 0,
                    number=count,
                )
            )
    if len(found) == 2:
        found[0] = replace(found[0], number=number)
    return found


def remembered(new: Trouble | None, old: Trouble | None) -> Trouble | None:
    """``new`` with the ends that only ``old`` still knows: a Pod object tells of the last only."""
    if old is None or not old.ends:
        return new
    base = new or Trouble(created=old.created)
    known = {(end.container, end.at): end for end in (*old.ends, *base.ends)}
    ends: Sequence[End] = sorted(known.values(), key=lambda end: end.at)
    return replace(base, ends=tuple(ends[-ENDS:]))
