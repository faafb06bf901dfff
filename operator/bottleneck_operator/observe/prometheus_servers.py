"""Metric names of model servers, old and new. Pure data.

Each list was read off the system's own source or documentation; where two releases differ, both
names stand, the newer first. Units are those of the metric; ``scale`` brings them to seconds.
"""

from __future__ import annotations

from .prometheus_entries import Across, Entry, Form, System, Term, gauge, mean, parts, rate, share

INFERENCE = "inference"
MICRO, MILLI, PERCENT = 1e-6, 1e-3, 0.01

EVENTS = 10
"""Fewest requests for a percentile or a rate of errors, as for the sidecar's figures."""


def _vllm(name: str, *older: str, change: bool = False, **labels: str) -> Term:
    """With vLLM's prefix; the second spelling is what Ray and OpenTelemetry make of it."""
    names = tuple(f"{prefix}{each}" for each in (name, *older) for prefix in ("vllm:", "vllm_"))
    return Term(names, labels, change=change)


_VLLM_LATENCY = "e2e_request_latency_seconds"

VLLM = System(
    "vLLM",
    workload=INFERENCE,
    lacks={
        "inference.errorRate": "this vLLM counts no failures (finished_reason error); give a query"
        " for inference.errorRate",
    },
    entries=(
        Entry("inference.latency", Form.PERCENTILE, (_vllm(_VLLM_LATENCY),), least=EVENTS),
        # Nothing counts arrivals: what was answered, and what more is inside now than before.
        rate(
            "inference.arrivalRate",
            _vllm(f"{_VLLM_LATENCY}_count"),
            _vllm("num_requests_running", change=True),
            _vllm("num_requests_waiting", change=True),
        ),
        share(
            "inference.errorRate",
            _vllm("request_success_total", finished_reason="error"),
            _vllm("request_success_total"),
            least=EVENTS,
        ),
        share(
            "inference.queueShare",
            _vllm("request_queue_time_seconds_sum", "time_in_queue_requests_sum"),
            _vllm(f"{_VLLM_LATENCY}_sum"),
        ),
        mean(
            "inference.queueSeconds",
            _vllm("request_queue_time_seconds_sum", "time_in_queue_requests_sum"),
            _vllm("request_queue_time_seconds_count", "time_in_queue_requests_count"),
        ),
        mean(
            "inference.serviceSeconds",
            _vllm("request_inference_time_seconds_sum"),
            _vllm("request_inference_time_seconds_count"),
        ),
        mean(
            "inference.firstTokenSeconds",
            _vllm("time_to_first_token_seconds_sum"),
            _vllm("time_to_first_token_seconds_count"),
        ),
        gauge("inference.queued", _vllm("num_requests_waiting")),
        gauge("inference.batchSize", _vllm("num_requests_running"), Across.MEAN),
        rate("inference.tokensPerSecond", _vllm("generation_tokens_total")),
        gauge(
            "inference.cacheShare",
            _vllm("kv_cache_usage_perc", "gpu_cache_usage_perc"),
            Across.MAX,
            "mean, maximum over servers",
        ),
        rate("inference.preemptionsPerSecond", _vllm("num_preemptions_total")),
    ),
)


def _triton(name: str, scale: float = 1.0) -> Term:
    return Term((f"nv_{name}",), scale=scale)


_TRITON_ANSWERED = _triton("inference_request_success")
_TRITON_FAILED = _triton("inference_request_failure")
_TRITON_PENDING = "nv_inference_pending_request_count"

