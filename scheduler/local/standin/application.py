"""Which path does what, who may ask, and when the server is up;
it turns a request into a reply and knows no sockets.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import resource
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from scheduler.local.serving.server import Reply, Request
from scheduler.local.standin import catalogue, pictures
from scheduler.local.standin.engine import Engine
from scheduler.local.standin.fields import json_object, read
from scheduler.local.standin.forms import EXTRA_BATCH, EXTRA_SINGLE, IMG2IMG, INTERNAL_PROGRESS, TXT2IMG
from scheduler.local.standin.refusals import EngineError, Invalid, Plain, refused

API = "/sdapi/v1/"
CONTROL = "/standin/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """How the server was started: with its web page or only with the API, behind a password, fast or slow to come up.

    `startup_seconds` is the window in which the port is open but the routes are not there yet.
    """

    ui: bool = False
    auth: str | None = None
    startup_seconds: float = 0.0


class Application:
    """All routes over one engine. `handle` may be called from any thread and blocks as long as a render takes."""

    name = "sd-webui-standin"

    def __init__(self, engine: Engine, front: Front, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._front = front
        self._clock = clock
        self._up_at_s = clock() + front.startup_seconds
        self._passwords = dict(pair.split(":", 1) for pair in front.auth.split(",")) if front.auth else {}
        self._routes: dict[str, dict[str, Callable[[Request], Any]]] = {
            **{CONTROL + path: verbs for path, verbs in self._control_routes().items()},
            **{API + path: verbs for path, verbs in self._api_routes().items()},
            **(self._ui_routes() if front.ui else {}),
        }

    def handle(self, request: Request) -> Reply:
        """Answer one request; a refusal is an answer too."""
        began_s = self._clock()
        path = urlsplit(request.target).path
        self._engine.diary.request(request.method, path)
        try:
            action = self._action(request.method, path)
            if path.startswith(API):
                self._admit(request)
            status, answer = 200, action(request)
        except (EngineError, Invalid, Plain) as refusal:
            status, answer = refusal.status, refusal.body
        except Exception as error:  # noqa: BLE001 - the real server shows the class and words of any exception, too
            status, answer = 500, EngineError(type(error).__name__, str(error)).body
        headers = {"X-Process-Time": f"{self._clock() - began_s:.4f}"}
        if isinstance(answer, Reply):
            return Reply(answer.status, answer.body, answer.content_type, headers)
        return Reply(status, json.dumps(answer, separators=(",", ":")).encode(), headers=headers)

    def _action(self, method: str, path: str) -> Callable[[Request], Any]:
        """Return what `method` does at `path`. Raises Plain while the path is not there, or never, or not for this."""
        left_s = self._up_at_s - self._clock()
        missing = path not in self._routes
        if not path.startswith(CONTROL) and left_s > 0:
            # The page comes up before the API does: in the second half of the window only it answers.
            missing |= path.startswith(API) or left_s > self._front.startup_seconds / 2
        if missing:
            raise Plain(404, "Not Found")
        action = self._routes[path].get(method)
        if action is None:
            raise Plain(405, "Method Not Allowed")
        return action

    def _admit(self, request: Request) -> None:
        """Check the password, if one is set. Raises EngineError."""
        if not self._passwords:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            raise refused(401, "Not authenticated")
        try:
            user, colon, password = base64.b64decode(token, validate=True).decode("ascii").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise refused(401, "Invalid authentication credentials")
        if not secrets.compare_digest(password.encode(), self._passwords.get(user, "").encode()) or not password:
            raise refused(401, "Incorrect username or password")

    # the API

    def _api_routes(self) -> dict[str, dict[str, Callable[[Request], Any]]]:
        engine, weights = self._engine, self._engine.weights
        return {
            "txt2img": {"POST": self._txt2img},
            "img2img": {"POST": self._img2img},
            "extra-single-image": {"POST": self._extra_single},
            "extra-batch-images": {"POST": self._extra_batch},
            "progress": {"GET": self._progress},
            "interrupt": {"POST": self._interrupt},
            "skip": {"POST": self._skip},
            "options": {"GET": lambda _: weights.settings.all(), "POST": self._set_options},
            "sd-models": {"GET": lambda _: weights.shelf.listing()},
            "samplers": {"GET": lambda _: [entry.listing() for entry in catalogue.SAMPLERS]},
            "schedulers": {"GET": lambda _: [entry.listing() for entry in catalogue.SCHEDULES]},
            "upscalers": {"GET": lambda _: list(catalogue.UPSCALERS)},
            "refresh-checkpoints": {"POST": lambda _: engine.refresh()},
            "unload-checkpoint": {"POST": self._unload},
            "reload-checkpoint": {"POST": self._reload},
            "memory": {"GET": lambda _: _memory()},
        }

    def _txt2img(self, request: Request) -> Any:
        values = read(TXT2IMG, _form(request))
        _check_scripts(values)
        return self._engine.generate("txt2img", values)

    def _img2img(self, request: Request) -> Any:
        values = read(IMG2IMG, _form(request))
        if values["init_images"] is None:
            raise refused(404, "Init image not found")
        mask = pictures.decode(values["mask"]) if values["mask"] else None
        _check_scripts(values)
        return self._engine.generate("img2img", values, mask)

    def _extra_single(self, request: Request) -> Any:
        values = read(EXTRA_SINGLE, _form(request))
        images, html = self._engine.extras(values, [values["image"]])
        if not images:
            raise EngineError("IndexError", "list index out of range")
        return {"html_info": html, "image": images[0]}

    def _extra_batch(self, request: Request) -> Any:
        values = read(EXTRA_BATCH, _form(request))
        images, html = self._engine.extras(values, [entry["data"] for entry in values["imageList"]])
        return {"html_info": html, "images": images}

    def _interrupt(self, _request: Request) -> Any:
        self._engine.state.interrupted = True
        return {}

    def _skip(self, _request: Request) -> Any:
        self._engine.state.skipped = True

    def _set_options(self, request: Request) -> Any:
        self._engine.set_options(_form(request))

    def _unload(self, _request: Request) -> Any:
        self._engine.weights.unload()
        return {}

    def _reload(self, _request: Request) -> Any:
        self._engine.reload()
        return {}

    # the page's own routes

    def _ui_routes(self) -> dict[str, dict[str, Callable[[Request], Any]]]:
        tasks = self._engine.tasks
        page = Reply(200, b"<!doctype html><title>SD WebUI stand-in</title>", "text/html; charset=utf-8")
        return {
            "/": {"GET": lambda _: page},
            "/internal/ping": {"GET": lambda _: {}},
            "/internal/pending-tasks": {"GET": lambda _: tasks.pending()},
            "/internal/progress": {"POST": self._task_progress},
        }

    def _progress(self, request: Request) -> Any:
        skips = parse_qs(urlsplit(request.target).query).get("skip_current_image", ["false"])[-1]
        return self._engine.state.snapshot(with_picture=skips.lower() != "true")

    def _task_progress(self, request: Request) -> Any:
        values = read(INTERNAL_PROGRESS, _form(request))
        return self._engine.tasks.progress(values["id_task"], self._engine.state)

    # control: not in the real server

    def _control_routes(self) -> dict[str, dict[str, Callable[[Request], Any]]]:
        return {
            "stats": {"GET": lambda _: self._engine.stats()},
            "faults": {"POST": self._add_fault, "DELETE": lambda _: self._engine.heal()},
            "checkpoints": {"POST": self._drop_checkpoint},
        }

    def _add_fault(self, request: Request) -> Any:
        try:
            self._engine.faults.add(_form(request))
        except ValueError as error:
            raise Plain(400, str(error)) from error
        return self._engine.faults.left()

    def _drop_checkpoint(self, request: Request) -> Any:
        file = _form(request).get("file")
        if not isinstance(file, str) or not file:
            raise Plain(400, "file: the name of a checkpoint is wanted")
        self._engine.weights.shelf.drop(file)


def _form(request: Request) -> dict[str, Any]:
    """Return the object in a request's body. Raises Invalid or Plain."""
    return json_object(request.body, request.headers.get("content-type"))


def _check_scripts(values: Mapping[str, Any]) -> None:
    """Refuse scripts by unknown names; there are none that can be selected. Raises EngineError."""
    if values["script_name"]:
        raise refused(422, f"Script '{values['script_name']}' not found")
    for name in values["alwayson_scripts"]:
        if name.lower() not in catalogue.ALWAYS_ON_SCRIPTS:
            raise refused(422, f"Script '{name}' not found")


def _memory() -> dict[str, Any]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"ram": {"free": total - used, "used": used, "total": total}, "cuda": {"error": "unavailable"}}
