"""One request for pictures, worked out before its first step: counts, sizes, seeds, words; no time passes here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from scheduler.local.standin.catalogue import sampling
from scheduler.local.standin.checkpoints import Checkpoint
from scheduler.local.standin.refusals import EngineError

VERSION = "v1.10.1"
PIXELS_MOST = 64_000_000
"""More than this in one batch is out of memory, whatever the faults: nobody's GPU could, nor this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The decoded pictures of an img2img request."""

    images: tuple[Image.Image, ...] = ()
    mask: Image.Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be rendered: `batches` passes of `batch_size` pictures, each pass of `steps` for every stage."""

    values: Mapping[str, Any]
    checkpoint: Checkpoint
    sources: Sources
    prompt: str
    sampler: str
    schedule: str
    size: tuple[int, int]
    batches: int
    batch_size: int
    stages: tuple[int, ...]
    seeds: tuple[int, ...]
    subseed: int
    clip_skip: int

    @property
    def count(self) -> int:
        """How many pictures a whole answer holds."""
        return self.batches * self.batch_size

    def infotext(self, index: int) -> str:
        """Return the words that go with one picture, as the WebUI writes them under it."""
        values = self.values
        lines = [self.prompt]
        if values["negative_prompt"]:
            lines.append(f"Negative prompt: {values['negative_prompt']}")
        facts = {"Steps": values["steps"], "Sampler": self.sampler} | self._extra()
        facts |= {
            "CFG scale": values["cfg_scale"],
            "Seed": self.seeds[index],
            "Size": f"{self.size[0]}x{self.size[1]}",
            "Model hash": self.checkpoint.short_hash,
            "Model": self.checkpoint.model_name,
        }
        if values["denoising_strength"] is not None:
            facts["Denoising strength"] = values["denoising_strength"]
        lines.append(", ".join(f"{name}: {fact}" for name, fact in (facts | {"Version": VERSION}).items()))
        return "\n".join(lines)

    def info(self, infotexts: list[str], timestamp: str, first_image: int) -> dict[str, Any]:
        """Return the answer's `info`: it is as if whole, however few pictures there are."""
        values = self.values
        copied = ("subseed_strength", "cfg_scale", "steps", "seed_resize_from_w", "seed_resize_from_h")
        return {
            "prompt": self.prompt,
            "all_prompts": [self.prompt] * self.count,
            "negative_prompt": values["negative_prompt"] or "",
            "all_negative_prompts": [values["negative_prompt"] or ""] * self.count,
            "seed": self.seeds[0],
            "all_seeds": list(self.seeds),
            "subseed": self.subseed,
            "all_subseeds": [self.subseed + index for index in range(self.count)],
            **{key: values[key] for key in copied},
            "width": values["width"],
            "height": values["height"],
            "sampler_name": self.sampler,
            "batch_size": self.batch_size,
            "restore_faces": bool(values["restore_faces"]),
            "face_restoration_model": None,
            "sd_model_name": self.checkpoint.model_name,
            "sd_model_hash": self.checkpoint.short_hash,
            "sd_vae_name": None,
            "sd_vae_hash": None,
            "denoising_strength": values["denoising_strength"],
            "extra_generation_params": self._extra(),
            "index_of_first_image": first_image,
            "infotexts": infotexts,
            "styles": values["styles"] or [],
            "job_timestamp": timestamp,
            "clip_skip": self.clip_skip,
            "is_using_inpainting_conditioning": False,
            "version": VERSION,
        }

    def _extra(self) -> dict[str, Any]:
        return {} if self.schedule == "Automatic" else {"Schedule type": self.schedule}


