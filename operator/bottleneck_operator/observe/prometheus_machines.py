"""Metric names of devices, containers and pods, and of this project's own sidecar. Pure data."""

from __future__ import annotations

from bottleneck_sidecar.wire import PHASES

from .prometheus_entries import Across, Entry, Form, System, Term
from .prometheus_servers import SERVERS

THROTTLED_BITS = 0xE8
"""NVML's clock event reasons that slow a device down: HwSlowdown, SwThermal, HwThermal and
PowerBrake. The software power cap alone (0x4) is normal at full load."""

RECENT_SECONDS = 600.0
"""How far back restarts of a container count."""

DEVICE = ("UUID", "GPU_I_ID")
"""What tells devices apart in the DCGM exporter: the GPU, and its slice under MIG."""


def _device(signal: str, *metrics: str, scale: float = 1.0) -> Entry:
    term = Term(metrics, scale=scale)
    return Entry(signal, Form.MEAN, (term,), across=Across.MEAN, statistic="mean over devices")


DCGM = System(
    "DCGM exporter",
    entries=(
        # Under MIG the first is not told; the second is a ratio, of one engine or of all.
        _device("gpu.utilization", "DCGM_FI_DEV_GPU_UTIL", scale=0.01),
        _device("gpu.utilization", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
        Entry(
            "gpu.memoryShare",
            Form.PAIRS,
            (Term(("DCGM_FI_DEV_FB_USED",)),),
            (Term(("DCGM_FI_DEV_FB_USED",)), Term(("DCGM_FI_DEV_FB_FREE",))),
            across=Across.MAX,
            statistic="maximum over devices",
            pair=DEVICE,
        ),
        Entry(
            "gpu.throttledShare",
            Form.MASK,
            (Term(("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")),),
            across=Across.MAX,
            statistic="share of samples, maximum over devices",
            bits=THROTTLED_BITS,
        ),
        _device("gpu.smActive", "DCGM_FI_PROF_SM_ACTIVE"),
        _device("gpu.tensorActive", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
        _device("gpu.dramActive", "DCGM_FI_PROF_DRAM_ACTIVE"),
        # The counters of violations are left out: their unit (µs or ns) differs by release.
        Entry(
            "gpu.powerShare",
            Form.PAIRS,
            (Term(("DCGM_FI_DEV_POWER_USAGE",)),),
            (Term(("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_POWER_MGMT_LIMIT")),),
            across=Across.MEAN,
            statistic="mean over devices",
            pair=DEVICE,
        ),
    ),
)


def _container(metric: str, *older: str, scale: float = 1.0, **labels: str) -> Term:
    return Term((metric, *older), labels, scale=scale, containers=True)


def _pressure(resource: str) -> Entry:
    # "waiting" is PSI's "some", "stalled" its "full".
    return Entry(
        f"{resource}.pressureShare",
        Form.RATE,
        (_container(f"container_pressure_{resource}_waiting_seconds_total"),),
        across=Across.MEAN,
        statistic="mean over containers",
        cap=1.0,
    )


_LIMIT_CPU = ("kube_pod_container_resource_limits_cpu_cores",)
_LIMIT_MEMORY = ("kube_pod_container_resource_limits_memory_bytes",)

CADVISOR = System(
    "cAdvisor (kubelet)",
    entries=(
        Entry(
            "cpu.usedCores",
            Form.RATE,
            (_container("container_cpu_usage_seconds_total"),),
            statistic="mean",
        ),
        Entry(
            "cpu.availableCores",
            Form.PAIRS,
            (_container("container_spec_cpu_quota"),),
            (_container("container_spec_cpu_period"),),
            statistic="last",
            pair=("container",),
        ),
        Entry(
            "cpu.throttledShare",
            Form.RATIO,
            (_container("container_cpu_cfs_throttled_periods_total"),),
            (_container("container_cpu_cfs_periods_total"),),
            statistic="ratio of sums",
            cap=1.0,
        ),
        Entry(
            "cpu.throttledTimeShare",
            Form.RATE,
            (_container("container_cpu_cfs_throttled_seconds_total"),),
            across=Across.MAX,
            statistic="maximum over containers",
            cap=1.0,
        ),
        *(_pressure(resource) for resource in ("cpu", "memory", "io")),
        Entry(
            "memory.usedShare",
            Form.PAIRS,
            (_container("container_memory_working_set_bytes"),),
            (_container("container_spec_memory_limit_bytes"),),
            across=Across.MAX,
            statistic="maximum over containers",
            pair=("container",),
        ),
        Entry(
            "memory.usedShare",
            Form.PAIRS,
            (_container("container_memory_working_set_bytes"),),
            (_container("kube_pod_container_resource_limits", resource="memory"),),
            across=Across.MAX,
            statistic="maximum over containers",
            pair=("container",),
        ),
        Entry(
            "memory.usedShare",
            Form.PAIRS,
            (_container("container_memory_working_set_bytes"),),
            (_container(*_LIMIT_MEMORY),),
            across=Across.MAX,
            statistic="maximum over containers",
            pair=("container",),
        ),
        Entry(
            "memory.oomKills",
            Form.COUNT,
            (_container("container_oom_events_total"),),
            statistic="count",
        ),
        Entry(
            "memory.limitHitsPerSecond",
            Form.RATE,
            (_container("container_memory_events_max_total", "container_memory_failcnt"),),
            statistic="rate",
        ),
        Entry(
            "memory.majorFaultsPerSecond",
            Form.RATE,
            (
                _container(
                    "container_memory_failures_total",
                    failure_type="pgmajfault",
                    scope="container",
                ),
            ),
            statistic="rate",
        ),
        Entry(
            "io.readBytesPerSecond",
            Form.RATE,
            (_container("container_fs_reads_bytes_total"),),
            statistic="rate",
        ),
    ),
)

_RESTARTS = Term(("kube_pod_container_status_restarts_total",))
_KILLED = Term(
    ("kube_pod_container_status_last_terminated_reason",), labels={"reason": "OOMKilled"}
)

STATE_METRICS = System(
    "kube-state-metrics",
    entries=(
        Entry(
            "cpu.availableCores",
            Form.LAST,
            (_container("kube_pod_container_resource_limits", resource="cpu"),),
            statistic="last",
        ),
        Entry("cpu.availableCores", Form.LAST, (_container(*_LIMIT_CPU),), statistic="last"),
        Entry("pods.restarts", Form.COUNT, (_RESTARTS,), statistic="count", window=RECENT_SECONDS),
        Entry(
            "pods.oomKilled",
            Form.GREW,
            (_KILLED,),
            (_RESTARTS,),
            statistic="count",
            window=RECENT_SECONDS,
            pair=("container",),
            partial=True,
        ),
        Entry(
            "pods.crashLooping",
            Form.LAST,
            (
                Term(
                    ("kube_pod_container_status_waiting_reason",),
                    labels={"reason": "CrashLoopBackOff"},
                ),
            ),
            statistic="last",
            partial=True,
        ),
        Entry(
            "pods.unschedulable",
            Form.LAST,
            (Term(("kube_pod_status_unschedulable",)),),
            statistic="last",
            partial=True,
        ),
    ),
)


def _own(name: str, **labels: str) -> Term:
    return Term((f"bottleneck_{name}",), labels)


def _ratio(signal: str, over: str, under: str, statistic: str, **labels: str) -> Entry:
    return Entry(signal, Form.RATIO, (_own(over, **labels),), (_own(under),), statistic=statistic)


def _rate(signal: str, name: str) -> Entry:
    return Entry(signal, Form.RATE, (_own(name),), statistic="rate")


_STEP = "training_step_seconds_total"
_REQUESTS = "inference_requests_total"

TRAINING_AGENT = System(
    "bottleneck-agent (training)",
    workload="training",
    entries=(
        _rate("training.samplesPerSecond", "training_samples_total"),
        _ratio("training.stepSeconds", _STEP, "training_steps_total", "mean"),
        *(
            _ratio(
                f"training.{phase}Share",
                "training_phase_seconds_total",
                _STEP,
                "ratio of sums",
                phase=phase,
            )
            for phase in PHASES
        ),
        Entry(
            "training.sinceStepSeconds",
            Form.SINCE,
            (_own("training_last_step_timestamp_seconds"),),
            across=Across.MAX,
            statistic="maximum over ranks",
        ),
    ),
)

SERVER_AGENT = System(
    "bottleneck-agent (serving)",
    workload="inference",
    entries=(
        Entry(
            "inference.latency",
            Form.PERCENTILE,
            (_own("inference_latency_seconds"),),
            least=10,
        ),
        _rate("inference.arrivalRate", "inference_arrivals_total"),
        Entry(
            "inference.errorRate",
            Form.RATIO,
            (_own("inference_errors_total"),),
            (_own(_REQUESTS),),
            statistic="ratio of sums",
            least=10,
        ),
        _ratio(
            "inference.queueShare",
            "inference_queue_seconds_total",
            "inference_latency_seconds_sum",
            "ratio of sums",
        ),
        _ratio("inference.queueSeconds", "inference_queue_seconds_total", _REQUESTS, "mean"),
        _ratio("inference.serviceSeconds", "inference_service_seconds_total", _REQUESTS, "mean"),
        _ratio("inference.batchSize", _REQUESTS, "inference_batches_total", "mean"),
        Entry("inference.queued", Form.MEAN, (_own("inference_queued"),), statistic="mean"),
        Entry(
            "inference.concurrency",
            Form.LAST,
            (_own("inference_concurrency"),),
            across=Across.MEAN,
            statistic="mean",
        ),
        Entry(
            "inference.occupancy",
            Form.RATE,
            (_own("inference_service_seconds_total"),),
            (_own("inference_concurrency"),),
            statistic="busy time over time",
        ),
    ),
)

AGENT = System(
    "bottleneck-agent (container and GPU)",
    entries=(
        _rate("cpu.usedCores", "container_cpu_seconds_total"),
        Entry(
            "cpu.availableCores",
            Form.LAST,
            (Term(("bottleneck_container_cpu_limit_cores", "bottleneck_container_cpus")),),
            statistic="last",
        ),
        _ratio(
            "cpu.throttledShare",
            "container_cpu_throttled_periods_total",
            "container_cpu_periods_total",
            "ratio of sums",
        ),
        *(
            Entry(
                f"{resource}.pressureShare",
                Form.RATE,
                (_own(f"container_{resource}_pressure_seconds_total"),),
                across=Across.MEAN,
                statistic="mean over pods",
                cap=1.0,
            )
            for resource in ("cpu", "memory", "io")
        ),
        Entry(
            "memory.usedShare",
            Form.PAIRS,
            (_own("container_memory_working_set_bytes"),),
            (_own("container_memory_limit_bytes"),),
            across=Across.MAX,
            statistic="maximum over pods",
        ),
        Entry(
            "memory.oomKills",
            Form.COUNT,
            (_own("container_oom_kills_total"),),
            statistic="count",
        ),
        _rate("io.readBytesPerSecond", "container_read_bytes_total"),
        _device("gpu.utilization", "bottleneck_gpu_utilization_ratio"),
        Entry(
            "gpu.memoryShare",
            Form.PAIRS,
            (_own("gpu_memory_used_bytes"),),
            (_own("gpu_memory_total_bytes"),),
            across=Across.MAX,
            statistic="maximum over devices",
            pair=("uuid",),
        ),
        Entry(
            "gpu.throttledShare",
            Form.MASK,
            (_own("gpu_clock_event_reasons"),),
            across=Across.MAX,
            statistic="share of samples, maximum over devices",
            bits=THROTTLED_BITS,
        ),
    ),
)

SYSTEMS: tuple[System, ...] = (
    TRAINING_AGENT,
    SERVER_AGENT,
    AGENT,
    DCGM,
    *SERVERS,
    CADVISOR,
    STATE_METRICS,
)
"""All that is recognised. Where two give one signal, the first of them counts."""
