"""What is in the inbox while no daemon is running."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from nst_daemon.config import Config
from nst_daemon.errors import StorageError
from nst_daemon.intake.scan import look_once
from nst_daemon.intake.strays import Strays
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.service.live_status import LISTED, InboxStatus


def inbox_now(config: Config) -> InboxStatus | None:
    """What the next daemon will find in the inbox if nothing changes; None if this user cannot read it."""
    try:
        seen = look_once(
            config.folders.inbox,
            config.folders.styles,
            max_bytes=config.limits.max_bytes,
            default_style=config.default_style,
            order_window=config.service.order_window,
            wall=time.time(),
            had_jobs=partial(_had_jobs, config.folders.ledger),
        )
    except StorageError:
        return None
    folders = config.folders
    strays = Strays(folders.root, folders.results, folders.inbox)
    refused = [f"will be refused: {found.reason}" for found in seen.rejections[:LISTED]]
    if (more := len(seen.rejections) - LISTED) > 0:
        refused.append(f"{more:,} more drops will be refused")
    return InboxStatus.of(seen.with_notes([*refused, *strays.lines(time.time())]))


def _had_jobs(ledger: Path, folder: str) -> bool:
    if not ledger.exists():
        return False
    with LedgerReader.attach(ledger) as reader:
        return reader.has_jobs_in(folder)
