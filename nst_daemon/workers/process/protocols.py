"""What a worker needs of a renderer: `renderer.Renderer` is the real one, and tests have a fake one.

Nothing here imports torch. The renderer is made by a factory, which `WorkerOptions.renderer` names.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nst_daemon.config import Outputs
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import NstError
from nst_daemon.jobs import JobInput
from nst_daemon.workers.messages import Provisioning, Task, WorkerOptions

if TYPE_CHECKING:
    from PIL import Image


#: Called with what is being loaded, such as "loading the weights", again and again as long as it advances.
Report = Callable[[str], None]


class StepProtocol(Protocol):
    """One iteration of a painting (see `engine.stylize.Step`)."""

    iteration: int
    iterations: int
    last: bool
    size: tuple[int, int]
    scale: int
    events: tuple[str, ...]

    @property
    def losses(self) -> Mapping[str, float]:
        """Terms by name, and `total`."""


class PreparedProtocol(Protocol):
    """A job whose inputs are decoded and whose targets are computed."""

    @property
    def settings(self) -> RenderSettings:
        """The resolved settings."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result in pixels."""

    @property
    def calibration(self) -> Sequence[Mapping[str, object]]:
        """What each term is divided by, for each scale."""


class RenderingProtocol(Protocol):
    """A finished picture (see `painter.Rendering`)."""

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


class RendererProtocol(Protocol):
    """Tasks in, pictures out.

    Every method may raise an NstError. `explain` turns what else it raises into one, or returns None for an error that
    was not foreseen.
    """

    def info(self) -> Mapping[str, object]:
        """Device, threads, network, weights with their digest, versions: for the log, status and sidecars."""

    def prepare(self, task: Task) -> Any:
        """Decode the inputs, compute the targets: a `PreparedProtocol`. Called in one thread while another paints."""

    def paint(self, prepared: Any, state: bytes | memoryview | None) -> Generator[Any]:
        """Paint, yielding a `StepProtocol` after each iteration; state: from `dump`."""

    def dump(self, step: Any) -> bytes | memoryview:
        """The state from which `paint` continues after this step."""

    def finish(self, prepared: Any, step: Any) -> RenderingProtocol:
        """The last good picture, in the machine's memory; it no longer needs the arguments. Raises PaintingError."""

    def sketch(self, prepared: Any, step: Any, side: int) -> Image.Image:
        """The picture in RGB after this step, its longer side at most `side` pixels, the same at every scale."""

    def memory(self) -> int:
        """Bytes of the device's own memory that this process has, 0 for the CPU."""

    def explain(self, error: BaseException) -> NstError | None:
        """What a library's exception means."""


class RendererFactory(Protocol):
    """What makes a renderer for a device."""

    def __call__(self, options: WorkerOptions, device: str, report: Report, /) -> RendererProtocol:
        """Load everything that is resident. Raises NstError."""

    def provisioning(self, options: WorkerOptions, report: Report, /) -> Provisioning:
        """What the same renderer needs on another machine. Raises NstError."""
