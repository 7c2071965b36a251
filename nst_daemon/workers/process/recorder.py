"""What a painting leaves behind on its way, for people: its losses, a time-lapse, a live preview.

None of it may cost much, or harm the picture: looking takes at most 2 % of the painting's time, and what fails is
a note.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nst_daemon.config import Outputs
from nst_daemon.publishing import LOSS_PLOT, TIME_LAPSE
from nst_daemon.report import loss_plot
from nst_daemon.report.history import Sample, thinned
from nst_daemon.report.time_lapse import SIDE, TimeLapse

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

#: Seconds between two samples of the losses, besides those of the early iterations.
SAMPLE_SECONDS = 0.5
#: How many points of the loss curve are kept at most.
HISTORY = 400
#: A look at the picture is followed by a pause of this many times what it took: at most 2 % of the painting's time.
REST = 50.0
#: Seconds between two live previews, and their longer side in pixels.
PREVIEW_SECONDS, PREVIEW_SIDE = 3.0, 768


class Step(Protocol):
    """One iteration of a painting (see `engine.stylize.Step`)."""

    iteration: int
    iterations: int
    size: tuple[int, int]

    @property
    def losses(self) -> Mapping[str, float]:
        """Terms by name, and `total`."""


class Record:
    """Watches a painting, step by step.

    sketch: gives a step's picture in RGB with a longer side of at most so many pixels, the same at every scale;
    outputs: that section of the configuration; preview: where the live preview goes, None for none; clock: monotonic
    seconds; note: tells people; history, frames: of the attempt that is taken up.
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
        self._scale: tuple[tuple[int, int], int] | None = None  # size, and its first iteration
        #: Seconds that looking has taken from the painting.
        self.seconds = 0.0

    @property
    def history(self) -> tuple[Sample, ...]:
        """The losses so far."""
        return tuple(self._history)

    @property
    def frames(self) -> tuple[bytes, ...]:
        """The time-lapse so far."""
        return self._time_lapse.frames if self._time_lapse else ()

    def see(self, step: Step, painted: float) -> None:
        """Look at a step; painted: seconds of painting so far, over all attempts."""
        now, last = self._clock(), step.iteration >= step.iterations
        if self._early(step) or now >= self._next_sample or last:
            self._next_sample = now + SAMPLE_SECONDS
            self._sample(step, painted)
        if self._time_lapse and (now >= self._next_frame or last):
            self._next_frame = now + REST * self._timed(self._add_frame, step)
        if self._preview and now >= self._next_preview:
            pause = REST * self._timed(self._show, step)
            self._next_preview = now + max(PREVIEW_SECONDS, pause)

    def _sample(self, step: Step, painted: float) -> None:
        losses = dict(step.losses)
        if all(
            math.isfinite(loss) for loss in losses.values()
        ):  # else the engine is about to go back
            sample = Sample(step.iteration, painted, max(step.size), losses)
            self._history = thinned([*self._history, sample], HISTORY)

    def _early(self, step: Step) -> bool:
        """True in the iterations 1, 2, 4, 8, … of a scale, where most happens."""
        if self._scale is None or self._scale[0] != step.size:
            self._scale = (step.size, step.iteration)
        number = step.iteration - self._scale[1] + 1
        return number & (number - 1) == 0

    def _timed(self, look: Callable[[Step], None], step: Step) -> float:
        """Do it, and return the seconds that it took."""
        began = self._clock()
        look(step)
        took = self._clock() - began
        self.seconds += took
        return took

    def _add_frame(self, step: Step) -> None:
        assert self._time_lapse is not None
        self._time_lapse.add(self._sketch(step, SIDE))

    def _show(self, step: Step) -> None:
        """Replace the preview; atomic, and not durable: it is worth nothing after a power cut."""
        assert self._preview is not None
        temporary = self._preview.with_name(f".{self._preview.name}.part")
        try:
            self._preview.parent.mkdir(parents=True, exist_ok=True)
            self._sketch(step, PREVIEW_SIDE).save(temporary, "JPEG", quality=85)
            temporary.replace(self._preview)
        except OSError as error:
            self._note(f"there is no live preview: {error.strerror}")
            self._preview = None

    def prepare(self) -> None:
        """Load what `write` needs; called in another thread while the picture is painted."""
        if self._loss_plot:
            loss_plot.load()

    def write(self, stem: Path, weights: Mapping[str, float]) -> list[Path]:
        """Write STEM.loss.png and STEM.progress.webp, as far as they are wanted; the paths.

        weights: of the terms, as they count in the total. What fails for another reason than the disk is noted.
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
            except Exception as error:  # a picture is worth more than its curve
                log.exception("%s", path.name)
                self._note(f"{path.name} could not be made: {error}")
            else:
                written.append(path)
        return written
