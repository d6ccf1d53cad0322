"""Faults of our own that a task brings out: bad luck once, a broken worker when task after task does it."""

from __future__ import annotations

MOST_SURPRISES = 5
"""Errors of our own in a row, on different tasks, after which a loop ends: then it is not the tasks."""


class Surprises:
    """Counts them for one loop, each task once, since the last that went well."""

    def __init__(self) -> None:
        self._tasks: set[str] = set()

    def add(self, name: str) -> bool:
        """Note that the task (or message) `name` brought one out; True when the loop is to blame."""
        self._tasks.add(name)
        return len(self._tasks) >= MOST_SURPRISES

    def none(self) -> None:
        """Note that one went well."""
        self._tasks.clear()
