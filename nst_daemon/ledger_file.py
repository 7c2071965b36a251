"""The ledger's file: the schema, opening and sharing it, and replacing a damaged or missing file by the backup."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nst_daemon import files
from nst_daemon.errors import DamagedLedger, LedgerError, LockedLedger, StorageError
from nst_daemon.mounts import network_file_system

#: The first n of these scripts make version n of the schema. `user_version` is the version of a file.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        source TEXT NOT NULL,
        state TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        settings TEXT NOT NULL,
        "group" TEXT NOT NULL,
        priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        deaths INTEGER NOT NULL,
        not_before REAL NOT NULL,
        error TEXT NOT NULL,
        result TEXT NOT NULL,
        staged_files TEXT NOT NULL,
        staged_sha256 TEXT NOT NULL,
        archive TEXT NOT NULL
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, updated);
    CREATE TABLE inputs (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        role TEXT NOT NULL,
        name TEXT NOT NULL,
        spooled TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        size INTEGER NOT NULL,
        origin BLOB NOT NULL,
        fingerprint TEXT NOT NULL,
        PRIMARY KEY (job, position)
    ) STRICT;
    CREATE INDEX inputs_by_origin ON inputs (origin, fingerprint);
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        at REAL NOT NULL,
        state TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        note TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_job ON events (job);
    CREATE TABLE turns ("group" TEXT PRIMARY KEY, turn INTEGER NOT NULL) STRICT;
    CREATE TABLE requests (
        number INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        verb TEXT NOT NULL,
        at REAL NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE jobs ADD COLUMN identity TEXT NOT NULL DEFAULT '';
    CREATE INDEX jobs_by_identity ON jobs (identity) WHERE identity <> '';
    """,
    """
    CREATE INDEX jobs_in_queue ON jobs ("group", priority DESC, created, id) WHERE state = 'queued';
    """,
    """
    ALTER TABLE jobs ADD COLUMN batch TEXT NOT NULL DEFAULT 'null';
    ALTER TABLE jobs ADD COLUMN weights TEXT NOT NULL DEFAULT '';
    """,
    """
    UPDATE inputs SET fingerprint = json_remove(fingerprint, '$[0]') WHERE json_array_length(fingerprint) = 5;
    ALTER TABLE inputs ADD COLUMN unremovable INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX inputs_unremovable ON inputs (origin) WHERE unremovable;
    """,
    """
    ALTER TABLE jobs ADD COLUMN outputs TEXT NOT NULL DEFAULT '{}';
    """,
    """
    ALTER TABLE jobs ADD COLUMN changes TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE requests ADD COLUMN changes TEXT NOT NULL DEFAULT '{}';
    """,
    """
    CREATE INDEX jobs_by_batch ON jobs ("group", state, created, updated, source) WHERE source = 'batch';
    """,
    """
    ALTER TABLE jobs ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
    """,
    # Lists are found and counted in these indices alone: rows are large.
    """
    CREATE INDEX jobs_by_change ON jobs (updated, id, state, name);
    CREATE INDEX jobs_with_result ON jobs (updated, id, state, name) WHERE result <> '';
    CREATE INDEX jobs_by_group ON jobs ("group", updated, id, state, name);
    DROP INDEX jobs_by_state;
    CREATE INDEX jobs_by_state ON jobs (state, updated, id);
    CREATE INDEX jobs_by_style ON jobs (json_extract(batch, '$.style'), id) WHERE batch <> 'null';
    CREATE INDEX inputs_by_style ON inputs (name, job) WHERE role = 'style';
    CREATE INDEX requests_by_job ON requests (job);
    """,
    # A batch file that was refused is no picture of its batch.
    """
    UPDATE jobs SET source = 'batch-file'
    WHERE source = 'batch' AND id IN (SELECT job FROM inputs WHERE role = 'batch');
    CREATE INDEX batch_files ON jobs (name, state, created, updated, id, deleted) WHERE source = 'batch-file';
    """,
)

#: The tables of every version.
TABLES = frozenset({"jobs", "inputs", "events", "turns", "requests"})
#: No database is smaller.
HEADER_BYTES = 100
#: Primary result codes of SQLite.
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
#: Time limit in seconds for another process to finish its transaction.
BUSY_SECONDS = 10.0


