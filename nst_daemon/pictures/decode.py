"""Image files of many formats → arrays in sRGB, without torch: the check of drops runs in a small process.

`decode_file` recognises the format by the first bytes (`formats`), reads the header with the format's reader
(`readers`), checks the limits, decodes the file with all its bits, turns it upright and converts it to sRGB (`icc`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Protocol, cast

from nst_daemon.errors import DamagedPicture, NstError, PictureError, first_line
from nst_daemon.files import CHUNK, copied, read_error, unreadable
from nst_daemon.machine import lacks_memory
from nst_daemon.pictures import memory
from nst_daemon.pictures.camera_raw import recognise
from nst_daemon.pictures.formats import LIST_IT, NAMES, Format, not_listed, titles
from nst_daemon.pictures.icc import to_srgb
from nst_daemon.pictures.metadata import TURNED, read_exif, upright
from nst_daemon.pictures.raster import (
    Array,
    Raster,
    Size,
    StoredPicture,
    UnsupportedPicture,
    scaled,
)


class PictureLimits(Protocol):
    """What may be decoded; `config.Limits` has it."""

    @property
    def max_bytes(self) -> int:
        """Of a file, and of what is read from a pipe."""

    @property
    def max_pixels(self) -> int:
        """Width × height, checked before decoding."""

    @property
    def max_side(self) -> int:
        """Each side in pixels, checked before decoding."""

    @property
    def formats(self) -> Sequence[str]:
        """Names of `FORMATS`."""


#: Exceptions whose message says nothing about the file: 'KeyError: 21'.
_WORDLESS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError)


@dataclass(frozen=True)
class _Limits:
    """The defaults of the configuration."""

    max_bytes: int = 256 << 20
    max_pixels: int = 150_000_000
    max_side: int = 30_000
    formats: Sequence[str] = NAMES


DEFAULT_LIMITS: PictureLimits = _Limits()


@dataclass(frozen=True)
class DecodedFile:
    """A decoded image file.

    Attributes:
        colours: (H, W, 3) float32 in [0, 1], sRGB, not premultiplied.
        alpha: (H, W, 1) float32 in [0, 1]; None where all is opaque.
        metadata: What a result takes over (`metadata.read_exif`).
        notes: What was converted, one line each, with the name of the file.
        file_size: Of the file's picture, upright, if it was reduced while it was decoded.
    """

    colours: Array
    alpha: Array | None
    metadata: Mapping[str, str]
    notes: tuple[str, ...]
    file_size: Size | None


Source = str | os.PathLike[str] | int | IO[bytes]


class _ReaderModule(Protocol):
    def open_picture(self, file: IO[bytes]) -> StoredPicture: ...


def decode_file(
    source: Source,
    limits: PictureLimits = DEFAULT_LIMITS,
    *,
    name: str | None = None,
    used: Callable[[Size], float] | None = None,
    exact: bool = False,
) -> DecodedFile:
    """Decode an image file.

    Args:
        source: A path; or an open descriptor, which stays open with its offset undefined; or an open file, which can
            seek and is closed. A pipe is read to its end.
        limits: Checked before decoding.
        name: What messages call the file.
        used: The longer side in pixels at which a picture of this size is used: a much larger one is reduced while it
            is decoded (`memory`).
        exact: Reduce it without adding colours: a mask has one for each region.

    Raises:
        PictureError: The file cannot be read, is empty, not an image of the formats, too large, damaged, truncated or
            fully transparent.
        StorageError: The disk fails, or this process has too many open files.
        OutOfMemory: Memory is short.
    """
    label = name or label_of(source)
    with reading(label), _opened(source, limits.max_bytes, label) as file:
        stored, _ = _header(file, limits, label)
        with _damage(label, file):
            raster, reduced = _decode(stored, label, used, exact)
        return _converted(stored, raster, label, reduced)


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What the header of an image file says.

    Attributes:
        format: Of the file.
        size: Of the picture, upright.
    """

    format: Format
    size: Size


def read_header(
    source: Source, limits: PictureLimits = DEFAULT_LIMITS, *, name: str | None = None
) -> PictureHeader:
    """Check format and dimensions of an image file against limits. No pixel is decoded.

    The arguments and errors are those of `decode_file`.
    """
    label = name or label_of(source)
    with reading(label), _opened(source, limits.max_bytes, label) as file:
        stored, known = _header(file, limits, label)
        turned = read_exif(stored.exif)[0] in TURNED
        return PictureHeader(known, stored.size[::-1] if turned else stored.size)


def decode_stored(stored: StoredPicture, label: str) -> DecodedFile:
    """A picture in memory as a file with its pixels, profile and EXIF would be decoded; errors are those of
    `decode_file`.
    """
    with reading(label):
        return _converted(stored, stored.decode(None), label, reduced=False)


