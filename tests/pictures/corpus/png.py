"""PNG, written by hand: every kind of pixels, transparency, critical chunks, image data and end of the file."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from tests.corpus import chunk
from tests.pictures.corpus.case import Case
from tests.pictures.png_writer import (
    DEPTHS,
    FILTERS,
    GREY,
    GREY_ALPHA,
    IEND,
    KINDS,
    PALETTE,
    RGB,
    RGB_ALPHA,
    SAMPLES,
    Pixels,
    case,
    file,
    picture,
    refused,
    wrong_crc,
)


def cases() -> Iterator[Case]:
    """All files."""
    yield from _pixels()
    yield from _sizes()
    yield from _transparency()
    yield from _critical()
    yield from _image_data()
    yield from _ends()


def _all_kinds() -> Iterator[tuple[str, Pixels]]:
    for kind, transparent in product(KINDS, (False, True)):
        if transparent and kind in (GREY_ALPHA, RGB_ALPHA):
            continue
        for depth in DEPTHS[kind]:
            name = f"{KINDS[kind]}, {depth} bit" + (", tRNS" if transparent else "")
            yield name, picture(kind, depth, transparent=transparent)


def _pixels() -> Iterator[Case]:
    """Colour type × depth × tRNS × interlacing × filter."""
    for name, pixels in _all_kinds():
        for interlaced, filter in product((False, True), range(6)):
            title = f"{name}, {FILTERS[filter]}" + (", interlaced" if interlaced else "")
            yield case(title, pixels, partial(file, pixels, interlaced=interlaced, filter=filter))


def _sizes() -> Iterator[Case]:
    """Every size of up to 9 × 9, for each pass of an interlaced picture, and long ones."""
    for kind, depth in ((GREY, 1), (RGB, 8), (PALETTE, 2), (RGB_ALPHA, 16)):
        sizes = [*product(range(1, 10), range(1, 10)), (1, 700), (700, 1)]
        for (height, width), interlaced in product(sizes, (False, True)):
            if not interlaced and height > 3 and width > 3:
                continue
            pixels = picture(kind, depth, size=(height, width))
            if kind == RGB_ALPHA:
                pixels.values[0, 0, 3] = 65535
            title = f"{KINDS[kind]}, {depth} bit, {width} × {height}" + (
                ", interlaced" * interlaced
            )
            alpha = None if pixels.alpha is None or (pixels.alpha == 1).all() else pixels.alpha
            make = partial(file, pixels, interlaced=interlaced)
            yield case(title, pixels, make, alpha=alpha)


def _transparency() -> Iterator[Case]:
    """tRNS at the wrong place, of the wrong length, repeated, with bits above the depth."""
    for kind, depth in ((GREY, 2), (GREY, 8), (GREY, 16), (RGB, 8), (RGB, 16), (PALETTE, 4)):
        clear = picture(kind, depth, transparent=True)
        opaque = replace(clear, transparent=None)
        trns = clear.colour_chunks().removeprefix(opaque.colour_chunks())
        name = f"{KINDS[kind]}, {depth} bit"
        yield case(f"tRNS after IDAT, {name}", opaque, partial(file, opaque, after=trns))
        for state, data in {
            "with a wrong checksum": wrong_crc(trns),
            "that is empty": chunk(b"tRNS", b""),
            "that is too long": chunk(b"tRNS", bytes(17)),
        }.items():
            make = partial(file, opaque, between=data)
            yield case(f"tRNS {state}, {name}", opaque, make)
            make = partial(file, opaque, between=data + trns)
            yield case(f"tRNS {state}, another, {name}", clear, make)
        other = chunk(b"tRNS", bytes(len(trns) - 12))
        yield case(f"two tRNS, {name}", clear, partial(file, clear, between=other))
        if kind == PALETTE:
            yield case("tRNS before PLTE", opaque, partial(file, opaque, before=trns))
        elif depth < 16:
            assert clear.transparent is not None
            high = replace(clear, transparent=clear.transparent + 256 * 7)
            yield case(f"tRNS with high bits, {name}", clear, partial(file, high))
    for kind in (GREY_ALPHA, RGB_ALPHA):
        pixels = picture(kind, 8)
        make = partial(file, pixels, between=chunk(b"tRNS", bytes(SAMPLES[kind] // 3 * 4 + 2)))
        yield case(f"tRNS, {KINDS[kind]}", pixels, make)
    pixels = picture(PALETTE, 8, transparent=True)
    short = replace(pixels, transparent=np.array([0]))
    yield case("tRNS with one entry", short)
    clear = np.zeros((4, 4, 4), int)
    everything = Pixels(RGB_ALPHA, 8, clear)
    yield refused("transparent everywhere", partial(file, everything), "fully transparent")


def _critical() -> Iterator[Case]:
    """IHDR, PLTE and unknown chunks that a decoder must know."""
    rgb, palette = picture(RGB, 8), picture(PALETTE, 4)
    suggested = chunk(b"PLTE", bytes(range(9)))
    for kind, depth in ((RGB, 8), (RGB_ALPHA, 16), (GREY, 8), (GREY_ALPHA, 8)):
        pixels = picture(kind, depth)
        for state, data in {
            "": suggested,
            " with a wrong checksum": wrong_crc(suggested),
            " of the wrong length": chunk(b"PLTE", bytes(10)),
            " twice": 2 * suggested,
        }.items():
            yield case(f"PLTE{state}, {KINDS[kind]}", pixels, partial(file, pixels, between=data))
    colours = palette.palette
    assert colours is not None
    black = replace(palette, palette=np.where(np.arange(16)[:, None] < 5, colours, 0))
    few = partial(file, replace(palette, palette=colours[:5]))
    yield case("indices beyond the palette are black", black, few)
    yield case("more colours than indices", replace(palette, palette=np.concatenate([colours] * 2)))
    other = chunk(b"PLTE", bytes(48))
    yield case("two palettes", palette, partial(file, palette, between=other))
    plain = replace(palette, palette=None)
    for name, data, why in (
        ("no palette", b"", "it has no palette"),
        (
            "palette with a wrong checksum",
            wrong_crc(palette.colour_chunks()),
            "its palette is damaged",
        ),
        ("empty palette", chunk(b"PLTE", b""), "its palette is damaged"),
        ("palette of a wrong length", chunk(b"PLTE", bytes(10)), "its palette is damaged"),
        ("palette of 257 colours", chunk(b"PLTE", bytes(771)), "its palette is damaged"),
    ):
        yield refused(name, partial(file, plain, before=data), f"damaged or truncated: {why}")
    yield refused(
        "palette after IDAT",
        partial(file, plain, after=palette.colour_chunks()),
        "it has no palette",
    )
    unknown = chunk(b"ABCD", b"data")
    yield refused(
        "unknown critical chunk",
        partial(file, rgb, before=unknown),
        r"unknown critical chunk \(ABCD\)",
    )
    yield case("unknown critical chunk after IDAT", rgb, partial(file, rgb, after=unknown))
    yield case(
        "reserved bit in a chunk's name", rgb, partial(file, rgb, before=chunk(b"abcd", b""))
    )
    yield refused(
        "chunk with an invalid name",
        partial(file, rgb, before=chunk(b"a\0b1", b"")),
        "a chunk is invalid",
    )
    whole = file(rgb)
    signature, header = whole[:8], whole[8:33]
    apple = chunk(b"CgBI", b"\x50\0\x20\2")
    yield refused("Apple's CgBI", lambda: signature + apple + whole[8:], "CgBI.*is not supported")
    for name, first in {
        "no IHDR": b"",
        "IHDR with a wrong checksum": wrong_crc(header),
        "IHDR that is not first": chunk(b"tEXt", b"k\0v") + header,
        "IHDR that is too short": chunk(b"IHDR", header[8:20]),
        "width of 0": chunk(b"IHDR", bytes(4) + header[12:21]),
        "height of 0": chunk(b"IHDR", header[8:12] + bytes(4) + header[16:21]),
        "negative width": chunk(b"IHDR", b"\xff" * 4 + header[12:21]),
        "unknown compression": chunk(b"IHDR", header[8:18] + b"\1" + header[19:21]),
        "unknown filter method": chunk(b"IHDR", header[8:19] + b"\1" + header[20:21]),
        "unknown interlacing": chunk(b"IHDR", header[8:20] + b"\2"),
    }.items():
        make = partial(lambda part: signature + part + whole[33:], first)
        yield refused(name, make, r"damaged or truncated: its header \(IHDR\)")
    for kind, depth in product(range(8), range(18)):
        if depth not in DEPTHS.get(kind, ()):
            part = chunk(b"IHDR", header[8:16] + bytes([depth, kind]) + header[18:21])
            make = partial(lambda part: signature + part + whole[33:], part)
            yield refused(f"colour type {kind}, {depth} bit", make, "its header .IHDR. is invalid")


def split(data: bytes, length: int, between: bytes = b"") -> bytes:
    """IDAT chunks of a length."""
    parts = [data[i : i + length] for i in range(0, len(data), length)]
    return between.join(chunk(b"IDAT", part) for part in parts)


def stored(data: bytes, wbits: int = 15) -> bytes:
    """zlib's data that is not compressed."""
    packer = zlib.compressobj(0, wbits=wbits)
    return packer.compress(data) + packer.flush()


