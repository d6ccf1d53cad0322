"""Inputs in memory: pictures by address, and what is refused."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

from scheduler.domain.errors import Rejected
from scheduler.domain.ports import InputImage


class FakeInputs:
    """The `Inputs` port over `images` and `bodies`; whatever else is asked for is refused. `asked` tells for what."""

    def __init__(self) -> None:
        self.images: dict[str, bytes] = {}
        self.bodies: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []

    def add(self, address: str, *, color: str = "red", side: int = 16) -> bytes:
        """Put a picture of one colour behind an address, and return its bytes."""
        out = io.BytesIO()
        Image.new("RGB", (side, side), color).save(out, "PNG")
        self.images[address] = out.getvalue()
        return out.getvalue()

    def image(self, address: str, *, field: str) -> InputImage:
        self.asked.append((address, field))
        if address not in self.images:
            raise Rejected(f"{field}: {address} may not be gone to", field=field)
        data = self.images[address]
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
        return InputImage(
            data=data,
            media_type="image/png",
            extension=".png",
            width=width,
            height=height,
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def read(self, address: str, *, field: str, max_bytes: int) -> bytes:
        self.asked.append((address, field))
        if address not in self.bodies or len(self.bodies[address]) > max_bytes:
            raise Rejected(f"{field}: {address} may not be gone to", field=field)
        return self.bodies[address]
