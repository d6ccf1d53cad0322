"""A tiny ComfyUI graph that tells a broken host from a broken task; pure."""

from __future__ import annotations

from typing import Any

from scheduler.domain.task import Task, TaskType
from scheduler.engines.comfyui_graph import Graph

SIDE_PX = 64


def golden(seed: int, checkpoint: str | None) -> Task:
    """Return a task that takes next to no time: with a checkpoint that is known to render, one step on the GPU.

    Without one it proves no more than that graphs are run and files kept. Another seed, and nothing comes from a cache.
    """
    graph = _empty(seed) if checkpoint is None else _sampled(seed, checkpoint)
    payload = {"prompt": graph, "include_temp": True}
    return Task(task_id="golden", task_type=TaskType.PIPELINE, payload=payload, fingerprint="")


def provable(graph: Graph) -> str | None:
    """Return a checkpoint that a graph renders with and that the golden one can load likewise."""
    loaders = (node["inputs"] for node in graph.values() if node["class_type"] == "CheckpointLoaderSimple")
    named = (inputs.get("ckpt_name") for inputs in loaders)
    return next((name for name in named if isinstance(name, str)), None)


def _empty(seed: int) -> Graph:
    size = {"width": SIDE_PX, "height": SIDE_PX, "batch_size": 1, "color": seed % (1 << 24)}
    return {"1": _node("EmptyImage", **size), "2": _node("PreviewImage", images=["1", 0])}


def _sampled(seed: int, checkpoint: str) -> Graph:
    sampling = {"seed": seed, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": _node("CLIPTextEncode", text="golden", clip=["1", 1]),
        "3": _node("EmptyLatentImage", width=SIDE_PX, height=SIDE_PX, batch_size=1),
        "4": _node("KSampler", **sampling, model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["3", 0]),
        "5": _node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": _node("PreviewImage", images=["5", 0]),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
