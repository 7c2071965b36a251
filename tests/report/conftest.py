"""A folder of results, as the daemon writes it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.jobs import BatchCell, JobInput, Role
from nst_daemon.names import clean_name
from nst_daemon.report import gallery, loss_plot, sidecar
from nst_daemon.report.history import Sample, columns
from nst_daemon.report.time_lapse import TimeLapse

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


def put(role: Role, name: str, data: bytes, folder: Path) -> JobInput:
    """Write an input into a folder of the root."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / clean_name(name)).write_bytes(data)
    return JobInput(role, name, clean_name(name), hashlib.sha256(data).hexdigest(), len(data))


def decorate(picture: Path, first: Image.Image, last: Image.Image) -> None:
    """Write the loss curve and the time-lapse of a picture."""
    lapse = TimeLapse()
    for i in range(5):
        lapse.add(Image.blend(first, last, i / 8))
    picture.with_name(picture.stem + ".progress.webp").write_bytes(lapse.encode())
    curve = loss_plot.draw(HISTORY, {"tv": 1.0})
    picture.with_name(picture.stem + ".loss.png").write_bytes(curve)


def describe(
    picture: Path,
    number: int,
    inputs: tuple[JobInput, ...],
    settings: RenderSettings,
    *,
    notes: Sequence[str],
    batch: BatchCell | None = None,
) -> dict[str, object]:
    """The sidecar of picture `number`; one picture is finished each minute."""
    data = picture.read_bytes()
    width, height = Image.open(picture).size
    painted = sidecar.Painted(
        job_id=f"{number:032x}",
        name=picture.stem,
        attempt=1,
        inputs=inputs,
        width=width,
        height=height,
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
        batch=asdict(batch) if batch else None,
    )
    written = sidecar.Written(picture.name, hashlib.sha256(data).hexdigest(), len(data))
    return sidecar.build(painted, written, FIRST + timedelta(minutes=number))


@dataclass
class Root:
    """A root with results/, done/ and styles/, filled without a daemon."""

    folder: Path
    count: int = 0
    size: tuple[int, int] = (96, 72)

    def __post_init__(self) -> None:
        for name in ("results", "done", "styles"):
            (self.folder / name).mkdir(parents=True)

    @property
    def results(self) -> Path:
        """The folder of results."""
        return self.folder / "results"

    def add(
        self,
        name: str = "dog",
        *,
        content: str = "dog.content.jpg",
        style: str = "dog.style.png",
        hot: bool = False,
        shifts: tuple[int, int] | None = None,
        extras: bool = False,
        notes: Sequence[str] = (),
        batch: BatchCell | None = None,
        **settings: object,
    ) -> Path:
        """Write the files of a finished job. Returns the path of the picture.

        hot: the style is in the library; shifts: of content and style, which make them different pictures (a new pair
        if None); extras: with curve and time-lapse.
        """
        number = self.count
        self.count += 1
        shifts = shifts or (number, 0 if hot else number)
        # Drawing is slow, and shifted pictures are different pictures, too.
        scene = ImageChops.offset(drawn(draw_scene, self.size), shifts[0], 0)
        painting = ImageChops.offset(drawn(draw_painting, self.size), shifts[1], 0)
        done = self.folder / "done" / name
        inputs = (
            put(Role.CONTENT, content, encoded(scene, "JPEG"), done),
            put(Role.STYLE, style, encoded(painting), self.folder / "styles" if hot else done),
        )
        picture = self.results / f"{name}.png"
        picture.parent.mkdir(exist_ok=True)
        painted = Image.blend(scene, painting, 0.5)
        painted.save(picture)
        if extras:
            decorate(picture, scene, painting)
        document = describe(picture, number, inputs, resolve(settings), notes=notes, batch=batch)
        picture.with_name(picture.stem + ".json").write_bytes(sidecar.encode(document))
        return picture

    def write(self) -> Path:
        """Write the gallery."""
        return gallery.write(self.results, [self.folder / "done", self.folder / "styles"])

    def data(self) -> dict[str, object]:
        """Write the gallery. Returns the data of its script."""
        text = self.write().read_text(encoding="utf-8")
        found: dict[str, object] = json.loads(
            text.split('<script id="data" type="application/json">')[1].split("</script>")[0]
        )
        return found


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """An empty root."""
    return Root(tmp_path / "root")
