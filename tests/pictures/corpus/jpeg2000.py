"""JPEG 2000."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.pictures import colorimetry as light
from tests.pictures.corpus.case import DEEP, EXACT, LOSSY, Case
from tests.pictures.heif_writer import box
from tests.pictures.jpeg2000_writer import (
    by_pillow,
    cdef,
    enumerated,
    jp2,
    palette,
    profiled,
    stored,
    subsampled,
    with_bits,
)

Array = NDArray[Any]

SIZE = (16, 24)


def cases() -> Iterator[Case]:
    """Every depth, colour space, kind of alpha, arrangement and state of the end."""
    yield from _depths()
    yield from _spaces()
    yield from _alphas()
    yield from _palettes()
    yield from _arrangements()
    yield from _subsampled()
    yield from _boxes()
    yield from _refused()


def values_of(
    bits: int, channels: int, signed: bool = False, size: tuple[int, int] = SIZE
) -> Array:
    """Random values over the whole range."""
    low, top = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    values = np.random.default_rng(bits).integers(low, top + 1, (*size, channels))
    values[0, 0], values[0, 1] = low, top
    kind = (np.int8 if signed else np.uint8) if bits <= 8 else (np.int16 if signed else np.uint16)
    return values.astype(kind)


def shares(values: Array, bits: int) -> Array:
    """(H, W, C) in [0, 1]; the least signed value is 0."""
    least = 1 << bits - 1 if values.dtype.kind == "i" else 0
    return (values.astype(np.int64) + least) / ((1 << bits) - 1)


def grey(values: Array) -> Array:
    """(H, W, 3) of (H, W) or (H, W, 1)."""
    return values.reshape(*values.shape[:2], 1).repeat(3, axis=2)


def _tolerance(bits: int) -> float:
    return EXACT if bits <= 8 else DEEP


def _depths() -> Iterator[Case]:
    for bits, signed, channels, boxed in itertools.product(
        range(1, 17), (False, True), (1, 2, 3, 4), (False, True)
    ):
        values = values_of(bits, channels, signed)
        found = shares(values, bits)
        colours = grey(found[..., 0]) if channels < 3 else found[..., :3]
        alpha = found[..., -1] if channels in (2, 4) else None
        name = f"{'signed ' if signed else ''}{bits} bits, {channels} channels, {'JP2' if boxed else 'codestream'}"

        def make(values: Array = values, bits: int = bits, boxed: bool = boxed) -> bytes:
            stream = stored(values[..., 0] if values.shape[2] == 1 else values, bits)
            space = enumerated(17 if values.shape[2] < 3 else 16)
            return jp2(stream, space) if boxed else stream

        yield Case(name, make, colours, alpha, _tolerance(bits))
    for bits in (18, 20, 24):
        values = values_of(16, 3)
        samples = values.astype(np.int64) - (1 << 15) + (1 << bits - 1)
        yield Case(
            f"{bits} bits",
            partial(lambda v, b: with_bits(stored(v, 16), [b] * 3), values, bits),
            samples / ((1 << bits) - 1), None, 1.1 / 65535,
        )  # fmt: skip


def _spaces() -> Iterator[Case]:
    for bits in (8, 10, 12, 16):
        values = values_of(bits, 4)
        found = shares(values, bits)
        yield Case(
            f"{bits} bits, CMYK",
            partial(lambda v, b: jp2(stored(v, b), enumerated(12)), values, bits),
            (1 - found[..., :3]) * (1 - found[..., 3:]), None, 2 * _tolerance(bits),
            "CMYK was converted to sRGB without a profile",
        )  # fmt: skip
        one, colours = values[..., 0], values[..., :3]
        yield Case(
            f"{bits} bits, grey, 0 is white",
            partial(lambda v, b: jp2(stored(v, b), enumerated(0)), one, bits),
            1 - grey(found[..., 0]), None, _tolerance(bits),
        )  # fmt: skip
        y, cb, cr = (found[..., n] - (0.5 + 0.5 / ((1 << bits) - 1)) * (n > 0) for n in range(3))
        rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
        yield Case(
            f"{bits} bits, sYCC",
            partial(lambda v, b: jp2(stored(v, b), enumerated(18)), colours, bits),
            rgb.clip(0, 1), None, 2.5 / ((1 << bits) - 1) + 2e-4,
        )  # fmt: skip
        wide = [
            c
            for x, y in zip(light.ADOBE[2::2], light.ADOBE[3::2], strict=True)
            for c in (x, y, 1.0)
        ]
        profile = bytes(
            imagecodecs.cms_profile("rgb", whitepoint=[*light.D65, 1.0], primaries=wide, gamma=2.2)
        )
        for method in (2, 3):
            yield Case(
                f"{bits} bits, profile by method {method}",
                partial(lambda v, b, p, m: jp2(stored(v, b), profiled(p, m)), colours, bits, profile, method),
                light.from_light(found[..., :3] ** 2.2, light.ADOBE), None, 2e-3, "to sRGB from",
            )  # fmt: skip
        yield Case(
            f"{bits} bits, broken profile",
            partial(lambda v, b, p: jp2(stored(v, b), profiled(p[:100])), colours, bits, profile),
            found[..., :3], None, _tolerance(bits), "profile",
        )  # fmt: skip
    for mct, reversible in itertools.product((False, True), repeat=2):
        values = np.full((*SIZE, 3), (200, 90, 30), np.uint8)
        yield Case(
            f"component transform {mct}, reversible {reversible}",
            partial(lambda v, m, r: jp2(stored(v, 8, mct=m, reversible=r), enumerated(16)), values, mct, reversible),
            values / 255, None, LOSSY,
        )  # fmt: skip


def _alphas() -> Iterator[Case]:
    """Orders of channels, straight and premultiplied; an opacity with fewer bits."""
    for bits, order, kind in itertools.product(
        (8, 12, 16), ((0, 1, 2, 3), (3, 0, 1, 2), (2, 1, 0, 3), (1, 3, 0, 2)), (1, 2, 65535)
    ):
        values = values_of(bits, 4)
        values[..., 3] = np.maximum(values[..., 3], 1 << bits - 1)
        found = shares(values, bits)
        if kind == 2:
            values[..., :3] = np.round(found[..., :3] * found[..., 3:] * ((1 << bits) - 1))
            found[..., :3] = (shares(values, bits)[..., :3] / found[..., 3:]).clip(0, 1)
        # Channel n of the file is value order[n].
        channels = [
            (n, kind if of == 3 else 0, 0 if of == 3 else of + 1) for n, of in enumerate(order)
        ]
        yield Case(
            f"{bits} bits, order {order}, type {kind}",
            partial(
                lambda v, b, o, c: jp2(stored(v[..., list(o)], b), enumerated(16), cdef(*c)),
                values, bits, order, channels,
            ),
            found[..., :3], None if kind == 65535 else found[..., 3],
            1.1 / ((1 << bits) - 1) if kind == 2 else _tolerance(bits),
        )  # fmt: skip
    values = values_of(8, 4)
    for bits in (1, 2, 4):
        opacity = values[..., 3] >> 8 - bits
        coded = values.copy()
        coded[..., 3] = opacity.astype(int) - (1 << bits - 1) + 128
        yield Case(
            f"8 bits with an opacity of {bits}",
            partial(
                lambda v, b: jp2(
                    with_bits(stored(v, 8), [8, 8, 8, b]), enumerated(16),
                    cdef((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)), bits=[8, 8, 8, b],
                ),
                coded, bits,
            ),
            values[..., :3] / 255, opacity / ((1 << bits) - 1),
        )  # fmt: skip


def _palettes() -> Iterator[Case]:
    for index_bits, bits, columns in itertools.product((1, 2, 4, 8), (8, 10, 16), (1, 3, 4)):
        count = 1 << index_bits
        colours = np.random.default_rng(count).integers(1, 1 << bits, (count, columns))
        indices = (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % count).astype(np.uint8)
        found = colours[indices] / ((1 << bits) - 1)
        channels = [(n, 0, n + 1) for n in range(min(columns, 3))] + [(3, 1, 0)] * (columns == 4)
        yield Case(
            f"palette of {count} × {columns} colours of {bits} bits",
            partial(
                lambda i, c, ib, b, ch: jp2(
                    stored(i, ib), enumerated(16 if c.shape[1] > 1 else 17), palette(c, b), cdef(*ch)
                ),
                indices, colours, index_bits, bits, channels,
            ),
            found[..., :3] if columns > 1 else grey(found), found[..., 3] if columns == 4 else None,
            _tolerance(bits),
        )  # fmt: skip


def _arrangements() -> Iterator[Case]:
    values = values_of(8, 3, size=(70, 90))
    for order, tiles, layers, mct in itertools.product(
        ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL"),
        (None, (32, 32), (17, 90)),
        (None, [20, 5, 0]),
        (0, 1),
    ):
        options: dict[str, object] = {"progression": order, "mct": mct, "num_resolutions": 4}
        if tiles:
            options["tile_size"] = tiles
        if layers:
            options["quality_layers"] = layers
        name = f"{order}, tiles {tiles}, layers {layers}, component transform {mct}"
        yield Case(name, partial(by_pillow, values, **options), values / 255)
    for offset, tile, tile_offset in (
((5, 3), (20, 30), (2, 1)), ((0, 7), (64, 64), (0, 0)), ((31, 1), (32, 32), (8, 1)),
    ):  # fmt: skip
        options = {"offset": offset, "tile_size": tile, "tile_offset": tile_offset}
        name = f"offset {offset}, tiles {tile}, offset of tiles {tile_offset}"
        yield Case(name, partial(by_pillow, values, **options), values / 255)
    for resolutions in (1, 2, 6):
        for block in ((4, 4), (64, 64), (1024, 4)):
            options = {"num_resolutions": resolutions, "codeblock_size": block}
            name = f"{resolutions} resolutions, blocks of {block}"
            yield Case(name, partial(by_pillow, values, **options), values / 255)
    options = {"precinct_size": (32, 32), "codeblock_size": (16, 16)}
    yield Case("precincts", partial(by_pillow, values, **options), values / 255)
    yield Case("packet lengths", partial(by_pillow, values, plt=True), values / 255)
    for bits, channels in itertools.product((8, 16), (1, 3)):
        deep = values_of(bits, channels)
        expected = shares(deep, bits)
        yield Case(
            f"high throughput (HTJ2K), {bits} bits, {channels} channels",
            partial(lambda v: bytes(imagecodecs.htj2k_encode(v.squeeze(), reversible=True)), deep),
            expected if channels == 3 else grey(expected), None, _tolerance(bits),
        )  # fmt: skip


def _subsampled() -> Iterator[Case]:
    for step, boxed, seed in itertools.product(((1, 2), (2, 2)), (False, True), range(4)):
        y, cb, cr = np.random.default_rng(seed).integers(60, 180, 3)
        small = SIZE[0] // step[0], SIZE[1] // step[1]
        planes = [
            np.full(SIZE, y, np.uint8),
            np.full(small, cb, np.uint8),
            np.full(small, cr, np.uint8),
        ]

        def make(
            planes: list[Array] = planes, step: tuple[int, int] = step, boxed: bool = boxed
        ) -> bytes:
            stream = subsampled(planes, [(1, 1), step, step])
            return jp2(stream, enumerated(18)) if boxed else stream

        b, r = float(cb) - 128, float(cr) - 128
        colour = np.array([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b]) / 255
        name = f"chroma in steps of {step}, {'sYCC' if boxed else 'codestream'}, colour {seed}"
        yield Case(name, make, np.broadcast_to(colour.clip(0, 1), (*SIZE, 3)), None, LOSSY)


def _boxes() -> Iterator[Case]:
    values = values_of(8, 3)
    stream, expected = partial(stored, values, 8), values / 255
    space = enumerated(16)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    uuid = partial(box, b"uuid", b"JpgTiffExif->JP2")
    for name, make in {
        "brand jpx": lambda: jp2(stream(), space, brand=b"jpx "),
        "codestream to the end of the file": lambda: jp2(stream(), space, to_the_end=True),
        "without the last marker": lambda: jp2(stream()[:-2], space),
        "codestream without the last marker": lambda: stream()[:-2],
        "to the end, without the last marker": lambda: jp2(stream()[:-2], space, to_the_end=True),
        "zeros after the file": lambda: jp2(stream(), space) + bytes(100),
        "bytes after the codestream": lambda: stream() + b"trailing",
        "unknown boxes": lambda: jp2(
            stream(), space, box(b"abcd", b"x"), before=[box(b"xml ", b"<a/>")]
        ),
        "two colour specifications": lambda: jp2(stream(), space, enumerated(17)),
        "no colour specification": lambda: jp2(stream()),
        "EXIF: noise": lambda: jp2(stream(), space, before=[uuid(b"noise")]),
        "a resolution": lambda: jp2(stream(), space, box(b"res ", box(b"resc", bytes(10)))),
    }.items():
        yield Case(name, make, expected)
    yield Case(
        "EXIF orientation 6",
        lambda: jp2(stream(), space, before=[uuid(content)]),
        np.rot90(expected, -1),
    )


def _refused() -> Iterator[Case]:
    values = values_of(8, 3)
    stream = partial(stored, values, 8)
    for number in (1, 3, 14, 20, 24, 99):
        yield Case(
            f"colour space {number}",
            lambda number=number: jp2(stream(), enumerated(number)),
            None, refused=f"has colours of the JPEG 2000 colour space {number}, which is not supported",
        )  # fmt: skip
    for count in (6, 9):
        yield Case(
            f"{count} components",
            lambda count=count: stored(values_of(8, count), 8),
            None, refused=f"has {count} components, which is not supported",
        )  # fmt: skip
    yield Case(
        "without a codestream",
        lambda: jp2(stream())[: -len(stream()) - 8],
        None, refused="is a JPEG 2000 file without a codestream",
    )  # fmt: skip
    yield Case(
        "components of different sizes",
        lambda: subsampled([np.zeros(SIZE, np.uint8), np.zeros((8, 12), np.uint8)], [(1, 1), (2, 2)]),
        None, refused="has subsampled components, which is not supported",
    )  # fmt: skip
    yield Case(
        "all components subsampled",
        lambda: subsampled([np.zeros(SIZE, np.uint8)], [(2, 2)]),
        None, refused="has subsampled components, which is not supported",
    )  # fmt: skip
    for share in (0.2, 0.5, 0.9, 0.99):
        yield Case(
            f"cut at {share}",
            lambda share=share: stream()[: int(share * len(stream()))],
            None, refused="is damaged or truncated",
        )  # fmt: skip
    yield Case(
        "larger than the limits",
        lambda: _resized(stream(), 60_000, 60_000),
        None, refused="is 60000 × 60000 pixels; the limits are",
    )  # fmt: skip


def _resized(codestream: bytes, height: int, width: int) -> bytes:
    sides = struct.pack(">4I", width, height, 0, 0)
    return codestream[:8] + sides + codestream[24:]
