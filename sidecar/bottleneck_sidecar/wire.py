"""The telemetry wire format: one definition, shared by SDK, agent, operator and recordings.

Everything that can be a counter is one. A window is the difference of two samples, so a dropped,
delayed or thinned-out sample loses resolution and never truth. A counter belongs to an *epoch*
(one life of the counting process); a changed epoch means the counters began again at zero.

Two hops, the same objects, one JSON document per line or datagram:

* SDK to agent: a ``TrainingRank`` or an ``InferenceServer`` (and its ``Container``) in one datagram
  on the Unix socket named by ``BOTTLENECK_SOCKET``;
* agent to operator: ``Sample`` lines on ``GET /v1/stream`` (newline-delimited JSON).

Absent means *not measured* and is ``None`` here; it is never read as zero.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

VERSION = 1
"""Version of the wire format; a reader refuses lines of another one."""

MAX_BYTES = 64 * 1024
"""Longest line or datagram that is read, in bytes."""

MAX_ITEMS = 256
"""Longest list (ranks, GPUs, buckets) that is read."""

PORT = 9709
"""TCP port on which the agent serves ``/v1/stream``, ``/metrics`` and ``/healthz``."""

LATENCY_BOUNDS_SECONDS: tuple[float, ...] = tuple(round(0.001 * 2 ** (i / 4), 6) for i in range(65))
"""Upper bounds of the latency buckets: 1 ms to 65 s, 19% wide (a quarter of an octave), so that a
percentile interpolated within a bucket is off by less than 10%. One overflow bucket follows."""

PHASES = ("data", "transfer", "forward", "backward", "optimizer", "collective", "other")
"""The parts of a training step, in order of their appearance."""


class WireError(ValueError):
    """A message that does not have this format; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Container:
    """Cgroup figures of the container in which the workload runs (counters but for limits).

    CPU in seconds, pressure as seconds in which some task was stalled. ``memory_bytes`` is the
    working set: what the kernel cannot reclaim by dropping file pages, as the kubelet counts it.
    """

    cpu_seconds: float | None = None
    cpu_limit_cores: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    oom_kills: int | None = None
    cpu_pressure_seconds: float | None = None
    memory_pressure_seconds: float | None = None
    io_pressure_seconds: float | None = None
    read_bytes: int | None = None
    memory_limit_hits: int | None = None
    """Times that an allocation met the limit (v1 ``failcnt``; v2 events ``max`` and ``high``)."""
    major_faults: int | None = None
    """Page faults that had to read from storage."""
    node_cpus: int | None = None
    node_busy_seconds: float | None = None
    """CPU seconds in which any CPU of the node did work, whoever asked for it (``/proc/stat``)."""
    cpus: int | None = None
    """CPUs that the workload may be scheduled on (its affinity mask)."""
    epoch: str | None = None
    """One life of the cgroup: the counters of another epoch began again at zero."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device, as NVML tells it. ``utilization`` is the share (0..1) of time in which any
    kernel ran; ``throttle_reasons`` is NVML's bit mask of clock event reasons."""

    index: int
    uuid: str
    name: str | None = None
    utilization: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None
    throttle_reasons: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What became of the newest knobs generation that a process has seen.

    ``result``: ``Applied``, ``Unchanged`` (already so), or ``Refused`` (with a message that says
    what to write instead; the workload runs on with the knobs it had)."""

    generation: int
    result: str
    step: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class TrainingRank:
    """Counters of one rank. ``seconds`` maps each of ``PHASES`` to its share of ``step_seconds``;
    ``cpu_seconds`` tells how much of each the training thread spent on a CPU.

    ``run_queue_seconds`` is how long the training thread was ready to run and got no CPU. The
    ``loader_`` counters are of all loader workers together, those that ended included:
    ``loader_seconds`` is the sum of their lifetimes. ``checkpoint_seconds`` and
    ``evaluation_seconds`` belong to no step; ``phase`` names the one the process is in now.
    ``low_precision_steps`` are those with 16-bit work. ``loss`` is the last finite one.
    ``capabilities`` of the device that the work runs on, for instance ``bf16``.

    ``knobs`` are the settings in force (dotted names, for instance ``dataLoader.workers``);
    ``settable`` are those that this process can change while it runs."""

    epoch: str
    rank: int
    world_size: int
    steps: int
    samples: int
    step_seconds: float
    seconds: dict[str, float]
    last_step_at: float | None = None
    loss: float | None = None
    started_at: float | None = None
    """Start of the process, seconds since the Unix epoch."""
    phase: str | None = None
    """``step``, ``checkpoint`` or ``evaluation``: what the process was in when it reported."""
    cpu_seconds: dict[str, float] | None = None
    run_queue_seconds: float | None = None
    checkpoint_seconds: float | None = None
    evaluation_seconds: float | None = None
    loader_seconds: float | None = None
    loader_cpu_seconds: float | None = None
    loader_run_queue_seconds: float | None = None
    low_precision_steps: int | None = None
    losses: int | None = None
    """Losses that were looked at: of every step on a CPU, of some of them on a GPU."""
    loss_sum: float | None = None
    """Of those that were finite; one beyond ±10^9 counts as that."""
    nonfinite_losses: int | None = None
    skipped_steps: int | None = None
    """Steps that fp16 left out because a gradient was not finite: how it finds its scale."""
    gradient_norm: float | None = None
    """Norm of all gradients of a step, before clipping; the last finite one looked at."""
    nonfinite_gradient_norms: int | None = None
    gradient_square: float | None = None
    """Smoothed estimate of the squared length of the true gradient, |G|²."""
    gradient_variance: float | None = None
    """Smoothed estimate of the variance of one sample's gradient, tr(Σ): over ``gradient_square``
    it is the gradient noise scale, in samples."""
    capabilities: list[str] | None = None
    knobs: dict[str, float | str | bool] | None = None
    settable: list[str] | None = None
    acknowledgement: Acknowledgement | None = None


@dataclass(frozen=True, slots=True)
class InferenceServer:
    """Counters of one server process; latencies in seconds from arrival to last byte.

    ``latency_buckets`` counts requests per ``LATENCY_BOUNDS_SECONDS`` bucket, the last one being
    the overflow. ``queue_seconds`` is the part before the model began, ``service_seconds`` the
    model's own, ``dependency_seconds`` what requests waited for others (``dependencies``: by name;
    in neither of the former). ``busy_seconds`` is the sum over batches of the model's time: what a
    batch of eight takes counts once. ``run_queue_seconds``: as in ``TrainingRank``, over all
    threads. ``first_service_seconds`` is the model's time for its first batch. ``in_flight`` and
    ``queued`` are gauges; ``concurrency`` is how many requests the process serves at once, where it
    knows."""

    epoch: str
    worker: int
    requests: int
    errors: int
    arrivals: int
    latency_buckets: list[int]
    latency_seconds: float
    queue_seconds: float | None = None
    service_seconds: float | None = None
    in_flight: int | None = None
    queued: int | None = None
    concurrency: int | None = None
    batches: int | None = None
    started_at: float | None = None
    """Start of the process, seconds since the Unix epoch."""
    busy_seconds: float | None = None
    first_service_seconds: float | None = None
    dependency_seconds: float | None = None
    dependencies: dict[str, float] | None = None
    retries: int | None = None
    run_queue_seconds: float | None = None
    capabilities: list[str] | None = None
    knobs: dict[str, float | str | bool] | None = None
    settable: list[str] | None = None
    acknowledgement: Acknowledgement | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """Counters of a gate, which holds connections while no backend is there. It looks at no byte of
    theirs, so it counts connections; one that says nothing does not count.

    ``held`` (waiting for a backend) and ``in_flight`` (connected to one) are gauges. ``refused``
    were turned away: too many were held, or for too long. ``hold_seconds`` is the sum over those
    that were held (``holds``), ``longest_hold_seconds`` the longest since the start, of those held
    now as well. ``idle_seconds``: how long nothing has been held or in flight."""

    epoch: str
    arrivals: int
    held: int
    in_flight: int
    holds: int
    refused: int
    hold_seconds: float
    longest_hold_seconds: float
    idle_seconds: float
    started_at: float | None = None
    """Start of the process, seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Report:
    """SDK to agent: one datagram. Exactly one of ``training`` and ``inference`` is given."""

    version: int
    time: float
    training: TrainingRank | None = None
    inference: InferenceServer | None = None
    container: Container | None = None
    gpus: list[Gpu] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Agent to operator: one line. ``time`` is the agent's clock, seconds since the Unix epoch;
    ``ages`` tells how old each process's part was at that time, in seconds, keyed by its epoch."""

    version: int
    time: float
    sequence: int
    agent: str
    pod: str
    namespace: str
    uid: str
    container: Container | None
    gpus: list[Gpu]
    training: list[TrainingRank]
    inference: list[InferenceServer]
    ages: dict[str, float]
    gate: Gate | None = None


