"""The daemon as a process with the fake painter: `python -m tests.service.served`, configured by NST_… variables.

With the name of a batch file it paints that, and ends.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from nst_daemon.config import load
from nst_daemon.intake.batch import name_of, read
from nst_daemon.intake.expansion import Expansion
from nst_daemon.ops import logs
from nst_daemon.service import loop
from nst_daemon.service.batches import batch_reach
from nst_daemon.workers.local import LocalExecutor
from nst_daemon.workers.messages import WorkerOptions
from tests.bench import FakeCheck


def main() -> None:
    config = load(None)
    logs.setup(config.log.format, config.log.level)
    executor = LocalExecutor(config.devices, WorkerOptions(renderer="tests.fakes:Renderer"))
    if len(sys.argv) == 1:
        loop.serve(config, executor, FakeCheck(), reload=lambda: load(None))
        return
    file = Path(sys.argv[1])
    reach = batch_reach(config, [file.resolve().parent])
    batch = Expansion(name_of(file), read(file), reach, since=time.time())
    loop.serve(config, executor, FakeCheck(), drain=True, patience=60, batch=batch)


if __name__ == "__main__":
    main()
