"""The parts of a trade: what one replica more or less does, how the two sides stand to each other,
and what is read of pods and budgets."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from bottleneck_operator.api.report import (
    Action,
    Aim,
    BottleneckReport,
    Phase,
    ReplicasChange,
    Trade,
    TradeRole,
    Verdict,
)
from bottleneck_operator.decide.decision import Facts, Gift, Plan
from bottleneck_operator.decide.effects.standing import Progress
from bottleneck_operator.decide.lifecycle import Step, next_step
from bottleneck_operator.decide.marginal import forecast
from bottleneck_operator.decide.pool import Past
from bottleneck_operator.decide.pool_member import open_growth, past_of
from bottleneck_operator.decide.remedies.gift import give, take
from bottleneck_operator.decide.trading import (
    ANSWER_SECONDS,
    SETTLE_SECONDS,
    OtherSide,
    Side,
    other_side,
)
from bottleneck_operator.observe.checkpoints import since_checkpoint
from bottleneck_operator.observe.cluster import disruptions_allowed
from bottleneck_operator.observe.observation import Observation, Signal, WorkloadType
from bottleneck_operator.observe.pods import pod_of

from .builders import (
    MISSING,
    NOW,
    SERVING,
    history,
    moment,
    observation,
    queueing,
    rank,
    reading,
    replicas_action,
    report,
    sample,
    spec,
    starved,
)
from .objects import container
from .objects import pod as pod_document

GPU = "nvidia.com/gpu"
READY = Facts(ready=4)


# -- what one replica more or less does ------------------------------------------------------------


def serving(**changes: Signal | None) -> Observation:
    """Four servers that are half busy, at 100 ms of 250."""
    figures: dict[str, Any] = {
        "inference_latency": reading(0.1, "s", "p95"),
        "inference_arrivalRate": reading(40.0, "requests/s"),
        "inference_serviceSeconds": reading(0.05, "s"),
        **changes,
    }
    return observation(WorkloadType.INFERENCE, queueing(**figures), expected=4, streaming=4)


SERVES = spec(**SERVING)


def test_without_a_change_it_is_what_was_measured() -> None:
    found = forecast(serving(), SERVES, READY, 4)
    assert found is not None
    assert (found.strain, found.value) == pytest.approx((0.4, 0.1))
    assert found.text == "p95 100 ms of 250 ms"


def test_the_others_carry_what_one_leaves() -> None:
    # At two thirds busy in place of a half M/M/1 takes 1/(1 - 2/3) : 1/(1 - 1/2) times as long.
    found = forecast(serving(), SERVES, READY, 3)
    assert found is not None
    assert found.value == pytest.approx(0.1 * 3 / 2, rel=0.1)
    assert forecast(serving(), SERVES, READY, 2) == forecast(serving(), SERVES, READY, 1)
    full = forecast(serving(), SERVES, READY, 2)
    assert full is not None
    assert math.isinf(full.strain)
    assert full.text == "p95 beyond all bounds of 250 ms"


def test_more_replicas_never_make_it_worse_than_fewer() -> None:
    found = [forecast(serving(), SERVES, READY, replicas) for replicas in range(1, 12)]
    strains = [each.strain for each in found if each]
    assert len(strains) == 11
    assert strains == sorted(strains, reverse=True)


def test_of_a_full_server_only_the_model_tells() -> None:
    full = serving(inference_arrivalRate=reading(90.0, "requests/s"))
    found = forecast(full, SERVES, READY, 9)
    assert found is not None
    assert found.value <= 0.1


@pytest.mark.parametrize("name", ["arrivalRate", "serviceSeconds", "latency"])
def test_what_is_not_measured_is_not_predicted(name: str) -> None:
    assert forecast(serving(**{f"inference_{name}": MISSING}), SERVES, READY, 3) is None


def test_without_any_ready_replica_nothing_is_predicted() -> None:
    assert forecast(serving(), SERVES, Facts(ready=0), 1) is None
    assert forecast(serving(), SERVES, Facts(), 1) is None
    assert forecast(serving(), SERVES, READY, 0) is None


def test_without_a_latency_objective_servers_may_be_busy() -> None:
    errors = spec(objectives={"errorRate": {"max": "1%"}})
    found = forecast(serving(), errors, READY, 3)
    assert found is not None
    assert found.strain == pytest.approx((2 / 3) / 0.9)


def test_training_loses_the_goodput_of_the_rank() -> None:
    trainer = observation(signals=starved(), expected=4, streaming=4)
    found = forecast(trainer, spec(objectives={"goodput": {"min": "60"}}), READY, 3)
    assert found is not None
    assert found.strain == pytest.approx(60 / 75)
    assert found.text == "goodput 75 of at least 60 samples/s"
    silent = observation(signals={}, expected=4, streaming=4)
    assert forecast(silent, spec(objectives={"goodput": {"min": "60"}}), READY, 3) is None


def test_training_without_a_goodput_objective_is_not_predicted() -> None:
    trainer = observation(signals=starved(), expected=4, streaming=4)
    assert forecast(trainer, spec(), READY, 3) is None


def test_the_worst_objective_counts() -> None:
    both = spec(
        objectives={"latency": {"target": "250ms"}, "utilization": {"device": "GPU", "max": 80}}
    )
    seen = serving()
    signals = {**seen.signals, "gpu.utilization": reading(0.6)}
    busy = observation(WorkloadType.INFERENCE, signals, expected=4, streaming=4)
    found = forecast(busy, both, READY, 3)
    assert found is not None
    assert found.strain == pytest.approx(1.0)
    assert found.text == "GPU 80% of 80%"
    assert forecast(seen, both, READY, 3) is None, "one of them is not measured"


# -- the two sides ---------------------------------------------------------------------------------

GIVES = Trade(
    pool="gpus",
    role=TradeRole.GIVES,
    policy="ranker",
    report="",
    devices=1,
    resource=GPU,
    ready=2,
    reason="gives 1 of 4 replicas",
)


def side(name: str, trade: Trade | None, phase: Phase, **status: Any) -> BottleneckReport:
    made = report(replicas_action(), phase, name, **status)
    owner = name.rpartition("-")[0]
    changes = {"policy": owner, "trade": trade}
    return made.model_copy(update={"spec": made.spec.model_copy(update=changes)})


def giver(phase: Phase, to: str = "ranker-1", **status: Any) -> BottleneckReport:
    return side("indexer-1", GIVES.model_copy(update={"report": to}), phase, **status)


def taker(phase: Phase, own: bool = False, **status: Any) -> BottleneckReport:
    answer = {"role": TradeRole.TAKES, "policy": "indexer", "report": "indexer-1"}
    trade = GIVES.model_copy(update=answer) if own else None
    return side("ranker-1", trade, phase, **status)


P = Phase


@pytest.mark.parametrize(
    ("report", "others", "expected"),
    [
        (giver(P.PLANNED), [taker(P.APPLIED)], Side.UNDER_WAY),
        (giver(P.PLANNED), [], Side.UNDONE),
        (giver(P.VERIFYING), [taker(P.KEPT)], Side.SETTLED),
        (giver(P.VERIFYING), [taker(P.ABANDONED)], Side.SETTLED),
        (giver(P.VERIFYING), [taker(P.REVERTING)], Side.UNDONE),
        (giver(P.VERIFYING), [taker(P.REVERTED)], Side.UNDONE),
        (giver(P.PLANNED, to=""), [taker(P.APPLIED)], Side.AWAITED),
        (giver(P.PLANNED, to=""), [taker(P.PLANNED, own=True)], Side.UNDER_WAY),
        (giver(P.VERIFYING, to=""), [], Side.UNDONE),
        (taker(P.APPLIED), [giver(P.VERIFYING)], Side.UNDER_WAY),
        (taker(P.APPLIED), [giver(P.KEPT)], Side.SETTLED),
        (taker(P.APPLIED), [giver(P.REVERTING)], Side.UNDONE),
        (taker(P.APPLIED), [], None),
        (taker(P.APPLIED), [giver(P.ABANDONED)], None),
        (taker(P.APPLIED), [giver(P.ABANDONED, applied_at=moment(-9))], Side.SETTLED),
        (taker(P.APPLIED, own=True), [giver(P.ABANDONED, to="")], Side.UNDONE),
        (taker(P.APPLIED, own=True), [], Side.SETTLED),
        (taker(P.APPLIED), [giver(P.VERIFYING, to="ranker-7")], None),
    ],
)
def test_how_the_other_side_stands(
    report: BottleneckReport, others: list[BottleneckReport], expected: Side | None
) -> None:
    found = other_side(report, [report, *others])
    assert (found.side if found else None) is expected


def step(
    report: BottleneckReport, others: list[BottleneckReport], seconds: float = 0, **progress: Any
) -> tuple[Step, Phase | None]:
    """The next step with three replicas wanted, two of them ready."""
    seen = {"replicas": 3, "ready": 2, **progress}
    trade = other_side(report, [report, *others])
    made = Progress(observation=observation(), trade=trade, **seen)
    found = next_step(report, made, moment(seconds))
    return found.step, found.phase


KEEP = {"result": "Improved", "reason": "better"}


@pytest.mark.parametrize(
    ("report", "others", "seconds", "expected"),
    [
        (giver(P.PLANNED), [taker(P.APPLIED)], 0, (Step.APPLY, P.APPLIED)),
        (giver(P.PLANNED), [], 0, (Step.MOVE, P.ABANDONED)),
        (giver(P.PLANNED), [taker(P.REVERTED)], 0, (Step.MOVE, P.ABANDONED)),
        (giver(P.PLANNED), [taker(P.KEPT)], 0, (Step.MOVE, P.ABANDONED)),
        (giver(P.PLANNED, to=""), [], 0, (Step.WAIT, None)),
        (giver(P.PLANNED, to=""), [], ANSWER_SECONDS, (Step.MOVE, P.ABANDONED)),
        (giver(P.VERIFYING), [taker(P.REVERTED)], 0, (Step.MOVE, P.REVERTING)),
        (giver(P.REVERTING), [taker(P.REVERTED)], 0, (Step.UNDO, None)),
        (taker(P.APPLIED), [giver(P.VERIFYING)], 0, (Step.MOVE, P.VERIFYING)),
        (taker(P.APPLIED), [], 0, (Step.WAIT, None)),
        (taker(P.APPLIED), [giver(P.REVERTING)], 0, (Step.MOVE, P.REVERTING)),
        (taker(P.VERIFYING), [giver(P.REVERTED)], 0, (Step.MOVE, P.REVERTING)),
        (taker(P.PLANNED, own=True), [giver(P.REVERTED, to="")], 0, (Step.MOVE, P.ABANDONED)),
    ],
    ids=[
        "the giver begins when the taker's report is there",
        "not where it has gone",
        "nor where it was undone",
        "nor where it is no longer needed",
        "it waits for an answer",
        "but not for ever",
        "it takes its replicas back when the taker gave its own up",
        "and does so",
        "what a trade brings may be fewer than wait",
        "a growth without a trade waits for all of them",
        "the taker gives back what the giver needs",
        "also while it is verified",
        "an answer to a trade that is over does not begin",
    ],
)
def test_each_side_follows_the_other(
    report: BottleneckReport,
    others: list[BottleneckReport],
    seconds: float,
    expected: tuple[Step, Phase | None],
) -> None:
    assert step(report, others, seconds) == expected


@pytest.mark.parametrize(
    ("others", "seconds", "expected"),
    [
        ([giver(P.VERIFYING)], 0, (Step.WAIT, None)),
        ([giver(P.VERIFYING)], SETTLE_SECONDS + 1, (Step.MOVE, P.KEPT)),
        ([giver(P.KEPT)], 0, (Step.MOVE, P.KEPT)),
        ([], 0, (Step.MOVE, P.KEPT)),
    ],
    ids=["the giver is not judged yet", "a giver that is never judged", "it is kept", "no trade"],
)
def test_a_taker_is_kept_after_its_giver(
    others: list[BottleneckReport], seconds: float, expected: tuple[Step, Phase | None]
) -> None:
    proved = taker(P.VERIFYING, acknowledged_at=moment())
    verdict = Verdict.model_validate(KEEP)
    assert step(proved, others, seconds, ready=3, verdict=verdict) == expected


def test_what_proved_useless_is_undone_whatever_the_giver_does() -> None:
    useless = taker(P.VERIFYING, acknowledged_at=moment())
    verdict = Verdict.model_validate({"result": "NoEffect"})
    found = step(useless, [giver(P.VERIFYING)], ready=3, verdict=verdict)
    assert found == (Step.MOVE, P.REVERTING)


def test_an_answer_has_nothing_to_undo_but_the_trade() -> None:
    """It found its replicas waiting, and leaves their number as it is."""
    same = ReplicasChange(desired=3, replaces=3)
    answer = taker(P.REVERTING, own=True)
    action = Action(type="Replicas", summary="", cause="pool-trade", replicas=same)
    answer = answer.model_copy(update={"spec": answer.spec.model_copy(update={"action": action})})
    assert step(answer, [giver(P.REVERTED, to="")]) == (Step.MOVE, P.REVERTED)


def test_giving_is_a_saving_within_what_there_is() -> None:
    gift = Gift(replicas=1, before=0.05, after=0.12, trade=GIVES)
    plan = give(observation(), spec(), Facts(replicas=4, gift=gift), NOW)
    assert isinstance(plan, Plan)
    assert plan.action.aim is Aim.SAVE
    assert plan.action.replicas == ReplicasChange(desired=3, replaces=4)
    assert plan.action.summary == "replicas 4 → 3, for ranker"
    assert plan.trade == GIVES
    assert plan.symptom is not None
    assert plan.symptom.text == GIVES.reason
    for nothing in (Facts(replicas=4), Facts(gift=gift), Facts(replicas=1, gift=gift)):
        assert give(observation(), spec(), nothing, NOW) is None


def test_the_answer_names_the_giver() -> None:
    plan = take(giver(P.PLANNED, to=""), 3)
    assert isinstance(plan, Plan)
    assert plan.trade is not None
    assert (plan.trade.role, plan.trade.policy) == ("Takes", "indexer")
    assert plan.trade.report == "indexer-1"
    assert plan.action.summary == f"2 of 3 replicas ready, with 1 {GPU} from indexer"
    assert take(taker(P.PLANNED, own=True), 3) is None
    assert take(taker(P.PLANNED), 3) is None


WORSE = {"result": "Worse"}
DONE = {"applied_at": moment(-30), "closed_at": moment(-1)}


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([giver(P.PLANNED)], [Past("indexer", "ranker", NOW - 5, True)]),
        (
            [giver(P.VERIFYING, applied_at=moment(-3)), taker(P.APPLIED)],
            [Past("indexer", "ranker", NOW - 3, True)],
        ),
        ([giver(P.KEPT, **DONE), taker(P.KEPT)], [Past("indexer", "ranker", NOW - 1)]),
        ([giver(P.KEPT, **DONE)], [Past("indexer", "ranker", NOW - 1)]),
        (
            [giver(P.REVERTED, verdict=WORSE, **DONE), taker(P.REVERTED)],
            [Past("indexer", "ranker", NOW - 1, failed="indexer")],
        ),
        (
            [giver(P.REVERTED, **DONE), taker(P.REVERTED)],
            [Past("indexer", "ranker", NOW - 1, failed="ranker")],
        ),
        (
            [giver(P.KEPT, to="", **DONE), taker(P.REVERTED, own=True)],
            [Past("indexer", "ranker", NOW - 1, failed="ranker")],
        ),
        ([giver(P.ABANDONED, closed_at=moment(-1)), taker(P.KEPT)], []),
        ([taker(P.KEPT, own=True)], []),
        ([taker(P.KEPT)], []),
    ],
)
def test_past_trades_are_read_from_the_reports(
    reports: list[BottleneckReport], expected: list[Past]
) -> None:
    assert past_of(reports, "gpus") == expected
    assert past_of(reports, "others") == []


def test_the_growth_that_is_under_way() -> None:
    assert open_growth([taker(P.KEPT)]) is None
    assert open_growth([taker(P.REVERTING)]) is None
    assert open_growth([report(None, P.PLANNED)]) is None
    found = taker(P.APPLIED)
    assert open_growth([found]) == found
    shrinks = report(replicas_action(1, 3), P.APPLIED)
    assert open_growth([shrinks]) is None


# -- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("containers", "devices"),
    [
        ([{"limits": {GPU: "2"}}], ((GPU, 2.0),)),
        ([{"requests": {GPU: "2"}, "limits": {GPU: "2"}}], ((GPU, 2.0),)),
        ([{"limits": {GPU: "1"}}, {"limits": {GPU: 3}}], ((GPU, 4.0),)),
        (
            [{"limits": {GPU: "1", "rdma/hca": "1", "cpu": "4", "hugepages-2Mi": "4Mi"}}],
            ((GPU, 1.0), ("rdma/hca", 1.0)),
        ),
        ([{"limits": {"pod-level.kubernetes.io/x": "1"}}], ()),
        ([{"limits": {GPU: "many"}}], ()),
        ([{"requests": {"cpu": "1"}}, {}], ()),
    ],
)
def test_the_devices_of_a_pod(
    containers: list[dict[str, Any]], devices: tuple[tuple[str, float], ...]
) -> None:
    document = pod_document()
    document["spec"] = {"containers": [container(resources=each) for each in containers]}
    assert pod_of(document).devices == devices


def saving(at: float, seconds: float | None, phase: str = "step") -> Any:
    one = rank("e", int(at), NOW + at, checkpoint_seconds=seconds, phase=phase)
    return sample(NOW + at, int(at) + 100, one)


@pytest.mark.parametrize(
    ("lines", "since"),
    [
        ([saving(-30, 0.0), saving(-20, 0.0)], None),
        ([saving(-30, 0.0), saving(-20, 4.0), saving(-10, 4.0)], 20.0),
        ([saving(-30, 0.0), saving(-20, 4.0), saving(-10, 9.0)], 10.0),
        ([saving(-30, 4.0)], None),
        ([saving(-30, None), saving(-20, None)], None),
        ([saving(-30, 0.0), saving(-20, 4.0), saving(-1, 4.0, "checkpoint")], None),
        ([], None),
    ],
    ids=[
        "none",
        "one",
        "the last",
        "of an earlier time",
        "not measured",
        "being written",
        "silent",
    ],
)
def test_the_last_checkpoint(lines: list[Any], since: float | None) -> None:
    assert since_checkpoint([history(*lines)], NOW) == since


def test_budgets_of_pods() -> None:
    pods = [pod_of(pod_document())]

    def allowed(*items: Any) -> int | None:
        class Api:
            async def get(self, path: str) -> Any:
                assert path == "/apis/policy/v1/namespaces/ml/poddisruptionbudgets"
                return {"items": list(items)}

        api: Any = Api()
        return asyncio.run(disruptions_allowed(api, "ml", pods))

    def budget(left: Any, **selector: Any) -> Any:
        return {"spec": {"selector": selector}, "status": {"disruptionsAllowed": left}}

    ours = {"matchLabels": {"app": "ranker"}}
    assert allowed() is None
    assert allowed(budget(2, matchLabels={"app": "other"})) is None
    assert allowed(budget(2, **ours), budget(1, **ours)) == 1
    assert allowed(budget(3)) == 3
    assert allowed(budget(None, **ours)) == 0, "what its controller has not counted allows nothing"


def test_a_side_has_its_words() -> None:
    found = other_side(taker(P.APPLIED), [giver(P.VERIFYING)])
    assert isinstance(found, OtherSide)
    assert found.sentence == "indexer gives 1 of 4 replicas"
