"""The stand-in's engine room: a queue, one prompt at a time, a history in memory, and events for those who listen."""

from __future__ import annotations

import copy
import heapq
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.local.comfy.faults import FaultKind
from scheduler.local.comfy.room import Room
from scheduler.local.comfy.run import Cached, Failed, Interrupted, Means, Run, Vanished, label_of, sampled_batch
from scheduler.local.comfy.sockets import Hub
from scheduler.local.serving.diary import Diary
from scheduler.local.serving.faults import FaultBook
from scheduler.local.serving.pace import Pace

HISTORY_KEPT = 10_000


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One prompt that was taken: the smallest number goes first."""

    number: float
    prompt_id: str = field(compare=False)
    graph: dict[str, Any] = field(compare=False)
    extra: dict[str, Any] = field(compare=False)
    outputs: list[str] = field(compare=False)

    def listed(self) -> list[Any]:
        """Return it as queue and history show it."""
        return [self.number, self.prompt_id, self.graph, self.extra, self.outputs]


class Executor:
    """Everything that the routes ask for; each public method may be called from any thread.

    `die` ends the process; `pause` waits for a number of seconds.
    """

    def __init__(
        self,
        room: Room,
        hub: Hub,
        pace: Pace,
        *,
        previews: bool = False,
        targeted: bool = True,
        pause: Callable[[float], object] | None = None,
        die: Callable[[int], object] = os._exit,
    ) -> None:
        self.room = room
        self.diary = Diary()
        self.faults = FaultBook(FaultKind)
        self._means = Means(
            room=room,
            pace=pace,
            diary=self.diary,
            faults=self.faults,
            is_interrupted=lambda: self._is_interrupted,
            previews=previews,
            pause=pause or threading.Event().wait,
            die=die,
        )
        self._hub = hub
        self._targeted = targeted
        self._changed = threading.Condition()
        self._pending: list[Item] = []
        self._running: Item | None = None
        self._number = 0
        self._history: dict[str, dict[str, Any]] = {}
        self._cache: dict[str, Cached] = {}
        self._flags: dict[str, bool] = {}
        self._is_interrupted = False

    def start(self) -> None:
        """Begin to work, on a thread of its own."""
        threading.Thread(target=self._work, name="prompts", daemon=True).start()

    # what the routes ask

    def take(self, body: Mapping[str, Any], prompt_id: str, outputs: list[str]) -> int | float:
        """Queue a prompt that was found good; return its number."""
        extra = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        with self._changed:
            number = float(body["number"]) if "number" in body else self._number * (-1 if body.get("front") else 1)
            self._number += 1
            heapq.heappush(self._pending, Item(number, prompt_id, body["prompt"], extra, outputs))
            self._changed.notify_all()
        self._tell_status()
        return number

    def remaining(self) -> int:
        """Return how many prompts run or wait."""
        with self._changed:
            return len(self._pending) + (self._running is not None)

    def queue(self) -> dict[str, Any]:
        """Return what runs and what waits."""
        with self._changed:
            running = [self._running.listed()] if self._running else []
            return {"queue_running": running, "queue_pending": [item.listed() for item in sorted(self._pending)]}

    def drop(self, ids: list[str] | None) -> None:
        """Take waiting prompts out of the queue, all of them when None."""
        with self._changed:
            self._pending = [item for item in self._pending if ids is not None and item.prompt_id not in ids]
            heapq.heapify(self._pending)
        self._tell_status()

    def history(self, prompt_id: str | None = None) -> dict[str, Any]:
        """Return what has ended, or one of it; nothing for what has not."""
        with self._changed:
            entries = self._history if prompt_id is None else {prompt_id: self._history.get(prompt_id)}
            return {key: copy.deepcopy(entry) for key, entry in entries.items() if entry is not None}

    def forget(self, ids: list[str] | None) -> None:
        """Take entries out of the history, all of them when None."""
        with self._changed:
            for key in list(self._history) if ids is None else ids:
                self._history.pop(key, None)

    def interrupt(self, prompt_id: str | None) -> None:
        """End what runs at its next step; a build that knows targets looks at the id first."""
        with self._changed:
            running = self._running
            if running and (prompt_id is None or not self._targeted or running.prompt_id == prompt_id):
                self._is_interrupted = True

    def free(self, flags: Mapping[str, Any]) -> None:
        """Unload models, drop what is cached: once nothing runs."""
        with self._changed:
            self._flags |= {name: True for name in ("unload_models", "free_memory") if flags.get(name)}
            self._changed.notify_all()

    def stats(self) -> dict[str, Any]:
        """Return what was done so far and what is to go wrong yet."""
        return self.diary.facts() | {"faults": self.faults.left(), "loaded": self.room.loaded, **self.queue()}

    # the work

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._flags)
                if self._pending:
                    self._running = heapq.heappop(self._pending)
                    self._is_interrupted = False
                item = self._running
            if item is not None:
                self._execute(item)
            with self._changed:
                flags, self._flags = self._flags, {}
            if flags.get("unload_models"):
                self.room.loaded = None
            if flags.get("free_memory"):
                self._cache = {}

    def _execute(self, item: Item) -> None:
        label = label_of(item.graph)
        fault = self.faults.take(label, sampled_batch(item.graph))
        run = Run(
            self._means,
            item.prompt_id,
            item.graph,
            fault=fault,
            cache=self._cache,
            tell=self._teller(item, fault and fault.kind),
        )
        self.diary.begun(label)
        try:
            with self.diary.busy("render", label):
                outputs = run.execute(item.outputs)
        except Vanished:
            with self._changed:
                self._running = None
            return
        except (Failed, Interrupted):
            self._cache = run.cache
            self._end(item, run, {}, "error")
        else:
            self._cache = run.cache
            self.diary.whole(label)
            self._end(item, run, outputs, "success")

    def _end(self, item: Item, run: Run, outputs: dict[str, Any], status: str) -> None:
        entry = {
            "prompt": item.listed(),
            "outputs": outputs,
            "status": {"status_str": status, "completed": status == "success", "messages": run.messages},
            "meta": {
                node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node}
                for node in outputs
            },
        }
        with self._changed:
            self._running = None
            self._history.pop(item.prompt_id, None)
            self._history[item.prompt_id] = entry
            while len(self._history) > HISTORY_KEPT:
                del self._history[next(iter(self._history))]
        self._tell_status()
        run.tell("executing", {"node": None, "prompt_id": item.prompt_id})

    def _teller(self, item: Item, fault: Any) -> Callable[[str, dict[str, Any] | bytes], None]:
        """Return what sends a run's events to the client that sent it, or does not."""
        client: str | None = item.extra.get("client_id")

        def tell(kind: str, data: dict[str, Any] | bytes) -> None:
            if fault is FaultKind.SILENT:
                return
            if isinstance(data, bytes):
                self._hub.show(client, data)
            elif kind == "cut":
                self._hub.cut(client)
            elif kind == "execution_interrupted" and client is None:
                self._hub.tell_all(kind, data)  # the one event that a prompt without a client has, for everybody
            else:
                self._hub.tell(client, kind, data)

        return tell

    def _tell_status(self) -> None:
        self._hub.tell_all("status", {"status": {"exec_info": {"queue_remaining": self.remaining()}}})
