"""Servers that notifications are sent to: an HTTP server that keeps requests, and an SMTP server that keeps mails."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What a server on 127.0.0.1 has received.

    Attributes:
        port: Of the server.
        status: The status code of its responses.
        requests: Path and body of each request.
        mails: Each mail.
    """

    port: int = 0
    status: int = 200
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)


@contextmanager
def http_receiver() -> Iterator[Receiver]:
    """A server for webhooks and for ntfy."""
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            received.requests.append((self.path, self.rfile.read(length)))
            self.send_response(received.status)
            self.end_headers()

        do_PUT = do_POST  # noqa: N815 (named by the library)

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler), received):
        yield received


@contextmanager
def mail_receiver() -> Iterator[Receiver]:
    """An SMTP server without encryption and passwords."""
    received = Receiver()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 test\r\n")
            for line in iter(self.rfile.readline, b""):
                word = line.split()[0].upper() if line.split() else b""
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    text = b"".join(iter(self.rfile.readline, b".\r\n"))
                    received.mails.append(message_from_bytes(text))
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                if word == b"QUIT":
                    return

    with _serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler), received):
        yield received


@contextmanager
def _serving(server: socketserver.TCPServer, received: Receiver) -> Iterator[None]:
    received.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
