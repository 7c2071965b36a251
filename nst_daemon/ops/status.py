"""`nst-daemon status`: what a root is doing, from its folder alone, whether a daemon serves it or not.

What only the daemon knows (`LiveStatus`) is in state/status.json, which it replaces once a second at most; the rest
is in the ledger, which any process may read. No port is open.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nst_daemon.config import Folders
from nst_daemon.errors import UsageError
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import JobEvent, Ledger
from nst_daemon.names import printable
from nst_daemon.service.live_status import LiveStatus

S = JobState
#: How many jobs that are next, or have ended of late, a page shows.
SHOWN = 8
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Status:
    """Everything about a root.

    live: None where no daemon runs; next: what is prepared, then the queue, then what is tried again later; failed,
    done: the latest first; asked: steering that no daemon has picked up yet.
    """

    root: Path
    live: LiveStatus | None
    running: bool
    counts: Mapping[JobState, int]
    next: Sequence[Job]
    failed: Sequence[Job]
    done: Sequence[Job]
    asked: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """For programs: `schema` is raised whenever a key changes its meaning or goes."""
        live = asdict(self.live) if self.live else None
        if self.live and live:
            for worker in live["workers"]:
                worker["memory"] = resident(worker["pid"])
            live["memory"] = resident(self.live.pid)
        return {
            "schema": SCHEMA,
            "root": str(self.root),
            "running": self.running,
            "live": live,
            "jobs": {state.value: number for state, number in self.counts.items()},
            "next": [brief(job) for job in self.next],
            "failed": [brief(job) for job in self.failed],
            "done": [brief(job) for job in self.done],
            "asked": dict(self.asked),
        }


def brief(job: Job) -> dict[str, Any]:
    """A job in a few words, for programs."""
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
        "error": job.error,
    }


def gather(folders: Folders, shown: int = SHOWN) -> Status:
    """Look at a root. shown: how many jobs that are next, or have ended of late.

    Raises LedgerError where its ledger is damaged or of another version, StorageError.
    """
    running = served(folders.state)
    live = LiveStatus.read(folders.status) if running else None
    if not folders.ledger.exists():
        return Status(folders.root, live, running, dict.fromkeys(JobState, 0), (), (), (), {})
    painted = {painting.id for painting in live.paintings} if live else set()
    with Ledger.attach(folders.ledger) as ledger:
        prepared = [job for job in ledger.jobs(S.RUNNING) if job.id not in painted]
        return Status(
            root=folders.root,
            live=live,
            running=running,
            counts=ledger.counts(),
            next=[*prepared, *ledger.queue(shown), *ledger.jobs(S.RETRYING)][:shown],
            failed=ledger.history(S.FAILED, S.QUARANTINED, limit=shown),
            done=ledger.history(S.DONE, limit=shown),
            asked={asked.job_id: asked.verb for asked in ledger.pending_requests()},
        )


def served(state: Path) -> bool:
    """Whether a daemon holds the lock of a root (see `service.serve`)."""
    try:
        with (state / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def resident(pid: int | None) -> int | None:
    """Bytes of memory that a process holds; None where it has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def follow(show: Callable[[], object], pause: Callable[[float], object] = time.sleep) -> None:
    """Show again and again, once a second, until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        while True:
            show()
            pause(1.0)


# For people


def page(status: Status, now: float | None = None) -> RenderableType:
    """The page that `nst-daemon status` shows. now: seconds since the epoch."""
    now = time.time() if now is None else now
    parts: list[RenderableType] = [Text(_first_line(status, now))]
    if status.live:
        parts += [_paintings(status.live), _workers(status.live), *_inbox(status.live)]
    parts.append(Text(_counts(status.counts)))
    for title, jobs in (("next", status.next), ("failed of late", status.failed)):
        if jobs:
            parts += [Text(f"\n{title}"), _jobs(jobs, status.asked)]
    return Group(*parts)


def _first_line(status: Status, now: float) -> str:
    root = printable(str(status.root))
    if not status.running:
        return f"{root}: no daemon runs here"
    if status.live is None:
        return f"{root}: a daemon has just started, or one of another version runs"
    live = status.live
    return f"{root}: {printable(live.headline)} (process {live.pid}, for {span(now - live.since)})"


def _paintings(live: LiveStatus) -> Table:
    table = _grid(("name", "on", "", "iterations", "a second", "left"))
    for job in live.paintings:
        table.add_row(
            Text(printable(job.name)),
            job.worker,
            f"{job.percent} %",
            f"{job.done} of {job.total}",
            f"{job.speed:.2f}" if job.speed else "",
            span(job.left) if job.left is not None else "",
        )
    return table if live.paintings else Table.grid()


def _workers(live: LiveStatus) -> Table:
    table = _grid(("worker", "state", "memory", "on the device", "device", "weights"))
    for worker in live.workers:
        info, memory = worker["info"], resident(worker["pid"])
        table.add_row(
            worker["worker"],
            worker["state"],
            size(memory) if memory else "",
            size(worker["device_memory"]) if worker["device_memory"] else "",
            Text(printable(str(info.get("device_name", "")))),
            Text(printable(str(info.get("weights_description", "")))),
        )
    return table


def _inbox(live: LiveStatus) -> list[Text]:
    lines = [f"waiting: {printable(name)}: {what}" for name, what in live.waiting.items()]
    lines += [f"still arriving: {printable(path)}" for path in live.settling]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"… and {len(lines) - SHOWN} more that wait or arrive"]
    return [Text(line) for line in lines]


def _counts(counts: Mapping[JobState, int]) -> str:
    there = [f"{number} {state}" for state, number in counts.items() if number]
    return "jobs: " + (", ".join(there) or "none yet")


def _jobs(jobs: Sequence[Job], asked: Mapping[str, str]) -> Table:
    table = _grid(("id", "name", "state", "since", ""))
    for job in jobs:
        note = f"{asked[job.id]} was asked for" if job.id in asked else job.error
        table.add_row(
            job.id[:8],
            Text(printable(job.name)),
            job.state,
            when(job.updated),
            Text(printable(note)),
        )
    return table


def history(jobs: Sequence[Job]) -> Table:
    """The table that `nst-daemon history` shows."""
    table = _grid(("id", "name", "state", "ended or changed", "attempts", "result or reason"))
    for job in jobs:
        said = Text(printable(job.result or job.error))
        name = Text(printable(job.name))
        table.add_row(job.id[:8], name, job.state, when(job.updated), str(job.attempts), said)
    return table


def story(job: Job, events: Sequence[JobEvent]) -> RenderableType:
    """Everything about one job."""
    facts = Table.grid(padding=(0, 2))
    files = ", ".join(f"{i.name} ({i.role})" for i in job.inputs)
    settings = ", ".join(f"{key}: {value}" for key, value in job.settings.items())
    for key, value in {
        "job": job.name,
        "id": job.id,
        "state": job.state,
        "inputs": files,
        "settings": settings,
        "result": job.result,
        "inputs went to": job.archive,
        "error": job.error,
    }.items():
        if value:
            facts.add_row(key, Text(printable(value)))
    happened = _grid(("at", "state", "attempt", ""))
    for event in events:
        note = Text(printable(event.note))
        happened.add_row(when(event.at), event.state, str(event.attempt), note)
    return Group(facts, Text(), happened)


def story_json(job: Job, events: Sequence[JobEvent]) -> dict[str, Any]:
    """Everything about one job, for programs."""
    inputs = [
        {"role": i.role.value, "name": i.name, "sha256": i.sha256, "bytes": i.size}
        for i in job.inputs
    ]
    happened = [{**asdict(event), "state": event.state.value} for event in events]
    more = {"inputs": inputs, "settings": dict(job.settings), "archive": job.archive}
    return {**brief(job), **more, "events": happened}


def batch_summary(
    name: str, asked: int, painted: Sequence[Job], skipped: Sequence[Job | None]
) -> dict[str, Any]:
    """How a batch went, for programs. asked: how many pictures it is of; skipped: jobs that are older than it."""
    jobs = [{**brief(job), "skipped": False} for job in painted]
    jobs += [{**brief(job), "skipped": True} for job in skipped if job]
    there = sum(job["state"] == S.DONE for job in jobs)
    return {
        "schema": SCHEMA,
        "batch": name,
        "asked": asked,
        "painted": sum(job.state is S.DONE for job in painted),
        "skipped": len(skipped),
        "missing": asked - there,
        "jobs": jobs,
    }


def batch_table(summary: Mapping[str, Any]) -> RenderableType:
    """The same for people."""
    table = _grid(("name", "state", "result or reason"))
    for job in summary["jobs"]:
        state = "there already" if job["skipped"] and job["state"] == S.DONE else job["state"]
        said = Text(printable(job["result"] or job["error"]))
        table.add_row(Text(printable(job["name"])), state, said)
    counts = "{batch}: {painted} of {asked} painted, {skipped} skipped, {missing} missing"
    return Group(table, Text(printable(counts.format_map(summary))))


def _grid(headings: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def when(seconds: float) -> str:
    """A time as people here write it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def parse_since(text: str, now: float | None = None) -> float:
    """A moment in seconds since the epoch from `90m`, `12h`, `7d` ago, or an ISO date (local) with or without a time.

    "" is the beginning of time. Raises UsageError.
    """
    units = {"m": 60, "h": 3600, "d": 86400}
    if not text:
        return 0.0
    try:
        if text[-1] in units:
            return (time.time() if now is None else now) - float(text[:-1]) * units[text[-1]]
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise UsageError(
            f"{printable(text)!r} is no moment", remedy="write 90m, 12h, 7d or 2026-05-01T22:00"
        ) from error


def span(seconds: float) -> str:
    """A length of time, roughly: 42 s, 7 min, 3 h 05 min, 12 days."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // (24 * 60)} days"


def size(number: float) -> str:
    """Bytes, roughly."""
    return f"{number / 2**20:,.0f} MiB" if number < 2**30 else f"{number / 2**30:,.1f} GiB"


def find_job(ledger: Ledger, text: str) -> Job:
    """The one job that `text` means: an id, its beginning, or a name (then the newest). Raises UsageError."""
    found = ledger.find(text)
    by_name = [job for job in found if job.name == text]
    if by_name:
        return by_name[0]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{len(found)} jobs have an id that begins with {text!r}", remedy="give more of it"
        )
    raise UsageError(f"there is no job {text!r}", remedy="`nst-daemon history` lists names and ids")
