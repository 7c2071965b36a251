"""Safe access to files: dropped files are opened without following links, own files are written atomically.

A problem with a dropped file is an `InputError`. A problem with a disk or a folder of the daemon is a `StorageError`:
no job is the cause, and the queue waits. A `PathError` concerns one file or name: only its job fails.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from nst_daemon.errors import InputError, PathError, StorageError, UsageError
from nst_daemon.jobs import Fingerprint
from nst_daemon.names import printable, shortened
from nst_daemon.units import size

CHUNK = 1 << 20
#: Files that are flushed at the same time.
FLUSHES = 4

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f, LimitFSIZE=)",
    errno.EROFS: "mount it writable",
    errno.ENOENT: "mount it or create it",
    errno.EEXIST: "it is not a folder: move it, or configure another path",
    errno.ENOTDIR: "a part of this path is not a folder: move it, or configure another path",
    errno.EACCES: "give the user of this process the right to write there",
    errno.EPERM: "give the user of this process the right to write there",
    errno.ENOTSUP: "remove it, or check the mount",
    errno.EMFILE: "raise the limit on open files (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "raise fs.file-max with sysctl",
    errno.ENOMEM: "free some memory",
}
_PATH_REMEDIES = {
    errno.EINVAL: "choose another name: the file system refuses this one",
    errno.EILSEQ: "choose another name: the file system refuses this one",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: "change the permissions of this file or its folder",
    errno.EPERM: "change the permissions or the attributes of this file",
    errno.ENOTSUP: "remove it",
    errno.EISDIR: "move the folder of this name away",
    errno.ENOTDIR: "move the file that is in the place of a folder away",
}


#: The beginning of an address, such as https:// (`Path` removes the second slash).
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
#: Errors of a disk, whichever file they are reported for.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
#: Errors of this process or of the whole system, whichever file they are reported for.
PROCESS_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
#: Errors of `link` if hard links are not supported, or not between these folders.
NO_LINKS = frozenset(
    {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)
#: Errors of reading that are not the fault of the file: of the disk, of a network file system, of this process.
_READ_ERRORS = frozenset(
    {
        errno.EIO,
        errno.ENODATA,
        errno.ESTALE,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.EMFILE,
        errno.ENFILE,
    }
)


@contextmanager
def storage(place: Path, within: Path | None = None) -> Iterator[None]:
    """Turn every OSError inside into a StorageError that names `place`, the cause and the remedy.

    It is a PathError if the folder can still be used, so that only this file or name is refused.

    Args:
        place: The file or folder that is used inside.
        within: The folder to try; by default `place` itself if it is a folder, else its parent.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, place, within) from error


def storage_error(error: OSError, place: Path, within: Path | None = None) -> StorageError:
    """The StorageError or PathError for an OSError; see `storage`."""
    kind: type[StorageError] = PathError
    if error.errno in _DISK_ERRORS | PROCESS_ERRORS:
        kind = StorageError
    elif (fault := _fault_of_folder(within or _folder_for(place))) is not None:
        kind, error = StorageError, fault
    cause = f": {error.strerror or error}"
    if error.errno == errno.ENOENT and str(error.filename) in {str(place), str(place.parent)}:
        place, cause = Path(str(error.filename)), " does not exist"
    remedy = _REMEDIES.get(error.errno or 0, "check the disk or the mount")
    if kind is PathError:
        remedy = _PATH_REMEDIES.get(error.errno or 0, remedy)
    return kind(f"{printable(str(place))}{cause}", remedy=remedy)


def read_error(error: BaseException, label: str) -> StorageError | None:
    """The StorageError for an error of reading that is not the fault of the file; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _READ_ERRORS:
        return None
    remedy = _REMEDIES.get(error.errno, "check the disk or the mount")
    return StorageError(f"{label} cannot be read: {error.strerror}", remedy=remedy)


def unreadable(label: str, error: OSError, kind: type[InputError] = InputError) -> InputError:
    """The error for a file of the user that cannot be opened or read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return kind(f"{label} does not exist", remedy="check the path")
    if isinstance(error, IsADirectoryError):
        return kind(f"{label} is a folder", remedy="name a file")
    return kind(
        f"{label} cannot be read: {error.strerror or error}", remedy="check its permissions"
    )


def process_error(error: OSError) -> StorageError | None:
    """The StorageError for an OSError without a file that says what this process lacks; else None."""
    remedy = _REMEDIES.get(error.errno or 0)
    return StorageError(error.strerror, remedy=remedy) if remedy and error.strerror else None


