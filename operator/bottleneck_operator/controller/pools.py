"""Pools of devices: what the loops of their policies know of each other. A pool is of one
namespace, so that nobody takes what belongs to another tenant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..api.policy import BottleneckPolicy
from ..decide.pool import Member, short

Key = tuple[str, str]


@dataclass(slots=True)
class Pools:
    """What each policy of a pool offered last, in this process. All of it can be lost: a trade is
    in the reports of both sides before it has any effect."""

    _members: dict[Key, dict[str, Member]] = field(default_factory=dict)
    _deciding: set[Key] = field(default_factory=set)

    def offer(self, key: str, policy: BottleneckPolicy, member: Member) -> None:
        """Takes what a policy is now."""
        pool = _pool(policy)
        if self._members.get(pool, {}).get(key) is None:
            self.drop(key)  # it was in another pool before
        self._members.setdefault(pool, {})[key] = member

    def drop(self, key: str) -> None:
        """The policy is in no pool any more."""
        for pool, members in list(self._members.items()):
            members.pop(key, None)
            if not members:
                del self._members[pool]

    def members(self, policy: BottleneckPolicy) -> list[Member]:
        """The members of a policy's pool, in a stable order."""
        found = self._members.get(_pool(policy), {})
        return [found[key] for key in sorted(found)]

    def short(self, policy: BottleneckPolicy, now: float) -> bool:
        """Whether anybody of the pool is short of devices."""
        return any(short(member, now) for member in self._members.get(_pool(policy), {}).values())

    @contextmanager
    def deciding(self, policy: BottleneckPolicy) -> Iterator[bool]:
        """Keeps two loops from deciding for one pool at once; gives False to the second."""
        pool = _pool(policy)
        if pool in self._deciding:
            yield False
            return
        self._deciding.add(pool)
        try:
            yield True
        finally:
            self._deciding.discard(pool)


def _pool(policy: BottleneckPolicy) -> Key:
    assert policy.spec.capacity is not None
    return policy.metadata.namespace, policy.spec.capacity.pool
