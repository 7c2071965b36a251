"""Commands that the daemon has run beside it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from nst_daemon.service.chores import Chores


def writing(path: Path, gate: Path | None = None) -> list[str]:
    """A program that adds its arguments to a file, once the gate is open."""
    wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)" if gate else "pass"
    code = f"import os, sys, time\n{wait}\nopen({str(path)!r}, 'a').write(sys.argv[1])"
    return [sys.executable, "-c", code]


def test_equal_requests_are_gathered(tmp_path: Path) -> None:
    """Any number of equal requests while one runs lead to one more run, others keep their order, one runs at a time."""
    out, gate = tmp_path / "out", tmp_path / "gate"
    chores = Chores(writing(out, gate))
    for _ in range(20):
        chores.request("a")
        chores.tend()
        chores.request("b")
    assert not out.exists()
    gate.touch()
    chores.finish(60)
    assert out.read_text() == "aba"


def test_nothing_runs_without_a_request(tmp_path: Path) -> None:
    """Tending and finishing alone start no process."""
    chores = Chores(writing(tmp_path / "out"))
    chores.tend()
    chores.finish(60)
    assert not (tmp_path / "out").exists()


def test_the_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    """What is not finished in time is killed, and what was to follow is not begun."""
    chores = Chores(writing(tmp_path / "out", tmp_path / "never"))
    chores.request("a")
    chores.request("b")
    began = time.monotonic()
    chores.finish(0.2)
    assert time.monotonic() - began < 30
    assert not (tmp_path / "out").exists()


def test_a_failure_is_said_and_the_next_one_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that fails is in the log with its code, and keeps nothing else from running."""
    code = (
        f"import sys; sys.exit(3) if sys.argv[1] == 'bad' else open({str(tmp_path / 'out')!r}, 'w')"
    )
    chores = Chores([sys.executable, "-c", code])
    chores.request("bad")
    chores.request("good")
    chores.finish(60)
    assert "`bad` ended with 3" in caplog.text
    assert (tmp_path / "out").exists()


def test_the_program_is_this_one_with_the_same_configuration(tmp_path: Path) -> None:
    """A request runs this program with the daemon's configuration file."""
    config = tmp_path / "config.yaml"
    config.write_text("folders: {root: elsewhere}\n")
    (tmp_path / "elsewhere" / "results").mkdir(parents=True)
    chores = Chores.of(config)
    chores.request("gallery")
    chores.finish(120)
    assert (tmp_path / "elsewhere" / "results" / "index.html").exists()
