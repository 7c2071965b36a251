"""The ICC profile in a JPEG XL codestream (ISO/IEC 18181-1, annex E.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from nst_daemon.pictures.jxl.entropy import SymbolReader
from nst_daemon.pictures.jxl.header import Bits

#: A profile with more encoded bytes is not read; decoding takes about 3 µs for each.
MAX_ENCODED = 2 << 20
#: A larger profile is not read.
MAX_PROFILE = 4 << 20

_CONTEXTS = 41
_HEADER = bytearray(128)
_HEADER[8], _HEADER[12:24] = 4, b"mntrRGB XYZ "
_HEADER[36:40], _HEADER[70:72], _HEADER[73], _HEADER[78:80] = b"acsp", b"\xf6\xd6", 1, b"\xd3\x2d"
#: What the profile's device or creator continues with, of its beginning.
_CREATORS = {b"A": b"APPL", b"M": b"MSFT", b"SG": b"SGI ", b"SU": b"SUNW"}
_TAGS = (
    *(b"cprt", b"wtpt", b"bkpt", b"rXYZ", b"gXYZ", b"bXYZ", b"kXYZ", b"rTRC", b"gTRC", b"bTRC"),
    *(b"kTRC", b"chad", b"desc", b"chrm", b"dmnd", b"dmdd", b"lumi"),
)
_TYPES = (b"XYZ ", b"desc", b"text", b"mluc", b"para", b"curv", b"sf32", b"gbd ")
#: Tags with a point, of 20 bytes.
_POINTS = (b"rXYZ", b"gXYZ", b"bXYZ", b"kXYZ", b"wtpt", b"bkpt", b"lumi")


class UnreadableProfile(ValueError):  # noqa: N818 (the state of a profile)
    """The profile is too large to be read; the picture may be whole."""


def read_profile(bits: Bits, most: int = MAX_ENCODED) -> bytes:
    """Read a profile.

    Args:
        bits: At the end of the header; afterwards at the end of the profile.
        most: Encoded bytes that are read.

    Raises:
        EOFError: The data end before.
        ValueError: The profile is damaged, or too large (UnreadableProfile).
    """
    size = bits.u64()
    if size > most:
        raise UnreadableProfile("the colour profile is too large")
    reader = SymbolReader(bits, _CONTEXTS)
    data = bytearray()
    before = last = 0
    for i in range(size):
        context = 0 if i <= 128 else 1 + _KINDS[last] + 8 * _KINDS_BEFORE[before]
        before, last = last, reader.read(context) & 255
        data.append(last)
    reader.finish()
    return _Profile(bytes(data)).decode()


def _kind(byte: int) -> int:
    """The class of the last byte: letters, digits, 0, 1, small, large, 255, others."""
    if chr(byte).isascii() and chr(byte).isalpha():
        return 0
    if chr(byte) in "0123456789.,":
        return 1
    if byte < 2:
        return 2 + byte
    if byte < 16:
        return 4
    return {True: 5, False: 7}[byte > 240] if byte < 255 else 6


#: The class of the byte before the last one has fewer values.
_KINDS = [_kind(byte) for byte in range(256)]
_KINDS_BEFORE = [{0: 0, 1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3, 7: 4}[kind] for kind in _KINDS]


class _Profile:
    """One profile being put together from commands and data."""

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded
        self.position = 0
        self.size = self._number()
        commands = self._number()
        self.end = self.position + commands
        self.data = self.end
        self.result = bytearray()
        if self.size > MAX_PROFILE:
            raise UnreadableProfile("the colour profile is too large")
        if self.end > len(encoded):
            raise ValueError("the commands of the colour profile are cut off")

    def decode(self) -> bytes:
        self._header()
        if self.size > len(_HEADER):
            self._tags()
            while self.position < self.end:
                self._command(self._byte())
                self._check_size()
        if len(self.result) != self.size or self.data != len(self.encoded):
            raise ValueError("the colour profile has an invalid length")
        return bytes(self.result)

    def _check_size(self) -> None:
        if len(self.result) > self.size:
            raise ValueError("the colour profile has an invalid length")

    def _byte(self) -> int:
        """The next byte of the commands."""
        if self.position >= len(self.encoded):
            raise ValueError("the commands of the colour profile are cut off")
        self.position += 1
        return self.encoded[self.position - 1]

    def _number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number in the colour profile is too long")

    def _take(self, count: int) -> bytes:
        """The next data."""
        if count > len(self.encoded) - self.data:
            raise ValueError("the data of the colour profile are cut off")
        self.data += count
        return self.encoded[self.data - count : self.data]

    def _header(self) -> None:
        expected, result = bytearray(_HEADER), self.result
        expected[:4] = struct.pack(">I", self.size)
        for i, byte in enumerate(self._take(min(self.size, len(expected)))):
            if i == 8:
                expected[80:84] = result[4:8]
            elif i in (41, 42):
                creator = _CREATORS.get(bytes(result[40:i]))
                expected[i:44] = creator[i - 40 :] if creator else expected[i:44]
            result.append(byte + expected[i] & 255)

    def _tags(self) -> None:
        """The list of tags, of which most follow each other."""
        count = self._number() - 1
        if count < 0:
            return
        self.result += struct.pack(">I", count)
        start, size = 128 + 12 * count, 0
        while self.position < self.end:
            command = self._byte()
            code = command & 63
            if not code:
                return
            names = self._tag_names(code)
            start += size
            if names[0] in _POINTS:
                size = 20
            if command & 64:
                start = self._number()
            if command & 128:
                size = self._number()
            for i, name in enumerate(names):
                offset = start + i * size if code == 3 else start
                self.result += name + struct.pack(">II", offset, size)
            self._check_size()

    def _tag_names(self, code: int) -> tuple[bytes, ...]:
        if code == 1:
            return (self._take(4),)
        if code == 2:
            return b"rTRC", b"gTRC", b"bTRC"
        if code == 3:
            return b"rXYZ", b"gXYZ", b"bXYZ"
        if code - 4 >= len(_TAGS):
            raise ValueError("a tag of the colour profile is unknown")
        return (_TAGS[code - 4],)

    def _command(self, command: int) -> None:
        if command in (1, 2, 3):
            data = self._take(self._number())
            self.result += data if command == 1 else _unshuffled(data, 2 * command - 2)
        elif command == 4:
            self._predicted()
        elif command == 10:
            self.result += b"XYZ \0\0\0\0" + self._take(12)
        elif 0 <= command - 16 < len(_TYPES):
            self.result += _TYPES[command - 16] + bytes(4)
        else:
            raise ValueError("a command of the colour profile is unknown")

    def _predicted(self) -> None:
        """Numbers of 1, 2 or 4 bytes as differences from what those before them let expect."""
        flags = self._byte()
        width, order = (flags & 3) + 1, flags >> 2 & 3
        stride = self._number() if flags & 16 else width
        result = self.result
        if width == 3 or order == 3 or stride < width or 4 * stride >= len(result):
            raise ValueError("a command of the colour profile is not valid")
        data = self._take(self._number())
        data = _unshuffled(data, width) if width > 1 else data
        expect = _EXPECTATIONS[order]
        for i in range(0, len(data), width):
            at = len(result)
            first, second, third = (
                int.from_bytes(result[at - n * stride : at - n * stride + width], "big")
                for n in (1, 2, 3)
            )
            expected = expect(first, second, third) & (1 << 8 * width) - 1
            bytes_expected = expected.to_bytes(width, "big")
            result += bytes(
                a + b & 255 for a, b in zip(data[i : i + width], bytes_expected, strict=False)
            )


_EXPECTATIONS: tuple[Callable[[int, int, int], int], ...] = (
    lambda a, b, c: a,
    lambda a, b, c: 2 * a - b,
    lambda a, b, c: 3 * a - 3 * b + c,
)


def _unshuffled(data: bytes, width: int) -> bytes:
    """Numbers of `width` bytes, of data that has all first bytes first, then all second ones, …"""
    rows = (len(data) + width - 1) // width
    return b"".join(data[i::rows] for i in range(rows))
