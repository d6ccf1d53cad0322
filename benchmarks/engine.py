"""Behaves like A1111's API as far as a queue consumer can tell, with a render time that is known and a stopwatch.

One lock stands around rendering and loading. The checkpoint *option* and the *loaded* checkpoint are two things: a
request's override is loaded for it, the option is put back afterwards, the weights stay until others are wanted. An
unknown override or sampler is quietly replaced. A request runs on when its client leaves; an interrupt ends it early.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.loopback import Reply, Request, json_reply, serve
from benchmarks.pictures import Painter

TOKEN = re.compile(r"bench-[0-9a-f]+-\d+")
RECORDS = "/-/records"
API = "/sdapi/v1/"
SAMPLERS = ("Euler a", "Euler", "DPM++ 2M", "DPM++ SDE", "DDIM")
FALLBACK_SAMPLER = "DPM++ 2M"
INTEGERS = ("width", "height", "steps", "batch_size", "n_iter", "seed")
OUT_OF_MEMORY = "no-memory"
"""A prompt with this word runs out of memory, whatever its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One model, with every name that A1111 knows it by."""

    model_name: str
    short_hash: str

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return f"{self.model_name}.safetensors"

    @property
    def title(self) -> str:
        """What options and lists show."""
        return f"{self.file_name} [{self.short_hash}]"

    def is_called(self, name: object) -> bool:
        """Tell whether `name` is one of its names."""
        return name in {self.title, self.model_name, self.file_name, self.short_hash}


CHECKPOINTS = tuple(Checkpoint(model_name=f"model-{x}", short_hash=x * 10) for x in "abc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One use of the GPU: a `render`, whole or `interrupted`, or a `switch` of checkpoints."""

    start_s: float
    end_s: float
    kind: str
    token: str | None = None


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(json_reply({"detail": [{"loc": ["body", field], "msg": message, "type": "type_error"}]}, 422))


def _failed(name: str, message: str, status: int = 500, detail: str = "") -> Refusal:
    return Refusal(json_reply({"error": name, "detail": detail, "body": "", "errors": message}, status))


def _object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise _invalid("body", str(error)) from error
    if not isinstance(body, dict):
        raise _invalid("body", "value is not a valid dict")
    return body


def _check(body: dict[str, Any], *, needs_input: bool) -> None:
    if not isinstance(body.get("prompt", ""), str):
        raise _invalid("prompt", "str type expected")
    for name in INTEGERS:
        if name in body and (isinstance(body[name], bool) or not isinstance(body[name], int)):
            raise _invalid(name, "value is not a valid integer")
    if not isinstance(body.get("override_settings") or {}, dict):
        raise _invalid("override_settings", "value is not a valid dict")
    if needs_input and not body.get("init_images"):
        raise _failed("HTTPException", "", 404, "Init image not found")


