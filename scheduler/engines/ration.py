"""How much the pictures of one task may be together, in bytes and in time: a small message can name many."""

from __future__ import annotations

import time
from collections.abc import Callable

from scheduler.domain.errors import Counts, Rejected, Transient
from scheduler.domain.ports import InputImage, Inputs

MOST_BYTES = 128 << 20
MOST_S = 60.0
"""In which they are fetched: beyond it the task is tried again later, with what came kept."""


class Rationed:
    """Inputs of one task, so many bytes together, and begun within `MOST_S`."""

    def __init__(self, inputs: Inputs, most_bytes: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._inputs = inputs
        self._monotonic = monotonic
        self._until_s = monotonic() + MOST_S
        self._most_bytes = self._left_bytes = most_bytes

    def image(self, address: str, *, field: str) -> InputImage:
        """See the port. Raises Rejected beside, for the picture that is too many, and Transient when it is too late."""
        if self._monotonic() > self._until_s:
            said = f"{field}: the pictures before it took more than {MOST_S:g} s"
            raise Transient(said, counts=Counts.TRY, field=field)
        image = self._inputs.image(address, field=field)
        self._left_bytes -= len(image.data)
        if self._left_bytes < 0:
            raise Rejected(f"with {field} the task's pictures are more than {self._most_bytes} bytes", field=field)
        return image
