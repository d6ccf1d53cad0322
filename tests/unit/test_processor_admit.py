"""From messages to held tasks: what joins, what is refused, what goes back, and for how long."""

from __future__ import annotations

import json

import pytest
from worker_in_memory import Worker, body_of

from scheduler.domain.errors import Rejected, Unavailable
from scheduler.domain.retry import MOST_DELIVERIES
from scheduler.held import State
from scheduler.task_processor import MISSING_RECORD_S
from scheduler.wire.json_body import MAX_VALUES

REFERENCE = json.dumps({"taskId": "old-1", "storage": "dynamodb"})
REQUEST = json.dumps({"api": "/sdapi/v1/txt2img", "payload": {"prompt": "a cat", "steps": 4}})


@pytest.fixture
def worker(clock):
    return Worker(clock)


def receipts(worker: Worker, task_id: str = "t1") -> list[str]:
    return [message.receipt for message in worker.held.receipts(worker.one(task_id))]


def test_a_message_becomes_a_task_that_waits(worker):
    held = worker.take(payload={"steps": 7}, prefix="cats")
    assert (held.state, held.task.task_id, held.task.prefix) == (State.WAITING, "t1", "cats")
    assert held.task.payload["steps"] == 7
    assert worker.journal.calls == []  # admitting costs no call


# duplicates in one host


def test_the_same_message_again_replaces_the_receipt(worker, clock):
    worker.send()
    worker.admit()
    clock.advance(31.0)  # its visibility ran out, and SQS delivers it again
    worker.admit()
    assert receipts(worker) == ["message-0-1/2"]
    assert worker.held_ids == ["t1"]


def test_another_message_of_the_same_task_joins_it(worker):
    worker.send()
    worker.send()
    worker.admit()
    assert receipts(worker) == ["message-0-1/1", "message-0-2/1"]
    assert worker.held_ids == ["t1"]


def test_the_end_of_a_task_deletes_all_its_messages(worker, clock):
    worker.send()
    worker.send()
    worker.admit()
    worker.prepare()
    clock.advance(31.0)  # the first comes again while its task waits for the engine
    worker.admit(most=1)
    worker.keep()
    worker.renders_until_settled()
    worker.send()
    worker.admit()  # and a third while the pictures are stored
    worker.store()
    worker.delete()
    assert worker.status() == "completed"
    assert sorted(worker.queue.deleted) == ["message-0-1", "message-0-2", "message-0-3"]
    assert worker.queue.bodies == []
    assert worker.engine.posted == ["t1"]


def test_messages_of_one_task_from_two_queues_are_deleted_each_from_its_own(clock):
    worker = Worker(clock, queues=2)
    worker.send(queue=0)
    worker.send(queue=1)
    worker.admit(0)
    worker.admit(1)
    assert worker.held_ids == ["t1"]
    worker.prepare()
    worker.renders_until_settled()
    worker.store()
    worker.delete()
    assert [queue.bodies for queue in worker.queues] == [[], []]


# what cannot become a task


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("not json", "body"),
        ("{}", "body"),
        ('{"task_id": "t1"}', "task_type"),
        (body_of(task_type="no-such-path"), "task_type"),
        (body_of("../up"), "task_id"),
    ],
)
def test_what_cannot_become_a_task_is_refused_with_its_field_and_leaves_the_queue(worker, body, field):
    worker.queue.send(body)
    worker.admit()
    [(message, why)] = worker.queue.refused
    assert (message.body, why.field) == (body, field)
    assert why.message
    assert worker.queue.bodies == []
    assert worker.held_ids == []
    assert worker.counted("refused_messages_total") == 1
    assert worker.tasks.records == {}


def test_a_bad_message_does_not_hold_up_the_good_ones_beside_it(worker):
    worker.queue.send("not json")
    worker.send("good")
    worker.queue.send("[]")
    worker.admit()
    assert worker.held_ids == ["good"]
    assert len(worker.queue.refused) == 2


