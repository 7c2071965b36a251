"""One file of the corpus, and what is wrong with its decoding."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nst_daemon.errors import OutOfMemory, PictureError
from nst_daemon.pictures.decode import DecodedFile, decode_file

Array = NDArray[Any]

#: The modules of the corpus.
CONTAINERS = tuple(
    sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if path.stem not in {"__init__", "__main__", "case", "second"}
    )
)

#: Half a step of 8 bits and of 16; two and a half steps of 8 bits, for codecs that lose something.
EXACT, DEEP, LOSSY = 0.51 / 255, 0.51 / 65535, 2.5 / 255


@dataclass(frozen=True)
class Case:
    """A file, and what it must become.

    Attributes:
        name: Unique within its module; says what is special about the file.
        make: Its bytes.
        colours: (H, W, 3) in [0, 1], upright, in sRGB, computed from the values that were encoded; None if the file
            must be refused. Where alpha is 0 they are not compared.
        alpha: (H, W) in [0, 1]; None if all is opaque.
        tolerance: The largest difference that is allowed.
        note: A part of what must be noted; "" if nothing may be noted.
        refused: A pattern of the message, if the file must be refused.
    """

    name: str
    make: Callable[[], bytes]
    colours: Array | None
    alpha: Array | None = None
    tolerance: float = EXACT
    note: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Verdict:
    """How a file was decoded: "right", "refused" (as it must be) or "wrong", and why."""

    case: Case
    kind: str
    why: str = ""


def cases_of(container: str) -> Iterator[Case]:
    """The files of a module."""
    yield from import_module(f"tests.pictures.corpus.{container}").cases()


def judge(case: Case, folder: Path) -> Verdict:
    """Decode a file, which is written into a folder, and compare."""
    path = folder / "picture"
    path.write_bytes(case.make())
    try:
        found = decode_file(path, name="picture")
    except (PictureError, OutOfMemory) as error:
        if case.refused and re.search(case.refused, str(error)):
            return Verdict(case, "refused")
        return Verdict(case, "wrong", f"refused: {error}")
    except Exception as error:  # noqa: BLE001 (any other exception is a fault)
        return Verdict(case, "wrong", f"{type(error).__name__}: {error}")
    why = "it must be refused" if case.colours is None else _difference(case, found)
    return Verdict(case, "wrong" if why else "right", why)


def _difference(case: Case, found: DecodedFile) -> str:
    """What is different; "" if nothing is."""
    assert case.colours is not None
    if found.colours.shape != case.colours.shape:
        return f"shape {found.colours.shape} and not {case.colours.shape}"
    if (found.alpha is None) != (case.alpha is None):
        return "alpha is missing" if found.alpha is None else "alpha was found"
    visible = np.ones(found.colours.shape[:2], bool) if case.alpha is None else case.alpha > 0
    off = np.abs(found.colours.astype(np.float64) - case.colours)[visible].max(initial=0)
    if off > case.tolerance:
        return f"colours differ by {255 * off:.2f} of 255"
    if found.alpha is not None and case.alpha is not None:
        off = np.abs(found.alpha[..., 0].astype(np.float64) - case.alpha).max()
        if off > case.tolerance:
            return f"alpha differs by {255 * off:.2f} of 255"
    notes = "; ".join(note.removeprefix("picture: ") for note in found.notes)
    if case.note not in notes or bool(case.note) != bool(notes):
        return f"notes {notes!r} and not {case.note!r}"
    return ""
