"""Cases that HEIC and AVIF have in common; `encode` is `heif_writer.heic` or `heif_writer.avif`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.pictures import colorimetry as light
from tests.pictures.corpus.case import DEEP, EXACT, Case
from tests.pictures.heif_writer import (
    Item,
    clap,
    container,
    grid,
    icc,
    imir,
    irot,
    ispe,
    nclx,
)

Array = NDArray[Any]

SIZE = (16, 24)
#: H.273: number, chromaticities of white, red, green and blue, name.
PRIMARIES = {
    1: (light.BT709, "BT.709"),
    5: ((*light.D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06), "BT.470 BG"),
    6: ((*light.D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07), "BT.601"),
    9: (light.BT2020, "BT.2020"),
    12: (light.DISPLAY_P3, "Display P3"),
    22: ((*light.D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077), "EBU 3213"),
}
TRANSFERS = {
    1: "shown as sRGB", 2: "unspecified", 4: "gamma 2.2", 5: "gamma 2.8", 8: "linear",
    13: "sRGB", 14: "BT.2020, 10 bits", 15: "BT.2020, 12 bits", 16: "PQ", 18: "HLG",
}  # fmt: skip


def whole_range(bits: int, channels: int = 3, seed: int = 0) -> Array:
    """Random values of so many bits, with the least and the greatest."""
    top = (1 << bits) - 1
    values = np.random.default_rng(seed).integers(0, top + 1, (*SIZE, channels))
    values[0, 0], values[0, 1] = 0, top
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def rgb(values: Array, bits: int) -> Array:
    """(H, W, 3) in [0, 1]."""
    shares = values / ((1 << bits) - 1)
    return shares if shares.ndim == 3 else shares[..., None].repeat(3, axis=2)


def cases(encode: Callable[..., bytes], one: Callable[..., Item], brand: bytes) -> Iterator[Case]:
    """Every combination."""
    for bits in (8, 10, 12):
        yield from _channels(encode, bits)
        yield from _turns(encode, bits)
        yield from _colours(encode, bits)
        yield from _grids(one, brand, bits)
    yield from _crops(encode)
    yield from _metadata(encode)


def _tolerance(bits: int) -> float:
    return EXACT if bits == 8 else DEEP


def _channels(encode: Callable[..., bytes], bits: int) -> Iterator[Case]:
    values, top = whole_range(bits, 4), (1 << bits) - 1
    for grey, alpha in itertools.product((False, True), repeat=2):
        colours = values[..., 0] if grey else values[..., :3]
        opacity = np.maximum(values[..., 3], 1) if alpha else None
        name = f"{bits} bits, {'grey' if grey else 'RGB'}{' with alpha' if alpha else ''}"
        make = partial(encode, colours, bits, alpha=opacity)
        share = None if opacity is None else opacity / top
        yield Case(name, make, rgb(colours, bits), share, _tolerance(bits))
        if opacity is not None and share is not None:
            opaque = np.maximum(opacity, top // 2)
            share = opaque / top
            premultiplied = np.round(rgb(colours, bits) * share[..., None] * top).astype(
                values.dtype
            )
            stored = premultiplied[..., 0] if grey else premultiplied
            make = partial(encode, stored, bits, alpha=opaque, premultiplied=True)
            expected = (rgb(stored, bits) / share[..., None]).clip(0, 1)
            yield Case(f"{name}, premultiplied", make, expected, share, 2.6 / top)


def _turned(values: Array, quarters: int, axis: int | None) -> Array:
    values = np.rot90(values, quarters)
    return values if axis is None else values[::-1] if axis == 0 else values[:, ::-1]


def _turns(encode: Callable[..., bytes], bits: int) -> Iterator[Case]:
    values = whole_range(bits, 4)
    for quarters, axis, alpha in itertools.product((0, 1, 2, 3), (None, 0, 1), (False, True)):
        properties = [irot(quarters)] if quarters else []
        properties += [] if axis is None else [imir(axis)]
        opacity = np.maximum(values[..., 3], 1) if alpha else None
        make = partial(encode, values[..., :3], bits, *properties, alpha=opacity)
        share = None if opacity is None else _turned(opacity, quarters, axis) / ((1 << bits) - 1)
        name = f"{bits} bits, irot {quarters}, imir {axis}{', alpha' if alpha else ''}"
        expected = _turned(rgb(values[..., :3], bits), quarters, axis)
        yield Case(name, make, expected, share, _tolerance(bits))


def _crops(encode: Callable[..., bytes]) -> Iterator[Case]:
    values = whole_range(8, 4)
    for (top, left, height, width), quarters, axis, alpha in itertools.product(
        ((0, 0, 8, 10), (2, 4, 9, 20), (3, 1, 10, 22), (8, 13, 8, 11), (0, 0, 16, 24)),
        (0, 1, 2, 3), (None, 0, 1), (False, True),
    ):  # fmt: skip
        shift = 2 * top + height - SIZE[0], 2 * left + width - SIZE[1]
        properties = [clap((height, width), shift, halves=True), irot(quarters)]
        properties += [] if axis is None else [imir(axis)]
        opacity = np.maximum(values[..., 3], 1) if alpha else None
        cut = np.s_[top : top + height, left : left + width]
        make = partial(encode, values[..., :3], 8, *properties, alpha=opacity)
        share = None if opacity is None else _turned(opacity[cut], quarters, axis) / 255
        name = f"crop to {height} × {width} at {top}, {left}, irot {quarters}, imir {axis}, alpha {alpha}"
        yield Case(name, make, _turned(rgb(values[cut][..., :3], 8), quarters, axis), share)


def _decoded(values: Array, transfer: int, points: light.Points) -> Array:
    """Light of encoded values, 1 for white."""
    if transfer in (16, 18):
        return light.hdr_light(values, transfer, points)
    exponent = {4: 2.2, 5: 2.8, 8: 1.0}.get(transfer)
    return values**exponent if exponent else light.srgb_light(values)


def _shown(values: Array, primaries: int, transfer: int) -> Array:
    points, _ = PRIMARIES[primaries]
    linear = _decoded(values, transfer, points)
    linear = linear @ (np.linalg.inv(light.to_xyz(light.BT709)) @ light.to_xyz(points)).T
    if transfer in (16, 18):
        linear = light.tone_mapped(linear)
    return light.srgb_curve(linear)


def _colours(encode: Callable[..., bytes], bits: int) -> Iterator[Case]:
    values = whole_range(bits)
    for primaries, transfer in itertools.product(PRIMARIES, TRANSFERS):
        name = f"{bits} bits, primaries {PRIMARIES[primaries][1]}, transfer {transfer} ({TRANSFERS[transfer]})"
        make = partial(encode, values, bits, nclx(primaries, transfer))
        same = primaries == 1 and transfer not in (4, 5, 8, 16, 18)
        note = "" if same else f"to sRGB from {PRIMARIES[primaries][1]}"
        expected = rgb(values, bits) if same else _shown(rgb(values, bits), primaries, transfer)
        yield Case(name, make, expected, None, _tolerance(bits) if same else 1e-3, note)
    grey = values[..., 0]
    for transfer in (8, 16, 18):
        expected = _shown(rgb(grey, bits), 1, transfer)
        make = partial(encode, grey, bits, nclx(1, transfer, 2))
        yield Case(f"{bits} bits, grey, transfer {transfer}", make, expected, None, 1e-3, "to sRGB")
    wide = [
        c for x, y in zip(light.ADOBE[2::2], light.ADOBE[3::2], strict=True) for c in (x, y, 1.0)
    ]
    profile = bytes(
        imagecodecs.cms_profile("rgb", whitepoint=[*light.D65, 1.0], primaries=wide, gamma=2.2)
    )
    linear = rgb(values, bits) ** 2.2
    linear = linear @ (np.linalg.inv(light.to_xyz(light.BT709)) @ light.to_xyz(light.ADOBE)).T
    for kind, name, points in (
        (b"prof", "alone", ()),
        (b"rICC", "restricted", ()),
        (b"prof", "beside code points of BT.2020", (nclx(9, 16),)),
    ):
        make = partial(encode, values, bits, icc(profile, kind), *points)
        expected = light.srgb_curve(linear)
        yield Case(
            f"{bits} bits, profile {name}", make, expected, None, 2e-3, "sRGB from RGB built-in"
        )
    srgb = bytes(imagecodecs.cms_profile("srgb"))
    make = partial(encode, values, bits, icc(srgb))
    yield Case(f"{bits} bits, profile of sRGB", make, rgb(values, bits), None, _tolerance(bits))
    make = partial(encode, values, bits, icc(profile[:100]))
    yield Case(
        f"{bits} bits, broken profile", make, rgb(values, bits), None, _tolerance(bits), "profile"
    )


def _grids(one: Callable[..., Item], brand: bytes, bits: int) -> Iterator[Case]:
    """Tiles of 64 × 64, the least that is allowed; those at the right and at the bottom are cut."""
    top = (1 << bits) - 1
    for (rows, columns), (height, width) in (
        ((1, 2), (64, 128)), ((2, 2), (128, 128)), ((2, 2), (100, 90)), ((3, 1), (192, 64)),
    ):  # fmt: skip
        values = np.random.default_rng(bits).integers(0, top + 1, (64 * rows, 64 * columns, 3))
        values = values.astype(np.uint8 if bits == 8 else np.uint16)

        def make(
            values: Array = values, rows: int = rows, columns: int = columns,
            size: tuple[int, int] = (height, width), turn: int = 0,
        ) -> bytes:  # fmt: skip
            tiles = [
                one(values[64 * y : 64 * y + 64, 64 * x : 64 * x + 64], bits, nclx(2, 2))
                for y in range(rows) for x in range(columns)
            ]  # fmt: skip
            numbers = list(range(2, 2 + len(tiles)))
            pixi = [p for p in tiles[0].properties if p[4:8] == b"pixi"]
            properties = [ispe(*size), *pixi, nclx(2, 2), *([irot(turn)] if turn else [])]
            whole = Item(b"grid", grid(rows, columns, *size), properties, {"dimg": numbers})
            return container([whole, *tiles], brand)

        expected = rgb(values[:height, :width], bits)
        name = f"{bits} bits, grid of {rows} × {columns} tiles, {height} × {width}"
        yield Case(name, make, expected, None, _tolerance(bits))
        yield Case(
            f"{name}, irot 1", partial(make, turn=1), np.rot90(expected), None, _tolerance(bits)
        )


def _metadata(encode: Callable[..., bytes]) -> Iterator[Case]:
    values = whole_range(8)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turn
        content = exif.tobytes().removeprefix(b"Exif\0\0")
        for quarters in (0, 1):
            make = partial(encode, values, 8, *[irot(quarters)] * bool(quarters), exif=content)
            name = f"EXIF orientation {turn}, which is not applied, irot {quarters}"
            yield Case(name, make, np.rot90(rgb(values, 8), quarters))
    for name, content in {
        "empty": b"", "zeros": bytes(64), "noise": whole_range(8).tobytes(), "cut": b"II*\0\x08\0\0\0\xff",
        "beyond the end": b"MM\0*\xff\xff\xff\xff", "a loop": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    }.items():  # fmt: skip
        yield Case(f"EXIF: {name}", partial(encode, values, 8, exif=content), rgb(values, 8))
    for name, content in {"text": b"<x:xmpmeta/>", "noise": b"\xff\0<", "empty": b""}.items():
        yield Case(f"XMP: {name}", partial(encode, values, 8, xmp=content), rgb(values, 8))