def _image_data() -> Iterator[Case]:
    """IDAT: in many parts, of any compression, too long, too short, damaged."""
    for (kind, depth), interlaced in product(
        ((RGB, 8), (GREY, 1), (RGB_ALPHA, 16), (PALETTE, 4)), (False, True)
    ):
        pixels = picture(kind, depth)
        name = f"{KINDS[kind]}, {depth} bit" + ", interlaced" * interlaced
        make = partial(file, pixels, interlaced=interlaced)
        rows = pixels.rows(interlaced=interlaced)
        packed = zlib.compress(rows)
        good = {
            "IDAT of 1 byte each": split(packed, 1),
            "IDAT of 7 bytes each": split(packed, 7),
            "empty IDAT first": chunk(b"IDAT", b"") + split(packed, 50),
            "empty IDAT last": split(packed, 50) + 3 * chunk(b"IDAT", b""),
            "text between IDAT": split(packed, 50, chunk(b"tEXt", b"key\0text")),
            "no compression": split(stored(rows), 8192),
            "window of 512 bytes": split(_small_window(rows), 8192),
            "wrong Adler-32": split(packed[:-1] + bytes([packed[-1] ^ 1]), 8192),
            "no Adler-32": split(packed[:-4], 8192),
            "half of Adler-32": split(packed[:-2], 8192),
            "bytes after the compressed data": split(packed + b"more bytes", 8192),
            "rows after the last": split(zlib.compress(rows + bytes(100_000)), 8192),
            "end of the compressed data is missing": split(_endless(rows), 8192),
        }
        for state, data in good.items():
            yield case(f"{state}, {name}", pixels, partial(make, data=data))
        for state, data in {
            "no IDAT": b"",
            "empty IDAT": chunk(b"IDAT", b""),
            "wrong checksum of IDAT": wrong_crc(chunk(b"IDAT", packed)),
            "wrong checksum of a first IDAT": wrong_crc(chunk(b"IDAT", packed[:9]))
            + chunk(b"IDAT", packed[9:]),
            "last byte of the rows is missing": chunk(b"IDAT", zlib.compress(rows[:-1])),
            "half of the rows": chunk(b"IDAT", zlib.compress(rows[: len(rows) // 2])),
            "no zlib": chunk(b"IDAT", b"garbage" * 20),
            "damaged in the middle": chunk(
                b"IDAT", packed[: len(packed) // 2] + b"\xff" * (len(packed) // 2)
            ),
            "unknown filter": chunk(b"IDAT", zlib.compress(b"\x09" + rows[1:])),
        }.items():
            yield refused(f"{state}, {name}", partial(make, data=data), "damaged or truncated: ")


def _small_window(rows: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=9)
    return packer.compress(rows) + packer.flush()


def _endless(rows: bytes) -> bytes:
    """zlib's data whose last block is not marked as the last."""
    packer = zlib.compressobj()
    return packer.compress(rows) + packer.flush(zlib.Z_SYNC_FLUSH)


def first(data: bytes, end: int | None) -> bytes:
    """The bytes up to an offset."""
    return data[:end]


def _ends() -> Iterator[Case]:
    """Files without their end, with more after it, and cut."""
    for (kind, depth), interlaced in product(((RGB, 8), (GREY, 16), (PALETTE, 2)), (False, True)):
        pixels = picture(kind, depth)
        name = f"{KINDS[kind]}, {depth} bit" + ", interlaced" * interlaced
        make = partial(file, pixels, interlaced=interlaced)
        whole = make()
        for state, end in {
            "no IEND": b"",
            "IEND with a wrong checksum": wrong_crc(IEND),
            "IEND with contents": chunk(b"IEND", b"contents"),
            "IEND that is cut": IEND[:5],
            "a text that is cut": chunk(b"tEXt", b"key\0" + bytes(100))[:50],
            "garbage": b"\xee" * 100,
            "zeros": bytes(1000),
            "bytes after IEND": IEND + b"\xee" * 1000,
            "zeros after IEND": IEND + bytes(1000),
            "another PNG after IEND": IEND + whole,
        }.items():
            yield case(f"end: {state}, {name}", pixels, partial(make, end=end))
        rows = pixels.rows(interlaced=interlaced)
        data = len(zlib.compress(rows))
        start = len(whole) - 12 - 4 - data  # of the compressed data
        for missing in range(1, 5):
            cut = partial(first, whole, -12 - missing)
            yield case(f"cut in IDAT's checksum by {missing}, {name}", pixels, cut)
            cut = partial(first, whole, -16 - missing)
            yield case(f"cut in Adler-32 by {missing}, {name}", pixels, cut)
        for tenth in range(9):
            cut = partial(first, whole, start + data * tenth // 10)
            yield refused(f"cut at {tenth} tenths, {name}", cut, "damaged or truncated: ")
        blank = whole[: start + data // 2]
        zeros = partial(first, blank + bytes(len(whole) - len(blank)), None)
        yield refused(f"zeros from the middle, {name}", zeros, "damaged or truncated: ")
