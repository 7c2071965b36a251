"""JPEG: decoded whole by imagecodecs (8 to 16 bits, lossless), at a fraction of its size by Pillow.

The segments before the pixels are read here. The decoders get only those that say how the pixels are coded, so that
damaged metadata, bytes between segments and a repeated start of the image do no harm.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import IO

import imagecodecs
import numpy as np
from PIL import Image, JpegImagePlugin

from nst_daemon.pictures import memory
from nst_daemon.pictures.metadata import parsed_exif
from nst_daemon.pictures.raster import Array, Raster, Size, StoredPicture, UnsupportedPicture

#: A file with more segments before its pixels, or with more scans, is refused: each takes time. Encoders write
#: hundreds of segments (for large profiles and XMP) and up to about 20 scans.
MAX_SEGMENTS, MAX_SCANS = 50_000, 100
#: More bytes between two segments are not skipped.
MAX_SKIPPED = 1 << 18
#: So many zeros at the end of the data were never written.
BLANK_BYTES = 16
#: A JPEG can be decoded at 1/2, 1/4 and 1/8 of its size.
DRAFTS = (1, 2, 4, 8)
#: Bytes per pixel and channel, measured with 24 megapixels (imagecodecs 2026.3, Pillow 13.0): a picture that is decoded
#: whole with 8 bits (1.0) and with more (4.4), a draft (1.5), and the coefficients of several scans (2.0).
WHOLE_BYTES, DEEP_BYTES, DRAFT_BYTES = 1.1, 4.5, 1.5
COEFFICIENT_BYTES = 2.0

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS = 0xDA
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _LOSSLESS, _ARITHMETIC = {0xC2, 0xCA}, {0xC3}, {0xC9, 0xCA}
_DECODED = {0xC0, 0xC1} | _PROGRESSIVE | _LOSSLESS | _ARITHMETIC
#: Markers without a segment: TEM, RST0 to RST7, SOI.
_ALONE = {0x01, *range(0xD0, 0xD9)}
#: How the pixels are coded: frames, DHT, DAC, DQT, DRI.
_CODING = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDD}
#: Application segments that are used: JFIF and Adobe, which tell the colour space; EXIF, XMP; ICC profile,
#: Multi-Picture Format; JPEG XT.
_JFIF, _ADOBE = (0xE0, b"JFIF\0"), (0xEE, b"Adobe")
_EXIF, _XMP = (0xE1, b"Exif\0"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0")
_ICC, _MPF, _XT = (0xE2, b"ICC_PROFILE\0"), (0xE2, b"MPF\0"), (0xEB, b"JP")
_APPLICATIONS = (_JFIF, _ADOBE, _EXIF, _XMP, _ICC, _MPF, _XT)
#: Markers of segments and of the end of the image.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])", re.DOTALL)
#: The XMP of gain maps (ISO 21496-1; Apple) says so within its first bytes.
_GAIN_MAP, _GAIN_MAP_BYTES = re.compile(rb"hdrgm:|HDRGainMap"), 4096
_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_OUTPUT = {"GRAY": "grayscale", "RGB": "rgb", "CMYK": "cmyk"}
#: Bytes in place of coded data. In arithmetic coding, high ones mean that a value is not the predicted one.
_OTHER_CODE = bytes((73 * i + 41) % 255 for i in range(512))
_UNPREDICTED = b"\xfe\xf3"


@dataclass(frozen=True, slots=True)
class _JpegSegment:
    marker: int
    data: bytes
    offset: int  # of the data in the file

    def is_of(self, application: tuple[int, bytes]) -> bool:
        return self.marker == application[0] and self.data.startswith(application[1])


@dataclass
class _JpegHeader:
    """What is before the first scan: the segments, and what the frame says."""

    segments: list[_JpegSegment] = field(default_factory=list)
    scan: int = 0  # the offset of the first SOS marker
    file_size: int = 0
    process: int = 0  # the marker of the frame
    bits: int = 8
    size: Size = (0, 0)
    components: tuple[int, ...] = ()
    interleaved: bool = True  # the first scan has all components

    @property
    def space(self) -> str:
        return _SPACES[len(self.components)]

    @property
    def many_scans(self) -> bool:
        """Whether the coefficients of the whole picture are kept while it is decoded."""
        return self.process in _PROGRESSIVE or not self.interleaved

    def application(self, kind: tuple[int, bytes]) -> list[bytes]:
        """The contents of the application segments of a kind, after its name."""
        return [part.data[len(kind[1]) :] for part in self.segments if part.is_of(kind)]


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the header. Damaged files raise any exception."""
    header = _read_header(file)
    exif, xmp = _exif(header), header.application(_XMP)
    profile, notes = _profile(header)
    return StoredPicture(
        size=header.size,
        alpha=False,
        cmyk=header.space == "CMYK",
        decode=lambda reduced: _decode(file, header, reduced, (*notes, *_extension(header))),
        decoding_bytes=lambda reduced: _decoding_bytes(header, reduced),
        profile=profile,
        exif=lambda: parsed_exif(exif, xmp[0] if xmp else b""),
        frames=_pictures(file, header),
    )


