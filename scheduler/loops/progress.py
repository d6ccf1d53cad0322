"""The progress loop: how far what runs now is; nothing depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scheduler.loops.lane import Lane


class ProgressLoop:
    """Asks each engine how far it is, for the record and for people; nothing depends on the answer."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    def cycle(self) -> None:
        """Note the progress of what runs now."""
        for lane in self._lanes:
            held = lane.running
            if held is not None:
                progress = lane.engine.progress()
                if progress is not None and lane.running is held:
                    held.progress = replace(progress, preview_key=held.preview_key)
