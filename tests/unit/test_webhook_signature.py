"""Webhooks are signed as Standard Webhooks says: the vector that its libraries are tested with, and its bounds."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.ends import CANCELLED, End
from scheduler.domain.task import Failure, Format, Task, TaskType
from scheduler.wire.webhook import MAX_ERROR_CHARS, body, headers, key_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TASK = Task(task_id="t.1", task_type=TaskType.TXT2IMG, payload={}, fingerprint="", format=Format.OWN, context=["käfer"])
FAILURE = Failure(kind="rejected", message="no" * 2000)


def test_the_published_vector():
    told = headers(
        key_of(SECRET), named="msg_p5jXN8AQM9LWM0D4loKWxJek", at_s=1614265330.9, body=b'{"test": 2432232314}'
    )
    assert told["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert told["webhook-timestamp"] == "1614265330"
    assert told["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(key=st.binary(min_size=24, max_size=64), sent=st.binary(), at=st.integers(0, 2**33))
def test_a_receiver_that_has_the_secret_can_verify(key, sent, at):
    secret = "whsec_" + base64.b64encode(key).decode()
    told = headers(key_of(secret), named="msg_1", at_s=at, body=sent)
    expected = hmac.digest(key, b"msg_1." + str(at).encode() + b"." + sent, hashlib.sha256)
    assert base64.b64decode(told["webhook-signature"].removeprefix("v1,")) == expected


def test_a_secret_without_its_prefix_is_the_same_key_as_receivers_take_it_for():
    assert key_of(SECRET.removeprefix("whsec_")) == key_of(SECRET)


@pytest.mark.parametrize(
    "secret",
    ["short", "a secret of plain words, 24+", "whsec_", "whsec_MfKQ9r8GKYqrTwjU", "whsec_%%%", "whsec_" + "A" * 128],
)
def test_what_is_no_key_is_told_without_showing_it(secret):
    with pytest.raises(ValueError, match="expected whsec_ and 24 to 64 bytes in base64") as caught:
        key_of(secret)
    assert secret.removeprefix("whsec_") in {"", secret} or secret not in str(caught.value)


def test_without_a_secret_there_is_no_signature():
    assert "webhook-signature" not in headers(None, named="msg_1", at_s=1.0, body=b"{}")


def end(attempt: int | None, **changes: object) -> End:
    told = {"task": TASK, "status": "failed", "outcome": FAILURE, "attempt": attempt, "at_s": 1614265330.9}
    return End(**(told | changes))


def test_an_end_is_named_the_same_each_time_and_other_than_any_other():
    names = [end(n).id for n in (None, 1, 2)] + [end(1, run_no=2).id]
    assert len(set(names)) == 4
    assert end(1, status="cancelled", outcome=CANCELLED, at_s=5.0).id == names[1]
    assert all("." not in name for name in names)  # it would separate what is signed


def test_the_body_of_a_failure():
    told = json.loads(body(end(1), address=str))
    assert (told["type"], told["timestamp"]) == ("task.failed", "2021-02-25T15:02:10Z")
    assert told["data"] == {
        "task_id": "t.1",
        "status": "failed",
        "image_urls": [],
        "error": FAILURE.message[:MAX_ERROR_CHARS],
        "context": ["käfer"],
    }


FORMATS = Path(__file__).parents[2] / "docs/formats.md"


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
def test_the_receiver_that_is_documented_knows_what_is_ours(secret):
    (block,) = re.findall(r"^```python\n(.*?)^```$", FORMATS.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    told = headers(key_of(secret), named="msg_1", at_s=1_795_188_245, body=b"{}")
    assert names["is_ours"](secret, told, b"{}")
    assert not names["is_ours"](secret, told, b"{ }")
    assert not names["is_ours"](secret, told | {"webhook-id": "msg_2"}, b"{}")
