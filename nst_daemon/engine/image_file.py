"""Image files of many kinds → arrays in sRGB, without torch: the check of drops runs in a small process.

`decode_file` opens a file (only allowed parsers, limits before decoding), decodes it with all its bits
(`high_bit_depth`), turns it upright and converts it to sRGB (`icc`).
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import IO

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, UnidentifiedImageError

from nst_daemon.engine import decoding_memory, high_bit_depth
from nst_daemon.engine.icc import Array, Raster, scaled, to_srgb
from nst_daemon.errors import DamagedPicture, NstError, PictureError, first_line
from nst_daemon.files import copied
from nst_daemon.machine import lacks_memory

Size = tuple[int, int]  # (height, width) in pixels

#: Pillow's parsers that may read a file; otherwise `Image.open` would choose any of its forty by magic bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP", "GIF")

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
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class DecodedFile:
    """A decoded image file.

    Attributes:
        colours: (H, W, 3) float32 in [0, 1], sRGB, not premultiplied.
        alpha: (H, W, 1) float32 in [0, 1]; None where all is opaque.
        metadata: What a result takes over, by the names of `CARRIED` and `TAKEN`.
        notes: What was converted, one line each.
        file_size: Of the file's picture, upright, if it was reduced while it was decoded.
    """

    colours: Array
    alpha: Array | None
    metadata: Mapping[str, str]
    notes: tuple[str, ...]
    file_size: Size | None


def decode_file(
    source: str | os.PathLike[str] | int,
    *,
    max_pixels: int,
    max_side: int,
    max_bytes: int | None = None,
    formats: Sequence[str] = FORMATS,
    name: str | None = None,
    used: Callable[[Size], float] | None = None,
) -> DecodedFile:
    """Decode an image file.

    Args:
        source: A path, or an open descriptor, which stays open with its offset undefined. A pipe is read to its end.
        max_pixels: Limit of width × height, checked before decoding.
        max_side: Limit of each side in pixels, checked before decoding.
        max_bytes: Limit of what is read from a pipe; None for no limit.
        formats: Pillow's parsers to try.
        name: What messages call the file.
        used: The longer side in pixels at which a picture of this size is used: a much larger one is reduced while it
            is decoded (`decoding_memory`).

    Raises:
        PictureError: The file cannot be read, is empty, not an image of `formats`, too large, damaged, truncated,
            fully transparent, or has an unreadable colour profile.
        OutOfMemory: Memory is short.
    """
    label = name or (f"descriptor {source}" if isinstance(source, int) else os.fspath(source))
    with (
        reading(label),
        _opened(source, max_bytes, label) as file,
        _pillow_limit(max_pixels),
    ):
        if os.fstat(file.fileno()).st_size == 0:
            raise PictureError(f"{label} is empty", remedy="copy the file again")
        image = _identify(file, formats, label)
        _check_limits(image, max_pixels, max_side, label)
        size = image.height, image.width
        raster, reduced = _decode(image, file, label, used)
        return _decoded(image, raster, label, size if reduced else None)


@contextmanager
def reading(label: str) -> Iterator[None]:
    """Turn errors of the system and a lack of memory into errors that name the file."""
    try:
        yield
    except OSError as error:
        raise PictureError(
            f"{label} cannot be read: {error.strerror or error}",
            remedy="check that the file exists and its permissions",
        ) from error
    except Exception as error:
        if not lacks_memory(error) or isinstance(error, NstError):
            raise
        raise decoding_memory.out_of_memory(label) from error


def _opened(source: str | os.PathLike[str] | int, max_bytes: int | None, label: str) -> IO[bytes]:
    descriptor = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDONLY)
    file = os.fdopen(descriptor, "rb")  # raises IsADirectoryError for a folder
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.seek(0)
        return file
    with file:
        return copied(file, max_bytes, label)


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow raise at our limit; by itself it warns at its own limit and raises at twice as much."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@cache
def know_heif() -> None:
    """Register Pillow's HEIC parser, once, for the main image only."""
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def _identify(file: IO[bytes], formats: Sequence[str], label: str) -> Image.Image:
    know_heif()
    try:
        return Image.open(file, formats=tuple(formats))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{label} has too many pixels", remedy="reduce it, or raise limits.max_pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{label} is not an image file of a known format",
            remedy=f"known formats are {', '.join(formats)}",
        ) from error
    except Exception as error:  # Pillow's parsers raise any exception for damaged files
        raise _failed(label, error) from error


