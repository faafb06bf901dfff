"""Units, selectors, claims and the knobs annotation: small pure functions with sharp edges."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from bottleneck_operator.act.knobs import annotation, generation, outdated
from bottleneck_operator.api import units
from bottleneck_operator.controller.claims import Claims
from bottleneck_operator.decide.lifecycle import DesiredKnobs
from bottleneck_operator.observe.pods import Pod, PodStore, pod_of
from bottleneck_operator.observe.selectors import Selector, from_string, matches, to_string
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, moment, policy

# -- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("60s", 60), ("1m30s", 90), ("1.5h", 5400), ("0s", 0), ("2m", 120)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "ms", "5 s", "-5s", "1d", "5S", "1..5s", "5s\n", "NaN"])
def test_what_is_not_a_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        units.seconds(text)


@pytest.mark.parametrize(
    ("read", "good", "value", "bad"),
    [
        (units.fraction, "2.5%", 0.025, ["2.5", "%", "-1%", "1e1%", "1 %"]),
        (units.number, "12.5", 12.5, ["", "-1", "1e3", "inf", "nan", "1,5"]),
    ],
)
def test_percentages_and_numbers(read: Any, good: str, value: float, bad: list[str]) -> None:
    assert read(good) == pytest.approx(value)
    for text in bad:
        with pytest.raises(ValueError, match="write it like"):
            read(text)


@CASES
@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(h: int, m: int, s: int, ms: int) -> None:
    expected = timedelta(hours=h, minutes=m, seconds=s, milliseconds=ms).total_seconds()
    assert units.seconds(f"{h}h{m}m{s}s{ms}ms") == pytest.approx(expected)


# -- selectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "labels", "holds"),
    [
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": "1", "b": "2"}}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {"a": "1"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        (
            {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]},
            {"a": "1"},
            False,
        ),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({}, {"a": "1"}, False),
        ({"matchLabels": {}}, {}, False),
    ],
)
def test_a_selector_matches_as_the_api_server_would(
    selector: Selector, labels: dict[str, str], holds: bool
) -> None:
    assert matches(selector, labels) is holds


def test_an_operator_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="Like"):
        matches({"matchExpressions": [{"key": "a", "operator": "Like"}]}, {"a": "1"})


@pytest.mark.parametrize("text", ["a", "a!=b", "a in (b,c)", "!a", "a notin (b)"])
def test_a_selector_text_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="only key=value"):
        from_string(text)


def test_expressions_are_written_as_a_list_request_takes_them() -> None:
    expressions = [
        {"key": "a", "operator": "In", "values": ["1", "2"]},
        {"key": "b", "operator": "NotIn", "values": ["3"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    text = to_string({"matchLabels": {"x": "y"}, "matchExpressions": expressions})
    assert text == "x=y,a in (1,2),b notin (3),c,!d"


WORDS = st.text("abcxyz019", min_size=1, max_size=4)
LABELS = st.dictionaries(WORDS, WORDS, max_size=4)


@CASES
@given(LABELS, LABELS)
def test_a_selector_written_and_read_back_matches_the_same(
    wanted: dict[str, str], labels: dict[str, str]
) -> None:
    selector: Selector = {"matchLabels": wanted}
    again = from_string(to_string(selector))
    assert again == selector
    expected = bool(wanted) and wanted.items() <= labels.items()
    assert matches(again, labels) is matches(selector, labels) is expected


# -- pods ------------------------------------------------------------------------------------------


def pod_document(**changes: Any) -> dict[str, Any]:
    metadata = {
        "uid": "u1",
        "name": "pod-1",
        "namespace": "ml",
        "labels": {"app": "work", "bottleneck.dev/injected": "true"},
        **changes.pop("metadata", {}),
    }
    ready = [{"type": "Ready", "status": "True"}]
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": ready, **changes}
    return {"metadata": metadata, "status": status}


@pytest.mark.parametrize(
    ("document", "running", "ready"),
    [
        (pod_document(), True, True),
        (pod_document(conditions=[]), True, False),
        (pod_document(phase="Pending"), False, True),
        (pod_document(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), False, False),
        ({"metadata": {"uid": "u", "name": "n", "namespace": "ml"}}, False, False),
    ],
    ids=["ready", "not ready", "pending", "going", "without a status"],
)
def test_what_is_read_of_a_pod(document: dict[str, Any], running: bool, ready: bool) -> None:
    pod = pod_of(document)
    assert (pod.running, pod.ready) == (running, ready)


def test_a_pod_is_found_by_its_labels_until_it_is_gone_or_loses_its_sidecar() -> None:
    store, selector = PodStore(), {"matchLabels": {"app": "work"}}
    store.update(pod_document(metadata={"uid": "u2", "name": "pod-2"}))
    store.update(pod_document())
    assert [pod.name for pod in store.of("ml", selector)] == ["pod-1", "pod-2"]
    assert store.of("other", selector) == []
    assert store.of("ml", {"matchLabels": {"app": "other"}}) == []
    store.update(pod_document(), deleted=True)
    assert [pod.name for pod in store.of("ml", selector)] == ["pod-2"]
    store.update(pod_document(metadata={"uid": "u2", "labels": {"app": "work"}}))
    assert store.of("ml", selector) == []


# -- claims ----------------------------------------------------------------------------------------


def claimant(name: str, age: float, target: str = "work", version: str = "apps/v1") -> Any:
    ref = {"apiVersion": version, "kind": "Deployment", "name": target}
    return policy(name=name, creationTimestamp=moment(-age), spec={"targetRef": ref})


def test_the_older_policy_has_precedence_whoever_comes_first() -> None:
    claims = Claims()
    assert claims.claim("ml/junior", claimant("junior", 10)) is None
    assert claims.claim("ml/senior", claimant("senior", 20)) is None
    assert claims.claim("ml/junior", claimant("junior", 10)) == "senior"
    claims.drop("ml/senior")
    assert claims.claim("ml/junior", claimant("junior", 10)) is None


def test_of_two_of_the_same_second_the_first_name_wins() -> None:
    claims = Claims()
    claims.claim("ml/b", claimant("b", 10))
    assert claims.claim("ml/a", claimant("a", 10)) is None
    assert claims.claim("ml/b", claimant("b", 10)) == "a"


@pytest.mark.parametrize(
    ("other", "rival"),
    [
        (claimant("junior", 1, target="other"), None),
        (claimant("junior", 1, version="batch/v1"), None),
        (claimant("junior", 1, version="apps/v1beta1"), "senior"),
    ],
    ids=["another name", "another group", "another version of the same group"],
)
def test_what_counts_as_the_same_target(other: Any, rival: str | None) -> None:
    claims = Claims()
    claims.claim("ml/senior", claimant("senior", 20))
    assert claims.claim("ml/junior", other) == rival


# -- the knobs annotation --------------------------------------------------------------------------

KNOBS = DesiredKnobs(3, {"dataLoader.workers": 2, "dataLoader.prefetch": 4})


def test_the_annotation_is_nested_json_and_always_the_same() -> None:
    text = annotation(KNOBS)
    assert json.loads(text) == {"generation": 3, "dataLoader": {"workers": 2, "prefetch": 4}}
    assert text == annotation(DesiredKnobs(3, dict(reversed(KNOBS.values.items()))))
    assert generation(text) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"generation"',
        "{}",
        '{"generation": "3"}',
        '{"generation": true}',
        '{"generation": 3.0}',
        '{"generation": NaN}',
        '{"generation": null}',
        '{"generation": ' + "9" * 5000 + "}",
    ],
)
def test_an_annotation_that_is_not_ours_has_generation_0(text: str) -> None:
    assert generation(text) == 0
    assert outdated([_pod(text)], KNOBS)


@CASES
@given(st.text())
def test_any_text_has_a_generation(text: str) -> None:
    assert isinstance(generation(text), int)


def _pod(knobs: str) -> Pod:
    return pod_of(pod_document(metadata={"annotations": {"bottleneck.dev/knobs": knobs}}))


@pytest.mark.parametrize(
    ("carried", "stale"),
    [
        ("", True),
        (annotation(KNOBS), False),
        (annotation(DesiredKnobs(2, {"dataLoader.workers": 2})), True),
        (annotation(DesiredKnobs(3, {"dataLoader.workers": 9})), True),
        (annotation(DesiredKnobs(4, {"dataLoader.workers": 9})), False),
    ],
    ids=["nothing", "the same", "older", "the same number, other values", "newer"],
)
def test_a_pod_is_outdated_unless_it_carries_the_same_or_newer(carried: str, stale: bool) -> None:
    assert bool(outdated([_pod(carried)], KNOBS)) is stale
