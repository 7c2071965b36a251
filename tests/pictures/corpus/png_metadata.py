"""Metadata of PNG, written by hand: orientations, colour spaces, broken chunks, animations."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

from tests.corpus import chunk
from tests.pictures import colorimetry
from tests.pictures.corpus.case import Array, Case
from tests.pictures.png_writer import (
    CONVERTED,
    CONVERTED_DEEP,
    GREY,
    GREY_ALPHA,
    KINDS,
    PALETTE,
    RGB,
    RGB_ALPHA,
    UNREADABLE,
    Pixels,
    case,
    file,
    picture,
    wrong_crc,
)


def cases() -> Iterator[Case]:
    """All files."""
    yield from _orientations()
    yield from _gamma()
    yield from _code_points()
    yield from _order_of_colour_spaces()
    yield from _broken_chunks()
    yield from _animations()


# Metadata


def exif(orientation: int) -> bytes:
    """EXIF with an orientation."""
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    return bytes(data.tobytes().removeprefix(b"Exif\0\0"))


def raw_profile(name: str, data: bytes) -> bytes:
    """Data in hexadecimal digits, as ImageMagick writes it into a text."""
    digits = data.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return f"\n{name}\n{len(data):8}\n".encode() + "\n".join(lines).encode() + b"\n"


def ztxt(key: bytes, text: bytes) -> bytes:
    """A compressed text."""
    return chunk(b"zTXt", key + b"\0\0" + zlib.compress(text))


def itxt(key: bytes, text: bytes, *, packed: bool = False) -> bytes:
    """An international text."""
    head = key + (b"\0\1\0\0\0" if packed else b"\0\0\0\0\0")
    return chunk(b"iTXt", head + (zlib.compress(text) if packed else text))


XMP = '<x:xmpmeta><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'
EXIF_KEY, APP1_KEY, XMP_KEY = b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp"  # fmt: skip
ORIENTED: dict[str, Callable[[int], bytes]] = {
    "eXIf": lambda o: chunk(b"eXIf", exif(o)),
    "eXIf with a prefix": lambda o: chunk(b"eXIf", b"Exif\0\0" + exif(o)),
    "raw profile in tEXt": lambda o: chunk(b"tEXt", EXIF_KEY + b"\0" + raw_profile("exif", exif(o))),
    "raw profile in zTXt": lambda o: ztxt(EXIF_KEY, raw_profile("exif", b"Exif\0\0" + exif(o))),
    "raw profile in iTXt": lambda o: itxt(EXIF_KEY, raw_profile("exif", exif(o)), packed=True),
    "raw profile APP1": lambda o: ztxt(APP1_KEY, raw_profile("generic", b"Exif\0\0" + exif(o))),
    "XMP": lambda o: itxt(XMP_KEY, XMP.format(o).encode()),
    "packed XMP": lambda o: itxt(XMP_KEY, XMP.format(o).encode(), packed=True),
    "eXIf before XMP": lambda o: chunk(b"eXIf", exif(o)) + itxt(XMP_KEY, XMP.format(o % 8 + 1).encode()),
    "garbage eXIf, raw profile": lambda o: chunk(b"eXIf", b"garbage") + ORIENTED["raw profile in zTXt"](o),
    "wrong checksum of eXIf, another": lambda o: wrong_crc(chunk(b"eXIf", exif(1))) + chunk(b"eXIf", exif(o)),
    "two eXIf": lambda o: chunk(b"eXIf", exif(o)) + chunk(b"eXIf", exif(o % 8 + 1)),
}  # fmt: skip


def turned(values: Array, orientation: int) -> Array:
    """Upright, by the positions that EXIF 2.32, 4.6.4 gives for row 0 and column 0."""
    if orientation in (2, 3, 6, 7):  # these have column 0 on the right, or row 0
        values = values[:, ::-1] if orientation in (2, 3) else values[::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1] if orientation in (3, 4) else values[:, ::-1]
    return values.swapaxes(0, 1) if orientation >= 5 else values


def _orientations() -> Iterator[Case]:
    """Each orientation by each kind of metadata, before and after the image data."""
    kinds = ((RGB, 8, False), (RGB_ALPHA, 16, False), (PALETTE, 4, True), (GREY, 1, False))
    for (source, metadata), orientation in product(ORIENTED.items(), range(1, 9)):
        for (kind, depth, transparent), late in product(kinds, (False, True)):
            pixels = picture(kind, depth, transparent=transparent)
            chunks = metadata(orientation)
            place = {"after": chunks} if late else {"between": chunks}
            alpha = None if pixels.alpha is None else turned(pixels.alpha, orientation)
            yield case(
                f"orientation {orientation} by {source}, {KINDS[kind]}" + ", after IDAT" * late,
                pixels,
                partial(file, pixels, interlaced=kind == RGB, **place),
                colours=turned(pixels.colours, orientation),
                alpha=alpha,
            )


# Colour spaces


def gama(exponent: float) -> bytes:
    """gAMA: the exponent from light to values."""
    return chunk(b"gAMA", struct.pack(">I", round(exponent * 100_000)))


def chrm(points: colorimetry.Points) -> bytes:
    """cHRM."""
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in points)))


def converted(pixels: Pixels, light: Callable[[Array], Array], points: colorimetry.Points) -> Array:
    """The colours in sRGB."""
    return colorimetry.from_light(light(pixels.colours), points)


SOME = ((RGB, 8), (RGB, 16), (GREY, 8), (GREY, 16), (PALETTE, 8), (RGB_ALPHA, 8), (GREY_ALPHA, 16))


def _converted_tolerance(pixels: Pixels) -> float:
    return CONVERTED_DEEP if pixels.depth == 16 else CONVERTED


def _gamma() -> Iterator[Case]:
    """gAMA and cHRM."""
    spaces = {
        "no cHRM": (b"", colorimetry.BT709),
        "sRGB's cHRM": (chrm(colorimetry.BT709), colorimetry.BT709),
        "Adobe RGB's cHRM": (chrm(colorimetry.ADOBE), colorimetry.ADOBE),
        "BT.2020's cHRM": (chrm(colorimetry.BT2020), colorimetry.BT2020),
    }
    for (kind, depth), (name, (chunks, points)), gamma in product(
        SOME, spaces.items(), (1.0, 0.45455, 0.46, 1 / 1.8, 0.35, 1 / 2.6)
    ):
        pixels = picture(kind, depth)
        grey = kind in (GREY, GREY_ALPHA)
        title = f"gAMA {gamma:.3f}, {name}, {KINDS[kind]}, {depth} bit"
        make = partial(file, pixels, before=gama(gamma) + chunks)
        if (grey or points is colorimetry.BT709) and abs(gamma * 2.2 - 1) <= 0.05:
            yield case(title, pixels, make)
            continue
        value = round(gamma * 100_000) / 100_000
        used = colorimetry.BT709 if grey else points
        yield case(
            title,
            pixels,
            make,
            colours=converted(pixels, lambda v, g=value: v ** (1 / g), used),
            tolerance=_converted_tolerance(pixels),
            note="converted to sRGB from gamma",
        )
    pixels = picture(RGB, 8)
    for name, chunks in {
        "cHRM without gAMA": chrm(colorimetry.ADOBE),
        "gAMA of 0": gama(0),
        "gAMA of 40000": chunk(b"gAMA", b"\xee" * 4),
        "sRGB": chunk(b"sRGB", b"\0"),
        "sRGB of an unknown intent": chunk(b"sRGB", b"\x09"),
        "gAMA 1 with a cHRM of zeros": gama(1.0) + chunk(b"cHRM", bytes(32)),
        "gAMA 1 with a cHRM of one point": gama(1.0) + chrm((0.3, 0.3) * 4),
        "sRGB with gAMA 1": chunk(b"sRGB", b"\0") + gama(1.0),
        "gAMA 1 with sRGB": gama(1.0) + chunk(b"sRGB", b"\1"),
    }.items():
        yield case(name, pixels, partial(file, pixels, before=chunks))


#: The curves from values to light (ITU-T H.273, table 3). Those of video are shown as sRGB's, as in browsers.
LIGHT: dict[int, tuple[str, Callable[[Array], Array]]] = {
    1: ("BT.709", colorimetry.srgb_light),
    2: ("unspecified", colorimetry.srgb_light),
    4: ("gamma 2.2", lambda v: v**2.2),
    5: ("gamma 2.8", lambda v: v**2.8),
    6: ("BT.601", colorimetry.srgb_light),
    8: ("linear", lambda v: v),
    13: ("sRGB", colorimetry.srgb_light),
    14: ("BT.2020", colorimetry.srgb_light),
    15: ("BT.2020, 12 bit", colorimetry.srgb_light),
}
POINTS = {
    1: ("BT.709", colorimetry.BT709),
    9: ("BT.2020", colorimetry.BT2020),
    12: ("Display P3", colorimetry.DISPLAY_P3),
}


def cicp(*points: int) -> bytes:
    """cICP."""
    return chunk(b"cICP", bytes(points))


def _code_points() -> Iterator[Case]:
    """cICP."""
    for (kind, depth), (primaries, (space, points)), (transfer, (curve, light)) in product(
        SOME, POINTS.items(), LIGHT.items()
    ):
        pixels = picture(kind, depth)
        title = f"cICP {space}, {curve}, {KINDS[kind]}, {depth} bit"
        make = partial(file, pixels, before=cicp(primaries, transfer, 0, 1))
        same = light is colorimetry.srgb_light
        if same and (primaries == 1 or kind in (GREY, GREY_ALPHA)):
            yield case(title, pixels, make)
            continue
        yield case(
            title,
            pixels,
            make,
            colours=converted(pixels, light, points),
            tolerance=_converted_tolerance(pixels),
            note="converted to sRGB from",
        )
    yield from _hdr()
    pixels = picture(RGB, 8)
    yield case("cICP unspecified", pixels, partial(file, pixels, before=cicp(2, 2, 0, 1)))
    for name, points in {
        "of unknown primaries": (99, 13, 0, 1),
        "of an unknown curve": (1, 99, 0, 1),
        "with a matrix": (1, 8, 1, 1),
        "with the narrow range": (1, 8, 0, 0),
    }.items():
        make = partial(file, pixels, before=cicp(*points))
        yield case(f"cICP {name}", pixels, make, note="was not used")


def _hdr() -> Iterator[Case]:
    """PQ and HLG, so dark that nothing is compressed."""
    for (kind, depth), (space, points) in product(
        ((RGB, 8), (RGB, 16), (GREY, 16)),
        ((1, colorimetry.BT709), *((n, POINTS[n][1]) for n in (9, 12))),
    ):
        dark = picture(kind, depth)
        dark = replace(dark, values=(dark.values * 0.4).astype(int))
        v = dark.colours
        root = v ** (32 / 2523)
        share = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
        used = colorimetry.BT709 if kind == GREY else points
        luminance = (v**2 / 3) @ colorimetry.luminance(used)
        for name, transfer, light in (
            ("PQ", 16, 10_000 / 203 * share ** (8192 / 1305)),
            ("HLG", 18, 1000 / 203 * v**2 / 3 * luminance[..., None] ** 0.2),
        ):
            yield case(
                f"cICP {POINTS[space][0]}, {name}, {KINDS[kind]}, {depth} bit",
                dark,
                partial(file, dark, before=cicp(space, transfer, 0, 1)),
                colours=colorimetry.from_light(light, used),
                tolerance=CONVERTED,
                note=f"tone-mapped to sRGB from {'BT.709' if kind == GREY else POINTS[space][0]} (HDR, {name})",
            )


def iccp(profile: bytes, name: bytes = b"profile") -> bytes:
    """iCCP."""
    return chunk(b"iCCP", name + b"\0\0" + zlib.compress(profile))


def linear_profile() -> bytes:
    """sRGB's primaries in proportion to light."""
    points = [(*colorimetry.BT709[i : i + 2], 1.0) for i in range(0, 8, 2)]
    primaries = [value for point in points[1:] for value in point]
    return bytes(
        imagecodecs.cms_profile("rgb", whitepoint=[*points[0]], primaries=primaries, gamma=1.0)
    )


