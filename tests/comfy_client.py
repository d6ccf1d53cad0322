"""A ComfyUI as tests see it: a client without opinions, a stand-in for it to talk to, and graphs to send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import websocket
from webui_client import until

from scheduler.local.comfy.process import ComfyOptions, ComfyProcess

SAMPLES = Path(__file__).parent / "samples" / "comfyui"
DEADLINE_S = 60.0
CHECKPOINT = "standin-dawn.safetensors"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def flat(colour: int = 16711680, side: int = 64, *, save: str = "SaveImage") -> dict[str, Any]:
    """A picture of one colour: no checkpoint, no sampler."""
    named = {"filename_prefix": "t"} if save == "SaveImage" else {}
    return {
        "1": node("EmptyImage", width=side, height=side, batch_size=1, color=colour),
        "2": node(save, images=["1", 0], **named),
    }


def sampled(
    text: str = "a cat", *, batch: int = 1, steps: int = 3, seed: Any = 1, side: int = 64, ckpt: str = CHECKPOINT
) -> dict[str, Any]:
    """What most graphs are: text to latent to picture."""
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name=ckpt),
        "5": node("EmptyLatentImage", width=side, height=side, batch_size=batch),
        "6": node("CLIPTextEncode", text=text, clip=["4", 1]),
        "7": node("CLIPTextEncode", text="", clip=["4", 1]),
        "3": _sampler(steps, seed),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="s"),
    }


def _sampler(steps: int, seed: Any) -> dict[str, Any]:
    chosen = {"cfg": 7.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0, "steps": steps}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    seeded = {} if seed is None else {"seed": seed}
    return node("KSampler", **links, **chosen, **seeded)


class Comfy:
    """One server's API, asked as a client asks; `standin` is the process behind it, if it is ours."""

    def __init__(self, base_url: str, standin: ComfyProcess | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._standin = standin

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.base_url + path, timeout=DEADLINE_S, **more)

    def get(self, path: str) -> Any:
        response = self.ask("GET", path)
        assert response.status_code == 200, response.text[:500]
        return response.json()

    def post(self, path: str, body: Any = None) -> requests.Response:
        return self.ask("POST", path, json=body)

    def send(self, graph: dict[str, Any], **more: Any) -> str:
        response = self.post("/prompt", {"prompt": graph} | more)
        assert response.status_code == 200, response.text[:500]
        return str(response.json()["prompt_id"])

    def ended(self, prompt_id: str) -> dict[str, Any]:
        until(lambda: self.get(f"/history/{prompt_id}") != {}, within_s=DEADLINE_S)
        entry = self.get(f"/history/{prompt_id}")[prompt_id]
        assert isinstance(entry, dict)
        return entry

    def running(self) -> list[str]:
        return [entry[1] for entry in self.get("/queue")["queue_running"]]

    def pending(self) -> list[str]:
        return [entry[1] for entry in self.get("/queue")["queue_pending"]]

    def idle(self) -> bool:
        return self.get("/prompt") == {"exec_info": {"queue_remaining": 0}}

    def upload(self, name: str, data: bytes) -> Any:
        response = self.ask("POST", "/upload/image", files={"image": (name, data, "image/png")})
        assert response.status_code == 200
        return response.json()

    @contextmanager
    def events(self, client_id: str) -> Iterator[websocket.WebSocket]:
        url = f"{self.base_url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        socket = websocket.create_connection(url, timeout=DEADLINE_S, http_no_proxy=["*"])
        try:
            yield socket
        finally:
            socket.shutdown()

    @property
    def standin(self) -> ComfyProcess:
        assert self._standin is not None, "this is a real server"
        return self._standin


def heard(socket: websocket.WebSocket, prompt_id: str) -> list[dict[str, Any]]:
    """The events of a socket up to the mark of a prompt's end."""
    events: list[dict[str, Any]] = []
    while not events or events[-1] != {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}:
        frame = socket.recv()
        if isinstance(frame, str):
            events.append(json.loads(frame))
    return events


@contextmanager
def started(**options: Any) -> Iterator[Comfy]:
    pace = {"seconds_per_step": 0.01, "switch_seconds": 0.02} | options
    with ComfyProcess(ComfyOptions(**pace)) as standin:
        yield Comfy(standin.base_url, standin)
