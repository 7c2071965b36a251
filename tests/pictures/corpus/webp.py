"""WebP: lossy and lossless, opacity, animations, metadata, flags that lie, missing padding, damage."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pictures.corpus.case import EXACT, Case
from tests.pictures.kinds import from_wide, turned, wide_profile

Array = NDArray[Any]

#: libwebp loses up to three 8-bit steps of flat colours.
LOSSY = 3.5 / 255
NOTE = "only the first of 2 frames was used"
ICC, ALPHA, EXIF, XMP, ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02


def chunk(kind: bytes, data: bytes, *, padded: bool = True) -> bytes:
    """A chunk."""
    return struct.pack("<4sI", kind, len(data)) + data + bytes(len(data) % 2 * padded)


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    """A file of chunks."""
    body = b"WEBP" + b"".join(chunks)
    return struct.pack("<4sI", b"RIFF", len(body) if size is None else size) + body


def u24(value: int) -> bytes:
    """Three bytes."""
    return value.to_bytes(3, "little")


def extended(size: tuple[int, int], flags: int) -> bytes:
    """The chunk VP8X of a canvas."""
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + u24(size[1] - 1) + u24(size[0] - 1))


def chunks_of(pixels: Array, **options: Any) -> bytes:
    """The chunks with pixels that libwebp writes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", exact=True, **options)
    data = buffer.getvalue()[12:]
    result = b""
    while data:
        length = 8 + int.from_bytes(data[4:8], "little")
        length += length % 2
        if data[:4] in (b"ALPH", b"VP8 ", b"VP8L"):
            result += data[:length]
        data = data[length:]
    return result


