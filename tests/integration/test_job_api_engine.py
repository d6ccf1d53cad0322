"""The job API's engine against its stand-in, a real process: jobs, faults, deaths,
and jobs taken up again by their id.
"""

import random
import socket
import sys
import threading
from dataclasses import replace

import pytest
from fakes import FakeClock
from job_api import CAMERA, DEADLINE_S, EDIT, AnyInputs, started, task_of, until

from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import (
    BadResult,
    Counts,
    DeadlineExceeded,
    EngineBusy,
    EngineDown,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    Rejected,
    SchedulerError,
    Transient,
)
from scheduler.engines.job_api import BROKEN_S, JobApiEngine
from scheduler.engines.job_api_client import JobApiClient
from scheduler.engines.job_api_job import SILENCE_S


def engine_at(url, **more):
    more = {"clock": SystemClock(), "inputs": AnyInputs(), "dice": random.Random(1), "wait": soon} | more
    more = {"restart_command": ()} | more
    return JobApiEngine("jobs", JobApiClient(url), runtimes=frozenset({"jobs"}), **more)


def soon(stopped, seconds):
    """Wait as the engine does, but never for long."""
    stopped.wait(min(seconds, 0.02))


@pytest.fixture(scope="module")
def shared(moto):
    with started(moto) as api:
        yield api


@pytest.fixture
def api(shared):
    yield shared
    shared.standin.heal()


@pytest.fixture
def engine(api):
    return engine_at(api.standin.base_url)


def prepared(engine, api, path=CAMERA, **changed):
    return engine.prepare(task_of(api.body(**changed), path), seed_key="t:1")


def generate(engine, api, *, deadline_s=DEADLINE_S, on_sent=None, **changed):
    return engine.generate(prepared(engine, api, **changed), deadline_s=deadline_s, on_sent=on_sent)


class Background:
    """A run on a thread of its own: the id of its job, and how it ended."""

    def __init__(self, engine, run, deadline_s=DEADLINE_S):
        self.sent = threading.Event()
        self.job_id = self.outcome = None
        self.thread = threading.Thread(target=self._generate, args=(engine, run, deadline_s), daemon=True)
        self.thread.start()

    def _generate(self, engine, run, deadline_s):
        try:
            self.outcome = engine.generate(run, deadline_s=deadline_s, on_sent=self._sent)
        except SchedulerError as error:
            self.outcome = error

    def _sent(self, job_id):
        self.job_id = job_id
        self.sent.set()

    def begun(self):
        assert self.sent.wait(DEADLINE_S)
        return self.job_id

    def ended(self):
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        return self.outcome


class PassingClock(FakeClock):
    """A clock that a wait moves on at once."""

    def wait(self, _event, seconds):
        self.advance(seconds)


# a run


@pytest.mark.parametrize("path", [CAMERA, EDIT])
def test_a_job_is_posted_once_and_its_result_stays_where_it_is(engine, api, path):
    engine.probe()
    before, told = api.posts(), []
    output = generate(engine, api, path=path, on_sent=told.append).output()
    assert output.images == ()
    assert api.fetch(output.result_uris[0]).size == (512, 512)
    assert told[0] in output.result_uris[0]
    assert api.posts() == before + 1


def test_the_request_arrives_as_it_was_sent(engine, api):
    def picture(**changed):
        return api.fetch(generate(engine, api, **changed).output().result_uris[0]).tobytes()

    assert picture(seed=-1) == picture(seed=-1) != picture(seed=1)


def test_what_the_api_would_fetch_is_proved_before(api):
    inputs = AnyInputs()
    engine = engine_at(api.standin.base_url, inputs=inputs)
    prepared(engine, api, image2_url="https://example.com/2.png")
    assert [field for field, _ in inputs.asked] == ["request_body.image_url", "request_body.image2_url"]
    with pytest.raises(Rejected) as caught:
        prepared(engine, api, image2_url="https://forbidden.example/2.png")
    assert caught.value.field == "request_body.image2_url"
    with pytest.raises(Rejected) as caught:
        prepared(engine, api, path="/api/v1/camera-angle/jobs/../../../health")
    assert caught.value.field == "api_path"


def test_a_status_that_nobody_knows_is_work_in_progress(engine, api):
    api.standin.fault("strange")
    assert generate(engine, api, steps=20).output().result_uris


