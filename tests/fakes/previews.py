"""Pictures in the making, in memory."""

from __future__ import annotations

from scheduler.domain.errors import Unavailable


class FakePreviews:
    """The `PreviewStore` port: what lies where, how often it was put there; calls may fail."""

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}
        self.puts = 0
        self.is_down = False

    def show(self, key: str, jpeg: bytes) -> None:
        self._require_up()
        self.puts += 1
        self.pictures[key] = jpeg

    def hide(self, key: str) -> None:
        self._require_up()
        self.pictures.pop(key, None)

    def _require_up(self) -> None:
        if self.is_down:
            raise Unavailable("S3 does not answer")
