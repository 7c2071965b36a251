"""Keeps results/index.html up to date while the daemon runs: in a process of its own, never two at a time.

The daemon itself stays small: it opens no picture.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def command(source: Path | None) -> list[str]:
    """`nst-daemon gallery` with the daemon's own interpreter and configuration file."""
    return [
        sys.executable, "-m", "nst_daemon", "gallery", *(["--config", str(source)] if source else [])
    ]  # fmt: skip


class Rewriter:
    """Runs a command once after any number of requests, and once more where some came while it ran."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None

    def request(self) -> None:
        """There is something new."""
        self._wanted = True

    def tend(self) -> None:
        """Take note of an end, and start where that is wanted; never waits."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            if self._process.returncode:
                log.warning("the gallery was not written: code %d", self._process.returncode)
            self._process = None
        if self._wanted:
            self._wanted = False
            try:
                # A session of its own: Ctrl-C is for the daemon, which then waits.
                self._process = subprocess.Popen(  # noqa: S603 (our own command)
                    self._command, stdout=subprocess.DEVNULL, start_new_session=True
                )
            except OSError as error:
                log.warning("the gallery was not written: %s", error)

    def finish(self, seconds: float) -> None:
        """Write what is still wanted, and wait for it; no longer than this for each of at most two."""
        for _ in range(2):  # the one that runs may have begun before the last request
            self.tend()
            if self._process is None:
                return
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                log.warning("the gallery was not finished within %g s", seconds)
                return
        self.tend()
