"""The lines of the log about drops that wait: one for each drop, and a summary where there are very many."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nst_daemon.intake.drops import Waiting
from nst_daemon.intake.steps import Steps

log = logging.getLogger(__name__)

#: The most lines within a window, and its length in seconds.
LINES, WINDOW = 20, 60.0


class WaitingLog:
    """Logs each drop that waits once, when it has settled, and not again while it waits."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._window_began = float("-inf")
        self._lines = 0

    def report(
        self, waiting: Sequence[Waiting], settling: Sequence[str], now: float
    ) -> Steps[None]:
        """Log what a scan has found for the first time, in steps.

        Args:
            waiting: all drops that wait.
            settling: paths that may still change; what was logged about them is not forgotten.
            now: monotonic seconds.
        """
        new = []
        logged: set[str] = set()
        for drop in waiting:
            if drop.announced and not self._knows(drop):
                new.append(drop)
                logged.update(drop.paths)
            logged.update(path for path in drop.paths if path in self._logged)
            yield
        for path in settling:
            if path in self._logged:
                logged.add(path)
            yield
        self._logged = logged
        if now - self._window_began >= WINDOW:
            self._window_began, self._lines = now, 0
        room = max(0, LINES - self._lines)
        for drop in new[:room]:
            log.info("waiting: %s", drop.text)
        self._lines += len(new[:room])
        if (more := len(new) - room) > 0 and room:
            log.info("%d more drops wait in the inbox; `nst-daemon status` has their number", more)

    def _knows(self, drop: Waiting) -> bool:
        return all(path in self._logged for path in drop.paths)