def test_what_only_the_api_can_refuse(engine, api):
    with pytest.raises(Rejected) as caught:
        generate(engine, api, steps="many")
    assert caught.value.field == "request_body.steps"
    with pytest.raises(Transient) as caught:
        generate(engine, api, image_url=f"s3://{api.bucket}/none.png")
    assert caught.value.counts is Counts.TRY
    assert "NoSuchKey" in caught.value.engine


@pytest.mark.parametrize(("kind", "error"), [("fail", Transient), ("oom", OutOfMemory), ("post-error", Transient)])
def test_failures_in_the_engines_words(engine, api, kind, error):
    api.standin.fault(kind)
    with pytest.raises(error) as caught:
        generate(engine, api)
    assert type(caught.value) is error
    assert caught.value.engine


def test_after_out_of_memory_the_run_is_posted_anew_and_not_taken_up_again(engine, api):
    job_id = api.ask("POST", CAMERA, json=api.body()).json()["job_id"]
    before = api.posts()
    run = engine.smaller(replace(prepared(engine, api), resume_job_id=job_id))
    engine.free_memory()
    assert engine.generate(run, deadline_s=DEADLINE_S).output().result_uris
    assert api.posts() == before + 1


@pytest.mark.parametrize("kind", ["post-garbled", "no-result"])
def test_answers_that_are_no_result(engine, api, kind):
    api.standin.fault(kind)
    before = api.posts()
    with pytest.raises(BadResult):
        generate(engine, api).output()
    assert api.posts() == before + 1


def test_a_busy_api_takes_nothing_and_costs_nothing(engine, api):
    api.standin.fault("post-busy")
    with pytest.raises(EngineDown):
        generate(engine, api)


def test_bad_answers_to_questions_are_passed_over(engine, api):
    api.standin.fault("ask-error", count=2)
    api.standin.fault("ask-garbled", count=2)
    assert generate(engine, api).output().result_uris


def test_an_api_that_tells_nothing_sensible_for_a_minute_has_lost_the_job(api):
    clock = PassingClock()
    engine = engine_at(api.standin.base_url, clock=clock, wait=clock.wait)
    api.standin.fault("ask-garbled", count=None)
    before, start_s = api.posts(), clock.monotonic()
    with pytest.raises(EngineLost):
        generate(engine, api, deadline_s=10_000.0)
    assert SILENCE_S < clock.monotonic() - start_s < 2 * SILENCE_S
    assert api.posts() == before + 1


