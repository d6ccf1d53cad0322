"""The stop: what has not started goes back at once and unspent, what runs may finish, what is done is deleted."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from worker_in_memory import Worker

import scheduler.app
from scheduler.domain.errors import EngineLost, Unavailable
from scheduler.held import State
from scheduler.stop import StopSignal
from scheduler.threads import Threads, every


@pytest.fixture
def worker(clock):
    return Worker(clock)


def return_unstarted(worker: Worker) -> None:
    """What the main thread does first, and again between the joins."""
    while (held := worker.lane.withdraw()) is not None:
        worker.processor.return_claimed(held, reason="stop")
    worker.messages.return_unstarted(older_than_s=0.0, reason="stop")


def test_what_has_not_started_is_visible_at_once_and_unspent(worker):
    worker.claimed("claimed")
    worker.take("waiting")
    worker.journal.calls.clear()
    worker.stop.set(90.0)
    return_unstarted(worker)
    assert worker.queue.hidden == []
    assert worker.queue.delays == [("message-0-1", 0.0), ("message-0-2", 0.0)]
    assert worker.journal.calls == ["tasks.release", "queue.give_back", "queue.give_back"]
    record = worker.tasks.record("claimed")
    assert (record["status"], record["runs"]) == ("pending", 0)
    assert "lease_until" not in record
    assert worker.tasks.record("waiting") is None
    assert worker.held_ids == []


def test_another_worker_can_take_it_right_away(worker, clock):
    worker.claimed()
    worker.stop.set(90.0)
    return_unstarted(worker)
    fresh = Worker(clock, tasks=worker.tasks, queue=worker.queue)
    fresh.work()
    assert (fresh.status(), fresh.tasks.record("t1")["runs"]) == ("completed", 1)


def test_every_delivery_of_a_task_goes_back(worker):
    worker.send()
    worker.send()
    worker.admit()
    worker.stop.set(90.0)
    return_unstarted(worker)
    assert sorted(worker.queue.delays) == [("message-0-1", 0.0), ("message-0-2", 0.0)]


def test_a_claim_lost_meanwhile_touches_no_message(worker):
    worker.claimed()
    worker.tasks.put_record(worker.tasks.record("t1") | {"owner": "thief", "attempt": 2})
    worker.stop.set(90.0)
    return_unstarted(worker)
    assert (worker.queue.delays, worker.held_ids) == ([], [])


def test_what_runs_may_finish_and_is_stored_recorded_and_deleted(worker):
    worker.engine.meanwhile = lambda: worker.stop.set(90.0)
    worker.claimed()
    worker.render.run()
    worker.store()
    worker.delete()
    assert worker.status() == "completed"
    assert worker.queue.bodies == []


def test_what_does_not_finish_in_time_is_interrupted_and_goes_back_unspent(worker):
    def stop() -> None:
        worker.stop.set(10.0)
        held = worker.lane.running
        assert worker.engine.interrupt(held.run)

    worker.engine.meanwhile = stop
    worker.claimed()
    worker.render.run()
    worker.store()
    record = worker.tasks.record("t1")
    assert (record["status"], record["runs"]) == ("pending", 0)
    assert worker.queue.delays == [("message-0-1", 0.0)]
    assert worker.images.puts == []
    assert worker.held_ids == []


def test_a_task_that_fails_during_the_stop_goes_back_without_back_off(worker):
    worker.engine.before_sent = lambda: worker.stop.set(90.0)
    worker.engine.fail_next(1, EngineLost("it died"), on="generate")
    worker.claimed()
    worker.render.run()
    worker.store()
    assert worker.tasks.record("t1")["runs"] == 1
    assert worker.queue.delays == [("message-0-1", 0.0)]


def test_a_failed_task_sent_again_is_visible_at_once_too(worker, clock):
    worker.send(payload={"steps": 0})
    worker.admit()
    worker.prepare()
    clock.advance(0.1)
    worker.send(payload={"steps": 0})
    worker.admit()
    worker.stop.set(90.0)
    worker.delete()
    assert worker.queue.delays == [("message-0-2", 0.0)]
    assert worker.queue.hidden == []


def test_a_task_that_its_engine_put_back_is_found_by_the_last_look(worker):
    worker.claimed()

    def go_away() -> None:
        worker.stop.set(90.0)
        worker.engine.is_up = False

    worker.engine.is_up = False
    worker.render.cycle()
    go_away()
    worker.render.run()
    assert worker.held_ids == ["t1"]
    return_unstarted(worker)
    assert (worker.status(), worker.tasks.record("t1")["runs"]) == ("pending", 0)
    assert worker.held_ids == []


def test_deletes_are_tried_until_the_time_is_up_and_not_in_a_hot_loop(worker, clock):
    worker.send()
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    worker.store()
    worker.queue.fail_next(10_000, Unavailable("SQS does not answer"), on="delete")
    worker.stop.set(20.0)
    worker.delete()
    assert worker.stop.left_s() == 0.0
    assert 20 <= len(worker.journal.of("queue.delete")) <= 60
    assert worker.status() == "completed"
    assert worker.queue.bodies != []  # it will be known as a duplicate
    clock.advance(61.0)
    worker.queue.faults.clear()
    fresh = Worker(clock, tasks=worker.tasks, queue=worker.queue)
    fresh.work()
    assert (fresh.engine.posts, worker.queue.bodies) == ([], [])


def test_a_pause_before_another_try_is_short_while_we_stop_and_ends_with_the_grace(clock, monkeypatch):
    asked: list[float] = []

    class Noted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            asked.append(timeout)
            return self.is_set()

    monkeypatch.setattr("scheduler.stop.threading.Event", Noted)
    stop = StopSignal(clock)
    stop.pause(15.0)
    assert asked == [15.0]  # which the stop cuts short
    asked.clear()
    stop.set(10.0)
    stop.pause(15.0)
    clock.advance(9.75)
    stop.pause(15.0)
    clock.advance(1.0)
    stop.pause(15.0)
    assert asked == [15.0, 0.5, 15.0, 0.25, 15.0, 0.0]


def test_waiting_work_is_returned_once_even_if_a_loop_wants_it_at_the_same_time(worker):
    for n in range(30):
        worker.send(f"t{n}")
    for _ in range(3):
        worker.admit()
    start = threading.Barrier(2)
    picked = []

    def pick() -> None:
        start.wait(10)
        while (held := worker.held.pick(worker.engine.title, None)) is not None:
            picked.append(held)

    picker = threading.Thread(target=pick, daemon=True)
    picker.start()
    worker.stop.set(90.0)
    start.wait(10)
    worker.messages.return_unstarted(older_than_s=0.0, reason="stop")
    picker.join(10)
    assert len(worker.queue.delays) + len(picked) == 30
    assert {held.state for held in picked} <= {State.PREPARING}


# threads


def test_a_loop_that_ends_by_an_error_is_reported_by_name(capsys):
    died: list[str] = []
    threads = Threads(died.append)

    def fail() -> None:
        raise ZeroDivisionError

    threads.start("receive", fail)
    threads.start("receive", lambda: None)
    assert threads.join("receive", lambda: 10.0)
    assert died == ["receive-0"]
    assert "loop_died" in capsys.readouterr().out


@pytest.mark.parametrize("is_vital", [True, False])
def test_an_error_of_a_keeper_ends_the_process_and_one_of_the_onlookers_does_not(is_vital):
    turns: list[int] = []

    class ThreeTurns:
        def wait(self, period_s: float) -> bool:
            return len(turns) == 3

    def cycle() -> None:
        turns.append(1)
        raise ZeroDivisionError

    stop: Any = ThreeTurns()
    with pytest.raises(ZeroDivisionError) if is_vital else contextlib.nullcontext():
        every(1.0, cycle, stop=stop, is_vital=is_vital)
    assert len(turns) == (1 if is_vital else 3)


def test_no_pool_of_threads_whose_exit_would_wait_for_hung_uploads():
    package = Path(scheduler.app.__file__).parent
    for path in package.rglob("*.py"):
        if "local" not in path.parts:  # the stand-in of an engine is another process
            assert "concurrent.futures" not in path.read_text(encoding="utf-8"), path


def test_joins_are_bounded_and_the_threads_keep_nobody_from_exiting():
    release = threading.Event()
    threads = Threads(lambda _name: None)
    threads.start("store", lambda: release.wait(30))
    assert not threads.join("store", lambda: 0.0)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("store-"))
    release.set()
    assert threads.join("store", lambda: 10.0)
    assert threads.join("none of this name", lambda: 0.0)
