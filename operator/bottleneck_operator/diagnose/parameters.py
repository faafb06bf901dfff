"""The numbers of the component ranking that could be fitted, so that a benchmark can vary them.

None was searched for, but variants were compared on PetShop (docs/components.md). Conventions, and
what only keeps a figure in bounds, stand where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameters:
    """The defaults are what is in use; only a benchmark gives others."""

    certain: float = 0.99
    """Beyond this quantile of the healthy windows a metric alone is an alarm."""
    relative_floor: float = 0.05
    """Changes below 5% of the usual value are no news however rare they are: a metric that hardly
    ever moves would otherwise outrank one that doubled."""
    share_floor: float = 0.005
    """The same for shares (availability, error rates), of the whole: half a percent of requests."""
    onset_share: float = 0.5
    """If at least half of the deviation began inside the window, the window itself is the
    reference."""
    corroboration: float = 1.5
    """How many times its limit a component must be out of its baseline to confirm a symptom."""
    confirmed: float = 0.95
    """... and the quantile of healthy windows that the symptom must exceed in the same steps. These
    are given, not searched for, so the usual 5% applies."""
    calls_slack: float = 2.0
    """A callee may explain this much more than its average calls: one caller may call it more
    often, or send it the slower calls, than the others."""
    unknown_calls: float = 5.0
    """The same where no metric counts the calls: several calls for one of the caller are common."""
    kept: float = 0.7
    """What a score is made of: the share of the symptom that a component keeps, ..."""
    handed: float = 0.2
    """... what came to it (behind the root cause, the way to it is the best guess), ..."""
    rarity: float = 0.1
    """... and that it is out of its baseline at all."""
    elsewhere: float = 0.25
    """Weight of components that the symptom does not call: the graph shows no way to it."""


DEFAULT = Parameters()
