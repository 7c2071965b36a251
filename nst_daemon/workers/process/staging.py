"""The end of a job inside a worker: a finished picture becomes files in the stage folder.

It needs nothing of the engine any more, so that the next picture can be painted meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Protocol

from nst_daemon import files
from nst_daemon.config import Outputs
from nst_daemon.digests import sha256_file
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.jobs import JobInput
from nst_daemon.report import sidecar
from nst_daemon.workers.messages import Staged, Task
from nst_daemon.workers.process.recorder import Record


class FinishedPicture(Protocol):
    """A finished picture: `painter.Rendering`, or a fake one."""

    @property
    def settings(self) -> RenderSettings:
        """What it was painted with."""

    @property
    def losses(self) -> Mapping[str, float]:
        """Terms by name, and `total`; all are finite."""

    @property
    def iterations(self) -> tuple[int, int]:
        """Done and planned."""

    @property
    def notes(self) -> Sequence[str]:
        """What was converted or chosen, and what happened during the painting."""

    def save(self, path: Path, outputs: Outputs, inputs: Sequence[JobInput], /) -> None:
        """Write the picture, with its essentials embedded. Raises PictureError, StorageError."""


@dataclass(frozen=True)
class Finished:
    """A painting that is done and not written yet.

    rendering: the picture; writer: the painting's own thread, which may still be busy with a checkpoint.
    """

    worker: str
    task: Task
    painted: sidecar.Painted
    rendering: FinishedPicture
    record: Record
    writer: ThreadPoolExecutor
    clock: Callable[[], float]

    def stage(self) -> Staged:
        """Write the picture and what lies beside it, durably. Raises PictureError, StorageError."""
        try:
            with files.storage(self.task.stage):
                return self._stage()
        finally:
            self.writer.shutdown(wait=True)  # for the reason given in Painting.run

    def _stage(self) -> Staged:
        began, stage = self.clock(), self.task.stage
        stem = stage / PurePath(self.task.name).name
        picture = _beside(stem, f".{self.task.outputs.format}")
        document = _beside(stem, ".json")
        _empty(stage)
        extras = self.writer.submit(self.record.write, stem, self.rendering.settings.term_weights)
        self.rendering.save(picture, self.task.outputs, self.task.inputs)
        written = sidecar.Written(picture.name, sha256_file(picture), picture.stat().st_size)
        beside = extras.result()
        seconds = {**self.painted.seconds, "save": self.clock() - began}
        painted = replace(self.painted, seconds=seconds)
        document.write_bytes(sidecar.encode(sidecar.build(painted, written, datetime.now(UTC))))
        staged = [document, *beside, picture]
        for path in staged:
            files.fsync_file(path)
        files.fsync_folder(stage)
        names = tuple(path.name for path in staged)
        return Staged(self.worker, self.task.job_id, names, written.sha256)


def _beside(stem: Path, suffix: str) -> Path:
    """A name may hold dots: `with_suffix` would cut it."""
    return stem.with_name(stem.name + suffix)


def _empty(folder: Path) -> None:
    """Remove what an earlier attempt has left."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
