"""Uploaded pictures: stored in state/uploads/ until a request uses them, and removed some time after the last use.

ID.part is a picture that is arriving. ID.SUFFIX is a complete one, and ID.json, written last, makes it an upload; its
modification time is that of the last use. So a restart of the page's process loses only what was arriving.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Self

from pydantic import TypeAdapter

from nst_daemon import files
from nst_daemon.config import Limits
from nst_daemon.errors import NotFoundError, UsageError
from nst_daemon.intake.completeness import looks_whole
from nst_daemon.intake.submit import picture_suffix
from nst_daemon.names import clean_name, printable
from nst_daemon.units import size
from nst_daemon.web.disk_space import DiskSpace, Reservation
from nst_daemon.web.error_bodies import ConflictError, TooLargeError

#: Seconds after the last use until an upload is removed.
LIFETIME = 86400.0
#: Seconds without data after which an upload is given up.
IDLE_SECONDS = 60.0
#: Bytes that are collected before they are written.
WRITTEN_AT_ONCE = 1 << 20

#: The names of our files: an id, and a suffix.
_OURS = re.compile(r"[0-9a-f]{32}\.[0-9a-z]{1,10}")


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded picture.

    Attributes:
        id: 32 hexadecimal digits.
        name: of the file, as it was uploaded, made safe.
        path: where it is stored; with the suffix of `name`.
        bytes: its size.
        format: a name of `pictures.formats`.
        width, height: in pixels, upright.
        expires: seconds since the epoch.
    """

    id: str
    name: str
    path: Path
    bytes: int
    format: str
    width: int
    height: int
    expires: float

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePath(self.name).stem


@dataclass(frozen=True, slots=True)
class _Notes:
    """The contents of ID.json: attributes of an `Upload`."""

    name: str
    bytes: int
    format: str
    width: int
    height: int


_NOTES = TypeAdapter(_Notes)


