"""Pictures that were fetched, kept by content within a bound of bytes; it fetches nothing itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scheduler.domain.ports import InputImage

MAX_BYTES = 128 << 20
"""Four inputs of the largest size, or a few hundred of the usual one: small beside a host with a GPU."""
MAX_ADDRESSES = 4096
FRESH_S = 300.0
"""How long an address is taken to lead to the same content. Tasks of one series name the same picture within minutes;
who puts another picture under an old address sees it used as soon."""


class InputCache:
    """Content by its sha256 for the life of the process, least used first out; addresses for `FRESH_S` only.

    Two addresses of one content share it. Safe for threads.
    """

    def __init__(self, monotonic: Callable[[], float], *, max_bytes: int = MAX_BYTES) -> None:
        self._monotonic = monotonic
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._images: OrderedDict[str, InputImage] = OrderedDict()
        self._addresses: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._turns: dict[str, tuple[threading.Lock, list[None]]] = {}
        self._lock = threading.Lock()

    def at(self, address: str) -> InputImage | None:
        """Return the picture that lay at `address` a moment ago."""
        with self._lock:
            sha256, until_s = self._addresses.get(address, ("", 0.0))
            return self._used(sha256) if self._monotonic() < until_s else None

    def known(self, sha256: str) -> InputImage | None:
        """Return the picture with this content, which need not be verified again."""
        with self._lock:
            return self._used(sha256)

    def keep(self, address: str, image: InputImage) -> None:
        """Keep what was found at `address` just now."""
        with self._lock:
            self._addresses.pop(address, None)
            self._addresses[address] = (image.sha256, self._monotonic() + FRESH_S)
            while len(self._addresses) > MAX_ADDRESSES:
                self._addresses.popitem(last=False)
            if self._used(image.sha256) is None and len(image.data) <= self._max_bytes:
                self._images[image.sha256] = image
                self._size_bytes += len(image.data)
            while self._size_bytes > self._max_bytes:
                _, oldest = self._images.popitem(last=False)
                self._size_bytes -= len(oldest.data)

    @contextmanager
    def turn(self, address: str) -> Iterator[None]:
        """Let one thread at a time see to `address`, so that the next finds what it brought."""
        with self._lock:
            lock, waiting = self._turns.setdefault(address, (threading.Lock(), []))
            waiting.append(None)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                waiting.pop()
                if not waiting:
                    del self._turns[address]

    def _used(self, sha256: str) -> InputImage | None:
        if sha256 not in self._images:
            return None
        self._images.move_to_end(sha256)
        return self._images[sha256]
