"""What the API server tells of a workload, for the commands that look once."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..api.policy import BottleneckPolicy
from ..kube import Kube
from ..observe.cluster import Target, owner_of_replicas
from ..observe.observation import Reading, Signal


@dataclass(frozen=True, slots=True)
class FactsRead:
    """Facts by signal name, and other people's words under the same names."""

    signals: dict[str, Signal] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """Those that are known, as a recording holds them."""
        return {n: s.value for n, s in self.signals.items() if isinstance(s, Reading)}


async def read_facts(kube: Kube, policy: BottleneckPolicy, target: Target) -> FactsRead:
    """The facts of a policy's target now. Raises ``KubeError``."""
    facts = FactsRead()
    if target.replicas is not None:
        facts.signals["replicas.desired"] = _reading(float(target.replicas), "replicas")
        namespace = policy.metadata.namespace
        if await owner_of_replicas(kube, namespace, policy.spec.target_ref) is None:
            facts.signals["replicas.unowned"] = _reading(1.0, "")
    return facts


def _reading(value: float, unit: str) -> Reading:
    return Reading(value, unit, 0.0, "last", 0.0, "API server")
