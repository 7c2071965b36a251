"""Files that can be trusted: opened without surprises, written whole or not at all, published without overwriting.

What goes wrong with a file that a person dropped is an `InputError`; what goes wrong with a folder of our own is a
`StorageError`, because then no job is to blame and the queue has to wait.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from nst_daemon.errors import InputError, StorageError
from nst_daemon.jobs import Fingerprint

CHUNK = 1 << 20
#: Bytes of UTF-8 that a name of ours may have, so that "-2", ".progress.webp" and ".part" still fit into 255.
NAME_BYTES = 200

_REMEDIES = {
    errno.ENOSPC: "free some space; the queue goes on by itself",
    errno.EDQUOT: "free some space or raise the quota; the queue goes on by itself",
    errno.EFBIG: "raise the limit on file sizes (LimitFSIZE=)",
    errno.EROFS: "mount it writable; the queue goes on by itself",
    errno.ENOENT: "mount it or create it; the queue goes on by itself",
    errno.EACCES: "give the daemon's user the right to write there",
    errno.EPERM: "give the daemon's user the right to write there",
}
# What `link` says where hard links do not exist, or do not reach.
_NO_LINKS = frozenset(
    {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)


@contextmanager
def storage(place: Path) -> Iterator[None]:
    """Turn every OSError inside into a StorageError that names `place`, the cause and the remedy."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        raise StorageError(
            f"{printable(str(place))}: {cause}",
            remedy=_REMEDIES.get(error.errno or 0, "look into the disk or the mount"),
        ) from error


# Reading what people dropped


