"""Metric names of model servers, old and new. Pure data.

Each list was read off the system's own source or documentation; where two releases differ, both
names stand, the newer first. Units are those of the metric; ``scale`` brings them to seconds.
"""

from __future__ import annotations

from .prometheus_entries import Across, Entry, Form, System, Term

INFERENCE = "inference"
MICRO, MILLI = 1e-6, 1e-3

_EVENTS = 10
"""Fewest requests for a percentile or a rate of errors, as for the sidecar's figures."""


def _vllm(name: str, *older: str) -> tuple[str, ...]:
    """Names with vLLM's prefix; the second spelling is what Ray and OpenTelemetry make of it."""
    return tuple(f"{prefix}{each}" for each in (name, *older) for prefix in ("vllm:", "vllm_"))


_VLLM_LATENCY = "e2e_request_latency_seconds"
_VLLM_QUEUE = ("request_queue_time_seconds", "time_in_queue_requests")

VLLM = System(
    "vLLM",
    workload=INFERENCE,
    lacks={
        "inference.errorRate": "this vLLM counts no failures (finished_reason error); give a query"
        " for inference.errorRate",
    },
    entries=(
        Entry(
            "inference.latency",
            Form.PERCENTILE,
            (Term(_vllm(_VLLM_LATENCY)),),
            least=_EVENTS,
        ),
        Entry(
            "inference.arrivalRate",
            Form.RATE,
            # Nothing counts arrivals: what was answered, and what more is inside now than before.
            (
                Term(_vllm(f"{_VLLM_LATENCY}_count")),
                Term(_vllm("num_requests_running"), change=True),
                Term(_vllm("num_requests_waiting"), change=True),
            ),
            statistic="rate",
        ),
        Entry(
            "inference.errorRate",
            Form.RATIO,
            (Term(_vllm("request_success_total"), {"finished_reason": "error"}),),
            (Term(_vllm("request_success_total")),),
            statistic="ratio of sums",
            least=_EVENTS,
        ),
        Entry(
            "inference.queueShare",
            Form.RATIO,
            (Term(_vllm(*(f"{name}_sum" for name in _VLLM_QUEUE))),),
            (Term(_vllm(f"{_VLLM_LATENCY}_sum")),),
            statistic="ratio of sums",
            cap=1.0,
        ),
        Entry(
            "inference.queueSeconds",
            Form.RATIO,
            (Term(_vllm(*(f"{name}_sum" for name in _VLLM_QUEUE))),),
            (Term(_vllm(*(f"{name}_count" for name in _VLLM_QUEUE))),),
            statistic="mean",
        ),
        Entry(
            "inference.serviceSeconds",
            Form.RATIO,
            (Term(_vllm("request_inference_time_seconds_sum")),),
            (Term(_vllm("request_inference_time_seconds_count")),),
            statistic="mean",
        ),
        Entry(
            "inference.firstTokenSeconds",
            Form.RATIO,
            (Term(_vllm("time_to_first_token_seconds_sum")),),
            (Term(_vllm("time_to_first_token_seconds_count")),),
            statistic="mean",
        ),
        Entry(
            "inference.queued",
            Form.MEAN,
            (Term(_vllm("num_requests_waiting")),),
            statistic="mean",
        ),
        Entry(
            "inference.batchSize",
            Form.MEAN,
            (Term(_vllm("num_requests_running")),),
            across=Across.MEAN,
            statistic="mean",
        ),
        Entry(
            "inference.tokensPerSecond",
            Form.RATE,
            (Term(_vllm("generation_tokens_total")),),
            statistic="rate",
        ),
        Entry(
            "inference.cacheShare",
            Form.MEAN,
            (Term(_vllm("kv_cache_usage_perc", "gpu_cache_usage_perc")),),
            across=Across.MAX,
            statistic="mean, maximum over servers",
        ),
        Entry(
            "inference.preemptionsPerSecond",
            Form.RATE,
            (Term(_vllm("num_preemptions_total")),),
            statistic="rate",
        ),
    ),
)

_TRITON_ANSWERED = ("nv_inference_request_success",)
_TRITON_FAILED = ("nv_inference_request_failure",)
_TRITON_PENDING = ("nv_inference_pending_request_count",)

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
            (Term(("nv_inference_request_summary_us",), scale=MICRO),),
            across=Across.MAX,
        ),
        Entry(
            "inference.arrivalRate",
            Form.RATE,
            (
                Term(_TRITON_ANSWERED),
                Term(_TRITON_FAILED),
                Term(_TRITON_PENDING, change=True, lazy=True),
            ),
            statistic="rate",
        ),
        Entry(
            "inference.errorRate",
            Form.RATIO,
            (Term(_TRITON_FAILED),),
            (Term(_TRITON_FAILED), Term(_TRITON_ANSWERED)),
            statistic="ratio of sums",
            least=_EVENTS,
        ),
        Entry(
            "inference.queueShare",
            Form.RATIO,
            (Term(("nv_inference_queue_duration_us",)),),
            (Term(("nv_inference_request_duration_us",)),),
            statistic="ratio of sums",
            cap=1.0,
        ),
        Entry(
            "inference.queueSeconds",
            Form.RATIO,
            (Term(("nv_inference_queue_duration_us",), scale=MICRO),),
            (Term(_TRITON_ANSWERED),),
            statistic="mean",
        ),
        Entry(
            "inference.serviceSeconds",
            Form.RATIO,
            # Counted for each request of a batch, so that the mean is what a request waits for.
            (
                Term(("nv_inference_compute_input_duration_us",), scale=MICRO),
                Term(("nv_inference_compute_infer_duration_us",), scale=MICRO),
                Term(("nv_inference_compute_output_duration_us",), scale=MICRO),
            ),
            (Term(_TRITON_ANSWERED),),
            statistic="mean",
        ),
        Entry(
            "inference.batchSize",
            Form.RATIO,
            (Term(("nv_inference_count",)),),
            (Term(("nv_inference_exec_count",)),),
            statistic="mean",
        ),
        Entry("inference.queued", Form.MEAN, (Term(_TRITON_PENDING),), statistic="mean"),
        Entry(
            "gpu.utilization",
            Form.MEAN,
            (Term(("nv_gpu_utilization",)),),
            across=Across.MEAN,
            statistic="mean",
        ),
        Entry(
            "gpu.memoryShare",
            Form.PAIRS,
            (Term(("nv_gpu_memory_used_bytes",)),),
            (Term(("nv_gpu_memory_total_bytes",)),),
            across=Across.MAX,
            statistic="maximum over devices",
            pair=("gpu_uuid",),
        ),
        Entry(
            "gpu.powerShare",
            Form.PAIRS,
            (Term(("nv_gpu_power_usage",)),),
            (Term(("nv_gpu_power_limit",)),),
            across=Across.MEAN,
            statistic="mean over devices",
            pair=("gpu_uuid",),
        ),
    ),
)