def _folder_for(place: Path) -> Path:
    try:
        return place if place.is_dir() else place.parent
    except (OSError, ValueError):
        return place.parent


def _fault_of_folder(folder: Path) -> OSError | None:
    """Why a folder cannot be used at all: list it, then create and remove a file with a plain name."""
    probe = folder / f".{secrets.token_hex(4)}.part"
    try:
        with os.scandir(folder) as items:
            next(items, None)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        return error
    return None


# Dropped files


def fingerprint(status: os.stat_result) -> Fingerprint:
    """The identity and version of the file that `status` describes."""
    return Fingerprint(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def kind(mode: int) -> str:
    """The kind of file that `st_mode` describes, in words that complete "is …"."""
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
            f"{printable(name)} has {status.st_nlink} hard links, so another name may change its contents",
            remedy="drop a copy",
        )
    if status.st_size > max_bytes:
        raise InputError(
            f"{printable(name)} has {size(status.st_size, up=True)}, more than limits.max_bytes ({size(max_bytes)})",
            remedy="drop a smaller file, or raise that limit",
        )


def open_folder(path: Path | str, dir_fd: int | None = None) -> int:
    """A descriptor of a real folder; a symbolic link in the last part is refused (OSError)."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


def check_folder(path: Path) -> None:
    """Raise StorageError if a folder, or the one that a link leads to, cannot be read."""
    with storage(path):
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


@contextmanager
def folder_of(root: Path, relative: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder of `root/relative`, and the last name; no link below `root` is followed."""
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
    """Open a regular file for reading, without following a link and without blocking.

    Args:
        name: of the file.
        dir_fd: descriptor of its folder.
        max_bytes: the largest size.

    Returns:
        A descriptor and the file's status.

    Raises:
        InputError: it is not a regular file with one link, or too large.
        OSError: it does not exist or cannot be read.
    """
    # Checked before it is opened, because opening a device can have effects.
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


# Own files


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file. Another kind of file is an OSError: to open or read a named pipe would never end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.ENOTSUP, f"it is {kind(status.st_mode)} and not a file", str(path))
    return descriptor


def read_file(path: Path) -> bytes:
    """The contents of a regular file. Raises OSError."""
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable, where its file system can. Raises OSError for an error of the disk only."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some network and FUSE file systems do not support this, and a folder may be writable but not readable. What
        # was written into it is there all the same.
        if error.errno in _DISK_ERRORS:
            raise


def fsync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(paths: Sequence[Path], folders: Sequence[Path]) -> None:
    """Make the bytes of files, and then the names in folders, durable.

    File systems commit what is flushed at the same time together, so this takes a tenth of the time of one flush after
    another. Raises StorageError.
    """
    place = (*folders, *paths)[0]
    with ThreadPoolExecutor(FLUSHES) as pool, storage(place):
        for act, places in ((fsync_file, paths), (fsync_folder, folders)):
            for _ in pool.map(act, places):
                pass


def copy_durably(source: Path, target: Path) -> None:
    """Copy the bytes of a file. They are durable then, and the name is not."""
    shutil.copyfile(source, target)
    fsync_file(target)


