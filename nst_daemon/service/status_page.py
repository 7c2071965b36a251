"""The process that serves the status page (`nst_daemon.web`): its socket, its life, its replacement.

It is a process of its own, so that whatever the network asks for costs the daemon neither memory nor time, and a crash
of it nothing at all. The daemon keeps the listening socket: whether it can be had is known at the start, and while the
process is replaced browsers wait instead of being refused. What the process has to know comes through its standard
input, whose end tells it that the daemon is gone.
"""

from __future__ import annotations

import logging
import math
import socket

from nst_daemon.config import split_address
from nst_daemon.errors import ConfigError
from nst_daemon.managed_process import ManagedProcess, own_module
from nst_daemon.web.options import INSTALL, PageOptions, missing_packages

log = logging.getLogger(__name__)

#: Seconds until a page that has ended is started again, at first and at most; one that lived so long begins anew.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: Seconds that it may take to end.
GRACE = 4.0


class StatusPage:
    """The page of one daemon. Raises ConfigError where it needs a token, its address cannot be had, or the extra is
    missing."""

    def __init__(self, options: PageOptions) -> None:
        options.check()
        self._options = options
        self._socket = listen(options.address)
        self._process: ManagedProcess | None = None
        self._ending = False  # it has been asked to
        # Monotonic seconds:
        self._started = self._next_start = -math.inf
        self._pause = FIRST_PAUSE

    def change(self, options: PageOptions) -> None:
        """Go on with other options. Raises ConfigError, and then nothing has changed."""
        if options == self._options:
            return
        options.check()
        if options.address != self._options.address:
            old, self._socket = self._socket, listen(options.address)
            if old:
                old.close()
        self._options = options
        if self._process is not None:
            self._process.terminate()
            self._ending = True

    @property
    def pid(self) -> int | None:
        """The process that serves the page now."""
        return self._process.pid if self._process else None

    def tend(self, now: float) -> None:
        """Start the process where it is wanted, note its end; never waits. now: monotonic seconds."""
        if self._process is not None:
            code = self._process.exit_code()
            if code is None:
                self._enforce_end(self._process, now)
                return
            self._note_end(code, now)
        if self._socket and now >= self._next_start:
            self._start(self._socket.fileno(), now)

    def close(self) -> None:
        """End the process, and let go of the socket; waits for a few seconds at most."""
        if self._socket:
            self._socket.close()
        if self._process is not None:
            self._process.terminate()
            if self._process.wait(GRACE) is None:
                self._process.kill()
            self._forget()

    def _start(self, number: int, now: float) -> None:
        """number: of the socket's descriptor."""
        try:
            self._process = ManagedProcess(
                own_module("nst_daemon.web", str(number)),
                pass_fds=[number],
                first_input=self._options.encode(),
            )
        except OSError as error:
            log.warning("the status page could not be started: %s", error)
            self._next_start = now + LONGEST_PAUSE
        else:
            self._started = now
            log.info("the status page is at http://%s/", self._options.address)

    def _enforce_end(self, process: ManagedProcess, now: float) -> None:
        """Kill a process that was asked to end and has not ended within `GRACE` seconds."""
        if self._ending:
            process.deadline = min(process.deadline, now + GRACE)
            if process.overdue(now):
                process.kill()

    def _note_end(self, code: int, now: float) -> None:
        self._forget()
        if self._ending or now - self._started >= LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        if not self._ending:
            log.warning("the status page ended with %d; again in %.0f s", code, self._pause)
            self._next_start = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._ending = False

    def _forget(self) -> None:
        assert self._process is not None
        self._process.close(GRACE)
        self._process = None


def listen(address: str) -> socket.socket | None:
    """A listening socket, None for "". Raises ConfigError where it cannot be had, or the extra is missing."""
    if not address:
        return None
    if missing := missing_packages():
        raise ConfigError(f"status_page needs {', '.join(missing)}", remedy=INSTALL)
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # "::" is every address of the machine, those of IPv4 too.
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        raise ConfigError(
            f"status_page {address} cannot be had: {error.strerror or error}",
            remedy="choose another; the systemd service needs status-page.conf for a network, see docs/operations.md",
        ) from error
