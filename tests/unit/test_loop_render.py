"""The engine's thread: one post after another, what it does about an engine that is down, sick or hung."""

from __future__ import annotations

import pytest
from worker_in_memory import DEADLINE_S, LEASE_S, Worker

from scheduler.domain.errors import (
    BadResult,
    DeadlineExceeded,
    EngineBusy,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    Rejected,
    Transient,
    Unavailable,
)
from scheduler.held import State
from scheduler.loops.prepare import MAX_UNSTARTED_S
from scheduler.loops.render import FATALS_IN_A_ROW, IDLE_PROBE_S, MAX_PROBE_S, SLOW_END_S

OUT_OF_MEMORY = OutOfMemory("the GPU ran out of memory", engine="CUDA out of memory")


@pytest.fixture
def worker(clock):
    return Worker(clock)


def outcomes(worker: Worker) -> list[tuple[str, object]]:
    """Return what was handed on so far, leaving it there."""
    found = [worker.render.outcomes.get() for _ in range(worker.render.outcomes.qsize())]
    for item in found:
        worker.render.outcomes.put(item)
    return [(item[0].task.task_id, item[1]) for item in found if item is not None]


# the hand-over


def test_a_result_is_handed_on_when_the_engine_has_its_next_request(worker):
    worker.claimed("first")
    worker.render.cycle()
    assert outcomes(worker) == []  # nobody is woken while the engine waits for its next request
    worker.claimed("second")
    seen: list[list[str]] = []
    worker.engine.before_sent = lambda: seen.append([task_id for task_id, _ in outcomes(worker)])
    worker.engine.meanwhile = lambda: seen.append([task_id for task_id, _ in outcomes(worker)])
    worker.render.cycle()
    assert seen == [[], ["first"]]


def test_with_nothing_next_it_is_handed_on_at_once(worker):
    worker.claimed()
    worker.render.cycle()
    worker.render.cycle()
    assert [task_id for task_id, _ in outcomes(worker)] == ["t1"]


@pytest.mark.parametrize("reason", ["the engine went away", "storing is in trouble", "the next lease is stale"])
def test_nor_does_it_wait_for_a_next_request_that_cannot_be_sent(worker, clock, reason):
    worker.claimed("first")
    worker.render.cycle()
    worker.claimed("second")
    if reason == "the engine went away":
        worker.lane.set_ready(ready=False)
        worker.engine.is_up = False
    elif reason == "storing is in trouble":
        worker.outages.set_trouble("other", "S3 does not answer")
    else:
        clock.advance(LEASE_S + 1)
    worker.render.cycle()
    assert [task_id for task_id, _ in outcomes(worker)] == ["first"]
    assert worker.engine.posted == ["first"]


def test_the_end_of_the_thread_hands_on_what_it_has(worker):
    worker.claimed()
    worker.render.cycle()
    worker.stop.set(90.0)
    worker.render.run()
    assert [task_id for task_id, _ in outcomes(worker)] == ["t1"]
    assert worker.render.outcomes.qsize() == 2  # and the sign that nothing more comes


def test_between_two_posts_the_engines_thread_calls_no_aws(worker):
    for n in range(3):
        worker.send(f"t{n}")
    worker.admit()
    worker.prepare()
    worker.journal.calls.clear()
    for _ in range(3):
        worker.render.cycle()
        assert worker.journal.calls[-1] == "engine.post"
        worker.journal.calls.clear()
        worker.prepare()
        assert worker.journal.calls[:1] in ([], ["tasks.claim"])
        worker.journal.calls.clear()


# an engine that is down


def test_an_engine_that_refuses_the_post_keeps_the_task_and_spends_no_run(worker, clock):
    worker.claimed()
    worker.engine.is_up = False
    worker.render.cycle()
    held = worker.one()
    assert (held.state, worker.lane.is_ready) == (State.READY, False)
    assert (worker.lane.peek(), worker.lane.running) == (held, None)
    assert worker.engine.posts == []
    assert worker.status() == "processing"
    worker.engine.is_up = True
    worker.render.cycle()
    assert worker.lane.is_ready
    worker.renders_until_settled()
    worker.store()
    record = worker.tasks.record("t1")
    assert (record["status"], record["runs"], record["attempt"]) == ("completed", 1, 1)


def test_the_task_that_could_not_be_posted_stays_first(worker):
    worker.claimed("first")
    worker.lane.pace.learn(0.001, 1.0, switched=False)
    worker.lane.pace.learn_claim(1.0)  # rendering is quicker than claiming: more than one is in line
    worker.claimed("second")
    worker.engine.is_up = False
    worker.render.cycle()
    worker.engine.is_up = True
    worker.render.cycle()
    worker.renders_until_settled()
    assert worker.engine.posted == ["first", "second"]


