"""A task's payload, checked and completed as a body of the A1111 API: pure; it asks no engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.pace import Needs, work_size
from scheduler.domain.task import Task, TaskType
from scheduler.engines.sdwebui_names import Samplers
from scheduler.engines.seeds import pinned_seed
from scheduler.pictures import BadImage, Inspected, from_base64, inspect
from scheduler.wire.json_body import shorten

_SIZES = {"width": (512, 8), "height": (512, 8), "steps": (50, 1), "batch_size": (1, 1), "n_iter": (1, 1)}
"""Fields that decide how much is rendered: the engine's default and the least that makes sense."""
_INTEGERS = (
    *("seed", "subseed", "seed_resize_from_h", "seed_resize_from_w", "hr_resize_x", "hr_resize_y"),
    *("hr_second_pass_steps", "resize_mode", "mask_blur", "mask_blur_x", "mask_blur_y", "inpainting_fill"),
    *("inpaint_full_res_padding", "inpainting_mask_invert", "upscaling_resize_w", "upscaling_resize_h"),
)
_NUMBERS = (
    *("cfg_scale", "denoising_strength", "subseed_strength", "eta", "s_churn", "s_tmax", "s_tmin", "s_noise"),
    *("s_min_uncond", "hr_scale", "refiner_switch_at", "image_cfg_scale", "initial_noise_multiplier"),
    *("gfpgan_visibility", "codeformer_visibility", "codeformer_weight", "upscaling_resize"),
    *("extras_upscaler_2_visibility",),
)
MOST_IMAGES = 500
"""Images of one task: each takes some 200 bytes of a record that DynamoDB bounds at 400 KB."""
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1
_MOST_NUMBER = 1e9
"""Larger than any of the fields means; NaN and infinities are neither smaller nor larger."""
_ENGINE_PIXEL = 8
"""Sizes are multiples of this; others are rounded by the engine without a word."""
_BYTES_PER_PIXEL = 4 * 4 / 3
_BYTES_PER_IMAGE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Draft:
    """A body in the making: `images` must come of it, `pixels` in all."""

    body: dict[str, Any]
    images: int
    pixels: int
    warnings: tuple[str, ...] = ()

    def estimate_bytes(self, encoded: bytes) -> int:
        """Bound what the request and its answer take: four bytes a pixel in base64, and what surrounds them."""
        return len(encoded) + int(self.pixels * _BYTES_PER_PIXEL) + self.images * _BYTES_PER_IMAGE


def wanted_checkpoint(task: Task) -> str | None:
    """Return the checkpoint's name as the task gives it: the payload's own setting goes before the task's field."""
    override = task.payload.get("override_settings")
    named = override.get("sd_model_checkpoint") if isinstance(override, dict) else None
    return named if isinstance(named, str) and named else task.checkpoint


def needs(task: Task) -> Needs:
    """Return what a task asks of the engine, whatever its payload holds."""
    return Needs(wanted_checkpoint(task), work_size(task.payload))


def draft(task_type: TaskType, payload: Mapping[str, Any], *, seed_key: str, max_pixels: int) -> Draft:
    """Check a payload and complete it. Raises Rejected naming the field, its value, and what would be right."""
    body = dict(payload)
    for name in _INTEGERS:
        if body.get(name) is not None:
            body[name] = _integer(name, body[name])
    for name in _NUMBERS:
        if body.get(name) is not None:
            body[name] = _number(name, body[name])
    match task_type:
        case TaskType.TXT2IMG | TaskType.IMG2IMG:
            return _render(task_type, body, seed_key=seed_key, max_pixels=max_pixels)
        case TaskType.EXTRA_SINGLE | TaskType.EXTRA_BATCH:
            return _extras(task_type, body, max_pixels=max_pixels)
        case TaskType.PIPELINE:
            raise Rejected("a pipeline cannot run on an A1111 engine", field="task_type")


