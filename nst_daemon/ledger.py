"""The ledger: one SQLite file that holds the queue and the history of all jobs.

Each method that changes something is one transaction, durable when it returns (synchronous=FULL). Only the daemon
moves jobs; any other process may read at any time, and may leave a request (`request`) that the daemon picks up.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nst_daemon import files
from nst_daemon.errors import LedgerError, StorageError
from nst_daemon.jobs import TRANSITIONS, BatchCell, Fingerprint, Job, JobInput, JobState, Role
from nst_daemon.ledger_file import (
    BUSY_SECONDS,
    MIGRATIONS,
    connect,
    damage_of,
    file_identity,
    replace_damaged,
    replace_missing,
    translated,
    variant,
)

log = logging.getLogger(__name__)

# The first jobs of each group that has any in the queue, and then all of these in order. Each group costs a few steps
# along `jobs_in_queue`, however many jobs it has; SQLite would not choose that index for the minimum by itself.
_QUEUE = """
    WITH RECURSIVE groups (name) AS (
        SELECT MIN("group") FROM jobs INDEXED BY jobs_in_queue WHERE state = 'queued'
        UNION ALL
        SELECT (SELECT MIN("group") FROM jobs INDEXED BY jobs_in_queue
                WHERE state = 'queued' AND "group" > groups.name)
        FROM groups WHERE groups.name IS NOT NULL
    )
    SELECT jobs.id FROM groups CROSS JOIN jobs LEFT JOIN turns ON turns."group" = groups.name
    WHERE jobs.id IN (
        SELECT id FROM jobs WHERE state = 'queued' AND "group" = groups.name
        ORDER BY priority DESC, created, id LIMIT :limit
    )
    ORDER BY priority DESC, COALESCE(turn, 0), created, jobs.id LIMIT :limit
"""

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


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's history: when it came into which state, in which attempt, and why."""

    at: float
    state: JobState
    attempt: int
    note: str


@dataclass(frozen=True, slots=True)
class SteeringRequest:
    """A request of another process: verb is "cancel" or "retry"."""

    number: int
    job_id: str
    verb: str
    at: float


