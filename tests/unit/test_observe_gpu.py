"""What NVML says, and that its absence or its failure is no trouble."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from scheduler.observe.gpu import Gpu, read_gpus


class Driver:
    """NVML in the place of pynvml's functions: `cards` are (percent, used, total), an int is an error in reading."""

    def __init__(self, *cards: tuple[int, int, int] | int) -> None:
        self.cards = cards
        self.sessions = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("Init", "Shutdown", "DeviceGetCount", "DeviceGetHandleByIndex"):
            monkeypatch.setattr(pynvml, f"nvml{name}", getattr(self, name))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", self.memory)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", self.rates)

    def Init(self) -> None:  # noqa: N802 - named as NVML names it
        self.sessions += 1

    def Shutdown(self) -> None:  # noqa: N802 - named as NVML names it
        self.sessions -= 1

    def DeviceGetCount(self) -> int:  # noqa: N802 - named as NVML names it
        return len(self.cards)

    def DeviceGetHandleByIndex(self, index: int) -> tuple[int, int, int]:  # noqa: N802 - named as NVML names it
        card = self.cards[index]
        if isinstance(card, int):
            raise pynvml.NVMLError(card)
        return card

    def memory(self, card: tuple[int, int, int]) -> SimpleNamespace:
        return SimpleNamespace(used=card[1], total=card[2])

    def rates(self, card: tuple[int, int, int]) -> SimpleNamespace:
        return SimpleNamespace(gpu=card[0], memory=0)


def test_each_gpu_is_told_with_its_share_of_time_and_its_bytes(monkeypatch):
    driver = Driver((97, 20 * 2**30, 24 * 2**30), (0, 2**30, 24 * 2**30))
    driver.install(monkeypatch)
    assert read_gpus() == [
        Gpu(name="0", utilization=0.97, memory_used_bytes=20 * 2**30, memory_total_bytes=24 * 2**30),
        Gpu(name="1", utilization=0.0, memory_used_bytes=2**30, memory_total_bytes=24 * 2**30),
    ]
    assert driver.sessions == 0


def test_a_host_without_a_driver_has_none(monkeypatch):
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert read_gpus() == []


def test_a_gpu_that_has_fallen_off_the_bus_is_no_trouble_here(monkeypatch):
    driver = Driver((97, 1, 2), pynvml.NVML_ERROR_GPU_IS_LOST)
    driver.install(monkeypatch)
    assert read_gpus() == []
    assert driver.sessions == 0
