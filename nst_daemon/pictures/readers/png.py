"""PNG, with all its bits, by libpng (imagecodecs).

The chunks are found and checked here. libpng gets only those that it needs for the pixels, so that no broken metadata
can make it refuse a picture. Numbers of sections are those of PNG (third edition).
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, cast

import imagecodecs
import numpy as np

from nst_daemon.pictures import code_points
from nst_daemon.pictures.icc import UNREADABLE
from nst_daemon.pictures.metadata import parsed_exif
from nst_daemon.pictures.raster import Raster, Size, StoredPicture, Tags, UnsupportedPicture

#: libpng's warnings: the reader checks the chunks itself, and imagecodecs decodes interlaced pictures in a way that
#: libpng warns about although the pixels are right.
logging.getLogger("imagecodecs").setLevel(logging.ERROR)

#: A file with more chunks is refused.
MAX_CHUNKS = 200_000
#: Larger metadata is not used: bytes of one chunk, and of what it is decompressed to.
MAX_METADATA_BYTES = 8 << 20
#: Per pixel, to reduce a picture without alpha. Measured with 24 megapixels: 7.4 (8-bit grey).
REDUCING_BYTES = 8.0
#: Image data without an end is compressed again, faster and in two copies: bytes for each byte of the file.
PACKED_AGAIN = 3  # measured: 2.1

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGB_ALPHA: (8, 16),
}
_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
#: The passes of an interlaced picture: first column and row, steps (8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # fmt: skip

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: These are valid only before PLTE and IDAT (5.6).
_COLOUR_SPACE = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"})
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
#: Keys of the texts that are used. ImageMagick wrote EXIF as the first two, before PNG had a chunk for it.
_EXIF_KEYS, _XMP_KEY = (b"Raw profile type exif", b"Raw profile type APP1"), b"XML:com.adobe.xmp"
_TEXT_KEYS = frozenset({*_EXIF_KEYS, _XMP_KEY})
_LONGEST_KEY = 79
_USED = _COLOUR_SPACE | _TEXT_KEYS | {b"PLTE", b"tRNS", b"acTL", b"eXIf"}
_LENGTHS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"acTL": 8}

#: The code points (ITU-T H.273) of cICP that are used; 2 is unspecified.
_PRIMARIES, _TRANSFERS = {2, *code_points.PRIMARIES}, set(range(1, 19)) - {3}
#: cHRM of sRGB: x and y of white, red, green and blue.
SRGB_POINTS: tuple[float, ...] = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
#: The name of profiles that imagecodecs makes.
_MADE = "RGB built-in"

#: gAMA within this share of 1/2.2, and cHRM this close to sRGB's, mean sRGB.
GAMMA_CLOSE, CHROMATICITY_CLOSE = 0.05, 0.005
#: A gAMA outside of this range is not used.
GAMMA_RANGE = (0.05, 20)

TOO_LARGE = f"its colour profile is larger than {MAX_METADATA_BYTES >> 20} MB and was not used"

_PIECE = 1 << 20


@dataclass
class _Structure:
    """What the chunks of a file say, and where its image data is.

    Attributes:
        chunks: The contents of the chunks that are used, by their names; texts by their keys.
        data: Offsets of the IDAT chunks in the file, and the lengths of their contents.
        cut: Whether the file ends within an IDAT chunk.
        controls: The number of frames of an animation.
        animated: Whether the image is its first frame.
        profile_note: Why its profile is not used.
    """

    width: int
    height: int
    depth: int
    kind: int
    interlaced: bool
    chunks: dict[bytes, bytes]
    data: list[tuple[int, int]] = field(default_factory=list)
    cut: bool = False
    controls: int = 0
    animated: bool = False
    profile_note: str = ""

    @property
    def alpha(self) -> bool:
        return self.kind in (GREY_ALPHA, RGB_ALPHA) or b"tRNS" in self.chunks

    @property
    def grey(self) -> bool:
        return self.kind in (GREY, GREY_ALPHA)

    @property
    def raster_bytes(self) -> int:
        channels = (1 if self.grey else 3) + self.alpha
        return self.width * self.height * channels * (2 if self.depth == 16 else 1)

    @property
    def compressed_bytes(self) -> int:
        return sum(12 + length for _, length in self.data)

    @property
    def filtered_bytes(self) -> int:
        """The size of the decompressed image data, with one byte for the filter of each row (7.2, 9.2)."""
        bits, total = self.depth * _SAMPLES[self.kind], 0
        for x, y, step_x, step_y in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -((x - self.width) // step_x), -((y - self.height) // step_y)
            total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
        return total

    @property
    def frames(self) -> int:
        """The number of frames of an animation, with an image that is not part of it."""
        announced = int.from_bytes(self.chunks.get(b"acTL", b"")[:4], "big")
        return self.controls + (not self.animated) if announced and self.controls else 1


@dataclass(frozen=True)
class _ColourSpace:
    """A profile, or code points of ITU-T H.273, or neither of them for sRGB, with notes on what was not used."""

    profile: bytes | None = None
    points: tuple[int, int] = (1, 13)
    notes: tuple[str, ...] = ()


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the chunks, without the image data."""
    found = _walk(file)
    space = _colour_space(found)
    points = (1, space.points[1]) if found.grey else space.points
    converted = 0 if code_points.is_srgb(*points) else code_points.CONVERSION_BYTES

    def decode(_: Size | None) -> Raster:
        return code_points.in_srgb(replace(_decode(file, found), notes=space.notes), *points)

    def decoding_bytes(reduced: Size | None) -> float:
        each = converted + (REDUCING_BYTES if reduced and not found.alpha else 0)
        packed = (PACKED_AGAIN if found.cut else 1) * found.compressed_bytes
        return packed + found.raster_bytes + each * found.width * found.height

    return StoredPicture(
        size=(found.height, found.width),
        alpha=found.alpha,
        cmyk=False,
        decode=decode,
        decoding_bytes=decoding_bytes,
        profile=space.profile,
        exif=lambda: _exif(found),
        frames=found.frames,
    )


