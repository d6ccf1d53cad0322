"""Which notice ends the work, and when; which only marks the instance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.drain.notices import Kind, Notice
from scheduler.drain.plan import LEAD_S, first_to_bind

NOW = 1_800_000_000.0


def notice(kind: Kind = Kind.INTERRUPTION, in_s: float | None = 120.0) -> Notice:
    deadline_s = None if in_s is None else NOW + in_s
    return Notice(kind=kind, id=f"{kind}{in_s}", at_s=NOW, deadline_s=deadline_s, action="x", detail=f"{kind} {in_s}")


SPOT, ASG, MAINTENANCE, REBALANCE = Kind.INTERRUPTION, Kind.ASG_TERMINATE, Kind.MAINTENANCE, Kind.REBALANCE
WEEK_S = 7 * 86_400.0


@pytest.mark.parametrize("kind", [SPOT, ASG, MAINTENANCE])
@pytest.mark.parametrize("in_s", [-60, 0, 20, 120])
def test_what_ends_the_instance_ends_the_work(kind, in_s):
    told = notice(kind, in_s)
    assert first_to_bind([told], now_s=NOW) == (NOW + in_s, told)


@pytest.mark.parametrize(
    "notices",
    [[], [notice(REBALANCE, None)], [notice(MAINTENANCE, WEEK_S)], [notice(MAINTENANCE, LEAD_S + 1)]],
    ids=["none", "rebalance", "maintenance in a week", "maintenance soon"],
)
def test_what_is_only_likely_or_far_off_stops_nothing(notices):
    assert first_to_bind(notices, now_s=NOW) is None


def test_maintenance_that_comes_near_stops_work_in_time():
    assert first_to_bind([notice(MAINTENANCE, WEEK_S)], now_s=NOW + WEEK_S - LEAD_S) is not None


@pytest.mark.parametrize(
    ("notices", "in_s"),
    [
        ([notice(ASG, 600), notice(SPOT, 120)], 120),
        ([notice(SPOT, 120), notice(ASG, 60)], 60),
        ([notice(REBALANCE, None), notice(SPOT, 120)], 120),
        # the group waits an hour for us: maintenance that begins before, and does not bind yet, does not hurry us
        ([notice(MAINTENANCE, LEAD_S + 60), notice(ASG, 3600)], 3600),
    ],
)
def test_of_several_notices_the_first_that_ends_work_decides(notices, in_s):
    found = first_to_bind(notices, now_s=NOW)
    assert found is not None
    assert found[0] == NOW + in_s


notices = st.builds(notice, st.sampled_from([SPOT, ASG, MAINTENANCE]), st.floats(-1000, 100_000)) | st.builds(
    notice, st.just(REBALANCE), st.none()
)


@given(st.lists(notices, max_size=3), notices)
def test_another_notice_never_gives_more_time(announced, another):
    before, after = first_to_bind(announced, now_s=NOW), first_to_bind([*announced, another], now_s=NOW)
    if before is not None:
        assert after is not None
        assert after[0] <= before[0]
