"""What people may take back, and the state of the cluster against what a report says was there."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.conditions import ROLLBACK_ANNOTATION, Reason
from bottleneck_operator.api.consequences import Rollback
from bottleneck_operator.api.report import (
    Action,
    BottleneckReport,
    ContainerResources,
    HpaBounds,
    Phase,
    Trade,
    TradeRole,
)
from bottleneck_operator.decide.effects.standing import Progress
from bottleneck_operator.decide.lifecycle import (
    Next,
    Step,
    desired_knobs,
    issued_generation,
    next_step,
)
from bottleneck_operator.decide.restored import State, differences
from bottleneck_operator.decide.rollback import annotation, built_upon, wish_of
from bottleneck_operator.observe.rollout import Rollout
from bottleneck_operator.report.reports import advanced
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    LARGE,
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
from .test_variants import image_action

WISH = annotation("alice", "2027-01-15T08:00:00Z")


def asked(
    action: Action | None = None, phase: Phase = Phase.KEPT, text: str = WISH, **changes: Any
) -> BottleneckReport:
    made = report(action or knobs_action(), phase, applied_at=moment(-100), **changes)
    meta = made.metadata.model_copy(update={"annotations": {ROLLBACK_ANNOTATION: text}})
    return made.model_copy(update={"metadata": meta})


def later(action: Action, phase: Phase, name: str = "p-2") -> BottleneckReport:
    made = report(action, phase, name)
    return made.model_copy(update={"spec": made.spec.model_copy(update={"decided_at": moment()})})


def progress(workers: int = 4, **changes: Any) -> Progress:
    rank = talking(1, knobs={"dataLoader.workers": workers})
    return Progress(observation=observation(ranks=[rank]), **changes)


def step(made: BottleneckReport, seen: Progress | None = None) -> Next:
    return next_step(made, seen or progress(), moment())


@pytest.mark.parametrize("phase", [Phase.KEPT, Phase.PLANNED, Phase.APPLIED, Phase.VERIFYING])
def test_what_stands_is_taken_back(phase: Phase) -> None:
    done = step(asked(phase=phase), progress(issued_generation=6))
    assert (done.step, done.phase, done.reason) == (
        Step.MOVE,
        Phase.REVERTING,
        Reason.ROLLED_BACK,
    )
    assert done.rollback is not None
    assert (done.rollback.by, done.rollback.generation) == ("alice", 7)
    assert "as alice asked" in done.message


@pytest.mark.parametrize(
    ("made", "seen", "word"),
    [
        (asked(phase=Phase.REVERTED), {}, "Reverted already"),
        (asked(phase=Phase.REVERTING), {}, "Reverting already"),
        (asked(phase=Phase.ABANDONED), {}, "given up"),
        (asked(phase=Phase.RECOMMENDED), {}, "nothing was done"),
        (asked(), {"built_upon": "p-2"}, "p-2 builds on it"),
        (asked(), {"target_gone": True}, "no longer exists"),
        (asked(), {"workers": 2}, "dataLoader.workers of rank 0 of pod-0 2, as the action left"),
        (asked(replicas_action()), {"replicas": 5}, "replicas 5, as the action left it 3"),
    ],
)
def test_what_is_refused_stays_as_it_is(
    made: BottleneckReport, seen: dict[str, Any], word: str
) -> None:
    done = step(made, progress(**seen))
    assert (done.phase, done.reason) == (made.status.phase, Reason.ROLLBACK_REFUSED)
    assert done.rollback is not None
    assert word in done.rollback.refused
    after = advanced(made.status, done, moment(5))
    assert after.phase is made.status.phase
    assert after.closed_at == made.status.closed_at
    assert word in after.timeline[-1].message
    again = made.model_copy(update={"status": after})
    assert wish_of(again) is None
    new = annotation("alice", "2027-01-15T09:00:00Z")
    meta = again.metadata.model_copy(update={"annotations": {ROLLBACK_ANNOTATION: new}})
    assert wish_of(again.model_copy(update={"metadata": meta})) is not None


def test_one_side_of_a_trade_is_not_taken_back_alone() -> None:
    made = asked(replicas_action())
    trade = Trade(
        pool="gpu",
        role=TradeRole.GIVES,
        policy="other",
        devices=1,
        resource="nvidia.com/gpu",
        ready=2,
        reason="it needs one",
    )
    made = made.model_copy(update={"spec": made.spec.model_copy(update={"trade": trade})})
    done = step(made, progress(replicas=3))
    assert done.reason is Reason.ROLLBACK_REFUSED
    assert "trade with other" in done.message


def test_it_waits_for_an_action_that_is_being_judged() -> None:
    assert step(asked(), progress(another_open=True)).step is Step.WAIT


def test_without_a_wish_a_closed_report_is_left_alone() -> None:
    assert step(report(knobs_action(), Phase.KEPT)).step is Step.WAIT


@pytest.mark.parametrize(
    ("action", "other", "phase", "expected"),
    [
        (knobs_action(), knobs_action(3), Phase.KEPT, "p-2"),
        (knobs_action(), knobs_action(3), Phase.VERIFYING, "p-2"),
        (knobs_action(), knobs_action(3), Phase.REVERTED, ""),
        (knobs_action(), knobs_action(3), Phase.RECOMMENDED, ""),
        (knobs_action(), replicas_action(), Phase.KEPT, ""),
        (replicas_action(), hpa_action(), Phase.KEPT, "p-2"),
        (resources_action(), resources_action(), Phase.KEPT, "p-2"),
        (image_action(), image_action(), Phase.KEPT, "p-2"),
    ],
)
def test_what_builds_on_what(action: Action, other: Action, phase: Phase, expected: str) -> None:
    first, second = asked(action), later(other, phase)
    assert built_upon(first, [first, second]) == expected
    assert built_upon(second, [first, second]) == ""


def test_knobs_come_back_with_a_generation_of_their_own() -> None:
    """A later change came and went, so pods carry a higher one than the report's own."""
    taken = Rollback(by="alice", answered_at=moment(), generation=5)
    made = asked(
        phase=Phase.REVERTING, text=annotation("bob", ""), rollback=taken, judged_at=moment()
    )
    other = later(knobs_action(3, workers=8, before=4), Phase.REVERTED)
    wanted = desired_knobs([made, other])
    assert wanted is not None
    assert (wanted.generation, wanted.values) == (5, {"dataLoader.workers": 0})
    assert issued_generation([made, other]) == 5
    undoing = progress(workers=0, annotated=True)
    assert step(made, undoing).step is Step.WAIT  # generation 1 is acknowledged, not 5
    rank = talking(5, knobs={"dataLoader.workers": 0})
    done = step(made, Progress(observation=observation(ranks=[rank]), annotated=True))
    assert done.phase is Phase.REVERTED


