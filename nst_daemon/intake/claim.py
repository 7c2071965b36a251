"""From the inbox into the spool. Every step can be interrupted and repeated.

    claim            copies by descriptor into spool/ID/ and hashes; .job.json comes last
    make_durable     flushes the copies of a few jobs
    ledger.add       the ledger has the jobs
    remove_originals removes the originals from the inbox

`archive` then moves spool/ID/ to done/NAME/ or failed/NAME/.
Refused files are not copied: their originals move into spool/ID/, and then on to failed/NAME/.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from nst_daemon import files
from nst_daemon.digests import sha256_file
from nst_daemon.errors import InputError, PathError, Retry, StorageError
from nst_daemon.intake.archive import CARD, ERROR_FILE, RESULT, card_json, read_card
from nst_daemon.intake.drops import Drop, Rejection, Request, Root, new_job_id
from nst_daemon.intake.ignore import is_litter
from nst_daemon.intake.settle import Arrival, ChangedMeanwhile
from nst_daemon.intake.walk import file_arrival
from nst_daemon.intake.writers import Writers
from nst_daemon.jobs import Job, JobInput, JobState
from nst_daemon.names import clean_name, numbered, portable, printable

log = logging.getLogger(__name__)

_REMOVAL_REMEDIES = {
    errno.EACCES: "give the daemon's group the right to write to its folder",
    errno.EPERM: "remove its attributes i and a (chattr -ia), or the sticky bit of its folder",
    errno.EROFS: "mount its file system writable",
    errno.EBUSY: "unmount what is mounted there",
    errno.EXDEV: "move it away: it is on another file system",
}


class UnreadableNow(InputError):  # noqa: N818 (a state of the disk, not an error of the file)
    """The disk or the mount of a dropped file does not deliver it: it stays where it is, and is tried again later."""

    retry = Retry.LATER


# Inbox -> spool


def claim(
    request: Request,
    spool: Path,
    roots: Mapping[Root, Path],
    *,
    max_bytes: int,
    now: float,
    job_id: str = "",
) -> Job:
    """Copy the files of a request into spool/ID/. They are not durable yet. After an error nothing is left there.

    Args:
        request: what to claim.
        spool: the spool folder.
        roots: the folder of each root that a drop of the request has.
        max_bytes: the largest size of a file.
        now: seconds since the epoch.
        job_id: the job's id; "" for a new one.

    Returns:
        The job in state `claimed`, which is not in the ledger yet.

    Raises:
        ChangedMeanwhile: a file is not the version that the scan saw; scan again.
        UnreadableNow: a file cannot be read at the moment; leave it in the inbox and try again later.
        InputError: a file cannot be used; refuse the request with this message.
        StorageError: the spool cannot be written.
    """
    job = Job(
        id=job_id or new_job_id(),
        name=request.name,
        source=request.source,
        state=JobState.CLAIMED,
        inputs=(),
        created=now,
        updated=now,
        settings=request.settings,
        group=request.group,
        priority=request.priority,
        identity=request.identity,
        batch=request.batch,
        outputs=request.outputs,
    )
    folder = spool / job.id
    try:
        if spool.is_dir():
            with files.storage(folder):
                folder.mkdir(exist_ok=True)  # `make_durable` flushes its name
        else:
            files.make_folder(folder)
        names = _spool_names(request.files)
        inputs = tuple(
            _copy(drop, roots[drop.root], folder / name, max_bytes)
            for drop, name in zip(request.files, names, strict=True)
        )
        job = replace(job, inputs=inputs)
        with files.storage(folder):
            (folder / CARD).write_bytes(card_json(job))
    except BaseException:
        try:
            files.remove_tree(folder)
        except StorageError as error:
            # The next start removes it. The first error decides what happens to the request.
            log.warning("an unfinished copy stays in the spool: %s", error)
        raise
    return job


def make_durable(jobs: Sequence[Job], spool: Path) -> None:
    """Make the copies of claimed jobs, their cards and their folders durable. Raises StorageError."""
    copied = [job for job in jobs if not job.error]
    if copied:
        folders = [spool / job.id for job in copied]
        names = [spool / job.id / file.spooled for job in copied for file in job.inputs]
        cards = [folder / CARD for folder in folders]
        files.flush([*names, *cards], [*folders, spool])


def refuse(rejection: Rejection, *, now: float, job_id: str = "") -> Job:
    """The job that represents a rejection: in state `claimed`, with its error, without copies.

    job_id: as in `claim`.
    """
    names = _spool_names(rejection.files)
    return Job(
        id=job_id or new_job_id(),
        name=rejection.name,
        source=rejection.source,
        state=JobState.CLAIMED,
        inputs=tuple(
            JobInput(
                role=drop.role,
                name=printable(_last(drop.path)),
                spooled=name,
                sha256="",
                size=drop.fingerprint.size,
                origin=drop.path,
                fingerprint=drop.fingerprint,
            )
            for drop, name in zip(rejection.files, names, strict=True)
        ),
        created=now,
        updated=now,
        group=rejection.group,
        error=rejection.reason,
    )


def _copy(drop: Drop, root: Path, target: Path, max_bytes: int) -> JobInput:
    """Copy and hash one file; it must be the version that the scan saw, before and after."""
    label = printable(drop.path)
    with _reading(label), files.folder_of(root, drop.path) as (folder, name):
        source, status = files.open_regular(name, folder, max_bytes)
        try:
            if files.fingerprint(status) != drop.fingerprint:
                raise ChangedMeanwhile(f"{label} has changed")
            digest = _pour(source, target, status)
            named = os.stat(name, dir_fd=folder, follow_symlinks=False)
            for after in (os.fstat(source), named):
                if files.fingerprint(after) != drop.fingerprint:
                    raise ChangedMeanwhile(f"{label} changed while it was copied")
        finally:
            os.close(source)
    return JobInput(
        role=drop.role,
        name=printable(_last(drop.origin or drop.path)),
        spooled=target.name,
        sha256=digest,
        size=status.st_size,
        origin=drop.path if drop.root == "inbox" else drop.origin,
        fingerprint=drop.fingerprint if drop.root == "inbox" else None,
    )


def _pour(source: int, target: Path, status: os.stat_result) -> str:
    """Copy a descriptor into a new file with the original's mtime; returns the hex SHA-256."""
    digest = hashlib.sha256()
    with files.storage(target):
        # Unbuffered: closing a buffered file writes again, and its error would look like one of the original.
        file = target.open("xb", buffering=0)
    with file:
        while chunk := os.read(source, files.CHUNK):
            digest.update(chunk)
            with files.storage(target):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
            if file.tell() > status.st_size:
                raise ChangedMeanwhile(f"{printable(target.name)} is growing")
        with files.storage(target):
            os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    return digest.hexdigest()


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """Translate the errors of reading a dropped file by their cause."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO}:
            raise ChangedMeanwhile(f"{label} does not exist any more") from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise InputError(
                f"{label} cannot be read: {cause}",
                remedy="give the daemon's user or group the right to read it",
            ) from error
        raise UnreadableNow(
            f"{label} cannot be read: {cause}", remedy="check the disk or the mount"
        ) from error


def _spool_names(drops: Sequence[Drop]) -> list[str]:
    """A distinct file name for each drop that every file system takes, as similar to its own as possible."""
    names: list[str] = []
    for drop in drops:
        path = PurePosixPath(portable(clean_name(_last(drop.path))))
        candidates = (number + path.suffix for number in numbered(path.stem))
        names.append(next(name for name in candidates if name not in {*names, ERROR_FILE, RESULT}))
    return names


def _last(path: str) -> str:
    return path.rpartition("/")[2]


class Original(StrEnum):
    """What has become of a claimed file of the inbox."""

    SAME = "same"
    CHANGED = "changed"
    GONE = "gone"


def find_originals(job: Job, inbox: Path) -> list[Original]:
    """What has become of each file that a job was claimed from; a file that cannot be seen counts as gone."""
    return [_find_original(file, inbox) for file in job.inputs if file.fingerprint is not None]


def _find_original(file: JobInput, inbox: Path) -> Original:
    try:
        with files.folder_of(inbox, file.origin) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return Original.GONE
    return Original.SAME if files.fingerprint(status) == file.fingerprint else Original.CHANGED


def have_writers(job: Job, inbox: Path) -> bool:
    """Whether a process is known to have one of a job's originals open for writing."""
    writers = Writers()
    for file in job.inputs:
        if file.fingerprint is None:
            continue
        with suppress(OSError), files.folder_of(inbox, file.origin) as (parent, name):
            if file_arrival(name, parent, file.size, writers) is Arrival.OPEN:
                return True
    return False


