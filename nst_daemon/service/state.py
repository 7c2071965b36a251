"""What the parts of the service share: the time of a round, the configuration, the ledger and the metrics.

Each part keeps its own jobs. What is here is either constant or a service to all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nst_daemon.config import Config, Folders
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger

if TYPE_CHECKING:
    from nst_daemon.service.metrics import PrometheusMetrics


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks.

    Args:
        wall: Seconds since the epoch, for the ledger and for people.
        steady: Seconds of the monotonic clock, for everything that waits.
    """

    wall: float
    steady: float

    @classmethod
    def now(cls) -> Moment:
        """The real time."""
        return cls(time.time(), time.monotonic())


@dataclass(frozen=True, slots=True)
class Pause:
    """Why the queue waits, in one line for people, and since when, in seconds since the epoch."""

    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Pacing:
    """How much is done at once, and how soon again.

    Args:
        slice_seconds: What may be very much, as a look at the inbox, is left alone after this time, until the next
            round.
        group_seconds: Where more jobs follow, those of so many seconds join the queue or end together, in one
            transaction.
        claims_a_round: The most drops that are copied at once.
        cancels_a_round: The same for jobs that are cancelled by request.
        priorities_a_round: The same for priorities, which only the ledger has.
        back_off: Seconds before a transient error is tried again, doubled with each attempt.
        longest_back_off: The limit of that, in seconds.
        retention: Seconds between two looks for what has been kept for long enough.
        backup: Seconds between two copies of the ledger.
    """

    slice_seconds: float = 0.05
    group_seconds: float = 0.25
    claims_a_round: int = 16
    cancels_a_round: int = 50
    priorities_a_round: int = 500
    back_off: float = 15.0
    longest_back_off: float = 1800.0
    retention: float = 3600.0
    backup: float = 86400.0


@dataclass(slots=True)
class State:
    """What every part of the service needs.

    Args:
        config: As it is now; a reload replaces it.
        ledger: The queue and the history.
        began: When this process started.
        drain: End when the inbox is empty (`once` and `batch`).
        metrics: Where numbers for Prometheus go; None if they are not wanted.
        pacing: How much is done at once.
        clock: Measures how long something takes, in seconds.
    """

    config: Config
    ledger: Ledger
    began: Moment
    drain: bool = False
    metrics: PrometheusMetrics | None = None
    pacing: Pacing = Pacing()
    clock: Callable[[], float] = time.monotonic

    @property
    def folders(self) -> Folders:
        """The folders of the root."""
        return self.config.folders

    def move(self, job: Job, to: JobState, now: Moment, **changes: Any) -> Job:
        """Move a job in the ledger; see `Ledger.move`."""
        return self.ledger.move(job.id, to, now=now.wall, **changes)

    def count_retry(self, why: str) -> None:
        """Count an attempt that is made again, for Prometheus."""
        if self.metrics:
            self.metrics.retries.labels(why).inc()

    def count_deaths(self, workers: Iterable[str]) -> None:
        """Count the processes of these workers that have ended without a request, for Prometheus."""
        if self.metrics:
            for worker in workers:
                self.metrics.deaths.labels(worker).inc()

    def note_progress(self, now: Moment) -> None:
        """A worker has painted an iteration, or a picture is finished: for Prometheus."""
        if self.metrics:
            self.metrics.progress.set(now.wall)


def make_metrics(config: Config, began: Moment) -> PrometheusMetrics | None:
    """The numbers for Prometheus, where the configuration asks for them. Raises ConfigError.

    Args:
        config: The configuration.
        began: When the daemon started.
    """
    if config.metrics.textfile is None and not config.metrics.port:
        return None
    from nst_daemon.service.metrics import PrometheusMetrics  # noqa: PLC0415 (its library is not needed otherwise)

    return PrometheusMetrics(config.metrics, began.wall)
