"""The lock that keeps a second daemon off an instance, because a fleet counts one worker for each."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path
from typing import TextIO

from scheduler.domain.errors import ConfigError


class OneDaemon:
    """The lock that keeps a second daemon off the same instance; it goes with the process."""

    def __init__(self, instance_id: str) -> None:
        """Take the lock. Raises ConfigError when another daemon has it."""
        path = Path(tempfile.gettempdir()) / f"sd-scheduler-{instance_id}.lock"
        self._file: TextIO = path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            said = f"another daemon runs on {instance_id} (it holds {path}): a fleet counts one for each instance"
            raise ConfigError([said]) from error

    def close(self) -> None:
        """Let go of it."""
        self._file.close()