def _order_of_colour_spaces() -> Iterator[Case]:
    """cICP counts before iCCP, iCCP before sRGB, sRGB before gAMA, in whatever order they come."""
    linear = {"light": lambda v: v, "points": colorimetry.BT709}
    p3 = {"light": colorimetry.srgb_light, "points": colorimetry.DISPLAY_P3}
    gamma = {"light": lambda v: v ** (1 / 0.6), "points": colorimetry.BT709}
    chunks = {
        "cICP": (cicp(12, 13, 0, 1), p3),
        "iCCP": (iccp(linear_profile()), linear),
        "sRGB": (chunk(b"sRGB", b"\0"), None),
        "gAMA": (gama(0.6), gamma),
    }
    for depth, present in product((8, 16), range(1, 16)):
        names = [name for i, name in enumerate(chunks) if present >> i & 1]
        space: Any = chunks[names[0]][1]
        for order in (names, names[::-1]):
            if len(names) == 1 and order is not names:
                continue
            pixels = picture(RGB, depth)
            make = partial(file, pixels, before=b"".join(chunks[name][0] for name in order))
            title = f"{', '.join(order)}, {depth} bit" + ", reversed" * (order is not names)
            if space is None:
                yield case(title, pixels, make)
            else:
                colours, off = converted(pixels, **space), _converted_tolerance(pixels)
                yield case(title, pixels, make, colours=colours, tolerance=off, note="converted")
    pixels = picture(PALETTE, 8)
    for name in chunks:
        late = chunks[name][0]
        yield case(f"{name} after PLTE", pixels, partial(file, pixels, between=late))
        yield case(f"{name} after IDAT", pixels, partial(file, pixels, after=late))


