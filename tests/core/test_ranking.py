"""Which of several causes comes first, what a policy makes of them, and how they are drawn."""

from __future__ import annotations

import pytest
from bottleneck_operator.api.objectives import Objectives
from bottleneck_operator.diagnose.catalogue import (
    CATALOGUE,
    CATEGORIES,
    STAGES,
)
from bottleneck_operator.diagnose.document import diagnosis_document
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.diagnose.gaps import GAPS
from bottleneck_operator.observe.observation import (
    Observation,
    Signal,
)

from .builders import NOW
from .cases import (
    ANY,
    CASES_BY_CAUSE,
    CHANGED,
    DATA,
    OVERSUBSCRIBED,
    POLICY,
    SERVING,
    SLOW_STORAGE,
    TRAINING,
    WAITING,
    find,
    ids,
    reading,
)

# -- which explains which --------------------------------------------------------------------------


def test_what_a_cause_explains_stands_right_behind_it() -> None:
    (kind, changes, _), *_ = CASES_BY_CAUSE["cpu-throttled"]
    more = changes | {"training.checkpointShare": 0.4}
    diagnosis = find(kind, more)
    assert ids(diagnosis) == ["cpu-throttled", "cpu-heavy-preprocessing", "checkpoint-stalls"]
    assert diagnosis.runner_up == ""
    explained = [cause.explained_by for cause in diagnosis.causes]
    assert explained == ["", "cpu-throttled", "cpu-throttled"]


def test_two_causes_that_have_nothing_to_do_with_each_other_are_ranked_by_what_they_cost() -> None:
    storage = SLOW_STORAGE | {"loader.blockedShare": 0.9}
    diagnosis = find(TRAINING, storage | {"training.checkpointShare": 0.4})
    assert ids(diagnosis) == ["slow-storage", "checkpoint-stalls"]
    assert diagnosis.runner_up == "checkpoint-stalls"
    less = find(TRAINING, storage | {"training.checkpointShare": 0.4, "training.dataShare": 0.3})
    assert ids(less) == ["checkpoint-stalls", "slow-storage"]


def test_a_close_runner_up_makes_the_first_less_sure() -> None:
    storage = SLOW_STORAGE | {"loader.blockedShare": 0.9}
    alone, close = (
        find(TRAINING, storage | {"training.checkpointShare": share}).causes[0].confidence
        for share in (0.2, 0.55)
    )
    assert close < alone


def test_what_was_not_measured_makes_a_cause_less_sure() -> None:
    case = {"training.sinceStepSeconds": 80.0}
    assert find(TRAINING, case).causes[0].confidence > (
        find(TRAINING, case | {"training.longPhase": None}).causes[0].confidence
    )


def test_a_loader_without_workers_that_waits_for_storage_is_not_the_root() -> None:
    diagnosis = find(*CASES_BY_CAUSE["slow-storage"][1][:2])
    assert ids(diagnosis) == ["slow-storage", "loader-without-workers"]
    assert "dataLoader.workers is 0" in diagnosis.whys[1]
    assert "blocked" in diagnosis.whys[2]


def test_a_straggler_costs_what_it_adds_to_the_step() -> None:
    slow = {"training.stragglerRatio": 1.5, "training.collectiveShare": 0.7}
    exchange = find(TRAINING, slow | {"training.collectiveFloorShare": 0.6})
    assert ids(exchange) == ["communication-bound", "straggler-rank"]
    assert [round(cause.share, 2) for cause in exchange.causes] == [0.6, 0.13]
    assert ids(find(TRAINING, slow | {"training.collectiveFloorShare": 0.05})) == ["straggler-rank"]


@pytest.mark.parametrize(
    ("throttled", "first", "second"),
    [
        ((0.9, 0.0), "straggler-rank", "cpu-throttled"),
        ((0.9, 0.9), "cpu-throttled", "straggler-rank"),
    ],
    ids=["one rank's pod", "all of them"],
)
def test_a_throttled_rank_is_a_straggler_and_throttled_ranks_are_throttled(
    throttled: tuple[float, ...], first: str, second: str
) -> None:
    slow = {"training.stragglerRatio": 2.0, "training.collectiveShare": 0.5}
    limit = {"cpu.throttledShare": 0.5, "cpu.throttledTimeShare": 0.5}
    replicas = tuple({"cpu.throttledShare": share} for share in throttled)
    diagnosis = find(TRAINING, slow | limit, replicas=replicas)
    assert ids(diagnosis)[:2] == [first, second]
    assert any("the kernel stopped it" in line for line in diagnosis.whys)


