"""JPEG XL files: headers written by hand before frames that libjxl encoded.

libjxl's Python encoder writes few kinds of headers. Most fields of a header do not change the frames after it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import imagecodecs
import numpy as np
from PIL import Image

from nst_daemon.pictures.jxl.boxes import find_boxes, read_codestream
from nst_daemon.pictures.jxl.header import Bits, read_header
from nst_daemon.pictures.jxl.icc import read_profile
from tests.pictures import colorimetry, kinds
from tests.pictures.corpus.case import Array

WIDTH, HEIGHT = 24, 17
#: (17, 24, 4) in [0, 1]: noise, for lossless coding; some of the opacity is 0 and some 1.
NOISE = np.random.default_rng(5).random((HEIGHT, WIDTH, 4))
NOISE[:3, :, 3], NOISE[-3:, :, 3] = 0, 1
#: The same size, without details, for lossy coding.
_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH]
SMOOTH = np.stack([0.3 + _X / 60, 0.35 + _Y / 50, 0.6 - _X / 80, 0.4 + _X / 40], -1)
GREY, RGB = 1, 0
ENCODED = "colours were converted to sRGB from"


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
    """The curve of an enumeration, or an exponent."""
    known: dict[int, Callable[[Array], Array]] = {
        1: lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45)),
        8: lambda v: v,
        13: lambda v: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4),
        17: lambda v: v**2.6,
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
    hdr = curve in (16, 18)
    matrix = linear_to(points, at)

    def to_srgb(values: Array) -> Array:
        if hdr:
            used = (*at, *(c for p in points for c in p)) if space == RGB else colorimetry.BT709
            linear = colorimetry.hdr_light(values, int(curve), used)
        else:
            linear = light_of(curve)(values).clip(0, 1)
        linear = linear @ matrix.T if space == RGB else linear
        return colorimetry.srgb_curve(colorimetry.tone_mapped(linear) if hdr else linear)

    return Space(
        bits + gamma + enum(1),
        to_srgb,
        "colours were tone-mapped to sRGB from"
        if hdr
        else ENCODED
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
    "PQ (curve 16) in DCI P3": encoding(RGB, 16, 11, 11),
    "PQ (curve 16) with own points": encoding(RGB, 16, kinds.WIDE_PRIMARIES),
    "HLG (curve 18) with own white": encoding(RGB, 18, 9, (0.3457, 0.3585)),
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
