"""What the job API's refusals, and the words of its failed jobs, mean."""

import json

import pytest

from scheduler.domain.errors import Counts, EngineDown, EngineLost, Fatal, OutOfMemory, Rejected, Transient
from scheduler.engines.job_api_errors import MAX_WORDS, failed, is_no_route, refused


@pytest.mark.parametrize(
    ("words", "kind", "counts"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", OutOfMemory, None),
        ("torch.cuda.OutOfMemoryError", OutOfMemory, None),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", OutOfMemory, None),
        ("RuntimeError: CUDA error: device-side assert triggered", Fatal, None),
        ("Found no NVIDIA driver on your system", Fatal, None),
        ("Error while deserializing header: InvalidHeaderDeserialization", Fatal, None),
        ("FileNotFoundError: No such file or directory: '/models/qwen.safetensors'", Fatal, None),
        ("An error occurred (AccessDenied) when calling the PutObject operation", Transient, Counts.RUN),
        ("Failed to upload result: timeout", Transient, Counts.RUN),
        ("Failed to download image s3://b/k: NoSuchKey", Transient, Counts.TRY),
        ("An error occurred (404) when calling the HeadObject operation: Not Found", Transient, Counts.TRY),
        ("Could not fetch https://example.com/a.png", Transient, Counts.TRY),
        ("cannot identify image file <_io.BytesIO>", Rejected, None),
        ("Failed to download image: image file is truncated", Rejected, None),
        ("Prompt outputs failed validation: value_not_in_list", Rejected, None),
        ("value_bigger_than_max: steps", Rejected, None),
        ("unsupported sampler", Rejected, None),
        ("Connection refused: 127.0.0.1:8188", Transient, Counts.RUN),
        ("something else", Transient, Counts.RUN),
        ("", Transient, Counts.RUN),
    ],
)
def test_the_words_of_a_failed_job(words, kind, counts):
    error = failed(words)
    assert type(error) is kind
    assert getattr(error, "counts", None) is counts
    assert words[:20] in error.engine


def test_words_are_bounded():
    assert len(failed("x" * 100_000).engine) == MAX_WORDS


def detail(value):
    return json.dumps({"detail": value}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, detail("image_url is required"), Rejected),
        (404, detail("no such model"), Rejected),
        (413, b"too large", Rejected),
        (422, b"", Rejected),
        (302, b"", EngineDown),
        (401, detail("Not authenticated"), EngineDown),
        (429, detail("slow down"), EngineDown),
        (502, b"<html>Bad Gateway</html>", EngineDown),
        (503, detail("Service Unavailable"), EngineDown),
        (504, b"", EngineLost),
        (500, b"Internal Server Error", Transient),
        (500, detail("CUDA out of memory"), OutOfMemory),
        (500, b'{"error": "CUDA error: unknown"}', Fatal),
        (500, b"[" * 100_000, Transient),
        (418, b"\xff\xfe", Transient),
    ],
)
def test_refusals_of_a_request(status, body, kind):
    error = refused(status, body)
    assert type(error) is kind
    assert len(error.message) < 2 * MAX_WORDS


def test_a_refusal_names_the_field_in_the_clients_terms():
    complaint = {"loc": ["body", "image_url"], "msg": "field required", "type": "value_error.missing"}
    error = refused(422, detail([complaint, {"loc": ["body", "steps"], "msg": "not a number"}]))
    assert isinstance(error, Rejected)
    assert error.field == "request_body.image_url"
    assert error.engine == "request_body.image_url: field required; request_body.steps: not a number"


@pytest.mark.parametrize(
    ("status", "body", "is_so"),
    [
        (404, detail("Not Found"), True),
        (404, b"", True),
        (404, b"<html>", True),
        (405, detail("Method Not Allowed"), True),
        (404, detail("no such model"), False),
        (422, detail("Not Found"), False),
    ],
)
def test_a_path_that_is_not_there(status, body, is_so):
    assert is_no_route(status, body) is is_so