def test_a_small_shortage_does_not_explain_a_big_wait() -> None:
    starved = DATA | {"dataLoader.workers": 0.0, "loader.blockedShare": 0.0}
    little = starved | OVERSUBSCRIBED | {"cpu.runQueueShare": 0.16}
    assert ids(find(TRAINING, little))[0] == "loader-without-workers"
    computing = starved | OVERSUBSCRIBED | {"loader.runQueueShare": 0.3}
    assert ids(find(TRAINING, computing))[0] == "loader-without-workers"
    much = starved | OVERSUBSCRIBED | {"loader.runQueueShare": 0.6}
    assert ids(find(TRAINING, much))[0] == "node-oversubscribed"


@pytest.mark.parametrize(
    ("cpus", "used", "causes"),
    [(2.0, 0.95, []), (4.0, 1.2, ["node-oversubscribed"]), (2.0, 1.2, ["node-oversubscribed"])],
    ids=["two ranks on one node", "and others beside them", "more than one node gives"],
)
def test_replicas_on_one_node_are_not_strangers(
    cpus: float, used: float, causes: list[str]
) -> None:
    others = cpus - used
    node = {"node.othersCores": others, "node.othersShare": others / cpus, "cpu.usedCores": used}
    full = node | {"cpu.runQueueShare": 0.4, "node.busyShare": 1.0}
    assert ids(find(TRAINING, full, replicas=(node, node))) == causes


def test_a_server_of_tokens_queues_and_does_not_wait_for_a_batch() -> None:
    known = {"inference.occupancy": None, "inference.batchLimit": None, "inference.latency": 0.9}
    tokens = {"inference.batchSize": 40.0, "inference.tokensPerSecond": 900.0}
    queued = {"inference.queueShare": 0.8, "inference.queued": 12.0}
    assert ids(find(SERVING, known | tokens | queued, POLICY[SERVING])) == ["queueing"]
    slow = {"inference.queueShare": 0.0, "inference.serviceSeconds": 0.9}
    assert ids(find(SERVING, known | tokens | slow, POLICY[SERVING])) == ["slow-model"]


def test_many_threads_that_wait_a_little_are_not_one_that_waits_long() -> None:
    full = OVERSUBSCRIBED | {"cpu.runQueueShare": 0.5, "cpu.pressureShare": 0.5}
    assert ids(find(SERVING, full | {"cpu.usedCores": 6.0})) == []
    assert ids(find(SERVING, full | {"cpu.usedCores": 0.5})) == ["node-oversubscribed"]


def test_a_little_contention_does_not_explain_a_server_that_is_far_too_busy() -> None:
    short, long = (
        find(SERVING, WAITING | OVERSUBSCRIBED | {"cpu.runQueueShare": share, "cpu.usedCores": 0.5})
        for share in (0.2, 0.5)
    )
    assert ids(short)[0] == "queueing"
    assert ids(long)[0] == "node-oversubscribed"


def test_a_run_queue_behind_a_limit_is_not_the_node_s() -> None:
    throttled = OVERSUBSCRIBED | {"cpu.throttledShare": 0.9, "cpu.throttledTimeShare": 0.45}
    assert ids(find(TRAINING, throttled)) == ["cpu-throttled"]


def test_a_change_is_the_last_why_of_what_it_brought_about() -> None:
    changes = CHANGED | {"training.checkpointShare": 0.4, "training.stepSlowdown": 1.6}
    diagnosis = find(TRAINING, changes, texts={"change.ageSeconds": "image v2 by kubectl"})
    assert ids(diagnosis) == ["checkpoint-stalls", "recent-change", "drift"]
    assert diagnosis.whys[-1] == "Because the change was: image v2 by kubectl"


