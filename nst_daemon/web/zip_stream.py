"""ZIP files that are sent while they are made: neither memory nor disk holds one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from nst_daemon.errors import NotFoundError, StorageError
from nst_daemon.files import CHUNK
from nst_daemon.web.stored_files import StoredFile

#: The earliest time that a ZIP file can hold.
EARLIEST = (1980, 1, 1, 0, 0, 0)
#: Larger members need the ZIP64 format, which some old programs do not read.
ZIP64_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive. name: its path there, with "/"."""

    file: StoredFile
    name: str


class _Sink:
    """Collects what `ZipFile` writes until it is sent. It cannot seek, so the archive needs no second pass."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Nothing has to be done."""

    def take(self) -> bytes:
        written = bytes(self._written)
        self._written.clear()
        return written


def zip_stream(members: Iterable[Member]) -> Iterator[bytes]:
    """The bytes of an archive, in parts. Pictures are compressed already, so the members are stored.

    A file that has been removed is left out. Of several members with one name the first counts.
    """
    sink, names = _Sink(), set[str]()
    with ZipFile(cast(IO[bytes], sink), "w", ZIP_STORED) as archive:
        for member in members:
            if member.name in names:
                continue
            try:
                descriptor = member.file.open()
            except (NotFoundError, StorageError):
                continue
            names.add(member.name)
            with os.fdopen(descriptor, "rb") as source:
                status = os.fstat(descriptor)
                info = _info(member.name, status)
                large = status.st_size >= ZIP64_BYTES
                with archive.open(info, "w", force_zip64=large) as target:
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
                        yield sink.take()
    yield sink.take()


def _info(name: str, status: os.stat_result) -> ZipInfo:
    year, month, day, hour, minute, second = time.localtime(status.st_mtime)[:6]
    info = ZipInfo(name, max(EARLIEST, (year, month, day, hour, minute, second)))
    info.external_attr = 0o644 << 16
    return info
