"""Starts and restarts the process that serves the status page (`nst_daemon.web`), and holds its socket.

The page has a process of its own, so that requests cost the daemon neither memory nor time, and a crash of the page
does not affect it. The daemon holds the listening socket: an address that is in use is reported at the start, and
browsers wait while the process is replaced. The process reads its options from standard input; when that closes, the
daemon has ended.
"""

from __future__ import annotations

import logging
import math
import socket

from nst_daemon import extras
from nst_daemon.addresses import not_available, split_address
from nst_daemon.errors import ConfigError
from nst_daemon.managed_process import ManagedProcess, exit_reason, own_module
from nst_daemon.units import duration
from nst_daemon.web.options import PageOptions, missing_packages

log = logging.getLogger(__name__)

#: Seconds until a page that has ended is started again: at first, and at most. A page that ran for the longest pause
#: starts with the first one again.
FIRST_RESTART_PAUSE, LONGEST_RESTART_PAUSE = 1.0, 60.0
#: Seconds that the page may take to end.
STOP_SECONDS = 4.0


class StatusPage:
    """The page of one daemon.

    Raises:
        ConfigError: The page needs a token, its address is not available, or the extra `web` is not installed.
    """

    def __init__(self, options: PageOptions) -> None:
        options.check()
        self._options = options
        self._socket = listen(options.address)
        self._process: ManagedProcess | None = None
        self._ending = False  # it has been asked to
        # Monotonic seconds:
        self._started = self._next_start = -math.inf
        self._pause = FIRST_RESTART_PAUSE

    def change(self, options: PageOptions) -> None:
        """Continue with other options. After a ConfigError nothing has changed."""
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
        """Start the process if there is an address, and see whether it has ended. now: monotonic seconds."""
        if self._process is not None:
            code = self._process.exit_code()
            if code is None:
                self._enforce_end(self._process, now)
                return
            self._note_end(code, now)
        if self._socket and now >= self._next_start:
            self._start(self._socket.fileno(), now)

    def close(self) -> None:
        """End the process and close the socket. Waits a few seconds at most."""
        if self._socket:
            self._socket.close()
        if self._process is not None:
            self._process.terminate()
            if self._process.wait(STOP_SECONDS) is None:
                self._process.kill()
            self._forget()

    def _start(self, number: int, now: float) -> None:
        """Start the process. number: the descriptor of the socket."""
        try:
            self._process = ManagedProcess(
                own_module("nst_daemon.web", str(number)),
                pass_fds=[number],
                first_input=self._options.encode(),
            )
        except OSError as error:
            log.warning("the status page could not be started: %s", error)
            self._next_start = now + LONGEST_RESTART_PAUSE
        else:
            self._started = now
            log.info("the status page is at http://%s/", self._options.address)

    def _enforce_end(self, process: ManagedProcess, now: float) -> None:
        """Kill a process that was asked to end and has not ended within `STOP_SECONDS` seconds."""
        if self._ending:
            process.deadline = min(process.deadline, now + STOP_SECONDS)
            if process.overdue(now):
                process.kill()

    def _note_end(self, code: int, now: float) -> None:
        self._forget()
        if self._ending or now - self._started >= LONGEST_RESTART_PAUSE:
            self._pause = FIRST_RESTART_PAUSE
        if not self._ending:
            log.warning(
                "the process of the status page %s; it is started again in %s",
                exit_reason(code),
                duration(self._pause),
            )
            self._next_start = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_RESTART_PAUSE)
        self._ending = False

    def _forget(self) -> None:
        assert self._process is not None
        self._process.close(STOP_SECONDS)
        self._process = None


def listen(address: str) -> socket.socket | None:
    """A listening socket; None for "".

    Raises:
        ConfigError: The address is not available, or the extra `web` is not installed.
    """
    if not address:
        return None
    if missing := missing_packages():
        raise ConfigError(f"status_page needs {', '.join(missing)}", remedy=extras.install("web"))
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # "::" means every address of the machine, including those of IPv4.
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        raise not_available(f"status_page {address}", error) from error
