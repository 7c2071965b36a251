"""TIFF: every number of bits, byte order, storage and compression of bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tests.pictures import tiff_writer as tw
from tests.pictures.corpus.case import DEEP, EXACT, Array, Case
from tests.pictures.tiff_cases import (
    BITS,
    CLIPPED,
    ORDERS,
    SIGNED,
    SIZE,
    STORES,
    case,
    deep,
    numbers,
    rgb,
    unit,
)
from tests.pictures.tiff_writer import Store, page


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _integers()
    yield from _floats()
    yield from _storage()
    yield from _compressions()
    yield from _mixed_bits()


# Bits


def _integers() -> Iterator[Case]:
    """Unsigned and signed, grey and RGB."""
    for bits, (order_name, order), signed in itertools.product(BITS, ORDERS.items(), (False, True)):
        if signed and bits < 2:
            continue
        note, formats = (SIGNED, 2) if signed else ("", None)
        for name, photometric, samples in (
            ("grey", 1, 1),
            ("white is 0", 0, 1),
            ("RGB", 2, 3),
            ("RGB as grey", 1, 3),
        ):
            values = numbers(samples, bits, bits)
            shown = values ^ np.uint64(2 ** (bits - 1)) if signed else values
            expected = unit(shown, bits)
            stored = page(values, bits, photometric, Store(order, rows=6), formats=formats)
            yield case(
                f"{name}, {bits} bit, {order_name}" + ", signed" * signed,
                stored,
                colours=rgb(1 - expected if photometric == 0 else expected),
                order=order,
                tolerance=deep(bits),
                note=note,
            )


def _floats() -> Iterator[Case]:
    """16, 24, 32 and 64 bits; predictors; values outside of 0 to 1."""
    for bits, (order_name, order), samples, predictor, code in itertools.product(
        (16, 24, 32, 64), ORDERS.items(), (1, 3, 4), (1, 2, 3), ("none", "LZW", "Deflate")
    ):
        if code == "none" and predictor != 1:
            continue
        values = _float_values(samples, bits)
        for name in ("one strip", "tiles", "planes in strips"):
            base = STORES[name]
            if base.planar and samples == 1:
                continue
            store = Store(order, base.rows, base.tile, base.planar, code, predictor)
            expected = values.astype(np.float64)
            alpha = expected[..., 3] if samples == 4 else None
            yield case(
                f"floating point, {bits} bit, {samples} samples, {order_name}, predictor {predictor}, {code}, {name}",
                page(
                    values,
                    bits,
                    1 if samples == 1 else 2,
                    store,
                    formats=3,
                    extra=(2,) if samples == 4 else None,
                ),
                colours=rgb(expected[..., :3]),
                alpha=alpha,
                order=order,
                tolerance=DEEP,
            )
    yield from _strange_floats()


def _float_values(samples: int, bits: int) -> Array:
    found = np.random.default_rng(bits + samples).random((*SIZE, samples))
    found[0, 0], found[-1, -1] = 1, 0
    if bits == 24:
        return tw.float24(found)
    return found.astype(f"f{bits // 8}")


def _strange_floats() -> Iterator[Case]:
    values = _float_values(3, 32)
    beyond = 2 * values - 0.5
    yield case(
        "floating point beyond 0 to 1",
        page(beyond, 32, 2, formats=3),
        colours=beyond.clip(0, 1),
        note=CLIPPED,
    )
    yield case(
        "floating point, white is 0",
        page(values[..., :1], 32, 0, formats=3),
        colours=rgb(1 - values[..., :1]),
    )
    for steps in (255, 65535):
        large = values * np.float32(steps)
        note = f"its floating-point values were divided by {steps}"
        yield case(
            f"floating point up to {steps}",
            page(large, 32, 2, formats=3),
            colours=values,
            note=note,
            tolerance=DEEP,
        )
    huge = values.astype(np.float64)
    huge[3, 4] = 1e300
    yield case(
        "floating point, 1e300",
        page(huge, 64, 2, formats=3),
        colours=huge.clip(0, 1),
        note="non-finite",
    )
    for name, value, becomes in (
        ("NaN", np.nan, 0),
        ("infinite", np.inf, 1),
        ("minus infinite", -np.inf, 0),
    ):
        for bits in (16, 32, 64):
            some = values.astype(f"f{bits // 8}")
            some[5, 6:9] = value
            expected = some.astype(np.float64)
            expected[5, 6:9] = becomes
            yield case(
                f"floating point, some {name}, {bits} bit",
                page(some, bits, 2, formats=3),
                colours=expected,
                note="9 non-finite values were replaced",
            )
        yield case(
            f"floating point, all {name}",
            page(np.full_like(values, value), 32, 2, formats=3),
            colours=None,
            refused="has non-finite pixels",
        )


# Storage


def _storage() -> Iterator[Case]:
    """Strips, tiles, planes, byte orders, BigTIFF, FillOrder, for the usual numbers of bits and samples."""
    for (name, base), (order_name, order), big, bits, samples in itertools.product(
        STORES.items(), ORDERS.items(), (False, True), (1, 8, 12, 16, 32), (1, 3, 4)
    ):
        if base.planar and samples == 1:
            continue
        reverse = (bits + samples + big) % 2 == 0
        store = Store(order, base.rows, base.tile, base.planar, reverse=reverse)
        values = numbers(samples, bits, bits)
        expected = unit(values, bits)
        extra, photometric = ((0,), 2) if samples == 4 else (None, 2 if samples == 3 else 1)
        yield case(
            f"{name}, {order_name}, {bits} bit, {samples} samples"
            + ", BigTIFF" * big
            + ", FillOrder 2" * reverse,
            page(values, bits, photometric, store, extra=extra),
            colours=rgb(expected[..., :3]),
            order=order,
            big=big,
            tolerance=deep(bits),
        )


def _compressions() -> Iterator[Case]:
    """Compressions of bytes with every predictor, order of bits, and storage."""
    for code, bits, predictor, reverse, (name, base), (order_name, order) in itertools.product(
        tw.ENCODERS,
        (1, 4, 8, 12, 16, 24, 32, 64),
        (1, 2),
        (False, True),
        STORES.items(),
        ORDERS.items(),
    ):
        if predictor == 2 and (bits not in (8, 16, 24, 32, 64) or code in ("none", "PackBits")):
            continue
        if name not in ("strips", "tiles", "planes in strips"):
            continue
        store = Store(order, base.rows, base.tile, base.planar, code, predictor, reverse)
        values = numbers(3, bits, bits)
        yield case(
            f"{code}, {bits} bit, predictor {predictor}, {name}, {order_name}"
            + ", FillOrder 2" * reverse,
            page(values, bits, 2, store),
            colours=unit(values, bits),
            order=order,
            tolerance=deep(bits),
        )
    yield from _careless_compressions()


def _careless_compressions() -> Iterator[Case]:
    """Data that are longer than the pixels, without a checksum, or without lengths."""
    values = numbers(3, 8)
    plain = values.astype(np.uint8).tobytes()
    for code in ("Deflate", "LZW", "PackBits", "LZMA"):
        _, encode = tw.ENCODERS[code]
        for name, data in {
            "more than the pixels": encode(plain + bytes(1000)),
            "bytes behind the data": encode(plain) + bytes(100),
        }.items():
            if data:
                made = page(values, 8, 2, Store(code=code))
                made.segments = [data]
                yield case(f"{code}, {name}", made, colours=unit(values, 8))
        for storage, store in (
            ("one strip", Store(code=code)),
            ("strips", Store(rows=5, code=code)),
        ):
            yield case(
                f"{code}, {storage}, no lengths",
                page(values, 8, 2, store, lengths=False),
                colours=unit(values, 8),
            )
    for code in ("none", "PackBits"):
        made = page(values, 8, 2, Store(code=code), tags={317: (tw.SHORT, [2])})
        yield case(f"{code}, a predictor that is not used", made, colours=unit(values, 8))
    rows = numbers(3, 8, size=(20, 27))
    for code in ("Deflate", "LZW", "PackBits", "ZSTD", "LZMA"):
        _, encode = tw.ENCODERS[code]
        made = page(rows[:17], 8, 2, Store(rows=10, code=code))
        made.segments = [encode(part.astype(np.uint8).tobytes()) for part in (rows[:10], rows[10:])]
        yield case(
            f"{code}, last strip with rows below the picture", made, colours=unit(rows[:17], 8)
        )


def _mixed_bits() -> Iterator[Case]:
    """Samples of several numbers of bits."""
    for bits, (order_name, order), (name, base) in itertools.product(
        (
            (5, 6, 5),
            (1, 2, 3),
            (8, 8, 4),
            (8, 16, 8),
            (16, 8, 16),
            (10, 11, 11),
            (3, 3, 2),
            (12, 8, 16),
            (24, 16, 8),
        ),
        ORDERS.items(),
        STORES.items(),
    ):
        values = np.concatenate([numbers(1, one, n) for n, one in enumerate(bits)], axis=2)
        store = Store(order, base.rows, base.tile, base.planar)
        yield case(
            f"{'-'.join(map(str, bits))} bit, {name}, {order_name}",
            page(values, bits, 2, store),
            colours=np.stack([unit(values[..., n], one) for n, one in enumerate(bits)], -1),
            order=order,
            tolerance=EXACT if max(bits) <= 8 else DEEP,
        )
