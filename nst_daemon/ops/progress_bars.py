"""Progress on standard error: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from nst_daemon.engine.settings import RenderSettings
from nst_daemon.names import printable, shortened
from nst_daemon.service.progress_estimate import ProgressEstimate
from nst_daemon.units import duration, rate

#: Seconds between two updates of a bar.
BAR_SECONDS = 0.1


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


class PaintingStep(Protocol):
    """What is shown of an iteration (`engine.stylize.Step`)."""

    iteration: int
    iterations: int
    scale: int
    scales: int
    size: tuple[int, int]
    last: bool


class StepProgress:
    """The progress of one picture: a bar on a terminal or in a notebook, and elsewhere a line for each scale.

    Args:
        name: Of the picture.
        say: Writes a line.
        clock: Monotonic seconds.
        console: Where the bar is drawn; standard error unless given.
    """

    def __init__(
        self,
        name: str,
        *,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._name, self._say, self._clock = printable(name), say, clock
        self._console = console or Console(stderr=True)
        self._bars: Progress | None = None
        self._estimate: ProgressEstimate | None = None
        self._scale, self._next = 0, 0.0

    def start(self, settings: RenderSettings) -> None:
        """Begin; settings: those of the picture."""
        self._estimate = ProgressEstimate(
            settings.scales, settings.iterations, passes=settings.layer_passes
        )
        if not (self._console.is_terminal or self._console.is_jupyter):
            return
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} % {task.fields[step]}", markup=False),
            console=self._console,
            expand=True,
            transient=True,
        )
        self._bars.add_task(shortened(self._name, 24), total=100, step="")
        self._bars.start()

    def update(self, step: PaintingStep) -> None:
        """Show an iteration."""
        estimate, now = self._estimate, self._clock()
        assert estimate is not None
        estimate.update(now, step.iteration, step.iterations)
        speed = "" if estimate.speed is None else f", {rate(estimate.speed)}"
        left = "" if estimate.left is None else f", {duration(round(estimate.left))} left"
        at = f"{step.iteration}/{step.iterations}{speed}{left}"
        if self._bars is None:
            if step.scale != self._scale:
                self._say(
                    f"{self._name}: scale {step.scale} of {step.scales} ({max(step.size)} px), iteration {at}"
                )
        elif now >= self._next or step.last:
            self._next = now + BAR_SECONDS
            self._bars.update(
                self._bars.task_ids[0],
                completed=estimate.percent,
                step=f"scale {step.scale}/{step.scales} {max(step.size)} px, {at}",
            )
        self._scale = step.scale

    def stop(self) -> None:
        """Remove the bar."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
