"""How tasks end here: the order of pictures, record and delete, failures, cancellations, lost claims."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from decimal import Decimal

import pytest
from fakes import FakeImageStore
from worker_in_memory import LEASE_S, Worker, body_of

from scheduler.domain.errors import (
    BadResult,
    Counts,
    EngineBusy,
    EngineLost,
    Fatal,
    LeaseLost,
    OutOfMemory,
    Rejected,
    Transient,
    Unavailable,
)
from scheduler.domain.retry import MOST_DELIVERIES
from scheduler.domain.task import Claim
from scheduler.held import State
from scheduler.held_messages import DELETE_ATTEMPTS

OUT_OF_MEMORY = OutOfMemory("the GPU ran out of memory", engine="CUDA out of memory")


@pytest.fixture
def worker(clock):
    return Worker(clock)


def steal(worker: Worker, task_id: str = "t1") -> None:
    """Let another worker take the claim over: the lease had run out."""
    record = worker.tasks.record(task_id)
    stolen = {"owner": "thief", "attempt": record["attempt"] + 1, "runs": record["runs"] + 1}
    worker.tasks.put_record(record | stolen | {"lease_until": worker.clock.now() + LEASE_S})


def ends(worker: Worker) -> list[str]:
    return worker.journal.of("images.put", "tasks.complete", "tasks.fail", "tasks.cancelled", "queue.delete")


# the good end


def test_pictures_then_record_then_delete(worker):
    worker.send(payload={"batch_size": 2})
    worker.work()
    assert ends(worker) == ["images.put", "images.put", "tasks.complete", "queue.delete"]
    record = worker.tasks.record("t1")
    assert [image["key"] for image in record["images"]] == ["tasks/t1/1.png", "tasks/t1/2.png"]
    assert set(worker.images.stored) == {"tasks/t1/1.png", "tasks/t1/2.png"}


def test_of_thousands_of_warnings_the_record_has_a_few(worker, monkeypatch):
    prepare = worker.engine.prepare
    many = tuple(f"image {n} is all black: {'x' * 1000}" for n in range(6500))
    monkeypatch.setattr(
        worker.engine, "prepare", lambda task, *, seed_key: replace(prepare(task, seed_key=seed_key), warnings=many)
    )
    worker.send()
    worker.work()
    *few, last = worker.tasks.record("t1")["warnings"]
    assert few[0].startswith("image 0 is all black")
    assert last == f"and {6500 - len(few)} more"
    assert sum(map(len, few)) < 10_000


def test_the_record_tells_where_the_time_went(worker, clock):
    worker.send()
    clock.advance(4.0)
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["queued_ms"], record["generate_ms"]) == (4000, 1000)
    assert {"prepare_ms", "store_ms"} <= set(record)
    assert worker.counted("tasks_total", outcome="completed") == 1
    assert worker.counted("generate_seconds_count") == 1


def test_what_the_gpu_cost_is_recorded_where_a_price_is_known(worker):
    worker.send("unpriced")
    worker.work()
    worker.usd_per_second = Decimal("0.00005")
    worker.send("priced")
    worker.work()
    assert "gpu_cost_usd" not in worker.tasks.record("unpriced")
    assert worker.tasks.record("priced")["gpu_cost_usd"] == pytest.approx(0.00005)
    assert worker.counted("gpu_cost_usd_total") == pytest.approx(0.00005)


def test_a_record_holds_no_payload(worker):
    worker.send(payload={"prompt": "a very long prompt"})
    worker.work()
    assert "a very long prompt" not in str(worker.tasks.record("t1"))


def test_pictures_of_an_earlier_attempt_are_recorded_as_they_lie_there(clock):
    """The first attempt stored its picture and died; the second writes nothing over it."""
    images = FakeImageStore()
    first = Worker(clock, images=images)
    first.send()
    first.tasks.fail_next(2, Unavailable("down"), on="complete")
    first.tasks.fail_next(2, Unavailable("down"), on="release")
    first.stop.meanwhile = lambda: first.stop.set(0.0)  # the host goes before it can write the record
    first.work()
    assert (first.status(), list(images.stored)) == ("processing", ["tasks/t1/1.png"])
    lying = dict(images.data)
    clock.advance(LEASE_S + 1)
    second = Worker(clock, images=images, tasks=first.tasks, queue=first.queue)
    second.work()
    assert second.status() == "completed"
    assert images.data == lying
    assert images.puts == ["tasks/t1/1.png"] * 2
    assert first.engine.posts[0].body == second.engine.posts[0].body  # the random seed was the same


# deleting


def test_a_delete_that_was_not_acknowledged_is_tried_again_entry_by_entry(worker):
    worker.send("a")
    worker.send("b")
    worker.admit()
    for _ in range(2):
        worker.prepare()
        worker.renders_until_settled()
    worker.store()
    stale = worker.held.receipts(worker.one("a"))[0]
    receipt, lying = stale.receipt, worker.queue._lying["message-0-1"]
    lying.receipt = "not yet"  # SQS refuses this entry for a while

    def mend() -> None:
        if len(worker.stop.waits) == 2:
            lying.receipt = receipt

    worker.stop.meanwhile = mend
    worker.delete()
    assert worker.queue.deleted == ["message-0-2", "message-0-1"]
    assert worker.held_ids == []
    assert worker.stop.waits == [1.0, 1.0]


def test_what_is_done_is_kept_hidden_until_its_delete_is_acknowledged(worker, clock):
    worker.send()
    worker.queue.fail_next(8, Unavailable("down"), on="delete")
    worker.stop.meanwhile = lambda: worker.visibility.cycle(due_after_s=0.0)
    seen: list[int] = []
    original = worker.visibility.cycle

    def watch(*, due_after_s: float) -> None:
        original(due_after_s=due_after_s)
        seen.append(len(worker.queue.hidden))

    worker.visibility.cycle = watch
    worker.work()
    assert seen == [1] * 8
    assert sum(worker.stop.waits) > LEASE_S  # longer than its visibility would have lasted by itself
    assert worker.queue.bodies == []


def test_a_message_whose_deletion_is_refused_for_good_is_let_go_and_known_when_it_comes_again(worker, clock):
    worker.send()
    worker.admit()
    worker.prepare()
    worker.renders_until_settled()
    worker.store()
    worker.queue._lying["message-0-1"].receipt = "another's"
    worker.delete()
    assert worker.journal.of("queue.delete") == ["queue.delete"] * DELETE_ATTEMPTS
    assert worker.held_ids == []
    clock.advance(LEASE_S + 1)
    worker.work()
    assert worker.queue.bodies == []
    assert worker.engine.posted == ["t1"]


def test_ten_messages_share_one_delete(worker):
    for n in range(12):
        worker.send(f"t{n}")
    worker.admit()
    worker.admit()
    for _ in range(12):
        worker.prepare()
        worker.renders_until_settled()
    worker.store()
    worker.delete()
    assert worker.journal.of("queue.delete") == ["queue.delete"] * 2
    assert worker.queue.bodies == []


def test_a_wish_for_another_run_that_comes_while_the_failed_message_is_deleted_is_not_deleted_with_it(worker, clock):
    worker.send(payload={"steps": 0})
    worker.admit()
    worker.prepare()
    assert worker.status() == "failed"
    clock.advance(0.1)
    worker.send(payload={"steps": 0})  # its client saw the failure and sends it again, before our delete
    worker.admit()
    worker.delete()
    assert worker.queue.deleted == ["message-0-1"]
    assert worker.held_ids == []
    clock.advance(10.0)
    worker.work()
    assert worker.tasks.record("t1")["attempt"] == 2
    assert worker.queue.bodies == []


def test_the_same_for_a_message_that_joins_a_duplicate_of_the_failure(worker, clock):
    worker.send(payload={"steps": 0})
    worker.work()
    worker.queue.send(body_of(payload={"steps": 0}), sent_at_s=clock.now() - 60.0)
    worker.admit()
    worker.prepare()  # a duplicate, about to be deleted
    clock.advance(0.1)
    worker.send(payload={"steps": 0})
    worker.admit()
    worker.delete()
    clock.advance(10.0)
    worker.work()
    assert worker.tasks.record("t1")["attempt"] == 2
    assert worker.queue.bodies == []


# failures


def test_a_task_that_is_wrong_fails_at_once_in_its_own_terms(worker):
    worker.send(payload={"steps": 0})
    worker.work()
    record = worker.tasks.record("t1")
    assert record["status"] == "failed"
    assert record["error"] == {
        "class": "rejected",
        "message": "steps is 0; it must be at least 1",
        "field": "payload.steps",
    }
    assert record["expires_at"] >= record["finished_at"] + 90 * 86400
    assert (worker.engine.posts, worker.queue.bodies) == ([], [])
    assert ends(worker) == ["tasks.fail", "queue.delete"]


@pytest.mark.parametrize("error", [EngineLost("it died"), BadResult("half a picture"), Fatal("no GPU")])
def test_a_spent_run_goes_back_with_back_off_and_the_last_one_fails_the_task(worker, clock, error):
    worker.engine.fail_next(3, error, on="generate")
    worker.send()
    for delay_s in (5.0, 10.0):
        worker.work()
        assert worker.queue.delays[-1] == ("message-0-1", delay_s)
        assert worker.status() == "pending"
        clock.advance(delay_s)
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["runs"]) == ("failed", 3)
    assert "run 3 of 3" in record["error_message"]
    assert worker.queue.bodies == []


def test_a_fault_of_the_world_costs_no_run_however_often(worker, clock):
    worker.engine.fail_next(8, Transient("another job is in the way"), on="generate")
    worker.send()
    for _ in range(8):
        worker.work()
        assert worker.tasks.record("t1")["runs"] == 0
        clock.advance(300.0)
    worker.work()
    assert (worker.status(), worker.tasks.record("t1")["attempt"]) == ("completed", 9)


def test_an_input_that_cannot_be_had_fails_after_five_tries_and_ten_minutes(worker, clock):
    error = Transient("the input did not come", counts=Counts.TRY)
    worker.engine.fail_next(100, error, on="prepare")
    worker.send()
    began_s = clock.now()
    delays = []
    while worker.status() != "failed":
        worker.work()
        if worker.status() == "pending":
            delays.append(worker.queue.delays[-1][1])
            clock.advance(delays[-1])
    assert delays[:5] == [30.0, 60.0, 120.0, 240.0, 300.0]
    assert clock.now() - began_s >= 600.0
    assert worker.tasks.record("t1")["runs"] == 1  # only the failing claim's own, never an engine run
    assert "try 6" in worker.tasks.record("t1")["error_message"]
    assert worker.engine.posts == []
    assert worker.queue.bodies == []


def test_how_often_it_was_tried_is_read_from_the_record_for_a_claim_need_not_tell(worker, clock):
    held = worker.claimed()
    worker.lane.take()
    held.claim = dataclasses.replace(held.claim, tries=0, first_try_at_s=None)
    worker.tasks.put_record(worker.tasks.record("t1") | {"tries": 4, "first_try_at": int(clock.now()) - 601})
    worker.processor.end(held, Transient("no input", counts=Counts.TRY))
    assert worker.status() == "failed"


def test_tries_spend_no_run(worker, clock):
    worker.engine.fail_next(4, Transient("no input", counts=Counts.TRY), on="prepare")
    worker.send()
    for _ in range(4):
        worker.work()
        assert (worker.tasks.record("t1")["runs"], worker.status()) == (0, "pending")
        clock.advance(300.0)
    worker.work()
    assert worker.status() == "completed"


def test_five_tries_within_ten_minutes_are_not_enough(worker, clock):
    worker.engine.fail_next(5, Transient("no input", counts=Counts.TRY), on="prepare")
    worker.send()
    for _ in range(5):  # as fast as a person may put the message back
        worker.work()
        clock.advance(1.0)
        worker.queue._lying["message-0-1"].visible_s = clock.monotonic()
    assert (worker.status(), worker.tasks.record("t1")["tries"]) == ("pending", 5)
    worker.work()
    assert worker.status() == "completed"


# going back


def test_the_claim_is_released_before_the_message_is_given_back(worker):
    worker.engine.fail_next(1, EngineLost("it died"), on="generate")
    worker.send()
    worker.work()
    assert worker.journal.of("tasks.release", "queue.give_back") == ["tasks.release", "queue.give_back"]
    record = worker.tasks.record("t1")
    assert record["status"] == "pending"
    assert "lease_until" not in record


def test_a_release_that_dynamodb_does_not_take_keeps_the_message_until_it_does(worker):
    worker.engine.fail_next(1, EngineLost("it died"), on="generate")
    worker.tasks.fail_next(3, Unavailable("down"), on="release")
    worker.send()
    worker.work()
    assert worker.journal.of("tasks.release", "queue.give_back") == ["tasks.release!"] * 3 + [
        "tasks.release",
        "queue.give_back",
    ]


def test_a_give_back_that_sqs_does_not_take_is_left_to_the_visibility(worker, clock):
    worker.engine.fail_next(1, EngineLost("it died"), on="generate")
    worker.queue.fail_next(1, Unavailable("down"), on="give_back")
    worker.send()
    worker.work()
    assert worker.held_ids == []
    clock.advance(LEASE_S + 1)
    worker.work()
    assert worker.status() == "completed"


# cancellation


def test_a_cancellation_during_the_run_ends_the_task_as_cancelled(worker):
    def cancel() -> None:
        assert worker.tasks.request_cancel("t1") == "processing"
        worker.claims.cycle(due_after_s=0.0)
        worker.interrupter.cycle()

    worker.engine.meanwhile = cancel
    worker.send()
    worker.work()
    assert worker.status() == "cancelled"
    assert ends(worker) == ["tasks.cancelled", "queue.delete"]
    assert worker.images.puts == []
    assert worker.queue.bodies == []


def test_what_nobody_is_to_blame_for_fails_in_words_before_sqs_takes_it_unexplained(worker, clock):
    worker.engine.fail_next(1000, EngineBusy("the engine was at other work"), on="generate")
    worker.send()
    began_s = clock.monotonic()
    while worker.queue.bodies:
        worker.work()
        clock.advance(5)
    assert worker.status() == "failed"
    error = worker.tasks.record("t1")["error"]
    assert error["class"] == "engine-busy"
    assert f"{MOST_DELIVERIES} deliveries" in error["message"]
    assert clock.monotonic() - began_s > 3 * 3600


def test_a_finish_that_wins_over_the_cancellation_stays_completed(worker):
    worker.send()
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    worker.tasks.request_cancel("t1")
    worker.claims.cycle(due_after_s=0.0)
    worker.store()
    worker.delete()
    assert worker.status() == "completed"
    assert worker.queue.bodies == []


# lost claims


@pytest.mark.parametrize("outcome", ["good", "wrong", "lost", "cancelled"])
def test_a_lost_claim_writes_no_end_and_touches_no_message(worker, outcome):
    if outcome == "wrong":
        worker.engine.fail_next(1, Rejected("no"), on="generate")
    elif outcome == "lost":
        worker.engine.fail_next(1, EngineLost("it died"), on="generate")

    def lose() -> None:
        if outcome == "cancelled":
            worker.tasks.request_cancel("t1")
            worker.claims.cycle(due_after_s=0.0)
        steal(worker)

    worker.engine.meanwhile = lose
    if outcome in {"wrong", "lost"}:  # these fail before they would render
        worker.engine.before_sent = lose
    worker.send()
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["owner"], record["runs"]) == ("processing", "thief", 2)
    assert worker.queue.deleted == []
    assert worker.queue.delays == []
    assert worker.journal.of("queue.delete", "queue.give_back", "queue.extend") == []
    assert worker.held_ids == []
    assert worker.counted("leases_lost_total") == 1


def test_a_loss_that_the_keeper_saw_is_believed_without_another_call(worker):
    def lose() -> None:
        steal(worker)
        worker.claims.cycle(due_after_s=0.0)

    worker.engine.meanwhile = lose
    worker.send()
    worker.work()
    assert ends(worker) == []
    assert worker.journal.of("tasks.release") == []
    assert worker.tasks.record("t1")["owner"] == "thief"


def test_a_lease_that_ran_out_and_was_not_taken_still_finishes(worker, clock):
    worker.send()
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    clock.advance(10 * LEASE_S)
    worker.store()
    worker.delete()
    assert worker.status() == "completed"


# a bug, not an outcome


def test_an_end_without_a_claim_is_an_error_of_ours(worker):
    held = worker.take()
    with pytest.raises(RuntimeError, match="t1 ended without a claim"):
        worker.processor.end(held, Rejected("no"))
    output = worker.engine.generate(worker.engine.prepare(held.task, seed_key="t1:1"), deadline_s=9.0).output()
    with pytest.raises(RuntimeError, match="t1 finished without a claim"):
        worker.processor.finish(held, output)


def test_a_claim_that_is_lost_while_dynamodb_is_asked_again_is_not_asked_for_ever(worker):
    held = worker.claimed()
    assert isinstance(held.claim, Claim)
    worker.tasks.fail_next(1000, Unavailable("down"), on="complete")

    def lose() -> None:
        held.is_lost = True

    worker.stop.meanwhile = lose
    worker.lane.take()
    with pytest.raises(LeaseLost):
        worker.outages.insist(held, lambda: worker.tasks.complete(held.claim, held.task, None))
    assert held.state is State.RUNNING
