"""The figures behind one suspect, as evidence that people can check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..api.report import Evidence
from .components import Change, Key

MOST = 4
"""Figures shown for one component at most."""


def evidence(
    most: Change,
    rise: Change | None,
    its: Mapping[Key, Change],
    share: Evidence | None,
    window: str,
) -> tuple[Evidence, ...]:
    """The most telling figure, the share of the symptom, then what else is out of its baseline."""
    figures = [_figure(one, window) for one in _shown(most, rise, its)]
    if share is not None:
        figures.insert(1, share)
    return tuple(figures[:MOST])


def share_of(symptom: str, name: str, share: float, window: str) -> Evidence:
    """The share of the symptom that a component keeps."""
    return Evidence(
        signal=f"share of {symptom}",
        window=window,
        statistic="share",
        value=round(share, 4),
        source=f"the rise of {name} that its callees do not explain, times its calls",
    )


def _shown(most: Change, rise: Change | None, its: Mapping[Key, Change]) -> Iterator[Change]:
    yield most
    if rise is not None and rise != most:
        yield rise
    metrics = {most.key[1]}
    for one in sorted(its.values(), key=lambda one: -one.severity):
        if one.severity > 1 and one.key[1] not in metrics:
            metrics.add(one.key[1])
            yield one


def _figure(change: Change, window: str) -> Evidence:
    component, metric, statistic = change.key
    way = "up" if change.value >= change.reference else "down"
    since = "the incident's other steps" if change.onset else "the baseline's median"
    return Evidence(
        signal=f"{component}:{metric}",
        window=window,
        statistic=statistic,
        value=change.value,
        threshold=change.reference + change.sign * change.limit,
        source=f"{way} from {change.reference:.4g} ({since}), {change.severity:.1f} times the"
        " change that 99% of healthy windows stay below",
    )
