"""What clients are told of an end, in the words of the system that they were written for."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.ends import CANCELLED
from scheduler.domain.keys import run_mark
from scheduler.domain.task import Failure, Format, Result, StoredImage, Task, TaskType
from scheduler.wire import job_api
from scheduler.wire.eks_result import announcement, output
from scheduler.wire.recognise import recognise


def task_of(kind: str = "text-to-image", content: object = None, **metadata: object) -> Task:
    told = {"id": "test-t2i", "tasktype": kind, "prefix": "output", "context": {"abc": 123}} | metadata
    found = recognise(json.dumps({"metadata": told, "content": content or {"prompt": "A dog", "seed": -1}}))
    assert isinstance(found, Task)
    return found


MARK = run_mark("test-t2i", 1)
FAILURE = Failure(kind="rejected", message="Sampler not found", engine='{"detail": "Sampler not found"}')


def picture(n: int, seed: int | None = None) -> StoredImage:
    key = f"output/test-t2i/test-t2i-{MARK}-{n}.png"
    return StoredImage(key=key, media_type="image/png", size_bytes=1, sha256="", width=8, height=8, seed=seed)


RESULT = Result(images=(picture(1, 11), picture(2, 12)))


def test_success_is_announced_with_the_addresses_of_all_that_is_stored():
    assert announcement(task_of(), RESULT, run_no=1, bucket="outputbucket") == {
        "id": "test-t2i",
        "result": True,
        "image_url": [f"s3://outputbucket/output/test-t2i/test-t2i-{MARK}-{n}.png" for n in (1, 2)],
        "output_url": f"s3://outputbucket/output/test-t2i/test-t2i-{MARK}.out",
        "context": {"abc": 123},
    }


@pytest.mark.parametrize("end", [FAILURE, CANCELLED])
def test_failure_is_announced_without_pictures(end):
    told = announcement(task_of(prefix=None), end, run_no=2, bucket="b")
    assert (told["result"], told["image_url"]) == (False, [])
    assert told["output_url"] == f"s3://b/test-t2i/test-t2i-{run_mark('test-t2i', 2)}.out"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_the_context_comes_back_untouched(context):
    told = announcement(task_of(context=context), RESULT, run_no=1, bucket="b")
    assert json.loads(json.dumps(told))["context"] == context


def test_without_a_context_it_is_an_empty_object():
    header = {"task": "text-to-image", "id_task": "a"}
    found = recognise(json.dumps({"alwayson_scripts": header}))
    assert isinstance(found, Task)
    assert announcement(found, RESULT, run_no=1, bucket="b")["context"] == {}


def test_the_output_of_a_render_is_the_request_with_its_seeds():
    assert output(task_of(), RESULT) == {
        "images": [""],
        "parameters": {
            "prompt": "A dog",
            "seed": -1,
            "id_task": "test-t2i",
            "image_seed": "11,12",
            "error_msg": "",
        },
        "info": "",
    }


def test_the_output_holds_none_of_the_images_that_went_in():
    content = {"prompt": "A dog", "init_images": ["aGVsbG8="], "mask": "aGVsbG8="}
    parameters = output(task_of("image-to-image", content), RESULT)["parameters"]
    assert (parameters["init_images"], parameters["mask"]) == (None, None)


@pytest.mark.parametrize("kind", ["extra-single-image", "extra-batch-images"])
def test_the_output_of_an_upscaling_has_three_parameters(kind):
    assert output(task_of(kind, {"image": "aGVsbG8="}), RESULT) == {
        "images": [""],
        "parameters": {"html_info": "", "id_task": "test-t2i", "error_msg": ""},
        "info": "",
    }


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ('{"detail": "Sampler not found"}', {"detail": "Sampler not found"}),
        ("CUDA out of memory", "CUDA out of memory"),
        ("[" * 100_000, "[" * 100_000),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("kind", ["text-to-image", "extra-single-image"])
def test_the_output_of_a_failure_says_why_in_ours_and_the_engine_s_words(kind, engine, reason):
    failure = dataclasses.replace(FAILURE, engine=engine)
    assert output(task_of(kind), failure) == {
        "images": [""],
        "parameters": {"id_task": "test-t2i", "status": 0, "error_msg": "Sampler not found", "reason": reason},
        "info": "",
    }


def test_the_output_of_a_pipeline_is_a_code_alone():
    pipeline = task_of("pipeline", {"9": {"class_type": "SaveImage"}})
    assert [output(pipeline, end) for end in (RESULT, FAILURE, CANCELLED)] == [
        {"code": 200},
        {"code": 500},
        {"code": 500},
    ]


# the job API


def test_the_end_of_a_job_is_written_as_its_clients_read_it():
    assert [job_api.ended(status) for status in ("completed", "failed")] == [{}, {}]
    assert job_api.ended("cancelled") == {"error_message": "cancelled"}


def test_a_job_is_told_from_a_graph_by_its_path():
    job = recognise(json.dumps({"task_id": "j-1", "api_path": job_api.PATHS[0], "request_body": {}}))
    graph = task_of("pipeline")
    assert isinstance(job, Task)
    assert (job.task_type, job.api_path, job.format) == (TaskType.PIPELINE, job_api.PATHS[0], Format.JOB_API)
    assert (graph.task_type, graph.api_path, graph.job_type) == (TaskType.PIPELINE, None, "pipeline")
