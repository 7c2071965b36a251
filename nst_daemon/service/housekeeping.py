"""What need not happen in every round: the folders and their free space, retention, the copy of the ledger."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nst_daemon import files
from nst_daemon.errors import StorageError
from nst_daemon.intake import archive
from nst_daemon.intake.batch import SUFFIX
from nst_daemon.intake.drops import SETTINGS_SUFFIXES
from nst_daemon.jobs import JobState
from nst_daemon.ledger_reader import ArchivedJob
from nst_daemon.mounts import free_bytes
from nst_daemon.names import printable
from nst_daemon.ops.batch_submission import SUBMITTING
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.containment import contained, warn
from nst_daemon.service.ledger_copy import LedgerCopy
from nst_daemon.service.state import Moment, State
from nst_daemon.units import count, duration, size

log = logging.getLogger(__name__)

S = JobState
MiB = 1024 * 1024
DAY = 86400.0
#: Nothing is removed by age after the clock was set by more seconds than this.
MOST_DRIFT = 3600.0
#: Jobs whose inputs or history are removed, and jobs that are looked at, in one round.
REMOVALS_A_ROUND, LOOKS_A_ROUND = 25, 2000
_DONE = object()
#: Pictures that are being copied for a batch are kept for so many seconds at least.
COPYING_SECONDS = 3600.0

#: Uploads that were not used for so many days are removed. The page removes them earlier, unless it is switched off.
UPLOADS_DAYS = 2.0


class Housekeeping:
    """Checks the folders, removes what `keep` allows to remove, and has the copy of the ledger renewed."""

    def __init__(self, state: State) -> None:
        self._state = state
        # Not at once: right after a boot the clock may still be wrong.
        self._next_retention = state.began.steady + state.pacing.retention
        #: What is left to do of a look for what has been kept for long enough.
        self._retention: Iterator[None] = iter(())
        #: Whether something expired can be removed at once.
        self.busy = False
        self.ledger_copy = LedgerCopy(state.ledger.path, state.pacing.backup, state.began.steady)
        #: The last job whose archive was looked at, by the states of such jobs.
        self._looked_at: dict[Sequence[JobState], ArchivedJob] = {}

    def check_folders(self) -> None:
        """Raise StorageError if the ledger or a folder is missing."""
        self._state.ledger.check()
        folders = self._state.folders
        for folder in (folders.inbox, folders.results, folders.done, folders.failed, folders.state):
            if not folder.is_dir():
                raise files.missing_folder(folder)

    def check_space(self) -> None:
        """Raise StorageError if there is too little space."""
        folders, least = self._state.folders, self._state.config.limits.min_free_disk
        for folder in (folders.state, folders.results):
            if free_bytes(folder) < least:
                # Without the free space, which changes all the time: the reason is a label of the metrics.
                raise StorageError(
                    f"{folder} has less free space than limits.min_free_disk ({size(least)})",
                    remedy="free some space",
                )

    def retain_when_due(self, now: Moment) -> None:
        """Once an hour begin to do what `retain` does, a portion in each call. Raises StorageError."""
        if now.steady >= self._next_retention:
            self._retention = self._retain(now)
        self.busy = False  # also after an error
        self.busy = next(self._retention, _DONE) is not _DONE

    def retain(self, now: Moment) -> None:
        """Remove archived inputs and forget history as `keep` says; touch only what is the daemon's.

        Raises StorageError.
        """
        for _ in self._retain(now):
            pass

    def _retain(self, now: Moment) -> Iterator[None]:
        """Do it in portions: after a change of `keep` there may be more than a round has time for."""
        self._next_retention = now.steady + self._state.pacing.retention
        began = self._state.began
        drift = (now.wall - began.wall) - (now.steady - began.steady)
        if abs(drift) > MOST_DRIFT:
            log.warning(
                "the clock was set %s by %s: nothing is removed by age until the next start",
                "forward" if drift > 0 else "back",
                duration(abs(drift)),
            )
            return
        keep, folders = self._state.config.keep, self._state.folders
        for days, root, states in (
            (keep.done_days, folders.done, (S.DONE,)),
            (keep.failed_days, folders.failed, (S.FAILED, S.QUARANTINED, S.CANCELLED)),
        ):
            if days is not None:
                yield from self._remove_archives(root, states, now.wall - days * DAY)
        self._remove_uploads(now)
        with contained("uploads", warn(log, "an upload cannot be removed: %s")):
            files.remove_older(folders.uploads, now.wall - UPLOADS_DAYS * DAY)
        if keep.previews_days is not None:
            with contained("previews", warn(log, "a preview cannot be removed: %s")):
                files.remove_older(folders.previews, now.wall - keep.previews_days * DAY)
        if keep.ledger_days is not None:
            yield from self._forget(keep.ledger_days, now.wall - keep.ledger_days * DAY)

    def _remove_archives(
        self, root: Path, states: Sequence[JobState], before: float
    ) -> Iterator[None]:
        ledger, removed = self._state.ledger, 0
        while ended := ledger.ended(
            states, self._looked_at.get(states), before, limit=LOOKS_A_ROUND
        ):
            for one in ended:
                self._looked_at[states] = one
                removed += self._remove_archive(one, root)
                if removed == REMOVALS_A_ROUND:
                    removed = 0
                    yield
            if len(ended) == LOOKS_A_ROUND:
                yield

    def _remove_archive(self, ended: ArchivedJob, root: Path) -> bool:
        """Remove the archive of a job; False if that is not possible, or was done before."""
        with contained(ended.archive, warn(log, "archived inputs cannot be removed: %s")):
            job = archive.is_there(ended.archive, root) and self._state.ledger.get(ended.id)
            if job and archive.prune_archive(job, root):
                job_logger(log, job.name, job.id).info("removed its inputs from %s", root)
                return True
        return False

    def _forget(self, days: float, before: float) -> Iterator[None]:
        forgotten = 0
        while some := self._state.ledger.prune(before, limit=REMOVALS_A_ROUND):
            forgotten += some
            if some == REMOVALS_A_ROUND:
                yield
        if forgotten:
            log.info(
                "removed %s from the history that ended more than %g days ago (keep.ledger_days)",
                count(forgotten, "job"),
                days,
            )

    def _remove_uploads(self, now: Moment) -> None:
        """Remove the pictures that were uploaded for batches which ended more than `keep.done_days` ago."""
        root, days = self._state.folders.batches, self._state.config.keep.done_days
        if not root.is_dir():
            return
        for folder in root.iterdir():
            with contained(folder.name, warn(log, "uploads of a batch cannot be removed: %s")):
                if self._is_open(folder.name):
                    continue
                kept = None if days is None else days * DAY
                if self._was_interrupted(folder):
                    kept = COPYING_SECONDS
                if kept is None:
                    continue
                ended = max(
                    folder.lstat().st_mtime,
                    self._state.ledger.batch_changed(folder.name),
                )
                if ended < now.wall - max(kept, COPYING_SECONDS):
                    files.remove_tree(folder)
                    copied = folder.name.startswith(".")
                    what = "interrupted copy" if copied else "uploads of batch"
                    log.info("removed the %s %s from %s", what, printable(folder.name), root)

    def _was_interrupted(self, folder: Path) -> bool:
        """Whether pictures were copied for a batch whose file has not come into the inbox."""
        if folder.name.startswith("."):
            return True
        submitting = (folder / SUBMITTING).exists()
        return submitting and not self._state.ledger.batch_counts(folder.name)

    def _is_open(self, batch: str) -> bool:
        """Whether the file of a batch is in the inbox, or one of its jobs has not ended."""
        names = (f"{batch}{SUFFIX}{suffix}" for suffix in SETTINGS_SUFFIXES)
        if any(os.path.lexists(self._state.folders.inbox / name) for name in names):
            return True
        return not all(state.terminal for state in self._state.ledger.batch_counts(batch))
