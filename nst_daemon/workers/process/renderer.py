"""The real renderer (see `protocols`): a `Painter` that takes tasks, keeps states as bytes and explains errors."""

from __future__ import annotations

import io
import mmap
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import torch
from PIL import Image
from torch import Tensor

from nst_daemon.digests import sha256_file
from nst_daemon.engine.device_errors import explain
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.stylize import Step
from nst_daemon.errors import NstError
from nst_daemon.jobs import Role
from nst_daemon.painter import NamedFile, Painter, Prepared, Rendering
from nst_daemon.pictures.destination import Destination
from nst_daemon.workers.messages import Provisioning, Task, WorkerOptions
from nst_daemon.workers.process.protocols import Report

#: Bytes of a saved state besides its tensors, at most.
DUMP_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class RenderJob:
    """A job that can be painted (see `protocols.PreparedProtocol`)."""

    prepared: Prepared

    @property
    def settings(self) -> RenderSettings:
        """The resolved settings."""
        return self.prepared.settings

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result in pixels."""
        height, width = self.prepared.scene.size
        return width, height

    @property
    def calibration(self) -> Sequence[Mapping[str, object]]:
        """What each term is divided by, for each scale."""
        return self.prepared.scene.calibration


class Renderer:
    """The engine on one device, loaded for the usual settings.

    Raises:
        ModelError: Weights are missing or damaged.
        SettingsError: The settings do not fit the network.
        DeviceError: The device is not there.
    """

    def __init__(self, options: WorkerOptions, device: str, report: Report) -> None:
        self._painter = Painter(
            options.network,
            options.weights,
            device=device,
            cache_dir=options.cache_dir,
            cache_bytes=options.cache_bytes,
            threads=options.threads or None,
            report=report,
        )
        self._painter.load(options.settings)

    @staticmethod
    def provisioning(options: WorkerOptions, report: Report) -> Provisioning:
        """The weights, unless the package contains them, and the ONNX file of the usual settings.

        Raises:
            ModelError: Weights are missing or damaged.
            SettingsError: The settings do not fit the network.
        """
        painter = Painter(
            options.network,
            options.weights,
            device="cpu",
            cache_dir=options.cache_dir,
            cache_bytes=0,
            report=report,
        )
        weights, graph = painter.weights, painter.targets(options.settings).file
        files = {f"onnx/{graph.name}": (str(graph), sha256_file(graph))}
        name = weights.name
        if name == "imagenet":  # where torchvision looks for it, below TORCH_HOME
            files[f"torch/hub/checkpoints/{weights.path.name}"] = str(weights.path), weights.sha256
        elif name != "bundled":
            name = f"weights/{weights.sha256[:16]}/{weights.path.name}"
            files[name] = str(weights.path), weights.sha256
        return Provisioning(name, files)

    def info(self) -> Mapping[str, object]:
        """Device, threads, network, weights with their digest, versions."""
        return self._painter.info()

    def prepare(self, task: Task) -> RenderJob:
        """Decode the inputs and compute the targets. Raises SettingsError, PictureError, StorageError."""

        def files(role: Role) -> list[NamedFile]:
            return [
                # Messages name the file as the person did, not where it is in the spool.
                NamedFile(task.spool / file.spooled, file.name)
                for file in task.inputs
                if file.role is role
            ]

        (content,) = files(Role.CONTENT)
        prepared = self._painter.prepare(
            content,
            files(Role.STYLE),
            task.settings,
            start=next(iter(files(Role.START)), None),
            content_mask=next(iter(files(Role.CONTENT_MASK)), None),
            style_masks=files(Role.STYLE_MASK),
            limits=task.limits,
            destination=Destination(
                task.picture, task.outputs.format, task.outputs.depth, task.limits.min_free_disk
            ),
        )
        return RenderJob(prepared)

    def paint(self, job: RenderJob, state: bytes | memoryview | None) -> Generator[Step]:
        """Paint, yielding after each iteration."""
        loaded = None
        if state is not None:
            loaded = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return self._painter.paint(job.prepared, loaded)

    def memory(self) -> int:
        """Bytes of the device's own memory that this process has, 0 for the CPU."""
        device = self._painter.device
        return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0

    def dump(self, step: Step) -> memoryview:
        """The step's state as torch writes it.

        In memory of its own: as a block of the C library's heap it would leave a gap that nothing else fills.
        """
        state = step.state(copied=False)
        size = DUMP_ROOM + _bytes(state)
        # Private, so that it counts for this process's limit.
        room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        torch.save(state, cast("IO[bytes]", room))
        return memoryview(room)[: room.tell()]

    def finish(self, job: RenderJob, step: Step) -> Rendering:
        """The last good picture of a painting. Raises PaintingError if there is none."""
        return self._painter.finish(job.prepared, step)

    def sketch(self, job: RenderJob, step: Step, side: int) -> Image.Image:
        """The picture in RGB, of one size at every scale, on a white background."""
        return job.prepared.sketch(step, side)

    def explain(self, error: BaseException) -> NstError | None:
        """What an exception of a library means."""
        return explain(error)


def _bytes(state: Mapping[str, Any]) -> int:
    """The bytes of a state's tensors as torch saves them: with all of the memory that a view is a part of."""
    found = 0
    for value in state.values():
        if isinstance(value, Mapping):
            found += _bytes(value)
        elif isinstance(value, Tensor):
            found += value.untyped_storage().nbytes()
    return found
