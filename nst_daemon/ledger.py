"""The ledger: one SQLite file that holds the queue and the history of all jobs.

Each method that changes something is one transaction, durable when it returns (synchronous=FULL). Only the daemon
moves jobs; any other process may read at any time, and may leave a request (`request`) that the daemon picks up.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from nst_daemon import files
from nst_daemon.errors import LedgerError, StorageError
from nst_daemon.jobs import TRANSITIONS, Fingerprint, Job, JobInput, JobState
from nst_daemon.ledger_file import (
    BUSY_SECONDS,
    MIGRATIONS,
    back_up,
    connect,
    create,
    damage_of,
    file_identity,
    migrate,
    replace_damaged,
    replace_missing,
    set_journal_mode,
    share,
    take_over,
)
from nst_daemon.ledger_reader import ArchivedJob, LedgerReader, fingerprint_text, marks
from nst_daemon.names import printable

log = logging.getLogger(__name__)

#: Fields of Job that `move` and `note` may change; the rest is settled when the job is added.
_CHANGEABLE = frozenset(
    {
        "name",
        "settings",
        "priority",
        "attempts",
        "deaths",
        "not_before",
        "error",
        "result",
        "staged_files",
        "staged_sha256",
        "archive",
        "changes",
        "deleted",
    }
)
#: What is reset when an ended job goes back to the queue.
_FRESH: Mapping[str, object] = {
    "attempts": 0,
    "deaths": 0,
    "not_before": 0.0,
    "error": "",
    "result": "",
    "staged_files": (),
    "staged_sha256": "",
}


class Ledger(LedgerReader):
    """The daemon's ledger. Use `Ledger.open`."""

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        super().__init__(path, busy_seconds=busy_seconds, connect=connect)
        #: What was done about a damaged file at opening, for people; "" in the normal case.
        self.repaired = ""
        self._identity = file_identity(path)

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open for the daemon: create, check and migrate. `ledger_file.back_up` keeps a copy beside it (NAME.backup).

        Before a migration from version N a copy is kept as NAME.version-N, with which the older program can continue.
        A damaged file is kept as NAME.damaged-N and replaced by the backup, or by an empty ledger where there is
        no sound one; a file that has gone is replaced where there is a backup. `repaired` then says so, and
        `intake.claim.recover_spool` finds the jobs that it forgot.
        Raises LedgerError for a schema newer than this program, StorageError.
        """
        repaired = ""
        with files.storage(path.parent):
            take_over(path)
            if not path.exists():
                repaired = replace_missing(path)
            elif damage := damage_of(path):
                repaired = replace_damaged(path, damage)
            if path.exists() and path.stat().st_size:
                set_journal_mode(path)
            else:
                create(path)
        ledger = cls(path)
        try:
            share(path)
            ledger.repaired = repaired
            version = ledger._version()
            if 0 < version < len(MIGRATIONS):
                back_up(path, f"version-{version}")
            migrate(ledger._db, path)
        except BaseException:
            ledger.close()  # without the open transaction of a failed migration
            raise
        return ledger

    def check(self) -> None:
        """Raise StorageError if the file behind this ledger is missing or was replaced, as by an unmount."""
        with files.storage(self.path):
            identity = file_identity(self.path)
        if identity != self._identity:
            raise StorageError(
                f"the ledger {self.path} has been replaced by another file",
                remedy="mount the right folder; if you replaced it on purpose, restart the daemon",
            )

    def add(self, job: Job, *, note: str = "") -> None:
        """Enter a new job with its inputs; its state must be `claimed`. Raises LedgerError if the id is known."""
        if job.state is not JobState.CLAIMED:
            raise LedgerError(f"job {job.id} cannot begin as {job.state}")
        with self._transaction():
            if self.get(job.id) is not None:
                raise LedgerError(f"job {job.id} is in the ledger already")
            row = _to_row(job)
            self._db.execute(
                f"INSERT INTO jobs VALUES ({marks(row)})",  # noqa: S608 (question marks)
                tuple(row.values()),
            )
            self._add_inputs(job)
            self._event(job, note or job.error)

    def readmit(self, job: Job, *, now: float, note: str) -> Job:
        """Send an ended job back to the queue as it was admitted again: with new inputs, settings and identity.

        Its archive stays as it is in the ledger. Raises LedgerError for a job that is unknown or has not ended.
        """
        with self._transaction():
            before = self._require(job.id)
            if JobState.QUEUED not in TRANSITIONS[before.state] or not before.state.terminal:
                raise LedgerError(
                    f"job {job.name} ({job.id}) cannot be readmitted from {before.state}"
                )
            again = replace(
                job,
                state=JobState.QUEUED,
                created=before.created,
                updated=now,
                archive=before.archive,
            )
            self._update(again)
            staying = self._read(
                "SELECT fingerprint, job, origin FROM inputs WHERE job = ? AND unremovable",
                (job.id,),
            )
            self._db.execute("DELETE FROM inputs WHERE job = ?", (job.id,))
            self._add_inputs(again)
            # Originals that are still in the inbox are not to be taken for new drops.
            self._db.executemany(
                "UPDATE inputs SET fingerprint = ?, unremovable = TRUE WHERE job = ? AND origin = ?",
                [tuple(row) for row in staying],
            )
            self._event(again, note)
            return again

    def move(self, job_id: str, to: JobState, *, now: float, note: str = "", **changes: Any) -> Job:
        """Move a job to another state and return it as it is then. `now`: seconds since the epoch.

        changes: other fields of Job that change with it. Moving to `running` counts the turn of its group, and the
        attempt unless `attempts` is given; moving an ended job back to `queued` forgets attempts, deaths, error and
        result.
        Raises LedgerError for a move that jobs.TRANSITIONS does not list, an unknown job or field.
        """
        _check_changes(changes)
        with self._transaction():
            job = self._require(job_id)
            if to not in TRANSITIONS[job.state]:
                raise LedgerError(f"job {job.name} ({job.id}) cannot go from {job.state} to {to}")
            if to is JobState.RUNNING:
                changes.setdefault("attempts", job.attempts + 1)
                self._take_turn(job.group)
            elif job.state.terminal:
                changes = {**_FRESH, **changes}
            moved = replace(job, state=to, updated=now, **changes)
            self._update(moved)
            self._event(moved, note or str(changes.get("error", "")))
            return moved

    def note(self, job_id: str, *, now: float, note: str = "", **changes: Any) -> Job:
        """Change fields of a job without moving it; an event tells why where `note` does.

        Raises LedgerError for an unknown job or field.
        """
        _check_changes(changes)
        with self._transaction():
            changed = replace(self._require(job_id), updated=now, **changes)
            self._update(changed)
            if note:
                self._event(changed, note)
            return changed

    def forget(self, job_id: str) -> None:
        """Remove a job and its history: its files are in the inbox again."""
        with self._transaction():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def prune(self, before: float, *, limit: int) -> int:
        """Remove the oldest jobs that ended before this time, and return how many.

        Jobs whose originals cannot be removed from the inbox stay, or the originals would be new drops.

        Args:
            before: seconds since the epoch.
            limit: the most jobs.
        """
        ended = [state for state in JobState if state.terminal]
        with self._transaction():
            gone = self._db.execute(
                f"DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE updated < ? AND state IN ({marks(ended)}) "  # noqa: S608 (question marks)
                "AND id NOT IN (SELECT job FROM inputs WHERE unremovable) ORDER BY updated, id LIMIT ?)",
                (before, *ended, limit),
            )
        return gone.rowcount

    def not_archived(self) -> list[Job]:
        """The jobs that have ended without a picture, and whose inputs are not in failed/ yet."""
        ended = (JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED)
        return self._select(f"state IN ({marks(ended)}) AND archive = '' AND NOT deleted", ended)

    def ended(
        self, states: Sequence[JobState], after: ArchivedJob | None, before: float, *, limit: int
    ) -> list[ArchivedJob]:
        """Jobs with archived inputs in these states, by the time of their latest change, oldest first.

        Args:
            states: Of ended jobs.
            after: The last job of the part before; None for the first part.
            before: Seconds since the epoch.
            limit: The most jobs.
        """
        last = after or ArchivedJob("", -math.inf, "")
        rows = self._read(
            f"SELECT id, updated, archive FROM jobs WHERE state IN ({marks(states)}) AND archive <> '' "  # noqa: S608 (question marks)
            "AND updated >= ? AND (updated, id) > (?, ?) AND updated < ? ORDER BY updated, id LIMIT ?",
            (*states, last.updated, last.updated, last.id, before, limit),
        )
        return [ArchivedJob(*row) for row in rows]

    def mark_unremovable(self, job_id: str, origins: Collection[str]) -> None:
        """Note which originals of a job are still in the inbox because they cannot be removed."""
        with self._transaction():
            self._db.execute(
                f"UPDATE inputs SET unremovable = origin IN ({marks(origins)}) WHERE job = ?",  # noqa: S608 (question marks)
                (*map(os.fsencode, origins), job_id),
            )

    def recognise(self, job_id: str, origin: str, fingerprint: Fingerprint) -> None:
        """Note that an original that cannot be removed has another fingerprint now."""
        with self._transaction():
            self._db.execute(
                "UPDATE inputs SET fingerprint = ? WHERE job = ? AND origin = ?",
                (fingerprint_text(fingerprint), job_id, os.fsencode(origin)),
            )

    def together(self) -> AbstractContextManager[None]:
        """Make one transaction of all changes inside."""
        return self._transaction()

    def finish_request(self, number: int) -> None:
        """Remove a request, after what it asked for is in the ledger."""
        with self._transaction():
            self._db.execute("DELETE FROM requests WHERE number = ?", (number,))

    def _add_inputs(self, job: Job) -> None:
        self._db.executemany(
            "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, FALSE)",
            [(job.id, position, *_input_row(file)) for position, file in enumerate(job.inputs)],
        )

    def _update(self, job: Job) -> None:
        row = _to_row(job)
        names = ", ".join(f'"{name}" = :{name}' for name in row)
        self._db.execute(f"UPDATE jobs SET {names} WHERE id = :id", row)  # noqa: S608 (our own names)

    def _event(self, job: Job, note: str) -> None:
        self._db.execute(
            "INSERT INTO events (job, at, state, attempt, note) VALUES (?, ?, ?, ?, ?)",
            (job.id, job.updated, job.state, job.attempts, printable(note)),
        )

    def _take_turn(self, group: str) -> None:
        self._db.execute(
            "INSERT INTO turns VALUES (?, (SELECT COALESCE(MAX(turn), 0) + 1 FROM turns)) "
            'ON CONFLICT ("group") DO UPDATE SET turn = excluded.turn',
            (group,),
        )


def _check_changes(changes: Mapping[str, Any]) -> None:
    unknown = changes.keys() - _CHANGEABLE
    if unknown:
        raise LedgerError(f"{', '.join(sorted(unknown))} cannot be changed in the ledger")


def _to_row(job: Job) -> dict[str, Any]:
    """A job's columns, in the order of the table."""
    row = {field.name: getattr(job, field.name) for field in fields(Job) if field.name != "inputs"}
    return row | {
        # A folder's name may hold bytes that are not UTF-8, and SQLite takes none.
        "group": printable(job.group),
        "error": printable(job.error),
        "settings": json.dumps(dict(job.settings)),
        "outputs": json.dumps(dict(job.outputs)),
        "staged_files": json.dumps(job.staged_files),
        "batch": json.dumps(job.batch and asdict(job.batch)),
        "changes": json.dumps(asdict(job.changes)),
    }


def _input_row(file: JobInput) -> tuple[Any, ...]:
    # Paths may hold bytes that are not UTF-8, hence a BLOB.
    origin, mark = os.fsencode(file.origin), fingerprint_text(file.fingerprint)
    return file.role, file.name, file.spooled, file.sha256, file.size, origin, mark
