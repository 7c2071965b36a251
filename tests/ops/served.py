"""The daemon as a process with the fake painter: `python -m tests.ops.served`, configured by NST_… variables."""

from __future__ import annotations

from nst_daemon import supervisor
from nst_daemon.config import load
from nst_daemon.ops import logs
from nst_daemon.workers.base import WorkerOptions
from nst_daemon.workers.local import LocalExecutor


def main() -> None:
    config = load(None)
    logs.setup(config.log.format, config.log.level)
    executor = LocalExecutor(config.devices, WorkerOptions(painter="tests.fakes:Studio"))
    supervisor.serve(config, executor, reload=lambda: load(None))


if __name__ == "__main__":
    main()
