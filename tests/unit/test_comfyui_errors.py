"""Every row of ComfyUI's error tables, against answers and ends as the real one gave them."""

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
from scheduler.engines.comfyui_error_table import PROMPT_CASES, RUN_CASES
from scheduler.engines.comfyui_errors import failed, partly_refused, refused
from scheduler.engines.error_cases import MAX_WORDS

PAGE = Path(__file__).parents[2] / "docs/engine-errors.md"
SAMPLES = Path(__file__).parents[1] / "samples/comfyui/refusals.json"
AT = "payload.prompt"


def node_errors(
    node_id="1", class_type="EmptyImage", name="width", message="Required input is missing", details="width"
):
    error = {"type": "x", "message": message, "details": details, "extra_info": {"input_name": name} if name else {}}
    return {node_id: {"errors": [error], "dependent_outputs": ["2"], "class_type": class_type}}


def answer(kind="prompt_outputs_failed_validation", message="Prompt outputs failed validation", details="", nodes=None):
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return json.dumps({"error": error, "node_errors": nodes or {}}).encode()


REFUSED = [
    (400, answer(nodes=node_errors()), Rejected, f"{AT}.1.inputs.width", "node 1 (EmptyImage), input width: Required"),
    (
        400,
        answer(nodes=node_errors(name=None, message="Bad", details="")),
        Rejected,
        f"{AT}.1",
        "node 1 (EmptyImage): Bad",
    ),
    (
        400,
        answer("invalid_prompt", "Cannot execute because node NoSuch does not exist.", "Node ID '#12'"),
        Rejected,
        f"{AT}.12.class_type",
        "NoSuch",
    ),
    (400, answer("prompt_no_outputs", "Prompt has no outputs"), Rejected, AT, "Prompt has no outputs"),
    (400, b'{"error": "no prompt", "node_errors": []}', Rejected, AT, "no prompt"),
    (413, b"Maximum request body size 104857600 exceeded", Rejected, AT, "104857600"),
    (
        400,
        answer(nodes=node_errors(class_type="LoadImage", name="image", details="image - Invalid image file: abc.png")),
        Transient,
        None,
        "abc.png",
    ),
    (500, b"500 Internal Server Error\n\nServer got itself in trouble", Transient, None, "in trouble"),
    (404, b"404: Not Found", EngineDown, None, "404"),
    (401, b"", EngineDown, None, "401"),
    (403, b"", EngineDown, None, "403"),
    (504, b"", EngineLost, None, "504"),
]


@pytest.mark.parametrize(("status", "body", "kind", "field", "words"), REFUSED)
def test_a_refusal_becomes_what_the_table_says(status, body, kind, field, words):
    error = refused(status, body, at=AT, uploads=["abc.png"])
    assert type(error) is kind
    assert getattr(error, "field", None) == field
    assert words in error.message
    if kind is Transient:
        assert error.counts is (Counts.NOTHING if status == 400 else Counts.RUN)


CAPTURED = [case for case in json.loads(SAMPLES.read_text()) if "answer" in case]


@pytest.mark.parametrize("case", CAPTURED, ids=lambda case: case["name"])
def test_what_the_real_one_refused_is_the_tasks_fault_and_named(case):
    error = refused(case["status"], json.dumps(case["answer"]).encode(), at=AT, uploads=[])
    assert type(error) is Rejected
    named = [
        ".".join(
            [AT, node, *(["inputs", one["extra_info"]["input_name"]] if "input_name" in one["extra_info"] else [])]
        )
        for node, told in case["answer"]["node_errors"].items()
        if node != "..."
        for one in told["errors"]
    ]
    is_by_class = case["answer"]["error"]["type"] == "invalid_prompt"
    assert error.field == (named[0] if named else f"{AT}.1.class_type" if is_by_class else AT)


def ended(name, words, node_id="3", node_type="KSampler"):
    data = {"node_id": node_id, "node_type": node_type, "exception_type": name, "exception_message": words}
    return [["execution_start", {}], ["execution_cached", {"nodes": []}], ["execution_error", data]]


