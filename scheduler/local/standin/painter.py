"""Pictures from words: the same prompt, seed and checkpoint always give the same one, at exactly the size asked."""

from __future__ import annotations

import colorsys
import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Scene = Callable[[ImageDraw.ImageDraw, "Palette", random.Random, int, int], None]
CAPTION_LEAST_PX = 128
"""Below this height or width a caption would cover the picture."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one picture: a hue from the prompt, a second one beside it, a mood from the checkpoint."""

    hue: float
    accent: float
    saturation: float
    light: float

    def colour(self, mix: float, light: float, saturation: float = 1.0) -> Colour:
        """Return the colour `mix` of the way (0..1) from the main hue to the accent, at `light` (0..1)."""
        hue = (self.hue + (self.accent - self.hue) * mix) % 1.0
        level = min(1.0, max(0.0, light * self.light))
        red, green, blue = colorsys.hls_to_rgb(hue, level, min(1.0, self.saturation * saturation))
        return round(red * 255), round(green * 255), round(blue * 255)


def paint(prompt: str, seed: int, checkpoint: str, size: tuple[int, int]) -> Image.Image:
    """Return the picture of a prompt, without its caption."""
    width, height = size
    words = hashlib.sha256(prompt.encode("utf-8", "replace")).digest()
    mood = hashlib.sha256(checkpoint.encode("utf-8", "replace")).digest()
    dice = random.Random(f"{prompt}\0{seed}\0{checkpoint}".encode("utf-8", "replace"))
    hue = words[0] / 256 + mood[0] / 1024
    palette = Palette(
        hue=hue,
        accent=hue + 0.10 + words[1] / 900,
        saturation=0.42 + mood[1] / 560,
        light=0.82 + mood[2] / 850,
    )
    picture = _sky(palette, dice).resize(size, Image.Resampling.BICUBIC)
    scene = SCENES[words[2] % len(SCENES)]
    shapes = Image.new("RGBA", (width * 2, height * 2))
    scene(ImageDraw.Draw(shapes), palette, dice, width * 2, height * 2)
    shapes = shapes.reduce(2)  # drawn at twice the size, so that edges come out smooth
    picture.paste(shapes, (0, 0), shapes)
    return picture