def remove_originals(job: Job, inbox: Path, spool: Path, *, keep: bool = False) -> list[str]:
    """Remove a job's originals from the inbox after the ledger has the job; may be repeated at any time.

    Copied originals are deleted, refused ones move into spool/ID/. A file that is not the claimed version stays: it is
    a new drop. Files from anywhere else than the inbox stay.

    Args:
        job: In the ledger.
        inbox: The inbox.
        spool: The spool folder.
        keep: Copied originals take the place of their copies, so that a program that still writes to one continues.

    Returns:
        A line for each file that cannot be removed.

    Raises:
        StorageError: a refused file cannot be moved into the spool.
    """
    folder = spool / job.id
    problems = []
    dropped = [file for file in job.inputs if file.fingerprint is not None]
    for file in dropped:
        problem = _remove_original(file, inbox, folder, keep=keep)
        if problem:
            problems.append(problem)
    if job.source == "folder":
        for parent in {_parent(file.origin) for file in dropped}:
            remove_if_empty(inbox / parent)
    # No fsync: an original that reappears after a power failure is recognised (`Ledger.claimed_before`) and removed.
    return problems


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _remove_original(file: JobInput, inbox: Path, folder: Path, *, keep: bool) -> str:
    """Remove one original, or move a refused one into `folder`; returns what prevents that, or ""."""
    label = printable(file.origin)
    try:
        with files.folder_of(inbox, file.origin) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if files.fingerprint(status) != file.fingerprint:
                return ""
            if file.sha256 and not keep:
                os.unlink(name, dir_fd=parent)
            else:
                files.make_folder(folder)
                move_original(name, parent, status, folder / file.spooled)
    except (FileNotFoundError, NotADirectoryError):
        return ""  # it was removed before
    except OSError as error:
        if not file.sha256:
            with suppress(OSError):  # not empty
                folder.rmdir()
        return (
            f"{label} cannot be removed from the inbox: {error.strerror}; "
            f"{_REMOVAL_REMEDIES.get(error.errno or 0, 'check the disk or the mount')}"
        )
    return ""


