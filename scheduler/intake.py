"""Whether this host takes work, and whether it is just taking some."""

from __future__ import annotations

import threading


class Intake:
    """The door that every receive goes through; safe for threads.

    It is shut by whoever has a reason, each under a name, and open while there is none. A receive that began before it
    was shut is still under way until it ends: only then may anybody conclude that nothing more comes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reasons: dict[str, str] = {}
        self._under_way = 0

    def begin(self) -> bool:
        """Enter to receive; False while it is shut. Whoever got True calls `end`."""
        with self._changed:
            if self._reasons:
                return False
            self._under_way += 1
            return True

    def end(self) -> None:
        """Leave: what was received is held by now."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def shut(self, name: str, why: str) -> bool:
        """Let nothing more in, for the reason `name`; True if that is news."""
        with self._changed:
            is_news = name not in self._reasons
            self._reasons[name] = why
            return is_news

    def open(self, name: str) -> bool:
        """Drop the reason `name`; True if it was one."""
        with self._changed:
            was = self._reasons.pop(name, None) is not None
            self._changed.notify_all()
            return was

    @property
    def why(self) -> str:
        """Why nothing is taken; empty while it is open."""
        with self._changed:
            return "; ".join(self._reasons.values())

    @property
    def is_quiet(self) -> bool:
        """Whether no receive is under way."""
        with self._changed:
            return self._under_way == 0

    def wait_open(self, timeout_s: float) -> bool:
        """Wait at most so long until it is open; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._reasons, timeout_s)
