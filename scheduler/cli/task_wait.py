"""Waiting for a task's end: polls its record, shows how far it is, and says at a Ctrl-C how to look it up later."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from scheduler.cli.failure import INTERRUPTED, Failure
from scheduler.cli.live_line import LiveLine
from scheduler.cli.record_view import duration
from scheduler.domain.claiming import FINAL
from scheduler.domain.errors import Unavailable

PERIOD_S = 0.5

Record = Mapping[str, Any]


class EndWait:
    """Waits for one task's end. `look` reads its record, `look_up` is the command that shows it later.

    Meanwhile `line` tells status and seconds; it is gone when waiting ends.
    """

    def __init__(self, task_id: str, look: Callable[[], Record], *, look_up: str, line: LiveLine) -> None:
        self._task_id = task_id
        self._look = look
        self._look_up = look_up
        self._line = line
        self._record: Record = {}
        self._began_s = time.monotonic()

    def end(self, *, old_end: object, timeout_s: float | None) -> Record:
        """Return the record once it has an end other than `old_end`, which is what its `finished_at` was before.

        Raises Failure at the timeout, when AWS does not answer, and at a Ctrl-C.
        """
        try:
            while True:
                self._record = self._look()
                if self._has_ended(old_end):
                    return self._record
                left_s = (math.inf if timeout_s is None else timeout_s) - self._elapsed_s()
                if left_s <= 0:
                    raise self._failure(f"still {self._status} after {timeout_s:g} s", kind="timeout")
                percent = f" {self._record['progress']} %" if "progress" in self._record else ""
                self._line.say(f"{self._status}{percent}, {int(self._elapsed_s())} s")
                time.sleep(min(PERIOD_S, left_s))
        except KeyboardInterrupt:
            said = (
                f"interrupted after {duration(self._elapsed_s())}: task {self._task_id} is {self._status}, and goes on"
            )
            raise self._failure(said, kind="interrupted", code=INTERRUPTED) from None
        except Unavailable as error:
            raise self._failure(error.message, kind=error.kind) from error
        finally:
            self._line.clear()

    def _has_ended(self, old_end: object) -> bool:
        is_new = old_end is None or self._record.get("finished_at") != old_end
        return is_new and self._record.get("status") in FINAL

    @property
    def _status(self) -> str:
        return str(self._record.get("status", "not recorded yet"))

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _failure(self, said: str, *, kind: str, code: int = 1) -> Failure:
        lines = (said,) if kind == "interrupted" else None
        facts = {"task_id": self._task_id, "status": self._record.get("status")}
        return Failure(said, kind=kind, code=code, advice=f"look it up: {self._look_up}", lines=lines, **facts)
