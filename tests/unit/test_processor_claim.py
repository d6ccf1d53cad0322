"""Claims and what a refused one does with the messages."""

from __future__ import annotations

import json

import pytest
from fakes import FakeImageStore, FakeQueue, FakeTaskStore
from worker_in_memory import LEASE_S, Worker, body_of

from scheduler.domain.errors import Counts, Unavailable
from scheduler.domain.task import Claim, Failure
from scheduler.held import State
from scheduler.task_processor import MISSING_RECORD_S


@pytest.fixture
def worker(clock):
    return Worker(clock)


@pytest.fixture
def other(clock, worker):
    """A worker on another host, over the same queue, table and bucket."""
    return Worker(clock, tasks=worker.tasks, queue=worker.queue, images=worker.images)


def elsewhere(worker: Worker, task_id: str = "t1", *, lease_s: float = LEASE_S, **changes) -> Claim:
    """Let another worker claim a task; return its claim."""
    worker.queue.send(body_of(task_id, **changes))
    worker.admit()
    held = worker.one(task_id)
    message = worker.held.receipts(held)[0]
    claim = worker.tasks.claim(held.task, message, owner="somebody", lease_s=lease_s)
    assert isinstance(claim, Claim)
    worker.held.drop(held)
    worker.queue.give_back([message.receipt], delay_s=0.0)
    worker.queue.delays.clear()
    return claim


def test_a_claim_counts_a_run_and_leases_the_task_for_the_terms(worker, clock):
    held = worker.claimed()
    record = worker.tasks.record("t1")
    assert (record["status"], record["runs"], record["attempt"]) == ("processing", 1, 1)
    assert record["lease_until"] == clock.now() + LEASE_S
    assert (held.claim.owner, held.claim.runs) == (record["owner"], 1)


def test_every_claim_has_an_owner_of_its_own(worker):
    first = worker.claimed("t1").claim.owner
    worker.lane.withdraw()
    second = worker.claimed("t2").claim.owner
    assert first != second
    assert len(first) == len(second) == 16


def test_a_worker_counts_its_lease_from_when_the_claim_was_sent(worker, clock):
    """The claim that was answered, not those before it that were not."""
    worker.tasks.fail_next(2, Unavailable("throttled"), on="claim")
    began_s = clock.monotonic()
    held = worker.claimed()
    assert held.renewed_s == clock.monotonic() == began_s + sum(worker.stop.waits)
    assert worker.journal.of("tasks.claim") == ["tasks.claim!", "tasks.claim!", "tasks.claim"]


def test_a_claim_whose_answer_was_lost_is_found_to_be_ours(worker):
    worker.tasks.fail_next(1, Unavailable("timed out"), on="claim", applied=True)
    held = worker.claimed()
    assert (held.claim.runs, worker.tasks.record("t1")["runs"]) == (1, 1)


# duplicates


def test_a_duplicate_of_a_task_with_its_end_is_deleted_and_not_rendered(worker):
    worker.send()
    worker.work()
    before = worker.tasks.record("t1")
    worker.send()
    worker.work()
    assert worker.queue.bodies == []
    assert worker.engine.posted == ["t1"]
    assert worker.tasks.record("t1") == before


@pytest.mark.parametrize(
    ("left_s", "eta_s", "receives", "delay_s"),
    [
        (30, 0, 2, 60),
        (30, 0, 3, 120),
        (30, 0, 4, 240),
        (30, 0, 5, 300),
        (30, 0, 40, 300),
        (30, 100, 2, 200),
        (14, 100, 9, 14),  # less than half a lease is left: the holder is probably dead
    ],
)
def test_a_duplicate_of_a_task_that_runs_elsewhere_stays_away_as_long_as_that_takes(
    worker, left_s, eta_s, receives, delay_s
):
    elsewhere(worker, lease_s=left_s)  # which received the message once
    worker.tasks.put_record(worker.tasks.record("t1") | {"eta_s": eta_s})
    for _ in range(receives - 2):
        worker.queue.give_back([message.receipt for message in worker.queue.receive(1, wait_s=0)], delay_s=0.0)
    worker.queue.delays.clear()
    worker.admit()
    worker.prepare()
    assert worker.queue.delays == [("message-0-1", delay_s)]
    assert worker.held_ids == []
    assert worker.status() == "processing"


