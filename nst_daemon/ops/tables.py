"""What commands print: status, history, batch summaries, and plain rows. `width` is that of `layout.terminal_width`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from nst_daemon.engine.settings import own_settings
from nst_daemon.jobs import Job, JobState, listed, short_id
from nst_daemon.ledger_reader import JobEvent
from nst_daemon.names import printable
from nst_daemon.ops.layout import Row, facts, table, wrapped
from nst_daemon.ops.status import Status, resident
from nst_daemon.service.live_status import LISTED, LiveStatus
from nst_daemon.units import count, duration, rate, size, when


def status_page(status: Status, width: int | None, now: float | None = None) -> str:
    """The output of `nst-daemon status`. `now`: seconds since the epoch; the current time if None."""
    now = time.time() if now is None else now
    parts = [wrapped(_headline(status, now), width, rest="    ")]
    if status.live:
        parts += _paintings(status.live, width)
        parts += [_workers(status.live, width)]
    parts += [wrapped(line, width, rest="    ") for line in _inbox(status)]
    parts.append(wrapped(_counts(status), width, rest="    "))
    for title, jobs in (("Next", status.next), ("Recent failures", status.failed)):
        if jobs:
            parts += [f"\n{title}", _jobs(jobs, status.asked, width)]
    return "\n".join(part for part in parts if part)


def history(jobs: Sequence[Job], width: int | None) -> str:
    """The output of `nst-daemon history`."""
    rows = [
        Row(
            (job.name, job.short_id, job.state, when(job.updated), job.attempts),
            job.result or job.error or ("deleted by request" if job.deleted else ""),
        )
        for job in jobs
    ]
    return table(("name", "id", "state", "changed", "attempts"), rows, width, "result or reason")


def story(job: Job, events: Sequence[JobEvent], width: int | None) -> str:
    """The output of `nst-daemon history JOB`."""
    files = ", ".join(f"{i.name} ({i.role})" for i in job.inputs)
    settings, outputs = (listed(m) for m in (own_settings(job.settings), job.outputs))
    told = {
        "job": job.name,
        "id": job.id,
        "state": job.state,
        "inputs": files,
        "settings": settings,
        "changed by request": str(job.changes),
        "picture": outputs,
        "result": job.result,
        "inputs are in": job.archive,
        "reason": job.error,
    }
    rows = [Row((when(e.at), e.state, e.attempt), e.note) for e in events]
    happened = table(("time", "state", "attempt"), rows, width, "note")
    return f"{facts(told.items(), width)}\n\n{happened}"


def batch_table(summary: Mapping[str, Any], width: int | None) -> str:
    """The output of `nst-daemon batch`: what `status.batch_summary` returned."""
    rows = []
    for job in summary["jobs"]:
        exists = job["skipped"] and job["state"] == JobState.DONE
        state = "exists" if exists else job["state"]
        rows.append(Row((job["name"], short_id(job["id"]), state), job["result"] or job["error"]))
    counts = "{batch}: {painted} of {asked} painted, {skipped} skipped, {missing} missing"
    if summary["cancelled"]:
        counts += ", {cancelled} cancelled"
    if number := sum(summary["passed_over"].values()):
        counts += f"; {number} files are not image files"
    told = wrapped(printable(counts.format_map(summary)), width, rest="    ")
    shown = [table(("name", "id", "state"), rows, width, "result or reason")] if rows else []
    return "\n".join([*shown, told])


def _headline(status: Status, now: float) -> str:
    root = printable(str(status.root))
    if not status.running and not status.root.is_dir():
        return (
            f"{root} does not exist: change to the folder of the configuration, or name it with --config "
            "(`nst-daemon init` makes a folder to serve)"
        )
    if not status.running:
        return f"{root}: no daemon is running"
    if status.live is None:
        return f"{root}: the daemon has just started, or is of another version"
    live = status.live
    return f"{root}: {printable(live.headline)} (PID {live.pid}, up {duration(now - live.since)})"


def _paintings(live: LiveStatus, width: int | None) -> list[str]:
    if not live.paintings:
        return []
    rows = [
        Row(
            (
                job.name,
                job.worker,
                f"{job.percent} %",
                f"{job.done} of {job.total}",
                rate(job.speed) if job.speed else "",
                duration(round(job.left)) if job.left is not None else "",
            )
        )
        for job in live.paintings
    ]
    headings = ("painting", "worker", "done", "iterations", "speed", "left")
    return [table(headings, rows, width)]


def _workers(live: LiveStatus, width: int | None) -> str:
    rows = []
    for worker in live.workers:
        info, memory = worker["info"], resident(worker["pid"])
        rows.append(
            Row(
                (
                    worker["worker"],
                    worker["state"],
                    size(memory) if memory else "",
                    size(worker["device_memory"]) if worker["device_memory"] else "",
                    info.get("device_name", ""),
                    info.get("weights_description", ""),
                )
            )
        )
    headings = ("worker", "state", "RAM", "VRAM", "device", "weights")
    return table(headings, rows, width) if rows else ""


def _inbox(status: Status) -> list[str]:
    """What is in the inbox; without a daemon, what it holds at the moment."""
    if not status.inbox:
        return []
    lines = [printable(line) for line in status.inbox.lines()]
    if len(lines) > LISTED + 1:
        lines[LISTED:] = [
            f"… and {len(lines) - LISTED} more lines; `nst-daemon status --json` has them"
        ]
    if not status.running and status.inbox.ready:
        drops = count(status.inbox.ready, "drop")
        lines.insert(0, f"ready: {drops}; `nst-daemon run` or `nst-daemon once` paints them")
    if lines and not status.running:
        lines.insert(0, "in the inbox now:")
    return lines


def _counts(status: Status) -> str:
    present = [f"{number} {state}" for state, number in status.counts.items() if number]
    left = (
        f" (the queue takes about {duration(status.queue_seconds)})" if status.queue_seconds else ""
    )
    return "jobs: " + (", ".join(present) or "none") + left


def _jobs(jobs: Sequence[Job], asked: Mapping[str, str], width: int | None) -> str:
    rows = []
    for job in jobs:
        note = f"{asked[job.id]} requested" if job.id in asked else job.error
        rows.append(Row((job.name, job.short_id, job.state, when(job.updated)), note))
    return table(("name", "id", "state", "since"), rows, width, "reason")
