"""EXIF: the orientation, and what a result takes over from the content."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import ExifTags, Image

from nst_daemon.pictures.raster import Array

#: Metadata that the result takes over from the content; locations and thumbnails are dropped.
CARRIED = {
    "datetime": ExifTags.Base.DateTime,
    "artist": ExifTags.Base.Artist,
    "copyright": ExifTags.Base.Copyright,
}
TAKEN = "datetime_original"  # in EXIF's sub-directory

#: EXIF 2.32, 4.6.4, Orientation → the function that turns an array (H, W, …) upright.
_UPRIGHT: Mapping[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}

#: The orientations that exchange width and height.
TURNED = (5, 6, 7, 8)


def upright(values: Array, orientation: int) -> Array:
    """An array (H, W, …) turned upright; unknown orientations change nothing."""
    return _UPRIGHT.get(orientation, _UPRIGHT[1])(values)


def read_exif(find: Callable[[], Image.Exif | None]) -> tuple[int, dict[str, str]]:
    """The orientation, and what a result takes over, by the names of `CARRIED` and `TAKEN`.

    Damaged EXIF is no reason to refuse a picture: it is upright and has no metadata then.
    """
    try:
        exif = find() or Image.Exif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (Pillow's parser raises any exception)
        return 1, {}
    return orientation, _carried(exif)


def _carried(exif: Image.Exif) -> dict[str, str]:
    try:
        found = {name: exif.get(tag) for name, tag in CARRIED.items()}
        found[TAKEN] = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
    except Exception:  # noqa: BLE001 (as above)
        return {}
    return {name: _readable(value) for name, value in found.items() if isinstance(value, str)}


def _readable(value: str) -> str:
    """Decode text that EXIF specifies as ASCII, programs write as UTF-8 and Pillow reads as Latin-1."""
    raw = value.strip("\0 ").encode("latin-1", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
