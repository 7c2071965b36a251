"""Sheets of pictures with captions, for the experiments and the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from PIL import Image, ImageDraw, ImageFont

from nst_daemon.report.contact_sheet import shortened

MARGIN = 6  # pixels between and around
TEXT = 12  # height of a caption's letters


def captioned_sheet(
    cells: Sequence[tuple[str, Image.Image]], *, columns: int, height: int
) -> Image.Image:
    """Draw pictures of equal height in rows, with captions, on white.

    Args:
        cells: captions and pictures. Captions that are wider than their picture are cut.
        columns: number of pictures in a row.
        height: height of a picture in pixels.
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
        caption = shortened(text, draw, font, picture.width)
        draw.text((x, y + height + MARGIN // 2), caption, fill="black", font=font)
    return sheet


def _at_height(picture: Image.Image, height: int) -> Image.Image:
    width = max(1, round(picture.width * height / picture.height))
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
