"""Camera raw files, developed by LibRaw (rawpy) with 16 bits per channel.

A raw file has no brightness of its own: cameras leave room for highlights, so that the values as they are give a dark
picture. As dcraw, LibRaw and most viewers do by default, the picture is brightened until 1 % of its pixels are white,
but by three stops at most, so that a photo of the night stays one. White balance is the camera's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, cast

import numpy as np
import rawpy
from PIL import ExifTags

from nst_daemon.pictures import memory
from nst_daemon.pictures.icc import to_srgb
from nst_daemon.pictures.metadata import parsed_exif, read_exif, upright
from nst_daemon.pictures.raster import Array, Raster, Size, StoredPicture, UnsupportedPicture
from nst_daemon.pictures.readers import jpeg
from nst_daemon.pictures.srgb import from_light

#: This share of the pixels becomes white (LibRaw's default of `auto_bright_thr`) …
WHITE_SHARE = 0.01
#: … unless they would be brightened more than this. LibRaw has no such limit.
MOST_BRIGHTENED = 8.0
#: About so many pixels are looked at to find the brightness.
_SAMPLES = 1 << 20
#: An embedded preview with a shorter side than this is not used in place of raw data that LibRaw cannot read.
LEAST_PREVIEW_SIDE = 600
UNKNOWN = "contains raw data of an unknown or damaged kind"
#: EXIF that is surrounded by other data is at most so long.
_EXIF_BYTES = 1 << 20

# Bytes at the worst moment, measured as the growth of VmHWM with 24 megapixels (rawpy 0.28, LibRaw 0.22,
# x86-64), besides the file itself.

#: Per pixel of the file. Measured: 14.0, with all colours for each pixel 16.0; reduced 3.5, and 16.0 again: it is not
#: known before the raw data are unpacked whether they are a mosaic.
PIXEL_BYTES = 16.5


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the header, without unpacking. Damaged files raise any exception."""
    raw = _opened(file)
    sizes, length = raw.sizes, file.tell()
    size = (sizes.height, sizes.width)
    if sizes.flip & 4:  # LibRaw turns the picture upright
        size = size[::-1]
    found: dict[int, object] = {}

    def decode(reduced: Size | None) -> Raster:
        values = _developed(raw, bool(reduced))
        if values is None:
            return _preview(file, size)
        found.update(_of_libraw(raw))
        raw.close()  # frees memory
        notes = () if values.any() else ("all of its values are black or non-finite",)
        raster = Raster(_bright(values), "RGB" if values.shape[2] == 3 else "GRAY", notes=notes)
        if reduced and raster.colours.shape[0] > reduced[0]:
            return memory.reduced_raster(raster, reduced)
        return raster

    return StoredPicture(
        size=size,
        alpha=False,
        cmyk=False,
        decode=decode,
        decoding_bytes=lambda _: length + PIXEL_BYTES * size[0] * size[1],
        exif=lambda: _exif(file, found),
    )


def _opened(file: IO[bytes]) -> rawpy.RawPy:
    raw = rawpy.RawPy()
    file.seek(0)
    with _errors():
        raw.open_buffer(cast("BinaryIO", file))
    return raw


@contextmanager
def _errors() -> Iterator[None]:
    """Turn LibRaw's exceptions, whose messages are bytes, into ours."""
    try:
        yield
    except (
        rawpy.LibRawFileUnsupportedError,
        rawpy.LibRawNotImplementedError,
        rawpy.LibRawRequestForNonexistentImageError,
        rawpy.LibRawNoThumbnailError,
        rawpy.LibRawUnsupportedThumbnailError,
    ) as error:
        raise UnsupportedPicture(UNKNOWN) from error
    except rawpy.LibRawTooBigError as error:
        raise UnsupportedPicture("contains more raw data than LibRaw reads") from error
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    except rawpy.LibRawIOError as error:
        raise ValueError("its raw data are incomplete") from error
    except rawpy.LibRawError as error:
        raise ValueError(_text(error)) from error


