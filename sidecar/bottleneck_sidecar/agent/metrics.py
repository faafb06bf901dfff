"""A sample as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bottleneck_sidecar.agent.state import State
from bottleneck_sidecar.wire import LATENCY_BOUNDS_SECONDS, InferenceServer, Sample, TrainingRank

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TRAINING = (
    ("training_steps_total", "counter", "Steps finished.", "steps"),
    ("training_samples_total", "counter", "Samples trained on.", "samples"),
    ("training_step_seconds_total", "counter", "Time in steps.", "step_seconds"),
    ("training_world_size", "gauge", "Ranks of the job.", "world_size"),
    ("training_last_step_timestamp_seconds", "gauge", "End of the last step.", "last_step_at"),
    ("training_start_timestamp_seconds", "gauge", "Start of the process.", "started_at"),
    ("training_run_queue_seconds_total", "counter", "Waited for a CPU.", "run_queue_seconds"),
    ("training_checkpoint_seconds_total", "counter", "In checkpoints.", "checkpoint_seconds"),
    ("training_evaluation_seconds_total", "counter", "In evaluation.", "evaluation_seconds"),
    ("training_loader_seconds_total", "counter", "Lifetime of loader workers.", "loader_seconds"),
    ("training_loader_cpu_seconds_total", "counter", "Their CPU time.", "loader_cpu_seconds"),
    (
        "training_loader_run_queue_seconds_total",
        "counter",
        "Their waiting for a CPU.",
        "loader_run_queue_seconds",
    ),
    (
        "training_low_precision_steps_total",
        "counter",
        "Steps with 16-bit work.",
        "low_precision_steps",
    ),
    ("training_loss", "gauge", "Last finite loss.", "loss"),
    ("training_losses_total", "counter", "Losses looked at.", "losses"),
    # No counter: losses may be negative.
    ("training_loss_sum", "gauge", "Sum of the finite losses looked at.", "loss_sum"),
    ("training_nonfinite_losses_total", "counter", "Of these not finite.", "nonfinite_losses"),
    ("training_skipped_steps_total", "counter", "Steps that fp16 left out.", "skipped_steps"),
    ("training_gradient_norm", "gauge", "Norm of all gradients of a step.", "gradient_norm"),
    (
        "training_nonfinite_gradient_norms_total",
        "counter",
        "Norms that were not finite.",
        "nonfinite_gradient_norms",
    ),
    ("training_gradient_square", "gauge", "Estimate of |G|^2.", "gradient_square"),
    ("training_gradient_variance", "gauge", "Estimate of tr(Sigma).", "gradient_variance"),
)
_INFERENCE = (
    ("inference_requests_total", "counter", "Requests answered or failed.", "requests"),
    ("inference_errors_total", "counter", "Requests failed on the server's side.", "errors"),
    ("inference_arrivals_total", "counter", "Requests arrived.", "arrivals"),
    ("inference_queue_seconds_total", "counter", "Time before the model began.", "queue_seconds"),
    ("inference_service_seconds_total", "counter", "The model's own time.", "service_seconds"),
    ("inference_batches_total", "counter", "Batches given to the model.", "batches"),
    ("inference_start_timestamp_seconds", "gauge", "Start of the process.", "started_at"),
    ("inference_busy_seconds_total", "counter", "The model at work, by batch.", "busy_seconds"),
    ("inference_first_service_seconds", "gauge", "First batch's time.", "first_service_seconds"),
    (
        "inference_dependency_seconds_total",
        "counter",
        "Requests waiting for others.",
        "dependency_seconds",
    ),
    ("inference_retries_total", "counter", "Requests that were repeated attempts.", "retries"),
    ("inference_run_queue_seconds_total", "counter", "Waited for a CPU.", "run_queue_seconds"),
    ("inference_in_flight", "gauge", "Requests being answered or queued.", "in_flight"),
    ("inference_queued", "gauge", "Requests for which the model has not begun.", "queued"),
    ("inference_concurrency", "gauge", "Requests served at once.", "concurrency"),
)
_GATE = (
    ("gate_arrivals_total", "counter", "Connections that said something.", "arrivals"),
    ("gate_held", "gauge", "Connections waiting for a backend.", "held"),
    ("gate_in_flight", "gauge", "Connections to a backend.", "in_flight"),
    ("gate_holds_total", "counter", "Connections that had to wait.", "holds"),
    ("gate_refused_total", "counter", "Turned away: too many, or for too long.", "refused"),
    ("gate_hold_seconds_total", "counter", "Waiting for a backend.", "hold_seconds"),
    ("gate_longest_hold_seconds", "gauge", "Longest wait so far.", "longest_hold_seconds"),
    ("gate_idle_seconds", "gauge", "Nothing held or in flight for.", "idle_seconds"),
    ("gate_start_timestamp_seconds", "gauge", "Start of the process.", "started_at"),
)
_CONTAINER = (
    ("container_cpu_seconds_total", "counter", "CPU time used.", "cpu_seconds"),
    ("container_cpu_limit_cores", "gauge", "CPU limit.", "cpu_limit_cores"),
    ("container_cpus", "gauge", "CPUs that may be used.", "cpus"),
    ("container_cpu_periods_total", "counter", "Enforcement periods.", "periods"),
    (
        "container_cpu_throttled_periods_total",
        "counter",
        "Of these throttled.",
        "throttled_periods",
    ),
    ("container_cpu_throttled_seconds_total", "counter", "Time throttled.", "throttled_seconds"),
    ("container_memory_working_set_bytes", "gauge", "Memory in use.", "memory_bytes"),
    ("container_memory_limit_bytes", "gauge", "Memory limit.", "memory_limit_bytes"),
    ("container_oom_kills_total", "counter", "Processes killed for memory.", "oom_kills"),
    ("container_cpu_pressure_seconds_total", "counter", "Stalled on CPU.", "cpu_pressure_seconds"),
    (
        "container_memory_pressure_seconds_total",
        "counter",
        "Stalled on memory.",
        "memory_pressure_seconds",
    ),
    ("container_io_pressure_seconds_total", "counter", "Stalled on I/O.", "io_pressure_seconds"),
    ("container_read_bytes_total", "counter", "Bytes read from storage.", "read_bytes"),
    ("container_memory_limit_hits_total", "counter", "Met the limit.", "memory_limit_hits"),
    ("container_major_faults_total", "counter", "Page faults that read.", "major_faults"),
    ("node_cpus", "gauge", "CPUs of the node.", "node_cpus"),
    ("node_busy_seconds_total", "counter", "CPU time used by anyone.", "node_busy_seconds"),
)
_GPU = (
    ("gpu_utilization_ratio", "gauge", "Share of time in which any kernel ran.", "utilization"),
    ("gpu_memory_used_bytes", "gauge", "Device memory in use.", "memory_used_bytes"),
    ("gpu_memory_total_bytes", "gauge", "Device memory.", "memory_total_bytes"),
    ("gpu_power_watts", "gauge", "Power drawn.", "power_watts"),
    ("gpu_clock_event_reasons", "gauge", "NVML's bit mask.", "throttle_reasons"),
)

Labels = Mapping[str, object]


def render(state: State, streams: int) -> bytes:
    """All figures that are known now; one that was not measured has no line."""
    sample = state.sample()
    text = _Text()
    identity = state.identity
    text.add(
        "agent_info",
        "gauge",
        "Which agent this is.",
        [({"pod": identity.pod, "namespace": identity.namespace, "agent": identity.agent}, 1)],
    )
    text.add("agent_reports_total", "counter", "Reports taken in.", [({}, state.reports)])
    text.add("agent_bad_reports_total", "counter", "Datagrams refused.", [({}, state.bad_reports)])
    text.add("agent_streams", "gauge", "Streams open.", [({}, streams)])
    ranks = [({"rank": rank.rank}, rank) for rank in _newest_ranks(sample)]
    servers = [({"worker": server.worker}, server) for server in _newest_servers(sample)]
    text.table(_TRAINING, ranks)
    text.add(
        "training_phase_seconds_total",
        "counter",
        "Time in steps, by phase.",
        [
            ({**labels, "phase": phase}, seconds)
            for labels, rank in ranks
            for phase, seconds in rank.seconds.items()
        ],
    )
    text.add(
        "training_phase_cpu_seconds_total",
        "counter",
        "CPU time of the training thread in steps, by phase.",
        [
            ({**labels, "phase": phase}, seconds)
            for labels, rank in ranks
            for phase, seconds in (rank.cpu_seconds or {}).items()
        ],
    )
    text.add(
        "training_long_phase",
        "gauge",
        "Whether the process is in a checkpoint or an evaluation.",
        [
            (labels, None if rank.phase is None else int(rank.phase != "step"))
            for labels, rank in ranks
        ],
    )
    text.table(_INFERENCE, servers)
    text.add(
        "inference_dependency_call_seconds_total",
        "counter",
        "Requests waiting for others, by name.",
        [
            ({**labels, "dependency": name}, seconds)
            for labels, server in servers
            for name, seconds in (server.dependencies or {}).items()
        ],
    )
    text.histogram(
        "inference_latency_seconds",
        "From arrival to last byte.",
        [(labels, server.latency_buckets, server.latency_seconds) for labels, server in servers],
    )
    everyone: list[tuple[dict[str, int], TrainingRank | InferenceServer]] = [*ranks, *servers]
    text.add(
        "report_age_seconds",
        "gauge",
        "Time since the process last reported.",
        [(labels, sample.ages.get(part.epoch)) for labels, part in everyone],
    )
    text.add(
        "capability",
        "gauge",
        "What the device is good at.",
        [
            ({**labels, "name": name}, 1)
            for labels, part in everyone
            for name in part.capabilities or []
        ],
    )
    text.add(
        "knob",
        "gauge",
        "Setting in force.",
        [
            ({**labels, "name": name}, value)
            for labels, part in everyone
            for name, value in (part.knobs or {}).items()
            if not isinstance(value, str)
        ],
    )
    text.add(
        "knobs_generation",
        "gauge",
        "Newest knobs generation answered.",
        [
            ({**labels, "result": part.acknowledgement.result}, part.acknowledgement.generation)
            for labels, part in everyone
            if part.acknowledgement
        ],
    )
    if sample.gate is not None:
        text.table(_GATE, [({}, sample.gate)])
    if sample.container is not None:
        text.table(_CONTAINER, [({}, sample.container)])
    text.table(
        _GPU,
        [
            ({"gpu": gpu.index, "uuid": gpu.uuid, "model": gpu.name or ""}, gpu)
            for gpu in sample.gpus
        ],
    )
    return text.encode()


class _Text:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(
        self, name: str, kind: str, text: str, values: Iterable[tuple[Labels, float | None]]
    ) -> None:
        present = [(labels, value) for labels, value in values if value is not None]
        if present:
            self._head(name, kind, text)
            self._lines += [_line(name, labels, value) for labels, value in present]

    def table(
        self, rows: Iterable[tuple[str, str, str, str]], objects: Iterable[tuple[Labels, object]]
    ) -> None:
        things = list(objects)
        for name, kind, text, attribute in rows:
            self.add(name, kind, text, [(lab, getattr(thing, attribute)) for lab, thing in things])

    def histogram(
        self, name: str, text: str, series: Iterable[tuple[Labels, list[int], float]]
    ) -> None:
        for number, (labels, buckets, total) in enumerate(series):
            if number == 0:
                self._head(name, "histogram", text)
            count = 0
            for bound, bucket in zip(LATENCY_BOUNDS_SECONDS, buckets, strict=False):
                count += bucket
                self._lines.append(_line(f"{name}_bucket", {**labels, "le": bound}, count))
            count = sum(buckets)
            self._lines.append(_line(f"{name}_bucket", {**labels, "le": "+Inf"}, count))
            self._lines.append(_line(f"{name}_sum", labels, total))
            self._lines.append(_line(f"{name}_count", labels, count))

    def encode(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines += [f"# HELP bottleneck_{name} {text}", f"# TYPE bottleneck_{name} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{key}="{_escaped(str(item))}"' for key, item in labels.items())
    number = repr(float(value)) if isinstance(value, float) else str(int(value))
    return f"bottleneck_{name}{{{pairs}}} {number}" if pairs else f"bottleneck_{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _newest_ranks(sample: Sample) -> list[TrainingRank]:
    """Each rank once: a restarted one can be there twice for a moment, and a series only once."""
    ordered = sorted(sample.training, key=lambda each: -sample.ages.get(each.epoch, 0.0))
    return list({each.rank: each for each in ordered}.values())


def _newest_servers(sample: Sample) -> list[InferenceServer]:
    ordered = sorted(sample.inference, key=lambda each: -sample.ages.get(each.epoch, 0.0))
    return list({each.worker: each for each in ordered}.values())
