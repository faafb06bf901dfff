"""One module for each type of action: the change it would make, with its prediction, or why not.

Pure. A remedy knows its bounds and its model; whether anything may be done at all is the planner's
business.
"""

from __future__ import annotations

from ...api.policy import Disruption
from .batch_size import batch_size
from .common import Remedy, Saving
from .data_loader import data_loader
from .gift import give
from .owners import replicas_with, saving_of_replicas
from .precision import precision
from .ranks import ranks
from .replicas import replicas, surplus
from .requests import spare
from .resources import resources
from .variants import back, variants

REMEDIES: dict[str, Remedy] = {
    "BatchSize": batch_size,
    "DataLoader": data_loader,
    "Precision": precision,
    "Replicas": replicas_with(replicas, ranks),
    "Resources": resources,
    "Variant": variants,
}

SAVINGS: tuple[Saving, ...] = (give, saving_of_replicas(surplus), spare, back)
"""What can be taken from a workload that meets its objectives, the dearest first."""

MEANS: dict[str, Disruption] = {
    "BatchSize": Disruption.HOT_ONLY,
    "DataLoader": Disruption.HOT_ONLY,
    "Precision": Disruption.HOT_ONLY,
    "Replicas": Disruption.IN_PLACE,
    "Resources": Disruption.IN_PLACE,
    "Variant": Disruption.ROLLING_RESTART,
}
"""What an action of each type does to the pods that run."""
