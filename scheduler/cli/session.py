"""Which configuration, and which AWS, a command at a terminal means."""

from __future__ import annotations

import os
from pathlib import Path

import click

from scheduler.config import load
from scheduler.session import Session as Session  # noqa: PLC0414 - its users import it from here
from scheduler.session import open_session as open_for

LOCAL_CONFIG = Path(".local/conf.ini")
LOCAL_ENVIRONMENT = Path(".local/environment")


def enter_local() -> Path:
    """Take over the environment of the `sd-scheduler local` that runs in this folder; return its configuration."""
    if not LOCAL_ENVIRONMENT.exists():
        raise click.UsageError("no `sd-scheduler local` runs in this folder: start it, or leave --local away")
    for line in LOCAL_ENVIRONMENT.read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ[name] = value
    return LOCAL_CONFIG


def open_session(config: Path | None, *, local: bool) -> Session:
    """Return a session by the configuration meant. Raises ConfigError, Unavailable."""
    return open_for(load(enter_local() if local else config, os.environ))
