"""JPEG XL, with all its bits, by imagecodecs (libjxl).

The header, the colour profile and the boxes are read here first: libjxl allocates by the header, and imagecodecs
returns neither profile nor metadata. libjxl turns the picture upright; the standard says that the orientation in EXIF
is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import IO

import imagecodecs
import numpy as np

from nst_daemon.machine import threads_per_worker
from nst_daemon.pictures import code_points
from nst_daemon.pictures.jxl import header as jxl_header
from nst_daemon.pictures.jxl import icc as jxl_icc
from nst_daemon.pictures.jxl.boxes import Boxes, find_boxes, read_codestream
from nst_daemon.pictures.jxl.frames import MAX_FRAMES, Frames, walk
from nst_daemon.pictures.jxl.header import Depth, Encoding, ExtraChannel, Header
from nst_daemon.pictures.metadata import TURNED, parsed_exif
from nst_daemon.pictures.raster import (
    Array,
    Raster,
    StoredPicture,
    Tags,
    UnsupportedPicture,
    full,
    widened,
)
from nst_daemon.pictures.srgb import to_light

#: Longer EXIF is ignored.
MAX_EXIF = 1 << 20
#: Per pixel and channel, beside the file and the result. Measured with 6 megapixels: up to 1.0 (lossless), 3.5 (lossy,
#: opacity; imagecodecs 2026.3).
WORKING_BYTES = 5.0

#: Chromaticities (x, y) by their numbers in the header: D65, equal energy and DCI; BT.709, BT.2100 and P3.
_WHITES = {1: (0.3127, 0.3290), 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
_PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}
#: Numbers of primaries and white in the header → number of primaries in H.273.
_CODE_POINTS = {(1, 1): 1, (9, 1): 9, (11, 1): 12, (11, 11): 11}
_BT709, _LINEAR, _DCI = 1, 8, 17


@dataclass(frozen=True)
class _Opened:
    """What is known before decoding. start: the offset of the first frame; 0 if the profile was not read."""

    codestream: bytes
    header: Header
    start: int
    profile: bytes | None
    notes: tuple[str, ...]
    frames: Frames

    @property
    def replaced(self) -> bool:
        """Whether the header is replaced, to decode XYB to sRGB with 16 bits.

        With a profile, libjxl decodes XYB to linear sRGB, which needs more than 8 bits.
        """
        return self.header.xyb and self.header.encoding.icc and self.start > 0

    @property
    def hdr(self) -> bool:
        """Whether the colours are tone-mapped."""
        return _is_hdr(self.header.encoding) and not self.cmyk

    @property
    def cmyk(self) -> bool:
        """Whether the colours are inks, with black as the only other channel."""
        header = self.header
        black = ExtraChannel(jxl_header.BLACK, header.depth)
        return header.extra == (black,) and not header.xyb and self.start > 0


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the header. Damaged files raise any exception."""
    boxes = find_boxes(file)
    opened = _opened(read_codestream(file, boxes))
    header, frames = opened.header, opened.frames
    _require_support(opened)
    size = header.size[::-1] if header.orientation in TURNED else header.size
    return StoredPicture(
        size,
        alpha=_has_alpha(header),
        cmyk=opened.cmyk,
        decode=lambda _: _decoded(opened),
        decoding_bytes=lambda _: _decoding_bytes(opened),
        profile=opened.profile,
        exif=lambda: _exif(file, boxes),
        frames=frames.shown if header.animated else 1,
    )


def _require_support(opened: _Opened) -> None:
    header, frames = opened.header, opened.frames
    if any(channel.kind == jxl_header.BLACK for channel in header.extra) and not opened.cmyk:
        raise UnsupportedPicture("has CMYK colours with other channels")
    if not header.xyb and header.encoding.space in (jxl_header.XYB, jxl_header.UNKNOWN_SPACE):
        raise UnsupportedPicture("has colours in a space other than RGB and grey")
    if header.depth.exponent and header.depth.bits not in (16, 32):
        raise UnsupportedPicture(f"has floating-point values of {header.depth.bits} bits")
    if len(frames.frames) >= MAX_FRAMES and not any(frame.shown for frame in frames.frames):
        raise UnsupportedPicture(f"has more than {MAX_FRAMES} frames before the first picture")


