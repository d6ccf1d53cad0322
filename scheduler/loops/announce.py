"""The announce loop: between the record and the delete, so that nobody who is slow to be told holds up storing."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

import structlog

from scheduler.announcing import Announcer
from scheduler.domain.ends import End
from scheduler.domain.errors import LeaseLost, Unavailable
from scheduler.domain.surprises import Surprises
from scheduler.held import Held
from scheduler.held_messages import HeldMessages
from scheduler.outages import Outages
from scheduler.stop import StopSignal

log = structlog.get_logger()
T = TypeVar("T")


class AnnounceLoop:
    """Announces ends and hands their messages to the deleter; several run beside each other."""

    def __init__(
        self,
        announcements: SimpleQueue[tuple[Held, End] | None],
        announcer: Announcer,
        *,
        messages: HeldMessages,
        outages: Outages,
        stop: StopSignal,
    ) -> None:
        self._announcements = announcements
        self._announcer = announcer
        self._messages = messages
        self._outages = outages
        self._stop = stop
        self._surprises = Surprises()

    def run(self) -> None:
        """Announce until told that nothing more comes."""
        while (item := self._announcements.get()) is not None:
            self._announce(*item)
            del item

    def _announce(self, held: Held, end: End) -> None:
        def insist(call: Callable[[], T]) -> T:
            return self._outages.insist(held, call, left_s=self._stop.work_left_s)

        try:
            self._announcer.announce(end, insist)
        except (Unavailable, LeaseLost):
            self._messages.give_back(held, 0.0, reason="stop")  # whoever gets it next finds it unannounced
            return
        except Exception:
            if self._surprises.add(held.task.task_id):
                raise
            log.exception("announce_failed", task_id=held.task.task_id)  # its record has the end all the same
        else:
            self._surprises.none()
        self._messages.delete(held)
