"""Reading dropped files by descriptor: no symbolic link is followed, and ignored names are left out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nst_daemon import files, strict_yaml
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake.completeness import looks_whole
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.settle import Arrival, ChangedMeanwhile
from nst_daemon.intake.writers import Writers
from nst_daemon.jobs import Fingerprint
from nst_daemon.names import printable

MAX_FOLDER_DEPTH = 8
CHECK_THE_DISK = "check the disk or the mount"

#: Names in a folder, each with its own status (of a link itself, not of its target).
Listing = list[tuple[str, os.stat_result]]


@dataclass(frozen=True, slots=True)
class WalkedFolder:
    """A folder that `walk` has come to.

    path: below the root, "" for the root; descriptor: open until the next step of the walk; files: everything that is
    not a folder; too_deep: the folder is below MAX_FOLDER_DEPTH and was not listed.
    """

    path: str
    descriptor: int
    fingerprint: Fingerprint
    files: Listing = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    too_deep: bool = False

    def below(self, name: str) -> str:
        """The path of a file in this folder, below the root."""
        return f"{self.path}/{name}" if self.path else name


def walk(root: Path, problems: list[str]) -> Iterator[WalkedFolder | None]:
    """Every folder below `root`, the root first; None after each step of reading a folder.

    Args:
        root: may be reached through symbolic links: it comes from the configuration.
        problems: gets a line for each folder that cannot be read.

    Raises:
        StorageError: `root` cannot be opened.
    """
    with opened(root) as descriptor:
        yield from _walk(descriptor, "", problems)


def _walk(descriptor: int, path: str, problems: list[str]) -> Iterator[WalkedFolder | None]:
    mark = files.fingerprint(os.fstat(descriptor))
    if path.count("/") >= MAX_FOLDER_DEPTH:
        yield WalkedFolder(path, descriptor, mark, too_deep=True)
        return
    folder = WalkedFolder(path, descriptor, mark)
    for item in listed(descriptor, path or "inbox", problems):
        if stat.S_ISDIR(item[1].st_mode):
            folder.folders.append(item[0])
        else:
            folder.files.append(item)
        yield None
    yield folder
    for name in folder.folders:
        below = folder.below(name)
        with open_inner(name, descriptor, below, problems) as opened_folder:
            if opened_folder is not None:
                yield from _walk(opened_folder, below, problems)


@contextmanager
def opened(root: Path) -> Iterator[int]:
    """A descriptor of a folder of the configuration. Raises StorageError if it cannot be opened."""
    with files.storage(root):
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_inner(name: str, parent: int, label: str, problems: list[str]) -> Iterator[int | None]:
    """A descriptor of a folder in `parent`; None if it is gone, a link, or unreadable (a line in `problems`)."""
    try:
        descriptor = files.open_folder(name, dir_fd=parent)
    except OSError as error:
        _raise_unless_of_folder(error, label)
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            remedy = CHECK_THE_DISK
            if error.errno in {errno.EACCES, errno.EPERM}:
                remedy = "give the daemon's group the right to read and enter it"
            where = printable(label)
            problems.append(f"the folder {where} cannot be opened: {error.strerror}; {remedy}")
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _raise_unless_of_folder(error: OSError, label: str) -> None:
    """Raise StorageError for what concerns every folder: no scan is possible, and nothing may be taken for empty."""
    if error.errno in files.PROCESS_ERRORS:
        raise files.storage_error(error, Path(label)) from error


def list_folder(descriptor: int, label: str, problems: list[str]) -> Listing:
    """All of `listed`."""
    return list(listed(descriptor, label, problems))


def listed(
    descriptor: int, label: str, problems: list[str]
) -> Iterator[tuple[str, os.stat_result]]:
    """The names in a folder that are not ignored; files that vanish meanwhile are left out.

    Args:
        descriptor: of the folder.
        label: its path, for messages.
        problems: gets a line for the folder, or for each name, that cannot be read.
    """
    try:
        with os.scandir(descriptor) as items:
            for item in items:
                try:
                    if ignored(item.name, folder=item.is_dir(follow_symlinks=False)):
                        continue
                    status = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:  # a mount whose server has gone, a damaged inode
                    where = printable(f"{label}/{item.name}")
                    problems.append(f"{where} cannot be read: {error.strerror}; {CHECK_THE_DISK}")
                else:
                    yield item.name, status
    except OSError as error:
        _raise_unless_of_folder(error, label)
        where = printable(label)
        problems.append(f"the folder {where} cannot be read: {error.strerror}; {CHECK_THE_DISK}")


def file_problem(status: os.stat_result, name: str, max_bytes: int) -> str:
    """Why a file can never be used, "" if it can."""
    try:
        files.check_droppable(status, name, max_bytes)
    except InputError as error:
        return str(error)
    return ""


def always_complete(writers: Writers) -> Arrival:
    """For folders and special files, which have no structure to check."""
    return Arrival.COMPLETE


def file_arrival(name: str, folder: int, size: int, writers: Writers) -> Arrival:
    """Whether a file is complete and closed. One that cannot be read counts as complete, and the claim reports it.

    Args:
        name: of the file.
        folder: descriptor of its folder.
        size: in bytes.
        writers: of this scan.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except BlockingIOError:  # a process that writes it has a lease
        return Arrival.OPEN
    except OSError:
        return Arrival.COMPLETE
    try:
        if writers.have(descriptor, name):
            return Arrival.OPEN
        return Arrival.COMPLETE if looks_whole(descriptor, size) else Arrival.INCOMPLETE
    except OSError:
        return Arrival.COMPLETE
    finally:
        os.close(descriptor)


def read_settings(root: Path, path: str, mark: Fingerprint, max_bytes: int) -> dict[str, Any]:
    """The mapping in a dropped YAML file.

    Args:
        root: the inbox or the library.
        path: of the file, below `root`.
        mark: of the version that the scan saw.
        max_bytes: of any dropped file; settings have a lower limit (`strict_yaml.MAX_BYTES`).

    Raises:
        SettingsError: it is not readable or not a mapping of plain data.
        ChangedMeanwhile: it is not the version that the scan saw.
    """
    label = printable(path)
    try:
        with files.folder_of(root, path) as (folder, name):
            descriptor, status = files.open_regular(name, folder, max_bytes)
            with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, not a path)
                data = file.read(strict_yaml.MAX_BYTES + 1)
    except PermissionError as error:
        raise SettingsError(
            f"{label} cannot be read: {error.strerror}",
            remedy="give the daemon's group the right to read it",
        ) from error
    except (OSError, InputError) as error:  # the scan saw a regular file
        raise ChangedMeanwhile(f"{label} does not exist any more") from error
    if files.fingerprint(status) != mark:
        raise ChangedMeanwhile(f"{label} has changed")
    return strict_yaml.parse_mapping(data, name)
