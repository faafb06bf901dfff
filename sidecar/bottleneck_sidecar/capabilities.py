"""What the device that the work runs on is good at, as far as causes depend on it."""

from __future__ import annotations

import functools
import sys

from bottleneck_sidecar import proc

CPU_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}
"""Flags of /proc/cpuinfo that mean instructions for bfloat16 products (the last one: ARM)."""

BF16_CUDA, FP16_CUDA = (8, 0), (7, 0)
"""Compute capability from which on tensor cores take the format (NVIDIA: Ampere, Volta)."""


@functools.cache
def cpu(directory: str = "/proc") -> list[str] | None:
    """``["bf16"]``, or ``[]`` for a CPU without; None where the flags cannot be read.

    Read once: that file is long on large machines."""
    for line in (proc.text(directory, "cpuinfo") or "").splitlines():
        key, _, flags = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return ["bf16"] if CPU_FLAGS & set(flags.split()) else []
    return None


def of_this_process() -> tuple[list[str] | None, bool]:
    """The capabilities, and whether they are a GPU's. The work is taken to run on the GPU as soon
    as the process uses CUDA through torch; asking starts neither."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            found = torch.cuda.get_device_capability()
            return _cuda(found), True
    except Exception:
        return None, False
    return cpu(), False


def _cuda(capability: tuple[int, int]) -> list[str]:
    names = []
    if capability >= BF16_CUDA:
        names.append("bf16")
    if capability >= FP16_CUDA:
        names.append("fp16")
    return names
