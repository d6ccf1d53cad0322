"""Whether this host takes work, and whether it is just taking some."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Intake:
    """The door that every receive goes through; safe for threads.

    It is shut by whoever has a reason, each under a name, and open while there is none. A receive that began before it
    was shut is still under way until it ends: only then may anybody conclude that nothing more comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}
        self._under_way = 0
        self._looks: list[Callable[[], str]] = []

    def watch(self, look: Callable[[], str]) -> None:
        """Ask `look` too, each time, why the door is to be shut; empty when it may be open."""
        self._looks.append(look)

    def begin(self) -> bool:
        """Enter to receive; False while it is shut. Whoever got True calls `end`."""
        with self._lock:
            if self._reasons or any(look() for look in self._looks):
                return False
            self._under_way += 1
            return True

    def end(self) -> None:
        """Leave: what was received is held by now."""
        with self._lock:
            self._under_way -= 1

    def shut(self, name: str, why: str) -> bool:
        """Let nothing more in, for the reason `name`; True if that is news."""
        with self._lock:
            is_news = name not in self._reasons
            self._reasons[name] = why
            return is_news

    def open(self, name: str) -> bool:
        """Drop the reason `name`; True if it was one."""
        with self._lock:
            return self._reasons.pop(name, None) is not None

    @property
    def why(self) -> str:
        """Why nothing is taken; empty while it is open."""
        with self._lock:
            return "; ".join(filter(None, [*self._reasons.values(), *(look() for look in self._looks)]))

    @property
    def is_quiet(self) -> bool:
        """Whether no receive is under way."""
        with self._lock:
            return self._under_way == 0
