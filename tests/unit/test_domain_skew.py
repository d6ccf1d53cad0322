"""Clock skew: only what is proved, whatever the network's delays and the header's contents."""

from __future__ import annotations

import datetime as dt
import math
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.domain.skew import SkewBounds

AWS_NOW = 1_900_000_000.0


def date_of(epoch_s: float) -> str:
    """Return the Date header of an answer sent at `epoch_s`: cut to whole seconds, as HTTP has it."""
    return format_datetime(dt.datetime.fromtimestamp(int(epoch_s), dt.UTC), usegmt=True)


def ask(bounds: SkewBounds, skew_s: float, *, at_s: float, there_s: float = 0.02, back_s: float = 0.02) -> None:
    """Ask AWS at its time `at_s` from a host whose clock is `skew_s` ahead."""
    answered_s = at_s + there_s
    bounds.add(date_of(answered_s), sent_at_s=at_s + skew_s, received_at_s=answered_s + back_s + skew_s)


def test_nothing_is_proved_before_the_first_answer():
    assert SkewBounds().least_s() == 0.0


calls = st.lists(
    st.tuples(st.floats(0, 86400), st.floats(0, 30), st.floats(0, 30)),  # when, the way there, the way back
    min_size=1,
    max_size=40,
)


@given(st.floats(-7200, 7200), calls)
def test_what_is_proved_is_never_more_than_the_skew(skew_s, sent):
    bounds = SkewBounds()
    for at_s, there_s, back_s in sent:
        ask(bounds, skew_s, at_s=AWS_NOW + at_s, there_s=there_s, back_s=back_s)
    assert 0.0 <= bounds.least_s() <= abs(skew_s) + 1e-5


@given(st.floats(-7200, 7200), calls)
def test_one_answer_proves_the_skew_to_the_delay_and_the_cut_second(skew_s, sent):
    at_s, there_s, back_s = sent[0]
    bounds = SkewBounds()
    ask(bounds, skew_s, at_s=AWS_NOW + at_s, there_s=there_s, back_s=back_s)
    assert bounds.least_s() >= abs(skew_s) - there_s - back_s - 1.0 - 1e-5


@given(st.floats(-7200, 7200), calls)
def test_more_answers_never_prove_less(skew_s, sent):
    bounds = SkewBounds(samples=len(sent))
    proved_s = 0.0
    for at_s, there_s, back_s in sent:
        ask(bounds, skew_s, at_s=AWS_NOW + at_s, there_s=there_s, back_s=back_s)
        assert bounds.least_s() >= proved_s
        proved_s = bounds.least_s()


@pytest.mark.parametrize("skew_s", [3.0, -3.0])
def test_answers_at_different_parts_of_the_second_close_in_on_the_skew(skew_s):
    bounds = SkewBounds()
    ask(bounds, skew_s, at_s=AWS_NOW + 0.5)
    assert bounds.least_s() == pytest.approx(2.5, abs=0.05)
    for tenth in range(10):
        ask(bounds, skew_s, at_s=AWS_NOW + 10 + tenth * 1.1 - 0.04)
    assert bounds.least_s() == pytest.approx(3.0, abs=0.15)


def test_after_the_clock_was_set_right_the_newest_answer_counts():
    bounds = SkewBounds()
    for n in range(5):
        ask(bounds, 90.0, at_s=AWS_NOW + n)
    assert bounds.least_s() > 88
    ask(bounds, 0.0, at_s=AWS_NOW + 10)
    assert bounds.least_s() == 0.0


def test_old_answers_are_forgotten():
    bounds = SkewBounds(samples=4)
    ask(bounds, 5.0, at_s=AWS_NOW, back_s=0.0)
    for n in range(4):  # these say little: each took half a minute
        ask(bounds, 5.0, at_s=AWS_NOW + n * 60, there_s=15.0, back_s=15.0)
    assert bounds.least_s() == 0.0


@pytest.mark.parametrize(
    "header",
    [
        "",
        "yesterday",
        "Sat, 21 Nov",
        "Sat, 99 Nov 2030 02:52:52 GMT",
        "Sat, 21 Nov 2030 25:61:61 GMT",
        "Sat, 21 Nov 2030 02:52:52 +9999",
        "Sat, 21 Nov 99999999999999999999 02:52:52 GMT",
        "Sat, 21 Nov 2030 02:52:52 +99999999999999999999",
        "1900000000",
        "\0",
    ],
)
def test_a_header_that_is_no_date_is_passed_over(header):
    bounds = SkewBounds()
    ask(bounds, 5.0, at_s=AWS_NOW)
    proved_s = bounds.least_s()
    bounds.add(header, sent_at_s=AWS_NOW, received_at_s=AWS_NOW)
    assert bounds.least_s() == proved_s > 3


@given(st.text() | st.text(st.sampled_from("Sat, 21 Nov 2030:GMT+-9")))
@example("Sat, 21 Nov 0000 02:52:52 GMT")
@example("Mon, 1 Jan 0001 00:00:00 +2359")
@settings(max_examples=300, deadline=None)
def test_any_header_is_taken(header):
    bounds = SkewBounds()
    bounds.add(header, sent_at_s=AWS_NOW, received_at_s=AWS_NOW)
    assert 0.0 <= bounds.least_s() < math.inf


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000", ""])
def test_a_date_without_a_zone_is_utc_wherever_the_host_is(zone, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        bounds = SkewBounds()
        bounds.add(date_of(AWS_NOW).replace("GMT", zone), sent_at_s=AWS_NOW, received_at_s=AWS_NOW + 0.1)
        assert bounds.least_s() == 0.0
    finally:
        monkeypatch.undo()
        time.tzset()