def test_a_down_engine_is_probed_at_growing_intervals(worker, clock):
    worker.engine.is_up = False
    worker.lane.set_ready(ready=False)
    for _ in range(8):
        worker.render.cycle()
    assert worker.stop.waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]
    assert max(worker.stop.waits) == MAX_PROBE_S
    worker.engine.is_up = True
    worker.render.cycle()
    assert worker.lane.is_ready
    worker.claimed()
    worker.render.cycle()
    worker.lane.set_ready(ready=False)
    worker.stop.waits.clear()
    worker.render.cycle()
    assert worker.stop.waits == [0.5]


def test_what_a_task_waits_in_the_engine_behind_others_is_no_render(worker, clock):
    worker.engine.waits_s = 0.75
    worker.claimed()
    worker.renders_until_settled()
    worker.store()
    assert worker.tasks.record("t1")["generate_ms"] == 250
    assert worker.lane.pace.mean_s == 0.25
    assert worker.held.tally.busy_s == 0.25


def test_an_engine_that_is_busy_with_others_is_not_restarted(worker):
    worker.engine.fail_next(1, EngineBusy("the engine was at other work"), on="generate")
    worker.claimed()
    worker.renders_until_settled()
    worker.store()
    assert (worker.engine.restarts, worker.lane.is_healthy) == (0, True)
    assert (worker.status(), worker.tasks.record("t1")["runs"]) == ("pending", 0)


def test_an_engine_too_busy_for_a_golden_task_is_not_sick(worker):
    worker.engine.fail_next(3, Fatal("CUDA error"), on="generate")
    worker.engine.fail_next(1, EngineBusy("the engine was at other work"), on="golden")
    for n in range(3):
        worker.claimed(f"t{n}")
        worker.render.cycle()
    worker.render.cycle()
    assert (worker.engine.faults.calls["golden"], worker.lane.is_healthy) == (1, True)


def test_an_engine_that_is_up_and_takes_nothing_is_asked_less_and_less_often(worker, clock):
    worker.engine.fail_next(1000, EngineDown("503: the queue is full"), on="connect")
    worker.claimed()
    began_s = clock.monotonic()
    while clock.monotonic() - began_s < 60:
        worker.keep()
        worker.render.cycle()
    assert 60 / MAX_PROBE_S <= len(worker.stop.waits) <= 60 / MAX_PROBE_S + 5
    assert worker.tasks.record("t1")["runs"] == 1


def test_an_idle_engine_is_probed_so_that_its_death_is_seen(worker, clock):
    began_s = clock.monotonic()
    while clock.monotonic() - began_s < IDLE_PROBE_S:
        worker.render.cycle()
    assert worker.engine.faults.calls["probe"] == 0
    worker.engine.is_up = False
    worker.render.cycle()
    assert worker.engine.faults.calls["probe"] == 1
    assert not worker.lane.is_ready
    assert worker.lane.why
    assert worker.counted("engine_up", engine="engine-0") == 0


def test_what_could_not_be_started_for_ten_minutes_is_given_back_unspent(worker, clock):
    worker.claimed()
    worker.engine.is_up = False
    began_s = clock.monotonic()
    while worker.status() == "processing":
        assert clock.monotonic() - began_s < 2 * MAX_UNSTARTED_S
        worker.keep()
        worker.render.cycle()
        worker.prepare()
    assert MAX_UNSTARTED_S < clock.monotonic() - began_s < MAX_UNSTARTED_S + 10.0
    record = worker.tasks.record("t1")
    assert (record["status"], record["runs"]) == ("pending", 0)
    assert worker.queue.delays == [("message-0-1", 5.0)]
    assert worker.journal.of("tasks.release", "queue.give_back") == ["tasks.release", "queue.give_back"]
    assert worker.held_ids == []


# leases


def test_a_task_whose_lease_may_have_run_out_is_not_posted_until_it_is_renewed(worker, clock):
    worker.claimed()
    clock.advance(LEASE_S + 1)
    worker.render.cycle()
    assert worker.engine.posts == []
    worker.keep()
    worker.render.cycle()
    assert worker.engine.posted == ["t1"]