# Broken chunks


#: Chunks that are not needed for the pixels, with valid contents.
ANCILLARY = {
    b"tEXt": b"Comment\0text",
    b"zTXt": b"Comment\0\0" + zlib.compress(b"text"),
    b"iTXt": b"Comment\0\0\0\0\0text",
    b"tIME": b"\x07\xe8\1\2\3\4\5",
    b"pHYs": bytes(9),
    b"bKGD": bytes(6),
    b"sBIT": b"\5\6\5",
    b"hIST": bytes(10),
    b"sPLT": b"name\0\x08" + bytes(6),
    b"oFFs": bytes(9),
    b"sCAL": b"\x011\x001",
    b"pCAL": b"name\0" + bytes(10),
    b"eXIf": exif(1),
    b"acTL": struct.pack(">II", 1, 0),
    b"fcTL": bytes(26),
    b"fdAT": bytes(20),
    b"caBX": b"jumbf",
    b"iDOT": bytes(28),
    b"prVW": bytes(50),
    b"vpAg": bytes(9),
    b"mDCV": bytes(24),
    b"cLLI": bytes(8),
    b"sRGB": b"\0",
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", *(round(value * 100_000) for value in colorimetry.BT709)),
}


def _broken_chunks() -> Iterator[Case]:
    """Chunks that say nothing of the pixels never matter: whole, broken, repeated, anywhere."""
    states: dict[str, Callable[[bytes, bytes], bytes]] = {
        "": chunk,
        " with a wrong checksum": lambda kind, data: wrong_crc(chunk(kind, data)),
        " that is empty": lambda kind, data: chunk(kind, b""),
        " that is cut": lambda kind, data: chunk(kind, data[: len(data) // 2]),
        " of garbage": lambda kind, data: chunk(kind, b"\xfe" * len(data)),
        " that is too long": lambda kind, data: chunk(kind, data + bytes(2_000_000)),
        " twice": lambda kind, data: 2 * chunk(kind, data),
    }
    for (kind, data), (state, make), (place, (type, depth)) in product(
        ANCILLARY.items(),
        states.items(),
        product(("before", "between", "after"), ((RGB, 8), (PALETTE, 8), (GREY, 16))),
    ):
        if state == " that is too long" and type != RGB:
            continue
        pixels = picture(type, depth)
        chunks = partial(lambda m, k, d: m(k, d), make, kind, data)
        yield case(
            f"{kind.decode()}{state}, {place}, {KINDS[type]}",
            pixels,
            partial(lambda p, where, c: file(p, **{where: c()}), pixels, place, chunks),
        )
    pixels = picture(RGB, 8)
    broken = {
        "with a wrong checksum": wrong_crc(iccp(linear_profile())),
        "that is empty": chunk(b"iCCP", b""),
        "without a name's end": chunk(b"iCCP", b"a name"),
        "that is not compressed": chunk(b"iCCP", b"name\0\0" + linear_profile()),
        "whose data is cut": chunk(b"iCCP", b"name\0\0" + zlib.compress(linear_profile())[:-40]),
        "whose data is damaged": chunk(b"iCCP", b"name\0\0x\x9c" + b"\xaa" * 300),
        "without a profile": iccp(b""),
        "of garbage": iccp(b"garbage" * 100),
    }
    for name, data in broken.items():
        yield case(f"iCCP {name}", pixels, partial(file, pixels, before=data), note=UNREADABLE)
    linear = partial(
        case,
        colours=converted(pixels, lambda v: v, colorimetry.BT709),
        tolerance=CONVERTED,
        note="converted to sRGB",
    )
    twice = wrong_crc(iccp(linear_profile())) + iccp(linear_profile())
    yield linear("wrong checksum of iCCP, another", pixels, partial(file, pixels, before=twice))
    noise = np.random.default_rng(0).bytes(9 << 20)
    for name, padding in {"1.3 MB": bytes(1_300_000), "7 MB of noise": noise[: 7 << 20]}.items():
        make = partial(lambda extra: file(pixels, before=iccp(linear_profile() + extra)), padding)
        yield linear(f"iCCP of {name}", pixels, make)
    for name, padding in {"9 MB": bytes(9 << 20), "9 MB of noise": noise}.items():
        make = partial(lambda extra: file(pixels, before=iccp(linear_profile() + extra)), padding)
        yield case(f"iCCP of {name}", pixels, make, note="larger than 8 MB and was not used")


def _animations() -> Iterator[Case]:
    """APNG: the image is the first frame, or not part of the animation."""

    def control(number: int, width: int, height: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">5I2H2B", number, width, height, 0, 0, 1, 10, 0, 0))

    for (kind, depth), frames in product(((RGB, 8), (PALETTE, 8), (RGB_ALPHA, 16)), (1, 2, 7)):
        pixels = picture(kind, depth)
        name = f"{frames} frames, {KINDS[kind]}"
        height, width = pixels.values.shape[:2]
        other = zlib.compress(pixels.rows()[::-1])
        actl = chunk(b"acTL", struct.pack(">II", frames, 0))
        later = b""
        for number in range(1, frames):
            later += control(2 * number - 1, width, height)
            later += chunk(b"fdAT", struct.pack(">I", 2 * number) + other)
        first = actl + control(0, width, height)
        note = f"only the first of {frames} frames was used" if frames > 1 else ""
        yield case(
            f"animation of {name}",
            pixels,
            partial(file, pixels, before=first, after=later),
            note=note,
        )
        apart = control(0, width, height) + chunk(b"fdAT", struct.pack(">I", 1) + other) + later
        make = partial(file, pixels, before=actl, after=apart)
        note = f"only the first of {frames + 1} frames was used"
        yield case(f"image that is not part of an animation of {name}", pixels, make, note=note)
        make = partial(
            file, pixels, before=wrong_crc(actl) + control(0, width, height), after=later
        )
        yield case(f"wrong checksum of acTL, {name}", pixels, make)
    pixels = picture(RGB, 8)
    empty = chunk(b"acTL", bytes(8))
    yield case("animation of no frame", pixels, partial(file, pixels, before=empty))
