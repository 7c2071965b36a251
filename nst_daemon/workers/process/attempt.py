"""One attempt at one picture, inside a worker: take up the checkpoint, paint, report, write checkpoints.

It knows nothing of torch: what paints is a `Studio`. What it ends with is a `staging.Finished`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nst_daemon import __version__
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import NstError, PaintingError, StorageError
from nst_daemon.report import history, sidecar
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Note, Progress, Stopped, Task
from nst_daemon.workers.process import checkpoint
from nst_daemon.workers.process.recorder import Record
from nst_daemon.workers.process.staging import Finished, FinishedPicture

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

#: Seconds between two reports of progress; each reads the losses, for which the device is waited for.
PROGRESS_SECONDS = 0.5
#: A checkpoint is written no oftener than this many times what it takes from the painting: at most 2 % of its time.
CHECKPOINT_REST = 50.0


class Step(Protocol):
    """One iteration of a painting (see `engine.stylize.Step`)."""

    iteration: int
    iterations: int
    size: tuple[int, int]
    events: tuple[str, ...]

    @property
    def losses(self) -> Mapping[str, float]:
        """Terms by name, and `total`."""


class Prepared(Protocol):
    """A job that can be painted."""

    @property
    def settings(self) -> RenderSettings:
        """The whole settings."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result in pixels."""

    @property
    def calibration(self) -> Sequence[Mapping[str, object]]:
        """What each term is divided by, for each scale."""


@dataclass(frozen=True)
class Company:
    """What pictures that are painted side by side have in common, and how many there may be at most."""

    alike: Hashable = None
    most: int = 1


class Studio(Protocol):
    """What paints, as a worker needs it: tasks in, files out. `workers.studio.Studio` is the real one.

    It is made by `factory(options, device)`. Every method may raise NstErrors; `explain` turns what else it raises
    into one, or returns None for what nobody foresaw.
    """

    def info(self) -> Mapping[str, object]:
        """Device, threads, network, weights with their digest, versions: for the log, status and sidecars."""

    def prepare(self, task: Task) -> Any:
        """Decode, compute targets: a `Prepared`. Called from one thread while another paints."""

    def company(self, prepared: Any) -> Company:
        """Which pictures may be painted at the same time, and how many."""

    def paint(self, prepared: Any, state: bytes | None) -> Generator[Any]:
        """Paint, yielding a `Step` after each iteration; state: what `dump` returned. Several threads may do so."""

    def dump(self, step: Any) -> bytes:
        """Everything needed to go on from this step."""

    def finish(self, prepared: Any, step: Any) -> FinishedPicture:
        """The last good picture, in the machine's memory; it no longer needs the arguments. Raises PaintingError."""

    def sketch(self, prepared: Any, step: Any, side: int) -> Image.Image:
        """The picture in RGB as this step left it, its longer side at most `side` pixels, the same at every scale."""

    def memory(self) -> int:
        """Bytes of the device's own memory that this process has, 0 for the CPU."""

    def explain(self, error: BaseException) -> NstError | None:
        """What a library's exception means."""


