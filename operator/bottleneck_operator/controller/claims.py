"""Which policy looks after which target: the older one wins."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..api.policy import BottleneckPolicy


@dataclass(slots=True)
class Claims:
    """Claims on targets of all policies in this process."""

    _claims: dict[tuple[str, ...], dict[str, tuple[datetime, str]]] = field(default_factory=dict)

    def claim(self, key: str, policy: BottleneckPolicy) -> str | None:
        """Enters a policy's claim; gives the name of the policy that has precedence, if any. The
        older policy wins, and of two of the same second the one whose name comes first."""
        ref, metadata = policy.spec.target_ref, policy.metadata
        group = ref.api_version.rpartition("/")[0]
        target = (metadata.namespace, group, ref.kind, ref.name)
        created = metadata.creation_timestamp or datetime.max.replace(tzinfo=UTC)
        claims = self._claims.setdefault(target, {})
        claims[key] = (created, metadata.name)
        first = min(claims, key=lambda k: claims[k])
        return None if first == key else claims[first][1]

    def drop(self, key: str) -> None:
        """Gives up a policy's claim."""
        for target, claims in list(self._claims.items()):
            claims.pop(key, None)
            if not claims:
                del self._claims[target]
