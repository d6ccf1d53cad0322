"""A bucket in memory."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Any

from fakes.faults import Faults
from scheduler.domain.task import EngineImage, StoredImage


class FakeImageStore:
    """The `ImageStore` port; `stored` and `data` show what lies there, `puts` every key of a picture asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.faults = Faults()
        self.fail_next = self.faults.fail_next
        self.stored: dict[str, StoredImage] = {}
        self.data: dict[str, bytes] = {}
        self.puts: list[str] = []

    def put(self, key: str, image: EngineImage) -> StoredImage:
        with self.faults.around("put"), self._lock:
            self.puts.append(key)
            if key not in self.stored:
                self.data[key] = image.data
                self.stored[key] = StoredImage(
                    key=key,
                    media_type=image.media_type,
                    size_bytes=len(image.data),
                    sha256=hashlib.sha256(image.data).hexdigest(),
                    width=image.width,
                    height=image.height,
                    seed=image.seed,
                )
            return self.stored[key]

    def put_json(self, key: str, value: Mapping[str, Any]) -> None:
        with self.faults.around("put_json"), self._lock:
            self.data.setdefault(key, json.dumps(value).encode())

    def read_json(self, key: str) -> Any:
        with self.faults.around("read_json"), self._lock:
            return json.loads(self.data[key]) if key in self.data else None
