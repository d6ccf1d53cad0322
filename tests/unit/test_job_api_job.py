"""What the job API's answers tell of a job, and when a job is given up."""

import itertools
import random

import pytest

from scheduler.domain.errors import BadResult, Counts, DeadlineExceeded, EngineBusy, EngineHung, EngineLost
from scheduler.engines.job_api_job import (
    FIRST_PAUSE_S,
    JITTER,
    MAX_PAUSE_S,
    SILENCE_S,
    Following,
    Job,
    Stage,
    pauses,
    read_job,
)


def answer(status="processing", **more):
    return {"job_id": "a-1", "status": status, "result_s3_uri": None, "error": None} | more


@pytest.mark.parametrize(
    ("status", "stage", "has_ended"),
    [
        ("pending", Stage.WAITING, False),
        ("PENDING", Stage.WAITING, False),
        ("processing", Stage.RUNNING, False),
        ("completed", Stage.DONE, True),
        ("Completed", Stage.DONE, True),
        ("failed", Stage.FAILED, True),
        ("cancelled", Stage.FAILED, True),
        ("uploading", Stage.RUNNING, False),
        ("", Stage.RUNNING, False),
    ],
)
def test_statuses(status, stage, has_ended):
    job = read_job(answer(status))
    assert (job.stage, job.has_ended) == (stage, has_ended)


def test_a_numbered_job_and_one_with_less_or_more_in_its_answer():
    assert read_job({"job_id": 17, "status": "pending", "queue": 3}) == Job(job_id="17", status="pending")


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        "a-1",
        {},
        {"job_id": "a-1"},
        {"status": "pending"},
        answer(job_id=""),
        answer(job_id=None),
        answer(job_id=True),
        answer(job_id=1.5),
        answer(job_id="../../health"),
        answer(job_id="a/b"),
        answer(job_id=".."),
        answer(job_id="a" * 200),
        answer(job_id="a\n"),
        answer(status=None),
        answer(status=3),
    ],
)
def test_answers_that_tell_of_no_job(said):
    with pytest.raises(BadResult):
        read_job(said)


@pytest.mark.parametrize("uri", ["s3://my-bucket/a.png", "s3://my.bucket/deep/er/ä b.png".replace(" ", "+")])
def test_a_result(uri):
    assert read_job(answer("completed", result_s3_uri=uri)).result_uri() == uri


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        7,
        "https://bucket.s3.amazonaws.com/a.png",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "s3://b/k",
        "s3://Bucket/k",
        "s3://bucket/a b",
        "s3://bucket/a\n",
        "s3://bucket/" + "a" * 2000,
    ],
)
def test_a_good_end_without_a_usable_address_is_no_result(uri):
    with pytest.raises(BadResult, match="a-1"):
        read_job(answer("completed", result_s3_uri=uri)).result_uri()


@pytest.mark.parametrize("error", [{"code": 3}, ["a"], 7])
def test_an_error_that_is_no_text_is_shown_as_it_is(error):
    assert read_job(answer("failed", error=error)).error == ascii(error)


def test_pauses_grow_to_a_bound_and_are_never_in_step():
    first, second = (list(itertools.islice(pauses(random.Random(n)), 40)) for n in (1, 2))
    assert first != second
    assert FIRST_PAUSE_S * (1 - JITTER) <= first[0] <= FIRST_PAUSE_S * (1 + JITTER)
    assert max(first + second) <= MAX_PAUSE_S * (1 + JITTER)
    assert min(first[20:]) >= MAX_PAUSE_S * (1 - JITTER)


def following(status="processing", deadline_s=100.0):
    return Following(read_job(answer(status)), now=1000.0, deadline_s=deadline_s)


def test_a_job_may_run_until_its_deadline():
    it = following()
    it.heard(read_job(answer()), 1099.0)
    assert it.overdue(1099.9) is None
    error = it.overdue(1100.0)
    assert isinstance(error, DeadlineExceeded)
    assert "100 s" in error.message
    it.heard(read_job(answer("completed")), 1101.0)
    assert it.overdue(1101.0) is None


def test_the_deadline_starts_when_the_job_does():
    it = following("pending")
    it.heard(read_job(answer("pending")), 1090.0)
    it.heard(read_job(answer("processing")), 1095.0)
    it.heard(read_job(answer("processing")), 1190.0)
    assert it.overdue(1194.0) is None
    assert isinstance(it.overdue(1195.0), DeadlineExceeded)


def test_a_job_that_never_begins_costs_its_task_nothing():
    it = following("pending")
    it.heard(read_job(answer("pending")), 1099.0)
    error = it.overdue(1100.0)
    assert isinstance(error, EngineBusy)
    assert error.counts is Counts.NOTHING


def test_an_api_that_says_nothing_at_the_deadline_is_hung():
    it = following(deadline_s=10.0)
    it.missed("500", 1009.0)
    error = it.overdue(1010.0)
    assert isinstance(error, EngineHung)
    assert error.counts is Counts.RUN


def test_silence_is_borne_for_a_while():
    it = following(deadline_s=10_000.0)
    it.missed("refused", 1000.0 + SILENCE_S)
    it.heard(read_job(answer()), 1001.0 + SILENCE_S)
    it.missed("refused", 1001.0 + 2 * SILENCE_S)
    with pytest.raises(EngineLost, match="refused"):
        it.missed("refused", 1001.5 + 2 * SILENCE_S)


def test_an_answer_about_another_job_is_none():
    assert read_job(answer(), of="a-1").job_id == "a-1"
    with pytest.raises(BadResult, match="b-2"):
        read_job(answer(job_id="b-2"), of="a-1")
