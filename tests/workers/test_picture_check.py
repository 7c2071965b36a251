"""The check of pictures by decoding, with the real process and an injected clock.

A FIFO in the place of a picture holds the process for as long as a test needs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from PIL import Image

from nst_daemon.config import Limits
from nst_daemon.jobs import Job, JobInput, JobState, Role
from nst_daemon.workers.local import LocalTransport
from nst_daemon.workers.messages import Check, Checked
from nst_daemon.workers.picture_check import (
    CHECKING_MODULE,
    RESTART_SECONDS,
    CheckDeadlines,
    DecodingCheck,
)

PATIENCE = 120.0  # seconds of real time; a slow machine is not a failure
DEADLINES = CheckDeadlines(start=1000.0, file=100.0, idle=50.0)


@dataclass
class Harness:
    """A check whose clock a test moves, and the processes that it has started."""

    folder: Path
    module: str = CHECKING_MODULE
    faults: list[OSError] = field(default_factory=list)  # what the next starts raise
    processes: list[LocalTransport] = field(default_factory=list)
    time: float = 0.0
    limits: Limits = field(default_factory=lambda: Limits(max_pixels=10_000))

    def __post_init__(self) -> None:
        self.check = DecodingCheck(self._spawn, DEADLINES)

    def _spawn(self, first: Check) -> LocalTransport:
        if self.faults:
            raise self.faults.pop()
        self.processes.append(LocalTransport(self.module, first, self.folder / "log"))
        return self.processes[-1]

    def job(self, name: str, make: Callable[[Path], object], digest: str = "") -> Job:
        """A job with one picture in the spool. digest: of another content, instead of its own."""
        spooled = self.folder / name / "content.png"
        spooled.parent.mkdir()
        make(spooled)
        if not digest and spooled.is_file():
            digest = hashlib.sha256(spooled.read_bytes()).hexdigest()
        inputs = (JobInput(Role.CONTENT, f"{name}.png", spooled.name, digest, 1),)
        return Job(name, name, "pair", JobState.CLAIMED, inputs, created=0.0, updated=0.0)

    def ask(self, job: Job) -> Checked | None:
        """Ask once."""
        return self.check.ask(job, self.folder / job.id, self.limits, self.time)

    def poll(self, seconds: float = 0.0) -> None:
        """One look, after so many seconds."""
        self.time += seconds
        self.check.poll(self.time)

    def answer(self, job: Job) -> Checked:
        """Wait for the answer."""
        self.ask(job)
        self.poll()
        while (found := self.ask(job)) is None:
            assert wait(self.check.waitables(), PATIENCE), "no answer in time"  # type: ignore[arg-type]
            self.poll()
        return found

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        """End the process, as the kernel would, and wait until that is seen."""
        os.kill(self.processes[-1].pid, by)
        while self.processes[-1].ended() is None:
            wait(self.processes[-1].waitables(), PATIENCE)  # type: ignore[arg-type]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A check that has not been asked anything."""
    made = Harness(tmp_path)
    yield made
    made.check.stop()


def whole(path: Path) -> None:
    """A picture of 64 × 64 pixels."""
    Image.effect_noise((64, 64), 50.0).save(path)