def _opened(codestream: bytes) -> _Opened:
    header = jxl_header.read_header(codestream)
    _require_known(header.encoding)
    start = jxl_header.frames_offset(header)
    profile: bytes | None
    notes: tuple[str, ...] = ()
    if not header.encoding.icc:
        profile = _profile(header.encoding)
    else:
        bits = jxl_header.Bits(codestream, header.end)
        try:
            profile = jxl_icc.read_profile(bits)
            start = (bits.position + 7) // 8
        except jxl_icc.UnreadableProfile:
            profile, start = None, 0
            notes = ("its colour profile is too large and was not used",)
        if header.xyb:  # the profile is only that of the original picture
            linear = _profile(Encoding(space=header.encoding.space, curve=_LINEAR))
            profile, notes = None if start else linear, ()
    frames = walk(codestream, header, start) if start else Frames(())
    return _Opened(codestream, header, start, profile, notes, frames)


def _has_alpha(header: Header) -> bool:
    return any(channel.kind == jxl_header.ALPHA for channel in header.extra)


def _decoding_bytes(opened: _Opened) -> float:
    header = opened.header
    depth = Depth(16) if opened.replaced else header.depth
    result = 1 if depth.bits <= 8 else 2 if depth.bits <= 16 else 4
    if any(channel.premultiplied for channel in header.extra):
        result = 8  # float32, twice
    channels = (1 if header.encoding.space == jxl_header.GREY else 3) + len(header.extra)
    copies = len(opened.codestream) * (2 if opened.replaced or opened.cmyk else 1)
    pixels, kept = opened.frames.first_bytes(header)
    each = result * channels + (code_points.CONVERSION_BYTES if opened.hdr else 0)
    results = each * header.size[0] * header.size[1]
    return copies + kept + WORKING_BYTES * channels * pixels + results


def _decoded(opened: _Opened) -> Raster:
    header = opened.header
    codestream = opened.codestream
    depth = header.depth
    if opened.cmyk:
        codestream = jxl_header.in_srgb(codestream, header, frames=opened.start, black=True)
    if opened.replaced:
        codestream = jxl_header.in_srgb(codestream, header, frames=opened.start, bits=16)
        depth = Depth(16)
    try:
        values = imagecodecs.jpegxl_decode(codestream, index=0, numthreads=threads_per_worker())
    except imagecodecs.JpegxlError as error:
        if "NEED_MORE_INPUT" in str(error):
            raise EOFError("the JPEG XL codestream is cut off") from error
        raise ValueError("libjxl cannot decode the codestream") from error
    if opened.cmyk:
        inks = _whole_range(np.asarray(values), depth.bits)  # 0 is full ink
        return Raster(np.asarray(full(inks) - inks, inks.dtype), "CMYK", None, opened.notes)
    raster = _raster(np.asarray(values), header, depth.bits, opened.notes)
    if not opened.hdr:
        return raster
    return code_points.in_srgb(raster, _primaries(header.encoding), header.encoding.curve)


def _raster(values: Array, header: Header, bits: int, notes: tuple[str, ...]) -> Raster:
    grey = header.encoding.space == jxl_header.GREY
    colours = 1 if grey else 3
    if grey and header.extra and not _has_alpha(header):
        values = values[0]  # imagecodecs returns planes then
    values = values.reshape(*values.shape[:2], -1)
    space = "GRAY" if grey else "RGB"
    integers = values.dtype.kind == "u"
    opacity = next((one for one in header.extra if one.kind == jxl_header.ALPHA), None)
    if opacity and opacity.premultiplied:
        shares = values.astype(np.float32) / np.float32((1 << bits) - 1 if integers else 1)
        alpha = shares[..., colours : colours + 1]
        return Raster(shares[..., :colours] / np.where(alpha > 0, alpha, 1), space, alpha, notes)
    values = _whole_range(values, bits)
    found = values[..., colours : colours + 1] if opacity else None
    return Raster(values[..., :colours], space, found, notes)


