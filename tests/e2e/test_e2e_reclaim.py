"""EC2 takes the instance: a daemon with instance metadata of our own hears of it, and leaves nothing undone behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from daemon_process import Daemon, Start
from waiting import until
from world import Engines, World

from scheduler.domain.clock import SystemClock
from scheduler.local.metadata import LocalInstance, LocalMetadata

INSTANCE = "i-0123456789abcdef0"


@pytest.fixture
def instance() -> Iterator[LocalInstance]:
    with LocalMetadata(SystemClock()) as metadata:
        yield metadata.add(INSTANCE)


@pytest.fixture
def begin(world: World, engine: Engines, start: Start, instance: LocalInstance) -> Callable[..., Daemon]:
    """Start a daemon on the instance."""

    def begin(name: str = "conf", **options: object) -> Daemon:
        environ = {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": instance.endpoint,
        }
        return start(world.conf(engine(**options).base_url, name=name), environ=environ).started()

    return begin


@pytest.mark.slow
def test_what_fits_is_finished_and_what_has_not_started_is_another_workers(
    world: World, begin: Callable[..., Daemon], instance: LocalInstance
) -> None:
    first = world.submit("measured", steps=20)
    daemon = begin(seconds_per_step=0.1)
    world.until_status("completed", first)  # so that it knows how long such a task takes
    running = world.submit("running", steps=20)
    waiting = [world.submit(f"waiting {n}", steps=20) for n in range(6)]
    until(lambda: world.status(running) == "processing", what="the run")

    instance.interrupt(in_s=60)
    daemon.wait_for("notice", kind="interruption")
    daemon.wait_for("waiting_for_the_end")

    world.until_status("completed", running)
    assert {world.status(task_id) for task_id in waiting} <= {"pending", "completed"}
    left = [task_id for task_id in waiting if world.status(task_id) == "pending"]
    assert len(left) >= 3, "it took nothing more"
    until(lambda: world.counts() == (len(left), 0), what="their messages to be had at once")
    assert all(world.record(task_id).get("runs", 0) == 0 for task_id in left)
    status, report = daemon.health()
    assert status == 503
    assert report["host"]["receives"] is False
    assert "terminate" in report["host"]["notices"][0]
    assert daemon.process.poll() is None, "a restart would only begin work anew"
    assert daemon.stop() == 0


@pytest.mark.slow
def test_what_cannot_fit_is_interrupted_at_once_and_its_run_refunded(
    world: World, begin: Callable[..., Daemon], instance: LocalInstance
) -> None:
    first = world.submit("measured", steps=10)
    daemon = begin(seconds_per_step=0.1)
    world.until_status("completed", first)
    long = world.submit("long", steps=900)  # 90 s, by what was measured
    until(lambda: world.status(long) == "processing", what="the run")

    instance.interrupt(in_s=60)
    daemon.wait_for("run_interrupted", task_id=long, deadline_s=10)
    world.until_status("pending", long)
    assert world.record(long)["runs"] == 0
    until(lambda: world.counts() == (1, 0), what="its message to be had at once")
    assert not daemon.events("task_ended", task_id=long)


@pytest.mark.slow
def test_a_daemon_that_is_started_after_the_notice_takes_nothing(
    world: World, begin: Callable[..., Daemon], instance: LocalInstance
) -> None:
    instance.interrupt(in_s=100)
    daemon = begin()
    daemon.wait_for("waiting_for_the_end")
    task = world.submit("for another")
    assert daemon.health()[1]["host"]["receives"] is False
    assert world.status(task) == "pending"
    daemon.signal(signal.SIGTERM)
    assert daemon.ended() == 0
    assert world.counts() == (1, 0)


@pytest.mark.slow
def test_a_recommendation_to_rebalance_stops_nothing(
    world: World, begin: Callable[..., Daemon], instance: LocalInstance
) -> None:
    daemon = begin()
    instance.rebalance()
    daemon.wait_for("notice", kind="rebalance")
    task = world.submit("as ever")
    world.until_status("completed", task)
    assert world.record(task)["runs"] == 1
    status, report = daemon.health()
    assert (status, report["host"]["receives"]) == (200, True)
    assert not daemon.events("waiting_for_the_end")


@pytest.mark.slow
def test_metadata_that_fails_for_a_while_costs_nothing(
    world: World, begin: Callable[..., Daemon], instance: LocalInstance
) -> None:
    daemon = begin()
    instance.forget_tokens()
    instance.document("spot/instance-action", "{broken")
    daemon.wait_for("notice_unreadable")
    task = world.submit("as ever")
    world.until_status("completed", task)
    instance.document("spot/instance-action", None)
    instance.interrupt(in_s=100)
    daemon.wait_for("waiting_for_the_end")
