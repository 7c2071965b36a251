"""Ledgers of older and newer versions of the program."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nst_daemon.errors import LedgerError, StorageError
from nst_daemon.jobs import NO_CHANGES, Fingerprint
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_file import MIGRATIONS


def of_version(path: Path, version: int) -> None:
    """Make an empty ledger of an older version."""
    with closing(sqlite3.connect(path)) as database:
        for script in MIGRATIONS[:version]:
            database.executescript(script)
        database.execute(f"PRAGMA user_version = {version}")


def schema(path: Path) -> set[str]:
    """The statements that would make the tables and indices of a ledger."""
    with closing(sqlite3.connect(path)) as database:
        return {sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql <> ''")}


def test_before_a_migration_the_old_ledger_is_kept(tmp_path: Path) -> None:
    """A ledger of release 0.1.0 gets a copy in its own version, and keeps its jobs when it is changed."""
    path, old = tmp_path / "ledger.sqlite", tmp_path / "ledger.sqlite.version-3"
    database = sqlite3.connect(path)
    for script in MIGRATIONS[:3]:
        database.executescript(script)
    database.execute("PRAGMA user_version = 3")
    values = (
        "id",
        "dog",
        "pair",
        "queued",
        1,
        1,
        '{"seed": 3}',
        "",
        0,
        0,
        0,
        0,
        "",
        "",
        "[]",
        "",
        "",
        "",
    )
    database.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(values))})", values)
    row = ("id", 0, "content", "dog.png", "dog.png", "", 3, b"dog.png", "[1, 2, 3, 4, 5]")
    database.execute(f"INSERT INTO inputs VALUES ({', '.join('?' * len(row))})", row)
    database.commit()
    database.close()
    with Ledger.open(path) as ledger:
        assert [(j.name, j.batch, j.weights) for j in ledger.jobs()] == [("dog", None, "")]
        (file,) = ledger.jobs()[0].inputs
        assert file.fingerprint == Fingerprint(2, 3, 4, 5)  # without the device number
        assert ledger.claimed_before("dog.png", Fingerprint(2, 3, 4, 5)) is not None
        assert [j.settings for j in ledger.with_partial_settings()] == [{"seed": 3}]
        ledger.note("id", now=2, settings={"preset": "default", "seed": 3})
        assert ledger.with_partial_settings() == []
    kept = sqlite3.connect(old)
    assert kept.execute("PRAGMA user_version").fetchone() == (3,)
    assert kept.execute("SELECT name FROM jobs").fetchall() == [("dog",)]
    kept.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_each_older_version_becomes_a_new_ledger(tmp_path: Path, version: int) -> None:
    """A ledger of any older version gets the schema of a new one, with the default values in its rows."""
    path, new = tmp_path / "ledger.sqlite", tmp_path / "new.sqlite"
    of_version(path, version)
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO requests (job, verb, at) VALUES ('id', 'retry', 1)")
        database.commit()
    Ledger.open(new).close()
    with Ledger.open(path) as ledger:
        assert [request.changes for request in ledger.pending_requests()] == [NO_CHANGES]
    assert schema(path) == schema(new)


def test_refused_batch_files_are_told_from_pictures(tmp_path: Path) -> None:
    """Jobs of version 10 that stand for a batch file get a source of their own; pictures of batches keep theirs."""
    path = tmp_path / "ledger.sqlite"
    of_version(path, 10)
    with closing(sqlite3.connect(path)) as database:
        for job, role in (("file", "batch"), ("picture", "content")):
            row = {
                c[1]: "" if c[2] in {"TEXT", "BLOB"} else 0
                for c in database.execute("PRAGMA table_info(jobs)")
            }
            row |= {"id": job, "source": "batch", "batch": "null"}
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO jobs VALUES ({marks})", list(row.values()))
            database.execute(
                "INSERT INTO inputs VALUES (?, 0, ?, '', '', '', 0, x'', '', 0)", (job, role)
            )
        database.commit()
    Ledger.open(path).close()
    with closing(sqlite3.connect(path)) as database:
        found = dict(database.execute("SELECT id, source FROM jobs"))
    assert found == {"file": "batch-file", "picture": "batch"}


@pytest.mark.parametrize("version", [5, 6])
def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, version: int) -> None:
    """If the last statement of version 7 fails, nothing of it or of version 6 is there, and the next start works."""
    path = tmp_path / "ledger.sqlite"
    of_version(path, version)
    before = schema(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE requests ADD COLUMN changes TEXT")
    with pytest.raises(StorageError, match="duplicate column"):
        Ledger.open(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE requests DROP COLUMN changes")
    assert schema(path) == before
    Ledger.open(path).close()


def test_a_newer_ledger_is_left_alone(tmp_path: Path) -> None:
    """A file of a newer version is refused by `open` and `attach`, and not changed."""
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
        database.execute("DROP TABLE turns")  # it may have another schema
        database.create_function("fold2", 1, str.casefold, deterministic=True)
        database.execute("INSERT INTO requests (job, verb, at) VALUES ('id', 'retry', 1)")
        database.execute("CREATE INDEX later ON requests (fold2(job))")
    database.close()
    with pytest.raises(LedgerError, match="upgrade this one"):
        Ledger.open(path)
    with pytest.raises(LedgerError, match="upgrade this one"):
        Ledger.attach(path)
