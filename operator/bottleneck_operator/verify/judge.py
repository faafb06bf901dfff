"""Before against after: the verdict on one action. Pure.

An action is taken because something looked bad, and much of it would look better a minute later
anyway. So a changed mean is not enough: the change has to be larger than chance explains
(Mann-Whitney U, two-sided, and a t-test that knows that figures in a row are alike) and large
enough to matter. Without untouched replicas (``judge_controlled``), better is "likely".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ..api.report import Verdict, VerdictResult
from .compare import FLOOR
from .rule import LOOKS as LOOKS
from .rule import MATTERS as MATTERS
from .rule import judge_controlled as judge_controlled
from .shift import shift

ALPHA = 0.05 / len(LOOKS)
"""Error rate of each look: Bonferroni over the looks, so that stopping early stays honest."""

MIN_BEFORE = 3
"""Fewest bins before the action with which ``ALPHA`` can be reached at all."""


def judge(
    before: Sequence[float],
    after: Sequence[float],
    lower_is_better: bool,
    guardrail: str = "",
    control: bool = False,
) -> Verdict | None:
    """The verdict, or None while it is worth waiting for more figures.

    ``before`` and ``after`` hold the metric, a figure for each bin, oldest first, without warm-up.
    ``guardrail`` names a broken guardrail, which settles the matter without statistics. With
    ``control`` the figures of ``before`` are those of untouched replicas at the same time.
    """
    n = [len(before), len(after)]
    if guardrail:
        return Verdict(result=VerdictResult.WORSE, bins=n, reason=f"guardrail broken: {guardrail}")
    if len(before) < MIN_BEFORE:
        return Verdict(
            result=VerdictResult.NO_DATA,
            bins=n,
            reason=f"only {len(before)} figures from before the action; {MIN_BEFORE} are needed",
        )
    look = max((size for size in LOOKS if size <= len(after)), default=0)
    if look == 0:
        return None
    last = look == LOOKS[-1]
    old, new = np.asarray(before, dtype=float), np.asarray(after[:look], dtype=float)
    base = float(np.median(old))
    if base <= 0:
        return Verdict(
            result=VerdictResult.NO_DATA, bins=n, reason="the metric was zero before the action"
        )
    effect = float(np.median(new)) / base - 1
    p_value = _p_value(old, new, base)
    low, high = interval_of(old, new)
    gain = -effect if lower_is_better else effect

    def verdict(result: VerdictResult, reason: str) -> Verdict:
        return Verdict(
            result=result,
            before=base,
            after=float(np.median(new)),
            effect=round(effect, 4),
            interval=[round(low, 4), round(high, 4)],
            p_value=float(f"{p_value:.2g}"),
            bins=[len(old), len(new)],
            control=control,
            reason=reason,
        )

    compared = "against untouched replicas" if control else "before against after"
    numbers = f"median {effect:+.0%} {compared}, p={p_value:.1g}"
    if p_value < ALPHA and gain >= MATTERS:
        return verdict(VerdictResult.IMPROVED, numbers if control else f"likely better: {numbers}")
    if p_value < ALPHA and gain <= -MATTERS:
        return verdict(VerdictResult.WORSE, numbers)
    if look >= LOOKS[1] and low > -MATTERS and high < MATTERS:
        return verdict(VerdictResult.NO_EFFECT, f"{numbers}; the interval is within ±{MATTERS:.0%}")
    if last:
        return verdict(VerdictResult.INCONCLUSIVE, f"{numbers}; still unclear after the extension")
    return None


ALIKE = 1.10
"""Load that grew by no more than this is alike: figures of ten seconds differ by that."""


def judge_growth(
    before: Sequence[float],
    after: Sequence[float],
    lower_is_better: bool,
    met: bool,
    load: float | None = None,
    guardrail: str = "",
    capacity: float = 1.0,
) -> Verdict | None:
    """The verdict on added replicas. They have done what they are for where every objective is
    ``met`` with them, better than before or not; and where ``load`` grew meanwhile (after, as a
    multiple of before; None where it is not known) by more than half of what ``capacity`` grew,
    that it is no better does not speak against them."""
    verdict = judge(before, after, lower_is_better, guardrail)
    if guardrail or (verdict is not None and verdict.result is VerdictResult.NO_DATA):
        return verdict
    if verdict is not None and verdict.result is VerdictResult.IMPROVED:
        return verdict
    if met and len(after) >= LOOKS[0]:
        return _settled(verdict, before, after, VerdictResult.NO_EFFECT, "every objective is met")
    if load is None or load <= max(ALIKE, (1 + capacity) / 2):
        return verdict
    if len(after) < LOOKS[-1]:
        return None
    reason = f"not comparable: the load is {load:.1f} times what it was"
    return _settled(verdict, before, after, VerdictResult.INCONCLUSIVE, reason)


def _settled(
    verdict: Verdict | None,
    before: Sequence[float],
    after: Sequence[float],
    result: VerdictResult,
    reason: str,
) -> Verdict:
    """The verdict with another result, for a reason that statistics do not know."""
    if verdict is None:
        return Verdict(result=result, bins=[len(before), len(after)], reason=reason)
    return verdict.model_copy(update={"result": result, "reason": f"{reason}; {verdict.reason}"})


SAVING_LOOKS = (8, 30)
"""Numbers of bins after a saving at which it may be undone, and at which it is kept. A saving can
wait: what it does to the tail of a latency shows later than what it does to its median."""


def judge_saving(
    before: Sequence[float], after: Sequence[float], unmet: str = "", guardrail: str = ""
) -> Verdict | None:
    """The verdict on an action that was to save: NoEffect where the objectives stayed met, Worse
    where they did not, None while it is worth waiting. ``unmet`` names an objective that is not met
    now. The metric itself may get worse: that is what the objectives are there for."""
    first, last = SAVING_LOOKS
    n = [len(before), len(after)]
    if guardrail:
        return Verdict(result=VerdictResult.WORSE, bins=n, reason=f"guardrail broken: {guardrail}")
    if len(after) >= first and unmet:
        return Verdict(result=VerdictResult.WORSE, bins=n, reason=f"{unmet} is no longer met")
    if len(after) < last:
        return None
    old, new = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    base = float(np.median(old)) if len(old) else 0.0
    if base <= 0:
        return Verdict(result=VerdictResult.NO_EFFECT, bins=n, reason="every objective stayed met")
    effect, (low, high) = float(np.median(new)) / base - 1, interval_of(old, new)
    return Verdict(
        result=VerdictResult.NO_EFFECT,
        before=base,
        after=float(np.median(new)),
        effect=round(effect, 4),
        interval=[round(low, 4), round(high, 4)],
        bins=n,
        reason=f"every objective stayed met; median {effect:+.0%} before against after",
    )


def _p_value(old: np.ndarray, new: np.ndarray, base: float) -> float:
    if np.ptp(np.concatenate([old, new])) == 0:
        return 1.0
    before, after = (np.log(np.maximum(each / base, FLOOR)) for each in (old, new))
    return max(
        shift(before, after).p_value(),
        float(stats.mannwhitneyu(new, old, alternative="two-sided").pvalue),
    )


def interval_of(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """95% bootstrap interval of the relative change of the median; the same input gives the same
    interval."""
    rng = np.random.default_rng(0)
    olds = np.median(rng.choice(old, (2000, len(old))), axis=1)
    news = np.median(rng.choice(new, (2000, len(new))), axis=1)
    low, high = np.percentile(news / np.maximum(olds, 1e-12) - 1, [2.5, 97.5])
    return float(low), float(high)