def test_a_task_that_was_taken_over_while_it_stood_in_line_frees_the_line(worker, clock):
    """An outage of DynamoDB, and another worker has it now: the next task must not wait behind it."""
    worker.claimed()
    clock.advance(LEASE_S + 1)
    record = worker.tasks.record("t1")
    stolen = {"owner": "thief", "attempt": 2, "lease_until": clock.now() + LEASE_S}
    worker.tasks.put_record(record | stolen)
    worker.keep()
    worker.render.cycle()
    worker.render.cycle()
    worker.store()
    assert worker.held_ids == []
    assert (worker.queue.deleted, worker.queue.delays, worker.engine.posts) == ([], [], [])
    assert worker.tasks.record("t1")["owner"] == "thief"
    worker.claimed("t2")
    worker.render.cycle()
    assert worker.engine.posted == ["t2"]


@pytest.mark.parametrize("engine_is_up", [True, False])
def test_a_task_cancelled_in_line_is_ended_within_a_renewal_engine_or_not(worker, engine_is_up):
    worker.claimed()
    if not engine_is_up:
        worker.engine.is_up = False
        worker.render.cycle()
    assert worker.tasks.request_cancel("t1") == "processing"
    worker.claims.cycle(due_after_s=0.0)
    worker.render.cycle()
    worker.render.cycle()
    worker.store()
    worker.delete()
    assert worker.status() == "cancelled"
    assert worker.queue.bodies == []
    assert worker.engine.posts == []


# out of memory


def test_out_of_memory_frees_and_renders_the_same_pictures_one_at_a_time(worker):
    worker.engine.fail_next(1, OUT_OF_MEMORY, on="generate")
    worker.send(payload={"batch_size": 4, "seed": 7})
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["runs"]) == ("completed", 1)
    assert [image["seed"] for image in record["images"]] == [7, 8, 9, 10]
    assert worker.engine.faults.calls["free_memory"] == 1
    assert len(worker.engine.posts) == 2
    assert record["warnings"]


def test_out_of_memory_again_fails_the_task_in_the_engines_words(worker):
    worker.engine.fail_next(2, OUT_OF_MEMORY, on="generate")
    worker.send(payload={"batch_size": 4})
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["error"]["class"]) == ("failed", "out-of-memory")
    assert record["error"]["engine"] == "CUDA out of memory"
    assert len(worker.engine.posts) == 2
    assert worker.lane.is_ready  # it says nothing of the host
    assert worker.queue.bodies == []


def test_an_engine_that_dies_of_a_task_while_memory_is_freed_costs_it_a_run(worker):
    worker.engine.fail_next(1, OUT_OF_MEMORY, on="generate")
    worker.engine.fail_next(1, EngineDown("it went away"), on="free_memory")
    worker.claimed()
    worker.render.cycle()
    worker.store()
    record = worker.tasks.record("t1")
    assert (record["status"], record["runs"]) == ("pending", 1)
    assert worker.queue.delays == [("message-0-1", 5.0)]


# a sick host


def fatal_tasks(worker: Worker, count: int, *, name: str = "bad") -> None:
    worker.engine.fail_next(count, Fatal("no GPU"), on="generate")
    for n in range(count):
        worker.claimed(f"{name}-{n}")
        worker.render.cycle()


def test_two_fatal_errors_are_not_enough(worker):
    fatal_tasks(worker, FATALS_IN_A_ROW - 1)
    assert worker.engine.faults.calls["golden"] == 0
    assert worker.lane.is_ready


def test_a_good_picture_between_them_starts_the_count_anew(worker):
    fatal_tasks(worker, 2)
    worker.claimed("good")
    worker.render.cycle()
    fatal_tasks(worker, 2, name="worse")
    assert worker.engine.faults.calls["golden"] == 0


def test_three_fatal_errors_and_a_golden_task_that_passes_blame_the_tasks(worker):
    fatal_tasks(worker, 3)
    assert worker.engine.faults.calls["golden"] == 1
    assert worker.lane.is_ready
    assert worker.lane.is_healthy
    fatal_tasks(worker, 2, name="worse")
    assert worker.engine.faults.calls["golden"] == 1  # the count began anew


def test_three_fatal_errors_and_a_golden_task_that_fails_make_the_host_unhealthy(worker, clock):
    fatal_tasks(worker, 2)
    worker.claimed("bad-2")
    worker.take("waiting")
    worker.engine.fail_next(1, Fatal("no GPU"), on="generate")
    worker.engine.fail_next(2, Fatal("even the tiny one"), on="golden")
    worker.render.cycle()
    assert (worker.lane.is_ready, worker.lane.is_healthy) == (False, False)
    assert "unhealthy" in worker.lane.why
    worker.render.cycle()
    worker.store()
    assert worker.held_ids == []  # everything went back, for a host that works
    assert {worker.status(f"bad-{n}") for n in range(3)} == {"pending"}
    assert {worker.tasks.record(f"bad-{n}")["runs"] for n in range(3)} == {1}
    assert worker.queue.deleted == []
    worker.receive()
    assert worker.journal.of("queue.receive") == []


