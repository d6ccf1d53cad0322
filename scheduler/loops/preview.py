"""The preview loop: pictures in the making, for tasks that ask for them; nothing depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

import structlog

from scheduler.domain.errors import Unavailable
from scheduler.domain.keys import preview_key
from scheduler.domain.ports import PreviewStore
from scheduler.domain.task import Task
from scheduler.held import Held
from scheduler.loops.lane import Lane
from scheduler.pictures import BadImage, small_jpeg

log = structlog.get_logger()
MAX_SIDE = 384
"""Pixels: a preview is looked at in a list, while the picture itself is about to come."""


class PreviewLoop:
    """Shows what runs now, and takes away what was shown of tasks that run no more."""

    def __init__(self, lanes: Sequence[Lane], store: PreviewStore, *, default_prefix: str) -> None:
        self._lanes = lanes
        self._store = store
        self._default_prefix = default_prefix
        self._shown: dict[str, bytes] = {}
        """What the engine sent last, by the key that it is shown under."""
        self._left: SimpleQueue[str] = SimpleQueue()

    def hide(self, task: Task) -> None:
        """Have taken away what another worker may have shown of `task`; from any thread, without waiting."""
        self._left.put(preview_key(task, default_prefix=self._default_prefix))

    def cycle(self) -> None:
        """Show what is new, hide what is over."""
        self._take_over()
        running = [(lane, held) for lane in self._lanes if (held := lane.running) is not None and held.task.preview]
        keys = set()
        for lane, held in running:
            key = preview_key(held.task, default_prefix=self._default_prefix)
            keys.add(key)
            self._show(lane, held, key)
        for key in self._shown.keys() - keys:
            self._hide(key)

    def clear(self) -> None:
        """Hide everything, for we stop."""
        self._take_over()
        for key in list(self._shown):
            self._hide(key)

    def _take_over(self) -> None:
        while not self._left.empty():
            self._shown.setdefault(self._left.get(), b"")

    def _show(self, lane: Lane, held: Held, key: str) -> None:
        preview = lane.engine.preview()
        if preview is None or lane.running is not held or self._shown.get(key) == preview.data:
            return
        try:
            jpeg = small_jpeg(preview.data, max_side=MAX_SIDE)
            self._shown[key] = preview.data  # from now on there may be something to take away
            self._store.show(key, jpeg)
        except (BadImage, Unavailable) as error:
            log.info("preview_failed", task_id=held.task.task_id, error=str(error))
        else:
            held.preview_key = key

    def _hide(self, key: str) -> None:
        try:
            self._store.hide(key)
        except Unavailable as error:
            log.info("preview_left", key=key, error=str(error))
        else:
            del self._shown[key]
