"""The fingerprint: one request, one fingerprint, for ever."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.task import Task, TaskType, fingerprint

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
requests = st.dictionaries(st.text(max_size=10), json_values, max_size=5)


def test_it_is_the_sha256_of_the_plainest_json():
    canonical = rb'{"payload":{"prompt":"\u72d0","steps":20},"task_type":"txt2img"}'
    request = {"task_type": "txt2img", "payload": {"steps": 20, "prompt": "狐"}}
    assert fingerprint(request) == hashlib.sha256(canonical).hexdigest()


@given(requests)
def test_a_trip_through_json_does_not_change_it(request):
    assert fingerprint(json.loads(json.dumps(request, ensure_ascii=False, indent=3))) == fingerprint(request)


@given(requests)
def test_the_order_of_keys_does_not_change_it(request):
    assert fingerprint(dict(reversed(request.items()))) == fingerprint(request)


@given(requests, requests)
def test_two_requests_share_one_only_if_they_are_the_same(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": {}}, {"a": []}),
        ({"a": 0}, {"a": False}),
    ],
)
def test_what_json_tells_apart_it_tells_apart(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_a_task_cannot_be_changed():
    task = Task(task_id="t", task_type=TaskType.TXT2IMG, payload={}, fingerprint="f")
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.task_id = "other"  # type: ignore[misc]  # the point of the test
