"""One PNG with every picture of a run on it, each with its task's name: what a person looks at first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL_PX = 240
LABEL_PX = 22
GAP_PX = 12
COLUMNS = 5
PAPER, INK = (24, 25, 28), (222, 224, 228)


def write(pictures: Sequence[tuple[str, Path]], target: Path) -> None:
    """Write the sheet of (label, file) pictures to `target`, in rows of five."""
    columns = max(1, min(COLUMNS, len(pictures)))
    rows = -(-len(pictures) // columns)
    width = GAP_PX + columns * (CELL_PX + GAP_PX)
    height = GAP_PX + rows * (CELL_PX + LABEL_PX + GAP_PX)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for n, (label, file) in enumerate(pictures):
        left = GAP_PX + n % columns * (CELL_PX + GAP_PX)
        top = GAP_PX + n // columns * (CELL_PX + LABEL_PX + GAP_PX)
        with Image.open(file) as picture:
            picture.thumbnail((CELL_PX, CELL_PX))
            sheet.paste(picture, (left + (CELL_PX - picture.width) // 2, top + (CELL_PX - picture.height) // 2))
        draw.text((left, top + CELL_PX + 4), label, fill=INK, font=font)
    sheet.save(target)
