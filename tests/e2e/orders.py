"""One request of every format for every engine that it can name, and what must come of each."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws_servers import unique
from PIL import Image

Body = dict[str, Any]
Size = tuple[int, int]
SIZE: Size = (64, 64)
INPUT_SIZE: Size = (48, 40)
INPUT_COLOUR = (200, 40, 40)
ENLARGED: Size = (96, 80)
CHECKPOINT = "standin-dawn.safetensors"
"""What graphs load."""
EXTRA_RUNTIME = "sdruntime-jobAddon"
"""A runtime of a name that only a client's form has; [engines] gives it to the WebUI."""
CAMERA_ANGLE, IMAGE_EDIT = "/api/v1/camera-angle/jobs", "/api/v1/qwen-image-edit/jobs"
OWN_KEY, PREDECESSOR_KEY = "tasks/{id}/{n}.png", "sd/out/{id}-{n}.png"
EKS_KEY = "outputs/deep/{id}/{id}-[0-9a-f]{{4}}-{n}.png"
EKS_KEY_WITHOUT_PREFIX = "{id}/{id}-[0-9a-f]{{4}}-{n}.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A body, the pattern of its pictures' keys, their sizes, what each says in its PNG, and what each shows.

    `checkpoint` begins the name of what it must be rendered with. `record` is what lies in the table before a message
    that only refers to it. An order without a `key` leaves its result to the engine, of the one size.
    """

    name: str
    task_id: str
    body: Body
    key: str | None = OWN_KEY
    sizes: tuple[Size, ...] = (SIZE,)
    prompt: str | None = None
    colour: tuple[int, int, int] | None = None
    checkpoint: str = ""
    record: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Where the same picture lies."""

    s3: str
    http: str


def input_png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", INPUT_SIZE, INPUT_COLOUR).save(out, "PNG")
    return out.getvalue()


def painting(prompt: str, **more: Any) -> Body:
    return {"prompt": prompt, "seed": 7, "steps": 1, "width": SIZE[0], "height": SIZE[1]} | more


def enlarging(**more: Any) -> Body:
    return {"upscaler_1": "Lanczos", "upscaling_resize": 2} | more


def graph(prompt: str, *, steps: int = 1, batch: int = 1, seed: int = 7) -> Body:
    """A ComfyUI graph that paints."""
    sampler = {
        "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "seed": seed,
        "steps": steps, "cfg": 7.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0,
    }  # fmt: skip
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["1", 1]}},
        "4": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": SIZE[0], "height": SIZE[1], "batch_size": batch},
        },
        "5": {"class_type": "KSampler", "inputs": sampler},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "out"}},
    }


