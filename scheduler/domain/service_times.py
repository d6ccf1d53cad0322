"""How long tasks of a class take here, learned from those that were rendered; pure, and bounded.

A class is an engine and a checkpoint; within it seconds grow with steps x pixels x images.
"""

from __future__ import annotations

MOST_CLASSES = 64
"""Classes remembered; beyond it the one that was not seen for longest goes. Its tasks are judged by their engine."""

WEIGHT = 0.1
"""Weight of each further task once a class is known: half of what is known comes from its last seven tasks."""

OVERALL = ""
"""The class of everything; no engine has an empty name."""


class ServiceTimes:
    """Seconds per unit of work by class; not safe for threads, its owner locks it."""

    def __init__(self) -> None:
        self._per_unit: dict[tuple[str, str], float] = {}

    def learn(self, *, engine: str, checkpoint: str, work: float, seconds: float) -> None:
        """Take in one rendered task that had to load no checkpoint: its work (any unit) and its GPU seconds.

        What cannot be (no work, no seconds) is left out.
        """
        if work <= 0 or seconds <= 0:
            return
        for key in ((OVERALL, ""), (engine, ""), (engine, checkpoint)):
            before = self._per_unit.pop(key, None)
            now = seconds / work
            self._per_unit[key] = now if before is None else before + WEIGHT * (now - before)
        while len(self._per_unit) > MOST_CLASSES:
            del self._per_unit[next(iter(self._per_unit))]

    def expected_s(self, *, engine: str, checkpoint: str, work: float) -> float | None:
        """Return the expected GPU seconds of a task, by the nearest class that is known; None while none is."""
        keys = ((engine, checkpoint), (engine, ""), (OVERALL, ""))
        per_unit = next((self._per_unit[key] for key in keys if key in self._per_unit), None)
        return None if per_unit is None else per_unit * work

    def __len__(self) -> int:
        return len(self._per_unit)
