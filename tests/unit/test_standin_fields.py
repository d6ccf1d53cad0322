"""How the stand-in reads bodies: what the real server lets through, and in which words it refuses the rest."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.local.standin.fields import Field, json_object, read
from scheduler.local.standin.forms import EXTRA_BATCH, EXTRA_SINGLE, IMG2IMG, TXT2IMG
from scheduler.local.standin.refusals import Invalid, Plain


def problems(fields: tuple[Field, ...], body: dict[str, Any]) -> list[dict[str, Any]]:
    with pytest.raises(Invalid) as refusal:
        read(fields, body)
    assert refusal.value.status == 422
    return refusal.value.body["detail"]


@pytest.mark.parametrize(
    ("name", "sent", "kept"),
    [
        ("steps", "12", 12),
        ("steps", 1.9, 1),
        ("steps", True, 1),
        ("steps", None, None),
        ("cfg_scale", "7.5", 7.5),
        ("prompt", 5, "5"),
        ("prompt", None, None),
        ("send_images", "off", False),
        ("send_images", 1, True),
        ("styles", ["a", 2], ["a", "2"]),
        ("override_settings", [["a", 1]], {"a": 1}),
    ],
)
def test_lenient_reading(name: str, sent: Any, kept: Any) -> None:
    assert read(TXT2IMG, {name: sent})[name] == kept


@pytest.mark.parametrize(
    ("name", "sent", "message", "kind"),
    [
        ("steps", "abc", "value is not a valid integer", "type_error.integer"),
        ("steps", [], "value is not a valid integer", "type_error.integer"),
        ("seed", float("inf"), "value is not a valid integer", "type_error.integer"),
        ("cfg_scale", "x", "value is not a valid float", "type_error.float"),
        ("prompt", ["a"], "str type expected", "type_error.str"),
        ("send_images", "perhaps", "value could not be parsed to a boolean", "type_error.bool"),
        ("script_args", "x", "value is not a valid list", "type_error.list"),
        ("alwayson_scripts", 3, "value is not a valid dict", "type_error.dict"),
        ("sampler_index", None, "none is not an allowed value", "type_error.none.not_allowed"),
    ],
)
def test_misfits(name: str, sent: Any, message: str, kind: str) -> None:
    assert problems(TXT2IMG, {name: sent}) == [{"loc": ["body", name], "msg": message, "type": kind}]


def test_all_misfits_are_told_at_once() -> None:
    told = problems(TXT2IMG, {"steps": "x", "seed": "y", "prompt": "fine"})
    assert {entry["loc"][1] for entry in told} == {"steps", "seed"}


@pytest.mark.parametrize(
    ("name", "sent", "kind"),
    [
        ("resize_mode", 2, "value_error.const"),
        ("gfpgan_visibility", 1.5, "value_error.number.not_le"),
        ("gfpgan_visibility", -1, "value_error.number.not_ge"),
        ("upscaling_resize", 0, "value_error.number.not_gt"),
    ],
)
def test_extras_have_bounds(name: str, sent: Any, kind: str) -> None:
    assert [entry["type"] for entry in problems(EXTRA_SINGLE, {name: sent})] == [kind]


def test_a_batch_of_extras_needs_its_images() -> None:
    assert problems(EXTRA_BATCH, {}) == [
        {"loc": ["body", "imageList"], "msg": "field required", "type": "value_error.missing"}
    ]


def test_defaults_are_not_shared_between_requests() -> None:
    read(TXT2IMG, {})["script_args"].append("mine")
    assert read(TXT2IMG, {})["script_args"] == []


def test_txt2img_has_the_captured_number_of_fields_and_img2img_its_own_defaults() -> None:
    assert len(read(TXT2IMG, {})) == 55
    assert read(IMG2IMG, {})["denoising_strength"] == 0.75
    assert read(IMG2IMG, {})["init_images"] is None


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/json; charset=utf-8", "application/x+json"]
)
def test_json_is_read_as_such(content_type: str | None) -> None:
    assert json_object(b'{"a": 1}', content_type) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "content_type", "kind"),
    [
        (b"", "application/json", "value_error.missing"),
        (b"null", "application/json", "value_error.missing"),
        (b"[]", "application/json", "type_error.dict"),
        (b"{}", "text/plain", "type_error.dict"),
        (b"{nope", "application/json", "value_error.jsondecode"),
    ],
)
def test_bodies_that_are_no_object(body: bytes, content_type: str, kind: str) -> None:
    with pytest.raises(Invalid) as refusal:
        json_object(body, content_type)
    assert refusal.value.body["detail"][0]["type"] == kind


def test_a_body_that_is_no_text() -> None:
    with pytest.raises(Plain) as refusal:
        json_object(b'{"a": "\xff"}', "application/json")
    assert refusal.value.status == 400
