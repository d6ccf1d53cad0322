"""The SD WebUI's stand-in as a child process, for tests and local mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.local.checkpoints import CHECKPOINTS
from scheduler.local.serving.child import ChildServer


@dataclass(frozen=True, slots=True, kw_only=True)
class StandinOptions:
    """What it is started with; see `python -m scheduler.local.standin --help`."""

    seconds_per_step: float = 0.05
    switch_seconds: float = 2.0
    startup_seconds: float = 0.0
    checkpoints: Sequence[str] = CHECKPOINTS
    auth: str | None = None
    ui: bool = False

    def arguments(self) -> list[str]:
        """Return them as the command line takes them."""
        return [
            f"--seconds-per-step={self.seconds_per_step}",
            f"--switch-seconds={self.switch_seconds}",
            f"--startup-seconds={self.startup_seconds}",
            f"--checkpoints={','.join(self.checkpoints)}",
            *([f"--auth={self.auth}"] if self.auth else []),
            "--ui" if self.ui else "--api-only",
        ]


class StandinProcess(ChildServer):
    """One stand-in of its own; see `ChildServer`."""

    module = "scheduler.local.standin"

    def __init__(self, options: StandinOptions | None = None) -> None:
        super().__init__((options or StandinOptions()).arguments())

    def drop_checkpoint(self, file: str) -> None:
        """Put a checkpoint into its folder, to be seen at the next refresh."""
        self.control("POST", "checkpoints", {"file": file})
