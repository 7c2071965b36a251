"""The real `painting.Studio`: a `Painter` with its pictures in the spool, its states as bytes, its errors in words."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from nst_daemon.engine.images import Picture, load_picture, resize, save_picture, to_image
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import Step
from nst_daemon.errors import DeviceError, NstError, OutOfMemory
from nst_daemon.jobs import Role
from nst_daemon.painter import Painter, Prepared
from nst_daemon.workers.base import Task, WorkerOptions

#: What torch, oneDNN, cuBLAS, cuDNN and onnxruntime say where memory or the device fails; most of it is a plain
#: RuntimeError. Memory is looked for first, because some of its words hold those of the device.
_NO_MEMORY = (
    "can't allocate memory",
    "Failed to allocate memory",
    "bad_alloc",
    "could not create a memory object",
    "_STATUS_ALLOC_FAILED",
)
_NO_DEVICE = ("CUDA error", "CUDA failure", "cuDNN error", "CUDNN failure", "CUBLAS_STATUS_")


@dataclass(frozen=True, slots=True)
class Canvas:
    """A job that can be painted; see `painting.Prepared`."""

    prepared: Prepared

    @property
    def settings(self) -> RenderSettings:
        """The whole settings."""
        return self.prepared.settings

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result in pixels."""
        height, width = self.prepared.scene.size
        return width, height

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted or chosen."""
        return self.prepared.notes


class Studio:
    """The engine on one device, ready for the usual settings. Raises ModelError, SettingsError, DeviceError."""

    def __init__(self, options: WorkerOptions, device: str) -> None:
        self._painter = Painter(
            options.network,
            options.weights,
            device=device,
            cache_dir=options.cache_dir,
            cache_bytes=options.cache_bytes,
            threads=options.threads or None,
        )
        self._painter.load(resolve(options.settings))

    def info(self) -> Mapping[str, object]:
        """Device, threads, network, weights with their digest, versions."""
        return self._painter.info()

    def prepare(self, task: Task) -> Canvas:
        """Validate the settings, decode the inputs, compute the targets. Raises SettingsError, PictureError."""
        settings = _stepped_down(resolve(task.settings), task.step_down)
        spooled = [(i.role, task.spool / i.spooled) for i in task.inputs]
        content = next(path for role, path in spooled if role is Role.CONTENT)
        styles = [path for role, path in spooled if role is Role.STYLE]
        limits = {
            k: int(str(task.limits[k])) for k in ("max_pixels", "max_side") if k in task.limits
        }
        return Canvas(self._painter.prepare(content, styles, settings, **limits))

    def paint(self, canvas: Canvas, state: bytes | None) -> Iterator[Step]:
        """Paint, yielding after each iteration."""
        loaded = None
        if state is not None:
            loaded = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return self._painter.paint(canvas.prepared, loaded)

    def dump(self, step: Step) -> bytes:
        """The step's state as torch writes it."""
        buffer = io.BytesIO()
        torch.save(step.state(), buffer)
        return buffer.getvalue()

    def save(
        self, canvas: Canvas, step: Step, path: Path, outputs: Mapping[str, object], about: str
    ) -> None:
        """Write the picture in the format and quality that the outputs name."""
        picture = canvas.prepared.picture(step)
        save_picture(
            picture.rgb,
            path,
            format=str(outputs.get("format", "png")),
            quality=int(str(outputs.get("quality", 92))),
            alpha=picture.alpha,
            metadata=picture.metadata,
            about=about,
        )

    def explain(self, error: BaseException) -> NstError | None:
        """What torch's exceptions mean."""
        text = str(error)
        first = text.partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _NO_MEMORY):
            return OutOfMemory(
                f"the picture does not fit into memory: {first}", remedy="choose a smaller size"
            )
        if isinstance(error, torch.AcceleratorError) or any(words in text for words in _NO_DEVICE):
            return DeviceError(f"the device failed: {first}", remedy="look at nvidia-smi and dmesg")
        return None

    def sketch(self, canvas: Canvas, step: Step, side: int) -> Image.Image:
        """The picture in RGB, of one size at every scale and on white where it is transparent."""
        width, height = canvas.size
        factor = min(1.0, side / max(width, height))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        rgb = resize(step.image().detach().float(), size)[0].cpu()
        alpha = canvas.prepared.content.alpha
        if alpha is not None:
            shown = resize(alpha, size)
            rgb = rgb * shown + (1 - shown)
        return to_image(rgb)


def _stepped_down(settings: RenderSettings, steps: int) -> RenderSettings:
    """Settings that need less memory: each step leaves L-BFGS a quarter of its history."""
    if steps == 0 or settings.optimizer != "lbfgs":
        return settings
    return replace(settings, history=max(2, settings.history >> 2 * steps))
