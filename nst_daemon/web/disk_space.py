"""Free disk space, shared by all requests of the page that write files."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nst_daemon import files
from nst_daemon.errors import StorageError
from nst_daemon.mounts import free_bytes
from nst_daemon.units import size

FreeBytes = Callable[[Path], int]


class DiskSpace:
    """Reserves space for files that are being written, so that they respect `limits.min_free_disk` together.

    Args:
        min_free: bytes that stay free on each disk.
        free: the free bytes of the disk of a folder.
    """

    def __init__(self, min_free: int, free: FreeBytes = free_bytes) -> None:
        self._min_free, self._free = min_free, free
        self._lock = threading.Lock()
        self._reserved: Counter[int] = Counter()  # bytes by device number

    @contextmanager
    def reserved(self, folder: Path, needed: int) -> Iterator[Reservation]:
        """Reserve space in a folder that exists. Raises StorageError if too little is free."""
        with files.storage(folder):
            status = folder.stat()
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
            device = status.st_dev
        with self._lock, files.storage(folder):
            free = self._free(folder) - self._reserved[device]
            if free - needed < self._min_free:
                raise StorageError(
                    f"{folder} has only {size(max(free, 0))} of free space",
                    remedy="free some space, or lower limits.min_free_disk",
                )
            self._reserved[device] += needed
        reservation = Reservation(self, device, needed)
        try:
            yield reservation
        finally:
            reservation.release(reservation.left)

    def release(self, device: int, amount: int) -> None:
        """Give back a part of a reservation."""
        with self._lock:
            self._reserved[device] -= amount


class Reservation:
    """Space that is reserved. left: bytes that are not written yet."""

    def __init__(self, space: DiskSpace, device: int, needed: int) -> None:
        self._space, self._device, self.left = space, device, needed

    def release(self, amount: int) -> None:
        """Release bytes that are on the disk now."""
        self._space.release(self._device, amount)
        self.left -= amount