@CASES
@given(st.text(max_size=300))
def test_anything_may_stand_in_the_annotation(text: str) -> None:
    made = asked(text=text)
    wish = wish_of(made)
    assert wish is not None
    assert wish.by
    assert len(wish.by) <= 128
    done = step(made)
    assert done.phase is Phase.REVERTING
    after = advanced(made.status, done, moment())
    assert wish_of(made.model_copy(update={"status": after})) is None


# -- value by value --------------------------------------------------------------------------------

IMAGE = image_action()
assert IMAGE.image is not None
FOUND = Rollout(images={IMAGE.image.container: IMAGE.image.replaces}, fields=IMAGE.image.restores)
HELD = Rollout(images={IMAGE.image.container: IMAGE.image.replaces}, fields=IMAGE.image.holds)
HALF = ContainerResources(cpu_request="100m", cpu_limit="1", memory_limit="1Gi")
SAME = ContainerResources(cpu_request="0.1", cpu_limit="0.5", memory_limit="1024Mi")


@pytest.mark.parametrize(
    ("action", "seen", "count"),
    [
        (knobs_action(), progress(workers=0), 0),
        (knobs_action(), progress(workers=4), 1),
        (knobs_action(), Progress(observation=observation()), 0),
        (replicas_action(3, 1), progress(replicas=1), 0),
        (replicas_action(3, 1), progress(replicas=2), 1),
        (replicas_action(3, 1), progress(), 0),
        (hpa_action((1, 3), (4, 4)), progress(hpa=HpaBounds(min=1, max=3)), 0),
        (hpa_action((1, 3), (4, 4)), progress(hpa=HpaBounds(min=2, max=4)), 2),
        (hpa_action(), progress(hpa_gone=True), 1),
        (resources_action(), progress(containers=[sized(SMALL), sized(SAME)]), 0),
        (resources_action(), progress(containers=[sized(SMALL, LARGE)]), 1),
        (resources_action(), progress(containers=[sized(HALF)]), 2),
        (IMAGE, progress(rollout=FOUND), 0),
        (IMAGE, progress(), 0),
    ],
)
def test_every_value_that_is_not_as_before_is_told(
    action: Action, seen: Progress, count: int
) -> None:
    found = differences(action, State.BEFORE, seen)
    assert len(found) == count, found
    assert all("before the action" in word for word in found if "autoscaler" not in word.lower())


def test_fields_of_a_rollout_that_stayed_held_are_told() -> None:
    found = differences(IMAGE, State.BEFORE, progress(rollout=HELD))
    assert found
    assert not any(word.startswith("image") for word in found)


def test_what_an_action_left_is_told_apart_from_what_was_before() -> None:
    assert differences(replicas_action(3, 1), State.AFTER, progress(replicas=3)) == []
    assert differences(replicas_action(3, 1), State.AFTER, progress(replicas=1)) == [
        "replicas 1, as the action left it 3"
    ]
