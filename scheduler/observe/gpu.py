"""What the NVIDIA driver says of the GPUs, where there is one."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU now: `utilization` is 0..1, of the driver's last sample."""

    name: str
    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int


def read_gpus() -> list[Gpu]:
    """Return the GPUs that NVML shows, none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_read(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _read(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        name=str(index),
        utilization=pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
    )
