"""Sheets of pictures with captions, for the experiments, the looks and the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from PIL import Image, ImageDraw, ImageFont

from nst_daemon.report.contact_sheet import shortened

MARGIN = 6  # pixels between and around
TEXT = 12  # height of a caption's letters
LINE = 15  # from one line of a caption to the next

Cell = tuple[str, Image.Image | None]


def captioned_sheet(
    cells: Sequence[Cell], *, columns: int, height: int, widest: float | None = None
) -> Image.Image:
    """Draw pictures of equal height in rows, with captions, on white.

    Args:
        cells: captions and pictures, row by row; a cell may have no picture. A caption may have several lines; lines
            that are wider than their column are cut.
        columns: number of pictures in a row.
        height: height of a picture in pixels.
        widest: largest width of a picture in heights; wider pictures are drawn less high.
    """
    small = [(text, picture and _fitted(picture, height, widest)) for text, picture in cells]
    rows = ceil(len(small) / columns)
    widths = [
        max((p.width for _, p in small[i::columns] if p), default=height) for i in range(columns)
    ]
    lines = max(text.count("\n") + 1 for text, _ in small)
    row = height + LINE * lines + 2 * MARGIN - (LINE - TEXT)
    size = (sum(widths) + MARGIN * (columns + 1), rows * row + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT)
    for i, (text, picture) in enumerate(small):
        column = i % columns
        x, y = MARGIN * (column + 1) + sum(widths[:column]), MARGIN + i // columns * row
        if picture:
            sheet.paste(picture, (x, y))
        y += height + MARGIN // 2
        for n, line in enumerate(text.split("\n")):
            caption = shortened(line, draw, font, widths[column])
            draw.text((x, y + n * LINE), caption, fill="black", font=font)
    return sheet


def _fitted(picture: Image.Image, height: int, widest: float | None) -> Image.Image:
    width = picture.width * height / picture.height
    factor = 1.0 if widest is None else min(1.0, widest * height / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
