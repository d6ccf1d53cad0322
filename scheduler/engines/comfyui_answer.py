"""What a finished ComfyUI prompt made: its files fetched and proved; it changes nothing in the engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from scheduler.domain.errors import BadResult, EngineDown, EngineLost, Rejected
from scheduler.domain.ports import Output
from scheduler.domain.task import EngineImage
from scheduler.engine_http import NoSuchRoute
from scheduler.engines import media
from scheduler.engines.comfyui_client import ComfyClient
from scheduler.engines.comfyui_graph import samplers, seed_of
from scheduler.engines.comfyui_run import ComfyRun
from scheduler.pictures import KINDS, BadImage, TooManyPixels, black_warning, proved

MEDIA = ("images", "gifs", "videos", "video", "audio")
"""What outputs are called whose files are results, whatever is in the files."""
_COUNTED = re.compile(r"_\d{5,}(_|\b)")
"""In a name that no file had before, such as ComfyUI_00001_.png."""
_KNOWN = frozenset(kind.extension for kind in (*KINDS, *media.KINDS)) | {".jpeg", ".tif"}
MOST_BYTES = 256 << 20
"""Of all files of one prompt."""


@dataclass(frozen=True, slots=True)
class File:
    """One file that an output names."""

    node_id: str
    entry: Mapping[str, Any]

    @property
    def place(self) -> tuple[str, str, str]:
        """Where it lies: folder, subfolder, name."""
        return str(self.entry.get("type") or "output"), str(self.entry.get("subfolder") or ""), self.entry["filename"]

    @property
    def said(self) -> str:
        """The file as people read it."""
        return f"{self.entry['filename']} of node {self.node_id}"


class ComfyAnswer:
    """The answer to `run`, by its entry in the history. `doubt` is told when what the engine has cached is gone."""

    def __init__(
        self,
        client: ComfyClient,
        run: ComfyRun,
        entry: Mapping[str, Any],
        *,
        max_pixels: int,
        doubt: Callable[[], None],
    ) -> None:
        self._client = client
        self._run = run
        self._entry = entry
        self._max_pixels = max_pixels
        self._doubt = doubt
        self._in_hand: dict[tuple[str, str, str], bytes] = {}

    def secure(self) -> None:
        """Fetch what the next prompt may overwrite, while none is on. Raises as `output` does.

        Nodes of every build count their files; one that does not may use a name again.
        """
        for file in self._files([]):
            if not _COUNTED.search(file.entry["filename"]):
                self._in_hand[file.place] = self._fetched(file, MOST_BYTES)

    def output(self) -> Output:
        """Return the files, each proved whole; see the port for what is raised."""
        warnings = list(self._run.warnings)
        files = self._files(warnings)
        if not files:
            raise self._empty()
        images: list[EngineImage] = []
        left_bytes = MOST_BYTES
        for file in files:
            image = self._image(file, left_bytes)
            left_bytes -= len(image.data)
            images.append(image)
            if image.all_black:
                warnings.append(black_warning(len(images)))
        return Output(
            images=tuple(images),
            checkpoint=self._run.checkpoint,
            sampler=_only(samplers(self._run.graph)),
            warnings=tuple(warnings),
        )

    def _files(self, warnings: list[str]) -> list[File]:
        """Return the files to keep in an order that a re-run repeats: the graph's, then the node's own."""
        outputs = self._entry.get("outputs")
        outputs = outputs if isinstance(outputs, dict) else {}
        known = [node_id for node_id in self._run.graph if node_id in outputs]
        kept: dict[tuple[str, str, str], File] = {}
        for node_id in (*known, *sorted(outputs.keys() - set(known))):
            shown = outputs[node_id] if isinstance(outputs[node_id], dict) else {}
            for kind, entry in _entries(shown):
                folder = str(entry.get("type") or "output")
                if kind not in MEDIA:
                    warnings.append(f"{entry['filename']} of node {node_id} is left out: {kind} are not stored")
                elif folder == "output" or (folder == "temp" and self._run.include_temp):
                    file = File(node_id, entry)
                    kept.setdefault(file.place, file)
        return list(kept.values())

    def _empty(self) -> BadResult | Rejected:
        """Return what it means that there is nothing to keep."""
        if not self._entry.get("outputs") and _was_cached(self._entry):
            self._doubt()
            return BadResult("the engine had all of it cached and named no outputs")
        return Rejected(
            "the graph made nothing to keep: no picture, video or sound but temporary ones (PreviewImage); save "
            "them (SaveImage), or send include_temp beside the prompt",
            field=self._run.at,
        )

    def _image(self, file: File, most_bytes: int) -> EngineImage:
        data = self._in_hand.pop(file.place, None)
        data = self._fetched(file, most_bytes) if data is None else data
        seed = seed_of(self._run.graph, file.node_id)
        if (kind := media.sniff(data)) is not None:
            return EngineImage(data=data, media_type=kind.media_type, extension=kind.extension, seed=seed)
        try:
            return proved(data, max_pixels=self._max_pixels, seed=seed)
        except TooManyPixels as error:
            raise Rejected(f"{file.said} is too large: {error}", field=self._run.at) from error
        except BadImage as error:
            if PurePosixPath(file.entry["filename"]).suffix.lower() not in _KNOWN:
                said = f"{file.said} is no picture, video or sound that is stored here ({', '.join(sorted(_KNOWN))})"
                raise Rejected(said, field=self._run.at) from error
            raise BadResult(f"{file.said} cannot be used: {error}") from error

    def _fetched(self, file: File, most_bytes: int) -> bytes:
        try:
            data = self._client.view(file.entry, most_bytes)
        except NoSuchRoute as error:
            self._doubt()
            raise BadResult(f"{file.said} is not there any more") from error
        except EngineDown as error:
            raise EngineLost(f"the engine went away with the results: {error.message}") from error
        if data is None:
            raise Rejected(f"the results are larger than {MOST_BYTES} bytes in all", field=self._run.at)
        return data


def _entries(shown: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the files among what a node shows; texts, flags and numbers are none."""
    for kind, listed in shown.items():
        for entry in listed if isinstance(listed, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("filename"), str) and entry["filename"]:
                yield kind, entry


def _was_cached(entry: Mapping[str, Any]) -> bool:
    match entry.get("status"):
        case {"messages": [*messages]}:
            return any(_is_cached(message) for message in messages)
        case _:
            return False


def _is_cached(message: Any) -> bool:
    match message:
        case ["execution_cached", {"nodes": [_, *_]}]:
            return True
        case _:
            return False


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None