def test_failures_come_first_where_failures_are_the_objective() -> None:
    both = WAITING | {"inference.errorRate": 0.1, "inference.latencySlowdown": 3.0}
    errors = Objectives.model_validate({"errorRate": {"max": "1%"}})
    assert ids(find(SERVING, both, errors))[0] == "error-burst"
    assert ids(find(SERVING, both, POLICY[SERVING]))[0] == "queueing"


def test_a_slow_model_alone_is_no_reason_for_more_replicas() -> None:
    slow = WAITING | {"inference.serviceSeconds": 0.3}
    assert "queueing" not in ids(find(SERVING, slow, POLICY[SERVING]))


# -- objectives ------------------------------------------------------------------------------------


def test_a_hang_breaches_every_objective_of_training() -> None:
    goals = Objectives.model_validate(
        {"goodput": {"min": "10"}, "dataWait": {"max": "20%"}, "stepTime": {"maxRegression": "20%"}}
    )
    hung = {
        "training.sinceStepSeconds": 40.0,
        "training.samplesPerSecond": None,
        "cpu.usedCores": 0.01,
    }
    diagnosis = find(TRAINING, hung, goals)
    assert [(s.name, s.current, s.met) for s in diagnosis.objectives] == [
        ("Goodput", "0 samples/s", False),
        ("DataWait", "no steps", False),
        ("StepTime", "no steps", False),
    ]
    assert ids(diagnosis)[0] == "hang"
    assert diagnosis.symptom is not None
    assert diagnosis.symptom.objective == "Goodput"
    assert "no step has ended for 40.0 s" in diagnosis.whys[0].lower()


def test_where_nothing_runs_it_does_not_matter_where_the_time_went_before() -> None:
    hung = {"training.sinceStepSeconds": 80.0, "training.dataShare": 0.9}
    diagnosis = find(TRAINING, hung)
    assert diagnosis.whys[0].startswith("No step has ended for 80.0 s")
    assert not any("waits for input" in line for line in diagnosis.whys)


@pytest.mark.parametrize("id", ["unschedulable", "oom-loop"])
def test_a_workload_that_cannot_run_breaches_any_policy(id: str) -> None:
    kind, changes, _ = next(case for case in CASES_BY_CAUSE[id] if case[0] is SERVING)
    diagnosis = find(kind, changes, POLICY[SERVING])
    assert [(s.name, s.met) for s in diagnosis.objectives] == [
        ("Running", False),
        ("Latency", True),
    ]
    assert ids(diagnosis)[0] == id


def test_without_telemetry_the_cluster_alone_can_tell_that_nothing_runs() -> None:
    observation = Observation(NOW, ANY, {}, (), (), 1, 0)
    facts: dict[str, Signal] = {
        name: reading(name, value, "API server")
        for name, value in {"pods.unschedulable": 1.0, "pods.unschedulableSeconds": 60.0}.items()
    }
    diagnosis = diagnose(observation, POLICY[TRAINING], facts)
    assert ids(diagnosis) == ["unschedulable"]


def test_a_step_time_without_a_baseline_does_not_leave_the_others_unknown() -> None:
    goals = {"stepTime": {"maxRegression": "20%"}}
    unlearnt = {"training.stepSlowdown": None}
    alone = find(TRAINING, unlearnt, Objectives.model_validate(goals))
    assert (alone.known, alone.objectives[0].met) == (False, None)
    beside = Objectives.model_validate(goals | {"dataWait": {"max": "20%"}})
    assert find(TRAINING, unlearnt, beside).known
    assert not find(TRAINING, unlearnt | {"training.dataShare": None}, beside).known


@pytest.mark.parametrize(
    ("slowdown", "met"), [(1.2, True), (1.21, False)], ids=["at the limit", "over it"]
)
def test_a_step_time_is_held_against_the_baseline(slowdown: float, met: bool) -> None:
    goals = Objectives.model_validate({"stepTime": {"maxRegression": "20%"}})
    (state,) = find(TRAINING, {"training.stepSlowdown": slowdown}, goals).objectives
    assert (state.met, state.target) == (met, "≤ 1.20 times")


