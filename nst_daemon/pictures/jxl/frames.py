"""The frames of a JPEG XL codestream: their sizes and ends, found without decoding (ISO/IEC 18181-1, annex F).

A picture may need frames that are not shown, of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

from nst_daemon.pictures.jxl.entropy import SymbolReader
from nst_daemon.pictures.jxl.header import GREY, Bits, Data, Header, read_header
from nst_daemon.pictures.jxl.icc import read_profile

#: No more frames are walked through.
MAX_FRAMES = 2000
#: The end behind a longer encoded profile is not looked for: it takes 3 µs per byte.
_MOST_PROFILE = 200_000
#: The walk ends at a frame with more pixels than this.
MAX_PIXELS = 1 << 30

_REGULAR, _LOW_FREQUENCY, _REFERENCE, _SKIPPING = range(4)
_OFFSET = ((0, 8), (256, 11), (2304, 14), (18688, 30))
_SECTION = ((0, 10), (1024, 14), (17408, 22), (4211712, 30))
_FROM_LOW_FREQUENCY_FRAME = 0x20
_BLEND, _WEIGHTED_ADD, _MULTIPLY = 2, 3, 4


@dataclass
class Frame:
    """One frame.

    Attributes:
        kind: Regular, low frequencies, reference only or skipping progressive steps.
        size: (height, width).
        shown: Whether it ends a picture of the animation.
        last: Whether no frame follows.
        slot: Where it is kept for other frames; -1 if it is not kept.
        end: The byte after it.
    """

    kind: int = _REGULAR
    size: tuple[int, int] = (0, 0)
    shown: bool = True
    last: bool = True
    slot: int = -1
    end: int = 0


@dataclass(frozen=True)
class Frames:
    """The frames of a codestream, as far as they could be walked through.

    Attributes:
        frames: In the order of the codestream.
        whole: Whether the last one is among them, with all its bytes.
        cut_off: Whether bytes are missing.
    """

    frames: tuple[Frame, ...]
    whole: bool = False
    cut_off: bool = False

    @property
    def shown(self) -> int:
        """The number of pictures; 0 if it is unknown."""
        return sum(frame.shown for frame in self.frames) if self.whole else 0

    def first_bytes(self, header: Header) -> tuple[int, int]:
        """What decoding the first picture needs.

        Returns:
            The largest number of pixels of a frame, and the bytes of the frames that are kept.
        """
        channels = (1 if header.encoding.space == GREY else 3) + len(header.extra)
        largest = header.size[0] * header.size[1]
        kept: dict[int, int] = {}
        for frame in self.frames:
            pixels = frame.size[0] * frame.size[1]
            largest = max(largest, pixels)
            if frame.shown:
                break
            if frame.slot >= 0:
                kept[frame.slot] = max(kept.get(frame.slot, 0), pixels)
        return largest, 4 * channels * sum(kept.values())


def walk(codestream: Data, header: Header, start: int) -> Frames:
    """Walk through the frames up to the last one, damage or a frame that is too large.

    Args:
        codestream: All that is there of it.
        header: Its header.
        start: The offset of the first frame.
    """
    found: list[Frame] = []
    cut_off = False
    try:
        if header.preview:
            start = _Walker(Bits(codestream, 8 * start), header, header.preview).frame().end
        while len(found) < MAX_FRAMES:
            frame = _Walker(Bits(codestream, 8 * start), header, header.size).frame()
            found.append(frame)
            cut_off = frame.end > len(codestream)
            if frame.last or cut_off or not frame.end:
                return Frames(tuple(found), 0 < frame.end <= len(codestream), cut_off)
            start = frame.end
    except EOFError:
        cut_off = True
    except ValueError:
        pass
    return Frames(tuple(found), cut_off=cut_off)


def end_of_frames(data: Data) -> int:
    """The byte after the last frame of a codestream.

    Raises:
        EOFError: Bytes are missing.
        ValueError: The structure is invalid, or too large to walk.
    """
    header = read_header(data)
    bits = Bits(data, header.end)
    if header.encoding.icc:
        read_profile(bits, _MOST_PROFILE)
    bits.align()
    frames = walk(data, header, bits.position // 8)
    if frames.cut_off:
        raise EOFError
    if not frames.whole:
        raise ValueError("the frames of the JPEG XL file are invalid")
    return frames.frames[-1].end


class _Walker:
    """Reads the header of one frame and the list of its sections."""

    def __init__(self, bits: Bits, header: Header, size: tuple[int, int]) -> None:
        self.bits = bits
        self.header = header
        self.found = Frame(size=size)
        self.modular = False
        self.group = 256
        self.passes = 1
        self.scale = 1

    def frame(self) -> Frame:
        found = self.found
        if not self.bits.flag():  # not all is default
            self._coding()
            partial = self._crop()
            if found.kind in (_REGULAR, _SKIPPING):
                self._showing(partial)
            else:
                found.shown = found.last = False
                if found.kind == _REFERENCE:
                    found.slot = self.bits.read(2)
                    self.bits.flag()
            name = self.bits.u32((0, 0), (0, 4), (16, 5), (48, 10))
            if name:
                self.bits.skip(8 * name)
            self._filter()
            self.bits.extensions()
        if found.size[0] * found.size[1] <= MAX_PIXELS:
            self._sections()
        return found

    def _coding(self) -> None:
        bits, found = self.bits, self.found
        found.kind = bits.read(2)
        self.modular = bits.flag()
        flags = bits.u64()
        luma_chroma = not self.header.xyb and bits.flag()
        if not flags & _FROM_LOW_FREQUENCY_FRAME:
            if luma_chroma:
                bits.skip(6)
            self.scale = 1 << bits.read(2)
            if self.header.extra:
                bits.skip(2 * len(self.header.extra))
        if self.modular:
            self.group = 128 << bits.read(2)
        elif self.header.xyb:
            bits.skip(6)
        if found.kind != _REFERENCE:
            self._passes()
        if found.kind == _LOW_FREQUENCY:
            eighth = 8 ** (1 + bits.read(2))
            height, width = found.size
            found.size = -(-height // eighth), -(-width // eighth)

    def _passes(self) -> None:
        bits = self.bits
        self.passes = bits.u32((1, 0), (2, 0), (3, 0), (4, 3))
        if self.passes == 1:
            return
        sizes = bits.u32((0, 0), (1, 0), (2, 0), (3, 1))
        bits.skip(2 * (self.passes - 1))
        for _ in range(sizes):
            bits.skip(2)
        for _ in range(sizes):
            bits.u32((0, 0), (1, 0), (2, 0), (0, 3))

    def _crop(self) -> bool:
        """Whether the frame covers only a part of the picture."""
        bits, found = self.bits, self.found
        if found.kind == _LOW_FREQUENCY or not bits.flag():
            return False
        left = top = 0
        if found.kind != _REFERENCE:
            packed = bits.u32(*_OFFSET), bits.u32(*_OFFSET)
            left, top = ((n >> 1) ^ -(n & 1) for n in packed)
        height, width = found.size
        right, bottom = left + bits.u32(*_OFFSET), top + bits.u32(*_OFFSET)
        found.size = bottom - top, right - left
        return left > 0 or top > 0 or right < width or bottom < height

    def _showing(self, partial: bool) -> None:
        bits, found = self.bits, self.found
        replacing = self._blending(partial)
        for _ in self.header.extra:
            self._blending(partial)
        duration = 0
        if self.header.animated:
            duration = bits.u32((0, 0), (1, 0), (0, 8), (0, 32))
            if self.header.timecodes:
                bits.skip(32)
        found.last = bits.flag()
        found.shown = duration > 0 or found.last
        if found.last:
            return
        slot = bits.read(2)
        if not duration or slot:
            found.slot = slot
            if replacing and not partial:
                bits.flag()

    def _blending(self, partial: bool) -> bool:
        """Whether the frame replaces what was before."""
        bits = self.bits
        mode = bits.u32((0, 0), (1, 0), (2, 0), (3, 2))
        if self.header.extra:
            if mode in (_BLEND, _WEIGHTED_ADD):
                bits.u32((0, 0), (1, 0), (2, 0), (3, 3))
            if mode in (_BLEND, _WEIGHTED_ADD, _MULTIPLY):
                bits.flag()
        if mode or partial:
            bits.skip(2)
        return not mode

    def _filter(self) -> None:
        """What smooths the edges of blocks."""
        bits = self.bits
        if bits.flag():
            return
        if bits.flag() and bits.flag():
            bits.skip(6 * 16)
        if bits.read(2):
            if not self.modular and bits.flag():
                bits.skip(8 * 16)
            if bits.flag():
                bits.skip(5 * 16)
            if bits.flag():
                bits.skip(3 * 16 if self.modular else 4 * 16)
            if self.modular:
                bits.skip(16)
        bits.extensions()

    def _sections(self) -> None:
        """The list of the lengths of the sections, which gives the end of the frame."""
        bits, sides = self.bits, [-(-side // self.scale) for side in self.found.size]
        groups, coarse = (
            (-(-sides[0] // side)) * (-(-sides[1] // side)) for side in (self.group, 8 * self.group)
        )
        count = 1
        if groups > 1 or self.passes > 1:
            count = 2 + coarse + groups * self.passes
        if bits.flag():
            self._permutation(count)
        bits.align()
        total = sum(bits.u32(*_SECTION) for _ in range(count))
        bits.align()
        self.found.end = bits.position // 8 + total

    def _permutation(self, count: int) -> None:
        """The order of the sections, which does not matter here."""
        reader = SymbolReader(self.bits, 8)
        number = count
        moved = reader.read(min(7, number.bit_length()))
        number = 0
        for _ in range(min(moved, count)):
            number = reader.read(min(7, number.bit_length()))
        reader.finish()