def _text(error: Exception) -> str:
    """The message of an exception of LibRaw."""
    message = error.args[0] if error.args else ""
    return message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)


def _developed(raw: rawpy.RawPy, half: bool) -> Array | None:
    """The picture, upright, in linear sRGB with 16 bits; None if LibRaw does not know this kind of raw data.

    Args:
        raw: The file, opened.
        half: Each 2 × 2 pixels of a mosaic become one.
    """
    try:
        with _errors():
            raw.unpack()
            return raw.postprocess(
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
                use_camera_wb=True,
                no_auto_bright=True,
                gamma=(1, 1),
                half_size=half,
            )
    except UnsupportedPicture:
        return None


def _bright(values: Array) -> Array:
    """Linear 16-bit values as sRGB, brightened."""
    step = max(1, int((values.shape[0] * values.shape[1] / _SAMPLES) ** 0.5))
    light = np.quantile(values[::step, ::step], 1 - WHITE_SHARE, axis=(0, 1)).max()
    white = max(float(light), 65535 / MOST_BRIGHTENED)
    linear = np.minimum(np.arange(65536) / white, 1)
    return np.asarray((65535 * from_light(linear)).round().astype(np.uint16)[values])


def _preview(file: IO[bytes], size: Size) -> Raster:
    """The JPEG that the camera has stored beside raw data that LibRaw cannot read."""
    with _errors():
        found = _opened(file).extract_thumb()  # after `unpack` has failed, LibRaw finds none
    unsupported = UnsupportedPicture(UNKNOWN)
    if not isinstance(found.data, bytes):  # a bitmap, which is small
        raise unsupported
    stored = jpeg.open_picture(io.BytesIO(found.data))
    height, width = stored.size
    if min(height, width) < LEAST_PREVIEW_SIDE or height * width > 2 * size[0] * size[1]:
        raise unsupported
    raster = stored.decode(None)
    colours, _ = to_srgb(raster, stored.profile, "the preview")
    orientation, _ = read_exif(stored.exif)  # LibRaw adds it where the preview has none
    note = f"its raw data cannot be decoded; its preview of {width} × {height} pixels was used"
    return Raster(upright(colours, orientation), "RGB", notes=(note,))


def _of_libraw(raw: rawpy.RawPy) -> dict[int, object]:
    """What LibRaw has found in any raw file: the date and the artist."""
    try:
        other = raw.other
    except (rawpy.LibRawError, OverflowError, ValueError, OSError):
        return {}
    date = f"{other.timestamp:%Y:%m:%d %H:%M:%S}" if other.timestamp.year > 1980 else ""
    found = {ExifTags.Base.DateTime: date, ExifTags.Base.Artist: other.artist}
    return {tag: text for tag, text in found.items() if text}


def _exif(file: IO[bytes], found: dict[int, object]) -> dict[int, object]:
    """The metadata, without the orientation: LibRaw has turned the picture."""
    file.seek(0)
    try:
        tags = found | parsed_exif(_tiff_data(file.read()))
    except ValueError:
        tags = found
    return {tag: value for tag, value in tags.items() if tag != ExifTags.Base.Orientation}


def _tiff_data(data: bytes) -> bytes:
    """The TIFF structure with the metadata, whatever surrounds it. Raises ValueError."""
    if data[4:8] == b"ftyp":  # CR3: a box contains a TIFF file
        start = data.index(b"CMT1") + 4
        return data[start : start + _EXIF_BYTES]
    if data.startswith(b"FUJIFILM"):  # RAF: an EXIF segment of the JPEG at this offset
        start = data.index(b"Exif\0\0", int.from_bytes(data[84:88], "big"))
        return data[start : start + _EXIF_BYTES]
    if data[:3] in {b"IIR", b"IIU"}:  # ORF, RW2: a TIFF file with another number in its header
        return b"II*\0" + data[4:]
    if data.startswith(b"MMOR"):
        return b"MM\0*" + data[4:]
    return data
