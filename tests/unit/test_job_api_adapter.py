"""What the job API's engine makes of answers that its stand-in never gives."""

import pytest
import responses
from fakes import FakeClock
from job_api import CAMERA, AnyInputs, task_of

from scheduler.domain.errors import Counts, EngineDown, EngineLost, Transient
from scheduler.domain.ports import PreparedRun
from scheduler.engines.job_api import JobApiEngine
from scheduler.engines.job_api_client import JobApiClient

URL = "http://127.0.0.1:8000"


@pytest.fixture
def http():
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def engine():
    clock = FakeClock()
    return JobApiEngine(
        "jobs",
        JobApiClient(URL),
        clock=clock,
        wait=lambda _stopped, seconds: clock.advance(seconds),
        inputs=AnyInputs(),
        runtimes=frozenset({"jobs"}),
        restart_command=(),
    )


def run(job_id=None):
    return PreparedRun(
        task=task_of({}),
        path=CAMERA,
        body=b"{}",
        image_count=None,
        checkpoint=None,
        sampler=None,
        estimate_bytes=2,
        resume_job_id=job_id,
    )


def test_a_server_whose_routes_are_not_there_yet_is_down(http, engine):
    http.post(URL + CAMERA, status=404, json={"detail": "Not Found"})
    http.get(f"{URL}/health", status=404, json={"detail": "Not Found"})
    with pytest.raises(EngineDown):
        engine.generate(run(), deadline_s=10)


def test_an_api_that_tells_of_another_job_is_not_believed(http, engine):
    http.get(f"{URL}/api/v1/jobs/a-1", json={"job_id": "b-2", "status": "completed", "result_s3_uri": "s3://bucket/k"})
    with pytest.raises(EngineLost, match="b-2"):
        engine.generate(run("a-1"), deadline_s=1000)


def test_one_answer_that_makes_no_sense_does_not_lose_the_job_of_before(http, engine):
    asked = f"{URL}/api/v1/jobs/a-1"
    http.get(asked, json={"detail": "warming up"})
    http.get(asked, json={"job_id": "a-1", "status": "completed", "result_s3_uri": "s3://bucket/k.png"})
    assert engine.generate(run("a-1"), deadline_s=100).output().result_uris == ("s3://bucket/k.png",)


def test_a_job_that_waits_behind_others_is_not_billed_for_that(http, engine):
    http.post(URL + CAMERA, status=202, json={"job_id": "a-1", "status": "pending"})
    asked, done = f"{URL}/api/v1/jobs/a-1", {"status": "completed", "result_s3_uri": "s3://bucket/k.png"}
    for status in ("pending", "pending", "pending", "processing"):
        http.get(asked, json={"job_id": "a-1", "status": status})
    http.get(asked, json={"job_id": "a-1"} | done)
    engine.generate(run(), deadline_s=100)
    assert engine.waited_s() > 0.5


def test_a_job_that_cannot_be_asked_for_is_not_posted_anew(http, engine):
    http.get(f"{URL}/api/v1/jobs/a-1", status=503)
    with pytest.raises(EngineDown):
        engine.generate(run("a-1"), deadline_s=10)


def test_a_job_that_is_done_at_once_is_not_asked_for(http, engine):
    http.post(
        URL + CAMERA, status=200, json={"job_id": "a-1", "status": "completed", "result_s3_uri": "s3://bucket/k.png"}
    )
    assert engine.generate(run(), deadline_s=10).output().result_uris == ("s3://bucket/k.png",)


def test_a_job_that_somebody_cancelled_is_a_failure(http, engine):
    http.post(URL + CAMERA, status=202, json={"job_id": "a-1", "status": "cancelled"})
    with pytest.raises(Transient, match="cancelled"):
        engine.generate(run(), deadline_s=10)


def test_a_build_that_is_well_and_lacks_the_path_costs_the_task_a_try(http, engine):
    http.post(URL + CAMERA, status=405, json={"detail": "Method Not Allowed"})
    http.get(f"{URL}/health", json={"status": "healthy", "message": "ready"})
    with pytest.raises(Transient, match=f"no {CAMERA}") as caught:
        engine.generate(run(), deadline_s=10)
    assert (type(caught.value), caught.value.counts) == (Transient, Counts.TRY)
