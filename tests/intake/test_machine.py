"""Anything that people and their programs do to an inbox, in any order, against a model of what must come of it.

The file system is real, the clock is not. Every version of every file has bytes of its own, so that it can be told
where each one went. There are no events here at all: every one of them is lost, and only the scan decides.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nst_daemon.errors import InputError
from nst_daemon.intake import archive, claim
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.jobs import Job, JobState
from tests.intake.conftest import PNG, House

PATHS = st.sampled_from(
    [
        "dog.content.png", "dog.style.png", "dog_style-2.png", "cat-content.png", "cat-style.png", "alone.png",
        "x.txt", "starry/a.png", "starry/album/b.png", "w/content.png", "w/style.png", "trip/owl.content.png",
        "trip/owl.style.png", "bad\udcff.content.png", "bad\udcff.style.png",
    ]
)  # fmt: skip
HEAD, TAIL = PNG[:20], PNG[-12:]


class Inbox(RuleBasedStateMachine):
    """What is done to an inbox, and what the model remembers of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.house = House(Path(self.scratch.name))
        self.house.style("starry.png")
        self.versions = 0
        #: Whole files in the inbox that were not taken yet: their digests by path.
        self.standing: dict[str, str] = {}
        #: Files that are still being written.
        self.writing: set[str] = set()
        #: Every version that a person took away or replaced before it was taken.
        self.withdrawn: set[str] = set()

    # What people do

    def whole(self) -> bytes:
        """A picture with bytes that no earlier one has."""
        self.versions += 1
        return HEAD + str(self.versions).encode() + TAIL

    def forget(self, path: str) -> None:
        """A person has made an end to what stood there."""
        self.writing.discard(path)
        if path in self.standing:
            self.withdrawn.add(self.standing.pop(path))

    def stand(self, path: str, data: bytes) -> None:
        """A whole file stands there now."""
        self.standing[path] = hashlib.sha256(data).hexdigest()

    @rule(path=PATHS)
    def write(self, path: str) -> None:
        """Write a whole file, in place, over what may have been there."""
        self.forget(path)
        data = self.whole()
        self.house.drop(path, data)
        self.stand(path, data)

    @rule(path=PATHS)
    def rename_in(self, path: str) -> None:
        """Write a file elsewhere and rename it in, over what may have been there."""
        self.forget(path)
        data = self.whole()
        arriving = self.house.root / "arriving"
        arriving.write_bytes(data)
        target = self.house.inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        arriving.rename(target)
        self.stand(path, data)

    @rule(path=PATHS)
    def begin(self, path: str) -> None:
        """Begin to write a file slowly."""
        self.forget(path)
        self.house.drop(path, self.whole()[: -len(TAIL)])
        self.writing.add(path)

    @precondition(lambda self: self.writing)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        """Write the rest of a file."""
        path = data.draw(st.sampled_from(sorted(self.writing)))
        self.writing.discard(path)
        target = self.house.inbox / path
        with target.open("ab") as file:
            file.write(TAIL)
        self.stand(path, target.read_bytes())

    def present(self) -> list[str]:
        """The whole files that stand in the inbox, and have not been taken from it."""
        return [path for path in sorted(self.standing) if (self.house.inbox / path).exists()]

    @precondition(lambda self: self.present())
    @rule(data=st.data(), what=st.sampled_from(["delete", "truncate", "touch"]))
    def disturb(self, data: Any, what: str) -> None:
        """Delete, truncate (and go on writing) or touch a file that stands there."""
        path = data.draw(st.sampled_from(self.present()))
        target = self.house.inbox / path
        if what == "touch":
            os.utime(target)
            return
        self.forget(path)
        if what == "delete":
            target.unlink()
        else:
            os.truncate(target, len(HEAD))
            with target.open("ab") as file:  # no two files become the same
                file.write(self.whole()[len(HEAD) : -len(TAIL)])
            self.writing.add(path)

    @rule()
    def litter(self) -> None:
        """Leave files that are not drops."""
        self.house.drop(".DS_Store")
        self.house.drop("dog.content.png.part")

    # What the daemon does

    @rule(
        seconds=st.sampled_from([0.0, 0.5, 2.0, 5.0]),
        take=st.integers(0, 5),
        disturbed=st.booleans(),
    )
    def look(self, seconds: float, take: int, disturbed: bool) -> None:
        """One round: the writers go on, time passes, the scan looks, some of what it wants is taken."""
        for path in self.writing:
            with (self.house.inbox / path).open("ab") as file:
                file.write(b".")
        scan = self.house.scan(seconds)
        if disturbed and self.standing:  # between the scan and the claim
            self.write(sorted(self.standing)[0])
        for wanted in [*scan.rejections, *scan.requests][:take]:
            self.take(wanted)

    def take(self, wanted: Any, *, die: int = 99) -> None:
        """Take one thing in; die: after how many steps the daemon is killed."""
        own = {file.path: file.fingerprint for file in wanted.files if file.root == "inbox"}
        assert not own.keys() & self.writing, "something was taken while it was written"
        house = self.house
        try:
            job = (
                house.claim(wanted)
                if hasattr(wanted, "settings")
                else claim.refuse(wanted, now=house.wall)
            )
        except ChangedMeanwhile:
            return
        except InputError as error:
            job = claim.refuse(wanted.refuse(str(error)), now=house.wall)
        if die == 0:
            return
        house.ledger.add(job)
        if die == 1:
            return
        if die == 2:  # between two originals
            first = next(file for file in job.inputs if file.origin)
            if first.sha256:
                (house.inbox / first.origin).unlink()
            return
        self.enter(job)

    def enter(self, job: Job) -> None:
        """From the row on, as the supervisor goes on, now or after a restart."""
        house = self.house
        assert house.remove(job) == []
        if job.error:
            place = archive.archive(job, house.spool, house.failed, error=job.error)
            house.ledger.move(job.id, JobState.FAILED, now=house.wall, archive=place)
        else:
            house.ledger.move(job.id, JobState.QUEUED, now=house.wall)

    @rule(die=st.integers(0, 2))
    def crash(self, die: int) -> None:
        """The daemon is killed while it takes something in, and started again."""
        scan = self.house.scan()
        for wanted in [*scan.rejections, *scan.requests][:1]:
            self.take(wanted, die=die)
        self.restart()

    @rule()
    def restart(self) -> None:
        """The daemon starts anew, and puts its spool in order."""
        house = self.house
        house.restart()
        for job in claim.recover_spool(house.spool, house.ledger.ids(), house.inbox):
            raise AssertionError(f"{job} should be in the ledger")
        for job in house.ledger.jobs(JobState.CLAIMED):
            self.enter(job)

    # What must be true

    def found(self) -> Counter[str]:
        """The digests of everything in the inbox, the spool and failed/."""
        counted: Counter[str] = Counter()
        for folder in (self.house.inbox, self.house.spool, self.house.failed):
            for path in folder.rglob("*"):
                if path.is_file() and path.name != "error.txt" and not path.name.startswith("."):
                    counted[hashlib.sha256(path.read_bytes()).hexdigest()] += 1
        return counted

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every whole version that was not withdrawn is in the inbox, the spool or failed/."""
        missing = set(self.standing.values()) - self.found().keys()
        assert not missing, (
            f"lost: {[path for path, digest in self.standing.items() if digest in missing]}"
        )

    @invariant()
    def nothing_is_taken_twice(self) -> None:
        """No version is an input of two jobs, and only whole ones are inputs at all."""
        taken = Counter(
            file.sha256
            for job in self.house.ledger.jobs()
            for file in job.inputs
            if file.origin and file.sha256
        )
        assert all(count == 1 for count in taken.values())
        assert taken.keys() <= set(self.standing.values()) | self.withdrawn

    def teardown(self) -> None:
        """Once all is written and time has passed, only what is not ours is left, and each version has one outcome."""
        try:
            for path in sorted(self.writing):
                self.forget(path)
                self.write(path)
            self.restart()
            for _ in range(8):
                scan = self.house.scan(4000.0)
                for wanted in [*scan.rejections, *scan.requests]:
                    self.take(wanted)
            left = [p for p in self.house.inbox.rglob("*") if p.is_file()]
            assert {path.name for path in left} <= {".DS_Store", "dog.content.png.part", "x.txt"}
            counted = self.found()
            assert all(counted[digest] == 1 for digest in self.standing.values())
            assert not self.house.ledger.jobs(JobState.CLAIMED)
        finally:
            self.house.ledger.close()
            self.scratch.cleanup()


Inbox.TestCase.settings = settings(
    max_examples=int(os.environ.get("INBOX_EXAMPLES", "40")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestInbox = Inbox.TestCase
