"""Messages to systemd: sd_notify(3), a datagram to $NOTIFY_SOCKET. Without that variable nothing is sent."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from nst_daemon.names import printable


class Notifier:
    """Tells systemd that the service is ready, reloading, alive or stopping, and what it is doing.

    environ: holds $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID, where systemd has set them.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        mine = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        #: systemd ends the service when it has not been `alive` for this many seconds; 0: never.
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog = int(usec) / 1e6 if mine and usec.isdecimal() else 0.0
        self._status = ""
        self._next_ping = 0.0

    @property
    def patience(self) -> float:
        """While a part of the service has been silent for this many seconds, `alive` must not be called."""
        return self.watchdog / 2

    def ready(self) -> None:
        """Report the end of the start or of a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that the configuration is being read again."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the service is shutting down."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`; sent only when it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={printable(text)}")

    def alive(self, now: float) -> None:
        """Reset systemd's watchdog, as often as it needs it. now: monotonic seconds."""
        if self.watchdog and now >= self._next_ping:
            self._next_ping = now + self.watchdog / 4
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        """Send without waiting; errors are ignored."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                message = "\n".join(lines).encode(errors="replace")
                sender.sendto(message, socket.MSG_DONTWAIT, self._address)
