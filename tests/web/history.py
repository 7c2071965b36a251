"""A history of jobs with pictures, for tests of the page in a browser."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.jobs import BatchCell, Job, JobInput, JobState, Role
from nst_daemon.ledger import Ledger

HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "a picture with a name that is much longer than a line of a list on a phone, number 17"
S = JobState
WAY = (S.QUEUED, S.RUNNING, S.STAGED, S.PUBLISHED)
#: Reasons of failures, as the daemon writes them.
MEMORY = (
    "there is not enough memory: 2.1 GiB are needed; choose a smaller size, or free some memory"
)
SETTINGS: Mapping[str, Any] = {"preset": "painting", "size": 256, "content_weight": 2.0, "seed": 0}


class History:
    """Jobs in the ledger of a root that no daemon uses yet, with their files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("results", "done", "failed", "state", "inbox"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.ids: dict[str, str] = {}
        self.now = time.time() - 86400
        scene = draw_scene(320, 240, scene="riverside")
        self._files = {
            "content": _encoded(scene, root / "content.png"),
            "style": _encoded(draw_painting(120, 120, style="swirls"), root / "style.png"),
            "result": _encoded(scene.filter(ImageFilter.ModeFilter(9)), root / "result.png"),
            "tiff": _encoded(scene.filter(ImageFilter.ModeFilter(9)), root / "result.tiff"),
        }

    @contextmanager
    def written(self) -> Iterator[History]:
        """Open the ledger, to add jobs."""
        self._ledger = Ledger.open(self.root / "state" / "ledger.sqlite")
        try:
            yield self
        finally:
            self._ledger.close()

    def done(self, name: str, *, suffix: str = ".png", beside: bool = False, **fields: Any) -> str:
        """A job with a result and its inputs. beside: with sidecar, loss plot and time-lapse."""
        job = self._add(name, **fields)
        for state in WAY:
            self._ledger.move(job.id, state, now=self.now)
        self._archive("done", job)
        self._ledger.move(job.id, S.DONE, now=self.now, result=name + suffix, archive=job.id)
        path = self.root / "results" / (name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._files["tiff" if suffix == ".tiff" else "result"])
        path.with_suffix(".json").write_text(json.dumps({"job": {"id": job.id}}))
        if beside:
            for ending in (".loss.png", ".progress.webp"):
                path.with_name(path.stem + ending).write_bytes(self._files["content"])
        return job.id

    def ended(self, name: str, state: JobState, *, error: str = "", **fields: Any) -> str:
        """A job that failed, was quarantined or was cancelled, with its inputs in failed/."""
        job = self._add(name, **fields)
        self._ledger.move(job.id, S.QUEUED, now=self.now)
        if state is not S.CANCELLED:
            self._ledger.move(job.id, S.RUNNING, now=self.now)
        self._archive("failed", job)
        self._ledger.move(job.id, state, now=self.now, error=error, archive=job.id)
        return job.id

    def batch(self, name: str, style: str, size: int) -> str:
        """A picture of the batch "coast"."""
        cell = BatchCell("coast", style, {"size": size}, (0, 0, 0))
        return self.done(f"coast/{name}-{style}-{size}", source="batch", group="coast", batch=cell)

    def _add(self, name: str, **fields: Any) -> Job:
        self.now += 60
        number = f"{len(self.ids) + 1:032x}"
        self.ids[name] = number
        inputs = tuple(
            JobInput(role, file, file, hashlib.sha256(data).hexdigest(), len(data))
            for role, file, data in (
                (Role.CONTENT, f"{name.rpartition('/')[2]}.png", self._files["content"]),
                (Role.STYLE, "swirls.png", self._files["style"]),
            )
        )
        values = {"source": "pair", "settings": SETTINGS, "outputs": {"format": "png"}} | fields
        job = Job(
            number,
            name,
            state=S.CLAIMED,
            created=self.now - 30,
            updated=self.now - 30,
            inputs=inputs,
            **values,
        )
        self._ledger.add(job)
        return job

    def _archive(self, where: str, job: Job) -> None:
        folder = self.root / where / job.id
        folder.mkdir()
        for file in job.inputs:
            (folder / file.spooled).write_bytes(self._files[file.role.value])


def _encoded(image: Image.Image, path: Path) -> bytes:
    image.save(path)
    data = path.read_bytes()
    path.unlink()
    return data
