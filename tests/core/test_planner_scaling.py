"""When replicas follow the load: what may begin when, what counts, and what is never done."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.policy import PolicySpec
from bottleneck_operator.api.report import (
    Action,
    Aim,
    BottleneckReport,
    HpaBounds,
    Phase,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.decision import Decision, Facts, Plan, Refusal
from bottleneck_operator.decide.planner import decide, follow
from bottleneck_operator.decide.remedies.common import SURPLUS
from bottleneck_operator.decide.remedies.replicas import DEMAND
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.kube import KubeError
from bottleneck_operator.observe.observation import Observation, WorkloadType
from bottleneck_operator.observe.owners import Hpa
from bottleneck_operator.observe.trail import Trail

from .builders import (
    NOW,
    SERVING,
    knobs_action,
    moment,
    observation,
    queueing,
    reading,
    replicas_action,
    report,
    spec,
    talking,
)
from .loop_world import World, looked_after
from .objects import Object, deployment
from .objects import pod as pod_document

WIDE: dict[str, Any] = {**SERVING, "actions": {"replicas": {"max": 40}}}


def served(
    rate: float = 12, at: float = 0, pods: int = 2, streaming: int = 2, **more: float
) -> Observation:
    """Servers of 0.1 s and one place each that meet their objective, unless told otherwise."""
    figures = {"latency": 0.12, "queueShare": 0.1, "occupancy": 0.5, "arrivalRate": rate, **more}
    changes: Any = {f"inference_{name}": reading(value) for name, value in figures.items()}
    talks = [talking(rank=number, epoch=f"s{number}") for number in range(pods)]
    found = observation(WorkloadType.INFERENCE, queueing(**changes), talks, pods, streaming)
    return replace(found, time=NOW + at)


BREACHED: dict[str, float] = {"latency": 2.0, "queueShare": 0.9, "occupancy": 0.99}


def trail(*rates: float, pods: int = 2) -> Trail:
    """One figure a second until now."""
    found = Trail()
    for index, rate in enumerate(rates):
        found.note(served(rate, index + 1 - len(rates), pods, pods))
    return found


def facts(replicas: int = 2, *reports: BottleneckReport, **changes: Any) -> Facts:
    fields: dict[str, Any] = {"ready": replicas, "trail": trail(*[12.0] * 60), **changes}
    return Facts(policy_generation=3, replicas=replicas, reports=reports, **fields)


def ask(seen: Observation, known: Facts, wanted: PolicySpec | None = None) -> Decision:
    wanted = wanted or spec(**WIDE)
    return decide(diagnose(seen, wanted.objectives), seen, wanted, known, NOW)


def further(seen: Observation, known: Facts, wanted: PolicySpec | None = None) -> Plan | None:
    wanted = wanted or spec(**WIDE)
    return follow(diagnose(seen, wanted.objectives), seen, wanted, known, NOW)


def change(decision: Decision | None) -> tuple[int, int]:
    assert isinstance(decision, Plan), decision
    assert decision.action.replicas is not None
    return decision.action.replicas.replaces, decision.action.replicas.desired


def reason(decision: Decision) -> Reason:
    assert isinstance(decision, Refusal), decision
    return decision.reason


def growth(
    phase: Phase, desired: int = 2, name: str = "p-1", supersedes: str = "", **status: Any
) -> BottleneckReport:
    found = report(replicas_action(desired, 1), phase, name, **status)
    return found.model_copy(
        update={"spec": found.spec.model_copy(update={"supersedes": supersedes})}
    )


# -- before the breach -----------------------------------------------------------------------------


def test_growth_comes_before_the_breach_and_says_why() -> None:
    decision = ask(served(16), facts(trail=trail(*[16.0] * 60)))
    assert change(decision) == (2, 3)
    assert isinstance(decision, Plan)
    assert (decision.action.aim, decision.action.cause) == (Aim.IMPROVE, DEMAND)
    assert decision.symptom is not None
    assert decision.symptom.text == "the load has been 16 requests/s, with 2 replicas"


@pytest.mark.parametrize(
    ("seen", "known", "wanted"),
    [
        (served(12), facts(), {}),
        (served(60, streaming=1), facts(), {}),
        (served(60), facts(unplaced="p-3: 0/1 nodes are available", ready=1), {}),
        (served(60), facts(hpa=Hpa("other", HpaBounds(min=1, max=4))), {}),
        (served(60), facts(gitops="argocd"), {}),
        (served(60), facts(), {"actions": {}}),
        (served(60), facts(), {"actions": {"replicas": {"max": 2}}}),
        (served(60), facts(), {"limits": {"disruption": "HotOnly"}}),
        (served(60), facts(replicas=0), {}),
    ],
    ids=["enough", "silent", "no room", "HPA", "GitOps", "absent", "bound", "means", "asleep"],
)
def test_no_growth_before_the_breach(seen: Observation, known: Facts, wanted: Any) -> None:
    assert reason(ask(seen, known, spec(**{**WIDE, **wanted}))) is Reason.OBJECTIVES_MET


# -- while an earlier change is open ---------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.APPLIED, Phase.VERIFYING])
def test_a_burst_does_not_wait_for_a_verdict(phase: Phase) -> None:
    found = further(served(60, **BREACHED), facts(2, growth(phase, applied_at=moment(-5))))
    assert found is not None
    assert found.supersedes == "p-1"
    assert change(found)[0] == 2
    assert change(found)[1] >= 10


BURST = served(60, **BREACHED)


@pytest.mark.parametrize(
    ("seen", "known", "wanted"),
    [
        (BURST, facts(2, growth(Phase.PLANNED)), {}),
        (BURST, facts(2, growth(Phase.REVERTING)), {}),
        (BURST, facts(2, report(knobs_action(), Phase.VERIFYING)), {}),
        (BURST, facts(3, growth(Phase.APPLIED)), {}),
        (BURST, facts(2, growth(Phase.APPLIED)), {"mode": "Recommend"}),
        (BURST, facts(2, growth(Phase.APPLIED)), {"paused": True}),
        (served(60, streaming=1, **BREACHED), facts(2, growth(Phase.APPLIED)), {}),
        (served(12), facts(2, growth(Phase.APPLIED)), {}),
        (BURST, facts(2, growth(Phase.APPLIED), ready=1, unplaced="no node"), {}),
        (
            BURST,
            facts(2, growth(Phase.APPLIED, name="p-9", applied_at=moment(-5))),
            {"limits": {"actionsPerHour": 1}},
        ),
    ],
    ids=[
        "not begun",
        "being undone",
        "another kind of action",
        "somebody else set the number",
        "people are asked",
        "paused",
        "silent",
        "enough",
        "no room",
        "the hour is used up",
    ],
)
def test_one_at_a_time_stays_for_all_else(seen: Observation, known: Facts, wanted: Any) -> None:
    assert further(seen, known, spec(**{**WIDE, **wanted})) is None


def test_the_steps_of_a_burst_count_once() -> None:
    chain = [
        growth(
            Phase.KEPT,
            name=f"p-{number}",
            supersedes=f"p-{number - 1}",
            applied_at=moment(-90),
            closed_at=moment(-80),
        )
        for number in range(1, 6)
    ]
    tight = spec(**WIDE, limits={"actionsPerHour": 2})
    assert isinstance(ask(BURST, facts(2, *chain), tight), Plan)
    other = growth(Phase.KEPT, name="p-8", applied_at=moment(-900), closed_at=moment(-800))
    assert reason(ask(BURST, facts(2, *chain, other), tight)) is Reason.ACTIONS_PER_HOUR


def test_the_cooldown_holds_experiments_and_not_what_follows_the_load() -> None:
    before = growth(Phase.KEPT, applied_at=moment(-50), closed_at=moment(-20))
    assert isinstance(ask(BURST, facts(2, before)), Plan)
    # The model finds that there are enough, so one more is an experiment.
    calm = served(4, **BREACHED)
    assert reason(ask(calm, facts(2, before, trail=trail(*[4.0] * 60)))) is Reason.COOLDOWN
    assert change(ask(calm, facts(2, trail=trail(*[4.0] * 60)))) == (2, 3)


@pytest.mark.parametrize(
    ("tried", "ago", "quarantined"),
    [(40, 100, True), (5, 100, False), (40, 3000, False)],
    ids=["as many", "fewer", "long ago"],
)
def test_replicas_added_in_vain_forbid_no_more_and_not_for_ever(
    tried: int, ago: float, quarantined: bool
) -> None:
    missed = growth(
        Phase.REVERTED,
        tried,
        applied_at=moment(-ago - 60),
        closed_at=moment(-ago),
        verdict=Verdict(result=VerdictResult.NO_EFFECT),
    )
    decision = ask(BURST, facts(2, missed))
    assert isinstance(decision, Refusal) is quarantined
    if quarantined:
        assert reason(decision) is Reason.QUARANTINED


def test_growth_that_kept_the_objective_was_not_in_vain() -> None:
    kept = growth(
        Phase.KEPT,
        40,
        applied_at=moment(-300),
        closed_at=moment(-200),
        verdict=Verdict(result=VerdictResult.NO_EFFECT),
    )
    assert isinstance(ask(BURST, facts(2, kept)), Plan)


def test_without_room_there_is_no_further_growth_and_the_scheduler_has_the_word() -> None:
    words = "ranker-3: 0/1 nodes are available: 1 Insufficient cpu"
    decision = ask(BURST, facts(2, ready=1, unplaced=words))
    assert reason(decision) is Reason.CAPACITY_EXHAUSTED
    assert isinstance(decision, Refusal)
    assert words in decision.message


# -- less ------------------------------------------------------------------------------------------

CALM = trail(*[4.0] * 620, pods=6)
RICH = served(4, pods=6, streaming=6)


def test_what_was_too_much_for_the_whole_window_is_given_back() -> None:
    decision = ask(RICH, facts(6, trail=CALM))
    assert change(decision) == (6, 3)
    assert isinstance(decision, Plan)
    assert (decision.action.aim, decision.action.cause) == (Aim.SAVE, SURPLUS)
    assert decision.symptom is not None
    assert decision.symptom.text == "3 of 6 replicas carried the highest load of the last 10m"


def _saved(number: int) -> BottleneckReport:
    saving: Action = replicas_action(1, 2).model_copy(update={"aim": Aim.SAVE})
    at = -600 * number - 100
    return report(saving, Phase.KEPT, f"p-{number}", applied_at=moment(at), closed_at=moment(at))


@pytest.mark.parametrize(
    ("seen", "known", "wanted"),
    [
        (RICH, facts(6, trail=CALM), {"actions": {"replicas": {"min": 6, "max": 9}}}),
        (RICH, facts(6, trail=trail(*[4.0] * 300, pods=6)), {}),
        (RICH, facts(6, trail=Trail()), {}),
        (RICH, facts(6, trail=CALM, ready=5), {}),
        (served(4, pods=7, streaming=7), facts(6, trail=CALM), {}),
        (served(4, pods=6, streaming=5), facts(6, trail=CALM), {}),
        (RICH, facts(6, trail=CALM, hpa=Hpa("other", HpaBounds(min=1, max=4))), {}),
        (RICH, facts(6, *(_saved(n) for n in range(1, 6)), trail=CALM), {}),
        (
            RICH,
            facts(6, trail=CALM),
            {"actions": {"replicas": {"max": 9, "stabilization": "30m"}}},
        ),
    ],
    ids=[
        "the minimum",
        "not long enough",
        "a new process",
        "one is starting",
        "a rollout",
        "silent",
        "HPA",
        "half of the hour is kept for growth",
        "a longer window",
    ],
)
def test_nothing_is_given_back(seen: Observation, known: Facts, wanted: Any) -> None:
    assert reason(ask(seen, known, spec(**{**WIDE, **wanted}))) is Reason.OBJECTIVES_MET


# -- written down before anything changes ----------------------------------------------------------


def chained(scale: Object, refuses: bool = False) -> World:
    """A Deployment of three replicas by p-1; p-2, which wants five, is recorded and not begun."""
    policy = looked_after({"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"})
    allowed = spec(actions={"replicas": {"max": 8}}).actions
    allowing = policy.spec.model_copy(update={"actions": allowed})
    world = World(deployment(3, 3), policy.model_copy(update={"spec": allowing}))
    get, patch = world.api.get, world.api.patch

    async def scaled_get(path: str, **query: str) -> Object:
        if path.endswith("/scale"):
            return {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": scale["replicas"]}}
        return await get(path, **query)

    async def scaled_patch(path: str, body: Any, content_type: str = "") -> Object:
        if path.endswith("/scale"):
            if scale.pop("refuses", refuses):
                raise KubeError(503, "away")
            scale["replicas"] = world.api.target["spec"]["replicas"] = body["spec"]["replicas"]
            return {}
        return await patch(path, body, content_type)

    door: Any = world.api
    door.get, door.patch = scaled_get, scaled_patch
    for number in range(3):
        world.pods(pod_document(f"ranker-{number}"))
    world.report(growth(Phase.APPLIED, 3, applied_at=moment(-20)))
    older = growth(Phase.PLANNED, 5, "p-2", "p-1")
    five = older.spec.action.model_copy(  # type: ignore[union-attr]
        update={"replicas": replicas_action(5, 3).replicas}
    )
    world.report(
        older.model_copy(
            update={
                "spec": older.spec.model_copy(update={"action": five, "decided_at": moment(-1)})
            }
        )
    )
    return world


@pytest.mark.parametrize("already", [3, 5], ids=["nothing done yet", "crashed after the change"])
def test_whoever_finds_the_two_reports_closes_one_and_goes_on_with_the_other(
    already: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    scale = {"replicas": 3}
    world = chained(scale)
    scale["replicas"] = world.api.target["spec"]["replicas"] = already
    world.turn(0)
    first, second = (world.api.reports[name]["status"] for name in ("p-1", "p-2"))
    assert first["phase"] == "Kept"
    assert first["timeline"][-1]["message"] == "carried further by p-2"
    assert second["phase"] == "Applied"
    assert scale["replicas"] == 5


def test_an_api_server_that_is_away_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    scale: Object = {"replicas": 3, "refuses": True}
    world = chained(scale)
    world.turn(0)
    assert world.api.reports["p-2"]["status"]["phase"] == "Planned"
    assert scale["replicas"] == 3
    world.turn(1)
    assert world.api.reports["p-2"]["status"]["phase"] == "Applied"
    assert scale["replicas"] == 5
