"""Variants: which one, within what budget, how the rollout is read, and how a canary is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.report import (
    Action,
    Aim,
    BottleneckReport,
    ImageChange,
    Phase,
    RolloutFields,
    Stage,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.accuracy import losses
from bottleneck_operator.decide.decision import Facts, Plan, Refusal
from bottleneck_operator.decide.effects.images import CANARY_DEADLINE, STUCK_DEADLINE
from bottleneck_operator.decide.effects.standing import Progress
from bottleneck_operator.decide.lifecycle import Next, Step, next_step
from bottleneck_operator.decide.planner import decide
from bottleneck_operator.decide.remedies import REMEDIES
from bottleneck_operator.decide.remedies.variants import SPEEDUP, STABLE_SECONDS, back, variants
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.observation import Observation, Replica, Signal, WorkloadType
from bottleneck_operator.observe.rollout import (
    FOREVER,
    PodImage,
    Rollout,
    rollout_of,
    still_held,
    words_about,
)
from bottleneck_operator.observe.trail import Trail
from bottleneck_operator.observe.troubles import trouble_of
from bottleneck_operator.verify.canary import Beside, beside, judge_canary, judge_rolled
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    NOW,
    SERVING,
    history,
    moment,
    observation,
    policy,
    reading,
    report,
    sample,
    server,
    spec,
    talking,
)
from .objects import Object, deployment, looping, managed, unschedulable
from .test_remedies import cause

OLD, NEW, THEIRS = "ranker:v2", "ranker:int8", "ranker:v3"
INT8 = {"name": "int8", "image": NEW, "accuracyLoss": "0.4%"}
PRUNED = {"name": "pruned", "image": "ranker:pruned", "accuracyLoss": "0.7%"}
FOUND = RolloutFields(max_surge="25%", max_unavailable="25%", progress_deadline_seconds=600)
HOLD = Rollout(kind="Deployment", replicas=2).held()
SET_HOLD = RolloutFields(partition=1)
SET_FOUND = RolloutFields(partition=0)
V = VerdictResult


def image_action(kind: str = "Deployment", **changes: Any) -> Action:
    """From the original to int8."""
    stateful = kind == "StatefulSet"
    fields: dict[str, Any] = {
        "container": "main",
        "desired": NEW,
        "replaces": OLD,
        "variant": "int8",
        "accuracy_loss": "0.4%",
        "original": OLD,
        "original_seconds": 0.1,
        "holds": SET_HOLD if stateful else HOLD,
        "restores": SET_FOUND if stateful else FOUND,
        **changes,
    }
    return Action(type="Variant", summary="int8", cause="slow-model", image=ImageChange(**fields))


def rollout(
    image: str = OLD, fields: RolloutFields = FOUND, kind: str = "Deployment", **changes: Any
) -> Rollout:
    base = Rollout(kind=kind, replicas=2, images={"main": image}, fields=fields, settled=True)
    return replace(base, **changes)


# -- reading the target ----------------------------------------------------------------------------


def target(kind: str = "Deployment", ready: int = 2, updated: int = 2, **spec: Any) -> Object:
    status = {"readyReplicas": ready, "updatedReplicas": updated, "observedGeneration": 7}
    found = deployment(2, 2, status=status)
    found["kind"] = kind
    found["spec"] |= spec
    return found


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (target(), ""),
        (target(paused=True), "spec.paused to false"),
        (target(strategy={"type": "Recreate"}), "spec.strategy.type to RollingUpdate"),
        (target("StatefulSet"), ""),
        (
            target("StatefulSet", updateStrategy={"type": "OnDelete"}),
            "spec.updateStrategy.type to RollingUpdate",
        ),
        (
            target("StatefulSet", updateStrategy={"rollingUpdate": {"partition": 1}}),
            "set it to 0",
        ),
        (target("DaemonSet"), "only a Deployment or a StatefulSet"),
        (target("Job"), "only a Deployment or a StatefulSet"),
    ],
)
def test_what_keeps_a_pod_from_going_ahead_is_said(found: Object, words: str) -> None:
    hindrance = rollout_of(found).hindrance
    assert words in hindrance
    assert bool(hindrance) == bool(words)


@pytest.mark.parametrize(
    ("found", "settled"),
    [
        (target(), True),
        (target(ready=1), False),
        (target(updated=1), False),
        (deployment(2, 3, status={"updatedReplicas": 2, "observedGeneration": 7}), False),
        (deployment(2, 2, status={"updatedReplicas": 2, "observedGeneration": 6}), False),
    ],
)
def test_a_rollout_is_over_when_every_pod_is_new_and_ready(found: Object, settled: bool) -> None:
    assert rollout_of(found).settled is settled


def test_the_fields_are_read_as_they_stand() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}
    found = rollout_of(target(strategy=strategy, minReadySeconds=5, progressDeadlineSeconds=600))
    assert found.fields == RolloutFields(
        max_surge="1", max_unavailable="25%", min_ready_seconds=5, progress_deadline_seconds=600
    )
    assert found.images == {"main": "registry.example/ranker:v2"}


def test_only_a_gitops_tool_owns_an_image() -> None:
    argo = managed("argocd-controller", -10, "template")
    assert rollout_of(deployment(managedFields=[argo])).owners == {"main": "argocd-controller"}
    assert rollout_of(deployment()).owners == {}


def test_a_deployment_is_held_so_that_the_api_server_takes_it() -> None:
    """It insists on a progress deadline that is longer than minReadySeconds."""
    assert HOLD.min_ready_seconds is not None
    assert HOLD.progress_deadline_seconds == FOREVER > HOLD.min_ready_seconds
    assert (HOLD.max_surge, HOLD.max_unavailable) == ("1", "0")
    assert Rollout(kind="StatefulSet", replicas=3).held() == RolloutFields(partition=2)


@pytest.mark.parametrize(
    ("now", "names"),
    [
        (FOUND, []),
        (HOLD, list(RolloutFields.model_fields)[:4]),
        (HOLD.model_copy(update={"max_surge": "50%"}), list(RolloutFields.model_fields)[1:4]),
        (RolloutFields(max_surge="50%"), []),
    ],
)
def test_what_somebody_changed_since_is_theirs(now: RolloutFields, names: list[str]) -> None:
    assert still_held(now, HOLD, FOUND) == names


def test_what_is_wrong_with_a_pod_is_said_in_the_clusters_words() -> None:
    assert words_about(None) == ""
    assert words_about(trouble_of(looping())).startswith("CrashLoopBackOff: back-off 40s")
    assert "Insufficient cpu" in words_about(trouble_of(unschedulable()))


# -- the state machine -----------------------------------------------------------------------------

A, S = image_action(), image_action("StatefulSet")
SAVING = A.model_copy(update={"aim": Aim.SAVE})
CANARY, ROLLED = Stage.CANARY, Stage.ROLLED
APPLY, UNDO, WAIT, MOVE = Step.APPLY, Step.UNDO, Step.WAIT, Step.MOVE
BESIDE = [PodImage("a", OLD, True), PodImage("b", OLD, True)]
READY = [*BESIDE, PodImage("c", NEW, True)]
YOUNG = [*BESIDE, PodImage("c", NEW, False)]
STUCK = [*BESIDE, PodImage("c", NEW, False, "ImagePullBackOff: no such image", True)]
BROKEN = [PodImage("a-0", OLD, True), PodImage("a-1", NEW, False, "CrashLoopBackOff", True)]
HELD, GONE_ON = rollout(NEW, HOLD), rollout(NEW, settled=False)


def at(
    phase: Phase,
    action: Action = A,
    stage: Stage | None = None,
    seconds: float = 0.0,
    **known: Any,
) -> Next:
    status: dict[str, Any] = {"stage": stage}
    if phase is not Phase.PLANNED:
        status |= {"applied_at": moment(), "acknowledged_at": moment(), "judged_at": moment()}
    if "verdict" in known:
        known["verdict"] = Verdict(result=known["verdict"], reason="because")
    progress = Progress(observation=observation(), stage=stage, **known)
    return next_step(report(action, phase, **status), progress, moment(seconds))


@pytest.mark.parametrize(
    ("phase", "stage", "known", "expected"),
    [
        (Phase.PLANNED, None, {"rollout": rollout()}, (APPLY, Phase.APPLIED)),
        (Phase.PLANNED, None, {"rollout": HELD}, (APPLY, Phase.APPLIED)),
        (Phase.PLANNED, None, {"rollout": None}, (WAIT, None)),
        (Phase.PLANNED, None, {"rollout": rollout(THEIRS)}, (MOVE, Phase.ABANDONED)),
        (
            Phase.PLANNED,
            None,
            {"rollout": rollout(OLD, RolloutFields(max_surge="3"))},
            (MOVE, Phase.ABANDONED),
        ),
        # The canary.
        (Phase.APPLIED, CANARY, {"rollout": HELD, "images": YOUNG}, (WAIT, None)),
        (Phase.APPLIED, CANARY, {"rollout": HELD, "images": READY}, (MOVE, Phase.VERIFYING)),
        (Phase.APPLIED, CANARY, {"rollout": HELD, "images": STUCK}, (WAIT, None)),
        (
            Phase.APPLIED,
            CANARY,
            {"rollout": HELD, "images": STUCK, "seconds": STUCK_DEADLINE + 1},
            (MOVE, Phase.REVERTING),
        ),
        (
            Phase.APPLIED,
            CANARY,
            {"rollout": HELD, "images": YOUNG, "seconds": STUCK_DEADLINE + 1},
            (WAIT, None),
        ),
        (
            Phase.APPLIED,
            CANARY,
            {"rollout": HELD, "images": BESIDE, "seconds": CANARY_DEADLINE + 1},
            (MOVE, Phase.REVERTING),
        ),
        (Phase.VERIFYING, CANARY, {"rollout": HELD, "images": READY}, (WAIT, None)),
        (
            Phase.VERIFYING,
            CANARY,
            {"rollout": HELD, "images": STUCK, "seconds": STUCK_DEADLINE + 1},
            (MOVE, Phase.REVERTING),
        ),
        # Somebody else comes in between.
        (Phase.APPLIED, CANARY, {"rollout": rollout(THEIRS, HOLD)}, (MOVE, Phase.REVERTING)),
        (Phase.VERIFYING, CANARY, {"rollout": rollout(OLD, HOLD)}, (MOVE, Phase.REVERTING)),
        (Phase.VERIFYING, CANARY, {"rollout": rollout(THEIRS)}, (MOVE, Phase.ABANDONED)),
        (Phase.VERIFYING, CANARY, {"rollout": rollout(NEW, FOUND)}, (MOVE, Phase.REVERTING)),
        (Phase.REVERTING, CANARY, {"rollout": rollout(THEIRS, HOLD)}, (UNDO, None)),
        (Phase.REVERTING, CANARY, {"rollout": rollout(THEIRS)}, (MOVE, Phase.ABANDONED)),
        # The rest.
        (Phase.APPLIED, ROLLED, {"rollout": HELD, "images": READY}, (APPLY, None)),
        (Phase.APPLIED, ROLLED, {"rollout": GONE_ON}, (WAIT, None)),
        (Phase.APPLIED, ROLLED, {"rollout": rollout(NEW)}, (MOVE, Phase.VERIFYING)),
        (
            Phase.APPLIED,
            ROLLED,
            {"rollout": GONE_ON, "seconds": 2 * CANARY_DEADLINE + 1},
            (MOVE, Phase.REVERTING),
        ),
        # Back.
        (Phase.REVERTING, CANARY, {"rollout": HELD}, (UNDO, None)),
        (Phase.REVERTING, CANARY, {"rollout": rollout(OLD, HOLD)}, (UNDO, None)),
        (Phase.REVERTING, CANARY, {"rollout": rollout(settled=False)}, (WAIT, None)),
        (Phase.REVERTING, CANARY, {"rollout": rollout()}, (MOVE, Phase.REVERTED)),
        (Phase.REVERTING, ROLLED, {"rollout": rollout(NEW)}, (UNDO, None)),
        # A broken canary of a Deployment goes by itself.
        (Phase.REVERTING, CANARY, {"rollout": rollout(), "images": STUCK}, (MOVE, Phase.REVERTED)),
    ],
)
def test_the_next_step(
    phase: Phase,
    stage: Stage | None,
    known: dict[str, Any],
    expected: tuple[Step, Phase | None],
) -> None:
    found = at(phase, stage=stage, **known)
    assert (found.step, found.phase) == expected


def test_a_stateful_set_is_helped_over_a_broken_pod() -> None:
    back_again = rollout(OLD, SET_FOUND, "StatefulSet", settled=False)
    assert at(Phase.REVERTING, S, CANARY, rollout=back_again, images=BROKEN).step is UNDO
    mended = [replace(each, image=OLD) for each in BROKEN]
    assert at(Phase.REVERTING, S, CANARY, rollout=back_again, images=mended).step is WAIT


@pytest.mark.parametrize(
    ("action", "result", "phase"),
    [
        (A, V.IMPROVED, Phase.APPLIED),
        (A, V.NO_EFFECT, Phase.REVERTING),
        (A, V.WORSE, Phase.REVERTING),
        (A, V.INCONCLUSIVE, Phase.REVERTING),
        (A, V.NO_DATA, None),
        (SAVING, V.NO_EFFECT, Phase.APPLIED),
        (SAVING, V.WORSE, Phase.REVERTING),
    ],
)
def test_only_a_canary_that_proved_itself_is_followed(
    action: Action, result: V, phase: Phase | None
) -> None:
    found = at(Phase.VERIFYING, action, CANARY, rollout=HELD, images=READY, verdict=result)
    assert found.phase is phase
    assert found.stage is (ROLLED if phase is Phase.APPLIED else None)


def test_the_stage_is_recorded_with_the_step_that_begins_it() -> None:
    assert at(Phase.PLANNED, rollout=rollout()).stage is CANARY
    done = at(Phase.VERIFYING, A, ROLLED, rollout=rollout(NEW), verdict=V.IMPROVED)
    assert done.phase is Phase.KEPT
    broken = at(Phase.VERIFYING, A, ROLLED, rollout=rollout(NEW), verdict=V.WORSE)
    assert broken.phase is Phase.REVERTING


def test_the_kubelets_words_are_in_the_report() -> None:
    found = at(Phase.APPLIED, A, CANARY, rollout=HELD, images=STUCK, seconds=STUCK_DEADLINE + 1)
    assert found.reason is Reason.ACTION_REFUSED
    assert found.message == "canary c was not ready in 60s: ImagePullBackOff: no such image"


# -- which variant ---------------------------------------------------------------------------------


def serving(**signals: float | None) -> Observation:
    """Two servers whose model alone is over the objective of 250 ms."""
    seen: dict[str, Signal] = {
        "inference.latency": reading(0.42, "s", "p95"),
        "inference.serviceSeconds": reading(0.4, "s", "mean"),
        "inference.arrivalRate": reading(0.5, "requests/s", "rate"),
    }
    for name, value in signals.items():
        key = name.replace("_", ".")
        if value is None:
            del seen[key]
        else:
            seen[key] = reading(value)
    ranks = [talking(), talking(pod="pod-1")]
    return observation(WorkloadType.INFERENCE, seen, ranks=ranks, expected=2, streaming=2)


def allowed(*offered: Object, **limits: str | None) -> Any:
    wanted = {"disruption": "RollingRestart", "accuracyLoss": "1%"} | limits
    return spec(
        **SERVING,
        actions={"variants": list(offered) or [INT8], "precision": {"allowed": ["bf16"]}},
        limits={key: value for key, value in wanted.items() if value is not None},
    )


def facts(now: str = OLD, *reports: BottleneckReport, **changes: Any) -> Facts:
    found = rollout(now, **changes.pop("rollout", {}))
    return Facts(policy_generation=3, rollout=found, reports=reports, **changes)


def switched(phase: Phase = Phase.KEPT, **changes: Any) -> BottleneckReport:
    """A report that switched to int8 some time ago."""
    action = changes.pop("action", A)
    seconds = changes.pop("closed", -2 * STABLE_SECONDS)
    return report(action, phase, closed_at=moment(seconds), **changes)


SLOW = cause("slow-model")


def test_the_variant_is_taken_with_all_that_undoing_needs() -> None:
    found = variants(SLOW, serving(), allowed(), facts())
    assert isinstance(found, Action)
    assert found.image is not None
    assert found.image == A.image.model_copy(update={"original_seconds": 0.4})  # type: ignore[union-attr]
    assert found.prediction is not None
    assert found.prediction.after == pytest.approx(0.42 / SPEEDUP, rel=0.2)
    assert f"{SPEEDUP} times" in found.prediction.basis


def test_what_a_canary_has_shown_is_predicted_again() -> None:
    verdict = Verdict(result=V.IMPROVED, before=0.4, after=0.1, control=True)
    gone_back = switched(verdict=verdict)
    found = variants(SLOW, serving(), allowed(), facts(OLD, gone_back))
    assert isinstance(found, Action)
    assert found.prediction is not None
    assert found.prediction.after == pytest.approx(0.105)
    assert "p-1 has measured" in found.prediction.basis


def test_of_those_that_are_enough_the_one_that_costs_least() -> None:
    found = variants(SLOW, serving(), allowed(PRUNED, INT8), facts())
    assert isinstance(found, Action)
    assert found.image is not None
    assert found.image.variant == "int8"


def test_one_that_failed_leaves_the_others() -> None:
    failed = switched(Phase.REVERTED)
    found = variants(SLOW, serving(), allowed(INT8, PRUNED), facts(OLD, failed))
    assert isinstance(found, Action)
    assert found.image is not None
    assert found.image.variant == "pruned"


def test_from_one_variant_to_the_next_the_original_stays_known() -> None:
    found = variants(SLOW, serving(), allowed(INT8, PRUNED), facts(NEW, switched()))
    assert isinstance(found, Action)
    assert found.image is not None
    assert (found.image.replaces, found.image.original) == (NEW, OLD)
    assert found.image.original_seconds == 0.1, "not the variant's"


OWNED = {"owners": {"main": "argocd-controller"}}
BF16 = {"precision.weights": "bf16"}


@pytest.mark.parametrize(
    ("wanted", "known", "seen", "reason"),
    [
        (spec(**SERVING), facts(), serving(), Reason.ACTION_NOT_ALLOWED),
        (allowed(accuracyLoss=None), facts(), serving(), Reason.ACCURACY_BUDGET),
        (allowed(accuracyLoss="0.3%"), facts(), serving(), Reason.ACCURACY_BUDGET),
        (allowed(), facts(rollout=OWNED), serving(), Reason.IMAGE_OWNED_BY_GITOPS),
        (allowed(), facts(rollout={"hindrance": "paused"}), serving(), Reason.NO_REMEDY),
        (allowed(), facts(rollout={"settled": False}), serving(), Reason.REPLICAS_PENDING),
        (allowed(), facts(rollout={"replicas": 0}), serving(), Reason.REPLICAS_PENDING),
        (allowed(INT8 | {"container": "model"}), facts(), serving(), Reason.NO_REMEDY),
        (
            allowed(),
            facts(rollout={"images": {"main": OLD, "proxy": "p:1"}}),
            serving(),
            Reason.NO_REMEDY,
        ),
        (allowed(), facts(NEW, switched()), serving(), Reason.AT_MAXIMUM),
        (allowed(), facts(OLD, switched(Phase.REVERTED)), serving(), Reason.QUARANTINED),
        (allowed(), Facts(), serving(), Reason.NO_DATA),
        (allowed(), facts(), serving(inference_latency=None), Reason.NO_DATA),
        (allowed(), facts(), observation(), Reason.NO_REMEDY),
    ],
    ids=[
        "not allowed",
        "no budget",
        "over the budget",
        "GitOps",
        "a hindrance",
        "a rollout under way",
        "scaled to zero",
        "no such container",
        "several containers",
        "it runs already",
        "it failed before",
        "the target is not known",
        "no latency",
        "training",
    ],
)
def test_why_the_image_stays(wanted: Any, known: Facts, seen: Observation, reason: Reason) -> None:
    found = variants(SLOW, seen, wanted, known)
    assert isinstance(found, Refusal)
    assert found.reason is reason
    assert found.message


def test_a_missing_budget_says_what_to_write() -> None:
    found = variants(SLOW, serving(), allowed(accuracyLoss=None), facts())
    assert isinstance(found, Refusal)
    assert 'write limits: {accuracyLoss: "0.4%"}' in found.message


def test_precision_and_variants_share_one_budget() -> None:
    wanted = allowed(PRUNED)
    costly = wanted.model_copy(
        update={
            "actions": wanted.actions.model_copy(
                update={
                    "precision": wanted.actions.precision.model_copy(
                        update={"accuracy_loss": "0.4%"}
                    )
                }
            )
        }
    )
    assert isinstance(variants(SLOW, serving(), costly, facts()), Action)
    spent = facts(knobs=BF16)
    assert losses(costly, spent) == {"precision": pytest.approx(0.004)}
    found = variants(SLOW, serving(), costly, spent)
    assert isinstance(found, Refusal)
    assert "0.40% are spent already" in found.message

    # And the other way round.
    fast = serving(hardware_bf16=1.0)
    knobs = {"precision.weights": "fp32"}
    talks = replace(fast, ranks=tuple(replace(each, knobs=knobs) for each in fast.ranks))
    settable = frozenset({"precision.weights"})
    costly = costly.model_copy(
        update={"limits": costly.limits.model_copy(update={"accuracy_loss": "0.7%"})}
    )
    known = facts(NEW, switched(), settable=settable)
    refused = REMEDIES["Precision"](SLOW, talks, costly, known)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.ACCURACY_BUDGET
    assert isinstance(REMEDIES["Precision"](SLOW, talks, costly, facts(settable=settable)), Action)


def test_the_planner_asks_for_the_means() -> None:
    """Nothing that restarts pods happens under a policy that does not say so."""
    seen = serving(inference_queueShare=0.02, inference_serviceShare=0.95)
    diagnosis = diagnose(seen, allowed().objectives)
    assert [each.id for each in diagnosis.causes][:1] == ["slow-model"]
    held = decide(diagnosis, seen, allowed(disruption="InPlace"), facts(), NOW)
    assert isinstance(held, Refusal)
    assert held.reason is Reason.DISRUPTION_NOT_ALLOWED
    assert isinstance(decide(diagnosis, seen, allowed(), facts(), NOW), Plan)


@CASES
@given(
    offered=st.lists(st.sampled_from(["0.1%", "0.4%", "0.7%", "1%", "3%"]), min_size=1, max_size=4),
    budget=st.sampled_from(["0.1%", "0.5%", "1%", "2%"]),
    bf16=st.booleans(),
)
def test_the_budget_is_never_overspent(offered: list[str], budget: str, bf16: bool) -> None:
    listed = [
        {"name": f"v{i}", "image": f"ranker:v{i}", "accuracyLoss": loss}
        for i, loss in enumerate(offered)
    ]
    wanted = allowed(*listed, accuracyLoss=budget)
    known = facts(knobs=BF16 if bf16 else {})
    found = variants(SLOW, serving(), wanted, known)
    if isinstance(found, Action):
        assert found.image is not None
        cost = float(found.image.accuracy_loss[:-1]) + 100 * sum(losses(wanted, known).values())
        assert cost <= float(budget[:-1]) + 1e-9
    else:
        assert all(float(loss[:-1]) > float(budget[:-1]) for loss in offered)


# -- back to the original --------------------------------------------------------------------------


def load(rate: float = 0.5, seconds: float = STABLE_SECONDS + 60, peak: float = 0.0) -> Trail:
    trail = Trail()
    step = 5
    for second in range(-int(seconds), 1, step):
        gust = peak if second == -300 else rate
        seen = serving(inference_arrivalRate=gust)
        trail.note(replace(seen, time=NOW + second))
    return trail


FAST = {"inference_latency": 0.06, "inference_serviceSeconds": 0.05}


def test_back_to_the_original_when_the_load_allows() -> None:
    found = back(serving(**FAST), allowed(), facts(NEW, switched(), trail=load()), NOW)
    assert found is not None
    assert found.symptom is not None
    assert "costs 0.4% of accuracy" in found.symptom.text
    action = found.action
    assert action.aim is Aim.SAVE
    assert action.image is not None
    assert (action.image.desired, action.image.replaces) == (OLD, NEW)
    assert action.image.variant == ""
    assert action.prediction is not None
    assert 0.1 <= action.prediction.after <= 0.2


@pytest.mark.parametrize(
    ("known", "seen"),
    [
        (facts(OLD, switched(), trail=load()), FAST),
        (facts(THEIRS, switched(), trail=load()), FAST),
        (facts(NEW, switched(closed=-60), trail=load()), FAST),
        (facts(NEW, switched(), trail=load(seconds=300)), FAST),
        (facts(NEW, switched(), trail=load(peak=12.0)), FAST),
        (facts(NEW, switched(action=image_action(original_seconds=0.24)), trail=load()), FAST),
        (facts(NEW, switched(action=image_action(original_seconds=None)), trail=load()), FAST),
        (facts(NEW, switched(), trail=load(), rollout=OWNED), FAST),
        (facts(NEW, switched(), trail=load(), rollout={"settled": False}), FAST),
        (facts(NEW, switched(), trail=load()), FAST | {"inference_latency": None}),
        (facts(NEW, switched(), trail=load()), FAST | {"inference_latency": 0.15}),
    ],
    ids=[
        "on the original",
        "on somebody else's image",
        "just switched",
        "not seen for long enough",
        "a gust in between",
        "the original is too slow",
        "the original was never measured",
        "GitOps",
        "a rollout under way",
        "no latency",
        "what is not the model's own time grows with it",
    ],
)
def test_when_it_stays_on_the_variant(known: Facts, seen: dict[str, Any]) -> None:
    assert back(serving(**seen), allowed(), known, NOW) is None


def test_a_policy_without_variants_gives_none_back() -> None:
    known = facts(NEW, switched(), trail=load())
    assert back(serving(**FAST), spec(**SERVING), known, NOW) is None


# -- the canary's verdict --------------------------------------------------------------------------

WATCHED = policy(spec=SERVING)


def judged(
    old: list[float],
    new: list[float],
    seconds: tuple[float, float] | None = None,
    control: bool = True,
    failing: str = "",
) -> Verdict | None:
    seen = observation(WorkloadType.INFERENCE)
    if seconds is not None:
        replicas = tuple(
            Replica(name, {"inference.serviceSeconds": reading(value)})
            for name, value in zip(("untouched", "canary"), seconds, strict=True)
        )
        seen = replace(seen, replicas=replicas)
    made = report(A).model_copy(
        update={
            "spec": report(A).spec.model_copy(
                update={
                    "metric": report(A).spec.metric.model_copy(update={"lower_is_better": True})
                }
            )
        }
    )
    return judge_canary(made, Beside(old, new, control, failing), seen, ["canary"])


SLOWER, FASTER_BINS = [0.40, 0.41, 0.42, 0.40] * 4, [0.10, 0.11, 0.12, 0.10] * 4


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (judged(SLOWER, FASTER_BINS), V.IMPROVED),
        (judged(SLOWER, FASTER_BINS, (0.4, 0.1)), V.IMPROVED),
        (judged(SLOWER, FASTER_BINS, (0.4, 0.4)), V.NO_EFFECT),
        (judged(FASTER_BINS, SLOWER), V.WORSE),
        (judged(SLOWER, SLOWER), V.NO_EFFECT),
        (judged(SLOWER, FASTER_BINS, failing="it fails"), V.WORSE),
        (judged(SLOWER[:7], FASTER_BINS), None),
        (judged(SLOWER, FASTER_BINS[:7]), None),
        (judged(SLOWER * 4, FASTER_BINS[:7]), V.INCONCLUSIVE),
    ],
    ids=[
        "faster",
        "faster by its model",
        "only its queue is shorter",
        "slower",
        "the same",
        "faster at failing",
        "the others have not served for long",
        "it has not served for long",
        "it serves nobody",
    ],
)
def test_the_verdict_on_a_canary(found: Verdict | None, result: V | None) -> None:
    assert (found.result if found is not None else None) is result


def test_a_verdict_says_what_it_compares() -> None:
    beside_others = judged(SLOWER, FASTER_BINS)
    alone = judged(SLOWER, FASTER_BINS, control=False)
    assert beside_others is not None
    assert alone is not None
    assert beside_others.control
    assert "against untouched replicas" in beside_others.reason
    assert not alone.control
    assert "before against after" in alone.reason


def line(second: int, name: str, latency: float, errors: int = 0) -> Any:
    told = server(name, [latency] * (10 * second), errors=errors * second)
    return sample(NOW + second, second, told, pod=name, uid=name)


def both(errors: int = 0) -> Beside:
    histories = {
        "a": history(*[line(s, "a", 0.4) for s in range(1, 40)]),
        "c": history(*[line(s, "c", 0.1, errors) for s in range(1, 40)]),
    }
    action = report(A, Phase.VERIFYING, acknowledged_at=moment(5), stage=CANARY)
    metric = action.spec.metric.model_copy(update={"lower_is_better": True})
    made = action.model_copy(update={"spec": action.spec.model_copy(update={"metric": metric})})
    return beside(WATCHED, made, histories, ["c"], NOW + 39)


def test_each_side_is_measured_over_the_same_seconds() -> None:
    found = both()
    assert found.control
    assert len(found.old) == len(found.new) >= 8
    assert max(found.new) < min(found.old)
    assert found.failing == ""


def test_a_canary_that_fails_fast_is_not_taken_for_a_fast_one() -> None:
    assert "10.0% of the canary's requests fail" in both(errors=1).failing


@pytest.mark.parametrize(
    ("bins", "unmet", "broken", "result"),
    [
        (8, "", "", V.IMPROVED),
        (7, "", "", None),
        (8, "Latency", "", V.WORSE),
        (0, "", "2 out-of-memory kills", V.WORSE),
    ],
)
def test_the_rest_keeps_the_canarys_verdict_unless_something_breaks(
    bins: int, unmet: str, broken: str, result: V | None
) -> None:
    found = judge_rolled(Verdict(result=V.IMPROVED), [0.1] * bins, unmet, broken)
    assert (found.result if found is not None else None) is result
