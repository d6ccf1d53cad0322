"""How long work takes here, learned from what it took, and how much of it to take in hand: pure arithmetic."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WINDOW_S = 10.0
WINDOW_TASKS = 10
"""How far the work in hand may grow so that the loaded checkpoint can go first: the smaller of the two holds."""

REFILL_SHARE = 0.5
"""Work is taken when less than this share of the target is in hand, then up to the target: fewer, fuller receives.

Half the target is still twice the p95 of a receive with all that follows, so the engine does not wait for it.
"""

MIN_WORK, MAX_WORK = 1e-3, 1e6
"""Bounds of `work_size`: what lies beyond is nonsense, and must not upset the averages or the arithmetic."""

MOST_AHEAD = 4
MOST_IN_LINE = 8
"""Tasks claimed for an engine at once, those included whose preparation takes long."""
MOST_UNSTARTED = 100
"""However short the tasks seem, no more than so many are held unstarted for an engine."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task asks of its engine, read from the request alone: the checkpoint by whatever name, and its work."""

    checkpoint: str | None = None
    work: float = 1.0
    """In step-megapixels; 1.0 where nothing tells."""


def bounded_work(size: float) -> float:
    """Return `size` within the bounds, 1.0 for what is none."""
    return min(MAX_WORK, max(MIN_WORK, size)) if math.isfinite(size) and size > 0 else 1.0


def work_size(payload: Mapping[str, Any]) -> float:
    """Return the size of a render in step-megapixels, 1.0 for what has no steps (extras) or makes no sense.

    Durations of one engine are about proportional to it (steps x pixels x images).
    """
    try:
        pixels = float(payload.get("width") or 512) * float(payload.get("height") or 512)
        images = float(payload.get("batch_size") or 1) * float(payload.get("n_iter") or 1)
        size = float(payload.get("steps") or 50) * images * pixels / 1e6
    except (TypeError, ValueError, OverflowError):
        return 1.0
    return bounded_work(size)


class Pace:
    """How engines of one kind render: seconds per unit of work and per task, as moving averages; and how long work
    takes to come to them. Not safe for threads, its owner locks it.
    """

    def __init__(self, weight: float = 0.2) -> None:
        self._weight = weight
        self._is_known = False
        self._per_unit: float | None = None
        self._per_task: float | None = None
        self._receives_s: deque[float] = deque(maxlen=64)
        self._claim_s = 0.0

    def learn(self, duration_s: float, work: float, *, switched: bool) -> None:
        """Take in one finished render.

        One that loaded a checkpoint (`switched`) took longer than its work; it counts only while nothing better is
        known.
        """
        if switched and self._is_known:
            return
        if not switched and not self._is_known:
            self._is_known, self._per_task, self._per_unit = True, None, None
        self._per_task = self._mix(self._per_task, duration_s)
        self._per_unit = self._mix(self._per_unit, duration_s / work)

    def learn_receive(self, seconds: float) -> None:
        """Take in how long a receive took that found enough at once, with the reading of its records."""
        self._receives_s.append(seconds)

    def learn_claim(self, seconds: float) -> None:
        """Take in how long a claim and the encoding after it took."""
        self._claim_s = self._mix(self._claim_s or None, seconds)

    def ahead(self) -> int:
        """Return how many tasks to have claimed for an engine: the next, or as many as start while one is claimed.

        That is more than one only where rendering is quicker than claiming.
        """
        if self._per_task is None or self._claim_s <= self._per_task:
            return 1
        return min(MOST_AHEAD, math.ceil(self._claim_s / max(self._per_task, 0.001)))

    def expected_s(self, work: float) -> float | None:
        """Return the expected duration of a render, or None while nothing is known."""
        return None if self._per_unit is None else self._per_unit * work

    @property
    def mean_s(self) -> float | None:
        """Mean duration of a task, or None while nothing is known."""
        return self._per_task

    def target_s(self) -> float:
        """Return L: seconds of work to have in hand so that the engine never waits for the next receive."""
        ordered = sorted(self._receives_s) or [0.0]
        p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        return min(15.0, max(2.0, 4.0 * (p95 + self._claim_s)))

    def _mix(self, old: float | None, new: float) -> float:
        return new if old is None else old + self._weight * (new - old)


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """Work held and not yet rendered.

    Expected seconds, running tasks included; tasks that wait to be chosen; tasks not posted yet; whether they want
    another checkpoint than is loaded, or several.
    """

    seconds: float
    waiting: int
    unstarted: int
    is_mixed: bool


def ask_for(in_hand: InHand, *, mean_s: float | None, target_s: float, engines: int, most: int, last_full: int) -> int:
    """Return how many messages to receive now, 0 for none.

    `last_full` is how many the last receive brought if it brought all that was asked for at once, else 0: a deep
    queue. While nothing is known of durations one task may be unstarted for each engine. While the queue is deep
    and the work is mixed, more may wait, so that the loaded checkpoint can go first: `WINDOW_S` of work or
    `WINDOW_TASKS`, whichever is less; while nothing is known, each receive may ask for twice the last.
    """
    most = min(most, MOST_UNSTARTED * engines - in_hand.unstarted)
    window = WINDOW_TASKS * engines - in_hand.waiting if in_hand.is_mixed and last_full else 0
    if mean_s is None:
        return max(0, min(most, max(engines - in_hand.unstarted, min(window, 2 * last_full))))
    mean_s = max(mean_s, 0.001)
    wanted = 0
    if in_hand.seconds < target_s * engines * REFILL_SHARE:
        wanted = math.ceil((target_s * engines - in_hand.seconds) / mean_s)
    wider = math.ceil((max(WINDOW_S, target_s) * engines - in_hand.seconds) / mean_s)
    return max(0, min(most, max(wanted, min(wider, window))))


def choose(
    waiting: Sequence[tuple[int, str | None, float]], *, loaded: str | None, now: float, longest_wait_s: float = 30.0
) -> int | None:
    """Return the index of the task to run next, or None when nothing waits.

    Each waiting task is (queue, checkpoint title, received_s), in order of arrival. One that was passed over for
    `longest_wait_s` goes first, whatever its queue; else queue 0 goes before queue 1, and within a queue the loaded
    checkpoint's, then the checkpoint that most of them want, so that the engine switches seldom.
    """
    if not waiting:
        return None
    overdue = [i for i, task in enumerate(waiting) if now - task[2] > longest_wait_s]
    if overdue:
        return min(overdue, key=lambda i: (waiting[i][0], waiting[i][2]))
    queue = min(task[0] for task in waiting)
    own = [i for i, task in enumerate(waiting) if task[0] == queue]
    for i in own:
        if waiting[i][1] == loaded:
            return i
    counts: dict[str | None, int] = {}
    for i in own:
        counts[waiting[i][1]] = counts.get(waiting[i][1], 0) + 1
    best = max(counts.values())
    return next(i for i in own if counts[waiting[i][1]] == best)
