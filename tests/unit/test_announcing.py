"""Telling others of an end: after the record, before the delete, once as far as can be, and nobody is held up by it."""

from __future__ import annotations

import json

import pytest
from fakes import FakeImageStore, FakeTopic
from worker_in_memory import LEASE_S, Worker

from scheduler.domain.errors import Rejected, Unavailable, Unstorable
from scheduler.domain.keys import run_mark
from scheduler.domain.ports import Output
from scheduler.domain.task import EngineImage
from scheduler.held import State

MARK = run_mark("t1", 1)
CONTEXT = {"order": [77, None, {"käfer": 1.5}]}
DOWN = Unavailable("SNS does not answer")


def eks_body(sns_id: str = "sns-1", **content: object) -> str:
    told = {"id": "t1", "tasktype": "text-to-image", "prefix": "out", "context": CONTEXT}
    inner = json.dumps({"metadata": told, "content": {"prompt": "A dog", "steps": 20} | content})
    return json.dumps({"Type": "Notification", "MessageId": sns_id, "Message": inner})


@pytest.fixture
def topic():
    return FakeTopic()


@pytest.fixture
def worker(clock, topic):
    return Worker(clock, topic=topic)


def successor(worker: Worker) -> Worker:
    """Another process with the same queue, table, bucket and topic."""
    return Worker(worker.clock, tasks=worker.tasks, queue=worker.queue, images=worker.images, topic=worker.topic)


def ends(worker: Worker) -> list[str]:
    names = ("images.put", "tasks.complete", "tasks.fail", "tasks.cancelled", "tasks.close_unclaimed", "queue.delete")
    told = ("images.put_json", "topic.publish", "webhooks.send", "tasks.announced")
    return worker.journal.of(*names, *told)


def until_stored(worker: Worker) -> None:
    worker.receive()
    worker.prepare()
    worker.renders_until_settled()
    worker.store()


# the order


def test_pictures_record_announcement_delete(worker):
    worker.queue.send(eks_body())
    worker.work()
    assert ends(worker) == [
        "images.put",
        "tasks.complete",
        "images.put_json",
        "topic.publish",
        "tasks.announced",
        "queue.delete",
    ]
    assert worker.tasks.record("t1")["announced_at"] >= int(worker.tasks.record("t1")["finished_at"])


def test_the_message_has_exactly_the_original_s_shape_and_the_object_lies_beside_the_pictures(worker, topic):
    worker.queue.send(eks_body(seed=11))
    worker.work()
    address = f"s3://pictures/out/t1/t1-{MARK}"
    told = {"id": "t1", "result": True, "image_url": [f"{address}-1.png"], "output_url": f"{address}.out"}
    assert topic.published == [(told | {"context": CONTEXT}, None)]
    beside = json.loads(worker.images.data[f"out/t1/t1-{MARK}.out"])
    assert (beside["images"], beside["parameters"]["id_task"]) == ([""], "t1")
    assert beside["parameters"]["error_msg"] == ""


def test_a_failure_is_told_as_well(worker, topic):
    worker.engine.fail_next(1, Rejected("no such sampler", engine='{"detail": "x"}'), on="generate")
    worker.queue.send(eks_body())
    worker.work()
    assert ends(worker)[0] == "tasks.fail"
    [(message, _)] = topic.published
    assert (message["result"], message["image_url"], message["context"]) == (False, [], CONTEXT)
    beside = json.loads(worker.images.data[f"out/t1/t1-{MARK}.out"])
    assert beside["parameters"]["reason"] == {"detail": "x"}


def test_a_task_of_our_own_is_told_of_in_the_same_shape_by_a_name_and_without_an_object(worker, topic):
    worker.send(context=CONTEXT)
    worker.work()
    [(message, named)] = topic.published
    assert message == {
        "id": "t1",
        "result": True,
        "image_url": ["s3://pictures/tasks/t1/1.png"],
        "output_url": None,
        "context": CONTEXT,
    }
    assert named is not None
    assert named.startswith("msg_")
    assert "images.put_json" not in worker.journal.calls


