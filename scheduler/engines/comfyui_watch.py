"""Waiting for a prompt's end: events say when to look, and only queue and history say what is; it posts nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NoReturn

from scheduler.domain.errors import Counts, EngineBusy, EngineDown, EngineHung, EngineLost, Interrupted
from scheduler.domain.ports import Clock
from scheduler.engine_http import NobodyListens
from scheduler.engines.comfyui_client import ComfyClient
from scheduler.engines.comfyui_events import Track
from scheduler.engines.comfyui_socket import EventSocket

SILENCE_S = 2.0
"""After so long without an event of the prompt, queue and history are asked."""
POLL_S = 0.5
"""How often they are asked while there are no events to hear."""
WAKE_S = 0.25
"""How often the clock, and whether the run was interrupted, are looked at."""
SETTLE_S = 0.02
"""Between the event of the end and the history's entry."""
DEAF_S = 30.0
"""A socket that has told nothing for so long while a prompt of ours ran is opened anew."""
STOP_EVERY_S = 1.0


FORGOTTEN = "the engine no longer knows the prompt: it was restarted, or its queue was cleared"


class Place(Enum):
    """Where a prompt is."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()
    GONE = auto()
    """Neither in the queue nor in the history: the engine has forgotten it, or never had it."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a prompt; `entry` is the history's when it has ended."""

    place: Place
    entry: Mapping[str, Any] | None = None


class Overdue(Exception):
    """A prompt has run for its whole deadline."""


@dataclass(slots=True)
class _Vigil:
    """When what was last done in waiting for one prompt."""

    posted_s: float
    heard_s: float = field(init=False)
    """An event, of whatever: others' prompts have theirs, and extensions chatter."""
    told_s: float = field(init=False)
    """An event of this prompt."""
    looked_s: float = field(init=False)
    stopped_s: float | None = None

    def __post_init__(self) -> None:
        self.heard_s = self.told_s = self.looked_s = self.posted_s

    def is_late(self, track: Track, now_s: float, deadline_s: float) -> bool:
        """Tell whether it has run for the deadline, or waited for as long without beginning."""
        return now_s - (self.posted_s if track.started_s is None else track.started_s) >= deadline_s

    def is_due(self, now_s: float, *, hears: bool) -> bool:
        """Tell whether it is time to look, though no event says so."""
        if hears:
            return now_s - max(self.told_s, self.looked_s) >= SILENCE_S
        return now_s - self.looked_s >= POLL_S

    def may_stop(self, now_s: float) -> bool:
        """Tell whether it is time to say again that the prompt should end, and count it as said."""
        if self.stopped_s is not None and now_s - self.stopped_s < STOP_EVERY_S:
            return False
        self.stopped_s = now_s
        return True


