"""JPEG XL: headers written by hand before frames that libjxl encoded.

libjxl's Python encoder writes few kinds of headers. Most fields of a header do not change the frames after it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

from nst_daemon.pictures.jxl_boxes import find_boxes, read_codestream
from nst_daemon.pictures.jxl_header import Bits, read_header
from nst_daemon.pictures.jxl_icc import read_profile
from tests.pictures import colorimetry, kinds
from tests.pictures import profile_writer as icc
from tests.pictures.corpus.case import DEEP, EXACT, LOSSY, Array, Case
from tests.pictures.corpus.profiles import cmyk_lab

WIDTH, HEIGHT = 24, 17
#: (17, 24, 4) in [0, 1]: noise, for lossless coding; some of the opacity is 0 and some 1.
NOISE = np.random.default_rng(5).random((HEIGHT, WIDTH, 4))
NOISE[:3, :, 3], NOISE[-3:, :, 3] = 0, 1
#: The same size, without details, for lossy coding.
_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH]
SMOOTH = np.stack([0.3 + _X / 60, 0.35 + _Y / 50, 0.6 - _X / 80, 0.4 + _X / 40], -1)
GREY, RGB = 1, 0
#: A step of 8 bits: libjxl dithers what it reduces to 8 bits.
DITHERED = 1.01 / 255
ENCODED = "colours were converted to sRGB from"
#: Tolerance after a colour conversion from 8 and from 16 bits.
CONVERTED, CONVERTED_DEEP = 1.5 / 255, 0.3 / 255


# Bits, the first one first


def number(value: int, count: int) -> str:
    """An integer of so many bits."""
    return f"{value:0{count}b}"[::-1] if count else ""


def chosen(choice: int, value: int = 0, count: int = 0) -> str:
    """An integer in one of four ways."""
    return number(choice, 2) + number(value, count)


def enum(value: int) -> str:
    """A member of an enumeration."""
    if value < 2:
        return chosen(value)
    return chosen(2, value - 2, 4) if value < 18 else chosen(3, value - 18, 6)


def size_of(width: int, height: int) -> str:
    """A size header without ratio."""
    sides = [chosen(3, side - 1, 30) for side in (height, width)]
    return "0" + sides[0] + "000" + sides[1]


def point(x: float, y: float) -> str:
    """Chromaticities in [0, 1], in millionths; the lowest bit is the sign."""
    found = ""
    for value in (2 * round(1e6 * x), 2 * round(1e6 * y)):
        choice = (value >= 524288) + (value >= 1048576)
        found += chosen(choice, value - (0, 524288, 1048576)[choice], (19, 19, 20)[choice])
    return found


@dataclass(frozen=True)
class Space:
    """A colour encoding: its bits, and what makes sRGB of its values."""

    bits: str
    to_srgb: Callable[[Array], Array] = lambda values: values
    note: str = ""


@dataclass(frozen=True)
class Fields:
    """The fields of a header that the cases vary. extra: the bits of each extra channel."""

    size: tuple[int, int] = (WIDTH, HEIGHT)
    orientation: int = 1
    shown: tuple[int, int] | None = None
    preview: str = ""
    depth: str = chosen(3, 15, 6).join(["0", ""])
    extra: tuple[str, ...] = ()
    xyb: bool = False
    space: str = "1"
    brightest: float = 255.0
    profile: str = ""

    def bits(self) -> str:
        """The header with the signature."""
        tone = (
            "1" if self.brightest == 255 else "0" + half(self.brightest) + half(0) + "0" + half(0)
        )
        shown = "1" + size_of(*self.shown) if self.shown else "0"
        count = len(self.extra)
        return "".join(
            [
                *(number(0x0AFF, 16), size_of(*self.size), "0", "1"),
                *(
                    number(self.orientation - 1, 3),
                    shown,
                    "1" + self.preview if self.preview else "0",
                ),
                *(
                    "0",
                    self.depth,
                    "0",
                    chosen(min(count, 2), count - 2, 4) if count > 1 else chosen(count),
                ),
                *self.extra,
                *(str(int(self.xyb)), self.space, tone, "00", "1", self.profile),
            ]
        )


def half(value: float) -> str:
    """A 16-bit floating-point number."""
    return number(int.from_bytes(struct.pack("<e", value), "little"), 16)


def packed(bits: str) -> bytes:
    """Whole bytes."""
    return int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


def integers(bits: int) -> str:
    """The depth of integers."""
    return "0" + chosen(3, bits - 1, 6)


def channel(kind: int, depth: str, *, premultiplied: bool = False) -> str:
    """An extra channel."""
    more = {0: str(int(premultiplied)), 2: half(1) + half(0) + half(0) + half(1), 5: chosen(0)}
    return "0" + enum(kind) + depth + chosen(0) + chosen(0) + more.get(kind, "")


# Frames


def split(file: bytes) -> bytes:
    """The codestream of a file that libjxl wrote."""
    return read_codestream(io.BytesIO(file), find_boxes(io.BytesIO(file)))


def frames_of(pixels: Array, **options: object) -> bytes:
    """The frames without the header."""
    codestream = split(bytes(imagecodecs.jpegxl_encode(np.ascontiguousarray(pixels), **options)))
    return codestream[(read_header(codestream).end + 7) // 8 :]


def coded(fields: Fields, frames: bytes) -> bytes:
    """A codestream."""
    return packed(fields.bits()) + frames


def box(kind: bytes, contents: bytes) -> bytes:
    """A box."""
    return struct.pack(">I", len(contents) + 8) + kind + contents


START = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ")


def boxed(codestream: bytes, *others: bytes) -> bytes:
    """A container."""
    return START + b"".join(others) + box(b"jxlc", codestream)


def levels(values: Array, bits: int = 8) -> Array:
    """Integers of so many bits."""
    return np.round(values * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def shares(values: Array, bits: int = 8) -> Array:
    """[0, 1] of such integers, as RGB."""
    given = levels(values, bits) / ((1 << bits) - 1)
    return kinds.greys(given[..., 0]) if given.shape[-1] == 1 else given


def upright(values: Array, orientation: int) -> Array:
    """EXIF's orientations, by the corner where the first row and column belong."""
    turned = values.swapaxes(0, 1) if orientation > 4 else values
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(turned, flips)


