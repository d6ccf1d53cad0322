"""What goes wrong with the engine: it dies, is not there, starts, hangs, runs out of memory, breaks and is mended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from daemon_process import Start
from waiting import until
from world import Engines, World

from scheduler.local.standin.process import StandinOptions, StandinProcess


@contextmanager
def started_again_when_dead(standin: StandinProcess) -> Iterator[None]:
    """Do what supervisord does for the engine."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            if standin.pid is None:
                standin.kill()  # it is dead; this puts its pipes away
                standin.start(port=standin.port)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_an_engine_killed_under_a_task_costs_it_one_run_and_the_others_none(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    struck = world.send_task("struck", steps=200)
    others = [world.send_task(f"other {n}") for n in range(5)]
    daemon = start(world.conf(standin.base_url))
    until(lambda: standin.stats()["renders"].get("struck"), what="the render")

    standin.kill()
    daemon.wait_for("engine_down")  # it stays away until it was missed
    daemon.until_health(503, says="127.0.0.1")
    world.until_status("pending", struck)
    standin.start(port=standin.port)

    world.until_done()
    world.assert_all_completed()
    assert world.record(struck)["runs"] == 2
    assert {world.record(task_id)["runs"] for task_id in others} == {1}
    assert daemon.health()[0] == 200


def test_told_to_stop_while_the_engine_is_gone_it_gives_back_what_it_had_claimed_unspent(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    struck = world.submit("struck", steps=200)
    claimed = world.submit("claimed")
    daemon = start(world.conf(standin.base_url))
    until(lambda: standin.stats()["renders"].get("struck"), what="the render")
    until(lambda: world.status(claimed) == "processing", what="the claim of the next")
    standin.kill()
    daemon.wait_for("engine_down")

    assert daemon.stop() == 0

    assert (world.record(struck)["status"], world.record(struck)["runs"]) == ("pending", 1)
    assert (world.record(claimed)["status"], world.record(claimed)["runs"]) == ("pending", 0)
    assert world.counts()[0] >= 1, "what was claimed is to be had at once"


def test_without_an_engine_tasks_wait_unspent_until_one_is_up(world: World, start: Start) -> None:
    port = free_port()
    ids = [world.submit(f"task {n}") for n in range(4)]
    daemon = start(world.conf(f"http://127.0.0.1:{port}")).started()
    report = daemon.until_health(503, says="refused")
    assert not report["engines"][0]["ready"]
    assert report["aws"]["ok"]

    with StandinProcess(StandinOptions(seconds_per_step=0.02, startup_seconds=3.0)) as starting:
        starting.stop()
        starting.start(port=port)
        daemon.until_health(503, says="is not there (yet)")
        assert {world.record(i)["status"] for i in ids} == {"pending"}
        assert {world.record(i).get("runs", 0) for i in ids} == {0}
        assert world.counts() == (4, 0), "nothing is taken that cannot be worked on"

        world.until_done()
        world.assert_all_completed()
        assert {world.record(i)["runs"] for i in ids} == {1}
        assert daemon.health()[0] == 200


@pytest.mark.slow
def test_a_hung_engine_is_restarted_by_the_configured_command(world: World, engine: Engines, start: Start) -> None:
    standin = engine()
    standin.fault("hang", match="hangs", count=1)
    hung, other = world.send_task("hangs", steps=5), world.send_task("other")
    conf = world.conf(standin.base_url, sd_api=f"restart_command = kill -9 {standin.pid}", task_deadline_s=2)

    with started_again_when_dead(standin):
        # In service an engine has half a minute to obey an interrupt.
        daemon = start(conf, change="import scheduler.engines.sdwebui as engine; engine.INTERRUPT_GRACE_S = 2.0")
        daemon.wait_for("engine_restarted")
        world.until_done()

    world.assert_all_completed()
    assert (world.record(hung)["runs"], world.record(other)["runs"]) == (2, 1)
    assert len(daemon.events("engine_restart")) == 1


def test_a_task_past_its_deadline_is_interrupted_and_failed_and_the_next_one_is_whole(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    late, good = world.send_task("late", steps=500), world.send_task("good", steps=3)
    daemon = start(world.conf(standin.base_url, task_deadline_s=1.5))

    world.until_done()

    assert world.record(late)["error"]["class"] == "deadline"
    assert "images" not in world.record(late)
    world.assert_completed([good])
    world.assert_no_orphans()
    assert standin.stats()["renders_whole"] == {"good": 1}
    assert daemon.health()[0] == 200


def test_out_of_memory_is_tried_again_smaller_and_then_fails(world: World, engine: Engines, start: Start) -> None:
    standin = engine()
    standin.fault("oom", match="once", count=1)
    standin.fault("oom", match="batch", max_batch=1)
    standin.fault("oom", match="always", count=None)
    once, batch = world.send_task("once"), world.send_task("batch", batch=3)
    always, good = world.send_task("always"), world.send_task("good")
    daemon = start(world.conf(standin.base_url))

    world.until_done()

    world.assert_completed([once, batch, good])
    world.assert_no_orphans()
    record = world.record(always)
    assert (record["status"], record["error"]["class"], record["runs"]) == ("failed", "out-of-memory", 1)
    assert "CUDA out of memory" in record["error"]["engine"]
    assert standin.stats()["renders"]["always"] == 2
    assert len(daemon.events("out_of_memory")) == 3
    assert daemon.health()[0] == 200


def test_three_broken_runs_and_a_golden_task_that_fails_too_make_the_host_unhealthy_until_it_is_mended(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    standin.fault("fatal", count=None)
    ids = [world.submit(f"task {n}") for n in range(6)]
    daemon = start(world.conf(standin.base_url))

    report = daemon.until_health(503, says="unhealthy: ")
    assert not report["engines"][0]["healthy"]
    assert "CUDA error" in report["engines"][0]["why"]
    assert daemon.events("host_unhealthy")
    world.until_status("pending", *ids)
    assert sorted(world.record(i).get("runs", 0) for i in ids) == [0, 0, 0, 1, 1, 1]
    until(lambda: not daemon.health()[1]["held"], what="an empty hand")

    standin.heal()
    daemon.until_health(200)
    world.until_done()
    world.assert_all_completed()
    assert max(world.record(i)["runs"] for i in ids) == 2


def test_three_broken_runs_and_a_golden_task_that_succeeds_put_the_blame_on_the_tasks(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    standin.fault("fatal", match="bad", count=None)
    bad = [world.send_task(f"bad {n}") for n in range(3)]
    good = world.send_task("good")
    daemon = start(world.conf(standin.base_url, max_runs=1))

    world.until_done()

    for record in map(world.record, bad):
        assert (record["status"], record["error"]["class"], record["runs"]) == ("failed", "fatal", 1)
        assert "CUDA error" in record["error"]["engine"]
    world.assert_completed([good])
    daemon.wait_for("tasks_to_blame")
    assert not daemon.events("host_unhealthy")
    assert daemon.health()[0] == 200


def test_silent_failures_behind_a_200_are_no_results(world: World, engine: Engines, start: Start) -> None:
    standin = engine()
    kinds = ("short", "corrupt-image", "wrong-model")
    for kind in kinds:
        standin.fault(kind, match=kind, count=1)
    ids = [world.send_task(kind, batch=2, checkpoint="standin-dawn") for kind in kinds]
    start(world.conf(standin.base_url))

    world.until_done()

    world.assert_all_completed()
    assert [world.record(i)["runs"] for i in ids] == [2, 2, 2]
    # Three in a row: it was asked for a known picture before it got more tasks to spoil.
    assert standin.stats()["renders"] == {**dict.fromkeys(kinds, 2), "golden": 1}