def _whole_range(values: Array, bits: int) -> Array:
    """Integers of so many bits in the whole range of their dtype; others as they are."""
    if values.dtype.kind != "u" or bits == 8 * values.itemsize:
        return values
    return widened(values, bits)


def _exif(file: IO[bytes], boxes: Boxes) -> Tags:
    """The tags without the orientation: the header of the codestream has it."""
    for kind, start, length in boxes.metadata:
        file.seek(start)
        data = file.read(min(length, MAX_EXIF))
        if kind == b"brob":  # compressed
            if data[:4] != b"Exif":
                continue
            data = bytes(imagecodecs.brotli_decode(data[4:], out=bytearray(MAX_EXIF)))
        tags = parsed_exif(data)  # some writers leave out the offset
        if not tags:
            tags = parsed_exif(data[4 + int.from_bytes(data[:4], "big") :])
        tags.pop(274, None)
        return tags
    return {}


# Colour encodings


@cache
def _profile(encoding: Encoding) -> bytes | None:
    """An ICC profile for an encoding; None for sRGB and HDR."""
    grey = encoding.space == jxl_header.GREY
    if encoding == Encoding(space=encoding.space, white=encoding.white if grey else jxl_header.D65):
        return None
    if _is_hdr(encoding):
        return None
    *points, white = _points(encoding)
    corners = [c for x, y in points for c in (x, y, 1.0)]
    values = np.linspace(0, 1, 4096)
    curve = _gamma(1 / encoding.gamma) if encoding.gamma else _CURVES[encoding.curve]
    profile = imagecodecs.cms_profile(
        "gray" if grey else "rgb",
        whitepoint=[*white, 1.0],
        transferfunction=np.round(65535 * curve(values).clip(0, 1)).astype(np.uint16),
        primaries=None if grey else corners,
    )
    return bytes(profile)


def _is_hdr(encoding: Encoding) -> bool:
    return encoding.curve in (code_points.PQ, code_points.HLG) and not encoding.gamma


def _primaries(encoding: Encoding) -> int | code_points.Points:
    """As `code_points` describes them."""
    if encoding.space == jxl_header.GREY:
        return 1
    for numbers, known in _CODE_POINTS.items():
        if numbers == (encoding.primaries, encoding.white):
            return known
    return _points(encoding)


def _points(encoding: Encoding) -> code_points.Points:
    white, primaries = encoding.white, encoding.primaries
    red, green, blue = primaries if isinstance(primaries, tuple) else _PRIMARIES[primaries]
    return red, green, blue, white if isinstance(white, tuple) else _WHITES[white]


def _require_known(encoding: Encoding) -> None:
    """Raise ValueError unless the standard defines the white point, the primaries and the transfer function."""
    numbers = (
        (encoding.white, _WHITES),
        (encoding.primaries, _PRIMARIES),
        (encoding.curve, {*_CURVES, code_points.PQ, code_points.HLG}),
    )
    if any(isinstance(number, int) and number not in known for number, known in numbers):
        raise ValueError("its colour encoding is invalid")


def _gamma(exponent: float) -> Callable[[Array], Array]:
    return lambda values: values**exponent


def _bt709(values: Array) -> Array:
    """ITU-R BT.709, 1.2, inverted."""
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


_CURVES: dict[int, Callable[[Array], Array]] = {
    _BT709: _bt709,
    _LINEAR: _gamma(1.0),
    jxl_header.SRGB_CURVE: to_light,
    _DCI: _gamma(2.6),
}
