"""Signals out of a real Prometheus that scrapes what each of the systems exposes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from bottleneck_operator.observe.observation import NoData, Reading
from bottleneck_operator.observe.prometheus import Ask, Client
from bottleneck_operator.observe.prometheus_entries import SELECTOR, Form, promql
from bottleneck_operator.observe.prometheus_machines import SYSTEMS
from bottleneck_operator.observe.prometheus_signals import Sourced

from . import texts
from .conftest import Server

HOSTILE = 'a"} or vector(1)\\ \n{x=~".*'
"""A label's value that would end a careless selector, and match everything."""


@pytest.fixture(scope="module")
def scraped(prometheus: Server) -> Server:
    """Everything that the tests look at, scraped for long enough to be evidence."""
    for name, text in {
        "vllm": texts.vllm,
        "old-vllm": texts.old_vllm,
        "triton": texts.triton,
        "triton-summaries": texts.triton_summaries,
        "torchserve": texts.torchserve,
        "tgi": texts.tgi,
        "fast": texts.trainer,
        "slow": lambda t: texts.trainer(t, 0.5),
    }.items():
        prometheus.scrape(text, namespace="ml", pod=f"{name}-0")
    prometheus.scrape(texts.vllm, namespace="other", pod="vllm-0")
    node = {"namespace": "monitoring", "pod": "exporter-x", "container": "exporter"}
    prometheus.scrape(texts.dcgm("honored-0", "ml"))
    prometheus.scrape(texts.dcgm("clashing-0", "ml"), honor=False, **node)
    for variant in (
        {"kubernetes_namespace": "ml", "kubernetes_pod_name": "kubernetes-0"},
        {"pod_namespace": "ml", "pod_name": "older-0"},
    ):
        prometheus.scrape(texts.tgi, **variant)
    prometheus.scrape(lambda t: texts.cadvisor(t, "kubelet-0", "ml"))
    old = {"pod": "pod_name", "container": "container_name"}
    prometheus.scrape(lambda t: texts.cadvisor(t, "old-kubelet-0", "ml", **old))
    prometheus.scrape(lambda t: texts.state_metrics(t, "kubelet-0", "ml"), honor=False, **node)
    twice = prometheus.scrape(texts.torchserve, namespace="ml", pod="twice-0")
    prometheus.again(twice)
    prometheus.scrape(texts.tgi, cluster=HOSTILE)
    prometheus.scrape(texts.vllm, cluster="b")
    prometheus.scrape("weird NaN\nup_and_away +Inf\n", namespace="ml", pod="weird-0")
    prometheus.scrape(
        'nv_gpu_utilization{gpu_uuid="a"} NaN\n', namespace="ml", pod="not-a-number-0"
    )
    prometheus.scrape(texts.failing_later, namespace="ml", pod="late-0")
    prometheus.wait("count(count_over_time(up[60s]) >= 12) >= 21")
    return prometheus


@pytest.fixture
def client(scraped: Server) -> Iterator[Client]:
    made = Client(scraped.url, (scraped.url,))
    yield made
    made.close()


def ask(*pods: str, **changes: Any) -> Ask:
    fields: dict[str, Any] = {"namespace": "ml", "pods": pods, "expected": pods, **changes}
    return Ask(**fields)


def readings(sourced: Sourced, replica: str | None = None) -> dict[str, Reading]:
    figures = sourced.replicas[replica] if replica else sourced.figures
    return {
        name: figure.signal
        for name, figure in figures.items()
        if isinstance(figure.signal, Reading)
    }


def values(sourced: Sourced, replica: str | None = None) -> dict[str, float]:
    return {name: reading.value for name, reading in readings(sourced, replica).items()}


def reason(sourced: Sourced, signal: str) -> str:
    found = sourced.figures[signal].signal
    assert isinstance(found, NoData)
    return found.reason


def close(**figures: float) -> dict[str, object]:
    """Expected signals; underscores stand for the first dot. Scrapes are not exact to the
    millisecond, and a counter is read a moment before its time is taken."""
    return {
        name.replace("_", ".", 1): pytest.approx(figure, rel=0.02)
        for name, figure in figures.items()
    }


def test_vllm(client: Client) -> None:
    found = client.look(ask("vllm-0"))
    assert values(found) == close(
        inference_latency=0.95,
        inference_arrivalRate=22.0,  # 20 answered, and two more are waiting each second
        inference_errorRate=0.05,
        inference_queueShare=0.25,
        inference_queueSeconds=0.15,
        inference_serviceSeconds=0.4,
        inference_firstTokenSeconds=0.2,
        inference_queued=values(found)["inference.queued"],
        inference_batchSize=6.0,
        inference_tokensPerSecond=800.0,
        inference_cacheShare=0.75,
        inference_preemptionsPerSecond=0.5,
    )
    assert values(found)["inference.queued"] > 4
    assert (found.workload, found.systems, found.problem) == ("inference", ("vLLM",), "")
    latency = readings(found)["inference.latency"]
    assert (latency.unit, latency.statistic) == ("s", "p95")
    assert latency.source == "Prometheus: vllm:e2e_request_latency_seconds_bucket"
    assert 5 <= latency.window <= 62
    assert latency.age < 3


