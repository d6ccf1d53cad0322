"""The stop signal: set once, woken at once, and how the grace is shared out."""

from __future__ import annotations

import math
import threading

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from scheduler.stop import StopSignal


def test_before_the_stop_there_is_all_the_time(clock):
    stop = StopSignal(clock)
    assert not stop.is_set()
    assert not stop.wait(0.0)
    assert (stop.left_s(), stop.deadline_s, stop.work_until_s) == (math.inf, math.inf, math.inf)


@pytest.mark.parametrize(("grace_s", "settle_s"), [(0.0, 0.0), (10.0, 2.0), (75.0, 15.0), (90.0, 15.0), (3600.0, 15.0)])
def test_the_last_fifth_of_the_grace_but_at_most_15_s_is_for_settling(clock, grace_s, settle_s):
    stop = StopSignal(clock)
    stop.set(grace_s)
    assert stop.is_set()
    assert stop.wait(3600.0)
    assert stop.deadline_s == clock.monotonic() + grace_s
    assert stop.deadline_s - stop.work_until_s == pytest.approx(settle_s)


@given(st.floats(0, 1e5), st.lists(st.floats(0, 1e4), max_size=10))
def test_the_time_left_runs_down_to_nothing_and_no_further(grace_s, steps_s):
    clock = FakeClock()
    stop = StopSignal(clock)
    stop.set(grace_s)
    assert clock.monotonic() <= stop.work_until_s <= stop.deadline_s
    for step_s in steps_s:
        clock.advance(step_s)
        assert stop.left_s() == pytest.approx(max(0.0, grace_s - (clock.monotonic() - 1000.0)), abs=1e-6)


def test_a_second_stop_gives_no_more_time_and_takes_none(clock):
    stop = StopSignal(clock)
    stop.set(30.0)
    clock.advance(10.0)
    stop.set(300.0)
    stop.set(0.0)
    assert stop.left_s() == 20.0


def test_the_wall_clock_does_not_move_the_deadline(clock):
    stop = StopSignal(clock)
    stop.set(30.0)
    clock.set_wall(clock.now() + 86400)
    assert stop.left_s() == 30.0


def test_every_wait_ends_at_the_stop_and_sees_its_deadline(clock):
    stop = StopSignal(clock)
    seen: list[tuple[bool, float]] = []
    threads = [
        threading.Thread(target=lambda: seen.append((stop.wait(3600.0), stop.left_s())), daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    stop.set(30.0)
    for thread in threads:
        thread.join(10)
    assert seen == [(True, 30.0)] * 4


def test_it_can_be_hastened_and_never_slowed_down(clock):
    stop = StopSignal(clock)
    stop.set(600)
    stop.hasten(100)
    assert (stop.left_s(), stop.work_left_s()) == (100, 85)
    stop.hasten(300)
    assert (stop.left_s(), stop.work_left_s()) == (100, 85)
    stop.hasten(10)
    assert (stop.left_s(), stop.work_left_s()) == (10, 8)
