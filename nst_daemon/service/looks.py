"""When the inbox is looked at, and the look that is under way: a slice of it in each round."""

from __future__ import annotations

import gc
import math

from nst_daemon.intake.steps import Steps, do_some
from nst_daemon.service.state import State

#: The shortest time between two looks, in seconds, however much changes in the inbox.
SHORTEST_PAUSE = 0.2


class Looks:
    """Times are seconds of the monotonic clock.

    Args:
        state: What the parts share.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        #: When the inbox is looked at next.
        self.due = -math.inf
        #: The time of the present round.
        self.now = state.began
        self._steps: Steps[None] | None = None
        self._began = self._ended = -math.inf
        self._least_pause = SHORTEST_PAUSE
        self._woken = False

    @property
    def under_way(self) -> bool:
        """Whether a look has begun and not ended."""
        return self._steps is not None

    def times(self) -> tuple[float, float]:
        """The time of the present round on both clocks, monotonic first."""
        return self.now.steady, self.now.wall

    def wake(self) -> None:
        """Something has changed in the inbox: look soon, and again if a look is under way."""
        self._woken = self.under_way
        self.due = min(self.due, self._ended + self._least_pause)

    def stop(self) -> None:
        """Forget a look that is under way, and leave the folders that it has open. The next one begins anew."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None
            self.due = -math.inf

    def begin(self, steps: Steps[None]) -> None:
        """Begin a look; `go_on` does it. Before its last step it says when the next one is due (`end`)."""
        self._steps, self._began, self._woken = steps, self.now.steady, False

    def go_on(self) -> None:
        """Go on for a short time with the look that is under way. What it raises ends it."""
        assert self._steps is not None
        pacing, clock = self._state.pacing, self._state.clock
        try:
            done = do_some(self._steps, pacing.slice_seconds, clock)
        except BaseException:
            self._steps = None
            raise
        if done:
            self._steps = None
        else:
            # Or the garbage collector would visit all that is known of the inbox again and again, which takes up to a
            # second. What is frozen is freed as usual, except for objects that refer to each other in a circle.
            gc.freeze()

    def end(self, pause: float) -> None:
        """The next look comes after so many seconds, or soon if something has changed since this one began.

        Where a look takes long, as long again is left for everything else.
        """
        self._ended = self.now.steady
        self._least_pause = max(SHORTEST_PAUSE, self._ended - self._began)
        self.due = self._ended + max(self._least_pause, 0.0 if self._woken else pause)
