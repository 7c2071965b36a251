"""Numbers for Prometheus: a text file for node_exporter's textfile collector, or a port of this machine."""

from __future__ import annotations

import json
import logging
from collections import Counter as Counts
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    start_http_server,
)

from nst_daemon.addresses import not_available
from nst_daemon.config import Metrics
from nst_daemon.jobs import JobState
from nst_daemon.names import printable
from nst_daemon.service.live_status import STATES, LiveStatus

log = logging.getLogger(__name__)

#: Upper bounds of the histogram of durations, in seconds: from a sketch on a GPU to a large picture on a CPU.
STAGE_BUCKETS = (
    *(0.1, 0.3, 1, 3, 10, 20, 30, 60, 120, 300, 600),
    *(1200, 1800, 3600, 7200, 14400, 28800),
)
#: Why an attempt is repeated.
RETRY_REASONS = ("transient", "memory", "death")


class PrometheusMetrics:
    """The metrics of one daemon. Raises ConfigError if the port is not available.

    Args:
        options: The file and the port.
        began: When the daemon started, in seconds since the epoch.
    """

    def __init__(self, options: Metrics, began: float = 0.0) -> None:
        self._options = options
        self._problem = ""
        self.registry = registry = CollectorRegistry()
        # With a prefix: node_exporter has metrics of the same names for itself.
        ProcessCollector(namespace="nst", registry=registry)
        self.ended = Counter(
            "nst_jobs_ended", "Jobs that have ended.", ["state"], registry=registry
        )
        self.retries = Counter(
            "nst_retries", "Attempts that failed and are repeated.", ["why"], registry=registry
        )
        self.deaths = Counter(
            "nst_worker_deaths",
            "How often a worker's process has ended without a request.",
            ["worker"],
            registry=registry,
        )
        self._seconds = Histogram(
            "nst_stage_seconds",
            "Duration of each stage of a job, in seconds.",
            ["stage"],
            registry=registry,
            buckets=STAGE_BUCKETS,
        )
        self._jobs = _gauge(registry, "nst_jobs", "Jobs in the ledger.", "state")
        self._age = _gauge(registry, "nst_queue_age_seconds", "Age of the oldest waiting job.")
        self.progress = _gauge(
            registry,
            "nst_progress_timestamp_seconds",
            "When a worker last painted an iteration or finished a picture; at first, the start.",
        )
        self._speed = _gauge(registry, "nst_iterations_per_second", "Recent speed.", "worker")
        self._memory = _gauge(
            registry, "nst_device_memory_bytes", "Memory held on the device.", "worker"
        )
        self._workers = _gauge(registry, "nst_workers", "Workers.", "state")
        self._free = _gauge(registry, "nst_free_disk_bytes", "Free space.", "folder")
        self._least_free = _gauge(
            registry,
            "nst_min_free_disk_bytes",
            "Less free space than this pauses the queue (limits.min_free_disk).",
        )
        self._running = _gauge(
            registry, "nst_running", "1 while the daemon runs, 0 in its last report."
        )
        self._reported = _gauge(
            registry, "nst_report_timestamp_seconds", "When the daemon last set these numbers."
        )
        self._state = _gauge(
            registry, "nst_state", "1 for what the daemon is doing, 0 for all else.", "state"
        )
        self._paused = _gauge(
            registry, "nst_paused", "1 while the queue waits for a person to fix something."
        )
        self._pause = _gauge(
            registry,
            "nst_paused_since_timestamp_seconds",
            "When the queue was paused, and why; absent while it is not.",
            "reason",
        )
        self.progress.set(began)
        # A counter that appears with its first event has no increase to alert on.
        for state in JobState:
            if state.terminal:
                self.ended.labels(state.value)
        for why in RETRY_REASONS:
            self.retries.labels(why)
        if options.port:
            try:
                start_http_server(options.port, addr=options.address, registry=registry)
            except OSError as error:
                place = f"metrics.port {options.port} on {options.address}"
                raise not_available(place, error) from error

    def staged(self, sidecar: Path) -> None:
        """Count the seconds of each stage. sidecar: the file NAME.json of a picture."""
        try:
            seconds: Mapping[str, float] = json.loads(sidecar.read_bytes())["seconds"]
            for stage, number in seconds.items():
                self._seconds.labels(stage).observe(number)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            log.debug("%s has no durations: %s", printable(sidecar.name), error)

    def update(
        self,
        live: LiveStatus,
        counts: Mapping[JobState, int],
        oldest: float | None,
        free: Mapping[str, int],
        *,
        least_free: int,
    ) -> None:
        """Set the gauges.

        Args:
            live: The status.
            counts: Jobs by state.
            oldest: When the oldest waiting job was created; None if none waits.
            free: Free bytes by folder, without folders that are missing.
            least_free: Bytes below which the queue pauses.
        """
        _set(self._jobs, {state.value: number for state, number in counts.items()})
        self._age.set(live.at - oldest if oldest is not None else 0)
        _set(self._speed, {painting.worker: painting.speed or 0 for painting in live.paintings})
        _set(self._memory, {w["worker"]: w["device_memory"] for w in live.workers})
        _set(self._workers, Counts(w["state"] for w in live.workers))
        for worker in live.workers:
            self.deaths.labels(worker["worker"])
        _set(self._free, free)
        self._least_free.set(least_free)
        self._running.set(live.state != "stopped")
        self._paused.set(live.state in ("paused", "lost"))
        _set(self._state, {state: state == live.state for state in STATES})
        since = live.paused_since
        _set(self._pause, {} if since is None else {live.reason: since})
        self._reported.set(live.at)
        if self._options.textfile:
            self._write(self._options.textfile)

    def _write(self, file: Path) -> None:
        """Write the text file. The log has each reason why that is impossible once."""
        problem = ""
        try:
            # Not the umask: node_exporter is another user. Not `files.write_atomic`: a lost file is no loss.
            part = file.with_name(f".{file.name}.part")
            part.write_bytes(generate_latest(self.registry))
            part.chmod(0o644)
            part.replace(file)
        except OSError as error:
            problem = f"{printable(str(file))} cannot be written: {error.strerror}"
            if problem != self._problem:
                log.warning("%s", problem)
        self._problem = problem


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=registry)


def _set(gauge: Gauge, values: Mapping[str, float]) -> None:
    """Set the values by their label and remove all others.

    The port is served by another thread: a value that stays is there at any time, else an alert would start anew.
    """
    for label, value in values.items():
        gauge.labels(label).set(value)
    shown = [label for m in gauge.collect() for s in m.samples for label in s.labels.values()]
    for label in shown:
        if label not in values:
            gauge.remove(label)
