"""What is recorded during a painting: losses, a time-lapse, a live preview.

Each of the two kinds of views takes at most 2 % of the painting's time, and a failure is only a note.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nst_daemon.config import Outputs
from nst_daemon.publishing import LOSS_PLOT, TIME_LAPSE
from nst_daemon.report import loss_plot
from nst_daemon.report.history import Sample, thinned
from nst_daemon.report.time_lapse import SIDE, TimeLapse
from nst_daemon.workers.process.protocols import StepProtocol

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

#: Seconds between two samples of the losses, besides those of the early iterations.
SAMPLE_SECONDS = 0.5
#: How many points of the loss curve are kept at most.
HISTORY_POINTS = 400
#: After a view, a pause of this many times the seconds that it took: at most 2 % of the painting's time.
VIEW_REST = 50.0
#: Seconds between two live previews, and their longer side in pixels.
PREVIEW_SECONDS, PREVIEW_SIDE = 3.0, 768


class Recorder:
    """Watches a painting, step by step.

    Args:
        sketch: Makes a step's picture in RGB, its longer side at most so many pixels, the same at every scale.
        preview: Where the live preview goes; None for none.
        clock: Monotonic seconds.
        note: Reports a message to people.
        history: The losses of the attempt that is resumed.
        frames: The time-lapse of that attempt, in JPEG.
    """

    def __init__(
        self,
        sketch: Callable[[Any, int], Image.Image],
        *,
        outputs: Outputs,
        preview: Path | None,
        clock: Callable[[], float],
        note: Callable[[str], None],
        history: tuple[Sample, ...] = (),
        frames: tuple[bytes, ...] = (),
    ) -> None:
        self._sketch, self._preview = sketch, preview
        self._clock, self._note = clock, note
        self._loss_plot = outputs.loss_plot
        self._history = list(history)
        self._time_lapse = TimeLapse(frames) if outputs.progress else None
        self._next_sample = self._next_frame = self._next_preview = clock()
        self._scale = self._first = 0  # the number of the scale, and its first iteration
        #: Seconds that the views have taken from the painting.
        self.seconds = 0.0

    @property
    def history(self) -> tuple[Sample, ...]:
        """The losses so far."""
        return tuple(self._history)

    @property
    def frames(self) -> tuple[bytes, ...]:
        """The time-lapse so far."""
        return self._time_lapse.frames if self._time_lapse else ()

    def see(self, step: StepProtocol, painted: float) -> None:
        """Record a step; painted: seconds of painting so far, over all attempts."""
        now, last = self._clock(), step.last
        if self._early(step) or now >= self._next_sample or last:
            self._next_sample = now + SAMPLE_SECONDS
            self._sample(step, painted)
        if self._time_lapse and (now >= self._next_frame or last):
            self._next_frame = now + VIEW_REST * self._timed(self._add_frame, step)
        if self._preview and now >= self._next_preview:
            pause = VIEW_REST * self._timed(self._show, step)
            self._next_preview = now + max(PREVIEW_SECONDS, pause)

    def _sample(self, step: StepProtocol, painted: float) -> None:
        losses = dict(step.losses)
        # After a non-finite loss the engine rolls back.
        if all(math.isfinite(loss) for loss in losses.values()):
            sample = Sample(step.iteration, painted, max(step.size), losses, step.scale)
            self._history = thinned([*self._history, sample], HISTORY_POINTS)

    def _early(self, step: StepProtocol) -> bool:
        """True in the iterations 1, 2, 4, 8, … of a scale, in which the loss changes most."""
        if self._scale != step.scale:
            self._scale, self._first = step.scale, step.iteration
        number = step.iteration - self._first + 1
        return number & (number - 1) == 0

    def _timed(self, look: Callable[[StepProtocol], None], step: StepProtocol) -> float:
        """Call `look`; the seconds that it took."""
        began = self._clock()
        look(step)
        took = self._clock() - began
        self.seconds += took
        return took

    def _add_frame(self, step: StepProtocol) -> None:
        assert self._time_lapse is not None
        self._time_lapse.add(self._sketch(step, SIDE))

    def _show(self, step: StepProtocol) -> None:
        """Replace the preview, atomically and not durably: after a power cut it is useless."""
        assert self._preview is not None
        temporary = self._preview.with_name(f".{self._preview.name}.part")
        try:
            self._preview.parent.mkdir(parents=True, exist_ok=True)
            self._sketch(step, PREVIEW_SIDE).save(temporary, "JPEG", quality=85)
            temporary.replace(self._preview)
        except OSError as error:
            self._note(f"the live preview cannot be written: {error.strerror}")
            self._preview = None

    def prepare(self) -> None:
        """Load what `write` needs; called in another thread while the picture is painted."""
        if self._loss_plot:
            loss_plot.load()

    def write(self, stem: Path, weights: Mapping[str, float]) -> list[Path]:
        """Write STEM.loss.png and STEM.progress.webp, as far as they are configured. A failure becomes a note.

        Args:
            weights: The weight of each term in the total loss.

        Returns:
            The paths.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        wanted: list[tuple[str, Callable[[], bytes]]] = []
        if self._loss_plot and self._history:
            wanted.append((LOSS_PLOT, lambda: loss_plot.draw(self._history, weights)))
        if self._time_lapse:
            wanted.append((TIME_LAPSE, self._time_lapse.encode))
        written = []
        for suffix, make in wanted:
            path = stem.with_name(stem.name + suffix)
            try:
                path.write_bytes(make())
            except OSError:
                raise
            except Exception as error:
                log.exception("%s", path.name)
                self._note(f"{path.name} could not be written: {error}")
            else:
                written.append(path)
        return written