def test_what_was_claimed_for_a_sick_engine_goes_back_unspent(worker):
    worker.lane.pace.learn(0.001, 1.0, switched=False)
    worker.lane.pace.learn_claim(1.0)
    worker.claimed("hangs")
    worker.claimed("next")
    worker.engine.fail_next(1, EngineHung("no answer"), on="generate")
    worker.render.cycle()
    worker.render.cycle()
    worker.store()
    assert (worker.status("hangs"), worker.tasks.record("hangs")["runs"]) == ("pending", 1)
    assert (worker.status("next"), worker.tasks.record("next")["runs"]) == ("pending", 0)
    assert worker.engine.posted == ["hangs"]


def test_an_unhealthy_host_takes_work_again_only_after_a_golden_task(worker, clock):
    worker.engine.fail_next(3, Fatal("even the tiny one"), on="golden")
    fatal_tasks(worker, 3)
    for times in (2, 3):
        worker.render.cycle()
        assert worker.engine.faults.calls["golden"] == times
        assert not worker.lane.is_ready
    assert max(worker.stop.waits) <= 60.0
    worker.render.cycle()
    assert worker.lane.is_ready
    assert worker.lane.is_healthy


def test_a_golden_task_that_meets_no_engine_says_nothing_of_the_host(worker):
    worker.engine.fail_next(1, EngineDown("it went away"), on="golden")
    fatal_tasks(worker, 3)
    assert (worker.lane.is_ready, worker.lane.is_healthy) == (False, True)


def test_the_other_engine_of_a_host_goes_on(clock):
    worker = Worker(clock, engines=2)
    worker.engine.fail_next(1, Fatal("even the tiny one"), on="golden")
    fatal_tasks(worker, 3)
    worker.send("good")
    worker.admit()
    assert worker.held_ids.count("good") == 1
    worker.prepare(lane=1)
    worker.renders[1].cycle()
    assert worker.engines[1].posted == ["good"]


# a hung engine


def test_a_hung_engine_is_restarted_and_the_run_counts(clock):
    worker = Worker(clock, can_restart=True)
    worker.engine.fail_next(1, EngineHung("no answer after an interrupt"), on="generate")
    worker.send()
    worker.work()
    assert worker.engine.restarts == 1
    assert (worker.status(), worker.tasks.record("t1")["runs"]) == ("pending", 1)
    assert worker.lane.is_healthy
    clock.advance(10.0)
    worker.render.cycle()
    worker.work()
    assert worker.status() == "completed"


def test_a_hung_engine_that_cannot_be_restarted_makes_the_host_unhealthy(worker):
    worker.engine.fail_next(1, EngineHung("no answer after an interrupt"), on="generate")
    worker.claimed()
    worker.render.cycle()
    assert worker.engine.restarts == 0
    assert (worker.lane.is_ready, worker.lane.is_healthy) == (False, False)
    assert "no answer after an interrupt" in worker.lane.why
    worker.render.cycle()
    worker.store()
    assert worker.status() == "pending"


# other ends of a run


@pytest.mark.parametrize(
    "error", [EngineLost("it died"), Rejected("no"), Transient("busy"), DeadlineExceeded("too long")]
)
def test_an_error_of_the_task_leaves_the_engine_ready(worker, error):
    worker.claimed()
    worker.engine.fail_next(1, error, on="generate")
    worker.renders_until_settled()
    assert outcomes(worker) == [("t1", error)]
    assert worker.lane.is_ready
    assert worker.lane.running is None


def test_a_run_beyond_its_deadline_fails_the_task(worker):
    worker.engine.render_s = DEADLINE_S + 1
    worker.send()
    worker.work()
    record = worker.tasks.record("t1")
    assert (record["status"], record["error"]["class"]) == ("failed", "deadline")
    assert "600 s" in record["error_message"]


def test_nothing_is_posted_once_the_stop_is_asked_for(worker):
    held = worker.claimed()
    worker.stop.set(90.0)
    worker.render.cycle()
    worker.render.run()
    assert worker.engine.posts == []
    [(task_id, outcome)] = outcomes(worker)
    assert (task_id, type(outcome)) == ("t1", Interrupted)
    assert held.state is State.READING