def test_the_id_of_a_held_task_with_another_request_is_refused_and_the_task_goes_on(worker):
    worker.claimed(payload={"seed": 1})
    worker.send(payload={"seed": 2})
    worker.admit()
    [(message, why)] = worker.queue.refused
    assert (message.message_id, why.field) == ("message-0-2", "task_id")
    assert receipts(worker) == ["message-0-1/1"]
    worker.work()
    assert worker.status() == "completed"


def test_of_two_requests_with_one_id_the_record_tells_which_has_it_and_not_which_came_first(worker, clock):
    rightful = worker.take(payload={"seed": 2})
    worker.tasks.create(rightful.task, job_type="txt2img")
    worker.held.drop(rightful)  # it was submitted, and its message comes after another's that took its id
    worker.send(payload={"seed": 1})
    worker.admit()
    clock.advance(31.0)
    worker.admit()
    assert worker.queue.refused == []
    assert worker.queue.delays == [("message-0-1", 10.0)]
    worker.prepare()  # the claim of the other is refused, for the record is not its own
    assert [message.message_id for message, _ in worker.queue.refused] == ["message-0-2"]
    clock.advance(10.0)
    worker.work()
    assert worker.status() == "completed"
    assert worker.queue.bodies == []


def test_the_record_of_a_reference_is_not_closed_because_another_request_with_its_id_is_in_hand(worker, clock):
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": REQUEST})
    worker.send("old-1")
    worker.queue.send(REFERENCE)
    worker.admit()
    assert worker.tasks.record("old-1") == {"task_id": "old-1", "taskStatus": "waiting", "requestData": REQUEST}
    assert worker.queue.delays == [("message-0-2", 5.0)]
    worker.prepare()
    clock.advance(5.0)
    worker.work()
    assert worker.status("old-1") == "completed"
    assert [message.message_id for message, _ in worker.queue.refused] == ["message-0-1"]


def test_a_refusal_that_aws_does_not_take_leaves_the_message_in_the_queue(worker):
    worker.queue.fail_next(1, Unavailable("down"), on="refuse")
    worker.queue.send("not json")
    worker.admit()
    assert worker.queue.refused == []
    assert worker.queue.bodies == ["not json"]
    assert worker.counted("refused_messages_total") == 0


# what this host cannot run


@pytest.mark.parametrize("changes", [{"runtime": "comfyui"}, {"task_type": "pipeline"}])
@pytest.mark.parametrize(("times", "delay_s"), [(1, 30.0), (2, 60.0), (3, 120.0), (5, 300.0), (40, 300.0)])
def test_a_task_for_a_runtime_that_is_not_here_goes_back_from_30_s_to_5_minutes(worker, clock, changes, times, delay_s):
    worker.send(**changes)
    for _ in range(times):
        worker.admit()
        clock.advance(301.0)
    assert worker.queue.delays[-1] == ("message-0-1", delay_s)
    assert worker.held_ids == []
    assert worker.tasks.records == {}
    assert worker.counted("returned_total", reason="runtime") == times


@pytest.mark.parametrize(
    ("changes", "field"), [({"runtime": "comfyui"}, "runtime"), ({"task_type": "pipeline"}, "task_type")]
)
def test_a_task_that_nobody_could_run_fails_before_sqs_takes_its_message_away(worker, clock, changes, field):
    worker.send(**changes)
    for _ in range(MOST_DELIVERIES - 1):
        worker.admit()
        clock.advance(301.0)
    assert worker.held_ids == []
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["error"]["field"]) == ("failed", field)
    assert f"{MOST_DELIVERIES} deliveries" in record["error_message"]
    assert (worker.engine.posted, worker.queue.bodies) == ([], [])


@pytest.mark.parametrize("runtime", ["sdwebui", "legacy"])
def test_the_runtimes_that_are_here_are_taken(worker, runtime):
    assert worker.take(runtime=runtime).state is State.WAITING


# references


def test_a_reference_is_held_as_the_request_in_its_record(worker):
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": REQUEST})
    worker.queue.send(REFERENCE)
    worker.admit()
    assert worker.one("old-1").task.payload == {"prompt": "a cat", "steps": 4}
    assert worker.one("old-1").task.by_reference


