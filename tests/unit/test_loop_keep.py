"""The keepers: how often they extend and renew, what a failure changes, what a renewal's answer does."""

from __future__ import annotations

import itertools

import pytest
from worker_in_memory import LEASE_S, PERIOD_S, Worker

from scheduler.domain.errors import Unavailable, Unstorable
from scheduler.domain.task import Progress
from scheduler.held import State


@pytest.fixture
def worker(clock):
    return Worker(clock)


def keep_for(worker: Worker, seconds: float) -> None:
    """Let the keepers turn as often as their thread lets them, for so long."""
    for _ in range(round(seconds / PERIOD_S)):
        worker.clock.advance(PERIOD_S)
        worker.keep()


def take_over(worker: Worker, task_id: str = "t1") -> None:
    record = worker.tasks.record(task_id)
    worker.tasks.put_record(record | {"owner": "thief", "attempt": record["attempt"] + 1})


# visibility


@pytest.mark.parametrize("first_s", [PERIOD_S, PERIOD_S - 1.0, PERIOD_S / 2, 0.5])
def test_whatever_is_held_stays_hidden_and_is_extended_each_sixth_of_the_lease(worker, clock, first_s):
    """Wherever between two of the keeper's turns it was received."""
    worker.send()
    worker.admit()
    gaps, last_s = [], clock.monotonic()
    for turn in range(200):
        clock.advance(PERIOD_S if turn else first_s)
        assert worker.queue.hidden == ["message-0-1"]
        before = len(worker.journal.calls)
        worker.visibility.cycle(due_after_s=PERIOD_S / 2)
        if len(worker.journal.calls) > before:
            gaps.append(clock.monotonic() - last_s)
            last_s = clock.monotonic()
    assert max(gaps) <= 1.5 * PERIOD_S
    assert min(gaps) >= PERIOD_S / 2
    assert len(gaps) >= 199


def test_messages_are_extended_together(worker):
    for n in range(5):
        worker.send(f"t{n}")
    worker.admit()
    keep_for(worker, PERIOD_S)
    assert worker.journal.of("queue.extend") == ["queue.extend"]


def test_what_was_just_received_is_not_extended_yet(worker, clock):
    clock.advance(PERIOD_S / 2 - 0.1)
    worker.send()
    worker.admit()
    clock.advance(PERIOD_S / 2 - 0.1)
    worker.keep()
    assert worker.journal.of("queue.extend") == []


def test_every_message_of_a_task_is_extended_each_in_its_queue(clock):
    worker = Worker(clock, queues=2)
    worker.send(queue=0)
    worker.send(queue=0)
    worker.send(queue=1)
    worker.admit(0)
    worker.admit(1)
    keep_for(worker, 10 * LEASE_S)
    assert [len(queue.hidden) for queue in worker.queues] == [2, 1]


def test_a_failed_extension_stops_no_work_and_is_made_good_next_time(worker, clock):
    worker.claimed()
    worker.queue.fail_next(3, Unavailable("down"), on="extend")
    keep_for(worker, 3 * PERIOD_S)
    assert worker.counted("aws_errors_total") == 3
    assert worker.queue.hidden == ["message-0-1"]
    keep_for(worker, 10 * LEASE_S)
    assert worker.queue.hidden == ["message-0-1"]
    worker.renders_until_settled()
    worker.store()
    assert worker.status() == "completed"


def test_an_extension_that_sqs_refuses_stops_no_work(worker):
    worker.claimed()
    worker.queue._lying["message-0-1"].receipt = "somebody's"
    keep_for(worker, PERIOD_S)
    worker.renders_until_settled()
    worker.store()
    assert worker.status() == "completed"


