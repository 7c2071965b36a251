"""The process of the status page. Argument: descriptor of the listening socket. Standard input: the options."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from functools import partial

import uvicorn
from fastapi import FastAPI

from nst_daemon import files, machine
from nst_daemon.errors import NstError
from nst_daemon.intake import submit
from nst_daemon.ops import logs
from nst_daemon.web.app import make_app
from nst_daemon.web.connections import (
    DEFAULT_LIMITS,
    ConnectionLimits,
    Connections,
    WithoutNoise,
    protocol_of,
    raise_file_limit,
)
from nst_daemon.web.options import PageOptions
from nst_daemon.web.uploads import Uploads

#: Seconds that requests have to finish at the end, and until the process ends in any case.
SHUTDOWN_SECONDS, EXIT_SECONDS = 2, 3.5
#: Seconds that requests which did not finish have to remove their incomplete files.
CLEANUP_SECONDS = 0.5
#: A hidden file that was not written to for so many seconds belongs to an upload that was killed.
ABANDONED_SECONDS = 3600.0
#: The memory of the process in bytes. Decoding one picture for a thumbnail may take half of it.
MAX_MEMORY = 2 << 30
#: Seconds between two searches for expired uploads and other leftovers.
SWEEP_SECONDS = 600.0

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that ends event streams when it stops, instead of waiting for their clients."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all connections."""
        assert isinstance(self.config.app, FastAPI)
        self.config.app.state.context.feed.close()
        tasks = list(self.server_state.tasks)
        await super().shutdown(sockets)
        # uvicorn cancels them and ends the process at once: incomplete uploads would stay.
        if tasks:
            await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)


def main(limits: ConnectionLimits = DEFAULT_LIMITS) -> None:
    """Serve until SIGTERM, or until the daemon has ended."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal's signal is meant for the daemon
    options = PageOptions.decode(sys.stdin.buffer.readline())
    logs.setup(options.config.log.format, options.config.log.level)
    server_log = logging.getLogger("uvicorn")
    server_log.handlers[:] = logging.getLogger("nst_daemon").handlers
    server_log.propagate = False
    server_log.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(WithoutNoise())
    machine.limit_memory(min(options.limits.max_memory or MAX_MEMORY, MAX_MEMORY))
    machine.return_freed_memory()
    app = make_app(options)
    uploads = app.state.context.uploads
    _remove_leftovers(options, uploads, start=True)
    threading.Thread(target=_sweep, args=(options, uploads), daemon=True).start()
    server = Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=protocol_of(Connections(limits.within(raise_file_limit()))),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the guard reads them
            timeout_keep_alive=int(limits.idle_seconds),
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )
    threading.Thread(target=_end_with_the_daemon, args=(server,), daemon=True).start()
    server.run([socket.socket(fileno=int(sys.argv[1]))])


def _remove_leftovers(options: PageOptions, uploads: Uploads, *, start: bool = False) -> None:
    """Complete or remove what killed processes did not complete, and remove expired uploads.

    Args:
        options: with the folders.
        uploads: the store of uploads.
        start: whether the process has just started, so that nothing is arriving.
    """
    folders, abandoned = options.folders, time.time() - ABANDONED_SECONDS
    for act in (
        partial(submit.complete_killed, folders.inbox),
        partial(files.remove_parts, folders.inbox, abandoned),
        partial(files.remove_parts, folders.styles, abandoned),
        partial(uploads.sweep, start=start),
    ):
        try:
            act()
        except NstError as error:
            log.warning("%s", error)


def _sweep(options: PageOptions, uploads: Uploads) -> None:
    """Remove leftovers from time to time."""
    while True:
        time.sleep(SWEEP_SECONDS)
        _remove_leftovers(options, uploads)


def _end_with_the_daemon(server: uvicorn.Server) -> None:
    """Wait for the end of standard input, which the daemon keeps open while it is running."""
    while sys.stdin.buffer.read(1):
        pass
    server.should_exit = True
    time.sleep(EXIT_SECONDS)  # the main thread ends the process earlier, unless it hangs
    os._exit(1)


if __name__ == "__main__":
    main()
