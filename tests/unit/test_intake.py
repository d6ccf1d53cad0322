"""The door that every receive goes through, and who shuts it."""

from __future__ import annotations

from fakes import FakeClock
from fakes.fleet_state import FakeFleetState
from fleet_in_memory import ModelFleet, World

from scheduler.autoscale.member import FENCE_S, Member
from scheduler.autoscale.protocol import Report
from scheduler.intake import Intake


def test_it_is_open_until_somebody_has_a_reason_and_quiet_once_the_last_has_left():
    intake = Intake()
    assert intake.begin()
    assert intake.shut("notice", "a notice")
    assert not intake.shut("notice", "the same notice")
    assert not intake.begin()
    assert not intake.is_quiet
    intake.end()
    assert intake.is_quiet
    assert intake.why == "the same notice"
    assert intake.open("notice")
    assert intake.begin()


def test_who_watches_it_is_asked_each_time():
    intake, reasons = Intake(), ["too late"]
    intake.watch(lambda: reasons[0])
    assert not intake.begin()
    assert intake.why == "too late"
    reasons[0] = ""
    assert intake.begin()


def test_it_shuts_by_itself_when_the_heartbeats_stop_whatever_stopped_them(clock: FakeClock):
    intake, state = Intake(), FakeFleetState(clock.now)
    member = Member(
        instance_id="i-1",
        boot_id="b",
        state=state,
        fleet=ModelFleet(World(has_outsider=False)),
        intake=intake,
        report=Report,
        is_empty=lambda: True,
        clock=clock,
    )
    member.cycle()
    assert intake.begin()
    intake.end()
    clock.advance(FENCE_S + 1)  # its thread hangs, or dies: nobody tells the door
    assert not intake.begin()
    assert "no heartbeat" in intake.why
    member.cycle()
    assert intake.begin()
