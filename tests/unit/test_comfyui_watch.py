"""Waiting for a prompt's end on a clock of the test's: when it is looked at, and from when its time counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from comfy_client import flat
from fakes import FakeClock

from scheduler.engines.comfyui_client import Queue
from scheduler.engines.comfyui_events import Track
from scheduler.engines.comfyui_watch import SILENCE_S, Overdue, Watch

ENTRY = {"status": {"status_str": "success", "completed": True}}
CHATTER = json.dumps({"type": "crystools.monitor", "data": {"cpu_utilization": 3}})


class Engine:
    """Queue and history of one prompt: `place` tells where it is at a time since the test began."""

    def __init__(self, clock: FakeClock, place: Callable[[float], str]) -> None:
        self._clock = clock
        self._began_s = clock.monotonic()
        self._place = place

    @property
    def place(self) -> str:
        return self._place(self._clock.monotonic() - self._began_s)

    def queue(self) -> Queue:
        return Queue({"p": None} if self.place == "running" else {}, {"p": None} if self.place == "waiting" else {})

    def history(self, _prompt_id: str) -> Any:
        return ENTRY if self.place == "ended" else None

    def drop(self, _prompt_ids: Any) -> None:
        """Nothing: a prompt that runs is not in the queue."""


class Socket:
    """Tells `frame` at each turn, for which the clock goes on."""

    is_open = True

    def __init__(self, clock: FakeClock, frame: str | None) -> None:
        self._clock = clock
        self._frame = frame

    def next(self, timeout_s: float) -> str | None:
        self._clock.advance(timeout_s)
        return self._frame

    def close(self) -> None:
        """Stay open: it is there again at once."""


def await_end(clock: FakeClock, place: Callable[[float], str], *, frame: str | None, deadline_s: float) -> float:
    """Return after how many seconds the end was found."""
    began_s = clock.monotonic()
    engine: Any = Engine(clock, place)
    socket: Any = Socket(clock, frame)
    watch = Watch(engine, "ours", clock, clock.advance)
    entry = watch.await_end(Track("p", flat()), socket, deadline_s=deadline_s, is_interrupted=lambda: False)
    assert entry == ENTRY
    return clock.monotonic() - began_s


def test_the_chatter_of_others_is_no_word_of_this_prompt(clock):
    found_s = await_end(clock, lambda s: "ended" if s > 3 else "running", frame=CHATTER, deadline_s=600)
    assert found_s < 3 + 2 * SILENCE_S


def test_a_prompt_that_begins_just_before_the_wait_is_over_has_its_whole_time(clock):
    def place(s: float) -> str:
        return "waiting" if s < 59.9 else "running" if s < 90 else "ended"

    assert await_end(clock, place, frame=None, deadline_s=60) == pytest.approx(90, abs=2 * SILENCE_S)


def test_a_prompt_that_runs_for_its_whole_time_is_overdue(clock):
    with pytest.raises(Overdue):
        await_end(clock, lambda s: "waiting" if s < 30 else "running", frame=None, deadline_s=60)
    assert clock.monotonic() > 85
