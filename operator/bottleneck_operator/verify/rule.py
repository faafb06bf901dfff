"""The verdict on replicas over the bins before and after an action. Pure.

What it takes for Improved and Worse, all of it (docs/verification.md has the figures measured):
more than chance explains at this look; at least a tenth; both halves of the time after it; more
than a third of Cliff's delta; and better or worse than just before the action too, by more than
the series had moved towards there by itself. Worse, and all without untouched replicas, has to
begin at the action: what comes gradually came from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..api.report import Verdict, VerdictResult
from .compare import Compared, compare

MATTERS = 0.10
"""Least relative change that counts: smaller ones are within what idle systems show by themselves
(docs/verification.md)."""

LOOKS = (8, 15, 30, 60)
"""Numbers of bins after the action at which a verdict is sought. The last is the extension that an
unclear case gets once."""

IMPROVED_BY_CHANCE = dict(zip(LOOKS, (0.002, 0.016, 0.004, 0.003), strict=True))
WORSE_BY_CHANCE = dict(zip(LOOKS, (0.0005, 0.0025, 0.001, 0.001), strict=True))
"""One-sided error rate of each look: 2.5% and 0.5% together, so stopping early stays honest."""

ALONE = 0.1
"""Without untouched replicas an error rate is this share of what it is with them."""

LEAST_DELTA = 0.33
"""Cliff's delta: below it, an effect is called small (Romano et al. 2006)."""

HISTORY = 500
"""Most bins before the action that are looked at."""

LEVEL = float(np.log1p(MATTERS))
AT_THE_ACTION = 0.65
"""Share of a change that has to show between the bins on both sides of the action."""


def judge_panel(
    values: np.ndarray,
    treated: np.ndarray,
    split: int,
    lower_is_better: bool,
    guardrail: str = "",
    final: bool = False,
) -> Verdict | None:
    """The verdict, or None while it is worth waiting for more bins (never where it is ``final``).

    ``values`` has a row for each bin, oldest first, and a column for each replica, NaN where a
    figure is missing; ``treated`` tells which columns were changed, and the row ``split`` is the
    first after the action and its warm-up.
    """
    bins = [split, len(values) - split]
    if guardrail:
        reason = f"guardrail broken: {guardrail}"
        return Verdict(result=VerdictResult.WORSE, bins=bins, reason=reason)
    look = max((size for size in LOOKS if size <= bins[1]), default=0)
    if not look and not final:
        return None
    start = max(0, split - HISTORY)
    found = compare(values[start : split + (look or bins[1])], treated, split - start)
    if found is None:
        control = bool((~treated).any())
        return Verdict(
            result=VerdictResult.NO_DATA, bins=bins, control=control, reason=_missing(values, split)
        )
    verdict = _verdict(found, look, lower_is_better)
    if verdict.result is VerdictResult.INCONCLUSIVE and not final and look != LOOKS[-1]:
        return None
    return verdict


def judge_controlled(
    treated_before: Sequence[float],
    treated_after: Sequence[float],
    control_before: Sequence[float],
    control_after: Sequence[float],
    lower_is_better: bool,
    guardrail: str = "",
) -> Verdict | None:
    """The verdict on replicas that were changed beside others that were not (difference in
    differences of the logarithms), or None while it is worth waiting for more figures.

    One figure for each bin, oldest first, without warm-up. Figures at the same place of
    ``treated_before`` and ``control_before`` (and of the two of after) are of the same bin; NaN
    where a group has none. Of unequal lengths, the newest of before and the oldest of after count.
    """
    before = min(len(treated_before), len(control_before))
    after = min(len(treated_after), len(control_after))
    values = np.array(
        [
            [*group[len(group) - before :], *later[:after]]
            for group, later in ((treated_before, treated_after), (control_before, control_after))
        ],
        dtype=float,
    ).T
    return judge_panel(values, np.array([True, False]), before, lower_is_better, guardrail)


def _missing(values: np.ndarray, split: int) -> str:
    if not split:
        return "there are no figures from before the action"
    if split == len(values):
        return "there are no figures from after the action"
    return "too few figures above zero of the changed replicas, before or after the action"


def _verdict(found: Compared, look: int, lower_is_better: bool) -> Verdict:
    low, high = found.shift.interval()
    p_value = found.shift.p_value()
    effect = float(np.expm1(found.shift.size))
    compared = "against untouched replicas" if found.control else "before against after"
    numbers = f"{effect:+.0%} {compared}, p={p_value:.1g}"
    better = (found.shift.size < 0) is lower_is_better
    rates = IMPROVED_BY_CHANCE if better else WORSE_BY_CHANCE
    rate = rates.get(look, 0.0) * (1.0 if found.control else ALONE)
    doubt = _doubt(found, rate, better) if look else f"{LOOKS[0]} bins after the action are needed"
    if not doubt:
        result = VerdictResult.IMPROVED if better else VerdictResult.WORSE
        word = "" if found.control else f"likely {'better' if better else 'worse'}: "
        reason = f"{word}{numbers}"
    elif look >= LOOKS[1] and low > -LEVEL and high < LEVEL:
        result = VerdictResult.NO_EFFECT
        reason = f"{numbers}; the interval is within ±{MATTERS:.0%}"
    else:
        result = VerdictResult.INCONCLUSIVE
        reason = f"{numbers}; {doubt}"
    return Verdict(
        result=result,
        effect=_held(effect),
        interval=[_held(float(np.expm1(edge))) for edge in (low, high)],
        p_value=float(f"{p_value:.2g}"),
        bins=list(found.bins),
        control=found.control,
        reason=reason,
    )


def _held(change: float) -> float:
    """Rounded; an interval that says nothing ends somewhere, too: JSON knows no infinity."""
    return round(min(change, 1e6), 4)


def _doubt(found: Compared, rate: float, better: bool) -> str:
    """What speaks against the change being one; empty where nothing does."""
    sign = 1.0 if found.shift.size > 0 else -1.0
    gain, recent = abs(found.shift.size), sign * found.recent
    drift = gain - recent  # how far it had moved there before anything was done
    careful = not (found.control and better)
    if gain < LEVEL:
        return f"less than {MATTERS:.0%}"
    if found.shift.p_value() / 2 >= rate:
        return "chance explains it"
    if min(sign * half for half in found.halves) < LEVEL / 2:
        return "it did not last"
    if sign * found.delta < LEAST_DELTA:
        return "the figures overlap too much"
    share = 2.0 if not found.control else 0.5 if better else 1.0
    if recent < max(LEVEL / 2, share * drift):
        return "it was so just before the action already"
    if not found.control and abs(drift) > gain / 2:
        return "the level moved by itself before the action"
    if careful and not sign * found.step >= AT_THE_ACTION * gain:
        return "it did not begin at the action"
    return ""