def test_another_percentile(client: Client) -> None:
    found = readings(client.look(ask("vllm-0", percentile=50)))["inference.latency"]
    assert found.value == pytest.approx(0.5, rel=0.01)
    assert found.statistic == "p50"


def test_older_names_of_vllm_as_ray_spells_them(client: Client) -> None:
    found = client.look(ask("old-vllm-0"))
    assert values(found) == close(
        inference_latency=0.95,
        inference_arrivalRate=20.0,
        inference_queueShare=0.5,
        inference_queueSeconds=0.3,
        inference_queued=4.0,
        inference_batchSize=6.0,
        inference_cacheShare=0.5,
    )
    # It cannot count what failed: that is not the same as nothing failing.
    assert "give a query for inference.errorRate" in reason(found, "inference.errorRate")


def test_triton(client: Client) -> None:
    found = client.look(ask("triton-0"))
    assert values(found) == close(
        inference_arrivalRate=10.0,
        inference_errorRate=0.1,
        inference_queueShare=0.1,
        inference_queueSeconds=0.01,
        inference_serviceSeconds=0.08,
        inference_batchSize=4.0,
        inference_queued=3.0,
        gpu_utilization=0.6,
        gpu_memoryShare=0.75,
        gpu_powerShare=0.5,
    )
    assert "summary_latencies=true" in reason(found, "inference.latency")


def test_triton_with_summaries(client: Client) -> None:
    found = readings(client.look(ask("triton-summaries-0")))["inference.latency"]
    assert (found.value, found.unit, found.statistic) == (pytest.approx(0.12), "s", "p95")
    # A quantile that Triton was not asked for is no data, and not its neighbour.
    assert "inference.latency" not in values(client.look(ask("triton-summaries-0", percentile=80)))


def test_torchserve(client: Client) -> None:
    found = client.look(ask("torchserve-0"))
    assert values(found) == close(
        inference_arrivalRate=50.0,
        inference_errorRate=0.02,
        inference_queueShare=0.25,
        inference_queueSeconds=0.005,
        inference_serviceSeconds=0.015,
        gpu_utilization=0.4,
        gpu_memoryShare=0.7,
    )
    assert "TorchServe tells no percentile" in reason(found, "inference.latency")


def test_text_generation_inference(client: Client) -> None:
    found = client.look(ask("tgi-0"))
    assert values(found) == close(
        inference_latency=1.95,
        inference_arrivalRate=8.0,
        inference_errorRate=0.0,
        inference_queueShare=0.4,
        inference_queueSeconds=0.6,
        inference_serviceSeconds=0.9,
        inference_queued=5.0,
        inference_batchSize=12.0,
        inference_tokensPerSecond=400.0,
    )


def test_a_counter_that_began_with_its_first_event_is_counted_from_nothing(client: Client) -> None:
    # 30 failures at once, in a line that was not there before: a rate of that line alone is zero.
    assert values(client.look(ask("late-0")))["inference.errorRate"] > 0.1


@pytest.mark.parametrize("pod", ["honored-0", "clashing-0"])
def test_dcgm_exporter(client: Client, pod: str) -> None:
    found = client.look(ask(pod))
    assert values(found) == close(
        gpu_utilization=0.8,
        gpu_memoryShare=0.95,
        gpu_throttledShare=1.0,  # of the first device; a software power cap is not throttling
        gpu_smActive=0.5,
        gpu_tensorActive=0.25,
        gpu_dramActive=0.125,
        gpu_powerShare=0.5,
    )
    assert found.systems == ("DCGM exporter",)
    assert found.workload == ""


def test_cadvisor_and_state_metrics(client: Client) -> None:
    found = values(client.look(ask("kubelet-0", "waiting-0", expected=("kubelet-0",))))
    kills = found.pop("memory.oomKills")
    restarts = found.pop("pods.restarts")
    assert found == close(
        cpu_usedCores=1.5,
        cpu_availableCores=2.0,
        cpu_throttledShare=0.4,
        cpu_throttledTimeShare=0.3,
        cpu_pressureShare=0.2,
        memory_pressureShare=0.1,
        io_pressureShare=0.05,
        memory_usedShare=0.9,
        memory_limitHitsPerSecond=3.0,
        memory_majorFaultsPerSecond=2.0,
        io_readBytesPerSecond=1e6,
        pods_oomKilled=1.0,
        pods_crashLooping=1.0,
        pods_unschedulable=1.0,
    )
    assert (kills, restarts) == (1.0, 2.0)


