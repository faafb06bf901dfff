"""The loop with an action that begins on some of the servers: kept on all, or undone on those."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from bottleneck_operator.api.report import Action, Phase, Stage
from bottleneck_operator.decide.lifecycle import DesiredKnobs, desired_knobs
from bottleneck_operator.decide.some_first import divisible
from bottleneck_operator.report.reports import ReportStore, prune

from .builders import NOW, SMALL, knobs_action, moment, policy, report, resources_action
from .fleet import Fleet, Replica, batches, changed_by, noisy
from .objects import managed
from .test_loop_variants import told_stages

ACTIONS = pytest.mark.parametrize("action", [batches(), resources_action()], ids=["knobs", "size"])
RESIZABLE = {"actions": {"batchSize": {"max": 64}, "resources": {"cpu": {"max": "4"}}}}


@ACTIONS
@pytest.mark.parametrize(("replicas", "first"), [(2, 1), (3, 1), (4, 2)])
def test_what_helps_on_some_is_kept_on_all(
    monkeypatch: pytest.MonkeyPatch, action: Action, replicas: int, first: int
) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), replicas, action, **RESIZABLE)
    found = fleet.live()
    assert (found.status.phase, found.status.stage) == ("Kept", Stage.ROLLED)
    assert told_stages(found) == [
        "ActionPlanned",
        "ActionApplied",
        "ActionAcknowledged",
        "ActionApplied",
        "ActionAcknowledged",
        "ActionKept",
    ]
    assert found.status.split is not None
    treated = [pod.name for pod in found.status.split.treated]
    assert len(treated) == first
    assert fleet.at_work[0][1] == treated, "some first"
    assert len(fleet.changed) == replicas
    verdict = found.status.verdict
    assert verdict is not None
    assert (verdict.result, verdict.control, verdict.confounders) == ("Improved", True, [])
    # A pod that comes later gets it once it is kept on all, not sooner.
    given = {name for found in fleet.later for name in found}
    assert given == ({"batch.maxSize=8"} if action.knobs else {"main"})
    first_given = next(n for n, found in enumerate(fleet.later) if found)
    assert len(fleet.at_work[first_given][1]) == replicas
    assert not any(fleet.later[:first_given])


@ACTIONS
@pytest.mark.parametrize("factor", [2.5, 1.0], ids=["worse", "no effect"])
def test_what_does_not_help_is_undone_where_it_was_and_the_others_were_never_touched(
    monkeypatch: pytest.MonkeyPatch, action: Action, factor: float
) -> None:
    fleet = Fleet(monkeypatch, changed_by(factor), 4, action, **RESIZABLE)
    found = fleet.live()
    assert (found.status.phase, found.status.stage) == ("Reverted", Stage.CANARY)
    assert found.status.verdict is not None
    assert found.status.verdict.result == ("Worse" if factor > 1 else "NoEffect")
    assert fleet.most == 2
    for each in fleet.replicas:
        assert len(each.written) == (2 if each.number % 2 else 0), each.name
        assert (each.batch, each.size) == (1, SMALL)
    assert not any(fleet.later), "nor does a pod that comes later get any of it"


def shared(before: float, after: float) -> Callable[[Replica, float], float]:
    """All replicas become slower or faster together a few seconds after the action."""
    return lambda each, second: (before if second < 5 else after) * noisy(second, each.number)


@pytest.mark.parametrize(("before", "after"), [(0.8, 0.3), (0.3, 0.8)], ids=["falls", "rises"])
@ACTIONS
def test_what_all_replicas_see_is_not_its_doing(
    monkeypatch: pytest.MonkeyPatch, action: Action, before: float, after: float
) -> None:
    fleet = Fleet(monkeypatch, shared(before, after), 4, action, **RESIZABLE)
    found = fleet.live()
    assert found.status.verdict is not None
    assert found.status.verdict.result == "NoEffect"
    assert found.status.phase == "Reverted"
    assert fleet.most == 2


@pytest.mark.parametrize("lost", [0, 5, 9], ids=["at once", "warming up", "while it is judged"])
def test_where_the_treated_replicas_go_away_others_are_chosen(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), 2)
    found = fleet.live(events={lost + 1: lambda fleet: fleet.lose("ranker-1")})
    assert found.status.split is not None
    assert found.status.split.chosen == 2
    assert [pod.name for pod in found.status.split.treated] == ["ranker-2"]
    assert found.status.phase == "Kept"
    assert any("those that had it went away" in each.message for each in found.status.timeline)


def test_not_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), 2)

    def lose(fleet: Fleet) -> None:
        for name in fleet.changed:
            fleet.lose(name)

    found = fleet.live(events=dict.fromkeys(range(5, 100, 8), lose))
    assert found.status.phase == "Reverted"
    assert fleet.changed == []
    assert "went away: ranker-" in found.status.timeline[-2].message


def test_a_pod_of_the_same_name_is_another_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a StatefulSet are."""
    fleet = Fleet(monkeypatch, changed_by(0.4), 2)
    found = fleet.live(events={5: lambda fleet: fleet.lose("ranker-1", reborn="ranker-1")})
    assert found.status.split is not None
    assert found.status.split.chosen == 2
    assert found.status.phase == "Kept"


