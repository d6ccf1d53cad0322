"""The process under measurement: started, stopped, killed and weighed with all its children."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

GRACE_S = 30.0
"""From SIGTERM to SIGKILL, as most supervisors do it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A command line; `{conf}`, `{python}` and the names of `World.names` are filled in."""

    name: str
    command: str


DAEMON = Consumer(name="daemon", command="{python} scheduler/main.py -c {conf}")
REFERENCE = Consumer(name="reference", command="{python} -m benchmarks.reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """How a SIGTERM ended: after how long, and whether patience did."""

    seconds: float
    was_killed: bool


class ConsumerProcess:
    """One consumer over its restarts; it leads a session of its own, so that its children can be found and killed."""

    def __init__(
        self, consumer: Consumer, names: Mapping[str, str], environment: Mapping[str, str], cwd: Path, log: Path
    ) -> None:
        self._argv = [word.format_map(dict(names)) for word in shlex.split(consumer.command)]
        self._environment = dict(environment)
        self._cwd = cwd
        self._log = log
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self.peak_rss_bytes = 0

    @property
    def cpu_s(self) -> float:
        """User and system time of every process seen so far, by its last reading."""
        return sum(self._cpu_s.values())

    @property
    def is_dead(self) -> bool:
        """Whether the main process has ended."""
        return self._child is None or self._child.poll() is not None

    def start(self) -> None:
        """Start it; output goes to the log."""
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                self._argv,
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def weigh(self) -> None:
        """Read CPU time and memory of the whole tree."""
        if self._child is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._child.pid)
            rss_bytes = 0
            for process in (main, *main.children(recursive=True)):
                with process.oneshot():
                    times = process.cpu_times()
                    self._cpu_s[process.pid, process.create_time()] = times.user + times.system
                    rss_bytes += process.memory_info().rss
            self.peak_rss_bytes = max(self.peak_rss_bytes, rss_bytes)

    def kill(self) -> None:
        """SIGKILL the whole tree, as a lost machine would."""
        if self._child is None:
            return
        self.weigh()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def terminate(self) -> Stopped:
        """SIGTERM the main process and wait; after the grace, and for whatever is left of the tree, SIGKILL."""
        start_s = time.monotonic()
        was_killed = False
        if self._child is not None:
            self._child.terminate()
            while not self.is_dead and not was_killed:
                self.weigh()
                time.sleep(0.02)
                was_killed = time.monotonic() - start_s > GRACE_S
        seconds = time.monotonic() - start_s
        self.kill()
        return Stopped(seconds=seconds, was_killed=was_killed)
