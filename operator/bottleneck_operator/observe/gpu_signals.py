"""Signals of the GPUs, and of what the hardware could do. Pure.

What NVML tells are gauges: every sample of the window counts. DCGM's own figures (how busy the
multiprocessors, the tensor cores and the memory are) come from Prometheus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .pod_window import Figures, PodWindow

THROTTLED = 0xE8
"""NVML's clock event reasons that slow a device down against the workload's will: HwSlowdown 0x8,
SwThermal 0x20, HwThermal 0x40, PowerBrake 0x80. SwPowerCap (0x4) alone is normal at full load."""

LOW_PRECISION = "bf16"
"""The capability of a device (or CPU) that computes with 16-bit numbers fast."""


@dataclass(slots=True)
class _Device:
    samples: int = 0
    utilization: float | None = 0.0
    throttled: int | None = 0
    memory: float | None = 0.0


def gpu(figures: Figures, parts: Sequence[PodWindow]) -> None:
    """Puts down what is known of the GPUs of these pods. What one device does not tell is not known
    of all."""
    devices: dict[tuple[int, str], _Device] = {}
    spans = [0.0]
    for part in parts:
        if part.newest is None or not part.newest.gpus:
            continue
        spans.append(part.samples[-1][0] - part.samples[0][0])
        for _, sample in part.samples:
            for told in sample.gpus:
                device = devices.setdefault((part.number, told.uuid), _Device())
                device.samples += 1
                device.utilization = _plus(device.utilization, told.utilization)
                mask = told.throttle_reasons
                hit = None if mask is None else int(mask & THROTTLED != 0)
                if device.throttled is not None:
                    device.throttled = None if hit is None else device.throttled + hit
                used, whole = told.memory_used_bytes, told.memory_total_bytes
                if device.memory is not None:
                    share = None if used is None or not whole else used / whole
                    device.memory = None if share is None else max(device.memory, share)
    if not devices:
        return
    figures.span = max(spans)
    found = devices.values()
    use = [d.utilization / d.samples for d in found if d.utilization is not None]
    memory = [d.memory for d in found if d.memory is not None]
    throttled = [d.throttled / d.samples for d in found if d.throttled is not None]
    if len(use) == len(found):
        figures.put("gpu.utilization", sum(use) / len(use), "", "mean over devices")
    if len(memory) == len(found):
        figures.put("gpu.memoryShare", max(memory), "", "maximum over devices")
    if len(throttled) == len(found):
        figures.put("gpu.throttledShare", max(throttled), "", "samples, maximum over devices")


def _plus(total: float | None, value: float | None) -> float | None:
    return None if total is None or value is None else total + value


def hardware(figures: Figures, parts: Sequence[PodWindow]) -> None:
    """Puts down what the devices can do that the work runs on, if every process tells."""
    told = [rank.capabilities for part in parts for rank in part.ranks]
    told += [server.capabilities for part in parts for server in part.servers]
    known = [each for each in told if each is not None]
    if known and len(known) == len(told):
        able = all(LOW_PRECISION in each for each in known)
        figures.put("hardware.bf16", float(able), "yes", "every process", 0.0)
