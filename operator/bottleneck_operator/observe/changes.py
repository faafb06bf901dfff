"""The newest change of a workload's pod template: when, what, and by which manager. Pure.

Only templates are looked at. A new number of replicas changes no template, so neither this
operator's own scaling nor an autoscaler's is ever taken for somebody's change; knobs are
annotations of pods. What a ConfigMap or a Secret holds is not looked at: the operator may not read
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..api.conditions import AGENT_CONTAINER
from .documents import TEXT_LENGTH, Document, clean, clock, items, part, seconds_of
from .workload import REVISION, Touch, Workload, listed

BEFORE_ONSET_SECONDS = 600.0
"""How long before the onset of a degradation a change may lie to be suspected: a rollout of large
images with a warm-up takes minutes; what ran well for longer than that was not broken by it."""

CLOCKS_SECONDS = 5.0
"""How far the API server's clock and this one may differ."""

LEARNT_SECONDS = 60.0
"""How long the baseline must have been learnt before a change to tell what was usual until then."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One ReplicaSet or ControllerRevision of the target. ``id`` is what the target's status or
    annotation calls it, ``number`` orders them."""

    id: str
    number: int
    created: float
    template: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the pod template. ``at`` in seconds since the Unix epoch."""

    at: float
    text: str


def revisions_of(listed: Iterable[Document], owner: str) -> tuple[Revision, ...]:
    """The revisions that belong to the target with uid ``owner``, in no particular order."""
    found = []
    for document in listed:
        metadata = part(document, "metadata")
        created = seconds_of(metadata.get("creationTimestamp"))
        owners = {each.get("uid") for each in items(metadata.get("ownerReferences"))}
        if created is None or owner not in owners:
            continue
        number = document.get("revision")
        if isinstance(number, int):  # a ControllerRevision
            name = clean(metadata.get("name"), 253)
            template = part(document, "data", "spec", "template")
            found.append(Revision(name, number, created, template))
        else:
            number = _revision(part(metadata, "annotations").get(REVISION))
            template = part(document, "spec", "template")
            found.append(Revision(str(number), number, created, template))
    return tuple(found)


def _revision(text: object) -> int:
    """The number in the annotation; people can write anything there, even what no integer holds."""
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 19 else 0


def newest_change(
    name: str, workload: Workload, revisions: Sequence[Revision] | None
) -> Change | None:
    """The newest change of the workload called ``name``; None where it is not known.

    With revisions it is when the current one was made; where that is an older one taken up again (a
    rollback), when the template was written. Without any (a Job) it is when the template was
    written, at the latest when the object was made.
    """
    touch = workload.touch
    if revisions:
        ordered = sorted(revisions, key=lambda each: each.number)
        current = next((r for r in ordered if r.id == workload.revision), ordered[-1])
        newest_made = max(each.created for each in ordered)
        earlier = [each for each in ordered if each.number < current.number]
        if current.created < newest_made:
            if touch is None or touch.at < newest_made:
                return None
            at, what = touch.at, f"{name} went back to revision {current.number}"
        elif earlier:
            at, what = current.created, f"revision {current.number} of {name} was rolled out"
        else:
            at, what = current.created, f"{name} was created"
        parts = [f"{what} at {clock(at)}", *_by(touch, at)]
        changed = difference(earlier[-1].template, current.template) if earlier else []
        if changed:
            parts.append("it changed " + listed(changed, 4))
    else:
        at = max(touch.at if touch else 0.0, workload.created or 0.0)
        if not at:
            return None
        parts = [f"the pod template of {name} was written at {clock(at)}", *_by(touch, at)]
    if workload.change_cause:
        parts.append(f'its change-cause is "{workload.change_cause}"')
    return Change(at, clean("; ".join(parts), TEXT_LENGTH))


def _by(touch: Touch | None, at: float) -> list[str]:
    """Who wrote it, as the cluster has it. A manager that wrote only before cannot have been it."""
    if touch is None or not touch.manager or touch.at < at - CLOCKS_SECONDS:
        return []
    return [f"the template was last written by {touch.manager}"]


def difference(old: Document, new: Document) -> list[str]:
    """What differs between two pod templates. Images are shown; of all else only the name, since
    a value may be a secret."""
    found: list[str] = []
    before, after = (_containers(part(each, "spec")) for each in (old, new))
    for name, container in after.items():
        was = before.get(name)
        if was is None:
            found.append(f"container {name} (new)")
            continue
        for key in sorted({*was, *container}):
            if was.get(key) == container.get(key):
                continue
            if key == "image":
                images = (clean(each.get("image"), 80) for each in (was, container))
                found.append(f"the image of {name} ({' → '.join(images)})")
            else:
                found.append(f"{clean(key, 32)} of {name}")
    found += [f"container {name} (removed)" for name in before if name not in after]
    for place, keys in (("spec", ()), ("metadata", ("annotations", "labels"))):
        ours, theirs = part(old, place), part(new, place)
        wanted = keys or sorted({*ours, *theirs} - {"containers", "initContainers"})
        found += [f"{clean(key, 32)} of the pod" for key in wanted if _differs(ours, theirs, key)]
    return found


def _differs(old: Document, new: Document, key: str) -> bool:
    def plain(value: object) -> object:
        # Each ReplicaSet gives its pods a label of its own.
        if isinstance(value, Mapping):
            return {k: v for k, v in value.items() if k != "pod-template-hash"}
        return value

    return plain(old.get(key)) != plain(new.get(key))


def _containers(pod: Document) -> dict[str, Document]:
    every = [*items(pod.get("initContainers")), *items(pod.get("containers"))]
    return {
        name: container
        for container in every
        if (name := clean(container.get("name"), 63)) != AGENT_CONTAINER
    }


def precedes(change: float, onset: float, learnt_since: float) -> bool:
    """Whether a change is to be suspected: it lies at most ``BEFORE_ONSET_SECONDS`` before the
    onset of the degradation, and after the baseline was learnt. All in seconds since the epoch."""
    before = -CLOCKS_SECONDS <= onset - change <= BEFORE_ONSET_SECONDS
    return before and change - learnt_since >= LEARNT_SECONDS
