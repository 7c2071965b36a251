"""The bytes of a file whose structure is walked, in a bounded number of steps."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

#: A walk that needs more is given up: the file counts as complete and the decoder decides.
MAX_STEPS = 200_000
MAX_SCANNED_BYTES = 256 << 20

CHUNK = 1 << 20
AHEAD = 64 * 1024
#: Compressed data does not end with this many zeros.
BLANK_CODE = 16
#: Uncompressed pixels and metadata may end with zeros. This many of them delay a file.
BLANK_PIXELS = 4096


class Missing(Exception):  # noqa: N818 (a state of the file, not an error)
    """A part of the file is not there yet."""


class Undecided(Exception):  # noqa: N818 (a state of the file, not an error)
    """The structure is invalid, or too large to walk."""


@dataclass(slots=True)
class FileData:
    """The bytes of a file, read in a bounded number of steps."""

    descriptor: int
    size: int
    steps: int = 0
    scanned: int = 0
    _start: int = 0
    _window: bytes = b""

    def read(self, offset: int, length: int, ahead: int = 0) -> bytes:
        """Exactly these bytes. ahead: how many to read at once, where more reads follow closely."""
        self.steps += 1
        if self.steps > MAX_STEPS or length > CHUNK:
            raise Undecided
        self.require(offset + length)
        inside = offset - self._start
        if not 0 <= inside <= len(self._window) - length:
            self._start, inside = offset, 0
            self._window = os.pread(self.descriptor, max(length, ahead), offset)
            if len(self._window) < length:  # it was cut off meanwhile
                raise Missing
        return self._window[inside : inside + length]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.size)
        return self.read(start, max(0, stop - start), AHEAD)

    def number(self, offset: int, length: int, order: str = "big") -> int:
        """An unsigned integer."""
        return int.from_bytes(self.read(offset, length), "little" if order == "little" else "big")

    def find(self, pattern: re.Pattern[bytes], offset: int) -> int:
        """The offset of the first match of a pattern of at most two bytes."""
        length = 256
        while True:
            chunk = os.pread(self.descriptor, length + 1, offset)
            match = pattern.search(chunk)
            if match:
                return offset + match.start()
            if len(chunk) <= length:  # the end of the file
                raise Missing
            self.scanned += length
            if self.scanned > MAX_SCANNED_BYTES:
                raise Undecided
            offset += length
            length = min(8 * length, CHUNK)

    def require(self, end: int) -> None:
        """Raise Missing if the file is shorter."""
        if end > self.size:
            raise Missing

    def require_written(self, offset: int, length: int, blank: int = BLANK_CODE) -> None:
        """Raise Missing if the last `blank` bytes of a region are zeros."""
        length, end = min(length, blank), offset + length
        if length and not any(self.read(end - length, length)):
            raise Missing

    def has_hole(self, end: int) -> bool:
        """Whether bytes before `end` were never written. False if the file system does not tell."""
        try:
            return os.lseek(self.descriptor, 0, os.SEEK_HOLE) < end
        except OSError:
            return False
