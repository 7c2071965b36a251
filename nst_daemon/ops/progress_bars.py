"""Progress bars on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from nst_daemon.names import printable


class Bars:
    """One bar on standard error for each picture that is being painted; none if `enabled` is false."""

    def __init__(self, *, enabled: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, key: str, name: str, done: int, total: int, loss: float | None = None) -> None:
        """Show `done` of `total` iterations and the latest loss in the bar of `key`."""
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(printable(name), total=total, loss="")
        shown = "" if loss is None else f"loss {loss:.4g}"
        self._progress.update(self._tasks[key], completed=done, total=total, loss=shown)

    def end(self, key: str) -> None:
        """Remove the bar of `key`."""
        if key in self._tasks:
            self._progress.remove_task(self._tasks.pop(key))
