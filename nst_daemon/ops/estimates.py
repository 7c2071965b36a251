"""How long painting will take, from earlier pictures of the ledger.

The work of a picture is counted in iterations × pixels. The seconds per work of the earlier pictures that resemble it
most, by their work, give its time. Pictures that were painted side by side share their time.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from nst_daemon.config import Folders
from nst_daemon.engine.settings import AUTO_SIZE, RenderSettings, restore, scale_fractions
from nst_daemon.errors import SettingsError
from nst_daemon.files import read_file
from nst_daemon.jobs import JobState
from nst_daemon.ledger_figures import LedgerFigures, PaintingTime
from nst_daemon.ops.status import Status

#: The number of earlier pictures that are looked at, and of those that count for one estimate.
LOOKED_AT, COUNTED = 60, 9
#: The work of a picture that resembles another one differs at most by this factor.
MOST_DIFFERENCE = 32.0
#: Height by width of a picture whose content is unknown.
USUAL_ASPECT = 0.75
#: The estimate of the queue is computed at most once in so many seconds.
QUEUE_SECONDS = 5.0

Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Planned:
    """Pictures to paint.

    Attributes:
        settings: all settings.
        content: width and height of the content's file in pixels; None if they are unknown.
        count: the number of pictures.
    """

    settings: RenderSettings
    content: tuple[int, int] | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class EarlierPicture:
    """A picture that was painted.

    Attributes:
        settings: all of them.
        size: width and height of the result in pixels.
        seconds: from begin to end.
        share: seconds without those that other pictures used at the same time.
    """

    settings: RenderSettings
    size: Size
    seconds: float
    share: float

    @property
    def work(self) -> float:
        """See `work`."""
        return work(self.settings, self.size)


class Estimates:
    """Estimates from earlier pictures, newest first."""

    def __init__(self, earlier: Sequence[EarlierPicture]) -> None:
        self._earlier = [(picture, picture.work) for picture in earlier]

    @classmethod
    def read(cls, folders: Folders) -> Estimates:
        """From the latest pictures of a root. Raises LedgerError, StorageError."""
        if not folders.ledger.exists():
            return cls(())
        with LedgerFigures.attach(folders.ledger) as ledger:
            return cls(earlier_pictures(ledger.painting_times(LOOKED_AT), folders.results))

    def seconds(self, planned: Sequence[Planned]) -> float | None:
        """The time until all these pictures are painted; None if no earlier picture resembles one of them."""
        longest = total = 0.0
        for pictures in planned:
            found = self._one(pictures)
            if found is None:
                return None
            seconds, share = found
            longest, total = max(longest, seconds), total + share * pictures.count
        return max(longest, total)

    def _one(self, planned: Planned) -> tuple[float, float] | None:
        """The seconds of one picture: alone, and its share beside others."""
        size = self._size(planned)
        if size is None:
            return None
        wanted, kind = work(planned.settings, size), _kind(planned.settings)
        near = [
            (abs(math.log(done / wanted)), number, picture, done)
            for number, (picture, done) in enumerate(self._earlier)
            if _kind(picture.settings) == kind
        ]
        # Of pictures with equal work the latest come first.
        chosen = sorted(n for n in near if n[0] <= math.log(MOST_DIFFERENCE))[:COUNTED]
        if not chosen:
            return None
        seconds = median(picture.seconds / done for *_, picture, done in chosen)
        share = median(picture.share / done for *_, picture, done in chosen)
        return seconds * wanted, share * wanted

    def _size(self, planned: Planned) -> Size | None:
        """Width and height of the result; None if they are unknown."""
        side = planned.settings.size
        if planned.content is None:
            if isinstance(side, int):
                return side, side * USUAL_ASPECT
            same = [p.size for p, _ in self._earlier if p.settings.size == side]
            return (median(w for w, _ in same), median(h for _, h in same)) if same else None
        longer: int = max(planned.content)
        if side == "auto":
            factor = min(longer, self._auto_side()) / longer
        else:
            factor = 1.0 if side == "original" else side / longer
        return planned.content[0] * factor, planned.content[1] * factor

    def _auto_side(self) -> int:
        """The longer side that `size: auto` does not exceed on the device that paints."""
        sides = [round(max(p.size)) for p, _ in self._earlier if p.settings.size == "auto"]
        return max(sides, default=AUTO_SIZE["cpu"])


class QueueEstimate:
    """When the queue of a root will be empty. It reads the ledger only after changes.

    Args:
        folders: the folders of the root.
        clock: monotonic seconds.
    """

    def __init__(self, folders: Folders, clock: Callable[[], float] = time.monotonic) -> None:
        self._folders, self._clock = folders, clock
        self._lock = threading.Lock()
        self._changed, self._at = -1.0, -math.inf
        self._queued: float | None = None
        self._running: Mapping[str, float | None] = {}

    def seconds(self, found: Status) -> float | None:
        """The painting time of everything that is being painted or in the queue; None if it is unknown.

        Raises LedgerError, StorageError.
        """
        with self._lock:  # the page asks in several threads
            now = self._clock()
            if found.changed != self._changed and now >= self._at + QUEUE_SECONDS:
                self._queued, self._running = self._read()
                self._changed, self._at = found.changed, now
            queued, running = self._queued, self._running
        live = found.live.paintings if found.live else ()
        painted = [p.left if p.left is not None else running.get(p.id) for p in live]
        # Pictures that are painted side by side end with the last of them.
        longest = None if None in painted else max(filter(None, painted), default=0.0)
        waiting = running.keys() - {p.id for p in live}
        parts = [queued, longest, *(running[job_id] for job_id in waiting)]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def _read(self) -> tuple[float | None, Mapping[str, float | None]]:
        """The painting time of the queue, and of each job that a worker has."""
        if not self._folders.ledger.exists():
            return 0.0, {}
        with LedgerFigures.attach(self._folders.ledger) as ledger:
            queued, running = ledger.queued_settings(), ledger.jobs(JobState.RUNNING)
        if not queued and not running:
            return 0.0, {}
        estimates = Estimates.read(self._folders)
        try:
            planned = [Planned(restore(settings), count=n) for settings, n in queued]
            now = {job.id: [Planned(restore(job.settings))] for job in running}
        except SettingsError:  # of another version
            return None, {}
        return estimates.seconds(planned), {i: estimates.seconds(one) for i, one in now.items()}


def work(settings: RenderSettings, size: Size) -> float:
    """The work of a picture: iterations × pixels, over its scales and the passes at full size.

    Args:
        settings: all settings.
        size: width and height of the result in pixels.
    """
    fractions = scale_fractions(settings.scales, max(size), settings.coarsest)
    sides = [*fractions, *[1.0] * settings.layer_passes]
    last = len(settings.iterations) - 1
    iterations = [settings.iterations[min(number, last)] for number in range(len(sides))]
    return math.prod(size) * sum(n * side**2 for n, side in zip(iterations, sides, strict=True))


def earlier_pictures(times: Sequence[PaintingTime], results: Path) -> list[EarlierPicture]:
    """Pictures of the ledger whose sizes are known, from their sidecars in `results` or from their settings."""
    found = []
    for painted, share in zip(times, shares([(t.began, t.ended) for t in times]), strict=True):
        try:
            settings = restore(painted.settings)
        except SettingsError:  # of another version
            continue
        size = _size_of(results / painted.result)
        if size is None and isinstance(settings.size, int):
            size = settings.size, settings.size * USUAL_ASPECT
        if size is not None:
            seconds = painted.ended - painted.began
            found.append(EarlierPicture(settings, size, seconds, share))
    return found


def shares(spans: Sequence[tuple[float, float]]) -> list[float]:
    """The length of each span, where each moment counts for all spans at that moment in equal parts."""
    found = [0.0] * len(spans)
    for begin, end in pairwise(sorted({moment for span in spans for moment in span})):
        inside = [n for n, (first, last) in enumerate(spans) if first <= begin and end <= last]
        for number in inside:
            found[number] += (end - begin) / len(inside)
    return found


def _kind(settings: RenderSettings) -> tuple[object, ...]:
    """Equal for pictures that resemble each other."""
    return settings.style_loss, settings.optimizer, settings.style_levels


def _size_of(result: Path) -> Size | None:
    """Width and height of a result, from its sidecar; None if there is none."""
    try:
        picture = json.loads(read_file(result.with_suffix(".json")))["picture"]
        width, height = int(picture["width"]), int(picture["height"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (width, height) if width > 0 and height > 0 else None
