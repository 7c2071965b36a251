"""The state of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, Response

from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.ops.status import check_health, gather, silence_of
from nst_daemon.service.live_status import InboxStatus, LiveStatus
from nst_daemon.web.context import Context, Shared
from nst_daemon.web.models import (
    HealthInfo,
    InboxInfo,
    PaintingInfo,
    StatusInfo,
    WaitingInfo,
    WorkerInfo,
)
from nst_daemon.web.stored_files import version_of

router = APIRouter(tags=["status"])


@router.get("/status")
def status(shared: Shared) -> StatusInfo:
    """What the daemon is doing."""
    return present(shared)


@router.get("/health", responses={503: {"model": HealthInfo}})
def health(shared: Shared, response: Response) -> HealthInfo:
    """Whether a daemon is running and writes its status: status code 200 or 503. This needs no token."""
    state, _ = check_health(shared.folders)
    response.status_code = 200 if state == "ok" else 503
    return HealthInfo(status=state)


def present(context: Context) -> StatusInfo:
    """The present status of a root. Raises LedgerError, StorageError."""
    context.ledger(LedgerReader).close()  # `gather` reports no jobs if the ledger is missing
    found = gather(context.folders, shown=0)
    live = found.live
    silence = silence_of(live) if live else ""
    return StatusInfo(
        version=version("nst-daemon"),
        running=found.running,
        state=("away" if not found.running else _state(live, silence)),
        reason=silence or (live.reason if live else ""),
        counts=dict(found.counts),
        paintings=_paintings(live, context.folders.results) if live else [],
        workers=[_worker(worker) for worker in live.workers] if live else [],
        inbox=_inbox(found.inbox) if found.inbox else None,
        queue_seconds=context.queue.seconds(found),
        changed=found.changed,
    )


def _state(live: LiveStatus | None, silence: str) -> str:
    """The state of a daemon that is running."""
    if silence:
        return "silent"
    return live.state if live else "loading"


def _paintings(live: LiveStatus, results: Path) -> list[PaintingInfo]:
    return [
        PaintingInfo(
            id=painting.id,
            name=painting.name,
            worker=painting.worker,
            done=painting.done,
            total=painting.total,
            percent=painting.percent,
            speed=painting.speed,
            left=painting.left,
            curve=list(painting.curve),
            preview=version_of(results, painting.preview) if painting.preview else 0,
        )
        for painting in live.paintings
    ]


def _worker(worker: Mapping[str, object]) -> WorkerInfo:
    return WorkerInfo(
        worker=str(worker["worker"]), state=str(worker["state"]), note=str(worker["note"] or "")
    )


def _inbox(inbox: InboxStatus) -> InboxInfo:
    return InboxInfo(
        waiting=[
            WaitingInfo(
                name=drop.name,
                cause=drop.cause,
                remedy=drop.remedy,
                files=list(drop.files),
                left=drop.left,
            )
            for drop in inbox.waiting
        ],
        settling=list(inbox.settling),
        left_alone=dict(inbox.left_alone),
        notes=list(inbox.notes),
        more=sum(inbox.more.values()),
    )
