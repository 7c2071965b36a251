"""The daemon as a process that can be made to die anywhere: `python -m tests.torture.victim ROOT`.

Everything is real (supervisor, ledger, worker processes, SIGKILL); only the renderer may be the fake of `tests.fakes`.
Nothing in the program knows of this. Points at which it can die are seen from outside:

    <state>            right after the ledger has committed that transition ("queued>running")
    <event> <path>     right before a system call that changes a file below ROOT (Python's audit events)

TORTURE_PLAN is a JSON object: `die_at` (the name of a point, or its number), `record` (a file that takes down the
names of all points, in order), `renderer`, `once`, `together` (kill the workers at that point too), `fail_at` (each
call whose point begins so fails). The process kills itself with SIGKILL; where its workers are not killed with it,
they see their pipe end.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Audit events of calls that change names or contents, and the argument that is the path.
CHANGES = {
    "os.rename": 0,
    "os.link": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.mkdir": 0,
    "os.truncate": 0,
}
PR_SET_PDEATHSIG = 1
#: Ends with this code where jobs have failed, so that it differs from that of a traceback.
SOME_FAILED = 10
#: Names of the program's own; all others come from drops.
KNOWN = {
    "inbox",
    "styles",
    "results",
    "done",
    "failed",
    "state",
    "spool",
    "stage",
    "checkpoints",
    "cache",
    "logs",
    "lock",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Points:
    """Counts points and dies at one of them."""

    def __init__(
        self, root: Path, die_at: str | int | None, record: Path | None, *, together: bool = False
    ) -> None:
        self.root, self.die_at, self.record = str(root), die_at, record
        self.together = together
        self.fail_at = ""
        self.count = 0
        self.busy = False

    def reach(self, name: str) -> None:
        """Come past a point."""
        self.count += 1
        if self.record:
            self.busy, before = True, self.busy
            descriptor = os.open(self.record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, (name + "\n").encode(errors="backslashreplace"))
            os.close(descriptor)
            self.busy = before
        if self.die_at in {name, self.count}:
            for child in children(os.getpid()) if self.together else []:
                os.kill(child, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The interpreter's audit hook."""
        if self.busy:
            return
        self.busy = True
        try:
            if event in CHANGES:
                path = arguments[CHANGES[event]]
            elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
                path = arguments[0]
            else:
                return
            path = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
            # Paths that are relative to a descriptor are those of the inbox.
            if path.startswith(self.root) or (path and not path.startswith("/")):
                name = f"{event} {generic(path.removeprefix(self.root))}"
                self.reach(name)
                if self.fail_at and name.startswith(self.fail_at):
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        finally:
            self.busy = False


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that have not been waited for."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def generic(path: str) -> str:
    """A path without what differs from job to job and from run to run."""
    *folders, name = re.sub(r"[0-9a-f]{32}|\.[0-9a-f]{8}\.", "*", path).split("/")
    return "/".join(
        [*folders, name if name in KNOWN or "*" in name else "NAME" + Path(name).suffix]
    )


def main() -> int:
    # A test that is interrupted leaves no daemon behind.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    root = Path(sys.argv[1])
    plan = json.loads(os.environ.get("TORTURE_PLAN", "{}"))

    from nst_daemon.config import load
    from nst_daemon.ledger import Ledger
    from nst_daemon.ops import logs
    from nst_daemon.service.loop import serve
    from nst_daemon.service.state import Pacing
    from nst_daemon.workers.local import LocalExecutor
    from nst_daemon.workers.messages import WorkerOptions
    from tests.bench import FakeCheck

    record = Path(plan["record"]) if "record" in plan else None
    points = Points(root, plan.get("die_at"), record, together=plan.get("together", False))
    points.fail_at = plan.get("fail_at", "")

    def after(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(ledger: Ledger, *arguments: Any, **options: Any) -> Any:
            subject = arguments[0]
            before = ledger.get(subject if isinstance(subject, str) else subject.id)
            if before and len(arguments) > 1 and points.fail_at == f"{before.state}>{arguments[1]}":
                raise ValueError("a fault of the ledger")
            result = call(ledger, *arguments, **options)
            job = result or subject
            committed.append(f"{before.state if before else 'seen'}>{job.state}")
            if not ledger._db.in_transaction:
                reach_committed()
            return result

        return wrapped

    #: Transitions in the order of the calls; those of one transaction are reached after it.
    committed: list[str] = []

    def reach_committed() -> None:
        names = committed.copy()
        committed.clear()
        for name in names:
            points.reach(name)

    def together(ledger: Ledger) -> Iterator[None]:
        try:
            with ledger._transaction():
                yield
        except BaseException:
            committed.clear()
            raise
        reach_committed()

    for name in ("add", "move", "readmit"):
        setattr(Ledger, name, after(getattr(Ledger, name)))
    Ledger.together = contextlib.contextmanager(together)  # type: ignore[method-assign]
    config = load(None)
    logs.setup(config.log.format, config.log.level)
    options = WorkerOptions(
        network=config.model.network,
        weights=config.model.weights,
        cache_dir=config.folders.cache,
        cache_bytes=config.cache.max_bytes,
        checkpoint_seconds=config.service.checkpoint_seconds,
        stall_seconds=config.service.stall_seconds,
        renderer=plan.get("renderer", "tests.fakes:Renderer"),
    )
    executor = LocalExecutor(config.devices, options)
    sys.addaudithook(points.audit)
    drain, pacing = plan.get("once", True), Pacing(back_off=0.01)
    served = serve(config, executor, FakeCheck(), drain=drain, patience=60.0, pacing=pacing)
    return SOME_FAILED if served.failures else 0


if __name__ == "__main__":
    sys.exit(main())
