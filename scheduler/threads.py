"""Named daemon threads in groups, one group for each step of the stop.

Daemon threads throughout, for an exit must not wait for an upload that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Threads:
    """Starts threads and waits for them. `died` is called with the name of one that ended by an error."""

    def __init__(self, died: Callable[[str], None]) -> None:
        self._died = died
        self._groups: dict[str, list[threading.Thread]] = {}

    def start(self, group: str, run: Callable[[], None]) -> None:
        """Run `run` in a new thread of `group`."""
        members = self._groups.setdefault(group, [])
        name = f"{group}-{len(members)}"
        members.append(threading.Thread(target=self._guarded, args=(name, run), name=name, daemon=True))
        members[-1].start()

    def _guarded(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception:
            log.exception("loop_died", loop=name)
            self._died(name)

    def join(self, group: str, until_left_s: Callable[[], float]) -> bool:
        """Wait for a group; True when all its threads have ended. What is left may shrink meanwhile."""
        for thread in self._groups.get(group, []):
            while thread.is_alive() and (left_s := until_left_s()) > 0:
                thread.join(min(1.0, left_s))
        return not any(thread.is_alive() for thread in self._groups.get(group, []))

    def size(self, group: str) -> int:
        """Return how many threads were started in a group."""
        return len(self._groups.get(group, []))


def every(period_s: float, cycle: Callable[[], None], *, stop: threading.Event, is_vital: bool = True) -> None:
    """Call `cycle` each `period_s` until `stop`; what is not vital goes on after an error."""
    while not stop.wait(period_s):
        try:
            cycle()
        except Exception:
            if is_vital:
                raise
            log.exception("cycle_failed")
