"""What is done about notices: what may finish, what is cut and when, and what only marks the instance."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.drain.notices import Kind, Notice
from scheduler.drain.plan import LEAD_S, MARGIN_S, plan

NOW = 1_800_000_000.0


def notice(kind: Kind = Kind.INTERRUPTION, in_s: float | None = 120.0) -> Notice:
    deadline_s = None if in_s is None else NOW + in_s
    return Notice(kind=kind, id=f"{kind}{in_s}", at_s=NOW, deadline_s=deadline_s, action="x", detail=f"{kind} {in_s}")


SPOT, ASG, MAINTENANCE, REBALANCE = Kind.INTERRUPTION, Kind.ASG_TERMINATE, Kind.MAINTENANCE, Kind.REBALANCE
WEEK_S = 7 * 86_400.0


@pytest.mark.parametrize(
    ("in_s", "remaining_s", "interrupt_in_s"),
    [
        # nothing runs, or it fits: it is finished, and cut should it overrun
        (120, 0, 100),
        (120, 5, 100),
        (120, 99.9, 100),
        (120, 100, 100),
        # it cannot fit: at once, so that another begins the sooner
        (120, 100.1, 0),
        (120, 3600, 0),
        (20, 0.1, 0),
        # unknown: as long as there is time
        (120, None, 100),
        (30, None, 10),
        # no time left, or none ever was
        (20, None, 0),
        (19, 0, 0),
        (0, None, 0),
        (-60, None, 0),
        (-60, 5, 0),
    ],
)
@pytest.mark.parametrize("kind", [SPOT, ASG, MAINTENANCE])
def test_one_running_task(kind, in_s, remaining_s, interrupt_in_s):
    made = plan([notice(kind, in_s)], now_s=NOW, remaining_s=remaining_s)
    assert made.leaves
    assert made.interrupt_at_s == NOW + interrupt_in_s


def test_the_margin_is_what_the_caller_says():
    assert plan([notice()], now_s=NOW, remaining_s=110, margin_s=5).interrupt_at_s == NOW + 115


@pytest.mark.parametrize(
    "notices",
    [[notice(REBALANCE, None)], [notice(MAINTENANCE, WEEK_S)], [notice(MAINTENANCE, LEAD_S + 1)]],
    ids=["rebalance", "maintenance in a week", "maintenance soon"],
)
def test_what_is_only_likely_or_far_off_marks_the_instance_and_stops_nothing(notices):
    made = plan(notices, now_s=NOW, remaining_s=50)
    assert (made.leaves, made.interrupt_at_s, made.goes_first) == (False, math.inf, True)
    assert made.why


def test_maintenance_that_comes_near_stops_work_in_time():
    made = plan([notice(MAINTENANCE, WEEK_S)], now_s=NOW + WEEK_S - LEAD_S, remaining_s=None)
    assert (made.leaves, made.interrupt_at_s) == (True, NOW + WEEK_S - MARGIN_S)


def test_without_a_notice_everything_goes_on():
    made = plan([], now_s=NOW, remaining_s=None)
    assert (made.leaves, made.interrupt_at_s, made.goes_first, made.why) == (False, math.inf, False, "")


@pytest.mark.parametrize(
    ("notices", "leaves", "interrupt_in_s"),
    [
        ([notice(ASG, 600), notice(SPOT, 120)], True, 100),
        ([notice(SPOT, 120), notice(ASG, 60)], True, 40),
        ([notice(REBALANCE, None), notice(SPOT, 120)], True, 100),
        # the group waits an hour for us: maintenance that begins before does not make us stay
        ([notice(MAINTENANCE, LEAD_S + 60), notice(ASG, 3600)], True, 3580),
        ([notice(MAINTENANCE, WEEK_S), notice(REBALANCE, None)], False, math.inf),
    ],
)
def test_of_several_notices_the_first_that_ends_work_decides(notices, leaves, interrupt_in_s):
    made = plan(notices, now_s=NOW, remaining_s=None)
    assert (made.leaves, made.interrupt_at_s) == (leaves, NOW + interrupt_in_s)


notices = st.builds(notice, st.sampled_from([SPOT, ASG, MAINTENANCE]), st.floats(-1000, 100_000)) | st.builds(
    notice, st.just(REBALANCE), st.none()
)


@given(st.lists(notices, max_size=4), st.none() | st.floats(0, 100_000), st.floats(0, 2000))
def test_nothing_runs_into_a_deadline_and_nothing_is_cut_before_now(announced, remaining_s, later_s):
    now_s = NOW + later_s
    made = plan(announced, now_s=now_s, remaining_s=remaining_s)
    assert made.interrupt_at_s >= now_s
    for one in announced:
        if one.kind in {SPOT, ASG} and one.deadline_s is not None:
            assert made.leaves
            assert made.interrupt_at_s <= max(now_s, one.deadline_s - MARGIN_S)


@given(st.lists(notices, max_size=3), notices, st.none() | st.floats(0, 100_000))
def test_another_notice_never_gives_more_time(announced, another, remaining_s):
    before = plan(announced, now_s=NOW, remaining_s=remaining_s)
    after = plan([*announced, another], now_s=NOW, remaining_s=remaining_s)
    assert after.leaves >= before.leaves
    assert after.interrupt_at_s <= before.interrupt_at_s
