"""The size of containers, read from pod objects, and the quantities they are written in."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.act.resources import document
from bottleneck_operator.api import units
from bottleneck_operator.api.report import ContainerResources
from bottleneck_operator.observe.containers import same, sizes_of, trouble_with_resize
from bottleneck_operator.observe.pods import pod_of
from hypothesis import given
from hypothesis import strategies as st

from . import objects
from .builders import CASES, LARGE, SMALL

LIMITS = {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}}
GIVEN = {"requests": {"cpu": "100m"}, "limits": {"cpu": "2", "memory": "1Gi"}}


def pod(resources: Any = LIMITS, given: Any = GIVEN, **status: Any) -> dict[str, Any]:
    found = objects.pod(
        containerStatuses=[objects.running("main") | {"resources": given}], **status
    )
    found["spec"] = {"containers": [{"name": "main", "resources": resources}]}
    return found


def test_what_is_wanted_and_what_the_node_has_given() -> None:
    (main,) = sizes_of(pod())
    assert (main.name, main.wanted, main.actual) == ("main", SMALL, LARGE)


def test_equal_sizes_are_kept_once() -> None:
    assert pod_of(pod()).containers is pod_of(pod()).containers


@pytest.mark.parametrize("resources", [None, {}, {"limits": None}, [], "2"])
def test_what_is_not_set_is_absent(resources: Any) -> None:
    (main,) = sizes_of(pod(resources, resources))
    assert main.wanted == main.actual == ContainerResources()


def condition(type: str, reason: str, status: str = "True") -> dict[str, str]:
    return {"type": type, "status": status, "reason": reason, "message": "as the kubelet says"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (condition("PodResizePending", "Infeasible"), "Infeasible"),
        (condition("PodResizePending", "Deferred"), "Deferred"),
        (condition("PodResizeInProgress", "Error"), "Error"),
        (condition("PodResizeInProgress", ""), None),
        (condition("PodResizePending", "Deferred", "False"), None),
        (condition("Ready", "Deferred"), None),
    ],
)
def test_what_the_kubelet_says_of_a_resize(said: dict[str, str], reason: str | None) -> None:
    found = trouble_with_resize([said])
    assert (found and found.reason) == reason
    state = pod_of(pod(conditions=[said])).size("main")
    assert state is not None
    assert state.reason == (reason or "")


def test_a_container_of_another_name_has_no_size() -> None:
    assert pod_of(pod()).size("proxy") is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"cpu_limit": "1"}, {"cpu_limit": "1000m"}, True),
        ({"memory_limit": "1Gi"}, {"memory_limit": "1024Mi"}, True),
        ({"cpu_limit": "1"}, {"cpu_limit": "2"}, False),
        ({"cpu_limit": "1"}, {}, False),
        ({"cpu_limit": "1e3"}, {"cpu_limit": "1e3"}, True),
        ({}, {}, True),
    ],
)
def test_sizes_are_amounts(one: dict[str, str], other: dict[str, str], equal: bool) -> None:
    assert same(ContainerResources(**one), ContainerResources(**other)) is equal


def test_what_shall_not_be_set_is_taken_away() -> None:
    assert document(ContainerResources(cpu_limit="2")) == {
        "requests": {"cpu": None, "memory": None},
        "limits": {"cpu": "2", "memory": None},
    }


# -- quantities ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("500m", 0.5), ("1.5", 1.5), ("1k", 1000), ("1Ki", 1024), ("2Gi", 2**31)],
)
def test_a_quantity(text: str, value: float) -> None:
    assert units.quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1gi", "Gi", "1e3", "½"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        units.quantity(text)


@CASES
@given(st.integers(1, 10**6))
def test_cores_and_bytes_are_written_so_that_they_read_the_same(number: int) -> None:
    assert units.quantity(units.cores(number / 1000)) == pytest.approx(number / 1000)
    assert units.quantity(units.mebibytes(number * 2**20)) == number * 2**20
