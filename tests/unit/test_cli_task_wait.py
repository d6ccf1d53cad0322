"""Waiting for a task: until its end, the timeout, a failure or a Ctrl-C, and what is said of it."""

from __future__ import annotations

import json
import re

import pytest

from scheduler.cli import task_wait
from scheduler.cli.failure import Failure
from scheduler.cli.live_line import CLEAR, LiveLine
from scheduler.cli.task_wait import EndWait
from scheduler.domain.errors import Unavailable

LOOK_UP = "sd-scheduler task show t"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(task_wait, "PERIOD_S", 0.0)


class Looks:
    """Records one after another, the last one again and again; errors are raised."""

    def __init__(self, *seen):
        self.left = list(seen)

    def __call__(self):
        next_one = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(next_one, BaseException):
            raise next_one
        return next_one


def wait(*seen, old_end=None, timeout_s=None, shows=False):
    return EndWait("t", Looks(*seen), look_up=LOOK_UP, line=LiveLine(shows=shows)).end(
        old_end=old_end, timeout_s=timeout_s
    )


def failed(*seen, **options) -> tuple[Failure, dict]:
    with pytest.raises(Failure) as caught:
        wait(*seen, **options)
    return caught.value, json.loads(caught.value.json())


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_every_end_ends_the_wait(status):
    end = {"status": status, "finished_at": 5}
    assert wait({}, {"status": "pending"}, {"status": "processing"}, end) == end


def test_the_end_before_this_submission_does_not_count():
    old, new = {"status": "failed", "finished_at": 5}, {"status": "completed", "finished_at": 9}
    assert wait(old, old, {"status": "processing", "finished_at": 5}, new, old_end=5) == new


def test_at_the_timeout_the_task_goes_on_and_the_command_that_shows_it_is_named():
    failure, told = failed({"status": "processing"}, timeout_s=0.01)
    assert (failure.code, failure.text().splitlines()[0]) == (1, "error: still processing after 0.01 s")
    assert (told["kind"], told["task_id"], told["status"]) == ("timeout", "t", "processing")
    assert LOOK_UP in told["advice"]


def test_an_end_at_the_last_look_is_an_end():
    assert wait({"status": "completed"}, timeout_s=1e-9) == {"status": "completed"}


def test_a_ctrl_c_is_one_clean_line_and_how_to_look_it_up():
    failure, told = failed({"status": "processing"}, KeyboardInterrupt())
    first, second = failure.text().splitlines()
    assert failure.code == 130
    assert first.startswith("interrupted after ")
    assert "task t is processing" in first
    assert LOOK_UP in second
    assert (told["kind"], told["task_id"], told["status"]) == ("interrupted", "t", "processing")


def test_when_aws_no_longer_answers_the_task_can_still_be_looked_up():
    failure, told = failed({"status": "pending"}, Unavailable("down"))
    assert (failure.code, told["error"], told["kind"]) == (1, "down", "aws-unavailable")
    assert LOOK_UP in told["advice"]


def test_a_person_sees_status_progress_and_seconds_and_the_line_is_gone_at_the_end(capsys):
    wait({"status": "pending"}, {"status": "processing", "progress": 45}, {"status": "completed"}, shows=True)
    seen = capsys.readouterr()
    assert seen.out == ""
    parts = [re.sub(r"\d+ s$", "N s", part) for part in seen.err.split(CLEAR)]
    assert parts == ["", "pending, N s", "processing 45 %, N s", ""]


def test_in_a_pipe_nothing_is_shown(capsys):
    wait({"status": "pending"}, {"status": "completed"})
    assert capsys.readouterr() == ("", "")
