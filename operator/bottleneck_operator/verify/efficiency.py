"""What a sample is worth in a larger global batch. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..api.report import Action
from ..observe.history import History
from ..observe.training_signals import noise_scale

MICRO = "batch.micro"
ACCUMULATION = "batch.accumulation"


def efficiency(noise: float, batch: float) -> float:
    """Progress for each sample in an optimizer step of ``batch`` samples, over that for each in one
    of very few: noise / (noise + batch), with the gradient noise scale in samples. Of two batches
    the quotient is Pollux's (noise + B0) / (noise + B): Qiao et al., OSDI 2021, after McCandlish et
    al. 2018. Raises ZeroDivisionError where both are zero."""
    return noise / (noise + batch)


def discount(action: Action, histories: Iterable[History]) -> float | None:
    """What the throughput after an action is to be multiplied with, to be compared with that from
    before: 1 unless the global batch has become another one, and None where the noise scale is not
    known, so that nothing can be said."""
    if action.knobs is None:
        return 1.0
    old, new = (_samples(each) for each in (action.knobs.replaces, action.knobs.desired))
    if old is None or new is None or old == new:
        return 1.0
    ranks = [rank for history in histories if history.last for rank in history.last[1].training]
    noise = noise_scale(ranks)
    if not noise:
        return None
    return efficiency(noise, new * len(ranks)) / efficiency(noise, old * len(ranks))


def _samples(knobs: object) -> int | None:
    """Samples of a rank's optimizer step."""
    assert isinstance(knobs, dict)
    micro, accumulation = knobs.get(MICRO), knobs.get(ACCUMULATION)
    if isinstance(micro, int) and isinstance(accumulation, int):
        return micro * accumulation
    return None