def test_an_api_that_takes_a_request_and_says_nothing_may_have_it(api, monkeypatch):
    monkeypatch.setattr("scheduler.engines.job_api_client.SUBMIT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        engine = engine_at(f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(EngineLost):
            generate(engine, api)


def test_a_job_that_is_forgotten_is_lost(engine, api):
    api.standin.fault("lose")
    with pytest.raises(EngineLost):
        generate(engine, api)


def test_a_deadline_ends_the_run_and_what_waits_behind_it_begins_later(api):
    clock = PassingClock()
    engine = engine_at(api.standin.base_url, clock=clock, wait=clock.wait)
    api.standin.fault("hang")
    hung = Background(engine_at(api.standin.base_url), prepared(engine, api))
    until(lambda: api.ask("GET", f"/api/v1/jobs/{hung.begun()}").json()["status"] == "processing")
    with pytest.raises(EngineBusy) as caught:
        generate(engine, api, deadline_s=20.0)
    assert caught.value.counts is Counts.NOTHING
    with pytest.raises(DeadlineExceeded, match="20 s"):
        engine.generate(replace(prepared(engine, api), resume_job_id=hung.job_id), deadline_s=20.0)
    api.standin.heal()
    assert hung.ended().output().result_uris


def test_an_interrupt_ends_the_run_at_once_and_no_other(engine, api):
    api.standin.fault("hang")
    run, other = prepared(engine, api), prepared(engine, api)
    assert engine.interrupt(run) is False
    hung = Background(engine, run)
    hung.begun()
    assert engine.interrupt(other) is False
    assert engine.interrupt(run) is True
    assert isinstance(hung.ended(), Interrupted)
    api.standin.heal()
    assert generate(engine, api).output().result_uris


# what is known of the engine


def test_a_broken_gpu_is_told_until_it_works_or_long_after(api):
    clock = FakeClock()
    engine = engine_at(api.standin.base_url, clock=clock)
    api.standin.fault("fatal", count=2)
    for _ in range(2):
        with pytest.raises(Fatal):
            generate(engine, api)
    with pytest.raises(Fatal, match="CUDA error"):
        engine.golden(deadline_s=DEADLINE_S)
    clock.advance(BROKEN_S)
    engine.golden(deadline_s=DEADLINE_S)
    clock.advance(-BROKEN_S)
    generate(engine, api)
    engine.golden(deadline_s=DEADLINE_S)


def test_a_restart_makes_a_broken_gpu_worth_another_try(api):
    engine = engine_at(api.standin.base_url, restart_command=[sys.executable, "-c", ""])
    api.standin.fault("fatal")
    with pytest.raises(Fatal):
        generate(engine, api)
    assert engine.restart() is True
    engine.golden(deadline_s=DEADLINE_S)
    assert engine.restart() is False, "once in ten minutes"


def test_an_api_without_the_route_sends_the_task_elsewhere(engine, api):
    run = replace(prepared(engine, api), path="/api/v1/other/jobs")
    with pytest.raises(Transient) as caught:
        engine.generate(run, deadline_s=DEADLINE_S)
    assert (type(caught.value), caught.value.counts) == (Transient, Counts.TRY)


def test_what_it_does_not_tell(engine, api):
    assert (engine.title(None), engine.title("some"), engine.loaded()) == (None, "some", None)
    assert (engine.progress(), engine.preview()) == (None, None)


# taken up again


def test_a_new_engine_takes_the_job_up_again_and_nothing_is_posted_twice(api):
    before = api.posts()
    api.standin.fault("hang")
    first = engine_at(api.standin.base_url)
    run = prepared(first, api)
    begun = Background(first, run)
    job_id = begun.begun()
    first.interrupt(run)  # as a daemon that stops
    assert isinstance(begun.ended(), Interrupted)
    del first

    second = engine_at(api.standin.base_url)
    again = Background(second, replace(prepared(second, api), resume_job_id=job_id))
    assert again.begun() == job_id
    api.standin.heal()
    assert job_id in again.ended().output().result_uris[0]
    assert api.posts() == before + 1


def test_a_job_that_ended_meanwhile_is_taken_up_too(engine, api):
    job_id = api.ask("POST", CAMERA, json=api.body()).json()["job_id"]
    api.ended(job_id)
    before = api.posts()
    run = replace(prepared(engine, api), resume_job_id=job_id)
    assert job_id in engine.generate(run, deadline_s=DEADLINE_S).output().result_uris[0]
    assert api.posts() == before


def test_a_job_that_the_api_knows_no_more_is_posted_anew(engine, api):
    before, told = api.posts(), []
    run = replace(prepared(engine, api), resume_job_id="gone-with-the-api")
    output = engine.generate(run, deadline_s=DEADLINE_S, on_sent=told.append).output()
    assert told[0] in output.result_uris[0]
    assert api.posts() == before + 1


def test_an_api_that_is_killed_under_a_job_and_comes_back(moto):
    with started(moto, seconds_per_step=0.05) as api:
        engine = engine_at(api.standin.base_url)
        api.standin.fault("fatal")
        with pytest.raises(Fatal):
            generate(engine, api)
        with pytest.raises(Fatal):
            engine.golden(deadline_s=DEADLINE_S)
        run = prepared(engine, api, steps=10_000)
        begun = Background(engine, run)
        job_id = begun.begun()
        until(lambda: api.ask("GET", f"/api/v1/jobs/{job_id}").json()["status"] == "processing")
        api.standin.kill()
        with pytest.raises(EngineDown):
            engine.probe()
        for lost in (run, replace(run, resume_job_id=job_id)):
            with pytest.raises(EngineDown):
                engine_at(api.standin.base_url).generate(lost, deadline_s=DEADLINE_S)
        api.standin.start(port=api.standin.port)
        assert isinstance(begun.ended(), EngineLost)
        assert api.posts() == 0, "the job that was lost is not posted again by itself"
        engine.golden(deadline_s=DEADLINE_S)  # another process, which may well have a GPU that works
        short = replace(prepared(engine, api), resume_job_id=job_id)
        assert engine.generate(short, deadline_s=DEADLINE_S).output().result_uris
        assert api.posts() == 1