def test_a_queue_that_is_down_does_not_keep_the_other_from_being_extended(clock):
    worker = Worker(clock, queues=2)
    for index in range(2):
        worker.send(f"t{index}", queue=index)
        worker.admit(index)
    worker.queues[0].fail_next(1, Unavailable("down"), on="extend")
    clock.advance(LEASE_S - 1)
    worker.keep()
    clock.advance(2.0)
    assert worker.queues[1].hidden == ["message-1-1"]


def test_what_goes_back_is_not_hidden_again(worker):
    held = worker.take()
    worker.held.move(held, State.RETURNING)
    keep_for(worker, LEASE_S)
    assert worker.journal.of("queue.extend") == []


# claims


@pytest.mark.parametrize("state", [State.READY, State.RUNNING, State.FINISHING])
def test_a_claim_is_renewed_each_sixth_of_its_lease_whatever_is_done_with_the_task(worker, clock, state):
    held = worker.claimed()
    worker.held.move(held, state)
    for _ in range(60):
        keep_for(worker, PERIOD_S)
        assert worker.tasks.record("t1")["lease_until"] == clock.now() + LEASE_S
    assert len(worker.journal.of("tasks.renew")) == 60


def test_a_claim_is_renewed_while_its_task_waits_for_memory(clock):
    """Results that cannot be stored may fill the memory for hours."""
    worker = Worker(clock, memory_bytes=1500)
    worker.claimed("first")
    worker.take("second")
    worker.lane.pace.learn(0.001, 1.0, switched=False)
    worker.lane.pace.learn_claim(1.0)  # so that two may be in line
    leases: list[float] = []
    turns = itertools.count()

    def meanwhile() -> None:
        clock.advance(PERIOD_S)
        worker.keep()
        leases.append(worker.tasks.record("second")["lease_until"] - clock.now())
        if next(turns) == 20:
            worker.budget.release(worker.one("first"))

    worker.budget.meanwhile = meanwhile
    worker.prepare()
    assert worker.one("second").state is State.READY
    assert min(leases) > LEASE_S / 2
    assert len(leases) == 21


def test_a_claim_lost_while_its_task_waits_for_memory_is_not_rendered(clock):
    worker = Worker(clock, memory_bytes=1500)
    worker.lane.pace.learn(0.001, 1.0, switched=False)
    worker.lane.pace.learn_claim(1.0)
    worker.claimed("first")
    worker.take("second")

    def meanwhile() -> None:
        take_over(worker, "second")
        worker.claims.cycle(due_after_s=0.0)
        worker.budget.release(worker.one("first"))

    worker.budget.meanwhile = meanwhile
    worker.prepare()
    worker.renders_until_settled()
    worker.store()
    assert worker.engine.posted == ["first"]
    assert worker.tasks.record("second")["owner"] == "thief"
    assert worker.queue.delays == []


@pytest.mark.parametrize("state", [State.WAITING, State.DELETING, State.RETURNING])
def test_what_is_not_claimed_is_not_renewed(worker, state):
    held = worker.take()
    worker.held.move(held, state)
    keep_for(worker, LEASE_S)
    assert worker.journal.of("tasks.renew") == []


def test_a_lease_is_counted_from_when_its_renewal_was_sent(worker, clock):
    held = worker.claimed()
    clock.advance(PERIOD_S)
    sent_s = clock.monotonic()
    slow = worker.tasks.renew

    def renew(*args, **kwargs):
        clock.advance(3.0)
        return slow(*args, **kwargs)

    worker.tasks.renew = renew
    worker.keep()
    assert held.renewed_s == sent_s


def test_a_renewal_that_fails_leaves_the_old_lease_and_stops_no_work(worker, clock):
    held = worker.claimed()
    began_s = held.renewed_s
    worker.tasks.fail_next(1, Unavailable("throttled"), on="renew")
    worker.tasks.fail_next(1, Unstorable("the record is too large"), on="renew")
    keep_for(worker, 2 * PERIOD_S)
    assert (held.renewed_s, held.is_lost) == (began_s, False)
    keep_for(worker, PERIOD_S)
    assert held.renewed_s == clock.monotonic()


