"""TIFF and BigTIFF written by hand: any bits, byte order, strips or tiles, predictors, sub-directories."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Value = tuple[int, Sequence[float]] | bytes

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, FLOAT, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 11, 12, 16
_LAYOUTS = {BYTE: "B", SHORT: "H", LONG: "I", FLOAT: "f", DOUBLE: "d", LONG8: "Q"}
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB, ICCLAB, ITULAB = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    9,
    10,
)

Encoder = Callable[[bytes], bytes]
#: Compressions of bytes without loss: their codes and encoders.
ENCODERS: dict[str, tuple[int, Encoder]] = {
    "none": (1, lambda data: data),
    "LZW": (5, lambda data: bytes(imagecodecs.lzw_encode(data))),
    "Deflate": (8, zlib.compress),
    "old Deflate": (32946, zlib.compress),
    "PackBits": (32773, lambda data: bytes(imagecodecs.packbits_encode(data))),
    "LZMA": (34925, lzma.compress),
    "ZSTD": (50000, lambda data: bytes(imagecodecs.zstd_encode(data))),
}


@dataclass
class Page:
    """A directory.

    Attributes:
        tags: Tag → type and values, or bytes (UNDEFINED, or ASCII where the tag is a text).
        segments: The compressed strips or tiles, or None to leave them out.
        subs: Directories that SubIFDs refers to.
        exif: Tags of the EXIF directory.
        lengths: Whether StripByteCounts is there.
    """

    tags: dict[int, Value]
    segments: list[bytes] | None = None
    subs: list[Page] = field(default_factory=list)
    exif: dict[int, Value] = field(default_factory=dict)
    lengths: bool = True


def file(*pages: Page, order: str = "<", big: bool = False, loop: bool = False) -> bytes:
    """The bytes of a file. loop: The last directory refers to the first one."""
    pointer = "Q" if big else "I"
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    writer = _Writer(bytearray(head), order, big)
    starts = []
    for number, page in enumerate(pages):
        if number:
            struct.pack_into(order + pointer, writer.data, writer.link, len(writer.data))
        starts.append(writer.page(page))
    if loop:
        struct.pack_into(order + pointer, writer.data, writer.link, starts[0])
    return bytes(writer.data)


@dataclass
class _Writer:
    data: bytearray
    order: str
    big: bool
    link: int = 0

    def page(self, page: Page) -> int:
        """Append a directory with its values, pixels and sub-directories; `link` is where the next offset goes."""
        tags = dict(page.tags)
        tiled = 322 in tags
        offsets, lengths = (324, 325) if tiled else (273, 279)
        if page.segments is not None:
            number = len(page.segments)
            tags[offsets] = (LONG8 if self.big else LONG, [0] * number)
            if page.lengths:
                tags[lengths] = (LONG, [len(part) for part in page.segments])
        if page.subs:
            tags[330] = (LONG, [0] * len(page.subs))
        if page.exif:
            tags[34665] = (LONG, [0])
        start = len(self.data)
        places, self.link = self._directory(tags)
        link = self.link
        if page.segments is not None:
            found = []
            for part in page.segments:
                found.append(len(self.data))
                self.data += part + bytes(len(part) % 2)
            self._put(places[offsets], LONG8 if self.big else LONG, found)
        if page.subs:
            self._put(places[330], LONG, [self.page(sub) for sub in page.subs])
        if page.exif:
            self._put(places[34665], LONG, [len(self.data)])
            self._directory(page.exif)
        self.link = link
        return start

    def _put(self, at: int, kind: int, values: Sequence[float]) -> None:
        struct.pack_into(f"{self.order}{len(values)}{_LAYOUTS[kind]}", self.data, at, *values)

    def _directory(self, tags: dict[int, Value]) -> tuple[dict[int, int], int]:
        """Append it; the places of the values of each tag, and of the offset of the next directory."""
        order, pointer, width = self.order, "Q" if self.big else "I", 8 if self.big else 4
        step = 20 if self.big else 12
        start = len(self.data) + (8 if self.big else 2)
        link = start + step * len(tags)
        extra = link + width
        table, values, places = b"", b"", {}
        for number, (tag, value) in enumerate(sorted(tags.items())):
            kind, count, packed = _packed(value, order, tag)
            table += struct.pack(order + "HH" + pointer, tag, kind, count)
            if len(packed) <= width:
                places[tag] = start + step * number + step - width
                table += packed.ljust(width, b"\0")
            else:
                places[tag] = extra + len(values)
                table += struct.pack(order + pointer, extra + len(values))
                values += packed + bytes(len(packed) % 2)
        self.data += struct.pack(order + ("Q" if self.big else "H"), len(tags))
        self.data += table + bytes(width) + values
        return places, link


def _packed(value: Value, order: str, tag: int) -> tuple[int, int, bytes]:
    if isinstance(value, bytes):
        return (ASCII if tag in (270, 306, 315, 33432, 36867) else UNDEFINED), len(value), value
    kind, numbers = value
    if kind == RATIONAL:
        pairs = [part for number in numbers for part in (round(number * 10_000), 10_000)]
        return kind, len(numbers), struct.pack(f"{order}{len(pairs)}I", *pairs)
    return kind, len(numbers), struct.pack(f"{order}{len(numbers)}{_LAYOUTS[kind]}", *numbers)


@dataclass(frozen=True)
class Store:
    """How pixels are stored. rows: of a strip; tile: (height, width); order: of the bytes."""

    order: str = "<"
    rows: int = 0
    tile: tuple[int, int] | None = None
    planar: bool = False
    code: str = "none"
    predictor: int = 1
    reverse: bool = False


def page(
    values: Array,
    bits: int | Sequence[int],
    photometric: int | None,
    store: Store = Store(),
    *,
    extra: Sequence[int] | None = None,
    formats: int | None = None,
    encode: tuple[int, Callable[[Array], bytes]] | None = None,
    tags: dict[int, Value] | None = None,
    **more: Any,
) -> Page:
    """A directory with pixels.

    Args:
        values: (H, W, samples): the numbers that are stored, without a sign, or floating-point values.
        bits: Of each sample.
        photometric: PhotometricInterpretation; None leaves the tag out.
        store: How.
        extra: ExtraSamples.
        formats: SampleFormat.
        encode: A compression of whole pictures, (H, W, samples) → bytes, and its code.
        tags: More tags.
        more: More arguments of Page.
    """
    height, width, samples = values.shape
    every = [bits] * samples if isinstance(bits, int) else [*bits]
    code, pack = ENCODERS[store.code]
    found: dict[int, Value] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, every),
        259: (SHORT, [encode[0] if encode else code]),
        277: (SHORT, [samples]),
    }
    if photometric is not None:
        found[262] = (SHORT, [photometric])
    if extra is not None:
        found[338] = (SHORT, extra)
    if formats is not None:
        found[339] = (SHORT, [formats] * samples)
    if store.planar:
        found[284] = (SHORT, [2])
    if store.predictor != 1:
        found[317] = (SHORT, [store.predictor])
    if store.reverse:
        found[266] = (SHORT, [2])
    if store.tile:
        found |= {322: (LONG, [store.tile[1]]), 323: (LONG, [store.tile[0]])}
    else:
        found[278] = (LONG, [store.rows or height])
    planes = [(values[..., n : n + 1], every[n : n + 1]) for n in range(samples)]
    parts = []
    for plane, plane_bits in planes if store.planar else [(values, every)]:
        for part in cut(plane, store):
            if encode:
                parts.append(encode[1](part))
                continue
            data = pack(packed(part, plane_bits, store))
            parts.append(bytes(imagecodecs.bitorder_decode(data)) if store.reverse else data)
    return Page(found | (tags or {}), parts, **more)


def cut(values: Array, store: Store) -> list[Array]:
    """Strips, or tiles that are filled up with the last row and column."""
    height, width = values.shape[:2]
    if not store.tile:
        rows = store.rows or height
        return [values[top : top + rows] for top in range(0, height, rows)]
    high, wide = store.tile
    padded = np.pad(values, ((0, -height % high), (0, -width % wide), (0, 0)), mode="edge")
    return [
        padded[y : y + high, x : x + wide]
        for y in range(0, padded.shape[0], high)
        for x in range(0, padded.shape[1], wide)
    ]


def packed(values: Array, bits: Sequence[int], store: Store) -> bytes:
    """Rows of samples, after the predictor."""
    if values.dtype.kind == "f":
        return _packed_floats(values, bits[0], store)
    whole = values.astype(np.uint64)
    if store.predictor == 2:
        whole = np.concatenate([whole[:, :1], whole[:, 1:] - whole[:, :-1]], axis=1)
    return _packed_integers(whole, bits, store.order)


def _packed_integers(whole: Array, bits: Sequence[int], order: str) -> bytes:
    if len(set(bits)) == 1 and bits[0] in (8, 16, 32, 64):
        mask = np.uint64(2 ** bits[0] - 1)
        return (whole & mask).astype(f"{order}u{bits[0] // 8}").tobytes()
    digits = []
    for n, number in enumerate(bits):
        shifts = np.arange(number - 1, -1, -1, dtype=np.uint64)
        digit = (whole[..., n, None] >> shifts & np.uint64(1)).astype(np.uint8)
        if order == "<" and all(one % 8 == 0 for one in bits):
            digit = digit.reshape(*digit.shape[:2], -1, 8)[:, :, ::-1].reshape(digit.shape)
        digits.append(digit)
    rows = np.concatenate(digits, axis=2).reshape(len(whole), -1)
    return np.packbits(rows, axis=1).tobytes()


def _packed_floats(values: Array, bits: int, store: Store) -> bytes:
    patterns = _float_patterns(values, bits)
    if store.predictor != 3:
        if store.predictor == 2:
            patterns = np.concatenate([patterns[:, :1], patterns[:, 1:] - patterns[:, :-1]], axis=1)
        return _packed_integers(patterns, [bits] * values.shape[2], store.order)
    samples, size = values.shape[2], bits // 8
    shifts = np.arange(8 * (size - 1), -1, -8, dtype=np.uint64)
    parts = (patterns[..., None] >> shifts & np.uint64(255)).astype(np.uint8)
    planes = parts.reshape(len(values), -1, size).transpose(0, 2, 1).reshape(len(values), -1)
    out = planes.copy()
    out[:, samples:] = planes[:, samples:] - planes[:, :-samples]
    return out.tobytes()


def _float_patterns(values: Array, bits: int) -> Array:
    """The bits of floating-point numbers; those of 24 bits have 7 for the exponent and 16 for the mantissa."""
    if bits != 24:
        return values.astype(f"f{bits // 8}").view(f"u{bits // 8}").astype(np.uint64)
    wide = values.astype(np.float32).view(np.uint32).astype(np.int64)
    exponent = (wide >> 23 & 0xFF) - 127 + 63
    found = (wide >> 31) << 23 | exponent << 16 | wide >> 7 & 0xFFFF
    return np.where(values == 0, 0, found).astype(np.uint64)


def float24(values: Array) -> Array:
    """Values that 24 bits store exactly."""
    found: Array = (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFFF80)).view(
        np.float32
    )
    return found