def inverting(address: str) -> Body:
    """A ComfyUI graph that inverts a picture of the client's."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": address}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "out"}},
    }


INVERTED = {"sizes": (INPUT_SIZE,), "colour": tuple(255 - part for part in INPUT_COLOUR)}


def own(inputs: Inputs) -> list[Order]:
    two = [{"data": inputs.s3, "name": "a.png"}, {"data": inputs.http, "name": "b.png"}]
    kinds: dict[str, tuple[str, Body, dict[str, Any]]] = {
        "txt2img": ("txt2img", painting("own words"), {"prompt": "own words"}),
        "img2img from S3": (
            "img2img", painting("own s3", init_images=[inputs.s3]), {"prompt": "own s3"},
        ),
        "img2img over HTTP": (
            "img2img", painting("own http", init_images=[inputs.http]), {"prompt": "own http"},
        ),
        "extras": ("extra-single-image", enlarging(image=inputs.s3), {"sizes": (ENLARGED,)}),
        "extras of two": ("extra-batch-images", enlarging(imageList=two), {"sizes": (ENLARGED,) * 2}),
        "pipeline": ("pipeline", {"prompt": graph("own graph")}, {}),
        "pipeline from S3": ("pipeline", inverting(inputs.s3), INVERTED),
    }  # fmt: skip
    orders = []
    for name, (kind, payload, expected) in kinds.items():
        task_id = unique("own")
        body = {"task_id": task_id, "task_type": kind, "payload": payload}
        orders.append(Order(name=f"own, {name}", task_id=task_id, body=body, **expected))
    named = unique("own")
    body = {
        "task_id": named, "task_type": "txt2img", "runtime": EXTRA_RUNTIME, "payload": painting("own runtime"),
    }  # fmt: skip
    return [*orders, Order(name="own, a named runtime", task_id=named, body=body, prompt="own runtime")]


def predecessor(inputs: Inputs) -> list[Order]:
    kinds: dict[str, tuple[Body, dict[str, Any]]] = {
        "txt2img": (painting("old words"), {"prompt": "old words"}),
        "img2img": (painting("old s3", init_images=[inputs.s3]), {"prompt": "old s3"}),
        "extra-single-image": (enlarging(image=inputs.http), {"sizes": (ENLARGED,)}),
    }
    orders = []
    for route, (payload, expected) in kinds.items():
        task_id = unique("old")
        request = json.dumps({"api": f"/sdapi/v1/{route}", "payload": payload})
        record = {"task_id": task_id, "taskId": task_id, "requestData": request, "taskStatus": "waiting"}
        body = {"taskId": task_id, "storage": "dynamodb"}
        orders.append(
            Order(
                name=f"predecessor, {route}",
                task_id=task_id,
                body=body,
                key=PREDECESSOR_KEY,
                record=record,
                **expected,
            )
        )
    return orders


def v1alpha1(inputs: Inputs) -> list[Order]:
    two = [{"data": inputs.s3, "name": "a.png"}, {"data": inputs.http, "name": "b.png"}]
    kinds: dict[str, tuple[Body, Body, dict[str, Any]]] = {
        "text-to-image": (
            painting("first words"), {}, {"prompt": "first words", "checkpoint": "standin-dusk"},
        ),
        "image-to-image": (painting("first link"), {"image_link": inputs.http}, {"prompt": "first link"}),
        "extra-single-image": (enlarging(), {"image_link": inputs.s3}, {"sizes": (ENLARGED,)}),
        "extra-batch-images": (enlarging(imageList=two), {}, {"sizes": (ENLARGED,) * 2}),
    }  # fmt: skip
    orders = []
    for kind, (payload, more, expected) in kinds.items():
        task_id = unique("first")
        routing = {"task": kind, "sd_model_checkpoint": "standin-dusk", "id_task": task_id, "save_dir": "outputs/deep"}
        body = payload | {"alwayson_scripts": routing | more}
        orders.append(Order(name=f"v1alpha1, {kind}", task_id=task_id, body=body, key=EKS_KEY, **expected))
    named = unique("first")
    routing = {"task": "text-to-image", "sd_model_checkpoint": "standin-dusk", "id_task": named}
    body = painting("first runtime", sdname=EXTRA_RUNTIME, alwayson_scripts=routing)
    return [
        *orders,
        Order(
            name="v1alpha1, sdname", task_id=named, body=body, key=EKS_KEY_WITHOUT_PREFIX, prompt="first runtime"
        ),
    ]  # fmt: skip


def second_version(task_id: str, kind: str, content: Body, *, runtime: str) -> Body:
    metadata = {
        "id": task_id, "runtime": runtime, "tasktype": kind, "prefix": "outputs/deep/", "context": {"order": 77},
    }  # fmt: skip
    return {"metadata": metadata, "content": content}


def v1alpha2(inputs: Inputs) -> list[Order]:
    two = [{"data": inputs.s3, "name": "a.png"}, {"data": inputs.http, "name": "b.png"}]
    kinds: dict[str, tuple[str, str, Body, dict[str, Any]]] = {
        "text-to-image": (
            "text-to-image", "sdwebui", painting("second words", alwayson_scripts={}), {"prompt": "second words"},
        ),
        "image-to-image": (
            "image-to-image", "legacy", painting("second s3", init_images=[inputs.s3]), {"prompt": "second s3"},
        ),
        "extra-single-image": ("extra-single-image", "sdwebui", enlarging(image=inputs.http), {"sizes": (ENLARGED,)}),
        "extra-batch-image": (
            "extra-batch-image", "sdwebui", enlarging(imageList=two), {"sizes": (ENLARGED,) * 2},
        ),
        "extra-batch-images": (
            "extra-batch-images", "sdwebui", enlarging(imageList=two[:1]), {"sizes": (ENLARGED,)},
        ),
        "pipeline": ("pipeline", "comfyui", inverting(inputs.http), INVERTED),
    }  # fmt: skip
    orders = []
    for name, (kind, runtime, content, expected) in kinds.items():
        task_id = unique("second")
        body = second_version(task_id, kind, content, runtime=runtime)
        orders.append(Order(name=f"v1alpha2, {name}", task_id=task_id, body=body, key=EKS_KEY, **expected))
    return orders


def job_api(inputs: Inputs) -> list[Order]:
    orders = []
    for path in (CAMERA_ANGLE, IMAGE_EDIT):
        task_id = unique("job")
        request = {"image_url": inputs.s3, "prompt": "from above", "seed": 7, "steps": 1}
        body = {"task_id": task_id, "api_path": path, "request_body": request}
        orders.append(Order(name=f"job API, {path}", task_id=task_id, body=body, key=None, sizes=((512, 512),)))
    return orders


def every_kind(inputs: Inputs) -> list[Order]:
    """One of each, of every format, all with ids of their own."""
    return [order for make in (own, predecessor, v1alpha1, v1alpha2, job_api) for order in make(inputs)]


def one_of_each_format(inputs: Inputs) -> list[Order]:
    """The first of each format, all with ids of their own."""
    return [make(inputs)[0] for make in (own, predecessor, v1alpha1, v1alpha2, job_api)]
