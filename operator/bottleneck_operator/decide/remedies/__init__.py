"""One module for each type of action: the change it would make, with its prediction, or why not.

Pure. A remedy knows its bounds and its model; whether anything may be done at all is the planner's
business.
"""

from __future__ import annotations

from ...api.policy import Disruption
from .batch_size import batch_size
from .common import Remedy, Saving
from .data_loader import data_loader
from .precision import precision
from .replicas import replicas, surplus
from .resources import resources

REMEDIES: dict[str, Remedy] = {
    "BatchSize": batch_size,
    "DataLoader": data_loader,
    "Precision": precision,
    "Replicas": replicas,
    "Resources": resources,
}

SAVINGS: tuple[Saving, ...] = (surplus,)
"""What can be taken from a workload that meets its objectives, the dearest first."""

MEANS: dict[str, Disruption] = {
    "BatchSize": Disruption.HOT_ONLY,
    "DataLoader": Disruption.HOT_ONLY,
    "Precision": Disruption.HOT_ONLY,
    "Replicas": Disruption.IN_PLACE,
    "Resources": Disruption.IN_PLACE,
}
"""What an action of each type does to the pods that run."""

DEVICES = frozenset({"Replicas"})
"""Types of action that take more devices, so that all others are cheaper."""