_TS_LATENCY = ("ts_inference_latency_microseconds",)
_TS_QUEUE = ("ts_queue_latency_microseconds",)
_TS_REQUESTS = ("ts_inference_requests_total",)

TORCHSERVE = System(
    "TorchServe",
    workload=INFERENCE,
    lacks={
        "inference.latency": "TorchServe tells no percentile, only sums; give a query for"
        " inference.latency, or inject the sidecar",
    },
    entries=(
        Entry("inference.arrivalRate", Form.RATE, (Term(_TS_REQUESTS),), statistic="rate"),
        Entry(
            "inference.errorRate",
            Form.RATIO,
            # Over the inference requests: the 2XX count the probes, too.
            (Term(("Requests5XX", "Requests5XX_total"), lazy=True),),
            (Term(_TS_REQUESTS),),
            statistic="ratio of sums",
            least=_EVENTS,
            cap=1.0,
        ),
        Entry(
            "inference.queueShare",
            Form.RATIO,
            (Term(_TS_QUEUE),),
            (Term(_TS_LATENCY),),
            statistic="ratio of sums",
            cap=1.0,
        ),
        Entry(
            "inference.queueSeconds",
            Form.RATIO,
            (Term(_TS_QUEUE, scale=MICRO),),
            (Term(_TS_REQUESTS),),
            statistic="mean",
        ),
        Entry(
            "inference.serviceSeconds",
            Form.RATIO,
            # The latency is counted from a request's arrival: its wait is in it.
            (Term(_TS_LATENCY, scale=MICRO), Term(_TS_QUEUE, scale=-MICRO)),
            (Term(_TS_REQUESTS),),
            statistic="mean",
        ),
        # Gauges that hold the newest request's figure: taken only where nothing is counted.
        Entry(
            "inference.queueSeconds",
            Form.MEAN,
            (Term(("QueueTime",), scale=MILLI),),
            across=Across.MEAN,
            statistic="mean of samples",
        ),
        Entry(
            "inference.serviceSeconds",
            Form.MEAN,
            (Term(("PredictionTime", "HandlerTime"), scale=MILLI),),
            across=Across.MEAN,
            statistic="mean of samples",
        ),
        Entry(
            "gpu.utilization",
            Form.MEAN,
            (Term(("GPUUtilization",), scale=0.01),),
            across=Across.MEAN,
            statistic="mean",
        ),
        Entry(
            "gpu.memoryShare",
            Form.LAST,
            (Term(("GPUMemoryUtilization",), scale=0.01),),
            across=Across.MAX,
            statistic="maximum over devices",
        ),
    ),
)

_TGI_LATENCY = "tgi_request_duration"

TGI = System(
    "Text Generation Inference",
    workload=INFERENCE,
    entries=(
        Entry("inference.latency", Form.PERCENTILE, (Term((_TGI_LATENCY,)),), least=_EVENTS),
        Entry(
            "inference.arrivalRate", Form.RATE, (Term(("tgi_request_count",)),), statistic="rate"
        ),
        Entry(
            "inference.errorRate",
            Form.RATIO,
            (Term(("tgi_request_failure",), lazy=True),),
            (Term(("tgi_request_count",)),),
            statistic="ratio of sums",
            least=_EVENTS,
            cap=1.0,
        ),
        Entry(
            "inference.queueShare",
            Form.RATIO,
            (Term(("tgi_request_queue_duration_sum",)),),
            (Term((f"{_TGI_LATENCY}_sum",)),),
            statistic="ratio of sums",
            cap=1.0,
        ),
        Entry(
            "inference.queueSeconds",
            Form.RATIO,
            (Term(("tgi_request_queue_duration_sum",)),),
            (Term(("tgi_request_queue_duration_count",)),),
            statistic="mean",
        ),
        Entry(
            "inference.serviceSeconds",
            Form.RATIO,
            (Term(("tgi_request_inference_duration_sum",)),),
            (Term(("tgi_request_inference_duration_count",)),),
            statistic="mean",
        ),
        Entry("inference.queued", Form.MEAN, (Term(("tgi_queue_size",)),), statistic="mean"),
        Entry(
            "inference.batchSize",
            Form.MEAN,
            (Term(("tgi_batch_current_size",)),),
            across=Across.MEAN,
            statistic="mean",
        ),
        Entry(
            "inference.tokensPerSecond",
            Form.RATE,
            (Term(("tgi_request_generated_tokens_sum",)),),
            statistic="rate",
        ),
    ),
)

SERVERS = (VLLM, TRITON, TORCHSERVE, TGI)
