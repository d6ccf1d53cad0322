"""The receive loop: when it asks, for how much, and when it asks for nothing at all."""

from __future__ import annotations

import itertools

import pytest
from worker_in_memory import Worker

from scheduler.domain.errors import AccessDenied, Unavailable
from scheduler.domain.pace import WINDOW_TASKS
from scheduler.domain.turns import LOWER_SHARE


@pytest.fixture
def worker(clock):
    return Worker(clock)


def fill(worker: Worker, count: int, *, queue: int = 0, first: int = 0, **changes) -> None:
    for n in range(first, first + count):
        worker.send(f"t{n}", queue=queue, **changes)


def asked(worker: Worker, queue: int = 0) -> list[int]:
    """Note from now on what each receive of a queue asks for."""
    counts: list[int] = []
    receive = worker.queues[queue].receive

    def noting(most: int, *, wait_s: int):
        counts.append(most)
        return receive(most, wait_s=wait_s)

    worker.queues[queue].receive = noting
    return counts


# just in time


def test_while_nothing_is_known_one_task_is_taken_for_each_engine(worker):
    counts = asked(worker)
    fill(worker, 5)
    worker.receive()
    worker.receive()
    assert counts == [1]
    assert worker.held_ids == ["t0"]


def test_and_the_next_when_the_engine_has_that_one(worker):
    fill(worker, 5)
    worker.receive()
    worker.prepare()
    worker.engine.meanwhile = worker.receive
    worker.render.cycle()
    assert len(worker.held_ids) == 2


@pytest.mark.parametrize(("render_s", "taken"), [(0.25, 8), (0.5, 4), (1.0, 2), (10.0, 1), (300.0, 1)])
def test_work_is_taken_for_as_many_seconds_as_receiving_may_take_and_no_more(worker, render_s, taken):
    worker.engine.render_s = render_s
    fill(worker, 40)
    worker.work()
    counts = asked(worker)
    worker.receive()
    assert counts == [taken]  # two seconds' worth, at least one
    before = len(worker.held_ids)
    worker.receive()
    assert len(worker.held_ids) == before


def test_a_long_task_that_runs_lets_others_have_the_rest(worker, clock):
    """What is held here is what an idle worker elsewhere cannot take."""
    worker.lane.pace.learn(60.0, 5.24288, switched=False)
    fill(worker, 10)
    worker.receive()
    worker.prepare()
    taken_after_s: list[float] = []

    def during_the_run() -> None:
        began_s = clock.monotonic()
        while len(worker.held_ids) == 1 and clock.monotonic() - began_s < 100.0:
            worker.receive()  # which waits a moment when there is no room
        taken_after_s.append(clock.monotonic() - began_s)

    worker.engine.meanwhile = during_the_run
    worker.render.cycle()
    [seconds] = taken_after_s
    assert 58.0 < seconds < 60.0  # the next is taken only when the present one is about to end
    assert worker.held_ids == ["t0", "t1"]


def test_never_more_is_asked_for_than_one_poll_may_bring(clock):
    worker = Worker(clock, most=3)
    worker.lane.pace.learn(0.01, 5.24288, switched=False)
    counts = asked(worker)
    fill(worker, 20)
    worker.receive()
    assert counts == [3]


def test_two_engines_need_twice_as_much(clock):
    worker = Worker(clock, engines=2)
    counts = asked(worker)
    fill(worker, 9)
    worker.receive()
    assert counts == [2]


# the checkpoint window


def test_mixed_work_from_a_deep_queue_is_taken_ten_deep_so_that_the_loaded_checkpoint_goes_first(worker):
    worker.lane.pace.learn(0.5, 5.24288, switched=False)
    for n in range(40):
        worker.send(f"t{n}", checkpoint="first" if n % 2 else "second")
    for _ in range(6):
        worker.receive()
    waiting = len(worker.held_ids)
    assert waiting == WINDOW_TASKS
    order = []
    for _ in range(5):
        worker.prepare()
        order.append(worker.lane.peek().task.checkpoint)
        worker.renders_until_settled()
    assert order == ["first"] * 5
    assert worker.engine.switches == 0


def test_the_window_is_for_mixed_work_only(worker):
    worker.lane.pace.learn(0.5, 5.24288, switched=False)
    fill(worker, 40)
    for _ in range(6):
        worker.receive()
    assert len(worker.held_ids) == 4


def test_and_for_a_deep_queue_only(worker):
    worker.lane.pace.learn(0.5, 5.24288, switched=False)
    for n in range(3):
        worker.send(f"t{n}", checkpoint="first" if n % 2 else "second")
    counts = asked(worker)
    worker.receive()
    worker.receive()
    assert counts == [4]  # it brought three of four: the queue is not deep


def test_while_nothing_is_known_mixed_work_doubles_with_each_full_receive(worker):
    for n in range(40):
        worker.send(f"t{n}", checkpoint="first" if n % 2 else "second")
    counts = asked(worker)
    for _ in range(5):
        worker.receive()
    assert counts == [1, 2, 4, 3]
    assert len(worker.held_ids) == WINDOW_TASKS


# when nothing is asked for


def test_nothing_is_received_while_no_engine_is_ready(worker):
    fill(worker, 3)
    worker.lane.set_ready(ready=False, why="starting")
    for _ in range(20):
        worker.receive()
    assert worker.journal.calls == []
    worker.lane.set_ready(ready=True)
    worker.receive()
    assert worker.held_ids == ["t0"]


