"""Which configuration, and which AWS, a command at a terminal means."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from scheduler.config import Settings, load
from scheduler.domain.errors import Unavailable
from scheduler.session import Session as Session  # noqa: PLC0414 - its users import it from here
from scheduler.session import open_session as open_for

LOCAL_CONFIG = Path(".local/conf.ini")
LOCAL_ENVIRONMENT = Path(".local/environment")
LOCAL_LOCK = Path(".local/lock")


def enter_local() -> Path:
    """Take over the environment of the `sd-scheduler local` that runs in this folder; return its configuration."""
    if not LOCAL_ENVIRONMENT.exists() or not _runs():
        raise Unavailable(f"no `sd-scheduler local` runs in {Path.cwd()}: start it there, or leave --local away")
    for line in LOCAL_ENVIRONMENT.read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ[name] = value
    return LOCAL_CONFIG


def _runs() -> bool:
    """Tell whether somebody holds local mode's lock; a process that was killed does not."""
    with LOCAL_LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def load_settings(config: Path | None, *, local: bool) -> Settings:
    """Return the configuration meant; with `local`, this process is then led to local mode's AWS. Raises ConfigError."""
    return load(enter_local() if local else config, os.environ)


def open_session(config: Path | None, *, local: bool) -> Session:
    """Return a session by the configuration meant. Raises ConfigError, Unavailable."""
    return open_for(load_settings(config, local=local))
