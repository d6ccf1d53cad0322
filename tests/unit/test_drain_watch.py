"""The look-out: every announcement told once, whatever the metadata does in between."""

from __future__ import annotations

import json

import pytest
from fakes import FakeClock
from structlog.testing import capture_logs

from scheduler.domain.errors import Unavailable
from scheduler.drain.notices import (
    INSTANCE_ACTION,
    LIFECYCLE_STATE,
    MAINTENANCE,
    REBALANCE,
    TERMINATION_TIME,
    Kind,
    Notice,
)
from scheduler.drain.watch import Watcher
from scheduler.local.metadata import LocalInstance


class Documents:
    """An instance's documents read without a socket; those in `failing` are not answered."""

    def __init__(self, instance: LocalInstance) -> None:
        self.instance = instance
        self.failing: set[str] = set()
        self.all_fail = False

    def get(self, path: str, *, tries: int) -> str | None:
        if self.all_fail or path in self.failing:
            raise Unavailable(f"no answer for {path}")
        token = self.instance.answer("PUT", "latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "9"}).body
        reply = self.instance.answer("GET", f"latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})
        return reply.body if reply.status == 200 else None


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.instance = LocalInstance(
            "http://none", "i-1", instance_type="t", zone="us-east-1a", life_cycle="spot", clock=self.clock
        )
        self.documents = Documents(self.instance)
        self.told: list[Notice] = []
        self.failures = 0
        self.watcher = Watcher(self.documents, on_notice=self.on_notice, clock=self.clock, asg_grace_s=300)

    def on_notice(self, notice: Notice) -> None:
        assert notice in self.watcher.notices
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no")
        self.told.append(notice)

    def cycle(self) -> list[str]:
        """Let the watcher look once; return the events logged."""
        with capture_logs() as logs:
            assert 0 < self.watcher.cycle() <= 5
        self.clock.advance(2)
        return [line["event"] for line in logs]

    @property
    def kinds(self) -> list[Kind]:
        return [notice.kind for notice in self.told]


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_announced_nothing_told(world):
    world.instance.lifecycle_state("InService")
    assert world.cycle() == []
    assert (world.told, world.watcher.notices) == ([], ())


def test_each_announcement_is_told_once(world):
    world.instance.interrupt(120)
    world.instance.rebalance()
    world.instance.lifecycle_state("Terminated")
    world.instance.maintenance(3600)
    assert world.cycle() == ["notice"] * 4
    began_s = world.clock.now() - 2
    assert world.cycle() == world.cycle() == []
    assert sorted(world.kinds) == sorted(Kind)
    deadlines = {notice.kind: notice.deadline_s for notice in world.told}
    assert deadlines[Kind.INTERRUPTION] == int(began_s + 120)
    assert deadlines[Kind.ASG_TERMINATE] == began_s + 300  # from the first reading on, whenever it is read again
    assert world.watcher.notices == tuple(world.told)


def test_the_older_document_serves_where_the_newer_is_missing_or_broken_and_is_no_second_notice(world):
    world.instance.interrupt(120)
    kept = world.documents.get(INSTANCE_ACTION, tries=1)
    world.instance.document(INSTANCE_ACTION, "{")
    assert sorted(world.cycle()) == ["notice", "notice_unreadable"]
    world.instance.document(INSTANCE_ACTION, kept)
    assert world.cycle() == []
    assert world.kinds == [Kind.INTERRUPTION]


def test_the_older_document_alone_is_enough(world):
    world.instance.interrupt(120)
    world.instance.document(INSTANCE_ACTION, None)
    world.cycle()
    assert world.kinds == [Kind.INTERRUPTION]


def test_another_announcement_of_the_same_kind_is_told_too(world):
    world.instance.rebalance()
    world.cycle()
    world.instance.rebalance()
    world.cycle()
    assert world.kinds == [Kind.REBALANCE] * 2


def test_an_interruption_that_is_not_to_be_read_any_more_stands(world):
    world.instance.interrupt(120)
    world.cycle()
    for path in (INSTANCE_ACTION, TERMINATION_TIME):
        world.instance.document(path, None)
    world.cycle()
    assert [notice.kind for notice in world.watcher.notices] == [Kind.INTERRUPTION]


def test_maintenance_called_off_stands_no_more_and_is_told_anew_if_it_comes_back(world):
    event_id = world.instance.maintenance(86_400)
    kept = world.documents.get(MAINTENANCE, tries=1)
    world.cycle()
    world.instance.cancel_maintenance(event_id)
    assert world.cycle() == ["notice_withdrawn"]
    assert world.watcher.notices == ()
    world.instance.document(MAINTENANCE, kept)
    assert world.cycle() == ["notice"]
    assert world.kinds == [Kind.MAINTENANCE] * 2


def test_maintenance_moved_to_another_time_replaces_the_first(world):
    world.instance.maintenance(86_400)
    world.cycle()
    (event,) = json.loads(world.documents.get(MAINTENANCE, tries=1) or "")
    world.instance.document(MAINTENANCE, json.dumps([event | {"NotBefore": "1 Jan 2040 00:00:00 GMT"}]))
    assert world.cycle() == ["notice", "notice_withdrawn"]
    assert [notice.deadline_s for notice in world.watcher.notices] == [2_208_988_800.0]


@pytest.mark.parametrize("text", ["{", "[7]"])
def test_maintenance_is_not_taken_back_by_a_list_that_cannot_be_read(world, text):
    world.instance.maintenance(86_400)
    world.cycle()
    world.instance.document(MAINTENANCE, text)
    world.cycle()
    assert [notice.kind for notice in world.watcher.notices] == [Kind.MAINTENANCE]


def test_an_outage_is_one_event_and_its_end_another(world):
    world.documents.all_fail = True
    assert world.cycle() == ["metadata_unavailable"]
    assert world.cycle() == world.cycle() == []
    world.documents.all_fail = False
    assert world.cycle() == ["metadata_answers_again"]
    world.documents.all_fail = True
    assert world.cycle() == ["metadata_unavailable"]


def test_what_is_announced_stands_through_an_outage_and_is_not_told_again_after_it(world):
    world.instance.interrupt(120)
    world.instance.maintenance(86_400)
    world.cycle()
    world.documents.all_fail = True
    world.cycle()
    assert len(world.watcher.notices) == 2
    world.documents.all_fail = False
    assert world.cycle() == ["metadata_answers_again"]
    assert len(world.told) == 2


@pytest.mark.parametrize("path", [INSTANCE_ACTION, TERMINATION_TIME, REBALANCE, LIFECYCLE_STATE, MAINTENANCE])
def test_one_document_that_is_not_answered_hides_no_other(world, path):
    world.documents.failing = {path}
    world.instance.rebalance()
    world.instance.lifecycle_state("Terminated")
    world.instance.maintenance(86_400)
    world.instance.interrupt(120)
    world.cycle()
    hidden = {REBALANCE: Kind.REBALANCE, LIFECYCLE_STATE: Kind.ASG_TERMINATE, MAINTENANCE: Kind.MAINTENANCE}
    assert set(world.kinds) == set(Kind) - {hidden.get(path)}


def test_what_cannot_be_read_is_logged_once_and_again_when_it_is_something_else(world):
    world.instance.document(REBALANCE, "{")
    assert world.cycle() == ["notice_unreadable"]
    assert world.cycle() == []
    world.instance.document(REBALANCE, "[]")
    assert world.cycle() == ["notice_unreadable"]
    world.instance.document(REBALANCE, None)
    assert world.cycle() == []
    world.instance.document(REBALANCE, "[]")
    assert world.cycle() == ["notice_unreadable"]


def test_a_notice_that_could_not_be_told_is_told_in_the_next_cycle(world):
    world.instance.interrupt(120)
    world.failures = 1
    with pytest.raises(RuntimeError):
        world.cycle()
    assert [notice.kind for notice in world.watcher.notices] == [Kind.INTERRUPTION]
    world.cycle()
    assert world.kinds == [Kind.INTERRUPTION]


def test_a_deadline_can_be_put_off_and_stays_so(world):
    world.instance.lifecycle_state("Terminated")
    world.cycle()
    (notice,) = world.told
    world.watcher.postpone(notice.id, notice.at_s + 3600)
    world.cycle()
    assert [one.deadline_s for one in world.watcher.notices] == [notice.at_s + 3600]
    world.watcher.postpone("of no notice", 1)
    assert len(world.watcher.notices) == 1
