"""Ids that clients of Stable Diffusion on EKS choose again: each message has its own run, and each only one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from worker_in_memory import LEASE_S, Worker

from scheduler.domain.errors import Rejected, Unavailable
from scheduler.domain.keys import run_mark


@pytest.fixture
def worker(clock):
    return Worker(clock)


@pytest.fixture
def other(clock, worker):
    """A worker on another host, over the same queue, table and bucket."""
    return Worker(clock, tasks=worker.tasks, queue=worker.queue, images=worker.images)


def body_of(sns_id: str | None, *, steps: int = 20, task_id: str = "t1") -> str:
    task = {
        "metadata": {"id": task_id, "runtime": "sdwebui", "tasktype": "text-to-image", "prefix": "out", "context": 7},
        "content": {"prompt": "a fox", "steps": steps, "width": 512, "height": 512},
    }
    return json.dumps({"Message": json.dumps(task), "MessageId": sns_id} if sns_id else task)


def key_of(run_no: int) -> str:
    return f"out/t1/t1-{run_mark('t1', run_no)}-1.png"


def until_settled(worker: Worker, clock: Any) -> None:
    for _ in range(10):
        worker.work()
        clock.advance(LEASE_S + 1)
    assert (worker.queue.bodies, worker.held_ids) == ([], [])


def test_a_task_of_eks_is_done_and_its_picture_lies_where_its_clients_look(worker):
    worker.queue.send(body_of("sns-1"))
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["message_id"], record["run_no"]) == ("completed", "sns-1", 1)
    assert worker.images.puts == [key_of(1)]
    assert worker.queue.bodies == []


@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize("steps", [20, 30])
def test_the_id_of_a_task_that_ended_starts_a_new_run_with_pictures_of_its_own(worker, envelope, steps):
    worker.queue.send(body_of("sns-1" if envelope else None))
    worker.work()
    worker.queue.send(body_of("sns-2" if envelope else None, steps=steps))
    worker.work()
    assert worker.engine.posted == ["t1", "t1"]
    assert worker.images.puts == [key_of(1), key_of(2)]
    record = worker.tasks.record("t1")
    assert (record["status"], record["run_no"], record["images"][0]["key"]) == ("completed", 2, key_of(2))
    assert (worker.queue.bodies, worker.queue.refused) == ([], [])


def test_a_copy_of_the_same_message_is_not_rendered_again(worker):
    for _ in range(2):
        worker.queue.send(body_of("sns-1"))
        worker.work()
    assert worker.engine.posted == ["t1"]
    assert worker.queue.bodies == []


def test_copies_that_come_together_are_one_run(worker, clock):
    for _ in range(3):
        worker.queue.send(body_of("sns-1"))
    until_settled(worker, clock)
    assert worker.engine.posted == ["t1"]
    assert worker.tasks.record("t1")["run_no"] == 1


@pytest.mark.parametrize("hosts", ["one", "two"])
def test_what_another_message_means_does_not_depend_on_which_host_receives_it(worker, other, clock, hosts):
    """Sent while the first runs, it waits for the end, and then has its own run."""
    worker.queue.send(body_of("sns-1"))
    worker.admit()
    worker.prepare()
    worker.queue.send(body_of("sns-2"))
    receiver = worker if hosts == "one" else other
    receiver.admit()
    receiver.prepare()
    worker.renders_until_settled()
    worker.store()
    worker.announce()
    worker.delete()
    assert worker.tasks.record("t1")["run_no"] == 1
    assert len(worker.queue.bodies) == 1
    for _ in range(3):
        clock.advance(301.0)
        worker.work()
    assert (worker.engine.posted, worker.tasks.record("t1")["run_no"]) == (["t1", "t1"], 2)
    assert worker.queue.bodies == []


def test_another_request_while_the_task_has_no_end_is_refused(worker):
    worker.queue.send(body_of("sns-1"))
    worker.admit()
    worker.prepare()
    worker.queue.send(body_of("sns-2", steps=30))
    worker.admit()
    [(message, why)] = worker.queue.refused
    assert (message.message_id, why.field) == ("message-0-2", "task_id")
    worker.work()
    assert worker.status() == "completed"


def test_another_request_that_comes_while_the_first_one_s_message_is_deleted_is_not_refused(worker, clock):
    worker.queue.send(body_of("sns-1"))
    worker.admit()
    worker.prepare()
    worker.renders_until_settled()
    worker.store()
    assert worker.status() == "completed"
    worker.queue.send(body_of("sns-2", steps=30))
    worker.admit()
    worker.announce()
    worker.delete()
    until_settled(worker, clock)
    assert worker.queue.refused == []
    assert worker.tasks.record("t1")["run_no"] == 2


def test_a_copy_that_comes_late_between_two_others_is_deleted_and_they_are_run(worker, clock):
    """The worker of the first died before it could delete its message."""
    worker.queue.send(body_of("sns-1"))
    worker.work()
    worker.queue.send(body_of("sns-1"), sent_at_s=clock.now() - 60.0)
    worker.queue.send(body_of("sns-2"))
    until_settled(worker, clock)
    worker.queue.send(body_of("sns-1"), sent_at_s=clock.now() - 600.0)
    until_settled(worker, clock)
    assert worker.engine.posted == ["t1", "t1"]
    assert worker.tasks.record("t1")["run_no"] == 2


def test_a_failed_task_is_run_again_for_another_message_only(worker, clock):
    worker.engine.fail_next(1, Rejected("no"), on="generate")
    worker.queue.send(body_of("sns-1"))
    worker.work()
    assert worker.status() == "failed"
    clock.advance(60.0)
    worker.queue.send(body_of("sns-1"))  # a copy, though SNS delivered it after the failure
    until_settled(worker, clock)
    assert worker.status() == "failed"
    worker.queue.send(body_of("sns-2"))
    until_settled(worker, clock)
    record = worker.tasks.record("t1")
    assert (record["status"], record["run_no"], record["runs"]) == ("completed", 2, 1)
    assert "error" not in record


def test_a_message_of_its_own_is_not_deleted_with_a_task_whose_runs_are_spent(worker, other, clock):
    worker.queue.send(body_of("sns-1"))
    other.admit()
    other.prepare()  # and then it died
    worker.tasks.put_record(worker.tasks.record("t1") | {"runs": 3})
    clock.advance(LEASE_S + 1)
    worker.queue.send(body_of("sns-2"))
    worker.admit()
    assert len(worker.one().messages) == 2
    until_settled(worker, clock)
    record = worker.tasks.record("t1")
    assert (record["status"], record["run_no"], record["message_id"]) == ("completed", 2, "sns-2")
    assert worker.engine.posted == ["t1"]


def test_a_claim_whose_answer_was_lost_starts_one_new_run(worker):
    worker.queue.send(body_of("sns-1"))
    worker.work()
    worker.tasks.fail_next(1, Unavailable("timed out"), on="claim", applied=True)
    worker.queue.send(body_of("sns-2"))
    worker.work()
    assert worker.tasks.record("t1")["run_no"] == 2
    assert worker.engine.posted == ["t1", "t1"]


def test_a_pointer_to_a_body_is_refused_while_nothing_reads_it(worker):
    pointer = ["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "large", "s3Key": "k"}]
    worker.queue.send(json.dumps(pointer))
    worker.work()
    [(_, why)] = worker.queue.refused
    assert "s3://large/k" in why.message
