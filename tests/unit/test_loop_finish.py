"""Decoding, storing and deleting beside the engine: in order, each result once, and no picture left in memory."""

from __future__ import annotations

import gc
import weakref
from queue import SimpleQueue

import pytest
from worker_in_memory import Worker

from scheduler.domain.errors import BadResult, EngineLost, Interrupted, Unavailable
from scheduler.held import State
from scheduler.loops.finish import DELETE_BATCH, DecodeLoop, DeleteLoop, Finished


@pytest.fixture
def worker(clock):
    return Worker(clock)


def rendered(worker: Worker, count: int = 1) -> None:
    for n in range(count):
        worker.claimed(f"t{n}")
        worker.render.cycle()
    worker.render.cycle()


def test_answers_are_decoded_in_the_order_in_which_they_came(worker):
    rendered(worker, 3)
    finished: SimpleQueue[Finished | None] = SimpleQueue()
    worker.render.outcomes.put(None)
    DecodeLoop(worker.render.outcomes, finished, worker.held).run()
    assert [finished.get()[0].task.task_id for _ in range(3)] == ["t0", "t1", "t2"]
    assert finished.empty()


@pytest.mark.parametrize("error", [BadResult("half a picture"), EngineLost("the body broke off")])
def test_an_answer_that_cannot_be_read_is_a_failed_run(worker, error):
    worker.engine.fail_next(1, error, on="output")
    rendered(worker)
    worker.store()
    assert (worker.status("t0"), worker.tasks.record("t0")["runs"]) == ("pending", 1)
    assert worker.queue.delays == [("message-0-1", 5.0)]


def test_an_error_needs_no_decoding(worker):
    worker.engine.fail_next(1, Interrupted(), on="generate")
    rendered(worker)
    worker.store()
    assert worker.engine.faults.calls["output"] == 0
    assert worker.status("t0") == "pending"


def test_no_answer_is_kept_in_memory_while_the_next_is_waited_for(worker):
    rendered(worker)
    alive: list[bool] = []

    class Watched(SimpleQueue):
        def get(self, *args, **kwargs):
            gc.collect()
            alive.append(answer() is not None)
            return super().get(*args, **kwargs)

    outcomes: SimpleQueue = Watched()
    item = worker.render.outcomes.get()
    answer = weakref.ref(item[1])
    outcomes.put(item)
    outcomes.put(None)
    del item
    DecodeLoop(outcomes, worker.finished, worker.held).run()
    assert alive == [True, False]


def test_a_full_batch_is_not_waited_for_longer(worker):
    for n in range(DELETE_BATCH + 2):
        held = worker.take(f"t{n}")
        worker.messages.delete(held)
    batch, is_end = worker.deletes._gather()
    assert (len(batch), is_end) == (DELETE_BATCH, False)
    worker.messages.deletions.put(None)
    assert [len(worker.deletes._gather()[0])] == [2]


def test_the_end_of_the_queue_ends_the_batch_and_what_is_in_it_is_deleted(worker):
    for n in range(3):
        worker.messages.delete(worker.take(f"t{n}"))
    worker.delete()
    assert worker.queue.bodies == []
    assert worker.held_ids == []


def test_a_delivery_that_joins_during_the_delete_is_deleted_with_the_next_try(worker, clock):
    held = worker.take()
    worker.messages.delete(held)
    delete = worker.queue.delete

    def late(receipts):
        if worker.queue.deleted == []:
            worker.send()
            worker.admit()
        return delete(receipts)

    worker.queue.delete = late
    worker.delete()
    assert worker.queue.deleted == ["message-0-1", "message-0-2"]
    assert worker.held_ids == []


def test_a_newer_receipt_of_the_same_message_is_used_for_the_next_try(worker, clock):
    held = worker.take()
    worker.messages.delete(held)
    clock.advance(31.0)  # the visibility ran out, and the message is received again
    messages = worker.queue.receive(1, wait_s=0)
    worker.stop.meanwhile = lambda: worker.admission.admit(messages)
    worker.delete()
    assert worker.queue.deleted == ["message-0-1"]
    assert worker.held_ids == []


def test_tries_are_counted_for_each_task_apart(worker):
    loop = DeleteLoop(worker.messages, worker.outages, worker.stop)
    good, bad = worker.take("good"), worker.take("bad")
    worker.queue._lying["message-0-2"].receipt = "another's"
    for held in (good, bad):
        worker.messages.delete(held)
    worker.messages.deletions.put(None)
    loop.run()
    assert worker.queue.deleted == ["message-0-1"]
    assert worker.held_ids == []
    assert good.state is bad.state is State.DELETING
    assert good.delete_attempts == 0


def test_messages_that_cannot_be_deleted_let_no_more_in_until_they_can(worker):
    worker.messages.delete(worker.take())
    troubles: list[str | None] = []
    worker.stop.meanwhile = lambda: troubles.append(worker.outages.trouble)
    worker.queue.fail_next(4, Unavailable("sqs:DeleteMessage is denied"), on="delete")
    worker.delete()
    assert troubles == [None, None, *["sqs:DeleteMessage is denied"] * 2]
    assert worker.stop.waits == [1.0, 2.0, 4.0, 8.0]
    assert worker.outages.trouble is None
    assert worker.queue.bodies == []
