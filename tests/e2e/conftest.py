"""What the end-to-end tests share: a world of their own, engines and daemons that end with the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from aws_servers import Cloud
from daemon_process import Daemon, Start
from world import Comfys, Engines, World

from scheduler.local.comfy.process import ComfyOptions, ComfyProcess
from scheduler.local.standin.process import StandinOptions, StandinProcess


@pytest.fixture
def world(ministack: Cloud, tmp_path: Path) -> World:
    """A queue with a lease of five seconds, a table and a bucket, in the emulator that one may count on."""
    return World.made(ministack, tmp_path)


@pytest.fixture
def engine() -> Iterator[Engines]:
    """Start stand-ins by their options."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(
            StandinProcess(StandinOptions(**({"seconds_per_step": 0.02, "switch_seconds": 0.1} | options)))
        )


@pytest.fixture
def comfy() -> Iterator[Comfys]:
    """Start stand-ins for ComfyUI by their options."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(
            ComfyProcess(ComfyOptions(**({"seconds_per_step": 0.02, "switch_seconds": 0.05} | options)))
        )


@pytest.fixture
def start(world: World) -> Iterator[Start]:
    """Start daemons from a configuration, against the test's cloud unless told otherwise."""
    with ExitStack() as running:

        def begin(conf: Path, environ: Mapping[str, str] | None = None, *, change: str = "") -> Daemon:
            return running.enter_context(Daemon(conf, {**world.cloud.environ, **(environ or {})}, change=change))

        yield begin
