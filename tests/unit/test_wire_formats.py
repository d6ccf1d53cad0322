"""Every format: what a client writes is what the task says, whatever surrounds it; and no body is of two formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.domain.errors import Rejected
from scheduler.domain.task import Format, Task, TaskType
from scheduler.wire import job_api
from scheduler.wire.claim_check import Pointer, declared_bytes
from scheduler.wire.eks_content import ROUTING, TASK_TYPES
from scheduler.wire.recognise import FAMILIES, recognise

some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=8), values, max_size=4)
task_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
names = st.text(min_size=1, max_size=300)
prefixes = st.text(min_size=1, max_size=100)
links = st.from_regex(r"(https://|s3://)[a-z.]{1,20}/[a-z0-9,;=]{0,20}", fullmatch=True)
engine_fields = st.dictionaries(
    st.sampled_from(["prompt", "negative_prompt", "steps", "seed", "hr_prompt", "styles", "a field of tomorrow"]),
    values,
)
scripts = st.dictionaries(st.text(max_size=8).filter(lambda name: name not in ROUTING), values, max_size=3)
kinds = st.sampled_from(list(TASK_TYPES))
sns_ids = st.none() | st.uuids().map(str)


def sent(body: Any, sns_id: str | None, *, wrapped: bool = False) -> str:
    """Return `body` as it lies in a queue: in SNS's envelope if it has an id there, in a ``task`` if that is asked."""
    text = json.dumps({"task": body} if wrapped else body)
    if sns_id is None:
        return text
    return json.dumps({"Type": "Notification", "MessageId": sns_id, "Message": text, "Signature": "EXAMPLE"})


def task_in(text: str) -> Task:
    found = recognise(text)
    assert isinstance(found, Task)
    return found


@given(
    st.fixed_dictionaries(
        {"id": task_ids, "tasktype": kinds},
        optional={"runtime": names, "prefix": prefixes, "context": values, "more": values},
    ),
    engine_fields,
    scripts,
    sns_ids,
    st.booleans(),
)
@some
def test_version_2_of_eks_says_what_its_client_wrote(metadata, content, more_scripts, sns_id, wrapped):
    kind = TASK_TYPES[metadata["tasktype"]]
    renders = kind in {TaskType.TXT2IMG, TaskType.IMG2IMG}
    body = {"metadata": metadata, "content": content | ({"alwayson_scripts": more_scripts} if renders else {})}
    task = task_in(sent(body, sns_id, wrapped=wrapped))
    assert (task.task_id, task.task_type, task.format) == (metadata["id"], kind, Format.EKS_V1ALPHA2)
    assert (task.runtime, task.prefix) == (metadata.get("runtime"), metadata.get("prefix"))
    assert (task.context, task.sns_id) == (metadata.get("context", {}), sns_id)
    assert task.payload == content | ({"alwayson_scripts": more_scripts} if renders and more_scripts else {})
    assert task == task_in(sent(body, sns_id, wrapped=not wrapped))


@given(
    st.fixed_dictionaries(
        {"task": st.sampled_from(["text-to-image", "image-to-image"]), "id_task": task_ids},
        optional={"sd_model_checkpoint": names, "save_dir": prefixes, "uid": values, "image_link": links},
    ),
    engine_fields,
    scripts,
    st.none() | names,
    objects,
    objects,
    sns_ids,
)
@some
def test_version_1_of_eks_says_what_its_client_wrote(header, content, more_scripts, sdname, mine, over, sns_id):
    request = content | {"alwayson_scripts": header | more_scripts | {"override_settings": over}}
    request |= {"override_settings": mine} | ({"sdname": sdname} if sdname else {})
    task = task_in(sent(request, sns_id))
    assert (task.task_id, task.task_type) == (header["id_task"], TASK_TYPES[header["task"]])
    assert (task.format, task.sns_id, task.context) == (Format.EKS_V1ALPHA1, sns_id, {})
    assert (task.runtime, task.prefix) == (sdname or "legacy", header.get("save_dir"))
    assert task.checkpoint == header.get("sd_model_checkpoint")
    expected = content | {"override_settings": mine | over}
    expected |= {"alwayson_scripts": more_scripts} if more_scripts else {}
    if header["task"] == "image-to-image" and "image_link" in header:
        expected["init_images"] = [header["image_link"]]
    assert task.payload == expected
    assert not ROUTING & set(task.payload.get("alwayson_scripts", {}))


@given(task_ids, st.sampled_from(job_api.PATHS), objects, sns_ids)
@some
def test_the_job_api_gets_what_its_client_wrote(task_id, path, request, sns_id):
    task = task_in(sent({"task_id": task_id, "api_path": path, "request_body": request}, sns_id))
    assert (task.task_id, task.api_path, task.payload, task.format) == (task_id, path, request, Format.JOB_API)
    assert task.job_type == path


