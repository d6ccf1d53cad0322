"""The fakes fit the ports, fail when told, and the engine that has no contract suite does what the port says."""

from __future__ import annotations

import inspect
import io
import json
import threading
from typing import Any

import pytest
from fakes import FakeAnswer, FakeClock, FakeEngine, FakeImageStore, FakeQueue, FakeTaskStore
from PIL import Image

from scheduler.domain import ports
from scheduler.domain.claiming import Refused
from scheduler.domain.errors import (
    BadResult,
    DeadlineExceeded,
    EngineDown,
    Interrupted,
    OutOfMemory,
    Rejected,
    Unavailable,
)
from scheduler.domain.task import EngineImage, Message, Task, TaskType

PICTURE = EngineImage(data=b"x", media_type="image/png", extension=".png", width=1, height=1)


def task(**payload: Any) -> Task:
    return Task(task_id="task-1", task_type=TaskType.TXT2IMG, payload=payload, fingerprint="f")


def message(clock: FakeClock) -> Message:
    return Message(
        queue=0, message_id="m", receipt="r", body="", sent_at_s=clock.now(), receive_count=1, received_s=0.0
    )


@pytest.mark.parametrize(
    ("fake", "port"),
    [
        (FakeClock, ports.Clock),
        (FakeTaskStore, ports.TaskStore),
        (FakeQueue, ports.MessageQueue),
        (FakeImageStore, ports.ImageStore),
        (FakeEngine, ports.Engine),
        (FakeAnswer, ports.Answer),
    ],
)
def test_fake_takes_what_its_port_takes(fake: type, port: type) -> None:
    calls = {name: call for name, call in vars(port).items() if callable(call) and not name.startswith("_")}
    assert calls
    for name, call in calls.items():
        assert _shape(getattr(fake, name)) == _shape(call), name


def _shape(call: Any) -> list[tuple[str, Any]]:
    return [(parameter.name, parameter.kind) for parameter in inspect.signature(call).parameters.values()]


# failures on order


def test_ordered_failures_come_as_often_as_ordered_and_then_no_more() -> None:
    images = FakeImageStore()
    images.fail_next(2, Unavailable("S3 is down"))
    for _ in range(2):
        with pytest.raises(Unavailable, match="S3 is down"):
            images.put("key", PICTURE)
    assert not images.stored
    images.put("key", PICTURE)
    assert list(images.stored) == ["key"]
    assert images.faults.calls["put"] == 3


def test_failure_ordered_for_one_call_spares_the_others(clock: FakeClock) -> None:
    queue = FakeQueue(clock)
    queue.send("body")
    queue.fail_next(1, Unavailable("no deletes today"), on="delete")
    (received,) = queue.receive(1, wait_s=0)
    assert queue.extend([received.receipt]) == []
    with pytest.raises(Unavailable):
        queue.delete([received.receipt])
    assert queue.bodies == ["body"]
    assert queue.delete([received.receipt]) == []
    assert (queue.bodies, queue.deleted) == ([], [received.message_id])


def test_lost_answer_comes_after_the_effect(clock: FakeClock) -> None:
    tasks = FakeTaskStore(clock)
    tasks.fail_next(1, Unavailable("no answer"), on="claim", applied=True)
    with pytest.raises(Unavailable):
        tasks.claim(task(), message(clock), owner="nonce-1", lease_s=30)
    assert tasks.records["task-1"]["owner"] == "nonce-1"
    again = tasks.claim(task(), message(clock), owner="nonce-1", lease_s=30)
    assert not isinstance(again, Refused)
    assert (again.attempt, again.runs) == (1, 1)


def test_mended_world_owes_no_failures(clock: FakeClock) -> None:
    queue = FakeQueue(clock)
    queue.fail_next(100, Unavailable("down"))
    queue.faults.clear()
    assert queue.receive(1, wait_s=0) == []


def test_what_a_test_reads_is_a_copy(clock: FakeClock) -> None:
    tasks = FakeTaskStore(clock)
    tasks.put_record({"task_id": "task-1", "status": "pending"})
    seen = tasks.record("task-1")
    assert seen is not None
    seen["status"] = "changed"
    tasks.read(["task-1"])["task-1"]["status"] = "changed"
    assert tasks.records["task-1"]["status"] == "pending"


def test_wall_clock_can_jump_alone(clock: FakeClock) -> None:
    steady = clock.monotonic()
    clock.set_wall(5.0)
    assert (clock.now(), clock.monotonic()) == (5.0, steady)
    clock.advance(1.5)
    assert (clock.now(), clock.monotonic()) == (6.5, steady + 1.5)


# the engine


def test_pictures_follow_from_the_request(clock: FakeClock) -> None:
    engine = FakeEngine(clock, render_s=3.0)
    run = engine.prepare(task(prompt="a fox", batch_size=2), seed_key="task-1/1")
    before_s = clock.monotonic()
    first = engine.generate(run, deadline_s=10).output()
    again = engine.generate(engine.prepare(run.task, seed_key="task-1/1"), deadline_s=10).output()
    other = engine.generate(engine.prepare(run.task, seed_key="task-1/2"), deadline_s=10).output()

    assert clock.monotonic() == before_s + 9.0
    assert first == again
    assert len(first.images) == run.image_count == 2
    assert first.images[0].data != first.images[1].data
    assert first.images[0].data != other.images[0].data
    with Image.open(io.BytesIO(first.images[0].data)) as picture:
        assert picture.size == (first.images[0].width, first.images[0].height)


