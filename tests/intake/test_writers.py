"""Who has a file open for writing, asked of the kernel with real files and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nst_daemon.intake.settle import Arrival
from nst_daemon.intake.walk import file_arrival
from nst_daemon.intake.writers import Writers
from tests.intake.conftest import PNG

WRITER = "import sys; file = open(sys.argv[1], sys.argv[2]); print('open', flush=True); input()"


@contextmanager
def other_process(path: Path, mode: str) -> Iterator[None]:
    """Another process that has a file open."""
    command = [sys.executable, "-c", WRITER, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield
        process.communicate(b"\n")


def written(path: Path) -> bool:
    """Whether a process has the file open for writing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return Writers().have(descriptor, path.name)
    finally:
        os.close(descriptor)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A complete file."""
    path = tmp_path / "dog.png"
    path.write_bytes(PNG)
    return path


def test_a_writer_is_seen_until_it_closes_the_file(path: Path) -> None:
    """A process that has a file open for appending is seen, and not any more once it has ended."""
    with other_process(path, "ab"):
        assert written(path)
    assert not written(path)


def test_a_reader_is_not_a_writer(path: Path) -> None:
    """A process that reads a file does not delay it."""
    with other_process(path, "rb"):
        assert not written(path)


def test_nothing_is_needed_of_the_system(path: Path, tmp_path: Path) -> None:
    """Without leases and without a proc file system, no writer is known and nothing fails."""
    read, write = os.pipe()  # a pipe has no leases
    assert not Writers(tmp_path / "no proc").have(read, "dog.png")
    os.close(read)
    os.close(write)


def test_no_lease_is_kept(path: Path) -> None:
    """After a file was asked about, others open it for writing without waiting, and no signal arrives."""
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: arrived.append(n))
        for number in (signal.SIGIO, signal.SIGURG)
    }
    try:
        descriptor = os.open(path, os.O_RDONLY)
        assert not Writers().have(descriptor, path.name)
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        os.close(descriptor)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not arrived


def test_the_signal_of_a_broken_lease_ends_no_process(path: Path) -> None:
    """A process that asks about a file again and again while another opens it for writing stays alive."""
    ask = (
        "import os, sys\nfrom nst_daemon.intake.writers import Writers\nprint('ready', flush=True)\n"
        f"for _ in range(20_000):\n    fd = os.open({str(path)!r}, os.O_RDONLY)\n"
        "    Writers().have(fd, 'x')\n    os.close(fd)\n"
    )
    with subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None:
            os.close(os.open(path, os.O_WRONLY))
    assert process.returncode == 0


def test_a_complete_file_is_open_until_its_writer_is_gone(path: Path) -> None:
    """A file with a complete structure has arrived only when the process that writes it has closed it."""
    folder = os.open(path.parent, os.O_RDONLY)
    with other_process(path, "r+b"):
        assert file_arrival(path.name, folder, len(PNG), Writers()) is Arrival.OPEN
    assert file_arrival(path.name, folder, len(PNG), Writers()) is Arrival.COMPLETE
    os.truncate(path, len(PNG) - 1)
    assert file_arrival(path.name, folder, len(PNG) - 1, Writers()) is Arrival.INCOMPLETE
    os.close(folder)
