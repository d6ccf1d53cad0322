"""The flap listener: when exits are too many, what it then does to supervisord, and the event protocol."""

from __future__ import annotations

import http.client
import io
import xmlrpc.client
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.xmlrpc import Faults

from scheduler.observe.flapping import (
    ControlFailed,
    Exit,
    FlapDetector,
    FlapListener,
    SupervisorControl,
    exits,
    hold,
)

CRASH = Exit(group="api-scheduler", program="api-scheduler", expected=False)


class SteppedClock:
    """Monotonic time that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class OneProgram:
    """supervisord's state machine for one program whose run script looks for the marker, or does not."""

    def __init__(self, marker: Path, *, obeys_marker: bool = True, asks_before_fatal: int = 2) -> None:
        self.marker = marker
        self.obeys_marker = obeys_marker
        self.asks_before_fatal = asks_before_fatal
        self.word = "RUNNING"
        self.messages: list[str] = []
        self.stops = 0

    def stop(self, name: str) -> None:
        self.stops += 1
        if self.word in {"RUNNING", "STARTING", "BACKOFF"}:
            self.word = "STOPPED"

    def start(self, name: str) -> None:
        if self.obeys_marker and self.marker.exists():
            self.messages.append(self.marker.read_text())
            self.word = "BACKOFF"
        else:
            self.word = "RUNNING"

    def state(self, name: str) -> str:
        if self.word == "BACKOFF":
            self.asks_before_fatal -= 1
            if self.asks_before_fatal <= 0:
                self.word = "FATAL"
        return self.word


class Deaf:
    """A supervisord that is shutting down."""

    def stop(self, name: str) -> None:
        raise ControlFailed("stopProcess: SHUTDOWN_STATE")

    def start(self, name: str) -> None:
        raise ControlFailed("startProcess: SHUTDOWN_STATE")

    def state(self, name: str) -> str:
        raise ControlFailed("getProcessInfo: SHUTDOWN_STATE")


def listener_for(control, folder: Path, clock: SteppedClock, *, max_exits: int = 2):
    lines: list[tuple[str, dict[str, object]]] = []
    listener = FlapListener(
        detector=FlapDetector(max_exits=max_exits, window_s=600.0),
        control=control,
        holds=folder,
        own_name="flap-listener",
        clock=clock,
        why="more than 2 exits within 600 s",
        report=lambda event, **fields: lines.append((event, fields)),
    )
    return listener, lines


# -- the detector


def test_the_exit_beyond_the_allowance_is_the_flap():
    detector = FlapDetector(max_exits=3, window_s=600.0)
    assert [detector.saw_exit("a", now) for now in (0.0, 1.0, 2.0, 3.0)] == [False, False, False, True]


def test_exits_that_lie_further_apart_than_the_window_never_add_up():
    detector = FlapDetector(max_exits=2, window_s=600.0)
    assert not any(detector.saw_exit("a", now) for now in (0.0, 300.0, 600.0, 900.0, 1200.0))


def test_programs_are_counted_apart():
    detector = FlapDetector(max_exits=1, window_s=600.0)
    assert not detector.saw_exit("a", 0.0)
    assert not detector.saw_exit("b", 1.0)
    assert detector.saw_exit("a", 2.0)


def test_after_a_flap_the_program_has_its_whole_allowance_again():
    detector = FlapDetector(max_exits=1, window_s=600.0)
    assert [detector.saw_exit("a", float(now)) for now in range(4)] == [False, True, False, True]


@given(
    gaps=st.lists(st.floats(min_value=0.0, max_value=500.0), max_size=40),
    max_exits=st.integers(min_value=1, max_value=6),
)
def test_a_flap_is_always_more_exits_than_allowed_within_the_window(gaps, max_exits):
    detector = FlapDetector(max_exits=max_exits, window_s=600.0)
    now, since_flap = 0.0, []
    for gap in gaps:
        now += gap
        since_flap.append(now)
        recent = [at for at in since_flap if at > now - 600.0]
        assert detector.saw_exit("a", now) == (len(recent) > max_exits)
        if len(recent) > max_exits:
            since_flap = []


# -- holding


def test_a_held_program_ends_fatal_and_leaves_no_marker(tmp_path):
    marker = tmp_path / "api-scheduler.flapping"
    program = OneProgram(marker)
    assert hold(program, "api-scheduler", marker, "it kept exiting", clock=SteppedClock()) == "FATAL"
    assert program.messages == ["it kept exiting\n"]
    program.start("api-scheduler")
    assert program.word == "RUNNING", "a plain start is all that a person has to do"


def test_a_program_that_ignores_the_marker_is_left_stopped(tmp_path):
    marker = tmp_path / "other.flapping"
    program = OneProgram(marker, obeys_marker=False)
    assert hold(program, "other", marker, "it kept exiting", clock=SteppedClock()) == "STOPPED"
    assert not marker.exists()