def fingerprint(status: os.stat_result) -> Fingerprint:
    """The identity and version of the file that `status` describes."""
    return Fingerprint(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def kind(mode: int) -> str:
    """What kind of thing `st_mode` speaks of, in words that complete "is …"."""
    for test, words in (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return words
    return "of an unknown kind"


def check_droppable(status: os.stat_result, name: str, max_bytes: int) -> None:
    """Raise InputError unless this is a regular file with one link and at most `max_bytes` bytes."""
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"{printable(name)} is {kind(status.st_mode)}", remedy="drop a copy of the file itself"
        )
    if status.st_nlink != 1:
        raise InputError(
            f"{printable(name)} has {status.st_nlink} hard links, so its contents belong to another place as well",
            remedy="drop a copy",
        )
    if status.st_size > max_bytes:
        raise InputError(
            f"{printable(name)} has {status.st_size:,} bytes and at most {max_bytes:,} are taken",
            remedy="drop a smaller file or raise limits.max_bytes",
        )


def open_folder(path: Path | str, dir_fd: int | None = None) -> int:
    """A descriptor of a real folder; a symbolic link in the last part is refused (OSError)."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


@contextmanager
def folder_of(root: Path, relative: str) -> Iterator[tuple[int, str]]:
    """Descriptor of the folder that holds `root/relative`, and the last name; no link below `root` is followed."""
    *parts, name = relative.split("/")
    # The root itself may be reached through links: it comes from the configuration, not from a drop.
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = open_folder(part, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, name
    finally:
        os.close(descriptor)


def open_regular(name: str, dir_fd: int, max_bytes: int) -> tuple[int, os.stat_result]:
    """Open a dropped file for reading: never a link, a pipe or a device, and never blocking.

    Raises InputError for what is not droppable, OSError for what is not there or not readable.
    """
    # Looked at before it is opened, because opening a device can already do something.
    check_droppable(os.stat(name, dir_fd=dir_fd, follow_symlinks=False), name, max_bytes)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=dir_fd)
    try:
        status = os.fstat(descriptor)
        check_droppable(status, name, max_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Names


def printable(name: str) -> str:
    """`name` for logs and messages: control characters, bidirectional overrides and undecodable bytes escaped."""
    if name.isprintable():
        return name
    joiners = "\u200c\u200d"  # parts of letters and emoji, harmless
    return "".join(c if c.isprintable() or c in joiners else _escape(c) for c in name)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def clean_name(name: str) -> str:
    """`name` as a file name of our own: valid UTF-8 (NFC), printable, at most NAME_BYTES long, never hidden.

    Unicode stays; what could harm a terminal, a path or a listing becomes "_". A suffix survives shortening.
    """
    name = unicodedata.normalize("NFC", name)
    if not name.isprintable() or "/" in name or "\\" in name:
        name = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)
    name = name.strip()
    if name.startswith(".") or not name:
        name = "_" + name.lstrip(".")
    if len(name.encode()) <= NAME_BYTES:
        return name
    suffix = PurePath(name).suffix
    if len(suffix.encode()) > 20:
        suffix = ""
    room = NAME_BYTES - len(suffix.encode())
    return name.removesuffix(suffix).encode()[:room].decode(errors="ignore") + suffix


def numbered(name: str) -> Iterator[str]:
    """name, name-2, name-3, …"""
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


# Writing what is ours


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot, and there is nothing else to be done there.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, durably. Raises StorageError."""
    with storage(path):
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            fsync_folder(folder.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that at any moment either the old one or the whole new one is there. Raises StorageError."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    with storage(path):
        try:
            # Not `mkstemp`: its 0600 would hide the file from the group, against the umask's word.
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


#: What may stand beside a picture, and what it may be: the names of a result, without its stem.
LOSS_PLOT, TIME_LAPSE = ".loss.png", ".progress.webp"
_RESULT = (LOSS_PLOT, TIME_LAPSE, ".png", ".jpg", ".webp")


def publish(
    stage: Path, files: Sequence[str], root: Path, name: str, *, overwrite: bool = False
) -> Path:
    """Move a finished set of files from `stage` to `root/name.*` and return the picture's path.

    files: names inside `stage`, the picture last. They share the picture's stem, which becomes `name` ("dog",
    "starry/IMG_1"), or "name-2", "name-3", … where any file of that name exists: nothing is overwritten unless
    `overwrite`; then what else an older result of that name has left goes. The picture appears last, whole. Calling it
    again after a crash finds what it had placed (same contents) and finishes; so every set needs a file whose contents
    no other job has, and comes first.
    The staged files stay until the caller removes them. Raises StorageError.
    """
    stem = PurePath(files[-1]).stem
    suffixes = [file.removeprefix(stem) for file in files]
    if not root.is_dir():
        raise StorageError(f"{root} is not there", remedy=_REMEDIES[errno.ENOENT])
    folder = (root / name).parent
    make_folder(folder)
    with storage(folder):
        for candidate in numbered(PurePath(name).name):
            targets = [folder / (candidate + suffix) for suffix in suffixes]
            pairs = list(zip([stage / file for file in files], targets, strict=True))
            if overwrite:
                for source, target in pairs:
                    _place_over(source, target)
                _remove_rest(folder, candidate, keep=suffixes)
            elif not _place_all(pairs):
                continue
            fsync_folder(folder)
            return targets[-1]
    raise AssertionError("unreachable: there is always another number")


def _place_all(pairs: Iterable[tuple[Path, Path]]) -> bool:
    """Place all or nothing; False where a name belongs to something else."""
    pairs = list(pairs)
    if any(os.path.lexists(target) and not _same(source, target) for source, target in pairs):
        return False
    placed: list[Path] = []
    for source, target in pairs:
        if not _place(source, target):  # somebody took the name just now
            for path in placed:
                path.unlink()
            return False
        placed.append(target)
    return True


def _place(source: Path, target: Path) -> bool:
    """Give `source` the name `target` as well; False where something else has it."""
    try:
        os.link(source, target)
    except FileExistsError:
        return _same(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No atomic "rename unless it exists" from Python here; only this daemon writes into the folder.
        if os.path.lexists(target):
            return _same(source, target)
        _place_over(source, target)
    return True


def _place_over(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source`, atomically."""
    temporary = target.with_name(f".{target.name}.part")  # the same name again after a crash
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
        _fsync_file(temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # rename does nothing between two names of one file


def _remove_rest(folder: Path, stem: str, *, keep: Sequence[str]) -> None:
    """Remove the curve, the time-lapse or the picture in another format of a result that has been replaced."""
    for suffix in set(_RESULT) - set(keep):
        path = folder / (stem + suffix)
        # "dog.loss.png" beside "dog.loss.json" is the picture of another job, and not the curve of "dog".
        if suffix.count(".") == 1 or not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same(source: Path, target: Path) -> bool:
    """True where both are the same file or have the same contents."""
    ours, other = source.stat(), target.lstat()
    if not stat.S_ISREG(other.st_mode) or ours.st_size != other.st_size:
        return False
    return os.path.samestat(ours, other) or sha256_file(source) == sha256_file(target)


def move_folder(source: Path, root: Path, name: str) -> Path:
    """Move the folder `source` to `root/name`, or "name-2", … where that exists; atomic, never merging.

    name may hold "/". Raises StorageError.
    """
    if not root.is_dir():
        raise StorageError(f"{root} is not there", remedy=_REMEDIES[errno.ENOENT])
    parent = (root / name).parent
    make_folder(parent)
    with storage(parent):
        target = next(
            path
            for path in (parent / n for n in numbered(PurePath(name).name))
            if not os.path.lexists(path)
        )
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            temporary = target.with_name(f".{target.name}.part")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(source, temporary, symlinks=True)
            for path in temporary.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    _fsync_file(path)
            temporary.rename(target)
            shutil.rmtree(source)
        fsync_folder(parent)
    return target


def remove_tree(path: Path) -> None:
    """Remove a folder of ours with everything in it; fine where it is not there. Raises StorageError."""
    with storage(path), suppress(FileNotFoundError):
        shutil.rmtree(path)


def remove_older(folder: Path, before: float) -> None:
    """Remove what was last written before `before` (seconds since the epoch) from a folder of ours, and what is empty.

    Fine where it is not there. No link is followed. Raises StorageError.
    """
    with storage(folder):
        for parent, _, names in os.walk(folder, topdown=False):
            for path in (Path(parent, name) for name in names):
                if path.lstat().st_mtime < before:
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                Path(parent).rmdir()


# What the folders stand on


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/nst-daemon`, by default `~/.cache/nst-daemon`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nst-daemon"


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system of `path`. Raises StorageError."""
    with storage(path):
        status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


#: File systems whose changes may be made elsewhere, so that inotify does not hear of them all.
_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "glusterfs",
        "ocfs2",
        "gfs2",
        "davfs",
        "orangefs",
        "vboxsf",
        "virtiofs",
        "prl_fs",
        "drvfs",
        "v9fs",
    ]
)


def network_file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the file system below `path` where it is a network one or FUSE ("nfs4", "fuse.sshfs"), else "".

    mounts: the text of a mount table as in /proc/self/mounts, which is read where it is None ("" where there is
    no such file: then nothing is known and events are trusted).
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
        # The last mount on a point hides those before it, hence >=.
        if (resolved == point or point in resolved.parents) and len(point.parts) >= best:
            best, found = len(point.parts), fields[2]
    # fuseblk (NTFS, exFAT) is a local disk.
    return found if found in _NETWORK or found.startswith("fuse.") else ""


def _unescape_mount(text: str) -> str:
    """Undo the octal escapes of a mount table (\\040 is a space)."""
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, plain)
    return text
