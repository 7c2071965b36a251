"""The gallery, kept up to date while the daemon runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from nst_daemon.ops.gallery import Rewriter, command


def appending(path: Path, gate: Path | None = None) -> list[str]:
    """A command that adds a letter to a file, once the gate is open."""
    wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)" if gate else "pass"
    return [sys.executable, "-c", f"import os, time\n{wait}\nopen({str(path)!r}, 'a').write('x')"]


def test_requests_are_gathered(tmp_path: Path) -> None:
    """Any number of requests while one runs lead to one more run, and two never run at a time."""
    out, gate = tmp_path / "out", tmp_path / "gate"
    rewriter = Rewriter(appending(out, gate))
    for _ in range(20):
        rewriter.request()
        rewriter.tend()
    gate.touch()
    rewriter.finish(60)
    assert out.read_text() == "xx"


def test_nothing_runs_without_a_request(tmp_path: Path) -> None:
    """Tending and finishing alone start no process."""
    rewriter = Rewriter(appending(tmp_path / "out"))
    rewriter.tend()
    rewriter.finish(60)
    assert not (tmp_path / "out").exists()


def test_the_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    """What is not finished in time is killed."""
    rewriter = Rewriter(appending(tmp_path / "out", tmp_path / "never"))
    rewriter.request()
    began = time.monotonic()
    rewriter.finish(0.2)
    assert time.monotonic() - began < 30
    assert not (tmp_path / "out").exists()


def test_the_command_is_this_program(tmp_path: Path) -> None:
    """It names the daemon's own interpreter and configuration."""
    assert command(tmp_path / "c.yaml")[:4] == [sys.executable, "-m", "nst_daemon", "gallery"]
    assert command(tmp_path / "c.yaml")[-1] == str(tmp_path / "c.yaml")
    assert "--config" not in command(None)