def half(path: Path) -> None:
    """Its first half."""
    whole(path)
    os.truncate(path, path.stat().st_size // 2)


def bomb(path: Path) -> None:
    """A PNG of a few bytes that claims 50,000 × 50,000 pixels."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b""),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def text(path: Path) -> None:
    """No image file."""
    path.write_text("a poem")


def test_whole_picture_passes(harness: Harness) -> None:
    """A picture that can be decoded is answered without a reason."""
    assert harness.answer(harness.job("dog", whole)) == Checked("dog")


@pytest.mark.parametrize(
    ("make", "words", "incomplete"),
    [
        (half, "is damaged or truncated", True),
        (bomb, "pixels", False),
        (text, "is not an image file", False),
        (Path.touch, "is empty", False),
    ],
)
def test_reason_names_the_file(
    harness: Harness, make: Callable[[Path], object], words: str, incomplete: bool
) -> None:
    """The reason is the worker's: it names the file, and only a damaged file may become whole."""
    answer = harness.answer(harness.job("dog", make))
    assert answer.reason.startswith("dog.png ") and words in answer.reason
    assert (answer.incomplete, answer.undecided) == (incomplete, "")


def test_formats_of_a_new_configuration_count(harness: Harness) -> None:
    """A file whose format limits.formats no longer lists is refused, although it was whole before; the key is named."""
    assert not harness.answer(harness.job("dog", whole)).reason
    harness.limits = Limits(formats=("jpeg", "tiff"))
    assert harness.answer(harness.job("cat", whole)).reason == (
        "cat.png is a PNG file, and limits.formats does not list png; "
        "save it in another format, or add the format to limits.formats"
    )


def test_many_jobs_share_one_process(harness: Harness) -> None:
    """Jobs are sent ahead, each gets its own answer, and one process answers all of them."""
    jobs = [harness.job(str(i), half if i % 3 == 0 else whole) for i in range(20)]
    assert [harness.ask(job) for job in jobs] == [None] * 20
    assert harness.check.waiting == 20
    for i, job in enumerate(jobs):
        assert bool(harness.answer(job).reason) == (i % 3 == 0)
    assert harness.check.waiting == 0
    assert len(harness.processes) == 1


def test_known_content_is_not_decoded_again(harness: Harness) -> None:
    """A file whose content was whole in another job passes without being opened."""
    first = harness.job("first", whole)
    harness.answer(first)
    assert not harness.answer(harness.job("again", text, first.inputs[0].sha256)).reason


def test_death_blames_the_job_that_was_checked(harness: Harness) -> None:
    """A job whose check ends the process is checked once more after the others, and then left to the worker."""
    harness.answer(harness.job("before", whole))  # the process has loaded
    bad, good = harness.job("bad", os.mkfifo), harness.job("good", whole)
    assert harness.ask(bad) is harness.ask(good) is None
    harness.kill()
    assert harness.answer(good) == Checked("good")
    assert harness.ask(bad) is None
    harness.kill()
    assert "signal 9" in harness.answer(bad).undecided


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGABRT"])
def test_pictures_that_crash_their_decoder_fail(harness: Harness, name: str) -> None:
    """A job whose check crashes twice fails in one line that names its files, and no worker meets it; others go on."""
    harness.answer(harness.job("before", whole))
    bad, good = harness.job("bad", os.mkfifo), harness.job("good", whole)
    assert harness.ask(bad) is harness.ask(good) is None
    harness.kill(signal.Signals[name])
    assert harness.answer(good) == Checked("good")
    harness.kill(signal.Signals[name])
    answer = harness.answer(bad)
    assert answer.reason.startswith("decoding bad.png crashes: the process was killed by signal ")
    assert answer.reason.endswith(f"({name}), 2 times; save the picture in another format")
    assert not answer.undecided
    assert not answer.incomplete
    assert harness.answer(harness.job("later", whole)) == Checked("later")


def test_overdue_check_is_ended(harness: Harness) -> None:
    """A decoder that hangs is killed at its deadline, twice, and its job is left to the worker."""
    harness.answer(harness.job("before", whole))
    hanging = harness.job("hanging", os.mkfifo)
    harness.ask(hanging)
    for number in (1, 2):
        harness.poll(DEADLINES.file - 1)
        assert harness.ask(hanging) is None
        harness.poll(2)
        assert harness.processes[number - 1].ended() is not None
        if number == 1:  # the second process loads
            assert wait(harness.check.waitables(), PATIENCE)  # type: ignore[arg-type]
            harness.poll()
    assert "within 101 s" in harness.answer(hanging).undecided


def test_failed_start_leaves_all_to_the_worker(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the process cannot be started, jobs go on unchecked, the log says so once, and it is tried again later."""
    harness.faults = [OSError(12, "Cannot allocate memory")] * 2
    jobs = [harness.job(str(i), whole) for i in range(4)]
    with caplog.at_level(logging.WARNING):
        for job in jobs[:2]:
            assert "Cannot allocate memory" in harness.answer(job).undecided
        harness.poll(RESTART_SECONDS + 1)
        assert harness.answer(jobs[2]).undecided
    assert len(caplog.records) == 1
    harness.poll(RESTART_SECONDS + 1)
    assert harness.answer(jobs[3]) == Checked("3")


def test_process_that_never_loads_leaves_all_to_the_worker(tmp_path: Path) -> None:
    """A process that ends before it has loaded is started once more, and no job is blamed."""
    harness = Harness(tmp_path, module="this")
    assert "exit status 0" in harness.answer(harness.job("dog", whole)).undecided
    assert len(harness.processes) == 2


def test_idle_process_ends(harness: Harness) -> None:
    """The process ends after some idle time, and the next job starts another."""
    harness.answer(harness.job("dog", whole))
    harness.poll(DEADLINES.idle - 1)
    assert harness.processes[0].ended() is None
    harness.poll(2)
    assert harness.processes[0].ended() is not None
    assert harness.check.waitables() == []
    assert harness.answer(harness.job("cat", whole)) == Checked("cat")


def test_process_gives_way(harness: Harness) -> None:
    """The process has a lower priority than painting, and the kernel ends it first when memory runs out."""
    harness.answer(harness.job("dog", whole))
    pid = harness.processes[0].pid
    assert os.getpriority(os.PRIO_PROCESS, pid) >= os.getpriority(os.PRIO_PROCESS, 0) + 5
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"


def test_stop_ends_a_check_at_once(harness: Harness) -> None:
    """`stop` kills the process in the middle of a file."""
    harness.answer(harness.job("before", whole))
    harness.ask(harness.job("hanging", os.mkfifo))
    harness.check.stop()
    assert harness.processes[0].ended() is not None
    assert harness.check.waiting == 0
