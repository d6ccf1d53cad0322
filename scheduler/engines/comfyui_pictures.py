"""Pictures that a graph starts from: by address or inline in the task,
as names in the engine's input folder in what is posted.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.domain.errors import Rejected
from scheduler.domain.ports import InputImage, Inputs
from scheduler.engines.comfyui_client import ComfyClient
from scheduler.engines.comfyui_graph import Graph, with_input
from scheduler.engines.ration import MOST_BYTES, Rationed
from scheduler.pictures import BadImage, from_base64, inspect
from scheduler.wire.json_body import shorten

_FETCHED = ("http://", "https://", "s3://")
_INLINE = "data:"
_UPLOADING = {"LoadImage": frozenset({"image"}), "LoadImageMask": frozenset({"image"})}
"""Classes of every build whose inputs name a file in the input folder."""
_LOADERS = {
    "LoadImage": "image",
    "LoadImageMask": "image",
    "LoadImageOutput": "image",
    "LoadAudio": "audio",
    "LoadVideo": "file",
}
"""The classes of every build that read a file by its name in a folder of the engine's, and the input that holds it."""
_ELSEWHERE = re.compile(r"^[/\\~]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\0")
"""Names that lead out of that folder; ComfyUI joins them without a look."""
_TEXT = re.compile("Load.*Base64")
"""Names of custom classes that take the picture itself, in base64."""


@dataclass(frozen=True, slots=True)
class Found:
    """An input that holds an address or a data URI; `is_text` where the node wants base64 and no file."""

    node_id: str
    name: str
    value: str
    is_text: bool


class Pictures:
    """The pictures of one engine's graphs. `inputs` fetches; without it only data URIs are taken."""

    def __init__(self, client: ComfyClient, inputs: Inputs | None, *, max_pixels: int) -> None:
        self._client = client
        self._inputs = inputs
        self._max_pixels = max_pixels
        self._uploading: dict[str, frozenset[str]] = dict(_UPLOADING)

    def upload(self, graph: Graph, *, at: str) -> tuple[Graph, tuple[str, ...]]:
        """Send the graph's pictures to the engine; return the graph that names them there, and those names.

        A name is derived from content, so that the same picture is kept once, however often it comes. Raises Rejected
        naming the input, EngineDown, or what the fetching of inputs raises.
        """
        names = []
        _require_names(graph, at)
        inputs = Rationed(self._inputs, MOST_BYTES) if self._inputs is not None else None
        for found in list(self._find(graph)):
            image = self._picture(found, inputs, f"{at}.{found.node_id}.inputs.{found.name}")
            if found.is_text:
                value = base64.b64encode(image.data).decode("ascii")
            else:
                value = self._client.upload(f"{image.sha256}{image.extension}", image.data, image.media_type)
                names.append(value)
            graph = with_input(graph, found.node_id, found.name, value)
        return graph, tuple(names)

    def expire(self) -> None:
        """Say that the engine may know other node classes by now."""
        self._uploading = dict(_UPLOADING)

    def _find(self, graph: Graph) -> Iterator[Found]:
        for node_id, node in graph.items():
            for name, value in node["inputs"].items():
                if not isinstance(value, str) or not value.lower().startswith((*_FETCHED, _INLINE)):
                    continue
                if name in self._uploads(node["class_type"]):
                    yield Found(node_id, name, value, is_text=False)
                elif _TEXT.search(node["class_type"]) and not value.lower().startswith(_INLINE):
                    yield Found(node_id, name, value, is_text=True)

    def _uploads(self, class_type: str) -> frozenset[str]:
        """Return the inputs of a class that name a file to be uploaded, as the engine marks them for its editor."""
        known = self._uploading.get(class_type)
        if known is None:
            declared = self._client.node_info(class_type).get("input")
            groups = declared.values() if isinstance(declared, dict) else ()
            specs = {name: spec for group in groups if isinstance(group, dict) for name, spec in group.items()}
            known = self._uploading[class_type] = frozenset(name for name, spec in specs.items() if _is_upload(spec))
        return known

    def _picture(self, found: Found, inputs: Rationed | None, field: str) -> InputImage:
        if not found.value.lower().startswith(_INLINE):
            if inputs is None:
                raise Rejected(f"{field} is an address: images are not fetched here, send a data URI", field=field)
            return inputs.image(found.value, field=field)
        try:
            data = from_base64(_INLINE + found.value[len(_INLINE) :])
            seen = inspect(data, max_pixels=self._max_pixels, thorough=True, is_input=True)
        except BadImage as error:
            raise Rejected(f"{field} is {shorten(found.value)}: it must be an image: {error}", field=field) from error
        return InputImage(
            data=data,
            media_type=seen.kind.media_type,
            extension=seen.kind.extension,
            width=seen.width,
            height=seen.height,
            sha256=hashlib.sha256(data).hexdigest(),
        )


def _require_names(graph: Graph, at: str) -> None:
    """Raise Rejected for a file that is to be read from anywhere on the host."""
    for node_id, node in graph.items():
        name = _LOADERS.get(node["class_type"], "")
        value = node["inputs"].get(name)
        if isinstance(value, str) and _ELSEWHERE.search(value):
            field = f"{at}.{node_id}.inputs.{name}"
            said = (
                f"{field} is {shorten(value)}: it must be an address, a data URI, or a name in the engine's own folder"
            )
            raise Rejected(said, field=field)


def _is_upload(spec: object) -> bool:
    match spec:
        case [_, {"image_upload": True}, *_]:
            return True
        case _:
            return False
