"""A daemon with the fake painter, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.users import User

REPOSITORY = Path(__file__).parents[2]
DEADLINE = 60.0  # seconds; a slow machine is not a failure


class Served:
    """`tests.service.served` on a root of its own."""

    def __init__(self, root: Path, python: Path = Path(sys.executable)) -> None:
        self.root = root
        self.python = python
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "NST_FOLDERS__ROOT": str(root),
            "NST_SERVICE__SETTLE_SECONDS": "0.05",
            "NST_SERVICE__TRUNCATED_GRACE": "0.1",
            "NST_LIMITS__MIN_FREE_DISK": "0",
            "NST_DEVICES": "cpu",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, user: User | None = None) -> None:
        """Start the process. user: who runs it; None for the user of the tests."""
        (self.root / "inbox").mkdir(parents=True, exist_ok=True)
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "tests.service.served", *arguments],
                env=self.environment,
                cwd=self.root,
                stdout=log,
                stderr=log,
                **(user.process() if user else {}),
            )

    def pair(self, name: str, **script: object) -> None:
        """Drop a pair for the fake painter (see `tests.fakes`)."""
        inbox = self.root / "inbox"
        (inbox / f"{name}.style.png").write_bytes(b"a style")
        (inbox / f"{name}.content.png").write_text(json.dumps({"tag": name, **script}))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition while the process runs."""
        assert self.process is not None
        for _ in range(int(DEADLINE / 0.02)):
            if condition():
                return
            try:
                self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            break
        raise AssertionError(f"no {what}: {self.text()}")

    def end(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def text(self) -> str:
        """What it has said."""
        return (self.root / "log").read_text(errors="replace")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A daemon that has not been started; what runs at the end is killed."""
    made = Served(tmp_path)
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
