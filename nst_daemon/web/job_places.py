"""Finds the files of a job: the result, its sidecar, loss plot and time-lapse, and the inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from nst_daemon import files
from nst_daemon.config import Config, Folders
from nst_daemon.digests import sha256_stream
from nst_daemon.errors import NotFoundError, StorageError
from nst_daemon.intake.library import list_styles
from nst_daemon.jobs import Fingerprint, Job, JobInput, JobState, Role
from nst_daemon.names import printable
from nst_daemon.ops.input_places import input_places
from nst_daemon.ops.status import read_live
from nst_daemon.publishing import LOSS_PLOT, TIME_LAPSE
from nst_daemon.web.models import JobFile
from nst_daemon.web.stored_files import StoredFile

#: The SHA-256 of a version of a file.
DigestOf = Callable[[StoredFile, Fingerprint], str]
#: What follows the stem of a result in the names of the files beside it.
ENDINGS: dict[JobFile, str] = {
    "sidecar": ".json",
    "loss-plot": LOSS_PLOT,
    "time-lapse": TIME_LAPSE,
}


def result_of(job: Job, folders: Folders) -> StoredFile:
    """The picture of a job. Raises NotFoundError if there is none."""
    if not job.result:
        why = "its files were deleted" if job.deleted else f"it is {job.state}"
        raise NotFoundError(f"{printable(job.name)} ({job.short_id}) has no result: {why}")
    return StoredFile.inside(folders.results, job.result)


def file_of(job: Job, folders: Folders, what: JobFile) -> StoredFile:
    """The picture of a job, or a file beside it. Raises NotFoundError if there is none."""
    picture = result_of(job, folders)
    if what == "result":
        return picture
    beside = PurePath(job.result)
    return StoredFile.inside(folders.results, str(beside.with_name(beside.stem + ENDINGS[what])))


def preview_of(job_id: str, folders: Folders) -> StoredFile:
    """The preview of a job that is being painted. Raises NotFoundError if there is none."""
    live = read_live(folders)
    shown = {painting.id: painting.preview for painting in live.paintings} if live else {}
    if not shown.get(job_id):
        raise NotFoundError(
            "there is no preview of this job", remedy="it is shown while a job is painted"
        )
    return StoredFile.inside(folders.results, shown[job_id])


def files_of(job: Job, folders: Folders) -> list[JobFile]:
    """The files of a job that exist; its picture also if the results cannot be read."""
    found: list[JobFile] = []
    names: tuple[JobFile, ...] = ("result", *ENDINGS)
    for what in names if job.result else ():
        try:
            file_of(job, folders, what).status()
        except NotFoundError:
            continue
        except StorageError:  # the folder cannot be read: the picture may exist
            return ["result"]
        found.append(what)
    if not job.state.terminal:
        try:
            preview_of(job.id, folders).status()
        except (NotFoundError, StorageError):
            return found
        found.append("preview")
    return found


def input_of(job: Job, number: int, config: Config, digest: DigestOf) -> StoredFile:
    """An input of a job: in the spool, in the archive, in the library of styles, or the original of a batch.

    Raises:
        NotFoundError: The job has no such input, or its file was removed.
    """
    if not 0 <= number < len(job.inputs):
        raise NotFoundError(
            f"{printable(job.name)} ({job.short_id}) has no input {number}: it has {len(job.inputs)}"
        )
    wanted, folders = job.inputs[number], config.folders
    if not wanted.sha256:
        return _refused(job, wanted, folders)
    for file in _own(job, wanted, folders):
        if file.size() == wanted.size:
            return file
    for file in _others(job, wanted, config):
        if (
            file.size() == wanted.size
            and digest(file, files.fingerprint(file.status())) == wanted.sha256
        ):
            return file
    raise _not_kept(job, wanted)


def folders_with_inputs(job: Job, config: Config) -> list[Path]:
    """The folders that are searched for the inputs of a job by their contents, the likely ones first."""
    folders = config.folders
    own = [folders.spool / job.id]
    if job.archive:
        own.insert(
            0, (folders.done if job.state is JobState.DONE else folders.failed) / job.archive
        )
    if job.batch and job.batch.content:
        own.append(Path(job.batch.content))
    if job.source == "batch":
        own.append(folders.batches / job.group)
    return [*own, folders.styles, *input_places(config)]


def _own(job: Job, wanted: JobInput, folders: Folders) -> Iterator[StoredFile]:
    """Where the daemon keeps the input."""
    if job.archive:
        root = folders.done if job.state is JobState.DONE else folders.failed
        yield StoredFile(root, f"{job.archive}/{wanted.spooled}")
    yield StoredFile(folders.spool, f"{job.id}/{wanted.spooled}")


def _others(job: Job, wanted: JobInput, config: Config) -> Iterator[StoredFile]:
    """Files that may have the contents of the input: originals and uploads of its batch, and styles of the library."""
    folders = config.folders
    if job.batch and job.batch.content and wanted.role is Role.CONTENT:
        path = Path(job.batch.content)
        for root in config.batch_roots:
            if path.is_relative_to(root):
                yield StoredFile(root, str(path.relative_to(root)))
    if job.source == "batch":
        for path in (folders.batches / job.group).glob("*/*/*"):
            yield StoredFile(folders.batches, str(path.relative_to(folders.batches)))
    for style in list_styles(folders.styles, config.limits.max_bytes).values():
        for picture in style.pictures:
            if picture.fingerprint.size == wanted.size:
                yield StoredFile(folders.styles, picture.path)


def _refused(job: Job, wanted: JobInput, folders: Folders) -> StoredFile:
    """An input that was moved as it was. One with a second name may be of another user: it is not shown."""
    for file in _own(job, wanted, folders):
        with suppress(NotFoundError, StorageError):
            if file.status().st_nlink == 1:
                return file
    raise _not_kept(job, wanted)


def _not_kept(job: Job, wanted: JobInput) -> NotFoundError:
    name = f"{printable(job.name)} ({job.short_id})"
    return NotFoundError(f"{printable(wanted.name)} of {name} is not kept any more")


def digest_of(file: StoredFile, version: Fingerprint) -> str:
    """The SHA-256 of a version of a file; "" if it cannot be read any more."""
    try:
        with os.fdopen(file.open(), "rb") as opened:
            return sha256_stream(opened)
    except (NotFoundError, StorageError, OSError):
        return ""
