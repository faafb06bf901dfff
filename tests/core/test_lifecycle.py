"""The state machine of an action, as a table and by simulating it with crashes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from bottleneck_operator.api.conditions import APPROVED_ANNOTATION, Reason
from bottleneck_operator.api.report import (
    Action,
    Aim,
    BottleneckReport,
    ContainerResources,
    HpaBounds,
    Phase,
    Stage,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.api.split import Split, Treated
from bottleneck_operator.decide.effects.knobs import KNOBS_DEADLINE, acknowledged
from bottleneck_operator.decide.effects.replicas import REPLICAS_DEADLINE
from bottleneck_operator.decide.effects.resources import RESIZE_DEADLINE
from bottleneck_operator.decide.effects.standing import Progress
from bottleneck_operator.decide.lifecycle import (
    DesiredKnobs,
    Next,
    Step,
    desired_knobs,
    desired_sizes,
    issued_generation,
    next_step,
    own_knobs,
    superseded_by,
)
from bottleneck_operator.observe.observation import Observation
from bottleneck_operator.report.reports import TIMELINE, advanced
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    LARGE,
    SILENT,
    SMALL,
    hpa_action,
    knobs_action,
    moment,
    observation,
    replicas_action,
    report,
    resources_action,
    sized,
    talking,
)

KEPT = Phase.KEPT
CLOSED = (Phase.KEPT, Phase.REVERTED, Phase.ABANDONED)
HEARD = observation(ranks=[talking()])
ACKED = observation(ranks=[talking(1)])
UNDONE = observation(ranks=[talking(2)])
REFUSED = observation(ranks=[talking(1, "Refused", message="no such loader")])
HALF = observation(ranks=[talking()], expected=2, streaming=1)


def verdict(result: VerdictResult) -> Verdict:
    return Verdict(result=result, reason="because")


def step(
    action: Action | None,
    phase: Phase,
    seen: Observation = HEARD,
    seconds: float = 0.0,
    approval: tuple[bool, bool] = (False, False),
    **progress: Any,
) -> Next:
    status: dict[str, Any] = {}
    if phase in (Phase.APPLIED, Phase.VERIFYING, Phase.REVERTING):
        status["applied_at"] = moment(0)
    if phase is Phase.REVERTING:
        status["judged_at"] = moment(0)
    at = report(action, phase, approval=approval[0], approved=approval[1], **status)
    return next_step(at, Progress(observation=seen, **progress), moment(seconds))


K, R, S = knobs_action(), replicas_action(desired=3, replaces=1), resources_action()
LATE_K, LATE_R, LATE_S = KNOBS_DEADLINE + 1, REPLICAS_DEADLINE + 1, RESIZE_DEADLINE + 1
OTHER = ContainerResources(cpu_limit="3")
INFEASIBLE = sized(LARGE, SMALL, "Infeasible", "the node has 1 CPU")
DEFERRED = sized(LARGE, SMALL, "Deferred", "the node is full")
H = hpa_action(old=(1, 3), new=(4, 4))
OLD, NEW, THEIRS = (HpaBounds(min=n, max=m) for n, m in ((1, 3), (4, 4), (2, 3)))
THREE = {"replicas": 3, "ready": 3}
V = VerdictResult


def grouped(ranks: int, world: int, pods: int | None = None, streaming: int | None = None) -> Any:
    """Ranks, one in a pod, that say of how many their group is."""
    seen = [talking(pod=f"pod-{n}", rank=n, world_size=world) for n in range(ranks)]
    expected = pods or ranks
    heard = expected if streaming is None else streaming
    return observation(ranks=seen, expected=expected, streaming=heard)


APPLY, UNDO, WAIT, MOVE = Step.APPLY, Step.UNDO, Step.WAIT, Step.MOVE


@pytest.mark.parametrize(
    ("action", "phase", "situation", "expected"),
    [
        # Knobs.
        (K, Phase.PLANNED, {}, (APPLY, Phase.APPLIED)),
        (K, Phase.PLANNED, {"seen": SILENT}, (APPLY, Phase.APPLIED)),
        (K, Phase.APPLIED, {"annotated": False}, (APPLY, None)),
        (K, Phase.APPLIED, {"annotated": True}, (WAIT, None)),
        (K, Phase.APPLIED, {"annotated": True, "seen": ACKED}, (MOVE, Phase.VERIFYING)),
        (K, Phase.APPLIED, {"annotated": True, "seen": REFUSED}, (MOVE, Phase.REVERTING)),
        (K, Phase.APPLIED, {"annotated": True, "seconds": LATE_K}, (MOVE, Phase.REVERTING)),
        (
            K,
            Phase.APPLIED,
            {"annotated": True, "seconds": LATE_K, "seen": SILENT},
            (WAIT, None),
        ),
        (K, Phase.APPLIED, {"annotated": True, "seconds": LATE_K, "seen": HALF}, (WAIT, None)),
        (K, Phase.VERIFYING, {"annotated": True}, (WAIT, None)),
        (K, Phase.VERIFYING, {"annotated": False}, (APPLY, None)),
        (
            K,
            Phase.VERIFYING,
            {"annotated": False, "verdict": verdict(V.IMPROVED)},
            (APPLY, None),
        ),
        (K, Phase.REVERTING, {"annotated": False}, (UNDO, None)),
        (K, Phase.REVERTING, {"annotated": True, "seen": ACKED}, (WAIT, None)),
        (K, Phase.REVERTING, {"annotated": True, "seen": UNDONE}, (MOVE, Phase.REVERTED)),
        (K, Phase.REVERTING, {"annotated": True, "seconds": LATE_K}, (MOVE, Phase.REVERTED)),
        # Replicas.
        (R, Phase.PLANNED, {"replicas": 1}, (APPLY, Phase.APPLIED)),
        (R, Phase.PLANNED, {"replicas": 3}, (APPLY, Phase.APPLIED)),
        (R, Phase.PLANNED, {"replicas": 2}, (MOVE, Phase.ABANDONED)),
        (R, Phase.PLANNED, {"replicas": None}, (WAIT, None)),
        (R, Phase.APPLIED, {"replicas": 3, "ready": 2}, (WAIT, None)),
        (R, Phase.APPLIED, {"replicas": 3, "ready": 3}, (MOVE, Phase.VERIFYING)),
        (R, Phase.APPLIED, {"replicas": 2, "ready": 2}, (MOVE, Phase.ABANDONED)),
        (
            R,
            Phase.APPLIED,
            {"replicas": 3, "ready": 2, "seconds": LATE_R},
            (MOVE, Phase.REVERTING),
        ),
        (R, Phase.APPLIED, {"seconds": LATE_R}, (WAIT, None)),
        (R, Phase.VERIFYING, {"replicas": 3}, (WAIT, None)),
        (
            R,
            Phase.VERIFYING,
            {"replicas": 4, "verdict": verdict(V.WORSE)},
            (MOVE, Phase.ABANDONED),
        ),
        (R, Phase.REVERTING, {"replicas": 3}, (UNDO, None)),
        (R, Phase.REVERTING, {"replicas": 1}, (MOVE, Phase.REVERTED)),
        (R, Phase.REVERTING, {"replicas": 2}, (MOVE, Phase.ABANDONED)),
        (R, Phase.REVERTING, {"replicas": None}, (WAIT, None)),
        # Bounds of an autoscaler, which then has to scale.
        (H, Phase.PLANNED, {"hpa": OLD}, (APPLY, Phase.APPLIED)),
        (H, Phase.PLANNED, {"hpa": NEW}, (APPLY, Phase.APPLIED)),
        (H, Phase.PLANNED, {"hpa": THEIRS}, (MOVE, Phase.ABANDONED)),
        (H, Phase.PLANNED, {"hpa": None}, (WAIT, None)),
        (H, Phase.PLANNED, {"hpa_gone": True}, (MOVE, Phase.ABANDONED)),
        (H, Phase.APPLIED, {"hpa": NEW, "replicas": 3, "ready": 3}, (WAIT, None)),
        (H, Phase.APPLIED, {"hpa": NEW, "replicas": 4, "ready": 3}, (WAIT, None)),
        (H, Phase.APPLIED, {"hpa": NEW, "replicas": None, "ready": 4}, (WAIT, None)),
        (H, Phase.APPLIED, {"hpa": NEW, "replicas": 4, "ready": 4}, (MOVE, Phase.VERIFYING)),
        (H, Phase.APPLIED, {"hpa": NEW, "replicas": 6, "ready": 6}, (MOVE, Phase.VERIFYING)),
        (H, Phase.APPLIED, {"hpa": OLD, "replicas": 4, "ready": 4}, (MOVE, Phase.ABANDONED)),
        (
            H,
            Phase.APPLIED,
            {"hpa": NEW, "replicas": 4, "ready": 3, "seconds": LATE_R},
            (MOVE, Phase.REVERTING),
        ),
        (H, Phase.VERIFYING, {"hpa": None}, (WAIT, None)),
        (H, Phase.VERIFYING, {"hpa": THEIRS}, (MOVE, Phase.ABANDONED)),
        (H, Phase.REVERTING, {"hpa": NEW}, (UNDO, None)),
        (H, Phase.REVERTING, {"hpa": OLD}, (MOVE, Phase.REVERTED)),
        (H, Phase.REVERTING, {"hpa": THEIRS}, (MOVE, Phase.ABANDONED)),
        (H, Phase.REVERTING, {"hpa_gone": True}, (MOVE, Phase.ABANDONED)),
        # Ranks that train together: all of them must have found each other.
        (R, Phase.APPLIED, {**THREE, "seen": grouped(3, 3)}, (MOVE, Phase.VERIFYING)),
        (R, Phase.APPLIED, {**THREE, "seen": grouped(3, 1)}, (MOVE, Phase.VERIFYING)),
        (R, Phase.APPLIED, {**THREE, "seen": grouped(3, 2)}, (WAIT, None)),
        (R, Phase.APPLIED, {**THREE, "seen": grouped(1, 1)}, (WAIT, None)),
        (R, Phase.APPLIED, {**THREE, "seen": grouped(3, 1), "elastic": True}, (WAIT, None)),
        (
            R,
            Phase.APPLIED,
            {**THREE, "seen": grouped(3, 3), "elastic": True},
            (MOVE, Phase.VERIFYING),
        ),
        (R, Phase.APPLIED, {**THREE, "seen": grouped(2, 2, pods=3)}, (WAIT, None)),
        (
            R,
            Phase.APPLIED,
            {**THREE, "seen": grouped(3, 2), "seconds": LATE_R},
            (MOVE, Phase.REVERTING),
        ),
        (
            R,
            Phase.APPLIED,
            {**THREE, "seen": grouped(2, 2, pods=3, streaming=2), "seconds": LATE_R},
            (WAIT, None),
        ),
        # Resources.
        (S, Phase.PLANNED, {"containers": [sized(SMALL)]}, (APPLY, Phase.APPLIED)),
        (S, Phase.PLANNED, {"containers": [sized(LARGE)]}, (APPLY, Phase.APPLIED)),
        (S, Phase.PLANNED, {"containers": [sized(OTHER)]}, (MOVE, Phase.ABANDONED)),
        (S, Phase.PLANNED, {"containers": []}, (WAIT, None)),
        (S, Phase.APPLIED, {"containers": [sized(SMALL), sized(LARGE)]}, (APPLY, None)),
        (S, Phase.APPLIED, {"containers": [sized(LARGE, SMALL)]}, (WAIT, None)),
        (S, Phase.APPLIED, {"containers": [sized(LARGE)]}, (MOVE, Phase.VERIFYING)),
        (S, Phase.APPLIED, {"containers": [INFEASIBLE]}, (MOVE, Phase.REVERTING)),
        (S, Phase.APPLIED, {"containers": [DEFERRED]}, (WAIT, None)),
        (
            S,
            Phase.APPLIED,
            {"containers": [DEFERRED], "seconds": LATE_S},
            (MOVE, Phase.REVERTING),
        ),
        (S, Phase.APPLIED, {"containers": [sized(OTHER)]}, (MOVE, Phase.ABANDONED)),
        (S, Phase.VERIFYING, {"containers": [sized(LARGE), sized(SMALL)]}, (APPLY, None)),
        (S, Phase.VERIFYING, {"containers": []}, (WAIT, None)),
        (S, Phase.REVERTING, {"containers": [sized(LARGE)]}, (UNDO, None)),
        (S, Phase.REVERTING, {"containers": [INFEASIBLE]}, (UNDO, None)),
        (S, Phase.REVERTING, {"containers": [sized(SMALL, LARGE)]}, (WAIT, None)),
        (
            S,
            Phase.REVERTING,
            {"containers": [sized(SMALL, LARGE)], "seconds": LATE_S},
            (MOVE, Phase.REVERTED),
        ),
        (S, Phase.REVERTING, {"containers": [sized(SMALL)]}, (MOVE, Phase.REVERTED)),
        (
            S,
            Phase.REVERTING,
            {"containers": [sized(SMALL), sized(OTHER)]},
            (MOVE, Phase.REVERTED),
        ),
        (S, Phase.REVERTING, {"containers": [sized(OTHER)]}, (MOVE, Phase.ABANDONED)),
        # Neither.
        (None, Phase.PLANNED, {}, (MOVE, Phase.ABANDONED)),
        (K, Phase.OBSERVED, {}, (WAIT, None)),
        *((K, phase, {}, (WAIT, None)) for phase in CLOSED),
        *((K, phase, {"target_gone": True}, (WAIT, None)) for phase in CLOSED),
        # The target is gone.
        *(
            (action, phase, {"target_gone": True}, (MOVE, Phase.ABANDONED))
            for action in (K, R, S, H)
            for phase in Phase
            if phase.open
        ),
    ],
)
def test_the_next_step(
    action: Action | None,
    phase: Phase,
    situation: dict[str, Any],
    expected: tuple[Step, Phase | None],
) -> None:
    found = step(action, phase, **situation)
    assert (found.step, found.phase) == expected
    if found.step is MOVE:
        assert found.reason is not None
        assert found.message


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (V.IMPROVED, (MOVE, Phase.KEPT)),
        (V.INCONCLUSIVE, (MOVE, Phase.KEPT)),
        (V.NO_EFFECT, (MOVE, Phase.REVERTING)),
        (V.WORSE, (MOVE, Phase.REVERTING)),
        (V.NO_DATA, (WAIT, None)),
    ],
)
@pytest.mark.parametrize("action", [K, R, S, H], ids=["knobs", "replicas", "resources", "hpa"])
def test_the_verdict_keeps_or_undoes(
    action: Action, result: VerdictResult, expected: tuple[Step, Phase | None]
) -> None:
    done = {"annotated": True, "replicas": 3, "containers": [sized(LARGE)], "hpa": NEW}
    found = step(action, Phase.VERIFYING, **done, verdict=verdict(result))
    assert (found.step, found.phase) == expected
    assert found.verdict == (None if result is V.NO_DATA else verdict(result))


@pytest.mark.parametrize(
    ("result", "phase"),
    [(V.NO_EFFECT, Phase.KEPT), (V.IMPROVED, Phase.KEPT), (V.WORSE, Phase.REVERTING)],
)
def test_a_saving_is_kept_where_nothing_got_worse(result: VerdictResult, phase: Phase) -> None:
    saving = R.model_copy(update={"aim": Aim.SAVE})
    assert step(saving, Phase.VERIFYING, replicas=3, verdict=verdict(result)).phase is phase


def test_who_was_woken_stays_as_soon_as_it_is_there() -> None:
    waking = R.model_copy(update={"aim": Aim.WAKE})
    assert step(waking, Phase.APPLIED, replicas=3, ready=2).step is WAIT
    assert step(waking, Phase.APPLIED, replicas=3, ready=3).phase is Phase.KEPT


def test_people_are_asked_to_look_at_what_is_kept_unclear() -> None:
    kept = step(K, Phase.VERIFYING, annotated=True, verdict=verdict(V.INCONCLUSIVE))
    assert "please look" in kept.message


def test_what_a_rank_refused_is_said_in_its_own_words() -> None:
    refused = step(K, Phase.APPLIED, REFUSED, annotated=True)
    assert refused.reason is Reason.ACTION_REFUSED
    assert refused.message == "rank 0 of pod-0 refused: no such loader"


def test_what_the_node_cannot_give_is_said_in_its_own_words() -> None:
    refused = step(S, Phase.APPLIED, containers=[INFEASIBLE])
    assert refused.message == "the node of pod-0 cannot give it: the node has 1 CPU"
    late = step(S, Phase.APPLIED, containers=[DEFERRED], seconds=LATE_S)
    assert late.message.endswith("the node is full")


# -- some of the replicas first --------------------------------------------------------------------

HALF_OF_TWO = Split(treated=[Treated(name="pod-1", uid="u1")], at=moment(0))
AGAIN = Split(treated=[Treated(name="pod-2", uid="u2")], at=moment(9), chosen=2)
CANARY, ROLLED = Stage.CANARY, Stage.ROLLED
HAVE = {"annotated": True, "containers": [sized(LARGE)], "halves": (1, 1)}
THEIR_SIZE = {**HAVE, "containers": [sized(OTHER)]}
NONE_LEFT = {**HAVE, "annotated": False, "containers": [], "halves": (0, 1)}


def half(
    action: Action,
    phase: Phase,
    split: Split | None = HALF_OF_TWO,
    stage: Stage | None = CANARY,
    seconds: float = 0.0,
    **progress: Any,
) -> Next:
    times = {"applied_at": moment(0)} if phase is not Phase.PLANNED else {}
    if phase is Phase.REVERTING or stage is ROLLED:
        times["judged_at"] = moment(0)
    at = report(action, phase, split=split, stage=stage, **times)
    seen = progress.pop("seen", ACKED)
    return next_step(at, Progress(observation=seen, stage=stage, **progress), moment(seconds))


@pytest.mark.parametrize("action", [K, S], ids=["knobs", "resources"])
@pytest.mark.parametrize(
    ("phase", "situation", "expected"),
    [
        (Phase.PLANNED, HAVE, (APPLY, Phase.APPLIED, None)),
        (Phase.APPLIED, HAVE, (MOVE, Phase.VERIFYING, None)),
        (Phase.VERIFYING, HAVE, (WAIT, None, None)),
        (Phase.VERIFYING, {**HAVE, "verdict": V.IMPROVED}, (MOVE, Phase.APPLIED, ROLLED)),
        (Phase.VERIFYING, {**HAVE, "verdict": V.NO_EFFECT}, (MOVE, Phase.REVERTING, None)),
        (Phase.VERIFYING, {**HAVE, "verdict": V.WORSE}, (MOVE, Phase.REVERTING, None)),
        (Phase.VERIFYING, {**HAVE, "verdict": V.INCONCLUSIVE}, (MOVE, Phase.REVERTING, None)),
        (Phase.VERIFYING, {**HAVE, "verdict": V.NO_DATA}, (WAIT, None, None)),
        # A watch that does not show every pod yet says nothing of who is gone.
        (Phase.VERIFYING, {**HAVE, "halves": None}, (WAIT, None, None)),
        # No treated one is left: others are chosen once, and what is gone needs no undoing.
        (Phase.PLANNED, NONE_LEFT, (MOVE, Phase.ABANDONED, None)),
        (Phase.APPLIED, NONE_LEFT, (WAIT, None, None)),
        (Phase.VERIFYING, {**NONE_LEFT, "choice": AGAIN}, (MOVE, Phase.APPLIED, CANARY)),
        (
            Phase.VERIFYING,
            {**NONE_LEFT, "split": AGAIN, "choice": AGAIN},
            (MOVE, Phase.REVERTING, None),
        ),
        (Phase.APPLIED, {**NONE_LEFT, "seconds": 301}, (MOVE, Phase.REVERTING, None)),
        (Phase.REVERTING, NONE_LEFT, (MOVE, Phase.REVERTED, None)),
        # No untouched one is.
        (Phase.PLANNED, {**HAVE, "halves": (1, 0)}, (APPLY, Phase.APPLIED, None)),
        (Phase.VERIFYING, {**HAVE, "halves": (1, 0)}, (MOVE, Phase.REVERTING, None)),
    ],
)
def test_some_of_the_replicas_first(
    action: Action,
    phase: Phase,
    situation: dict[str, Any],
    expected: tuple[Step, Phase | None, Stage | None],
) -> None:
    result = situation.get("verdict")
    given = {**situation, "verdict": verdict(result)} if result else situation
    found = half(action, phase, **given)
    assert (found.step, found.phase, found.stage) == expected
    if found.step is MOVE:
        assert found.message


def test_which_replicas_it_begins_on_is_recorded_before_it_begins() -> None:
    found = half(K, Phase.PLANNED, split=None, stage=None, choice=HALF_OF_TWO)
    assert (found.step, found.phase, found.stage) == (MOVE, Phase.PLANNED, CANARY)
    assert found.split == HALF_OF_TWO
    status = advanced(report(K).status, found, moment(1))
    assert (status.split, status.stage, status.applied_at) == (HALF_OF_TWO, CANARY, None)


def test_where_there_is_no_choice_it_is_on_all_at_once() -> None:
    assert half(K, Phase.PLANNED, split=None, stage=None).step is APPLY
    # Not while there will be one soon: decided five seconds before, it waits a minute at most.
    for seconds, step_ in ((54, WAIT), (56, APPLY)):
        found = half(K, Phase.PLANNED, split=None, stage=None, gathering=True, seconds=seconds)
        assert found.step is step_


def test_replicas_that_are_chosen_again_have_as_long_as_the_first() -> None:
    found = half(K, Phase.VERIFYING, **NONE_LEFT, choice=AGAIN)
    begun = report(K, Phase.VERIFYING, split=HALF_OF_TWO, stage=CANARY, applied_at=moment(0))
    status = advanced(begun.status, found, moment(90))
    assert (status.split, status.applied_at) == (AGAIN, moment(90))


def test_half_of_the_replicas_are_not_left_with_it_where_somebody_else_resizes() -> None:
    assert half(S, Phase.VERIFYING, **THEIR_SIZE).phase is Phase.REVERTING
    assert half(S, Phase.VERIFYING, stage=ROLLED, **THEIR_SIZE).phase is Phase.ABANDONED


@pytest.mark.parametrize(
    ("result", "phase"), [(V.NO_EFFECT, Phase.APPLIED), (V.WORSE, Phase.REVERTING)]
)
def test_a_saving_goes_on_where_nothing_got_worse(result: VerdictResult, phase: Phase) -> None:
    saving = S.model_copy(update={"aim": Aim.SAVE})
    assert half(saving, Phase.VERIFYING, **HAVE, verdict=verdict(result)).phase is phase


# -- approval --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "approved", "progress", "expected"),
    [
        (Phase.RECOMMENDED, False, {}, (WAIT, None)),
        (Phase.PLANNED, False, {}, (MOVE, Phase.RECOMMENDED)),
        (Phase.RECOMMENDED, True, {}, (MOVE, Phase.PLANNED)),
        (Phase.PLANNED, True, {}, (APPLY, Phase.APPLIED)),
        (Phase.RECOMMENDED, True, {"newest_generation": 1}, (MOVE, Phase.ABANDONED)),
        (Phase.RECOMMENDED, True, {"another_open": True}, (WAIT, None)),
        (Phase.RECOMMENDED, False, {"target_gone": True}, (MOVE, Phase.ABANDONED)),
    ],
    ids=[
        "it waits for people",
        "the process died before it was marked as a recommendation",
        "people approved",
        "approved and planned",
        "approved after another change of the knobs",
        "approved while another action is under way",
        "the target is gone",
    ],
)
def test_a_recommendation(
    phase: Phase,
    approved: bool,
    progress: dict[str, Any],
    expected: tuple[Step, Phase | None],
) -> None:
    found = step(K, phase, approval=(True, approved), **progress)
    assert (found.step, found.phase) == expected


@pytest.mark.parametrize("value", ["false", "True", "yes", "1", ""])
def test_only_true_approves(value: str) -> None:
    waiting = report(K, Phase.RECOMMENDED, approval=True)
    annotated = waiting.model_copy(
        update={
            "metadata": waiting.metadata.model_copy(
                update={"annotations": {APPROVED_ANNOTATION: value}}
            )
        }
    )
    assert next_step(annotated, Progress(observation=HEARD), moment()).step is WAIT


# -- acknowledgement -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "done"),
    [
        (ACKED, True),
        (observation(ranks=[talking(1, "Unchanged")]), True),
        (observation(ranks=[talking(5)]), True),
        (HEARD, False),
        (observation(ranks=[talking(0)]), False),
        (REFUSED, False),
        (observation(ranks=[]), False),
        (observation(ranks=[talking(1), talking()]), False),
        (observation(ranks=[talking(1, fresh=False)]), False),
        (observation(ranks=[talking(1)], expected=2, streaming=1), False),
    ],
    ids=[
        "applied",
        "was so already",
        "a newer generation",
        "not yet",
        "an older generation",
        "refused",
        "no rank",
        "one of two ranks",
        "an old acknowledgement of a rank that fell silent",
        "one of two pods is silent",
    ],
)
def test_every_rank_has_to_acknowledge(seen: Observation, done: bool) -> None:
    assert acknowledged(seen, 1) is done


# -- knobs that follow from reports ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "wanted"),
    [
        (Phase.OBSERVED, None),
        (Phase.RECOMMENDED, None),
        (Phase.ABANDONED, None),
        (Phase.PLANNED, DesiredKnobs(5, {"dataLoader.workers": 4})),
        (Phase.APPLIED, DesiredKnobs(5, {"dataLoader.workers": 4})),
        (Phase.VERIFYING, DesiredKnobs(5, {"dataLoader.workers": 4})),
        (Phase.KEPT, DesiredKnobs(5, {"dataLoader.workers": 4})),
        (Phase.REVERTING, DesiredKnobs(6, {"dataLoader.workers": 0})),
        (Phase.REVERTED, DesiredKnobs(6, {"dataLoader.workers": 0})),
    ],
)
def test_the_knobs_that_pods_should_carry(phase: Phase, wanted: DesiredKnobs | None) -> None:
    assert own_knobs(report(knobs_action(5), phase)) == wanted
    # A pod that comes later is given nothing that has not begun yet.
    planned = phase is Phase.PLANNED
    assert desired_knobs([report(knobs_action(5), phase)]) == (None if planned else wanted)


def test_a_plan_that_waits_for_approval_wants_no_knobs() -> None:
    assert own_knobs(report(K, Phase.PLANNED, approval=True)) is None
    assert own_knobs(report(K, Phase.PLANNED, approval=True, approved=True)) is not None


@pytest.mark.parametrize(
    ("stage", "phase", "generation"),
    [
        *((Stage.CANARY, phase, 3) for phase in Phase),
        (Stage.ROLLED, Phase.APPLIED, 3),
        (Stage.ROLLED, Phase.VERIFYING, 3),
        (Stage.ROLLED, Phase.KEPT, 5),
        (Stage.ROLLED, Phase.REVERTING, 6),
        (Stage.ROLLED, Phase.REVERTED, 6),
    ],
)
def test_what_is_on_some_replicas_is_for_no_later_pod(
    stage: Stage, phase: Phase, generation: int
) -> None:
    """Nor is what follows on the rest, until it is kept."""
    reports = [report(knobs_action(3), KEPT), report(knobs_action(5), phase, "p-2", stage=stage)]
    found = desired_knobs(reports)
    assert found is not None
    assert found.generation == generation


REPORTS = st.lists(
    st.builds(
        report,
        st.one_of(st.none(), st.just(R), st.integers(1, 40).map(knobs_action)),
        st.sampled_from(Phase),
        approval=st.booleans(),
        approved=st.booleans(),
    ),
    max_size=8,
)


@CASES
@given(REPORTS, REPORTS)
def test_one_more_report_never_takes_a_generation_back(
    reports: list[BottleneckReport], more: list[BottleneckReport]
) -> None:
    def generation(found: DesiredKnobs | None) -> int:
        return found.generation if found else 0

    both = [*reports, *more]
    assert generation(desired_knobs(both)) >= generation(desired_knobs(reports))
    assert issued_generation(both) >= issued_generation(reports)
    assert issued_generation(both) >= generation(desired_knobs(both))
    assert desired_knobs(reversed(both)) is None or generation(
        desired_knobs(list(reversed(both)))
    ) == generation(desired_knobs(both))


# -- sizes that follow from reports ----------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
def test_later_pods_get_the_size_that_was_kept(phase: Phase) -> None:
    assert desired_sizes([report(S, phase)]) == ({"main": S.resources} if phase is KEPT else {})


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.open])
def test_a_container_with_an_action_under_way_is_left_to_it(phase: Phase) -> None:
    assert desired_sizes([report(S, KEPT), report(S, phase, "p-2")]) == {}


def test_the_newest_kept_size_counts() -> None:
    assert S.resources is not None
    larger = S.resources.model_copy(update={"desired": OTHER, "replaces": LARGE})
    newer = S.model_copy(update={"resources": larger})
    undone = report(S, Phase.REVERTED, "p-3")
    assert desired_sizes([report(S, KEPT), report(newer, KEPT, "p-2"), undone]) == {"main": larger}


# -- the record ------------------------------------------------------------------------------------


def test_a_status_keeps_when_each_thing_happened() -> None:
    status = report(K).status
    for second, next_one in enumerate(
        (
            Next(APPLY, Phase.APPLIED, Reason.ACTION_APPLIED, "done"),
            Next(MOVE, Phase.VERIFYING, Reason.ACTION_ACKNOWLEDGED, "heard"),
            Next(MOVE, Phase.REVERTING, Reason.REVERTING, "worse", verdict(V.WORSE)),
            Next(MOVE, Phase.REVERTED, Reason.ACTION_REVERTED, "undone"),
        )
    ):
        status = advanced(status, next_one, moment(second), [1.0])
    times = (status.applied_at, status.acknowledged_at, status.judged_at, status.closed_at)
    assert times == tuple(moment(second) for second in range(4))
    assert status.after == [1.0]
    assert [entry.what for entry in status.timeline] == [
        "ActionApplied",
        "ActionAcknowledged",
        "Reverting",
        "ActionReverted",
    ]


def test_a_timeline_is_bounded() -> None:
    status = report(K).status
    for second in range(3 * TIMELINE):
        status = advanced(status, Next(MOVE, Phase.APPLIED), moment(second))
    assert len(status.timeline) == TIMELINE
    assert status.timeline[-1].time == moment(3 * TIMELINE - 1)


# -- a model of the world, with crashes ------------------------------------------------------------


@dataclass
class World:
    """A cluster with one workload, and the API server that remembers the report."""

    action: Action
    report: BottleneckReport
    second: float = 0.0
    carried: tuple[int, int] = (0, 0)
    """Generation and workers in the pod's annotation."""
    acked: int = 0
    replicas: int = 1
    changes: list[tuple[int, int]] = field(default_factory=list)
    """Every change that really changed something."""
    phases: list[Phase] = field(default_factory=list)

    def apply(self) -> None:
        wanted = own_knobs(self.report)
        if self.action.knobs is not None:
            assert wanted is not None, "an effect that nothing stands for"
            value = (wanted.generation, wanted.values["dataLoader.workers"])
            if self.carried != value and self.carried[0] <= wanted.generation:
                self.carried = value
                self.changes.append(value)

    def scale(self, replaces: int, desired: int) -> None:
        if self.replicas == desired:
            return
        assert self.replicas == replaces
        self.replicas = desired
        self.changes.append((replaces, desired))

    def progress(self, event: str) -> Progress:
        own = own_knobs(self.report)
        heard = observation(ranks=[talking(self.acked or None)])
        result = {
            "improved": V.IMPROVED,
            "worse": V.WORSE,
            "no effect": V.NO_EFFECT,
            "unclear": V.INCONCLUSIVE,
            "no figures": V.NO_DATA,
        }.get(event)
        judged = result if self.report.status.phase is Phase.VERIFYING else None
        missing = event == "silence"
        return Progress(
            observation=SILENT if missing else heard,
            replicas=None if missing else self.replicas,
            ready=None if missing else self.replicas,
            annotated=own is not None and self.carried[0] >= own.generation,
            target_gone=event == "gone",
            verdict=verdict(judged) if judged and not missing else None,
        )

    def turn(self, event: str) -> Next:
        """One turn of the loop under ``event``; a crash loses what was not recorded yet."""
        if event == "acknowledges":
            self.acked = self.carried[0]
        if event == "time passes":
            self.second += 1000
        if event == "approves":
            metadata = self.report.metadata.model_copy(
                update={"annotations": {APPROVED_ANNOTATION: "true"}}
            )
            self.report = self.report.model_copy(update={"metadata": metadata})
        if event == "somebody scales":
            self.replicas += 5
        found = next_step(self.report, self.progress(event), moment(self.second))
        if event == "crash before":
            return found
        change = self.action.replicas
        if found.step is APPLY:
            if change:
                self.scale(change.replaces, change.desired)
            self.apply()
        elif found.step is UNDO:
            if change:
                self.scale(change.desired, change.replaces)
            self.apply()
        if found.phase is not None and event != "crash after":
            status = advanced(self.report.status, found, moment(self.second))
            self.report = self.report.model_copy(update={"status": status})
            self.phases.append(found.phase)
        return found


