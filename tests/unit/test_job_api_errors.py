"""Every row of the job API's error table, against refusals of a request and the words of failed jobs."""

import json
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.errors import (
    Counts,
    EngineDown,
    EngineLost,
    Fatal,
    OutOfMemory,
    Rejected,
    SchedulerError,
    Transient,
)
from scheduler.engines import comfyui_errors
from scheduler.engines.error_cases import MAX_WORDS, Refusal
from scheduler.engines.job_api_error_table import CASES
from scheduler.engines.job_api_errors import failed, read, refused, row_of
from scheduler.engines.sdwebui_errors import classify

PAGE = Path(__file__).parents[2] / "docs/engine-errors.md"

FAILED = [
    ("CUDA out of memory. Tried to allocate 2.00 GiB.", OutOfMemory, None),
    ("torch.cuda.OutOfMemoryError", OutOfMemory, None),
    ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", OutOfMemory, None),
    ("RuntimeError: CUDA error: device-side assert triggered", Fatal, None),
    ("cudaErrorLaunchFailure: unspecified launch failure", Fatal, None),
    ("RuntimeError: cudart error 719", Fatal, None),
    ("HIP error: invalid device function", Fatal, None),
    ("Found no NVIDIA driver on your system", Fatal, None),
    ("Error while deserializing header: InvalidHeaderDeserialization", Fatal, None),
    ("FileNotFoundError: No such file or directory: '/models/qwen.safetensors'", Fatal, None),
    ("No such file or directory: /models/x.vae", Fatal, None),
    ("OSError: [Errno 28] No space left on device", Fatal, None),
    ("An error occurred (AccessDenied) when calling the PutObject operation", Transient, Counts.RUN),
    ("Failed to upload result: timeout", Transient, Counts.RUN),
    ("Failed to download image s3://b/k: NoSuchKey", Transient, Counts.TRY),
    ("An error occurred (404) when calling the HeadObject operation: Not Found", Transient, Counts.TRY),
    ("Could not fetch https://example.com/a.png", Transient, Counts.TRY),
    ("cannot identify image file <_io.BytesIO>", Rejected, None),
    ("Failed to download image: image file is truncated", Rejected, None),
    ("Prompt outputs failed validation: value_not_in_list", Rejected, None),
    ("value_not_in_list: device: 'cuda:7' not in ['cuda:0']", Rejected, None),
    ("value_bigger_than_max: steps", Rejected, None),
    ("mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)", Rejected, None),
    ("unsupported sampler", Rejected, None),
    ("Connection refused: 127.0.0.1:8188", Transient, Counts.RUN),
    ("something else", Transient, Counts.RUN),
    ("", Transient, Counts.RUN),
]


@pytest.mark.parametrize(("words", "kind", "counts"), FAILED)
def test_the_words_of_a_failed_job(words, kind, counts):
    error = failed(words)
    assert type(error) is kind
    assert getattr(error, "counts", None) is counts
    assert words[:20] in error.engine


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Failed to download https://example.com/nvidia-driver.png", Transient),
        ("Failed: s3://uploads/cuda/out-of-memory.png is not there", Transient),
        ("The file at https://example.com/validation is not there", Transient),
    ],
)
def test_what_the_client_called_its_pictures_is_no_sign_of_anything(words, kind):
    error = failed(words)
    assert type(error) is kind
    assert error.engine == words


def test_the_last_words_of_a_long_traceback_count():
    lines = 'File "run.py", line 1\n' * 5000
    assert type(failed(f"{lines}RuntimeError: CUDA error: unknown error")) is Fatal
    assert type(failed(f"CUDA error: unknown error\n{lines}")) is Fatal


def test_words_are_bounded():
    assert len(failed("x" * 100_000).engine) == MAX_WORDS


def detail(value):
    return json.dumps({"detail": value}).encode()


REFUSED = [
    (400, detail("image_url is required"), Rejected),
    (404, detail("no such model"), Rejected),
    (404, b'{"error": "no such model"}', Rejected),
    (413, b"too large", Rejected),
    (422, b"", Rejected),
    (302, b"", EngineDown),
    (401, detail("Not authenticated"), EngineDown),
    (404, detail("Not Found"), EngineDown),
    (404, b"", EngineDown),
    (404, b"<html>", EngineDown),
    (405, detail("Method Not Allowed"), EngineDown),
    (408, b"", EngineDown),
    (429, detail("slow down"), EngineDown),
    (502, b"<html>Bad Gateway</html>", EngineDown),
    (503, detail("Service Unavailable"), EngineDown),
    (504, b"", EngineLost),
    (500, b"Internal Server Error", Transient),
    (500, detail("CUDA out of memory"), OutOfMemory),
    (500, b'{"error": "CUDA error: unknown"}', Fatal),
    (500, b"[" * 100_000, Transient),
    (418, b"\xff\xfe", Transient),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSED)
def test_refusals_of_a_request(status, body, kind):
    error = refused(status, body)
    assert type(error) is kind
    assert len(error.message) < 2 * MAX_WORDS


def test_every_row_is_reached():
    words = [Refusal(status=200, error="", said=words) for words, *_ in FAILED]
    answers = [read(status, body) for status, body, _ in REFUSED]
    assert {row_of(refusal).answer for refusal in (*words, *answers)} == {case.answer for case in CASES}


def test_a_refusal_names_the_field_in_the_clients_terms():
    complaint = {"loc": ["body", "image_url"], "msg": "field required", "type": "value_error.missing"}
    error = refused(422, detail([complaint, {"loc": ["body", "steps"], "msg": "not a number"}]))
    assert isinstance(error, Rejected)
    assert error.field == "request_body.image_url"
    assert error.engine == "request_body.image_url: field required; request_body.steps: not a number"


@given(
    status=st.sampled_from([400, 404, 418, 422, 500]),
    body=st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["detail", "error", "loc", "msg"]), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)
def test_whatever_is_said_is_an_error_of_ours(status, body):
    assert isinstance(refused(status, json.dumps(body).encode()), SchedulerError)


def test_the_page_for_people_is_the_table():
    heading = "### Refusals, and the words of failed jobs"
    lines = dropwhile(lambda line: line != heading, PAGE.read_text().splitlines())
    table = takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines))
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in table if line.startswith("| ")]
    assert rows[0] == ("Answer", "Becomes", "Why")
    assert rows[1:] == [(case.answer, case.verdict.value, case.why) for case in CASES]


@pytest.mark.parametrize(
    "words",
    [
        "cudaErrorLaunchFailure: unspecified launch failure",
        "HIP error: invalid device function",
        "no kernel image is available for execution on the device",
        "No such file or directory: '/models/x.vae'",
        "CUDA error: out of memory",
        "CUDNN_STATUS_ALLOC_FAILED",
        "mat1 and mat2 shapes cannot be multiplied",
    ],
)
def test_the_same_words_mean_the_same_on_every_kind_of_engine(words):
    ended = [["execution_error", {"node_id": "3", "exception_type": "RuntimeError", "exception_message": words}]]
    of_webui = classify(500, json.dumps({"error": "RuntimeError", "errors": words}).encode(), payload={})
    of_comfyui = comfyui_errors.failed(ended, at="payload.prompt")
    assert {type(of_webui), type(of_comfyui), type(failed(words))} == {type(of_webui)} != {Transient}
