"""The file systems of the folders: their free space, their kind, and where on them a folder is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nst_daemon.files import storage


class Space(NamedTuple):
    """Of a file system, in bytes: what this user may still write, and its size."""

    free: int
    total: int


def space(path: Path) -> Space:
    """The space of the file system of `path`. Raises StorageError."""
    with storage(path):
        status = os.statvfs(path)
    return Space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system of `path`. Raises StorageError."""
    return space(path).free


#: File systems that other machines can change without an inotify event.
_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "v9fs", "ceph", "lustre"),
        *("gpfs", "beegfs", "glusterfs", "ocfs2", "gfs2", "davfs", "orangefs", "vboxsf"),
        *("virtiofs", "prl_fs", "drvfs"),
    }
)


def network_file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the file system of `path` if it is a network file system or FUSE ("nfs4", "fuse.sshfs"), else "".

    mounts: the text of a mount table; if None, /proc/self/mounts is read.
    """
    # device, mount point, type, …
    fields, _ = _mount_of(path, mounts, "/proc/self/mounts", 1)
    kind = fields[2] if fields else ""
    # fuseblk (NTFS, exFAT) is a local disk.
    return kind if kind in _NETWORK or kind.startswith("fuse.") else ""


def mounted_below(path: Path, mounts: str | None = None) -> list[tuple[str, Path]]:
    """What is mounted inside a folder: the `location` of each of these mounts. mounts: see `location`."""
    resolved = Path(os.path.realpath(path))
    table = _mounts(mounts, "/proc/self/mountinfo", 4)
    return [(m[2], Path(m[3])) for m in table if resolved in Path(m[4]).parents]


def location(path: Path, mounts: str | None = None) -> tuple[str, Path]:
    """The location of a path: its device, and its path below the top of that file system.

    A folder and what is mounted from it with `mount --bind`, or into a container, have the same location.

    Args:
        path: It need not exist.
        mounts: The text of a mount table; if None, /proc/self/mountinfo is read.
    """
    # id, parent, device, path of the mount below the top of its file system, mount point, …
    fields, below = _mount_of(path, mounts, "/proc/self/mountinfo", 4)
    return (fields[2], Path(fields[3]) / below) if fields else ("", below)


def _mount_of(path: Path, table: str | None, file: str, column: int) -> tuple[list[str], Path]:
    """The mount that a path is on: the fields of its line, and the path below the mount point.

    Args:
        path: It need not exist.
        table: The text of a mount table; if None, `file` is read.
        file: In /proc.
        column: Of the mount point in this table.

    Returns:
        No fields and the whole path if the table has no such mount.
    """
    resolved = Path(os.path.realpath(path))
    best, found, below = -1, list[str](), resolved
    for fields in _mounts(table, file, column):
        point = Path(fields[column])
        # The last mount on a point hides earlier ones, hence >=.
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, found, below = len(point.parts), fields, resolved.relative_to(point)
    return found, below


def _mounts(table: str | None, file: str, column: int) -> Iterator[list[str]]:
    """The fields of each mount; see `_mount_of`."""
    if table is None:
        try:
            table = Path(file).read_text(errors="surrogateescape")
        except OSError:
            table = ""
    for line in table.splitlines():
        fields = [_unescape_mount(field) for field in line.split(" ")]
        if len(fields) >= max(3, column + 1):
            yield fields


def _unescape_mount(text: str) -> str:
    """Undo the octal escapes of a mount table (\\040 is a space)."""
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, plain)
    return text
