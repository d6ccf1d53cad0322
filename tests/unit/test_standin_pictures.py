"""What the stand-in paints: the same for the same request, told apart otherwise, at the size asked."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image, ImageChops, ImageStat

from scheduler.local.standin import painter, pictures
from scheduler.local.standin.refusals import EngineError

EXTRAS = {
    "upscaler_1": "Lanczos",
    "resize_mode": 0,
    "upscaling_resize": 2.0,
    "upscaling_resize_w": 96,
    "upscaling_resize_h": 64,
    "upscaling_crop": True,
}


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of the two pictures' levels, 0..255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def test_the_same_words_and_seed_and_checkpoint_paint_the_same_picture() -> None:
    assert painter.paint("a cat", 1, "dawn", (96, 64)) == painter.paint("a cat", 1, "dawn", (96, 64))


@pytest.mark.parametrize(
    ("prompt", "seed", "checkpoint"), [("a dog", 1, "dawn"), ("a cat", 2, "dawn"), ("a cat", 1, "dusk")]
)
def test_another_prompt_seed_or_checkpoint_paints_a_visibly_other_one(prompt: str, seed: int, checkpoint: str) -> None:
    usual = painter.paint("a cat", 1, "dawn", (128, 128))
    assert distance(usual, painter.paint(prompt, seed, checkpoint, (128, 128))) > 8


@pytest.mark.parametrize("size", [(8, 8), (8, 512), (64, 64), (136, 264), (512, 512)])
@pytest.mark.parametrize("prompt", ["", "a cat", "猫 🐈 \ud800 \n\n two lines", "long " * 200])
def test_any_prompt_is_painted_at_exactly_the_size_asked(prompt: str, size: tuple[int, int]) -> None:
    picture = painter.paint(prompt, 7, "dawn", size)
    painter.caption(picture, prompt, "seed 7")
    assert (picture.mode, picture.size) == ("RGB", size)


def test_the_caption_is_written_at_the_bottom_where_there_is_room() -> None:
    for size, written in (((512, 512), True), ((64, 64), False)):
        plain = painter.paint("a cat", 1, "dawn", size)
        named = plain.copy()
        painter.caption(named, "a cat", "seed 1")
        box = ImageChops.difference(plain, named).getbbox()
        assert (box is not None) == written
        assert box is None or box[1] > size[1] * 0.8


def test_less_done_is_further_from_the_picture() -> None:
    whole = painter.paint("a cat", 1, "dawn", (128, 128))
    distances = [distance(whole, painter.half_done(whole, done, 1)) for done in (0.0, 0.5, 0.95)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] > 5


def test_a_png_carries_its_words() -> None:
    encoded = pictures.encode(Image.new("RGB", (8, 8)), "a cat\nSteps: 1", "png")
    data = base64.b64decode(encoded, validate=True)
    assert b"tEXtparameters\0a cat" in data
    assert Image.open(io.BytesIO(data)).text == {"parameters": "a cat\nSteps: 1"}


@pytest.mark.parametrize(("form", "found"), [("png", "PNG"), ("jpg", "JPEG"), ("WEBP", "WEBP")])
def test_the_chosen_format_is_used(form: str, found: str) -> None:
    encoded = pictures.encode(Image.new("RGB", (8, 8)), "", form)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).format == found


@pytest.mark.parametrize("encoded", ["%%%", "", "bm90IGFuIGltYWdl", "data:image/png;base64", None, 5])
def test_what_is_no_picture_is_refused_behind_a_500(encoded: object) -> None:
    with pytest.raises(EngineError) as refusal:
        pictures.decode(encoded)
    assert refusal.value.status == 500
    assert refusal.value.body["detail"] == "Invalid encoded image"


def test_a_picture_cut_short_is_refused_too() -> None:
    whole = pictures.encode(painter.paint("a cat", 1, "dawn", (64, 64)), "", "png")
    with pytest.raises(EngineError, match="Invalid encoded image"):
        pictures.decode(pictures.cut_in_half(whole))


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.png", "https://pictures.example/a.png"])
def test_nothing_is_ever_fetched(url: str) -> None:
    with pytest.raises(EngineError, match="Request to local resource not allowed"):
        pictures.decode(url)


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({}, (128, 96)),
        ({"upscaler_1": "None"}, (64, 48)),
        ({"resize_mode": 1}, (96, 64)),
        ({"resize_mode": 1, "upscaling_crop": False}, (96, 72)),
    ],
)
def test_upscaling(wish: dict[str, object], size: tuple[int, int]) -> None:
    assert pictures.upscaled(Image.new("RGB", (64, 48)), EXTRAS | wish).size == size


def test_an_unknown_upscaler_is_an_error() -> None:
    with pytest.raises(EngineError) as refusal:
        pictures.upscaled(Image.new("RGB", (8, 8)), EXTRAS | {"upscaler_1": "NoSuch"})
    assert refusal.value.body["error"] == "AssertionError"


def test_a_grid_holds_all_pictures() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    grid = pictures.contact_grid([Image.new("RGB", (8, 16), colour) for colour in colours])
    assert grid.size == (24, 16)
    assert [grid.getpixel((x, 8)) for x in (4, 12, 20)] == colours
