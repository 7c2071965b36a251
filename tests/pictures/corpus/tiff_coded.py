"""TIFF: compressions of pictures: CCITT, JPEG, JPEG 2000, JPEG XL, WebP, PNG, LERC, PixarLog, LogLuv."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from tests.pictures import colorimetry
from tests.pictures import tiff_writer as tw
from tests.pictures.corpus.case import LOSSY, Array, Case
from tests.pictures.tiff_cases import (
    INKS,
    SIZE,
    STORES,
    case,
    deep,
    inks_to_rgb,
    numbers,
    opacity,
    rgb,
    smooth,
    unit,
)
from tests.pictures.tiff_writer import Page, Store, page


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _bilevel()
    yield from _inner_pictures()
    yield from _old_jpeg()
    yield from _log()


# Codecs of pictures, and CCITT


def _bilevel() -> Iterator[Case]:
    """CCITT RLE, Group 3 and 4 by Pillow (libtiff), with FillOrder; other compressions of one bit."""
    for size in ((17, 27), (16, 24), (5, 1), (40, 300)):
        dots = np.random.default_rng(size[0]).random(size) > 0.5
        dots[: size[0] // 2, : size[1] // 2] = True
        for compression, inverted, reverse in itertools.product(
            ("tiff_ccitt", "group3", "group4", "packbits", "tiff_lzw", None), (False, True), (1, 2)
        ):
            info: dict[int, int] = {266: reverse} if reverse == 2 else {}
            if reverse == 2 and compression is None:
                continue
            if inverted:
                info[262] = 0
            yield Case(
                f"1 bit, {size}, {compression}, FillOrder {reverse}" + ", white is 0" * inverted,
                partial(_by_pillow, dots, compression, info),
                rgb(dots[..., None].astype(float)),
            )
    dots = numbers(1, 1)[..., 0].astype(np.uint8)
    places: dict[str, dict[str, Any]] = {
        "one strip": {},
        "strips": {"rowsperstrip": 5},
        "tiles": {"tile": (16, 16)},
    }
    for code, (place, options), photometric, order in itertools.product(
        ("ccittrle", "ccittfax3", "ccittfax4", "lzw", "deflate"),
        places.items(),
        ("minisblack", "miniswhite"),
        "<>",
    ):
        data = bytes(
            imagecodecs.tiff_encode(
                dots,
                bitspersample=1,
                compression=code,
                photometric=photometric,
                byteorder=order,
                **options,
            )
        )
        shown = dots if photometric == "minisblack" else 1 - dots
        yield Case(
            f"libtiff, 1 bit, {code}, {place}, {photometric}, {order}",
            lambda data=data: data,
            rgb(shown[..., None].astype(float)),
        )


def _by_pillow(dots: Array, compression: str | None, info: dict[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(dots).save(buffer, "TIFF", compression=compression, tiffinfo=info)
    return buffer.getvalue()


def _inner_pictures() -> Iterator[Case]:
    """JPEG with and without shared tables, JPEG 2000, JPEG XL, WebP, PNG, LERC, PixarLog."""
    for base, samples, bits in itertools.product(
        ("one strip", "strips", "tiles", "planes in tiles"), (1, 3, 4), (8, 12, 16)
    ):
        store = STORES[base]
        if store.planar and samples == 1:
            continue
        values = numbers(samples, bits, bits) if bits != 12 else numbers(samples, 16)
        if samples == 4:
            values = opacity(values)
        for name, code, encode in _lossless(bits, 1 if store.planar else samples):
            expected = unit(values, 16 if bits == 12 else bits)
            yield case(
                f"{name}, {samples} samples, {bits} bit, {base}",
                page(
                    values,
                    16 if bits == 12 else bits,
                    1 if samples == 1 else 2,
                    store,
                    extra=(2,) if samples == 4 else None,
                    encode=(code, encode),
                ),
                colours=rgb(expected[..., :3]),
                alpha=expected[..., 3] if samples == 4 else None,
                tolerance=deep(bits),
            )
    yield from _jpeg()
    yield from _pixar_log()


def _lossless(bits: int, samples: int) -> Iterator[tuple[str, int, Callable[[Array], bytes]]]:
    if bits == 12:
        return
    kind = np.uint8 if bits == 8 else np.uint16

    def prepared(part: Array) -> Array:
        part = np.ascontiguousarray(part.astype(kind))
        return part[..., 0] if samples == 1 else part

    yield (
        "JPEG 2000",
        34712,
        lambda part: bytes(
            imagecodecs.jpeg2k_encode(prepared(part), codecformat="j2k", reversible=True, level=0)
        ),
    )
    yield (
        "JP2",
        34712,
        lambda part: bytes(
            imagecodecs.jpeg2k_encode(prepared(part), codecformat="jp2", reversible=True, level=0)
        ),
    )
    yield (
        "JPEG XL",
        50002,
        lambda part: bytes(imagecodecs.jpegxl_encode(prepared(part), lossless=True, effort=1)),
    )
    yield (
        "JPEG XL of DNG",
        52546,
        lambda part: bytes(imagecodecs.jpegxl_encode(prepared(part), lossless=True, effort=1)),
    )
    yield "PNG", 34933, lambda part: bytes(imagecodecs.png_encode(prepared(part)))
    yield "LERC", 34887, lambda part: bytes(imagecodecs.lerc_encode(prepared(part), level=0))
    if bits == 8 and samples > 2:
        yield (
            "WebP",
            50001,
            lambda part: bytes(imagecodecs.webp_encode(prepared(part), lossless=True)),
        )


def _jpeg() -> Iterator[Case]:
    for base, (photometric, samples), sampling in itertools.product(
        ("one strip", "strips", "tiles", "planes in tiles"),
        ((1, 1), (2, 3), (6, 3), (5, 4)),
        ("444", "422", "420"),
    ):
        store = STORES[base]
        store = Store(rows=16 if base == "strips" else 0, tile=store.tile, planar=store.planar)
        if (store.planar and photometric != 2) or (sampling != "444" and photometric != 6):
            continue
        values = smooth(samples, (32, 48))
        shown = values / 255
        tolerance = LOSSY if photometric != 6 else {"444": 5, "422": 6, "420": 9}[sampling] / 255
        note = INKS if photometric == 5 else ""
        encode = partial(_jpeg_part, photometric, 1 if store.planar else samples, sampling)
        yield case(
            f"JPEG, photometric {photometric}, {sampling}, {base}",
            page(
                values,
                8,
                photometric,
                store,
                encode=(7, encode),
                tags={530: (tw.SHORT, [2, 2])} if photometric == 6 else None,
            ),
            colours=inks_to_rgb(shown) if photometric == 5 else rgb(shown),
            tolerance=tolerance,
            note=note,
        )
        made = page(
            values,
            8,
            photometric,
            store,
            encode=(7, encode),
            tags={530: (tw.SHORT, [1, 1])} if photometric == 6 else None,
        )
        assert made.segments
        tables, rest = zip(*map(_without_tables, made.segments), strict=True)
        made.segments, made.tags[347] = [*rest], tables[0]
        yield case(
            f"JPEG with shared tables, photometric {photometric}, {sampling}, {base}",
            made,
            colours=inks_to_rgb(shown) if photometric == 5 else rgb(shown),
            tolerance=tolerance,
            note=note,
        )
    values = smooth(3, (32, 48))
    for kind in ("progressive", "JFIF, photometric RGB"):
        buffer = io.BytesIO()
        Image.fromarray(values).save(
            buffer, "JPEG", quality=100, subsampling=0, progressive=kind == "progressive"
        )
        made = page(
            values,
            8,
            6 if kind == "progressive" else 2,
            encode=(7, partial(_same, buffer.getvalue())),
        )
        yield case(f"JPEG, {kind}", made, colours=values / 255, tolerance=5 / 255)
    deep_values = smooth(1, (32, 48)).astype(np.uint16) * 16 + 8
    made = page(
        deep_values,
        12,
        1,
        encode=(
            7,
            lambda part: bytes(
                imagecodecs.jpeg_encode(
                    np.ascontiguousarray(part[..., 0].astype(np.uint16)),
                    level=100,
                    bitspersample=12,
                )
            ),
        ),
    )
    yield case("JPEG, 12 bit", made, colours=rgb(deep_values / 4095), tolerance=1 / 255)


def _jpeg_part(photometric: int, samples: int, sampling: str, part: Array) -> bytes:
    part = np.ascontiguousarray(part.astype(np.uint8))
    if samples == 1:
        return bytes(imagecodecs.jpeg8_encode(part[..., 0], level=100))
    spaces = {2: ("rgb", "rgb"), 6: ("rgb", "ycbcr"), 5: ("cmyk", "cmyk")}
    given, stored = spaces[photometric]
    return bytes(
        imagecodecs.jpeg8_encode(
            part, level=100, colorspace=given, outcolorspace=stored, subsampling=sampling
        )
    )


def _without_tables(data: bytes) -> tuple[bytes, bytes]:
    """The tables of a JPEG as a stream of their own, and the JPEG without them."""
    tables, rest, at = b"\xff\xd8", b"\xff\xd8", 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in (0xDB, 0xC4):
            tables += data[at:end]
        elif data[at + 1] != 0xE0:
            rest += data[at:end]
        at = end
    return tables + b"\xff\xd9", rest + data[at:]


def _pixar_log() -> Iterator[Case]:
    for bits, kind, samples in (
        (8, np.uint8, 3),
        (8, np.uint8, 1),
        (16, np.uint16, 3),
        (32, np.float32, 3),
    ):
        values = (smooth(samples) / 255 * (1 if bits == 32 else 2**bits - 1)).astype(kind)
        expected = values.astype(float) / (1 if bits == 32 else 2**bits - 1)
        encode = partial(_pixar, kind)
        made = page(
            values,
            bits,
            2 if samples == 3 else 1,
            Store(rows=5),
            encode=(32909, encode),
            formats=3 if bits == 32 else None,
        )
        yield case(
            f"PixarLog, {bits} bit, {samples} samples", made, colours=rgb(expected), tolerance=LOSSY
        )


def _same(data: bytes, _: Array) -> bytes:
    return data


def _pixar(kind: type, part: Array) -> bytes:
    return bytes(imagecodecs.pixarlog_encode(np.ascontiguousarray(part.astype(kind))))


def _old_jpeg() -> Iterator[Case]:
    """JPEG of TIFF 6.0: a whole JPEG, its beginning with strips behind it, or tables with strips."""
    for samples in (1, 3):
        values = smooth(samples, (32, 48))
        colours = rgb(values / 255)
        data = _jpeg_part(6, samples, "444", values)
        tags: dict[int, tw.Value] = {
            256: (tw.LONG, [48]), 257: (tw.LONG, [32]), 258: (tw.SHORT, [8] * samples), 259: (tw.SHORT, [6]),
            262: (tw.SHORT, [6 if samples == 3 else 1]), 277: (tw.SHORT, [samples]),
            512: (tw.SHORT, [1]), 530: (tw.SHORT, [1, 1]),
        }  # fmt: skip
        for name, strips, length in (
            ("with strips", True, True),
            ("without strips", False, True),
            ("without a length", False, False),
        ):
            yield Case(
                f"old JPEG, whole, {name}, {samples} samples",
                partial(_old_whole, tags, data, strips, length),
                colours,
                tolerance=5 / 255,
            )
        for rows in (32, 16):
            yield Case(
                f"old JPEG, tables, strips of {rows} rows, {samples} samples",
                partial(_old_tables, tags, values, samples, rows),
                colours,
                tolerance=5 / 255,
            )


def _old_whole(tags: dict[int, tw.Value], data: bytes, strips: bool, length: bool) -> bytes:
    """The JPEG is behind the directory; its offset is found by writing the file twice."""
    start = 0
    for _ in range(2):
        more: dict[int, tw.Value] = {513: (tw.LONG, [start])}
        if length:
            more[514] = (tw.LONG, [len(data)])
        if strips:
            more |= {273: (tw.LONG, [start]), 279: (tw.LONG, [len(data)]), 278: (tw.LONG, [32])}
        made = tw.file(Page(tags | more))
        start = len(made)
    return made + data


def _old_tables(tags: dict[int, tw.Value], values: Array, samples: int, rows: int) -> bytes:
    streams = [
        _jpeg_part(6, samples, "444", values[top : top + rows]) for top in range(0, 32, rows)
    ]
    quantisation, dc, ac = _tables(streams[0])
    coded = [stream[stream.find(b"\xff\xda") + 2 + 6 + 2 * samples : -2] for stream in streams]
    blocks, places = b"", []
    for n in range(samples):
        one = min(n, 1) if len(dc) > 1 else 0
        for part in (quantisation[min(n, len(quantisation) - 1)], dc[one], ac[one]):
            places.append(len(blocks))
            blocks += part + bytes(len(part) % 2)
    start = 0
    for _ in range(2):
        at = [start + place for place in places]
        more: dict[int, tw.Value] = {
            519: (tw.LONG, at[::3]),
            520: (tw.LONG, at[1::3]),
            521: (tw.LONG, at[2::3]),
            278: (tw.LONG, [rows]),
        }
        offsets = [start + len(blocks) + sum(map(len, coded[:n])) for n in range(len(coded))]
        more |= {273: (tw.LONG, offsets), 279: (tw.LONG, [len(part) for part in coded])}
        made = tw.file(Page(tags | more))
        start = len(made)
    return made + blocks + b"".join(coded)


def _tables(data: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The tables of quantisation, and the Huffman tables of DC and AC."""
    found: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : end]
        while content and data[at + 1] == 0xDB:
            found[0].append(content[1:65])
            content = content[65:]
        while content and data[at + 1] == 0xC4:
            size = 17 + sum(content[1:17])
            found[2 if content[0] & 0x10 else 1].append(content[1:size])
            content = content[size:]
        at = end
    return found


