"""A stand-in as a child process: started, asked, ordered into faults, stopped or killed; for tests and local mode."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from scheduler.local.serving.announcing import START_DEADLINE_S, announced

STOP_GRACE_S = 15.0


class StandinFailed(Exception):
    """The stand-in did not come up, or refused an order."""


class ChildServer:
    """One stand-in, which dies with this process however that ends. As a context manager it is killed at the end.

    It may be started again after it has ended: on the same port with `start(port=process.port)`. Subclasses name
    the module that is run.
    """

    module: ClassVar[str]

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self.base_url = ""

    @property
    def port(self) -> int:
        """The port it listens on, or did."""
        return urlsplit(self.base_url).port or 0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process else None

    def start(self, port: int = 0, deadline_s: float = START_DEADLINE_S) -> str:
        """Start it and return its base URL once it listens; port 0 takes a free one. Raises StandinFailed."""
        if self.pid is not None:
            raise StandinFailed("the stand-in runs already")
        command = [sys.executable, "-m", self.module, f"--port={port}", "--exit-with-parent"]
        self._process = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
            [*command, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for the parent, which then stops this one
        )
        address = announced(self._process, deadline_s)
        if address is None:
            raise StandinFailed(f"the stand-in did not come up; exit code {self.kill()}")
        self.base_url = address
        return address

    def stop(self, grace_s: float = STOP_GRACE_S) -> int | None:
        """Let it answer what it has in hand, then end; return its exit code. After `grace_s` it is killed."""
        return self._end(signal.SIGTERM, grace_s)

    def kill(self) -> int | None:
        """End it at once, as a host that dies does; return its exit code."""
        return self._end(signal.SIGKILL, STOP_GRACE_S)

    def wait(self, deadline_s: float) -> int:
        """Return its exit code once it has ended by itself. Raises StandinFailed at the deadline."""
        if self._process is None:
            raise StandinFailed("the stand-in was never started")
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired as error:
            raise StandinFailed(f"the stand-in still runs after {deadline_s:g} s") from error

    def fault(self, kind: str, **details: Any) -> None:
        """Order a fault: `count` (how often), `match` (part of the prompt), `max_batch`, `after_steps`, `factor`."""
        self.control("POST", "faults", {"kind": kind} | details)

    def heal(self) -> None:
        """Forget all faults and let go of what hangs."""
        self.control("DELETE", "faults")

    def stats(self) -> dict[str, Any]:
        """Return what it has done: requests, renders by prompt, switches, busy intervals, faults left."""
        stats: dict[str, Any] = self.control("GET", "stats")
        return stats

    def control(self, method: str, path: str, order: dict[str, Any] | None = None) -> Any:
        """Give an order, or ask, beside the API. Raises StandinFailed."""
        address = urlsplit(self.base_url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        try:
            body = None if order is None else json.dumps(order)
            connection.request(method, f"/standin/{path}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except OSError as error:
            raise StandinFailed(f"no answer from the stand-in at {self.base_url}: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise StandinFailed(f"{method} {path}: {answer}")
        return answer

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def _end(self, number: int, grace_s: float) -> int | None:
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
