"""ComfyUI's stand-in as a child process, for tests and local mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.local.checkpoints import CHECKPOINTS
from scheduler.local.serving.child import ChildServer


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyOptions:
    """What it is started with; see `python -m scheduler.local.comfy --help`."""

    seconds_per_step: float = 0.05
    switch_seconds: float = 2.0
    startup_seconds: float = 0.0
    checkpoints: Sequence[str] = CHECKPOINTS
    previews: bool = False
    targeted_interrupt: bool = True

    def arguments(self) -> list[str]:
        """Return them as the command line takes them."""
        return [
            f"--seconds-per-step={self.seconds_per_step}",
            f"--switch-seconds={self.switch_seconds}",
            f"--startup-seconds={self.startup_seconds}",
            f"--checkpoints={','.join(self.checkpoints)}",
            *(["--previews"] if self.previews else []),
            *([] if self.targeted_interrupt else ["--untargeted-interrupt"]),
        ]


class ComfyProcess(ChildServer):
    """One stand-in of its own; see `ChildServer`."""

    module = "scheduler.local.comfy"

    def __init__(self, options: ComfyOptions | None = None) -> None:
        super().__init__((options or ComfyOptions()).arguments())
