"""Which configuration, and which AWS, a command at a terminal means; and what the program is called there."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path

from scheduler.cli.options import refuse_both
from scheduler.config import Settings, load
from scheduler.domain.errors import Unavailable

LOCAL_CONFIG = Path(".local/conf.ini")
LOCAL_ENVIRONMENT = Path(".local/environment")
LOCAL_LOCK = Path(".local/lock")


def own_name() -> str:
    """Return how a person calls this program here: by its name where that is found, else where it was installed."""
    installed = Path(sys.executable).with_name("sd-scheduler")
    if shutil.which("sd-scheduler") or not installed.is_file():
        return "sd-scheduler"
    return os.path.relpath(installed) if installed.is_relative_to(Path.cwd()) else str(installed)


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
    """Return the configuration meant; with `local`, this process is then led to local mode's
    AWS. Raises ConfigError.
    """
    if local:
        refuse_both(config)
        config = enter_local()
    return load(config, os.environ)


def load_fleet_settings(config: Path | None, *, local: bool) -> Settings:
    """Return the configuration meant, for a command about its fleet. Raises ConfigError, Unavailable."""
    settings = load_settings(config, local=local)
    if local and not settings.autoscaling.fleet_id:
        raise Unavailable(
            "the `sd-scheduler local` that runs here has no fleet: start it with --fleet, or --demo-fleet"
        )
    return settings
