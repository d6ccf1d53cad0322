"""An A1111 answer with status 200 that has begun: read, taken apart and proved; it sends nothing to the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from scheduler.domain.errors import BadResult, Rejected
from scheduler.domain.ports import Output, PreparedRun
from scheduler.domain.task import EngineImage, TaskType
from scheduler.engines.sdwebui_names import Checkpoints, checkpoint_of, same_sampler
from scheduler.pictures import BadImage, black_warning, from_base64, proved

_LEAST_BOUND_BYTES = 64 << 20
"""However small the request, scripts may add pictures of their own; more than this is no answer."""
_OPENING = b'{"images":['

Encoded = str | memoryview


class Body(Protocol):
    """The bytes still to come."""

    def read(self, most_bytes: int) -> bytes | None:
        """Return them all, None if they are more; raises EngineLost."""


class SdWebUiAnswer:
    """The answer to `run`. `learn` is told the title of the model that made it, and whether it was the right one."""

    def __init__(
        self,
        body: Body,
        run: PreparedRun,
        *,
        checkpoints: Checkpoints,
        max_pixels: int,
        learn: Callable[[str | None, bool], None],
    ) -> None:
        self._body = body
        self._run = run
        self._checkpoints = checkpoints
        self._max_pixels = max_pixels
        self._learn = learn

    def output(self) -> Output:
        """Return the pictures, each proved whole; see the port for what is raised."""
        most_bytes = max(_LEAST_BOUND_BYTES, 2 * self._run.estimate_bytes)
        body = self._body.read(most_bytes)
        if body is None:
            raise BadResult(f"the engine's answer is larger than {most_bytes} bytes")
        encoded, rest = _take_apart(body)
        info = _info(rest.get("info"))
        checkpoint = self._checkpoint(info)
        sampler = self._sampler(info)
        first = _index_of_first(info)
        encoded = encoded[first:]
        warnings = list(self._run.warnings)
        wanted = self._wanted(encoded, warnings)
        seeds = info.get("all_seeds")
        images = []
        for index in range(wanted):
            seed = seeds[index] if isinstance(seeds, list) and index < len(seeds) else None
            image = self._image(encoded[index], index, seed if isinstance(seed, int) else None)
            encoded[index] = ""  # one picture at a time is held in both forms
            if image.all_black:
                warnings.append(black_warning(index + 1))
            images.append(image)
        return Output(images=tuple(images), checkpoint=checkpoint, sampler=sampler, warnings=tuple(warnings))

    def _wanted(self, encoded: list[Encoded], warnings: list[str]) -> int:
        """Return how many pictures to keep; a script makes as many as it likes."""
        asked, came = self._run.image_count or 0, len(encoded)
        scripted = bool(self._run.task.payload.get("script_name"))
        if came < (1 if scripted else asked):
            raise BadResult(f"{came} of {asked} images came: the engine was interrupted or lost some")
        if scripted:
            return came
        if came > asked:
            warnings.append(f"{came - asked} more images came than were asked for (such as detect maps): left out")
        return asked

    def _checkpoint(self, info: Mapping[str, Any]) -> str | None:
        """Return the title of the model that was used, None if the answer does not tell."""
        if self._run.task.task_type in {TaskType.EXTRA_SINGLE, TaskType.EXTRA_BATCH}:
            return None
        name, digest = _text(info.get("sd_model_name")), _text(info.get("sd_model_hash"))
        title = self._run.checkpoint
        asked = (self._checkpoints.find(title) or checkpoint_of({"title": title})) if title else None
        made = asked.made(name, digest) if asked else None
        if asked is not None and made is False:
            used = f"{name} [{digest}]" if digest else name
            self._learn(self._title(name, digest), False)
            raise BadResult(f"the engine was asked for {asked.title} and used {used}")
        title = asked.title if asked is not None and made else self._title(name, digest)
        if title is not None:
            self._learn(title, True)
        return title

    def _title(self, name: str | None, digest: str | None) -> str | None:
        made = (one.title for one in self._checkpoints.all if one.made(name, digest))
        return next(made, name)

    def _sampler(self, info: Mapping[str, Any]) -> str | None:
        used, asked = _text(info.get("sampler_name")), self._run.sampler
        if used is not None and asked is not None and not same_sampler(asked, used):
            raise Rejected(
                f"the engine does not have the sampler {asked} and used {used} instead", field="payload.sampler_name"
            )
        return used

    def _image(self, encoded: Encoded, index: int, seed: int | None) -> EngineImage:
        try:
            return proved(from_base64(encoded), max_pixels=self._max_pixels, seed=seed)
        except BadImage as error:
            raise BadResult(f"image {index + 1} cannot be used: {error}") from error


def _take_apart(body: bytes) -> tuple[list[Encoded], Mapping[str, Any]]:
    """Return the encoded pictures and the rest of the answer. Raises BadResult."""
    quick = _cut_out(body)
    images, rest_of_it = quick or ([], body)
    try:
        rest = json.loads(rest_of_it)
    except (ValueError, RecursionError) as error:
        raise BadResult(f"the engine's answer is not JSON: {error}") from error
    if not isinstance(rest, dict):
        raise BadResult("the engine's answer is not an object")
    if quick is None:
        listed = rest.get("images")
        images = list(listed) if isinstance(listed, list) else [rest["image"]] if "image" in rest else []
    if not all(isinstance(image, str | memoryview) for image in images):
        raise BadResult("the engine's answer holds an image that is no text")
    return images, rest


def _cut_out(body: bytes) -> tuple[list[Encoded], bytes] | None:
    """Return the pictures at the head of a body as views into it, and the JSON without them; None if in doubt.

    A picture's base64 is nearly the whole answer, and a JSON parser would look at each of its characters twice.
    """
    if not body.startswith(_OPENING + b'"'):
        return None
    view, images, at = memoryview(body), list[Encoded](), len(_OPENING)
    while True:
        end = body.find(b'"', at + 1)
        if end < 0 or body.find(b"\\", at, end) >= 0:
            return None
        images.append(view[at + 1 : end])
        following = body[end + 1 : end + 3]
        if following == b',"':
            at = end + 2
        elif following[:1] == b"]":
            return images, _OPENING + body[end + 1 :]
        else:
            return None


def _info(info: Any) -> Mapping[str, Any]:
    """Return what the engine says about the pictures: JSON in a string; other builds put plain text there."""
    if isinstance(info, str):
        try:
            info = json.loads(info)
        except (ValueError, RecursionError):
            return {}
    return info if isinstance(info, dict) else {}


def _index_of_first(info: Mapping[str, Any]) -> int:
    """Return how many pictures at the head are grids."""
    index = info.get("index_of_first_image")
    return index if isinstance(index, int) and index > 0 else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
