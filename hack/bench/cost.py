"""What one diagnosis costs: ten replicas with ten minutes of samples each."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.recording_format import parse
from bottleneck_operator.observe.windows import observe
from bottleneck_sidecar.wire import Sample

REPLICAS = 10
SECONDS = 600
ROUNDS = 20


def milliseconds(recording: Path) -> float:
    """CPU milliseconds of one observation and diagnosis, the median of 20. Each replica says in
    every second what the recording's pod said in its first sample and in its last, in turn."""
    with recording.open(encoding="utf-8") as lines:
        samples = [line.sample for line in parse(lines).lines if line.sample is not None]
    own = [sample for sample in samples if sample.pod == samples[-1].pod]
    pods = [f"pod-{number}" for number in range(REPLICAS)]
    histories = {pod: _history(pod, own) for pod in pods}
    now = own[-1].time + SECONDS
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        diagnose(observe(histories, pods, now), None)
        taken.append((time.process_time() - began) * 1e3)
    return round(statistics.median(taken), 3)


def _history(pod: str, own: list[Sample]) -> History:
    """Ten minutes that lead up to the recording's own end."""
    history = History()
    last = own[-1]
    for second in range(SECONDS + 1):
        left = SECONDS - second
        source = own[-1 - left] if left < len(own) else own[0]
        at = last.time + second
        history.add(at, replace(source, time=at, sequence=second + 1, pod=pod))
    return history
