"""The file systems of the folders: their free space, their kind, and where on them a folder is."""

from __future__ import annotations

import os
from pathlib import Path

from nst_daemon.files import storage


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system of `path`. Raises StorageError."""
    with storage(path):
        status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


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
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(errors="surrogateescape")
        except OSError:
            mounts = ""
    resolved = Path(os.path.realpath(path))
    best, found = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_unescape_mount(fields[1]))
        # The last mount on a point hides earlier ones, hence >=.
        if (resolved == point or point in resolved.parents) and len(point.parts) >= best:
            best, found = len(point.parts), fields[2]
    # fuseblk (NTFS, exFAT) is a local disk.
    return found if found in _NETWORK or found.startswith("fuse.") else ""


def location(path: Path, mounts: str | None = None) -> tuple[str, Path]:
    """Where a path is, whatever its name: the device, and the path below the top of its file system.

    A folder and what is mounted from it with `mount --bind`, or into a container, have the same location.

    Args:
        path: It need not exist.
        mounts: The text of a mount table; if None, /proc/self/mountinfo is read.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            mounts = ""
    resolved = Path(os.path.realpath(path))
    best, found = -1, ("", resolved)
    for line in mounts.splitlines():
        # id, parent, device, path of the mount below the top of its file system, mount point, …
        fields = line.split(" ")
        if len(fields) < 5:
            continue
        top, point = (Path(_unescape_mount(text)) for text in fields[3:5])
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), (fields[2], top / resolved.relative_to(point))
    return found


def _unescape_mount(text: str) -> str:
    """Undo the octal escapes of a mount table (\\040 is a space)."""
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, plain)
    return text
