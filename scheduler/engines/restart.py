"""The command that restarts a hung engine: run seldom, its words logged; it knows no engine."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import structlog

from scheduler.domain.ports import Clock

log = structlog.get_logger()
EVERY_S = 600.0
"""A restart that did not help is not tried again sooner: then the host is unhealthy."""
TIMEOUT_S = 120.0
MAX_OUTPUT = 1000


class RestartCommand:
    """An argument list, run without a shell; an empty one means that there is no way to restart."""

    def __init__(self, command: Sequence[str], clock: Clock, *, timeout_s: float = TIMEOUT_S) -> None:
        self._command = list(command)
        self._clock = clock
        self._timeout_s = timeout_s
        self._ran_s: float | None = None

    def run(self, engine: str) -> bool:
        """Run it for `engine`; return whether it ended well: False without a command, and within `EVERY_S`."""
        now = self._clock.monotonic()
        if not self._command or (self._ran_s is not None and now - self._ran_s < EVERY_S):
            return False
        self._ran_s = now
        try:
            done = subprocess.run(  # noqa: S603 - the command is the operator's own, from conf.ini
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._timeout_s,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("engine_restart_failed", engine=engine, command=self._command, why=str(error))
            return False
        said = done.stdout[-MAX_OUTPUT:].decode("utf-8", "replace")
        log.warning("engine_restart", engine=engine, command=self._command, exit_code=done.returncode, output=said)
        return done.returncode == 0
