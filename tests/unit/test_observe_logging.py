"""Log lines: one JSON object each in service, bounded, and with no secret in them however it got there."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from scheduler.observe.logging import MAX_CHARS, REDACTED, SECRET_NAME, Redactor, configure

SECRET = "hunter2-the-long-one"  # the secret of these tests


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> io.StringIO:
    """Where the lines go."""
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def redacted(value: Any, *secrets: str, name: str = "field") -> Any:
    return Redactor(secrets or [SECRET])(None, "info", {name: value})[name]


def test_a_full_disk_costs_lines_and_no_work():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        configure(stream=full)
        for number in range(3):
            structlog.get_logger().info("told", number=number)
        with contextlib.suppress(OSError):  # the buffer's rest, which the test itself would write
            full.close()


def test_in_service_an_event_is_a_line_of_json_with_its_level_and_utc_time(stream):
    configure(stream=stream)
    structlog.get_logger().info("task_ended", task_id="t1", images=2, field=None, ok=True, ratio=0.5)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "task_ended",
        "level": "info",
        "task_id": "t1",
        "images": 2,
        "ok": True,
        "ratio": 0.5,
    }


def test_a_line_says_nothing_of_what_is_not_known(stream):
    configure(stream=stream)
    structlog.get_logger().warning("aws_unavailable", error="", advice=None, tries=0, is_first=False)
    assert {"error", "tries", "is_first"} <= set(lines(stream)[0])
    assert "advice" not in lines(stream)[0]


def test_whatever_is_in_a_field_a_line_is_one_line_of_ascii(stream):
    configure(stream=stream)
    structlog.get_logger().info("x", said="two\nlines\r\u2028 狐 \ud800 \x1b[31m")
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().isascii()
    assert lines(stream)[0]["said"] == "two\nlines\r\u2028 狐 \ud800 \x1b[31m"


def test_at_a_terminal_it_reads_like_text(stream):
    terminal = Terminal()
    configure(stream=terminal, secrets=[SECRET])
    structlog.get_logger().warning("engine_down", why=f"refused {SECRET}", api_auth="a:b")
    said = terminal.getvalue()
    assert "engine_down" in said
    assert re.search(r"(?<![T\d])\d\d:\d\d:\d\d\.\d\d\d(?![Z\d])", said)
    assert not re.search(r"\d{4}-\d\d-\d\d", said)
    assert "refused" in said
    assert SECRET not in said
    assert "a:b" not in said
    with pytest.raises(json.JSONDecodeError):
        json.loads(said)


def test_debug_is_not_written(stream):
    configure(stream=stream)
    structlog.get_logger().debug("x")
    assert stream.getvalue() == ""


def test_a_context_is_in_every_line_and_redacted_too(stream):
    configure(stream=stream, secrets=[SECRET])
    structlog.contextvars.bind_contextvars(task_id="t1", header=f"Basic {SECRET}")
    structlog.get_logger().info("x")
    assert (lines(stream)[0]["task_id"], lines(stream)[0]["header"]) == ("t1", f"Basic {REDACTED}")


def test_an_exception_is_told_with_its_end_and_without_secrets(stream):
    configure(stream=stream, secrets=[SECRET])

    def deep(levels: int) -> None:
        if levels == 0:
            raise RuntimeError(f"cannot log in with {SECRET}")
        deep(levels - 1)

    try:
        deep(60)
    except RuntimeError:
        structlog.get_logger().exception("cycle_failed")
    (line,) = lines(stream)
    assert line["exception"].startswith("Traceback")
    assert "RuntimeError: cannot log in with ***" in line["exception"]
    assert SECRET not in stream.getvalue()
    assert len(line["exception"]) < MAX_CHARS + 50


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "db_passwd",
        "api_auth",
        "apikey",
        "api_key",
        "X-Api-Key",
        "authorization",
        "Authorization",
        "aws_secret_access_key",
        "session_token",
        "credentials",
        "webhook_secret",
        "X-Amz-Signature",
    ],
)
def test_a_field_named_like_a_secret_is_hidden(name):
    for value in ("v", 7, ["v"], {"a": "v"}, b"v", object()):
        assert redacted(value, name=name) == REDACTED
    assert redacted({"headers": [{name: "v"}]}) == {"headers": [{name: REDACTED}]}


@pytest.mark.parametrize("value", ["", None, 0, [], {}])
def test_that_a_secret_is_not_set_may_be_seen(value):
    assert redacted(value, name="api_auth") == value


@pytest.mark.parametrize("name", ["event", "task_id", "error", "seconds", "queue", "author", "keys", "path"])
def test_other_fields_are_not_hidden(name):
    assert not SECRET_NAME.search(name)
    assert redacted("v", name=name) == "v"


class Opaque:
    def __repr__(self) -> str:
        return f"<Opaque {SECRET}>"


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"http://user:{SECRET}@host/path",
        f"{SECRET}{SECRET}",
        [SECRET],
        (1, (SECRET,)),
        {"a": {"b": [{"c": SECRET}]}},
        {SECRET: 1},
        {SECRET},
        SECRET.encode(),
        RuntimeError(f"refused {SECRET}"),
        Opaque(),
        {1: Opaque()},
        "x" * (MAX_CHARS // 2 - 3) + SECRET + "x" * MAX_CHARS,  # where the cut is
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_known_secret_is_hidden_wherever_it_stands(value, stream):
    configure(stream=stream, secrets=[SECRET])
    structlog.get_logger().info("x", field=value)
    assert REDACTED in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_a_secret_in_the_events_own_name_is_hidden(stream):
    configure(stream=stream, secrets=[SECRET])
    structlog.get_logger().info(f"login_{SECRET}")
    assert lines(stream)[0]["event"] == f"login_{REDACTED}"


def test_a_secret_that_begins_with_another_is_hidden_whole():
    assert redacted("abcdefgh", "abcd", "abcdefgh") == REDACTED
    assert redacted("abcdefgh", "abcdefgh", "abcd") == REDACTED


@pytest.mark.parametrize("secret", ["", "a", "a:b"])
def test_what_is_too_short_to_be_a_secret_does_not_hole_every_word(secret):
    assert redacted("a:b banana", secret) == "a:b banana"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10) | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.just(SECRET), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_nothing_that_can_be_nested_shows_a_secret(event):
    clean = Redactor([SECRET])(None, "info", event)
    assert SECRET not in json.dumps(clean)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers() | st.text(max_size=MAX_CHARS) | st.none()))
def test_what_holds_no_secret_stays_as_it_is(event):
    assert Redactor(["a secret that is in none of them"])(None, "info", dict(event)) == event


@pytest.mark.parametrize("length", [MAX_CHARS, MAX_CHARS + 1, 1_000_000])
def test_a_field_is_bounded_and_says_how_long_it_was(length):
    text = "start " + "x" * (length - 10) + " end"
    found = redacted({"prompt": [text]})["prompt"][0]
    if length == MAX_CHARS:
        assert found == text
    else:
        assert len(found) <= MAX_CHARS + 40
        assert found.startswith("start ")
        assert found.endswith(f" end ({length} characters)")


def test_bytes_are_bounded_too():
    assert len(redacted(b"\x89PNG" * 100_000)) <= MAX_CHARS + 40