def encode(message: Report | Sample) -> bytes:
    """The message as one line of JSON (without the newline); absent fields are left out."""
    return json.dumps(_plain(message), separators=(",", ":"), allow_nan=False).encode()


def decode_report(data: bytes) -> Report:
    """Reads one datagram. Raises ``WireError``."""
    report: Report = _decode(data, Report)
    if (report.training is None) == (report.inference is None):
        raise WireError("a report needs exactly one of 'training' and 'inference'")
    return report


def decode_sample(data: bytes) -> Sample:
    """Reads one line of the stream or of a recording. Raises ``WireError``."""
    return typing.cast(Sample, _decode(data, Sample))


def _plain(value: Any) -> Any:
    if isinstance(value, dict | str | float | int):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    kind: Any = type(value)
    return {
        name: _plain(item) for name in _names(kind) if (item := getattr(value, name)) is not None
    }


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    """Asked once: a training step waits for each report."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _decode(data: bytes, kind: type) -> Any:
    if len(data) > MAX_BYTES:
        raise WireError(f"message of {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a JSON document: {error}") from None
    if not isinstance(document, dict):
        raise WireError("not a JSON object")
    if document.get("version") != VERSION:
        raise WireError(
            f"version {document.get('version')!r}; this reader knows version {VERSION}: "
            "use an agent and an operator of the same release"
        )
    return _build(document, kind, "")


def _build(value: Any, kind: Any, path: str) -> Any:
    """``value`` as ``kind``, checked: types, finite, non-negative, bounded. Unknown keys are
    ignored, so that a newer agent can speak to an older operator."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        for option in options:
            if option is not type(None):
                try:
                    return _build(value, option, path)
                except WireError as error:
                    last = error
        raise last
    if origin is list:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise WireError(f"{path}: expected a list of at most {MAX_ITEMS} items")
        (item_kind,) = typing.get_args(kind)
        return [_build(item, item_kind, f"{path}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict) or len(value) > MAX_ITEMS:
            raise WireError(f"{path}: expected an object of at most {MAX_ITEMS} entries")
        item_kind = typing.get_args(kind)[1]
        return {str(key): _build(item, item_kind, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise WireError(f"{path or 'message'}: expected an object")
        hints = _hints(typing.cast(type, kind))
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(kind):
            name = f"{path}.{field.name}" if path else field.name
            if field.name in value:
                fields[field.name] = _build(value[field.name], hints[field.name], name)
            elif field.default is dataclasses.MISSING:
                if type(None) not in typing.get_args(hints[field.name]):
                    raise WireError(f"{name}: missing")
                fields[field.name] = None  # encode leaves out what is None
        return typing.cast(type, kind)(**fields)
    return _scalar(value, kind, path)


def _scalar(value: Any, kind: type, path: str) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        # First of all: an integer of JSON may be too large for a float to be asked about it.
        if isinstance(value, int) and abs(value) > 2**63:
            raise WireError(f"{path}: an integer of {value.bit_length()} bits is too large")
        if not math.isfinite(value):
            raise WireError(f"{path}: {value} is not a finite number")
        if value < 0 and not path.endswith((".loss", ".loss_sum")):
            raise WireError(f"{path}: {value} is negative")
        if abs(value) > 2**63:
            raise WireError(f"{path}: {value} is too large")
        if kind is float:
            return float(value)
        if value == int(value):
            return int(value)
    raise WireError(f"{path}: expected {kind.__name__}, got {type(value).__name__}")


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]
