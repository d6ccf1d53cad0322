"""The supervisord listener that makes a program which keeps exiting FATAL; it knows nothing of tasks or AWS.

supervisord starts a program again for as long as it exits, and `supervisorctl status` calls it RUNNING each time.
This process counts the unexpected exits. Over the limit it puts a file ``<program>.flapping`` beside the logs, stops
the program in the ordinary way (what it holds is given back) and starts it once more: the run script sees the file
and refuses, so supervisord itself records FATAL. Then the file is removed, so a plain `supervisorctl start` is all
that a person has to do after mending the cause.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import time
import xmlrpc.client
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import structlog
from supervisor import childutils
from supervisor.xmlrpc import Faults

from scheduler.observe import logging

_SETTLE_S = 60.0  # a refused start takes about a second; with the retries of another program's section, a few more
_POLL_S = 0.2


class FlapDetector:
    """Counts the exits of each program within a sliding window."""

    def __init__(self, *, max_exits: int, window_s: float) -> None:
        self._max_exits = max_exits
        self._window_s = window_s
        self._exits: dict[str, deque[float]] = {}

    def saw_exit(self, program: str, now: float) -> bool:
        """Note one unexpected exit at `now` (monotonic seconds).

        True when it is the one too many: more than `max_exits` within `window_s`. The count then starts anew, so that
        a program which a person has started again gets the whole allowance.
        """
        exits = self._exits.setdefault(program, deque())
        exits.append(now)
        while exits[0] <= now - self._window_s:
            exits.popleft()
        if len(exits) <= self._max_exits:
            return False
        del self._exits[program]
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A program that ended without having been told to; `expected` when its exit code is among `exitcodes`."""

    group: str
    program: str
    expected: bool


class ControlFailed(Exception):
    """supervisord did not do what it was asked: it is shutting down, or does not answer."""


class ProcessControl(Protocol):
    """What the listener asks of supervisord; every method may raise ControlFailed."""

    def stop(self, name: str) -> None:
        """Stop it in the ordinary way and wait for the end; nothing happens when it is not running."""

    def start(self, name: str) -> None:
        """Start it without waiting; that it runs already or dies at once is not an error here."""

    def state(self, name: str) -> str:
        """The word that `supervisorctl status` shows."""


class SupervisorControl:
    """ProcessControl over supervisord's own XML-RPC socket."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._rpc = childutils.getRPCInterface(environ).supervisor

    def stop(self, name: str) -> None:
        """See ProcessControl."""
        self._call("stopProcess", name, True, harmless=(Faults.NOT_RUNNING,))

    def start(self, name: str) -> None:
        """See ProcessControl."""
        self._call("startProcess", name, False, harmless=(Faults.ALREADY_STARTED, Faults.SPAWN_ERROR))

    def state(self, name: str) -> str:
        """See ProcessControl."""
        return str(self._call("getProcessInfo", name)["statename"])

    def _call(self, method: str, *args: object, harmless: tuple[int, ...] = ()) -> Any:
        try:
            return getattr(self._rpc, method)(*args)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in harmless:
                return None
            raise ControlFailed(f"{method}: {fault.faultString}") from fault
        except (xmlrpc.client.Error, http.client.HTTPException, OSError) as error:
            raise ControlFailed(f"{method}: {error}") from error


def hold(control: ProcessControl, name: str, marker: Path, why: str, *, clock: Clock) -> str:
    """Make the program FATAL and return the state it ended in.

    A program whose run script does not look for `marker` cannot become FATAL; it is left STOPPED.
    """
    marker.write_text(f"{why}\n", encoding="utf-8")
    try:
        control.stop(name)
        control.start(name)
        deadline = clock.monotonic() + _SETTLE_S
        while (state := control.state(name)) != "FATAL":
            if clock.monotonic() >= deadline:
                control.stop(name)
                return control.state(name)
            clock.sleep(_POLL_S)
        return state
    finally:
        marker.unlink(missing_ok=True)


class Clock(Protocol):
    """The two functions of `time` that holding a program needs."""

    def monotonic(self) -> float:
        """Seconds, never going back."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlapListener:
    """Counts exits and holds what flaps.

    `holds` is where the run scripts look for the marker, `why` what they then say, `report` a logger's `error`.
    """

    detector: FlapDetector
    control: ProcessControl
    holds: Path
    own_name: str
    clock: Clock
    why: str
    report: Callable[..., object]

    def saw(self, exited: Exit) -> None:
        """Judge one exit. Failures of supervisord are logged, never raised: the next exit is judged all the same."""
        if exited.expected or exited.program == self.own_name:
            return
        if not self.detector.saw_exit(exited.program, self.clock.monotonic()):
            return
        marker = self.holds / f"{exited.program}.flapping"
        try:
            state = hold(self.control, f"{exited.group}:{exited.program}", marker, self.why, clock=self.clock)
        except (ControlFailed, OSError) as error:
            self.report("program_hold_failed", program=exited.program, error=str(error))
        else:
            self.report("program_flapping", program=exited.program, state=state)


def exits(stdin: BinaryIO, stdout: BinaryIO) -> Iterator[Exit]:
    """Supervisord's event protocol: yields each exit, acknowledges it when the next is asked for, ends with stdin."""
    while True:
        stdout.write(b"READY\n")
        stdout.flush()
        header = stdin.readline().decode()
        if not header:
            return
        headers = childutils.get_headers(header)
        payload = stdin.read(int(headers["len"])).decode()
        if headers["eventname"] == "PROCESS_STATE_EXITED":
            fields = childutils.get_headers(payload)
            yield Exit(group=fields["groupname"], program=fields["processname"], expected=fields["expected"] == "1")
        stdout.write(b"RESULT 2\nOK")
        stdout.flush()


def main(argv: list[str]) -> None:
    """Run under supervisord as an `[eventlistener:...]`; returns when supervisord closes the pipe."""
    parser = argparse.ArgumentParser(prog="flap-listener", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--max-exits", type=int, required=True, help="unexpected exits that are still borne")
    parser.add_argument("--window-s", type=float, required=True, help="seconds within which they count")
    parser.add_argument(
        "--holds", type=Path, required=True, help="folder where the run scripts look for .flapping files"
    )
    options = parser.parse_args(argv)
    for stale in options.holds.glob("*.flapping"):  # of a listener that died in the middle of a hold
        stale.unlink(missing_ok=True)
    logging.configure(stream=sys.stderr)  # stdout belongs to the protocol
    listener = FlapListener(
        detector=FlapDetector(max_exits=options.max_exits, window_s=options.window_s),
        control=SupervisorControl(os.environ),
        holds=options.holds,
        own_name=os.environ["SUPERVISOR_PROCESS_NAME"],
        clock=time,
        why=f"more than {options.max_exits} exits within {options.window_s:g} s",
        report=structlog.get_logger().error,
    )
    for exited in exits(sys.stdin.buffer, sys.stdout.buffer):
        listener.saw(exited)


if __name__ == "__main__":
    main(sys.argv[1:])
