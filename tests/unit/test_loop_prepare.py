"""The prepare loop: how far ahead it claims, what it does with what cannot be prepared, how memory bounds it."""

from __future__ import annotations

import pytest
from worker_in_memory import Worker

from scheduler.domain.errors import EngineDown, EngineLost, Rejected
from scheduler.domain.pace import MOST_AHEAD, MOST_IN_LINE
from scheduler.held import State
from scheduler.loops.lane import SLOW_S
from scheduler.loops.prepare import MAX_UNSTARTED_S, MOST_BLAMED


@pytest.fixture
def worker(clock):
    return Worker(clock)


def states(worker: Worker) -> dict[str, State]:
    return {held.task.task_id: held.state for held in worker.held.all()}


def in_line(worker: Worker) -> list[str]:
    return [task_id for task_id, state in states(worker).items() if state is not State.WAITING]


def fill(worker: Worker, count: int, **changes) -> None:
    for n in range(count):
        worker.send(f"t{n}", **changes)
    worker.admit()


# how far ahead


def test_only_the_next_task_of_an_engine_is_claimed(worker):
    fill(worker, 4)
    for _ in range(4):
        worker.prepare()
    assert states(worker) == {
        "t0": State.READY,
        "t1": State.WAITING,
        "t2": State.WAITING,
        "t3": State.WAITING,
    }
    assert worker.journal.of("tasks.claim") == ["tasks.claim"]


def test_the_next_is_claimed_while_the_present_one_renders(worker):
    fill(worker, 3)
    worker.prepare()
    seen: list[dict[str, State]] = []
    worker.engine.meanwhile = lambda: (worker.prepare(), worker.prepare(), seen.append(states(worker)))
    worker.render.cycle()
    assert seen == [{"t0": State.RUNNING, "t1": State.READY, "t2": State.WAITING}]


def test_where_claiming_is_slower_than_rendering_a_few_are_claimed_ahead(worker):
    worker.lane.pace.learn(0.02, 1.0, switched=False)
    worker.lane.pace.learn_claim(1.0)
    fill(worker, 6)
    for _ in range(6):
        worker.prepare()
    assert worker.lane.pace.ahead() == MOST_AHEAD == 4
    assert list(states(worker).values()).count(State.READY) == MOST_AHEAD


def test_each_engine_has_its_own_next(clock):
    worker = Worker(clock, engines=2)
    fill(worker, 3)
    for lane in (0, 1, 0, 1):
        worker.prepare(lane)
    assert [lane.peek().task.task_id for lane in worker.lanes] == ["t0", "t1"]
    assert states(worker)["t2"] is State.WAITING


def test_the_loaded_checkpoint_goes_first(worker):
    worker.send("other", checkpoint="second")
    worker.send("same", checkpoint="first")
    worker.admit()
    worker.prepare()
    assert worker.lane.peek().task.task_id == "same"


def test_the_checkpoint_of_the_line_counts_as_loaded(worker):
    """What runs next decides what is loaded then, not what is loaded now."""
    worker.claimed("running", checkpoint="second")
    worker.send("a", checkpoint="first")
    worker.send("b", checkpoint="second")
    worker.admit()
    worker.engine.meanwhile = worker.prepare
    worker.render.cycle()
    assert worker.lane.peek().task.task_id == "b"


def test_a_task_whose_pictures_do_not_come_leaves_the_engine_to_others(worker, clock):
    fill(worker, MOST_IN_LINE + 2)
    prepare, seen = worker.engine.prepare, []

    def slow(task, *, seed_key):
        if task.task_id == "t0":
            worker.prepare()
            seen.append(in_line(worker))  # it may be ready in a moment
            clock.advance(SLOW_S + 0.1)
            worker.prepare()
            seen.append(in_line(worker))
        return prepare(task, seed_key=seed_key)

    worker.engine.prepare = slow
    worker.prepare()
    assert seen == [["t0"], ["t0", "t1"]]
    assert states(worker)["t1"] is State.READY


def test_however_many_are_slow_a_few_are_claimed_and_no_more(worker, clock):
    fill(worker, MOST_IN_LINE + 2)
    prepare = worker.engine.prepare

    def slow(task, *, seed_key):
        clock.advance(SLOW_S + 0.1)
        worker.prepare()
        return prepare(task, seed_key=seed_key)

    worker.engine.prepare = slow
    worker.prepare()
    assert len(in_line(worker)) == MOST_IN_LINE


# an engine that is not there


def test_nothing_is_claimed_for_an_engine_that_is_down(worker):
    fill(worker, 2)
    worker.lane.set_ready(ready=False)
    worker.prepare()
    assert worker.journal.of("tasks.claim") == []
    assert set(states(worker).values()) == {State.WAITING}


def test_what_waits_for_ten_minutes_is_given_back_with_back_off(worker, clock):
    fill(worker, 2)
    worker.lane.set_ready(ready=False)
    began_s = clock.monotonic()
    while worker.held.all():
        assert clock.monotonic() - began_s < 2 * MAX_UNSTARTED_S
        worker.prepare()
    assert clock.monotonic() - began_s == pytest.approx(MAX_UNSTARTED_S, abs=1.0)
    assert worker.queue.delays == [("message-0-1", 5.0), ("message-0-2", 5.0)]
    assert worker.tasks.records == {}