def test_of_a_task_that_nobody_wants_to_know_of_nothing_is_written(clock):
    worker = Worker(clock)
    worker.send()
    worker.work()
    assert ends(worker) == ["images.put", "tasks.complete", "queue.delete"]
    assert "announced_at" not in worker.tasks.record("t1")


def test_without_a_topic_the_object_lies_beside_the_pictures_all_the_same(clock):
    worker = Worker(clock)
    worker.queue.send(eks_body())
    worker.work()
    assert f"out/t1/t1-{MARK}.out" in worker.images.data
    assert "announced_at" in worker.tasks.record("t1")


def test_a_webhook_gets_the_addresses_that_clients_are_given(clock):
    worker = Worker(clock)
    worker.send(webhook="https://hooks.example.com/done", context=CONTEXT)
    worker.work()
    [(url, told, named)] = worker.webhooks.sent
    assert (url, named[:4], told["type"]) == ("https://hooks.example.com/done", "msg_", "task.completed")
    assert told["data"] == {
        "task_id": "t1",
        "status": "completed",
        "image_urls": ["https://cdn.example.com/tasks/t1/1.png"],
        "error": None,
        "context": CONTEXT,
    }
    assert ends(worker)[-3:] == ["webhooks.send", "tasks.announced", "queue.delete"]


def test_a_webhook_is_told_why_a_task_failed(worker):
    worker.send(webhook="https://hooks.example.com/done", payload={"steps": 0})
    worker.work()
    [(_, told, _)] = worker.webhooks.sent
    assert (told["type"], told["data"]["error"]) == ("task.failed", "steps is 0; it must be at least 1")


# ends that no run of here brought


def test_a_task_cancelled_while_it_waited_is_told_when_its_message_comes(worker, topic):
    worker.send()
    worker.tasks.put_record({"task_id": "t1", "status": "cancelled", "finished_at": worker.clock.now()})
    worker.work()
    assert [message["result"] for message, _ in topic.published] == [False]
    assert worker.queue.bodies == []
    assert "announced_at" in worker.tasks.record("t1")


def test_the_next_run_of_an_id_that_was_cancelled_while_it_waited_has_an_object_of_its_own(worker, topic, clock):
    worker.queue.send(eks_body())
    worker.tasks.put_record(
        {"task_id": "t1", "status": "cancelled", "format": "eks-v1alpha2", "finished_at": clock.now()}
    )
    worker.work()
    clock.advance(60)
    worker.queue.send(eks_body("sns-2"))
    worker.work()
    first, second = [message for message, _ in topic.published]
    assert (first["result"], second["result"]) == (False, True)
    told = json.loads(worker.images.data[second["output_url"].removeprefix("s3://pictures/")])
    assert told["parameters"]["error_msg"] == ""
    assert first["output_url"] != second["output_url"]


def test_a_task_cancelled_while_it_rendered_is_told(worker, topic):
    worker.send(webhook="https://hooks.example.com/done")
    worker.receive()
    worker.prepare()
    worker.tasks.request_cancel("t1")
    worker.engine.meanwhile = worker.keep
    worker.clock.advance(LEASE_S / 6)
    worker.renders_until_settled()
    worker.store()
    worker.announce()
    worker.delete()
    assert worker.status() == "cancelled"
    assert [message["result"] for message, _ in topic.published] == [False]
    assert [told["type"] for _, told, _ in worker.webhooks.sent] == ["task.cancelled"]