def test_cadvisor_with_its_older_labels(client: Client) -> None:
    found = values(client.look(ask("old-kubelet-0")))
    assert found["cpu.usedCores"] == pytest.approx(1.5, rel=0.02)
    assert found["memory.usedShare"] == pytest.approx(0.9)


@pytest.mark.parametrize("pod", ["kubernetes-0", "older-0"])
def test_other_spellings_of_the_pods_label(client: Client, pod: str) -> None:
    found = values(client.look(ask(pod)))
    assert found["inference.arrivalRate"] == pytest.approx(8.0, rel=0.02)


def test_figures_of_each_replica_and_of_all(client: Client) -> None:
    found = client.look(ask("fast-0", "slow-0"))
    assert values(found, "fast-0")["training.stepSeconds"] == pytest.approx(1.0, rel=0.02)
    assert values(found, "slow-0")["training.stepSeconds"] == pytest.approx(2.0, rel=0.02)
    assert values(found) | {"training.otherShare": 0.0} == close(
        training_samplesPerSecond=48.0,
        training_microBatch=32.0,
        training_stepSeconds=2 / 1.5,  # a ratio of sums, and no mean of ratios
        training_dataShare=0.4,
        training_forwardShare=0.2,
        training_backwardShare=0.3,
        training_optimizerShare=0.1,
        training_otherShare=0.0,
        cpu_usedCores=1.0,
        cpu_availableCores=4.0,
        gpu_throttledShare=0.0,
    )
    assert found.workload == "training"
    # Phases that were not told are not known; they are not zero.
    assert "training.collectiveShare" not in values(found)


def test_a_replica_without_figures_leaves_all_without(client: Client) -> None:
    found = client.look(ask("vllm-0", "vllm-1"))
    missing = reason(found, "inference.latency")
    assert missing.startswith("1 of 2 replicas have no vllm:e2e_request_latency_seconds")
    assert missing.endswith("vllm-1 among them")
    # One that has only just begun is not expected to have any.
    young = client.look(ask("vllm-0", "vllm-1", expected=("vllm-0",)))
    assert values(young)["inference.latency"] == pytest.approx(0.95, rel=0.02)


def test_other_namespaces_and_other_pods_stay_out(client: Client) -> None:
    found = client.look(Ask(namespace="other", pods=("vllm-0",), expected=("vllm-0",)))
    assert values(found)["inference.arrivalRate"] == pytest.approx(22.0, rel=0.02)
    # A dot in a name is a dot, and no character that may be anything.
    nobody = client.look(ask("vllm.0"))
    assert values(nobody) == {}
    assert "no metric that is known here of the pods in namespace ml" in nobody.problem


def test_what_is_scraped_twice_counts_once(client: Client) -> None:
    found = values(client.look(ask("twice-0")))
    assert found["inference.arrivalRate"] == pytest.approx(50.0, rel=0.02)


def test_a_selector_takes_the_place_of_pods(client: Client) -> None:
    found = client.look(ask("tgi-0", selector={"cluster": HOSTILE}))
    # Series that name no pod count for the workload as a whole, and for no replica.
    assert values(found)["inference.arrivalRate"] == pytest.approx(8.0, rel=0.02)
    assert (found.systems, found.replicas, found.problem) == (
        ("Text Generation Inference",),
        {},
        "",
    )


def test_values_that_are_no_numbers_are_no_data(client: Client) -> None:
    assert "is not a number" in reason(client.look(ask("not-a-number-0")), "gpu.utilization")


@pytest.mark.parametrize(
    "pod", ["vllm-0", "triton-0", "torchserve-0", "tgi-0", "honored-0", "kubelet-0", "fast-0"]
)
def test_the_expressions_on_the_page_give_about_the_same(
    scraped: Server, client: Client, pod: str
) -> None:
    found, compared = client.look(ask(pod)), 0
    for system in SYSTEMS:
        for entry in system.entries:
            expression = promql(entry).replace(SELECTOR, f'namespace="ml",pod="{pod}"')
            if entry.form is Form.MASK or system.name not in found.systems:
                continue
            said = scraped.ask(expression)
            mine = readings(found).get(entry.signal)
            # Rates over a minute of which a part has passed differ, and their ratios do not.
            steady = entry.form not in (Form.COUNT, Form.RATE) and "queued" not in entry.signal
            if said and mine and steady and mine.source.endswith(tuple(entry.metrics())):
                (only,) = said
                assert float(only["value"][1]) == pytest.approx(mine.value, rel=0.03), expression
                compared += 1
    assert compared >= 3