def test_an_engine_that_goes_away_before_the_post_costs_the_task_nothing(worker):
    worker.engine.fail_next(1, EngineDown("it must be asked and does not answer"), on="prepare")
    worker.engine.fail_next(1, EngineDown("nobody listens"), on="probe")
    fill(worker, 1)
    worker.prepare()
    assert not worker.lane.is_ready
    assert states(worker) == {"t0": State.WAITING}
    record = worker.tasks.record("t0")
    assert (record["status"], record["runs"]) == ("pending", 0)
    assert "lease_until" not in record
    assert worker.queue.delays == []  # the message stays here: the engine may be back at once
    worker.render.cycle()
    worker.prepare()
    worker.renders_until_settled()
    worker.store()
    assert worker.status("t0") == "completed"
    assert worker.tasks.record("t0")["runs"] == 1


def test_a_task_for_which_a_working_engine_has_no_answer_fails_in_the_end_and_holds_up_nobody(worker, clock):
    prepare = worker.engine.prepare

    def choosy(task, *, seed_key):
        if task.task_id == "poison":
            raise EngineDown("/object_info/x answered with something that is not JSON")
        return prepare(task, seed_key=seed_key)

    worker.engine.prepare = choosy
    worker.send("poison")
    for n in range(3):
        worker.send(f"good-{n}")
    worker.work(rounds=4)
    assert [worker.status(f"good-{n}") for n in range(3)] == ["completed"] * 3
    assert worker.lane.is_ready
    until_s = clock.monotonic() + 3600
    while worker.status("poison") == "pending" and clock.monotonic() < until_s:
        clock.advance(10)
        worker.work()
    assert worker.status("poison") == "failed"
    assert "/object_info/x" in worker.tasks.record("poison")["error"]["message"]


def test_an_engine_that_can_prepare_nothing_at_all_fails_no_task(worker, clock):
    worker.engine.fail_next(10_000, EngineDown("/upload/image was answered with 500"), on="prepare")
    for n in range(8):
        worker.send(f"t{n}")
    until_s = clock.monotonic() + 3600
    while clock.monotonic() < until_s:
        worker.work()
        clock.advance(10)
    statuses = [worker.status(f"t{n}") for n in range(8) if worker.tasks.record(f"t{n}")]
    assert statuses.count("failed") <= MOST_BLAMED


def test_an_engine_that_renders_stays_ready_though_it_had_no_answer_for_the_next(worker):
    fill(worker, 2)
    worker.prepare()

    def silent() -> None:
        worker.engine.fail_next(1, EngineDown("no answer"), on="prepare")
        worker.engine.fail_next(1, EngineDown("no answer"), on="probe")
        worker.prepare()

    worker.engine.meanwhile = silent
    worker.render.cycle()
    assert worker.lane.is_ready


def test_a_place_in_the_line_is_free_again_when_the_claim_was_refused(worker):
    fill(worker, 1, payload={"steps": 0})
    worker.prepare()
    assert worker.status("t0") == "failed"
    worker.claimed("good")
    assert worker.lane.peek().task.task_id == "good"


def test_the_seed_is_fixed_from_task_and_run(worker):
    one = worker.claimed("a")
    again = worker.engine.prepare(one.task, seed_key="a:1")
    other = worker.engine.prepare(one.task, seed_key="a:2")
    assert one.run.body == again.body != other.body


# memory


def test_what_a_task_may_need_is_reserved_until_it_is_stored(clock):
    worker = Worker(clock, memory_bytes=2000)
    worker.send(payload={"batch_size": 2})
    worker.admit()
    worker.prepare()
    assert not worker.budget.reserve(1, 0.0)
    worker.renders_until_settled()
    assert not worker.budget.reserve(1, 0.0)
    worker.store()
    assert worker.budget.reserve(2000, 0.0)


@pytest.mark.parametrize("end", ["failed", "back", "lost"])
def test_it_comes_free_however_the_run_ends(clock, end):
    worker = Worker(clock, memory_bytes=1000)
    held = worker.claimed()
    if end == "lost":
        held.is_lost = True
    else:
        worker.engine.fail_next(1, Rejected("no") if end == "failed" else EngineLost("it died"), on="generate")
    worker.renders_until_settled()
    worker.store()
    assert worker.budget.reserve(1000, 0.0)


def test_a_task_waits_for_memory_and_says_so(clock):
    worker = Worker(clock, memory_bytes=1500)
    worker.lane.pace.learn(0.001, 1.0, switched=False)
    worker.lane.pace.learn_claim(1.0)
    worker.claimed("first")
    worker.take("second")
    said: list[str] = []

    def meanwhile() -> None:
        said.append(worker.held.describe()[1]["why"])
        if len(said) == 3:
            worker.renders_until_settled()
            worker.store()

    worker.budget.meanwhile = meanwhile
    worker.prepare()
    assert said == ["waiting for memory"] * 3
    assert worker.status("first") == "completed"
    assert worker.one("second").state is State.READY


def test_a_stop_while_it_waits_for_memory_gives_it_back_unspent(clock):
    worker = Worker(clock, memory_bytes=1500)
    worker.lane.pace.learn(0.001, 1.0, switched=False)
    worker.lane.pace.learn_claim(1.0)
    worker.claimed("first")
    worker.take("second")
    worker.budget.meanwhile = lambda: worker.stop.set(90.0)
    worker.prepare()
    assert (worker.status("second"), worker.tasks.record("second")["runs"]) == ("pending", 0)
    assert worker.queue.delays == [("message-0-2", 0.0)]
