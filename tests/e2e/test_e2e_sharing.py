"""Two schedulers on one queue: the claim decides who renders what, even after one of them has slept past its lease."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest
from daemon_process import Start
from waiting import until
from world import LEASE_S, Engines, World


@pytest.mark.slow
def test_two_schedulers_share_a_hundred_tasks_and_render_each_once_however_often_it_is_sent(
    world: World, engine: Engines, start: Start
) -> None:
    messages = [world.task(f"task {n}", seed=n, steps=3) for n in range(100)]
    standins = engine(), engine()
    daemons = [start(world.conf(standin.base_url, name=f"host-{n}")).started() for n, standin in enumerate(standins)]
    for n, message in enumerate(messages):
        world.send(message)
        if n % 5 == 0:
            world.send(message)  # a client that was not sure
    daemons[0].wait_for("task_ended", times=20)
    world.send(*messages[20:60:4])  # while most of them wait, or run, or are done

    world.until_done()

    world.assert_all_completed()
    renders = Counter[str]()
    for standin in standins:
        renders.update(standin.stats()["renders"])
    assert renders == {f"task {n}": 1 for n in range(100)}
    ended = [Counter(e["task_id"] for e in d.events("task_ended", outcome="completed")) for d in daemons]
    assert sum(ended, Counter()) == dict.fromkeys(world.wishes, 1)
    assert min(map(len, ended)) >= 10, "both have worked"
    assert {record["runs"] for record in world.records().values()} == {1}


def test_a_task_sent_again_while_it_runs_is_rendered_once_and_every_message_goes(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    message = world.task("twice", steps=100)
    world.send(message)
    daemon = start(world.conf(standin.base_url))
    until(lambda: standin.stats()["renders"].get("twice"), what="the render")

    world.send(message, message)
    until(lambda: [held for held in daemon.health()[1]["held"] if held["messages"] == 3], what="three messages held")
    world.until_done()

    world.assert_all_completed()
    assert standin.stats()["renders"] == {"twice": 1}
    world.send(message)
    until(lambda: daemon.events("claim_refused", reason="duplicate"), what="the late duplicate")
    world.until_done()
    assert standin.stats()["renders"] == {"twice": 1}


def test_the_same_id_with_another_request_is_refused_and_the_first_is_unhurt(
    world: World, engine: Engines, start: Start
) -> None:
    first = world.task("first")
    world.send(first)
    daemon = start(world.conf(engine().base_url))
    world.until_done()
    other = json.dumps(first | {"payload": first["payload"] | {"prompt": "another"}})

    world.send(other)

    daemon.wait_for("message_refused")
    world.until_done()
    assert world.counts(world.queue.dlq_url) == (1, 0)
    (letter,) = world.dead_letters()
    assert letter["body"] == other
    assert letter["reject_field"] == "task_id"
    assert "already belongs to another request" in letter["reject_reason"]
    world.assert_all_completed()


@pytest.mark.slow
def test_a_scheduler_that_sleeps_past_its_lease_does_not_touch_what_another_has_taken_over(
    world: World, engine: Engines, start: Start
) -> None:
    quick, slow = engine(), engine(seconds_per_step=0.06)
    task_id, following = world.send_task("slept over", steps=60), world.send_task("also held", steps=60)
    sleeper = start(world.conf(quick.base_url, name="sleeper"))
    until(lambda: quick.stats()["renders"], what="the render")
    until(lambda: {r.get("status") for r in world.records().values()} == {"processing"}, what="both claims")
    (first,) = quick.stats()["renders"]
    taken = task_id if first == "slept over" else following

    sleeper.signal(signal.SIGSTOP)
    heir = start(world.conf(slow.base_url, name="heir"))
    until(lambda: slow.stats()["renders"], 3 * LEASE_S, what="the heir's render")
    until(lambda: slow.stats()["renders"].get(first), 6 * LEASE_S, what="the heir's render of what was taken over")
    sleeper.signal(signal.SIGCONT)
    sleeper.wait_for("lease_lost", task_id=taken)

    assert world.status(taken) == "processing"
    assert world.record(taken)["attempt"] == 2
    assert world.counts()[1] >= 1, "the heir's message is where it was"
    world.until_done()
    world.assert_all_completed()
    assert heir.events("task_ended", task_id=taken, outcome="completed")
    assert not sleeper.events("task_ended", task_id=taken)

    last = world.send_task("one more")  # and the sleeper has its wits together again
    assert heir.stop() == 0
    world.until_status("completed", last)
    assert sleeper.events("task_ended", task_id=last)
