"""What the stand-in has done, for those who test with it; the real server keeps nothing like it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Diary:
    """Counts and busy intervals since the start; times are this machine's monotonic clock. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self._whole: Counter[str] = Counter()
        self._busy: list[tuple[float, float, str, str]] = []
        self._switches: list[dict[str, Any]] = []

    def request(self, method: str, path: str) -> None:
        """Note that a request was read."""
        with self._guard:
            self._requests[f"{method} {path}"] += 1

    def switched(self, before: str | None, after: str) -> None:
        """Note that other weights were loaded."""
        with self._guard:
            self._switches.append({"at": self._clock(), "from": before, "to": after})

    @contextmanager
    def busy(self, kind: str, prompt: str) -> Iterator[None]:
        """Note the time spent inside as work of `kind`."""
        start = self._clock()
        try:
            yield
        finally:
            with self._guard:
                self._busy.append((start, self._clock(), kind, prompt))

    def begun(self, prompt: str) -> None:
        """Note that a render began."""
        with self._guard:
            self._begun[prompt] += 1

    def whole(self, prompt: str) -> None:
        """Note that a render came to its natural end."""
        with self._guard:
            self._whole[prompt] += 1

    def facts(self) -> dict[str, Any]:
        """Return all of it, as JSON can hold it."""
        with self._guard:
            return {
                "requests": dict(self._requests),
                "renders": dict(self._begun),
                "renders_whole": dict(self._whole),
                "switches": list(self._switches),
                "busy": [list(entry) for entry in self._busy],
            }
