"""Cancelling what waits, what is next and what runs: the end is written within a renewal, the neighbours are unhurt."""

from __future__ import annotations

from daemon_process import Start
from waiting import until
from world import Engines, World


def test_running_next_and_waiting_tasks_are_cancelled_and_their_neighbours_complete(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    daemon = start(world.conf(standin.base_url))
    running = world.submit("running", steps=1000)
    until(lambda: standin.stats()["renders"].get("running"), what="the render")
    following = world.submit("following", steps=400)
    until(lambda: world.status(following) == "processing", what="the claim")
    waiting = world.submit("waiting", steps=400)
    after = world.submit("after", steps=20)

    assert world.store().request_cancel(waiting) == "cancelled"
    assert world.store().request_cancel(following) == "processing"
    until(lambda: world.status(following) == "cancelled", 5, what="the end of what was next, while another runs")
    assert world.status(running) == "processing"
    assert world.store().request_cancel(running) == "processing"
    until(lambda: world.status(running) == "cancelled", 5, what="the end of what ran")
    assert world.store().request_cancel(running) == "cancelled"

    world.until_done()
    assert world.store().request_cancel(after) == "completed"
    assert world.status(waiting) == "cancelled"
    world.assert_completed([after])
    world.assert_no_orphans()
    assert standin.stats()["renders_whole"] == {"after": 1}
    assert not {"following", "waiting"} & set(standin.stats()["renders"])
    assert len(daemon.events("task_ended", outcome="cancelled")) == 2


def test_a_cancelled_task_whose_holder_died_is_cancelled_by_the_next(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    task_id = world.submit("orphaned", steps=400)
    conf = world.conf(standin.base_url)
    daemon = start(conf)
    until(lambda: standin.stats()["renders"].get("orphaned"), what="the render")
    daemon.kill()
    assert world.store().request_cancel(task_id) == "processing"

    start(conf)

    world.until_done()
    assert world.status(task_id) == "cancelled"
    assert standin.stats()["renders"] == {"orphaned": 1}
    assert world.object_keys() == []