def test_of_several_one_may_go_and_the_verdict_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), 4)
    found = fleet.live(events={5: lambda fleet: fleet.lose("ranker-1")})
    assert found.status.verdict is not None
    assert "1 of 2 treated replicas went away" in found.status.verdict.reason
    assert found.status.phase == "Kept"
    assert len(fleet.changed) == 4, "the one in its place got it with the rest"


def test_without_anything_to_compare_with_it_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), 2)
    found = fleet.live(events={5: lambda fleet: fleet.lose("ranker-0")})
    assert found.status.phase == "Reverted"
    assert any("no untouched replica is left" in each.message for each in found.status.timeline)
    assert fleet.changed == []


LIVES = [
    *(pytest.param(batches(), 0.4, before, id=f"faster-{before}") for before in (True, False)),
    *(pytest.param(batches(), 2.5, before, id=f"slower-{before}") for before in (True, False)),
    pytest.param(resources_action(), 2.5, False, id="size-slower-False"),
]
"""An action, what it does, and whether the operator dies before the write or after it."""


@pytest.mark.parametrize(("action", "factor", "before"), LIVES)
@pytest.mark.parametrize("dies_at", range(1, 10))
def test_wherever_the_operator_dies_nothing_is_lost_or_left_half_done(
    monkeypatch: pytest.MonkeyPatch, action: Action, factor: float, before: bool, dies_at: int
) -> None:
    fleet = Fleet(
        monkeypatch,
        changed_by(factor),
        2,
        action,
        dies_at=dies_at,
        dies_before=before,
        **RESIZABLE,
    )
    found = fleet.live(100)
    better = factor < 1
    assert found.status.phase == ("Kept" if better else "Reverted")
    assert len(fleet.changed) == (2 if better else 0)
    if not better:
        assert fleet.most == 1
        assert fleet.replicas[0].written == []
    # Nothing is written twice.
    assert all(len(set(each.written)) == len(each.written) for each in fleet.replicas)