def half_done(picture: Image.Image, done: float, seed: int) -> Image.Image:
    """Return what an interrupt leaves after the share `done` (0..1) of the steps: coarse noise over the picture."""
    width, height = picture.size
    grain = (max(1, width // 6), max(1, height // 6))
    noise = Image.frombytes("RGB", grain, random.Random(seed).randbytes(grain[0] * grain[1] * 3))
    return Image.blend(noise.resize(picture.size, Image.Resampling.NEAREST), picture, 0.2 + 0.6 * done)


def caption(picture: Image.Image, prompt: str, note: str) -> None:
    """Write the prompt and a note in small type along the bottom, where there is room."""
    width, height = picture.size
    if min(width, height) < CAPTION_LEAST_PX:
        return
    points = max(10, min(18, height // 32))
    face = _face(points)
    longest = int(width / (points * 0.56))
    line = " ".join(prompt.split()) or "(no prompt)"
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    strip = round(points * 3.2)
    top = height - strip
    shade = picture.crop((0, top, width, height)).point(lambda level: level * 0.4)
    picture.paste(shade, (0, top))
    pen = ImageDraw.Draw(picture)
    pen.text((points, top + points * 0.3), line, fill=(250, 250, 250), font=face)
    pen.text((points, top + points * 1.6), note[:longest], fill=(200, 205, 215), font=face)


@lru_cache(maxsize=16)
def _face(points: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(points)


def _sky(palette: Palette, dice: random.Random) -> Image.Image:
    """Return a few soft blots of colour, light above and deep below, to be stretched over the picture."""
    blots = Image.new("RGB", (4, 5))
    for y in range(5):
        for x in range(4):
            blots.putpixel((x, y), palette.colour(dice.random(), 0.82 - 0.1 * y + dice.uniform(-0.06, 0.06), 0.85))
    return blots


def _sun(pen: ImageDraw.ImageDraw, palette: Palette, dice: random.Random, width: int, height: int) -> None:
    x, y = dice.uniform(0.15, 0.85) * width, dice.uniform(0.14, 0.38) * height
    radius = dice.uniform(0.06, 0.12) * min(width, height)
    tint = palette.colour(dice.random(), 0.95)
    for halo, alpha in ((2.4, 40), (1.6, 70), (1.0, 235)):
        _disc(pen, x, y, radius * halo, (*tint, alpha))


def _hills(pen: ImageDraw.ImageDraw, palette: Palette, dice: random.Random, width: int, height: int) -> None:
    _sun(pen, palette, dice, width, height)
    layers = 5
    for layer in range(layers):
        depth = layer / (layers - 1)
        base = height * (0.42 + 0.13 * layer)
        waves = [(dice.uniform(0.6, 2.6), dice.uniform(0, math.tau), dice.uniform(0.02, 0.07)) for _ in range(3)]
        ridge = [
            (
                x * width / 48,
                base
                + height * sum(reach * math.sin(turns * math.tau * x / 48 + shift) for turns, shift, reach in waves),
            )
            for x in range(49)
        ]
        shade = palette.colour(0.2 + 0.7 * depth, 0.62 - 0.44 * depth, 0.9)
        pen.polygon([(0, height), *ridge, (width, height)], fill=(*shade, 235))


def _city(pen: ImageDraw.ImageDraw, palette: Palette, dice: random.Random, width: int, height: int) -> None:
    _sun(pen, palette, dice, width, height)
    for row in range(3):
        left, unit = 0.0, width / (16 - 3 * row)
        wall = palette.colour(0.5 * row, 0.46 - 0.15 * row, 0.8)
        lamp = palette.colour(1.0, 0.86)
        while left < width:
            wide = unit * dice.uniform(0.6, 1.3)
            top = height * (0.78 - 0.06 * (2 - row) - dice.random() * (0.42 - 0.1 * row))
            pen.rectangle((left, top, left + wide, height), fill=(*wall, 240))
            if row:
                _windows(pen, dice, (left, top, left + wide, height), (*lamp, 190))
            left += wide * 1.04


def _windows(
    pen: ImageDraw.ImageDraw,
    dice: random.Random,
    wall: tuple[float, float, float, float],
    lamp: tuple[int, int, int, int],
) -> None:
    left, top, right, bottom = wall
    pane = (right - left) / 7
    if pane < 2:
        return
    for floor in range(int((bottom - top) / (pane * 2.2))):
        for column in range(3):
            if dice.random() < 0.4:
                x, y = left + pane * (1 + 2 * column), top + pane * (1 + 2.2 * floor)
                pen.rectangle((x, y, x + pane, y + pane * 1.2), fill=lamp)


def _orbs(pen: ImageDraw.ImageDraw, palette: Palette, dice: random.Random, width: int, height: int) -> None:
    reach = min(width, height)
    for index in range(14):
        x, y = dice.random() * width, dice.random() * height
        radius = reach * dice.uniform(0.04, 0.2) * (1.3 - index / 20)
        tint = palette.colour(dice.random(), dice.uniform(0.3, 0.85))
        _disc(pen, x, y, radius, (*tint, 120))
        _disc(pen, x, y, radius * 0.72, (*palette.colour(dice.random(), 0.7), 150))
        pen.ellipse(
            (x - radius * 1.2, y - radius * 1.2, x + radius * 1.2, y + radius * 1.2),
            outline=(*palette.colour(1.0, 0.92), 130),
            width=max(1, reach // 200),
        )


def _waves(pen: ImageDraw.ImageDraw, palette: Palette, dice: random.Random, width: int, height: int) -> None:
    _sun(pen, palette, dice, width, height)
    bands = 9
    for band in range(bands):
        depth = band / (bands - 1)
        base = height * (0.45 + 0.065 * band)
        turns, shift, reach = dice.uniform(1.5, 4.0), dice.uniform(0, math.tau), height * (0.012 + 0.02 * depth)
        crest = [(x * width / 64, base + reach * math.sin(turns * math.tau * x / 64 + shift) ** 3) for x in range(65)]
        pen.polygon([(0, height), *crest, (width, height)], fill=(*palette.colour(depth, 0.7 - 0.48 * depth), 215))
        pen.line(crest, fill=(*palette.colour(1.0, 0.95), 120), width=max(1, height // 260))


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, int, int, int]) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


SCENES: tuple[Scene, ...] = (_hills, _city, _orbs, _waves)
