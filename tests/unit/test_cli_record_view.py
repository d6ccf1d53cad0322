"""A record as a person reads it: status first, dates with their zone, durations,
nothing that could steer a terminal.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from scheduler.cli.record_view import duration, lines, result_lines

ZONE = dt.timezone(dt.timedelta(hours=8), "CST")
NOW_S = 1_700_000_000.0  # 2023-11-15 06:13:20 in ZONE
RECORD = {
    "attempt": Decimal(1),
    "created_at": Decimal(int(NOW_S - 200)),
    "expires_at": Decimal(int(NOW_S + 90 * 86400)),
    "finished_at": Decimal(str(NOW_S - 187.5)),
    "fingerprint": "abc",
    "generate_ms": Decimal(12050),
    "queued_ms": Decimal(18),
    "images": [{"key": "k", "bytes": 1}],
    "status": "completed",
    "task_id": "t1",
}


def shown(record, **more):
    return {line.split()[0]: line[15:] for line in lines(record | more, now_s=NOW_S, zone=ZONE)}


def test_status_and_task_come_first_and_the_rest_by_name():
    names = [line.split()[0] for line in lines(RECORD | {"owner": "o"}, now_s=NOW_S, zone=ZONE)]
    assert names[:2] == ["status", "task_id"]
    assert names[-3:] == ["attempt", "fingerprint", "owner"]
    assert "images" not in names


def test_times_are_dates_with_zone_and_distance():
    seen = shown(RECORD)
    assert seen["created_at"] == "2023-11-15 06:10:00 CST (3 min 20 s ago)"
    assert seen["finished_at"] == "2023-11-15 06:10:12 CST (3 min 8 s ago), 12 s after created_at"
    assert seen["expires_at"] == "2024-02-13 06:13:20 CST (in 90 d)"


def test_durations_have_units():
    seen = shown(RECORD, progress=Decimal(45), eta_s=Decimal(75))
    assert (seen["generate_ms"], seen["queued_ms"]) == ("12 s", "18 ms")
    assert (seen["progress"], seen["eta_s"]) == ("45 %", "1 min 15 s")


def test_words_stand_as_they_are_and_what_could_steer_a_terminal_is_quoted():
    seen = shown(RECORD, error_message="no such sampler: 'x'", sampler="\x1b[31mred\n", error={"class": "rejected"})
    assert seen["error_message"] == "no such sampler: 'x'"
    assert seen["sampler"] == '"\\u001b[31mred\\n"'
    assert seen["error"] == "class rejected"


def test_an_error_is_told_without_what_its_message_says_already():
    error = {"class": "rejected", "message": "no such sampler", "field": "payload.sampler_name", "engine": "422"}
    seen = shown(RECORD, error_message="no such sampler", error=error)
    assert seen["error"] == "class rejected, field payload.sampler_name, engine 422"
    assert shown(RECORD, error=error)["error"].startswith("class rejected, message no such sampler, ")
    assert shown(RECORD, error={"engine": "\x1b[31m"})["error"] == '"engine \\u001b[31m"'


def test_several_words_are_one_line_and_no_json():
    assert shown(RECORD, warnings=["all black", "width is 504"])["warnings"] == "all black; width is 504"
    assert shown(RECORD, warnings=["all\nblack"])["warnings"] == '["all\\nblack"]'
    assert shown(RECORD, warnings=[])["warnings"] == "[]"


@pytest.mark.parametrize("value", ["soon", None, True, Decimal("1e30"), Decimal(-1)])
def test_a_time_that_somebody_else_wrote_wrongly_is_still_shown(value):
    assert shown(RECORD, created_at=value)["created_at"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_a_duration_is_said_in_at_most_two_units(seconds, expected):
    assert duration(seconds) == expected


def test_an_image_is_a_line_with_its_address():
    (line,) = result_lines({"images": [{"url": "s3://b/k", "width": 8, "height": 9, "bytes": 10}]})
    assert line.split() == ["image", "s3://b/k", "8x9,", "10", "bytes"]


def test_what_an_engine_stored_itself_is_a_line_at_the_end_and_not_among_the_rest():
    record = RECORD | {"result_s3_uri": "s3://b/\x1b[31m.png"}
    assert "result_s3_uri" not in shown(record)
    assert result_lines({"result_s3_uri": "s3://b/k.png"})[0].split() == ["result", "s3://b/k.png"]
    assert "\x1b" not in result_lines({"result_s3_uri": record["result_s3_uri"]})[0]
    assert result_lines({"status": "failed"}) == []
