"""A file system that refuses what others allow: `python -m tests.torture.strict_fs STORE PLACE RULE`.

It shows the folder STORE at PLACE by FUSE until it is unmounted. RULE is one of RULES. While STORE has a file `.errno`
with the name of an error, each change answers that error.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import mfusepy

from tests.torture.strict_rules import ERRNO, RULES

_STATUS = ("atime", "ctime", "gid", "ino", "mode", "mtime", "nlink", "size", "uid", "blocks")


class StrictFs(mfusepy.Operations):  # type: ignore[misc]
    """The folder STORE, without hard links and symbolic links, and without names that the rule refuses."""

    use_ns = True

    def __init__(self, store: Path, rule: str) -> None:
        self.store, self.refuses = store, RULES[rule]

    def at(self, path: str, *, change: bool = False, new: bool = False) -> str:
        """The path in STORE. Raises OSError where it may not be used so."""
        name = os.path.basename(path)
        if new and (code := self.refuses(name)):
            raise mfusepy.FuseOSError(code)
        if change:
            try:
                raise mfusepy.FuseOSError(getattr(errno, (self.store / ERRNO).read_text().strip()))
            except FileNotFoundError:
                pass
        return f"{self.store}{path}"

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if code := self.refuses(os.path.basename(path)):
            raise mfusepy.FuseOSError(code)
        status = os.lstat(self.at(path))
        found = {f"st_{key}": getattr(status, f"st_{key}") for key in _STATUS}
        return found | {f"st_{key}time": getattr(status, f"st_{key}time_ns") for key in "acm"}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self.at(path))]

    def statfs(self, path: str) -> dict[str, Any]:
        found = os.statvfs(self.at(path))
        keys = (
            "bavail",
            "bfree",
            "blocks",
            "bsize",
            "favail",
            "ffree",
            "files",
            "frsize",
            "namemax",
        )
        return {f"f_{key}": getattr(found, f"f_{key}") for key in keys}

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self.at(path, change=True, new=True), os.O_RDWR | os.O_CREAT, mode)

    def open(self, path: str, flags: int) -> int:
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        return os.open(self.at(path, change=writes), flags & ~os.O_CREAT)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self.at(path, change=True)
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self.at(path, change=True), length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self.at(path, change=True, new=True), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self.at(path, change=True))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self.at(path, change=True))
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self.at(old, change=True), self.at(new, change=True, new=True))
        return 0

    def link(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.EPERM)

    def symlink(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.EPERM)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self.at(path, change=True), ns=times)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(
        StrictFs(Path(sys.argv[1]), sys.argv[3]), sys.argv[2], foreground=True, nothreads=True
    )