def move_original(name: str, parent: int, status: os.stat_result, target: Path) -> None:
    """Move a refused file of any kind. Between file systems, only links and regular files are copied."""
    try:
        os.rename(name, target, src_dir_fd=parent)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if stat.S_ISDIR(status.st_mode):
            raise
        if stat.S_ISLNK(status.st_mode):
            target.unlink(missing_ok=True)
            target.symlink_to(os.readlink(name, dir_fd=parent))
        elif stat.S_ISREG(status.st_mode):
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            with open(source, "rb") as read, files.storage(target), target.open("wb") as write:  # noqa: PTH123
                shutil.copyfileobj(read, write)
                write.flush()
                os.fsync(write.fileno())
        try:
            os.unlink(name, dir_fd=parent)
        except OSError:
            target.unlink(missing_ok=True)
            raise


def put_away(drop: Drop, inbox: Path, root: Path, name: str) -> None:
    """Move a batch file from the inbox to root/NAME/, unless it has changed. Raises StorageError."""
    folder = root / name
    files.make_folder(folder)
    with (
        files.storage(folder),
        suppress(FileNotFoundError, NotADirectoryError),
        files.folder_of(inbox, drop.path) as (parent, last),
    ):
        status = os.stat(last, dir_fd=parent, follow_symlinks=False)
        if files.fingerprint(status) != drop.fingerprint:
            return
        path = PurePosixPath(portable(clean_name(last)))
        candidates = (folder / (stem + path.suffix) for stem in numbered(path.stem))
        target = next(place for place in candidates if not os.path.lexists(place))
        move_original(last, parent, status, target)


