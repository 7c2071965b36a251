"""What others see of the daemon: state/status.json, a headline for systemd, the numbers for Prometheus, its health."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from nst_daemon.errors import StorageError
from nst_daemon.intake.scan import Scan
from nst_daemon.jobs import JobState
from nst_daemon.mounts import free_bytes
from nst_daemon.names import printable
from nst_daemon.service.admission import Admission
from nst_daemon.service.dispatch import Dispatch
from nst_daemon.service.live_status import InboxStatus, LiveStatus, PaintingStatus, WaitingStatus
from nst_daemon.service.previews import Previews
from nst_daemon.service.state import Moment, Pause, State
from nst_daemon.units import duration
from nst_daemon.workers.executor import WorkerStatus

S = JobState


class Reporting:
    """Gathers the status from the parts of the service. It changes nothing but the files that others read."""

    def __init__(
        self, state: State, admission: Admission, dispatch: Dispatch, previews: Previews
    ) -> None:
        self._state, self._previews = state, previews
        self._admission, self._dispatch = admission, dispatch
        #: What is going on, in one line for people.
        self.headline = "starting"

    def publish(self, now: Moment, pause: Pause | None) -> None:
        """Write the status where `nst-daemon status` finds it, and update the metrics. Raises StorageError."""
        self._write(self.live(now, pause))

    def publish_end(self, now: Moment) -> None:
        """Write the last status and the last metrics, once the workers have ended. Raises StorageError."""
        live = self.live(now, None)
        self._write(
            replace(live, state="stopped", reason="", headline="stopped", paintings=(), workers=())
        )

    def _write(self, live: LiveStatus) -> None:
        self.headline = live.headline
        # First the metrics: they tell that the queue is paused also if the disk is too full for the status.
        if self._state.metrics:
            ledger, least = self._state.ledger, self._state.config.limits.min_free_disk
            oldest = ledger.oldest(S.CLAIMED, S.QUEUED, S.RETRYING)
            self._state.metrics.update(
                live, ledger.counts(), oldest, self._free_space(), least_free=least
            )
        live.write(self._state.folders.status)

    def _free_space(self) -> dict[str, int]:
        """Free bytes by folder, without folders that are missing."""
        folders, free = self._state.folders, {}
        for name, folder in (("state", folders.state), ("results", folders.results)):
            with suppress(StorageError):
                free[name] = free_bytes(folder)
        return free

    def live(self, now: Moment, pause: Pause | None) -> LiveStatus:
        """What only this process knows.

        Args:
            now: The time.
            pause: Why the queue waits, or None.
        """
        statuses = self._dispatch.executor.status(now.steady)
        paintings = self._paintings(statuses)
        state, reason = self._condition(pause, statuses)
        return LiveStatus(
            pid=os.getpid(),
            since=self._state.began.wall,
            at=now.wall,
            state=state,
            reason=reason,
            paused_since=pause.since if pause else None,
            headline=self._headline(state, reason, paintings),
            paintings=paintings,
            workers=[
                {
                    "worker": status.worker,
                    "state": status.state,
                    "pid": status.pid,
                    "device_memory": self._device_memory(status),
                    "info": dict(status.info),
                    "note": status.note,
                }
                for status in statuses
            ],
            inbox=self.inbox(),
        )

    def inbox(self) -> InboxStatus:
        """What is in the inbox, and why it is not painted."""
        postponed = {name: p.reason for name, p in self._admission.postponed.items()}
        others = {**postponed, **self._admission.held}
        return InboxStatus.of(
            self._admission.seen or Scan(),
            [WaitingStatus(printable(name), why) for name, why in others.items()],
        )

    def ailment(self, now: Moment, paused: str, patience: float, last_housekeeping: float) -> str:
        """Why the daemon is not healthy although its process runs; "" if it is healthy.

        A daemon that waits for a person to fix something is healthy.

        Args:
            now: The time.
            paused: Why the queue waits; "" if it does not.
            patience: Seconds of silence that are allowed.
            last_housekeeping: When the ledger was last checked, in seconds of the monotonic clock.
        """
        if now.steady - last_housekeeping > patience:
            return "the ledger has not been checked"
        since_scan = now.steady - self._admission.last_round
        if not paused and since_scan > self._state.config.service.rescan_seconds + patience:
            return "the inbox has not been scanned"
        for worker in self._dispatch.executor.status(now.steady):
            if worker.pid and worker.silent is not None and worker.silent > patience:
                return f"worker {worker.worker} has not answered for {duration(worker.silent)}"
        return ""

    def _paintings(self, statuses: Sequence[WorkerStatus]) -> list[PaintingStatus]:
        """The first job of each worker, and the next one once it has progress: the first one is being written then."""
        running, estimates = self._dispatch.running, self._dispatch.estimates
        return [
            PaintingStatus(
                id=job_id,
                name=running[job_id].name,
                worker=status.worker,
                done=estimate.done,
                total=estimate.total,
                percent=estimate.percent,
                speed=estimate.speed,
                left=estimate.left,
                curve=estimate.curve,
                preview=self._previews.shown(job_id),
            )
            for status in statuses
            for position, job_id in enumerate(status.jobs)
            if (estimate := estimates.get(job_id)) and (position == 0 or estimate.total)
        ]

    def _device_memory(self, status: WorkerStatus) -> int:
        return self._dispatch.device_memory.get(status.worker, 0) if status.pid else 0

    def _condition(self, pause: Pause | None, statuses: Sequence[WorkerStatus]) -> tuple[str, str]:
        """The state of the whole in one word, and why it is not at work."""
        if pause:
            since = datetime.fromtimestamp(pause.since).astimezone()
            return "paused", f"{pause.reason} (since {since:%Y-%m-%d %H:%M:%S})"
        if self._dispatch.resting:
            return "resting", self._dispatch.resting
        if self._dispatch.devices.lost:
            return "lost", self._dispatch.devices.lost
        working = {"idle", "painting"} & {status.state for status in statuses}
        notes = [f"worker {s.worker}: {s.note}" for s in statuses if s.note]
        if not working and notes:
            return "loading", notes[0]
        return ("painting" if self._dispatch.running else "idle"), ""

    def _headline(self, state: str, reason: str, paintings: Sequence[PaintingStatus]) -> str:
        """The status in one line: "painting dog 42 %, 7 waiting"."""
        counts = self._state.ledger.counts()
        queued = counts[S.QUEUED] + counts[S.RETRYING] + counts[S.RUNNING] - len(paintings)
        what = ", ".join(f"{job.name} {job.percent} %" for job in paintings)
        shown = "outside active hours" if state == "resting" else state
        line = f"{shown} {what}".rstrip() + (f": {reason}" if reason else "")
        return f"{line}, {queued} waiting" if queued else line
