"""[autoscaling] while the daemon runs: edits are taken up, told and published;
bad ones are refused; the newest wins.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.fleet_state import FakeFleetState
from structlog.testing import capture_logs

from scheduler import config
from scheduler.autoscale.settings_watch import SettingsWatch

AWS = "[aws]\naws_region = us-east-1\nsqs_queue_url = tasks\ndynamodb_table = records\ns3_bucket = pictures\n"
FLEET = "[autoscaling]\nenabled = true\nfleet = asg\nfleet_id = painters\n"


class Host:
    """One host's file and its watch."""

    def __init__(self, folder: Path, name: str, state: FakeFleetState, *, lines: str = "", modified_s: float) -> None:
        self.file = folder / f"{name}.ini"
        self.write(lines, modified_s=modified_s)
        self.watch = SettingsWatch(config.load(self.file, {}), {}, host=name, state=state)

    def write(self, lines: str, *, modified_s: float) -> None:
        self.file.write_text(AWS + FLEET + lines)
        os.utime(self.file, (modified_s, modified_s))

    def follows(self) -> int:
        return self.watch.followed().section.max_capacity


@pytest.fixture
def state() -> FakeFleetState:
    return FakeFleetState()


def events(logs: list[dict[str, object]]) -> list[object]:
    return [entry["event"] for entry in logs]


def test_the_first_host_publishes_what_it_has(tmp_path, state):
    host = Host(tmp_path, "i-1", state, lines="max_capacity = 7\n", modified_s=100)
    followed = host.watch.followed()
    assert (followed.section.max_capacity, followed.version, host.watch.settings_no) == (7, 1, 1)
    published = state.published()
    assert published is not None
    assert published.values["max_capacity"] == "7"
    assert "fleet_id" not in published.values


def test_a_number_that_may_be_empty_is_followed_and_taken_back(tmp_path, state):
    one = Host(tmp_path, "i-1", state, lines="late_worth_s = 700\n", modified_s=100)
    two = Host(tmp_path, "i-2", state, modified_s=50)
    assert (one.watch.followed().section.late_worth_s, two.watch.followed().section.late_worth_s) == (700, 700)
    two.write("late_worth_s =\n", modified_s=200)
    assert (two.watch.followed().section.late_worth_s, one.watch.followed().section.late_worth_s) == (None, None)


def test_an_edit_is_taken_up_told_and_followed_by_the_others(tmp_path, state):
    one = Host(tmp_path, "i-1", state, modified_s=100)
    two = Host(tmp_path, "i-2", state, modified_s=100)
    assert (one.follows(), two.follows()) == (4, 4)
    two.write("max_capacity = 9\n", modified_s=200)
    with capture_logs() as logs:
        assert two.follows() == 9
    assert events(logs) == ["autoscaling_edited", "autoscaling_published"]
    assert logs[0]["changes"] == ["max_capacity: 4 -> 9"]
    with capture_logs() as logs:
        assert (one.follows(), one.follows()) == (9, 9)
    assert events(logs) == ["autoscaling_follows_another"], "told once"
    assert (one.watch.settings_no, two.watch.settings_no) == (0, 2)


def test_a_bad_edit_is_refused_aloud_and_the_last_good_one_stays(tmp_path, state):
    host = Host(tmp_path, "i-1", state, lines="max_capacity = 7\n", modified_s=100)
    host.follows()
    host.write("max_capacity = lots\n", modified_s=200)
    with capture_logs() as logs:
        assert (host.follows(), host.follows()) == (7, 7)
    assert events(logs) == ["autoscaling_refused"], "told once"
    (problem,) = logs[0]["problems"]
    assert "max_capacity = 'lots'" in problem
    host.write("max_capacity = 8\n", modified_s=300)
    assert host.follows() == 8


def test_a_bad_edit_does_not_make_what_stood_there_before_the_newest(tmp_path, state):
    one = Host(tmp_path, "i-1", state, lines="max_capacity = 20\n", modified_s=100)
    two = Host(tmp_path, "i-2", state, lines="max_capacity = 20\n", modified_s=100)
    assert (one.follows(), two.follows()) == (20, 20)
    one.write("max_capacity = 2\n", modified_s=200)
    assert (one.follows(), two.follows()) == (2, 2)
    two.write("max_capacity = lots\n", modified_s=300)
    assert (two.follows(), one.follows()) == (2, 2)


def test_a_file_that_is_away_for_a_moment_changes_nothing(tmp_path, state):
    host = Host(tmp_path, "i-1", state, lines="max_capacity = 7\n", modified_s=100)
    host.file.unlink()
    with capture_logs() as logs:
        assert host.follows() == 7
    assert "autoscaling_refused" not in events(logs)


def test_an_older_file_does_not_undo_a_newer_edit(tmp_path, state):
    Host(tmp_path, "i-1", state, lines="max_capacity = 9\n", modified_s=200).follows()
    late = Host(tmp_path, "i-2", state, lines="max_capacity = 2\n", modified_s=100)
    assert late.follows() == 9
    newer_image = Host(tmp_path, "i-3", state, lines="max_capacity = 3\n", modified_s=300)
    assert newer_image.follows() == 3
    assert late.follows() == 3


def test_what_locates_the_fleet_is_each_hosts_own(tmp_path, state):
    host = Host(tmp_path, "i-1", state, modified_s=100)
    host.follows()
    host.file.write_text(AWS + FLEET.replace("painters", "sculptors"))
    os.utime(host.file, (200, 200))
    with capture_logs() as logs:
        assert host.watch.followed().section.fleet_id == "painters"
    assert logs[0]["event"] == "autoscaling_needs_restart"
    assert logs[0]["keys"] == ["fleet_id"]


def test_settings_of_a_later_version_are_refused_and_the_own_ones_hold(tmp_path, state):
    host = Host(tmp_path, "i-1", state, lines="max_capacity = 7\n", modified_s=100)
    host.follows()
    published = state.published()
    assert published is not None
    values = dict(published.values) | {"moon_phase": "full", "max_capacity": "9"}
    newer = type(published)(version=2, modified_s=500.0, by="i-9", values=values)
    assert state.publish(newer, seen=1)
    with capture_logs() as logs:
        assert host.follows() == 7
    assert "autoscaling_not_understood" in events(logs)