def test_a_duplicate_is_never_deleted_while_the_lease_lives_and_runs_once_the_holder_is_dead(worker, clock):
    elsewhere(worker)
    for _ in range(5):
        worker.work()
        assert worker.queue.bodies != []
        clock.advance(1.0)
    assert worker.engine.posted == []
    clock.advance(301.0)
    worker.work()
    assert worker.status() == "completed"
    assert worker.tasks.record("t1")["attempt"] == 2
    assert worker.queue.bodies == []


def test_two_hosts_with_a_message_each_render_a_task_once(worker, other):
    worker.send()
    worker.send()
    worker.admit(most=1)
    other.admit(most=1)
    worker.prepare()
    other.prepare()
    assert worker.lane.peek() is not None
    assert other.lane.peek() is None
    worker.renders_until_settled()
    worker.store()
    worker.delete()
    assert worker.status() == "completed"
    assert (worker.engine.posted, other.engine.posted) == (["t1"], [])
    assert worker.images.puts == ["tasks/t1/1.png"]


# conflicts


def test_the_id_of_another_request_is_refused_and_its_record_left_alone(worker, clock):
    worker.send(payload={"seed": 1})
    worker.work()
    before = worker.tasks.record("t1")
    worker.send(payload={"seed": 2})
    worker.work()
    [(message, why)] = worker.queue.refused
    assert (message.message_id, why.field) == ("message-0-2", "task_id")
    assert worker.tasks.record("t1") == before
    assert (worker.queue.bodies, worker.held_ids) == ([], [])


def test_every_message_of_a_conflict_is_refused(worker):
    elsewhere(worker, payload={"seed": 1})
    worker.queue.receive(1, wait_s=0)
    worker.send(payload={"seed": 2})
    worker.send(payload={"seed": 2})
    worker.admit()
    worker.prepare()
    assert [message.message_id for message, _ in worker.queue.refused] == ["message-0-2", "message-0-3"]
    assert worker.held_ids == []


# sent again after a failure


def fail_once(worker: Worker) -> None:
    worker.send(payload={"steps": 0})
    worker.work()
    assert worker.status() == "failed"


def test_a_message_sent_after_the_failure_starts_the_task_anew(worker, clock):
    fail_once(worker)
    clock.advance(1.0)
    worker.tasks.put_record(worker.tasks.record("t1") | {"runs": 3})
    worker.send(payload={"steps": 0})
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["attempt"], record["runs"]) == ("failed", 2, 1)
    assert worker.queue.bodies == []


def test_of_an_old_and_a_new_message_the_new_one_decides(worker, clock):
    """A redelivered message of before the failure must not take the wish for another run with it."""
    fail_once(worker)
    worker.queue.send(body_of(payload={"steps": 0}), sent_at_s=clock.now() - 60.0)
    clock.advance(1.0)
    worker.send(payload={"steps": 0})
    worker.admit()
    worker.prepare()
    assert worker.tasks.record("t1")["attempt"] == 2
    worker.delete()
    assert worker.queue.bodies == []


# ends without a run


def test_a_task_whose_runs_are_spent_is_failed_and_its_message_deleted(worker, clock):
    claim = elsewhere(worker)
    worker.tasks.put_record(worker.tasks.record("t1") | {"runs": 3})
    clock.advance(LEASE_S + 1)
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["error"]["class"]) == ("failed", "exhausted")
    assert "3 times" in record["error_message"]
    assert worker.engine.posted == []
    assert worker.queue.bodies == []
    assert worker.counted("tasks_total", outcome="failed") == 1
    assert claim.owner not in json.dumps(record)  # so that its last holder can no longer write


