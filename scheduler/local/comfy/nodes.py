"""The node classes that the stand-in knows, a small part of the real one's: what they take,
what they return, what they do.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image, ImageOps

from scheduler.local.comfy.room import Room
from scheduler.local.standin import painter

SAMPLERS = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "ddim", "uni_pc")
SAMPLERS_LISTED = (*SAMPLERS, *(f"other_{n}" for n in range(42 - len(SAMPLERS))))
"""As many as the real one has, so that its errors count them."""
SCHEDULERS = ("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal")
MOST_SEED = 0xFFFFFFFFFFFFFFFF
Options = Mapping[str, Any]
Combo = Callable[[Room], list[str]]
Values = Mapping[str, Any]


class Work(Protocol):
    """What a node may ask of the run that it is in."""

    room: Room

    def load(self, checkpoint: str) -> None:
        """Have these weights loaded, which takes its time."""

    def step(self, value: int, most: int, picture: Image.Image) -> None:
        """Let one sampler step pass."""

    def save(self, data: bytes, prefix: str, extension: str, *, folder: str = "output") -> dict[str, Any]:
        """Keep a file and return the outputs' entry."""

    def finished(self, picture: Image.Image) -> Image.Image:
        """Return a picture as the run's fault leaves it."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a node's run gave: values for its slots, and what it shows if it is an output node."""

    values: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Latent:
    """Pictures before they are pictures: `indices` are their places in the batch, which the noise is made from."""

    size: tuple[int, int]
    indices: tuple[int, ...]
    pictures: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """One class. An input is its type, or the names that it may be, and options; `check` refuses values in words."""

    run: Callable[[Work, Values], Made]
    inputs: Mapping[str, tuple[str | Combo, Options]]
    returns: tuple[str, ...] = ()
    is_output: bool = False
    check: Callable[[Room, Values], dict[str, str]] | None = None
    optional: frozenset[str] = field(default_factory=frozenset)

    def info(self, name: str, room: Room) -> dict[str, Any]:
        """Return what /object_info says of it."""
        listed = {
            key: [kind(room) if callable(kind) else kind, dict(options)]
            if options or not callable(kind)
            else [kind(room)]
            for key, (kind, options) in self.inputs.items()
        }
        required = {key: value for key, value in listed.items() if key not in self.optional}
        given = {key: value for key, value in listed.items() if key in self.optional}
        return {
            "input": {"required": required} | ({"optional": given} if given else {}),
            "input_order": {"required": list(required)} | ({"optional": list(given)} if given else {}),
            "output": list(self.returns),
            "output_is_list": [False] * len(self.returns),
            "output_name": list(self.returns),
            "name": name,
            "display_name": name,
            "description": "",
            "python_module": "nodes",
            "category": "stand-in",
            "output_node": self.is_output,
        }


def _int(least: int, most: int, default: int = 0) -> tuple[str, Options]:
    return "INT", {"default": default, "min": least, "max": most}


def _float(least: float, most: float, default: float) -> tuple[str, Options]:
    return "FLOAT", {"default": default, "min": least, "max": most}


_TEXT: tuple[str, Options] = ("STRING", {"default": ""})
_SIDE = _int(16, 16384, 512)


def _any_of(*names: str) -> tuple[Combo, Options]:
    return lambda _room: list(names), {}


def _of(kind: str) -> tuple[str, Options]:
    return kind, {}


def _checkpoints(room: Room) -> list[str]:
    return list(room.checkpoints)


# loading


def _load_checkpoint(work: Work, values: Values) -> Made:
    work.load(values["ckpt_name"])
    return Made((values["ckpt_name"],) * 3)


def _opened(work: Work, name: str) -> Image.Image:
    picture = Image.open(io.BytesIO(work.room.read("input", "", name) or b""))
    picture.load()
    return picture


def _load_image(work: Work, values: Values) -> Made:
    picture = _opened(work, values["image"])
    return Made(([picture.convert("RGB")], [picture.convert("L")]))


def _load_mask(work: Work, values: Values) -> Made:
    return Made(([_opened(work, values["image"]).convert("L")],))


def _is_there(room: Room, values: Values) -> dict[str, str]:
    name = values["image"]
    if isinstance(name, str) and room.read("input", "", name) is None:
        return {"image": f"Invalid image file: {name}"}
    return {}


