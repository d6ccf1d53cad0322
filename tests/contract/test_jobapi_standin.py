"""The job API's stand-in held to the described shapes: routes, statuses, refusals, jobs that end with the process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from aws_servers import Cloud
from job_api import CAMERA, DEADLINE_S, EDIT, JobApi, png, started, until

from scheduler.local.serving.child import StandinFailed


@pytest.fixture(scope="module")
def shared(moto: Cloud) -> Iterator[JobApi]:
    with started(moto) as api:
        yield api


@pytest.fixture
def api(shared: JobApi) -> Iterator[JobApi]:
    yield shared
    shared.standin.heal()


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CAMERA, {}),
        (EDIT, {}),
        (EDIT, {"image2_url": "same", "image3_url": "same", "cfg": 1.5, "sampler_name": "er_sde", "steps": 2}),
    ],
)
def test_a_request_is_taken_at_once_and_its_result_lies_in_the_bucket(api: JobApi, path: str, more: dict) -> None:
    body = {name: api.image_url if value == "same" else value for name, value in api.body(**more).items()}
    taken = api.ask("POST", path, json=body)
    assert taken.status_code == 202
    job_id = taken.json()["job_id"]
    assert taken.json() == {"job_id": job_id, "status": "pending", "result_s3_uri": None, "error": None}
    ended = api.ended(job_id)
    assert ended == {"job_id": job_id, "status": "completed", "result_s3_uri": ended["result_s3_uri"], "error": None}
    picture = api.fetch(ended["result_s3_uri"])
    assert (picture.format, picture.size) == ("PNG", (512, 512))
    assert api.ask("GET", f"{path}/{job_id}").json() == ended
    assert api.ask("GET", f"{EDIT if path == CAMERA else CAMERA}/{job_id}").status_code == 404


def test_the_picture_follows_from_the_request_alone(api: JobApi) -> None:
    def made(path: str, **changed: object) -> bytes:
        job_id = api.ask("POST", path, json=api.body(**changed)).json()["job_id"]
        return api.fetch(api.ended(job_id)["result_s3_uri"]).tobytes()

    first = made(CAMERA)
    assert made(CAMERA) == first
    others = [made(CAMERA, seed=2), made(CAMERA, prompt="from above"), made(EDIT)]
    assert len({first, *others}) == 4


def test_it_says_that_it_is_well(api: JobApi) -> None:
    assert api.ask("GET", "/health").json() == {"status": "healthy", "message": "ready"}
    assert api.ask("GET", "/").status_code == 200


def test_jobs_wait_for_each_other(moto: Cloud) -> None:
    with started(moto, seconds_per_step=0.05) as api:
        first, second = (api.ask("POST", CAMERA, json=api.body(steps=1000)).json()["job_id"] for _ in range(2))
        until(lambda: api.standin.stats()["jobs"] == {"processing": 1, "pending": 1})
        statuses = [api.ask("GET", f"/api/v1/jobs/{job_id}").json()["status"] for job_id in (first, second)]
        assert statuses == ["processing", "pending"]


def test_what_is_missing_or_wrong_is_named(api: JobApi) -> None:
    def complaints(path: str, **body: object) -> list[tuple[str, ...]]:
        answer = api.ask("POST", path, json=body)
        assert answer.status_code == 422
        return [tuple(one["loc"]) for one in answer.json()["detail"]]

    assert complaints(CAMERA, seed=1) == [("body", "image_url"), ("body", "prompt")]
    assert complaints(CAMERA, **api.body(steps="many")) == [("body", "steps")]
    assert complaints(EDIT, **api.body(sampler_name="euler")) == [("body", "sampler_name")]
    assert api.ask("POST", CAMERA, data=b"{nope", headers={"Content-Type": "application/json"}).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/jobs/no-such-job", 404),
        ("GET", "/api/v1/jobs/", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/api/v1/other/jobs", 404),
        ("GET", CAMERA, 405),
        ("DELETE", "/api/v1/jobs/x", 405),
    ],
)
def test_paths_that_are_not_there(api: JobApi, method: str, path: str, status: int) -> None:
    answer = api.ask(method, path)
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


def test_a_picture_that_cannot_be_had_fails_the_job(api: JobApi) -> None:
    for url, words in (
        (f"s3://{api.bucket}/none.png", "NoSuchKey"),
        ("https://example.com/a.png", "Failed to download"),
        (api.upload("junk.png", png()[:40]), "cannot identify image"),
    ):
        ended = api.ended(api.ask("POST", CAMERA, json=api.body(image_url=url)).json()["job_id"])
        assert (ended["status"], ended["result_s3_uri"]) == ("failed", None)
        assert words in ended["error"]


def test_a_result_that_cannot_be_stored_fails_the_job(moto: Cloud) -> None:
    with started(moto) as api:
        moto.clients.s3.delete_object(Bucket=api.bucket, Key="in.png")
        moto.clients.s3.delete_bucket(Bucket=api.bucket)
        other = moto.bucket()
        moto.clients.s3.put_object(Bucket=other, Key="in.png", Body=png())
        body = api.body(image_url=f"s3://{other}/in.png")
        assert "Failed to upload" in api.ended(api.ask("POST", CAMERA, json=body).json()["job_id"])["error"]


@pytest.mark.parametrize("way", ["stop", "crash"])
def test_no_job_outlives_the_process(moto: Cloud, way: str) -> None:
    with started(moto, seconds_per_step=0.05) as api:
        if way == "crash":
            api.standin.fault("crash", after_steps=10)
        job_id = api.ask("POST", CAMERA, json=api.body(steps=1000)).json()["job_id"]
        until(lambda: api.ask("GET", f"/api/v1/jobs/{job_id}").json()["status"] == "processing")
        port = api.standin.port
        if way == "crash":
            assert api.standin.wait(DEADLINE_S) == 1
        api.standin.stop()
        with pytest.raises(requests.ConnectionError, match="refused"):
            api.ask("GET", "/health")
        api.standin.start(port=port)
        assert api.ask("GET", f"/api/v1/jobs/{job_id}").status_code == 404


# faults on demand


def test_jobs_can_be_made_to_fail_and_only_the_ones_meant(api: JobApi) -> None:
    for kind, words in (("fail", "without outputs"), ("oom", "out of memory"), ("fatal", "CUDA error")):
        api.standin.fault(kind, match="unlucky")
        lucky, unlucky = (
            api.ask("POST", CAMERA, json=api.body(prompt=prompt)).json()["job_id"]
            for prompt in ("lucky one", "unlucky")
        )
        assert api.ended(lucky)["status"] == "completed"
        assert words in api.ended(unlucky)["error"]


def test_answers_can_be_spoilt(api: JobApi) -> None:
    for kind, status in (("post-error", 500), ("post-busy", 503), ("post-garbled", 202)):
        api.standin.fault(kind)
        answer = api.ask("POST", CAMERA, json=api.body())
        assert answer.status_code == status
        if kind == "post-garbled":
            assert "job_id" not in answer.text
    job_id = api.ask("POST", CAMERA, json=api.body()).json()["job_id"]
    api.ended(job_id)
    for kind, status in (("ask-error", 500), ("ask-garbled", 200)):
        api.standin.fault(kind)
        answer = api.ask("GET", f"/api/v1/jobs/{job_id}")
        assert (answer.status_code, "job_id" in answer.text) == (status, False)
    assert api.ask("GET", f"/api/v1/jobs/{job_id}").json()["status"] == "completed"


def test_a_job_can_hang_vanish_end_without_a_result_or_in_an_unknown_state(api: JobApi) -> None:
    def post() -> str:
        job_id: str = api.ask("POST", CAMERA, json=api.body(steps=2)).json()["job_id"]
        return job_id

    api.standin.fault("hang")
    hung = post()
    until(lambda: api.ask("GET", f"/api/v1/jobs/{hung}").json()["status"] == "processing")
    api.standin.heal()
    assert api.ended(hung)["status"] == "completed"
    api.standin.fault("lose")
    lost = post()
    until(lambda: api.ask("GET", f"/api/v1/jobs/{lost}").status_code == 404)
    api.standin.fault("no-result")
    assert api.ended(post())["result_s3_uri"] is None
    api.standin.fault("strange")
    strange = post()
    until(lambda: api.ask("GET", f"/api/v1/jobs/{strange}").json()["status"] != "pending")
    assert api.ended(strange)["status"] == "completed"


def test_an_order_that_makes_no_sense_is_refused(api: JobApi) -> None:
    with pytest.raises(StandinFailed, match="earthquake"):
        api.standin.fault("earthquake")