FAILED = [
    ("torch.OutOfMemoryError", "Allocation on device", OutOfMemory),
    ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", OutOfMemory),
    ("MemoryError", "", OutOfMemory),
    ("RuntimeError", "CUDA error: out of memory", OutOfMemory),
    ("PIL.UnidentifiedImageError", "cannot identify image file", Rejected),
    ("OSError", "[Errno 28] No space left on device", Fatal),
    ("safetensors_rust.SafetensorError", "Error while deserializing header: HeaderTooLarge", Fatal),
    ("FileNotFoundError", "No such file or directory: '/models/x.safetensors'", Fatal),
    ("torch.AcceleratorError", "CUDA error: an illegal memory access was encountered", Fatal),
    ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", Fatal),
    ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)", Rejected),
    ("RuntimeError", "ERROR: clip input is invalid: None", Rejected),
    ("RuntimeError", "ERROR: Could not detect model type of: lora.safetensors", Rejected),
    ("ValueError", "too many values to unpack", Rejected),
    ("custom_nodes.face.NoFaceFound", "no face", Transient),
    ("requests.exceptions.ConnectionError", "no route", Transient),
]


@pytest.mark.parametrize(("name", "words", "kind"), FAILED)
def test_an_end_becomes_what_the_table_says(name, words, kind):
    error = failed(ended(name, words), at=AT)
    assert type(error) is kind
    assert "node 3 (KSampler)" in error.message
    assert words in error.engine
    if kind is Rejected:
        assert error.field == f"{AT}.3"
    if kind is Transient:
        assert error.counts is Counts.RUN


def test_every_row_is_reached():
    # By its sentence, which is each row's own or its neighbour's with the same verdict.
    said = {refused(status, body, at=AT, uploads=["abc.png"]).message for status, body, *_ in REFUSED}
    assert all(any(message.startswith(case.says) for message in said) for case in PROMPT_CASES)
    said = {failed(ended(name, words), at=AT).message for name, words, _ in FAILED}
    assert all(any(message.startswith(case.says) for message in said) for case in RUN_CASES)


def test_an_interrupt_that_we_did_not_ask_for_is_a_try_for_a_graph_may_have_a_node_that_does_so():
    error = failed([["execution_interrupted", {"node_id": "3"}]], at=AT)
    assert (type(error), error.counts) == (Transient, Counts.TRY)


def test_a_prompt_that_is_taken_in_part_is_refused_in_the_engines_words():
    assert partly_refused({}, at=AT) is None
    assert partly_refused([], at=AT) is None
    error = partly_refused(node_errors("30", "SaveImage", "filename_prefix", details="filename_prefix"), at=AT)
    assert error.field == f"{AT}.30.inputs.filename_prefix"
    assert "Required input is missing" in error.engine


def test_long_words_are_bounded():
    many = {str(n): node_errors(details="y" * 5000)["1"] for n in range(50)}
    error = refused(400, answer(nodes=many), at=AT, uploads=[])
    assert len(error.engine) <= MAX_WORDS
    assert len(error.message) < MAX_WORDS + 200
    assert len(failed(ended("ValueError", "z" * 5000), at=AT).message) < MAX_WORDS + 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "errors", "node_errors", "1"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(status=st.sampled_from([400, 404, 418, 500]), body=ANYTHING)
def test_whatever_is_said_is_an_error_of_ours(status, body):
    assert isinstance(refused(status, json.dumps(body).encode(), at=AT, uploads=["x"]), SchedulerError)
    assert isinstance(failed(body, at=AT), SchedulerError)
    assert isinstance(failed([["execution_error", body]], at=AT), SchedulerError)
    partly_refused(body, at=AT)


@pytest.mark.parametrize(
    ("heading", "cases"),
    [
        ("### Answers to `POST /prompt` other than 200", PROMPT_CASES),
        ("### Runs that end with `execution_error`", RUN_CASES),
    ],
)
def test_the_page_for_people_is_the_table(heading, cases):
    lines = dropwhile(lambda line: line != heading, PAGE.read_text().splitlines())
    table = takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines))
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in table if line.startswith("| ")]
    assert rows[0] == ("Answer", "Becomes", "Why")
    assert rows[1:] == [(case.answer, case.verdict.value, case.why) for case in cases]