# Colours


def linear_to(primaries: Sequence[tuple[float, float]], white: tuple[float, float]) -> Array:
    """The matrix from linear RGB to linear sRGB, adapted by Bradford."""

    def columns(points: Sequence[tuple[float, float]], at: tuple[float, float]) -> Array:
        xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T
        goal = [at[0] / at[1], 1, (1 - sum(at)) / at[1]]
        return xyz * np.linalg.solve(xyz, goal)

    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    of = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in (kinds.D65, white)]
    gain = (bradford @ of[0]) / (bradford @ of[1])
    adapt = np.linalg.solve(bradford, gain[:, None] * bradford)
    return np.linalg.solve(
        columns(kinds.SRGB_PRIMARIES, kinds.D65), adapt @ columns(primaries, white)
    )


def light_of(curve: int | float) -> Callable[[Array], Array]:
    """The curve of an enumeration, or an exponent, with 203 cd/m² as 1."""

    def pq(v: Array) -> Array:
        p = v ** (32 / 2523)
        return (
            10000
            / 203
            * (np.maximum(p - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * p)) ** (8192 / 1305)
        )

    def hlg(v: Array) -> Array:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        scene = np.where(v <= 0.5, v * v / 3, (np.exp((v - c) / a) + b) / 12)
        return 1000 / 203 * scene**1.2

    known: dict[int, Callable[[Array], Array]] = {
        1: lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45)),
        8: lambda v: v,
        13: lambda v: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4),
        16: pq,
        17: lambda v: v**2.6,
        18: hlg,
    }
    return known[curve] if isinstance(curve, int) else lambda v: v**curve