def test_in_every_second_a_new_process_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has lost what was measured too, so that it waits a little longer."""
    for second in (0, 3, 8, 14, 22):
        with monkeypatch.context() as patch:
            fleet = Fleet(patch, changed_by(0.4), 2)
            found = fleet.live(events={second: Fleet.restart})
            assert found.status.phase == "Kept", second
            assert found.status.verdict is not None
            assert found.status.verdict.control
            assert len(fleet.changed) == 2


def test_a_single_replica_is_judged_before_against_after(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), 1)
    found = fleet.live()
    assert found.status.split is None
    assert found.status.verdict is not None
    assert (found.status.verdict.result, found.status.verdict.control) == ("Improved", False)


def test_knobs_of_all_outlive_any_number_of_trials_that_were_undone_on_some() -> None:
    """A pod that comes later gets them, and the newest generation is known."""
    store, gone = ReportStore(), []

    class Door:
        async def delete(self, path: str, *_: str) -> None:
            gone.append(path.rpartition("/")[2])

    for number in range(1, 34):
        restored = {"result": "Restored", "at": moment(number)}
        stage = {"stage": Stage.CANARY, "revert": restored} if number > 1 else {}
        phase = Phase.REVERTED if number > 1 else Phase.KEPT
        made = report(batches(2 * number), phase, f"p-{number}", applied_at=moment(number), **stage)
        spec = made.spec.model_copy(update={"decided_at": moment(number)})
        store.update(made.model_copy(update={"spec": spec}).dump())
    door: Any = Door()
    counted = {"counted": [f"p-{number}" for number in range(1, 34)]}
    mine = policy(spec={"reports": {"keep": 30}}, status={"ledger": counted})
    asyncio.run(prune(door, store, mine, NOW + 7200))
    assert gone == ["p-2", "p-3"]
    assert desired_knobs(store.of(mine)) == DesiredKnobs(2, {"batch.maxSize": 8})


# -- what else happened ----------------------------------------------------------------------------


def rolled(second: float) -> Callable[[Fleet], None]:
    def write(fleet: Fleet) -> None:
        fields = fleet.world.api.target["metadata"]["managedFields"]
        fields.append(managed("kubectl", second, "template"))

    return write


@pytest.mark.parametrize(("replicas", "phase"), [(1, "Kept"), (4, "Reverted")])
def test_beside_a_rollout_nothing_counts_as_an_improvement(
    monkeypatch: pytest.MonkeyPatch, replicas: int, phase: str
) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), replicas)
    found = fleet.live(events={4: rolled(4)})
    verdict = found.status.verdict
    assert verdict is not None
    assert verdict.result == "Inconclusive"
    (confounder,) = verdict.confounders
    assert confounder.startswith("a rollout of Deployment/ranker by kubectl at ")
    assert verdict.reason.endswith(f"confounded by {confounder}")
    assert found.status.phase == phase
    assert fleet.most == (1 if replicas == 1 else 2)


def test_what_got_worse_beside_a_rollout_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(monkeypatch, changed_by(2.5), 1)
    found = fleet.live(events={4: rolled(4)})
    assert found.status.verdict is not None
    assert found.status.verdict.result == "Worse"
    assert found.status.verdict.confounders
    assert found.status.phase == "Reverted"


@pytest.mark.parametrize(
    ("factor", "rate", "result"),
    [
        (0.4, 10, "Inconclusive"),
        (2.5, 40, "Inconclusive"),
        (2.5, 10, "Worse"),
        (0.4, 40, "Improved"),
    ],
    ids=["fewer and faster", "more and slower", "fewer and slower", "more and faster"],
)
def test_without_a_control_another_load_is_not_comparable(
    monkeypatch: pytest.MonkeyPatch, factor: float, rate: int, result: str
) -> None:
    def requests(second: float) -> int:
        return 20 if second < 3 else rate

    fleet = Fleet(monkeypatch, changed_by(factor), 1, rate=requests)
    found = fleet.live()
    assert found.status.verdict is not None
    assert found.status.verdict.result == result
    if result == "Inconclusive":
        assert "the load is " in found.status.verdict.reason
    beside = Fleet(monkeypatch, changed_by(factor), 2, rate=requests).live()
    assert beside.status.verdict is not None
    assert beside.status.verdict.result == ("Improved" if factor < 1 else "Worse"), "it cancels"


def test_training_changes_together() -> None:
    assert not divisible(report(knobs_action()))


def test_replicas_of_several_pods_each_change_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(monkeypatch, changed_by(0.4), 4)
    fleet.world.api.target["spec"]["replicas"] = 2
    found = fleet.live()
    assert found.status.split is None
    assert fleet.at_work[0][1] == [each.name for each in fleet.replicas]
