"""A folder of results as the daemon leaves it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePath

import pytest
from PIL import Image, ImageChops

from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.files import clean_name
from nst_daemon.jobs import Job, JobInput, JobState, Role
from nst_daemon.report import gallery, loss_plot, sidecar
from nst_daemon.report.history import Sample, columns
from nst_daemon.report.time_lapse import TimeLapse
from nst_daemon.samples import draw_painting, draw_scene

FIRST = datetime(2024, 2, 29, 12, tzinfo=UTC)
HISTORY = [
    Sample(i, i * 0.2, 48 if i < 20 else 96, {"total": 3 / i, "tv": 1 / i}) for i in range(1, 60)
]


@cache
def drawn(draw: Callable[[int, int], Image.Image], size: tuple[int, int]) -> Image.Image:
    """A sample picture."""
    return draw(*size)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@dataclass
class Root:
    """results/, done/ and styles/ of a daemon, filled without one."""

    folder: Path
    count: int = 0
    size: tuple[int, int] = (96, 72)

    def __post_init__(self) -> None:
        for name in ("results", "done", "styles"):
            (self.folder / name).mkdir(parents=True)

    @property
    def results(self) -> Path:
        """Where pictures stand."""
        return self.folder / "results"

    def add(
        self,
        name: str = "dog",
        *,
        content: str = "dog.content.jpg",
        style: str = "dog.style.png",
        hot: bool = False,
        extras: bool = False,
        notes: Sequence[str] = (),
        **settings: object,
    ) -> Path:
        """Leave behind what a finished job does; the result's path.

        hot: the style is one of the library; extras: with curve and time-lapse.
        """
        seed = self.count
        self.count += 1
        # Drawing takes a while, and pictures that are moved a little are different pictures as well.
        scene = ImageChops.offset(drawn(draw_scene, self.size), seed, 0)
        painting = ImageChops.offset(drawn(draw_painting, self.size), 0 if hot else seed, 0)
        files = [
            (Role.CONTENT, content, encoded(scene, "JPEG")),
            (Role.STYLE, style, encoded(painting)),
        ]
        inputs = tuple(
            JobInput(role, n, f"{role}-{clean_name(n)}", hashlib.sha256(d).hexdigest(), len(d))
            for role, n, d in files
        )
        job = Job(f"{seed:032x}", name, "pair", JobState.CLAIMED, inputs, 0.0, 0.0)
        archive = self.folder / "done" / name
        archive.mkdir(parents=True)
        for (role, _, data), file in zip(files, inputs, strict=True):
            if hot and role is Role.STYLE:
                (self.folder / "styles" / clean_name(style)).write_bytes(data)
            else:
                (archive / file.spooled).write_bytes(data)
        (archive / ".job.json").write_text(json.dumps(asdict(job)))
        picture = self._publish(job, scene, painting, resolve(settings), notes)
        if extras:
            self._decorate(picture, scene, painting)
        return picture

    def _decorate(self, picture: Path, scene: Image.Image, painting: Image.Image) -> None:
        """The loss curve and the time-lapse beside it."""
        lapse = TimeLapse()
        for i in range(5):
            lapse.add(Image.blend(scene, painting, i / 8))
        picture.with_name(picture.stem + ".progress.webp").write_bytes(lapse.encode())
        curve = loss_plot.draw(HISTORY, {"tv": 1.0})
        picture.with_name(picture.stem + ".loss.png").write_bytes(curve)

    def _publish(
        self,
        job: Job,
        scene: Image.Image,
        painting: Image.Image,
        settings: RenderSettings,
        notes: Sequence[str],
    ) -> Path:
        stem = self.results / job.name
        stem.parent.mkdir(exist_ok=True)
        picture = stem.with_name(stem.name + ".png")
        data = encoded(Image.blend(scene, painting, 0.5))
        picture.write_bytes(data)
        painted = sidecar.Painted(
            job_id=job.id,
            name=job.name,
            attempt=1,
            inputs=job.inputs,
            file=f"{PurePath(job.name).name}.png",
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            width=self.size[0],
            height=self.size[1],
            settings=asdict(settings),
            machine={
                "device_name": "a processor",
                "weights_sha256": "c" * 64,
                "weights_description": "vgg19, bundled",
            },
            iterations=(59, 59),
            losses={"total": 0.05},
            seconds={"paint": 12.0},
            history=columns(HISTORY),
            notes=notes,
        )
        document = sidecar.build(painted, FIRST + timedelta(minutes=int(job.id, 16)))
        stem.with_name(stem.name + ".json").write_bytes(sidecar.encode(document))
        return picture

    def write(self) -> Path:
        """Write the gallery."""
        return gallery.write(self.results, done=self.folder / "done", styles=self.folder / "styles")

    def data(self) -> dict[str, object]:
        """What the page's script gets, after writing it."""
        text = self.write().read_text(encoding="utf-8")
        found: dict[str, object] = json.loads(
            text.split('<script id="data" type="application/json">')[1].split("</script>")[0]
        )
        return found


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """An empty root."""
    return Root(tmp_path / "root")
