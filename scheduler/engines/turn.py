"""Whose turn it is with an engine: the one run that its thread is in, and who may end it; it knows no protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from scheduler.domain.errors import EngineBusy, EngineDown, EngineHung, Fatal, Interrupted, SchedulerError
from scheduler.domain.ports import Engine, PreparedRun
from scheduler.domain.task import Task

INTERRUPT_GRACE_S = 30.0
"""How long an engine may take to obey an interrupt before it counts as hung."""


@dataclass(slots=True)
class Turn:
    """One run. `stopped` is set when it was interrupted; `is_posted` tells that the engine may have it."""

    run: PreparedRun
    stopped: threading.Event = field(default_factory=threading.Event)
    is_posted: bool = False

    @property
    def is_interrupted(self) -> bool:
        """Whether the run was told to end."""
        return self.stopped.is_set()


class Slot:
    """The one place at an engine; `now` is the turn of the run that is in it."""

    def __init__(self) -> None:
        # Guards `now` and is held while an interrupt is sent: none can hit a run that came after.
        self._lock = threading.Lock()
        self.now: Turn | None = None

    @contextmanager
    def take(self, run: PreparedRun) -> Iterator[Turn]:
        """Make `run` the present one within the block.

        Raises Interrupted at its end when it was told to end meanwhile, whatever it brought; but an engine that was not
        there, or hangs, is told as such.
        """
        turn = Turn(run)
        with self._lock:
            self.now = turn
        try:
            yield turn
        except (EngineDown, EngineHung, Interrupted):
            raise
        except SchedulerError as error:
            if turn.is_interrupted:
                raise Interrupted from error
            raise
        finally:
            with self._lock:
                self.now = None
        if turn.is_interrupted:
            raise Interrupted

    def begin(self, turn: Turn) -> None:
        """Say that the run goes to the engine now. Raises Interrupted when it was told to end before."""
        with self._lock:
            if turn.is_interrupted:
                raise Interrupted
            turn.is_posted = True

    def interrupt(self, run: PreparedRun, send: Callable[[], bool]) -> bool:
        """Tell `run` to end if it is the present one, and `send` the engine word of it if that may have it.

        From now on whatever the run brings is no result, even if the engine did not hear of it. Return whether there
        was nothing to send, or it was sent.
        """
        with self._lock:
            turn = self.now
            if turn is None or turn.run is not run:
                return False
            turn.stopped.set()
            return not turn.is_posted or send()


def prove(engine: Engine, task: Task, *, deadline_s: float) -> None:
    """Run a tiny known task. Raises Fatal when even that fails, EngineDown when there
    is no engine, EngineBusy when it is at others' work, Interrupted.
    """
    try:
        engine.generate(engine.prepare(task, seed_key="golden"), deadline_s=deadline_s).output()
    except (EngineBusy, EngineDown, Interrupted):
        raise
    except SchedulerError as error:
        raise Fatal(f"even a tiny known task failed: {error}", engine=getattr(error, "engine", None)) from error