@given(
    st.from_regex(r"[a-z0-9][a-z0-9.-]{1,40}[a-z0-9]", fullmatch=True),
    st.text(min_size=1, max_size=200),
    st.sampled_from(
        [
            "software.amazon.payloadoffloading.PayloadS3Pointer",
            "com.amazon.sqs.javamessaging.MessageS3Pointer",
            "shaded.software.amazon.payloadoffloading.PayloadS3Pointer",
        ]
    ),
    sns_ids,
)
@some
def test_a_pointer_tells_where_the_body_lies_and_never_twice(bucket, key, name, sns_id):
    text = sent([name, {"s3BucketName": bucket, "s3Key": key}], sns_id)
    pointer = recognise(text)
    assert pointer == Pointer(bucket=bucket, key=key, sns_id=sns_id)
    assert pointer.address == f"s3://{bucket}/{key}"
    with pytest.raises(Rejected, match="holds a pointer again"):
        recognise(text, fetched_by=pointer)
    body = {"metadata": {"id": "t-1", "tasktype": "pipeline"}, "content": {}}
    fetched = recognise(json.dumps(body), fetched_by=pointer)
    assert isinstance(fetched, Task)
    assert fetched == task_in(sent(body, sns_id)), "what is fetched is what could have been sent"
    assert recognise(json.dumps({"Message": json.dumps(body)}), fetched_by=pointer) == fetched


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ExtendedPayloadSize": "307200"}, 307200),
        ({"SQSLargePayloadSize": "1"}, 1),
        ({"ExtendedPayloadSize": "2", "SQSLargePayloadSize": "1"}, 2),
        ({"runtime": "7"}, None),
        ({"ExtendedPayloadSize": "-1"}, None),
        ({"ExtendedPayloadSize": "many"}, None),
        ({"ExtendedPayloadSize": "9" * 5000}, None),
    ],
)
def test_the_size_of_a_body_is_what_its_sender_says(attributes, expected):
    assert declared_bytes(attributes) == expected


KEYS = [
    *("task_id", "task_type", "payload", "taskId", "storage", "metadata", "content", "alwayson_scripts", "sdname"),
    *("task", "api_path", "request_body", "prompt", "runtime", "context"),
]
GOOD: list[dict[str, Any]] = [
    {"task_id": "a", "task_type": "txt2img", "payload": {}},
    {"taskId": "a", "storage": "dynamodb"},
    {"metadata": {"id": "a", "tasktype": "pipeline"}, "content": {}},
    {"alwayson_scripts": {"task": "text-to-image", "id_task": "a"}},
    {"task": {"metadata": {"id": "a", "tasktype": "pipeline"}, "content": {}}},
    {"task_id": "a", "api_path": job_api.PATHS[0], "request_body": {}},
]


@given(st.sampled_from(GOOD), st.sampled_from(GOOD), st.dictionaries(st.sampled_from(KEYS), values, max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_is_mixed_of_two_formats_is_of_none(first, second, more):
    body = more | second | first
    fitting = [family.name for family in FAMILIES if family.looks_like(body)]
    assert settled(json.dumps(body)) is None or len(fitting) == 1


def settled(text: str) -> object:
    """Return what `text` is, None when it is rejected for a field that is named;
    any other error is the test's failure.
    """
    try:
        return recognise(text)
    except Rejected as error:
        named = error.field
    assert named
    return None


@pytest.mark.parametrize("body", GOOD, ids="+".join)
def test_each_good_body_is_of_one_format_only(body):
    assert sum(family.looks_like(body) for family in FAMILIES) == 1
    recognise(json.dumps(body))


@given(st.sampled_from(GOOD), st.data())
@settings(max_examples=200, deadline=None)
def test_a_body_with_one_thing_in_it_replaced_is_understood_or_rejected(good, data):
    body = json.loads(json.dumps(good))
    place = body
    while True:
        name = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[name], dict) and place[name] and data.draw(st.booleans()):
            place = place[name]
            continue
        place[name] = data.draw(values | objects)
        break
    settled(sent(body, data.draw(sns_ids)))


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (GOOD[0], GOOD[0] | {"payload": {"steps": 7}}),
        (GOOD[2], GOOD[2] | {"content": {"steps": 7}}),
        (GOOD[2], {"metadata": {"id": "a", "tasktype": "pipeline", "context": 7}, "content": {}}),
        (GOOD[3], GOOD[3] | {"steps": 7}),
        (GOOD[5], GOOD[5] | {"request_body": {"steps": 7}}),
        (GOOD[5], GOOD[5] | {"api_path": job_api.PATHS[1]}),
    ],
)
def test_the_fingerprint_is_that_of_the_request_and_not_of_what_surrounds_it(body, changed):
    one = task_in(sent(body, None)).fingerprint
    assert task_in(sent(body, "sns-1")).fingerprint == one
    assert task_in(sent(changed, None)).fingerprint != one


def test_the_id_is_no_part_of_the_fingerprint():
    first = task_in(
        sent({"alwayson_scripts": {"task": "text-to-image", "id_task": "a"}, "s3_output_path": "b/a"}, None)
    )
    other = task_in(
        sent({"alwayson_scripts": {"task": "text-to-image", "id_task": "b"}, "s3_output_path": "b/b"}, None)
    )
    assert first.fingerprint == other.fingerprint