def connect(
    path: Path, busy_seconds: float = BUSY_SECONDS, *, unchanged: bool = False
) -> sqlite3.Connection:
    """Open the file, which must exist.

    Args:
        path: The ledger.
        busy_seconds: How long a call waits for other processes.
        unchanged: Read the file alone, without its log and without locks.

    Raises:
        LedgerError: The file is damaged.
        StorageError: The file cannot be opened.
    """
    with translated(path):
        name = path.absolute().as_uri() + ("?immutable=1" if unchanged else "?mode=rw")
        database = sqlite3.connect(name, uri=True, timeout=busy_seconds, isolation_level=None)
        database.row_factory = sqlite3.Row
        # SQLite's own functions ignore the case of ASCII letters only.
        database.create_function("casefold", 1, str.casefold, deterministic=True)
        if not unchanged:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA foreign_keys = ON")
    return database


def connect_reader(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the file for a user who may be unable to create files beside it. Raises LedgerError, StorageError."""
    may_create = os.access(path.parent, os.W_OK) or network_file_system(path.parent)
    # SQLite has to create a log to read a ledger without one. Such a ledger is not open in a daemon.
    return connect(
        path, busy_seconds, unchanged=not may_create and not side_files(path)[0].exists()
    )


def create(path: Path) -> None:
    """Make a new ledger. It gets its name when it is complete, so that no process sees a part of it.

    Raises LedgerError, StorageError.
    """
    path = path.resolve()  # a link stays
    new = variant(path, "new")
    with files.storage(path):
        # They come from an interrupted call, or belong to a ledger that has gone.
        for part in (new, *side_files(new), *side_files(path)):
            part.unlink(missing_ok=True)
        new.touch()
        with closing(connect(new)) as database:
            migrate(database, new)
        # WAL comes last: with it, the tables would be in another file if the disk became full.
        set_journal_mode(new)
        files.share(new)
        new.rename(path)
        files.fsync_folder(path.parent)


def set_journal_mode(path: Path) -> None:
    """Set WAL, or the rollback journal on network file systems: they lack the shared memory that WAL needs.

    The mode is stored in the file. Only for the holder of the root's lock. Raises LedgerError, StorageError.
    """
    mode = "delete" if network_file_system(path.parent) else "wal"
    with translated(path), closing(connect(path)) as database:
        (current,) = database.execute("PRAGMA journal_mode").fetchone()
        if current == mode:
            return
        # SQLite waits for other processes to get a lock, but not to change the mode, so the lock comes first.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("COMMIT")
        database.execute(f"PRAGMA journal_mode = {mode}")


def migrate(database: sqlite3.Connection, path: Path) -> None:
    """Bring a ledger to the newest version, all steps in one transaction.

    Raises LedgerError if it is of a newer version, StorageError.
    """
    with translated(path):
        (version,) = database.execute("PRAGMA user_version").fetchone()
        newest = len(MIGRATIONS)
        if version > newest:
            raise other_version(path, newer=True)
        if version < newest:
            steps = "; ".join(MIGRATIONS[version:])
            database.executescript(
                f"BEGIN IMMEDIATE; {steps}; PRAGMA user_version = {newest}; COMMIT;"
            )


def file_identity(path: Path) -> tuple[int, int]:
    """Device and inode. They change if another file takes this file's place."""
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of sqlite3 into DamagedLedger for damage, LockedLedger, and StorageError for disks and rights.

    Errors about a value, such as one that is too large, are not changed: they concern one job.
    """
    try:
        yield
    except (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # Python's own: a text is not UTF-8
            raise _damaged(path, error) from error
        if code & 0xFF in _LOCKED:
            raise LockedLedger(
                f"the ledger {path} is locked by another process", remedy="try again in a moment"
            ) from error
        raise StorageError(
            f"the ledger {path} cannot be used: {error}",
            remedy="check free space, rights and the mount",
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: sqlite3.Error) -> DamagedLedger:
    return DamagedLedger(
        f"the ledger {path} is damaged: {error}", remedy="restart the daemon: it restores it"
    )


def other_version(path: Path, *, newer: bool) -> LedgerError:
    """The error for a ledger of a newer or an older version."""
    which, remedy = ("a newer", "upgrade this one") if newer else ("an older", "restart the daemon")
    return LedgerError(f"{path} was written by {which} version of this program", remedy=remedy)


def damage_of(path: Path) -> str:
    """What is wrong with an existing ledger file; "" if it is not damaged or does not exist.

    Raises StorageError if that cannot be told, because the file is locked or the disk or the rights prevent it.
    """
    if not path.exists():
        return ""
    if path.stat().st_size < HEADER_BYTES and variant(path, "backup").exists():
        return "the file is empty"  # as a power cut may leave it; to SQLite it is a new file
    try:
        with translated(path), closing(connect(path)) as database:
            return _problems(database)
    except DamagedLedger as error:
        return str(error.__cause__)
    except StorageError as error:
        cause = error.__cause__
        # SQLite's general error means here that the format or the schema is unknown.
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            return str(cause)
        raise
    except UnicodeDecodeError:  # of a message of SQLite that quotes the schema
        return "its schema is not text"


def _problems(database: sqlite3.Connection) -> str:
    """What the version, the names of the tables and SQLite's check show; "" for nothing. Raises errors of sqlite3."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version < 0:
        return f"its version is {version}"
    if version > len(MIGRATIONS):
        return ""  # its schema is unknown here, and `migrate` refuses it
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_schema")}
    if version and (missing := TABLES - tables):
        return f"it has no table {min(missing)}"
    ((problem,),) = database.execute("PRAGMA integrity_check(1)")
    return "" if problem == "ok" else str(problem)


def back_up(path: Path, suffix: str = "backup") -> None:
    """Keep a consistent copy beside the ledger, which may be in use, replaced atomically. Raises StorageError."""
    backup, temporary = variant(path, suffix), variant(path, f"{suffix}.part")
    with files.storage(backup):
        temporary.unlink(missing_ok=True)
        with translated(path), closing(connect(path)) as database:
            database.execute("VACUUM INTO ?", (str(temporary),))
        files.share(temporary)
        temporary.replace(backup)
        files.fsync_folder(backup.parent)


def replace_damaged(path: Path, damage: str) -> str:
    """Keep the damaged file under another name and put the backup in its place. Returns what was done, as text."""
    kept = next(
        p for p in (variant(path, f"damaged-{n}") for n in itertools.count(1)) if not p.exists()
    )
    # The ledger itself comes last, so that an interrupted call is repeated at the next start.
    for part, aside in zip((*side_files(path), path), (*side_files(kept), kept), strict=True):
        if part.exists():
            part.rename(aside)
    return f"the ledger was damaged ({damage}) and was renamed to {kept.name}; {_restore(path)}"


def replace_missing(path: Path) -> str:
    """Put the backup in the place of a missing ledger. Returns what was done; "" if there was never a ledger."""
    if not variant(path, "backup").exists():
        return ""
    # They belong to the missing file. With another file they would damage it.
    for part in side_files(path):
        part.unlink(missing_ok=True)
    return f"the ledger was missing; {_restore(path)} (to begin a new ledger, remove both files)"


def side_files(path: Path) -> tuple[Path, Path, Path]:
    """The files that SQLite keeps while the ledger is open, or leaves after a crash: -wal, -shm and -journal."""
    wal, shm, journal = (path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))
    return wal, shm, journal


