"""A new process decides as the old one would have, on the same facts."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.policy_status import PolicyStatus
from bottleneck_operator.api.report import BottleneckReport, Phase, VerdictResult
from bottleneck_operator.controller.onset import Onset
from bottleneck_operator.decide.decision import Facts, Refusal
from bottleneck_operator.decide.guards import PATIENCE_SECONDS, quarantined, too_early
from bottleneck_operator.decide.scaling import growth as scaling
from bottleneck_operator.decide.scaling.growth import There, growth
from bottleneck_operator.decide.scaling.load import load_of
from bottleneck_operator.observe.observation import Observation, WorkloadType
from bottleneck_operator.observe.trail import GAP_SECONDS, PERSISTED, Trail
from bottleneck_operator.report.reports import now_utc
from bottleneck_operator.report.retention import expendable

from .builders import NOW, SERVING, knobs_action, moment, observation, policy, reading, report, spec

MINUTES = 35


def facts(**known: Any) -> Facts:
    return Facts(policy_generation=3, replicas=2, **known)


def seen(at: float, chance: random.Random, factor: float = 1.0) -> Observation:
    """A server of two replicas under a load that comes and goes."""
    rate = factor * chance.gauss(20, 3)
    signals = {
        "inference.arrivalRate": reading(max(0.1, rate)),
        "inference.serviceSeconds": reading(0.05),
        "inference.queueSeconds": reading(abs(chance.gauss(0.004, 0.001))),
        "inference.occupancy": reading(min(0.9, 0.025 * rate)),
        "inference.latency": reading(0.06 + abs(chance.gauss(0, 0.01))),
    }
    found = observation(WorkloadType.INFERENCE, signals, expected=2, streaming=2)
    return replace(found, time=at, newest=at)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.6, 4.0])
def test_growth_is_the_same_after_a_restart(
    seed: int, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A forecast needs minutes without a gap, and a restart is one: docs/durability.md says so.
    monkeypatch.setattr(scaling, "expected", lambda *_: None)
    chance, old = random.Random(seed), Trail()
    for second in range(0, MINUTES * 60, 2):
        old.note(seen(NOW + second, chance))
    persisted_at = NOW + MINUTES * 60
    written = PolicyStatus(trail=old.statuses(persisted_at)).dump()
    back = PolicyStatus.model_validate(written)
    new = Trail.restored(back.trail, persisted_at + 15)
    # Both see what comes now; only the old one has seen what came meanwhile.
    for second in range(0, 80, 2):
        now = seen(persisted_at + second, chance, factor)
        old.note(now)
        if second >= 25:
            new.note(now)
    objectives = spec(**SERVING).objectives
    answers = []
    for trail in (old, new):
        load = load_of(now, objectives, trail)
        assert load is not None
        answers.append(growth(load, trail, There(2, 2, 20.0), 300.0, now.time, breached=True))
    assert answers[0].replicas == answers[1].replicas
    assert answers[0].panic == answers[1].panic


def test_without_its_trail_a_new_process_would_take_a_usual_load_for_a_new_one() -> None:
    chance, empty = random.Random(1), Trail()
    now = seen(NOW, chance)
    load = load_of(now, spec(**SERVING).objectives, empty)
    assert load is not None
    assert growth(load, empty, There(2, 2, 20.0), 300.0, NOW, breached=True).panic


def test_what_was_not_seen_stays_a_gap() -> None:
    chance, old = random.Random(1), Trail()
    for second in range(0, 600, 2):
        if not 200 <= second < 300:
            old.note(seen(NOW + second, chance))
    new = Trail.restored(old.statuses(NOW + 600), NOW + 600)
    for name in PERSISTED:
        assert new.over(name, 300, NOW + 600) is None
        begun = [slot.begin - NOW for slot in new.series(name, 3600, NOW + 600)]
        assert max(begun) <= 600 - GAP_SECONDS
        assert not [each for each in begun if 210 <= each < 300]
    assert len(str([each.dump() for each in old.statuses(NOW + 600)])) < 6000


@pytest.mark.parametrize("words", ["", "- -", "nan 1", "-1 -2", "inf", "1 x 2", "1e400"])
def test_what_cannot_be_read_is_a_gap(words: str) -> None:
    chance, old = random.Random(1), Trail()
    for second in range(0, 600, 2):
        old.note(seen(NOW + second, chance))
    spoilt = [each.model_copy(update={"means": words}) for each in old.statuses(NOW + 600)]
    new = Trail.restored(spoilt, NOW + 600)
    values = [slot.mean for name in PERSISTED for slot in new.series(name, 3600, NOW + 600)]
    assert set(values) <= {1.0, 2.0}


def test_how_long_something_is_wrong_is_known_after_a_restart() -> None:
    broke = NOW - PATIENCE_SECONDS - 1
    onset = Onset(broke, broke - 5)
    assert onset.degraded_at is not None
    status = PolicyStatus(breached_since=now_utc(broke), degraded_since=now_utc(broke - 5))
    assert Onset.restored(PolicyStatus.model_validate(status.dump())) == onset
    assert too_early(facts(breached_since=onset.breached_at), NOW) is None
    assert isinstance(too_early(facts(breached_since=NOW), NOW), Refusal)  # as if it began now


# -- what may be deleted ---------------------------------------------------------------------------


def closed(
    number: int, hours: float, phase: Phase = Phase.KEPT, generation: int = 2
) -> BottleneckReport:
    action = knobs_action(generation=2 * number + 1, workers=number + 1)
    told = VerdictResult.IMPROVED if phase is Phase.KEPT else VerdictResult.NO_EFFECT
    ended = moment(-hours * 3600)
    return report(
        action,
        phase,
        name=f"p-{number}",
        policy_generation=generation,
        applied_at=ended,
        closed_at=ended,
        verdict={"result": told},
        revert=None if phase is Phase.KEPT else {"result": "Restored", "at": ended},
    )


def gone(reports: list[BottleneckReport], **wanted: Any) -> list[str]:
    counted = [each.metadata.name for each in reports]
    made = policy(spec={"reports": wanted}, status={"ledger": {"counted": counted}})
    return [each.metadata.name for each in expendable(made, reports, reports, NOW)]


def test_the_oldest_beyond_the_number_and_all_beyond_the_age_go() -> None:
    reports = [closed(number, 100 - number) for number in range(8)]
    assert gone(reports, keep=5) == ["p-0", "p-1", "p-2"]
    assert gone(reports, keep=8) == []
    assert gone(reports, keep=8, maxAge="96h30m") == ["p-0", "p-1", "p-2", "p-3"]
    # The knobs that are in force follow from the newest one.
    assert gone(reports, keep=1, maxAge="1m") == [f"p-{number}" for number in range(7)]


def test_what_the_written_ledger_does_not_count_yet_stays() -> None:
    reports = [closed(number, 100 - number) for number in range(8)]
    made = policy(spec={"reports": {"keep": 5}}, status={"ledger": {"counted": ["p-1"]}})
    assert [it.metadata.name for it in expendable(made, reports, reports, NOW)] == ["p-1"]


def test_what_a_decision_asks_for_stays() -> None:
    missed = [closed(number, 100 - number, Phase.REVERTED, 3) for number in range(4)]
    assert gone(missed, keep=1) == []
    facts_then = facts(reports=tuple(missed))
    action = missed[0].spec.action
    assert action is not None
    assert isinstance(quarantined(action, facts_then, NOW), Refusal)
    # The same again: the newest says it as well.
    again = [
        *missed,
        closed(0, 50, Phase.REVERTED, 3).model_copy(
            update={"metadata": missed[0].metadata.model_copy(update={"name": "p-9"})}
        ),
    ]
    assert gone(again, keep=1) == ["p-0"]
    # The last hour counts for the budget.
    lately = [closed(number, 0.9 - number / 100) for number in range(8)]
    assert gone(lately, keep=1) == []
    # A recommendation waits for its answer, an open action for its end.
    waiting = [
        closed(0, 1000).model_copy(update={"status": report(None, phase).status})
        for phase in (Phase.RECOMMENDED, Phase.PLANNED, Phase.REVERTING)
    ]
    assert gone([*waiting, *(closed(n, 10) for n in range(1, 4))], keep=1) == ["p-1", "p-2"]
