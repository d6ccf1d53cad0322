"""While AWS does not answer: what is finished is kept, nothing new is taken, and afterwards all completes."""

from __future__ import annotations

import pytest
from worker_in_memory import LEASE_S, PERIOD_S, Worker

from scheduler.domain.errors import Interrupted, Unavailable
from scheduler.held import State


@pytest.fixture
def worker(clock):
    return Worker(clock)


OUTAGES = {"S3": ("images", "put"), "DynamoDB": ("tasks", "complete")}


def broken(worker: Worker, service: str, times: int = 40) -> None:
    port, call = OUTAGES[service]
    getattr(worker, port).fail_next(times, Unavailable(f"{service} does not answer"), on=call)


@pytest.mark.parametrize("service", OUTAGES)
def test_a_finished_result_is_kept_nothing_new_is_rendered_and_then_everything_completes(worker, clock, service):
    for n in range(4):
        worker.send(f"t{n}")
    worker.admit(most=2)
    worker.prepare()
    worker.renders_until_settled()
    worker.prepare()
    broken(worker, service)
    troubles: list[str | None] = []
    posts: list[int] = []

    def other_threads() -> None:
        """What the receiver, the engine and the keepers do while the storing thread tries again."""
        if worker.outages.trouble is None or len(troubles) > 60:
            return
        troubles.append(worker.outages.trouble)
        worker.stop.meanwhile = lambda: None
        worker.receive()
        worker.render.cycle()
        worker.keep()
        worker.stop.meanwhile = other_threads
        posts.append(len(worker.engine.posts))

    worker.stop.meanwhile = other_threads
    worker.store()
    worker.stop.meanwhile = lambda: None
    assert len(troubles) == 40
    assert set(troubles) == {f"{service} does not answer"}
    assert set(posts) == {1}, "a task was rendered beside a result that could not be stored"
    assert worker.journal.of("queue.receive") == [], "work was taken that could not be stored"
    assert worker.status("t0") == "completed"
    assert worker.engine.posted == ["t0"]
    assert clock.monotonic() - 1000.0 > 10 * LEASE_S
    assert worker.outages.trouble is None
    worker.work(rounds=4)
    assert {worker.status(f"t{n}") for n in range(4)} == {"completed"}
    assert sorted(worker.engine.posted) == ["t0", "t1", "t2", "t3"]
    assert worker.queue.bodies == []


@pytest.mark.parametrize("service", OUTAGES)
def test_what_is_held_says_why_it_waits(worker, service):
    worker.send()
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    broken(worker, service, 3)
    said: list[str] = []
    worker.stop.meanwhile = lambda: said.append(worker.held.describe()[0]["why"])
    worker.store()
    assert said == [f"{service} does not answer"] * 3
    assert worker.counted("aws_errors_total") == 3


def test_the_waits_between_tries_grow_to_fifteen_seconds(worker):
    worker.send()
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    broken(worker, "S3", 9)
    worker.store()
    assert worker.stop.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0]


@pytest.mark.parametrize("service", OUTAGES)
def test_an_answer_that_was_lost_after_its_effect_does_no_harm(worker, service):
    port, call = OUTAGES[service]
    getattr(worker, port).fail_next(1, Unavailable("timed out"), on=call, applied=True)
    worker.send()
    worker.work()
    assert worker.status() == "completed"
    assert len(worker.images.stored) == 1
    assert worker.queue.bodies == []


def test_while_claims_are_not_answered_nothing_more_is_received(worker):
    worker.take()
    worker.tasks.fail_next(5, Unavailable("DynamoDB does not answer"), on="claim")
    worker.stop.meanwhile = worker.receive
    worker.prepare()
    assert worker.journal.of("queue.receive") == []
    worker.renders_until_settled()
    worker.store()
    assert worker.status() == "completed"
    assert worker.tasks.record("t1")["runs"] == 1


def test_an_outage_longer_than_the_lease_costs_no_finished_picture(worker, clock):
    worker.send()
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    worker.tasks.fail_next(100, Unavailable("down"))
    waited_s = 0.0
    while waited_s < 5 * LEASE_S:
        clock.advance(PERIOD_S)
        waited_s += PERIOD_S
        worker.keep()
    worker.tasks.faults.clear()
    worker.store()
    worker.delete()
    assert (worker.status(), worker.tasks.record("t1")["attempt"]) == ("completed", 1)
    assert worker.engine.posted == ["t1"]


def test_a_process_that_must_go_gives_back_what_it_cannot_store_and_another_does_the_work(worker, clock):
    worker.send()
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    worker.images.fail_next(1000, Unavailable("S3 does not answer"), on="put")
    worker.stop.set(20.0)
    worker.store()
    assert worker.stop.work_left_s() == 0.0 < worker.stop.left_s()
    assert worker.held_ids == []
    assert (worker.status(), worker.tasks.record("t1")["runs"]) == ("pending", 0)
    assert (worker.queue.deleted, worker.queue.delays) == ([], [("message-0-1", 0.0)])
    worker.images.faults.clear()
    fresh = Worker(clock, tasks=worker.tasks, queue=worker.queue, images=worker.images)
    fresh.work()
    assert fresh.status() == "completed"
    assert worker.queue.bodies == []


def test_a_release_that_is_not_answered_before_the_process_must_go_leaves_the_message_to_its_lease(worker, clock):
    held = worker.claimed()
    worker.lane.take()
    worker.tasks.fail_next(1000, Unavailable("down"), on="release")
    worker.stop.set(5.0)
    worker.processor.end(held, Interrupted())
    assert (worker.queue.delays, worker.held_ids) == ([], [])
    worker.tasks.faults.clear()
    clock.advance(LEASE_S + 1)
    fresh = Worker(clock, tasks=worker.tasks, queue=worker.queue, images=worker.images)
    fresh.work()
    assert fresh.status() == "completed"


def test_an_unposted_task_whose_release_is_not_answered_is_let_go_too(worker):
    held = worker.claimed()
    worker.lane.withdraw()
    worker.tasks.fail_next(1000, Unavailable("down"), on="release")
    worker.stop.set(5.0)
    worker.processor.return_claimed(held, reason="stop")
    assert (worker.queue.delays, worker.held_ids) == ([], [])


def test_the_end_of_one_trouble_does_not_hide_another(worker):
    first, second = worker.claimed("a"), worker.take("b")
    worker.images.fail_next(2, Unavailable("S3 does not answer"), on="put")
    worker.tasks.fail_next(1, Unavailable("DynamoDB does not answer"), on="read")
    seen: list[str | None] = []

    def meanwhile() -> None:
        if len(worker.stop.waits) == 1:
            worker.outages.insist(second, lambda: worker.tasks.read(["b"]))
            seen.append(worker.outages.trouble)

    worker.stop.meanwhile = meanwhile
    picture = worker.engine.generate(first.run, deadline_s=9.0).output().images[0]
    worker.outages.insist(first, lambda: worker.images.put("key", picture))
    assert seen == ["S3 does not answer"]
    assert worker.outages.trouble is None
    assert (first.state, first.why) == (State.READY, "")
