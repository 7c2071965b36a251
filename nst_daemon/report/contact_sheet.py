"""A table of pictures with labels along its margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from nst_daemon.pictures.decode import DEFAULT_LIMITS, PictureLimits
from nst_daemon.report import loss_plot
from nst_daemon.report.thumbnails import ResultLimits, load

MARGIN = 6  # pixels between and around

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Label:
    """A label in a margin: text, and a picture above it if there is one."""

    text: str
    picture: Path | None = None


def grid(
    cells: Mapping[tuple[int, int], Path],
    rows: Sequence[Sequence[Label]],
    columns: Sequence[Sequence[Label]],
    *,
    side: int,
    limits: PictureLimits = DEFAULT_LIMITS,
) -> Image.Image:
    """Draw a table of pictures on white. Pictures keep their proportions within their cells.

    Args:
        cells: picture files by (row, column); cells may be missing.
        rows: the labels of each row.
        columns: the labels of each column.
        side: side of a cell in pixels.
        limits: of the pictures in the margins; those in the cells may have any format.
    """
    font = _font(max(11, side // 15))
    line = int(font.size * 1.3)
    lines = max(len(labels) for labels in columns)
    pictured = any(label.picture for labels in columns for label in labels)
    top = lines * line + 2 * MARGIN + (side // 2 + MARGIN if pictured else 0)
    step = side + MARGIN
    sheet = Image.new("RGB", ((len(columns) + 1) * step + MARGIN, top + len(rows) * step), "white")
    draw = ImageDraw.Draw(sheet)

    def margin(labels: Sequence[Label], x: int, y: int, height: int) -> None:
        """Draw the pictures side by side in side × height pixels, and the text below them."""
        shown = [label.picture for label in labels if label.picture]
        width = (side - MARGIN * (len(shown) - 1)) // max(len(shown), 1)
        for i, path in enumerate(shown):
            _paste(sheet, path, (x + i * (width + MARGIN), y, width, height), limits)
        y += height + MARGIN // 2 if shown else 0
        for i, label in enumerate(labels):
            text = shortened(label.text, draw, font, side)
            draw.text((x, y + i * line), text, fill="black", font=font)

    for column, labels in enumerate(columns):
        margin(labels, MARGIN + (column + 1) * step, MARGIN, side // 2)
    for row, labels in enumerate(rows):
        margin(labels, MARGIN, top + row * step, min(side // 2, side - len(labels) * line - MARGIN))
    for (row, column), path in cells.items():
        box = (MARGIN + (column + 1) * step, top + row * step, side, side)
        _paste(sheet, path, box, ResultLimits.of(limits))
    return sheet


def _paste(
    sheet: Image.Image, path: Path, box: tuple[int, int, int, int], limits: PictureLimits
) -> None:
    """Draw a picture upright in the middle of (x, y, width, height); a grey box if it cannot be read."""
    x, y, width, height = box
    try:
        shown = load(path, max(width, height), limits).convert("RGBA")
        shown = ImageOps.contain(shown, (width, height), Image.Resampling.LANCZOS)
    except Exception:  # noqa: BLE001 (one unreadable picture must not cost the sheet)
        shown = Image.new("RGBA", (width, height), "lightgrey")
    place = (x + (width - shown.width) // 2, y + (height - shown.height) // 2)
    sheet.paste(shown, place, mask=shown)


def shortened(text: str, draw: ImageDraw.ImageDraw, font: Font, width: int) -> str:
    """The text, cut with an ellipsis if it is wider than `width` pixels."""
    fitting, rest = text, ""
    while fitting and draw.textlength(fitting + rest, font) > width:
        fitting, rest = fitting[:-1], "…"
    return fitting + rest


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib: names may contain letters that Pillow's own font lacks."""
    loss_plot.load()
    import matplotlib  # noqa: PLC0415 (only for the path of the font)

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
