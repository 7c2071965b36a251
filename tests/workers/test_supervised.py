"""The supervision of one worker while it loads, over a transport that the tests speak through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nst_daemon.units import duration
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Died, Ended, Event, Loading, Ready, WorkerOptions
from nst_daemon.workers.process.loading import LEAST_WORK, LoadingReports
from nst_daemon.workers.supervised import LOADING_FACTOR, JobHistory, SupervisedWorker


@dataclass
class Line:
    """A transport without a process: what `said` holds arrives with the next poll."""

    said: list[messages.Message] = field(default_factory=list)
    end: Ended | None = None
    pid: int | None = 1
    running: bool = True
    open: bool = True

    def send(self, message: messages.Message) -> None:
        pass

    def messages(self) -> Iterable[messages.Message]:
        said, self.said = self.said, []
        return said

    def ended(self) -> Ended | None:
        return self.end

    def kill(self) -> None:
        self.end = Ended("was killed")

    def close(self, patience: float) -> None:
        pass

    def waitables(self) -> list[object]:
        return []


class Start:
    """A worker that has been started at time 0 with stall_seconds = 20."""

    def __init__(self) -> None:
        self.line = Line()
        self.worker = SupervisedWorker(
            "cpu", WorkerOptions(stall_seconds=20), lambda _: self.line, JobHistory(), 600.0
        )
        self.worker.start(0.0)

    def poll(self, now: float, *said: messages.Message) -> list[Event]:
        """Everything that follows from these messages at this time."""
        self.line.said += said
        return [*self.worker.poll(now), *self.worker.poll(now)]


def test_a_slow_start_has_time_as_long_as_it_advances() -> None:
    """Loading may take longer than stall_seconds if it advances; a slow step is reported once."""
    start = Start()
    events = [
        e for now in range(1, 100) for e in start.poll(now, Loading("cpu", "importing torch"))
    ]
    assert events == [Loading("cpu", "importing torch", 15.0)]
    assert start.worker.status(100).note == "importing torch"
    ready = Ready("cpu", {})
    assert start.poll(101, ready) == [ready]
    assert start.worker.status(101).note == ""


def test_each_step_that_does_not_advance_is_named() -> None:
    """A worker that answers without advancing is ended after stall_seconds; so is one that does not answer."""
    for now, silent, said in (
        (31.0, False, "made no progress for 21 s while loading the weights"),
        (31.0, True, "has not answered for 21 s while loading the weights"),
    ):
        start = Start()
        assert not start.poll(10.0, Loading("cpu", "loading the weights"))
        if not silent:
            assert not start.poll(29.0, messages.Alive())
        (died,) = start.poll(now)
        assert isinstance(died, Died)
        assert died.reason == f"{said}; raise service.stall_seconds if this machine is slow"
        assert start.worker.status(now).note == died.reason


def test_a_step_that_advances_for_ever_is_ended() -> None:
    """A driver that hangs while it uses the CPU gets no more than LOADING_FACTOR times stall_seconds."""
    start, limit = Start(), int(LOADING_FACTOR * 20)
    for now in range(1, limit + 1):
        assert not [e for e in start.poll(now, Loading("cpu", "a")) if isinstance(e, Died)]
    (died,) = start.poll(limit + 2, Loading("cpu", "a"))
    assert isinstance(died, Died)
    assert died.reason.startswith(
        f"was still a after {duration(limit + 1)}; raise service.stall_seconds"
    )


def test_only_work_counts_as_progress() -> None:
    """A process that has worked since the last beat repeats its step; one that waits does not."""
    work, said = [0.0], list[Loading]()
    reports = LoadingReports("cpu", said.append, lambda: work[0])
    reports.report("loading the weights")
    reports.beat()
    assert len(said) == 1
    work[0] += 0.6 * LEAST_WORK
    reports.beat()
    assert len(said) == 1
    work[0] += 0.6 * LEAST_WORK  # slow, but it works
    reports.beat()
    assert said == 2 * [Loading("cpu", "loading the weights")]
