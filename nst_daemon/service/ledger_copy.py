"""The copy of the ledger beside it, renewed at the start and once a day, in a thread: it takes seconds after years."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from nst_daemon.ledger_file import back_up


class LedgerCopy:
    """Renews the copy, over a connection of its own. The daemon goes on meanwhile.

    Args:
        ledger: The file.
        every: Seconds between two copies.
        began: When the daemon started, in seconds of the monotonic clock. It has a copy then, or makes one (`renew`).
    """

    def __init__(self, ledger: Path, every: float, began: float) -> None:
        self._ledger, self._every = ledger, every
        self._next = began + every
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="ledger-copy")
        self._copying: Future[None] | None = None

    def renew(self) -> None:
        """Begin to renew the copy now, unless that is under way."""
        if self._copying is None:
            self._copying = self._threads.submit(back_up, self._ledger)

    def tend(self, now: float) -> None:
        """Begin when it is time, in seconds of the monotonic clock. Raises StorageError if the last one has failed."""
        if self._copying is not None and self._copying.done():
            copied, self._copying = self._copying, None
            copied.result()
        if now >= self._next:
            self._next = now + self._every
            self.renew()

    def close(self) -> None:
        """Wait until what has begun is finished."""
        self._threads.shutdown()