EVENTS = (
    "nothing",
    "acknowledges",
    "time passes",
    "approves",
    "silence",
    "no figures",
    "improved",
    "worse",
    "no effect",
    "unclear",
    "crash before",
    "crash after",
    "somebody scales",
    "gone",
)
STORIES = st.tuples(
    st.sampled_from([K, R]), st.booleans(), st.lists(st.sampled_from(EVENTS), max_size=25)
)
ALLOWED = {
    Phase.RECOMMENDED: {Phase.PLANNED, Phase.ABANDONED},
    Phase.PLANNED: {Phase.APPLIED, Phase.RECOMMENDED, Phase.ABANDONED},
    Phase.APPLIED: {Phase.VERIFYING, Phase.REVERTING, Phase.ABANDONED},
    Phase.VERIFYING: {Phase.KEPT, Phase.REVERTING, Phase.ABANDONED},
    Phase.REVERTING: {Phase.REVERTED, Phase.ABANDONED},
}


def told(story: tuple[Action, bool, list[str]]) -> World:
    action, approval, events = story
    world = World(action, report(action, approval=approval))
    for event in events:
        before = world.report.status.phase
        found = world.turn(event)
        after = world.report.status.phase
        if after is not before:
            assert after in ALLOWED[before], (before, after)
        if event in ("silence", "no figures"):
            judged = before is Phase.VERIFYING or event == "silence"
            if judged:
                assert found.phase not in (Phase.KEPT, Phase.REVERTING), before
        if approval and "approves" not in events:
            assert found.step not in (APPLY, UNDO)
            assert world.changes == []
            assert own_knobs(world.report) is None
    return world