def test_nothing_is_received_while_this_hosts_clock_is_wrong(worker):
    fill(worker, 3)
    worker.skewed = "this host's clock is at least 9 s off AWS's"
    worker.receive()
    assert worker.journal.calls == []
    worker.skewed = None
    worker.receive()
    assert worker.held_ids == ["t0"]


def test_nothing_is_received_while_a_result_cannot_be_stored(worker):
    fill(worker, 3)
    worker.outages.set_trouble("t9", "S3 does not answer")
    worker.receive()
    assert worker.journal.calls == []


# failures


def test_a_queue_that_does_not_answer_is_asked_again_ever_later_and_shown_in_health(worker):
    worker.queue.fail_next(7, Unavailable("SQS does not answer"), on="receive")
    fill(worker, 1)
    loop = worker.receives[0]
    for _ in range(7):
        worker.receive()
        assert loop.trouble == "SQS does not answer"
    assert worker.stop.waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert loop.last_poll_s is None
    worker.receive()
    assert loop.trouble is None
    assert loop.last_poll_s is not None
    assert worker.held_ids == ["t0"]
    assert worker.counted("aws_errors_total") == 7


def test_after_it_answered_the_waits_begin_anew(worker):
    worker.queue.fail_next(3, Unavailable("down"), on="receive")
    for _ in range(4):
        worker.receive()
    worker.queue.fail_next(1, AccessDenied("no policy allows it"), on="receive")
    worker.receive()
    assert worker.stop.waits == [1.0, 2.0, 4.0, 1.0]


def test_references_that_cannot_be_read_count_as_a_failure_of_the_receive(worker):
    worker.queue.send('{"taskId": "old-1", "storage": "dynamodb"}')
    worker.tasks.fail_next(1, Unavailable("throttled"), on="read")
    worker.receive()
    assert worker.receives[0].trouble == "throttled"
    assert worker.queue.delays == [("message-0-1", 5.0)]


# several queues


def test_while_the_higher_queue_is_full_one_receive_in_eight_goes_to_the_lower(clock):
    worker = Worker(clock, queues=2)
    for index in (0, 1):
        for n in range(400):
            worker.send(f"q{index}-{n}", queue=index)
    counts = [0, 0]
    for _ in range(160):
        for index in (0, 1):
            before = len(worker.journal.of("queue.receive"))
            worker.receive(index)
            counts[index] += len(worker.journal.of("queue.receive")) - before
            for held in worker.held.all():
                worker.held.drop(held)
    assert counts[1] == pytest.approx(sum(counts) / LOWER_SHARE, abs=1.5)


def test_a_lower_queue_is_served_when_the_higher_is_empty(clock):
    worker = Worker(clock, queues=2)
    worker.send("low", queue=1)
    worker.receive(0)
    worker.receive(1)
    assert worker.held_ids == ["low"]


def test_of_two_held_tasks_the_higher_queues_goes_first(clock):
    worker = Worker(clock, queues=2)
    worker.send("low", queue=1)
    worker.send("high", queue=0)
    worker.admit(1)
    worker.admit(0)
    worker.prepare()
    assert worker.lane.peek().task.task_id == "high"


def test_what_is_in_hand_of_one_queue_leaves_no_room_for_another(clock):
    worker = Worker(clock, queues=2)
    worker.send("high", queue=0)
    worker.send("low", queue=1)
    worker.receive(0)
    worker.receive(1)
    assert worker.held_ids == ["high"]


# stopping


def test_after_the_stop_it_asks_no_more(worker):
    fill(worker, 2)
    worker.stop.set(90.0)
    worker.receives[0].run()
    assert worker.journal.calls == []


def test_what_the_outstanding_long_poll_brings_is_given_back_at_once(worker):
    fill(worker, 2)
    receive = worker.queue.receive

    def stopped_meanwhile(most: int, *, wait_s: int):
        worker.stop.set(90.0)
        return receive(most, wait_s=wait_s)

    worker.queue.receive = stopped_meanwhile
    worker.receives[0].run()
    assert worker.queue.delays == [("message-0-1", 0.0)]
    assert worker.held_ids == []
    assert worker.queue.hidden == []


@pytest.mark.parametrize("render_s", [2.0, 5.0, 30.0])
def test_the_higher_queue_gets_seven_of_eight_however_long_renders_take_and_whichever_receiver_is_quicker(
    clock, render_s
):
    worker = Worker(clock, queues=2, render_s=0.0)
    for n in range(60):
        worker.send(f"high-{n}", queue=0)
        worker.send(f"low-{n}", queue=1)
    turn = itertools.cycle([(0, 1), (1, 0), (1, 0)])

    def during_the_run() -> None:
        until_s = clock.monotonic() + render_s
        while clock.monotonic() < until_s:
            for index in next(turn):
                worker.receive(index)  # which waits a moment when there is no room
            worker.prepare()
            worker.keep()

    worker.engine.meanwhile = during_the_run
    for index in next(turn):
        worker.receive(index)
    worker.prepare()
    worker.renders_until_settled()
    first = worker.engine.posted[:48]  # of 60 in each queue, so that both are full all the while
    low = sum(task_id.startswith("low") for task_id in first)
    assert 2 <= low <= len(first) / LOWER_SHARE + 2
