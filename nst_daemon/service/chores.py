"""Runs commands of this program for the daemon: the gallery and contact sheets.

They open pictures, which takes memory, so each runs in a process of its own; one at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nst_daemon.config import setting_variables
from nst_daemon.managed_process import ManagedProcess, child_environment, own_module

log = logging.getLogger(__name__)


class Chores:
    """The commands to run, in the order of the requests.

    Args:
        program: Each command's words are appended to it.
        environment: For the commands; None for `child_environment`.
    """

    def __init__(
        self, program: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._program, self._environment = program, environment
        self._wanted: dict[tuple[str, ...], None] = {}
        self._running: tuple[str, ...] = ()
        self._process: ManagedProcess | None = None

    @classmethod
    def of(cls, source: Path | None) -> Chores:
        """The commands of this program. source: the daemon's configuration file."""
        # The configuration is named in the environment, because options follow the name of the command.
        named = {"NST_CONFIG": str(source)} if source else {}
        settings = setting_variables(os.environ)
        return cls(own_module("nst_daemon"), child_environment() | settings | named)

    def request(self, *words: str) -> None:
        """Run this command: once for any number of equal requests, and once more for those that come while it runs."""
        self._wanted[words] = None

    def tend(self) -> None:
        """Check whether the command has ended, and start the next. Never waits."""
        if self._process is not None:
            code = self._process.exit_code()
            if code is None:
                return
            if code:
                log.warning("`%s` ended with %d", " ".join(self._running), code)
            self._process.close()
            self._process = None
        if self._wanted:
            self._running = next(iter(self._wanted))
            del self._wanted[self._running]
            try:
                command = [*self._program, *self._running]
                self._process = ManagedProcess(command, environment=self._environment)
            except OSError as error:
                log.warning("`%s` could not be started: %s", " ".join(self._running), error)

    def finish(self, seconds: float) -> None:
        """Run what is still requested. What takes longer than `seconds` is killed, and the rest is dropped."""
        self.tend()
        while self._process is not None:
            if self._process.wait(seconds) is None:
                self._process.kill()
                self._process.wait(seconds)
                self._wanted.clear()
                log.warning("`%s` was not finished in time", " ".join(self._running))
            self.tend()
