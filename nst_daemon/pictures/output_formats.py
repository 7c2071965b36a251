"""The formats in which results are written: names, suffixes and limits.

Loads no library: the configuration, the intake and the daemon use it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nst_daemon.errors import PictureError, UsageError
from nst_daemon.names import printable

#: Names of formats in `outputs.format`; a result has the suffix `.NAME`.
OutputName = Literal["png", "jpg", "webp", "tiff", "avif", "jxl"]
#: Bits per channel in `outputs.depth`.
Depth = Literal[8, 10, 16]
DEPTHS: tuple[Depth, ...] = get_args(Depth)


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A format of results.

    Attributes:
        name: In `outputs.format`.
        title: In messages.
        media_type: On the web (RFC 6838).
        suffixes: Of file names that mean this format, in lower case, with the dot.
        depths: Bits per channel that it can hold.
        alpha: Whether it can hold transparency.
        quality: Whether `outputs.quality` applies.
        max_side: The longest side in pixels that its encoder writes and common decoders read.
        max_pixels: The largest width × height.
    """

    name: OutputName
    title: str
    media_type: str
    suffixes: tuple[str, ...]
    depths: tuple[Depth, ...]
    alpha: bool
    quality: bool
    max_side: int
    max_pixels: int


#: The keys of a job's settings that say how its picture is written.
OUTPUT_KEYS = ("format", "depth", "quality")

_ANY = 1 << 62

#: Limits: libpng's user limits (pngconf.h; the format allows 2^31 - 1); libjpeg's JPEG_MAX_DIMENSION; libwebp's
#: WEBP_MAX_DIMENSION; signed 32-bit integers of TIFF readers (beyond 4 GiB it is written as BigTIFF); the defaults of
#: libavif's decoder (avif.h; AV1 itself allows 65536 per side); level 10 of JPEG XL (ISO/IEC 18181-1, Annex M).
OUTPUT_FORMATS: tuple[OutputFormat, ...] = (
    OutputFormat("png", "PNG", "image/png", (".png",), (8, 16), True, False, 1_000_000, _ANY),
    OutputFormat(
        "jpg",
        "JPEG",
        "image/jpeg",
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        (8,),
        False,
        True,
        65_500,
        _ANY,
    ),
    OutputFormat("webp", "WebP", "image/webp", (".webp",), (8,), True, True, 16_383, _ANY),
    OutputFormat(
        "tiff", "TIFF", "image/tiff", (".tiff", ".tif"), (8, 16), True, False, 2**31 - 1, _ANY
    ),
    OutputFormat("avif", "AVIF", "image/avif", (".avif",), (8, 10), True, True, 32_768, 1 << 28),
    OutputFormat("jxl", "JPEG XL", "image/jxl", (".jxl",), (8, 16), True, True, 1 << 30, 1 << 40),
)
OUTPUT_NAMES: tuple[OutputName, ...] = get_args(OutputName)
_BY_NAME = {known.name: known for known in OUTPUT_FORMATS}
_BY_SUFFIX = {suffix: known for known in OUTPUT_FORMATS for suffix in known.suffixes}

#: Every suffix that means a format, as messages list them: .png, .jpg, …
OUTPUT_SUFFIXES = tuple(_BY_SUFFIX)
#: The suffixes of results.
RESULT_SUFFIXES = frozenset(f".{name}" for name in OUTPUT_NAMES)


def output_format(name: str) -> OutputFormat:
    """The format of this name. Raises KeyError."""
    return _BY_NAME[name]  # type: ignore[index]


def format_of_suffix(suffix: str) -> OutputFormat | None:
    """The format that a file's suffix means, in upper or lower case; None for other suffixes."""
    return _BY_SUFFIX.get(suffix.lower())


def format_of_file(path: Path, or_else: str = "") -> OutputFormat:
    """The format that a file's suffix means. or_else: the end of the remedy. Raises UsageError for another suffix."""
    known = format_of_suffix(path.suffix)
    if known is None:
        label = printable(str(path))
        problem = f"{path.suffix} is not an output format" if path.suffix else "it has no suffix"
        raise UsageError(
            f"{label}: {problem}", remedy=f"use one of {', '.join(OUTPUT_SUFFIXES)}{or_else}"
        )
    return known


def named_format(value: object) -> object:
    """The name of the format that a suffix means, such as jpg for JPEG; another value as it is."""
    known = format_of_suffix(f".{value}")
    return known.name if known else value


def depth_problem(name: str, depth: int) -> str:
    """Why a format cannot hold a depth, such as "webp has 8 bits per channel, not 16"; "" if it can."""
    depths = output_format(name).depths
    return "" if depth in depths else f"{name} has {listed(depths)} bits per channel, not {depth}"


def formats_with(depth: int) -> str:
    """The names of the formats that can hold a depth, for messages."""
    return listed([known.name for known in OUTPUT_FORMATS if depth in known.depths])


def listed(values: Iterable[object]) -> str:
    """ "a, b or c"."""
    *most, last = map(str, values)
    return f"{', '.join(most)} or {last}" if most else last


def check_size(name: str, size: Sequence[int], label: str) -> None:
    """Check that a format can hold a picture.

    Args:
        name: Of the format.
        size: Height and width in pixels.
        label: What messages call the file.

    Raises:
        PictureError: The picture is too large for the format.
    """
    height, width = size
    wanted = output_format(name)
    if _holds(wanted, height, width):
        return
    limit = f"{wanted.max_side:,} pixels per side"
    if wanted.max_pixels < _ANY:
        limit += f" and {wanted.max_pixels:,} pixels in total"
    others = [known.name for known in OUTPUT_FORMATS if _holds(known, height, width)]
    choice = f"the format {listed(others)}, or " if others else ""
    raise PictureError(
        f"{label} cannot be written: {width} × {height} pixels are too many for {wanted.title}, which holds {limit}",
        remedy=f"choose {choice}a smaller size",
    )


def _holds(known: OutputFormat, height: int, width: int) -> bool:
    return max(height, width) <= known.max_side and height * width <= known.max_pixels