class Engine:
    """The state of one server: `render_s` for each image, `switch_s` for loading another checkpoint."""

    def __init__(self, render_s: float, switch_s: float) -> None:
        self._render_s = render_s
        self._switch_s = switch_s
        self._painter = Painter()
        self._lock = asyncio.Lock()
        self._option = CHECKPOINTS[0]
        self._loaded: Checkpoint | None = CHECKPOINTS[0]
        self._interrupted = asyncio.Event()
        self._job: tuple[float, int] | None = None
        self._uses: list[Use] = []
        self._refused = 0

    async def handle(self, request: Request) -> Reply:
        """Answer one request."""
        try:
            if request.path == RECORDS:
                return json_reply({"uses": [asdict(use) for use in self._uses], "refused": self._refused})
            if not request.path.startswith(API):
                return json_reply({"detail": "Not Found"}, 404)
            name = request.path.removeprefix(API)
            return await (self._get(name) if request.method == "GET" else self._post(name, request))
        except Refusal as refusal:
            self._refused += 1
            return refusal.reply

    async def _get(self, name: str) -> Reply:
        match name:
            case "options":
                return json_reply({"sd_model_checkpoint": self._option.title, "samples_format": "png"})
            case "sd-models":
                return json_reply([self._listed(checkpoint) for checkpoint in CHECKPOINTS])
            case "samplers":
                return json_reply([{"name": sampler, "aliases": [], "options": {}} for sampler in SAMPLERS])
            case "progress":
                return json_reply(self._progress())
            case "memory":
                return json_reply({"ram": {"free": 1, "used": 1, "total": 2}, "cuda": {"error": "unavailable"}})
            case "schedulers" | "upscalers" | "scripts" | "loras" | "embeddings":
                return json_reply([])
            case _:
                raise Refusal(json_reply({"detail": "Not Found"}, 404))

    async def _post(self, name: str, request: Request) -> Reply:
        match name:
            case "txt2img" | "img2img":
                body = _object(request)
                _check(body, needs_input=name == "img2img")
                return await self._generate(body)
            case "options":
                await self._set_option(_object(request).get("sd_model_checkpoint"))
                return json_reply(None)
            case "interrupt":
                self._interrupted.set()
                return json_reply({})
            case "refresh-checkpoints":
                async with self._lock:
                    return json_reply(None)
            case "unload-checkpoint":
                self._loaded = None
                return json_reply({})
            case "reload-checkpoint":
                async with self._lock:
                    await self._load(self._option)
                return json_reply({})
            case _:
                raise Refusal(json_reply({"detail": "Not Found"}, 404))

    async def _set_option(self, name: object) -> None:
        if name is None:
            return
        self._option = self._find(name) or self._no_model(name)
        async with self._lock:
            await self._load(self._option)

    @staticmethod
    def _find(name: object) -> Checkpoint | None:
        return next((checkpoint for checkpoint in CHECKPOINTS if checkpoint.is_called(name)), None)

    @staticmethod
    def _no_model(name: object) -> Checkpoint:
        raise _failed("RuntimeError", f"model {name!r} not found")

    @staticmethod
    def _listed(checkpoint: Checkpoint) -> dict[str, str | None]:
        return {
            "title": checkpoint.title,
            "model_name": checkpoint.model_name,
            "hash": checkpoint.short_hash,
            "sha256": checkpoint.short_hash * 6 + checkpoint.short_hash[:4],
            "filename": f"/models/{checkpoint.file_name}",
            "config": None,
        }

    def _progress(self) -> dict[str, Any]:
        start_s, count = self._job or (0.0, 0)
        done = min(1.0, (time.monotonic() - start_s) / (self._render_s * count)) if count and self._render_s else 0.0
        state: dict[str, Any] = {"skipped": False, "interrupted": self._interrupted.is_set(), "job_no": 0}
        state |= {
            "job": "scripts_txt2img" if count else "",
            "job_count": count,
            "sampling_step": int(20 * done),
            "sampling_steps": 20,
        }
        return {"progress": done, "eta_relative": 0.0, "state": state, "current_image": None, "textinfo": None}

    async def _load(self, checkpoint: Checkpoint) -> None:
        if self._loaded is checkpoint:
            return
        start_s = time.monotonic()
        await asyncio.sleep(self._switch_s)
        self._loaded = checkpoint
        self._uses.append(Use(start_s=start_s, end_s=time.monotonic(), kind="switch"))

    async def _generate(self, body: dict[str, Any]) -> Reply:
        prompt: str = body.get("prompt", "")
        overrides = body.get("override_settings") or {}
        token = found.group() if (found := TOKEN.search(prompt)) else None
        count = max(1, body.get("batch_size", 1)) * max(1, body.get("n_iter", 1))
        async with self._lock:
            wanted = self._find(overrides.get("sd_model_checkpoint")) or self._option
            await self._load(wanted)
            if OUT_OF_MEMORY in prompt:
                raise _failed("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB")
            made = await self._render(count, token)
            if overrides and body.get("override_settings_restore_afterwards") is False:
                self._option = wanted
        return self._answer(body, prompt, wanted, made)

    async def _render(self, count: int, token: str | None) -> int:
        """Hold the GPU for `count` images and return how many were made before an interrupt."""
        self._interrupted.clear()
        start_s = time.monotonic()
        self._job = (start_s, count)
        made = 0
        while made < count and not self._interrupted.is_set():
            if self._render_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._interrupted.wait(), self._render_s)
            made += 1
        self._job = None
        kind = "interrupted" if self._interrupted.is_set() else "render"
        self._uses.append(Use(start_s=start_s, end_s=time.monotonic(), kind=kind, token=token))
        return made

    def _answer(self, body: dict[str, Any], prompt: str, used: Checkpoint, made: int) -> Reply:
        width, height = body.get("width", 512), body.get("height", 512)
        first = max(0, body.get("seed", -1))
        seeds = list(range(first, first + made))
        sampler = body.get("sampler_name") or body.get("sampler_index") or "Euler"
        texts = [f"{prompt}\nSteps: {body.get('steps', 50)}, Seed: {seed}" for seed in seeds]
        info = {"prompt": prompt, "all_prompts": [prompt] * made, "seed": first, "all_seeds": seeds}
        info |= {"width": width, "height": height, "steps": body.get("steps", 50), "infotexts": texts}
        info |= {"sampler_name": sampler if sampler in SAMPLERS else FALLBACK_SAMPLER, "version": "v1.10.1"}
        info |= {"sd_model_name": used.model_name, "sd_model_hash": used.short_hash}
        parts = [b'{"images":[']
        for number, text in enumerate(texts):
            parts += (b',"' if number else b'"', *self._painter.picture(width, height, text), b'"')
        echoed = {name: value for name, value in body.items() if name != "init_images"}
        parts.append(f'],"parameters":{json.dumps(echoed)},"info":{json.dumps(json.dumps(info))}}}'.encode())
        return Reply(parts=parts)


def main() -> None:
    """Serve until the parent process is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--render-s", type=float, required=True, help="time for one image, seconds")
    parser.add_argument("--switch-s", type=float, required=True, help="time to load another checkpoint, seconds")
    given = parser.parse_args()
    serve(Engine(given.render_s, given.switch_s).handle)


if __name__ == "__main__":
    main()