# -- queries of the policy -------------------------------------------------------------------------


def test_a_query_of_the_policy_goes_before_what_is_recognised(client: Client) -> None:
    queries = {
        "inference.queued": 'max(vllm:num_requests_running{namespace="ml",pod="vllm-0"}) / 2',
        "custom.tokens": 'sum(rate(vllm:generation_tokens_total{namespace="ml"}[10s]))',
    }
    found = client.look(ask("vllm-0", queries=queries))
    assert values(found)["inference.queued"] == 3.0
    tokens = readings(found)["custom.tokens"]
    assert tokens.value == pytest.approx(800.0, rel=0.02)
    assert (tokens.unit, tokens.window, tokens.statistic) == ("units", 10.0, "query")
    assert tokens.age < 3
    assert found.explicit == set(queries)
    assert "inference.latency" in values(found)


def test_a_query_by_pod_gives_figures_of_replicas(client: Client) -> None:
    query = "sum by (pod) (rate(bottleneck_training_steps_total[10s]))"
    found = client.look(ask("fast-0", "slow-0", queries={"custom.steps": query}))
    assert values(found, "fast-0")["custom.steps"] == pytest.approx(1.0, rel=0.05)
    assert values(found, "slow-0")["custom.steps"] == pytest.approx(0.5, rel=0.05)
    assert "gives 2 series; make it one" in reason(found, "custom.steps")
    assert found.problem == ""


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sum(rate(", "answered 400: invalid parameter"),
        ("rate(vllm:num_requests_running)", "expected type range vector"),
        ("vllm:num_requests_running[1m]", "gives a range or a text; make it a number"),
        ('"text"', "gives a range or a text; make it a number"),
        ("no_such_metric", "gives nothing"),
        ("weird", "gives no finite number"),
        ("up_and_away", "gives no finite number"),
        ("nv_gpu_memory_total_bytes", "series; make it one"),
    ],
)
def test_a_query_without_a_figure_says_why(client: Client, query: str, words: str) -> None:
    found = client.look(ask("vllm-0", queries={"custom.x": query}))
    assert words in reason(found, "custom.x")
    # One bad query takes nothing away from the others.
    assert "inference.latency" in values(found)


def test_the_servers_words_about_a_bad_query_reach_the_condition(client: Client) -> None:
    problem = client.look(ask("vllm-0", queries={"custom.x": "sum(rate("})).problem
    assert problem.startswith("the query for custom.x: Prometheus answered 400: ")
    assert "parse error" in problem


# -- age -------------------------------------------------------------------------------------------


def test_figures_go_stale_when_the_exporter_dies(scraped: Server, client: Client) -> None:
    dying = scraped.scrape(texts.tgi, namespace="ml", pod="dying-0")
    query = 'sum(tgi_queue_size{pod="dying-0"})'
    wanted = ask("dying-0", queries={"custom.size": query, "custom.rate": RATE})
    deadline = time.monotonic() + 60
    while "inference.latency" not in values(client.look(wanted)):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert {"custom.size", "custom.rate"} <= set(values(client.look(wanted)))
    dying.stop()
    while "inference.latency" in values(client.look(wanted)):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    found = client.look(wanted)
    assert values(found) == {}
    assert " of pod dying-0 is 1" in reason(found, "inference.queued")
    assert reason(found, "custom.size") == "the query for custom.size gives nothing"
    # Its range still holds samples, and Prometheus still answers with a figure.
    assert scraped.ask(RATE)
    assert "is about series that ended" in reason(found, "custom.rate")


RATE = 'sum(rate(tgi_request_count{pod="dying-0"}[2m]))'


def test_nothing_from_before_a_change_is_read_after_it(client: Client) -> None:
    query = {"custom.rate": 'sum(rate(vllm:generation_tokens_total{pod="vllm-0"}[1m]))'}
    found = client.look(ask("vllm-0", queries=query, since=time.time() - 2))
    assert "so far" in reason(found, "inference.latency")
    assert "reaches back before the last change" in reason(found, "custom.rate")
    assert values(found)["inference.batchSize"] == 6.0
    later = client.look(ask("vllm-0", since=time.time() - 8))
    assert readings(later)["inference.latency"].window < 8


def test_age_is_told_on_the_servers_clock(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    # An operator whose clock is a minute ahead must not take what is fresh for stale.
    monkeypatch.setattr("bottleneck_operator.observe.prometheus.time.time", lambda: real() + 60)
    assert readings(client.look(ask("vllm-0")))["inference.latency"].age < 3
