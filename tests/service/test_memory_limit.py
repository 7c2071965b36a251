"""A daemon in a control group with a limit, as in a unit with MemoryMax=."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Served

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@pytest.fixture
def group() -> Iterator[Path]:
    """A new control group of 300 MiB."""
    parent, limit = (
        (V1, "memory.limit_in_bytes")
        if (V1 / "memory.limit_in_bytes").exists()
        else (V2, "memory.max")
    )
    made = parent / f"nst-test-{os.getpid()}"
    try:
        made.mkdir()
        (made / limit).write_text(str(300 << 20))
    except OSError:
        if made.exists():
            made.rmdir()
        pytest.skip("no control group with a memory limit can be created here")
    yield made
    for pid in (made / "cgroup.procs").read_text().split():
        (parent / "cgroup.procs").write_text(pid)
    made.rmdir()


def test_the_kernel_ends_the_worker_and_not_the_daemon(served: Served, group: Path) -> None:
    """If the memory of the group is used up, the worker is killed, and the same daemon paints the picture."""
    served.start()
    assert served.process is not None
    (group / "cgroup.procs").write_text(str(served.process.pid))
    served.pair("dog", at=3, do="grow", once=str(served.root / "once"))
    served.until(lambda: list((served.root / "results").glob("dog.json")), "result")
    assert served.end() == 0
    assert "SIGKILL" in served.text()
