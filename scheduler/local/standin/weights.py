"""Which checkpoint's weights are loaded and which the options choose: two things, as in the real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scheduler.local.serving.diary import Diary
from scheduler.local.serving.faults import FaultBook
from scheduler.local.standin.checkpoints import Checkpoint, Shelf
from scheduler.local.standin.faults import FaultKind
from scheduler.local.standin.refusals import EngineError
from scheduler.local.standin.settings import CHECKPOINT, Settings


class Weights:
    """The shelf of checkpoints and the options; what loads takes `switch_seconds`, under the caller's lock."""

    def __init__(
        self, shelf: Shelf, faults: FaultBook, diary: Diary, *, switch_seconds: float, pause: Callable[[float], object]
    ) -> None:
        self.shelf = shelf
        self.shelf.load(shelf.first())
        self.settings = Settings(shelf.title(shelf.first()))
        self._faults = faults
        self._diary = diary
        self._switch_seconds = switch_seconds
        self._pause = pause
        self._spoilt = False

    def chosen(self) -> Checkpoint:
        """Return the checkpoint that the options name."""
        return self.shelf.find(self.settings.get(CHECKPOINT)) or self.shelf.first()

    def used(self) -> Checkpoint:
        """Return the checkpoint that a render now would be made with."""
        return self.shelf.loaded or self.chosen()

    def load(self) -> None:
        """Load the chosen checkpoint unless it is. Raises EngineError; a failed load spoils all later ones."""
        if self._spoilt:
            raise EngineError("RuntimeError", "The weights are in an undefined state after a failed load")
        checkpoint, before = self.chosen(), self.shelf.loaded
        if before == checkpoint:
            return
        with self._diary.busy("switch", checkpoint.file):
            self._pause(self._switch_seconds)
        if self._faults.stands(FaultKind.CORRUPT_CHECKPOINT, checkpoint.file):
            self._spoilt = True
            raise EngineError("SafetensorError", "Error while deserializing header: InvalidHeaderDeserialization")
        self.shelf.load(checkpoint)
        self.settings.set(CHECKPOINT, self.shelf.title(checkpoint))
        self.settings.set("sd_checkpoint_hash", checkpoint.sha256)
        self._diary.switched(before.file if before else None, checkpoint.file)

    def unload(self) -> None:
        """Drop the weights; whatever needs them next loads them again."""
        self.shelf.load(None)

    def mend(self) -> None:
        """Undo the harm of a failed load."""
        self._spoilt = False

    @contextmanager
    def overridden(self, overrides: Mapping[str, Any], *, restore: bool) -> Iterator[None]:
        """Apply a request's own settings and have the right weights loaded.

        An unknown checkpoint is dropped without a word, an unknown setting raises EngineError. The options return
        afterwards if `restore` says so; the weights stay.
        """
        applied = dict(overrides)
        stored = self.settings.stored(overrides)
        try:
            if self.shelf.find(applied.get(CHECKPOINT)) is None:
                applied.pop(CHECKPOINT, None)
                self.load()
            for key, value in applied.items():
                self.settings.set(key, value)
                if key == CHECKPOINT:
                    self.load()
            yield
        finally:
            if restore:
                for key, value in stored.items():
                    self.settings.set(key, value)
