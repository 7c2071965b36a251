"""How a ledger comes into being while other processes look for it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from nst_daemon import ledger_file
from nst_daemon.errors import LedgerError, StorageError, UsageError
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_file import back_up
from nst_daemon.ledger_reader import LedgerReader
from tests.conftest import largest_file

OPEN_MANY = """
import sys
from pathlib import Path
from nst_daemon.ledger import Ledger
for number in range(int(sys.argv[2])):
    folder = Path(sys.argv[1], str(number))
    folder.mkdir()
    Ledger.open(folder / "ledger.sqlite").close()
"""


def journal_mode(path: Path) -> str:
    """The mode that is stored in the file."""
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("PRAGMA journal_mode").fetchone()[0])


def read_until_there(path: Path, process: subprocess.Popen[bytes]) -> bool:
    """Attach to a ledger again and again until it exists; False if the process ended without making it."""
    while True:
        ended = process.poll() is not None
        try:
            with Ledger.attach(path) as ledger:
                assert ledger.jobs() == []
                return True
        except UsageError:  # there is no ledger yet
            if ended:
                return False


def test_a_new_ledger_is_complete_as_soon_as_it_is_there(tmp_path: Path) -> None:
    """While a process makes 40 ledgers, another that keeps trying to read each finds none or a complete one."""
    process = subprocess.Popen([sys.executable, "-c", OPEN_MANY, str(tmp_path), "40"])
    ledgers = [tmp_path / str(number) / "ledger.sqlite" for number in range(40)]
    assert all(read_until_there(path, process) for path in ledgers)
    assert process.wait(60) == 0


def test_a_ledger_is_opened_while_others_have_it_open(tmp_path: Path) -> None:
    """A daemon that starts needs no lock that a process which only keeps the ledger open could prevent."""
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with Ledger.attach(path) as other:
        other.jobs()
        Ledger.open(path).close()


@pytest.mark.parametrize("kilobytes", range(0, 160, 12))
def test_a_disk_that_is_full_at_the_first_start_leaves_no_ledger(
    tmp_path: Path, kilobytes: int
) -> None:
    """However much a new ledger can be written of, it is complete or not there, and the next start makes it."""
    path = tmp_path / "ledger.sqlite"
    with largest_file(1024 * kilobytes), suppress(StorageError):
        Ledger.open(path).close()
    assert not path.exists() or journal_mode(path) == "wal"
    with Ledger.open(path) as ledger:
        assert (ledger.jobs(), ledger.repaired) == ([], "")


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    """A ledger of no bytes, without a backup, is replaced by a new one; another process sees it empty or whole."""
    path = tmp_path / "ledger.sqlite"
    path.touch()
    with pytest.raises(LedgerError, match="is empty"):
        Ledger.attach(path)
    before = path.stat().st_ino
    Ledger.open(path).close()
    assert path.stat().st_ino != before
    Ledger.attach(path).close()


def test_a_link_to_the_ledger_stays(tmp_path: Path) -> None:
    """A ledger that is a link is made where it points; if that disk is not mounted, opening fails and makes nothing."""
    path, disk = tmp_path / "ledger.sqlite", tmp_path / "disk"
    path.symlink_to(disk / "real.sqlite")
    with pytest.raises(StorageError, match="disk"):
        Ledger.open(path)
    disk.mkdir()
    Ledger.open(path).close()
    assert path.is_symlink()
    assert (disk / "real.sqlite").is_file()


def test_a_reader_makes_no_ledger(tmp_path: Path) -> None:
    """Opening for reading what has gone a moment ago leaves no empty file."""
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(StorageError):
        LedgerReader(path)
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_creation_left_is_removed(tmp_path: Path) -> None:
    """An incomplete new ledger, and side files of one that has gone, neither stay nor get into the new ledger."""
    path = tmp_path / "ledger.sqlite"
    for name in ("ledger.sqlite.new", "ledger.sqlite.new-wal", "ledger.sqlite-wal"):
        (tmp_path / name).write_bytes(b"nonsense" * 1000)
    Ledger.open(path).close()
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_restored_ledger_waits_for_those_that_read_it(tmp_path: Path) -> None:
    """While somebody reads a copy that was put in the ledger's place, `open` waits, and then sets WAL."""
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    back_up(path)
    ledger_file.variant(path, "backup").rename(path)
    assert journal_mode(path) == "delete"
    opening = threading.Thread(target=lambda: Ledger.open(path).close())
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM jobs").fetchall()
        opening.start()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            # As soon as `open` waits for the reader, nobody else can begin to read.
            while opening.is_alive():
                with closing(sqlite3.connect(path, timeout=0)) as other:
                    other.execute("SELECT * FROM jobs").fetchall()
        assert opening.is_alive()
        reader.execute("COMMIT")
        opening.join()
    assert journal_mode(path) == "wal"


def test_the_journal_goes_with_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new ledger and an old one get the rollback journal on a network file system, and WAL on any other."""
    old, new = tmp_path / "ledger.sqlite", tmp_path / "new.sqlite"
    Ledger.open(old).close()
    monkeypatch.setattr(ledger_file, "network_file_system", lambda folder: True)
    for path in (old, new):
        Ledger.open(path).close()
        assert journal_mode(path) == "delete"
    monkeypatch.undo()
    Ledger.open(old).close()
    assert journal_mode(old) == "wal"
