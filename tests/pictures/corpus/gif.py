"""GIF: palettes of every size, places, interlacing, transparency, extensions, animations, damage."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.pictures.corpus.case import Case
from tests.pictures.kinds import from_wide, wide_profile

Array = NDArray[Any]

SIZE = (16, 24)
NOTE = "only the first of 2 frames was used"


def coded(values: Array, bits: int, *, clear_each: int = 100, end: bool = True) -> bytes:
    """Pixels without compression: each is a code, with a clear code before the codes grow (GIF89a, appendix F)."""
    bits = max(bits, 2)
    clear, length = 1 << bits, bits + 1
    room = min(clear_each, (1 << bits) - 2)
    digits = ""
    for number, value in enumerate(values.reshape(-1).tolist()):
        if number % room == 0:
            digits = format(clear, f"0{length}b") + digits
        digits = format(value, f"0{length}b") + digits
    if end:
        digits = format(clear + 1, f"0{length}b") + digits
    digits = digits.zfill(-(-len(digits) // 8) * 8)
    data = int(digits, 2).to_bytes(len(digits) // 8, "little")
    return bytes([bits]) + blocks(data)


def blocks(data: bytes) -> bytes:
    """Sub-blocks of up to 255 bytes, and the empty one."""
    parts = (data[i : i + 255] for i in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def rows_interlaced(values: Array) -> Array:
    """The rows in the order of appendix E."""
    height = len(values)
    order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
    return values[order]


def image(
    values: Array,
    bits: int,
    *,
    place: tuple[int, int] = (0, 0),
    palette: Array | None = None,
    interlaced: bool = False,
) -> bytes:
    """An image block. palette: a local one."""
    flags = 0x40 * interlaced
    if palette is not None:
        flags |= 0x80 | bits - 1
    head = struct.pack("<HHHHB", *place, values.shape[1], values.shape[0], flags)
    stored = rows_interlaced(values) if interlaced else values
    return b"," + head + (b"" if palette is None else palette.tobytes()) + coded(stored, bits)


def control(transparent: int | None = None, disposal: int = 0) -> bytes:
    """A graphic control extension."""
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9\4" + struct.pack("<BHB", flags, 10, transparent or 0) + b"\0"


def gif(
    size: tuple[int, int],
    *parts: bytes,
    palette: Array | None = None,
    version: bytes = b"89a",
    background: int = 0,
    trailer: bytes = b";",
) -> bytes:
    """A file. palette: the global one, of 2, 4, … 256 colours."""
    flags = 0 if palette is None else 0x80 | (len(palette) - 1).bit_length() - 1
    head = b"GIF" + version + struct.pack("<HHBBB", size[1], size[0], flags, background, 0)
    return head + (b"" if palette is None else palette.tobytes()) + b"".join(parts) + trailer


def random_palette(bits: int, seed: int = 0) -> Array:
    """(2 ** bits, 3) uint8."""
    rng = np.random.default_rng(bits + 100 * seed)
    return rng.integers(0, 256, (1 << bits, 3)).astype(np.uint8)


def case(name: str, data: bytes, colours: Array | None, **options: Any) -> Case:
    """A case of bytes that are there already."""
    return Case(name, lambda: data, colours, **options)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _palettes()
    yield from _places()
    yield from _extensions()
    yield from _animations()
    yield from _damage()


def _palettes() -> Iterator[Case]:
    sizes = (SIZE, (1, 1), (7, 9), (9, 1), (1, 300), (3, 5))
    for bits, size, interlaced, where, transparent, version in itertools.product(
        range(1, 9), sizes, (False, True), ("global", "local", "both"), (None, 1), (b"87a", b"89a")
    ):
        values = np.random.default_rng(bits).integers(0, 1 << bits, size)
        values[0, 0] = 0
        first, second = random_palette(bits), random_palette(bits, 1)
        local = None if where == "global" else second
        data = gif(
            size,
            control(transparent) if transparent else b"",
            image(values, bits, palette=local, interlaced=interlaced),
            palette=None if where == "local" else first,
            version=version,
        )
        used = (first if local is None else second)[values] / 255
        alpha = (values != 1).astype(float) if transparent and (values == 1).any() else None
        kinds = [f"{bits} bits", f"{size[1]} × {size[0]}", f"{where} palette", version.decode()]
        kinds += ["interlaced"] * interlaced + ["transparent"] * bool(transparent)
        yield case(", ".join(kinds), data, used, alpha=alpha)
    values = np.random.default_rng(0).integers(0, 200, SIZE)
    short = random_palette(6)
    full = np.concatenate([short, np.zeros((192, 3), np.uint8)])
    yield case(
        "indices beyond the palette", gif(SIZE, image(values, 8), palette=short), full[values] / 255
    )
    grey = np.repeat(values[..., None], 3, -1) / 255
    yield case("no palette", gif(SIZE, image(values, 8)), grey)
    one = gif(SIZE, image(np.zeros(SIZE, int), 1), palette=np.full((2, 3), 77, np.uint8))
    yield case("one colour", one, np.full((*SIZE, 3), 77 / 255))
    beyond = gif(SIZE, control(250), image(values, 8), palette=random_palette(8))
    yield case("a transparent index that is not used", beyond, random_palette(8)[values] / 255)
    hidden = gif(SIZE, control(3), image(np.full(SIZE, 3), 2), palette=random_palette(2))
    yield case("all is transparent", hidden, None, refused="fully transparent")


def _places() -> Iterator[Case]:
    """Around a frame that is smaller than the screen nothing is visible; a larger frame enlarges the screen."""
    palette = random_palette(4)
    for place, size, screen, interlaced, background in itertools.product(
        ((0, 0), (3, 2), (10, 0)),
        ((16, 24), (5, 7), (1, 1)),
        (SIZE, (30, 40), (4, 4), (0, 0)),
        (False, True),
        (0, 5),
    ):
        values = np.random.default_rng(1).integers(0, 16, size)
        whole = max(screen[0], place[1] + size[0]), max(screen[1], place[0] + size[1])
        colours, alpha = np.zeros((*whole, 3)), np.zeros(whole)
        area = np.s_[place[1] : place[1] + size[0], place[0] : place[0] + size[1]]
        colours[area], alpha[area] = palette[values] / 255, 1
        data = gif(
            screen,
            image(values, 4, place=place, interlaced=interlaced),
            palette=palette,
            background=background,
        )
        name = (
            f"{size} at {place} on {screen}, background {background}" + ", interlaced" * interlaced
        )
        yield case(name, data, colours, alpha=None if alpha.all() else alpha)


def _extensions() -> Iterator[Case]:
    palette = random_palette(4)
    values = np.random.default_rng(1).integers(0, 16, SIZE)
    picture, colours = image(values, 4), palette[values] / 255
    extras = {
        "a comment": b"!\xfe" + blocks(b"a comment, of a picture; and more!"),
        "a long comment": b"!\xfe" + blocks(b"comment" * 3000),
        "an empty comment": b"!\xfe\0",
        "a loop": b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0",
        "XMP": b"!\xff\x0bXMP DataXMP<x:xmpmeta/>" + bytes(range(255, -1, -1)) + b"\0",
        "plain text": b"!\1\x0c" + bytes(12) + blocks(b"text"),
        "an unknown extension": b"!\x99" + blocks(b"data"),
        "a short control": b"!\xf9\2\1\1\0",
        "a control without transparency": control(None, 2),
        "zeros": bytes(7),
        "a byte that means nothing": b"\x77",
    }  # fmt: skip
    for name, extra in extras.items():
        if name != "XMP":
            yield case(f"{name} before", gif(SIZE, extra, picture, palette=palette), colours)
        yield case(f"{name} after", gif(SIZE, picture, extra, palette=palette), colours)
    for name, trailer in {
        "no trailer": b"",
        "bytes after the trailer": b";text" * 9,
        "zeros": bytes(50),
    }.items():
        yield case(name, gif(SIZE, picture, palette=palette, trailer=trailer), colours)
    profile = b"!\xff\x0bICCRGBG1012" + blocks(wide_profile())
    converted = gif(SIZE, profile, picture, palette=palette)
    note = "colours were converted to sRGB from"
    yield case("a profile", converted, from_wide(colours), note=note, tolerance=1.5 / 255)


def _animations() -> Iterator[Case]:
    palette, other = random_palette(4), random_palette(4, 1)
    values = np.random.default_rng(1).integers(0, 16, SIZE)
    colours = palette[values] / 255
    for disposal, transparent, place in itertools.product(range(8), (None, 0, 7), ((0, 0), (3, 2))):
        second = image(values[:4, :5], 4, place=place, palette=other)
        data = gif(
            SIZE,
            control(transparent, disposal),
            image(values, 4),
            control(3, disposal),
            second,
            palette=palette,
        )
        alpha = None if transparent is None else (values != transparent).astype(float)
        name = f"animation: disposal {disposal}, transparent {transparent}, second at {place}"
        yield case(name, data, colours, alpha=alpha, note=NOTE)
    cut = gif(SIZE, image(values, 4), image(values, 4)[:40], palette=palette, trailer=b"")
    yield case("animation: the second frame is cut", cut, colours, note=NOTE)
    cut = gif(SIZE, image(values, 4), image(values, 4)[:7], palette=palette, trailer=b"")
    yield case("animation: the second frame is only begun", cut, colours)


def _damage() -> Iterator[Case]:
    palette = random_palette(4)
    values = np.random.default_rng(1).integers(0, 16, SIZE)
    whole = gif(SIZE, image(values, 4), palette=palette)
    bad = {
        "no image": (gif(SIZE, palette=palette), "it has no picture"),
        "only a head": (whole[:13], "it has no picture"),
        "cut in the head": (whole[:9], "is damaged"),
        "a quarter of the pixels": (whole[: len(whole) // 2], "is damaged"),
        "a frame of 0 rows": (gif(SIZE, image(values[:0], 4), palette=palette), "of its first frame is 0"),
        "codes of 0 bits": (with_code_bits(whole, 0), "its codes have 0 bits"),
        "codes of 200 bits": (with_code_bits(whole, 200), "its codes have 200 bits"),
        "an end before the last row": (
            gif(SIZE, image(values, 4)[:10] + coded(values[:8], 4), palette=palette), "is damaged",
        ),
    }  # fmt: skip
    for name, (data, cause) in bad.items():
        yield case(f"damage: {name}", data, None, refused=cause)


def with_code_bits(data: bytes, bits: int) -> bytes:
    """A file of a global palette of 16 colours and one image, with another size of its first codes."""
    at = 13 + 48 + 10
    return data[:at] + bytes([bits]) + data[at + 1 :]
