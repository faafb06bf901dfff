"""What is read off raw samples."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.observe.observation import NoData, Reading
from bottleneck_operator.observe.prometheus_series import Series, Table, read_matrix, table
from bottleneck_operator.observe.prometheus_signals import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = settings(max_examples=200, derandomize=True, deadline=None, database=None)
NOW = 1_800_000_000.0


def item(
    *samples: tuple[float, float | str], name: str = "x", pod: str | None = "a-0", **labels: str
) -> dict[str, Any]:
    """One series as the server answers it, times relative to now."""
    metric = {"__name__": name, **({"pod": pod} if pod else {}), **labels}
    return {"metric": metric, "values": [[NOW + at, str(value)] for at, value in samples]}


def one(*samples: tuple[float, float | str], **labels: Any) -> Series:
    (found,) = read_matrix([item(*samples, **labels)], ["a-0"])
    return found


def look(*items: dict[str, Any], at: float = 0.0) -> Table:
    return table(NOW + at, read_matrix(items, ["a-0", "a-1"]))


def steady(rate: float, count: int = 6, step: float = 10.0, last: float = 0.0) -> list[Any]:
    times = [last - step * (count - 1 - i) for i in range(count)]
    return [(at, 1000 + rate * at) for at in times]


def test_growth_across_a_restart_counts_from_zero() -> None:
    assert one((-30, 100), (-20, 110), (-10, 5), (0, 15)).growth == 25


def test_too_little_is_no_growth() -> None:
    assert one((0, 5)).growth is None
    assert one((-4, 5), (0, 15)).growth is None


@CASES
@given(
    st.lists(st.floats(0.5, 100), min_size=1, max_size=12),
    st.floats(1, 100),
    st.floats(0, 200),
)
def test_a_cut_covers_the_window_and_nothing_from_before_a_change(
    gaps: list[float], window: float, ago: float
) -> None:
    times = [-sum(gaps[i:]) for i in range(len(gaps))] + [0.0]
    series = one(*((at, 1.0) for at in times))
    since = NOW - ago
    cut = series.cut(since, window)
    assert list(cut.times) == list(series.times)[len(series.times) - len(cut.times) :]
    assert all(time >= since for time in cut.times)
    # Covered: it reaches the window's beginning, or the change, or there is no more.
    left_out = list(series.times)[: len(series.times) - len(cut.times)]
    if left_out and left_out[-1] >= since:
        assert cut.times[0] <= series.times[-1] - window


@pytest.mark.parametrize(
    ("step", "age", "stale"),
    [(1, 14, False), (1, 16, True), (30, 74, False), (30, 76, True)],
)
def test_stale_is_two_and_a_half_scrapes_and_never_less_than_a_heartbeat_and_a_half(
    step: float, age: float, stale: bool
) -> None:
    points = steady(1.0, step=step, last=-age)
    figures, _, _ = evaluate(look(item(*points, name="vllm:num_requests_waiting")), ["a-0"], 95)
    found = figures["inference.queued"].signal
    assert isinstance(found, NoData if stale else Reading)
    if isinstance(found, NoData):
        assert found.reason == (
            f"the newest sample of vllm:num_requests_waiting of pod a-0 is {age}s old"
        )


def test_a_lone_sample_is_fresh_for_a_minute() -> None:
    for age, kind in ((59, Reading), (61, NoData)):
        points = [(-age, 3)]
        figures, _, _ = evaluate(look(item(*points, name="tgi_queue_size")), ["a-0"], 95)
        assert isinstance(figures["inference.queued"].signal, kind)


def test_a_container_that_ended_does_not_make_its_successor_stale() -> None:
    old = item(
        *steady(2.0, last=-50), name="container_cpu_usage_seconds_total", container="m", id="1"
    )
    new = item(*steady(1.0), name="container_cpu_usage_seconds_total", container="m", id="2")
    figures, _, _ = evaluate(look(old, new), ["a-0"], 95)
    found = figures["cpu.usedCores"].signal
    assert isinstance(found, Reading)
    assert found.value == pytest.approx(1.0)


def test_an_expected_pod_with_too_few_samples_leaves_all_without() -> None:
    old = item(*steady(5.0), name="tgi_request_count")
    new = item((0, 3), name="tgi_request_count", pod="a-1")
    figures, replicas, _ = evaluate(look(old, new), ["a-0", "a-1"], 95)
    assert figures["inference.arrivalRate"].signal == NoData(
        "only 0s of tgi_request_count of pod a-1 so far"
    )
    assert isinstance(replicas["a-0"]["inference.arrivalRate"].signal, Reading)
    # Not expected yet: it is left out, and does not count as nothing.
    figures, _, _ = evaluate(look(old, new), ["a-0"], 95)
    found = figures["inference.arrivalRate"].signal
    assert isinstance(found, Reading)
    assert found.value == pytest.approx(5.0)


def test_no_limit_is_no_share() -> None:
    used = item((0, 500), name="container_memory_working_set_bytes", container="m")
    unlimited = item((0, 0), name="container_spec_memory_limit_bytes", container="m")
    figures, _, _ = evaluate(look(used, unlimited), ["a-0"], 95)
    found = figures["memory.usedShare"].signal
    assert isinstance(found, NoData)
    assert "gives no bound" in found.reason
    # Told by kube-state-metrics, it is one.
    told = item(
        (0, 1000), name="kube_pod_container_resource_limits", container="m", resource="memory"
    )
    figures, _, _ = evaluate(look(used, unlimited, told), ["a-0"], 95)
    found = figures["memory.usedShare"].signal
    assert isinstance(found, Reading)
    assert found.value == 0.5


def test_no_quota_is_no_number_of_cores() -> None:
    quota = item((0, -1), name="container_spec_cpu_quota", container="m")
    period = item((0, 100000), name="container_spec_cpu_period", container="m")
    figures, _, _ = evaluate(look(quota, period), ["a-0"], 95)
    assert isinstance(figures["cpu.availableCores"].signal, NoData)


def test_too_few_requests_are_no_percentile() -> None:
    buckets = [
        item((-10, 0), (0, 9), name="tgi_request_duration_bucket", le="1.0"),
        item((-10, 0), (0, 9), name="tgi_request_duration_bucket", le="+Inf"),
    ]
    figures, _, _ = evaluate(look(*buckets), ["a-0"], 95)
    assert figures["inference.latency"].signal == NoData(
        "9 requests counted by tgi_request_duration_bucket in the window"
    )


def test_what_is_longer_than_the_last_bucket_is_at_least_that_long() -> None:
    buckets = [
        item((-10, 0), (0, 50), name="tgi_request_duration_bucket", le="1.0"),
        item((-10, 0), (0, 100), name="tgi_request_duration_bucket", le="+Inf"),
    ]
    figures, _, _ = evaluate(look(*buckets), ["a-0"], 95)
    found = figures["inference.latency"].signal
    assert isinstance(found, Reading)
    assert found.value == 1.0


def test_replicas_percentiles_are_merged_and_not_averaged() -> None:
    def buckets(pod: str, quick: float, slow: float) -> list[dict[str, Any]]:
        counts = {"0.1": quick, "1.0": quick + slow, "+Inf": quick + slow}
        return [
            item((-10, 0), (0, count), name="tgi_request_duration_bucket", le=le, pod=pod)
            for le, count in counts.items()
        ]

    figures, replicas, _ = evaluate(
        look(*buckets("a-0", 990, 0), *buckets("a-1", 0, 10)), ["a-0", "a-1"], 95
    )
    overall = figures["inference.latency"].signal
    slow = replicas["a-1"]["inference.latency"].signal
    assert isinstance(overall, Reading)
    assert isinstance(slow, Reading)
    assert overall.value < 0.1
    assert slow.value > 0.9


def test_nothing_is_nothing() -> None:
    assert evaluate(look(), ["a-0"], 95) == ({}, {}, ())


@pytest.mark.parametrize("bad", [[{}], [{"metric": {}, "values": [[1]]}], ["x"], [{"metric": 1}]])
def test_an_answer_of_another_form_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="not a list of series"):
        read_matrix(bad, ["a-0"])


@pytest.mark.parametrize("label", ["exported_pod", "pod_name", "kubernetes_pod_name"])
def test_another_label_may_name_the_pod(label: str) -> None:
    labels = {label: "a-0"}
    assert one((0, 1), pod="exporter-7", **labels).pod == "a-0"
    (nobody,) = read_matrix([item((0, 1), pod=None)], ["a-0"])
    assert nobody.pod is None
    assert read_matrix([item((0, 1), pod="b-0")], ["a-0"]) == []
