"""The scheduler as supervisord sees it: a process with a configuration, signals, lines of log and an exit code."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from waiting import until

MAIN = Path(__file__).parents[2] / "scheduler" / "main.py"
# A daemon must not outlive the tests, however they end; the order to the kernel survives the exec.
DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
# Runs main.py as it is, after changing what is no setting and would take a test too long.
AFTER = "import runpy, sys; {change}; sys.argv[0] = {main!r}; runpy.run_path({main!r}, run_name='__main__')"
Event = dict[str, Any]


class Daemon:
    """`scheduler/main.py -c conf.ini`, started at construction; killed at the end of a `with` if it still runs.

    `change` is a statement for its interpreter, run before all else.
    """

    def __init__(self, conf: Path, environ: Mapping[str, str], *, change: str = "") -> None:
        program = ["-c", AFTER.format(change=change, main=str(MAIN))] if change else [str(MAIN)]
        self._stderr = conf.with_name(f"{conf.stem}.{time.monotonic_ns()}.stderr")
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DIE_WITH_PARENT, *program, "-c", str(conf)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **environ},
                cwd=conf.parent,
            )
        self._events: list[Event] = []
        self._heard = threading.Condition()
        self._has_ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:  # the last line of a process that was killed, or words that are no event
                    event = {"event": "unparsed", "line": line.decode(errors="replace")}
                with self._heard:
                    self._events.append(event)
                    self._heard.notify_all()
        with self._heard:
            self._has_ended = True
            self._heard.notify_all()

    # what it says

    def events(self, name: str | None = None, **fields: Any) -> list[Event]:
        """Return what it has logged so far, of one kind, with these fields."""
        with self._heard:
            return [event for event in self._events if _fits(event, name, fields)]

    def wait_for(self, name: str, *, deadline_s: float = 30.0, times: int = 1, **fields: Any) -> Event:
        """Return the `times`-th such event once it is logged; fail when the process ends before, or time is up."""

        def found() -> list[Event]:
            return [event for event in self._events if _fits(event, name, fields)]

        with self._heard:
            self._heard.wait_for(lambda: len(found()) >= times or self._has_ended, deadline_s)
            events = found()
        assert len(events) >= times, f"{len(events)} of {times} {name} {fields} in {deadline_s:g} s; {self.tail()}"
        return events[times - 1]

    def started(self) -> Self:
        """Return once it works."""
        self.wait_for("scheduler_started")
        return self

    def tail(self, count: int = 40) -> str:
        """Return its last words, for a failed test to show."""
        lines = [json.dumps(event) for event in self.events()[-count:]]
        said = self._stderr.read_text(errors="replace")[-3000:]
        return "\n".join([f"exit code {self.process.poll()}, its last words:", *lines, said])

    @property
    def stderr(self) -> str:
        """What it wrote to stderr, where no daemon should have anything to say."""
        return self._stderr.read_text(errors="replace")

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status and the report of `GET /health`."""
        status, body = self.get("/health")
        return status, json.loads(body)

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask its own server."""
        address = urlsplit(self.wait_for("scheduler_starting")["health"])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def until_health(self, wanted: int, *, says: str = "", deadline_s: float = 30.0) -> dict[str, Any]:
        """Return the report once it comes with status `wanted` and holds `says`."""

        def ask() -> dict[str, Any] | None:
            status, report = self.health()
            return report if status == wanted and says in json.dumps(report) else None

        report = until(ask, deadline_s, what=f"health {wanted} {says!r}")
        assert report is not None
        return report

    # what is done to it

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self, deadline_s: float = 30.0) -> int:
        """Send SIGTERM and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended(deadline_s)

    def ended(self, deadline_s: float = 30.0) -> int:
        """Return its exit code once it has ended."""
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"it still runs after {deadline_s:g} s; {self.tail()}") from error
        self._listener.join(10)
        return code

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.kill()
        self.process.wait()
        self._listener.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        if error is not None:
            error.add_note(self.tail())


def _fits(event: Event, name: str | None, fields: Mapping[str, Any]) -> bool:
    return (name is None or event.get("event") == name) and all(event.get(key) == fields[key] for key in fields)


Start = Callable[..., Daemon]
"""The fixture `start`."""