def _own_xyz() -> Array:
    """The matrix from linear sRGB to XYZ of D65."""
    adapted = colorimetry.to_d50(colorimetry.xyz_of(*colorimetry.D65))
    return np.linalg.inv(adapted) @ colorimetry.to_xyz(colorimetry.BT709)


def _log() -> Iterator[Case]:
    """LogLuv of 32 bits and LogL, in literal runs (G. W. Larson, LogLuv encoding for TIFF)."""
    height, width = SIZE
    light = np.linspace(0.02, 0.95, width)[None].repeat(height, axis=0)
    log = np.floor(256 * (np.log2(light) + 64)).astype(int)
    u, v = np.full(SIZE, int(0.1978 * 410)), np.full(SIZE, int(0.4683 * 410))
    parts = np.stack([log >> 8, log & 255, u, v], -1).astype(np.uint8)
    back = 2.0 ** ((log + 0.5) / 256 - 64)
    shown_u, shown_v = (u + 0.5) / 410, (v + 0.5) / 410
    s = 1 / (6 * shown_u - 16 * shown_v + 12)
    x, y = 9 * shown_u * s, 4 * shown_v * s
    xyz = np.stack([x / y * back, back, (1 - x - y) / y * back], -1)
    linear = xyz @ np.linalg.inv(_own_xyz()).T
    for planes, samples, photometric, colours in (
        (4, 3, 32845, colorimetry.srgb_curve(linear)),
        (2, 1, 32844, rgb(colorimetry.srgb_curve(back)[..., None])),
    ):
        data = b"".join(
            bytes([width]) + parts[row, :, plane].tobytes()
            for row in range(height)
            for plane in range(planes)
        )
        tags: dict[int, tw.Value] = {
            256: (tw.LONG, [width]), 257: (tw.LONG, [height]), 258: (tw.SHORT, [16] * samples),
            259: (tw.SHORT, [34676]),
            262: (tw.SHORT, [photometric]), 277: (tw.SHORT, [samples]), 278: (tw.LONG, [height]),
            339: (tw.SHORT, [2] * samples),
        }  # fmt: skip
        yield Case(
            f"LogLuv, {samples} samples",
            partial(tw.file, Page(tags, [data])),
            colours,
            tolerance=1 / 255,
        )