def _check_limits(image: Image.Image, max_pixels: int, max_side: int, label: str) -> None:
    width, height = image.size
    if width * height > max_pixels or max(image.size) > max_side:
        raise PictureError(
            f"{label} is {width} × {height} pixels; the limits are {max_pixels} pixels and {max_side} per side",
            remedy="reduce it, or raise limits.max_pixels and limits.max_side",
        )


def _decode(
    image: Image.Image, file: IO[bytes], label: str, used: Callable[[Size], float] | None
) -> tuple[Raster, bool]:
    """The decoded file, and whether it is reduced."""
    try:
        bits = high_bit_depth.bits_of(image, file)
        pixels, reduced, box = image.width * image.height, None, None
        if used and image.mode != "LAB":
            reduced = decoding_memory.reduced_size(image.size, used((image.height, image.width)))
        if reduced and bits <= 8:
            box = decoding_memory.draft(image, reduced)
        decoding_memory.require_memory(
            decoding_memory.peak_bytes(image, pixels, bits, reduced), label
        )
        if bits > 8 and (raster := high_bit_depth.read(image, file)):
            return (decoding_memory.reduced_raster(raster, reduced) if reduced else raster), bool(
                reduced
            )
        image.load()
        lost = (f"its {bits} bits per channel were reduced to 8",) if bits > 8 else ()
        return replace(_reduced(image, reduced, box), notes=lost), bool(reduced)
    except Exception as error:  # the parsers raise any exception for damaged files
        raise _failed(label, error) from error


def _reduced(
    image: Image.Image,
    size: tuple[int, int] | None,
    box: tuple[float, float, float, float] | None,
) -> Raster:
    """The raster of a decoded image, resampled to (width, height) if there is such a size."""
    if size is None:
        return shallow_raster(image)
    if decoding_memory.has_alpha(image):
        return decoding_memory.reduced_raster(shallow_raster(image), size)
    return shallow_raster(decoding_memory.reduced_image(image, size, box))


def shallow_raster(image: Image.Image) -> Raster:
    """The raster with 8 bits per channel, as Pillow has decoded it."""
    alpha = None
    if decoding_memory.has_alpha(image):
        rgba = image.convert("RGBA")
        alpha = np.array(rgba.getchannel("A"))[..., None]
        image = image.convert("L") if image.mode in ("1", "L", "LA") else rgba.convert("RGB")
    mode = {"1": "L", "L": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(image.mode, "RGB")
    array = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
    return Raster(array, "GRAY" if mode == "L" else mode, alpha)


def _failed(label: str, error: Exception) -> NstError:
    """What an error of the parsers means: a lack of memory is not called damage."""
    if isinstance(error, NstError):
        return error
    if lacks_memory(error):
        return decoding_memory.out_of_memory(label)
    return DamagedPicture(
        f"{label} is damaged or truncated: {first_line(error)}",
        remedy="copy the complete file again",
    )


def _decoded(image: Image.Image, raster: Raster, label: str, file_size: Size | None) -> DecodedFile:
    """The picture, upright and in sRGB. file_size: of the file as it is stored, if the raster is reduced."""
    notes = list(raster.notes)
    if (frames := _frames(image)) != 1:
        notes.append(f"only the first of {frames or 'several'} frames was used")
    orientation = _orientation(image)
    upright = _UPRIGHT.get(orientation, _UPRIGHT[1])
    if file_size and orientation in _TURNED:
        file_size = file_size[::-1]
    colours, note = to_srgb(raster, image.info.get("icc_profile"), label)
    alpha = None
    if raster.alpha is not None:
        alpha = upright(scaled(raster.alpha))
        if not alpha.any():
            raise PictureError(
                f"{label} is fully transparent", remedy="use a picture with visible pixels"
            )
        alpha = None if bool((alpha == 1).all()) else alpha
    metadata = _metadata_of(image)
    return DecodedFile(upright(colours), alpha, metadata, (*notes, *note), file_size)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, if the EXIF is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (damaged EXIF is no reason to refuse the picture)
        return 1


def _frames(image: Image.Image) -> int:
    """The number of frames or pages; 0 if the file is damaged after the first one, which is not used."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 (the parsers raise any exception for damaged files)
        return 0


def _metadata_of(image: Image.Image) -> dict[str, str]:
    try:
        exif = image.getexif()
        found = {name: exif.get(tag) for name, tag in CARRIED.items()}
        found[TAKEN] = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
    except Exception:  # noqa: BLE001 (damaged EXIF is no reason to refuse the picture)
        return {}
    return {name: _readable(value) for name, value in found.items() if isinstance(value, str)}


def _readable(value: str) -> str:
    """Decode text that EXIF specifies as ASCII, programs write as UTF-8 and Pillow reads as Latin-1."""
    raw = value.strip("\0 ").encode("latin-1", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
