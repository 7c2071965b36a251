"""EXIF and XMP of every state in the containers that carry them. Nothing of it may cost the picture."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from tests.corpus import chunk as png_chunk
from tests.pictures.corpus.case import EXACT, LOSSY, Case
from tests.pictures.corpus.jpeg import APP0, made
from tests.pictures.corpus.webp import chunk as webp_chunk
from tests.pictures.corpus.webp import chunks_of, extended, riff
from tests.pictures.jpeg_writer import segment

Array = NDArray[Any]

BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG, SRATIONAL, FLOAT, DOUBLE = (
    range(1, 13)
)
ORIENTATION, DATE, ARTIST, COPYRIGHT, INNER, TAKEN = 0x0112, 0x0132, 0x013B, 0x8298, 0x8769, 0x9003
XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
#: EXIF 2.32, 4.6.4: where the first row and the first column of the stored picture are.
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.transpose(a, (1, 0, 2))[:, ::-1],
    7: lambda a: np.transpose(a, (1, 0, 2))[::-1, ::-1],
    8: lambda a: np.transpose(a, (1, 0, 2))[::-1],
}

Entry = tuple[int, int, int, bytes]  # tag, type, count, data


def number(order: str, tag: int, kind: int, value: float) -> Entry:
    """An entry with one number."""
    layout = {
        BYTE: "B",
        SHORT: "H",
        LONG: "I",
        SBYTE: "b",
        SSHORT: "h",
        SLONG: "i",
        FLOAT: "f",
        DOUBLE: "d",
    }[kind]
    return tag, kind, 1, struct.pack(order + layout, value)


def text(tag: int, value: bytes, kind: int = ASCII) -> Entry:
    """An entry with a text."""
    return tag, kind, len(value), value


def exif(
    order: str, entries: list[Entry], *, inner: list[Entry] | None = None, following: int = 0
) -> bytes:
    """EXIF data without a prefix. inner: the entries of the sub-directory."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    if inner is None:
        return head + directory(order, entries, 8, following)
    pointer = (INNER, LONG, 1, bytes(4))
    offset = 8 + len(directory(order, [*entries, pointer], 8, following))
    pointer = number(order, INNER, LONG, offset)
    first = directory(order, [*entries, pointer], 8, following)
    return head + first + directory(order, inner, offset, 0)


def directory(order: str, entries: list[Entry], offset: int, following: int) -> bytes:
    """A directory at an offset, with the data of its entries behind it."""
    out = struct.pack(order + "H", len(entries))
    data, end = b"", offset + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        out += struct.pack(order + "HHI", tag, kind, count)
        if len(value) <= 4:
            out += value.ljust(4, b"\0")
        else:
            out += struct.pack(order + "I", end + len(data))
            data += value + bytes(len(value) % 2)
    return out + struct.pack(order + "I", following) + data


# Containers: EXIF data without its prefix, and XMP → a file


def jpeg(data: bytes | None, xmp: bytes | None = None) -> bytes:
    """A JPEG."""
    before = APP0
    before += b"" if data is None else segment(0xE1, b"Exif\0\0" + data)
    before += b"" if xmp is None else segment(0xE1, XMP_NAME + xmp)
    return made(before=before)[0]


def webp(data: bytes | None, xmp: bytes | None = None) -> bytes:
    """A WebP."""
    parts = [extended((16, 24), 0x0C), chunks_of(STORED, lossless=True)]
    parts += [] if data is None else [webp_chunk(b"EXIF", data)]
    parts += [] if xmp is None else [webp_chunk(b"XMP ", xmp)]
    return riff(*parts)


def webp_prefixed(data: bytes | None, xmp: bytes | None = None) -> bytes:
    """A WebP whose EXIF has the prefix of JPEG."""
    return webp(None if data is None else b"Exif\0\0" + data, xmp)


def png(data: bytes | None, xmp: bytes | None = None) -> bytes:
    """A PNG with the chunk eXIf."""
    whole = bytes(imagecodecs.png_encode(STORED))
    extra = b"" if data is None else png_chunk(b"eXIf", data)
    if xmp is not None:
        extra += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    return whole[:33] + extra + whole[33:]


def png_profile(data: bytes | None, xmp: bytes | None = None) -> bytes:
    """A PNG with the EXIF that ImageMagick writes as text."""
    whole = png(None, xmp)
    if data is None:
        return whole
    prefixed = b"Exif\0\0" + data
    lines = b"\nexif\n%8d\n" % len(prefixed) + prefixed.hex().encode() + b"\n"
    packed = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(lines))
    return whole[:33] + packed + whole[33:]


def heic(data: bytes | None, xmp: bytes | None = None) -> bytes:
    """An HEIC."""
    container = pillow_heif.HeifFile()
    container.add_frombytes("RGB", (24, 16), FLAT.tobytes())
    buffer = io.BytesIO()
    options: dict[str, Any] = placeholder_option(data)
    options |= {} if xmp is None else {"xmp": xmp}
    container.save(buffer, quality=-1, chroma=444, **options)
    return replaced(buffer.getvalue(), data)


