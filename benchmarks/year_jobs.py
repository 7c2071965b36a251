"""What people drop in `benchmarks.year`, what must become of it, and the checks that nothing was lost."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from nst_daemon.config import Folders
from nst_daemon.digests import sha256_file
from nst_daemon.intake.archive import CARD
from nst_daemon.jobs import NO_CHANGES, Job, JobState, Role
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_reader import Verb
from nst_daemon.ops import requests

S = JobState
STYLE = "starry"
#: Of 1000 jobs; the rest are pairs.
SHARES = {
    "hot": 150,  # a picture in the folder of a library style
    "night": 150,  # in a batch that is dropped every night
    "folder": 50,  # a folder with a pair
    "text": 15,  # a file that is not a picture
    "torn": 10,  # a file that ends too early
    "again": 15,  # fails once, and is retried by request
    "cancel": 15,  # cancelled by request, unless it is painted before
    "death": 3,  # kills its worker once
    "delete": 20,  # a result that is deleted by request
}
#: The states in which each kind may end, if it is not `done`.
OUTCOMES: Mapping[str, frozenset[JobState]] = {
    "text": frozenset({S.FAILED}),
    "torn": frozenset({S.FAILED}),
    "cancel": frozenset({S.CANCELLED, S.DONE}),
}
#: Seconds to wait for the end of jobs without any progress.
PATIENCE = 300.0


def picture(script: Mapping[str, object] | None = None, side: int = 24) -> bytes:
    """A PNG file of random pixels, with a script for the fake painter (see `tests.fakes`)."""
    rows = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"tEXt", b"script\0" + json.dumps(script or {"iterations": 3}).encode()),
        (b"IDAT", zlib.compress(rows, 1)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """One job. sha256: of its content."""

    kind: str
    sha256: str


@dataclass
class Year:
    """All that was dropped so far, by the names of the jobs.

    Args:
        folders: Of the root.
        keep: Seconds for which the inputs of ended jobs are kept.
        slack: Seconds after which what is not kept must be gone.
    """

    folders: Folders
    keep: float
    slack: float
    expected: dict[str, Expected] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._style = picture()
        self._mischief = self.folders.root / "mischief"
        night = self.folders.root / "night"
        for folder in (self.folders.inbox / STYLE, self.folders.styles, self._mischief, night):
            folder.mkdir(parents=True)
        (self.folders.styles / f"{STYLE}.png").write_bytes(picture())

    # Dropping

    def drop_week(self, week: int, jobs: int) -> Iterator[None]:
        """Drop the jobs of a week, a few files at a time. One of them is submitted by a command."""
        kinds = list(SHARES)
        chosen = {
            kind: jobs * share // 1000 or int(jobs > len(kinds)) for kind, share in SHARES.items()
        }
        chosen["pair"] = jobs - 1 - sum(chosen.values())
        self._drop_batch(week, chosen.pop("night"))
        self._submit(f"w{week:02}-submitted")
        left = Counter(chosen)
        while left.total() > 0:  # in turn, so that each part of the week has some of all kinds
            for kind in [kind for kind, number in left.items() if number > 0]:
                left[kind] -= 1
                self._drop(kind, f"w{week:02}-{kind}{left[kind]}")
                yield

    def _drop(self, kind: str, name: str) -> None:
        inbox, once = self.folders.inbox, str(self._mischief / name)
        script: dict[str, object] = {"iterations": 3}
        if kind == "again":
            script |= {"do": "raise", "at": 2, "once": once}
        elif kind == "death":
            script |= {"do": "kill", "at": 2, "once": once}
        elif kind == "slow":
            script = {"iterations": 40, "seconds": 0.05}
        content = b"text" + os.urandom(8) if kind == "text" else picture(script)
        if kind == "torn":
            content = content[: len(content) // 2]
        if kind == "hot":
            _rename_in(inbox / STYLE, f"{name}.png", content)
            name = f"{STYLE}/{name}"
        elif kind == "folder":
            folder = self.folders.root / f".{name}"
            folder.mkdir()
            (folder / "content.png").write_bytes(content)
            (folder / "style.png").write_bytes(self._style)
            folder.rename(inbox / name)
        else:
            priority = {"cancel": -1000, "slow": 1000}.get(kind)
            if priority:
                _rename_in(inbox, f"{name}.yaml", f"priority: {priority}\n".encode())
            _rename_in(inbox, f"{name}.style.png", self._style)
            _rename_in(inbox, f"{name}.content.png", content)
        self._expect(name, kind, content)

    def drop_slow(self, name: str) -> None:
        """Drop a pair that takes two seconds and comes before all others."""
        self._drop("slow", name)

    def _drop_batch(self, week: int, number: int) -> None:
        folder = self.folders.root / "night" / f"w{week:02}"
        folder.mkdir()
        for n in range(number):
            content = picture()
            (folder / f"p{n}.png").write_bytes(content)
            self._expect(f"w{week:02}/p{n}_{STYLE}", "night", content)
        text = f"contents: [w{week:02}/*.png]\nstyles: [{STYLE}]\n"
        _rename_in(self.folders.inbox, f"w{week:02}.batch.yaml", text.encode())

    def _submit(self, name: str) -> None:
        content = picture()
        path = self.folders.root / "night" / "submitted.png"
        path.write_bytes(content)
        subprocess.run(  # noqa: S603 (our own command)
            [sys.executable, "-m", "nst_daemon", "submit", str(path), STYLE, "--name", name],
            env={**os.environ, "NST_FOLDERS__ROOT": str(self.folders.root)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self._expect(name, "pair", content)

    def _expect(self, name: str, kind: str, content: bytes) -> None:
        assert name not in self.expected
        self.expected[name] = Expected(kind, hashlib.sha256(content).hexdigest())

    # Steering

    def cancel(self) -> None:
        """Request the end of all jobs that are to be cancelled and are waiting."""
        self._request("cancel", "cancel", S.QUEUED)

    def retry_failed(self, since: float) -> int:
        """Request another attempt at the jobs that have failed once; their number. Later their inputs may be gone."""
        return self._request("retry", "again", S.FAILED, since=since)

    def delete_results(self, since: float) -> None:
        """Request that the files of some results are deleted."""
        self._request("delete", "delete", S.DONE, since=since)

    def _request(self, verb: Verb, kind: str, state: JobState, since: float = 0.0) -> int:
        """Request it for the jobs of a kind for which it is not requested yet; their number."""
        with Ledger.attach(self.folders.ledger) as ledger:
            jobs = ledger.jobs(state) if not since else ledger.history(state, since=since, limit=-1)
            asked = requests.pending(ledger)
            chosen = [j for j in jobs if self.expected[j.name].kind == kind and j.id not in asked]
            requests.store(ledger, verb, chosen, NO_CHANGES)
        return len(chosen)

    def unfinished(self) -> int:
        """How many jobs have not ended, and how many requests wait."""
        with Ledger.attach(self.folders.ledger) as ledger:
            counts = ledger.counts()
            ended = sum(number for state, number in counts.items() if state.terminal)
            return len(self.expected) - ended + len(ledger.pending_verbs())

    def painting(self, name: str) -> bool:
        """Whether a job is being painted and has a checkpoint."""
        with Ledger.attach(self.folders.ledger) as ledger:
            return any((self.folders.checkpoints / job.id).exists() for job in ledger.find(name))

    # Checks

    def check(self, ended: float) -> Counter[str]:
        """Check all jobs, and return how many there are of what. Raises AssertionError if something is lost.

        ended: when the daemon ended, in seconds since the epoch.
        """
        found: Counter[str] = Counter()
        pictures: set[str] = set()
        with Ledger.attach(self.folders.ledger) as ledger:
            jobs = ledger.jobs()
        names = [job.name for job in jobs]
        assert len(set(names)) == len(names), "a job has two rows"
        lost = self.expected.keys() - set(names)
        assert not lost, f"{len(lost)} jobs are lost, such as {min(lost)}"
        assert len(names) == len(self.expected), "there are jobs that nobody has dropped"
        for job in jobs:
            self._check_job(job, found, pictures, ended)
        there = {
            str(path.relative_to(self.folders.results))
            for path in self.folders.results.rglob("*.png")
        }
        assert there == pictures, f"{len(there ^ pictures)} files too many or too few in results/"
        for folder in (self.folders.spool, self.folders.stage, self.folders.checkpoints):
            assert not list(folder.iterdir()), f"{folder} is not empty"
        left = [path for path in self.folders.inbox.rglob("*") if path.is_file()]
        assert not left, f"{len(left)} files are left in the inbox, such as {left[0]}"
        self._check_backup(len(jobs))
        return found

    def _check_job(self, job: Job, found: Counter[str], pictures: set[str], ended: float) -> None:
        expected = self.expected[job.name]
        assert job.state in OUTCOMES.get(expected.kind, {S.DONE}), (
            f"{job.name} is {job.state}: {job.error}"
        )
        content = next((file for file in job.inputs if file.role is Role.CONTENT), None)
        refused = content is None or not content.sha256  # it was moved, and not copied
        assert refused or content.sha256 == expected.sha256, f"{job.name} has another content"  # type: ignore[union-attr]
        found[job.state] += 1
        if job.state is not S.DONE:
            assert job.error, f"{job.name} has no reason"
        elif expected.kind == "delete":
            assert job.deleted, f"{job.name} was not deleted"
            found["deleted"] += 1
        else:
            result = self.folders.results / job.result
            assert result.exists(), f"the picture of {job.name} is lost"
            assert sha256_file(result) == job.staged_sha256, f"the picture of {job.name} is another"
            sidecar = json.loads(result.with_suffix(".json").read_bytes())
            assert expected.sha256 in {file["sha256"] for file in sidecar["inputs"]}, job.name
            pictures.add(job.result)
        if not job.deleted:
            self._check_archive(job, expected, found, ended)

    def _check_archive(
        self, job: Job, expected: Expected, found: Counter[str], ended: float
    ) -> None:
        """Inputs are kept for long enough, with their bytes, and not for much longer."""
        root = self.folders.done if job.state is S.DONE else self.folders.failed
        age, folder = ended - job.updated, root / job.archive
        if (folder / CARD).exists():
            assert age < self.keep + self.slack, f"{folder} was kept for {age:.0f} s"
            self._check_content(job, expected, folder)
            found["inputs kept"] += 1
        else:
            assert age > self.keep, f"{folder} was removed after {age:.0f} s"
            found["inputs removed by age"] += 1

    def _check_content(self, job: Job, expected: Expected, folder: Path) -> None:
        """The content is in the archive; that of a batch stays where it was."""
        if expected.kind == "night":
            week, _, name = job.name.partition("/")
            folder = self.folders.root / "night" / week
            wanted = [folder / f"{name.removesuffix(f'_{STYLE}')}.png"]
        else:
            wanted = [path for path in folder.iterdir() if path.is_file()]
        digests = {sha256_file(path) for path in wanted}
        assert expected.sha256 in digests, f"{folder} has not the content of {job.name}"

    def _check_backup(self, jobs: int) -> None:
        """The ledger is sound, and its copy too."""
        backup = self.folders.ledger.with_name(self.folders.ledger.name + ".backup")
        for path in (self.folders.ledger, backup):
            with closing(sqlite3.connect(path)) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                (rows,) = database.execute("SELECT COUNT(*) FROM jobs").fetchone()
        assert rows > jobs // 2, f"the copy of the ledger has {rows} of {jobs} jobs"


def _rename_in(folder: Path, name: str, data: bytes) -> None:
    """Write a file so that no look sees half of it."""
    part = folder / f".{name}.part"
    part.write_bytes(data)
    part.rename(folder / name)
