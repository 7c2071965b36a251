"""The header of a JPEG XL codestream, read without decoding (ISO/IEC 18181-1).

libjxl allocates by what the header says, so the limits are checked with what is read here. libjxl's Python bindings
neither return nor accept colour encodings either, so this module also replaces them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Protocol

SIGNATURE = b"\xff\x0a"

#: Annex E (colour encoding): the numbers of the enumerations that are used.
RGB, GREY, XYB, UNKNOWN_SPACE = range(4)
CUSTOM, D65 = 2, 1
SRGB_PRIMARIES = 1
SRGB_CURVE = 13
#: Types of extra channels.
ALPHA, BLACK = 0, 4

#: Ratios of width to height that a size header can name.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIDE = ((1, 9), (1, 13), (1, 18), (1, 30))
_COORDINATE = ((0, 19), (524288, 19), (1048576, 20), (2097152, 21))
#: So many 16-bit numbers have the weights for upsampling by 2, 4 and 8.
_WEIGHTS = (15, 55, 210)


class Data(Protocol):
    """Bytes, perhaps of a file that is read when they are needed."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes: ...


class Bits:
    """Reads a codestream bit by bit, the lowest bit of each byte first."""

    def __init__(self, data: Data, position: int = 0) -> None:
        self.data = data
        self.position = position

    def peek(self, count: int) -> int:
        """The next bits; zeros after the end."""
        start = self.position >> 3
        word = int.from_bytes(self.data[start : start + (count + 14 >> 3)], "little")
        return word >> (self.position & 7) & (1 << count) - 1

    def read(self, count: int) -> int:
        """An unsigned integer of so many bits.

        Raises:
            EOFError: The data end before.
        """
        value = self.peek(count)
        self.position += count
        if self.position > 8 * len(self.data):
            raise EOFError("the header of the JPEG XL codestream is cut off")
        return value

    def skip(self, count: int) -> None:
        """Go on behind so many bits; EOFError as for `read`."""
        self.position += count - 1
        self.read(1)

    def flag(self) -> bool:
        """One bit."""
        return bool(self.read(1))

    def align(self) -> None:
        """Go on at the next whole byte."""
        self.position = (self.position + 7) // 8 * 8

    def extensions(self) -> None:
        """Skip extensions, of which none is defined."""
        present = self.u64()
        length = sum(self.u64() for i in range(64) if present >> i & 1)
        if length:
            self.skip(length)

    def u32(self, *choices: tuple[int, int]) -> int:
        """An integer in one of four ways. Each is (offset, number of bits)."""
        offset, count = choices[self.read(2)]
        return offset + self.read(count)

    def u64(self) -> int:
        """An integer of up to 64 bits."""
        kind = self.read(2)
        if kind < 3:
            return ((0, 0), (1, 4), (17, 8))[kind][0] + self.read((0, 4, 8)[kind])
        value, shift = self.read(12), 12
        while self.flag():
            count = 4 if shift == 60 else 8
            value |= self.read(count) << shift
            if shift == 60:
                break
            shift += 8
        return value

    def enum(self) -> int:
        """A member of an enumeration."""
        return self.u32((0, 0), (1, 0), (2, 4), (18, 6))

    def half(self) -> float:
        """A 16-bit floating-point number."""
        return float(struct.unpack("<e", self.read(16).to_bytes(2, "little"))[0])


@dataclass(frozen=True)
class Depth:
    """The type of samples: integers of `bits`, or floating point if it has bits of an exponent."""

    bits: int = 8
    exponent: int = 0


@dataclass(frozen=True)
class ExtraChannel:
    """A channel beside the colours.

    Attributes:
        kind: ALPHA, BLACK or another number.
        depth: Of its samples.
        premultiplied: Whether the colours are multiplied by this opacity.
        shift: Its sides are those of the picture by 2 to the power of this.
    """

    kind: int = ALPHA
    depth: Depth = Depth()
    premultiplied: bool = False
    shift: int = 0


@dataclass(frozen=True)
class Encoding:
    """The colour space of the picture.

    Attributes:
        icc: Whether an ICC profile describes it; then only `space` is known.
        space: RGB, GREY, XYB or UNKNOWN_SPACE.
        white: (x, y), or one of the enumeration.
        primaries: (x, y) of red, green and blue, or one of the enumeration.
        curve: The transfer function, one of the enumeration.
        gamma: The exponent from light to values, if it is a power.
    """

    icc: bool = False
    space: int = RGB
    white: int | tuple[float, float] = D65
    primaries: int | tuple[tuple[float, float], ...] = SRGB_PRIMARIES
    curve: int = SRGB_CURVE
    gamma: float = 0.0


@dataclass(frozen=True)
class Header:
    """What a codestream says of its picture.

    Attributes:
        size: (height, width) as stored, before it is turned upright.
        orientation: As in EXIF, 1 to 8.
        depth: Of the colours.
        extra: The other channels.
        xyb: Whether the colours are stored in XYB, from which they can be decoded to any encoding.
        encoding: The encoding of the colours that are decoded.
        animated: Whether there may be several frames.
        timecodes: Whether each of them has a time.
        preview: (height, width) of a small picture before the first frame, or None.
        brightest: The brightness of the value 1, in cd/m².
        spans: The first bit of each part that `rewritten` replaces or copies, and the bit after its last one.
    """

    size: tuple[int, int]
    orientation: int = 1
    depth: Depth = Depth()
    extra: tuple[ExtraChannel, ...] = ()
    xyb: bool = True
    encoding: Encoding = Encoding()
    animated: bool = False
    timecodes: bool = False
    preview: tuple[int, int] | None = None
    brightest: float = 255.0
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The bit after the header. An ICC profile may follow, then the frames at the next whole byte."""
        return self.spans["transform"][1]


def read_header(data: Data) -> Header:
    """Read the header of a codestream.

    Args:
        data: The beginning of the codestream.

    Raises:
        EOFError: More bytes are needed.
        ValueError: It is not a valid codestream.
    """
    if data[:2] != SIGNATURE[: len(data[:2])]:
        raise ValueError("the JPEG XL codestream has no signature")
    return _Parser(Bits(data, 16)).header()


def in_srgb(
    data: bytes, header: Header, *, frames: int, bits: int | None = None, black: bool = False
) -> bytes:
    """The codestream with a header that says sRGB, and the same frames.

    The values of the pixels do not change if they are not XYB; XYB is decoded to sRGB then.

    Args:
        data: The whole codestream.
        header: Its header.
        frames: The offset of the first frame: `frames_offset`, or what follows the ICC profile.
        bits: The depth of integers to which XYB is decoded; that of the header if None.
        black: Whether to call the only extra channel, which is black, an opacity: imagecodecs returns no other one.
            It must have the depth of the colours.
    """
    old, new = Bits(data), _Writer()

    def copy(name: str, default: str = "") -> None:
        if name not in header.spans:
            new.add(default)
            return
        start, end = header.spans[name]
        old.position = start
        while old.position < end:
            count = min(end - old.position, 32)
            new.add(f"{old.read(count):0{count}b}")

    old.position = 0
    new.add(f"{old.read(16):016b}")
    copy("size")
    new.add("0")  # not all is default
    copy("fields", "0")
    if bits is None:
        copy("depth", "000")
    else:
        new.add(f"{bits - 1:06b}110")
    copy("buffers", "1")
    if black:
        new.add("00001")  # from right to left: one channel, not all is default, an opacity
        copy("depth")
        new.add("00000")  # as large as the picture, without a name, not premultiplied
    else:
        copy("extra", "00")
    copy("xyb", "1")
    # Grey: D65, no gamma, the curve 13 (11 + 2), the relative intent; the parts from right to left.
    new.add("011011100010100" if header.encoding.space == GREY else "1")
    copy("rest", "00")
    copy("transform")
    return new.bytes() + data[frames:]


def frames_offset(header: Header) -> int:
    """Where the frames begin if no ICC profile follows the header."""
    return (header.end + 7) // 8


class _Writer:
    def __init__(self) -> None:
        self.digits: list[str] = []

    def add(self, digits: str) -> None:
        """Add binary digits, of which the last one is the first bit."""
        self.digits.append(digits[::-1])

    def bytes(self) -> bytes:
        digits = "".join(self.digits)
        return int(digits[::-1], 2).to_bytes((len(digits) + 7) // 8, "little")


class _Parser:
    def __init__(self, bits: Bits) -> None:
        self.bits = bits
        self.spans: dict[str, tuple[int, int]] = {}
        self.animated, self.timecodes = False, False
        self.preview: tuple[int, int] | None = None

    def header(self) -> Header:
        bits = self.bits
        size = self._size()
        self._span("size", 16)
        if bits.flag():  # all is default
            self._transform(xyb=True)
            return Header(size, spans=self.spans)
        start = bits.position
        more = bits.flag()
        orientation = self._fields() if more else 1
        start = self._span("fields", start)
        depth = self._depth()
        start = self._span("depth", start)
        bits.flag()  # whether 16 bits are enough for modular decoding
        start = self._span("buffers", start)
        extra = tuple(
            self._extra_channel() for _ in range(bits.u32((0, 0), (1, 0), (2, 4), (1, 12)))
        )
        start = self._span("extra", start)
        xyb = bits.flag()
        start = self._span("xyb", start)
        encoding = self._encoding()
        start = self._span("encoding", start)
        brightest = self._tone_mapping() if more else 255.0
        bits.extensions()
        self._span("rest", start)
        self._transform(xyb=xyb)
        return Header(
            size,
            orientation,
            depth,
            extra,
            xyb,
            encoding,
            self.animated,
            self.timecodes,
            self.preview,
            brightest,
            self.spans,
        )

    def _span(self, name: str, start: int) -> int:
        self.spans[name] = (start, self.bits.position)
        return self.bits.position

    def _size(self) -> tuple[int, int]:
        bits, small = self.bits, self.bits.flag()
        height = 8 * (bits.read(5) + 1) if small else bits.u32(*_SIDE)
        ratio = bits.read(3)
        if ratio:
            over, under = _RATIOS[ratio]
            return height, height * over // under
        return height, 8 * (bits.read(5) + 1) if small else bits.u32(*_SIDE)

    def _fields(self) -> int:
        """The orientation. Reads the other fields that most headers leave out."""
        bits = self.bits
        orientation = bits.read(3) + 1
        if bits.flag():  # a size to show it at
            self._size()
        if bits.flag():
            self.preview = self._preview()
        self.animated = bits.flag()
        if self.animated:
            bits.u32((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.u32((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.u32((0, 0), (0, 3), (0, 16), (0, 32))
            self.timecodes = bits.flag()
        return orientation

    def _preview(self) -> tuple[int, int]:
        eighths = self.bits.flag()
        side = (
            ((16, 0), (32, 0), (1, 5), (33, 9))
            if eighths
            else ((1, 6), (65, 8), (321, 10), (1345, 12))
        )
        factor = 8 if eighths else 1
        height = factor * self.bits.u32(*side)
        ratio = self.bits.read(3)
        if ratio:
            over, under = _RATIOS[ratio]
            return height, height * over // under
        return height, factor * self.bits.u32(*side)

    def _depth(self) -> Depth:
        bits = self.bits
        if bits.flag():
            return Depth(bits.u32((32, 0), (16, 0), (24, 0), (1, 6)), bits.read(4) + 1)
        return Depth(bits.u32((8, 0), (10, 0), (12, 0), (1, 6)))

    def _extra_channel(self) -> ExtraChannel:
        bits = self.bits
        if bits.flag():
            return ExtraChannel()
        kind, depth, premultiplied = bits.enum(), self._depth(), False
        shift = bits.u32((0, 0), (3, 0), (4, 0), (1, 3))
        name = bits.u32((0, 0), (0, 4), (16, 5), (48, 10))
        if name:
            bits.skip(8 * name)
        if kind == ALPHA:
            premultiplied = bits.flag()
        elif kind == 2:  # a spot colour
            bits.skip(4 * 16)
        elif kind == 5:  # a colour filter array
            bits.u32((1, 0), (0, 2), (3, 4), (19, 8))
        return ExtraChannel(kind, depth, premultiplied, shift)

    def _encoding(self) -> Encoding:
        bits = self.bits
        if bits.flag():
            return Encoding()
        icc, space = bits.flag(), bits.enum()
        if icc:
            return Encoding(icc=True, space=space)
        white: int | tuple[float, float] = D65
        primaries: int | tuple[tuple[float, float], ...] = SRGB_PRIMARIES
        if space != XYB:
            white = bits.enum()
            if white == CUSTOM:
                white = self._point()
        if space not in (XYB, GREY):
            primaries = bits.enum()
            if primaries == CUSTOM:
                primaries = tuple(self._point() for _ in range(3))
        curve, gamma = SRGB_CURVE, 0.0
        if space == XYB:
            gamma = 1 / 3
        elif bits.flag():
            gamma = bits.read(24) / 1e7
        else:
            curve = bits.enum()
        bits.enum()  # the rendering intent
        return Encoding(False, space, white, primaries, curve, gamma)

    def _point(self) -> tuple[float, float]:
        packed = [self.bits.u32(*_COORDINATE) for _ in range(2)]
        x, y = ((n >> 1) ^ -(n & 1) for n in packed)
        return x / 1e6, y / 1e6

    def _tone_mapping(self) -> float:
        bits = self.bits
        if bits.flag():
            return 255.0
        brightest = bits.half()
        bits.skip(16 + 1 + 16)  # the darkest value, and where tone mapping begins
        return brightest

    def _transform(self, *, xyb: bool) -> None:
        bits, start = self.bits, self.bits.position
        if not bits.flag():
            if xyb and not bits.flag():
                bits.skip(16 * 16)
            given = bits.read(3)
            for i, count in enumerate(_WEIGHTS):
                if given >> i & 1:
                    bits.skip(16 * count)
        self._span("transform", start)
