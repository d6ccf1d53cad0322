"""The two kinds of request: their paths, their fields with the API's own defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scheduler.local.standin.fields import Field, Misfit, integer, number, text

SAMPLERS = ("sa_solver", "lcm", "euler_a", "er_sde")
IMAGES = ("image_url", "image2_url", "image3_url")


def sampler(value: Any) -> str:
    """Read one of the samplers' names."""
    if value in SAMPLERS:
        return str(value)
    listed = ", ".join(f"'{name}'" for name in SAMPLERS)
    raise Misfit(f"unexpected value; permitted: {listed}", "value_error.const", given=value, permitted=list(SAMPLERS))


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of request, by the part of the path that names it."""

    kind: str
    fields: tuple[Field, ...]


CAMERA_ANGLE = Form(
    "camera-angle",
    (
        Field("image_url", text, nullable=False, required=True),
        Field("prompt", text, nullable=False, required=True),
        Field("seed", integer),
        Field("steps", integer, 8, nullable=False),
    ),
)
IMAGE_EDIT = Form(
    "qwen-image-edit",
    (
        Field("image_url", text, nullable=False, required=True),
        Field("image2_url", text),
        Field("image3_url", text),
        Field("prompt", text, nullable=False, required=True),
        Field("seed", integer),
        Field("steps", integer, 4, nullable=False),
        Field("cfg", number, 1.0, nullable=False),
        Field("sampler_name", sampler, SAMPLERS[0], nullable=False),
    ),
)
FORMS = (CAMERA_ANGLE, IMAGE_EDIT)