def test_the_marker_goes_even_when_supervisord_refuses(tmp_path):
    marker = tmp_path / "api-scheduler.flapping"
    with pytest.raises(ControlFailed):
        hold(Deaf(), "api-scheduler", marker, "it kept exiting", clock=SteppedClock())
    assert not marker.exists()


# -- the listener


def test_a_crash_loop_is_held_and_reported_once(tmp_path):
    program = OneProgram(tmp_path / "api-scheduler.flapping")
    listener, lines = listener_for(program, tmp_path, SteppedClock())
    for _ in range(2):
        listener.saw(CRASH)
    assert program.word == "RUNNING"
    listener.saw(CRASH)
    assert program.word == "FATAL"
    assert lines == [("program_flapping", {"program": "api-scheduler", "state": "FATAL"})]
    assert program.messages == ["more than 2 exits within 600 s\n"]


def test_expected_exits_and_its_own_are_not_counted(tmp_path):
    program = OneProgram(tmp_path / "api-scheduler.flapping")
    listener, lines = listener_for(program, tmp_path, SteppedClock(), max_exits=1)
    for _ in range(5):
        listener.saw(Exit(group="api-scheduler", program="api-scheduler", expected=True))
        listener.saw(Exit(group="flap-listener", program="flap-listener", expected=False))
    assert (program.stops, lines) == (0, [])


def test_a_supervisord_that_does_not_answer_is_logged_and_survived(tmp_path):
    listener, lines = listener_for(Deaf(), tmp_path, SteppedClock(), max_exits=1)
    for _ in range(2):
        listener.saw(CRASH)
    assert [event for event, _ in lines] == ["program_hold_failed"]


# -- the protocol


def event(name: str, body: str) -> bytes:
    header = f"ver:3.0 server:supervisor serial:1 pool:flap-listener poolserial:1 eventname:{name} len:{len(body)}\n"
    return (header + body).encode()


def test_exits_are_read_and_acknowledged_and_other_events_only_acknowledged():
    body = "processname:api-scheduler groupname:gpu from_state:RUNNING expected:0 pid:12"
    stdin = io.BytesIO(
        event("PROCESS_STATE_EXITED", body)
        + event("TICK_5", "when:1700000000")
        + event("PROCESS_STATE_EXITED", body.replace("expected:0", "expected:1"))
    )
    stdout = io.BytesIO()
    seen = list(exits(stdin, stdout))
    assert seen == [
        Exit(group="gpu", program="api-scheduler", expected=False),
        Exit(group="gpu", program="api-scheduler", expected=True),
    ]
    assert stdout.getvalue() == b"READY\nRESULT 2\nOK" * 3 + b"READY\n"


def test_an_exit_is_acknowledged_only_when_it_has_been_dealt_with():
    body = "processname:a groupname:a from_state:RUNNING expected:0 pid:12"
    stdout = io.BytesIO()
    reader = exits(io.BytesIO(event("PROCESS_STATE_EXITED", body)), stdout)
    next(reader)
    assert stdout.getvalue() == b"READY\n", "a listener that dies now is sent the event again"


# -- supervisord's answers


class Rpc:
    """The XML-RPC proxy, answering every call with one error or value."""

    def __init__(self, outcome) -> None:
        self.supervisor = self
        self.outcome = outcome

    def __getattr__(self, method):
        def answer(*args):
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return self.outcome

        return answer


@pytest.fixture
def control(monkeypatch):
    def build(outcome):
        monkeypatch.setattr("scheduler.observe.flapping.childutils.getRPCInterface", lambda _environ: Rpc(outcome))
        return SupervisorControl({})

    return build


def test_stopping_what_is_stopped_and_starting_what_runs_or_dies_is_no_error(control):
    control(xmlrpc.client.Fault(Faults.NOT_RUNNING, "NOT_RUNNING: a")).stop("a")
    control(xmlrpc.client.Fault(Faults.ALREADY_STARTED, "ALREADY_STARTED: a")).start("a")
    control(xmlrpc.client.Fault(Faults.SPAWN_ERROR, "SPAWN_ERROR: a")).start("a")
    assert control({"statename": "FATAL"}).state("a") == "FATAL"


@pytest.mark.parametrize(
    "error",
    [
        xmlrpc.client.Fault(Faults.SHUTDOWN_STATE, "SHUTDOWN_STATE"),
        xmlrpc.client.ProtocolError("RPC2", 500, "no", {}),
        ConnectionRefusedError(111, "refused"),
        http.client.BadStatusLine(""),
    ],
)
def test_every_other_answer_is_control_failed(control, error):
    with pytest.raises(ControlFailed):
        control(error).stop("a")