def avif(data: bytes | None, xmp: bytes | None = None) -> bytes:
    """An AVIF."""
    buffer = io.BytesIO()
    options: dict[str, Any] = placeholder_option(data)
    options |= {} if xmp is None else {"xmp": xmp}
    image = Image.fromarray(FLAT)
    image.save(buffer, "AVIF", quality=100, subsampling="4:4:4", speed=10, **options)
    return replaced(buffer.getvalue(), data)


def placeholder_option(data: bytes | None) -> dict[str, Any]:
    """The option of an encoder for the placeholder."""
    held = b"" if data is None else placeholder(data)
    return {"exif": b"Exif\0\0" + held} if held else {}


def placeholder(data: bytes) -> bytes:
    """Valid EXIF of the same length: encoders read what they write."""
    return exif("<", [text(ARTIST, b"p" * (len(data) - 26))]) if len(data) > 40 else b""


def replaced(file: bytes, data: bytes | None) -> bytes:
    """The file with the data in place of the placeholder."""
    held = b"" if data is None else placeholder(data)
    return file.replace(held, data) if held and data else file


STORED = np.random.default_rng(7).integers(0, 256, (16, 24, 3)).astype(np.uint8)
FLAT = np.kron(
    np.array([[[200, 60, 40], [40, 160, 60], [60, 80, 180]]], np.uint8),
    np.ones((16, 8, 1), np.uint8),
)

#: Name → the function that makes a file, its stored picture, the tolerance.
CONTAINERS: dict[str, tuple[Callable[..., bytes], Array, float]] = {
    "JPEG": (jpeg, made()[1], 1.01 / 255),
    "PNG": (png, STORED / 255, EXACT),
    "PNG, as text": (png_profile, STORED / 255, EXACT),
    "WebP": (webp, STORED / 255, EXACT),
    "WebP with a prefix": (webp_prefixed, STORED / 255, EXACT),
    "HEIC": (heic, FLAT / 255, LOSSY),
    "AVIF": (avif, FLAT / 255, LOSSY),
}
#: Their orientation is in boxes of the container, and is tested with them.
BOXES = ("HEIC", "AVIF")


def states() -> Iterator[tuple[str, bytes | None, bytes | None, int, dict[str, str]]]:
    """Name, EXIF, XMP, the orientation and the metadata that they mean."""
    for order, name in (("<", "little-endian"), (">", "big-endian")):
        yield from (
            (f"{title}, {name}", data, None, turn, carried)
            for title, data, turn, carried in _orientations(order)
        )
        yield from (
            (f"{title}, {name}", data, None, 1, carried) for title, data, carried in _texts(order)
        )
        yield from (
            (f"{title}, {name}", data, None, turn, carried)
            for title, data, turn, carried in _damaged(order)
        )
    for value, form in itertools.product((0, 1, 3, 6, 8, 9), ('="{}"', "='{}'", ">{}<")):
        xmp = b"<x:xmpmeta tiff:Orientation" + form.format(value).encode() + b"/></x:xmpmeta>"
        turn = value if 1 <= value <= 8 else 1
        yield f"XMP with orientation {form.format(value)}", None, xmp, turn, {}
        both = exif("<", [number("<", ORIENTATION, SHORT, 3)])
        yield f"EXIF with 3 and XMP with {form.format(value)}", both, xmp, 3, {}
    yield "garbage in XMP", None, b"\xff\0<<garbage" * 50, 1, {}
    yield "none", None, None, 1, {}


def _orientations(order: str) -> Iterator[tuple[str, bytes, int, dict[str, str]]]:
    for value in (*range(10), 255, 65535):
        turn = value if 1 <= value <= 8 else 1
        yield (
            f"orientation {value}",
            exif(order, [number(order, ORIENTATION, SHORT, value)]),
            turn,
            {},
        )
    for kind in (BYTE, LONG, SSHORT, SLONG, SBYTE, FLOAT, DOUBLE):
        yield (
            f"orientation of type {kind}",
            exif(order, [number(order, ORIENTATION, kind, 6)]),
            6,
            {},
        )
    for value, kind in (
        (-6, SSHORT),
        (6.5, FLOAT),
        (float("nan"), FLOAT),
        (float("inf"), DOUBLE),
        (1e9, FLOAT),
    ):
        yield f"orientation {value}", exif(order, [number(order, ORIENTATION, kind, value)]), 1, {}
    yield "orientation as text", exif(order, [text(ORIENTATION, b"6\0")]), 1, {}
    yield "orientation as a long text", exif(order, [text(ORIENTATION, b"right top\0")]), 1, {}
    yield "orientation without a value", exif(order, [(ORIENTATION, SHORT, 0, b"")]), 1, {}
    yield "orientation of an unknown type", exif(order, [(ORIENTATION, 99, 1, b"\6\0")]), 1, {}
    two = struct.pack(order + "HH", 6, 3)
    yield "orientation of two values", exif(order, [(ORIENTATION, SHORT, 2, two)]), 6, {}
    entries = [number(order, ORIENTATION, SHORT, 6), number(order, ORIENTATION, SHORT, 3)]
    yield "two orientations", exif(order, entries), 6, {}
    inner = [number(order, ORIENTATION, SHORT, 6)]
    yield (
        "the orientation is behind others",
        exif(order, [text(400 + i, b"maker\0") for i in range(60)] + inner),
        6,
        {},
    )