WHITES = {1: kinds.D65, 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
PRIMARIES = {
    1: kinds.SRGB_PRIMARIES,
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}


def encoding(
    space: int, curve: int | float, primaries: int | tuple = 1, white: int | tuple = 1
) -> Space:
    """A colour encoding by its enumerations, or with points and an exponent."""
    at = white if isinstance(white, tuple) else WHITES[white]
    points = primaries if isinstance(primaries, tuple) else PRIMARIES[primaries]
    bits = "00" + enum(space) + (enum(2) + point(*at) if isinstance(white, tuple) else enum(white))
    if space == RGB:
        bits += (
            enum(2) + "".join(point(*p) for p in points)
            if isinstance(primaries, tuple)
            else enum(primaries)
        )
    gamma = "1" + number(round(1e7 / curve), 24) if isinstance(curve, float) else "0" + enum(curve)
    light = light_of(curve)
    matrix = linear_to(points, at)

    def to_srgb(values: Array) -> Array:
        linear = light(values).clip(0, 1)
        return kinds.srgb_curve((linear @ matrix.T if space == RGB else linear).clip(0, 1))

    return Space(
        bits + gamma + enum(1),
        to_srgb,
        ENCODED
        if (space, curve, points) != (space, 13, kinds.SRGB_PRIMARIES)
        or (space == RGB and at != kinds.D65)
        else "",
    )


CURVES: tuple[int | float, ...] = (1, 8, 13, 16, 17, 18, 1.8, 2.2)
SPACES = {
    **{f"grey, curve {curve}": encoding(GREY, curve) for curve in CURVES},
    **{
        f"primaries {primaries}, curve {curve}": encoding(RGB, curve, primaries)
        for primaries, curve in product(PRIMARIES, CURVES)
    },
    "white E": encoding(RGB, 13, 1, 10),
    "DCI P3": encoding(RGB, 17, 11, 11),
    "own points": encoding(RGB, 2.2, kinds.WIDE_PRIMARIES),
    "own white": encoding(RGB, 13, 1, (0.3457, 0.3585)),
}


def profile_bits(profile: bytes, *, grey: bool = False) -> str:
    """A profile as libjxl codes it: from the header of a JPEG that was recompressed."""
    buffer = io.BytesIO()
    image = Image.new("L" if grey else "RGB", (8, 8))
    image.save(buffer, "JPEG", icc_profile=profile)
    codestream = split(bytes(imagecodecs.jpegxl_encode_jpeg(buffer.getvalue())))
    bits = Bits(codestream, read_header(codestream).end)
    start = bits.position
    assert read_profile(bits) == profile
    whole = "".join(number(byte, 8) for byte in codestream[: (bits.position + 7) // 8])
    return whole[start : bits.position]


def stored_profile(profile: bytes) -> str:
    """A profile without compression: a prefix code that has 8 bits for every byte."""
    expected = bytearray(128)
    expected[:4], expected[8], expected[12:24] = profile[:4], 4, b"mntrRGB XYZ "
    expected[36:40], expected[70:74] = b"acsp", b"\xf6\xd6\0\1"
    expected[78:80], expected[80:84] = b"\xd3\x2d", profile[4:8]
    header = bytes(a - b & 255 for a, b in zip(profile[:128], expected, strict=True))
    commands = b"\0\1" + variable(len(profile) - 128)  # no list of tags; insert all that follows
    data = variable(len(profile)) + variable(len(commands)) + commands + header + profile[128:]
    lengths = "".join(
        "01" if symbol == 8 else "00" for symbol in (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8)
    )
    code = "00" + lengths + "00" * 7
    coding = (
        "0" + "100" + "1" + number(8, 4) + "0000" + "0000" + "1" + number(7, 4) + number(127, 7)
    )
    size = chosen(2, len(data) - 17, 8) if len(data) < 273 else long_number(len(data))
    return size + coding + code + "".join(f"{byte:08b}" for byte in data)


def variable(value: int) -> bytes:
    """7 bits in each byte."""
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def long_number(value: int) -> str:
    """A number of up to 64 bits, in the long form."""
    found = number(3, 2) + number(value & 0xFFF, 12)
    for shift in range(12, 60, 8):
        found += "1" + number(value >> shift & 0xFF, 8)
    return found + "1" + number(value >> 60 & 15, 4)


# Cases


def picked(channels: int, values: Array = NOISE) -> Array:
    """Grey, grey with opacity, RGB, or all."""
    return values[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]


def squeezed(pixels: Array) -> Array:
    """As imagecodecs wants grey."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def grey_space(channels: int) -> str:
    """The bits of sRGB for so many channels."""
    return encoding(GREY, 13).bits if channels < 3 else "1"


def plain(channels: int, bits: int = 8, **more: object) -> tuple[Fields, Array]:
    """The fields of lossless integers, and the pixels."""
    depth = integers(bits)
    extra = (channel(0, depth),) if channels in (2, 4) else ()
    fields = Fields(depth=depth, extra=extra, space=grey_space(channels))
    return replace(fields, **more), levels(picked(channels), bits)


def expected(channels: int, bits: int = 8) -> tuple[Array, Array | None]:
    """Colours and opacity of `plain`."""
    values = shares(picked(channels), bits)
    if channels in (2, 4):
        return kinds.greys(values[..., 0]) if channels == 2 else values[..., :3], values[..., -1]
    return values, None


def lossless(pixels: Array, bits: int | None = None) -> bytes:
    """Frames of integers or floating point."""
    options = {"bitspersample": bits} if bits and pixels.dtype.kind == "u" else {}
    return frames_of(squeezed(pixels), lossless=True, **options)


def file(fields: Fields, pixels: Array, bits: int | None = None) -> bytes:
    """A naked codestream of lossless pixels."""
    return coded(fields, lossless(pixels, bits))


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (
        depths,
        floats,
        orientations,
        premultiplied,
        extra_channels,
        inks,
        spaces,
        xyb_spaces,
    ):
        yield from part()
    for part in (profiles, recompressed, animations, containers, sizes, lossy, others):
        yield from part()


def depths() -> Iterator[Case]:
    """Integers of every size."""
    for bits, channels in product(range(1, 17), (1, 2, 3, 4)):
        fields, pixels = plain(channels, bits)
        colours, alpha = expected(channels, bits)
        tolerance = EXACT if bits <= 8 else DEEP
        make = partial(file, fields, pixels, bits)
        yield Case(f"{bits} bits, {channels} channels", make, colours, alpha, tolerance)
    for bits in range(17, 25):
        fields, pixels = plain(3, 16)
        make = partial(file, replace(fields, depth=integers(bits)), pixels, 16)
        yield Case(f"{bits} bits", make, pixels / ((1 << bits) - 1), tolerance=DEEP)
    for bits, opacity in ((8, 16), (16, 8), (10, 8), (8, 10)):
        _, pixels = plain(4, max(bits, opacity))
        pixels[..., :3] >>= max(bits, opacity) - bits
        pixels[..., 3] >>= max(bits, opacity) - opacity
        fields = Fields(depth=integers(bits), extra=(channel(0, integers(opacity)),))
        alpha = pixels[..., 3] / ((1 << opacity) - 1)
        yield Case(
            f"{bits} bits with an opacity of {opacity}",
            partial(file, fields, pixels, max(bits, opacity)),
            pixels[..., :3] / ((1 << bits) - 1),
            alpha,
            DITHERED if opacity > bits else 0.51 / ((1 << bits) - 1),
        )


def floats() -> Iterator[Case]:
    """Floating point."""
    depths = {
        np.float16: "1" + chosen(1) + number(4, 4),
        np.float32: "1" + chosen(0) + number(7, 4),
    }
    for (dtype, depth), channels in product(depths.items(), (1, 2, 3, 4)):
        extra = (channel(0, depth),) if channels in (2, 4) else ()
        fields = Fields(depth=depth, extra=extra, space=grey_space(channels))
        for name, values in (("", picked(channels)), ("beyond 0 to 1", 2 * picked(channels) - 0.5)):
            pixels = values.astype(dtype)
            want = pixels.astype(np.float64).clip(0, 1)
            alpha = want[..., -1] if extra else None
            colours = kinds.greys(want[..., 0]) if channels < 3 else want[..., :3]
            title = f"{dtype.__name__}, {channels} channels {name}"
            yield Case(title, partial(file, fields, pixels), colours, alpha, DEEP)
    for value in (np.nan, np.inf):
        pixels = picked(3).astype(np.float32)
        pixels[2, 3] = value
        fields = Fields(depth=depths[np.float32])
        yield Case(f"{value}", partial(file, fields, pixels), None, refused="non-finite")
    fields = Fields(depth="1" + chosen(2) + number(6, 4))
    make = partial(file, fields, picked(3).astype(np.float32))
    yield Case("24-bit floating point", make, None, refused="floating-point values of 24 bits")


def orientations() -> Iterator[Case]:
    """The orientation of the header, whatever EXIF says."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
    for orientation, bits, channels in product(range(1, 9), (8, 16), (1, 2, 3, 4)):
        fields, pixels = plain(channels, bits, orientation=orientation)
        colours, alpha = expected(channels, bits)
        turned = None if alpha is None else upright(alpha, orientation)
        for wrapped in (False, True):

            def make(wrapped: bool = wrapped, given: tuple = (fields, pixels, bits)) -> bytes:
                return boxed(file(*given), box(b"Exif", data)) if wrapped else file(*given)

            yield Case(
                f"orientation {orientation}, {bits} bits, {channels} channels, EXIF {wrapped}",
                make,
                upright(colours, orientation),
                turned,
                EXACT if bits == 8 else DEEP,
            )


def premultiplied() -> Iterator[Case]:
    """Colours that are multiplied by the opacity."""
    for bits, channels, orientation in product((8, 10, 12, 16), (2, 4), (1, 6)):
        depth = integers(bits)
        pixels = levels(picked(channels), bits)
        most = (1 << bits) - 1
        pixels[..., :-1] = np.round(pixels[..., :-1] * (pixels[..., -1:] / most))
        fields, _ = plain(channels, bits, orientation=orientation)
        fields = replace(fields, extra=(channel(0, depth, premultiplied=True),))
        alpha = pixels[..., -1] / most
        colours = pixels[..., :-1] / np.maximum(pixels[..., -1:], 1)
        if channels == 2:
            colours = kinds.greys(colours[..., 0])
        yield Case(
            f"premultiplied, {bits} bits, {channels} channels, orientation {orientation}",
            partial(file, fields, pixels, bits),
            upright(colours.clip(0, 1), orientation),
            upright(alpha, orientation),
            1e-4,
        )


def extra_channels() -> Iterator[Case]:
    """Channels that are no opacity."""
    for (name, kind), bits in product(
        {"depth": 1, "selection": 3, "filter array": 5, "heat": 6, "optional": 16}.items(), (8, 16)
    ):
        depth = integers(bits)
        for channels in (2, 4):
            fields, pixels = plain(channels, bits, extra=(channel(kind, depth),))
            colours, _ = expected(channels, bits)
            make = partial(file, fields, pixels, bits)
            yield Case(
                f"extra channel: {name}, {bits} bits, {channels} channels",
                make,
                colours,
                tolerance=EXACT if bits == 8 else DEEP,
            )
        for alpha_at in (0, 1, 2):
            planes = levels(np.moveaxis(NOISE, 2, 0), bits)
            kinds_of = [kind, kind, kind]
            kinds_of[alpha_at] = 0
            fields = Fields(
                depth=depth,
                extra=tuple(channel(one, depth) for one in kinds_of),
                space=encoding(GREY, 13).bits,
            )
            frames = partial(frames_of, planes, lossless=True, planar=True, photometric="gray")
            most = (1 << bits) - 1
            yield Case(
                f"grey, {name} and opacity as channel {alpha_at + 1}, {bits} bits",
                lambda fields=fields, frames=frames: coded(fields, frames()),
                kinds.greys(planes[0] / most),
                planes[1 + alpha_at] / most,
                EXACT if bits == 8 else DEEP,
            )
    fields, pixels = plain(4, extra=(channel(2, integers(8)),))
    spot = (pixels[..., 3:] / 255) * np.array([1, 0, 0])
    colours = pixels[..., :3] / 255 * (1 - pixels[..., 3:] / 255) + spot
    yield Case("a spot colour", partial(file, fields, pixels), colours, tolerance=DITHERED)
    fields, pixels = plain(4, extra=(channel(4, integers(10)),))
    make = partial(file, fields, pixels)
    yield Case("CMYK with a black of other bits", make, None, refused="CMYK colours with other")


def inks() -> Iterator[Case]:
    """CMYK, where 0 is full ink and black is an extra channel."""
    lab = partial(cmyk_lab, 15)
    profile = icc.profile("CMYK", {"A2B0": icc.lut16(4, lab)}, kind="prtr", pcs="Lab ")
    for bits, orientation in product((8, 10, 16), (1, 6)):
        depth = integers(bits)
        fields, pixels = plain(4, bits, extra=(channel(4, depth),), orientation=orientation)
        for name, given in (
            ("", replace(fields, space="01" + enum(RGB), profile=stored_profile(profile))),
            (" without a profile", fields),
        ):
            ink = 1 - pixels / ((1 << bits) - 1)
            want = (
                colorimetry.from_lab(lab(ink))
                if name == ""
                else (1 - ink[..., :3]) * (1 - ink[..., 3:])
            )
            yield Case(
                f"CMYK, {bits} bits, orientation {orientation}{name}",
                partial(file, given, pixels, bits),
                upright(want, orientation),
                tolerance=2.5 / 255 if name == "" else EXACT,
                note="colours were converted to sRGB from" if name == "" else "without a profile",
            )


def spaces() -> Iterator[Case]:
    """Colour encodings of lossless pixels."""
    for (name, space), bits in product(SPACES.items(), (8, 16)):
        channels = 1 if name.startswith("grey") else 3
        fields, pixels = plain(channels, bits, space=space.bits)
        hdr = "curve 16" in name or "curve 18" in name
        yield Case(
            f"{name}, {bits} bits",
            partial(file, fields, pixels, bits),
            space.to_srgb(shares(picked(channels), bits)),
            tolerance=CONVERTED if bits == 8 else CONVERTED_DEEP,
            note="brighter than 203 cd/m²" if hdr else space.note,
        )
    for name, enums in (("XYB", 2), ("unknown", 3)):
        bits = (
            "00"
            + enum(enums)
            + (enum(1) if enums == 2 else enum(1) + enum(1) + "0" + enum(13) + enum(1))
        )
        fields, pixels = plain(3, 8, space=bits)
        yield Case(f"space {name}", partial(file, fields, pixels), None, refused="space other than")


def xyb_spaces() -> Iterator[Case]:
    """XYB, which libjxl converts to the encoding that the header names."""
    for (name, space), bits in product(SPACES.items(), (8, 16)):
        if "curve 16" in name or "curve 18" in name:
            continue
        channels = 1 if name.startswith("grey") else 3
        values = levels(picked(channels, SMOOTH))
        fields, _ = plain(channels, bits, space=space.bits, xyb=True)
        frames = partial(frames_of, squeezed(values), distance=0.1, lossless=False)
        yield Case(
            f"XYB, {name}, {bits} bits",
            lambda fields=fields, frames=frames: coded(fields, frames()),
            shares(picked(channels, SMOOTH)),
            tolerance=2 * LOSSY if bits == 8 else LOSSY,
            note=space.note,
        )


def profiles() -> Iterator[Case]:
    """Embedded profiles."""
    wide, linear = kinds.wide_profile(), kinds.linear_profile("rgb")
    curves = [("wide", wide, kinds.from_wide), ("linear", linear, kinds.srgb_curve)]
    for (name, profile, to_srgb), bits, channels in product(curves, (8, 16), (3, 4)):
        embedded = "01" + enum(RGB)
        fields, pixels = plain(channels, bits, space=embedded, profile=profile_bits(profile))
        colours, alpha = expected(channels, bits)
        yield Case(
            f"profile {name}, {bits} bits, {channels} channels",
            partial(file, fields, pixels, bits),
            to_srgb(colours),
            alpha,
            CONVERTED if bits == 8 else CONVERTED_DEEP,
            note=ENCODED,
        )
    grey = kinds.linear_profile("gray")
    for bits, channels in product((8, 16), (1, 2)):
        coded_profile = profile_bits(grey, grey=True)
        fields, pixels = plain(channels, bits, space="01" + enum(GREY), profile=coded_profile)
        colours, alpha = expected(channels, bits)
        title = f"profile for grey, {bits} bits, {channels} channels"
        want = kinds.srgb_curve(colours)
        yield Case(title, partial(file, fields, pixels, bits), want, alpha, CONVERTED_DEEP, ENCODED)
    for name, profile in (("wide", wide), ("linear", linear)):
        for bits, channels in product((8, 16), (3, 4)):
            values = levels(picked(channels, SMOOTH))
            fields = Fields(
                depth=integers(bits),
                extra=(channel(0, integers(8)),) * (channels == 4),
                xyb=True,
                space="01" + enum(RGB),
                profile=profile_bits(profile),
            )
            frames = partial(frames_of, values, distance=0.1, lossless=False)
            want = shares(picked(channels, SMOOTH))
            yield Case(
                f"XYB with profile {name}, {bits} bits, {channels} channels",
                lambda fields=fields, frames=frames: coded(fields, frames()),
                want[..., :3],
                want[..., 3] if channels == 4 else None,
                LOSSY,
            )
    values = levels(picked(1, SMOOTH))
    fields, _ = plain(1, xyb=True, space="01" + enum(GREY), profile=profile_bits(grey, grey=True))
    frames = partial(frames_of, squeezed(values), distance=0.1, lossless=False)
    want = shares(picked(1, SMOOTH))
    yield Case("XYB, grey with a profile", lambda: coded(fields, frames()), want, tolerance=LOSSY)


def recompressed() -> Iterator[Case]:
    """JPEG files that were recompressed without loss."""
    flat = kinds.FLAT
    grey = levels(kinds.greys(SMOOTH[..., 0]))
    for orientation, subsampling, wrapped in product(range(1, 9), (0, 2), (False, True)):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation

        pixels = grey if subsampling else flat

        def make(given: tuple = (pixels, exif, subsampling, wrapped)) -> bytes:
            options = {"exif": given[1], "subsampling": given[2]}
            jpeg = kinds.pillow(given[0], "JPEG", quality=100, **options)
            return bytes(imagecodecs.jpegxl_encode_jpeg(jpeg, usecontainer=given[3]))

        yield Case(
            f"JPEG, orientation {orientation}, subsampling {subsampling}, container {wrapped}",
            make,
            upright(pixels / 255, orientation),
            tolerance=LOSSY,
        )
    for progressive, profile in product((False, True), (None, kinds.wide_profile())):
        options = {"quality": 100, "subsampling": 0, "progressive": progressive}
        options |= {"icc_profile": profile} if profile else {}
        yield Case(
            f"JPEG, progressive {progressive}, profile {bool(profile)}",
            lambda options=options: bytes(
                imagecodecs.jpegxl_encode_jpeg(kinds.pillow(flat, "JPEG", **options))
            ),
            kinds.from_wide(flat / 255) if profile else flat / 255,
            tolerance=2 * LOSSY if profile else LOSSY,
            note=ENCODED if profile else "",
        )
    jpeg = kinds.pillow(flat[..., 0], "JPEG", quality=100)
    make_grey = partial(imagecodecs.jpegxl_encode_jpeg, jpeg)
    yield Case("JPEG, grey", make_grey, kinds.greys(flat[..., 0] / 255), tolerance=LOSSY)


def animations() -> Iterator[Case]:
    """The first frame."""
    for bits, channels, count in product((8, 16), (3, 4), (2, 5)):
        pixels = levels(picked(channels), bits)
        stack = np.stack([pixels, *[np.flip(pixels, 0)] * (count - 1)])
        colours, alpha = expected(channels, bits)
        colours = (
            kinds.srgb_curve(colours) if bits == 16 else colours
        )  # imagecodecs calls it linear
        yield Case(
            f"{count} frames, {bits} bits, {channels} channels",
            lambda stack=stack: bytes(imagecodecs.jpegxl_encode(stack, lossless=True)),
            colours,
            alpha,
            EXACT if bits == 8 else CONVERTED_DEEP,
            f"only the first of {count} frames was used",
        )


def containers() -> Iterator[Case]:
    """Boxes in every order."""
    fields, pixels = plain(4)
    colours, alpha = expected(4)
    naked = partial(file, fields, pixels)

    def parts(count: int, *between: bytes) -> bytes:
        data = naked()
        cuts = [len(data) * i // count for i in range(count + 1)]
        boxes = [
            box(
                b"jxlp", struct.pack(">I", i | (i == count - 1) << 31) + data[cuts[i] : cuts[i + 1]]
            )
            for i in range(count)
        ]
        return START + b"".join(one + b"".join(between) for one in boxes)

    def many(count: int) -> bytes:
        return parts(count)

    free, exif = box(b"free", b"abc"), box(b"Exif", bytes(4) + b"II*\0\x08\0\0\0\0\0")
    broken = (
        box(b"Exif", b""),
        box(b"Exif", b"\xff" * 9),
        box(b"brob", b"Exif\xff\xff"),
        box(b"brob", b""),
    )
    long_box = lambda: START + struct.pack(">I4sQ", 1, b"jxlc", len(naked()) + 16) + naked()  # noqa: E731
    makers: dict[str, Callable[[], bytes]] = {
        "one box": lambda: boxed(naked()),
        "level 10": lambda: boxed(naked(), box(b"jxll", b"\x0a")),
        "unknown boxes": lambda: boxed(naked(), free, free) + free,
        "metadata first": lambda: boxed(naked(), exif),
        "metadata last": lambda: boxed(naked()) + exif,
        "a box to the end": lambda: START + b"\0\0\0\0jxlc" + naked(),
        "a long length": long_box,
        "bytes after the last box": lambda: boxed(naked()) + b"abc",
        "several codestreams": lambda: boxed(naked()) + box(b"jxlc", b"x"),
        "boxes between parts": lambda: parts(3, free, exif),
        "an empty part": lambda: (
            START + box(b"jxlp", bytes(4)) + box(b"jxlp", b"\x80\0\0\x01" + naked())
        ),
        **{f"{count} parts": partial(many, count) for count in (1, 2, 3, 17, 300)},
        **{f"broken metadata {i}": partial(boxed, naked(), one) for i, one in enumerate(broken)},
    }
    for name, make in makers.items():
        yield Case(name, make, colours, alpha)
    wrong = START + box(b"jxlp", b"\0\0\0\x01" + naked()) + box(b"jxlp", b"\x80\0\0\0")
    yield Case("parts out of order", lambda: wrong, None, refused="out of order")
    yield Case("no codestream", lambda: START + free, None, refused="no JPEG XL codestream")


def sizes() -> Iterator[Case]:
    """Pictures of any size, in the four ways to say it."""
    for width, height in ((1, 1), (1, 7), (7, 1), (2, 3), (255, 9), (257, 8), (600, 3), (3, 1100)):
        for channels, bits in product((3, 4), (8, 16)):
            random = np.random.default_rng(width)
            pixels = levels(random.random((height, width, channels)), bits)
            if channels == 4:
                pixels[0, 0, 3] = pixels[..., 3].max() // 2 + 1
            fields, _ = plain(channels, bits, size=(width, height))
            want = pixels / ((1 << bits) - 1)
            yield Case(
                f"{width} × {height}, {channels} channels, {bits} bits",
                partial(file, fields, pixels, bits),
                want[..., :3],
                want[..., 3] if channels == 4 else None,
                EXACT if bits == 8 else DEEP,
            )
    ratios = ((48, 48), (48, 40), (64, 48), (48, 32), (64, 36), (50, 40), (80, 40))
    for width, height in (*ratios, (40, 64), (256, 256), (8, 8), (100, 100)):
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        make = partial(imagecodecs.jpegxl_encode, pixels, lossless=True)
        yield Case(f"{width} × {height} by the encoder", make, pixels / 255)


def lossy() -> Iterator[Case]:
    """The encoder's ways to encode with and without loss."""
    for effort, channels, bits in product(range(1, 8), (1, 2, 3, 4), (8, 16)):
        values = levels(picked(channels, SMOOTH), bits)
        want = shares(picked(channels, SMOOTH), bits)
        colours = kinds.greys(want[..., 0]) if channels < 3 else want[..., :3]
        alpha = want[..., -1] if channels in (2, 4) else None
        for loss, speed in ((True, 0), (True, 4), (False, 0)):
            note = "" if bits == 8 else ENCODED
            yield Case(
                f"effort {effort}, {channels} channels, {bits} bits, loss {loss}, speed {speed}",
                partial(
                    imagecodecs.jpegxl_encode, squeezed(values),
                    effort=effort, lossless=not loss, distance=0.1 if loss else None, decodingspeed=speed,
                ),
                kinds.srgb_curve(colours) if bits == 16 else colours,
                alpha,
                2 * LOSSY if loss else EXACT if bits == 8 else CONVERTED_DEEP,
                note,
            )  # fmt: skip


def others() -> Iterator[Case]:
    """A preview, a size to show the picture at, a brightness."""
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    fields, pixels = plain(3)
    colours, _ = expected(3)
    previewed = replace(fields, preview="0" + chosen(0, 7, 6) + "001")
    both = lambda: coded(previewed, lossless(small)) + lossless(pixels)  # noqa: E731
    yield Case("a preview", both, colours)
    shown = replace(fields, shown=(48, 34))
    yield Case("a size to show it at", partial(file, shown, pixels), colours)
    bright = replace(fields, brightest=1000.0)
    yield Case("a brightness", partial(file, bright, pixels), colours)
    for name, cut in (("half", 0.5), ("the header", 0.01), ("all but the last byte", 0.999)):
        data = file(fields, pixels)
        part = data[: max(3, int(len(data) * cut))]
        yield Case(f"only {name}", partial(bytes, part), None, refused="damaged or truncated")
