"""What a process loads before it is ready, told to the daemon as long as it advances.

The daemon gives a slow machine time, and replaces a process that hangs: so a step is repeated once a second only if the
process has worked since.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

from nst_daemon.workers.messages import Loading

#: Seconds of work after which a step is repeated. A thread that only waits, and looks five times a second whether it
#: has to wait on, works less in a minute.
LEAST_WORK = 0.05
#: A read from the disk counts as so many seconds of work.
READ_SECONDS = 0.001


class LoadingReports:
    """Sends `Loading` messages.

    Args:
        worker: Its name.
        say: Sends a message.
        work: Seconds of work of this process so far, without that of the thread that calls `beat`.
    """

    def __init__(
        self, worker: str, say: Callable[[Loading], None], work: Callable[[], float] | None = None
    ) -> None:
        self._worker, self._say, self._work = worker, say, work or _work_of_others
        self._step, self._last = "starting", self._work()

    def report(self, step: str) -> None:
        """Say what is being loaded, or that it has advanced."""
        self._step = step
        self._say(Loading(self._worker, step))

    def beat(self) -> None:
        """Repeat the step if this process has worked since the last time."""
        work = self._work()
        if work - self._last >= LEAST_WORK:
            self._last = work
            self._say(Loading(self._worker, self._step))


def _work_of_others() -> float:
    """CPU time of the other threads, and reads from the disk."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = time.process_time() - time.thread_time()
    return cpu + READ_SECONDS * (used.ru_majflt + used.ru_inblock)
