"""HTTP to ComfyUI: its routes and their time limits; it knows no tasks and no graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from urllib3 import encode_multipart_formdata

from scheduler.domain.errors import EngineDown
from scheduler.engine_http import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, EngineHttp, EngineResponse, NoSuchRoute

PROMPT_TIMEOUT_S = 60.0
"""How long the engine may take to check a graph: a custom node may read many files for that."""
UPLOAD_TIMEOUT_S = 60.0
_LONGEST_CLASS = 500
_NO_SEGMENTS = frozenset({"", ".", ".."})
"""What would not stay below the path that it is put after."""
_SCHEMES = {"http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True)
class Queue:
    """What the engine has in hand: prompt ids with the client that sent each, None where that is not told."""

    running: Mapping[str, str | None]
    pending: Mapping[str, str | None]


class ComfyClient:
    """One engine's API, which knows no credentials; safe for threads. See `EngineHttp` for what is sent how.

    Every method raises EngineDown (NoSuchRoute, NobodyListens) when it gets no good answer.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._http = EngineHttp(
            base_url, api="ComfyUI", connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
        )

    def socket_address(self, client_id: str) -> str:
        """Return the URL of a client's websocket."""
        scheme, _, rest = self._http.base_url.partition("://")
        return f"{_SCHEMES.get(scheme, 'ws')}://{rest}/ws?{urlencode({'clientId': client_id})}"

    def system_stats(self) -> Mapping[str, Any]:
        """Return version, memory and devices; that this route answers is what being ready means."""
        answer = self._http.get_json("/system_stats")
        if not isinstance(answer, dict) or not isinstance(answer.get("system"), dict):
            raise EngineDown("/system_stats answered with something else: is this a ComfyUI API?")
        return answer

    def models(self, folder: str) -> list[str]:
        """Return the files in a folder of models, as graphs name them."""
        answer = self._http.get_json(f"/models/{quote(folder)}")
        return [name for name in answer if isinstance(name, str)] if isinstance(answer, list) else []

    def node_info(self, class_type: str) -> Mapping[str, Any]:
        """Return what a node's class takes and gives; empty for an unknown class, and for what cannot be one's name."""
        if len(class_type) > _LONGEST_CLASS or class_type in _NO_SEGMENTS or not class_type.isprintable():
            return {}
        try:
            answer = self._http.get_json(f"/object_info/{quote(class_type, safe='')}")
        except NoSuchRoute:
            return {}
        info = answer.get(class_type) if isinstance(answer, dict) else None
        return info if isinstance(info, dict) else {}

    def queue(self) -> Queue:
        """Return what runs and what waits."""
        answer = self._http.get_json("/queue")
        if not isinstance(answer, dict):
            raise EngineDown("/queue answered with no object: is this a ComfyUI API?")
        return Queue(_listed(answer.get("queue_running")), _listed(answer.get("queue_pending")))

    def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """Return what became of a prompt; None while it runs or waits, and when it is not known at all."""
        answer = self._http.get_json(f"/history/{quote(prompt_id, safe='')}")
        entry = answer.get(prompt_id) if isinstance(answer, dict) else None
        return entry if isinstance(entry, dict) else None

    def prompt(self, body: bytes) -> EngineResponse:
        """Post a prompt once; return the answer, whatever its status. Raises as `EngineHttp.post`."""
        return self._http.post("/prompt", body, PROMPT_TIMEOUT_S)

    def upload(self, name: str, data: bytes, media_type: str) -> str:
        """Put a picture into the input folder; return what it is called there, which may be another name."""
        body, content_type = encode_multipart_formdata({"image": (name, data, media_type), "type": "input"})
        said = self._http.control("/upload/image", body, UPLOAD_TIMEOUT_S, content_type=content_type)
        try:
            kept = json.loads(said)
            subfolder, called = kept.get("subfolder") or "", kept["name"]
        except (ValueError, KeyError, AttributeError) as error:
            raise EngineDown("/upload/image did not say what the file is called: is this a ComfyUI API?") from error
        return f"{subfolder}/{called}" if subfolder else str(called)

    def view(self, entry: Mapping[str, Any], most_bytes: int) -> bytes | None:
        """Return a file that an output names, None if it is larger than `most_bytes`."""
        asked = {
            "filename": entry["filename"],
            "subfolder": entry.get("subfolder") or "",
            "type": entry.get("type") or "output",
        }
        return self._http.get_bytes(f"/view?{urlencode(asked)}", most_bytes)

    def interrupt(self, prompt_id: str) -> None:
        """End a prompt if it is what runs; builds before September 2025 end whatever runs."""
        self._control("/interrupt", {"prompt_id": prompt_id})

    def drop(self, prompt_ids: Sequence[str]) -> None:
        """Take prompts out of the queue; those that run or are not known are left alone."""
        self._control("/queue", {"delete": list(prompt_ids)})

    def free(self, *, models: bool) -> None:
        """Drop what is cached, and with `models` what is loaded: at once when idle, else after the present run."""
        self._control("/free", {"unload_models": models, "free_memory": True})

    def _control(self, path: str, order: Mapping[str, Any]) -> None:
        self._http.control(path, json.dumps(order).encode(), self._http.read_timeout_s)


def _listed(entries: Any) -> dict[str, str | None]:
    """Read one half of the queue: `[number, prompt id, graph, extra, outputs]` for each."""
    found: dict[str, str | None] = {}
    for entry in entries if isinstance(entries, list) else []:
        match entry:
            case [_, str() as prompt_id, _, {"client_id": str() as client_id}, *_]:
                found[prompt_id] = client_id
            case [_, str() as prompt_id, *_]:
                found[prompt_id] = None
            case _:
                continue
    return found