# pictures


def _empty_image(_work: Work, values: Values) -> Made:
    colour = values["color"]
    rgb = (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    return Made(([Image.new("RGB", (values["width"], values["height"]), rgb)] * values["batch_size"],))


def _scale(_work: Work, values: Values) -> Made:
    size = (values["width"], values["height"])
    return Made(([picture.resize(size) for picture in values["image"]],))


def _invert(_work: Work, values: Values) -> Made:
    return Made(([ImageOps.invert(picture) for picture in values["image"]],))


# diffusion


def _empty_latent(_work: Work, values: Values) -> Made:
    size = (values["width"] // 8 * 8, values["height"] // 8 * 8)
    return Made((Latent(size, tuple(range(values["batch_size"]))),))


def _from_batch(_work: Work, values: Values) -> Made:
    whole: Latent = values["samples"]
    part = slice(values["batch_index"], values["batch_index"] + values["length"])
    return Made((Latent(whole.size, whole.indices[part], whole.pictures[part]),))


def _encode(_work: Work, values: Values) -> Made:
    pictures = tuple(values["pixels"])
    return Made((Latent(pictures[0].size, tuple(range(len(pictures))), pictures),))


def _sampled(work: Work, values: Values, seed: int) -> Made:
    latent: Latent = values["latent_image"]
    pictures = []
    for place, index in enumerate(latent.indices):
        picture = painter.paint(values["positive"], seed + index, values["model"], latent.size)
        if latent.pictures:
            picture = Image.blend(latent.pictures[place], picture, float(values.get("denoise", 1.0)))
        painter.caption(picture, values["positive"], f"seed {seed} · {values['model']}")
        pictures.append(picture)
    for step in range(values["steps"]):
        work.step(step + 1, values["steps"], pictures[0])
    return Made((Latent(latent.size, latent.indices, tuple(pictures)),))


def _decode(_work: Work, values: Values) -> Made:
    latent: Latent = values["samples"]
    blank = (Image.new("RGB", latent.size, (127, 127, 127)),) * len(latent.indices)
    return Made((list(latent.pictures or blank),))


# outputs


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _save_to(folder: str) -> Callable[[Work, Values], Made]:
    def save(work: Work, values: Values) -> Made:
        prefix = values.get("filename_prefix", "ComfyUI_temp")
        pictures = [work.finished(picture) for picture in values["images"]]
        entries = [work.save(_png(picture), prefix, ".png", folder=folder) for picture in pictures]
        return Made(ui={"images": entries})

    return save


def _save_webp(work: Work, values: Values) -> Made:
    first, *others = values["images"]
    out = io.BytesIO()
    first.save(out, "WEBP", save_all=True, append_images=others, quality=50)
    entry = work.save(out.getvalue(), values["filename_prefix"], ".webp")
    return Made(ui={"images": [entry], "animated": [True]})


def _combine_video(work: Work, values: Values) -> Made:
    # Only as much of a video as content sniffers look at.
    data = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41" + _png(values["images"][0])
    entry = work.save(data, values["filename_prefix"], ".mp4")
    more = {"format": "video/h264-mp4", "frame_rate": float(values["frame_rate"]), "fullpath": "/standin/output"}
    return Made(ui={"gifs": [entry | more]})


def _save_audio(work: Work, values: Values) -> Made:
    entry = work.save(b"fLaC" + bytes(64), values["filename_prefix"], ".flac")
    return Made(ui={"audio": [entry]})


def _show_text(_work: Work, values: Values) -> Made:
    return Made(ui={"text": [str(values["source"])]})


_KSAMPLER: dict[str, tuple[str | Combo, Options]] = {
    "model": _of("MODEL"),
    "steps": _int(1, 10000, 20),
    "cfg": _float(0.0, 100.0, 8.0),
    "sampler_name": _any_of(*SAMPLERS_LISTED),
    "scheduler": _any_of(*SCHEDULERS),
    "positive": _of("CONDITIONING"),
    "negative": _of("CONDITIONING"),
    "latent_image": _of("LATENT"),
}
_SAVED = {"images": _of("IMAGE"), "filename_prefix": ("STRING", {"default": "ComfyUI"})}
_UPLOAD: tuple[Combo, Options] = (Room.inputs, {"image_upload": True})

CLASSES: Mapping[str, NodeClass] = {
    "CheckpointLoaderSimple": NodeClass(
        run=_load_checkpoint, inputs={"ckpt_name": (_checkpoints, {})}, returns=("MODEL", "CLIP", "VAE")
    ),
    "CLIPTextEncode": NodeClass(
        run=lambda _work, values: Made((values["text"],)),
        inputs={"text": _TEXT, "clip": _of("CLIP")},
        returns=("CONDITIONING",),
    ),
    "EmptyLatentImage": NodeClass(
        run=_empty_latent, inputs={"width": _SIDE, "height": _SIDE, "batch_size": _int(1, 4096, 1)}, returns=("LATENT",)
    ),
    "LatentFromBatch": NodeClass(
        run=_from_batch,
        inputs={"samples": _of("LATENT"), "batch_index": _int(0, 63), "length": _int(1, 64, 1)},
        returns=("LATENT",),
    ),
    "KSampler": NodeClass(
        run=lambda work, values: _sampled(work, values, values["seed"]),
        inputs=_KSAMPLER | {"seed": _int(0, MOST_SEED), "denoise": _float(0.0, 1.0, 1.0)},
        returns=("LATENT",),
    ),
    "KSamplerAdvanced": NodeClass(
        run=lambda work, values: _sampled(work, values, values["noise_seed"]),
        inputs=_KSAMPLER | {"noise_seed": _int(0, MOST_SEED), "add_noise": _any_of("enable", "disable")},
        returns=("LATENT",),
    ),
    "VAEDecode": NodeClass(run=_decode, inputs={"samples": _of("LATENT"), "vae": _of("VAE")}, returns=("IMAGE",)),
    "VAEEncode": NodeClass(run=_encode, inputs={"pixels": _of("IMAGE"), "vae": _of("VAE")}, returns=("LATENT",)),
    "EmptyImage": NodeClass(
        run=_empty_image,
        inputs={
            "width": _int(1, 16384, 512),
            "height": _int(1, 16384, 512),
            "batch_size": _int(1, 4096, 1),
            "color": _int(0, 0xFFFFFF),
        },
        returns=("IMAGE",),
    ),
    "LoadImage": NodeClass(run=_load_image, inputs={"image": _UPLOAD}, returns=("IMAGE", "MASK"), check=_is_there),
    "LoadImageMask": NodeClass(
        run=_load_mask,
        inputs={"image": _UPLOAD, "channel": _any_of("alpha", "red", "green", "blue")},
        returns=("MASK",),
        check=_is_there,
    ),
    "PortraitOf": NodeClass(
        run=lambda work, values: _load_image(work, {"image": values["face"]}),
        inputs={"face": _UPLOAD},
        returns=("IMAGE",),
    ),
    "ImageScale": NodeClass(
        run=_scale,
        inputs={
            "image": _of("IMAGE"),
            "upscale_method": _any_of("nearest-exact", "bilinear", "area", "bicubic", "lanczos"),
            "width": _int(0, 16384, 512),
            "height": _int(0, 16384, 512),
            "crop": _any_of("disabled", "center"),
        },
        returns=("IMAGE",),
    ),
    "ImageInvert": NodeClass(run=_invert, inputs={"image": _of("IMAGE")}, returns=("IMAGE",)),
    "SaveImage": NodeClass(run=_save_to("output"), inputs=_SAVED, is_output=True),
    "PreviewImage": NodeClass(run=_save_to("temp"), inputs={"images": _of("IMAGE")}, is_output=True),
    "SaveAnimatedWEBP": NodeClass(run=_save_webp, inputs=_SAVED, is_output=True),
    "VHS_VideoCombine": NodeClass(
        run=_combine_video, inputs=_SAVED | {"frame_rate": _float(1.0, 120.0, 8.0)}, is_output=True
    ),
    "EmptyAudio": NodeClass(
        run=lambda _work, values: Made((values["duration"],)),
        inputs={"duration": _float(0.0, 1e6, 60.0)},
        returns=("AUDIO",),
    ),
    "SaveAudio": NodeClass(
        run=_save_audio, inputs={"audio": _of("AUDIO"), "filename_prefix": _SAVED["filename_prefix"]}, is_output=True
    ),
    "PreviewAny": NodeClass(run=_show_text, inputs={"source": _of("*")}, is_output=True),
}