def _read_header(file: IO[bytes]) -> _JpegHeader:
    header = _JpegHeader(file_size=file.seek(0, io.SEEK_END))
    file.seek(2)
    for _ in range(MAX_SEGMENTS):
        marker = _next_marker(file)
        if marker in _ALONE:
            continue
        if marker == 0xD9:
            raise ValueError("it ends before its pixels")
        start = file.tell()
        length = int.from_bytes(file.read(2), "big") - 2
        data = file.read(length) if length > 0 else b""
        if len(data) < length:
            raise ValueError("it ends within its header")
        if marker == _SOS:
            header.scan = start - 2
            header.interleaved = data[:1] == bytes([len(header.components)])
            if not header.process:
                raise ValueError("it does not state its size")
            return header
        _add(header, _JpegSegment(marker, data, start + 2))
    raise UnsupportedPicture(f"has more than {MAX_SEGMENTS} segments before its pixels")


def _add(header: _JpegHeader, segment: _JpegSegment) -> None:
    """Keep a segment that is used."""
    if segment.marker == 0xF7:
        raise UnsupportedPicture("is a JPEG-LS file")
    if segment.marker in _FRAMES:
        _read_frame(header, segment.marker, segment.data)
    if segment.marker in _CODING or any(map(segment.is_of, _APPLICATIONS)):
        header.segments.append(segment)


def _next_marker(file: IO[bytes]) -> int:
    """The next marker. Bytes before it and fill bytes (0xFF) are skipped, as other programs do."""
    filled = False
    for _ in range(MAX_SKIPPED):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends before its pixels")
        if filled and byte not in (b"\xff", b"\0"):
            return byte[0]
        filled = byte == b"\xff"
    raise ValueError(f"it has {MAX_SKIPPED} bytes without a marker before its pixels")


def _read_frame(header: _JpegHeader, marker: int, data: bytes) -> None:
    """Read a frame header (ITU-T T.81, B.2.2)."""
    bits, height, width, count = struct.unpack_from(">BHHB", data)
    if header.process:
        raise UnsupportedPicture("has several frames (hierarchical JPEG)")
    if marker not in _DECODED:
        raise UnsupportedPicture("is a hierarchical or lossless arithmetic JPEG")
    if count not in _SPACES:
        raise UnsupportedPicture(f"has {count} colour components")
    if not height:
        raise UnsupportedPicture("states its height only after its pixels (DNL)")
    if not (2 <= bits <= 16 if marker in _LOSSLESS else bits in {8, 12}):
        raise UnsupportedPicture(f"has {bits} bits per channel")
    if not width or len(data) < 6 + 3 * count:
        raise ValueError("its frame header is damaged")
    header.process, header.bits, header.size = marker, bits, (height, width)
    header.components = tuple(data[6 : 6 + 3 * count : 3])


def _exif(header: _JpegHeader) -> bytes:
    """The EXIF. More than 64 KB of it is spread over several segments."""
    first, *others = header.application(_EXIF) or [b""]
    parts = [first, *(part for part in others if part[1:3] not in (b"II", b"MM"))]
    return b"".join(part[1:] for part in parts)