class Painting:
    """One attempt.

    worker: its name, for the events; info: the studio's; prepare_seconds: what preparing took, for the sidecar; say:
    sends an event; cancelled, stopping: whether to end after the current step, and for which reason; clock: monotonic
    seconds.
    """

    def __init__(
        self,
        studio: Studio,
        task: Task,
        prepared: Prepared,
        *,
        worker: str,
        info: Mapping[str, object],
        checkpoint_seconds: float,
        prepare_seconds: float,
        say: Callable[[messages.Message], None],
        cancelled: Callable[[], bool],
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._studio, self._task, self._prepared = studio, task, prepared
        self._worker, self._info = worker, info
        self._checkpoint_seconds = checkpoint_seconds
        self._prepare_seconds = prepare_seconds
        self._say, self._cancelled, self._stopping, self._clock = say, cancelled, stopping, clock
        self._notes: list[str] = []
        self._before = checkpoint.SoFar(iteration=0, seconds=0.0)
        self._began = self._next_report = clock()
        self._next_save = self._began + checkpoint_seconds
        self._passed_on = 0  # of the step's events
        self._blocked = 0.0  # seconds that checkpoints took from the painting
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def run(self) -> Finished | Stopped:
        """Paint until the picture is done or somebody wants the end. Raises NstError and what libraries raise."""
        with ExitStack() as at_the_end:
            # Nothing is written any more once the daemon has its answer: it may remove the checkpoint then.
            at_the_end.callback(self._writer.shutdown, wait=True)
            step, state = None, self._taken_up()
            self._record = self._new_record()
            self._writer.submit(self._record.prepare)
            steps = at_the_end.enter_context(closing(self._studio.paint(self._prepared, state)))
            for step in steps:
                self._record.see(step, self._seconds())
                self._pass_on(step)
                if (answer := self._interrupted(step)) is not None:
                    return answer
                self._report(step)
                self._save_when_due(step)
            if step is None:
                raise PaintingError("the engine took not a single step")
            finished = self._finished(step)
            at_the_end.pop_all()  # the writer goes with it
            return finished

    # Checkpoints

    def _owner(self) -> checkpoint.Owner:
        """What a checkpoint of this painting belongs to."""
        picture = {
            "inputs": [(i.role, i.sha256) for i in self._task.inputs],
            "settings": asdict(self._prepared.settings),
            "size": self._prepared.size,
            "weights": self._info.get("weights_sha256"),
            "program version": __version__,
        }
        machine = {key: self._info.get(key) for key in ("device_name", "threads", "versions")}
        return checkpoint.Owner(picture, machine)

    def _taken_up(self) -> bytes | None:
        """The state to go on from, if there is one that fits."""
        exactly = self._prepared.settings.deterministic
        try:
            found = checkpoint.load(self._task.checkpoint, self._owner(), exactly=exactly)
        except checkpoint.UnusableCheckpoint as error:
            self._note(f"the checkpoint {error}; painting from the beginning")
            return None
        if found is None:
            return None
        self._before, state = found
        return state

    def _new_record(self) -> Record:
        """What is gathered along the way, from where the checkpoint leaves off."""
        return Record(
            lambda step, side: self._studio.sketch(self._prepared, step, side),
            outputs=self._task.outputs,
            preview=self._task.preview,
            clock=self._clock,
            note=self._note,
            history=self._before.history,
            frames=self._before.frames,
        )

    def _so_far(self, step: Step) -> checkpoint.SoFar:
        """How far the painting is, over all attempts that it was made in."""
        record = self._record
        return checkpoint.SoFar(
            step.iteration, self._seconds(), record.history, record.frames, self._resumed()
        )

    def _resumed(self) -> tuple[int, ...]:
        before = self._before
        return (*before.resumed, before.iteration) if before.iteration else ()

    def _seconds(self) -> float:
        """Seconds of painting, over all attempts."""
        return self._before.seconds + self._clock() - self._began

    def _save_when_due(self, step: Step) -> None:
        """Begin to write a checkpoint where it is time; only copying the state holds the painting up."""
        now = self._clock()
        if now < self._next_save or step.iteration >= step.iterations:
            return
        if self._writing is not None and not self._writing.done():
            return
        try:
            self._save(step)
        except MemoryError:
            self._note("there is not enough memory to write a checkpoint")
        took = self._clock() - now
        self._blocked += took
        self._next_save = now + max(self._checkpoint_seconds, CHECKPOINT_REST * took)

    def _save(self, step: Step) -> Future[None]:
        """Copy the state, and write it in the thread for that."""
        state, owner, so_far = self._studio.dump(step), self._owner(), self._so_far(step)
        self._writing = self._writer.submit(self._write, owner, so_far, state)
        return self._writing

    def _write(self, owner: checkpoint.Owner, so_far: checkpoint.SoFar, state: bytes) -> None:
        try:
            checkpoint.save(self._task.checkpoint, owner, so_far, state)
        except StorageError as error:
            # The painting may well finish without one.
            self._note(f"no checkpoint could be written: {error}")

    # Along the way

    def _interrupted(self, step: Step) -> Stopped | None:
        """The answer, where somebody wants the end or time is up. Raises PaintingError for the latter."""
        if self._cancelled():
            return Stopped(self._worker, self._task.job_id, cancelled=True)
        if step.iteration >= step.iterations:
            return None  # it is finished: staging takes no longer than a checkpoint
        if self._stopping():
            self._save(step).result()
            return Stopped(self._worker, self._task.job_id)
        minutes = self._task.limits.max_job_minutes
        if self._clock() - self._began > 60 * minutes:
            raise PaintingError(
                f"not finished after {minutes:g} minutes, at iteration {step.iteration} of {step.iterations}",
                remedy="choose a smaller size or fewer iterations, or raise limits.max_job_minutes",
            )
        return None

    def _report(self, step: Step) -> None:
        """Tell how far it is, now and then."""
        now = self._clock()
        if now < self._next_report and step.iteration < step.iterations:
            return
        self._next_report = now + PROGRESS_SECONDS
        loss = step.losses["total"]
        self._say(
            Progress(
                self._worker,
                self._task.job_id,
                step.iteration,
                step.iterations,
                loss,
                memory=self._studio.memory(),
            )
        )

    def _pass_on(self, step: Step) -> None:
        """Tell what has happened to the painting; the sidecar has it from the last step."""
        for event in step.events[self._passed_on :]:
            self._say(Note(self._worker, self._task.job_id, event))
        self._passed_on = len(step.events)

    def _note(self, message: str) -> None:
        """Tell people now, and in the sidecar."""
        self._notes.append(message)
        self._say(Note(self._worker, self._task.job_id, message))

    def _finished(self, step: Step) -> Finished:
        """What is left of the painting when the engine's part is over. Raises PaintingError."""
        painted_for = self._seconds()
        rendering = self._studio.finish(self._prepared, step)
        self._notes[:0] = rendering.notes
        width, height = self._prepared.size
        painted = sidecar.Painted(
            job_id=self._task.job_id,
            name=self._task.name,
            attempt=self._task.attempt,
            inputs=self._task.inputs,
            width=width,
            height=height,
            settings=asdict(rendering.settings),
            machine=self._info,
            iterations=rendering.iterations,
            losses=rendering.losses,
            calibration=self._prepared.calibration,
            seconds={
                "prepare": self._prepare_seconds,
                "paint": painted_for,
                "checkpoints": self._blocked,
                "looking": self._record.seconds,
            },
            history=history.columns(self._record.history),
            resumed=self._resumed(),
            notes=self._notes,  # writing may still add to them
            batch=self._task.batch,
        )
        return Finished(
            self._worker,
            self._task,
            painted,
            rendering=rendering,
            record=self._record,
            writer=self._writer,
            clock=self._clock,
        )
