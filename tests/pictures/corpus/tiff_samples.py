"""TIFF: opacity, palettes, CMYK, YCbCr and L*a*b*."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tests.pictures import colorimetry
from tests.pictures import tiff_writer as tw
from tests.pictures.corpus.case import DEEP, EXACT, Array, Case
from tests.pictures.tiff_cases import (
    INKS,
    ORDERS,
    SIZE,
    STORES,
    case,
    deep,
    inks_to_rgb,
    numbers,
    opacity,
    rgb,
    unit,
)
from tests.pictures.tiff_writer import Store, page


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _alpha()
    yield from _palettes()
    yield from _inks()
    yield from _ycbcr()
    yield from _lab()


# Samples


def _alpha() -> Iterator[Case]:
    """ExtraSamples: opacity, premultiplied or not, others, several, none; grey, RGB, CMYK, palette."""
    for (name, photometric, colours), bits, base in itertools.product(
        (("grey", 1, 1), ("white is 0", 0, 1), ("RGB", 2, 3), ("CMYK", 5, 4)),
        (8, 12, 16, 32),
        ("one strip", "tiles", "planes"),
    ):
        store = STORES[base]
        note = INKS if colours == 4 else ""
        for extra in ((0,), (1,), (2,), (0, 0), (0, 2), (2, 0), (1, 2), (2, 1), (0, 1, 0), None):
            samples = colours + (1 if extra is None else len(extra))
            if (
                name in ("grey", "white is 0")
                and extra
                and samples - sum(e > 0 for e in extra) >= 3
            ):
                continue  # RGB as grey
            if photometric == 0 and bits == 32 and extra and 1 in extra:
                continue  # floating point has fewer bits
            values = opacity(numbers(samples, bits, bits))
            shares = unit(values, bits)
            place = next((colours + n for n, e in enumerate(extra or (2,)) if e), None)
            alpha = None if place is None else shares[..., place]
            own = shares[..., :colours]
            if extra and place is not None and extra[place - colours] == 1:
                own = _premultiplied(own, alpha, photometric)
                values[..., :colours] = _back(own, alpha, photometric, bits)
                own = _straightened(values[..., :colours], alpha, photometric, bits)
            elif photometric == 0:
                own = 1 - own
            yield case(
                f"{name}, {bits} bit, ExtraSamples {extra}, {base}",
                page(values, bits, photometric, store, extra=extra),
                colours=inks_to_rgb(own) if colours == 4 else rgb(own),
                alpha=alpha,
                tolerance=2 * deep(bits)
                if not extra or 1 not in extra
                else 1e-3
                if bits == 12
                else 1e-4,
                note=note,
            )
    for bits in (8, 16):
        values = numbers(4, bits)
        values[..., 3] = 0
        yield case(
            f"no ExtraSamples, fourth sample 0, {bits} bit",
            page(values, bits, 2),
            colours=unit(values, bits)[..., :3],
            tolerance=deep(bits),
        )
        values = numbers(3, bits)[..., [0, 1, 2, 2, 2]]
        yield case(
            f"five samples as grey, {bits} bit",
            page(values, bits, 1, extra=(0, 0, 0, 0)),
            colours=unit(values, bits)[..., :3],
            tolerance=deep(bits),
        )
        yield case(
            f"hundred samples, {bits} bit",
            page(values.repeat(20, axis=2), bits, 1, extra=(0,) * 99),
            colours=rgb(unit(values, bits)[..., :1]),
            tolerance=deep(bits),
        )


def _premultiplied(own: Array, alpha: Array, photometric: int) -> Array:
    shown = 1 - own if photometric == 0 else own
    return shown * alpha[..., None]


def _back(own: Array, alpha: Array, photometric: int, bits: int) -> Array:
    shares = 1 - own if photometric == 0 else own
    return (shares * (2.0**bits - 1)).round().astype(np.uint64)


def _straightened(values: Array, alpha: Array, photometric: int, bits: int) -> Array:
    shares = unit(values, bits)
    shown = 1 - shares if photometric == 0 else shares
    return (shown / np.where(alpha > 0, alpha, 1)[..., None]).clip(0, 1)


def _palettes() -> Iterator[Case]:
    """1 to 16 bits; maps of 16 bits, of 8, and of 8 in the upper half; short maps; opacity."""
    for bits, kind, base, code in itertools.product(
        (1, 2, 3, 4, 5, 6, 7, 8, 12, 16),
        ("16 bit", "8 bit", "8 bit, shifted", "8 bit, repeated"),
        ("strips", "tiles"),
        ("none", "LZW"),
    ):
        table = np.random.default_rng(bits).integers(0, 256 if "8" in kind else 65536, (2**bits, 3))
        table[0] = 255 if "8" in kind else 65535
        stored = table * {"8 bit, shifted": 256, "8 bit, repeated": 257}.get(kind, 1)
        values = numbers(1, bits)
        store = Store(rows=STORES[base].rows, tile=STORES[base].tile, code=code)
        yield case(
            f"palette, {bits} bit, map of {kind}, {base}, {code}",
            page(values, bits, 3, store, tags={320: (tw.SHORT, stored.T.reshape(-1).tolist())}),
            colours=table[values[..., 0]] / (255 if "8" in kind else 65535),
            tolerance=EXACT if "8" in kind else DEEP,
        )
    table = np.random.default_rng(5).integers(0, 65536, (256, 3))
    tags: dict[int, tw.Value] = {320: (tw.SHORT, table.T.reshape(-1).tolist())}
    values = opacity(numbers(2, 8))
    yield case(
        "palette with opacity",
        page(values, 8, 3, extra=(2,), tags=tags),
        colours=table[values[..., 0]] / 65535,
        alpha=unit(values[..., 1], 8),
        tolerance=DEEP,
    )
    short: dict[int, tw.Value] = {320: (tw.SHORT, table[:100].T.reshape(-1).tolist())}
    yield case(
        "palette, indices beyond the map",
        page(numbers(1, 8), 8, 3, tags=short),
        colours=table[np.minimum(numbers(1, 8)[..., 0], 99)] / 65535,
        tolerance=DEEP,
    )
    yield case(
        "palette without a map",
        page(numbers(1, 8), 8, 3),
        colours=None,
        refused="damaged.*no colour map",
    )


def _inks() -> Iterator[Case]:
    for bits, (name, base), (order_name, order) in itertools.product(
        (8, 12, 16, 32), STORES.items(), ORDERS.items()
    ):
        values = numbers(4, bits)
        store = Store(order, base.rows, base.tile, base.planar)
        yield case(
            f"CMYK, {bits} bit, {name}, {order_name}",
            page(values, bits, 5, store, tags={332: (tw.SHORT, [1])}),
            colours=inks_to_rgb(unit(values, bits)),
            order=order,
            tolerance=2 * deep(bits),
            note=INKS,
        )
    yield case(
        "other inks",
        page(numbers(4, 8), 8, 5, tags={332: (tw.SHORT, [2])}),
        colours=None,
        refused="has 4 inks that are not those of CMYK, which is not supported",
    )
    yield case(
        "three inks",
        page(numbers(3, 8), 8, 5),
        colours=None,
        refused="has 3 inks that are not those of CMYK, which is not supported",
    )


# YCbCr


def _to_rgb(
    codes: Array,
    weights: Sequence[float] = (0.299, 0.587, 0.114),
    ends: Sequence[float] = (0, 255, 128, 255, 128, 255),
) -> Array:
    """TIFF 6.0, section 21, of codes up to 255."""
    y = (codes[..., 0] - ends[0]) * 255 / (ends[1] - ends[0])
    cb = (codes[..., 1] - ends[2]) * 127 / (ends[3] - ends[2])
    cr = (codes[..., 2] - ends[4]) * 127 / (ends[5] - ends[4])
    red, green, blue = weights
    r, b = cr * (2 - 2 * red) + y, cb * (2 - 2 * blue) + y
    return (np.stack([r, (y - blue * b - red * r) / green, b], -1) / 255).clip(0, 1)


def _ycbcr() -> Iterator[Case]:
    for (across, down), code, base, (order_name, order), bits in itertools.product(
        itertools.product((1, 2, 4), (1, 2, 4)),
        ("none", "LZW", "Deflate"),
        ("one strip", "strips", "tiles", "planes", "planes in tiles"),
        ORDERS.items(),
        (8, 16),
    ):
        store = STORES[base]
        rows = 8 if base == "strips" else store.rows
        store = Store(order, rows, store.tile, store.planar, code)
        full, shared = _shared(across, down, bits)
        made = page(full, bits, 6, store, tags={530: (tw.SHORT, [across, down])})
        made.segments = [
            tw.ENCODERS[code][1](part) for part in _units(full, shared, (across, down), store, bits)
        ]
        yield case(
            f"YCbCr, {across} × {down} pixels share a colour, {bits} bit, {code}, {base}, {order_name}",
            made,
            colours=_to_rgb(full.astype(np.float64) * 255 / (2**bits - 1)),
            order=order,
            tolerance=1.01 / 255 if bits == 8 else 1e-4,
        )
    full = numbers(3, 8)
    tags: dict[int, tw.Value] = {530: (tw.SHORT, [1, 1])}
    for weights in ((0.2126, 0.7152, 0.0722), (0.3, 0.59, 0.11)):
        more = tags | {529: (tw.RATIONAL, weights)}
        yield case(
            f"YCbCr, weights {weights}",
            page(full, 8, 6, tags=more),
            colours=_to_rgb(full.astype(float), weights),
            tolerance=1.01 / 255,
        )
    for ends in ((16, 235, 128, 240, 128, 240), (0, 255, 128, 255, 128, 255)):
        for kind in (tw.RATIONAL, tw.LONG):
            more = tags | {532: (kind, ends)}
            yield case(
                f"YCbCr, ReferenceBlackWhite {ends}, type {kind}",
                page(full, 8, 6, tags=more),
                colours=_to_rgb(full.astype(float), ends=ends),
                tolerance=1.01 / 255,
            )
    full, shared = _shared(2, 2, 8)
    made = page(full, 8, 6)
    made.segments = _units(full, shared, (2, 2), Store(), 8)
    yield case(
        "YCbCr without YCbCrSubSampling",
        made,
        colours=_to_rgb(full.astype(float)),
        tolerance=1.01 / 255,
    )


def _shared(across: int, down: int, bits: int) -> tuple[Array, Array]:
    """YCbCr of all pixels, and the colours that pixels share."""
    height, width = SIZE
    shared = numbers(2, bits, 3, (-(-height // down), -(-width // across)))
    wide = shared.repeat(down, axis=0).repeat(across, axis=1)[:height, :width]
    return np.concatenate([numbers(1, bits, 4), wide], axis=2), shared


def _units(
    full: Array, shared: Array, steps: tuple[int, int], store: Store, bits: int
) -> list[bytes]:
    """Strips or tiles of units: the light of some pixels, then the colour that they share."""
    (across, down), kind = steps, f"{store.order}u{bits // 8}"
    light = full[..., :1]
    chroma = Store(
        store.order,
        -(-store.rows // down),
        (store.tile[0] // down, store.tile[1] // across) if store.tile else None,
    )
    lights = tw.cut(light, Store(store.order, store.rows, store.tile))
    colours = tw.cut(shared, chroma)
    if store.planar:
        planes = (lights, *([part[..., n : n + 1] for part in colours] for n in range(2)))
        return [part.astype(kind).tobytes() for plane in planes for part in plane]
    parts = []
    for y, c in zip(lights, colours, strict=True):
        high, wide = c.shape[:2]
        padded = np.pad(y[..., 0], ((0, high * down - y.shape[0]), (0, wide * across - y.shape[1])))
        blocks = (
            padded.reshape(high, down, wide, across).transpose(0, 2, 1, 3).reshape(high, wide, -1)
        )
        parts.append(np.concatenate([blocks, c], axis=2).astype(kind).tobytes())
    return parts


# L*a*b*


def _lab() -> Iterator[Case]:
    height, width = SIZE
    level = np.linspace(20, 90, height)[:, None].repeat(width, axis=1)
    hue = np.linspace(0, 6.28, width)[None].repeat(height, axis=0)
    lab = np.stack([level, 12 * np.cos(hue), 12 * np.sin(hue)], -1)
    formats: dict[str, tuple[int, int, Callable[[Array], Array], Callable[[Array], Array]]] = {
        "CIELab": (8, 8, lambda v: v * (255 / 100, 1, 1), lambda v: v * (100 / 255, 1, 1)),
        "CIELab of 16 bits": (
            8,
            16,
            lambda v: v * (65535 / 100, 256, 256),
            lambda v: v / (65535 / 100, 256, 256),
        ),
        "ICCLab": (
            9,
            8,
            lambda v: v * (255 / 100, 1, 1) + (0, 128, 128),
            lambda v: (v - (0, 128, 128)) * (100 / 255, 1, 1),
        ),
        "ICCLab of 16 bits": (
            9,
            16,
            lambda v: v * (652.8, 256, 256) + (0, 32768, 32768),
            lambda v: (v - (0, 32768, 32768)) / (652.8, 256, 256),
        ),
        "ITULab": (
            10,
            8,
            lambda v: (v - (0, -85, -75)) * (2.55, 1.5, 1.275),
            lambda v: v / (2.55, 1.5, 1.275) + (0, -85, -75),
        ),
    }
    for (name, (photometric, bits, store, load)), (storage, base), (
        order_name,
        order,
    ) in itertools.product(formats.items(), STORES.items(), ORDERS.items()):
        signed = store(lab).round()
        values = (signed.astype(np.int64) % (1 << bits)).astype(np.uint64)
        where = Store(order, base.rows, base.tile, base.planar, "LZW")
        yield case(
            f"{name}, {storage}, {order_name}",
            page(values, bits, photometric, where),
            colours=colorimetry.from_lab(load(signed)),
            order=order,
            tolerance=0.5 / 255,
        )
    for name in ("CIELab", "CIELab of 16 bits", "ICCLab", "ICCLab of 16 bits"):
        photometric, bits, store, load = formats[name]
        grey = store(lab * (1, 0, 0)).round()
        yield case(
            f"{name}, L* alone",
            page(grey[..., :1].astype(np.uint64), bits, photometric),
            colours=colorimetry.from_lab(load(grey)),
            tolerance=0.5 / 255,
        )
        signed = store(lab).round()
        values = np.concatenate(
            [(signed.astype(np.int64) % (1 << bits)).astype(np.uint64), opacity(numbers(1, bits))],
            axis=2,
        )
        yield case(
            f"{name} with opacity",
            page(values, bits, photometric, extra=(2,)),
            colours=colorimetry.from_lab(load(signed)),
            alpha=unit(values[..., 3], bits),
            tolerance=0.5 / 255,
        )
    yield case(
        "CIELab, floating point",
        page(lab.astype(np.float32), 32, 8, formats=3),
        colours=colorimetry.from_lab(lab),
        tolerance=0.5 / 255,
    )
