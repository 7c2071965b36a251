"""`contact-sheet.jpg` in the folder of a batch: what it was asked for along the margins, its pictures in between."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from nst_daemon import files
from nst_daemon.digests import find_files
from nst_daemon.errors import InputError
from nst_daemon.names import printable
from nst_daemon.report import gallery
from nst_daemon.report.contact_sheet import Label, grid

NAME = "contact-sheet.jpg"
#: Pixels that a sheet is wide where its cells may be as large or small as the next line says.
WIDTH = 1800
SMALLEST, LARGEST = 96, 320
#: The longest side that JPEG can have.
MOST = 65_500


@dataclass(frozen=True, slots=True)
class Axis:
    """Something in which the pictures of a batch differ.

    labels: for each of its values, in order; of: value by picture, in the order of the pictures.
    """

    labels: Mapping[str, Label]
    of: Sequence[str]


def write(folder: Path, places: Sequence[Path]) -> Path:
    """Write the sheet of all results in `folder` and return its path.

    places: folders in which contents and styles are looked for, by their contents; those that are nowhere are shown
    by their names alone. Raises InputError where there are no results or too many, or one has the sheet's
    name, StorageError.
    """
    found = [entry for entry in gallery.found(folder) if not entry["group"]]
    if not found:
        raise InputError(
            f"there are no results in {printable(str(folder))}",
            remedy="name the folder of a batch, such as results/night",
        )
    if (folder / NAME).with_suffix(".json").exists():
        raise InputError(
            f"{printable(str(folder / NAME))} is a result, and is not overwritten",
            remedy="rename it with all that lies beside it",
        )
    found.sort(key=lambda entry: str(entry["finished"]))
    rows, columns = _arranged(found, places)
    places_of = [{v: i for i, v in enumerate(_combined(axes))} for axes in (rows, columns)]
    cells = {}
    for i, entry in enumerate(found):  # of pictures that were painted twice the newest is shown
        row, column = (
            place[tuple(axis.of[i] for axis in axes)]
            for place, axes in zip(places_of, (rows, columns), strict=True)
        )
        cells[row, column] = entry["thumbnails"][0].source
    side = max(SMALLEST, min(LARGEST, WIDTH // (len(places_of[1]) + 1)))
    if side * (max(len(place) for place in places_of) + 2) > MOST:
        raise InputError(
            f"{len(found)} pictures are too many for one sheet", remedy="split the batch"
        )
    sheet = grid(cells, [*_labels(rows)], [*_labels(columns)], side=side)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    files.write_atomic(folder / NAME, buffer.getvalue())
    return folder / NAME


def _arranged(
    found: Sequence[dict[str, Any]], places: Sequence[Path]
) -> tuple[list[Axis], list[Axis]]:
    """What goes down the left margin, and what along the top.

    Contents against styles; with a sweep, each pair of them against its settings; a sweep of a single pair has its
    last setting along the top.
    """
    wanted = {t.sha256: t.size for entry in found for t in entry["thumbnails"] if not t.source}
    sources = {digest[: gallery.KEY]: path for digest, path in find_files(wanted, places).items()}
    contents, styles = _inputs(found, "contents", sources), _inputs(found, "styles", sources)
    swept = [_setting(found, key) for key in _swept([entry["settings"] for entry in found])]
    if not swept:
        return [contents], [styles]
    if len(contents.labels) * len(styles.labels) > 1 or len(swept) == 1:
        return [contents, styles], swept
    return [contents, styles, *swept[:-1]], swept[-1:]


def _inputs(found: Sequence[dict[str, Any]], role: str, sources: Mapping[str, Path]) -> Axis:
    labels: dict[str, Label] = {}
    for entry in found:
        for name, key in entry[role][:1]:
            labels.setdefault(key, Label(Path(name).stem, sources.get(key)))
    of = [entry[role][0][1] if entry[role] else "" for entry in found]
    return Axis({"": Label(""), **labels} if "" in of else labels, of)


def _swept(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings in which the pictures differ; of those that follow from the preset only the preset."""

    def kinds(*keys: str) -> int:
        return len({json.dumps([s.get(key) for key in keys], sort_keys=True) for s in settings})

    differing = [key for key in settings[0] if kinds(key) > 1]
    if "preset" not in differing:
        return differing
    free = [key for key in differing if kinds("preset", key) > kinds("preset")]
    return ["preset", *free]


def _setting(found: Sequence[dict[str, Any]], key: str) -> Axis:
    of = [json.dumps(entry["settings"].get(key), sort_keys=True) for entry in found]
    values = {text: json.loads(text) for text in of}
    numbers = all(isinstance(v, int | float) for v in values.values())
    ordered = sorted(values, key=lambda text: values[text]) if numbers else list(values)
    return Axis({text: Label(f"{key} {text.strip(chr(34))}") for text in ordered}, of)


def _combined(axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    """Every combination of values that some picture has, in order."""
    there = set(zip(*(axis.of for axis in axes), strict=True))
    return [values for values in product(*(axis.labels for axis in axes)) if values in there]


def _labels(axes: Sequence[Axis]) -> Iterable[list[Label]]:
    for values in _combined(axes):
        yield [axis.labels[value] for axis, value in zip(axes, values, strict=True)]
