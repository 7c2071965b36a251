"""`contact-sheet.jpg` in the folder of a batch: its pictures in a table, its axes along the margins.

The sidecar of a batch's picture records the name of its style, the swept settings, and its position on the axes of the
batch file. Where no sidecar does, the axes follow from the inputs and the settings of the pictures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nst_daemon import files
from nst_daemon.digests import find_files
from nst_daemon.errors import InputError
from nst_daemon.names import printable
from nst_daemon.pictures.decode import DEFAULT_LIMITS, PictureLimits
from nst_daemon.publishing import KEY_DIGITS, SHEET
from nst_daemon.report import gallery
from nst_daemon.report.contact_sheet import Label, grid

#: Width of a sheet in pixels, as far as its cells stay within MIN_SIDE and MAX_SIDE.
SHEET_WIDTH = 1800
MIN_SIDE, MAX_SIDE = 96, 320
#: The longest side of a JPEG file, in pixels.
JPEG_LIMIT = 65_500
#: Position of a picture without a record among others that have one: before them.
UNKNOWN = (-1, -1, -1)

#: A picture's entry, as `gallery.found` gives it.
Entry = Mapping[str, Any]
Key = tuple[object, ...]


@dataclass
class Margin:
    """The rows, or the columns, of a table: the labels and the order of each by its key."""

    labels: dict[Key, list[Label]] = field(default_factory=dict)
    orders: dict[Key, tuple[int, ...]] = field(default_factory=dict)

    def add(self, key: Key, labels: list[Label], *order: int) -> None:
        """Add a row or column, or another picture of it. The highest order counts."""
        self.labels.setdefault(key, labels)
        self.orders[key] = max(order, self.orders.get(key, order))

    def places(self) -> dict[Key, int]:
        """The index of each row or column, in order."""
        return {key: i for i, key in enumerate(sorted(self.orders, key=self.orders.__getitem__))}


@dataclass
class Table:
    """Pictures by row and column."""

    rows: Margin = field(default_factory=Margin)
    columns: Margin = field(default_factory=Margin)
    pictures: dict[tuple[Key, Key], Path] = field(default_factory=dict)

    def draw(self, limits: PictureLimits = DEFAULT_LIMITS) -> bytes:
        """The sheet as JPEG. Raises InputError if there are too many pictures. limits: of its inputs."""
        rows, columns = self.rows.places(), self.columns.places()
        side = max(MIN_SIDE, min(MAX_SIDE, SHEET_WIDTH // (len(columns) + 1)))
        if side * (max(len(rows), len(columns)) + 2) > JPEG_LIMIT:
            raise InputError(
                f"{len(self.pictures)} pictures are too many for one sheet",
                remedy="split the batch",
            )
        cells = {(rows[r], columns[c]): path for (r, c), path in self.pictures.items()}
        sheet = grid(
            cells,
            [self.rows.labels[key] for key in rows],
            [self.columns.labels[key] for key in columns],
            side=side,
            limits=limits,
        )
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


def write(folder: Path, places: Sequence[Path], limits: PictureLimits = DEFAULT_LIMITS) -> Path:
    """Write the sheet of all results in a folder.

    Args:
        folder: the folder of a batch in results/.
        places: folders that are searched for contents and styles. Of those that are not found only the names are shown.
        limits: of contents and styles.

    Returns:
        The path of the sheet.

    Raises:
        InputError: there are no results, too many of them, or one is named like the sheet.
        StorageError: the sheet cannot be written.
    """
    found = [entry for entry in gallery.found(folder) if not entry["group"]]
    if not found:
        shown = printable(str(folder))
        raise InputError(
            f"there are no results in {shown}"
            if folder.is_dir()
            else f"there is no folder {shown}",
            remedy="name the folder of a batch, such as results/night",
        )
    if (folder / SHEET).with_suffix(".json").exists():
        raise InputError(
            f"{printable(str(folder / SHEET))} is a result, and is not overwritten",
            remedy="rename it and the files that belong to it",
        )
    found.sort(key=lambda entry: str(entry["finished"]))
    inputs = {t.sha256: t.size for entry in found for t in entry["thumbnails"] if not t.source}
    sources = {sha256[:KEY_DIGITS]: path for sha256, path in find_files(inputs, places).items()}
    files.write_atomic(folder / SHEET, table(found, sources).draw(limits))
    return folder / SHEET


def table(found: Sequence[Entry], sources: Mapping[str, Path]) -> Table:
    """Arrange the pictures of a batch.

    Contents are rows and styles are columns. With a sweep, each pair of them is a row and each combination of settings
    a column. If several settings are swept for one pair only, the last of them is along the top.

    Args:
        found: the pictures in the order in which they were finished; of two in one cell the later is shown.
        sources: files of contents and styles, by the key of their thumbnails.
    """
    keys = _swept_keys(found)
    positions = _positions(found, keys)
    pairs = {(_content(entry), _style(entry)) for entry in found}
    margins_swept = len(pairs) == 1 < len(keys)
    first: dict[Key, int] = {}  # the lowest index of a combination in each row
    for entry, (*_, step) in zip(found, positions, strict=True):
        values = _values(entry, keys[:-1])
        first[values] = min(first.get(values, step), step)
    made = Table()
    for entry, (of_content, of_style, step) in zip(found, positions, strict=True):
        content, style, values = _content(entry), _style(entry), _values(entry, keys)
        inputs = [
            Label(Path(content[0]).stem, sources.get(content[1])),
            Label(style[0], sources.get(style[1])),
        ]
        swept = [Label(f"{key} {value}") for key, value in zip(keys, values, strict=True)]
        row: Key = (content, style)
        column: Key = values
        if not keys:
            row, column = content, style
            made.rows.add(row, inputs[:1], of_content)
            made.columns.add(column, inputs[1:], of_style)
        elif margins_swept:
            row, column = values[:-1], values[-1:]
            made.rows.add(row, inputs + swept[:-1], first[row])
            made.columns.add(column, swept[-1:], step - first[row])
        else:
            made.rows.add(row, inputs, of_content, of_style)
            made.columns.add(column, swept, step)
        made.pictures[row, column] = entry["thumbnails"][0].source
    return made


def _content(entry: Entry) -> tuple[str, str]:
    """Name and key of the content's file."""
    name, key = (entry["contents"] or [("", "")])[0]
    return name, key


