"""What systemd is told: sd_notify(3), which is a datagram to $NOTIFY_SOCKET. Elsewhere nothing is sent."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from nst_daemon.names import printable


class Notifier:
    """Says that the service is ready, reloading, alive or stopping, and what it is doing.

    environ: where $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID are looked for.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        mine = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        #: Seconds after which systemd ends a service that is not `alive`; 0 where it does not.
        self.watchdog = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 if mine else 0.0
        self._status = ""
        self._next_sign = 0.0

    @property
    def patience(self) -> float:
        """Seconds for which a part of the service may be silent before `alive` must not be said."""
        return self.watchdog / 2

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is read again."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent when it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={printable(text)}")

    def alive(self, now: float) -> None:
        """A sign of life, as often as is needed. now: monotonic seconds."""
        if self.watchdog and now >= self._next_sign:
            self._next_sign = now + self.watchdog / 4
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        """Send, without waiting; a systemd that does not listen is no reason to fail."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                message = "\n".join(lines).encode(errors="replace")
                sender.sendto(message, socket.MSG_DONTWAIT, self._address)
