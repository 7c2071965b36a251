"""The state of a root, read from its folder: of `nst-daemon status`, `history` and the status page.

What only the running daemon knows (`LiveStatus`) is in state/status.json. The rest is in the ledger, which any process
may read. No port is needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from nst_daemon import files, rights
from nst_daemon.config import Folders
from nst_daemon.errors import UsageError
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger_listing import JobFilter, JobLists
from nst_daemon.ledger_reader import JobEvent
from nst_daemon.names import printable
from nst_daemon.service.live_status import InboxStatus, LiveStatus
from nst_daemon.units import duration, parse_duration

S = JobState
#: Length of the lists of next, failed and finished jobs.
SHOWN = 8
STATUS_SCHEMA = 2
#: The daemon writes its status once a second; after so many seconds without it, something is wrong.
SILENT_SECONDS = 60.0
#: No daemon is running ("away"), or one has stopped writing its status ("silent").
Health = Literal["ok", "away", "silent"]


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a root.

    Attributes:
        root: the root folder.
        live: what the running daemon reports; None if no daemon is running.
        running: whether a daemon is running.
        inbox: what is in the inbox, by the daemon's last scan; if no daemon is running, at the moment (`looking_at`),
            or None.
        queue_seconds: painting time until the queue is empty (`ops.estimates`); None if it is unknown.
        changed: the latest change of any job, or the latest request; seconds since the epoch.
        counts: number of jobs in each state.
        next: jobs in a worker that are not being painted yet, then the queue, then jobs to be retried. If no daemon is
            running, the jobs that it will continue come first.
        failed: jobs that failed or are quarantined, newest first.
        done: finished jobs, newest first.
        asked: requests (`retry`, `cancel`, `priority`, `delete`) that no daemon has handled yet, by job id.
    """

    root: Path
    live: LiveStatus | None
    running: bool
    counts: Mapping[JobState, int]
    next: Sequence[Job]
    failed: Sequence[Job]
    done: Sequence[Job]
    asked: Mapping[str, str]
    inbox: InboxStatus | None = None
    queue_seconds: float | None = None
    changed: float = 0.0

    def looking_at(self, look: Callable[[], InboxStatus | None]) -> Self:
        """This state with what is in the inbox at the moment, if no daemon reports it. look: reads the inbox."""
        return self if self.running else replace(self, inbox=look())

    def as_json(self) -> dict[str, Any]:
        """The JSON form. `schema` is increased when the meaning of a key changes or a key is removed."""
        live = asdict(self.live) if self.live else None
        if self.live and live:
            del live["inbox"]
            for worker in live["workers"]:
                worker["memory"] = resident(worker["pid"])
            live["memory"] = resident(self.live.pid)
        return {
            "schema": STATUS_SCHEMA,
            "root": str(self.root),
            "running": self.running,
            "live": live,
            "inbox": asdict(self.inbox) if self.inbox else None,
            "jobs": {state.value: number for state, number in self.counts.items()},
            "next": [brief(job) for job in self.next],
            "failed": [brief(job) for job in self.failed],
            "done": [brief(job) for job in self.done],
            "asked": dict(self.asked),
            "queue_seconds": self.queue_seconds,
        }


def brief(job: Job) -> dict[str, Any]:
    """The most important fields of a job, for JSON."""
    return {
        "id": job.id,
        "name": job.name,
        "source": job.source,
        "state": job.state.value,
        "created": job.created,
        "updated": job.updated,
        "priority": job.priority,
        "attempts": job.attempts,
        "result": job.result,
        "deleted": job.deleted,
        "error": job.error,
    }


def gather(folders: Folders, shown: int = SHOWN) -> Status:
    """Read the state of a root.

    Args:
        folders: the folders of the root.
        shown: length of the lists of next, failed and finished jobs.

    Raises:
        LedgerError: the ledger is damaged or of another version.
        StorageError: the ledger cannot be read.
    """
    rights.check_member(folders.ledger)
    running = served(folders.state)
    live = read_live(folders)
    inbox = live.inbox if live else None
    if not folders.ledger.exists():
        none = dict.fromkeys(JobState, 0)
        return Status(folders.root, live, running, none, (), (), (), {}, inbox)
    painted = {painting.id for painting in live.paintings} if live else set()
    with JobLists.attach(folders.ledger) as ledger:
        prepared = [job for job in ledger.jobs(S.RUNNING) if job.id not in painted]
        queue = ledger.in_painting_order(JobFilter(states=(S.QUEUED,)), shown)
        queued = [job for job in map(ledger.get, queue) if job]
        return Status(
            root=folders.root,
            live=live,
            running=running,
            counts=ledger.counts(),
            next=[*prepared, *queued, *ledger.jobs(S.RETRYING)][:shown],
            failed=ledger.history(S.FAILED, S.QUARANTINED, limit=shown),
            done=ledger.history(S.DONE, limit=shown),
            asked=dict(ledger.pending_verbs()),
            inbox=inbox,
            changed=ledger.changed(),
        )