def test_given_seed_is_kept(clock: FakeClock) -> None:
    engine = FakeEngine(clock)
    output = engine.generate(engine.prepare(task(seed=41, n_iter=2), seed_key="k"), deadline_s=10).output()
    assert [image.seed for image in output.images] == [41, 42]


def test_smaller_run_is_for_the_same_pictures(clock: FakeClock) -> None:
    engine = FakeEngine(clock)
    run = engine.prepare(task(batch_size=4), seed_key="k")
    smaller = engine.smaller(run)
    assert json.loads(smaller.body)["batch_size"] == 1
    whole, single = (engine.generate(r, deadline_s=10).output() for r in (run, smaller))
    assert whole.images == single.images


def test_checkpoints_are_found_by_part_of_their_title_and_switches_counted(clock: FakeClock) -> None:
    engine = FakeEngine(clock)
    assert engine.title(None) == engine.loaded() == "first.safetensors [11aa]"
    assert engine.title("unknown") == "unknown"
    run = engine.prepare(task(override_settings={"sd_model_checkpoint": "second"}), seed_key="k")
    assert run.checkpoint == "second.safetensors [22bb]"
    for _ in range(2):
        assert engine.generate(run, deadline_s=10).output().checkpoint == run.checkpoint
    assert (engine.switches, engine.loaded()) == (1, run.checkpoint)


def test_task_that_is_wrong_names_the_field(clock: FakeClock) -> None:
    with pytest.raises(Rejected) as caught:
        FakeEngine(clock).prepare(task(steps=0), seed_key="k")
    assert caught.value.field == "payload.steps"


def test_engine_that_is_down_takes_nothing(clock: FakeClock) -> None:
    engine = FakeEngine(clock, can_restart=True)
    run = engine.prepare(task(), seed_key="k")
    engine.is_up = False
    for call in (engine.probe, engine.free_memory, lambda: engine.golden(deadline_s=1)):
        with pytest.raises(EngineDown):
            call()
    with pytest.raises(EngineDown):
        engine.generate(run, deadline_s=10)
    assert engine.posts == []
    assert engine.loaded() is None
    assert engine.restart()
    engine.probe()
    assert not FakeEngine(clock).restart()


def test_ordered_failures_come_where_they_belong(clock: FakeClock) -> None:
    engine = FakeEngine(clock)
    run = engine.prepare(task(), seed_key="k")
    engine.fail_next(1, OutOfMemory("too big"), on="generate")
    engine.fail_next(1, BadResult("half a picture"), on="output")
    with pytest.raises(OutOfMemory):
        engine.generate(run, deadline_s=10)
    answer = engine.generate(run, deadline_s=10)
    with pytest.raises(BadResult):
        answer.output()
    assert len(engine.posts) == 2


def test_request_is_sent_only_when_the_engine_takes_it(clock: FakeClock) -> None:
    engine = FakeEngine(clock)
    run = engine.prepare(task(), seed_key="k")
    sent: list[int] = []
    engine.fail_next(1, EngineDown("refused"), on="connect")
    engine.fail_next(1, OutOfMemory("too big"), on="generate")
    for error in (EngineDown, OutOfMemory):
        with pytest.raises(error):
            engine.generate(run, deadline_s=10, on_sent=lambda _: sent.append(len(engine.posts)))
    assert sent == [1]
    assert engine.posts == [run]


def test_render_longer_than_its_deadline_is_ended(clock: FakeClock) -> None:
    engine = FakeEngine(clock, render_s=100.0)
    before_s = clock.monotonic()
    with pytest.raises(DeadlineExceeded):
        engine.generate(engine.prepare(task(), seed_key="k"), deadline_s=10.0)
    assert clock.monotonic() == before_s + 10.0


def test_held_render_runs_until_it_is_let_go_or_interrupted(clock: FakeClock) -> None:
    engine = FakeEngine(clock)
    run = engine.prepare(task(), seed_key="k")
    assert not engine.interrupt(run)
    assert engine.progress() is None
    for release in ("let_go", "interrupt"):
        engine.hold()
        ends: list[str] = []

        def render(ends: list[str] = ends) -> None:
            try:
                engine.generate(run, deadline_s=10)
                ends.append("done")
            except Interrupted:
                ends.append("interrupted")

        thread = threading.Thread(target=render)
        thread.start()
        assert engine.wait_until_running() is run
        progress = engine.progress()
        assert progress is not None
        assert 0 < progress.percent < 100
        assert not engine.interrupt(engine.smaller(run)), "another run is no reason to end this one"
        if release == "let_go":
            engine.let_go()
        else:
            assert engine.interrupt(run)
        thread.join(5)
        assert ends == ["done" if release == "let_go" else "interrupted"]