def without_padding(chunks: bytes) -> bytes:
    """Chunks without the padding of the last one."""
    position = 0
    while position < len(chunks):
        length = int.from_bytes(chunks[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    return chunks[: len(chunks) - length % 2]


def frame(pixels: bytes, place: tuple[int, int], size: tuple[int, int], flags: int = 0) -> bytes:
    """A frame of an animation. place: x and y, even numbers."""
    head = u24(place[0] // 2) + u24(place[1] // 2) + u24(size[1] - 1) + u24(size[0] - 1)
    return chunk(b"ANMF", head + u24(100) + bytes([flags]) + pixels)


def animation(size: tuple[int, int], *frames: bytes, flags: int = ANIMATION | ALPHA) -> bytes:
    """An animated file."""
    background = chunk(b"ANIM", b"\xff\x80\x40\xff\0\0")
    return riff(extended(size, flags), background, *frames)


def picture(size: tuple[int, int], channels: int, *, flat: bool) -> Array:
    """Noise, or one flat area, with an opacity as the last of four channels."""
    rng = np.random.default_rng(size[0] * size[1] + channels)
    if flat:
        values = np.broadcast_to(rng.integers(40, 216, 3).astype(np.uint8), (*size, 3)).copy()
    else:
        values = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    if channels == 3:
        return values
    opacity = rng.integers(0, 256, (*size, 1)).astype(np.uint8)
    opacity[0, 0] = 0
    opacity[-1, -1] = 255
    return np.concatenate([values, opacity], -1)


def expected(pixels: Array) -> dict[str, Any]:
    """The colours and the opacity of a case."""
    opacity = pixels[..., 3] / 255 if pixels.shape[2] == 4 else None
    return {"colours": pixels[..., :3] / 255, "alpha": opacity}


def case(name: str, data: bytes, **options: Any) -> Case:
    """A case of bytes that are there already."""
    return Case(name, lambda: data, **options)


#: A small picture.
STILL = np.full((4, 4, 3), 90, np.uint8)
SIZES = ((16, 24), (1, 1), (7, 9), (17, 33), (2, 300))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _stills()
    yield from _animations()
    yield from _metadata()
    yield from _damage()


def _stills() -> Iterator[Case]:
    for size, channels, lossless, method in itertools.product(
        SIZES, (3, 4), (True, False), (0, 4, 6)
    ):
        if channels == 4 and size == (1, 1):
            continue
        pixels = picture(size, channels, flat=not lossless)
        inner = chunks_of(pixels, lossless=lossless, quality=100, method=method)
        title = f"{'lossless' if lossless else 'lossy'}, {channels} channels, {size[1]} × {size[0]}, method {method}"
        same = expected(pixels) | {"tolerance": EXACT if lossless else LOSSY}
        simple = lossless or channels == 3
        if simple:
            yield case(title, riff(inner), **same)
        for flags in (0, ALPHA, ICC | EXIF | XMP, ALPHA | ANIMATION, 0xFF):
            yield case(f"{title}, flags {flags:02x}", riff(extended(size, flags), inner), **same)
        head = b"" if simple else extended(size, ALPHA)
        yield case(
            f"{title}, a canvas that is too large", riff(extended((500, 400), ALPHA), inner), **same
        )
        yield case(f"{title}, a wrong total", riff(head, inner, size=10), **same)
        yield case(f"{title}, bytes at the end", riff(head, inner) + b"text" * 5, **same)
        yield case(f"{title}, an unknown chunk", riff(head, chunk(b"abcd", b"123"), inner), **same)
        yield case(f"{title}, an empty chunk", riff(head, chunk(b"abcd", b""), inner), **same)
        unpadded = chunk(b"abcd", b"123", padded=False)
        yield case(f"{title}, a chunk without padding", riff(head, unpadded, inner), **same)
        yield case(f"{title}, no padding at the end", riff(head, without_padding(inner)), **same)
        yield case(
            f"{title}, two pictures", riff(head, inner, chunks_of(255 - pixels[..., :3])), **same
        )
    pixels = picture((16, 24), 4, flat=True)
    for quality in (0, 1, 2):
        inner = chunks_of(pixels, quality=100, alpha_quality=100, method=quality)
        yield case(
            f"opacity, method {quality}",
            riff(extended((16, 24), ALPHA), inner),
            **expected(pixels),
            tolerance=LOSSY,
        )
    opaque = picture((16, 24), 3, flat=False)
    full = np.concatenate([opaque, np.full((16, 24, 1), 255, np.uint8)], -1)
    yield case(
        "an opacity of 1 everywhere", riff(chunks_of(full, lossless=True)), **expected(opaque)
    )
    hidden = np.concatenate([opaque, np.zeros((16, 24, 1), np.uint8)], -1)
    yield case(
        "an opacity of 0 everywhere",
        riff(chunks_of(hidden, lossless=True)),
        colours=None,
        refused="fully transparent",
    )


def _animations() -> Iterator[Case]:
    canvas = (20, 30)
    for channels, lossless, place, size, flags in itertools.product(
        (3, 4), (True, False), ((0, 0), (4, 2), (6, 4)), ((20, 30), (16, 24), (2, 2)), (0, 1, 2, 3)
    ):
        if place[0] + size[1] > canvas[1] or place[1] + size[0] > canvas[0]:
            continue
        pixels = picture(size, channels, flat=not lossless)
        whole = np.zeros((*canvas, 4), np.uint8)
        shown = np.concatenate([pixels, np.full((*size, 4 - channels), 255, np.uint8)], -1)
        whole[place[1] : place[1] + size[0], place[0] : place[0] + size[1]] = shown
        if size == canvas and channels == 3:
            whole = whole[..., :3]
        inner = chunks_of(pixels, lossless=lossless, quality=100)
        other = frame(chunks_of(picture((4, 4), 3, flat=True)), (0, 0), (4, 4))
        title = f"{channels} channels, {'lossless' if lossless else 'lossy'}, {size} at {place}"
        name = f"animation: {title}, flags {flags}"
        same = expected(whole) | {"tolerance": EXACT if lossless else LOSSY}
        first = frame(inner, place, size, flags)
        yield case(f"{name}, two frames", animation(canvas, first, other), **same, note=NOTE)
        yield case(f"{name}, one frame", animation(canvas, first), **same)
        yield case(f"{name}, no alpha flag", animation(canvas, first, flags=ANIMATION), **same)
        yield case(f"{name}, no flags", animation(canvas, first, flags=0), **same)
        yield case(
            f"{name}, a damaged second frame",
            animation(canvas, first, other[:30]),
            **same,
            note=NOTE,
        )


def _metadata() -> Iterator[Case]:
    size = (16, 24)
    pixels = picture(size, 3, flat=False)
    inner, rgb = chunks_of(pixels, lossless=True), pixels / 255
    profile, exif = wide_profile(), turned(6).tobytes()
    upright = np.rot90(rgb, -1)
    note = {"note": "colours were converted to sRGB from", "tolerance": 1.5 / 255}
    for flags in (ICC | EXIF | XMP, 0, ALPHA):
        head = extended(size, flags)
        at = f"flags {flags:02x}"
        parts = chunk(b"ICCP", profile)
        yield case(f"a profile, {at}", riff(head, parts, inner), colours=from_wide(rgb), **note)
        yield case(
            f"a profile at the end, {at}", riff(head, inner, parts), colours=from_wide(rgb), **note
        )
        for name, data in {"with its prefix": exif, "without its prefix": exif[6:]}.items():
            yield case(
                f"EXIF {name}, {at}", riff(head, inner, chunk(b"EXIF", data)), colours=upright
            )
            yield case(
                f"EXIF {name} first, {at}", riff(head, chunk(b"EXIF", data), inner), colours=upright
            )
            both = riff(head, parts, inner, chunk(b"EXIF", data))
            yield case(f"EXIF {name} and a profile, {at}", both, colours=from_wide(upright), **note)
        yield case(f"EXIF without VP8X, {at}", riff(inner, chunk(b"EXIF", exif)), colours=upright)
        for name, data in {"garbage": b"garbage", "empty": b"", "a prefix": b"Exif\0\0"}.items():
            yield case(f"EXIF: {name}, {at}", riff(head, inner, chunk(b"EXIF", data)), colours=rgb)
            yield case(f"XMP: {name}, {at}", riff(head, inner, chunk(b"XMP ", data)), colours=rgb)
    cut = riff(extended(size, EXIF), inner, chunk(b"EXIF", exif)[:-6])
    yield case("EXIF that is cut", cut, colours=upright)


def _damage() -> Iterator[Case]:
    size = (16, 24)
    pixels = picture(size, 4, flat=True)
    lossy, lossless = chunks_of(pixels[..., :3], quality=90), chunks_of(pixels, lossless=True)
    opacity = riff(extended(size, ALPHA), chunks_of(pixels, quality=90))
    bad: dict[str, tuple[bytes, str]] = {
        "no chunks": (riff(), "it has no picture"),
        "only a canvas": (riff(extended(size, 0)), "it has no picture"),
        "only opacity": (riff(chunk(b"ALPH", b"\0" + bytes(384))), "it has no picture"),
        "lossy, cut": (riff(lossy)[:-9], "last pixels are missing"),
        "lossless, cut": (riff(lossless)[:-9], "last pixels are missing"),
        "opacity, cut": (opacity[:-9], "last pixels are missing"),
        "a chunk of 2 GB": (riff(struct.pack("<4sI", b"VP8L", 1 << 31) + lossless[8:]), "missing"),
        "no key frame": (riff(lossy[:11] + b"abc" + lossy[14:]), "begin with a key frame"),
        "no signature": (riff(lossless[:8] + b"a" + lossless[9:]), "has no signature"),
        "a frame beyond its canvas": (animation((8, 8), frame(lossless, (2, 2), size)), "larger than its canvas"),
        "an animation without frames": (animation(size), "it has no picture"),
        "an empty frame": (animation(size, frame(b"", (0, 0), size)), "it has no picture"),
    }  # fmt: skip
    for name, (data, cause) in bad.items():
        yield case(f"damage: {name}", data, colours=None, refused=cause)
