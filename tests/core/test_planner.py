"""From a diagnosis to one action, or to a refusal that says why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.policy import PolicySpec
from bottleneck_operator.api.report import (
    Action,
    HpaBounds,
    KnobsChange,
    Phase,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.decision import Decision, Facts, Plan, Refusal
from bottleneck_operator.decide.planner import decide
from bottleneck_operator.decide.remedies.common import WORTH
from bottleneck_operator.decide.scaling.queueing import LEAST_OCCUPANCY
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.observation import Observation, Signal, WorkloadType
from bottleneck_operator.observe.owners import Hpa
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    MISSING,
    NOW,
    SERVING,
    knobs_action,
    moment,
    observation,
    queueing,
    reading,
    report,
    sized,
    spec,
    starved,
    talking,
)

SETTABLE = frozenset({"dataLoader.workers", "dataLoader.prefetch"})
FACTS = Facts(policy_generation=3, replicas=2, ready=2, settable=SETTABLE)


def plan(seen: Observation, wanted: PolicySpec, facts: Facts = FACTS) -> Decision:
    return decide(diagnose(seen, wanted.objectives), seen, wanted, facts, NOW)


def trainer(ranks: int = 1, pods: int = 1, **changes: Signal | None) -> Observation:
    talks = [talking(rank=number) for number in range(ranks)]
    return observation(signals=starved(**changes), ranks=talks, expected=pods, streaming=pods)


def servers(processes: int = 2, pods: int = 2, **changes: Signal | None) -> Observation:
    talks = [talking(rank=number, epoch=f"s{number}") for number in range(processes)]
    return observation(WorkloadType.INFERENCE, queueing(**changes), talks, pods, pods)


def action(decision: Decision) -> Action:
    assert isinstance(decision, Plan), decision
    return decision.action


def refusal(decision: Decision) -> Refusal:
    assert isinstance(decision, Refusal), decision
    return decision


# -- what is done ----------------------------------------------------------------------------------


def test_a_starved_trainer_gets_loader_workers() -> None:
    done = action(plan(trainer(), spec()))
    assert (done.type, done.cause) == ("DataLoader", "loader-without-workers")
    assert done.replicas is None
    assert done.knobs is not None
    assert done.knobs.generation == 1
    assert done.knobs.desired == {"dataLoader.workers": 4, "dataLoader.prefetch": 4}
    assert done.knobs.replaces == {"dataLoader.workers": 0, "dataLoader.prefetch": 2}
    assert done.prediction is not None
    # A step of 0.32 s, a fifth of it computing, on 4 CPUs: the CPUs bind at a quarter of its work,
    # and a twentieth of the loading is waiting.
    assert done.prediction.before == 100
    assert done.prediction.after == pytest.approx(100 * 4 / (0.2 + 0.8 * 0.95), abs=0.001)


def test_no_more_workers_than_their_cpus_can_feed() -> None:
    two_cpus = trainer(cpu_availableCores=reading(2, "cores"))
    done = action(plan(two_cpus, spec(actions={"dataLoader": {"maxWorkers": 64}})))
    assert done.knobs is not None
    assert done.knobs.desired["dataLoader.workers"] == 2


def test_no_more_workers_than_the_policy_allows() -> None:
    many_cpus = trainer(cpu_availableCores=reading(64, "cores"))
    done = action(plan(many_cpus, spec(actions={"dataLoader": {"maxWorkers": 3}})))
    assert done.knobs is not None
    assert done.knobs.desired["dataLoader.workers"] == 3


def test_a_prefetch_that_somebody_raised_is_not_lowered() -> None:
    knobs = {"dataLoader.workers": 0, "dataLoader.prefetch": 8}
    seen = observation(signals=starved(), ranks=[talking(knobs=knobs)])
    generous = spec(actions={"dataLoader": {"maxWorkers": 4, "maxPrefetch": 16}})
    done = action(plan(seen, generous)).knobs
    assert done is not None
    assert done.desired["dataLoader.prefetch"] == 8


@pytest.mark.parametrize(
    ("settable", "allowed", "found"),
    [
        ({"dataLoader.persistentWorkers", "dataLoader.pinMemory"}, True, {"on"}),
        ({"dataLoader.persistentWorkers"}, True, {"on", None}),
        ({"dataLoader.persistentWorkers", "dataLoader.pinMemory"}, False, {None}),
        (set(), True, {None}),
    ],
    ids=["both", "no GPU to pin for", "the policy does not say so", "the process cannot"],
)
def test_what_goes_with_more_workers(
    settable: set[str], allowed: bool, found: set[str | None]
) -> None:
    knobs = {"dataLoader.persistentWorkers": "off", "dataLoader.pinMemory": "off"}
    seen = observation(signals=starved(), ranks=[talking(knobs=knobs)])
    bounds = {"maxWorkers": 8, "persistentWorkers": allowed, "pinMemory": allowed}
    facts = replace(FACTS, settable=SETTABLE | settable)
    change = action(plan(seen, spec(actions={"dataLoader": bounds}), facts)).knobs
    assert change is not None
    assert {change.desired.get(name) for name in knobs} == found
    assert all(change.replaces[name] == "off" for name in knobs if name in change.desired)


def test_knobs_in_force_are_carried_on_and_come_back_when_undone() -> None:
    facts = replace(FACTS, generation=6, knobs={"other.knob": 7, "dataLoader.workers": 0})
    done = action(plan(trainer(), spec(), facts)).knobs
    assert done is not None
    assert done.generation == 7
    assert (done.desired["other.knob"], done.replaces["other.knob"]) == (7, 7)


def test_servers_over_their_objective_get_replicas_for_the_wanted_occupancy() -> None:
    # 12 requests a second of 0.1 s are 1.2 busy servers: 2 at 0.6.
    crowded = servers(inference_arrivalRate=reading(24, "requests/s"))
    done = action(plan(crowded, spec(**SERVING)))
    assert (done.type, done.cause, done.knobs) == ("Replicas", "queueing", None)
    assert done.replicas is not None
    assert (done.replicas.replaces, done.replicas.desired) == (2, 4)
    assert done.prediction is not None
    assert done.prediction.after < done.prediction.before


def test_a_server_that_serves_several_at_once_needs_fewer_replicas() -> None:
    rate = reading(60, "requests/s")
    one = servers(inference_arrivalRate=rate, inference_concurrency=reading(1, "requests"))
    four = servers(inference_arrivalRate=rate, inference_concurrency=reading(4, "requests"))
    wide = spec(**SERVING, actions={"replicas": {"max": 50}})
    assert _desired(plan(one, wide)) == 10
    assert _desired(plan(four, wide)) == 3


def test_a_replica_of_several_processes_counts_all_of_them() -> None:
    rate = reading(60, "requests/s")
    wide = spec(**SERVING, actions={"replicas": {"max": 50}})
    crowd = servers(processes=4, pods=2, inference_arrivalRate=rate)
    assert _desired(plan(crowd, wide)) == 5


def test_growth_begins_at_the_minimum() -> None:
    few = replace(FACTS, replicas=1, ready=1)
    wanted = spec(**SERVING, actions={"replicas": {"min": 5, "max": 9}})
    assert _desired(plan(servers(1, 1), wanted, few)) == 5


def _desired(decision: Decision) -> int:
    change = action(decision).replicas
    assert change is not None
    return change.desired


# -- what is refused -------------------------------------------------------------------------------

OPEN = report(knobs_action(), Phase.VERIFYING, applied_at=moment(-20))
SLOW = servers(inference_serviceSeconds=reading(1, "s"))
HOT = {"disruption": "HotOnly"}
HPA = replace(FACTS, hpa=Hpa("autoscaler", HpaBounds(min=1, max=4)))
GITOPS = replace(FACTS, gitops="argocd-controller")
PENDING = replace(FACTS, replicas=4, ready=2)
FULL = replace(FACTS, replicas=6, ready=6)
RECENT = report(knobs_action(1, 1), Phase.KEPT, applied_at=moment(-90), closed_at=moment(-20))
HOUR = tuple(
    report(knobs_action(n, 1), Phase.KEPT, f"p-{n}", applied_at=moment(-n), closed_at=moment(-n))
    for n in range(100, 110)
)


@pytest.mark.parametrize(
    ("seen", "wanted", "facts", "reason"),
    [
        (trainer(), spec(paused=True), FACTS, Reason.PAUSED),
        (trainer(training_dataShare=MISSING), spec(), FACTS, Reason.NO_DATA),
        (trainer(training_dataShare=reading(0.1)), spec(), FACTS, Reason.OBJECTIVES_MET),
        (trainer(dataLoader_workers=None), spec(), FACTS, Reason.CAUSE_UNKNOWN),
        (trainer(), spec(actions={}), FACTS, Reason.ACTION_NOT_ALLOWED),
        (trainer(), spec(actions={"replicas": {"max": 9}}), FACTS, Reason.ACTION_NOT_ALLOWED),
        (trainer(), spec(), replace(FACTS, settable=frozenset()), Reason.KNOB_NOT_SETTABLE),
        (trainer(training_stepSeconds=None), spec(), FACTS, Reason.NO_DATA),
        (servers(), spec(**SERVING, limits=HOT), FACTS, Reason.DISRUPTION_NOT_ALLOWED),
        (
            trainer(dataLoader_workers=reading(4, "workers")),
            spec(),
            FACTS,
            Reason.AT_MAXIMUM,
        ),
        (trainer(cpu_availableCores=reading(1, "cores")), spec(), FACTS, Reason.NO_REMEDY),
        (trainer(), spec(), replace(FACTS, reports=(RECENT,)), Reason.COOLDOWN),
        (trainer(), spec(), replace(FACTS, reports=(OPEN,)), Reason.COOLDOWN),
        (trainer(), spec(), replace(FACTS, reports=HOUR), Reason.ACTIONS_PER_HOUR),
        (servers(), spec(**SERVING, actions={}), FACTS, Reason.ACTION_NOT_ALLOWED),
        (servers(), spec(**SERVING), replace(FACTS, replicas=None), Reason.TARGET_NOT_SUPPORTED),
        (servers(), spec(**SERVING), HPA, Reason.REPLICAS_OWNED_BY_HPA),
        (servers(), spec(**SERVING), GITOPS, Reason.REPLICAS_OWNED_BY_GITOPS),
        (servers(), spec(**SERVING), PENDING, Reason.REPLICAS_PENDING),
        (servers(), spec(**SERVING), FULL, Reason.AT_MAXIMUM),
        (servers(inference_arrivalRate=MISSING), spec(**SERVING), FACTS, Reason.NO_DATA),
        (SLOW, spec(**SERVING), FACTS, Reason.ACTION_NOT_ALLOWED),
    ],
    ids=[
        "paused",
        "no data",
        "objectives met",
        "no confirmed cause",
        "nothing allowed",
        "only replicas allowed for a starved trainer",
        "the process cannot change its loader",
        "no step time",
        "only settings may be changed",
        "workers at their maximum",
        "one CPU, already busy by the model of it",
        "cooldown",
        "another action is open",
        "ten actions in an hour",
        "replicas not allowed",
        "no scale subresource",
        "an HPA owns the replicas",
        "a repository owns the replicas",
        "replicas pending",
        "replicas at their maximum",
        "no arrival rate",
        "the model is slow",
    ],
)
def test_nothing_is_done(seen: Observation, wanted: PolicySpec, facts: Facts, reason: str) -> None:
    answer = refusal(plan(seen, wanted, facts))
    assert answer.reason == reason
    assert answer.message


def test_a_refusal_for_lack_of_data_names_the_objective() -> None:
    message = refusal(plan(trainer(training_dataShare=MISSING), spec())).message
    assert "DataWait: not measured" in message


@pytest.mark.parametrize(("expected", "streaming"), [(0, 0), (1, 0), (3, 2)])
def test_whatever_was_diagnosed_nothing_is_done_while_a_replica_is_silent(
    expected: int, streaming: int
) -> None:
    """Such figures cannot come from silent replicas; should they ever, they do not count."""
    seen = replace(trainer(), expected=expected, streaming=streaming)
    answer = refusal(plan(seen, spec()))
    assert answer.reason == Reason.NO_REMEDY
    assert "Set num_workers" in answer.message


def test_where_the_means_are_not_given_people_are_told_what_to_do() -> None:
    message = refusal(plan(SLOW, spec(**SERVING))).message
    assert "precision: {allowed: [bf16]}" in message
    assert "More replicas will not help" in message


def test_the_cheapest_action_that_is_predicted_to_do_comes_first() -> None:
    """A queue behind a batcher: larger batches cost nothing, replicas cost devices."""
    knobs = {"batch.maxSize": 4, "batch.delayMilliseconds": 5}
    both = spec(**SERVING, actions={"replicas": {"max": 9}, "batchSize": {"max": 64}})
    facts = replace(FACTS, settable=frozenset(knobs))

    def batching(rate: float) -> Observation:
        signals = {
            **queueing(inference_arrivalRate=reading(rate), inference_serviceSeconds=reading(0.05)),
            "inference.batchDelaySeconds": reading(0.005, "s"),
            "inference.batchSize": reading(4.0),
        }
        return observation(WorkloadType.INFERENCE, signals, [talking(knobs=knobs)], 1, 1)

    assert action(plan(batching(70), both, facts)).type == "BatchSize"
    # Too slow for that to do: what returns more is tried first.
    decision = plan(batching(200), both, facts)
    chosen = action(decision)
    assert chosen.type == "Replicas"
    assert chosen.cost is not None
    assert chosen.replicas is not None
    assert chosen.cost.replicas == chosen.replicas.desired - chosen.replicas.replaces
    assert isinstance(decision, Plan)
    (other,) = [each for each in decision.alternatives if each.type == "BatchSize"]
    assert "batch.maxSize" in other.summary
    assert "return less" in other.reason or "not predicted" in other.reason


def test_a_way_that_proved_right_is_gone_further() -> None:
    knobs = {"batch.micro": 8, "batch.accumulation": 8}
    signals = {"training.samplesPerSecond": reading(1000 / 1.125, "samples/s")}
    seen = observation(signals=signals, ranks=[talking(knobs=knobs)])
    wanted = spec(
        objectives={"goodput": {"min": "100000"}}, actions={"batchSize": {"min": 1, "max": 64}}
    )
    before = {"batch.micro": 2, "batch.accumulation": 32}
    grown = Action(
        type="BatchSize",
        summary="batch.micro 2 → 8",
        cause="host-bound",
        knobs=KnobsChange(generation=1, desired=knobs, replaces=before),
    )
    verdict = Verdict(result=VerdictResult.IMPROVED, before=1000 / 1.5, after=1000 / 1.125)
    facts = replace(FACTS, settable=frozenset(knobs))
    assert refusal(plan(seen, wanted, facts)).reason is Reason.CAUSE_UNKNOWN  # nor a trial

    kept = report(
        grown, Phase.KEPT, verdict=verdict, applied_at=moment(-920), closed_at=moment(-900)
    )
    onward = action(plan(seen, wanted, replace(facts, reports=(kept,))))
    assert onward.knobs is not None
    assert onward.knobs.desired["batch.micro"] == 32
    recent = report(
        grown, Phase.KEPT, verdict=verdict, applied_at=moment(-30), closed_at=moment(-9)
    )
    held = plan(seen, wanted, replace(facts, reports=(recent,)))
    assert refusal(held).reason is Reason.COOLDOWN


def test_a_loader_at_its_maximum_says_that_replicas_would_not_help() -> None:
    at_most = trainer(dataLoader_workers=reading(4, "workers"))
    assert "More replicas would not help" in refusal(plan(at_most, spec())).message


def test_a_refusal_in_time_says_when_to_look_again() -> None:
    assert refusal(plan(trainer(), spec(), replace(FACTS, reports=(RECENT,)))).retry_after == 40
    waiting = refusal(plan(trainer(), spec(), replace(FACTS, reports=HOUR)))
    assert waiting.retry_after == 3600 - 109


@pytest.mark.parametrize(
    "reports",
    [
        (report(knobs_action(), Phase.ABANDONED, closed_at=moment(-1)),),
        (report(knobs_action(1, 1), Phase.RECOMMENDED, approval=True),),
        (report(knobs_action(1, 1), Phase.KEPT, applied_at=moment(-90), closed_at=moment(-60)),),
        tuple(
            report(knobs_action(n, 1), Phase.KEPT, f"p-{n}", applied_at=moment(-3600 - n))
            for n in range(1, 20)
        ),
    ],
    ids=["nothing was done", "only recommended", "the cooldown is over", "more than an hour ago"],
)
def test_earlier_reports_that_do_not_hold_the_next_action_up(reports: Any) -> None:
    assert action(plan(trainer(), spec(), replace(FACTS, reports=reports)))


def _tried(result: VerdictResult | None, phase: Phase, **changes: Any) -> Facts:
    verdict = Verdict(result=result) if result else None
    tried = report(
        action(plan(trainer(), spec())),
        phase,
        verdict=verdict,
        applied_at=moment(-900),
        closed_at=moment(-700),
        **changes,
    )
    return replace(FACTS, generation=2, reports=(tried,))


@pytest.mark.parametrize(
    ("result", "phase", "again"),
    [
        (VerdictResult.WORSE, Phase.REVERTED, False),
        (VerdictResult.NO_EFFECT, Phase.REVERTED, False),
        (VerdictResult.INCONCLUSIVE, Phase.KEPT, False),
        (None, Phase.REVERTED, False),
        (VerdictResult.IMPROVED, Phase.KEPT, True),
        (None, Phase.ABANDONED, True),
    ],
    ids=["worse", "no effect", "unclear", "refused by a rank", "helped", "never done"],
)
def test_what_did_not_help_is_not_tried_again(
    result: VerdictResult | None, phase: Phase, again: bool
) -> None:
    answer = plan(trainer(), spec(), _tried(result, phase))
    assert isinstance(answer, Plan) is again
    if isinstance(answer, Refusal):
        held = result is VerdictResult.INCONCLUSIVE
        assert answer.reason is (Reason.UNDECIDED if held else Reason.QUARANTINED)
        assert "p-1" in answer.message


def test_a_resize_that_did_not_help_is_not_tried_again_with_another_figure() -> None:
    wanted = spec(actions={"resources": {"cpu": {"max": "8"}}})
    facts = replace(FACTS, containers={"main": (sized(),)})
    first = action(plan(trainer(cpu_throttledShare=reading(0.6)), wanted, facts))
    missed = report(first, Phase.REVERTED, applied_at=moment(-900), closed_at=moment(-600))
    again = plan(
        trainer(cpu_throttledShare=reading(0.62)), wanted, replace(facts, reports=(missed,))
    )
    assert refusal(again).reason is Reason.QUARANTINED


def test_what_did_not_help_is_tried_again_when_the_policy_changes() -> None:
    facts = _tried(VerdictResult.WORSE, Phase.REVERTED)
    assert action(plan(trainer(), spec(), replace(facts, policy_generation=4)))


def test_another_change_for_the_same_cause_is_not_quarantined() -> None:
    facts = _tried(VerdictResult.WORSE, Phase.REVERTED)
    smaller = spec(actions={"dataLoader": {"maxWorkers": 2}})
    assert action(plan(trainer(), smaller, facts))


def test_what_only_follows_from_a_cause_with_a_remedy_is_left_alone() -> None:
    throttled = trainer(cpu_throttledShare=reading(0.9))
    assert diagnose(throttled, spec().objectives).causes[0].id == "cpu-throttled"
    answer = refusal(plan(throttled, spec()))
    assert answer.reason is Reason.ACTION_NOT_ALLOWED
    assert "resources: {cpu" in answer.message


# -- properties ------------------------------------------------------------------------------------

SPECS = st.builds(
    lambda replicas, loader, limits, paused: spec(
        actions={"replicas": {"min": min(replicas), "max": max(replicas)}, "dataLoader": loader},
        limits=limits,
        paused=paused,
    ),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.fixed_dictionaries({"maxWorkers": st.integers(0, 64), "maxPrefetch": st.integers(1, 64)}),
    st.fixed_dictionaries({"actionsPerHour": st.integers(1, 10)}),
    st.booleans(),
)
SECONDS = st.floats(1e-6, 1e4)
STARVED = st.builds(
    lambda share, step, rate, workers, cpus, ranks, throttled: trainer(
        ranks,
        training_dataShare=reading(share),
        training_stepSeconds=reading(step, "s"),
        training_samplesPerSecond=reading(rate, "samples/s"),
        dataLoader_workers=workers,
        cpu_availableCores=cpus,
        cpu_throttledShare=reading(throttled),
    ),
    st.floats(0.2, 1.5, exclude_min=True),
    SECONDS,
    st.floats(0, 1e6),
    st.sampled_from([0, 0, 1, 2, 8, 64]).map(lambda n: reading(n, "workers")),
    st.sampled_from([None, 0.0, 0.5, 2.0, 16.0, 256.0]).map(lambda n: n and reading(n, "cores")),
    st.integers(1, 16),
    st.floats(0, 1),
)
CROWDED = st.builds(
    lambda rate, service, places, processes: servers(
        processes,
        inference_arrivalRate=reading(rate, "requests/s"),
        inference_serviceSeconds=reading(service, "s"),
        inference_concurrency=reading(places, "requests"),
    ),
    st.floats(0, 1e5),
    st.floats(0, 0.2499),
    st.floats(1, 64),
    st.integers(0, 8),
)


@CASES
@given(STARVED, SPECS, st.integers(1, 50))
def test_a_starved_trainer_never_gets_replicas_and_its_knobs_stay_within_bounds(
    seen: Observation, wanted: PolicySpec, replicas: int
) -> None:
    # Even where all that sizing replicas takes is known.
    seen = replace(seen, signals={**queueing(), **seen.signals})
    answer = plan(seen, wanted, replace(FACTS, replicas=replicas, ready=replicas))
    if isinstance(answer, Plan):
        assert answer.action.replicas is None
        assert answer.action.type == "DataLoader"
        knobs, bounds = answer.action.knobs, wanted.actions.data_loader
        assert knobs is not None
        assert bounds is not None
        before = knobs.replaces["dataLoader.workers"]
        assert before < knobs.desired["dataLoader.workers"] <= bounds.max_workers
        assert 1 <= knobs.desired["dataLoader.prefetch"] <= bounds.max_prefetch
        prediction = answer.action.prediction
        assert prediction is not None
        assert prediction.after >= prediction.before * WORTH * 0.999 - 0.001


@CASES
@given(CROWDED, SPECS, st.integers(1, 60))
def test_replicas_only_grow_and_stay_within_bounds(
    seen: Observation, wanted: PolicySpec, replicas: int
) -> None:
    wanted = wanted.model_copy(update={"objectives": spec(**SERVING).objectives})
    answer = plan(seen, wanted, replace(FACTS, replicas=replicas, ready=replicas))
    if isinstance(answer, Plan):
        change, bounds = answer.action.replicas, wanted.actions.replicas
        assert change is not None
        assert bounds is not None
        assert change.replaces == replicas < change.desired
        assert bounds.min <= change.desired <= bounds.max
        prediction = answer.action.prediction
        assert prediction is not None
        assert prediction.after <= prediction.before


@CASES
@given(STARVED, st.integers(0, 63))
def test_more_allowed_workers_never_predict_less(seen: Observation, workers: int) -> None:
    fewer = plan(seen, spec(actions={"dataLoader": {"maxWorkers": workers}}))
    more = plan(seen, spec(actions={"dataLoader": {"maxWorkers": workers + 1}}))
    if isinstance(fewer, Plan):
        one, other = fewer.action.prediction, action(more).prediction
        assert one is not None
        assert other is not None
        assert other.after >= one.after


@CASES
@given(st.floats(13, 1000), st.floats(0, 500))
def test_a_higher_load_never_wants_fewer_replicas(rate: float, more: float) -> None:
    wide = spec(**SERVING, actions={"replicas": {"max": 10000}})
    low = _desired(plan(servers(inference_arrivalRate=reading(rate, "r")), wide))
    high = _desired(plan(servers(inference_arrivalRate=reading(rate + more, "r")), wide))
    assert low <= high
    assert rate * 0.1 / low <= LEAST_OCCUPANCY + 1e-9
