"""The fields of the routes that make pictures, with the real server's defaults; data only."""

from __future__ import annotations

from typing import Any

from scheduler.local.standin.fields import (
    Field,
    Misfit,
    above_zero,
    array,
    between,
    flag,
    integer,
    mapping,
    number,
    text,
    zero_or_one,
)


def _texts(value: Any) -> list[str]:
    return [text(entry) for entry in array(value)]


def _files(value: Any) -> list[dict[str, str]]:
    files: list[dict[str, str]] = []
    for entry in array(value):
        found = mapping(entry)
        if "data" not in found or "name" not in found:
            raise Misfit("field required", "value_error.missing")
        files.append({"data": text(found["data"]), "name": text(found["name"])})
    return files


_COMMON = (
    Field("prompt", text, ""),
    Field("negative_prompt", text, ""),
    Field("styles", _texts),
    Field("seed", integer, -1),
    Field("subseed", integer, -1),
    Field("subseed_strength", number, 0),
    Field("seed_resize_from_h", integer, -1),
    Field("seed_resize_from_w", integer, -1),
    Field("sampler_name", text),
    Field("scheduler", text),
    Field("batch_size", integer, 1),
    Field("n_iter", integer, 1),
    Field("steps", integer, 50),
    Field("cfg_scale", number, 7.0),
    Field("width", integer, 512),
    Field("height", integer, 512),
    Field("restore_faces", flag),
    Field("tiling", flag),
    Field("do_not_save_samples", flag, default=False),
    Field("do_not_save_grid", flag, default=False),
    Field("eta", number),
    Field("s_min_uncond", number),
    Field("s_churn", number),
    Field("s_tmax", number),
    Field("s_tmin", number),
    Field("s_noise", number),
    Field("override_settings", mapping),
    Field("override_settings_restore_afterwards", flag, default=True),
    Field("refiner_checkpoint", text),
    Field("refiner_switch_at", number),
    Field("disable_extra_networks", flag, default=False),
    Field("firstpass_image", text),
    Field("comments", mapping),
    Field("force_task_id", text),
    Field("sampler_index", text, "Euler", nullable=False),
    Field("script_name", text),
    Field("script_args", array, [], nullable=False),
    Field("send_images", flag, default=True, nullable=False),
    Field("save_images", flag, default=False, nullable=False),
    Field("alwayson_scripts", mapping, {}, nullable=False),
    Field("infotext", text),
)

TXT2IMG = (
    *_COMMON,
    Field("denoising_strength", number),
    Field("enable_hr", flag, default=False),
    Field("firstphase_width", integer, 0),
    Field("firstphase_height", integer, 0),
    Field("hr_scale", number, 2.0),
    Field("hr_upscaler", text),
    Field("hr_second_pass_steps", integer, 0),
    Field("hr_resize_x", integer, 0),
    Field("hr_resize_y", integer, 0),
    Field("hr_checkpoint_name", text),
    Field("hr_sampler_name", text),
    Field("hr_scheduler", text),
    Field("hr_prompt", text, ""),
    Field("hr_negative_prompt", text, ""),
)
"""The 55 fields of txt2img."""

IMG2IMG = (
    *_COMMON,
    Field("denoising_strength", number, 0.75, nullable=False),
    Field("init_images", array),
    Field("resize_mode", integer, 0),
    Field("image_cfg_scale", number),
    Field("mask", text),
    Field("mask_blur_x", integer, 4),
    Field("mask_blur_y", integer, 4),
    Field("mask_blur", integer),
    Field("mask_round", flag, default=True),
    Field("inpainting_fill", integer, 0),
    Field("inpaint_full_res", flag, default=True),
    Field("inpaint_full_res_padding", integer, 0),
    Field("inpainting_mask_invert", integer, 0),
    Field("initial_noise_multiplier", number),
    Field("latent_mask", text),
    Field("include_init_images", flag, default=False, nullable=False),
)

_EXTRAS = (
    Field("resize_mode", zero_or_one, 0, nullable=False),
    Field("show_extras_results", flag, default=True, nullable=False),
    Field("gfpgan_visibility", between(0, 1), 0, nullable=False),
    Field("codeformer_visibility", between(0, 1), 0, nullable=False),
    Field("codeformer_weight", between(0, 1), 0, nullable=False),
    Field("upscaling_resize", above_zero, 2, nullable=False),
    Field("upscaling_resize_w", integer, 512, nullable=False),
    Field("upscaling_resize_h", integer, 512, nullable=False),
    Field("upscaling_crop", flag, default=True, nullable=False),
    Field("upscaler_1", text, "None", nullable=False),
    Field("upscaler_2", text, "None", nullable=False),
    Field("extras_upscaler_2_visibility", between(0, 1), 0, nullable=False),
    Field("upscale_first", flag, default=False, nullable=False),
)

EXTRA_SINGLE = (*_EXTRAS, Field("image", text, "", nullable=False))

EXTRA_BATCH = (*_EXTRAS, Field("imageList", _files, required=True, nullable=False))

INTERNAL_PROGRESS = (
    Field("id_task", text, nullable=False),
    Field("id_live_preview", integer, -1, nullable=False),
    Field("live_preview", flag, default=True, nullable=False),
)
