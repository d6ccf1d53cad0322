"""How much the pictures of one task may be together: a small message can name a large one many times."""

from __future__ import annotations

from scheduler.domain.errors import Rejected
from scheduler.domain.ports import InputImage, Inputs

MOST_BYTES = 128 << 20


class Rationed:
    """Inputs of one task, so many bytes together."""

    def __init__(self, inputs: Inputs, most_bytes: int) -> None:
        self._inputs = inputs
        self._most_bytes = self._left_bytes = most_bytes

    def image(self, address: str, *, field: str) -> InputImage:
        """See the port. Raises Rejected beside, for the picture that is too many."""
        image = self._inputs.image(address, field=field)
        self._left_bytes -= len(image.data)
        if self._left_bytes < 0:
            raise Rejected(f"with {field} the task's pictures are more than {self._most_bytes} bytes", field=field)
        return image