def encode(body: Mapping[str, Any]) -> bytes:
    """Return the body's JSON. Raises Rejected for what JSON cannot say."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        raise Rejected(f"the payload cannot be written as JSON: {error}", field="payload") from error


def choose_sampler(body: dict[str, Any], samplers: Samplers | None) -> str | None:
    """Put the engine's own names of sampler and schedule into `body`; return the sampler, None if none is named.

    Without a list (`samplers` is None) names stay as they are, and the answer will tell. Raises Rejected.
    """
    field = "sampler_name" if body.get("sampler_name") else "sampler_index"
    name, schedule = body.get(field) or None, body.get("scheduler") or None
    for given, where in ((name, field), (schedule, "scheduler")):
        if given is not None and not isinstance(given, str):
            raise _wrong(where, given, "must be a name")
    if samplers is None:
        return name
    if schedule is not None:
        label = samplers.schedule(schedule)
        if label is None:
            raise _wrong("scheduler", schedule, f"must be one of {samplers.near_schedule(schedule)}")
        body["scheduler"] = label
    if name is None:
        return None
    found = samplers.find(name)
    if found is None:
        raise _wrong(field, name, f"must be one of {samplers.near(name)}")
    body["sampler_name"] = found[0]
    if found[1] is not None:
        body["scheduler"] = found[1]
    return found[0]


def one_at_a_time(encoded: bytes) -> bytes | None:
    """Return a body that makes the same pictures one by one, None if this one cannot be cut smaller."""
    body = json.loads(encoded)
    batch, inputs = int(body.get("batch_size") or 1), body.get("init_images") or []
    if batch == 1 or len(inputs) > 1:
        return None
    return encode(body | {"batch_size": 1, "n_iter": int(body.get("n_iter") or 1) * batch})


def _render(task_type: TaskType, body: dict[str, Any], *, seed_key: str, max_pixels: int) -> Draft:
    for name in ("prompt", "negative_prompt"):
        if name in body:
            _check_text(name, body[name])
    size = {name: _size(name, body, default, least) for name, (default, least) in _SIZES.items()}
    overrides = body.get("override_settings")
    if overrides is not None and not isinstance(overrides, dict):
        raise _wrong("override_settings", overrides, "must be an object of settings")
    count = size["batch_size"] * size["n_iter"]
    if task_type is TaskType.IMG2IMG:
        inputs = _check_inputs(body, max_pixels=max_pixels)
        if inputs > 1:
            if inputs > size["batch_size"]:
                raise Rejected(
                    f"payload.init_images holds {inputs} images; more than one need a batch_size as large",
                    field="payload.init_images",
                )
            count = inputs * size["n_iter"]
    pixels = _bound(body, size, max_pixels=max_pixels)
    if count > MOST_IMAGES:
        raise Rejected(
            f"batch_size {size['batch_size']} x n_iter {size['n_iter']} make {count} images; "
            f"a task may ask for {MOST_IMAGES}",
            field="payload.n_iter",
        )
    _pin_seeds(body, seed_key)
    warnings = [
        f"{name} {size[name]} is no multiple of {_ENGINE_PIXEL}: the engine rounds it"
        for name in ("width", "height")
        if size[name] % _ENGINE_PIXEL
    ]
    if body.get("override_settings_restore_afterwards") is False:
        warnings.append("override_settings_restore_afterwards is ignored: settings are restored after every task")
    body.pop("override_settings_restore_afterwards", None)
    for name in ("do_not_save_samples", "do_not_save_grid"):
        body.pop(name, None)
    return Draft(body | {"send_images": True, "save_images": False}, count, pixels, tuple(warnings))


def _bound(body: Mapping[str, Any], size: Mapping[str, int], *, max_pixels: int) -> int:
    """Return the pixels of all pictures, the second pass of `enable_hr` included; Rejected if they are too many."""
    width, height = size["width"], size["height"]
    if body.get("enable_hr"):
        wide, high = int(body.get("hr_resize_x") or 0), int(body.get("hr_resize_y") or 0)
        scale = float(body.get("hr_scale") or 2)
        if wide <= 0 and high <= 0:
            wide, high = int(width * scale), int(height * scale)
        wide, high = (wide or width * high // height), (high or height * wide // width)
        width, height = max(width, wide), max(height, high)
    pixels = width * height * size["batch_size"] * size["n_iter"]
    if pixels > max_pixels:
        raise Rejected(
            f"width x height x batch_size x n_iter is {width} x {height} x {size['batch_size']} x {size['n_iter']} "
            f"= {pixels} pixels; at most {max_pixels} (max_pixels) are rendered for one task",
            field="payload.width" if size["batch_size"] * size["n_iter"] == 1 else "payload.batch_size",
        )
    return pixels


def _pin_seeds(body: dict[str, Any], seed_key: str) -> None:
    """Replace random seeds by ones that the next attempt at the same run will find again."""
    if body.get("seed") in (None, -1):
        body["seed"] = pinned_seed(seed_key)
    if (body.get("subseed_strength") or 0) > 0 and body.get("subseed") in (None, -1):
        body["subseed"] = pinned_seed(f"{seed_key}:subseed")


def _check_inputs(body: Mapping[str, Any], *, max_pixels: int) -> int:
    """Check the images that img2img starts from, and the masks; return how many there are of the former."""
    images = body.get("init_images")
    if not isinstance(images, list) or not images:
        raise _wrong("init_images", images, "must be a list with at least one image in base64")
    for index, image in enumerate(images):
        _check_image(f"init_images.{index}", image, max_pixels=max_pixels)
    for name in ("mask", "latent_mask"):
        if body.get(name) is not None:
            _check_image(name, body[name], max_pixels=max_pixels)
    return len(images)


def _extras(task_type: TaskType, body: dict[str, Any], *, max_pixels: int) -> Draft:
    if task_type is TaskType.EXTRA_SINGLE:
        seen = [_check_image("image", body.get("image"), max_pixels=max_pixels)]
    else:
        entries = body.get("imageList")
        if not isinstance(entries, list) or not entries:
            raise _wrong("imageList", entries, "must be a list of at least one {data, name}")
        seen = []
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise _wrong(f"imageList.{index}", entry, "must be an object with data (base64) and name")
            seen.append(_check_image(f"imageList.{index}.data", entry.get("data"), max_pixels=max_pixels))
    pixels = sum(_upscaled(body, one) for one in seen)
    if pixels > max_pixels:
        raise Rejected(
            f"the images would come out with {pixels} pixels in all; at most {max_pixels} (max_pixels) are made for "
            "one task",
            field="payload.upscaling_resize" if body.get("resize_mode") != 1 else "payload.upscaling_resize_w",
        )
    return Draft(body, len(seen), pixels)


def _upscaled(body: Mapping[str, Any], seen: Inspected) -> int:
    if body.get("upscaler_1") in (None, "", "None"):
        return seen.width * seen.height
    if body.get("resize_mode") == 1:
        return int(body.get("upscaling_resize_w") or 512) * int(body.get("upscaling_resize_h") or 512)
    scale = body.get("upscaling_resize")
    if scale is not None and scale <= 0:
        raise _wrong("upscaling_resize", scale, "must be more than 0")
    return int(seen.width * seen.height * float(2 if scale is None else scale) ** 2)


def _check_image(name: str, value: Any, *, max_pixels: int) -> Inspected:
    if not isinstance(value, str):
        raise _wrong(name, value, "must be an image in base64, bare or as a data URI")
    try:
        return inspect(from_base64(value), max_pixels=max_pixels, thorough=False)
    except BadImage as error:
        raise _wrong(name, value, f"must be an image in base64: {error}") from error


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise _wrong(name, value, "must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(name, value, "holds half a character (a lone surrogate)") from error


def _size(name: str, body: dict[str, Any], default: int, least: int) -> int:
    if name not in body:
        return default
    value = body[name] = _integer(name, body[name])
    if value < least:
        raise _wrong(name, value, f"must be at least {least}")
    return value


def _integer(name: str, value: Any) -> int:
    """Return a whole number, from text too, as the engine itself would read it."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = int(value)
        except ValueError:
            raise _wrong(name, value, "must be a whole number") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not _LEAST_INT <= value <= _MOST_INT:
        raise _wrong(name, value, "must be a whole number")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _wrong(name, value, "must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MOST_NUMBER:
        raise _wrong(name, value, "must be a number")
    return value


def _wrong(name: str, value: Any, right: str) -> Rejected:
    return Rejected(f"payload.{name} is {shorten(value)}: it {right}", field=f"payload.{name}")
