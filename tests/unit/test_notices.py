"""EC2's announcements as AWS documents them, and whatever else may stand in their place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.drain.notices import (
    Kind,
    Reading,
    read_instance_action,
    read_lifecycle_state,
    read_maintenance,
    read_rebalance,
    read_termination_time,
)

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
READERS = [read_instance_action, read_termination_time, read_rebalance, read_maintenance, read_lifecycle_state]

EVENT = {
    "NotBefore": "21 Jan 2027 09:00:43 GMT",
    "Code": "system-reboot",
    "Description": "scheduled reboot",
    "EventId": "instance-event-0d59937288b749b32",
    "NotAfter": "21 Jan 2027 09:17:23 GMT",
    "State": "active",
}
EVENT_S = 1_800_522_043.0


def only(reading: Reading):
    assert reading.fault == ""
    (notice,) = reading.notices
    return notice


def action(action="terminate", time="2027-01-15T08:02:00Z", **more) -> str:
    return json.dumps({"action": action, "time": time} | more)


# each as documented


@pytest.mark.parametrize("what", ["terminate", "stop"])
def test_a_spot_interruption_tells_what_and_when(what):
    notice = only(read_instance_action(action(what), NOW))
    assert (notice.kind, notice.action) == (Kind.INTERRUPTION, what)
    assert (notice.at_s, notice.deadline_s) == (NOW, NOW + 120)


def test_hibernation_begins_at_once_whatever_time_is_given():
    assert only(read_instance_action(action("hibernate"), NOW)).deadline_s == NOW


def test_the_older_document_is_the_same_notice():
    old = only(read_termination_time("2027-01-15T08:02:00Z\n", NOW + 2))
    new = only(read_instance_action(action(), NOW))
    assert (old.id, old.kind, old.action, old.deadline_s) == (new.id, new.kind, new.action, new.deadline_s)


@pytest.mark.parametrize("text", ["", "none", "0", "2027-01-15", "20270115", "<html>T</html>"])
def test_the_older_document_may_hold_what_is_no_time(text):
    assert read_termination_time(text, NOW) == Reading()


def test_a_rebalance_recommendation_has_no_deadline():
    notice = only(read_rebalance('{"noticeTime": "2027-01-15T07:59:00Z"}', NOW))
    assert (notice.kind, notice.deadline_s) == (Kind.REBALANCE, None)


def test_maintenance_is_due_when_it_may_begin():
    notice = only(read_maintenance(json.dumps([EVENT]), NOW))
    assert (notice.kind, notice.action, notice.deadline_s) == (Kind.MAINTENANCE, "system-reboot", EVENT_S)
    assert EVENT["EventId"] in notice.detail


@pytest.mark.parametrize("state", ["completed", "canceled"])
def test_maintenance_that_is_past_or_called_off_is_none(state):
    reading = read_maintenance(json.dumps([EVENT | {"State": state}, EVENT]), NOW)
    assert len(reading.notices) == 1
    assert read_maintenance("[]", NOW) == Reading()


@pytest.mark.parametrize("state", [None, ["completed"], "postponed"])
def test_maintenance_in_a_state_unknown_to_us_counts(state):
    assert only(read_maintenance(json.dumps([EVENT | {"State": state}]), NOW)).kind is Kind.MAINTENANCE


@pytest.mark.parametrize("state", ["Terminated", "Terminated\n", "Warmed:Terminated"])
def test_a_group_that_wants_the_instance_gone_is_taken_to_wait_a_while(state):
    notice = only(read_lifecycle_state(state, NOW, grace_s=300))
    assert (notice.kind, notice.action, notice.deadline_s) == (Kind.ASG_TERMINATE, "terminate", NOW + 300)


@pytest.mark.parametrize("state", ["InService", "Standby", "Detached", "Warmed:Stopped", "Warmed:Running", ""])
def test_every_other_state_is_no_notice(state):
    assert read_lifecycle_state(state, NOW) == Reading()


# identity


def test_the_id_is_that_of_the_announcement_not_of_its_spelling_nor_of_the_moment():
    one = only(read_instance_action(action(), NOW))
    same = '{\n "time" : "2027-01-15T08:02:00+00:00",\n "action" : "terminate", "new": {"of": "AWS"}}'
    assert only(read_instance_action(same, NOW + 60)).id == one.id
    event = only(read_maintenance(json.dumps([EVENT]), NOW))
    retold = EVENT | {"Description": "another", "NotAfter": "22 Jan 2027 09:17:23 GMT"}
    assert only(read_maintenance(json.dumps([retold]), NOW + 9)).id == event.id


def test_what_changes_the_announcement_changes_its_id():
    moved = EVENT | {"NotBefore": "22 Jan 2027 09:00:43 GMT"}
    ids = [
        *(only(read_instance_action(action(what), NOW)).id for what in ("terminate", "stop", "hibernate")),
        only(read_instance_action(action(time="2027-01-15T08:03:00Z"), NOW)).id,
        *(only(read_maintenance(json.dumps([event]), NOW)).id for event in (EVENT, moved)),
        *(only(read_rebalance(json.dumps({"noticeTime": f"2027-01-15T0{n}:00:00Z"}), NOW)).id for n in (1, 2)),
        *(only(read_lifecycle_state(state, NOW)).id for state in ("Terminated", "Warmed:Terminated")),
    ]
    assert len(set(ids)) == len(ids)


# whatever else stands there


@pytest.mark.parametrize(
    "document",
    [
        "",
        "null",
        "[]",
        '"terminate"',
        "{",
        "<html>404</html>",
        "[" * 50_000,
        "9" * 5_000,
        '{"action": "terminate"}',
        action(action=""),
        action(action=7),
        action(action="a" * 201),
        action(action="\ud800"),
        action(action="stop\nnow"),
        action(time=None),
        action(time=1_800_000_000),
        action(time="soon"),
        action(time="Thursday"),
        action(time="2027-13-45T99:99:99Z"),
    ],
)
def test_what_is_no_announcement_of_an_interruption_is_a_fault_and_no_notice(document):
    reading = read_instance_action(document, NOW)
    assert reading.notices == ()
    assert reading.fault
    assert len(reading.fault) < 300


@pytest.mark.parametrize("document", ["", "{}", "[]", "7", '{"noticeTime": 7}', '{"noticeTime": "T"}'])
def test_what_is_no_recommendation_is_a_fault_and_no_notice(document):
    reading = read_rebalance(document, NOW)
    assert (reading.notices, bool(reading.fault)) == ((), True)


@pytest.mark.parametrize(
    "broken",
    [
        7,
        None,
        [],
        {},
        EVENT | {"NotBefore": "soon"},
        EVENT | {"NotBefore": None},
        EVENT | {"NotBefore": "1 Jan 2027 00:00:00 +9999999999999999999999"},
        EVENT | {"Code": {}},
        {"State": "active"},
    ],
)
def test_one_event_that_cannot_be_read_does_not_hide_the_others(broken):
    reading = read_maintenance(json.dumps([broken, EVENT, broken]), NOW)
    assert [notice.deadline_s for notice in reading.notices] == [EVENT_S]
    assert reading.fault


@pytest.mark.parametrize("document", ["", "{}", "7", "null", json.dumps(EVENT)])
def test_what_is_no_list_of_events_is_a_fault(document):
    reading = read_maintenance(document, NOW)
    assert (reading.notices, bool(reading.fault)) == ((), True)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_time_are_times(time):
    assert only(read_instance_action(action(time=time), NOW)).kind is Kind.INTERRUPTION


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*EVENT, "action", "time"]), inner),
    max_leaves=12,
)


@given(
    st.text()
    | ANYTHING.map(json.dumps)
    | st.dictionaries(st.sampled_from(list(EVENT)), st.text()).map(lambda event: json.dumps([event]))
)
def test_no_text_at_all_raises(document):
    for read in READERS:
        for notice in read(document, NOW).notices:
            assert notice.detail.isascii()