def nearest(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def lock(file: int | IO[Any], *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file or folder against other processes. The kernel releases the lock with the last descriptor.

    Args:
        file: A descriptor, or a file that has one.
        shared: Whether others may have a shared lock, too.
        wait: Whether to wait until the lock is free.

    Returns:
        Whether the lock was taken; False while another process has it.

    Raises:
        OSError: The file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def missing_folder(path: Path) -> StorageError:
    """The error for a folder of the daemon that does not exist."""
    return StorageError(f"{path} does not exist", remedy=_REMEDIES[errno.ENOENT])


def make_folder(path: Path, within: Path | None = None) -> None:
    """Create a folder and its missing parents, durably. within: see `storage`. Raises StorageError."""
    with storage(path, within):
        if path.is_dir():
            return
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            fsync_folder(folder.parent)


def share(path: Path) -> None:
    """Give the group of an own file the rights that it has in the folder, whatever the umask is. Raises OSError."""
    folder, status = path.parent.stat(), path.stat()
    mode = stat.S_IMODE(status.st_mode)
    wanted = mode | folder.st_mode & 0o060
    own = os.geteuid() in {0, status.st_uid} and status.st_gid == folder.st_gid
    if own and mode != wanted:
        with suppress(OSError):  # a file system without modes, such as FAT
            path.chmod(wanted)


def write_atomic(
    path: Path,
    *data: bytes | memoryview,
    replace: bool = True,
    mode: int = 0o666,
    owner: tuple[int, int] | None = None,
) -> None:
    """Write a file atomically and durably: other programs see the old file, or the complete new one.

    Args:
        path: The file.
        *data: Its contents, one part after the other.
        replace: Whether an existing file is replaced.
        mode: Its rights, before the umask.
        owner: User and group of a file that root writes for another user; None for those of this process.

    Raises:
        FileExistsError: The file exists, and `replace` is false.
        StorageError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    with storage(path):
        try:
            # Not `mkstemp`: its mode 0600 ignores the umask, and the group could not read the file.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
                if owner and owner[0] != os.geteuid():
                    os.fchown(file.fileno(), *owner)
                file.writelines(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            placed = replace or link_new(temporary, path, Path.replace)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)
    if not placed:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def link_new(source: Path, target: Path, otherwise: Callable[[Path, Path], object]) -> bool:
    """Give a file another name; False if something has that name. otherwise: called if there are no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Python has no atomic "rename unless it exists".
        if os.path.lexists(target):
            return False
        otherwise(source, target)
    return True


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with everything in it, if it exists. Raises StorageError."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
        return
    with storage(path):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a folder with everything in it, if it exists. Raises StorageError."""
    with storage(path, within=path.parent), suppress(FileNotFoundError):
        try:
            shutil.rmtree(path)
        except PermissionError:
            _open_tree(path)
            shutil.rmtree(path)


def _open_tree(path: Path) -> None:
    """Give the owner of a tree all rights to its folders. No link is followed."""
    path.chmod(0o700)
    for parent, names, _ in os.walk(path):
        for folder in (Path(parent, name) for name in names):
            if not folder.is_symlink():
                folder.chmod(0o700)


def remove_older(folder: Path, before: float) -> None:
    """Remove files older than `before` from a folder, if it exists, and then empty subfolders.

    before: seconds since the epoch. No link is followed. Raises StorageError.
    """
    with storage(folder):
        for parent, _, names in os.walk(folder, topdown=False):
            for path in (Path(parent, name) for name in names):
                if path.lstat().st_mtime < before:
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                Path(parent).rmdir()


#: A file or folder that is hidden until it is complete.
_PART = re.compile(r"\.[0-9a-f]{16}\.part")


def part_name() -> str:
    """A name for a file or folder that is hidden until it is complete; `remove_parts` removes it if it never is."""
    return f".{secrets.token_hex(8)}.part"


def remove_parts(folder: Path, before: float) -> None:
    """Remove what was never completed, and did not change since `before`, from a folder, if it exists.

    before: seconds since the epoch. Raises StorageError.
    """
    with storage(folder):
        for path in folder.iterdir() if folder.is_dir() else ():
            if _PART.fullmatch(path.name) and path.lstat().st_mtime < before:
                remove(path)


def check_local(path: Path) -> None:
    """Raise UsageError for an address on the web, which commands and the API do not read."""
    if (found := _ADDRESS.match(str(path))) and not os.path.lexists(path):
        slashes = "//" if found[0] == "file:/" else "/"
        address = f"{found[0]}{slashes}{str(path)[found.end() :]}"
        raise UsageError(
            f"{shortened(printable(address))} is an address and not a file",
            remedy="download it first, or name the file itself",
        )


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/nst-daemon`, by default `~/.cache/nst-daemon`.

    Without a home that this user can write to, a folder that is removed when the process ends. Raises StorageError.
    """
    named = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    place = Path(named) / "nst-daemon"
    if place.is_absolute():
        parent = nearest(place)
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return place
    with storage(place):
        folder = tempfile.mkdtemp(prefix="nst-daemon-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def copied(file: IO[bytes], max_bytes: int | None, label: str) -> IO[bytes]:
    """An unnamed temporary file with everything that can be read from a pipe.

    Args:
        file: The pipe; its writer is waited for.
        max_bytes: Limit of its length; None for no limit.
        label: Names it in messages.

    Raises:
        InputError: It has more than `max_bytes`.
    """
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    length = 0
    while chunk := file.read(CHUNK):
        length += len(chunk)
        if max_bytes is not None and length > max_bytes:
            copy.close()
            raise InputError(
                f"{label} has more than {size(max_bytes)}", remedy="raise limits.max_bytes"
            )
        copy.write(chunk)
    copy.flush()
    copy.seek(0)
    return copy
