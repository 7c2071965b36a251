"""The real program as a process, on a root of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.drawings import draw_painting, draw_scene
from tests.forked import loaded

DEADLINE = 180.0  # seconds; a slow machine is not a failure


class Daemon:
    """`nst-daemon run` as a process, with small pictures and little patience."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self.log = root / "daemon.log"
        self.environment = {
            **os.environ,
            "NST_FOLDERS__ROOT": str(root),
            "NST_FOLDERS__STATE": str(cache),
            "NST_SERVICE__SETTLE_SECONDS": "0.3",
            "NST_SERVICE__TRUNCATED_GRACE": "0.5",
            "NST_RENDER__SIZE": "64",
            "NST_RENDER__ITERATIONS": "5",
            "NST_DEVICES": "cpu",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start the program with these arguments; `run` where there are none."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nst_daemon", *(arguments or ("run",))],
                env=self.environment,
                stderr=log,
                stdout=log,
                cwd=self.root,
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the condition holds; fail, with the log, where the daemon ends or time runs out."""
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, f"ended while waiting for {what}: {self.text()}"
            assert time.monotonic() < deadline, f"no {what} in time: {self.text()}"
            time.sleep(0.05)  # another process is watched from outside: there is no clock to inject

    def text(self) -> str:
        """Everything that it has written so far."""
        return self.log.read_text(errors="replace")


@pytest.fixture
def daemon(tmp_path: Path, model_cache: Path) -> Iterator[Daemon]:
    """A daemon that has not been started; whatever runs at the end of the test is killed."""
    made = Daemon(tmp_path, tmp_path / "state")
    cache = made.root / "state" / "cache"
    cache.parent.mkdir(parents=True)
    cache.symlink_to(model_cache)
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A photo and a painting."""
    content, style = tmp_path / "photo.png", tmp_path / "painting.png"
    draw_scene(64, 48).save(content)
    draw_painting(64, 48).save(style)
    return content, style


def nst(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command with few iterations in a folder; its daemon is the one of `Daemon`."""
    environment = {
        **os.environ,
        "NST_FOLDERS__ROOT": str(folder),
        "NST_RENDER__ITERATIONS": "2",
        "NST_DEVICES": "cpu",
    }
    return loaded("nst_daemon.api.stylizer").run(*map(str, words), cwd=folder, env=environment)
