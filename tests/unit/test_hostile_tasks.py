"""One task must not stop the worker, whatever is in it, in its record, or in our code that it brings out."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import pytest
from fakes import FakeClock
from worker_in_memory import Worker

from scheduler.domain.claiming import NUMBERS
from scheduler.domain.errors import SchedulerError, Unavailable, Unstorable
from scheduler.domain.ports import Output
from scheduler.domain.surprises import MOST_SURPRISES
from scheduler.engines.sdwebui_names import Checkpoints, shown_hash, without_hash
from scheduler.loops.finish import StoreLoop
from scheduler.wire import predecessor


@pytest.fixture
def worker() -> Worker:
    return Worker(FakeClock())


@pytest.mark.parametrize("name", NUMBERS)
def test_a_foreign_record_with_words_for_numbers_is_a_conflict_and_left_alone(worker: Worker, name: str) -> None:
    record = {"task_id": "t1", "status": "failed", name: "2024-01-01T00:00:00Z"}
    worker.tasks.put_record(record)
    worker.send()
    worker.admit()
    worker.prepare()
    assert worker.tasks.record("t1") == record
    assert worker.held_ids == []
    assert [(message.message_id, why.field) for message, why in worker.queue.refused] == [("message-0-1", "task_id")]


def test_a_record_that_can_never_be_claimed_sends_its_message_to_a_person(worker: Worker) -> None:
    worker.tasks.fail_next(1, Unstorable("claiming task t1: Item size has exceeded the maximum"), on="claim")
    worker.send()
    worker.admit()
    worker.prepare()
    assert worker.held_ids == []
    assert "Item size" in worker.queue.refused[0][1].message
    assert worker.outages.trouble is None


def test_a_result_that_no_record_can_hold_fails_the_task_in_words(worker: Worker) -> None:
    worker.tasks.fail_next(1, Unstorable("finishing task t1: Item size has exceeded the maximum"), on="complete")
    worker.send()
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["error"]["class"]) == ("failed", "unstorable")
    assert worker.queue.bodies == []


def test_a_bug_that_a_task_brings_out_costs_it_runs_and_the_worker_goes_on(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    worker.send("bad")
    with monkeypatch.context() as patch:
        patch.setattr(worker.engine, "prepare", prepare)
        worker.receive()
        worker.prepare()
    record = worker.tasks.record("bad")
    assert (record["status"], record["runs"]) == ("pending", 1)
    assert worker.queue.delays == [("message-0-1", 5.0)]
    worker.send("good")
    worker.work()
    assert worker.tasks.record("good")["status"] == "completed"


def test_a_loop_that_fails_on_task_after_task_ends_so_that_it_is_started_anew(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(*_args: Any, **_kwargs: Any) -> None:
        raise ZeroDivisionError("a bug of ours")

    def surprised(_held: Any) -> None:
        return None

    monkeypatch.setattr(worker.processor, "finish", finish)
    monkeypatch.setattr(worker.processor, "surprised", surprised)
    picture = cast("Output", object())
    loop = StoreLoop(worker.finished, worker.processor, worker.budget)
    for n in range(MOST_SURPRISES - 1):
        held = worker.take(f"t{n}")
        for _ in range(3):  # a single task may come again and again: that speaks of the task
            loop._store(held, picture)
    with pytest.raises(ZeroDivisionError):
        loop._store(worker.take("the-last"), picture)


def test_a_bug_in_the_engines_thread_costs_the_task_a_run_and_the_worker_goes_on(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    worker.send("bad")
    with monkeypatch.context() as patch:
        patch.setattr(worker.engine, "generate", generate)
        worker.work()
    record = worker.tasks.record("bad")
    assert (record["status"], record["runs"]) == ("pending", 1)
    worker.send("good")
    worker.work()
    assert worker.tasks.record("good")["status"] == "completed"


def test_but_on_task_after_task_it_ends_the_engines_thread(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(worker.engine, "generate", generate)
    for n in range(MOST_SURPRISES - 1):
        worker.send(f"t{n}")
        worker.work()
    worker.send("the-last")
    with pytest.raises(ZeroDivisionError):
        worker.work()


REFERENCE = json.dumps({"taskId": "old-1", "storage": "dynamodb"})


def test_a_message_that_brings_out_a_bug_holds_up_none_beside_it(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse_record(*_args: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(predecessor, "parse_record", parse_record)
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": "{}"})
    worker.queue.send(REFERENCE)
    worker.send("good")
    worker.queue.send("not json")
    worker.admit()
    assert worker.held_ids == ["good"]
    assert worker.queue.delays == [("message-0-1", 5.0)]
    assert len(worker.queue.refused) == 1


def test_a_receiver_that_fails_on_message_after_message_ends(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_in(*_args: Any, **_options: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(worker.held, "take_in", take_in)
    for n in range(MOST_SURPRISES - 1):
        worker.send(f"t{n}")
    worker.admit()
    assert len(worker.queue.delays) == MOST_SURPRISES - 1
    worker.send("the-last")
    with pytest.raises(ZeroDivisionError):
        worker.admit()


@pytest.mark.parametrize("error", [Unavailable("throttled"), Unstorable("Item size has exceeded the maximum")])
def test_a_bad_record_that_cannot_be_closed_stops_nothing(worker: Worker, error: SchedulerError) -> None:
    worker.tasks.put_record({"task_id": "old-1", "taskStatus": "waiting", "requestData": "{"})
    worker.tasks.fail_next(1, error, on="close_unclaimed")
    worker.queue.send(REFERENCE)
    worker.send("good")
    worker.admit()
    assert worker.held_ids == ["good"]
    assert [message.body for message, _ in worker.queue.refused] == [REFERENCE]


def test_a_spent_task_whose_end_no_record_can_hold_goes_to_a_person(worker: Worker) -> None:
    worker.tasks.fail_next(1, Unstorable("Item size has exceeded the maximum"), on="close_unclaimed")
    held = worker.take()
    worker.tasks.put_record(
        {"task_id": "t1", "status": "pending", "runs": 3, "attempt": 3, "fingerprint": held.task.fingerprint}
    )
    worker.prepare()
    assert worker.held_ids == []
    assert "Item size" in worker.queue.refused[0][1].message


def test_names_of_any_length_are_looked_up_in_no_time() -> None:
    checkpoints = Checkpoints([{"title": "a.safetensors [0123456789]", "model_name": "a"}])
    began_s = time.process_time()
    for name in ("a" + " " * 1_000_000 + "b", "a [" * 300_000, "[" * 1_000_000 + "]"):
        assert checkpoints.find(name) is None
        shown_hash(name)
        without_hash(name)
    assert time.process_time() - began_s < 5.0  # a quadratic search would take minutes


@pytest.mark.parametrize(
    ("title", "shown", "bare"),
    [
        ("model.safetensors [3471f22757]", "3471f22757", "model.safetensors"),
        ("model.safetensors", None, "model.safetensors"),
        ("model [draft]", None, "model [draft]"),
        ("model []", None, "model []"),
        ("a [b] [AB12]", "AB12", "a [b]"),
    ],
)
def test_the_hash_of_a_title_is_what_stands_in_brackets_at_its_end(title: str, shown: str | None, bare: str) -> None:
    assert shown_hash(title) == shown
    assert without_hash(title) == bare