def test_a_cancelled_task_of_a_dead_holder_is_ended_by_the_next_receiver(worker, clock):
    elsewhere(worker)
    assert worker.tasks.request_cancel("t1") == "processing"
    clock.advance(LEASE_S + 1)
    worker.work()
    assert worker.status() == "cancelled"
    assert worker.engine.posted == []
    assert worker.queue.bodies == []


def test_what_moved_on_before_it_could_be_closed_is_looked_at_again(worker, clock):
    elsewhere(worker)
    worker.tasks.request_cancel("t1")
    clock.advance(LEASE_S + 1)
    worker.admit()

    def revive() -> None:
        worker.tasks.put_record(worker.tasks.record("t1") | {"attempt": 2, "lease_until": clock.now() + LEASE_S})

    worker.stop.meanwhile = revive
    worker.tasks.fail_next(1, Unavailable("down"), on="close_unclaimed")
    worker.prepare()
    assert worker.status() == "processing"
    assert worker.queue.delays == [("message-0-1", 5.0)]


def test_a_task_cancelled_before_it_was_received_leaves_no_message(worker):
    worker.send()
    task_id = "t1"
    worker.admit()
    worker.tasks.create(worker.one().task, job_type="txt2img")
    assert worker.tasks.request_cancel(task_id) == "cancelled"
    worker.prepare()
    worker.delete()
    assert worker.status() == "cancelled"
    assert worker.queue.bodies == []
    assert worker.engine.posted == []


# records that vanish


REQUEST = json.dumps({"api": "/sdapi/v1/txt2img", "payload": {"prompt": "a cat", "steps": 4}})


def admit_reference(worker: Worker) -> None:
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": REQUEST})
    worker.queue.send(json.dumps({"taskId": "old-1", "storage": "dynamodb"}))
    worker.admit()
    del worker.tasks.records["old-1"]


def test_a_record_that_vanished_before_the_claim_is_waited_for(worker):
    admit_reference(worker)
    worker.prepare()
    assert worker.queue.delays == [("message-0-1", 5.0)]
    assert worker.tasks.records == {}


def test_and_after_five_minutes_its_message_is_refused(worker, clock):
    admit_reference(worker)
    clock.advance(MISSING_RECORD_S + 1)
    worker.prepare()
    assert [message.message_id for message, _ in worker.queue.refused] == ["message-0-1"]
    assert worker.tasks.records == {}


# stopping


def test_a_claim_that_the_stop_overtook_lets_the_message_go_and_the_lease_settles_it(worker, clock):
    held = worker.take()
    worker.stop.set(0.0)
    worker.tasks.fail_next(1, Unavailable("timed out"), on="claim", applied=True)
    worker.held.take(held, State.WAITING, State.PREPARING)
    assert not worker.processor.claim(held)
    assert worker.queue.delays == [("message-0-1", 0.0)]
    clock.advance(LEASE_S + 1)
    fresh = Worker(clock, tasks=worker.tasks, queue=worker.queue)
    fresh.work()
    assert fresh.status() == "completed"


@pytest.mark.parametrize("counts", Counts)
def test_a_task_given_up_elsewhere_is_taken_whatever_it_cost(worker, counts):
    claim = elsewhere(worker)
    worker.tasks.release(claim, counts=counts)
    worker.work()
    assert worker.status() == "completed"


def test_an_ended_task_stays_ended_for_every_kind_of_end(clock):
    for status in ("completed", "failed", "cancelled"):
        worker = Worker(
            clock, tasks=FakeTaskStore(clock), queue=FakeQueue(clock, longest_wait_s=0.0), images=FakeImageStore()
        )
        claim = elsewhere(worker)
        task_id = claim.task_id
        worker.tasks.release(claim, counts=Counts.NOTHING)
        failure = Failure(kind="rejected", message="no") if status == "failed" else None
        assert worker.tasks.close_unclaimed(task_id, worker.tasks.record(task_id), status, failure)
        worker.work()
        assert worker.status() == status
        assert (worker.queue.bodies, worker.engine.posted) == ([], [])
