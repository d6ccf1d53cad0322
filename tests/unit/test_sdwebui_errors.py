"""Every row of the error table, against answers that real engines gave."""

import json
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest

from scheduler.domain.errors import Counts, EngineDown, EngineLost, Fatal, OutOfMemory, Rejected, Transient
from scheduler.engines.error_cases import MAX_WORDS, Verdict, case_of
from scheduler.engines.sdwebui_error_table import CASES
from scheduler.engines.sdwebui_errors import classify, read

ROOT = Path(__file__).parents[2]
SAMPLES = json.loads((ROOT / "tests/samples/a1111_answers/errors.json").read_text())
KIND = {
    Verdict.REJECTED: Rejected,
    Verdict.TRANSIENT: Transient,
    Verdict.OUT_OF_MEMORY: OutOfMemory,
    Verdict.FATAL: Fatal,
    Verdict.DOWN: EngineDown,
    Verdict.LOST: EngineLost,
}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["name"])
def test_answer_becomes_what_the_table_says(sample):
    error = classify(sample["status"], sample["body"].encode(), payload=sample["payload"])
    assert type(error) is KIND[Verdict(sample["verdict"])]
    assert getattr(error, "field", None) == sample["field"]
    assert error.engine
    if type(error) is Transient:
        assert error.counts is Counts.RUN
    if type(error) is EngineDown:
        assert error.counts is Counts.NOTHING


def test_every_row_has_a_sample():
    reached = {case_of(read(sample["status"], sample["body"].encode()), CASES).answer for sample in SAMPLES}
    assert reached == {case.answer for case in CASES}


def test_the_engines_words_reach_the_client():
    body = json.dumps({"error": "ValueError", "detail": "", "body": "", "errors": "no such style"}).encode()
    error = classify(500, body, payload={})
    assert error.engine == "ValueError: no such style"
    assert "no such style" in error.message


@pytest.mark.parametrize("status", [422, 500])
def test_long_words_are_bounded(status):
    body = json.dumps({"detail": [{"loc": ["body", "x"], "msg": "y" * 5000}], "errors": "z" * 5000}).encode()
    error = classify(status, body, payload={})
    assert len(error.engine) <= MAX_WORDS
    assert len(error.message) < MAX_WORDS + 200


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"null", b"[1]", b'{"detail": [3]}', b'{"detail": [{}]}', b'{"error": 5}', b"[" * 100000]
)
@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 418, 422, 500, 599])
def test_any_bytes_are_an_answer(status, body):
    assert isinstance(classify(status, body, payload={"override_settings": [1], "alwayson_scripts": 3}), Exception)


def test_out_of_memory_goes_before_cuda_for_cuda_says_both():
    body = json.dumps({"error": "RuntimeError", "errors": "CUDA error: out of memory"}).encode()
    assert type(classify(500, body, payload={})) is OutOfMemory


def test_the_page_for_people_is_the_table():
    lines = (ROOT / "docs/engine-errors.md").read_text().splitlines()
    table = takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines))
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in table if line.startswith("| ")]
    assert rows[0] == ("Answer", "Becomes", "Why")
    assert rows[1:] == [(case.answer, case.verdict.value, case.why) for case in CASES]
