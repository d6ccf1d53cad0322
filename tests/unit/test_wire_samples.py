"""Every sample message and record beside what it is expected to become."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import pytest

from scheduler.domain.errors import Rejected
from scheduler.domain.task import Format, Task
from scheduler.wire import predecessor
from scheduler.wire.claim_check import Pointer
from scheduler.wire.recognise import recognise

SAMPLES = Path(__file__).parents[1] / "samples" / "messages"
DEFAULTS = {field.name: field.default for field in fields(Task) if field.default is not MISSING}
"""What a task is in all that a sample does not say of it."""
BODIES = sorted(SAMPLES.rglob("*.body"))
RECORDS = sorted(SAMPLES.rglob("*.record.json"))


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def expected_of(path: Path) -> dict[str, Any]:
    expected = json.loads((path.parent / f"{path.name.partition('.')[0]}.expected.json").read_text())
    return expected | {"task": DEFAULTS | expected["task"]} if "task" in expected else expected


def outcome(found: Task | str | Pointer) -> dict[str, Any]:
    match found:
        case Task():
            return {"task": asdict(found)}
        case Pointer():
            return {"pointer": asdict(found)}
        case _:
            return {"reference": found}


def check(expected: dict[str, Any], call: Any) -> None:
    if "rejected" not in expected:
        assert outcome(call()) == expected
        return
    with pytest.raises(Rejected) as caught:
        call()
    assert caught.value.field == expected["rejected"]["field"]
    assert expected["rejected"]["says"] in caught.value.message


@pytest.mark.parametrize("path", BODIES, ids=name_of)
def test_a_body_becomes_what_is_written_beside_it(path):
    check(expected_of(path), lambda: recognise(path.read_bytes().decode()))


@pytest.mark.parametrize("path", RECORDS, ids=name_of)
def test_a_record_becomes_what_is_written_beside_it(path):
    record = json.loads(path.read_text())
    check(expected_of(path), lambda: predecessor.parse_record(record["taskId"], record))


def test_a_body_fits_the_same_format_whether_it_comes_raw_or_through_sns():
    for path in BODIES:
        body = path.read_bytes().decode()
        if path.parent.name in {"sns", "claim_check"} or "surrogate" in path.name:
            continue
        check(
            through_sns(expected_of(path)), lambda body=body: recognise(json.dumps({"Message": body, "MessageId": "s"}))
        )


def through_sns(expected: dict[str, Any]) -> dict[str, Any]:
    match expected:
        case {"task": task}:
            return {"task": task | {"sns_id": "s"}}
        case {"rejected": {"field": "body", "says": says}}:
            return {"rejected": {"field": "Message", "says": says}}
        case _:
            return expected


DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
BLOCKS = re.findall(r"^```json\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_bodies_that_are_documented_are_understood_and_the_rest_is_no_message():
    found = [json.loads(block) for block in BLOCKS]
    answers = [body for body in found if any(name in body for name in ("taskStatus", "result", "status"))]
    mapped = next(body for body in found if "init_images" in body)
    understood = [recognise(json.dumps(body)) for body in found if body not in [*answers, mapped]]
    assert len(answers) == 2
    assert len(understood) == len(found) - 3
    tasks = [one for one in understood if isinstance(one, Task)]
    assert {task.format for task in tasks} == set(Format) - {Format.PREDECESSOR}
    assert mapped in [task.payload for task in tasks]


def test_every_expectation_has_its_sample_and_every_folder_both_kinds():
    sampled = {name_of(path) for path in [*BODIES, *RECORDS]}
    expected = sorted(SAMPLES.rglob("*.expected.json"))
    assert {name_of(path) for path in expected} == sampled
    for folder in ("own", "predecessor", "records", "eks_v1alpha1", "eks_v1alpha2", "sns", "job_api", "claim_check"):
        kinds = {"rejected" in json.loads(path.read_text()) for path in expected if path.parent.name == folder}
        assert kinds == {True, False}


def test_the_order_and_spacing_of_keys_do_not_change_the_fingerprint_but_the_request_does():
    prints = {
        name: expected_of(SAMPLES / "own" / f"{name}.body")["task"]["fingerprint"]
        for name in ("txt2img", "txt2img_spaced", "nulls_are_absent", "every_field", "empty_payload", "img2img")
    }
    assert prints["txt2img"] == prints["txt2img_spaced"] == prints["nulls_are_absent"]
    assert len(set(prints.values())) == 4