def _profile(header: _JpegHeader) -> tuple[bytes | None, tuple[str, ...]]:
    """The ICC profile, which is spread over numbered segments (ICC.1:2022, B.4), and notes."""
    parts = header.application(_ICC)
    if not parts:
        return None, ()
    data = b"".join(part[2:] for part in sorted(parts, key=lambda part: part[:1]))
    length = int.from_bytes(data[:4], "big")
    if len(data) < length or len(data) < 128:
        return None, ("its colour profile is incomplete and was not used",)
    return data[:length] if length >= 128 else data, ()


def _extension(header: _JpegHeader) -> tuple[str, ...]:
    """The note on what JPEG XT adds to the picture (ISO/IEC 18477-3, B.1)."""
    boxes = {data[10:14] for data in header.application(_XT)}
    return ("its JPEG XT extension was not used",) if b"RESI" in boxes else ()


def _pictures(file: IO[bytes], header: _JpegHeader) -> int:
    """The number of pictures (CIPA DC-007, Multi-Picture Format). Previews and gain maps are not counted."""
    index = next((part for part in header.segments if part.is_of(_MPF)), None)
    if index is None:
        return 1
    exif = parsed_exif(index.data[4:]) or {}
    order = "<" if index.data[4:6] == b"II" else ">"
    entries = exif.get(0xB002)
    entries = entries[: 16 * 100] if isinstance(entries, bytes) else b""
    count = 0
    for at in range(0, len(entries) - 15, 16):
        attribute, _, offset = struct.unpack_from(order + "III", entries, at)
        count += not offset or _is_picture(file, attribute, index.offset + 4 + offset)
    return max(count, 1)


def _is_picture(file: IO[bytes], attribute: int, offset: int) -> bool:
    file.seek(offset)
    head = file.read(_GAIN_MAP_BYTES)
    preview = attribute >> 16 & 0xFF == 1
    return head.startswith(_SOI) and not preview and not _GAIN_MAP.search(head)


def _decoding_bytes(header: _JpegHeader, reduced: Size | None) -> float:
    pixels, channels = header.size[0] * header.size[1], len(header.components)
    draft = _draft(header, reduced)
    decoded = DRAFT_BYTES / draft**2 if draft else (WHOLE_BYTES if header.bits <= 8 else DEEP_BYTES)
    coefficients = COEFFICIENT_BYTES if header.many_scans else 0
    return (decoded + coefficients) * channels * pixels + 2 * header.file_size


