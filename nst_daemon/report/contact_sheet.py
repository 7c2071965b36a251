"""Pictures in rows and columns, each with a line of text under it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from PIL import Image, ImageDraw, ImageFont

MARGIN = 6  # pixels between and around
TEXT = 12  # height of a caption's letters


def contact_sheet(
    cells: Sequence[tuple[str, Image.Image]], *, columns: int, height: int
) -> Image.Image:
    """All pictures at one height, `columns` to a row, on white.

    cells: (caption, picture); captions that are wider than their picture are cut.
    """
    small = [(text, _at_height(picture, height)) for text, picture in cells]
    width = max(picture.width for _, picture in small) + MARGIN
    row = height + TEXT + 2 * MARGIN
    rows = ceil(len(small) / columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * row + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT)
    for i, (text, picture) in enumerate(small):
        x, y = MARGIN + i % columns * width, MARGIN + i // columns * row
        sheet.paste(picture, (x, y))
        fitting = text
        while fitting and draw.textlength(fitting, font) > picture.width:
            fitting = fitting[:-1]
        draw.text((x, y + height + MARGIN // 2), fitting, fill="black", font=font)
    return sheet


def _at_height(picture: Image.Image, height: int) -> Image.Image:
    width = max(1, round(picture.width * height / picture.height))
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
