"""The way to one engine: what it renders, what comes next, and whether it can take anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from scheduler.domain.pace import MOST_IN_LINE, Pace
from scheduler.domain.ports import Clock, Engine
from scheduler.domain.task import Task
from scheduler.held import Held, HeldTasks, State

SLOW_S = 1.0
"""Preparation that takes longer waits for something, pictures most likely, and leaves the engine to others."""


def is_served(lanes: Sequence[Lane], task: Task) -> bool:
    """Tell whether to hold a task: an engine for it is ready, or none is at all,
    when nothing more is received anyway.
    """
    ready = [lane for lane in lanes if lane.is_ready]
    return not ready or any(lane.is_for(task) for lane in ready)


class Lane:
    """Shared by an engine's loops; safe for threads, under the registry's lock.

    In line are the tasks chosen for the engine and not yet taken by it: claimed and ready, or being prepared.
    """

    def __init__(
        self,
        engine: Engine,
        held: HeldTasks,
        clock: Clock,
        *,
        pace: Pace,
        is_for: Callable[[Task], bool] = lambda _: True,
    ) -> None:
        """`is_for` tells which tasks the engine may run; `pace` is shared by engines of the same kind."""
        self.engine = engine
        self.pace = pace
        self.is_for = is_for
        self._held = held
        self._clock = clock
        self._ready: deque[Held] = deque()
        self._picking = 0
        self._preparing: set[Held] = set()
        self._last_title: str | None = None
        self.running: Held | None = None
        self.is_ready = False
        self.is_healthy = True
        self.why = "starting: the engine has not answered yet"
        self.since_s = clock.monotonic()

    def set_ready(self, *, ready: bool, why: str = "") -> bool:
        """Say whether the engine can take a request; return whether that is news."""
        with self._held.lock:
            is_news = self.is_ready is not ready
            if is_news:
                self.since_s = self._clock.monotonic()
            self.is_ready, self.why = ready, why
            self._held.room.signal()
            self._held.choice.signal()
            return is_news

    def choose(self) -> Held | None:
        """Take the waiting task that suits the engine best into its line, if there is a place and one waits.

        Whoever gets it calls `offer` or `leave`.
        """
        with self._held.lock:
            if not self.is_ready or not self._has_place():
                return None
            self._picking += 1
        held = self._held.pick(self.engine.title, self.title_after_line(), self.is_for)
        with self._held.lock:
            self._picking -= 1
            if held is not None:
                self._preparing.add(held)
                self._last_title = self.engine.title(held.wanted)
        return held

    def _has_place(self) -> bool:
        """Tell whether the line is short. Who is slow, whose pictures do not come, takes nobody's place."""
        slow_before_s = self._clock.monotonic() - SLOW_S
        slow = sum(held.state is State.PREPARING and held.since_s < slow_before_s for held in self._preparing)
        in_line = len(self._ready) + self._picking + len(self._preparing)
        return in_line - slow < self.pace.ahead() and in_line < MOST_IN_LINE

    def leave(self, held: Held) -> None:
        """Give the place in the line up again."""
        with self._held.lock:
            self._preparing.discard(held)

    def offer(self, held: Held) -> None:
        """Make a task in the line ready: claimed and encoded."""
        self._held.move(held, State.READY)
        with self._held.lock:
            self._preparing.discard(held)
            self._ready.append(held)
            self._held.offered.signal()

    def take(self) -> Held | None:
        """Take the next task to run it, waking nobody yet; None when none is ready."""
        held = self.withdraw()
        if held is not None:
            self.running = held
            self._held.move(held, State.RUNNING)
        return held

    def put_back(self, held: Held) -> None:
        """Put the task that could not be posted first in line again."""
        self.running = None
        self._held.move(held, State.READY)
        with self._held.lock:
            self._ready.appendleft(held)

    def peek(self) -> Held | None:
        """Return the next task without taking it."""
        with self._held.lock:
            return self._ready[0] if self._ready else None

    def withdraw(self) -> Held | None:
        """Take the next task away again unrun, if there is one."""
        with self._held.lock:
            if not self._ready:
                return None
            return self._ready.popleft()

    def withdraw_unwanted(self) -> Held | None:
        """Take out of the line a task that was cancelled or is another's by now, wherever it stands."""
        with self._held.lock:
            unwanted = next((held for held in self._ready if held.is_cancelled or held.is_lost), None)
            if unwanted is not None:
                self._ready.remove(unwanted)
            return unwanted

    def withdraw_stale(self, received_before_s: float) -> Held | None:
        """Take the next task out of the line if it came so long ago and cannot start now."""
        with self._held.lock:
            cannot_start = self.running is not None or not self.is_ready
            if not self._ready or not cannot_start or self._ready[0].received_s >= received_before_s:
                return None
            return self._ready.popleft()

    def remaining_s(self) -> float | None:
        """Return how long the running task will still take, 0 when nothing runs, None when nothing tells."""
        running = self.running
        if running is None:
            return 0.0
        expected_s = self.expected_s(running)
        done_s = self._clock.monotonic() - running.since_s
        return None if expected_s is None else max(0.0, expected_s - done_s)

    def expected_s(self, held: Held) -> float | None:
        """Return the GPU seconds that a task takes here, by what its like took; None when nothing tells."""
        title = self.engine.title(held.wanted) or ""
        with self._held.lock:
            return self._held.times.expected_s(engine=self.engine.name, checkpoint=title, work=held.work)

    def title_after_line(self) -> str | None:
        """Return the title of the checkpoint that will be loaded after what runs and is in line, as far as known."""
        if self.running is not None or self._picking > 1 or self._preparing or self._ready:
            return self._last_title
        # An engine that has not rendered yet has loaded, or will load first, what its own option names.
        return self.engine.loaded() or self.engine.title(None)