def _draft(header: _JpegHeader, reduced: Size | None) -> int:
    """The fraction of its size at which Pillow decodes a picture, as 2, 4 or 8; 0 if it is decoded whole."""
    if not reduced or header.bits != 8 or header.process in _LOSSLESS:
        return 0
    scale = min(header.size[0] // reduced[0], header.size[1] // reduced[1])
    return max((part for part in DRAFTS if part <= scale), default=0)


def _decode(
    file: IO[bytes], header: _JpegHeader, reduced: Size | None, notes: tuple[str, ...]
) -> Raster:
    data = _coded(file, header)
    if reduced and _draft(header, reduced):
        decode = partial(_decoded_draft, data, reduced)
    else:
        decode = partial(_decoded_whole, data, header)
    ended, covered = _scans(data, header)
    if ended:
        colours = decode()
    elif covered:
        colours = _decoded_without_end(data, header, decode)
    else:
        raise ValueError("its last scans are missing")
    return Raster(colours, header.space, notes=notes)


def _decoded_whole(data: bytearray, header: _JpegHeader) -> Array:
    values = np.asarray(imagecodecs.jpeg8_decode(data, outcolorspace=_OUTPUT[header.space]))
    values = values.reshape(*values.shape[:2], -1)
    top = (1 << header.bits) - 1
    if header.process in _LOSSLESS and values.max() > top:
        raise ValueError(f"its values have more than {header.bits} bits")
    if header.space == "CMYK":  # all programs store it inverted, as Adobe's do
        np.subtract(top, values, out=values)
    if header.bits in {8, 16}:
        return values
    table = (np.arange(top + 1, dtype=np.uint32) * 65535 + top // 2) // top
    deepened: Array = table.astype(np.uint16)[values]
    return deepened


def _decoded_draft(data: bytearray, size: Size) -> Array:
    """A picture of 8 bits decoded at a fraction of its size, then resampled."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    draft = image.draft(None, (size[1], size[0]))
    box = draft[1] if draft else None  # the part that the picture fills
    reduced = image.resize(
        size[::-1], Image.Resampling.BICUBIC, box, reducing_gap=memory.REDUCING_GAP
    )
    return np.array(reduced).reshape(*size, -1)


def _decoded_without_end(
    data: bytearray, header: _JpegHeader, decode: Callable[[], Array]
) -> Array:
    """A picture whose data has no end of the image, if all of its pixels are there.

    It is decoded with two continuations of the data. If both give the same pixels, none of them depends on what is
    missing.
    """
    whole = _without_blanks(data)
    del data[whole:]
    data += _EOI
    decoded = decode()
    data[whole:] = _continuation(header)
    if not np.array_equal(decoded, decode()):
        raise ValueError("its last pixels are missing")
    return decoded


def _continuation(header: _JpegHeader) -> bytes:
    """Other coded data, with every restart marker and an end of the image."""
    code, blank = _OTHER_CODE, b""
    if header.process in _ARITHMETIC:
        code = _UNPREDICTED + _OTHER_CODE
        blank = bytes(4)  # zeros at the end of the data may be left out: ITU-T T.81, D.1.8
    restarts = b"".join(code + bytes([0xFF, 0xD0 + i]) for i in range(8))
    return blank + restarts + code + _EOI


def _without_blanks(data: bytearray) -> int:
    """The length of data without the first byte of a marker, or without the zeros in place of what is missing.

    Coded data may end with a byte of zeros, but not with many.
    """
    zeros = len(data) - len(data.rstrip(b"\0"))
    return len(data.rstrip(b"\xff")) if zeros < BLANK_BYTES else len(data) - zeros + 1


def _scans(data: bytearray, header: _JpegHeader) -> tuple[bool, bool]:
    """Whether the data has an end of the image, and whether its scans have all coefficients with all bits."""
    position = data.find(b"\xff\xda")
    if not header.many_scans:
        return data.find(_EOI, position) >= 0, True
    missing = {component: [14] * 64 for component in header.components}
    scans = segments = 0
    while found := _MARKER.search(data, position):
        position, marker = found.end(), found[1][0]
        if marker == _EOI[1]:
            return True, True
        segments += 1
        if segments > MAX_SEGMENTS:
            raise UnsupportedPicture(f"has more than {MAX_SEGMENTS} segments between its scans")
        length = int.from_bytes(data[position : position + 2], "big")
        if marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise UnsupportedPicture(f"has more than {MAX_SCANS} scans")
            _cover(missing, header, bytes(data[position + 2 : position + length]))
        position += length
    return False, not any(any(bits) for bits in missing.values())


def _cover(missing: dict[int, list[int]], header: _JpegHeader, scan: bytes) -> None:
    """Enter which bits of the coefficients a scan has (ITU-T T.81, B.2.3)."""
    count = scan[0] if scan else 0
    if not count or len(scan) < 4 + 2 * count:
        raise ValueError("the header of a scan is damaged")
    first, last, shift = 0, 63, 0
    if header.process in _PROGRESSIVE:
        first, last, shift = scan[1 + 2 * count], scan[2 + 2 * count], scan[3 + 2 * count] & 15
    for component in scan[1 : 1 + 2 * count : 2]:
        if component in missing:
            missing[component][first : last + 1] = [shift] * (last + 1 - first)


def _coded(file: IO[bytes], header: _JpegHeader) -> bytearray:
    """The file without the segments that are not needed for the pixels."""
    parts = [_SOI]
    for part in header.segments:
        if part.marker in _CODING or part.is_of(_JFIF) or part.is_of(_ADOBE):
            parts.append(struct.pack(">BBH", 0xFF, part.marker, len(part.data) + 2) + part.data)
    data = bytearray().join(parts)
    header_bytes = len(data)
    data.extend(bytes(header.file_size - header.scan))
    file.seek(header.scan)
    with memoryview(data) as view:
        read = file.readinto(view[header_bytes:])  # type: ignore[attr-defined]
    del data[header_bytes + read :]
    return data
