"""Which path does what; it turns a request into a reply and knows no sockets but the ones that it hands over."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from scheduler.local.comfy.executor import Executor
from scheduler.local.comfy.nodes import CLASSES
from scheduler.local.comfy.room import FOLDERS
from scheduler.local.comfy.sockets import TEXT, Hub, Link, accept, event
from scheduler.local.comfy.validation import error, validate
from scheduler.local.serving.server import Reply, Request

CONTROL = "/standin/"
TROUBLE = b"500 Internal Server Error\n\nServer got itself in trouble"
MEDIA_TYPES = {".png": "image/png", ".webp": "image/webp", ".mp4": "video/mp4", ".flac": "audio/flac"}
VERSION = "0.3.64"
Route = Callable[[Request], Reply]


class Application:
    """All routes over one executor; each is also there under /api."""

    name = "Python/3.12 aiohttp/3.11.8"

    def __init__(self, executor: Executor, hub: Hub) -> None:
        self._executor = executor
        self._hub = hub
        self._routes: dict[tuple[str, str], Route] = {
            ("POST", "/prompt"): self._prompt,
            ("GET", "/prompt"): lambda _: _json({"exec_info": {"queue_remaining": executor.remaining()}}),
            ("GET", "/history"): lambda _: _json(executor.history()),
            ("POST", "/history"): self._edit_history,
            ("GET", "/queue"): lambda _: _json(executor.queue()),
            ("POST", "/queue"): self._edit_queue,
            ("POST", "/interrupt"): self._interrupt,
            ("POST", "/free"): self._free,
            ("GET", "/view"): self._view,
            ("POST", "/upload/image"): self._upload,
            ("GET", "/ws"): self._websocket,
            ("GET", "/system_stats"): lambda _: _json(_system_stats()),
            ("GET", "/object_info"): lambda _: _json({name: self._info(name) for name in CLASSES}),
            ("GET", "/models"): lambda _: _json(["checkpoints", "loras", "vae"]),
            ("GET", "/models/checkpoints"): lambda _: _json(executor.room.checkpoints),
            ("GET", f"{CONTROL}stats"): lambda _: _json(executor.stats()),
            ("POST", f"{CONTROL}faults"): self._add_fault,
            ("DELETE", f"{CONTROL}faults"): self._heal,
        }

    def handle(self, request: Request) -> Reply:
        """Answer one request; what goes wrong inside is 500, as the real server's framework answers it."""
        path = unquote(urlsplit(request.target).path)
        path = path.removeprefix("/api") if path.startswith("/api/") else path
        self._executor.diary.request(request.method, path)
        route = self._routes.get((request.method, path)) or self._parameterised(request.method, path)
        if route is None:
            return _text(404, "404: Not Found") if request.method == "GET" else _text(405, "405: Method Not Allowed")
        try:
            return route(request)
        except Exception:  # noqa: BLE001 - that is what the framework does
            return Reply(500, TROUBLE, "text/plain; charset=utf-8")

    def _parameterised(self, method: str, path: str) -> Route | None:
        folder, _, name = path[1:].partition("/")
        if method == "GET" and folder == "history" and name:
            return lambda _: _json(self._executor.history(name))
        if method == "GET" and folder == "object_info" and name:
            return lambda _: _json({name: self._info(name)} if name in CLASSES else {})
        return None

    def _info(self, name: str) -> dict[str, Any]:
        return CLASSES[name].info(name, self._executor.room)

    # prompts

    def _prompt(self, request: Request) -> Reply:
        body = json.loads(request.body)
        if "prompt" not in body:
            return _json(
                {"error": error("no_prompt", "No prompt provided", "No prompt provided"), "node_errors": {}}, 400
            )
        verdict = validate(body["prompt"], self._executor.room)
        if verdict.error is not None:
            return _json({"error": verdict.error, "node_errors": verdict.node_errors}, 400)
        prompt_id = str(body.get("prompt_id") or uuid.uuid4())
        number = self._executor.take(body, prompt_id, verdict.good)
        return _json({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    def _edit_queue(self, request: Request) -> Reply:
        order = json.loads(request.body)
        if order.get("clear"):
            self._executor.drop(None)
        if "delete" in order:
            self._executor.drop(order["delete"])
        return Reply(200)

    def _edit_history(self, request: Request) -> Reply:
        order = json.loads(request.body)
        if order.get("clear"):
            self._executor.forget(None)
        if "delete" in order:
            self._executor.forget(order["delete"])
        return Reply(200)

    def _interrupt(self, request: Request) -> Reply:
        try:
            order = json.loads(request.body)
        except ValueError:
            order = {}
        self._executor.interrupt(order.get("prompt_id") or None)
        return Reply(200)

    def _free(self, request: Request) -> Reply:
        self._executor.free(json.loads(request.body))
        return Reply(200)

    # files

    def _view(self, request: Request) -> Reply:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}
        name, subfolder = asked.get("filename", ""), asked.get("subfolder", "")
        folder = asked.get("type", "output")
        if not name or name.startswith("/") or ".." in name or ".." in subfolder or folder not in FOLDERS:
            return Reply(400)
        data = self._executor.room.read(folder, subfolder, name)
        if data is None:
            return Reply(404)
        extension = name[name.rfind(".") :]
        return Reply(200, data, MEDIA_TYPES.get(extension, "application/octet-stream"))

    def _upload(self, request: Request) -> Reply:
        head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + request.body)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        picture = parts.pop("image", None)
        name = picture.get_filename() if picture is not None else None
        if picture is None or not name:
            return Reply(400)
        fields = {key: part.get_content().strip() for key, part in parts.items()}
        data = picture.get_payload(decode=True)
        kept = self._executor.room.upload(
            name,
            data if isinstance(data, bytes) else b"",
            folder=fields.get("type", "input"),
            subfolder=fields.get("subfolder", ""),
            overwrite=fields.get("overwrite") in {"true", "1"},
        )
        return _json(kept)

    # events

    def _websocket(self, request: Request) -> Reply:
        asked = parse_qs(urlsplit(request.target).query)
        client_id = (asked.get("clientId") or [uuid.uuid4().hex])[0]
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept(request.headers["sec-websocket-key"]),
        }

        def converse(stream: Any, connection: Any) -> None:
            link = Link(stream, connection)
            status = {"exec_info": {"queue_remaining": self._executor.remaining()}}
            link.send(TEXT, event("status", {"status": status, "sid": client_id}))
            self._hub.join(client_id, link)
            try:
                link.serve()
            finally:
                self._hub.leave(client_id, link)

        return Reply(101, headers=headers, upgrade=converse)

    # control: not in the real server

    def _add_fault(self, request: Request) -> Reply:
        try:
            self._executor.faults.add(json.loads(request.body))
        except ValueError as wrong:
            return _json({"detail": str(wrong)}, 400)
        return _json(self._executor.faults.left())

    def _heal(self, _request: Request) -> Reply:
        self._executor.faults.clear()
        return _json(None)


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), "application/json; charset=utf-8")


def _text(status: int, words: str) -> Reply:
    return Reply(status, words.encode(), "text/plain; charset=utf-8")


def _system_stats() -> dict[str, Any]:
    gib = 1 << 30
    device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": 16 * gib, "vram_free": 8 * gib}
    return {
        "system": {
            "os": "posix",
            "ram_total": 16 * gib,
            "ram_free": 8 * gib,
            "comfyui_version": VERSION,
            "python_version": "3.12.3",
            "pytorch_version": "2.9.0+cpu",
            "embedded_python": False,
            "argv": ["main.py", "--cpu"],
        },
        "devices": [device | {"torch_vram_total": 16 * gib, "torch_vram_free": 8 * gib}],
    }
