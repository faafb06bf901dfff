"""Which component of a call graph is behind a symptom, or that nothing is wrong.

1. *Is anything wrong?* The symptom's own metric is compared with every healthy window of the same
   length. In doubt, a component that it calls may confirm it: one that is itself out of its
   baseline in steps in which the symptom is unusual as well.
2. *When?* Every other figure is taken over the steps in which the symptom is worst.
3. *Who?* A caller's latency contains that of its callees, and a failed callee fails its caller.
   Responsibility begins whole at the symptom. Each component hands on to its callees what their
   rises, times the calls that they get, explain of its own rise, and keeps the rest (self time).
   Traffic runs the other way, from callers to callees.

Metrics of other families (a busy CPU) cannot be added up with the symptom: they are named, and
rank a component that nothing else speaks against, or for, behind those that explain the symptom.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from ..api.report import Evidence
from .alarm import Alarm, alarm
from .calls import Calls
from .components import (
    MINIMUM_BASELINE,
    Change,
    Family,
    Key,
    Panel,
    Series,
    Track,
    family,
    is_mean,
    panel,
    signs,
    worst,
)
from .figures import evidence, share_of
from .parameters import DEFAULT, Parameters


@dataclass(frozen=True, slots=True)
class Suspect:
    """One component, with the metric that tells most about it. Scores are between 0 and 1."""

    component: str
    metric: str
    score: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class GraphDiagnosis:
    """``ranking`` is empty when healthy; otherwise each component appears at most once."""

    healthy: bool
    ranking: tuple[Suspect, ...]
    reason: str
    """Why it is taken for healthy or not, in a sentence."""


class SymptomError(ValueError):
    """The symptom cannot be judged; the message says why and what to name instead."""


def diagnose_graph(
    topology: Collection[tuple[str, str]],
    baseline: Series,
    incident: Series,
    symptom: tuple[str, str],
    parameters: Parameters = DEFAULT,
) -> GraphDiagnosis:
    """Ranks the components behind ``symptom``, a component and its metric.

    ``topology`` are pairs of caller and callee. Both series are by component, metric and statistic;
    ``incident`` may contain healthy steps before and after. Time is in seconds, values in any unit
    as long as one metric has one. Raises SymptomError without figures of the symptom.
    """
    known = panel(baseline, incident, parameters)
    own = [track for key, track in known.tracks.items() if key[:2] == symptom]
    if not own:
        raise SymptomError(_missing(baseline, incident, symptom))
    calls = Calls(topology, known.tracks, upstream=family(symptom[1]) is Family.TRAFFIC)
    seen, reason = alarm(own, parameters), ""
    if not seen.certain:
        confirmed = _confirmed(calls, known, own, parameters)
        if confirmed is None:
            return GraphDiagnosis(True, (), f"{_name(symptom)} is within its baseline")
        seen, by = confirmed
        reason = f"{_name(symptom)} is unusual in the steps in which {by} is out of its baseline"
    changes: dict[str, dict[Key, Change]] = {}
    for key, track in known.tracks.items():
        # What adds up with the symptom must go the symptom's way; of others, any way is news.
        sign = seen.sign if signs(key[1]) == signs(symptom[1]) and _alike(key[1], symptom[1]) else 0
        found = worst(track, seen.affected, onset=seen.onset, sign=sign)
        if found is not None:
            changes.setdefault(key[0], {})[key] = found
    window = f"{seen.affected.sum() * known.step:g}s"
    ranking = _rank(calls, changes, symptom, _additive(own), window, parameters)
    return GraphDiagnosis(
        False, ranking, reason or f"{_name(symptom)} is out of its baseline for {window}"
    )


def _confirmed(
    calls: Calls, known: Panel, own: Sequence[Track], parameters: Parameters
) -> tuple[Alarm, str] | None:
    """The alarm below the symptom in whose steps the symptom is unusual too, and most so."""
    component, metric, _ = own[0].key
    groups: dict[tuple[str, str], list[Track]] = {}
    for key, track in known.tracks.items():
        if _alike(key[1], metric):
            groups.setdefault(key[:2], []).append(track)
    below = {name for name, _ in calls.below(component)} - {component}
    best: tuple[float, Alarm, str] | None = None
    for group, its in sorted(groups.items()):
        if group[0] not in below:
            continue
        one = alarm(its, parameters)
        if not one.certain or one.severity < parameters.corroboration:
            continue
        for track in own:
            change = worst(track, one.affected, onset=one.onset)
            if change is None or change.rise < track.floor:
                continue
            if change.chance > 1 - parameters.confirmed:
                continue
            if best is None or change.severity > best[0]:
                best = change.severity, one, _name(group)
    return best and best[1:]


def _rank(
    calls: Calls,
    changes: Mapping[str, Mapping[Key, Change]],
    symptom: tuple[str, str],
    statistic: str,
    window: str,
    parameters: Parameters,
) -> tuple[Suspect, ...]:
    telling: dict[str, Change] = {}
    rises: dict[str, Change] = {}
    for name, its in changes.items():
        same = [change for key, change in its.items() if _alike(key[1], symptom[1])]
        if same:
            telling[name] = _most(same)
            rises[name] = _most([one for one in same if one.key[2] == statistic] or same)
    came, kept = _responsibility(calls, symptom[0], telling, rises, parameters)
    suspects = []
    for name, its in changes.items():
        most = telling.get(name)
        if most is not None and (most.severity > 1 or name == symptom[0]):
            parts = parameters.kept * kept.get(name, 0.0) + parameters.rarity
            parts += parameters.handed * came.get(name, 0.0)
        else:
            most, parts = _most(its.values()), parameters.rarity
            if most.severity <= 1:
                continue
        score = _confidence(most.severity) * parts * (1.0 if name in came else parameters.elsewhere)
        mine = kept.get(name, 0.0)
        share = share_of(_name(symptom), name, mine, window) if mine > 0 else None
        shown = evidence(most, rises.get(name), its, share, window)
        suspects.append(Suspect(name, most.key[1], round(score, 4), shown))
    return tuple(sorted(suspects, key=lambda one: (-one.score, one.component)))


def _responsibility(
    calls: Calls,
    start: str,
    telling: Mapping[str, Change],
    rises: Mapping[str, Change],
    parameters: Parameters,
) -> tuple[dict[str, float], dict[str, float]]:
    """What share of the symptom comes to each component below it, and what share it keeps."""
    order = calls.below(start)
    callees = dict(order)
    came = dict.fromkeys(callees, 0.0)
    came[start] = 1.0
    kept = {}
    for name, direct in order:
        parts, slack = {}, parameters.calls_slack
        mine = rises[name].rise if name in rises else 0.0
        for callee in _measured(name, callees, rises):
            # Nothing at half the limit, all at the limit: no cliff between two noisy figures.
            parts[callee] = min(1.0, max(0.0, 2 * telling[callee].severity - 1))
            ratio = calls.ratio(name, callee) if callee in direct else None
            if ratio is None:
                slack = parameters.unknown_calls
            if mine > 0:
                share = (1.0 if ratio is None else ratio) * rises[callee].rise / mine
                parts[callee] *= min(1.0, max(0.0, share))
        whole = sum(parts.values())
        stretch = min(slack, 1 / whole) if whole > 0 else 0.0
        for callee, part in parts.items():
            came[callee] += came[name] * part * stretch
        kept[name] = came[name] * (1 - whole * stretch)
    return came, kept


def _measured(
    name: str, callees: Mapping[str, Sequence[str]], rises: Mapping[str, Change]
) -> Iterator[str]:
    """Its callees; for one without figures, what that calls in turn."""
    visited, waiting = {name}, list(callees[name])
    while waiting:
        one = waiting.pop()
        if one in visited:
            continue
        visited.add(one)
        if one in rises:
            yield one
        else:
            waiting += callees[one]


def _alike(metric: str, other: str) -> bool:
    """Whether two metrics tell the same, so that one can explain the other."""
    kind = family(metric)
    return kind is family(other) and (kind is not Family.RESOURCE or metric == other)


def _additive(own: Sequence[Track]) -> str:
    """The statistic whose rises are compared along the calls: the mean, since only means add up."""
    known = [track.key[2] for track in own]
    return next((statistic for statistic in known if is_mean(statistic)), known[0])


def _most(changes: Collection[Change]) -> Change:
    return max(changes, key=lambda one: one.severity)


def _confidence(severity: float) -> float:
    """Between 0 and 1, a half at the limit; beyond a few times the limit more tells little."""
    return severity**2 / (1 + severity**2) if severity > 0 else 0.0


def _name(symptom: tuple[str, str]) -> str:
    return f"{symptom[0]}:{symptom[1]}"


def _missing(baseline: Series, incident: Series, symptom: tuple[str, str]) -> str:
    """Why the symptom has no figures, and what to name instead."""
    component, metric = symptom
    both = [*baseline, *incident]
    components = sorted({key[0] for key in both})
    if component not in components:
        near = get_close_matches(component, components, n=1, cutoff=0.4)
        instead = f"did you mean {near[0]}?" if near else "name one of: " + _list(components)
        return f"no metrics of a component {component}; {instead}"
    metrics = sorted({key[1] for key in both if key[0] == component})
    if metric not in metrics:
        return f"{component} has no metric {metric}; it has: {_list(metrics)}"
    for series, where in ((incident, "incident"), (baseline, "baseline")):
        counts = [
            int(np.isfinite(np.asarray(list(values), dtype=np.float64)).sum())
            for key, (_, values) in series.items()
            if key[:2] == symptom
        ]
        if not any(counts):
            return f"{_name(symptom)} has no values in the {where}: no data, so no judgement"
    return (
        f"{_name(symptom)} has fewer than {MINIMUM_BASELINE} values in the baseline:"
        " give a longer baseline"
    )


def _list(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