# Chunks


def _walk(file: IO[bytes]) -> _Structure:
    """Read the chunks that are used. Invalid ancillary chunks are skipped."""
    end, position = file.seek(0, 2), len(_SIGNATURE)
    found: _Structure | None = None
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            break
        if found is None:
            found = _header(file, kind, length)
        elif length >= 1 << 31 or not kind.isalpha():
            if not found.data:
                raise ValueError("a chunk is invalid")
            break
        elif kind == b"IDAT":
            found.cut = position + 12 + length > end
            found.data.append((position, min(length, max(0, end - position - 8))))
        else:
            _take(file, found, kind, length)
        position += 12 + length
    else:
        raise UnsupportedPicture(f"has more than {MAX_CHUNKS} chunks")
    if found is None or not found.data:
        raise ValueError("it has no image data")
    if found.kind == PALETTE and b"PLTE" not in found.chunks:
        raise ValueError("it has no palette")
    return found


def _header(file: IO[bytes], kind: bytes, length: int) -> _Structure:
    """IHDR (11.2.1), which is the first chunk."""
    if kind == b"CgBI":
        raise UnsupportedPicture("is a PNG of Apple's private kind (CgBI), as apps for iOS contain")
    data = _contents(file, kind, length) if (kind, length) == (b"IHDR", 13) else None
    if data is None:
        raise ValueError("its header (IHDR) is missing or has a wrong checksum")
    width, height, depth, colours, *methods, interlaced = struct.unpack(">IIBBBBB", data)
    valid = 0 < width < 1 << 31 and 0 < height < 1 << 31 and depth in _DEPTHS.get(colours, ())
    if not valid or any(methods) or interlaced > 1:
        raise ValueError("its header (IHDR) is invalid")
    return _Structure(width, height, depth, colours, bool(interlaced), {b"IHDR": data})


def _contents(file: IO[bytes], kind: bytes, length: int) -> bytes | None:
    """The contents of the chunk at whose contents the file is; None if they are too long, cut or damaged."""
    if length > MAX_METADATA_BYTES:
        return None
    data, checksum = file.read(length), file.read(4)
    intact = len(data) == length and checksum == _checksum(kind, data)
    return data if intact else None


