"""A supervisor under test: a fake executor behind the real seam, the real ledger and folders, and an injected clock."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from nst_daemon import config as configuration
from nst_daemon.config import Limits
from nst_daemon.digests import sha256_file
from nst_daemon.intake.expansion import Expansion
from nst_daemon.jobs import Job
from nst_daemon.ledger import Ledger
from nst_daemon.service.state import Moment, Pacing
from nst_daemon.service.supervisor import Supervisor
from nst_daemon.workers.executor import WorkerStatus
from nst_daemon.workers.messages import Checked, Event, Ready, Staged, Started, Stopped, Task

#: The smallest PNG that looks whole; nobody decodes it here.
PNG = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000049454e44ae426082")


class FakeExecutor:
    """Takes tasks and answers as a test tells it to; paints nothing."""

    def __init__(self, room: int = 2) -> None:
        self.room = room
        self.tasks: list[Task] = []
        self.events: list[Event] = []
        self.cancelled: list[str] = []
        self.started = False

    def start(self) -> None:
        """Be ready at once."""
        self.started = True
        self.events.append(Ready("fake", {}))

    def capacity(self) -> int:
        """So many more tasks."""
        return self.room - len(self.tasks)

    def submit(self, task: Task) -> None:
        """Keep the task until it is answered."""
        self.tasks.append(task)
        self.events.append(Started("fake", task.job_id))

    def cancel(self, job_id: str) -> None:
        """Note the wish."""
        self.cancelled.append(job_id)

    def poll(self, now: float) -> list[Event]:
        """What the test has put there."""
        events, self.events = self.events, []
        return events

    def waitables(self) -> Sequence[object]:
        """Nothing to wait for."""
        return ()

    def status(self, now: float) -> Sequence[WorkerStatus]:
        """One worker, which has all tasks."""
        state = "painting" if self.tasks else "idle"
        jobs = tuple(task.job_id for task in self.tasks)
        return [WorkerStatus("fake", state, None, jobs, 0.0, {"device_name": "no device"})]

    def stop(self, grace: float) -> list[Event]:
        """Give every task back."""
        tasks, self.tasks, self.started = self.tasks, [], False
        return [Stopped("fake", task.job_id) for task in tasks]

    def answer(self, make: Callable[[Task], Event]) -> Task:
        """Answer the oldest task."""
        task = self.tasks.pop(0)
        self.events.append(make(task))
        return task

    def paint(self) -> Task:
        """Stage a picture and its sidecar for the oldest task."""
        stage = self.tasks[0].stage
        sidecar = {"job": {"id": self.tasks[0].job_id}, "notes": []}
        picture = stage / f"picture.{self.tasks[0].outputs.format}"
        (stage / "picture.json").write_text(json.dumps(sidecar))
        picture.write_bytes(PNG + self.tasks[0].job_id.encode())
        digest = sha256_file(picture)
        names = ("picture.json", picture.name)
        return self.answer(lambda task: Staged("fake", task.job_id, names, digest))


class FakeCheck:
    """Answers that every picture is whole, unless a test says otherwise for a job's name."""

    def __init__(self) -> None:
        #: The answers by the job's name; None for "not yet".
        self.answers: dict[str, Checked | None] = {}
        self.asked: set[str] = set()
        self.stopped = False

    @property
    def waiting(self) -> int:
        return sum(self.answers.get(name, self) is None for name in self.asked)

    def ask(self, job: Job, spool: Path, limits: Limits, now: float) -> Checked | None:
        self.asked.add(job.name)
        return self.answers.get(job.name, Checked(job.id))

    def forget(self, job_id: str) -> None:
        pass

    def poll(self, now: float) -> None:
        pass

    def waitables(self) -> list[object]:
        return []

    def stop(self) -> None:
        self.stopped = True


class FakeChores:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, ...]] = []
        self.finished = False

    def request(self, *words: str) -> None:
        self.requests.append(words)

    def tend(self) -> None:
        pass

    def finish(self, seconds: float) -> None:
        self.finished = True


class Bench:
    """A supervisor on a root of its own, and a clock that the test moves."""

    def __init__(
        self,
        root: Path,
        pacing: Pacing | None = None,
        executor: FakeExecutor | None = None,
        **sections: object,
    ) -> None:
        self.pacing, self._first_executor = pacing, executor
        #: Each job goes on alone, unless a test is about groups: no time passes by itself.
        self.group_seconds = 0.0
        loaded = configuration.load(None, {"NST_FOLDERS__ROOT": str(root)})
        limits = dataclasses.replace(loaded.limits, min_free_disk=0)
        self.config = dataclasses.replace(loaded, limits=limits, **sections)  # type: ignore[arg-type]
        self.folders = self.config.folders
        for name in (
            "inbox",
            "styles",
            "results",
            "done",
            "failed",
            "spool",
            "stage",
            "checkpoints",
        ):
            getattr(self.folders, name).mkdir(parents=True, exist_ok=True)
        self.time = 0.0
        self.drain = False
        #: Measures how long something takes; where it stands still, nothing is interrupted.
        self.measure: Callable[[], float] = lambda: 0.0
        self.begin()

    def begin(self, batch: Expansion | None = None) -> None:
        """Start, as after a crash: nothing but the disk is left of what was before. batch: for this alone."""
        self.executor, self._first_executor = self._first_executor or FakeExecutor(), None
        self.ledger = Ledger.open(self.folders.ledger)
        self.chores = FakeChores()
        self.check = FakeCheck()
        self.supervisor = Supervisor(
            self.config,
            self.ledger,
            self.executor,
            self.check,
            now=self.now,
            drain=self.drain or batch is not None,
            batch=batch,
            chores=self.chores,
            pacing=dataclasses.replace(self.pacing or Pacing(), group_seconds=self.group_seconds),
            clock=lambda: self.measure(),  # noqa: PLW0108 (a test may replace it later)
        )
        self.supervisor.recover(self.now)

    def change(self, **sections: object) -> None:
        """Reload the configuration with other values in these sections: `limits={"min_free_disk": 0}`."""
        changed = {
            name: dataclasses.replace(getattr(self.config, name), **values)  # type: ignore[arg-type]
            for name, values in sections.items()
        }
        self.supervisor.reconfigure(dataclasses.replace(self.config, **changed))  # type: ignore[arg-type]

    @property
    def now(self) -> Moment:
        """The time on both clocks."""
        return Moment(wall=2_000_000_000.0 + self.time, steady=self.time)

    def step(self, seconds: float = 0.0, times: int = 1) -> None:
        """Do some rounds, each after so many seconds."""
        for _ in range(times):
            self.time += seconds
            self.supervisor.step(self.now, woken=True)

    def drop(self, name: str = "dog", **extra: bytes) -> None:
        """Put a pair into the inbox, and let it settle until it is with the executor."""
        (self.folders.inbox / f"{name}.content.png").write_bytes(PNG)
        (self.folders.inbox / f"{name}.style.png").write_bytes(PNG)
        for suffix, data in extra.items():
            (self.folders.inbox / f"{name}.{suffix}").write_bytes(data)
        self.step(1.5, times=4)

    def job(self) -> Job:
        """The only job there is."""
        (job,) = self.ledger.jobs()
        return job

    def error(self, name: str = "dog") -> str:
        """The first line of error.txt."""
        return (self.folders.failed / name / "error.txt").read_text().splitlines()[0]
