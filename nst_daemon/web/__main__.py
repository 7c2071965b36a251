"""The process of the status page: the number of its listening socket is the argument, the options come by stdin."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time

import uvicorn
from PIL import Image

from nst_daemon.intake import submit
from nst_daemon.ops import logs
from nst_daemon.web.app import make_app
from nst_daemon.web.options import PageOptions

#: Seconds for what is being answered when the end comes, and until the process ends whatever it is doing.
GRACE, LONGEST_GRACE = 2, 3.5
#: Seconds after which a hidden file that nobody writes to any more belongs to an upload that was killed.
ABANDONED = 3600.0
#: Connections at the same time; further ones are told to come back later.
CONNECTIONS = 100
#: The largest picture that a thumbnail is made of: decoding it takes three bytes for each pixel.
THUMBNAIL_PIXELS = 60_000_000


def main() -> None:
    """Serve until SIGTERM, or until the daemon is gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what a terminal sends is for the daemon
    options = PageOptions.decode(sys.stdin.buffer.readline())
    logs.setup(options.log.format, options.log.level)
    # The server's own complaints go where ours do.
    ours, theirs = logging.getLogger("nst_daemon"), logging.getLogger("uvicorn")
    theirs.handlers[:], theirs.propagate = ours.handlers, False
    theirs.setLevel(logging.WARNING)
    Image.MAX_IMAGE_PIXELS = THUMBNAIL_PIXELS // 2  # Pillow refuses twice as many
    submit.sweep(options.folders.inbox, time.time() - ABANDONED)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(options),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACE,
        )
    )
    threading.Thread(target=_end_with_the_daemon, args=(server,), daemon=True).start()
    server.run([socket.socket(fileno=int(sys.argv[1]))])


def _end_with_the_daemon(server: uvicorn.Server) -> None:
    """Wait for the end of standard input, which the daemon holds open as long as it lives."""
    while sys.stdin.buffer.read(1):
        pass
    server.should_exit = True
    time.sleep(LONGEST_GRACE)  # the main thread ends the process before, unless it is stuck
    os._exit(1)


if __name__ == "__main__":
    main()
