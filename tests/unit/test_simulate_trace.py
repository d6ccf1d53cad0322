"""A trace is read as it was written, and every mistake in it is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.domain.errors import ConfigError
from scheduler.simulate.model import Arrival
from scheduler.simulate.trace import MOST_PROBLEMS, read_trace


@pytest.fixture
def trace(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "trace.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_trace(path)
    return [problem.removeprefix(str(path)) for problem in caught.value.problems]


def test_rows_become_arrivals_by_time_from_0(trace):
    path = trace("t,service_s,steps,model\n1030,20.5,30,b\n1000,10,none,a\n")
    assert read_trace(path) == [Arrival(0.0, 10.0, "a"), Arrival(30.0, 20.5, "b")]


def test_time_and_service_suffice_in_any_order_of_columns(trace):
    assert read_trace(trace("service_s,user,t\n10,me,-5\n11,you,5.5\n")) == [Arrival(0.0, 10.0), Arrival(10.5, 11.0)]


def test_what_spreadsheets_write_is_read(trace):
    assert read_trace(trace(b'\xef\xbb\xbf"t", "service_s"\r\n1, 2\r\n\r\n3, 4\r\n')) == [
        Arrival(0.0, 2.0),
        Arrival(2.0, 4.0),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,2,", ":3: t is 'x': expected a number of seconds"),
        ("1,,", ":3: service_s is empty: expected a number of seconds over 0"),
        ("1,0,", ":3: service_s is '0': expected a number of seconds over 0"),
        ("1,-4,", ":3: service_s is '-4': expected a number of seconds over 0"),
        ("1,inf,", ":3: service_s is 'inf': expected a number of seconds over 0"),
        ("nan,1,", ":3: t is 'nan': expected a number of seconds"),
        ("1", ":3: service_s is empty: expected a number of seconds over 0"),
        ("2026-01-01T00:00:00,3,", ":3: t is '2026-01-01T00:00:00': expected a number of seconds"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_and_column(trace, row, said):
    assert problems(trace(f"t,service_s,model\n0,1,a\n{row}\n")) == [said]


def test_a_time_that_can_only_be_milliseconds_is_refused(trace):
    with pytest.raises(ConfigError, match=r":2: t is '1700000000000': expected seconds; .* divide it by 1000"):
        read_trace(trace("t,service_s\n1700000000000,20\n"))
    assert read_trace(trace("t,service_s\n1700000000,20\n1700000060,20\n"))[1].at_s == 60


def test_all_wrong_values_are_told_but_not_thousands(trace):
    told = problems(trace("t,service_s\n" + "x,y\n" * 1000))
    assert told[:2] == [
        ":2: t is 'x': expected a number of seconds",
        ":2: service_s is 'y': expected a number of seconds over 0",
    ]
    assert told[MOST_PROBLEMS:] == [": not read further"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column t and no service_s: expected a head such as t,service_s,model, found nothing"),
        (
            "t;service_s\n1;2\n",
            "no column t and no service_s: expected a head such as t,service_s,model, found t;service_s",
        ),
        ("t,seconds\n1,2\n", "no column service_s: expected a head such as t,service_s,model, found t, seconds"),
        ("t,service_s\n", "has no rows below its head; expected one for each task"),
        (b"t,service_s\n\xff,1\n", "is no CSV in UTF-8"),
    ],
)
def test_what_is_no_trace_is_told(trace, text, said):
    [told] = problems(trace(text))
    assert said in told


def test_a_file_that_is_not_there_is_told(tmp_path):
    assert problems(tmp_path / "none.csv") == [": cannot be read: No such file or directory"]
