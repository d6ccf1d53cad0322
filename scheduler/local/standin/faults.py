"""What can be made to go wrong in the stand-in, on demand."""

from __future__ import annotations

from enum import StrEnum


class FaultKind(StrEnum):
    """What can be made to go wrong."""

    OOM = "oom"
    """500 OutOfMemoryError; with `max_batch`, for every request of a larger batch."""
    FATAL = "fatal"
    """500 with a CUDA error."""
    HANG = "hang"
    """The render stands still and ignores interrupts until the faults are cleared."""
    CRASH = "crash"
    """The process dies; those who wait see their connection closed without a byte."""
    CORRUPT_IMAGE = "corrupt-image"
    """200, but the first image is cut in half."""
    SHORT = "short"
    """200, one image fewer than asked for, all seeds listed."""
    WRONG_MODEL = "wrong-model"
    """200, made with another checkpoint, as only `info` tells."""
    BLACK = "black"
    """200, all images black."""
    SLOW = "slow"
    """Every step takes `factor` times as long."""
    CORRUPT_CHECKPOINT = "corrupt-checkpoint"
    """The checkpoint whose file name contains `match` cannot be loaded; the attempt spoils all later renders."""


LASTING = frozenset({FaultKind.CORRUPT_CHECKPOINT})
"""Faults of the place and not of a render."""
