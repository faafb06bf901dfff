"""Reads GPUs through NVML (the ``pynvml`` module of nvidia-ml-py), where both are there.

To be called only where the visible devices are the workload's own: a sidecar without a GPU request
may see none, or every GPU of the node. So the SDK reads them in the process that owns the GPU.
Whatever fails is absent; nothing here raises.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

from bottleneck_sidecar.wire import MAX_ITEMS, Gpu


class Reader:
    """One NVML session. ``uuids`` narrows it to these devices; None means all that are visible."""

    def __init__(self, uuids: Collection[str] | None = None) -> None:
        self._uuids = None if uuids is None else {_bare(uuid) for uuid in uuids}
        self._nvml: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no module, no library, no driver: all mean "not measured"
            return
        self._nvml = pynvml

    @property
    def available(self) -> bool:
        """Whether NVML could be loaded and initialised."""
        return self._nvml is not None

    def read(self) -> list[Gpu]:
        """The devices now, by index. A device that is lost is left out, a figure that a device
        does not have is None. Blocks for some milliseconds with real drivers."""
        if self._nvml is None:
            return []
        count = self._try(self._nvml.nvmlDeviceGetCount) or 0
        devices = (self._device(index) for index in range(min(count, MAX_ITEMS)))
        return [device for device in devices if device is not None]

    def _device(self, index: int) -> Gpu | None:
        nvml = self._nvml
        handle = self._try(nvml.nvmlDeviceGetHandleByIndex, index)
        uuid = handle and self._try(nvml.nvmlDeviceGetUUID, handle)
        if not uuid or (self._uuids is not None and _bare(uuid) not in self._uuids):
            return None
        rates = self._try(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = self._try(nvml.nvmlDeviceGetMemoryInfo, handle)
        milliwatts = self._try(nvml.nvmlDeviceGetPowerUsage, handle)
        gpu = Gpu(
            index=index,
            uuid=uuid,
            name=self._try(nvml.nvmlDeviceGetName, handle),
            utilization=None if rates is None else min(rates.gpu, 100) / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            throttle_reasons=self._try(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle),
        )
        # A device that fell off the bus may still have its handle and name, but no figure.
        measured = (gpu.utilization, gpu.memory_used_bytes, gpu.power_watts, gpu.throttle_reasons)
        return None if all(figure is None for figure in measured) else gpu

    def _try(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception:  # NVMLError of any kind, a symbol that an old driver lacks, bad text
            return None


class Watcher:
    """Reads the GPUs once a second in a thread of its own: NVML takes milliseconds, which a
    training step or a request should not wait for. ``latest`` is None before the first reading
    and where there is nothing to read."""

    def __init__(self, uuids: Collection[str] | None = None, seconds: float = 1.0) -> None:
        self.latest: list[Gpu] | None = None
        self._stop = threading.Event()
        self._seconds = seconds
        self._uuids = uuids
        threading.Thread(target=self._run, name="bottleneck-gpu", daemon=True).start()

    def close(self) -> None:
        """Ends the thread after its present reading."""
        self._stop.set()

    def _run(self) -> None:
        reader = Reader(self._uuids)
        while reader.available and not self._stop.is_set():
            self.latest = reader.read() or None
            self._stop.wait(self._seconds)


def _bare(uuid: str) -> str:
    """NVML writes ``GPU-1234…``, torch the same without the prefix."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-").lower()
