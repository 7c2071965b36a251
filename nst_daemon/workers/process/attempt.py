"""One attempt at one picture, inside a worker: resume from the checkpoint, paint, report, write checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict

from nst_daemon import __version__
from nst_daemon.errors import PaintingError, StorageError
from nst_daemon.machine import lacks_memory
from nst_daemon.report import history, sidecar
from nst_daemon.units import duration
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Note, Progress, Stopped, Task
from nst_daemon.workers.process import checkpoint
from nst_daemon.workers.process.protocols import (
    PreparedProtocol,
    RendererProtocol,
    StepProtocol,
)
from nst_daemon.workers.process.recorder import Recorder
from nst_daemon.workers.process.staging import FinishedAttempt

#: Seconds between two reports of progress. Each reads the losses, which waits for the device.
PROGRESS_SECONDS = 0.5
#: After a checkpoint, at least this many times the seconds that it took from the painting: at most 2 % of its time.
CHECKPOINT_REST = 50.0


class Attempt:
    """One attempt.

    Args:
        worker: The worker's name, for the events.
        info: The renderer's.
        checkpoint_seconds: Seconds of painting between two checkpoints.
        prepare_seconds: What preparing took, for the sidecar.
        say: Sends an event.
        cancelled: Whether to end after the current step, because the job was cancelled.
        stopping: Whether to checkpoint after the current step and end, because the worker ends.
        clock: Monotonic seconds.
        writer: The thread that writes checkpoints; the attempt shuts it down.
    """

    def __init__(
        self,
        renderer: RendererProtocol,
        task: Task,
        prepared: PreparedProtocol,
        *,
        worker: str,
        info: Mapping[str, object],
        checkpoint_seconds: float,
        prepare_seconds: float,
        say: Callable[[messages.Message], None],
        cancelled: Callable[[], bool],
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        writer: ThreadPoolExecutor | None = None,
    ) -> None:
        self._renderer, self._task, self._prepared = renderer, task, prepared
        self._worker, self._info = worker, info
        self._checkpoint_seconds = checkpoint_seconds
        self._prepare_seconds = prepare_seconds
        self._say, self._cancelled, self._stopping, self._clock = say, cancelled, stopping, clock
        self._notes: list[str] = []
        self._before = checkpoint.Reached(iteration=0, seconds=0.0)
        self._began = self._next_report = clock()
        self._next_save = self._began + checkpoint_seconds
        self._events_sent = 0
        self._blocked = 0.0  # seconds that checkpoints took from the painting
        self._writer = writer or ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def run(self) -> FinishedAttempt | Stopped:
        """Paint until the picture is done, or the attempt is interrupted. Raises what the renderer raises."""
        with ExitStack() as at_the_end:
            # After the answer nothing may be written: the daemon may remove the checkpoint then.
            at_the_end.callback(self._writer.shutdown, wait=True)
            step, state = None, self._resumed_state()
            self._recorder = self._new_recorder()
            self._writer.submit(self._recorder.prepare)
            steps = at_the_end.enter_context(closing(self._renderer.paint(self._prepared, state)))
            for step in steps:
                self._recorder.see(step, self._seconds())
                self._send_events(step)
                if (answer := self._interrupted(step)) is not None:
                    return answer
                self._report(step)
                self._save_when_due(step)
            if step is None:
                raise PaintingError("the engine made no step")
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

    def _resumed_state(self) -> memoryview | None:
        """The state of a checkpoint that belongs to this picture, if there is one."""
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

    def _new_recorder(self) -> Recorder:
        """A recorder that continues from the checkpoint."""
        return Recorder(
            lambda step, side: self._renderer.sketch(self._prepared, step, side),
            outputs=self._task.outputs,
            preview=self._task.preview,
            clock=self._clock,
            note=self._note,
            history=self._before.history,
            frames=self._before.frames,
        )

    def _reached(self, step: StepProtocol) -> checkpoint.Reached:
        """How far the painting is, over all attempts."""
        recorder = self._recorder
        return checkpoint.Reached(
            step.iteration, self._seconds(), recorder.history, recorder.frames, self._resumed()
        )

    def _resumed(self) -> tuple[int, ...]:
        before = self._before
        return (*before.resumed, before.iteration) if before.iteration else ()

    def _seconds(self) -> float:
        """Seconds of painting, over all attempts."""
        return self._before.seconds + self._clock() - self._began

    def _save_when_due(self, step: StepProtocol) -> None:
        """Begin to write a checkpoint if it is due. Only the copy of the state delays the painting."""
        now = self._clock()
        if now < self._next_save or step.last:
            return
        if self._writing is not None and not self._writing.done():
            return
        try:
            self._save(step)
        except Exception as error:
            if not lacks_memory(error):
                raise
            self._note("there is not enough memory to write a checkpoint")
        took = self._clock() - now
        self._blocked += took
        self._next_save = now + max(self._checkpoint_seconds, CHECKPOINT_REST * took)

    def _save(self, step: StepProtocol) -> Future[None]:
        """Copy the state, and let the writer write it."""
        state, owner, reached = self._renderer.dump(step), self._owner(), self._reached(step)
        self._writing = self._writer.submit(self._write, owner, reached, state)
        return self._writing

    def _write(
        self, owner: checkpoint.Owner, reached: checkpoint.Reached, state: bytes | memoryview
    ) -> None:
        try:
            checkpoint.save(self._task.checkpoint, owner, reached, state)
        except StorageError as error:
            # The painting can finish without a checkpoint.
            self._note(f"no checkpoint could be written: {error}")

    # During the painting

    def _interrupted(self, step: StepProtocol) -> Stopped | None:
        """The answer, if the attempt has to end now. Raises PaintingError if max_job_minutes have passed."""
        if self._cancelled():
            return Stopped(self._worker, self._task.job_id, cancelled=True)
        if step.last:
            return None  # it is finished: staging takes no longer than a checkpoint
        if self._stopping():
            self._save(step).result()
            return Stopped(self._worker, self._task.job_id)
        minutes = self._task.limits.max_job_minutes
        if self._clock() - self._began > 60 * minutes:
            raise PaintingError(
                f"not finished after {duration(60 * minutes)}, at iteration {step.iteration} of {step.iterations}",
                remedy="choose a smaller size or fewer iterations, or raise limits.max_job_minutes",
            )
        return None

    def _report(self, step: StepProtocol) -> None:
        """Report progress, if it is due."""
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
                memory=self._renderer.memory(),
            )
        )

    def _send_events(self, step: StepProtocol) -> None:
        """Report new events of the engine; the sidecar has them from the last step."""
        for event in step.events[self._events_sent :]:
            self._say(Note(self._worker, self._task.job_id, event))
        self._events_sent = len(step.events)

    def _note(self, message: str) -> None:
        """Report something now, and in the sidecar."""
        self._notes.append(message)
        self._say(Note(self._worker, self._task.job_id, message))

    def _finished(self, step: StepProtocol) -> FinishedAttempt:
        """The painting as staging needs it, without the engine. Raises PaintingError."""
        painted_for = self._seconds()
        rendering = self._renderer.finish(self._prepared, step)
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
                "looking": self._recorder.seconds,
            },
            history=history.columns(self._recorder.history),
            resumed=self._resumed(),
            notes=self._notes,  # writing may still add to them
            batch=self._task.batch,
            outputs=self._task.outputs.picture,
        )
        return FinishedAttempt(
            self._worker,
            self._task,
            painted,
            rendering=rendering,
            recorder=self._recorder,
            writer=self._writer,
            clock=self._clock,
        )
