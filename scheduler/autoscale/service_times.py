"""How long tasks of a class take on this fleet, learned from those that were rendered; pure, and bounded.

A class is an engine and a checkpoint; within it seconds grow with steps x pixels x images. Loads of checkpoints are
measured apart, so that a task's own time does not depend on what happened to be loaded before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

MOST_CLASSES = 64
"""Classes remembered; beyond it the one that was not seen for longest goes. Its tasks are judged by their engine."""

WEIGHT = 0.1
"""Weight of each further task once a class is known: half of what is known comes from its last seven tasks."""

PRIOR_S = 20.0
"""Seconds of a task while nothing is known."""

OVERALL = ""
"""The class of everything; no engine has an empty name."""


class ServiceTimes:
    """Seconds per unit of work by class, seconds per task and per checkpoint load; not safe for threads."""

    def __init__(self) -> None:
        self._per_unit: dict[tuple[str, str], float] = {}
        self._task_s: float | None = None
        self._load_s: float | None = None

    def learn(self, *, engine: str, checkpoint: str, work: float, seconds: float, load_s: float = 0.0) -> None:
        """Take in one rendered task: its work (any unit, above 0), its GPU seconds, and how many of these a load took.

        What cannot be (no work, no seconds, a load longer than all) is left out.
        """
        if work <= 0 or seconds <= 0 or not 0 <= load_s < seconds:
            return
        per_unit = (seconds - load_s) / work
        for key in ((OVERALL, ""), (engine, ""), (engine, checkpoint)):
            self._per_unit[key] = _mixed(self._per_unit.pop(key, None), per_unit)
        while len(self._per_unit) > MOST_CLASSES:
            del self._per_unit[next(iter(self._per_unit))]
        self._task_s = _mixed(self._task_s, seconds)
        if load_s:
            self._load_s = _mixed(self._load_s, load_s)

    def expected_s(self, *, engine: str, checkpoint: str, work: float, is_loaded: bool = True) -> float:
        """Return the expected GPU seconds of a task, by the nearest class that is known, with the load if one is due."""
        keys = ((engine, checkpoint), (engine, ""), (OVERALL, ""))
        per_unit = next((self._per_unit[key] for key in keys if key in self._per_unit), None)
        own_s = self.mean_s if per_unit is None else per_unit * work
        return own_s + (0.0 if is_loaded else self._load_s or 0.0)

    @property
    def mean_s(self) -> float:
        """Mean GPU seconds of a task, loads included; the prior while nothing is known."""
        return PRIOR_S if self._task_s is None else self._task_s

    def remembered(self) -> dict[str, Any]:
        """Return all that was learned, in JSON's types; under 10 KB unless names are very long."""
        classes = [[*key, float(f"{seconds:.4g}")] for key, seconds in self._per_unit.items()]
        return {"classes": classes, "task_s": self._task_s, "load_s": self._load_s}

    @classmethod
    def from_remembered(cls, remembered: Mapping[str, Any]) -> Self:
        """Return what `remembered` was taken from; an empty mapping gives a new one."""
        times = cls()
        for engine, checkpoint, per_unit in remembered.get("classes", ()):
            times._per_unit[engine, checkpoint] = float(per_unit)
        times._task_s, times._load_s = remembered.get("task_s"), remembered.get("load_s")
        return times


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