@pytest.mark.parametrize(
    ("device", "signals", "current", "met"),
    [
        ("GPU", {"gpu.utilization": 0.3}, "30%", False),
        ("GPU", {"gpu.utilization": 0.95}, "95%", False),
        ("GPU", {"gpu.utilization": 0.6}, "60%", True),
        ("GPU", {}, "no data", None),
        ("CPU", {"cpu.usedCores": 1.0}, "25%", False),
        ("CPU", {"cpu.busyShare": 0.5}, "50%", True),
        ("CPU", {"cpu.usedCores": None}, "no data", None),
    ],
)
def test_a_utilization_has_two_sides(
    device: str, signals: dict[str, float], current: str, met: bool | None
) -> None:
    goals = Objectives.model_validate({"utilization": {"device": device, "min": 40, "max": 90}})
    (state,) = find(TRAINING, signals, goals).objectives
    assert (state.current, state.met) == (current, met)
    assert (state.symptom is not None) is (met is False)


# -- the pictures ----------------------------------------------------------------------------------


def test_the_pictures_show_every_hypothesis_that_was_tried() -> None:
    kind, changes, _ = CASES_BY_CAUSE["slow-storage"][0]
    diagnosis = find(kind, changes | {"training.checkpointShare": None})
    bone, tree = diagnosis.fishbone, diagnosis.fault_tree
    assert bone is not None
    assert tree is not None
    assert list(bone.bones) == list(CATEGORIES)
    assert [stage.id for stage in tree.stages] == list(STAGES)
    tried = {entry.id for entry in CATALOGUE if entry.workload in (TRAINING, ANY)}
    bones = {each.id: each for bones in bone.bones.values() for each in bones}
    causes = {each.id: each for stage in tree.stages for each in stage.causes}
    gaps = {gap.id for gap in GAPS}
    assert set(causes) == tried
    assert set(bones) == tried | gaps
    assert bone.effect == tree.top == "60% of each step waits for input"
    assert {id for id, each in bones.items() if each.state == "Confirmed"} == {"slow-storage"}
    assert bones["no-probe"].state == "NoData"
    assert bones["host-bound"].state == "RuledOut"
    assert bones["checkpoint-stalls"].state == "NoData"
    assert all(each.reason for each in bones.values())
    assert tree.stages[0].state == tree.state == "Confirmed"


def test_what_people_left_out_is_a_bone_and_no_cause() -> None:
    diagnosis = find(SERVING, {"pods.withoutProbe": 2.0, "pods.withoutLimits": 0.0})
    assert diagnosis.fishbone is not None
    people = {bone.id: bone for bone in diagnosis.fishbone.bones["People"]}
    assert people["no-probe"].state == "Confirmed"
    assert people["no-limits"].state == "RuledOut"
    assert (diagnosis.causes, diagnosis.symptom) == ((), None)


def test_an_and_gate_agrees_with_its_conditions() -> None:
    for kind, changes, _ in (case for cases in CASES_BY_CAUSE.values() for case in cases):
        tree = find(kind, changes).fault_tree
        assert tree is not None
        for cause in (cause for stage in tree.stages for cause in stage.causes):
            holds = [condition.holds for condition in cause.conditions]
            state = "RuledOut" if False in holds else "NoData" if None in holds else "Confirmed"
            assert cause.state == state, cause


def test_the_document_has_every_key_and_says_null_for_what_is_not_known() -> None:
    healthy = diagnosis_document(find(TRAINING, {}))
    assert list(healthy) == [
        "symptom",
        "causes",
        "ruledOut",
        "whys",
        "runnerUp",
        "fishbone",
        "faultTree",
    ]
    assert (healthy["symptom"], healthy["causes"], healthy["whys"]) == (None, [], [])
    causes = [cause for stage in healthy["faultTree"]["stages"] for cause in stage["causes"]]
    assert any(each["holds"] is None for cause in causes for each in cause["conditions"])
    (cause,) = diagnosis_document(find(TRAINING, {"training.checkpointShare": 0.3}))["causes"]
    described = ["id", "class", "category", "title", "share", "confidence", "evidence"]
    assert list(cause) == [*described, "explainedBy"]
    assert set(cause["evidence"][0]) >= {
        "signal",
        "window",
        "statistic",
        "value",
        "threshold",
        "source",
    }