class Uploads:
    """The store of uploaded pictures. It is used by many threads.

    Args:
        folder: state/uploads; created if it is missing.
        limits: of pictures.
        space: for all that the page writes.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        space: DiskSpace,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._limits, self._space, self._clock = folder, limits, space, clock
        self._lock = threading.Lock()
        self._in_use: Counter[str] = Counter()
        self._reading = threading.Lock()  # some headers are read with the whole file

    async def receive(
        self, name: str, length: int, chunks: AsyncIterator[bytes], idle: float = IDLE_SECONDS
    ) -> Upload:
        """Store a picture as it arrives. Nothing of it remains after an error, also if the client disconnects.

        Args:
            name: of the file.
            length: in bytes, as the client says.
            chunks: the file.
            idle: seconds without data after which it is given up.

        Raises:
            UsageError: it is not an image file by its name, or its length is wrong.
            TooLargeError: it is larger than limits.max_bytes.
            InputError: it is not an image file by its contents, or exceeds a limit.
            StorageError: the disk is full.
            TimeoutError: no more data arrived.
        """
        name = clean_name(PurePath(name.replace("\0", "_")).name)
        suffix, label = picture_suffix(name), printable(name)
        if length > self._limits.max_bytes:
            raise TooLargeError(
                f"{label} has {size(length, up=True)}, more than limits.max_bytes ({size(self._limits.max_bytes)})",
                remedy="choose a smaller file, or raise that limit",
            )
        if not length:
            raise UsageError(f"{label} is empty", remedy="choose another file")
        await asyncio.to_thread(files.make_folder, self._folder)
        with (
            self._space.reserved(self._folder, length) as reservation,
            _Arriving(self._folder, suffix, length, reservation) as arriving,
        ):
            while chunk := await asyncio.wait_for(anext(chunks, b""), idle):
                arriving.add(chunk)
                if arriving.waiting >= WRITTEN_AT_ONCE:
                    await asyncio.to_thread(arriving.write)
            if arriving.received != length:
                raise UsageError(f"{label} is incomplete", remedy="upload it again")
            return await asyncio.to_thread(self._complete, arriving, name)

    def get(self, upload_id: str) -> Upload:
        """The upload with this id. Raises NotFoundError, and StorageError if it cannot be read."""
        try:
            path = self._folder / f"{upload_id}.json"
            noted = _NOTES.validate_json(files.read_file(path))
            expires = path.stat().st_mtime + LIFETIME
            picture = self._folder / f"{upload_id}{picture_suffix(noted.name)}"
            if expires > self._clock() and picture.is_file():
                return Upload(id=upload_id, path=picture, expires=expires, **asdict(noted))
        except FileNotFoundError:
            self._check_folder()
        except (ValueError, UsageError):
            pass
        except OSError as error:
            raise files.storage_error(error, self._folder) from error
        raise NotFoundError(f"there is no upload {upload_id}", remedy="upload the picture again")

    @contextmanager
    def used(self, ids: Iterable[str]) -> Iterator[dict[str, Upload]]:
        """Uploads by their ids, which are not removed inside, and expire later. Raises NotFoundError."""
        wanted = set(ids)
        with self._lock:
            found = {upload_id: self.get(upload_id) for upload_id in wanted}
            self._in_use.update(wanted)
        try:
            for upload in found.values():
                self._touch(upload.path)
            yield found
        finally:
            with self._lock:
                self._in_use -= Counter(wanted)  # without those that are 0 now

    def delete(self, upload_id: str) -> None:
        """Remove an upload. Raises NotFoundError, and ConflictError while a request uses it."""
        with self._lock:
            found = self.get(upload_id)
            if upload_id in self._in_use:
                raise ConflictError(
                    f"the upload {upload_id} is in use", remedy="try again in a moment"
                )
            with files.storage(self._folder):
                (self._folder / f"{upload_id}.json").unlink(missing_ok=True)
                found.path.unlink(missing_ok=True)

    def sweep(self, *, start: bool = False) -> None:
        """Remove expired uploads.

        Args:
            start: also remove what an earlier process has left. No upload may be arriving.

        Raises:
            StorageError: the folder cannot be read or written.
        """
        if not self._folder.is_dir():
            return
        with self._lock, files.storage(self._folder):
            names = {path.name for path in self._folder.iterdir()}
            for name in filter(_OURS.fullmatch, names):
                path, (upload_id, _, kind) = self._folder / name, name.partition(".")
                if kind == "json":
                    expired = path.stat().st_mtime + LIFETIME <= self._clock()
                    if expired and upload_id not in self._in_use:
                        path.unlink()
                        for other in names:
                            if other.startswith(f"{upload_id}.") and other != name:
                                (self._folder / other).unlink(missing_ok=True)
                elif start and f"{upload_id}.json" not in names:
                    path.unlink()

    def _check_folder(self) -> None:
        """Raise StorageError if uploads may exist that cannot be found. The folder is created with the first one."""
        found = os.path.lexists(self._folder)
        files.check_folder(self._folder if found else self._folder.parent)

    def _touch(self, picture: Path) -> None:
        """Note that an upload is used now. The daemon looks at both files."""
        now = self._clock()
        with files.storage(self._folder):
            for path in (picture, picture.with_suffix(".json")):
                os.utime(path, (now, now))

    def _complete(self, arriving: _Arriving, name: str) -> Upload:
        """Check a picture that has arrived, and make it an upload."""
        # The readers need much memory: the process stays small until the first upload.
        from nst_daemon.pictures.decode import decode_file, read_header  # noqa: PLC0415

        label = printable(name)
        arriving.write()
        arriving.flush()
        with arriving.hidden.open("rb") as file, self._reading:
            header = read_header(file.fileno(), self._limits, name=label)
            if not looks_whole(file.fileno(), arriving.received):
                # Something that the picture itself does not need may be missing.
                decode_file(file.fileno(), self._limits, name=label, used=lambda _: 1)
        height, width = header.size
        noted = _Notes(name, arriving.received, header.format.name, width, height)
        with arriving.placed():
            files.write_atomic(self._folder / f"{arriving.id}.json", _NOTES.dump_json(noted))
            self._touch(self._folder / f"{arriving.id}{arriving.suffix}")
        return self.get(arriving.id)


class _Arriving:
    """A picture that is arriving. A context manager: without `placed` its file is removed.

    Attributes:
        id: of the upload.
        suffix: of its file, with the dot.
        hidden: its file.
        received: bytes so far.
    """

    def __init__(self, folder: Path, suffix: str, length: int, reservation: Reservation) -> None:
        self.id, self.suffix, self.received = secrets.token_hex(16), suffix, 0
        self.hidden = folder / f"{self.id}.part"
        self._folder, self._length, self._reservation = folder, length, reservation
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        with files.storage(self._folder):
            self._file: BinaryIO = self.hidden.open("xb")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.hidden.unlink(missing_ok=True)

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return len(self._buffer)

    def add(self, data: bytes) -> None:
        """More of the picture. Raises UsageError if it is longer than it should be."""
        self.received += len(data)
        if self.received > self._length:
            raise UsageError("the file is longer than its Content-Length", remedy="upload it again")
        self._buffer += data

    def write(self) -> None:
        """Write what has been added."""
        data, self._buffer = self._buffer, bytearray()
        with files.storage(self._folder):
            self._file.write(data)
        self._reservation.release(len(data))

    def flush(self) -> None:
        """Make the picture durable."""
        with files.storage(self._folder):
            self._file.flush()
            os.fsync(self._file.fileno())

    @contextmanager
    def placed(self) -> Iterator[None]:
        """The picture has its final name inside. After an exception it is removed."""
        path = self.hidden.with_suffix(self.suffix)
        with files.storage(self._folder):
            self.hidden.rename(path)
        try:
            yield
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
