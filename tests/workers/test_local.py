"""The executor and its processes, with a studio that paints in milliseconds and misbehaves on demand."""

from __future__ import annotations

import json
from collections.abc import Callable

from nst_daemon.workers.base import Progress, Ready, Staged, Started
from tests.workers.conftest import Bench, Jobs

Benches = Callable[..., Bench]


def test_a_task_becomes_a_staged_picture(bench: Benches, jobs: Jobs) -> None:
    """A worker announces itself, starts the task, reports progress and stages the picture with its sidecar."""
    b = bench()
    assert b.executor.capacity() == 0
    b.ready()
    assert b.executor.capacity() == 2
    task = jobs("dog")
    answer = b.paint(task)
    assert answer.files == ("dog.json", "dog.png")
    kinds = [type(event) for event in b.events]
    assert kinds[:2] == [Ready, Started]
    assert kinds[-1] is Staged
    last = b.of(Progress)[-1]
    assert (last.done, last.total) == (20, 20)
    sidecar = json.loads((task.stage / "dog.json").read_bytes())
    assert sidecar["picture"]["sha256"] == answer.sha256
