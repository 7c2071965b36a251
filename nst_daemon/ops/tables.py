"""Tables for a terminal: status, history, batch summaries, and plain rows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import resolve
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger_reader import JobEvent
from nst_daemon.names import printable
from nst_daemon.ops.status import SHOWN, Status, resident
from nst_daemon.service.live_status import LiveStatus


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of plain values, one row each."""
    grid = _grid(headings)
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid


def status_page(status: Status, now: float | None = None) -> RenderableType:
    """The output of `nst-daemon status`. `now`: seconds since the epoch; the current time if None."""
    now = time.time() if now is None else now
    parts: list[RenderableType] = [Text(_headline(status, now))]
    if status.live:
        parts += [_paintings(status.live), _workers(status.live), *_inbox(status.live)]
    parts.append(Text(_counts(status.counts)))
    for title, jobs in (("Next", status.next), ("Recent failures", status.failed)):
        if jobs:
            parts += [Text(f"\n{title}"), _jobs(jobs, status.asked)]
    return Group(*parts)


def history(jobs: Sequence[Job]) -> Table:
    """The output of `nst-daemon history`."""
    table = _grid(("id", "name", "state", "changed", "attempts", "result or error"))
    for job in jobs:
        told = _text(job.result or job.error)
        attempts = str(job.attempts)
        table.add_row(job.id[:8], _text(job.name), job.state, when(job.updated), attempts, told)
    return table


def story(job: Job, events: Sequence[JobEvent]) -> RenderableType:
    """The output of `nst-daemon history JOB`."""
    facts = Table.grid(padding=(0, 2))
    files = ", ".join(f"{i.name} ({i.role})" for i in job.inputs)
    settings, outputs = (
        ", ".join(f"{key}: {value}" for key, value in mapping.items())
        for mapping in (own_settings(job.settings), job.outputs)
    )
    for key, value in {
        "job": job.name,
        "id": job.id,
        "state": job.state,
        "inputs": files,
        "settings": settings,
        "picture": outputs,
        "result": job.result,
        "inputs are in": job.archive,
        "error": job.error,
    }.items():
        if value:
            facts.add_row(key, _text(value))
    table = _grid(("time", "state", "attempt", "note"))
    for event in events:
        table.add_row(when(event.at), event.state, str(event.attempt), _text(event.note))
    return Group(facts, Text(), table)


def own_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """The preset, and the settings that differ from it. settings: all settings of a job, as the ledger has them."""
    if settings.get("preset") not in PRESETS:  # of another version
        return dict(settings)
    usual = json.loads(json.dumps(asdict(resolve({"preset": settings["preset"]}))))
    return {k: v for k, v in settings.items() if k == "preset" or v != usual.get(k)}


def batch_table(summary: Mapping[str, Any]) -> RenderableType:
    """The output of `nst-daemon batch`: what `status.batch_summary` returned."""
    table = _grid(("name", "state", "result or error"))
    for job in summary["jobs"]:
        exists = job["skipped"] and job["state"] == JobState.DONE
        told = _text(job["result"] or job["error"])
        table.add_row(_text(job["name"]), "exists" if exists else job["state"], told)
    counts = "{batch}: {painted} of {asked} painted, {skipped} skipped, {missing} missing"
    if number := sum(summary["passed_over"].values()):
        counts += f"; {number} files are not image files"
    return Group(table, _text(counts.format_map(summary)))


def when(seconds: float) -> str:
    """A local date and time, from seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def span(seconds: float) -> str:
    """A rounded duration: 42 s, 7 min, 3 h 05 min, 12 days."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // (24 * 60)} days"


def size(number: float) -> str:
    """A rounded number of bytes: 512 MiB, 1.5 GiB."""
    return f"{number / 2**20:,.0f} MiB" if number < 2**30 else f"{number / 2**30:,.1f} GiB"


def _headline(status: Status, now: float) -> str:
    root = printable(str(status.root))
    if not status.running:
        return f"{root}: no daemon is running"
    if status.live is None:
        return f"{root}: the daemon has just started, or is of another version"
    live = status.live
    return f"{root}: {printable(live.headline)} (PID {live.pid}, up {span(now - live.since)})"


def _paintings(live: LiveStatus) -> Table:
    if not live.paintings:
        return Table.grid()
    table = _grid(("name", "worker", "", "iterations", "it/s", "left"))
    for job in live.paintings:
        table.add_row(
            _text(job.name),
            job.worker,
            f"{job.percent} %",
            f"{job.done} of {job.total}",
            f"{job.speed:.2f}" if job.speed else "",
            span(job.left) if job.left is not None else "",
        )
    return table


def _workers(live: LiveStatus) -> Table:
    table = _grid(("worker", "state", "RAM", "VRAM", "device", "weights"))
    for worker in live.workers:
        info, memory = worker["info"], resident(worker["pid"])
        table.add_row(
            worker["worker"],
            worker["state"],
            size(memory) if memory else "",
            size(worker["device_memory"]) if worker["device_memory"] else "",
            _text(info.get("device_name", "")),
            _text(info.get("weights_description", "")),
        )
    return table


def _inbox(live: LiveStatus) -> list[Text]:
    lines = [f"waiting: {printable(name)}: {what}" for name, what in live.waiting.items()]
    lines += [f"still arriving: {printable(path)}" for path in live.settling]
    lines += [f"left alone: {printable(why)}" for why in live.left_alone.values()]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"… and {len(lines) - SHOWN} more in the inbox"]
    return [Text(line) for line in lines]


def _counts(counts: Mapping[JobState, int]) -> str:
    present = [f"{number} {state}" for state, number in counts.items() if number]
    return "jobs: " + (", ".join(present) or "none")


def _jobs(jobs: Sequence[Job], asked: Mapping[str, str]) -> Table:
    table = _grid(("id", "name", "state", "since", ""))
    for job in jobs:
        note = f"{asked[job.id]} requested" if job.id in asked else job.error
        table.add_row(job.id[:8], _text(job.name), job.state, when(job.updated), _text(note))
    return table


def _grid(headings: Sequence[str]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    return grid


def _text(value: object) -> Text:
    """Printable text without markup."""
    return Text(printable(str(value)))
