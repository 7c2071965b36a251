"""Real worker processes under test, and jobs for them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import pytest

from nst_daemon.config import Limits, Outputs
from nst_daemon.engine.settings import resolve
from nst_daemon.jobs import JobInput, Role
from nst_daemon.workers.executor import Executor
from nst_daemon.workers.local import LocalExecutor
from nst_daemon.workers.messages import (
    Died,
    Event,
    Failed,
    Ready,
    Staged,
    Stopped,
    Task,
    WorkerOptions,
)

ROOT = Path(__file__).parents[2]
E = TypeVar("E")


def local(
    devices: str | Sequence[str], options: WorkerOptions, lost_seconds: float = 600.0
) -> Callable[[Callable[[], float]], Executor]:
    """What makes an executor for this machine, on a clock."""
    return lambda clock: LocalExecutor(devices, options, lost_seconds=lost_seconds, clock=clock)


@dataclass
class Harness:
    """An executor and everything that it has said. A test ends in a failure, not in a wait, after `patience`.

    make: makes the executor, on a clock; ahead: by how many seconds that clock runs before the real one; it is never
    set back.
    """

    make: Callable[[Callable[[], float]], Executor]
    patience: float = 60.0
    ahead: float = 0.0
    events: list[Event] = field(default_factory=list)
    _heard: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.executor = self.make(self.now)

    def now(self) -> float:
        """The time that the executor sees."""
        return time.monotonic() + self.ahead

    def poll(self, ahead: float = 0.0) -> None:
        """Poll once, this far ahead.

        What the workers said before the clock moves is heard at its own time: else it would count as progress then.
        """
        if ahead > self.ahead:
            self.events += self.executor.poll(self.now())
            self.ahead = ahead
        self.events += self.executor.poll(self.now())

    def until(self, enough: Callable[[], object], *, ahead: float = 0.0) -> None:
        """Poll until `enough`, this far ahead."""
        deadline = time.monotonic() + self.patience
        while not enough():
            assert time.monotonic() < deadline, f"still waiting, after {self.events}"
            wait(self.executor.waitables(), timeout=0.05)  # type: ignore[arg-type]
            self.poll(ahead)

    def ready(self, workers: int = 1) -> None:
        """Start, and wait until so many more workers are ready."""
        before = len(self.of(Ready))
        self.executor.start()
        self.until(lambda: len(self.of(Ready)) >= before + workers)

    def of(self, kind: type[E]) -> list[E]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def answers(self, job: str) -> list[Any]:
        """How a job ended, each time."""
        ends = Staged | Failed | Stopped | Died
        return [e for e in self.events if isinstance(e, ends) and e.job_id == job]

    def answer(self, job: str, *, ahead: float = 0.0) -> Any:
        """Wait for the end of a job's next attempt and return how it ended."""
        heard = self._heard.get(job, 0)
        self.until(lambda: len(self.answers(job)) > heard, ahead=ahead)
        self._heard[job] = heard + 1
        return self.answers(job)[heard]

    def paint(self, task: Task) -> Any:
        """Submit and wait for the answer."""
        self.until(self.executor.capacity)
        self.executor.submit(task)
        return self.answer(task.job_id)

    def pid(self, worker: int = 0) -> int:
        """The process of a worker."""
        pid = self.executor.status(self.now())[worker].pid
        assert pid is not None
        return pid


@dataclass
class Jobs:
    """Makes tasks for the fake renderer."""

    folder: Path

    def __call__(
        self, name: str, *, limits: dict[str, object] | None = None, **script: object
    ) -> Task:
        """A task whose content is the script (see `tests.fakes`)."""
        return self.of(name, json.dumps(script).encode(), limits=limits)

    def with_preview(self, name: str, **script: object) -> Task:
        """The same, with a live preview."""
        return replace(self(name, **script), preview=self.folder / f"{name}.jpg")

    def of(
        self,
        name: str,
        content: bytes,
        style: bytes = b"a style",
        *,
        settings: dict[str, object] | None = None,
        limits: dict[str, object] | None = None,
    ) -> Task:
        """A task with these inputs."""
        spool = self.folder / name
        spool.mkdir()
        (spool / "stage").mkdir()
        inputs = []
        for role, data in ((Role.CONTENT, content), (Role.STYLE, style)):
            (spool / role).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            inputs.append(JobInput(role, f"{name}.{role}.png", str(role), digest, len(data)))
        return Task(
            job_id=f"{name}-id",
            name=name,
            attempt=1,
            inputs=tuple(inputs),
            spool=spool,
            stage=spool / "stage",
            checkpoint=spool / "checkpoint",
            settings=resolve(settings or {}),
            outputs=Outputs(loss_plot=False, progress=False),
            limits=Limits(**limits or {}),  # type: ignore[arg-type]
        )


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """A maker of tasks."""
    return Jobs(tmp_path)


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Harness]]:
    """A maker of executors, with the fake renderer unless told otherwise; they are stopped at the end."""
    # The workers do not have the checkout on their path by themselves.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made: list[Harness] = []

    def make(
        devices: str | Sequence[str] = "cpu", lost_seconds: float = 600.0, **options: Any
    ) -> Harness:
        base = WorkerOptions(renderer="tests.fakes:Renderer", logs=tmp_path / "logs", threads=1)
        made.append(Harness(local(devices, replace(base, **options), lost_seconds)))
        return made[-1]

    yield make
    for one in made:
        one.executor.stop(0.0)