def test_a_task_without_a_run_is_an_error_of_ours(worker):
    held = worker.claimed()
    held.run = None
    with pytest.raises(RuntimeError, match="t1 reached the engine unprepared"):
        worker.render.cycle()


# counting


def test_a_render_that_switches_is_counted_as_one_and_does_not_teach_the_pace(worker):
    worker.claimed("plain", payload={"override_settings": {"sd_model_checkpoint": "first"}})
    worker.renders_until_settled()
    assert worker.lane.pace.mean_s == 1.0
    worker.claimed("switching", payload={"override_settings": {"sd_model_checkpoint": "second"}})
    worker.engine.render_s = 30.0
    worker.renders_until_settled()
    assert worker.counted("checkpoint_switches_total", engine="engine-0") == 1
    assert worker.lane.pace.mean_s == 1.0


def test_time_in_which_the_engine_did_nothing_while_the_task_waited_is_starved(worker, clock):
    clock.advance(100.0)  # nobody had work
    worker.send()
    clock.advance(3.0)
    worker.admit()
    worker.prepare()
    worker.renders_until_settled()
    assert worker.counted("rendering_seconds_total", engine="engine-0") == 1.0
    assert worker.counted("starved_seconds_total", engine="engine-0") == 3.0


def test_no_render_is_begun_while_results_cannot_be_stored(worker):
    worker.claimed()
    worker.outages.set_trouble("other", "S3 does not answer")
    worker.render.cycle()
    assert worker.engine.posts == []
    worker.outages.set_trouble("other", None)
    worker.render.cycle()
    assert worker.engine.posted == ["t1"]


def test_an_engine_that_answers_after_an_outage_of_aws_goes_on_with_the_same_claim(worker, clock):
    worker.claimed()
    worker.tasks.fail_next(3, Unavailable("down"), on="renew")
    for _ in range(8):
        clock.advance(LEASE_S / 6)
        worker.keep()
    worker.render.cycle()
    assert worker.engine.posted == ["t1"]


def test_no_render_is_begun_beside_a_result_that_storage_says_nothing_about(worker, clock):
    """It may be long before a call that hangs counts as one that failed."""
    worker.claimed("kept")
    worker.render.cycle()
    worker.render.cycle()  # with nothing in line it hands the answer on
    worker.decode()
    worker.claimed("next")
    clock.advance(SLOW_END_S + 0.1)
    worker.keep()
    worker.render.cycle()
    assert worker.engine.posted == ["kept"]
    worker.store()
    worker.render.cycle()
    assert worker.engine.posted == ["kept", "next"]


def test_an_engine_that_is_slow_to_give_its_pictures_holds_up_no_other(clock):
    worker = Worker(clock, engines=2)
    worker.claimed("slow")
    worker.render.cycle()
    clock.advance(SLOW_END_S + 0.1)  # its answer is still being read
    worker.send("other")
    worker.admit()
    worker.prepare(lane=1)
    worker.renders[1].cycle()
    assert worker.engines[1].posted == ["other"]


# answers that are no pictures


def unreadable(worker: Worker, count: int) -> None:
    """Let so many tasks be answered with 200 and something that is no picture."""
    for _ in range(count):
        worker.engine.fail_next(1, BadResult("0 of 1 images came"), on="output")
        worker.send(f"bad-{worker.engine.faults.calls['output']}")
        worker.work()


def test_an_engine_that_says_200_and_sends_no_pictures_is_asked_for_one_before_it_spends_more_tasks(worker):
    unreadable(worker, FATALS_IN_A_ROW - 1)
    assert worker.engine.faults.calls["golden"] == 0
    worker.engine.fail_next(9, Fatal("even a tiny known picture failed"), on="golden")
    unreadable(worker, 1)
    worker.render.cycle()
    worker.send("next")
    worker.work()
    assert (worker.lane.is_healthy, worker.lane.is_ready) == (False, False)
    assert "next" not in worker.engine.posted


def test_one_that_can_still_draw_is_not_to_blame(worker):
    unreadable(worker, FATALS_IN_A_ROW)
    worker.render.cycle()
    assert worker.engine.faults.calls["golden"] == 1
    assert worker.lane.is_ready
    worker.render.cycle()
    assert worker.engine.faults.calls["golden"] == 1


def test_and_a_good_picture_between_ends_the_count(worker):
    for _ in range(2):
        unreadable(worker, FATALS_IN_A_ROW - 1)
        worker.send("good")
        worker.work()
    assert worker.engine.faults.calls["golden"] == 0