def remove_if_empty(folder: Path) -> None:
    """Try to remove a folder of the inbox if it contains only leftovers of file managers."""
    with suppress(OSError, StorageError):
        leftovers = list(folder.iterdir())
        if all(is_litter(path.name) for path in leftovers):
            # Not the whole tree: a file that is dropped at this moment must stay.
            for path in leftovers:
                files.remove(path)
            folder.rmdir()


# At start


def recover_spool(spool: Path, known: Iterable[str], inbox: Path) -> list[Job]:
    """Remove unfinished claims from the spool and find jobs that the ledger has lost.

    A copy whose originals are still in the inbox, unchanged, was not in the ledger when the daemon ended: it is
    removed, and the files are claimed again. A complete copy whose originals are gone is all that is left of a job:
    the ledger was restored from an older backup. The same holds for a batch's job, whose originals were never in the
    inbox; a batch that is still being read finds it in the queue.

    Args:
        spool: the spool folder.
        known: ids of the ledger's jobs.
        inbox: the inbox.

    A folder whose card cannot be read stays until a later start.

    Returns:
        The jobs to add to the ledger.

    Raises:
        StorageError: the spool cannot be read or written.
    """
    known = set(known)
    orphans = []
    with files.storage(spool):
        folders = [path for path in spool.iterdir() if path.is_dir() and path.name not in known]
    for folder in sorted(folders):
        try:
            orphan = _orphan(folder, inbox)
        except PathError as error:
            log.warning("it stays in the spool: %s", error)
            continue
        if orphan:
            orphans.append(orphan)
        else:
            files.remove_tree(folder)
    return orphans


def is_free(job_id: str, spool: Path, inbox: Path) -> bool:
    """Whether the spool has no job with an id that the ledger does not know. Removes an unfinished claim.

    Raises StorageError.
    """
    folder = spool / job_id
    if _orphan(folder, inbox):
        return False
    files.remove_tree(folder)
    return True


def _orphan(folder: Path, inbox: Path) -> Job | None:
    """The job of a folder of the spool that the ledger does not know; None for an unfinished claim.

    Raises StorageError if that cannot be told.
    """
    job = read_card(folder)
    if job is None or job.id != folder.name or _can_be_claimed_again(job, inbox):
        return None
    # A power cut may leave the card without the copies. The sources of a batch are still where they were.
    if job.source == "batch" and not all(_is_whole(folder, file) for file in job.inputs):
        return None
    return job


def _is_whole(folder: Path, file: JobInput) -> bool:
    """Whether the copy of an input has the contents that were copied."""
    try:
        return sha256_file(folder / file.spooled) == file.sha256
    except OSError:
        return False


def spooled(spool: Path) -> list[str]:
    """The ids of the jobs that have a folder in the spool. Raises StorageError."""
    with files.storage(spool):
        return sorted(path.name for path in spool.iterdir())


def _can_be_claimed_again(job: Job, inbox: Path) -> bool:
    """Whether it has originals in the inbox, and all of them are still there."""
    dropped = [file for file in job.inputs if file.origin]
    return bool(dropped) and all(_find_original(f, inbox) is Original.SAME for f in dropped)