def test_a_task_that_is_given_up_is_told(worker, topic, clock):
    worker.send()
    worker.tasks.put_record(
        {
            "task_id": "t1",
            "status": "processing",
            "owner": "the dead",
            "attempt": 3,
            "runs": 3,
            "run_no": 1,
            "lease_until": clock.now() - 1,
            "fingerprint": worker.take().task.fingerprint,
        }
    )
    worker.prepare()
    worker.announce()
    worker.delete()
    assert worker.status() == "failed"
    [(message, _)] = topic.published
    assert message["result"] is False
    assert ends(worker) == ["tasks.close_unclaimed", "topic.publish", "tasks.announced", "queue.delete"]


# again and again


@pytest.mark.parametrize("body", [eks_body(), None], ids=["eks", "own"])
def test_what_a_worker_died_before_telling_is_told_by_the_next_one_alike(worker, topic, clock, body):
    if body is None:
        worker.send(context=CONTEXT)
    else:
        worker.queue.send(body)
    until_stored(worker)
    assert (worker.status(), topic.published) == ("completed", [])
    clock.advance(LEASE_S + 1)
    second = successor(worker)
    second.work()
    assert second.engine.posted == []
    assert worker.queue.bodies == []
    told = list(topic.published)
    assert len(told) == 1
    worker.announce()  # the first was not dead, only slow
    assert topic.published == told * 2


def test_once_told_a_copy_is_deleted_and_nothing_told_again(worker, topic):
    worker.queue.send(eks_body())
    worker.work()
    worker.queue.send(eks_body())
    worker.work()
    assert len(topic.published) == 1
    assert worker.queue.bodies == []


def test_an_answer_that_was_lost_makes_the_same_message_come_twice(worker, topic):
    topic.fail_next(1, DOWN, on="publish", applied=True)
    worker.send()
    worker.work()
    first, second = topic.published
    assert first == second


def test_every_end_has_a_name_of_its_own(worker, topic, clock):
    for _ in range(2):
        clock.advance(1.0)
        worker.send(payload={"steps": 0})
        worker.work()
    first, second = topic.published
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_a_new_run_of_an_id_is_told_anew_and_the_old_end_no_more(worker, topic, clock):
    worker.queue.send(eks_body())
    until_stored(worker)
    second = successor(worker)
    second.queue.send(eks_body("sns-2"))
    second.work()
    assert [message["output_url"] for message, _ in topic.published] == [
        f"s3://pictures/out/t1/t1-{run_mark('t1', 2)}.out"
    ]
    told_at = second.tasks.record("t1")["announced_at"]
    clock.advance(5.0)
    worker.announce()  # of the first run, late
    assert second.tasks.record("t1")["announced_at"] == told_at


def test_the_note_of_a_slow_announcer_does_not_stand_in_the_record_of_the_next_run(worker, clock):
    worker.queue.send(eks_body())
    until_stored(worker)
    second = successor(worker)
    second.queue.send(eks_body("sns-2"))
    second.receive()
    second.prepare()
    assert second.tasks.record("t1")["run_no"] == 2
    worker.announce()
    assert "announced_at" not in second.tasks.record("t1")


# AWS that does not answer


def test_it_is_insisted_upon_while_the_message_is_kept_and_no_work_is_begun(worker, topic):
    seen: list[tuple[str | None, int, State]] = []

    def look() -> None:
        worker.keep()
        seen.append((worker.outages.trouble, len(worker.queue.hidden), worker.one().state))

    topic.fail_next(6, DOWN, on="publish")
    worker.send()
    until_stored(worker)
    worker.stop.meanwhile = look
    worker.announce()
    assert seen == [(str(DOWN), 1, State.ANNOUNCING)] * 6
    assert sum(worker.stop.waits) > LEASE_S / 2
    worker.delete()
    assert (worker.queue.bodies, worker.outages.trouble) == ([], None)


def test_at_the_stop_it_is_given_up_and_the_next_worker_tells(worker, topic):
    topic.fail_next(1000, DOWN, on="publish")
    worker.queue.send(eks_body())
    until_stored(worker)
    worker.stop.set(20.0)
    worker.announce()
    assert worker.held_ids == []
    assert worker.queue.delays == [("message-0-1", 0.0)]
    assert "announced_at" not in worker.tasks.record("t1")
    topic.faults.clear()
    second = successor(worker)
    second.work()
    assert len(topic.published) == 1
    assert (second.engine.posted, worker.queue.bodies) == ([], [])


