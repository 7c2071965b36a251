"""EXIF and XMP: the orientation, and what a result takes over from the content.

Nothing of it is essential: damaged metadata is ignored, and what can be read before the damage is used.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

import numpy as np
from PIL import ExifTags

from nst_daemon.pictures.raster import Array, Tags

#: Metadata that the result takes over from the content; locations and thumbnails are dropped.
CARRIED = {
    "datetime": ExifTags.Base.DateTime,
    "artist": ExifTags.Base.Artist,
    "copyright": ExifTags.Base.Copyright,
}
TAKEN = "datetime_original"  # in EXIF's sub-directory
#: Longer texts are cut to this many characters.
MAX_TEXT = 1000

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

#: TIFF 6.0, section 2: type → layout of one value.
_LAYOUTS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
#: BYTE, ASCII, UNDEFINED and UTF-8 (EXIF 3.0, type 129).
_TEXTS = {1, 2, 7, 129}
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")


def upright(values: Array, orientation: int) -> Array:
    """An array (H, W, …) turned upright; unknown orientations change nothing."""
    return _UPRIGHT.get(orientation, _UPRIGHT[1])(values)


def read_exif(find: Callable[[], Tags]) -> tuple[int, dict[str, str]]:
    """The orientation, and what a result takes over, by the names of `CARRIED` and `TAKEN`.

    Damaged EXIF is no reason to refuse a picture: it is upright and has no metadata then.

    Args:
        find: `StoredPicture.exif`.
    """
    try:
        found = find()
    except Exception:  # noqa: BLE001 (of any parser)
        return 1, {}
    return _orientation(found.get(ExifTags.Base.Orientation)), _carried(found)


def parsed_exif(data: bytes, xmp: bytes = b"") -> Tags:
    """The tags of EXIF data that are used, and those of its sub-directory.

    Args:
        data: With or without the prefix "Exif"; may be empty.
        xmp: Its orientation counts if the EXIF has none, as in Pillow, Windows and macOS; libvips and browsers ignore
            it. May be empty.
    """
    tags = _read_tags(data)
    tags |= {
        k: v for k, v in _read_tags(data, tags.get(ExifTags.IFD.Exif)).items() if k not in tags
    }
    found = _XMP_ORIENTATION.search(xmp)
    if found and ExifTags.Base.Orientation not in tags:
        tags[ExifTags.Base.Orientation] = int(found[1])
    return tags


def _read_tags(data: bytes, offset: object = 0) -> Tags:
    """The first value, or the text, of each tag of a directory; for offset 0, of the first one (TIFF 6.0, section 2).

    Entries that are cut off or point outside of the data are skipped. A directory is read once and has at most 65535
    entries, so that no loop can occur.
    """
    head = re.match(rb"(?:Exif\0.?){0,2}(II\*\0|MM\0\*)", data, re.DOTALL)
    if not head or not isinstance(offset, int):
        return {}
    data = data[head.start(1) :]
    order = "<" if head[1][:2] == b"II" else ">"
    tags: Tags = {}
    try:
        offset = offset or struct.unpack_from(order + "I", data, 4)[0]
        (count,) = struct.unpack_from(order + "H", data, offset)
        for at in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, at)
            value = _value(data, order, kind, number, at + 8)
            if value is not None:
                tags.setdefault(tag, value)
    except struct.error:
        pass
    return tags


def _value(data: bytes, order: str, kind: int, number: int, at: int) -> object:
    """A text, or the first number, of an entry; None if it is not there."""
    layout = _LAYOUTS.get(kind, "B")
    size = struct.calcsize(layout) * number
    if size > 4:
        (at,) = struct.unpack_from(order + "I", data, at)
    if not number or at >= len(data):
        return None
    if kind in _TEXTS and number > 1:
        return data[at : at + min(number, 4 * MAX_TEXT)]
    if kind not in _LAYOUTS or at + struct.calcsize(layout) > len(data):
        return None
    return struct.unpack_from(order + layout, data, at)[0]


def _orientation(value: object) -> int:
    """1 to 8 of a tag's value; 1 for any other."""
    if isinstance(value, tuple) and value:
        value = value[0]
    number = float(value) if isinstance(value, int | float) else 1
    return int(number) if number in _UPRIGHT else 1


def exif_without_turn(content: bytes) -> Tags:
    """EXIF without its orientation: HEIC and AVIF store that as properties of the image (ISO 23008-12, A.2.1)."""
    tags = parsed_exif(content)
    tags.pop(ExifTags.Base.Orientation, None)
    return tags


def _carried(tags: Tags) -> dict[str, str]:
    used = {**CARRIED, TAKEN: ExifTags.Base.DateTimeOriginal}
    texts = {name: _readable(tags.get(tag)) for name, tag in used.items()}
    return {name: text for name, text in texts.items() if text}


def _readable(value: object) -> str:
    """Text that EXIF specifies as ASCII and programs write as UTF-8 or Latin-1; "" for other values.

    A copyright may consist of two texts, each with a zero at its end (EXIF 2.32, 4.6.4).
    """
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return ""
    value = value[: 4 * MAX_TEXT]
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.start > len(value) - 4 and len(value) == 4 * MAX_TEXT
        text = value.decode("utf-8", "ignore") if cut else value.decode("latin-1")
    parts = (" ".join(part.split()) for part in text.split("\0"))
    joined = ", ".join(filter(None, parts))
    return "".join(char for char in joined if char.isprintable())[:MAX_TEXT].strip()
