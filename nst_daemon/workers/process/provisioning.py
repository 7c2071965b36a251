"""What a worker on another machine needs: `python -m nst_daemon.workers.process.provisioning` prints it and ends.

It is a process of its own, because finding the weights and exporting the network need torch.
"""

from __future__ import annotations

import sys
import threading
import time

from nst_daemon.errors import NstError, Retry
from nst_daemon.workers import messages
from nst_daemon.workers.process.loading import LoadingReports
from nst_daemon.workers.process.main import ALIVE_SECONDS, load_factory


def main() -> None:
    """Read a `Join` from stdin; print `Loading` as long as it advances, then `Provisioning`, or `Leaving` on failure.

    Each message is one line.
    """
    join = messages.decode(sys.stdin.buffer.read())
    assert isinstance(join, messages.Join)
    reports = LoadingReports("ray", _say)
    threading.Thread(target=_keep_beating, args=(reports,), daemon=True).start()
    answer: messages.Provisioning | messages.Leaving
    try:
        reports.report("importing torch")
        answer = load_factory(join.options.renderer).provisioning(join.options, reports.report)
    except NstError as error:
        answer = messages.Leaving(f"could not start: {error}", error.retry is Retry.NEVER)
    _say(answer)


def _keep_beating(reports: LoadingReports) -> None:
    while True:
        time.sleep(ALIVE_SECONDS)
        reports.beat()


def _say(message: messages.Message) -> None:
    # One write, so that the lines of two threads do not mix.
    sys.stdout.buffer.write(messages.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
