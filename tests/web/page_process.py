"""The page as a process, for a root without a daemon."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from nst_daemon import tokens
from nst_daemon.config import load
from nst_daemon.ledger import Ledger
from nst_daemon.web.options import PageOptions

DEADLINE = 60.0
#: The longest time that an answer may take under attack. (Alone it takes a few milliseconds.)
SOON = 5.0
STATUS = b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n"


class PageProcess:
    """A page process, its port, and its tokens."""

    def __init__(self, folder: Path, *, program: str = "tests.web.served_page") -> None:
        environment = {
            "NST_FOLDERS__ROOT": str(folder),
            "NST_STATUS_PAGE": "127.0.0.1:1",
            "NST_LIMITS__MIN_FREE_DISK": "0",
        }
        self.options = PageOptions.of(load(None, environment, search=()), serve=True)
        for name in ("inbox", "styles", "results", "state"):
            getattr(self.options.folders, name).mkdir(parents=True)
        Ledger.open(self.options.folders.ledger).close()
        self.token = tokens.create(self.options.folders, "test", "full")
        self.log, self._program = folder / "log", program
        self.start()

    def start(self) -> None:
        """Start the process, also again."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=2000)
        self.port: int = listener.getsockname()[1]
        with listener, self.log.open("ab") as log:
            number = listener.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._program, str(number)],
                pass_fds=[number],
                stdin=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(self.options.encode())
        self.process.stdin.flush()

    @property
    def authorized(self) -> bytes:
        """The header line with the token."""
        return f"Authorization: Bearer {self.token}\r\n".encode()

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A connection from an address of this machine."""
        return socket.create_connection(
            ("127.0.0.1", self.port), timeout=DEADLINE, source_address=(source, 0)
        )

    def ask(self, request: bytes, source: str = "127.0.0.1") -> bytes:
        """Everything that the server sends after a request, until it closes the connection."""
        with self.connect(source) as connection:
            with suppress(ConnectionError):
                connection.sendall(request)
            return until_closed(connection)

    def answers(self, source: str = "127.0.0.1") -> bool:
        """Whether another visitor is served soon."""
        began = time.monotonic()
        said = self.ask(STATUS + self.authorized + b"Connection: close\r\n\r\n", source)
        return said.startswith(b"HTTP/1.1 200") and time.monotonic() - began < SOON

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


def until_closed(connection: socket.socket) -> bytes:
    """What arrives until the connection ends."""
    said = b""
    with suppress(ConnectionError):
        while more := connection.recv(1 << 16):
            said += more
    return said
