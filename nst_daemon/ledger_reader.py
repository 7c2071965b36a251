"""Reading the ledger and storing requests in it, which any process may do while a daemon is running."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from nst_daemon import rights
from nst_daemon.errors import LedgerError, StorageError, UsageError, first_line
from nst_daemon.jobs import (
    NO_CHANGES,
    BatchCell,
    Changes,
    Fingerprint,
    Job,
    JobInput,
    JobState,
    Role,
)
from nst_daemon.ledger_file import (
    BUSY_SECONDS,
    MIGRATIONS,
    connect_reader,
    other_version,
    translated,
)
from nst_daemon.names import clean_name, printable

# The names of the groups with queued jobs. Each step uses the index `jobs_in_queue`, so that the cost grows with the
# groups and not with the jobs; SQLite does not choose the index for MIN without INDEXED BY.
QUEUED_GROUPS = """
    WITH RECURSIVE groups (name) AS (
        SELECT MIN("group") FROM jobs INDEXED BY jobs_in_queue WHERE state = 'queued'
        UNION ALL
        SELECT (SELECT MIN("group") FROM jobs INDEXED BY jobs_in_queue
                WHERE state = 'queued' AND "group" > groups.name)
        FROM groups WHERE groups.name IS NOT NULL
    )
"""
# Selects the first queued jobs of each group, then orders these.
_QUEUE = f"""
    {QUEUED_GROUPS}
    SELECT jobs.id FROM groups CROSS JOIN jobs LEFT JOIN turns ON turns."group" = groups.name
    WHERE jobs.id IN (
        SELECT id FROM jobs WHERE state = 'queued' AND "group" = groups.name
        ORDER BY priority DESC, created, id LIMIT :limit
    )
    ORDER BY priority DESC, COALESCE(turn, 0), created, jobs.id LIMIT :limit
"""  # noqa: S608 (our own text)

#: The jobs of batches. This index has all that is needed to sum them up; SQLite would choose another one.
BATCHES = "jobs INDEXED BY jobs_by_batch WHERE source = 'batch'"
#: Jobs whose inputs are read together.
_TOGETHER = 1000
#: The values of a parameter that is a JSON list.
_GIVEN = "(SELECT value FROM json_each(?))"
#: The states of jobs that have not ended.
OPEN = tuple(state for state in JobState if not state.terminal)


@dataclass(frozen=True, slots=True)
class ArchivedJob:
    """A job with archived inputs. updated: in seconds since the epoch; archive: below done/ or failed/."""

    id: str
    updated: float
    archive: str


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's history: a change of its state, with the time, the attempt and the reason."""

    at: float
    state: JobState
    attempt: int
    note: str


#: What another process can request for a job.
Verb = Literal["cancel", "retry", "priority", "delete"]


@dataclass(frozen=True, slots=True)
class SteeringRequest:
    """A request of another process. changes: of the job's settings file, for a retry; for "priority" the new one."""

    number: int
    job_id: str
    verb: Verb
    at: float
    changes: Changes = NO_CHANGES


