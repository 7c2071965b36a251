"""Numbers for Prometheus: a text file for node_exporter's textfile collector, or a port of this machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Summary,
    start_http_server,
    write_to_textfile,
)

from nst_daemon.addresses import not_available
from nst_daemon.config import Metrics
from nst_daemon.jobs import JobState
from nst_daemon.names import printable
from nst_daemon.service.live_status import LiveStatus

log = logging.getLogger(__name__)


class PrometheusMetrics:
    """The metrics of one daemon. Raises ConfigError if the port is not available."""

    def __init__(self, options: Metrics) -> None:
        self._options = options
        self._problem = ""
        self._registry = registry = CollectorRegistry()
        self.ended = Counter(
            "nst_jobs_ended", "Jobs that have ended.", ["state"], registry=registry
        )
        self.retries = Counter(
            "nst_retries", "Attempts that failed and are repeated.", ["why"], registry=registry
        )
        self._seconds = Summary(
            "nst_stage_seconds",
            "Duration of each stage of a job, in seconds.",
            ["stage"],
            registry=registry,
        )
        self._jobs = Gauge("nst_jobs", "Jobs in the ledger.", ["state"], registry=registry)
        self._age = Gauge(
            "nst_queue_age_seconds", "Age of the oldest waiting job.", registry=registry
        )
        self._speed = Gauge(
            "nst_iterations_per_second", "Recent speed.", ["worker"], registry=registry
        )
        self._memory = Gauge(
            "nst_device_memory_bytes", "Memory held on the device.", ["worker"], registry=registry
        )
        self._workers = Gauge("nst_workers", "Workers.", ["state"], registry=registry)
        self._free = Gauge("nst_free_disk_bytes", "Free space.", ["folder"], registry=registry)
        self._running = Gauge(
            "nst_running", "1 while the daemon runs, 0 in its last report.", registry=registry
        )
        self._paused = Gauge(
            "nst_paused",
            "1 while the queue waits for a person to fix something.",
            registry=registry,
        )
        self._pause = Gauge(
            "nst_paused_since_timestamp_seconds",
            "When the queue was paused, and why; absent while it is not.",
            ["reason"],
            registry=registry,
        )
        for state in JobState:
            if state.terminal:
                self.ended.labels(state.value)
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
    ) -> None:
        """Set the gauges.

        Args:
            live: The status.
            counts: Jobs by state.
            oldest: When the oldest waiting job was created; None if none waits.
            free: Free bytes by folder.
        """
        for state, number in counts.items():
            self._jobs.labels(state.value).set(number)
        self._age.set(live.at - oldest if oldest is not None else 0)
        for gauge in (self._speed, self._memory, self._workers):
            gauge.clear()
        for painting in live.paintings:
            self._speed.labels(painting.worker).set(painting.speed or 0)
        for worker in live.workers:
            self._memory.labels(worker["worker"]).set(worker["device_memory"])
            self._workers.labels(worker["state"]).inc()
        for folder, number in free.items():
            self._free.labels(folder).set(number)
        self._running.set(live.state != "stopped")
        self._paused.set(live.state in ("paused", "lost"))
        self._pause.clear()
        if live.paused_since is not None:
            self._pause.labels(live.reason).set(live.paused_since)
        if self._options.textfile:
            self._write(self._options.textfile)

    def _write(self, file: Path) -> None:
        """Write the text file. The log has each reason why that is impossible once."""
        problem = ""
        try:
            write_to_textfile(str(file), self._registry)
        except OSError as error:
            problem = f"{printable(str(file))} cannot be written: {error.strerror}"
            if problem != self._problem:
                log.warning("%s", problem)
        self._problem = problem
