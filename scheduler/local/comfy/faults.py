"""What can be made to go wrong in the stand-in, on demand."""

from __future__ import annotations

from enum import StrEnum


class FaultKind(StrEnum):
    """What can be made to go wrong with one prompt."""

    OOM = "oom"
    """execution_error torch.OutOfMemoryError; with `max_batch`, for every larger batch."""
    FATAL = "fatal"
    """execution_error with a CUDA error."""
    HANG = "hang"
    """The run stands still and ignores interrupts until the faults are cleared."""
    CRASH = "crash"
    """The process dies, and with it queue and history."""
    LOST = "lost"
    """The run vanishes: neither in the queue nor in the history, and no further event."""
    SILENT = "silent"
    """The websocket stays open and tells nothing of this run."""
    DROP = "drop"
    """The client's websocket is cut off; it may come again."""
    CORRUPT_IMAGE = "corrupt-image"
    """Success, but the files that are saved are cut in half."""
    BLACK = "black"
    """Success, all images black."""
    NO_FILE = "no-file"
    """Success, but the files that the outputs name are gone."""
    NO_OUTPUT = "no-output"
    """Success without outputs."""
    SLOW = "slow"
    """Every step takes `factor` times as long."""
