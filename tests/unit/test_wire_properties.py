"""Whatever a body holds, it becomes a task, a reference, or a Rejected that names a field in bounded words."""

from __future__ import annotations

import json
import random
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scheduler.domain.errors import Rejected
from scheduler.domain.task import Format, Task, TaskType
from scheduler.wire import predecessor
from scheduler.wire.claim_check import Pointer
from scheduler.wire.json_body import MAX_DEPTH
from scheduler.wire.recognise import recognise

MEGABYTE = 1_000_000
some = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

text = st.text(max_size=30) | st.text(st.sampled_from("\ud800\udfff\0\x1f\ufeffa."), max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**310)
    | st.floats(allow_nan=True, allow_infinity=True)
    | text
)
field_names = st.sampled_from(
    [
        *("task_id", "task_type", "payload", "runtime", "prefix", "checkpoint", "context", "taskId", "storage", "api"),
        *("metadata", "content", "alwayson_scripts", "sdname", "task", "api_path", "request_body", "Message", ""),
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names | text, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(field_names | text, values, max_size=8)
task_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
good_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
names = st.text(min_size=1, max_size=300)
good_messages = st.fixed_dictionaries(
    {
        "task_id": task_ids,
        "task_type": st.sampled_from([str(kind) for kind in TaskType]),
        "payload": st.dictionaries(st.text(max_size=10), good_values, max_size=5),
    },
    optional={"runtime": names, "prefix": st.text(max_size=100), "checkpoint": names, "context": good_values},
)


def check_rejection(error: Rejected) -> None:
    assert error.field
    assert len(error.field) <= 120
    assert error.field.isprintable()
    assert len(error.message) < 500
    assert error.message.isprintable()


def settle(body: str) -> Task | str | Pointer | None:
    """Return what `body` becomes, None when it is rejected as it should be; any other error is the test's failure."""
    try:
        found = recognise(body)
    except Rejected as error:
        check_rejection(error)
        return None
    assert isinstance(found, Task | str | Pointer)
    return found


def settle_record(record: dict[str, Any]) -> Task | None:
    try:
        return predecessor.parse_record("task-1", record)
    except Rejected as error:
        check_rejection(error)
        return None


@given(objects)
@some
def test_any_object_is_settled(message):
    settle(json.dumps(message))


@given(values, st.booleans())
@some
def test_any_json_is_settled(value, escaped):
    body = json.dumps(value, ensure_ascii=escaped)
    if settle(body) is not None:
        assert isinstance(value, dict)


@given(st.text(st.characters()) | st.text(string.printable))
@example("\ufeff{}")
@example("\0")
@example('{"a": "\0"}')
@example('{"task_id": "\ud800"}')
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("9" * MEGABYTE)
@example("1" * MEGABYTE + ".0")
@example("-1e" + "9" * 1000)
@example("NaN")
@some
def test_any_text_is_settled(body):
    settle(body)


@given(good_messages, st.data())
@some
def test_a_message_with_one_wrong_thing_in_it_is_settled(message, data):
    name = data.draw(field_names | text)
    message[name] = data.draw(values)
    found = settle(json.dumps(message))
    if isinstance(found, Task):
        assert found.task_id == message["task_id"]
        json.dumps(dict(found.payload), ensure_ascii=False, allow_nan=False).encode()


@given(good_messages, st.integers(min_value=0))
@some
def test_a_message_cut_short_is_rejected(message, cut):
    body = json.dumps(message)
    assert settle(body[: cut % len(body)]) is None


@given(good_messages)
@some
def test_a_good_message_is_a_task_with_nothing_lost(message):
    found = recognise(json.dumps(message))
    assert isinstance(found, Task)
    assert (found.task_id, found.task_type, found.payload) == (
        message["task_id"],
        message["task_type"],
        message["payload"],
    )
    for name in ("runtime", "prefix", "checkpoint", "context"):
        assert getattr(found, name) == message.get(name)
    assert found.format is Format.OWN
    assert not found.by_reference
    assert re.fullmatch("[0-9a-f]{64}", found.fingerprint)


@given(good_messages, st.randoms(use_true_random=False), st.booleans())
@some
def test_the_fingerprint_is_the_request_whatever_its_spelling_and_its_id(message, dice, escaped):
    first = recognise(json.dumps(message))
    keys = list(message)
    dice.shuffle(keys)
    again = {key: message[key] for key in keys} | {"task_id": "another"}
    second = recognise(json.dumps(again, ensure_ascii=escaped, indent=2))
    assert first.fingerprint == second.fingerprint


@given(good_messages, good_values)
@some
def test_another_payload_is_another_fingerprint(message, value):
    changed = message | {"payload": message["payload"] | {"one more": value}}
    assert recognise(json.dumps(message)).fingerprint != recognise(json.dumps(changed)).fingerprint


@given(task_ids)
@some
def test_a_reference_gives_its_id(task_id):
    assert recognise(json.dumps({"taskId": task_id, "storage": "dynamodb"})) == task_id


@given(st.dictionaries(st.sampled_from(["requestData", "taskStatus", "submitTime"]), values))
@some
def test_any_record_is_settled(record):
    assert settle_record(record) is None


@given(
    values
    | st.fixed_dictionaries(
        {
            "api": st.sampled_from(list(predecessor.APIS)) | values,
            "payload": st.dictionaries(text, values, max_size=3) | values,
        }
    )
)
@some
def test_any_request_in_a_record_is_settled(request):
    found = settle_record({"requestData": json.dumps(request)})
    if found is not None:
        assert found.by_reference
        assert found.format is Format.PREDECESSOR
        assert found.payload == json.loads(json.dumps(request["payload"]))  # two halves of a pair become one


@given(st.text(st.characters()))
@some
def test_any_text_in_a_record_is_settled(data):
    settle_record({"requestData": data})


SAMPLES = Path(__file__).parents[1] / "samples" / "messages"
BODIES = [path.read_bytes().decode() for path in sorted(SAMPLES.rglob("*.body"))]
PIECES = [
    *'{}[]",:\\',
    *(
        "null",
        "true",
        "NaN",
        "-Infinity",
        "1e999",
        "-0",
        "\\ud800",
        "\\u0000",
        "\0",
        "\ud83e",
        "\ufeff",
        "é",
        "9" * 400,
    ),
    *(
        '"task_id"',
        '"taskId"',
        '"storage"',
        '"payload"',
        '"task_type"',
        '"context"',
        "[" * 150,
        '{"a":' * 150,
        "]}" * 20,
    ),
]


def spoilt(dice: random.Random) -> str:
    """Return the body of a sample with some of it cut out, doubled,
    or replaced by pieces of JSON and of other samples.
    """
    body = dice.choice(BODIES)
    for _ in range(dice.randint(1, 4)):
        start = dice.randint(0, len(body))
        end = min(len(body), start + dice.choice([0, 0, 1, 3, 10, 100]))
        other = dice.choice(BODIES)
        piece = dice.choice([dice.choice(PIECES), body[start:end] * 2, "", other[: dice.randint(0, len(other))]])
        body = body[:start] + piece + body[end:]
    return body


@pytest.mark.parametrize("seed", range(5))
def test_thousands_of_spoilt_samples_are_settled(seed):
    dice = random.Random(seed)
    outcomes = [settle(spoilt(dice)) for _ in range(2000)]
    assert 0 < sum(outcome is None for outcome in outcomes) < len(outcomes)


SCALARS: list[Any] = [
    None,
    True,
    0,
    -1,
    7.5,
    1e308,
    10**40,
    10**400,
    "",
    "a",
    "txt2img",
    "../a",
    "\0",
    "\ud800",
    "狐" * 500,
]
SCALARS += [float("nan"), float("inf"), "dynamodb", "7", "b" * 129]
KEYS = [
    "task_id",
    "task_type",
    "payload",
    "runtime",
    "prefix",
    "checkpoint",
    "context",
    "taskId",
    "storage",
    "metadata",
    "alwayson_scripts",
    "Message",
    "task",
    "",
    "\ud800",
]


def thing(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth > 5 or kind < 0.6:
        return dice.choice(SCALARS)
    if kind < 0.75:
        return [thing(dice, depth + 1) for _ in range(dice.randint(0, 4))]
    return {dice.choice(KEYS): thing(dice, depth + 1) for _ in range(dice.randint(0, 5))}


def message_of(dice: random.Random) -> dict[str, Any]:
    """Return a good message with up to four of its fields (or of other names) holding anything at all."""
    good = {"task_id": "a", "task_type": "txt2img", "payload": {}}
    reference = {"taskId": "a", "storage": "dynamodb"}
    return dice.choice([good, good, reference]) | {dice.choice(KEYS): thing(dice) for _ in range(dice.randint(0, 4))}


@pytest.mark.parametrize("seed", range(5))
def test_thousands_of_messages_with_anything_in_them_are_settled(seed):
    dice = random.Random(seed)
    outcomes = [settle(json.dumps(message_of(dice), ensure_ascii=dice.random() < 0.5)) for _ in range(2000)]
    assert {type(outcome) for outcome in outcomes} == {type(None), Task, str}


@pytest.mark.parametrize("seed", range(2))
def test_thousands_of_records_with_anything_in_them_are_settled(seed):
    dice = random.Random(seed)
    for _ in range(2000):
        api = dice.choice([*predecessor.APIS, thing(dice)])
        request = {"api": api, "payload": dice.choice([{}, thing(dice)]), dice.choice(KEYS): thing(dice)}
        data = dice.choice([json.dumps(request), json.dumps(request)[: dice.randint(0, 100)], thing(dice)])
        settle_record({"requestData": data, dice.choice(KEYS): thing(dice)})


def nested(depth: int) -> str:
    """A good message whose innermost list lies in `depth` objects and lists."""
    inner = "[" * (depth - 1) + "]" * (depth - 1)
    return '{"task_id":"a","task_type":"txt2img","payload":{},"context":' + inner + "}"


def test_nesting_is_bounded_by_us_and_not_by_whoever_walks_it_next():
    assert isinstance(recognise(nested(MAX_DEPTH)), Task)
    for depth in (MAX_DEPTH + 1, 500, 900, 2000):
        with pytest.raises(Rejected, match="nested too deeply"):
            recognise(nested(depth))


BIG = {
    "prompt": ('{"task_id":"a","task_type":"txt2img","payload":{"prompt":"' + "x" * MEGABYTE + '"}}', True),
    "escapes": ('{"task_id":"a","task_type":"txt2img","payload":{"p":"' + "\\u0000" * 170_000 + '"}}', True),
    "list": ('{"task_id":"a","task_type":"txt2img","payload":{"l":[' + "0," * 500_000 + "0]}}", True),
    "id": ('{"task_id":"' + "a" * MEGABYTE + '","task_type":"txt2img","payload":{}}', False),
    "type": ('{"task_id":"a","task_type":"' + "é" * MEGABYTE + '","payload":{}}', False),
    "key": ('{"task_id":"a","task_type":"txt2img","payload":{},"' + "k" * MEGABYTE + '":1}', False),
    "keys": ('{"task_id":"a",' + ",".join(f'"{n}":0' for n in range(90_000)) + "}", False),
    "foreign keys": ("{" + ",".join(f'"{n}":0' for n in range(90_000)) + "}", False),
    "storage": ('{"taskId":"a","storage":"' + "s" * MEGABYTE + '"}', False),
    "digits": ('{"task_id":"a","task_type":"txt2img","payload":{"s":' + "9" * MEGABYTE + "}}", False),
    "decimal": ('{"task_id":"a","task_type":"txt2img","payload":{"s":' + "9" * MEGABYTE + ".5}}", False),
    "white space": (" " * MEGABYTE, False),
    "surrogates": ('{"task_id":"a","task_type":"txt2img","payload":{"p":"' + "\\ud800" * 170_000 + '"}}', False),
}


@pytest.mark.parametrize("name", BIG)
def test_a_megabyte_is_settled_in_bounded_words(name):
    body, is_good = BIG[name]
    assert (settle(body) is not None) is is_good
