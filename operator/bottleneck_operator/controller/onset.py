"""When things went wrong: the moment that changes are held against."""

from __future__ import annotations

from dataclasses import dataclass

from ..api.conditions import Condition
from ..api.policy import BottleneckPolicy
from ..api.policy_status import PolicyStatus
from ..diagnose.diagnosis import Diagnosis
from ..observe.baseline import DEGRADED, TRACKED
from ..observe.observation import Observation


@dataclass(slots=True)
class Onset:
    """Since when an objective is breached (``breached_at``) and since when the workload is worse
    than it was (``degraded_at``): seconds since the Unix epoch, None while it is not."""

    breached_at: float | None = None
    degraded_at: float | None = None

    @property
    def degraded(self) -> bool:
        """Whether it is worse than it was."""
        return self.degraded_at is not None

    @classmethod
    def restored(cls, status: PolicyStatus) -> Onset:
        """As an earlier process has left it."""
        broke, worse = status.breached_since, status.degraded_since
        return cls(
            None if broke is None else broke.timestamp(),
            None if worse is None else worse.timestamp(),
        )

    def note(self, diagnosis: Diagnosis, observation: Observation) -> bool:
        """Takes a turn's diagnosis; whether a degradation has just begun. Without data nothing
        begins and nothing ends."""
        if diagnosis.breached and self.breached_at is None:
            self.breached_at = observation.newest
        elif diagnosis.known and not diagnosis.breached:
            self.breached_at = None
        before = self.degraded_at
        worse = diagnosis.breached or slowed(observation)
        if worse and self.degraded_at is None:
            self.degraded_at = observation.newest or observation.time
        elif diagnosis.known and not worse:
            self.degraded_at = None
        return before is None and self.degraded_at is not None

    def since(self, policy: BottleneckPolicy) -> float | None:
        """The onset. What an earlier process wrote into the policy's conditions is older than what
        this one has seen itself."""
        if self.degraded_at is None:
            return None
        written = [
            condition.last_transition_time.timestamp()
            for condition in policy.status.conditions
            if condition.type == Condition.BOTTLENECKED and condition.status == "True"
        ]
        return min([self.degraded_at, *written])


def slowed(observation: Observation) -> bool:
    """Whether a figure is so much over its learnt baseline that it counts as degraded."""
    return any((observation.value(each.compared) or 0.0) >= DEGRADED for each in TRACKED)
