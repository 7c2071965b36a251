"""JPEG: every colour space, process, sampling and size; odd structures; ICC, EXIF, several pictures; no end."""

from __future__ import annotations

import base64
import io
import itertools
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pictures.corpus.case import Case
from tests.pictures.jpeg_writer import EOI, JFIF, SOI, Component, adobe, encoded, segment

Array = NDArray[Any]

#: One 8-bit step: the decoder converts YCbCr with whole numbers.
ROUNDED = 1.01 / 255
SIZE = (16, 24)
CMYK_NOTE = "CMYK was converted to sRGB without a profile"
APP0 = segment(0xE0, JFIF)


def planes(size: tuple[int, int], samplings: list[tuple[int, int]], bits: int = 8) -> list[Array]:
    """Block values of each component: the first varies, and so do the others if they are not subsampled."""
    across, down = max(s[0] for s in samplings), max(s[1] for s in samplings)
    units = -(-size[0] // (8 * down)), -(-size[1] // (8 * across))
    rng = np.random.default_rng(len(samplings) + bits)
    result = []
    for number, (h, v) in enumerate(samplings):
        shape = units[0] * v, units[1] * h
        low, high = (60, 200) if number in (0, 3) else (100, 156)
        values = rng.integers(low, high, shape)
        if (h, v) != (across, down):
            values[:] = values[0, 0]
        result.append(values << bits - 8)
    return result


def samples(size: tuple[int, int], samplings: list[tuple[int, int]], blocks: list[Array]) -> Array:
    """(H, W, C): the values of all pixels."""
    across, down = max(s[0] for s in samplings), max(s[1] for s in samplings)
    full = []
    for (h, v), values in zip(samplings, blocks, strict=True):
        enlarged = np.kron(values, np.ones((8 * down // v, 8 * across // h)))
        full.append(enlarged[: size[0], : size[1]])
    return np.stack(full, -1)


def from_ycc(values: Array, top: int = 255) -> Array:
    """RGB of YCbCr, in the same range (JFIF 1.02, page 3)."""
    y, cb, cr = (values[..., i].astype(np.float64) for i in range(3))
    cb, cr = cb - (top + 1) / 2, cr - (top + 1) / 2
    rgb = [y + 1.402 * cr, y - 0.344136286 * cb - 0.714136286 * cr, y + 1.772 * cb]
    return np.stack(rgb, -1).clip(0, top)


def shown(values: Array, space: str, top: int = 255) -> Array:
    """sRGB in [0, 1] of the values of a colour space."""
    if space == "grey":
        return values.repeat(3, -1) / top
    if space == "rgb":
        return values / top
    if space == "ycc":
        return from_ycc(values, top) / top
    inks = values / top  # stored inverted: 1 is no ink
    if space == "ycck":
        inks = np.concatenate([1 - from_ycc(values, top) / top, values[..., 3:] / top], -1)
    return inks[..., :3] * inks[..., 3:]


#: Name → component numbers, segments before the frame, colour space.
COLOURS: dict[str, tuple[tuple[int, ...], bytes, str]] = {
    "grey": ((1,), APP0, "grey"),
    "grey of component 0, without JFIF": ((0,), b"", "grey"),
    "grey with Adobe's marker": ((1,), adobe(0), "grey"),
    "YCbCr": ((1, 2, 3), APP0, "ycc"),
    "YCbCr of components 0 to 2": ((0, 1, 2), APP0, "ycc"),
    "YCbCr without JFIF": ((1, 2, 3), b"", "ycc"),
    "YCbCr of unknown components": ((10, 20, 30), b"", "ycc"),
    "YCbCr by Adobe": ((1, 2, 3), adobe(1), "ycc"),
    "YCbCr with JFIF and Adobe": ((1, 2, 3), APP0 + adobe(1), "ycc"),
    "YCbCr by an unknown transform": ((1, 2, 3), adobe(7), "ycc"),
    "RGB by Adobe": ((1, 2, 3), adobe(0), "rgb"),
    "RGB by its components": ((82, 71, 66), b"", "rgb"),
    "YCbCr by JFIF, though Adobe says RGB": ((1, 2, 3), APP0 + adobe(0), "ycc"),
    "CMYK": ((1, 2, 3, 4), b"", "cmyk"),
    "CMYK by Adobe": ((1, 2, 3, 4), adobe(0), "cmyk"),
    "CMYK by its components": ((67, 77, 89, 75), b"", "cmyk"),
    "YCCK by Adobe": ((1, 2, 3, 4), adobe(2), "ycck"),
}
PROCESSES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "restart of 1": {"restart": 1},
    "restart of 2": {"restart": 2},
    "separate scans": {"separate": True},
    "separate scans with restarts": {"separate": True, "restart": 2},
    "progressive": {"progressive": True},
    "progressive with restarts": {"progressive": True, "restart": 1},
    "12 bits": {"bits": 12},
    "12 bits, progressive": {"bits": 12, "progressive": True},
    "12 bits, separate scans": {"bits": 12, "separate": True},
}
SAMPLINGS: dict[str, list[tuple[int, int]]] = {
    "4:4:4": [(1, 1)] * 3,
    "4:4:4 as 1 × 2": [(1, 2)] * 3,
    "4:2:2": [(2, 1), (1, 1), (1, 1)],
    "4:2:0": [(2, 2), (1, 1), (1, 1)],
    "4:4:0": [(1, 2), (1, 1), (1, 1)],
    "4:1:1": [(4, 1), (1, 1), (1, 1)],
    "4:1:0": [(4, 2), (1, 1), (1, 1)],
    "1 × 4": [(1, 4), (1, 1), (1, 1)],
    "4:2:2 as 2 × 2 and 1 × 2": [(2, 2), (1, 2), (1, 2)],
    "a fine and a coarse chroma": [(2, 2), (2, 1), (1, 2)],
}
SIZES = ((16, 24), (1, 1), (8, 8), (7, 9), (17, 33), (1, 40), (40, 1))


def made(
    size: tuple[int, int] = SIZE,
    colours: str = "YCbCr",
    samplings: list[tuple[int, int]] | None = None,
    **options: Any,
) -> tuple[bytes, Array]:
    """A file, and its colours."""
    numbers, before, space = COLOURS[colours]
    samplings = samplings or [(1, 1)] * len(numbers)
    bits = options.get("bits", 8)
    blocks = planes(size, samplings, bits)
    parts = [Component(n, s, b) for n, s, b in zip(numbers, samplings, blocks, strict=True)]
    options = {"before": before} | options
    values = samples(size, samplings, blocks)
    return encoded(size, parts, **options), shown(values, space, (1 << bits) - 1)


def case(name: str, data: bytes, colours: Array | None, **options: Any) -> Case:
    """A case of bytes that are there already."""
    return Case(name, lambda: data, colours, **{"tolerance": ROUNDED, **options})


def ink_note(colours: str) -> str:
    """The note on a colour space."""
    return CMYK_NOTE if COLOURS[colours][2].startswith(("cmyk", "ycck")) else ""


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _coded()
    yield from _unended()
    yield from _structures()
    yield from _lossless()
    yield from _by_pillow()
    yield from _profiles()
    yield from _several()
    yield from _refused()


def _coded() -> Iterator[Case]:
    for colours, process, size in itertools.product(COLOURS, PROCESSES, SIZES[:4]):
        data, expected = made(size, colours, **PROCESSES[process])
        name = f"{colours}, {process}, {size[1]} × {size[0]}"
        yield case(name, data, expected, note=ink_note(colours))
    for sampling, process, size in itertools.product(SAMPLINGS, PROCESSES, SIZES):
        data, expected = made(size, samplings=SAMPLINGS[sampling], **PROCESSES[process])
        yield case(f"{sampling}, {process}, {size[1]} × {size[0]}", data, expected)
    for name, (colours, sampling, text) in ARITHMETIC.items():
        data, (_, expected) = base64.b85decode(text), made(SIZE, colours, SAMPLINGS.get(sampling))
        for tail in (b"", EOI, bytes(20), b"\xff"):
            yield case(f"{name}, ends with {tail.hex()}", data[:-2] + tail, expected)
        for cut in (30, 50, 70):
            yield case(
                f"{name}, {cut} bytes lost", data[:-cut], None, refused="is damaged or trunc"
            )


def _unended() -> Iterator[Case]:
    """Files without an end of the image: with all pixels they are right, and without some they are refused."""
    for colours, process, size in itertools.product(
        ("grey", "YCbCr", "CMYK by Adobe", "YCCK by Adobe"), PROCESSES, SIZES
    ):
        data, expected = made(size, colours, **PROCESSES[process])
        name = f"{colours}, {process}, {size[1]} × {size[0]}"
        note = ink_note(colours)
        for end, tail in {"": b"", "half of": b"\xff", "zeros in place of": bytes(9)}.items():
            title = f"{name}, {end or 'no'} end"
            yield case(title, data[:-2] + tail, expected, note=note)
    for sampling, process in itertools.product(SAMPLINGS, PROCESSES):
        data, expected = made(samplings=SAMPLINGS[sampling], **PROCESSES[process])
        yield case(f"{sampling}, {process}, no end", data[:-2], expected)
        for lost in (0.4, 0.6, 0.9):
            scan = data.index(b"\xff\xda")
            cut = scan + int((len(data) - 2 - scan) * (1 - lost))
            for tail in (b"", bytes(50)):
                name = f"{sampling}, {process}, {lost:.0%} of the pixels lost, {len(tail)} zeros"
                yield case(name, data[:cut] + tail, None, refused="is damaged or truncated")
    data, _ = made(progressive=True)
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    for number, start in enumerate(scans):
        yield case(f"progressive, cut before scan {number}", data[:start], None,
                   refused="last scans are missing|ends before its pixels")  # fmt: skip


def _structures() -> Iterator[Case]:
    data, expected = made()
    frame = data.index(b"\xff\xc0")
    picture = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(picture, "JPEG")
    exif = segment(0xE1, b"Exif\0\0" + tiff_with_thumbnail(picture.getvalue()))
    inserted = {
        "bytes between segments": b"abc\0\1",
        "0xFF 0 between segments": b"\xff\0",
        "fill bytes": b"\xff\xff\xff",
        "a segment of length 0": b"\xff\xe5\0\0",
        "a segment of length 1": b"\xff\xe5\0\1",
        "an empty segment": b"\xff\xe5\0\2",
        "an empty comment": b"\xff\xfe\0\2",
        "a second start": SOI,
        "a second start with JFIF": SOI + APP0,
        "the marker TEM": b"\xff\x01",
        "a restart marker": b"\xff\xd3",
        "an end within a segment": segment(0xE7, EOI + b"x" + EOI),
        "a picture within a segment": segment(0xE7, picture.getvalue()),
        "a thumbnail in EXIF": exif,
        "a thumbnail in EXIF, twice": exif + exif,
        "a comment of 64 KB": segment(0xFE, b"c" * 65_533),
        "1000 comments": segment(0xFE, b"comment") * 1000,
        "unknown segments": b"".join(segment(i, b"data") for i in range(0xF0, 0xF7)),
        "Photoshop's segment, damaged": segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff"),
        "an empty JFIF segment": segment(0xE0, b"JFIF\0"),
        "a short Adobe segment": segment(0xEE, b"Adobe\0"),
        "JFXX with a thumbnail": segment(0xE0, b"JFXX\0\x10" + picture.getvalue()),
    }
    for name, extra in inserted.items():
        for where, at in {"after the start": 2, "before the frame": frame}.items():
            if at == 2 and ("JFIF" in name or name == "bytes between segments"):
                continue
            yield case(f"{name} {where}", data[:at] + extra + data[at:], expected)
            yield case(f"{name} {where}, no end", (data[:at] + extra + data[at:])[:-2], expected)
    for name, tail in {
        "text after the end": b"text" * 30,
        "zeros after the end": bytes(5000),
        "a picture after the end": picture.getvalue(),
        "a scan after the end": data[data.index(b"\xff\xda") :],
        "a start after the end": SOI,
        "a film after the end": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20,
    }.items():
        yield case(name, data + tail, expected)
    separate, expected = made(separate=True)
    second = separate.index(b"\xff\xda", separate.index(b"\xff\xda") + 2)
    for name, extra in {
        "a comment": segment(0xFE, EOI),
        "bytes": b"abc",
        "fill bytes": b"\xff" * 5,
    }.items():
        yield case(f"{name} between scans", separate[:second] + extra + separate[second:], expected)
    unusual, expected = made(before=segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x10RESI" + bytes(8)))
    yield case("JPEG XT", unusual, expected, note="its JPEG XT extension was not used")
    signed, expected = made(before=segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x10jumb" + bytes(8)))
    yield case("content credentials", signed, expected)


def _lossless() -> Iterator[Case]:
    for bits, channels, predictor in itertools.product(range(2, 17), (1, 3, 4), (1, 4, 7)):
        rng = np.random.default_rng(bits)
        dtype = np.uint8 if bits <= 8 else np.uint16
        values = rng.integers(0, 1 << bits, (*SIZE, channels)).astype(dtype)
        data = bytes(
            imagecodecs.jpeg8_encode(
                values[..., 0] if channels == 1 else values,
                lossless=True,
                predictor=predictor,
                bitspersample=bits,
            )
        )
        space = {1: "grey", 3: "rgb", 4: "cmyk"}[channels]
        name = f"lossless, {bits} bits, {space}, predictor {predictor}"
        expected = shown(values, space, (1 << bits) - 1)
        exact = 1.2 / 65535 if bits > 8 else 1e-6 if bits == 8 else 1.2 / 65535
        note = CMYK_NOTE if channels == 4 else ""
        yield case(name, data, expected, tolerance=exact, note=note)
        yield case(f"{name}, no end", data[:-2], expected, tolerance=exact, note=note)


def _by_pillow() -> Iterator[Case]:
    colours = np.random.default_rng(5).integers(40, 216, (2, 3, 3)).astype(np.uint8)
    flat = np.kron(colours, np.ones((32, 32, 1))).astype(np.uint8)
    for mode, quality, subsampling, progressive, optimize, restart in itertools.product(
        ("L", "RGB", "CMYK"), (95, 100), (0, 1, 2), (False, True), (False, True), (0, 3)
    ):
        image = Image.fromarray(flat[..., 0] if mode == "L" else flat)
        note = ""
        expected = np.array(image.convert("RGB")) / 255
        if mode == "CMYK":
            if subsampling:  # of yellow and black, too
                continue
            inks = np.dstack([flat, flat[..., :1] // 4])
            image, note = Image.fromarray(inks, "CMYK"), CMYK_NOTE
            expected = (1 - inks[..., :3] / 255) * (1 - inks[..., 3:] / 255)
        if subsampling and mode == "RGB":  # chroma is interpolated between the areas
            expected = np.broadcast_to(flat[:1, :1] / 255, flat.shape)
            image = Image.fromarray(np.broadcast_to(flat[:1, :1], flat.shape).copy())
        buffer = io.BytesIO()
        image.save(
            buffer, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive,
            optimize=optimize, restart_marker_blocks=restart,
        )  # fmt: skip
        kinds = [f"{mode}, quality {quality}, subsampling {subsampling}"]
        kinds += (
            ["progressive"] * progressive + ["optimised"] * optimize + ["restarts"] * (restart > 0)
        )
        name = "Pillow: " + ", ".join(kinds)
        yield case(name, buffer.getvalue(), expected, tolerance=2.5 / 255, note=note)
        yield case(
            f"{name}, no end", buffer.getvalue()[:-2], expected, tolerance=2.5 / 255, note=note
        )


def icc_segments(profile: bytes, parts: int, order: str = "") -> bytes:
    """A profile in numbered segments; order: what is wrong with them."""
    step = -(-len(profile) // parts)
    chunks = [profile[i : i + step] for i in range(0, len(profile), step)]
    numbers = list(range(1, parts + 1))
    count = parts
    if order == "numbered from 0":
        numbers = list(range(parts))
    elif order == "all numbered 1":
        numbers = [1] * parts
    elif order == "a wrong count":
        count = parts + 3
    listed = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + chunk)
        for number, chunk in zip(numbers, chunks, strict=True)
    ]
    if order == "reversed":
        listed.reverse()
    elif order == "one is missing":
        del listed[-2]
    elif order == "the last is missing":
        del listed[-1]
    return b"".join(listed)


def _profiles() -> Iterator[Case]:
    from tests.pictures.kinds import from_wide, wide_profile

    profile = wide_profile() + bytes(-len(wide_profile()) % 4)
    for parts, order, colours in itertools.product(
        (1, 3, 7),
        ("", "reversed", "numbered from 0", "all numbered 1", "a wrong count", "one is missing", "the last is missing"),
        ("YCbCr", "RGB by Adobe"),
    ):  # fmt: skip
        if parts == 1 and "missing" in order:
            continue
        before = COLOURS[colours][1]
        data, plain = made(colours=colours, before=before + icc_segments(profile, parts, order))
        name = f"{colours}, profile in {parts} parts, {order or 'in order'}"
        if "missing" in order:
            yield case(name, data, plain, note="its colour profile is incomplete and was not used")
            continue
        expected = from_wide(plain)
        yield case(name, data, expected, tolerance=3 / 255, note="were converted to sRGB from")
    data, plain = made(before=APP0 + segment(0xE2, b"ICC_PROFILE\0\1\1"))
    yield case("an empty profile", data, plain, note="incomplete")


def _several() -> Iterator[Case]:
    """Multi-Picture Format: other views are noted; previews and gain maps are not."""
    inner, _ = made()
    for name, (kind, xmp, note) in {
        "views": (0x020003, b"", "only the first of 2 frames was used"),
        "undefined": (0, b"", "only the first of 2 frames was used"),
        "a preview": (0x010001, b"", ""),
        "a full-HD preview": (0x010002, b"", ""),
        "a gain map": (0, b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>', ""),
        "an Apple gain map": (0, b"http://ns.adobe.com/xap/1.0/\0<x HDRGainMap:HDRGainMapVersion='1'/>", ""),
    }.items():  # fmt: skip
        for order in "<>":
            second = inner[:2] + (segment(0xE1, xmp) if xmp else b"") + inner[2:]
            without, _ = made(before=APP0 + mpf(order, kind, 0, 0))
            mpf_start = without.index(b"MPF\0") + 4
            data, expected = made(
                before=APP0 + mpf(order, kind, len(second), len(without) - mpf_start)
            )
            title = f"several pictures: {name}, {'little' if order == '<' else 'big'}-endian"
            yield case(title, data + second, expected, note=note)
            yield case(f"{title}, the second is missing", data, expected)
    for name, index in {
        "empty": b"",
        "text": b"no index at all",
        "cut": mpf("<", 0, 10, 10)[8:40],
        "a loop": b"II*\0\x08\0\0\0\1\0\x02\xb0\7\0\0\0\xff\xff\x08\0\0\0\x08\0\0\0",
    }.items():
        data, expected = made(before=APP0 + segment(0xE2, b"MPF\0" + index))
        yield case(f"an index of pictures that is damaged: {name}", data, expected)


def mpf(order: str, kind: int, length: int, offset: int) -> bytes:
    """The index of two pictures."""
    entries = struct.pack(order + "IIIHH", 0x030000, 1, 0, 0, 0)
    entries += struct.pack(order + "IIIHH", kind, length, offset, 0, 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    directory = struct.pack(order + "H", 2)
    directory += struct.pack(order + "HHII", 0xB001, 4, 1, 2)
    directory += struct.pack(order + "HHII", 0xB002, 7, len(entries), 8 + 2 + 24 + 4)
    return segment(0xE2, b"MPF\0" + head + directory + bytes(4) + entries)


def tiff_with_thumbnail(thumbnail: bytes) -> bytes:
    """EXIF data with a JPEG as thumbnail."""
    first = struct.pack("<HHHIII", 1, 0x0112, 3, 1, 1, 26)
    second = struct.pack("<H", 2)
    second += struct.pack("<HHII", 0x0201, 4, 1, 26 + 2 + 24 + 4)
    second += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + bytes(4)
    return b"II*\0\x08\0\0\0" + first + second + thumbnail


def _refused() -> Iterator[Case]:
    """Valid files that are not supported, with the true cause."""
    blocks = planes(SIZE, [(1, 1)] * 5)
    parts = [Component(i + 1, (1, 1), values) for i, values in enumerate(blocks)]
    data, _ = made()
    frame = data.index(b"\xff\xc0")

    def with_frame(marker: int, bits: int = 8) -> bytes:
        changed = bytearray(data)
        changed[frame + 1], changed[frame + 4] = marker, bits
        return bytes(changed)

    makes: dict[str, tuple[Callable[[], bytes], str]] = {
        "two components": (partial(encoded, SIZE, parts[:2]), "has 2 colour components"),
        "five components": (lambda: with_components(data, 5), "has 5 colour components"),
        "no components": (lambda: with_components(data, 0), "has 0 colour components"),
        "a height after the pixels": (
            lambda: made(height_after=True)[0],
            r"states its height only after its pixels \(DNL\)",
        ),
        "JPEG-LS": (
            lambda: bytes(imagecodecs.jpegls_encode(np.zeros((8, 8), np.uint8))),
            "is a JPEG-LS file",
        ),
        "a width of 0": (lambda: data[: frame + 7] + b"\0\0" + data[frame + 9 :], "is damaged"),
        "no frame": (lambda: data[:frame] + data[frame + 19 :], "does not state its size"),
        "two frames": (lambda: data[:frame] + data[frame : frame + 19] + data[frame:], "several frames"),
        "only a start": (lambda: SOI + APP0, "ends before its pixels"),
        "only start and end": (lambda: SOI + APP0 + EOI, "ends before its pixels"),
        "cut within a segment": (lambda: data[: frame + 9], "ends within its header"),
    }  # fmt: skip
    for marker in (0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
        makes[f"frame 0x{marker:X}"] = partial(with_frame, marker), "hierarchical or lossless"
    for bits in (0, 1, 7, 9, 10, 14, 16, 255):
        makes[f"{bits} bits"] = partial(with_frame, 0xC1, bits), f"has {bits} bits per channel"
    for name, (make, cause) in makes.items():
        yield Case(name, make, None, refused=cause)


def with_components(data: bytes, count: int) -> bytes:
    """A JPEG whose frame states another number of components."""
    frame = data.index(b"\xff\xc0")
    changed = bytearray(data)
    changed[frame + 9] = count
    return bytes(changed)


#: Files of `made` that were coded again with arithmetic coding, which no library here writes (jpegtran -arithmetic, of
#: libjpeg-turbo 2.1.5): name → colours, sampling, the file in base 85.
ARITHMETIC: dict[str, tuple[str, str, str]] = {
    "arithmetic, YCbCr, 4:4:4": (
        "YCbCr",
        "4:4:4",
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI4"
        "0RaI40RaI40sqMW5eNVf02l)S5dZ=a00R*K|I7di01yxb0T2-d|Jncy0|5X65d#qbKLGy#^W5fFXD5ebZKh4{i`+BpVu;WJV}N^("
        "MWQa>(SZNi",
    ),
    "arithmetic, progressive, YCbCr, 4:4:4": (
        "YCbCr",
        "4:4:4",
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI4"
        "0RaI40RaI40sqPX5eNVf02l)S5dZ=a00R*K|I7de01yEX|Jncy0|5X65CaeZ00I91=fk`ltw^AOKBP-+WJ4dlm|@=uuXf5m+H%1E"
        "%m4%s1^?Or2mt{A0R;lU|I7dc5e5I+00;pC0RcY&!2iqu1Q7-Q+5iXv0s#R(0l@#v00a;P|Jncu0RaF8KLWu2%m4%s1^?Or2mt{A"
        "0Y4$Y|Jncy0|5X600RI301!*Y|I7dc5e5I+00;pC0RcY{!2iqu1Q7-Q+5iXv0s#R(5WxS;00a;P|Jncu0RaF3KM=tG*#",
    ),
    "arithmetic, restarts, YCbCr, 4:4:4": (
        "YCbCr",
        "4:4:4",
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI4"
        "0RaI40RaI40sqMW5eNVf02l)S5dZ=a00R*K|I7di01yxb0T2-d|J?ut00IBn01N{G00I#M5dc2`{{Zvc=2vI`(EkAQ>|%B<bHM-6"
        "(%@u?IDr4s&mlg;iT~5m!VIEz`2W<>uC&0H_kjP|",
    ),
    "arithmetic, YCbCr, 4:2:0": (
        "YCbCr",
        "4:2:0",
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI4"
        "0RaI40RaI40sqMW5eNVf02l)SA^-vr00R*K|I7di01yxb0T2-d|Jncy0|5X65d#qbKLGy#^W7?A9bcJSR!l@b;d%er",
    ),
    "arithmetic, grey": (
        "grey",
        "",
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI4"
        "0RaI40RaI40sqMW3kU!Z02l!Q5di<p00saM5C#9*00;pA002J#{{XWD#0#OUEa16cG=Trv",
    ),
    "arithmetic, progressive, grey": (
        "grey",
        "",
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI4"
        "0RaI40RaI40sqPX3kU!Z02l!Q5di<p00aOK|Jncu0RaF200I91Wu@NQ`USZL6)b@N%m4%s1^?Or2mt{A0R;lU|I7dc5C#9*00;pA"
        "00ut-!2iqu1P}%P+5iXv0RRC%A;ACI00;pA0000GQ2)#T1P}%P+5iXv0RRC%5WxT0",
    ),
    "arithmetic, restarts, grey": (
        "grey",
        "",
        "|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI40RaI4"
        "0RaI40RaI40sqMW3kU!Z02l!Q5di<p00saM5C#9;00aO5|Jncu0RaF2KLGy#v;WZ2<~0A&(&wE2(*FSHVE@zq0Q3I;)Y7p3*#",
    ),
}