class Ledger:
    """An open ledger. Use `Ledger.open`, and one instance per thread."""

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        #: What was done about a damaged file at opening, for people; "" in the normal case.
        self.repaired = ""
        self._db = connect(path, busy_seconds)
        self._identity = file_identity(path)

    # Opening

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open for the daemon: create, check, migrate, and keep a backup copy beside it (NAME.backup).

        Before a migration from version N a copy is kept as NAME.version-N, with which the older program can go on.
        A damaged file is kept as NAME.damaged-N and replaced by the backup, or by an empty ledger where there is
        no sound one; a file that has gone is replaced where there is a backup. `repaired` then says so, and
        `intake.claim.recover_spool` finds the jobs that it forgot.
        Raises LedgerError for a schema newer than this program, StorageError.
        """
        repaired = ""
        with files.storage(path.parent):
            if not path.exists():
                repaired = replace_missing(path)
            elif damage := damage_of(path):
                repaired = replace_damaged(path, damage)
        ledger = cls(path)
        ledger.repaired = repaired
        version = ledger._version()
        if 0 < version < len(MIGRATIONS):
            ledger.back_up(f"version-{version}")
        ledger._migrate()
        try:
            ledger.back_up()
        except StorageError as error:  # no room: the daemon starts nevertheless, and waits
            log.warning("the backup of the ledger is not new: %s", error)
        return ledger

    @classmethod
    def attach(cls, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Ledger:
        """Open beside a running daemon, to read and to leave requests.

        Raises LedgerError where there is none or another version wrote it.
        """
        if not path.exists():
            raise _no_ledger(path)
        ledger = cls(path, busy_seconds=busy_seconds)
        version = ledger._version()
        if version != len(MIGRATIONS):
            ledger.close()
            if version == 0:  # a daemon is just making it
                raise _no_ledger(path)
            raise LedgerError(
                f"{path} was written by another version of this program",
                remedy="restart the daemon",
            )
        return ledger

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def check(self) -> None:
        """Raise StorageError where the file behind this ledger has gone or been replaced, as by an unmount."""
        with files.storage(self.path):
            identity = file_identity(self.path)
        if identity != self._identity:
            raise StorageError(
                f"there is another file at {self.path}",
                remedy="mount the right folder, or restart the daemon if it was replaced on purpose",
            )

    def back_up(self, suffix: str = "backup") -> None:
        """Keep a consistent copy beside the ledger, replaced atomically. Raises StorageError."""
        backup, temporary = variant(self.path, suffix), variant(self.path, f"{suffix}.part")
        with files.storage(backup):
            temporary.unlink(missing_ok=True)
            with translated(self.path):
                self._db.execute("VACUUM INTO ?", (str(temporary),))
            temporary.replace(backup)
            files.fsync_folder(backup.parent)

    # Changing

    def add(self, job: Job, *, note: str = "") -> None:
        """Enter a new job with its inputs; its state must be `claimed`. Raises LedgerError where the id is known."""
        if job.state is not JobState.CLAIMED:
            raise LedgerError(f"job {job.id} cannot begin as {job.state}")
        with self._transaction():
            if self.get(job.id) is not None:
                raise LedgerError(f"job {job.id} is in the ledger already")
            row = _to_row(job)
            self._db.execute(
                f"INSERT INTO jobs VALUES ({_marks(row)})",  # noqa: S608 (question marks)
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
            self._db.execute("DELETE FROM inputs WHERE job = ?", (job.id,))
            self._add_inputs(again)
            self._event(again, note)
            return again

    def move(self, job_id: str, to: JobState, *, now: float, note: str = "", **changes: Any) -> Job:
        """Move a job to another state and return it as it is then. `now`: seconds since the epoch.

        changes: other fields of Job that change with it. Moving to `running` counts the attempt and the turn of
        its group; moving an ended job back to `queued` forgets attempts, deaths, error and result.
        Raises LedgerError for a move that jobs.TRANSITIONS does not list, an unknown job or field.
        """
        _check_changes(changes)
        with self._transaction():
            job = self._require(job_id)
            if to not in TRANSITIONS[job.state]:
                raise LedgerError(f"job {job.name} ({job.id}) cannot go from {job.state} to {to}")
            if to is JobState.RUNNING:
                changes["attempts"] = job.attempts + 1
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

    def release_due(self, now: float) -> list[Job]:
        """Move every job in `retrying` whose `not_before` has passed to `queued`, and return them."""
        due = self._select("state = ? AND not_before <= ?", (JobState.RETRYING, now))
        return [self.move(job.id, JobState.QUEUED, now=now, note="due again") for job in due]

    def forget(self, job_id: str) -> None:
        """Remove a job and its history: its files are in the inbox again."""
        with self._transaction():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def prune(self, before: float) -> list[Job]:
        """Remove jobs that ended before this time, and return them as they were. before: seconds since the epoch."""
        ended = [state for state in JobState if state.terminal]
        with self._transaction():
            old = self._select(f"updated < ? AND state IN ({_marks(ended)})", (before, *ended))
            self._db.executemany("DELETE FROM jobs WHERE id = ?", [(job.id,) for job in old])
        return old

    # Reading

    def get(self, job_id: str) -> Job | None:
        """The job with exactly this id."""
        return next(iter(self._select("id = ?", (job_id,))), None)

    def find(self, text: str) -> list[Job]:
        """Jobs whose id begins with `text` or whose name is `text`, newest first."""
        return self._select(
            "name = ? OR (? <> '' AND substr(id, 1, length(?)) = ?)",
            (text, *[text] * 3),
            "created DESC, id",
        )

    def jobs(self, *states: JobState) -> list[Job]:
        """Jobs in these states (in any, where none is named), oldest first."""
        states = states or tuple(JobState)
        return self._select(f"state IN ({_marks(states)})", states)

    def history(
        self,
        *states: JobState,
        since: float = 0.0,
        before: float = math.inf,
        name: str = "*",
        limit: int = 100,
    ) -> list[Job]:
        """Jobs by their latest change, newest first; `name` may hold the wildcards * and ?; limit: -1 for all."""
        states = states or tuple(JobState)
        return self._select(
            f"state IN ({_marks(states)}) AND updated >= ? AND updated < ? AND name GLOB ?",
            (*states, since, before, name),
            f"updated DESC, id LIMIT {limit:d}",
        )

    def events(self, job_id: str) -> list[JobEvent]:
        """Everything that happened to a job, in order."""
        rows = self._read(
            "SELECT at, state, attempt, note FROM events WHERE job = ? ORDER BY number", (job_id,)
        )
        return [JobEvent(at, JobState(state), attempt, note) for at, state, attempt, note in rows]

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state; every state is a key."""
        found = dict(self._read("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        return {state: found.get(state.value, 0) for state in JobState}

    def oldest(self, *states: JobState) -> float | None:
        """When the oldest of the jobs in these states was created; None where there is none."""
        rows = self._read(
            f"SELECT MIN(created) FROM jobs WHERE state IN ({_marks(states)})",  # noqa: S608 (question marks)
            states,
        )
        return rows[0][0] if rows else None

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        return {row[0] for row in self._read("SELECT id FROM jobs")}

    def next_queued(self) -> Job | None:
        """The job whose turn it is: highest priority, then the group served longest ago, then the oldest."""
        return next(iter(self.queue(1)), None)

    def queue(self, limit: int) -> list[Job]:
        """The first jobs in the queue as it is ordered now; `limit`: so many, -1 for all."""
        rows = self._read(_QUEUE, {"limit": limit})
        found = (self.get(row[0]) for row in rows)
        return [job for job in found if job is not None]

    def claimed_before(self, origin: str, fingerprint: Fingerprint) -> Job | None:
        """The job that took exactly this version of this file already (its original could not be removed)."""
        rows = self._read(
            "SELECT job FROM inputs WHERE origin = ? AND fingerprint = ? LIMIT 1",
            (os.fsencode(origin), json.dumps(fingerprint)),
        )
        return self.get(rows[0][0]) if rows else None

    def alike(self, identity: str) -> list[Job]:
        """Jobs whose picture is the same (`identity.picture_identity`), newest first."""
        return self._select("identity = ? AND identity <> ''", (identity,), "created DESC, id")

    def with_partial_settings(self) -> list[Job]:
        """Jobs that have not ended and hold only some settings: release 0.1.0 queued them before resolving any."""
        waiting = [state for state in JobState if not state.terminal]
        return self._select(
            f"state IN ({_marks(waiting)}) AND json_type(settings, '$.preset') IS NULL AND error = ''",
            waiting,
        )

    def batch(self, name: str, *, since: float = 0.0) -> list[Job]:
        """The jobs of the batches of this name that were created since, oldest first."""
        return self._select("\"group\" = ? AND source = 'batch' AND created >= ?", (name, since))

    def batch_weights(self, name: str) -> dict[str, str]:
        """The digest of the weights that each picture of the batches of this name was painted with, by job name."""
        rows = self._read(
            "SELECT name, weights FROM jobs WHERE \"group\" = ? AND source = 'batch' AND state = 'done' "
            "ORDER BY created",
            (name,),
        )
        return dict(tuple(row) for row in rows)

    def batch_counts(self, name: str) -> dict[JobState, int]:
        """How many jobs of the batches of this name are in each state."""
        rows = self._read(
            "SELECT state, COUNT(*) FROM jobs WHERE \"group\" = ? AND source = 'batch' GROUP BY state",
            (name,),
        )
        return {JobState(state): number for state, number in rows}

    # Steering, from other processes

    def request(self, job_id: str, verb: str, *, now: float) -> None:
        """Ask the daemon to "cancel" or "retry" a job. Raises LedgerError for another verb or an unknown job."""
        if verb not in {"cancel", "retry"}:
            raise LedgerError(f"{verb!r} is not a request")
        with self._transaction():
            self._require(job_id)
            self._db.execute(
                "INSERT INTO requests (job, verb, at) VALUES (?, ?, ?)", (job_id, verb, now)
            )

    def pending_requests(self) -> list[SteeringRequest]:
        """Requests that nobody has finished yet, in order."""
        rows = self._read("SELECT number, job, verb, at FROM requests ORDER BY number")
        return [SteeringRequest(*row) for row in rows]

    def finish_request(self, number: int) -> None:
        """Remove a request, after what it asked for is in the ledger."""
        with self._transaction():
            self._db.execute("DELETE FROM requests WHERE number = ?", (number,))

    # Inside

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; durable at the end. Other processes wait for their turn."""
        with translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _read(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        with translated(self.path):
            return self._db.execute(query, values).fetchall()

    def _select(self, where: str, values: Sequence[Any], order: str = "created, id") -> list[Job]:
        rows = self._read(f"SELECT * FROM jobs WHERE {where} ORDER BY {order}", values)  # noqa: S608 (our own text)
        return [_from_row(row, self._inputs(row["id"])) for row in rows]

    def _inputs(self, job_id: str) -> tuple[JobInput, ...]:
        rows = self._read("SELECT * FROM inputs WHERE job = ? ORDER BY position", (job_id,))
        return tuple(_input_from_row(row) for row in rows)

    def _require(self, job_id: str) -> Job:
        job = self.get(job_id)
        if job is None:
            raise LedgerError(f"there is no job {job_id}")
        return job

    def _add_inputs(self, job: Job) -> None:
        self._db.executemany(
            "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(job.id, position, *_input_row(file)) for position, file in enumerate(job.inputs)],
        )

    def _update(self, job: Job) -> None:
        row = _to_row(job)
        names = ", ".join(f'"{name}" = :{name}' for name in row)
        self._db.execute(f"UPDATE jobs SET {names} WHERE id = :id", row)  # noqa: S608 (our own names)

    def _event(self, job: Job, note: str) -> None:
        self._db.execute(
            "INSERT INTO events (job, at, state, attempt, note) VALUES (?, ?, ?, ?, ?)",
            (job.id, job.updated, job.state, job.attempts, note),
        )

    def _take_turn(self, group: str) -> None:
        self._db.execute(
            "INSERT INTO turns VALUES (?, (SELECT COALESCE(MAX(turn), 0) + 1 FROM turns)) "
            'ON CONFLICT ("group") DO UPDATE SET turn = excluded.turn',
            (group,),
        )

    def _version(self) -> int:
        return int(self._read("PRAGMA user_version")[0][0])

    def _migrate(self) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"{self.path} was written by a newer version of this program",
                remedy="upgrade this one",
            )
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            with translated(self.path):
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
                )


def _no_ledger(path: Path) -> LedgerError:
    return LedgerError(
        f"there is no ledger at {path}",
        remedy="start the daemon once, or name its configuration",
    )


def _check_changes(changes: Mapping[str, Any]) -> None:
    unknown = changes.keys() - _CHANGEABLE
    if unknown:
        raise LedgerError(f"{', '.join(sorted(unknown))} cannot be changed in the ledger")


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


# Rows


def _to_row(job: Job) -> dict[str, Any]:
    """A job's columns, in the order of the table."""
    row = {field.name: getattr(job, field.name) for field in fields(Job) if field.name != "inputs"}
    return row | {
        "settings": json.dumps(dict(job.settings)),
        "staged_files": json.dumps(job.staged_files),
        "batch": json.dumps(job.batch and asdict(job.batch)),
    }


def _from_row(row: sqlite3.Row, inputs: tuple[JobInput, ...]) -> Job:
    values = dict(row)
    values["state"] = JobState(row["state"])
    values["settings"] = json.loads(row["settings"])
    values["staged_files"] = tuple(json.loads(row["staged_files"]))
    values["batch"] = BatchCell.from_json(json.loads(row["batch"]))
    return Job(inputs=inputs, **values)


def _input_row(file: JobInput) -> tuple[Any, ...]:
    # Paths may hold bytes that are not UTF-8, hence a BLOB.
    origin, mark = os.fsencode(file.origin), json.dumps(file.fingerprint)
    return file.role, file.name, file.spooled, file.sha256, file.size, origin, mark


def _input_from_row(row: sqlite3.Row) -> JobInput:
    mark = json.loads(row["fingerprint"])
    return JobInput(
        role=Role(row["role"]),
        name=row["name"],
        spooled=row["spooled"],
        sha256=row["sha256"],
        size=row["size"],
        origin=os.fsdecode(row["origin"]),
        fingerprint=None if mark is None else Fingerprint(*mark),
    )
