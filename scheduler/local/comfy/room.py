"""What the nodes work with: files as the server's three folders hold them,
and the checkpoints on the shelf; no HTTP.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

FOLDERS = ("input", "output", "temp")


class Room:
    """Files in memory, gone when the process ends, and the checkpoint that is loaded. Safe for threads."""

    def __init__(self, checkpoints: Sequence[str]) -> None:
        self.checkpoints = list(checkpoints)
        self.loaded: str | None = None
        self._guard = threading.Lock()
        self._files: dict[tuple[str, str], bytes] = {}
        self._counters: Counter[tuple[str, str]] = Counter()

    def read(self, folder: str, subfolder: str, name: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        with self._guard:
            return self._files.get((folder, _path(subfolder, name)))

    def inputs(self) -> list[str]:
        """Return the names directly in the input folder, as nodes list them."""
        with self._guard:
            return sorted(path for folder, path in self._files if folder == "input" and "/" not in path)

    def upload(self, name: str, data: bytes, *, folder: str, subfolder: str, overwrite: bool) -> dict[str, str]:
        """Keep an uploaded file; another of the same name gets a number, the same bytes do not."""
        stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        number, free = 1, name
        with self._guard:
            while not overwrite and self._files.get((folder, _path(subfolder, free)), data) != data:
                free = f"{stem} ({number}){suffix}"
                number += 1
            self._files[folder, _path(subfolder, free)] = data
        return {"name": free, "subfolder": subfolder, "type": folder}

    def save(self, prefix: str, data: bytes, extension: str, *, folder: str) -> dict[str, Any]:
        """Keep a node's file under the next free number; return what the outputs call it."""
        path = PurePosixPath(prefix)
        subfolder = "" if str(path.parent) == "." else str(path.parent)
        with self._guard:
            self._counters[folder, prefix] += 1
            name = f"{path.name}_{self._counters[folder, prefix]:05}_{extension}"
            self._files[folder, _path(subfolder, name)] = data
        return {"filename": name, "subfolder": subfolder, "type": folder}

    def remove(self, entry: dict[str, Any]) -> None:
        """Remove a file that the outputs name."""
        with self._guard:
            self._files.pop((entry["type"], _path(entry["subfolder"], entry["filename"])), None)

    def digest(self, name: str) -> str:
        """Return what tells an input file from another of the same name."""
        data = self.read("input", "", name)
        return hashlib.sha256(data or b"").hexdigest()


def _path(subfolder: str, name: str) -> str:
    return f"{subfolder}/{name}" if subfolder else name
