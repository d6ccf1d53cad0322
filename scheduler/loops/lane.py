"""The way to one engine: what it renders, what comes next, and whether it can take anything."""

from __future__ import annotations

from scheduler.domain.ports import Clock, Engine
from scheduler.held import Held, HeldTasks, State


class Lane:
    """Shared by an engine's loops; safe for threads, under the registry's lock."""

    def __init__(self, engine: Engine, held: HeldTasks, clock: Clock) -> None:
        self.engine = engine
        self._held = held
        self._clock = clock
        self._next: Held | None = None
        self._running: Held | None = None
        self._upcoming: str | None = None
        self.is_ready = False
        self.is_healthy = True
        self.why = "starting: the engine has not answered yet"
        self.since_s = clock.monotonic()

    def set_ready(self, *, ready: bool, why: str = "") -> bool:
        """Say whether the engine can take a request; return whether that is news."""
        with self._held.changed:
            news = self.is_ready is not ready
            if news:
                self.since_s = self._clock.monotonic()
            self.is_ready, self.why = ready, why
            self._held.signal()
            return news

    def wants_next(self) -> bool:
        """Tell whether a task may be claimed for this engine now."""
        return self.is_ready and self._next is None

    def offer(self, held: Held) -> None:
        """Put a claimed and encoded task next in line."""
        with self._held.changed:
            self._next = held
            self._upcoming = held.run.checkpoint if held.run else None
        self._held.move(held, State.READY)

    def take(self, timeout_s: float) -> Held | None:
        """Take the next task to run it, waiting for one; None when none came."""
        with self._held.changed:
            self._held.changed.wait_for(lambda: self._next is not None, timeout_s)
            self._running, self._next = self._next, None
        if self._running is not None:
            self._held.move(self._running, State.RUNNING)
        return self._running

    def peek(self) -> Held | None:
        """Return the next task without taking it."""
        return self._next

    def withdraw(self) -> Held | None:
        """Take the next task away again unrun, if there is one."""
        with self._held.changed:
            held, self._next = self._next, None
            return held

    def done(self) -> None:
        """Say that nothing runs."""
        with self._held.changed:
            self._running = None
            self._held.signal()

    @property
    def running(self) -> Held | None:
        """The task that renders now."""
        return self._running

    def checkpoint_after_this(self) -> str | None:
        """Return the title of the checkpoint that will be loaded when the next task starts, as far as known."""
        engine = self.engine
        if self._running is not None:
            return self._upcoming or engine.title(None)
        return engine.loaded()
