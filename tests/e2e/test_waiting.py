"""`once` and `status` about drops that wait, as processes."""

from __future__ import annotations

import subprocess
import sys

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


def test_once_with_an_empty_inbox_succeeds_without_a_word(daemon: Daemon) -> None:
    """With nothing but ignored files in the inbox, `once` prints nothing and its exit code is 0."""
    inbox = daemon.root / "inbox"
    inbox.mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "dog.jpg.part"):
        (inbox / name).write_bytes(b"x")
    code, output, _ = finish(daemon, "once")
    assert (code, output) == (0, "")