@contextmanager
def reading(label: str) -> Iterator[None]:
    """Turn errors of the system and a lack of memory into errors that name the file."""
    try:
        yield
    except OSError as error:
        raise read_error(error, label) or unreadable(label, error, PictureError) from error
    except Exception as error:
        if not lacks_memory(error) or isinstance(error, NstError):
            raise
        raise memory.out_of_memory(label) from error


def label_of(source: Source) -> str:
    """What messages call a file without a name."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return f"descriptor {source}" if isinstance(source, int) else "the picture"


def _opened(source: Source, max_bytes: int, label: str) -> IO[bytes]:
    if not isinstance(source, str | os.PathLike | int):
        return source
    descriptor = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDONLY)
    file = os.fdopen(descriptor, "rb")  # raises IsADirectoryError for a folder
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.seek(0)
        return file
    with file:
        return copied(file, max_bytes, label)


def _header(file: IO[bytes], limits: PictureLimits, label: str) -> tuple[StoredPicture, Format]:
    """The header and the format of a file that is within the limits."""
    if not file.read(1):
        raise PictureError(f"{label} is empty", remedy="copy the file again")
    known = _allowed(recognise(file), limits.formats, label)
    reader = cast("_ReaderModule", import_module(f"nst_daemon.pictures.readers.{known.reader}"))
    with _damage(label, file):
        stored = reader.open_picture(file)
    _check_limits(stored.size, limits, label)
    return stored, known


def _allowed(known: Format | None, formats: Sequence[str], label: str) -> Format:
    if known is None:
        raise PictureError(
            f"{label} is not an image file of a known format",
            remedy=f"known formats are {titles(formats)}",
        )
    if known.name not in formats:
        raise PictureError(f"{label} {not_listed(known)}", remedy=LIST_IT)
    return known


def _check_limits(size: Size, limits: PictureLimits, label: str) -> None:
    height, width = size
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        raise PictureError(
            f"{label} is {width} × {height} pixels; the limits are {limits.max_pixels:,} pixels and "
            f"{limits.max_side:,} per side",
            remedy="reduce it, or raise limits.max_pixels and limits.max_side",
        )


@contextmanager
def _damage(label: str, file: IO[bytes]) -> Iterator[None]:
    """Turn exceptions of the readers into errors that name the file.

    Any exception of a parser means damage, except UnsupportedPicture, a lack of memory and errors of the disk.
    """
    try:
        yield
    except NstError:
        raise
    except UnsupportedPicture as error:
        raise PictureError(
            f"{label} {first_line(error)}, which is not supported",
            remedy="save it as PNG or TIFF with 8 or 16 bits per channel",
        ) from error
    except Exception as error:
        if lacks_memory(error):
            raise memory.out_of_memory(label) from error
        _check_readable(error, file)
        said = "its structure is invalid" if isinstance(error, _WORDLESS) else first_line(error)
        raise DamagedPicture(
            f"{label} is damaged or truncated: {said}",
            remedy="copy the complete file again",
        ) from error


def _check_readable(error: BaseException | None, file: IO[bytes]) -> None:
    """Raise the OSError of the disk behind an exception of a parser, which may have hidden it."""
    while error:
        if read_error(error, ""):
            raise error
        error = error.__cause__ or error.__context__
    if not file.closed:
        file.seek(0)
        while file.read(CHUNK):
            pass


def _decode(
    stored: StoredPicture, label: str, used: Callable[[Size], float] | None, exact: bool
) -> tuple[Raster, bool]:
    """The decoded file, and whether it is reduced."""
    reduced = memory.reduced_size(stored.size, used(stored.size)) if used else None
    memory.require_memory(memory.peak_bytes(stored, reduced, exact=exact), label)
    raster = stored.decode(None if exact else reduced)
    if reduced and raster.colours.shape[:2] == stored.size:
        reduce = memory.picked_raster if exact else memory.reduced_raster
        raster = reduce(raster, reduced)
    return raster, bool(reduced)


def _converted(stored: StoredPicture, raster: Raster, label: str, reduced: bool) -> DecodedFile:
    """The picture, upright and in sRGB."""
    notes = list(raster.notes)
    if stored.frames != 1:
        notes.append(f"only the first of {stored.frames or 'several'} frames was used")
    colours, note = to_srgb(raster, stored.profile, label)
    orientation, metadata = read_exif(stored.exif)
    alpha = None
    if raster.alpha is not None:
        alpha = upright(scaled(raster.alpha), orientation)
        if not alpha.any():
            raise PictureError(
                f"{label} is fully transparent", remedy="use a picture with visible pixels"
            )
        alpha = None if bool((alpha == 1).all()) else alpha
    turned = stored.size[::-1] if orientation in TURNED else stored.size
    return DecodedFile(
        upright(colours, orientation),
        alpha,
        metadata,
        tuple(f"{label}: {text}" for text in (*notes, *note)),
        turned if reduced else None,
    )
