"""Submitting: the record before the message, twice the same, never over another's task."""

from __future__ import annotations

import json

import pytest
from fakes import FakeTaskStore
from worker_in_memory import Worker, body_of

from scheduler.domain.errors import Rejected, Unavailable
from scheduler.submission import MAX_MESSAGE_BYTES, submit

MESSAGE = json.loads(body_of("t1", payload={"seed": 7}))


@pytest.fixture
def records(clock):
    return FakeTaskStore(clock)


class Sent(list):
    """The messages sent; `error` is what the next send raises."""

    error: Exception | None = None

    def __call__(self, body: str) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.append(body)


@pytest.fixture
def sent():
    return Sent()


def end(records: FakeTaskStore, status: str) -> None:
    records.put_record(records.record("t1") | {"status": status, "finished_at": 1.0})


def test_a_task_has_its_record_when_its_message_is_sent(records):
    seen = []
    submitted = submit(MESSAGE, records=records, send=lambda body: seen.append((body, records.record("t1"))))
    assert (submitted.task_id, submitted.status, submitted.was_sent) == ("t1", "pending", True)
    [(body, record)] = seen
    assert json.loads(body) == MESSAGE
    assert (record["status"], record["job_type"]) == ("pending", "txt2img")


def test_what_is_submitted_is_what_a_worker_does(clock, records):
    worker = Worker(clock, tasks=records)
    submit(MESSAGE, records=records, send=worker.queue.send)
    worker.work()
    assert worker.status() == "completed"
    assert worker.queue.refused == []


def test_submitting_again_sends_again_while_the_task_has_no_end(records, sent):
    for _ in range(2):
        submitted = submit(MESSAGE, records=records, send=sent)
        assert submitted.was_sent
    assert len(sent) == 2
    assert len(records.records) == 1


def test_a_send_that_failed_can_simply_be_done_again(records, sent):
    sent.error = Unavailable("SQS does not answer")
    with pytest.raises(Unavailable):
        submit(MESSAGE, records=records, send=sent)
    assert records.record("t1")["status"] == "pending"
    assert submit(MESSAGE, records=records, send=sent).was_sent
    assert len(sent) == 1


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_nothing_is_sent_for_a_task_that_has_its_end(records, sent, status):
    submit(MESSAGE, records=records, send=sent)
    end(records, status)
    submitted = submit(MESSAGE, records=records, send=sent)
    assert (submitted.status, submitted.was_sent) == (status, False)
    assert len(sent) == 1


def test_a_failed_task_is_sent_again_and_so_runs_again(clock, records):
    worker = Worker(clock, tasks=records)
    worker.engine.fail_next(1, Rejected("not today"), on="generate")
    submit(MESSAGE, records=records, send=worker.queue.send)
    worker.work()
    assert worker.status() == "failed"
    clock.advance(1.0)
    assert submit(MESSAGE, records=records, send=worker.queue.send).status == "failed"
    worker.work()
    assert (worker.status(), worker.tasks.record("t1")["runs"]) == ("completed", 1)


def test_an_id_that_belongs_to_another_request_is_refused_before_anything_is_sent(records, sent):
    submit(MESSAGE, records=records, send=sent)
    before = records.record("t1")
    with pytest.raises(Rejected, match="t1 already belongs to another request") as caught:
        submit(MESSAGE | {"payload": {"seed": 8}}, records=records, send=sent)
    assert caught.value.field == "task_id"
    assert len(sent) == 1
    assert records.record("t1") == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task_id": "../up"}, "task_id"),
        ({"task_type": "no-such-path"}, "task_type"),
        ({"payload": "no object"}, "payload"),
        ({"surprise": 1}, "surprise"),
        ({"payload": {"prompt": "x" * MAX_MESSAGE_BYTES}}, "payload"),
    ],
)
def test_a_bad_request_leaves_no_record_and_no_message(records, sent, changes, field):
    with pytest.raises(Rejected) as caught:
        submit(MESSAGE | changes, records=records, send=sent)
    assert caught.value.field == field
    assert (records.records, sent) == ({}, [])


def test_when_the_table_does_not_answer_nothing_is_sent(records, sent):
    records.fail_next(1, Unavailable("down"), on="create")
    with pytest.raises(Unavailable):
        submit(MESSAGE, records=records, send=sent)
    assert sent == []


def test_the_size_counted_is_that_of_the_message_as_sent(records, sent):
    room = MAX_MESSAGE_BYTES - len(json.dumps(MESSAGE | {"context": ""}))
    submit(MESSAGE | {"context": "x" * room}, records=records, send=sent)
    assert len(sent[0]) == MAX_MESSAGE_BYTES
    with pytest.raises(Rejected, match="SQS takes 1048576"):
        submit(MESSAGE | {"context": "x" * (room + 1)}, records=records, send=sent)


EKS = {
    "metadata": {"id": "t1", "runtime": "sdwebui", "tasktype": "text-to-image"},
    "content": {"prompt": "a fox", "steps": 20, "width": 512, "height": 512},
}


def test_an_id_of_eks_is_sent_again_after_its_end_and_runs_anew(clock, records):
    worker = Worker(clock, tasks=records)
    for run_no, steps in ((1, 20), (2, 30)):
        task = EKS | {"content": EKS["content"] | {"steps": steps}}
        assert submit(task, records=records, send=worker.queue.send).was_sent
        worker.work()
        record = records.record("t1")
        assert (record["status"], record["run_no"], record["format"]) == ("completed", run_no, "eks-v1alpha2")


def test_another_request_of_eks_is_refused_while_the_first_has_no_end(records, sent):
    submit(EKS, records=records, send=sent)
    with pytest.raises(Rejected, match="already belongs to another request"):
        submit(EKS | {"content": {"prompt": "a hound"}}, records=records, send=sent)
    assert len(sent) == 1


def test_the_path_of_a_job_is_its_type(records, sent):
    job = {"task_id": "t1", "api_path": "/api/v1/camera-angle/jobs", "request_body": {"seed": 7}}
    submit(job, records=records, send=sent)
    record = records.record("t1")
    assert (record["job_type"], record["format"]) == ("/api/v1/camera-angle/jobs", "job-api")


@pytest.mark.parametrize(
    "message", [{"taskId": "t1", "storage": "dynamodb"}, {"Message": '{"taskId": "t1", "storage": "dynamodb"}'}]
)
def test_what_only_says_where_the_task_lies_is_not_submitted(records, sent, message):
    with pytest.raises(Rejected, match="must hold the task"):
        submit(message, records=records, send=sent)
    assert (sent, records.records) == ([], {})
