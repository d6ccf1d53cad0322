"""Two hundred tasks while the scheduler dies again and again: none is lost, none is shown twice, nothing lies about."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from daemon_process import Daemon, Start
from waiting import until
from world import Engines, World

KILLS = 10
STOPS = 8
CHECKPOINTS = ("standin-dawn", "standin-dusk")


def fill(world: World, count: int) -> None:
    """Send tasks of all kinds: both checkpoints, some batches, some of the predecessor's."""
    for n in range(count):
        if n % 10 == 9:
            world.refer(f"old {n}", seed=n, steps=2)
        else:
            batch = 3 if n % 12 == 5 else 1
            checkpoint = CHECKPOINTS[n // 25 % 2] if n % 3 else None
            world.send_task(f"task {n}", seed=100 * n, steps=2, batch=batch, checkpoint=checkpoint)


def moments(count: int, tasks: int) -> Iterator[tuple[int, float]]:
    """Yield how many tasks are to be done before each blow, spread over the work, and a moment's delay after that."""
    share = tasks // (count + 1)
    for _ in range(count):
        yield random.randint(1, share), random.uniform(0.0, 0.12)


def after(daemon: Daemon, ended: int, delay_s: float) -> None:
    """Return a moment after this daemon has ended so many tasks."""
    daemon.wait_for("task_ended", times=ended, deadline_s=40)
    threading.Event().wait(delay_s)


def completions(daemons: list[Daemon]) -> Counter[str]:
    return Counter(event["task_id"] for d in daemons for event in d.events("task_ended", outcome="completed"))


@pytest.mark.slow
def test_killed_ten_times_every_task_completes_once_and_nothing_is_left_over(
    world: World, engine: Engines, start: Start
) -> None:
    fill(world, 200)
    # A kill spends the runs of what is claimed, and here the same tasks come first again and again.
    conf = world.conf(engine().base_url, max_runs=100)
    daemons = []
    for ended, delay_s in moments(KILLS, 200):
        daemons.append(start(conf))
        after(daemons[-1], ended, delay_s)
        daemons[-1].kill()
    daemons.append(start(conf))

    world.until_done(90)

    world.assert_all_completed()
    assert max(completions(daemons).values()) == 1
    assert {d.process.returncode for d in daemons[:-1]} == {-signal.SIGKILL}
    assert daemons[-1].stop() == 0
    assert not any(d.stderr for d in daemons)


@pytest.mark.slow
def test_stopped_eight_times_it_leaves_nothing_in_flight_and_spends_no_run(
    world: World, engine: Engines, start: Start
) -> None:
    fill(world, 120)
    standin = engine()
    conf = world.conf(standin.base_url)
    daemons = []
    for n, (ended, delay_s) in enumerate(moments(STOPS, 120)):
        daemon = start(conf)
        daemons.append(daemon)
        if n % 4 == 3:
            daemon.wait_for("scheduler_starting")  # before it has found its queue
        else:
            after(daemon, ended, delay_s)
        assert daemon.stop() == 0, daemon.tail()
        assert world.counts()[1] == 0, f"in flight after exit; {daemon.tail()}"
        assert world.statuses()["processing"] == 0, daemon.tail()
    daemons.append(start(conf))

    world.until_done()

    world.assert_all_completed()
    assert {record["runs"] for record in world.records().values()} == {1}
    assert max(completions(daemons).values()) == 1
    assert set(standin.stats()["renders_whole"].values()) == {1}
    assert not any(d.stderr for d in daemons)


def test_a_second_signal_ends_it_at_once_and_the_task_is_done_later(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    task_id = world.send_task("long", steps=60)
    conf = world.conf(standin.base_url)
    daemon = start(conf)
    until(lambda: standin.stats()["renders"].get("long"), what="the render")

    daemon.signal(signal.SIGTERM)
    daemon.wait_for("scheduler_stopping")
    daemon.signal(signal.SIGTERM)

    assert daemon.ended(deadline_s=5) == 128 + signal.SIGTERM
    assert not daemon.events("scheduler_stopped")
    assert world.record(task_id)["status"] == "processing"
    start(conf)
    world.until_done()
    world.assert_all_completed()
    assert world.record(task_id)["runs"] == 2


@pytest.mark.parametrize(("grace_s", "poll_interval"), [(4, 1), (2, 5)])
def test_a_run_that_outlasts_the_grace_is_interrupted_and_given_back_unspent(
    world: World, engine: Engines, start: Start, grace_s: int, poll_interval: int
) -> None:
    standin = engine()
    task_id = world.submit("outlasts", steps=1000)
    daemon = start(world.conf(standin.base_url, stop_grace_s=grace_s, poll_interval=poll_interval))
    until(lambda: standin.stats()["renders"].get("outlasts"), what="the render")
    until(lambda: world.counts() == (0, 1), what="a poll that finds nothing")

    daemon.signal(signal.SIGTERM)
    daemon.wait_for("scheduler_stopping")
    late = world.submit("late")  # the poll that is under way may bring it yet

    assert daemon.ended(15) == 0
    assert world.counts() == (2, 0), daemon.tail()
    assert daemon.events("run_interrupted", task_id=task_id), daemon.tail()
    for record in map(world.record, (task_id, late)):
        assert (record["status"], record.get("runs", 0)) == ("pending", 0), record
        assert "lease_until" not in record
    assert standin.stats()["renders_whole"] == {}
    assert world.object_keys() == []


def test_a_run_within_the_grace_is_finished_and_what_waits_goes_back(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    running, waiting = world.submit("runs", steps=100), world.submit("waits", steps=1)
    daemon = start(world.conf(standin.base_url))
    until(lambda: standin.stats()["renders"].get("runs"), what="the render")

    assert daemon.stop() == 0

    assert world.status(running) == "completed"
    assert (world.record(waiting)["status"], world.record(waiting).get("runs", 0)) == ("pending", 0)
    assert world.counts() == (1, 0)
