"""Selectors, and what a query of the policy looks at."""

from __future__ import annotations

import re

import pytest
from bottleneck_operator.observe.prometheus_entries import promql
from bottleneck_operator.observe.prometheus_machines import SYSTEMS
from bottleneck_operator.observe.prometheus_queries import (
    MAX_PODS,
    MAX_QUERY,
    VARIANTS,
    escaped,
    matchers,
    pod_pattern,
    range_queries,
    reach,
    selectors,
)
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = settings(max_examples=200, derandomize=True, deadline=None, database=None)


@CASES
@given(st.text(st.sampled_from("a\"\\\n{}[]()=~,|`'"), max_size=12))
def test_no_value_gets_out_of_its_string(value: str) -> None:
    inside = matchers(VARIANTS[0], value, ["a"], {})
    query = f"up{{{inside}}}"
    assert selectors(query) == [query]
    assert selectors(f'up{{x="{escaped(value)}"}} + down') == [
        f'up{{x="{escaped(value)}"}}',
        "down",
    ]
    assert "\n" not in query


@CASES
@given(st.lists(st.text(st.sampled_from("ab.-"), min_size=1, max_size=5), min_size=1))
def test_a_pattern_matches_exactly_the_pods(pods: list[str]) -> None:
    # The string's own escapes first, as Prometheus reads it.
    pattern = re.compile(pod_pattern(pods).replace("\\\\", "\\"))
    assert all(pattern.fullmatch(pod) for pod in pods)
    assert not pattern.fullmatch("c")
    others = [pod.replace(".", "x") for pod in pods]
    assert all(bool(pattern.fullmatch(pod)) == (pod in pods) for pod in others)


def test_very_many_pods_are_matched_by_how_their_names_begin() -> None:
    pods = [f"trainer-5c9d-{number:04}" for number in range(1000)]
    assert pod_pattern(pods) == "trainer-5c9d-0.*"
    assert len(pod_pattern(pods[:80])) > MAX_PODS - 200


def test_long_lists_of_metrics_are_asked_for_in_parts() -> None:
    names = {name for system in SYSTEMS for name in system.metrics()}
    queries = list(range_queries(names, 'namespace="ml",pod=~"a"', 150))
    assert len(queries) > 1
    assert all(len(query) < MAX_QUERY + 200 for query in queries)
    asked = "|".join(re.findall(r'__name__=~"([^"]*)"', " ".join(queries)))
    assert sorted(asked.split("|")) == sorted(names)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("up", ["up"]),
        ("sum by (pod) (rate(a_total{x=~'}{'}[5m])) / on (pod) b:c", ["a_total{x=~'}{'}", "b:c"]),
        ("histogram_quantile(0.95, sum(rate(x_bucket[1m])) by (le))", ["x_bucket"]),
        ('{__name__="x",a="b"}', ['{__name__="x",a="b"}']),
        ("max(a) or b[1h:5m] # and c", ["a", "b"]),
        ("sum without (a) (b unless ignoring (c) d @ end()) offset 5m", ["b", "d"]),
        ("a * on (x) group_left (y, z) a", ["a"]),
        ("topk(3, x) > bool 2 and NaN", ["x"]),
        ("vector(1) + time()", []),
        ('count_values("v", up)', ["up"]),
        ("sum", ["sum"]),
        ("sum(", []),
        ("a{", ["a{"]),
    ],
)
def test_selectors_of_an_expression(query: str, found: list[str]) -> None:
    assert selectors(query) == found


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("up", 0),
        ("rate(a[5m]) / rate(b[1m30s])", 300),
        ("rate(a[1m] offset 1h)", 3660),
        ("max_over_time(rate(a[1m])[1h:5m])", 3600),
        ('a{x="[9h]"}', 0),
    ],
)
def test_how_far_back_an_expression_looks(query: str, seconds: float) -> None:
    assert reach(query) == seconds


@CASES
@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    selectors(text)
    assert reach(text) >= 0


def test_every_entry_can_be_written_as_promql() -> None:
    for system in SYSTEMS:
        for entry in system.entries:
            text = promql(entry)
            names = {term.metrics[0] for term in entry.terms}
            assert all(name in text for name in names), text
