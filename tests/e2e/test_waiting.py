"""`once` and `status` about drops that wait, as processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from nst_daemon.errors import LEFT_OVER
from tests.bench import PNG
from tests.e2e.conftest import DEADLINE, Daemon


def finish(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """Run a command to its end: its exit code, output and messages."""
    done = subprocess.run(
        [sys.executable, "-m", "nst_daemon", *arguments],
        env=daemon.environment,
        cwd=daemon.root,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_once_says_what_is_left_and_so_does_status(daemon: Daemon) -> None:
    """Two pictures alone are one line in the log, in `status`, and at the end of `once` with its own exit code."""
    inbox = daemon.root / "inbox"
    inbox.mkdir()
    for name in ("dog.png", "hokusai.png"):
        (inbox / name).write_bytes(PNG)
    code, output, messages = finish(daemon, "once")
    line = "rename dog.png to dog.content.png and hokusai.png to dog.style.png"
    assert code == LEFT_OVER
    assert (messages.count(line), output.count(line)) == (1, 1)
    assert output.startswith("left in the inbox:\nwaiting: dog.png and hokusai.png have no roles")
    code, output, _ = finish(daemon, "status")
    assert code == 0
    assert "in the inbox now:" in output
    assert "dog.png and hokusai.png have no roles" in " ".join(output.split())
    assert (daemon.root / "README.txt").is_file()


def test_once_ends_at_once_where_its_gpu_is_missing(
    daemon: Daemon, pair: tuple[Path, Path]
) -> None:
    """`once` on a GPU that is missing starts no second worker: it gives the reason, and ends with exit code 8."""
    daemon.environment |= {"NST_DEVICES": "cuda:99", "CUDA_VISIBLE_DEVICES": ""}
    inbox = daemon.root / "inbox"
    inbox.mkdir()
    for role, file in zip(("content", "style"), pair, strict=True):
        file.rename(inbox / f"dog.{role}.png")
    began = time.monotonic()
    code, _, messages = finish(daemon, "once")
    assert code == 8
    assert messages.count("cuda:99 cannot be used: ") == 2  # the log and the error
    assert time.monotonic() - began < 30  # five starts and their pauses took 43 s


def test_once_with_an_empty_inbox_succeeds_without_a_word(daemon: Daemon) -> None:
    """With nothing but ignored files in the inbox, `once` prints nothing and its exit code is 0."""
    inbox = daemon.root / "inbox"
    inbox.mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "dog.jpg.part"):
        (inbox / name).write_bytes(b"x")
    code, output, _ = finish(daemon, "once")
    assert (code, output) == (0, "")