def _checksum(kind: bytes, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


def _take(file: IO[bytes], found: _Structure, kind: bytes, length: int) -> None:
    """Keep a chunk if it is used, at its place (5.6), intact, and the first of its kind that is."""
    chunks = found.chunks
    key = _text_key(file, length) if kind in _TEXTS else kind
    if kind == b"fcTL":
        found.controls += 1
        found.animated = found.animated or not found.data
    if key in chunks or not _placed(found, kind):
        return
    if kind == b"PLTE" and found.kind != PALETTE:  # colours that are suggested
        chunks[kind] = b""
    elif key in _USED:
        data = _contents(file, kind, length)
        if data is not None and _fits(found, kind, data):
            chunks[key] = kind + data if kind in _TEXTS else data
        elif kind == b"PLTE":
            raise ValueError("its palette is damaged")
        elif kind == b"iCCP":
            found.profile_note = TOO_LARGE if length > MAX_METADATA_BYTES else UNREADABLE
    elif kind[:1].isupper() and not found.data:
        raise UnsupportedPicture(f"has an unknown critical chunk ({kind.decode('ascii')})")


def _text_key(file: IO[bytes], length: int) -> bytes:
    """The key of the text at which the file is, if it is used; the file stays there."""
    start = file.tell()
    key = file.read(min(length, _LONGEST_KEY + 1)).split(b"\0", 1)[0]
    file.seek(start)
    return key if key in _TEXT_KEYS else b""


def _placed(found: _Structure, kind: bytes) -> bool:
    """Whether a chunk may follow those that were found (5.6)."""
    palette = b"PLTE" in found.chunks
    if kind in _COLOUR_SPACE:
        return not found.data and not palette
    if kind == b"tRNS":
        return not found.data and (palette or found.kind != PALETTE)
    return not found.data or kind not in {b"PLTE", b"acTL"}


def _fits(found: _Structure, kind: bytes, data: bytes) -> bool:
    """Whether a chunk's contents have a valid length (11.2.2, 11.3)."""
    if kind == b"PLTE":
        return len(data) % 3 == 0 and 3 <= len(data) <= 768
    if kind == b"tRNS" and found.kind == PALETTE:
        return 1 <= len(data) <= len(found.chunks[b"PLTE"]) // 3
    if kind == b"tRNS":
        return len(data) == {GREY: 2, RGB: 6}.get(found.kind)
    return len(data) == _LENGTHS.get(kind, len(data))


def _inflated(data: bytes) -> tuple[bytes, bool]:
    """Decompressed metadata up to the largest size, and whether it is whole and no larger."""
    inflate = zlib.decompressobj()
    try:
        result = inflate.decompress(data, MAX_METADATA_BYTES)
    except zlib.error:
        return b"", False
    return result, inflate.eof


# Colours and metadata


def _colour_space(found: _Structure) -> _ColourSpace:
    """The first of cICP, iCCP, sRGB, gAMA with cHRM (4.3). A cHRM without gAMA is not used, as in browsers."""
    notes: tuple[str, ...] = (found.profile_note,) if found.profile_note else ()
    chunks = found.chunks
    if b"cICP" in chunks:
        primaries, transfer, *rest = chunks[b"cICP"]
        if rest == [0, 1] and primaries in _PRIMARIES and transfer in _TRANSFERS:
            return _ColourSpace(points=(primaries, transfer))
        notes += (f"its colour space (cICP {primaries}, {transfer}) was not used",)
    if b"iCCP" in chunks:
        # A profile's name, a zero, the method (which is 0), and the compressed profile.
        profile, whole = _inflated(chunks[b"iCCP"].partition(b"\0")[2][1:])
        if whole:
            return _ColourSpace(profile, notes=notes)
        notes += (TOO_LARGE if len(profile) == MAX_METADATA_BYTES else UNREADABLE,)
    if b"sRGB" in chunks or b"gAMA" not in chunks:
        return _ColourSpace(notes=notes)
    points = None if found.grey else chunks.get(b"cHRM")
    return _ColourSpace(_gamma_profile(chunks[b"gAMA"], points), notes=notes)


def _gamma_profile(gamma: bytes, chromaticities: bytes | None) -> bytes | None:
    """The profile of gAMA and cHRM (11.3.2.1, 11.3.2.2); None for sRGB and for invalid numbers."""
    exponent = int.from_bytes(gamma, "big") / 100_000
    if not GAMMA_RANGE[0] <= exponent <= GAMMA_RANGE[1]:
        return None
    points = SRGB_POINTS
    if chromaticities:
        points = tuple(value / 100_000 for value in struct.unpack(">8I", chromaticities))
    close = np.abs(np.subtract(points, SRGB_POINTS)).max() <= CHROMATICITY_CLOSE
    if close and abs(exponent * 2.2 - 1) <= GAMMA_CLOSE:
        return None
    white, *colours = ([*points[i : i + 2], 1.0] for i in range(0, 8, 2))
    primaries = [value for colour in colours for value in colour]
    try:
        made = imagecodecs.cms_profile(
            "rgb", whitepoint=white, primaries=primaries, gamma=1 / exponent
        )
    except (ValueError, imagecodecs.CmsError):
        return None
    name = f"gamma {1 / exponent:.4f}"[: len(_MADE)]  # of the same length
    return bytes(made).replace(_MADE.encode("utf-16-be"), name.encode("utf-16-be"))


def _exif(found: _Structure) -> Tags:
    """The EXIF of its own chunk or of a text, whichever has tags first, with the orientation of XMP if it has none."""
    chunks = found.chunks
    texts = (_from_hex(_text(chunks.get(key, b""))) for key in _EXIF_KEYS)
    sources = (chunks.get(b"eXIf", b""), *texts)
    usable = (source for source in sources if parsed_exif(source))
    return parsed_exif(next(usable, b""), _text(chunks.get(_XMP_KEY, b"")))


def _text(chunk: bytes) -> bytes:
    """The text of a tEXt, zTXt or iTXt chunk with its name (11.3.3)."""
    kind, text = chunk[:4], chunk[4:].partition(b"\0")[2]
    if kind == b"zTXt":
        return _inflated(text[1:])[0]
    if kind == b"iTXt":  # flag, method, language, translated key
        packed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        return _inflated(text)[0] if packed else text
    return text


def _from_hex(text: bytes) -> bytes:
    """The data of a raw profile: a line with its name, one with its length, and hexadecimal digits."""
    digits = b"".join(text.split(b"\n")[3:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


# Pixels


def _decode(file: IO[bytes], found: _Structure) -> Raster:
    """The pixels. Image data without an end or with a wrong checksum is used if all rows are there, as in browsers."""
    try:
        if found.cut:
            raise ValueError("its image data is not complete")
        values = imagecodecs.png_decode(_stream(file, found))
    except (ValueError, imagecodecs.PngError):
        parts = _packed_again(file, found)
        if parts is None:
            raise
        values = imagecodecs.png_decode(b"".join([_head(found), *parts, _END]))
    values = np.asarray(values).reshape(found.height, found.width, -1)
    colours = 1 if found.grey else 3
    alpha = values[..., colours:] if found.alpha else None
    return Raster(values[..., :colours], "GRAY" if found.grey else "RGB", alpha)


def _stream(file: IO[bytes], found: _Structure) -> bytearray:
    """A PNG with the chunks of the file that libpng needs."""
    head = _head(found)
    stream = bytearray(len(head) + found.compressed_bytes + len(_END))
    stream[: len(head)], stream[-len(_END) :] = head, _END
    view, start = memoryview(stream), len(head)
    for position, length in found.data:
        file.seek(position)
        cast("io.BufferedIOBase", file).readinto(view[start : start + 12 + length])
        start += 12 + length
    return stream


def _head(found: _Structure) -> bytes:
    """A PNG up to its image data."""
    kinds = (b"IHDR", b"PLTE", b"tRNS") if found.kind == PALETTE else (b"IHDR", b"tRNS")
    chunks = (_chunk(kind, found.chunks[kind]) for kind in kinds if kind in found.chunks)
    return _SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + _checksum(kind, data)


_END = _chunk(b"IEND")


def _packed_again(file: IO[bytes], found: _Structure) -> list[bytes] | None:
    """The image data with a valid end and checksum, as IDAT chunks; None if rows are missing.

    Raises:
        ValueError: The checksum of a chunk is wrong.
    """
    inflate, deflate = zlib.decompressobj(-zlib.MAX_WBITS), zlib.compressobj(1)
    parts: list[bytes] = []
    packed, missing = b"", found.filtered_bytes
    with suppress(zlib.error):
        for piece in _compressed(file, found):
            given, limit, rows = piece, 0, b""
            while missing and (given or len(rows) == limit):
                limit = min(missing, _PIECE)
                rows = inflate.decompress(given, limit)
                packed += deflate.compress(rows)
                if len(packed) >= _PIECE:
                    parts.append(_chunk(b"IDAT", packed))
                    packed = b""
                missing -= len(rows)
                given = inflate.unconsumed_tail
    parts.append(_chunk(b"IDAT", packed + deflate.flush()))
    return None if missing else parts


def _compressed(file: IO[bytes], found: _Structure) -> Iterator[bytes]:
    """The deflated image data, without the header of zlib; checks the chunks' checksums."""
    header = 2
    for position, length in found.data:
        file.seek(position + 8)
        checksum, missing = zlib.crc32(b"IDAT"), length
        while missing and (piece := file.read(min(_PIECE, missing))):
            checksum = zlib.crc32(piece, checksum)
            missing -= len(piece)
            yield piece[header:]
            header = max(0, header - len(piece))
        unchecked = found.cut and (position, length) == found.data[-1]
        if not unchecked and file.read(4) != checksum.to_bytes(4, "big"):
            raise ValueError("the checksum of its image data is wrong")
