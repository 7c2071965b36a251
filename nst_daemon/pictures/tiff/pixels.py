"""Strips and tiles of a TIFF → one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np

from nst_daemon.pictures.raster import Array, UnsupportedPicture
from nst_daemon.pictures.tiff import codecs, old
from nst_daemon.pictures.tiff import directory as tags
from nst_daemon.pictures.tiff import layout as layouts
from nst_daemon.pictures.tiff.directory import Directory
from nst_daemon.pictures.tiff.layout import Layout, rows_of

_NO_PREDICTOR, _HORIZONTAL, _FLOATING_POINT = 1, 2, 3
#: Longer tables of JPEG are cut: they are copied for each strip or tile.
_MAX_TABLES = 1 << 14


def dtype_of(layout: Layout, raw: bool) -> np.dtype[Any]:
    """uint8 or uint16 over the whole range, or float32 in [0, 1]; of raw values the smallest that holds them."""
    if layout.kind == "f" or layout.photometric in (layouts.LOG_L, layouts.LOG_LUV):
        return np.dtype(np.float32)
    bits = max(layout.bits)
    return np.dtype(
        np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32 if raw else np.float32
    )


def require_support(layout: Layout) -> None:
    """Raise UnsupportedPicture for compressions that are not read."""
    code = layout.compression
    known = code in codecs.BYTES or code in layouts.PICTURES or code in old.LIBTIFF
    if not known and code not in (codecs.PIXAR_LOG, codecs.LERC):
        raise UnsupportedPicture(f"is a TIFF with the compression {code}")
    predicted = layout.predictor != _NO_PREDICTOR
    if predicted and layout.predictor not in (_HORIZONTAL, _FLOATING_POINT):
        raise UnsupportedPicture(f"is a TIFF with the predictor {layout.predictor}")
    whole = set(layout.bits) <= {8, 16, 32, 64} and len(set(layout.bits)) == 1
    if (layout.chroma != (1, 1) or code in (codecs.PIXAR_LOG, codecs.LERC)) and not whole:
        raise UnsupportedPicture(f"is a TIFF with YCbCr, LERC or PixarLog of {layout.bits[0]} bits")
    plain = len(set(layout.bits)) == 1 and layout.bits[0] in (8, 16, 24, 32, 64)
    if predicted and (not plain or (layout.predictor == _FLOATING_POINT and layout.kind != "f")):
        raise UnsupportedPicture(f"is a TIFF with a predictor for {layout.bits[0]} bits")


def decode(
    directory: Directory, layout: Layout, wanted: Sequence[int], *, raw: bool = False
) -> Array:
    """(H, W, samples) of the samples that are wanted.

    Args:
        directory: Of the picture.
        layout: Its layout.
        wanted: The numbers of the samples.
        raw: Values as stored, of palettes and L*a*b*, and not over the whole range of the dtype.
    """
    dtype = dtype_of(layout, raw)
    planes = max(wanted) + 1 if layout.planar else 1
    if layout.compression == layouts.OLD_JPEG:
        return old.old_jpeg(directory, layout)
    if layout.compression in old.LIBTIFF:
        return _by_libtiff(directory, layout, wanted, raw=raw)
    offsets, lengths = layouts.places(directory, layout, planes)
    result = np.zeros((*layout.size, len(wanted)), dtype)
    across = layout.grid[1]
    height, width = layout.segment
    chosen = _chosen(wanted)
    decoder = _Decoder(directory, layout, dtype, raw)
    for plane in dict.fromkeys(wanted) if layout.planar else (None,):
        target = result if plane is None else result[..., [*wanted].index(plane)]
        for index in range(layout.segments):
            number = (plane or 0) * layout.segments + index
            if not lengths[number]:
                continue  # was never written
            data = directory.read(int(offsets[number]), int(lengths[number]))
            values = decoder.segment(data, rows_of(layout, index), plane)
            y, x = index // across * height, index % across * width
            part = target[y : y + height, x : x + width]
            cut = values[: part.shape[0], : part.shape[1]]
            part[...] = cut[..., chosen] if plane is None else cut[..., 0]
    return result


def _chosen(wanted: Sequence[int]) -> slice | list[int]:
    return slice(0, len(wanted)) if [*wanted] == [*range(len(wanted))] else [*wanted]


class _Decoder:
    """Decodes strips or tiles of one picture."""

    def __init__(
        self, directory: Directory, layout: Layout, dtype: np.dtype[Any], raw: bool
    ) -> None:
        self.layout, self.dtype, self.raw = layout, dtype, raw
        jpeg = layout.compression in layouts.JPEGS
        self.tables = directory.data(tags.JPEG_TABLES, _MAX_TABLES) if jpeg else b""
        self.lerc = directory.numbers(tags.LERC_PARAMETERS)

    def segment(self, data: bytes, rows: int, plane: int | None) -> Array:
        """(≥ rows, width, samples) of a strip or tile. rows: those within the picture."""
        layout = self.layout
        rows = layout.segment[0] if layout.tiled else rows
        if layout.compression in layouts.PICTURES:
            return self._picture(data, rows, plane)
        if layout.reverse:
            data = bytes(imagecodecs.bitorder_decode(data))
        size, samples = (rows, layout.segment[1]), 1 if plane is not None else layout.samples
        if layout.compression == codecs.LERC:
            values = codecs.lerc(data, self.lerc, size, samples, self._native())
        elif layout.compression == codecs.PIXAR_LOG:
            values = codecs.pixar_log(data, size, samples, self._native())
        else:
            values = self._bytes(data, rows, plane)
        return self._whole(values, plane)

    def _native(self) -> str:
        return f"{self.layout.kind}{self.layout.bits[0] // 8}"

    def _picture(self, data: bytes, rows: int, plane: int | None) -> Array:
        layout = self.layout
        samples = 1 if plane is not None else layout.samples
        size = rows, layout.segment[1]
        if layout.compression not in layouts.JPEGS:
            return _as(codecs.inner_picture(layout.compression, data, size, samples), self.dtype)
        data = codecs.with_tables(data, self.tables)
        values, bits = codecs.jpeg(data, size, samples, _jpeg_space(data, layout, samples))
        if self.raw:
            return values.astype(self.dtype, copy=False)
        return codecs.full_range(values, bits, False, self.dtype)

    def _whole(self, values: Array, plane: int | None) -> Array:
        """Over the whole range."""
        layout, signed = self.layout, self.layout.kind == "i"
        if signed:
            values = values.view(f"u{values.dtype.itemsize}")
        if self.raw:
            return values.astype(self.dtype, copy=False)
        if plane is not None or len(set(layout.bits)) == 1:
            return codecs.full_range(values, layout.bits[plane or 0], signed, self.dtype)
        parts = [
            codecs.full_range(values[..., n], bits, signed, self.dtype)
            for n, bits in enumerate(layout.bits)
        ]
        return np.stack(parts, axis=-1)

    def _bytes(self, data: bytes, rows: int, plane: int | None) -> Array:
        layout = self.layout
        # The last strip may be as long as the others.
        most = layout.segment_bytes(layout.segment[0], plane)
        unpacked = codecs.BYTES[layout.compression](data, most)
        needed = layout.segment_bytes(rows, plane)
        if len(unpacked) < needed:
            raise EOFError(f"a strip or tile has {len(unpacked)} of {needed} bytes")
        content = np.frombuffer(unpacked, np.uint8, needed)
        if layout.chroma != (1, 1):
            return _shared_colours(content, layout, rows, plane)
        samples = 1 if plane is not None else layout.samples
        bits = set(layout.bits) if plane is None else {layout.bits[plane]}
        if len(bits) > 1:
            return _mixed(content, layout, rows)
        return _unpacked(content, layout, (rows, layout.segment[1], samples), bits.pop())


def _jpeg_space(data: bytes, layout: Layout, samples: int) -> str | None:
    """As of `codecs.jpeg`. JFIF means YCbCr, whatever the tag says (found in Aperio's files)."""
    if samples != 3:
        return ""
    if layout.photometric == layouts.YCBCR:
        return "ycbcr"
    return "ycbcr" if layout.photometric == layouts.RGB and codecs.is_jfif(data) else ""


def _as(values: Array, dtype: np.dtype[Any]) -> Array:
    """Whole-range values in another dtype."""
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        most = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
        return (values / np.float64(most)).astype(np.float32)
    if values.dtype == np.uint8 and dtype == np.uint16:
        return values * np.uint16(257)
    if values.dtype == np.uint16 and dtype == np.uint8:
        return (values >> 8).astype(np.uint8)
    raise ValueError(f"a strip or tile has pixels of {values.dtype}")


def _unpacked(content: Array, layout: Layout, shape: tuple[int, int, int], bits: int) -> Array:
    """Samples of the same number of bits, without predictor, in native byte order."""
    if layout.predictor == _FLOATING_POINT:
        return _from_float_planes(content, shape, bits)
    if bits == 24:
        values = _from_24(content, layout.order).reshape(shape)
    elif bits in (8, 16, 32, 64):
        kind = np.dtype(f"{layout.order}u{bits // 8}")
        values = content.view(kind).astype(kind.newbyteorder("="), copy=False).reshape(shape)
    else:
        small = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
        rows = imagecodecs.packints_decode(
            content.tobytes(), small, bits, runlen=shape[1] * shape[2]
        )
        values = np.asarray(rows).reshape(shape)
    if layout.predictor == _HORIZONTAL:
        values = imagecodecs.delta_decode(np.array(values), axis=-2)
        values = values & np.uint32(0xFFFFFF) if bits == 24 else values
    return _floats(values, bits) if layout.kind == "f" else values


def _from_24(content: Array, order: str) -> Array:
    parts = content.reshape(-1, 3)
    low, middle, high = (
        parts[:, n].astype(np.uint32) for n in ((0, 1, 2) if order == "<" else (2, 1, 0))
    )
    whole: Array = low | middle << np.uint32(8) | high << np.uint32(16)
    return whole


def _floats(values: Array, bits: int) -> Array:
    """Floating-point values of their bits."""
    if bits != 24:
        return values.view(f"f{bits // 8}")
    # 1 bit for the sign, 7 for the exponent (63 is 0), 16 for the mantissa.
    sign, exponent = (values >> 23) << 31, (values >> 16) & 0x7F
    mantissa = (values & 0xFFFF) << 7
    exponent = np.where(exponent == 0x7F, 0xFF, exponent + (127 - 63)).astype(np.uint32)
    normal: Array = (sign.astype(np.uint32) | exponent << 23 | mantissa.astype(np.uint32)).view(
        np.float32
    )
    small = (values & 0xFFFF).astype(np.float32) * np.float32(2.0**-78)
    small = np.where(sign > 0, -small, small)
    return np.where(((values >> 16) & 0x7F) == 0, small, normal)


def _from_float_planes(content: Array, shape: tuple[int, int, int], bits: int) -> Array:
    """Undo the floating-point predictor: rows of bytes, the highest ones first (TIFF Technical Note 3)."""
    rows, width, samples = shape
    size = bits // 8
    summed = imagecodecs.delta_decode(np.array(content).reshape(rows, -1, samples), axis=-2)
    parts = np.asarray(summed).reshape(rows, size, width * samples)
    if size == 3:
        values = _from_24(np.ascontiguousarray(parts.transpose(0, 2, 1)).reshape(-1), ">")
    else:
        joined = np.ascontiguousarray(parts.transpose(0, 2, 1))
        values = joined.reshape(rows, -1).view(f">u{size}").astype(f"u{size}")
    return _floats(values.reshape(shape), bits)


def _mixed(content: Array, layout: Layout, rows: int) -> Array:
    """Samples of several numbers of bits, as uint32."""
    width = layout.segment[1]
    if max(layout.bits) > 32:
        raise UnsupportedPicture("has samples of several numbers of bits")
    row = layout.row_bytes(None)
    found = np.empty((rows, width, layout.samples), np.uint32)
    swapped = layout.order == "<" and all(bits % 8 == 0 for bits in layout.bits)
    for y in range(rows):
        digits = np.unpackbits(content[y * row : (y + 1) * row])[
            : width * sum(layout.bits)
        ].reshape(width, -1)
        start = 0
        for n, bits in enumerate(layout.bits):
            part = digits[:, start : start + bits]
            if swapped:
                part = part.reshape(width, -1, 8)[:, ::-1].reshape(width, bits)
            weights = np.uint32(1) << np.arange(bits - 1, -1, -1, dtype=np.uint32)
            found[y, :, n] = part.astype(np.uint32) @ weights
            start += bits
    return found


def _shared_colours(content: Array, layout: Layout, rows: int, plane: int | None) -> Array:
    """YCbCr of which several pixels share a colour (TIFF 6.0, section 21)."""
    (across, down), width = layout.chroma, layout.segment[1]
    kind = np.dtype(f"{layout.order}u{layout.bits[0] // 8}")
    values = content.view(kind).astype(kind.newbyteorder("="), copy=False)
    high, wide = -(-rows // down), -(-width // across)
    if plane == 0:
        return values.reshape(rows, width, 1)
    if plane is not None:
        shared = values.reshape(high, wide, 1)
        return shared.repeat(down, axis=0).repeat(across, axis=1)[:rows, :width]
    units = values.reshape(high, wide, across * down + 2)
    light = units[..., :-2].reshape(high, wide, down, across).transpose(0, 2, 1, 3)
    found = np.empty((high * down, wide * across, 3), values.dtype)
    found[..., 0] = light.reshape(high * down, wide * across)
    found[..., 1:] = units[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
    return found[:rows, :width]


def _by_libtiff(directory: Directory, layout: Layout, wanted: Sequence[int], *, raw: bool) -> Array:
    """Old compressions, by libtiff: it gets a new file with what was checked."""
    values = old.by_libtiff(directory, layout)
    dtype = dtype_of(layout, raw)
    if values.dtype.kind == "f" or raw:
        return values.astype(dtype, copy=False)[..., [*wanted]]
    return codecs.full_range(values, layout.bits[0], False, dtype)[..., [*wanted]]
