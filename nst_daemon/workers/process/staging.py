"""The end of a job in a worker: a finished picture becomes files in the stage folder.

It no longer needs the engine, so the next picture is painted meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nst_daemon import files
from nst_daemon.digests import sha256_file
from nst_daemon.report import sidecar
from nst_daemon.workers.messages import Staged, Task
from nst_daemon.workers.process.protocols import RenderingProtocol
from nst_daemon.workers.process.recorder import Recorder


@dataclass(frozen=True)
class FinishedAttempt:
    """A finished painting that is not written yet.

    Args:
        rendering: The picture.
        writer: The attempt's writer, which may still write a checkpoint.
    """

    worker: str
    task: Task
    painted: sidecar.Painted
    rendering: RenderingProtocol
    recorder: Recorder
    writer: ThreadPoolExecutor
    clock: Callable[[], float]

    def stage(self) -> Staged:
        """Write the picture and the files that belong to it, durably. Raises PictureError, StorageError."""
        try:
            with files.storage(self.task.stage):
                return self._stage()
        finally:
            self.writer.shutdown(wait=True)  # see Attempt.run

    def _stage(self) -> Staged:
        began, stage = self.clock(), self.task.stage
        picture = self.task.picture
        stem = stage / picture.name.removesuffix(f".{self.task.outputs.format}")
        document = stem.with_name(f"{stem.name}.json")
        _empty(stage)
        extras = self.writer.submit(self.recorder.write, stem, self.rendering.settings.term_weights)
        self.rendering.save(picture, self.task.outputs, self.task.inputs)
        written = sidecar.Written(picture.name, sha256_file(picture), picture.stat().st_size)
        others = extras.result()
        seconds = {**self.painted.seconds, "save": self.clock() - began}
        painted = replace(self.painted, seconds=seconds)
        document.write_bytes(sidecar.encode(sidecar.build(painted, written, datetime.now(UTC))))
        staged = [document, *others, picture]
        files.flush(staged, [stage, stage.parent])
        names = tuple(path.name for path in staged)
        return Staged(self.worker, self.task.job_id, names, written.sha256)


def _empty(folder: Path) -> None:
    """Remove the files of an earlier attempt."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