def read_live(folders: Folders) -> LiveStatus | None:
    """What the running daemon reports; None if no daemon is running."""
    return LiveStatus.read(folders.status) if served(folders.state) else None


def served(state: Path) -> bool:
    """Whether a daemon holds the lock of a root (see `service.loop.serve`)."""
    try:
        with os.fdopen(files.open_file(state / "lock")) as file:
            return not files.lock(file, shared=True)
    except OSError:
        return False


def check_health(folders: Folders) -> tuple[Health, str]:
    """Whether a daemon serves a root and writes its status, and one line for people."""
    if not served(folders.state):
        root = printable(str(folders.root))
        return "away", f"no daemon serves {root}; start one with `nst-daemon run`"
    live = LiveStatus.read(folders.status)
    if live and (silence := silence_of(live)):
        return "silent", silence
    return "ok", live.headline if live else "starting"


def silence_of(live: LiveStatus) -> str:
    """Why a status is not the present one; "" if it is. After a change of the clock it is for a second."""
    seconds = time.time() - live.at
    if abs(seconds) < SILENT_SECONDS:
        return ""
    return (
        f"the daemon has not written its status for {duration(seconds)}: "
        "it hangs, or its disk is full; look at its log"
    )


def resident(pid: int | None) -> int | None:
    """The resident memory of a process in bytes; None if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def follow(show: Callable[[], object], pause: Callable[[float], object] = time.sleep) -> None:
    """Call `show` once a second, until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        while True:
            show()
            pause(1.0)


def story(job: Job, events: Sequence[JobEvent]) -> dict[str, Any]:
    """Everything about one job, for JSON."""
    inputs = [
        {"role": i.role.value, "name": i.name, "sha256": i.sha256, "bytes": i.size}
        for i in job.inputs
    ]
    happened = [{**asdict(event), "state": event.state.value} for event in events]
    more = {
        "inputs": inputs,
        "settings": dict(job.settings),
        "outputs": dict(job.outputs),
        "changes": asdict(job.changes),
        "archive": job.archive,
    }
    return {**brief(job), **more, "events": happened}


def batch_summary(
    name: str,
    asked: int,
    painted: Sequence[Job],
    skipped: Sequence[Job | None],
    passed_over: Mapping[str, int],
) -> dict[str, Any]:
    """The outcome of a batch, for JSON.

    Args:
        name: the name of the batch.
        asked: the number of pictures in the batch.
        painted: the jobs that it created.
        skipped: older jobs that have painted a picture of the batch; None for one that the ledger no longer has.
        passed_over: number of files that a glob matched and that are not image files, by suffix.
    """
    jobs = [{**brief(job), "skipped": False} for job in painted]
    jobs += [{**brief(job), "skipped": True} for job in skipped if job]
    there = sum(job["state"] == S.DONE for job in jobs)
    cancelled = sum(job["state"] == S.CANCELLED for job in jobs)
    return {
        "schema": STATUS_SCHEMA,
        "batch": name,
        "asked": asked,
        "painted": sum(job.state is S.DONE for job in painted),
        "skipped": len(skipped),
        "cancelled": cancelled,
        "missing": asked - there - cancelled,
        "passed_over": dict(passed_over),
        "jobs": jobs,
    }


def parse_since(text: str, now: float | None = None) -> float:
    """A time in seconds since the epoch.

    Args:
        text: `90m`, `12h`, `7d` or `2w` ago, or a local ISO date with or without a time; 0.0 if empty.
        now: seconds since the epoch; the current time if None.

    Raises:
        UsageError: the text is something else.
    """
    if not text:
        return 0.0
    ago = parse_duration(text)
    if ago is not None:
        return (time.time() if now is None else now) - ago
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise UsageError(
            f"{printable(text)!r} is not a valid time",
            remedy="write 90m, 12h, 7d or 2026-05-01T22:00",
        ) from error
