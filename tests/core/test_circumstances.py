"""Whether something has changed since an action missed, and what keeps waiting until it has."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.consequences import Circumstances, RevertResult, RevertVerdict
from bottleneck_operator.api.ledger import Ledger
from bottleneck_operator.api.report import (
    Action,
    Aim,
    BottleneckReport,
    Phase,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.circumstances import (
    LOAD_FACTOR,
    alike,
    changed,
    circumstances,
    load_factor,
)
from bottleneck_operator.decide.decision import Facts, Plan, Refusal
from bottleneck_operator.decide.guards import quarantined
from bottleneck_operator.decide.holds import REVERT_MOST, TRIAL, undecided, unsettled
from bottleneck_operator.decide.ledger import settled
from bottleneck_operator.decide.planner import decide
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.template import digest_of
from bottleneck_operator.observe.trail import Trail
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    NOW,
    knobs_action,
    moment,
    observation,
    replicas_action,
    report,
    spec,
    starved,
    talking,
)
from .objects import container, deployment, template
from .test_variants import image_action

THEN = Circumstances(template="abc", nodes=["a", "b"], replicas=2, load=20.0)


def under(**changes: Any) -> Circumstances:
    return THEN.model_copy(update=changes)


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (under(), ""),
        (under(template="def"), "template"),
        (under(nodes=["b", "c"]), ""),
        (under(nodes=["c", "d"]), "other nodes: c, d"),
        (under(replicas=3), "3 replicas, and were 2"),
        (under(load=29.0), ""),
        (under(load=31.0), "1.6 times"),
        (under(load=14.0), ""),
        (under(load=10.0), "0.5 times"),
        (under(load=0.0), "0.0 times"),
        (Circumstances(), ""),
    ],
    ids=[
        "nothing",
        "another template",
        "one node is the same",
        "all nodes are others",
        "more replicas",
        "a little more load",
        "more load",
        "a little less load",
        "half of the load",
        "no load",
        "nothing is known",
    ],
)
def test_what_counts_as_a_change(now: Circumstances, word: str) -> None:
    found = changed(THEN, now)
    assert (word in found) if word else not found


def test_what_was_not_recorded_has_not_changed() -> None:
    assert changed(None, under(template="def")) == ""
    assert changed(Circumstances(), under()) == ""


def test_what_the_action_changed_itself_is_no_news() -> None:
    assert changed(THEN, under(replicas=3), replicas_action()) == ""
    assert changed(THEN, under(nodes=["x"]), image_action()) == ""
    assert changed(THEN, under(replicas=3), knobs_action())


def test_few_requests_vary_by_chance() -> None:
    assert load_factor(0.1, 0.2) == 1.0  # 6 and 12 requests in a minute
    assert load_factor(10.0, 20.0) == 2.0
    assert load_factor(None, 20.0) is None
    assert load_factor(0.0, 0.0) == 1.0


@CASES
@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_load_changed_both_ways_or_neither(one: float, other: float) -> None:
    there, back = load_factor(one, other), load_factor(other, one)
    assert there is not None
    assert back is not None
    if 1e-9 < there < 1e9:
        assert back == pytest.approx(1 / there)
        near = abs(max(there, 1 / there) - LOAD_FACTOR) < 1e-6
        assert near or alike(there) is alike(back)


def test_circumstances_of_many_nodes_or_none() -> None:
    assert circumstances("t", [f"n{i}" for i in range(40)], 40, Trail(), NOW).nodes == []
    assert circumstances("", ["b", "", "a", "b"], None, Trail(), NOW) == Circumstances(
        nodes=["a", "b"]
    )


def test_a_digest_follows_the_pod_template_alone() -> None:
    before = deployment(2, 2)["spec"]
    assert digest_of(before) == digest_of({**before, "replicas": 7, "minReadySeconds": 5})
    other = {**before, "template": template(container(image="registry.example/ranker:v3"))}
    assert digest_of(before) != digest_of(other)
    back = {**other, "template": before["template"]}
    assert digest_of(before) == digest_of(back)
    group = {"workerGroupSpecs": [{"groupName": "a", "template": template()}]}
    assert digest_of(group)
    assert digest_of({"replicas": 2}) == ""


# -- the quarantine of a miss ----------------------------------------------------------------------


def tried(
    action: Action | None = None,
    phase: Phase = Phase.REVERTED,
    result: VerdictResult | None = VerdictResult.NO_EFFECT,
    closed: float = -100,
    **status: Any,
) -> BottleneckReport:
    """An action that was tried under ``THEN``."""
    verdict = None if result is None else Verdict(result=result)
    times = {"applied_at": moment(-200), "closed_at": moment(closed)}
    made = report(action or knobs_action(), phase, verdict=verdict, **times, **status)
    changes = {"circumstances": THEN}
    return made.model_copy(update={"spec": made.spec.model_copy(update=changes)})


def facts(*reports: BottleneckReport, now: Circumstances = THEN, **changes: Any) -> Facts:
    known = {"policy_generation": 3, "circumstances": now, **changes}
    return Facts(reports=reports, **known)


@pytest.mark.parametrize(
    ("known", "held"),
    [
        ({}, True),
        ({"now": under(template="def")}, False),
        ({"now": under(nodes=["z"])}, False),
        ({"now": under(replicas=3)}, False),
        ({"now": under(load=60.0)}, False),
        ({"now": under(load=22.0)}, True),
        ({"policy_generation": 4}, False),
        ({"resumed_at": NOW}, True),
    ],
    ids=["same", "template", "node", "replicas", "load", "about the same", "policy", "resumed"],
)
@pytest.mark.parametrize("gone", [False, True], ids=["reported", "pruned"])
def test_a_miss_is_not_repeated_until_something_changes(
    known: dict[str, Any], held: bool, gone: bool
) -> None:
    miss = tried()
    seen = facts(miss, **known)
    if gone:
        seen = facts(ledger=settled(Ledger(), [miss]), **known)
    answer = quarantined(knobs_action(), seen, NOW)
    assert (answer is not None) is held
    if answer is not None:
        assert answer.reason is Reason.QUARANTINED
        assert "p-1" in answer.message
        assert "1.5 times" in answer.message


def test_a_pruned_miss_says_nothing_of_another_change() -> None:
    ledger = settled(Ledger(), [tried()])
    assert quarantined(knobs_action(workers=2), facts(ledger=ledger), NOW) is None


def test_what_people_took_back_is_not_done_again() -> None:
    taken = tried(result=VerdictResult.IMPROVED)
    assert quarantined(knobs_action(), facts(taken), NOW) is not None


# -- what waits for people -------------------------------------------------------------------------

UNCLEAR = {"phase": Phase.KEPT, "result": VerdictResult.INCONCLUSIVE}
OTHER = knobs_action(workers=2)


@pytest.mark.parametrize(
    ("before", "action", "known", "held"),
    [
        (tried(**UNCLEAR), OTHER, {}, True),
        (tried(**UNCLEAR), OTHER, {"resumed_at": NOW - 50}, False),
        (tried(**UNCLEAR), OTHER, {"resumed_at": NOW - 150}, True),
        (tried(**UNCLEAR), OTHER, {"now": under(load=60.0)}, False),
        (tried(**UNCLEAR), OTHER.model_copy(update={"cause": "another"}), {}, False),
        (tried(**UNCLEAR), OTHER.model_copy(update={"aim": Aim.SAVE}), {}, False),
        (tried(phase=Phase.KEPT, result=VerdictResult.IMPROVED), OTHER, {}, False),
        (tried(), OTHER, {}, False),
        (tried(replicas_action(3, 2), **UNCLEAR), replicas_action(5, 3), {}, False),
        (
            tried(knobs_action().model_copy(update={"summary": f"{TRIAL}x"}), **UNCLEAR),
            OTHER,
            {},
            False,
        ),
    ],
    ids=[
        "same cause",
        "people said so",
        "people said so before it",
        "something changed",
        "another cause",
        "a saving",
        "it helped",
        "it was undone",
        "growth has a rule of its own",
        "a trial claims no cause",
    ],
)
def test_an_undecided_action_holds_others_against_its_cause(
    before: BottleneckReport, action: Action, known: dict[str, Any], held: bool
) -> None:
    answer = undecided(action, facts(before, **known))
    assert (answer is not None) is held
    if answer is not None:
        assert answer.reason is Reason.UNDECIDED
        assert "kubectl bottleneck rollback p-1" in answer.message
        assert "kubectl bottleneck resume p -n ml" in answer.message


def revert(result: RevertResult) -> RevertVerdict:
    return RevertVerdict(result=result, at=moment(-80), reason="median +40%")


@pytest.mark.parametrize(
    ("status", "known", "reason"),
    [
        ({}, {}, Reason.COOLDOWN),
        ({"closed": -REVERT_MOST - 1}, {}, None),
        ({"revert": revert(RevertResult.RESTORED)}, {}, None),
        ({"revert": revert(RevertResult.NO_DATA)}, {}, None),
        ({"revert": revert(RevertResult.NOT_RESTORED)}, {}, Reason.NOT_RESTORED),
        ({"revert": revert(RevertResult.NOT_RESTORED)}, {"resumed_at": NOW}, None),
        ({"revert": revert(RevertResult.NOT_RESTORED)}, {"now": under(load=60.0)}, None),
        ({"revert": revert(RevertResult.NOT_RESTORED)}, {"policy_generation": 4}, None),
        ({"action": replicas_action(0, 2).model_copy(update={"aim": Aim.SAVE})}, {}, None),
    ],
    ids=[
        "being verified",
        "never verified",
        "restored",
        "no data",
        "not restored",
        "people said so",
        "load changed",
        "policy changed",
        "a sleep is not judged",
    ],
)
def test_an_undoing_has_to_prove_itself_first(
    status: dict[str, Any], known: dict[str, Any], reason: Reason | None
) -> None:
    answer = unsettled(facts(tried(**status), **known), NOW)
    assert (answer.reason if answer is not None else None) is reason


def test_nothing_is_tried_on_a_workload_that_did_not_come_back() -> None:
    seen = observation(signals=starved(), ranks=[talking()])
    wanted, knobs = spec(), frozenset(talking().settable)

    def answer(result: RevertResult) -> Plan | Refusal:
        undone = tried(replicas_action(), closed=-1000, revert=revert(result))
        known = facts(undone, settable=knobs)
        return decide(diagnose(seen, wanted.objectives), seen, wanted, known, NOW)

    lost = answer(RevertResult.NOT_RESTORED)
    assert isinstance(lost, Refusal)
    assert lost.reason is Reason.NOT_RESTORED
    assert "median +40%" in lost.message
    assert isinstance(answer(RevertResult.RESTORED), Plan)