def _style(entry: Entry) -> tuple[str, ...]:
    """The style's label, and the keys of its pictures."""
    styles = entry["styles"] or [("", "")]
    label = entry["batch"].style if entry["batch"] else Path(styles[0][0]).stem
    return label, *(key for _, key in styles)


def _values(entry: Entry, keys: Sequence[str]) -> tuple[str, ...]:
    """The swept values of a picture, as text."""
    swept = entry["batch"].swept if entry["batch"] else {}
    return tuple(_text(swept.get(key, entry["settings"].get(key))) for key in keys)


def _text(value: object) -> str:
    """A value as a label: 0.5, 1, 1e-06, max, [1, 2]."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _swept_keys(found: Sequence[Entry]) -> list[str]:
    """The swept settings in the order of the batch file; without a record, the settings in which pictures differ."""
    recorded = [key for entry in reversed(found) if entry["batch"] for key in entry["batch"].swept]
    if recorded or any(entry["batch"] for entry in found):
        return list(dict.fromkeys(recorded))
    settings = [entry["settings"] for entry in found]

    def kinds(*keys: str) -> int:
        return len({json.dumps([s.get(key) for key in keys], sort_keys=True) for s in settings})

    differing = [key for key in settings[0] if kinds(key) > 1]
    if "preset" not in differing:
        return differing
    # Of the settings that follow from the preset, only the preset is shown.
    return ["preset", *(key for key in differing if kinds("preset", key) > kinds("preset"))]


def _positions(found: Sequence[Entry], keys: Sequence[str]) -> list[tuple[int, int, int]]:
    """The positions of pictures on the axes; where none is recorded, by the order in which they were finished."""
    if any(entry["batch"] for entry in found):
        return [entry["batch"].position if entry["batch"] else UNKNOWN for entry in found]
    axes: list[list[object]] = [
        list(dict.fromkeys(map(_content, found))),
        list(dict.fromkeys(map(_style, found))),
        *(_ordered([entry["settings"].get(key) for entry in found]) for key in keys),
    ]
    positions = []
    for entry in found:
        values = [_content(entry), _style(entry), *_values(entry, keys)]
        content, style, *steps = (a.index(v) for a, v in zip(axes, values, strict=True))
        step = 0
        for index, axis in zip(steps, axes[2:], strict=True):
            step = step * len(axis) + index
        positions.append((content, style, step))
    return positions


def _ordered(values: Sequence[object]) -> list[object]:
    """The different values as text: numbers by size, others as they come."""
    if all(isinstance(v, int | float) for v in values):
        values = sorted(values, key=lambda v: float(str(v)))
    return list(dict.fromkeys(map(_text, values)))
