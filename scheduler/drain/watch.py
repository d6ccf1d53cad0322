"""The look-out for notices: asks the metadata again and again, and tells each announcement once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import structlog

from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock
from scheduler.drain import notices as documents
from scheduler.drain.notices import ASG_GRACE_S, Kind, Notice, Read, Reading

log = structlog.get_logger()

POLL_S = 2.0
"""AWS advises 5 s. Of the 120 s that Spot gives, 2 s save 1.5 s on average and 3 s at most, for one or two more
requests a second to the same host; a task that just fits is worth more than that."""


class Metadata(Protocol):
    """Where the documents are."""

    def get(self, path: str, *, tries: int) -> str | None:
        """Return a document, None where there is none; raises Unavailable after so many tries."""


class Watcher:
    """One loop calls `cycle`; everything else may be called from other threads.

    `on_notice` is called on that loop, once for each announcement, which is among `notices` by then; should it raise,
    so does the cycle, and it is called again in the next. Nothing else is raised: without an answer the notices known
    so far stand, and the next cycle asks again.
    """

    def __init__(
        self,
        metadata: Metadata,
        *,
        on_notice: Callable[[Notice], None],
        clock: Clock,
        asg_grace_s: float = ASG_GRACE_S,
    ) -> None:
        self._metadata = metadata
        self._on_notice = on_notice
        self._clock = clock
        self._sources: Mapping[str, Read] = {
            documents.INSTANCE_ACTION: documents.read_instance_action,
            documents.TERMINATION_TIME: documents.read_termination_time,
            documents.LIFECYCLE_STATE: partial(documents.read_lifecycle_state, grace_s=asg_grace_s),
            documents.MAINTENANCE: documents.read_maintenance,
            documents.REBALANCE: documents.read_rebalance,
        }
        self._lock = threading.Lock()
        self._standing: dict[str, Notice] = {}
        self._told: set[str] = set()
        self._faults: dict[str, str] = {}
        self._is_answered = True

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What is announced, in the order in which it was told.

        An interruption stands once it was read. Maintenance alone is taken back when EC2 takes it back.
        """
        with self._lock:
            return tuple(self._standing.values())

    def postpone(self, notice_id: str, until_s: float) -> None:
        """Move a notice's deadline to `until_s` (epoch seconds) because whoever wants the instance agreed to wait."""
        with self._lock:
            notice = self._standing.get(notice_id)
            if notice is not None:
                self._standing[notice_id] = replace(notice, deadline_s=until_s)

    def cycle(self) -> float:
        """Ask for all documents once; return the seconds until the next time."""
        errors: list[str] = []
        for path, read in self._sources.items():
            if path == documents.TERMINATION_TIME and self._is_standing(Kind.INTERRUPTION):
                continue
            try:
                document = self._metadata.get(path, tries=1)
            except Unavailable as error:
                errors.append(error.message)
                continue
            reading = Reading() if document is None else read(document, self._clock.now())
            self._note_fault(path, reading.fault)
            self._note(path, reading)
        self._note_answers(errors)
        return POLL_S

    def _is_standing(self, kind: Kind) -> bool:
        return any(notice.kind is kind for notice in self.notices)

    def _note(self, path: str, reading: Reading) -> None:
        for notice in reading.notices:
            if notice.id not in self._standing:
                with self._lock:
                    self._standing[notice.id] = notice
                log.warning(
                    "notice",
                    kind=notice.kind.value,
                    notice_id=notice.id,
                    action=notice.action,
                    deadline_s=notice.deadline_s,
                    detail=notice.detail,
                )
            if notice.id not in self._told:
                self._on_notice(self._standing[notice.id])
                self._told.add(notice.id)
        if path == documents.MAINTENANCE and not reading.fault:
            self._withdraw({notice.id for notice in reading.notices})

    def _withdraw(self, announced: set[str]) -> None:
        for notice in self.notices:
            if notice.kind is Kind.MAINTENANCE and notice.id not in announced:
                with self._lock:
                    del self._standing[notice.id]
                self._told.discard(notice.id)
                log.info("notice_withdrawn", kind=notice.kind.value, notice_id=notice.id, detail=notice.detail)

    def _note_fault(self, path: str, fault: str) -> None:
        if fault and self._faults.get(path) != fault:
            log.warning("notice_unreadable", source=path, error=fault)
        self._faults[path] = fault

    def _note_answers(self, errors: list[str]) -> None:
        if errors and self._is_answered:
            log.warning("metadata_unavailable", error=errors[0])
        elif not errors and not self._is_answered:
            log.info("metadata_answers_again")
        self._is_answered = not errors
