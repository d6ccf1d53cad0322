"""One task must not stop the worker, whatever is in it, in its record, or in our code that it brings out."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from fakes import FakeClock
from worker_in_memory import Worker

from scheduler.domain.claiming import NUMBERS
from scheduler.domain.errors import Unstorable
from scheduler.domain.ports import Output
from scheduler.engines.sdwebui_names import Checkpoints, shown_hash, without_hash
from scheduler.loops.finish import StoreLoop
from scheduler.task_processor import MOST_SURPRISES


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
    assert worker.processor.trouble is None


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
    held, picture = worker.take("t1"), cast("Output", object())
    loop = StoreLoop(worker.finished, worker.processor, worker.budget)
    for _ in range(MOST_SURPRISES - 1):
        loop._store(held, picture)
    with pytest.raises(ZeroDivisionError):
        loop._store(held, picture)


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
