"""Metric names of this project's own sidecar, for operators that cannot reach it themselves. Pure
data; the names are those of ``bottleneck_sidecar.agent.metrics``."""

from __future__ import annotations

from bottleneck_sidecar.wire import PHASES

from .prometheus_entries import Across, Entry, Form, System, Term, gauge, mean, parts, rate, share

CHECKPOINT_SECONDS = 120.0
"""Checkpoints are rare: their share is taken over two minutes, as of the sidecar's own figures."""

THROTTLED_BITS = 0xE8
"""NVML's clock event reasons that slow a device down: HwSlowdown, SwThermal, HwThermal and
PowerBrake. The software power cap alone (0x4) is normal at full load."""


def _own(name: str, scale: float = 1.0, **labels: str) -> Term:
    return Term((f"bottleneck_{name}",), labels, scale=scale)


_STEP = _own("training_step_seconds_total")
_STEPS = _own("training_steps_total")
_CHECKPOINT = _own("training_checkpoint_seconds_total")
_LOADER = _own("training_loader_seconds_total")

TRAINING_AGENT = System(
    "bottleneck-agent (training)",
    workload="training",
    entries=(
        rate("training.samplesPerSecond", _own("training_samples_total")),
        mean("training.stepSeconds", _STEP, _STEPS),
        mean("training.microBatch", _own("training_samples_total"), _STEPS),
        *(
            share(f"training.{name}Share", _own("training_phase_seconds_total", phase=name), _STEP)
            for name in PHASES
        ),
        share("training.cpuShare", _own("training_phase_cpu_seconds_total"), _STEP),
        share("training.lowPrecisionShare", _own("training_low_precision_steps_total"), _STEPS),
        share(
            "training.checkpointShare",
            _CHECKPOINT,
            (_STEP, _CHECKPOINT, _own("training_evaluation_seconds_total")),
            window=CHECKPOINT_SECONDS,
        ),
        Entry(
            "training.longPhase",
            Form.LAST,
            (_own("training_long_phase"),),
            statistic="ranks in a checkpoint or an evaluation",
        ),
        Entry(
            "training.sinceStepSeconds",
            Form.SINCE,
            (_own("training_last_step_timestamp_seconds"),),
            across=Across.MAX,
            statistic="maximum over ranks",
        ),
        share("loader.cpuShare", _own("training_loader_cpu_seconds_total"), _LOADER),
        share("loader.runQueueShare", _own("training_loader_run_queue_seconds_total"), _LOADER),
        share(
            "loader.blockedShare",
            (
                _LOADER,
                _own("training_loader_cpu_seconds_total", -1.0),
                _own("training_loader_run_queue_seconds_total", -1.0),
            ),
            _LOADER,
        ),
    ),
)

_LATENCY = _own("inference_latency_seconds_sum")
_REQUESTS = _own("inference_requests_total")

SERVER_AGENT = System(
    "bottleneck-agent (serving)",
    workload="inference",
    entries=(
        Entry("inference.latency", Form.PERCENTILE, (_own("inference_latency_seconds"),), least=10),
        rate("inference.arrivalRate", _own("inference_arrivals_total")),
        share("inference.errorRate", _own("inference_errors_total"), _REQUESTS, least=10),
        share("inference.queueShare", _own("inference_queue_seconds_total"), _LATENCY),
        share("inference.dependencyShare", _own("inference_dependency_seconds_total"), _LATENCY),
        share(
            "inference.restShare",
            (
                _LATENCY,
                _own("inference_queue_seconds_total", -1.0),
                _own("inference_service_seconds_total", -1.0),
                _own("inference_dependency_seconds_total", -1.0),
            ),
            _LATENCY,
        ),
        share(
            "inference.retryShare",
            _own("inference_retries_total"),
            _own("inference_arrivals_total"),
            least=10,
        ),
        mean("inference.queueSeconds", _own("inference_queue_seconds_total"), _REQUESTS),
        mean("inference.serviceSeconds", _own("inference_service_seconds_total"), _REQUESTS),
        mean("inference.batchSize", _REQUESTS, _own("inference_batches_total")),
        gauge("inference.queued", _own("inference_queued")),
        Entry(
            "inference.concurrency",
            Form.LAST,
            (_own("inference_concurrency"),),
            across=Across.MEAN,
            statistic="mean",
        ),
        Entry(
            "inference.uptimeSeconds",
            Form.SINCE,
            (_own("inference_start_timestamp_seconds"),),
            across=Across.MIN,
            statistic="minimum over servers",
        ),
    ),
)


def _worst(signal: str, term: Term, cap: float | None = None) -> Entry:
    return rate(signal, term, across=Across.MAX, statistic="maximum over pods", cap=cap)


AGENT = System(
    "bottleneck-agent (container and GPU)",
    entries=(
        rate("cpu.usedCores", _own("container_cpu_seconds_total")),
        Entry(
            "cpu.availableCores",
            Form.LAST,
            (Term(("bottleneck_container_cpu_limit_cores", "bottleneck_container_cpus")),),
            statistic="last",
        ),
        share(
            "cpu.throttledShare",
            _own("container_cpu_throttled_periods_total"),
            _own("container_cpu_periods_total"),
        ),
        _worst("cpu.throttledTimeShare", _own("container_cpu_throttled_seconds_total"), 1.0),
        _worst(
            "cpu.runQueueShare",
            Term(
                (
                    "bottleneck_training_run_queue_seconds_total",
                    "bottleneck_inference_run_queue_seconds_total",
                )
            ),
            1.0,
        ),
        Entry(
            "node.busyShare",
            Form.RATE,
            (_own("node_busy_seconds_total"),),
            (_own("node_cpus"),),
            statistic="mean over pods",
            cap=1.0,
        ),
        *(
            rate(
                f"{resource}.pressureShare",
                _own(f"container_{resource}_pressure_seconds_total"),
                across=Across.MEAN,
                statistic="mean over pods",
                cap=1.0,
            )
            for resource in ("cpu", "memory", "io")
        ),
        parts(
            "memory.usedShare",
            _own("container_memory_working_set_bytes"),
            _own("container_memory_limit_bytes"),
            across=Across.MAX,
            statistic="maximum over pods",
        ),
        Entry(
            "memory.oomKills",
            Form.COUNT,
            (_own("container_oom_kills_total"),),
            statistic="count",
        ),
        _worst("memory.limitHitsPerSecond", _own("container_memory_limit_hits_total")),
        _worst("memory.majorFaultsPerSecond", _own("container_major_faults_total")),
        rate("io.readBytesPerSecond", _own("container_read_bytes_total")),
        gauge("gpu.utilization", _own("gpu_utilization_ratio"), Across.MEAN, "mean over devices"),
        parts(
            "gpu.memoryShare",
            _own("gpu_memory_used_bytes"),
            _own("gpu_memory_total_bytes"),
            "uuid",
            across=Across.MAX,
            statistic="maximum over devices",
        ),
        Entry(
            "gpu.throttledShare",
            Form.MASK,
            (_own("gpu_clock_event_reasons"),),
            across=Across.MAX,
            statistic="samples, maximum over devices",
            bits=THROTTLED_BITS,
        ),
    ),
)
