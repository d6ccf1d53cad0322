"""The checkpoints that the stand-in pretends to have: their changing titles, their names, which one is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

FOLDER = PurePosixPath("/standin/models/Stable-diffusion")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file of weights, by its name with extension; its hash is that of its name, for it has no bytes."""

    file: str

    @property
    def stem(self) -> str:
        """The file's name without extension."""
        return self.file.rpartition(".")[0] or self.file

    @property
    def model_name(self) -> str:
        """What `info.sd_model_name` and the list call it."""
        return self.stem.replace("/", "_")

    @property
    def sha256(self) -> str:
        """The hash that the real server computes at the first load."""
        return hashlib.sha256(self.file.encode()).hexdigest()

    @property
    def short_hash(self) -> str:
        """The ten characters that go into titles."""
        return self.sha256[:10]


class Shelf:
    """The checkpoints in the folder and the one whose weights are loaded; not safe for threads by itself."""

    def __init__(self, files: Iterable[str]) -> None:
        self._seen = {file: Checkpoint(file) for file in files}
        self._unseen: list[str] = []
        self._hashed: set[str] = set()
        self.loaded: Checkpoint | None = None

    def drop(self, file: str) -> None:
        """Put a new file into the folder; it is noticed at the next refresh."""
        self._unseen.append(file)

    def refresh(self) -> None:
        """Look at the folder again."""
        self._seen |= {file: Checkpoint(file) for file in self._unseen}
        self._unseen.clear()

    def first(self) -> Checkpoint:
        """Return the one that is loaded when nothing was ever chosen."""
        return next(iter(self._seen.values()))

    def other(self, than: Checkpoint) -> Checkpoint:
        """Return a checkpoint that is not `than`, made up if there is but one."""
        return next((entry for entry in self._seen.values() if entry != than), Checkpoint("another.safetensors"))

    def load(self, checkpoint: Checkpoint | None) -> None:
        """Take these weights for loaded; the first load also makes the hash known."""
        self.loaded = checkpoint
        if checkpoint is not None:
            self._hashed.add(checkpoint.file)

    def title(self, checkpoint: Checkpoint) -> str:
        """Return the title as it is now: it gains the hash at the first load."""
        hashed = checkpoint.file in self._hashed
        return f"{checkpoint.file} [{checkpoint.short_hash}]" if hashed else checkpoint.file

    def find(self, name: object) -> Checkpoint | None:
        """Return the checkpoint that goes by exactly this name of any kind."""
        return next((entry for entry in self._seen.values() if name in self._names(entry)), None)

    def listing(self) -> list[dict[str, Any]]:
        """Return what GET sd-models answers."""
        return [self._entry(checkpoint) for checkpoint in list(self._seen.values())]

    def _entry(self, checkpoint: Checkpoint) -> dict[str, Any]:
        hashed = checkpoint.file in self._hashed
        return {
            "title": self.title(checkpoint),
            "model_name": checkpoint.model_name,
            "hash": checkpoint.short_hash if hashed else None,
            "sha256": checkpoint.sha256 if hashed else None,
            "filename": str(FOLDER / checkpoint.file),
            "config": None,
        }

    def _names(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        plain = (checkpoint.file, checkpoint.stem, checkpoint.model_name)
        if checkpoint.file not in self._hashed:
            return plain
        short = checkpoint.short_hash
        return (*plain, short, checkpoint.sha256, f"{checkpoint.file} [{short}]", f"{checkpoint.stem} [{short}]")