def take_over(path: Path) -> None:
    """Replace side files that this user cannot write to by copies. Only for the holder of the root's lock.

    Commands of other users leave them if they are killed. SQLite gives side files the mode of the ledger, so such
    files come from a ledger that was not shared with the group, or from a folder that is not setgid. Raises OSError.
    """
    wal, shm, journal = side_files(path)
    for part in (wal, journal):
        if part.exists() and not os.access(part, os.W_OK):
            copy = part.with_name(f"{part.name}.part")
            copy.unlink(missing_ok=True)
            if part.stat().st_size:
                shutil.copyfile(part, copy)
                files.fsync_file(copy)
                copy.replace(part)
            else:
                part.unlink()
    if shm.exists() and not os.access(shm, os.W_OK):
        shm.unlink()  # SQLite makes it again from -wal


def share(path: Path) -> None:
    """Give the group of the state folder the folder's rights to the ledger, so that its members can leave requests.

    SQLite creates a ledger with mode 644, and gives the ledger's mode to the side files. Raises StorageError.
    """
    with files.storage(path):
        for part in (path, *side_files(path)):
            if part.exists():
                files.share(part)


def _restore(path: Path) -> str:
    """Copy the backup to the place of the ledger, if it is not damaged. Returns what was done, as text."""
    backup = variant(path, "backup")
    sound = backup.exists() and not damage_of(backup)
    if sound:
        temporary = variant(path, "restored")
        shutil.copyfile(backup, temporary)
        temporary.rename(path)  # atomic
    files.fsync_folder(path.parent)
    if sound:
        return f"its backup {backup.name} was restored"
    return "there was no intact backup, so a new ledger was created"


def variant(path: Path, suffix: str) -> Path:
    """The path LEDGER.suffix in the same folder."""
    return path.with_name(f"{path.name}.{suffix}")