LONG = CASES.__class__(CASES, max_examples=150)


@LONG
@given(STORIES)
def test_an_effect_happens_at_most_once_whatever_crashes(
    story: tuple[Action, bool, list[str]],
) -> None:
    world = told(story)
    if "somebody scales" in story[2]:
        assert len(world.changes) <= 2
    else:
        forward, back = (((1, 4)), ((2, 0))) if world.action is K else ((1, 3), (3, 1))
        assert world.changes in ([], [forward], [forward, back])


@LONG
@given(STORIES)
def test_every_story_ends_once_the_world_is_calm(story: tuple[Action, bool, list[str]]) -> None:
    world = told(story)
    for event in ["approves", *["acknowledges", "improved", "time passes"] * 5]:
        world.turn(event)
    end = world.report.status.phase
    assert end in CLOSED
    assert world.report.status.closed_at is not None
    # And nothing moves it again.
    changes = list(world.changes)
    for event in EVENTS:
        if event != "gone":
            assert world.turn(event).step is WAIT
    assert world.changes == changes
    if world.action is K and "gone" not in story[2]:
        workers = {Phase.KEPT: 4, Phase.REVERTED: 0, Phase.ABANDONED: 0}[end]
        assert world.carried[1] == workers


@LONG
@given(STORIES)
def test_the_record_alone_tells_what_happened(story: tuple[Action, bool, list[str]]) -> None:
    """A new process that reads the report as the API server stores it goes on in the same way."""
    world = told(story)
    reread = BottleneckReport.model_validate(world.report.dump())
    for event in EVENTS:
        progress = world.progress(event)
        now = moment(world.second)
        assert next_step(reread, progress, now) == next_step(world.report, progress, now)