def test_what_aws_will_never_take_is_told_and_the_task_goes_its_way(worker, topic):
    topic.fail_next(1, Unstorable("300000 bytes; 262144 are the most"), on="publish")
    worker.send(webhook="https://hooks.example.com/done")
    worker.work()
    assert worker.queue.bodies == []
    assert len(worker.webhooks.sent) == 1
    assert worker.counted("announcements_total", kind="sns", outcome="refused") == 1


def test_a_fault_of_ours_costs_an_announcement_and_no_task(worker, topic):
    topic.fail_next(1, ZeroDivisionError("a bug"), on="publish")
    worker.send()
    worker.work()
    assert (worker.status(), worker.queue.bodies) == ("completed", [])


def test_a_topic_that_is_slow_does_not_hold_up_storing(worker):
    for n in range(3):
        worker.send(f"t{n}")
    worker.admit()
    for _ in range(3):
        worker.prepare()
        worker.renders_until_settled()
    worker.store()  # nothing was announced yet
    assert {worker.status(f"t{n}") for n in range(3)} == {"completed"}
    assert {held.state for held in worker.held.all()} == {State.ANNOUNCING}


def test_a_wish_for_another_run_that_comes_while_a_failure_is_told_is_not_deleted_with_it(worker, clock, topic):
    worker.send(payload={"steps": 0})
    worker.receive()
    worker.prepare()
    assert worker.one().state is State.ANNOUNCING
    clock.advance(0.1)
    worker.send(payload={"steps": 0})
    worker.admit()
    worker.announce()
    worker.delete()
    assert worker.queue.deleted == ["message-0-1"]
    clock.advance(10.0)
    worker.work()
    assert worker.tasks.record("t1")["attempt"] == 2
    assert len(topic.published) == 2


# more images than a record holds


def many(count: int) -> Output:
    images = tuple(
        EngineImage(data=f"{n}".encode(), media_type="image/png", extension=".png", width=64, height=64, seed=n)
        for n in range(count)
    )
    return Output(images=images, checkpoint=None, sampler=None, warnings=())


def test_when_a_record_cannot_hold_the_images_their_list_lies_beside_them(worker, topic, clock):
    worker.tasks.fail_next(1, Unstorable("Item size has exceeded the maximum"), on="complete")
    worker.send()
    worker.receive()
    worker.prepare()
    worker.processor.finish(worker.lane.take(), many(150))
    record = worker.tasks.record("t1")
    assert (record["status"], record["output_key"]) == ("completed", "tasks/t1/images.json")
    assert "images" not in record
    listed = json.loads(worker.images.data["tasks/t1/images.json"])["images"]
    assert [image["seed"] for image in listed] == list(range(150))
    clock.advance(LEASE_S + 1)
    successor(worker).work()  # which must follow the pointer to tell of them
    [(message, _)] = topic.published
    assert len(message["image_url"]) == 150
    assert message["image_url"][-1] == "s3://pictures/tasks/t1/150.png"


def test_a_list_that_is_gone_does_not_keep_the_end_from_being_told(clock, topic):
    worker = Worker(clock, topic=topic, images=FakeImageStore())
    task = worker.take().task
    worker.tasks.put_record(
        {
            "task_id": "t1",
            "status": "completed",
            "attempt": 1,
            "runs": 1,
            "run_no": 1,
            "fingerprint": task.fingerprint,
            "finished_at": clock.now(),
            "output_key": "tasks/t1/images.json",
        }
    )
    worker.prepare()
    worker.announce()
    worker.delete()
    assert [(message["result"], message["image_url"]) for message, _ in topic.published] == [(True, [])]