def test_a_claim_that_somebody_took_over_interrupts_the_run(worker):
    def lose() -> None:
        take_over(worker)
        worker.claims.cycle(due_after_s=0.0)

    worker.engine.meanwhile = lose
    held = worker.claimed()
    worker.render.cycle()
    assert held.is_lost
    worker.render.cycle()
    worker.store()
    assert worker.held_ids == []
    assert worker.images.puts == []


def test_a_cancellation_interrupts_the_run_within_one_renewal(worker, clock):
    def cancel() -> None:
        worker.tasks.request_cancel("t1")
        clock.advance(PERIOD_S)
        worker.keep()

    worker.engine.meanwhile = cancel
    held = worker.claimed()
    worker.render.cycle()
    assert held.is_cancelled
    worker.render.cycle()
    worker.store()
    assert worker.status() == "cancelled"
    assert worker.images.puts == []


def test_an_engine_that_is_slow_to_hear_of_an_interrupt_keeps_no_claim_from_being_renewed(worker, clock):
    seen: list[object] = []

    def cancel() -> None:
        worker.tasks.request_cancel("t1")
        worker.claims.cycle(due_after_s=0.0)
        seen.append(worker.one().is_cancelled)

    worker.engine.interrupt = lambda _run: pytest.fail("the keeper itself asks no engine")
    worker.engine.meanwhile = cancel
    worker.claimed()
    worker.render.cycle()
    assert seen == [True]


def test_only_the_run_of_the_cancelled_task_is_interrupted(worker):
    held = worker.claimed("running")
    other = worker.take("other")
    worker.engine.meanwhile = lambda: (setattr(other, "is_cancelled", True), worker.claims.cycle(due_after_s=0.0))
    worker.render.cycle()
    worker.render.cycle()
    worker.store()
    assert worker.status("running") == "completed"
    assert not held.is_cancelled


def test_an_end_written_while_the_renewal_was_under_way_is_no_loss(worker):
    held = worker.claimed()
    claim = held.claim
    slow = worker.tasks.renew

    def renew(*args, **kwargs):
        worker.held.move(held, State.DELETING)
        take_over(worker)
        return slow(*args, **kwargs)

    worker.tasks.renew = renew
    worker.claims.cycle(due_after_s=0.0)
    assert held.claim is claim
    assert not held.is_lost


def test_one_claim_in_trouble_does_not_keep_the_others_from_being_renewed(clock):
    worker = Worker(clock, engines=2)
    worker.claimed("a")
    worker.take("b")
    worker.prepare(lane=1)
    worker.tasks.fail_next(1, Unavailable("throttled"), on="renew")
    keep_for(worker, PERIOD_S)
    assert worker.tasks.record("b")["lease_until"] == clock.now() + LEASE_S


# progress


def test_progress_is_written_with_the_renewal(worker, clock):
    worker.engine.render_s = 40.0

    def look() -> None:
        worker.progress.cycle()
        clock.advance(PERIOD_S)
        worker.claims.cycle(due_after_s=PERIOD_S / 2)

    worker.engine.meanwhile = look
    held = worker.claimed()
    worker.render.cycle()
    record = worker.tasks.record("t1")
    assert (record["progress"], record["step"], record["eta_s"]) == (50, 10, 20)
    assert held.progress == Progress(percent=50, step=10, eta_s=20)
    assert worker.journal.of("tasks.renew") == ["tasks.renew"]  # at no extra call


def test_progress_of_an_idle_engine_is_nobodys(worker):
    held = worker.claimed()
    worker.progress.cycle()
    assert held.progress is None


def test_an_engine_that_does_not_tell_its_progress_harms_nothing(worker):
    worker.engine.progress = lambda: None
    worker.engine.meanwhile = worker.progress.cycle
    held = worker.claimed()
    worker.renders_until_settled()
    assert held.progress is None
