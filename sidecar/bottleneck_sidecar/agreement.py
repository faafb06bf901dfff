"""How the ranks of a job agree on the step at which a wish takes effect, without waiting.

Each rank reads its own knobs file, and sees a wish when it does. Through the store of the process
group (a few keys in the memory of rank 0) every rank says that it has seen the wish and can do it.
When all have, rank 0 proposes a step a little ahead. A rank that reads the proposal before it gets
there promises to look, at that step, for the outcome. The rank that gets there first fixes it for
all, in one atomic operation: the change takes place if every rank has promised, else rank 0
proposes a later step.

So a change takes place on all ranks at the same step or on none, however far they are apart: one
that passed the proposed step unaware has promised nothing. Nobody waits for anybody: a look costs a
question to the store, and only while a wish is on its way. A rank that never sees the wish leaves
it undone everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

ATTEMPTS = 8
"""Proposals for one wish. Each looks twice as far ahead as the one before, the last 256 steps."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a wish: with a ``refusal`` nothing, without one it takes effect now."""

    refusal: str = ""


class Agreement:
    """One rank's part in agreeing on one wish. ``name`` tells the wish from every other one, and is
    the same on all ranks; ``refusal`` says why this rank cannot do it, if so.

    Errors of the store are raised: then the job has lost its rank 0.
    """

    def __init__(self, store: Any, rank: int, world: int, name: str, refusal: str = "") -> None:
        self._store = torch.distributed.PrefixStore(f"bottleneck/knobs/{name}", store)
        self._rank = rank
        self._world = world
        self._attempt = 1
        self._proposed = 0
        self._refusal = refusal
        self._at: int | None = None
        if refusal:
            self._store.set("refused", f"rank {rank}: {refusal}")
        else:
            self._store.add("seen", 1)

    @property
    def promised(self) -> bool:
        """Whether this rank has to go on with this wish, even where there is a newer one."""
        return self._at is not None

    def look(self, step: int) -> Verdict | None:
        """To be called after each ``step`` until there is a verdict."""
        if self._refusal and self._rank != 0:
            return Verdict(self._refusal)
        while self._at is None:
            if self._rank == 0 and self._proposed < self._attempt:
                self._propose(step)
            proposal = self._read(f"proposal/{self._attempt}")
            if proposal is None:
                return None
            if "refusal" in proposal:
                return Verdict(proposal["refusal"])
            if proposal["at"] < step:  # too late to promise anything, so it comes to nothing
                self._attempt += 1
            else:
                self._at = proposal["at"]
                self._store.add(f"promises/{self._attempt}", 1)
        return self._outcome() if step >= self._at else None

    def _propose(self, step: int) -> None:
        """What rank 0 does once it knows enough."""
        proposal: dict[str, Any]
        if self._store.check(["refused"]):
            proposal = {"refusal": self._store.get("refused").decode()}
        elif self._attempt > ATTEMPTS:
            proposal = {"refusal": f"the ranks found no step to change at in {ATTEMPTS} attempts"}
        elif self._store.add("seen", 0) >= self._world:
            proposal = {"at": step + 2**self._attempt}
        else:
            return
        self._store.set(f"proposal/{self._attempt}", json.dumps(proposal))
        self._proposed = self._attempt

    def _read(self, key: str) -> dict[str, Any] | None:
        if not self._store.check([key]):
            return None
        found: dict[str, Any] = json.loads(self._store.get(key))
        return found

    def _outcome(self) -> Verdict | None:
        """At the proposed step: whoever is first decides, and all read the same."""
        everyone = self._store.add(f"promises/{self._attempt}", 0) >= self._world
        key, proposed = f"outcome/{self._attempt}", "change" if everyone else "later"
        if self._store.compare_set(key, "", proposed) == b"change":
            return Verdict()
        self._attempt += 1
        self._at = None
        return None


def group() -> tuple[Any, int, int] | None:
    """Store, rank and size of the process group; None without one, or where it has no store."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    try:
        store = distributed.distributed_c10d._get_default_store()
    except (AttributeError, KeyError, ValueError):
        return None
    if store is None:
        return None
    return store, distributed.get_rank(), distributed.get_world_size()