TEXTS: dict[str, tuple[bytes, str]] = {
    "ASCII": (b"Ann Other\0", "Ann Other"),
    "UTF-8": ("Zoë Ø 写真\0".encode(), "Zoë Ø 写真"),
    "Latin-1": (b"Zo\xeb\0", "Zoë"),
    "without a zero": (b"Ann Other", "Ann Other"),
    "with zeros at the end": (b"Ann Other" + bytes(20), "Ann Other"),
    "with spaces at the end": (b"Ann Other    \0", "Ann Other"),
    "with line breaks": (b"Ann\r\nOther\0", "Ann Other"),
    "two texts": (b"Ann Other\0Publisher\0", "Ann Other, Publisher"),
    "with control characters": (b"Ann\x07\x1b Other\0", "Ann Other"),
    "very long": (b"long " * 4000, ("long " * 200).strip()),
    "very long, of UTF-8": ("ö".encode() * 9000, "ö" * 1000),
    "one letter": (b"A\0", "A"),
    "three letters": (b"Ann\0", "Ann"),
    "empty": (b"\0", ""),
    "spaces": (b"      \0", ""),
}


def _texts(order: str) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    for (name, (stored, read)), kind in itertools.product(TEXTS.items(), (ASCII, BYTE, UNDEFINED)):
        if len(stored) == 1 and kind != ASCII:
            continue
        data = exif(order, [text(ARTIST, stored, kind), text(COPYRIGHT, stored, kind)])
        carried = {"artist": read, "copyright": read} if read else {}
        yield f"text of type {kind}, {name}", data, carried
    when = b"2024:02:29 12:30:00\0"
    read = "2024:02:29 12:30:00"
    yield (
        "dates",
        exif(order, [text(DATE, when)], inner=[text(TAKEN, when)]),
        {"datetime": read, "datetime_original": read},
    )
    yield (
        "a date in the wrong directory",
        exif(order, [text(TAKEN, when)]),
        {"datetime_original": read},
    )
    entries = [
        number(order, ARTIST, SHORT, 7),
        number(order, COPYRIGHT, FLOAT, 7),
        number(order, DATE, LONG, 7),
    ]
    yield "numbers in place of texts", exif(order, entries), {}


def _damaged(order: str) -> Iterator[tuple[str, bytes, int, dict[str, str]]]:
    when = b"2024:02:29 12:30:00\0"
    entries = [number(order, ORIENTATION, SHORT, 6), text(ARTIST, b"Ann Other\0")]
    whole = exif(order, entries, inner=[text(TAKEN, when)])
    read = {"artist": "Ann Other", "datetime_original": when[:-1].decode()}
    yield "whole", whole, 6, read
    for length in range(len(whole)):
        # The value of the orientation is within the first entry, and the texts are behind the first directory.
        turn = 6 if length >= 8 + 2 + 8 + 2 else 1
        yield f"cut to {length} bytes", whole[:length], turn, {}
    yield "garbage", b"garbage " * 20, 1, {}
    yield "zeros", bytes(200), 1, {}
    yield "only a head", whole[:8], 1, {}
    yield (
        "a directory beyond the end",
        whole[:4] + struct.pack(order + "I", 1 << 30) + whole[8:],
        1,
        {},
    )
    yield "a directory at 0", whole[:4] + bytes(4) + whole[8:], 1, {}
    yield "a count of 65535 entries", whole[:8] + b"\xff\xff" + whole[10:], 6, {}
    loop = exif(
        order, [number(order, ORIENTATION, SHORT, 6), number(order, INNER, LONG, 8)], following=8
    )
    yield "a loop", loop, 6, {}
    huge = [number(order, ORIENTATION, SHORT, 6), (ARTIST, ASCII, 0xFFFFFFFF, b"long text")]
    yield "a text of 4 GB", exif(order, huge), 6, {}
    many = [number(order, ORIENTATION, SHORT, 6), (0x9999, DOUBLE, 0xFFFFFFFF, bytes(8))]
    yield "4 billion numbers", exif(order, many), 6, {}
    away = [number(order, ORIENTATION, SHORT, 6), (INNER, LONG, 1, b"\xff" * 4)]
    yield "a sub-directory beyond the end", exif(order, away), 6, {}
    odd = [number(order, ORIENTATION, SHORT, 6), (INNER, ASCII, 30, b"no directory" + bytes(18))]
    yield "a sub-directory that is a text", exif(order, odd), 6, {}


def cases() -> Iterator[Case]:
    """All of them."""
    for (container, (make, stored, tolerance)), (name, data, xmp, turn, _) in itertools.product(
        CONTAINERS.items(), list(states())
    ):
        if container in BOXES and turn != 1:
            continue

        def made_file(make: Any = make, data: Any = data, xmp: Any = xmp) -> bytes:
            return bytes(make(data, xmp))

        yield Case(f"{container}: {name}", made_file, UPRIGHT[turn](stored), tolerance=tolerance)