TRITON = System(
    "Triton",
    workload=INFERENCE,
    lacks={
        "inference.latency": "Triton's counters tell no percentile; start it with"
        " --metrics-config summary_latencies=true, or give a query for inference.latency",
    },
    entries=(
        Entry(
            "inference.latency",
            Form.QUANTILE,
            (_triton("inference_request_summary_us", MICRO),),
            across=Across.MAX,
        ),
        rate(
            "inference.arrivalRate",
            _TRITON_ANSWERED,
            _TRITON_FAILED,
            # Only newer releases tell what is pending.
            Term((_TRITON_PENDING,), change=True, lazy=True),
        ),
        share(
            "inference.errorRate", _TRITON_FAILED, (_TRITON_FAILED, _TRITON_ANSWERED), least=EVENTS
        ),
        share(
            "inference.queueShare",
            _triton("inference_queue_duration_us"),
            _triton("inference_request_duration_us"),
        ),
        mean(
            "inference.queueSeconds",
            _triton("inference_queue_duration_us", MICRO),
            _TRITON_ANSWERED,
        ),
        # Counted for each request of a batch, so that the mean is what a request waits for.
        mean(
            "inference.serviceSeconds",
            (
                _triton("inference_compute_input_duration_us", MICRO),
                _triton("inference_compute_infer_duration_us", MICRO),
                _triton("inference_compute_output_duration_us", MICRO),
            ),
            _TRITON_ANSWERED,
        ),
        mean("inference.batchSize", _triton("inference_count"), _triton("inference_exec_count")),
        gauge("inference.queued", Term((_TRITON_PENDING,))),
        gauge("gpu.utilization", _triton("gpu_utilization"), Across.MEAN, "mean over devices"),
        parts(
            "gpu.memoryShare",
            _triton("gpu_memory_used_bytes"),
            _triton("gpu_memory_total_bytes"),
            "gpu_uuid",
            across=Across.MAX,
            statistic="maximum over devices",
        ),
        parts(
            "gpu.powerShare",
            _triton("gpu_power_usage"),
            _triton("gpu_power_limit"),
            "gpu_uuid",
            across=Across.MEAN,
            statistic="mean over devices",
        ),
    ),
)

_TS_LATENCY, _TS_QUEUE = "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"
_TS_REQUESTS = Term(("ts_inference_requests_total",))

TORCHSERVE = System(
    "TorchServe",
    workload=INFERENCE,
    lacks={
        "inference.latency": "TorchServe tells no percentile, only sums; give a query for"
        " inference.latency, or inject the sidecar",
    },
    entries=(
        rate("inference.arrivalRate", _TS_REQUESTS),
        # Over the inference requests: the 2XX count the probes, too.
        share(
            "inference.errorRate",
            Term(("Requests5XX", "Requests5XX_total"), lazy=True),
            _TS_REQUESTS,
            least=EVENTS,
        ),
        share("inference.queueShare", Term((_TS_QUEUE,)), Term((_TS_LATENCY,))),
        mean("inference.queueSeconds", Term((_TS_QUEUE,), scale=MICRO), _TS_REQUESTS),
        # The latency is counted from a request's arrival: its wait is in it.
        mean(
            "inference.serviceSeconds",
            (Term((_TS_LATENCY,), scale=MICRO), Term((_TS_QUEUE,), scale=-MICRO)),
            _TS_REQUESTS,
        ),
        # Gauges that hold the newest request's figure: taken only where nothing is counted.
        gauge(
            "inference.queueSeconds",
            Term(("QueueTime",), scale=MILLI),
            Across.MEAN,
            "mean of samples",
        ),
        gauge(
            "inference.serviceSeconds",
            Term(("PredictionTime", "HandlerTime"), scale=MILLI),
            Across.MEAN,
            "mean of samples",
        ),
        gauge(
            "gpu.utilization",
            Term(("GPUUtilization",), scale=PERCENT),
            Across.MEAN,
            "mean over devices",
        ),
        Entry(
            "gpu.memoryShare",
            Form.LAST,
            (Term(("GPUMemoryUtilization",), scale=PERCENT),),
            across=Across.MAX,
            statistic="maximum over devices",
        ),
    ),
)


def _tgi(name: str, lazy: bool = False) -> Term:
    return Term((f"tgi_{name}",), lazy=lazy)


TGI = System(
    "Text Generation Inference",
    workload=INFERENCE,
    entries=(
        Entry("inference.latency", Form.PERCENTILE, (_tgi("request_duration"),), least=EVENTS),
        rate("inference.arrivalRate", _tgi("request_count")),
        share(
            "inference.errorRate",
            _tgi("request_failure", lazy=True),
            _tgi("request_count"),
            least=EVENTS,
        ),
        share(
            "inference.queueShare",
            _tgi("request_queue_duration_sum"),
            _tgi("request_duration_sum"),
        ),
        mean(
            "inference.queueSeconds",
            _tgi("request_queue_duration_sum"),
            _tgi("request_queue_duration_count"),
        ),
        mean(
            "inference.serviceSeconds",
            _tgi("request_inference_duration_sum"),
            _tgi("request_inference_duration_count"),
        ),
        gauge("inference.queued", _tgi("queue_size")),
        gauge("inference.batchSize", _tgi("batch_current_size"), Across.MEAN),
        rate("inference.tokensPerSecond", _tgi("request_generated_tokens_sum")),
    ),
)

SERVERS = (VLLM, TRITON, TORCHSERVE, TGI)