def test_references_received_together_are_read_together(worker):
    for n in range(5):
        worker.tasks.put_record({"task_id": f"old-{n}", "taskStatus": "waiting", "requestData": REQUEST})
        worker.queue.send(json.dumps({"taskId": f"old-{n}", "storage": "dynamodb"}))
    worker.admit()
    assert len(worker.held_ids) == 5
    assert worker.journal.of("tasks.read") == ["tasks.read"]


def test_a_second_reference_to_a_held_task_joins_without_a_read(worker):
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": REQUEST})
    worker.queue.send(REFERENCE)
    worker.admit()
    worker.queue.send(REFERENCE)
    worker.admit()
    assert receipts(worker, "old-1") == ["message-0-1/1", "message-0-2/1"]
    assert worker.journal.of("tasks.read") == ["tasks.read"]


def test_a_reference_without_a_record_waits_for_it_and_never_makes_one(worker, clock):
    worker.queue.send(REFERENCE)
    for delay_s in (5.0, 10.0, 20.0):
        worker.admit()
        assert worker.queue.delays[-1] == ("message-0-1", delay_s)
        clock.advance(delay_s)
    assert worker.tasks.records == {}
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": REQUEST})
    worker.admit()
    assert worker.held_ids == ["old-1"]


def test_after_five_minutes_a_reference_without_a_record_is_refused(worker, clock):
    worker.queue.send(REFERENCE)
    clock.advance(MISSING_RECORD_S)
    worker.admit()
    assert worker.queue.refused == []
    clock.advance(30.0)
    worker.admit()
    [(message, why)] = worker.queue.refused
    assert (message.body, why.field) == (REFERENCE, "taskId")
    assert worker.tasks.records == {}
    assert worker.queue.bodies == []


def test_a_record_that_holds_no_request_is_closed_for_its_client_and_refused_for_a_person(worker):
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": "{"})
    worker.queue.send(REFERENCE)
    worker.admit()
    record = worker.tasks.record("old-1")
    assert (record["status"], record["taskStatus"]) == ("failed", "finished")
    assert json.loads(record["processRes"])["error"]
    assert isinstance(worker.queue.refused[0][1], Rejected)


def test_references_that_cannot_be_read_go_back_and_the_receiver_is_told(worker):
    worker.send("whole")
    worker.queue.send(REFERENCE)
    worker.tasks.fail_next(1, Unavailable("throttled"), on="read")
    with pytest.raises(Unavailable):
        worker.admit()
    assert worker.queue.delays == [("message-0-2", 5.0)]
    assert worker.held_ids == ["whole"]


# stopping


def test_what_a_last_long_poll_brings_is_given_back_at_once(worker):
    worker.send("a")
    worker.send("b")
    worker.queue.send("not json")
    worker.stop.set(90.0)
    worker.admit()
    assert worker.queue.delays == [("message-0-1", 0.0), ("message-0-2", 0.0), ("message-0-3", 0.0)]
    assert worker.queue.hidden == []
    assert worker.held_ids == []
    assert worker.queue.refused == []


def test_bodies_are_held_within_the_memory_bound_and_a_large_one_alone(clock):
    worker = Worker(clock, memory_bytes=3000)
    for n in range(4):
        worker.send(f"t{n}", payload={"prompt": "a" * 1000})
    worker.admit()
    assert worker.held_ids == ["t0", "t1"]
    assert worker.counted("returned_total", reason="memory") == 2
    large = Worker(clock, memory_bytes=3000)
    large.send("large", payload={"prompt": "a" * 9000})
    large.admit()
    assert large.held_ids == ["large"]


def test_a_body_of_more_values_than_anybody_needs_is_refused_before_it_is_read(worker):
    worker.queue.send('{"task_id": "t", "task_type": "txt2img", "payload": {"a": [' + "{}," * MAX_VALUES + "0]}}")
    worker.admit()
    [(_, why)] = worker.queue.refused
    assert "more than 1000000 values" in why.message