def plan(
    values: Mapping[str, Any], sources: Sources, checkpoint: Checkpoint, *, clip_skip: int, dice: random.Random
) -> Job:
    """Work a request out. Raises EngineError as the real pipeline trips over it."""
    _trip(values)
    batches, batch_size = values["n_iter"], values["batch_size"]
    size = _size(values)
    sampler, schedule = sampling(values["sampler_name"] or values["sampler_index"], values["scheduler"])
    if values.get("init_images") is not None:
        if not sources.images:
            shape = "Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: [0]"
            raise EngineError("RuntimeError", shape)
        if len(sources.images) > batch_size:
            most = f"bad number of images passed: {len(sources.images)}; expecting {batch_size} or less"
            raise EngineError("RuntimeError", most)
        batch_size = len(sources.images) if len(sources.images) > 1 else batch_size
    if size[0] * size[1] * batch_size > PIXELS_MOST:
        raise EngineError("OutOfMemoryError", out_of_memory(size, batch_size))
    seed, subseed = _fixed(values["seed"], dice), _fixed(values["subseed"], dice)
    step = 0 if values["subseed_strength"] else 1
    return Job(
        values=values,
        checkpoint=checkpoint,
        sources=sources,
        prompt=values["prompt"],
        sampler=sampler,
        schedule=schedule,
        size=size,
        batches=batches,
        batch_size=batch_size,
        stages=_stages(values),
        seeds=tuple(seed + step * index for index in range(batches * batch_size)),
        subseed=subseed,
        clip_skip=clip_skip,
    )


def out_of_memory(size: tuple[int, int], batch_size: int) -> str:
    """Return the words of CUDA's refusal for a batch of this size."""
    wanted_mib = max(2, size[0] * size[1] * batch_size * 64 // 2**20)
    return (
        f"CUDA out of memory. Tried to allocate {wanted_mib}.00 MiB. GPU 0 has a total capacity of 15.77 GiB of which "
        "12.88 MiB is free. Including non-PyTorch memory, this process has 15.75 GiB memory in use."
    )


def _trip(values: Mapping[str, Any]) -> None:
    """Raise what the real pipeline raises for values that pass its field checks but not its arithmetic."""
    for name in ("width", "height", "steps", "batch_size", "n_iter", "cfg_scale"):
        if values[name] is None:
            raise EngineError("TypeError", f"unsupported operand type(s): 'NoneType' for {name}")
    if values["prompt"] is None:
        raise EngineError("AssertionError")
    if values["batch_size"] <= 0 or values["n_iter"] <= 0:
        raise EngineError("IndexError", "list index out of range")
    if values["width"] < 8 or values["height"] < 8:
        shape = f"[{values['batch_size']}, 4, {values['height'] // 8}, {values['width'] // 8}]"
        raise EngineError("RuntimeError", f"Trying to create tensor with an impossible dimension: {shape}")
    if values["steps"] == 0:
        raise EngineError("ZeroDivisionError", "division by zero")
    if values["steps"] < 0:
        raise EngineError("RuntimeError", "number of steps must be non-negative")


def _size(values: Mapping[str, Any]) -> tuple[int, int]:
    """Return the pictures' real size: whole blocks of 8 pixels, enlarged by the high-resolution stage if asked."""
    width, height = values["width"], values["height"]
    if values.get("enable_hr"):
        to_width, to_height = values["hr_resize_x"] or 0, values["hr_resize_y"] or 0
        if to_width or to_height:
            width, height = to_width or width * to_height // height, to_height or height * to_width // width
        else:
            width, height = int(width * values["hr_scale"]), int(height * values["hr_scale"])
    return max(8, width // 8 * 8), max(8, height // 8 * 8)


def _stages(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the steps of each stage of a pass: img2img does a share of them, high resolution adds a stage."""
    steps: int = values["steps"]
    if values.get("init_images") is not None:
        return (int(min(values["denoising_strength"], 0.999) * steps) + 1,)
    if values.get("enable_hr"):
        return (steps, values["hr_second_pass_steps"] or steps)
    return (steps,)


def _fixed(seed: int | None, dice: random.Random) -> int:
    return dice.randrange(4294967294) if seed is None or seed == -1 else seed