def test_the_stories_reach_every_phase() -> None:
    reached: set[Phase] = set()
    for events in (
        ["crash after", "nothing", "acknowledges", "improved"],
        ["nothing", "acknowledges", "worse", "nothing", "acknowledges"],
        ["nothing", "gone"],
    ):
        reached |= set(told((K, False, events)).phases)
    reached |= set(told((K, True, ["nothing", "approves"])).phases)
    assert reached == set(Phase) - {Phase.OBSERVED}


def test_a_late_process_does_not_overwrite_a_newer_generation() -> None:
    world = World(K, report(K))
    world.carried = (9, 1)
    world.turn("nothing")
    assert world.changes == []


# -- replicas that follow the load -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase.PLANNED, (MOVE, Phase.ABANDONED)),
        (Phase.APPLIED, (MOVE, Phase.KEPT)),
        (Phase.VERIFYING, (MOVE, Phase.KEPT)),
        (Phase.REVERTING, (MOVE, Phase.ABANDONED)),
    ],
)
def test_growth_that_a_later_report_carries_further_is_kept(
    phase: Phase, expected: tuple[Step, Phase]
) -> None:
    """Also where the later one has changed the number already, as after a crash in between."""
    found = step(R, phase, replicas=5, ready=2, superseded_by="p-2")
    assert (found.step, found.phase) == expected
    if found.phase is Phase.KEPT:
        assert found.message == "carried further by p-2"


@pytest.mark.parametrize(
    ("result", "met", "phase"),
    [
        (V.NO_EFFECT, True, Phase.KEPT),
        (V.NO_EFFECT, False, Phase.REVERTING),
        (V.WORSE, True, Phase.REVERTING),
    ],
)
def test_growth_that_keeps_the_objectives_met_stays(
    result: VerdictResult, met: bool, phase: Phase
) -> None:
    found = step(R, Phase.VERIFYING, replicas=3, verdict=verdict(result), met=met)
    assert found.phase is phase


def test_only_a_report_that_may_act_supersedes() -> None:
    older = report(R, Phase.APPLIED)
    newer = report(R, name="p-2")
    further = newer.model_copy(update={"spec": newer.spec.model_copy(update={"supersedes": "p-1"})})
    waits = further.model_copy(
        update={"spec": further.spec.model_copy(update={"approval_required": True})}
    )
    assert superseded_by(older, [older, newer]) == ""
    assert superseded_by(older, [older, waits]) == ""
    assert superseded_by(older, [older, further]) == "p-2"
