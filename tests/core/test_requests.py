"""What a container asks of the scheduler: more where others take its CPUs, less if unused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api import units
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.report import Action, Aim, ContainerResources, Phase
from bottleneck_operator.decide.decision import Facts, Plan, Refusal
from bottleneck_operator.decide.planner import decide
from bottleneck_operator.decide.remedies.requests import SPARE_SECONDS, spare
from bottleneck_operator.decide.remedies.resources import resources
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.observation import Observation, WorkloadType
from bottleneck_operator.observe.trail import Trail
from hypothesis import given
from hypothesis import strategies as st

from .builders import NOW, moment, observation, reading, report, resources_action, sized, spec
from .test_remedies import cause

SIZE = ContainerResources(cpu_request="2", cpu_limit="4", memory_request="4Gi", memory_limit="4Gi")
BOUNDS = {"cpu": {"min": "250m", "max": "8"}, "memory": {"min": "1Gi", "max": "8Gi"}}


def trainer(**signals: float) -> Observation:
    figures = {"training.samplesPerSecond": 100.0, "cpu.mostUsedCores": 1.8}
    figures |= {name.replace("_", "."): value for name, value in signals.items()}
    return observation(signals={name: reading(value) for name, value in figures.items()})


def trail(cpu: float = 0.4, memory: float = 0.5, seconds: float = 3600) -> Trail:
    found = Trail()
    at = NOW - seconds
    while at <= NOW:
        seen = trainer(cpu_mostUsedCores=cpu, memory_usedShare=memory)
        found.note(replace(seen, time=at))
        at += 5
    return found


def facts(size: ContainerResources = SIZE, **changes: Any) -> Facts:
    fields = {"containers": {"main": (sized(size),)}, "trail": trail(), **changes}
    return Facts(**fields)


# -- more ------------------------------------------------------------------------------------------


def more(size: ContainerResources = SIZE, share: float = 0.4, **signals: float) -> Any:
    wanted = spec(actions={"resources": BOUNDS})
    return resources(cause("node-oversubscribed", share), trainer(**signals), wanted, facts(size))


def test_who_gets_too_little_of_a_full_node_asks_for_what_it_needs() -> None:
    found = more()
    assert isinstance(found, Action)
    assert found.resources is not None
    # 1.8 cores are 60% of the need.
    assert units.quantity(found.resources.desired.cpu_request or "") == pytest.approx(3.3)
    assert found.resources.desired.cpu_limit == "4"
    assert found.resources.desired.memory_request == "4Gi"
    assert found.prediction is not None
    assert found.prediction.after == pytest.approx(100 / 0.6, abs=0.01)


def test_a_request_never_exceeds_its_limit_or_the_policy() -> None:
    found = more(share=0.9)
    assert isinstance(found, Action)
    assert found.resources is not None
    assert found.resources.desired.cpu_request == "4"


@pytest.mark.parametrize(
    ("size", "signals", "reason"),
    [
        (SIZE.model_copy(update={"cpu_request": None}), {}, Reason.NO_REMEDY),
        (SIZE.model_copy(update={"cpu_request": "4"}), {}, Reason.AT_MAXIMUM),
    ],
    ids=["it asks for nothing", "it asks for all that it may have"],
)
def test_it_says_why_it_asks_for_no_more(
    size: ContainerResources, signals: dict[str, float], reason: Reason
) -> None:
    found = more(size, **signals)
    assert isinstance(found, Refusal)
    assert found.reason is reason


# -- less ------------------------------------------------------------------------------------------


def cut(known: Facts, bounds: Any = BOUNDS) -> Plan | None:
    return spare(trainer(), spec(actions={"resources": bounds}), known, NOW)


def test_what_was_not_used_for_an_hour_is_given_back_by_half_at_most() -> None:
    found = cut(facts())
    assert found is not None
    assert found.action.aim is Aim.SAVE
    assert found.action.summary == "main: cpu request 2 → 1"
    assert found.action.resources is not None
    assert found.action.resources.desired.cpu_limit == "4", "room for a burst stays"
    assert found.symptom is not None
    assert "used 0.40 cores at most" in found.symptom.text


def test_a_pod_keeps_its_quality_of_service() -> None:
    found = cut(facts(), {"memory": BOUNDS["memory"]})
    assert found is not None
    assert found.action.resources is not None
    desired = found.action.resources.desired
    assert desired.memory_request == desired.memory_limit == "2560Mi"


EARLIER = report(resources_action(), Phase.KEPT, applied_at=moment(-60))


@pytest.mark.parametrize(
    ("known", "bounds"),
    [
        (facts(trail=Trail()), BOUNDS),
        (facts(trail=trail(seconds=1800)), BOUNDS),
        (facts(trail=trail(cpu=1.7, memory=0.9)), BOUNDS),
        (facts(), {"cpu": {"max": "8"}}),
        (facts(), {"cpu": {"min": "2", "max": "8"}}),
        (facts(vpa="theirs"), BOUNDS),
        (facts(reports=(EARLIER,)), BOUNDS),
        (facts(containers={}), BOUNDS),
        (facts(SIZE.model_copy(update={"cpu_request": None, "memory_request": None})), BOUNDS),
    ],
    ids=[
        "nothing was seen",
        "half an hour was seen",
        "it is used",
        "the policy has no min",
        "it is at its min",
        "somebody else owns it",
        "it was resized a minute ago",
        "no pod is known",
        "it asks for nothing",
    ],
)
def test_nothing_is_taken_away(known: Facts, bounds: Any) -> None:
    assert cut(known, bounds) is None


@given(st.floats(0, 8), st.floats(0, 1))
def test_a_cut_leaves_more_than_was_ever_used(cpu: float, memory: float) -> None:
    found = cut(facts(trail=trail(cpu, memory, seconds=SPARE_SECONDS + 60)))
    if found is None:
        return
    assert found.action.resources is not None
    old, new = found.action.resources.replaces, found.action.resources.desired
    assert units.quantity(new.cpu_request or "") >= min(cpu, units.quantity(old.cpu_request or ""))
    assert units.quantity(new.cpu_request or "") >= units.quantity("250m")
    assert units.quantity(new.memory_request or "") >= units.quantity("1Gi")
    assert units.quantity(new.memory_request or "") >= min(memory, 1) * units.quantity("4Gi")


# -- the planner -----------------------------------------------------------------------------------


def planned(known: Facts, streaming: int = 1, **limits: Any) -> Plan | Refusal:
    wanted = spec(
        objectives={"goodput": {"min": "50"}}, actions={"resources": BOUNDS}, limits=limits
    )
    seen = replace(trainer(), streaming=streaming, type=WorkloadType.TRAINING)
    return decide(diagnose(seen, wanted.objectives), seen, wanted, known, NOW)


def saving(phase: Phase, ago: float) -> Any:
    action = resources_action().model_copy(update={"aim": Aim.SAVE})
    return report(action, phase, applied_at=moment(-7200), closed_at=moment(-ago))


def test_while_the_objectives_are_met_the_planner_saves() -> None:
    found = planned(facts())
    assert isinstance(found, Plan)
    assert found.action.aim is Aim.SAVE
    assert found.action.cost is not None


@pytest.mark.parametrize(
    ("known", "changes", "reason"),
    [
        (facts(), {"streaming": 0}, Reason.OBJECTIVES_MET),
        (facts(), {"disruption": "HotOnly"}, Reason.OBJECTIVES_MET),
        (facts(reports=(saving(Phase.REVERTED, 600),)), {}, Reason.OBJECTIVES_MET),
        (facts(reports=(saving(Phase.KEPT, 20),)), {}, Reason.COOLDOWN),
    ],
    ids=["a replica is silent", "too strong", "it had to be given back", "within the cooldown"],
)
def test_the_planner_does_not_save(known: Facts, changes: dict[str, Any], reason: Reason) -> None:
    found = planned(known, **changes)
    assert isinstance(found, Refusal)
    assert found.reason is reason


def test_after_a_while_it_is_tried_again() -> None:
    assert isinstance(planned(facts(reports=(saving(Phase.REVERTED, 3600),))), Plan)