class Watch:
    """The prompts of one client of one engine. `sleep` is how waits pass where there is no event to wait for."""

    def __init__(self, client: ComfyClient, client_id: str, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._client_id = client_id
        self._clock = clock
        self._sleep = sleep

    def look(self, prompt_id: str) -> Look:
        """Return where a prompt is. Raises EngineDown, NobodyListens when the engine died.

        The queue is asked first: a prompt goes from there to the history in one step, so it cannot be missed.
        """
        queue = self._client.queue()
        if prompt_id in queue.running:
            return Look(Place.RUNNING)
        if prompt_id in queue.pending:
            return Look(Place.WAITING)
        entry = self._client.history(prompt_id)
        return Look(Place.GONE) if entry is None else Look(Place.ENDED, entry)

    def await_end(
        self, track: Track, socket: EventSocket, *, deadline_s: float, is_interrupted: Callable[[], bool]
    ) -> Mapping[str, Any]:
        """Return the history's entry of a prompt once it has ended. The deadline starts when it begins to run.

        Raises EngineLost when the engine died or forgot it, Overdue at the deadline, Interrupted when it was
        interrupted and is gone, EngineBusy when it never began.
        """
        vigil = _Vigil(self._clock.monotonic())
        while True:
            was_open = socket.is_open
            frame = socket.next(SETTLE_S if track.is_over else WAKE_S)
            now = self._clock.monotonic()
            if frame is not None:
                vigil.heard_s = now
                if track.take(frame, now):
                    vigil.told_s = now
            elif socket.is_open and now - vigil.heard_s > DEAF_S:
                socket.close()
            wish = is_interrupted()
            if wish and vigil.may_stop(now):
                self.stop(track.prompt_id)
            is_late = vigil.is_late(track, now, deadline_s)
            has_missed = was_open != socket.is_open  # cut off, or heard again: what came between is not repeated
            if is_late or has_missed or track.is_over or vigil.is_due(now, hears=socket.is_open and not wish):
                vigil.looked_s = now
                seen = self._try_look(track.prompt_id)
                if seen is not None and seen.entry is not None:
                    return seen.entry
                if seen is not None and seen.place is Place.GONE:
                    raise Interrupted if wish else EngineLost(FORGOTTEN)
                if seen is not None and seen.place is Place.RUNNING:
                    track.begin(now)
                if vigil.is_late(track, now, deadline_s):  # it may have begun just now
                    self._give_up(seen, track.prompt_id, deadline_s)

    def stop(self, prompt_id: str) -> bool:
        """Take a prompt out of the queue, or end it if it is what runs; return whether the engine heard of it.

        What runs is looked at first, for older builds end whatever runs. In the moment between, a build that knows no
        targets may have begun another's prompt.
        """
        try:
            self._client.drop([prompt_id])
            if prompt_id in self._client.queue().running:
                self._client.interrupt(prompt_id)
        except EngineDown:
            return False
        return True

    def has_gone(self, prompt_id: str, *, within_s: float) -> Look | None:
        """Make a prompt end, and wait for that; return how it ended, None if it does not within `within_s`."""
        give_up_s = self._clock.monotonic() + within_s
        vigil = _Vigil(self._clock.monotonic())
        while (now := self._clock.monotonic()) < give_up_s:
            if vigil.may_stop(now):
                self.stop(prompt_id)
            try:
                seen = self.look(prompt_id)
            except NobodyListens:
                return Look(Place.GONE)
            except EngineDown:
                seen = Look(Place.RUNNING)
            if seen.place in {Place.ENDED, Place.GONE}:
                return seen
            self._sleep(POLL_S / 5)
        return None

    def clear(self, *, within_s: float, is_interrupted: Callable[[], bool]) -> None:
        """End whatever this client has left in the engine, from before a loss or a restart of ours.

        Raises EngineDown, Interrupted, or EngineHung (which costs the task nothing) after `within_s`.
        """
        give_up_s = self._clock.monotonic() + within_s
        while True:
            queue = self._client.queue()
            running = [one for one, client in queue.running.items() if client == self._client_id]
            pending = [one for one, client in queue.pending.items() if client == self._client_id]
            if not running and not pending:
                return
            if is_interrupted():
                raise Interrupted
            if self._clock.monotonic() >= give_up_s:
                raise EngineHung(
                    f"the engine is still at an earlier prompt after {within_s:g} s", counts=Counts.NOTHING
                )
            for prompt_id in (*pending, *running):
                self.stop(prompt_id)
            self._sleep(POLL_S / 5)

    def _try_look(self, prompt_id: str) -> Look | None:
        """Return where a prompt is, None when the engine does not say. Raises EngineLost when it died."""
        try:
            return self.look(prompt_id)
        except NobodyListens as error:
            raise EngineLost(f"the engine died: {error.message}") from error
        except EngineDown:
            return None

    def _give_up(self, seen: Look | None, prompt_id: str, deadline_s: float) -> NoReturn:
        """End the wait at the deadline. Raises Overdue, or EngineBusy for a prompt that never began."""
        if seen is None or seen.place is not Place.WAITING:
            raise Overdue
        self.stop(prompt_id)
        raise EngineBusy(f"the engine was at other work for {deadline_s:g} s")
