"""Deletion by request: the files of an ended job are removed, and its row stays in the history.

Each step can be interrupted and repeated. The ledger learns of it last, and of two files of a result the one that says
whose they are is removed last.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from nst_daemon import files
from nst_daemon.digests import sha256_file
from nst_daemon.errors import StorageError
from nst_daemon.intake import archive
from nst_daemon.jobs import Job, JobState
from nst_daemon.names import printable
from nst_daemon.ops.logs import job_logger
from nst_daemon.publishing import KEY_DIGITS, LOSS_PLOT, THUMBNAILS, TIME_LAPSE
from nst_daemon.service.completion import Completion
from nst_daemon.service.previews import Previews
from nst_daemon.service.state import Moment, State

log = logging.getLogger(__name__)

S = JobState
#: The note of the last event of a deleted job.
DELETED = "deleted by request"


class Deletions:
    """Removes the files of ended jobs.

    Args:
        state: What the parts share.
        completion: Has the gallery and contact sheets written again.
        previews: The previews of current paintings.
    """

    def __init__(self, state: State, completion: Completion, previews: Previews) -> None:
        self._state, self._completion, self._previews = state, completion, previews

    def delete(self, job: Job, now: Moment) -> None:
        """Remove the files of an ended job from results/, done/ and failed/; may be called again.

        Files that other jobs or people have put in the place of the job's are left alone. If a file cannot be removed,
        the log names it, and the job keeps it and the rest of its folder.

        Args:
            job: As the ledger has it. Its archive is complete.
            now: The time.

        Raises:
            StorageError: The ledger cannot be changed.
        """
        said = job_logger(log, job.name, job.id)
        ledger = self._state.ledger
        if not job.state.terminal:
            said.warning("only the files of a job that has ended can be deleted")
            ledger.note(job.id, now=now.wall, note="not deleted: it has not ended")
            return
        if job.deleted:
            return
        problems: list[str] = []
        changes: dict[str, object] = {}
        if self._remove_result(job, problems):
            changes["result"] = ""
        inputs_removed = self._remove_inputs(job, problems)
        self._remove_rest(job, problems)
        # A failed job without an archive is archived at the next start, unless it is deleted.
        if inputs_removed and (job.state is S.DONE or not problems):
            changes["archive"] = ""
        for problem in problems:
            said.warning("%s", problem)
        note = f"{DELETED}, except: {'; '.join(problems)}" if problems else DELETED
        ledger.note(job.id, now=now.wall, note=note, deleted=not problems, **changes)
        if not problems:
            said.info("%s", DELETED)
        self._completion.results_changed(job)

    def _remove_result(self, job: Job, problems: list[str]) -> bool:
        """Remove the picture and its other files; whether none of them is left."""
        if not job.result:
            return True
        picture = self._state.folders.results / job.result
        owned = [path for path in _files_of_result(job, picture) if os.path.lexists(path)]
        if not owned:
            if os.path.lexists(picture):
                said = job_logger(log, job.name, job.id)
                said.info("%s is not its picture any more, and stays", printable(str(picture)))
            return True
        removed = _remove_all(owned, problems)
        files.fsync_folder(picture.parent)
        return removed

    def _remove_inputs(self, job: Job, problems: list[str]) -> bool:
        """Remove the inputs from done/ or failed/; whether none of them is left."""
        folders = self._state.folders
        root = folders.done if job.state is S.DONE else folders.failed
        try:
            if archive.prune_archive(job, root):
                files.fsync_folder((root / job.archive).parent)
        except (StorageError, OSError) as error:
            problems.append(_reason(error, root / job.archive))
            return False
        return True

    def _remove_rest(self, job: Job, problems: list[str]) -> None:
        """Remove what only the work needed, the last preview, and the thumbnails of the picture in the gallery."""
        folders = self._state.folders
        rest = [folders.checkpoints / job.id]
        if key := job.staged_sha256[:KEY_DIGITS]:
            rest += (folders.results / THUMBNAILS).glob(f"{key}-*.webp")
        if job.state is not S.DONE and self._is_newest(job):
            rest += filter(None, [self._previews.left_by(job)])
        _remove_all(rest, problems)
        for folder in (folders.spool / job.id, folders.stage / job.id):
            try:
                files.remove_tree(folder)
            except StorageError as error:
                problems.append(_reason(error, folder))

    def _is_newest(self, job: Job) -> bool:
        """Whether no later job has this name, and thus the preview."""
        alike = [other for other in self._state.ledger.find(job.name) if other.name == job.name]
        return alike[0].id == job.id


def _files_of_result(job: Job, picture: Path) -> Iterator[Path]:
    """The files of a result that are the job's, in the order in which they are removed.

    The sidecar says whose they are, and is removed last. Without one the picture counts if it is as it was painted.
    """
    staged = PurePath(job.staged_files[-1] if job.staged_files else picture.name)
    stem = picture.name.removesuffix(staged.suffix)
    sidecar = picture.with_name(f"{stem}.json")
    named = _named_by(sidecar)
    if named != job.id and (named or not _is_as_painted(picture, job)):
        return
    for suffix in (LOSS_PLOT, TIME_LAPSE):
        path = picture.with_name(stem + suffix)
        # "dog.loss.png" with a "dog.loss.json" is the picture of the job "dog.loss", not the curve of "dog".
        if staged.stem + suffix in job.staged_files and not path.with_suffix(".json").exists():
            yield path
    yield picture
    if named:
        yield sidecar


def _named_by(sidecar: Path) -> str | None:
    """The id of the job that a sidecar names; None if there is none, or if it names no job."""
    try:
        return str(json.loads(files.read_file(sidecar))["job"]["id"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_as_painted(picture: Path, job: Job) -> bool:
    try:
        regular = picture.is_file() and not picture.is_symlink()
        return regular and sha256_file(picture) == job.staged_sha256
    except OSError:
        return False


def _remove_all(paths: Sequence[Path], problems: list[str]) -> bool:
    """Remove files until one cannot be removed; whether all of them are gone. What was removed stays removed."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            continue
        except OSError as error:
            problems.append(_reason(error, path))
            return False
    return True


def _reason(error: BaseException, path: Path) -> str:
    cause = error.strerror if isinstance(error, OSError) else str(error)
    return f"{printable(str(path))} cannot be removed: {cause}"
