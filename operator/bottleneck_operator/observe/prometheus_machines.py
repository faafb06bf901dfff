"""Metric names of devices, containers and pods, and the list of all that is recognised. Pure data.

Read off the exporters' own lists of metrics; where releases differ, both names stand.
"""

from __future__ import annotations

from .prometheus_agent import AGENT, SERVER_AGENT, THROTTLED_BITS, TRAINING_AGENT
from .prometheus_entries import Across, Entry, Form, System, Term, gauge, parts, rate, share
from .prometheus_servers import SERVERS

RECENT_SECONDS = 600.0
"""How far back restarts of a container count."""

DEVICE = ("UUID", "GPU_I_ID")
"""What tells devices apart in the DCGM exporter: the GPU, and its slice under MIG."""

MEAN_DEVICE, WORST_DEVICE = "mean over devices", "maximum over devices"
WORST_CONTAINER = "maximum over containers"


def _device(signal: str, metric: str, scale: float = 1.0) -> Entry:
    return gauge(signal, Term((metric,), scale=scale), Across.MEAN, MEAN_DEVICE)


DCGM = System(
    "DCGM exporter",
    entries=(
        # Under MIG the first is not told; the second is a ratio, of one engine or of all.
        _device("gpu.utilization", "DCGM_FI_DEV_GPU_UTIL", scale=0.01),
        _device("gpu.utilization", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
        parts(
            "gpu.memoryShare",
            Term(("DCGM_FI_DEV_FB_USED",)),
            (Term(("DCGM_FI_DEV_FB_USED",)), Term(("DCGM_FI_DEV_FB_FREE",))),
            *DEVICE,
            across=Across.MAX,
            statistic=WORST_DEVICE,
        ),
        Entry(
            "gpu.throttledShare",
            Form.MASK,
            (Term(("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")),),
            across=Across.MAX,
            statistic="samples, maximum over devices",
            bits=THROTTLED_BITS,
        ),
        _device("gpu.smActive", "DCGM_FI_PROF_SM_ACTIVE"),
        _device("gpu.tensorActive", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
        _device("gpu.dramActive", "DCGM_FI_PROF_DRAM_ACTIVE"),
        # The counters of violations are left out: their unit (µs or ns) differs by release.
        parts(
            "gpu.powerShare",
            Term(("DCGM_FI_DEV_POWER_USAGE",)),
            Term(("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_POWER_MGMT_LIMIT")),
            *DEVICE,
            across=Across.MEAN,
            statistic=MEAN_DEVICE,
        ),
    ),
)


def _container(metric: str, *older: str, **labels: str) -> Term:
    return Term((metric, *older), labels, containers=True)


def _pressure(resource: str) -> Entry:
    # "waiting" is PSI's "some", "stalled" its "full".
    return rate(
        f"{resource}.pressureShare",
        _container(f"container_pressure_{resource}_waiting_seconds_total"),
        across=Across.MEAN,
        statistic="mean over containers",
        cap=1.0,
    )


def _memory(limit: Term) -> Entry:
    return parts(
        "memory.usedShare",
        _container("container_memory_working_set_bytes"),
        limit,
        "container",
        across=Across.MAX,
        statistic=WORST_CONTAINER,
    )


def _worst(signal: str, term: Term, cap: float | None = None) -> Entry:
    return rate(signal, term, across=Across.MAX, statistic=WORST_CONTAINER, cap=cap)


CADVISOR = System(
    "cAdvisor (kubelet)",
    entries=(
        rate("cpu.usedCores", _container("container_cpu_usage_seconds_total")),
        parts(
            "cpu.availableCores",
            _container("container_spec_cpu_quota"),
            _container("container_spec_cpu_period"),
            "container",
            statistic="last",
        ),
        share(
            "cpu.throttledShare",
            _container("container_cpu_cfs_throttled_periods_total"),
            _container("container_cpu_cfs_periods_total"),
        ),
        _worst(
            "cpu.throttledTimeShare", _container("container_cpu_cfs_throttled_seconds_total"), 1.0
        ),
        *(_pressure(resource) for resource in ("cpu", "memory", "io")),
        _memory(_container("container_spec_memory_limit_bytes")),
        _memory(_container("kube_pod_container_resource_limits", resource="memory")),
        _memory(_container("kube_pod_container_resource_limits_memory_bytes")),
        Entry(
            "memory.oomKills",
            Form.COUNT,
            (_container("container_oom_events_total"),),
            statistic="count",
        ),
        _worst(
            "memory.limitHitsPerSecond",
            _container("container_memory_events_max_total", "container_memory_failcnt"),
        ),
        _worst(
            "memory.majorFaultsPerSecond",
            _container(
                "container_memory_failures_total", failure_type="pgmajfault", scope="container"
            ),
        ),
        rate("io.readBytesPerSecond", _container("container_fs_reads_bytes_total")),
    ),
)


def _cores(limit: Term) -> Entry:
    return Entry("cpu.availableCores", Form.LAST, (limit,), statistic="last")


def _now(signal: str, metric: str, **labels: str) -> Entry:
    """How many are so now; what is not so has no line, or a zero."""
    return Entry(signal, Form.LAST, (Term((metric,), labels),), statistic="last", partial=True)


_RESTARTS = Term(("kube_pod_container_status_restarts_total",))
_ENDED = "kube_pod_container_status_last_terminated_reason"

STATE_METRICS = System(
    "kube-state-metrics",
    entries=(
        _cores(_container("kube_pod_container_resource_limits", resource="cpu")),
        _cores(_container("kube_pod_container_resource_limits_cpu_cores")),
        Entry("pods.restarts", Form.COUNT, (_RESTARTS,), statistic="count", window=RECENT_SECONDS),
        Entry(
            "pods.oomKilled",
            Form.GREW,
            (Term((_ENDED,), {"reason": "OOMKilled"}),),
            (_RESTARTS,),
            statistic="count",
            window=RECENT_SECONDS,
            pair=("container",),
            partial=True,
        ),
        _now(
            "pods.crashLooping",
            "kube_pod_container_status_waiting_reason",
            reason="CrashLoopBackOff",
        ),
        _now("pods.unschedulable", "kube_pod_status_unschedulable"),
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
