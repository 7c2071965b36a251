"""A root on the real file system, with a clock that only moves when a test says so."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from nst_daemon.intake import archive, claim
from nst_daemon.intake.drops import Rejection, Request, Root
from nst_daemon.intake.scan import Intake, Scan
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger

# A slow machine is not a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

#: A file with the structure of a complete PNG, which no decoder can read.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\x40IDAT" + b"x" * 68 + b"\0\0\0\0IEND\xae\x42\x60\x82"
MAX_BYTES = 1_000_000


class House:
    """Folders, a ledger, an intake and a clock."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.inbox, self.styles = root / "inbox", root / "styles"
        self.done, self.failed = root / "done", root / "failed"
        self.spool = root / "state" / "spool"
        for folder in (self.inbox, self.styles, self.done, self.failed, self.spool):
            folder.mkdir(parents=True, exist_ok=True)
        self.now = 1000.0  # monotonic
        # ctimes come from the kernel's clock, so wall time begins with a file of now.
        self.wall = root.stat().st_ctime + 1
        self.options = options
        self.ledger = Ledger.open(root / "state" / "ledger.sqlite")
        self.restart()

    def restart(self) -> None:
        """Forget all that is only in memory."""
        self.intake = Intake(
            self.inbox,
            self.styles,
            **{
                "settle_seconds": 2.0,
                "truncated_grace": 60.0,
                "pair_timeout": 3600.0,
                "rescan_seconds": 5.0,
                "max_bytes": MAX_BYTES,
                **self.options,
            },
        )

    def drop(self, path: str, data: bytes | str = PNG) -> Path:
        """Write a file below the inbox."""
        target = self.inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        return target

    def style(self, name: str, data: bytes | str = PNG) -> Path:
        """Write a file into the library."""
        target = self.styles / name
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        return target

    def scan(self, later: float = 0.0) -> Scan:
        """Look, `later` seconds after the last time."""
        self.now += later
        self.wall += later
        return self.intake.scan(self.now, self.wall)

    def settled(self, seconds: float = 3.0) -> Scan:
        """Look until everything that holds still has settled. seconds: before the last look."""
        self.scan()
        self.scan(3)  # hot folders were made in the first look
        return self.scan(seconds)

    def claim(self, request: Request) -> Job:
        """Copy a request into the spool."""
        roots: dict[Root, Path] = {
            "inbox": self.inbox,
            "styles": self.styles,
            "failed": self.failed,
        }
        return claim.claim(request, self.spool, roots, max_bytes=MAX_BYTES, now=self.wall)

    def take(self, wanted: Request | Rejection) -> Job:
        """Everything that the supervisor does to take something in."""
        job = (
            self.claim(wanted)
            if isinstance(wanted, Request)
            else claim.refuse(wanted, now=self.wall)
        )
        self.ledger.add(job)
        self.remove(job)
        if not job.error:
            return self.ledger.move(job.id, JobState.QUEUED, now=self.wall)
        self.ledger.move(job.id, JobState.FAILED, now=self.wall)
        place = archive.archive(job, self.spool, self.failed, error=job.error)
        return self.ledger.note(job.id, now=self.wall, archive=place)

    def remove(self, job: Job) -> list[str]:
        """Take the originals out of the inbox."""
        return claim.remove_originals(job, self.inbox, self.spool)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house with the default settings."""
    return House(tmp_path)


def tree(folder: Path) -> set[str]:
    """Everything below a folder that is not hidden, folders with a slash."""
    return {
        str(path.relative_to(folder)) + ("/" if path.is_dir() and not path.is_symlink() else "")
        for path in folder.rglob("*")
        if not path.name.startswith(".")
    }


NEVER = math.inf
is_root = os.geteuid() == 0


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder
