"""TIFF: which page is used, orientations, tags that are missing or strange, files of programs, and refusals."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.pictures import tiff_writer as tw
from tests.pictures.corpus.case import DEEP, EXACT, Array, Case
from tests.pictures.tiff_cases import (
    INKS,
    ORDERS,
    PAGES,
    SIZE,
    STORES,
    TURNS,
    case,
    deep,
    inks_to_rgb,
    numbers,
    opacity,
    rgb,
    unit,
)
from tests.pictures.tiff_writer import Page, Store, page


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _orientations()
    yield from _page_choice()
    yield from _odd_tags()
    yield from _flavours()
    yield from _refused()


# Pages and tags


def _orientations() -> Iterator[Case]:
    for orientation, (name, base), pages in itertools.product(range(1, 9), STORES.items(), (1, 2)):
        values = numbers(3, 8)
        store = Store(rows=base.rows, tile=base.tile, planar=base.planar, code="LZW")
        tags: dict[int, tw.Value] = {274: (tw.SHORT, [orientation])}
        made = [page(values, 8, 2, store, tags=tags), page(255 - values, 8, 2, store, tags=tags)][
            :pages
        ]
        yield case(
            f"orientation {orientation}, {name}, {pages} pages",
            *made,
            colours=TURNS[orientation](unit(values, 8)),
            note=PAGES.format(2) if pages == 2 else "",
        )
    for orientation in (2, 3, 5, 6, 8):
        for name, photometric, samples, bits in (
            ("grey", 1, 1, 16),
            ("alpha", 2, 4, 8),
            ("CMYK", 5, 4, 8),
            ("12 bit", 2, 3, 12),
        ):
            values = opacity(numbers(samples, bits))
            tags = {274: (tw.SHORT, [orientation])}
            shares = unit(values, bits)
            colours = inks_to_rgb(shares) if photometric == 5 else rgb(shares[..., :3])
            alpha = TURNS[orientation](shares[..., 3:])[..., 0] if name == "alpha" else None
            yield case(
                f"orientation {orientation}, {name}",
                page(values, bits, photometric, tags=tags, extra=(2,) if name == "alpha" else None),
                colours=TURNS[orientation](colours),
                alpha=alpha,
                tolerance=deep(bits),
                note=INKS if photometric == 5 else "",
            )
    for strange in (0, 9, 65535):
        values = numbers(3, 8)
        yield case(
            f"orientation {strange}",
            page(values, 8, 2, tags={274: (tw.SHORT, [strange])}),
            colours=unit(values, 8),
        )


def _page_choice() -> Iterator[Case]:
    """Which of several directories has the main picture."""
    values = numbers(3, 8)
    colours = unit(values, 8)
    reduced: dict[int, tw.Value] = {254: (tw.LONG, [1])}
    old: dict[int, tw.Value] = {255: (tw.SHORT, [2])}
    mask: dict[int, tw.Value] = {254: (tw.LONG, [4])}
    two: dict[int, tw.Value] = {254: (tw.LONG, [2])}
    for (order_name, order), big in itertools.product(ORDERS.items(), (False, True)):
        store = Store(order)
        small = page(255 - values[::3, ::3], 8, 2, store, tags=reduced)
        older = page(255 - values[::3, ::3], 8, 2, store, tags=old)
        dots = page(numbers(1, 1), 1, 4, store, tags=mask)
        main = page(values, 8, 2, store)
        numbered = page(values, 8, 2, store, tags=two)
        other = page(255 - values, 8, 2, store)
        groups: dict[str, tuple[list[Page], int]] = {
            "reduced one first": ([small, main], 1),
            "old reduced one first": ([older, main], 1),
            "two reduced ones first": ([small, small, main], 1),
            "reduced one behind": ([main, small], 1),
            "mask first": ([dots, main], 1),
            "mask behind": ([main, dots], 1),
            "reduced one and two pages": ([small, main, other], 2),
            "pages of a document": ([numbered, numbered], 2),
            "three pages": ([main, other, other], 3),
            "reduced one in SubIFDs": ([page(values, 8, 2, store, subs=[small])], 1),
            "main one in SubIFDs": (
                [page(255 - values[::3, ::3], 8, 2, store, tags=reduced, subs=[main])],
                1,
            ),
            "main one in SubIFDs, second": (
                [page(255 - values[::3, ::3], 8, 2, store, tags=reduced, subs=[small, main])],
                1,
            ),
            "larger one in SubIFDs": ([page(255 - values[::3, ::3], 8, 2, store, subs=[main])], 1),
            "reduced ones only": ([small, page(values, 8, 2, store, tags=reduced), small], 1),
            "a directory without pixels first": ([Page({270: b"text\0"}), main], 1),
        }
        for name, (pages, count) in groups.items():
            yield case(
                f"{name}, {order_name}" + ", BigTIFF" * big,
                *pages,
                colours=colours,
                order=order,
                big=big,
                note=PAGES.format(count) if count > 1 else "",
            )
    for name, extra in (("loop", True), ("nothing", False)):
        yield Case(
            f"pages that end in a {name}",
            partial(tw.file, page(values, 8, 2), page(255 - values, 8, 2), loop=extra),
            colours,
            note="only the first of several frames was used" if extra else PAGES.format(2),
        )
    cut = tw.file(page(values, 8, 2), page(255 - values, 8, 2))
    yield Case(
        "damaged second page",
        lambda: cut[: len(tw.file(page(values, 8, 2))) + 9],
        colours,
        note="several frames",
    )
    for depth in (2, 5):
        yield case(f"ImageDepth {depth}", _volume(values, depth), colours=colours)


def _volume(values: Array, depth: int) -> Page:
    made = page(values, 8, 2, tags={32997: (tw.LONG, [depth])})
    assert made.segments
    made.segments = made.segments * depth
    return made


def _odd_tags() -> Iterator[Case]:
    """Tags that are missing, useless, or of another type than usual."""
    values = numbers(3, 8)
    colours = unit(values, 8)
    for name, store in (
        ("strips", Store(rows=5)),
        ("one strip", Store()),
        ("planes", Store(rows=5, planar=True)),
    ):
        yield case(
            f"no StripByteCounts, {name}", page(values, 8, 2, store, lengths=False), colours=colours
        )
        yield case(
            f"StripByteCounts of 0, {name}",
            page(values, 8, 2, store, lengths=False, tags={279: (tw.LONG, [0] * 12)}),
            colours=colours,
        )
        yield case(
            f"StripByteCounts too small, {name}",
            page(values, 8, 2, store, lengths=False, tags={279: (tw.SHORT, [3] * 12)}),
            colours=colours,
        )
    single = page(values, 8, 2)
    del single.tags[278]
    yield case("no RowsPerStrip", single, colours=colours)
    for rows in (0, 2**32 - 1, 18):
        yield case(
            f"RowsPerStrip {rows}",
            page(values, 8, 2, tags={278: (tw.LONG, [rows])}),
            colours=colours,
        )
    yield case("no PhotometricInterpretation, RGB", page(values, 8, None), colours=colours)
    yield case(
        "no PhotometricInterpretation, grey",
        page(values[..., :1], 8, None),
        colours=rgb(colours[..., :1]),
    )
    dots = numbers(1, 1)
    bare = page(dots, 1, 1)
    for tag in (258, 277, 259):
        del bare.tags[tag]
    yield case(
        "no BitsPerSample, SamplesPerPixel and Compression", bare, colours=rgb(unit(dots, 1))
    )
    one = page(values, 8, 2, tags={258: (tw.SHORT, [8])})
    yield case("BitsPerSample once for three samples", one, colours=colours)
    more = page(values, 8, 2, tags={258: (tw.SHORT, [8] * 5)})
    yield case("BitsPerSample for more samples", more, colours=colours)
    none = page(values, 8, 2)
    del none.tags[277]
    yield case("no SamplesPerPixel", none, colours=colours)
    for name, tags in {
        "XResolution without a denominator": {282: (tw.LONG, [1, 0]), 283: b"garbage"},
        "SampleFormat void": {339: (tw.SHORT, [4, 4, 4])},
        "SampleFormat unknown": {339: (tw.SHORT, [77])},
        "floating-point width": {256: (tw.DOUBLE, [27.0])},
        "BYTE for ImageLength": {257: (tw.BYTE, [17])},
        "LONG for the rest": {258: (tw.LONG, [8, 8, 8]), 259: (tw.LONG, [1]), 262: (tw.LONG, [2]), 277: (tw.LONG, [3])},
        "LONG8 offsets": {256: (tw.LONG8, [27])},
        "an unknown tag": {65000: b"12345678901234567890"},
        "FillOrder 3": {266: (tw.SHORT, [3])},
        "PlanarConfiguration 0": {284: (tw.SHORT, [0])},
        "PlanarConfiguration 2 of grey": {},
        "an empty profile": {34675: b""},
        "SubIFDs beyond the end": {330: (tw.LONG, [2**31])},
        "SubIFDs that refer to the directory": {330: (tw.LONG, [8])},
        "EXIF beyond the end": {34665: (tw.LONG, [2**31])},
        "GeoTIFF": {33550: (tw.DOUBLE, [10.0, 10.0, 0.0]), 34735: (tw.SHORT, [1, 1, 0, 0]), 42113: b"0\0"},
    }.items():  # fmt: skip
        yield case(name, page(values, 8, 2, tags=tags), colours=colours)
    grey = page(values[..., :1], 8, 1, tags={284: (tw.SHORT, [2])})
    yield case("PlanarConfiguration 2 of one sample", grey, colours=rgb(colours[..., :1]))
    sparse = page(numbers(3, 8, size=(32, 32)), 8, 2, Store(tile=(16, 16)))
    assert sparse.segments
    sparse.segments[2:] = [b"", b""]
    expected = unit(numbers(3, 8, size=(32, 32)), 8)
    expected[16:] = 0
    yield case("tiles that were never written", sparse, colours=expected)


# Flavours of programs


def _flavours() -> Iterator[Case]:
    """Files of tifffile, libtiff and Pillow as programs write them."""
    values = numbers(3, 8).astype(np.uint8)
    colours = unit(values, 8)
    volume = np.stack([values, 255 - values])
    for name, options in {
        "OME-TIFF": {"ome": True, "metadata": {"axes": "TYXS"}},
        "ImageJ": {"imagej": True, "metadata": {"axes": "TYXS"}},
        "shaped by tifffile": {},
    }.items():
        pages = _pages(volume, options)
        yield Case(
            f"{name}, RGB",
            partial(_by_tifffile, volume, photometric="rgb", **options),
            colours,
            note=PAGES.format(pages) if pages > 1 else "",
        )
    pyramid = partial(_pyramid, values)
    yield Case("pyramid with SubIFDs", pyramid, colours)
    for compression, mode in itertools.product(
        (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"),
        ("RGB", "L", "RGBA", "CMYK", "1", "P", "LA", "I;16", "F"),
    ):
        yield _pillow_case(compression, mode)
    for order, big, tile in itertools.product("<>", (False, True), (None, (16, 16))):
        data = partial(
            imagecodecs.tiff_encode,
            values.astype(np.uint16) * 257,
            byteorder=order,
            bigtiff=big,
            tile=tile,
            photometric="rgb",
            compression="lzw",
            predictor=True,
        )
        yield Case(
            f"libtiff, {order}, {tile}" + ", BigTIFF" * big,
            lambda data=data: bytes(data()),
            colours,
            tolerance=DEEP,
        )


def _pages(volume: Array, options: dict[str, Any]) -> int:
    with tifffile.TiffFile(io.BytesIO(_by_tifffile(volume, photometric="rgb", **options))) as found:
        return sum(1 for one in found.pages)


def _by_tifffile(values: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def _pyramid(values: Array) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as out:
        out.write(values, subifds=2, photometric="rgb", tile=(16, 16))
        for step in (2, 4):
            out.write(
                np.ascontiguousarray(values[::step, ::step]),
                subfiletype=1,
                photometric="rgb",
                tile=(16, 16),
            )
    return buffer.getvalue()


def _pillow_case(compression: str | None, mode: str) -> Case:
    height, width = SIZE
    rng = np.random.default_rng(9)
    note, alpha, tolerance = "", None, EXACT
    if mode in ("RGB", "RGBA", "CMYK", "LA", "L"):
        bands = {"LA": 2, "L": 1}.get(mode, len(mode))
        values = rng.integers(0, 256, (height, width, bands)).astype(np.uint8)
        image = Image.frombytes(mode, (width, height), values.tobytes())
        shares = values / 255
        if mode in ("RGBA", "LA"):
            shares, alpha = shares[..., :-1], shares[..., -1]
        colours = inks_to_rgb(shares) if mode == "CMYK" else rgb(shares)
        note = INKS if mode == "CMYK" else ""
    elif mode == "1":
        dots = rng.random((height, width)) > 0.5
        image, colours = Image.fromarray(dots), rgb(dots[..., None].astype(float))
    elif mode == "P":
        indices, table = (
            rng.integers(0, 256, (height, width)).astype(np.uint8),
            rng.integers(0, 256, (256, 3)).astype(np.uint8),
        )
        image = Image.fromarray(indices)
        image.putpalette(table.tobytes())
        colours = table[indices] / 255
    elif mode == "I;16":
        values = rng.integers(0, 65536, (height, width)).astype(np.uint16)
        image, colours, tolerance = Image.fromarray(values), rgb(values[..., None] / 65535), DEEP
    else:
        values = rng.random((height, width)).astype(np.float32)
        image, colours, tolerance = (
            Image.fromarray(values),
            rgb(values[..., None].astype(float)),
            DEEP,
        )

    def make() -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "TIFF", compression=compression)
        return buffer.getvalue()

    return Case(f"Pillow, {mode}, {compression}", make, colours, alpha, tolerance, note)


# Refused


def _refused() -> Iterator[Case]:
    values = numbers(3, 8)
    for name, made, said in (
        (
            "JBIG",
            page(values, 8, 2, encode=(34661, lambda _: b"123")),
            "is a TIFF with the compression 34661, which is not supported",
        ),
        (
            "JPEG XR",
            page(values, 8, 2, encode=(22610, lambda _: b"123")),
            "is a TIFF with the compression 22610, which is not supported",
        ),
        (
            "unknown compression",
            page(values, 8, 2, encode=(12345, lambda _: b"123")),
            "compression 12345, which is not supported",
        ),
        (
            "unknown photometric",
            page(values, 8, 99),
            "photometric interpretation 99, which is not supported",
        ),
        (
            "complex",
            page(values[..., :1], 64, 1, formats=6),
            "has complex numbers, which is not supported",
        ),
        (
            "complex integers",
            page(values[..., :1], 32, 1, formats=5),
            "has complex numbers, which is not supported",
        ),
        (
            "33 bits",
            page(values[..., :1], 33, 1),
            "has 33 bits for each sample, which is not supported",
        ),
        (
            "predictor 5",
            page(values, 8, 2, Store(code="LZW"), tags={317: (tw.SHORT, [5])}),
            "predictor 5, which is not supported",
        ),
        (
            "predictor of 4 bits",
            page(values % 16, 4, 2, Store(code="LZW"), tags={317: (tw.SHORT, [2])}),
            "predictor for 4 bits, which is not supported",
        ),
        (
            "tiles of several slices",
            page(values, 8, 2, Store(tile=(16, 16)), tags={32998: (tw.LONG, [2])}),
            "tiles.*not supported",
        ),
        ("YCbCr of 12 bits", page(values, 12, 6), "of 12 bits, which is not supported"),
        (
            "LERC of 12 bits",
            page(values, 12, 2, encode=(34887, lambda _: b"123")),
            "of 12 bits, which is not supported",
        ),
        ("no size", page(values, 8, 2, tags={256: (tw.LONG, [0])}), "damaged"),
        (
            "no strips",
            Page({256: (tw.LONG, [9]), 257: (tw.LONG, [9]), 258: (tw.SHORT, [8])}),
            "damaged.*0 of 1 strips",
        ),
    ):
        yield case(f"refused: {name}", made, colours=None, refused=said)
    whole = tw.file(page(values, 8, 2, Store(rows=5)))
    for length in (4, 8, 12, 100, len(whole) - 100):
        yield Case(
            f"refused: cut to {length} bytes",
            lambda n=length: whole[:n],
            None,
            refused="is damaged or truncated|is not an image file",
        )
    for code in ("LZW", "Deflate", "PackBits", "ZSTD", "LZMA"):
        made = page(values, 8, 2, Store(code=code))
        assert made.segments
        made.segments = [made.segments[0][: len(made.segments[0]) // 2]]
        yield case(
            f"refused: half of a strip of {code}",
            made,
            colours=None,
            refused="is damaged or truncated",
        )
