"""Pictures in the making: shown on request, replaced as they grow, taken away at the end; they cost nothing else."""

from __future__ import annotations

import io

import pytest
from fakes import FakeClock
from PIL import Image
from worker_in_memory import Worker

from scheduler.domain.ports import Preview
from scheduler.loops.preview import MAX_SIDE
from scheduler.loops.progress import ProgressLoop

KEY = "tasks/t1/preview.jpg"


def picture(color: str, side: int = 512) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), color).save(out, "PNG")
    return out.getvalue()


class Scene:
    """A worker whose one task runs as long as the test looks at it."""

    def __init__(self, clock: FakeClock, **message: object) -> None:
        self.worker = Worker(clock)
        self.store, self.loop = self.worker.shown, self.worker.previews
        self.worker.send("t1", **message)
        self.worker.receive()
        self.worker.prepare()

    def during(self, act) -> None:
        """Let the task render, and `act` meanwhile."""
        self.worker.engine.meanwhile = act
        self.worker.renders_until_settled()


@pytest.fixture
def scene(clock: FakeClock) -> Scene:
    return Scene(clock, preview=True)


def test_it_is_small_grows_and_is_gone_in_the_end(scene):
    seen: list[bytes] = []

    def look() -> None:
        for color in ("red", "red", "blue"):
            scene.worker.engine.preview_now = Preview(picture(color), "image/png")
            scene.loop.cycle()
            seen.append(scene.store.pictures[KEY])

    scene.during(look)
    with Image.open(io.BytesIO(seen[0])) as first:
        assert (first.format, max(first.size)) == ("JPEG", MAX_SIDE)
    assert seen[0] == seen[1] != seen[2]
    assert scene.store.puts == 2, "what has not changed is not sent again"
    scene.loop.cycle()
    assert scene.store.pictures == {}


def test_its_place_is_in_the_record_while_it_lies_there(scene):
    def look() -> None:
        scene.worker.engine.preview_now = Preview(picture("red"), "image/png")
        scene.loop.cycle()
        ProgressLoop(scene.worker.lanes).cycle()
        scene.worker.clock.advance(60)
        scene.worker.keep()
        assert scene.worker.tasks.record("t1")["preview_key"] == KEY

    scene.during(look)
    scene.worker.store()
    record = scene.worker.tasks.record("t1")
    assert record["status"] == "completed"
    assert "preview_key" not in record


def test_without_the_wish_there_is_none(clock):
    scene = Scene(clock)

    def look() -> None:
        scene.worker.engine.preview_now = Preview(picture("red"), "image/png")
        scene.loop.cycle()

    scene.during(look)
    assert scene.store.puts == 0


@pytest.mark.parametrize("data", [b"no picture", picture("red")[:60]], ids=["nonsense", "cut short"])
def test_what_cannot_be_shown_is_no_harm(scene, data):
    def look() -> None:
        scene.worker.engine.preview_now = Preview(data, "image/png")
        scene.loop.cycle()

    scene.during(look)
    scene.worker.store()
    assert scene.worker.tasks.record("t1")["status"] == "completed"


def test_what_could_not_be_taken_away_is_at_the_next_turn(scene):
    def look() -> None:
        scene.worker.engine.preview_now = Preview(picture("red"), "image/png")
        scene.loop.cycle()

    scene.during(look)
    scene.store.is_down = True
    scene.loop.cycle()
    assert KEY in scene.store.pictures
    scene.store.is_down = False
    scene.loop.clear()
    assert scene.store.pictures == {}


class Killed(BaseException):
    """What no handler catches."""


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_what_a_worker_died_over_showing_is_taken_away_whoever_ends_the_task(clock, end):
    worker = Worker(clock, max_runs=1 if end == "failed" else 3)
    worker.send("t1", preview=True)
    worker.receive()
    worker.prepare()

    def die() -> None:
        worker.engine.preview_now = Preview(picture("red"), "image/png")
        worker.previews.cycle()
        raise Killed

    worker.engine.meanwhile = die
    with pytest.raises(Killed):
        worker.render.cycle()
    assert list(worker.shown.pictures) == [KEY]
    if end == "cancelled":
        worker.tasks.request_cancel("t1")
    clock.advance(400)  # its lease and its visibility run out
    other = Worker(
        clock, tasks=worker.tasks, queue=worker.queue, images=worker.images, max_runs=1 if end == "failed" else 3
    )
    other.shown.pictures = worker.shown.pictures
    until_s = clock.monotonic() + 1000
    while other.status("t1") != end and clock.monotonic() < until_s:
        other.work()
        clock.advance(10)
    other.previews.cycle()
    assert (other.status("t1"), list(worker.shown.pictures)) == (end, [])