class LedgerReader:
    """An open ledger. Use one instance per thread."""

    def __init__(
        self,
        path: Path,
        *,
        busy_seconds: float = BUSY_SECONDS,
        connect: Callable[[Path, float], sqlite3.Connection] = connect_reader,
    ) -> None:
        self.path = path
        self._db = connect(path, busy_seconds)

    @classmethod
    def attach(cls, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Self:
        """Open the ledger of a daemon, which may be running, to read it and to store requests.

        Raises UsageError if there is none, LedgerError if another version wrote it, and StorageError without the right
        to read it.
        """
        rights.check_member(path)
        with _existing(path):
            ledger = cls(path, busy_seconds=busy_seconds)
        version = ledger._version()
        if version != len(MIGRATIONS):
            ledger.close()
            if version == 0:
                raise LedgerError(
                    f"the ledger {path} is empty",
                    remedy="start the daemon: it restores a damaged ledger",
                )
            raise other_version(path, newer=version > len(MIGRATIONS))
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

    def get(self, job_id: str) -> Job | None:
        """The job with exactly this id."""
        return next(iter(self._select("id = ?", (job_id,))), None)

    def find(self, text: str) -> list[Job]:
        """Jobs whose id begins with `text` or whose name is `text`, newest first."""
        text = text.encode(errors="backslashreplace").decode()  # names in the ledger are UTF-8
        return self._select(
            "name = ? OR (? <> '' AND substr(id, 1, length(?)) = ?)",
            (text, *[text] * 3),
            "created DESC, id",
        )

    def jobs(self, *states: JobState) -> list[Job]:
        """Jobs in these states (in any state if none is given), oldest first."""
        states = states or tuple(JobState)
        return self._select(f"state IN ({marks(states)})", states)

    def history(
        self,
        *states: JobState,
        since: float = 0.0,
        before: float = math.inf,
        name: str = "*",
        limit: int = 100,
    ) -> list[Job]:
        """Jobs by their latest change, newest first; `name` may contain the wildcards * and ?; limit: -1 for all."""
        states = states or tuple(JobState)
        return self._select(
            f"state IN ({marks(states)}) AND updated >= ? AND updated < ? AND name GLOB ?",
            (*states, since, before, name),
            f"updated DESC, id LIMIT {limit:d}",
        )

    def events(self, job_id: str) -> list[JobEvent]:
        """All events of a job, in order."""
        rows = self._read(
            "SELECT at, state, attempt, note FROM events WHERE job = ? ORDER BY number", (job_id,)
        )
        return [JobEvent(at, JobState(state), attempt, note) for at, state, attempt, note in rows]

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state; every state is a key."""
        found = dict(self._read("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        return {state: found.get(state.value, 0) for state in JobState}

    def changed(self) -> float:
        """The latest change of any job, or the latest request; seconds since the epoch, 0.0 if there is none."""
        # One look into the index jobs_by_state for each state; MAX over all jobs would read all of them.
        latest = " UNION ALL ".join(
            ["SELECT MAX(updated) AS at FROM jobs WHERE state = ?"] * len(JobState)
        )
        sql = f"SELECT MAX(at) FROM ({latest} UNION ALL SELECT MAX(at) FROM requests)"  # noqa: S608 (question marks)
        return self._read(sql, tuple(JobState))[0][0] or 0.0

    def oldest(self, *states: JobState) -> float | None:
        """The time at which the oldest job in these states was created; None if there is none."""
        rows = self._read(
            f"SELECT MIN(created) FROM jobs WHERE state IN ({marks(states)})",  # noqa: S608 (question marks)
            states,
        )
        return rows[0][0] if rows else None

    def has_jobs_in(self, folder: str) -> bool:
        """Whether there is a job whose files were below a folder of the inbox."""
        prefix = "/".join(map(clean_name, folder.split("/"))) + "/"
        sql = "SELECT 1 FROM jobs WHERE substr(name, 1, length(?)) = ? LIMIT 1"
        return bool(self._read(sql, (prefix, prefix)))

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        return {row[0] for row in self._read("SELECT id FROM jobs")}

    def open_ids(self) -> set[str]:
        """The ids of the jobs that have not ended."""
        rows = self._read(f"SELECT id FROM jobs WHERE state IN ({marks(OPEN)})", OPEN)  # noqa: S608 (question marks)
        return {row[0] for row in rows}

    def next_queued(self) -> Job | None:
        """The next job: by priority, then from the group that was served longest ago, then by age."""
        return next(iter(self.queue(1)), None)

    def queue(self, limit: int) -> list[Job]:
        """The first jobs of the queue in their current order; limit: -1 for all."""
        rows = self._read(_QUEUE, {"limit": limit})
        found = (self.get(row[0]) for row in rows)
        return [job for job in found if job is not None]

    def claimed_before(self, origin: str, fingerprint: Fingerprint) -> Job | None:
        """The job that has already taken this version of a file, whose original could not be removed."""
        rows = self._read(
            "SELECT job FROM inputs WHERE origin = ? AND fingerprint = ? LIMIT 1",
            (os.fsencode(origin), fingerprint_text(fingerprint)),
        )
        return self.get(rows[0][0]) if rows else None

    def unremovable(self) -> dict[str, tuple[str, JobInput]]:
        """The originals that could not be removed from the inbox, each with its job's id, by path."""
        rows = self._read(
            "SELECT inputs.* FROM inputs JOIN jobs ON jobs.id = inputs.job WHERE unremovable ORDER BY jobs.created"
        )
        return {file.origin: (row["job"], file) for row in rows for file in [_input_from_row(row)]}

    def alike(self, identity: str) -> list[Job]:
        """Jobs with the same picture (see `identity.picture_identity`), newest first."""
        return self._select("identity = ? AND identity <> ''", (identity,), "created DESC, id")

    def with_partial_settings(self) -> list[Job]:
        """Jobs that have not ended and hold only some settings: release 0.1.0 queued them before resolving any."""
        return self._select(
            f"state IN ({marks(OPEN)}) AND json_type(settings, '$.preset') IS NULL AND error = ''",
            OPEN,
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
            f'SELECT state, COUNT(*) FROM {BATCHES} AND "group" = ? GROUP BY state',  # noqa: S608 (our own text)
            (name,),
        )
        return {JobState(state): number for state, number in rows}

    def batch_changed(self, name: str) -> float:
        """The latest change of a job of the batches of this name, in seconds since the epoch; 0.0 without jobs."""
        sql = f'SELECT MAX(updated) FROM {BATCHES} AND "group" = ?'  # noqa: S608 (our own text)
        return self._read(sql, (name,))[0][0] or 0.0

    def batch_has_results(self, name: str) -> bool:
        """Whether a batch of this name has a picture that was not deleted."""
        return bool(
            self._read(
                "SELECT 1 FROM jobs WHERE \"group\" = ? AND source = 'batch' AND result <> '' LIMIT 1",
                (name,),
            )
        )

    def names(self, limit: int = 10_000) -> list[str]:
        """The names of jobs, the latest first."""
        rows = self._read(
            "SELECT name FROM jobs GROUP BY name ORDER BY MAX(created) DESC LIMIT ?", (limit,)
        )
        return [row[0] for row in rows]

    def request(
        self, job_id: str, verb: Verb, *, now: float, changes: Changes = NO_CHANGES
    ) -> None:
        """Ask the daemon to do something with a job; see `request_all`."""
        self.request_all([job_id], verb, now=now, changes=changes)

    def request_all(
        self, job_ids: Iterable[str], verb: Verb, *, now: float, changes: Changes = NO_CHANGES
    ) -> None:
        """Ask the daemon to do something with jobs: all requests are stored, or none.

        A request replaces an equal one before it that the daemon has not handled yet, with the changes of both.

        Args:
            job_ids: The jobs.
            verb: What to do.
            now: Seconds since the epoch.
            changes: For "retry", of the settings file; for "priority", {"priority": N}.

        Raises:
            LedgerError: A job is unknown, or there is no such request.
        """
        if verb not in get_args(Verb):
            raise LedgerError(f"{verb!r} is not a request")
        ids = list(dict.fromkeys(job_ids))
        with self._transaction():
            self._require_all(ids)
            before = {
                job_id: (number, earlier, text)
                for number, job_id, earlier, text in self._read(
                    f"SELECT number, job, verb, changes FROM requests WHERE job IN {_GIVEN} ORDER BY number",  # noqa: S608 (our own text)
                    (json.dumps(ids),),
                )
            }
            equal = {job_id: row for job_id, row in before.items() if row[1] == verb}
            text = _changes_text(changes)
            merged = {
                job_id: _changes_text(Changes.from_json(json.loads(row[2])).then(changes))
                for job_id, row in equal.items()
            }
            self._db.executemany(
                "DELETE FROM requests WHERE number = ?", [row[:1] for row in equal.values()]
            )
            self._db.executemany(
                "INSERT INTO requests (job, verb, at, changes) VALUES (?, ?, ?, ?)",
                [(job_id, verb, now, merged.get(job_id, text)) for job_id in ids],
            )

    def pending_requests(self, job_ids: Sequence[str] | None = None) -> list[SteeringRequest]:
        """Requests that the daemon has not finished yet, in order. job_ids: of these jobs; None for all."""
        where = "TRUE" if job_ids is None else f"job IN ({marks(job_ids)})"
        sql = f"SELECT number, job, verb, at, changes FROM requests WHERE {where} ORDER BY number"  # noqa: S608 (question marks)
        return [_request_from_row(row) for row in self._read(sql, job_ids or ())]

    def pending_verbs(self, job_ids: Sequence[str] | None = None) -> list[tuple[str, Verb]]:
        """The jobs and verbs of `pending_requests`, without reading the changes."""
        if job_ids is None:
            return list(map(tuple, self._read("SELECT job, verb FROM requests ORDER BY number")))
        sql = f"SELECT job, verb FROM requests WHERE job IN {_GIVEN} ORDER BY number"  # noqa: S608 (our own text)
        return list(map(tuple, self._read(sql, (json.dumps(list(job_ids)),))))

    def first_requests(
        self, verbs: Sequence[Verb], *, after: int, limit: int
    ) -> list[SteeringRequest]:
        """Requests that come before all other requests of the same job, in order.

        Args:
            verbs: Only these.
            after: Only those with a higher number.
            limit: The most.
        """
        rows = self._read(
            f"""
            SELECT number, job, verb, at, changes FROM requests
            WHERE number > ? AND verb IN ({marks(verbs)}) AND NOT EXISTS (
                SELECT 1 FROM requests AS earlier
                WHERE earlier.job = requests.job AND earlier.number < requests.number
            )
            ORDER BY number LIMIT ?
            """,  # noqa: S608 (question marks)
            (after, *verbs, limit),
        )
        return [_request_from_row(row) for row in rows]

    def has_requests(self) -> bool:
        """Whether there is a request that the daemon has not finished yet."""
        return bool(self._read("SELECT 1 FROM requests LIMIT 1"))

    # Inside

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; durable at the end. Other processes wait for their turn.

        A transaction inside of another is a part of it.
        """
        inside = self._db.in_transaction
        if inside:
            yield
            return
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
        inputs: dict[str, list[JobInput]] = {}
        with _parsed(self.path):
            for begin in range(0, len(rows), _TOGETHER):
                ids = json.dumps([row["id"] for row in rows[begin : begin + _TOGETHER]])
                sql = f"SELECT * FROM inputs WHERE job IN {_GIVEN} ORDER BY job, position"  # noqa: S608 (our own text)
                for row in self._read(sql, (ids,)):
                    inputs.setdefault(row["job"], []).append(_input_from_row(row))
            return [_from_row(row, tuple(inputs.get(row["id"], ()))) for row in rows]

    def _inputs(self, job_id: str) -> tuple[JobInput, ...]:
        rows = self._read("SELECT * FROM inputs WHERE job = ? ORDER BY position", (job_id,))
        return tuple(_input_from_row(row) for row in rows)

    def _require(self, job_id: str) -> Job:
        job = self.get(job_id)
        if job is None:
            raise LedgerError(f"there is no job {job_id}")
        return job

    def _require_all(self, job_ids: Sequence[str]) -> None:
        unknown = f"SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM jobs WHERE id IN {_GIVEN})"  # noqa: S608 (our own text)
        listed = json.dumps(job_ids)
        for row in self._read(f"{unknown} LIMIT 1", (listed, listed)):
            raise LedgerError(f"there is no job {row[0]}")

    def _version(self) -> int:
        return int(self._read("PRAGMA user_version")[0][0])


def _request_from_row(row: sqlite3.Row) -> SteeringRequest:
    number, job_id, verb, at, changes = row
    return SteeringRequest(number, job_id, verb, at, Changes.from_json(json.loads(changes)))


def _changes_text(changes: Changes) -> str:
    return json.dumps(asdict(changes))


@contextmanager
def _existing(path: Path) -> Iterator[None]:
    """Raise UsageError if there is no ledger to be opened, or none any more."""
    if not path.exists():
        raise _no_ledger(path)
    try:
        yield
    except StorageError:
        if path.exists():
            raise
        raise _no_ledger(path) from None


def _no_ledger(path: Path) -> UsageError:
    state = printable(str(path.parent))
    if not path.parent.is_dir():
        return UsageError(
            f"there is no {state}, so this is not a root that a daemon serves",
            remedy="change to the folder of its configuration, or name it with --config",
        )
    return UsageError(
        f"no daemon has run here yet, so there are no jobs: {state} has no {path.name}",
        remedy="start one with `nst-daemon run`, or name another root's configuration with --config",
    )


def marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def fingerprint_text(fingerprint: Fingerprint | None) -> str:
    """A fingerprint as the ledger keeps it, in the form of SQLite's own JSON functions."""
    return json.dumps(fingerprint, separators=(",", ":"))


@contextmanager
def _parsed(path: Path) -> Iterator[None]:
    """Turn errors about the contents of a row into LedgerError.

    It is not DamagedLedger: SQLite finds no damage, so the next start would not restore the backup.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"the ledger {path} has a row that cannot be read: {first_line(error)}",
            remedy=f"stop the daemon, and replace the file by {path.name}.backup",
        ) from error


def _from_row(row: sqlite3.Row, inputs: tuple[JobInput, ...]) -> Job:
    values = dict(row)
    values["state"] = JobState(row["state"])
    values["settings"] = json.loads(row["settings"])
    values["outputs"] = json.loads(row["outputs"])
    values["staged_files"] = tuple(json.loads(row["staged_files"]))
    values["changes"] = Changes.from_json(json.loads(row["changes"]))
    values["deleted"] = bool(row["deleted"])
    values["batch"] = BatchCell.from_json(json.loads(row["batch"]))
    return Job(inputs=inputs, **values)


def _input_from_row(row: sqlite3.Row) -> JobInput:
    mark = json.loads(row["fingerprint"])
    return JobInput(
        role=Role(row["role"]),
        name=row["name"],
        spooled=row["spooled"],
        sha256=row["sha256"],
        size=row["size"],
        origin=os.fsdecode(row["origin"]),
        fingerprint=None if mark is None else Fingerprint.from_json(mark),
    )
