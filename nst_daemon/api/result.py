"""What `stylize` returns."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nst_daemon.api.sources import StrPath
from nst_daemon.config import Outputs
from nst_daemon.digests import sha256_file
from nst_daemon.engine.images import size_of, to_image
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import UsageError
from nst_daemon.job_settings import with_overrides
from nst_daemon.jobs import JobInput
from nst_daemon.names import printable
from nst_daemon.painter import Rendering
from nst_daemon.pictures.decode import reading
from nst_daemon.pictures.destination import check_output, write_output
from nst_daemon.pictures.output_formats import format_of_file
from nst_daemon.report import history, loss_plot, sidecar
from nst_daemon.report.time_lapse import TimeLapse


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """A painted picture, and how it was painted. It is in the machine's memory, and needs no GPU.

    Attributes:
        rendering: The picture, its last losses and its settings, as the engine returns them.
        inputs: The files that it was painted from, with their digests. Pictures in memory are not listed.
        timings: Seconds of each stage: `prepare` and `paint`.
        history: The losses during the painting.
        frames: The frames of the time-lapse, as JPEG.
        machine: Device, threads, network, weights with their digest, versions.
        calibration: What each term of the loss is divided by, for each scale.
    """

    rendering: Rendering
    inputs: tuple[JobInput, ...]
    timings: Mapping[str, float]
    history: tuple[history.Sample, ...]
    frames: tuple[bytes, ...]
    machine: Mapping[str, Any]
    calibration: Sequence[Mapping[str, object]] = field(default=())

    def __repr__(self) -> str:
        width, height = self.size
        done, loss = self.iterations[0], self.losses["total"]
        return f"<Result {width} × {height}, {done} iterations in {self.seconds:.1f} s, loss {loss:.4g}>"

    @property
    def image(self) -> Image.Image:
        """The picture with 8 bits per channel, in sRGB: RGB, or RGBA if the content is transparent somewhere."""
        return to_image(self._channels())

    @property
    def array(self) -> NDArray[np.float32]:
        """(H, W, 3) in [0, 1], sRGB; without the transparency."""
        return np.ascontiguousarray(self.tensor.permute(1, 2, 0).numpy())

    @property
    def tensor(self) -> Tensor:
        """(3, H, W) in [0, 1], sRGB, float32, on the CPU; without the transparency."""
        return self.rendering.picture.rgb

    @property
    def alpha(self) -> NDArray[np.float32] | None:
        """(H, W) in [0, 1]: the content's transparency, or None."""
        alpha = self.rendering.picture.alpha
        return None if alpha is None else np.ascontiguousarray(alpha[0].numpy())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = size_of(self.tensor)
        return width, height

    @property
    def losses(self) -> Mapping[str, float]:
        """The last losses: unweighted terms by name, their sums, and the weighted `total`."""
        return self.rendering.losses

    @property
    def settings(self) -> RenderSettings:
        """Every setting that the picture was painted with."""
        return self.rendering.settings

    @property
    def iterations(self) -> tuple[int, int]:
        """Done and planned."""
        return self.rendering.iterations

    @property
    def seconds(self) -> float:
        """How long preparing and painting took."""
        return sum(self.timings.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted or chosen, and what happened during the painting, one line each."""
        return self.rendering.notes

    def save(
        self,
        path: StrPath,
        *,
        quality: int | None = None,
        depth: int | None = None,
        overwrite: bool = False,
        outputs: Outputs | None = None,
    ) -> Path:
        """Write the picture, marked as sRGB, with its settings and the content's capture date, artist and copyright.

        Args:
            path: The file; its suffix chooses the format: .png, .jpg, .webp, .tif, .avif or .jxl.
            quality: 1 to 100, for JPEG, WebP, AVIF and JPEG XL; 92 unless given.
            depth: Bits per channel: 8, or 16 for PNG, TIFF and JPEG XL, or 10 for AVIF.
            overwrite: Whether an existing file is replaced.
            outputs: The defaults of quality and depth.

        Returns:
            The path.

        Raises:
            UsageError: The file exists, or cannot be written there.
            SettingsError: The format does not support the depth or the quality.
            PictureError: The format cannot hold a picture of this size.
            StorageError: The disk is full, or fails.
        """
        path = Path(path)
        chosen = self._outputs(path, quality, depth, outputs or Outputs())
        check_output(path, overwrite=overwrite)
        data = self.rendering.encode(chosen, self.inputs, printable(str(path)))
        write_output(path, data, overwrite=overwrite)
        return path

    def show(self) -> None:
        """Open the picture in the desktop's image viewer; in a notebook, a `Result` shows itself."""
        self.image.show()

    def save_loss_plot(self, path: StrPath, *, overwrite: bool = False) -> Path:
        """Write the loss curve, as PNG. Raises UsageError if the file exists, StorageError."""
        return self._write(
            path,
            lambda: loss_plot.draw(self.history, self.settings.term_weights),
            overwrite,
        )

    def save_time_lapse(self, path: StrPath, *, overwrite: bool = False) -> Path:
        """Write the time-lapse, an animated WebP; the picture must be painted with `time_lapse=True`.

        Raises:
            UsageError: There is no time-lapse, or the file exists.
            StorageError: The file cannot be written.
        """
        if not self.frames:
            raise UsageError("no time-lapse was recorded", remedy="paint with time_lapse=True")
        return self._write(path, TimeLapse(self.frames).encode, overwrite)

    def document(self, picture: Path, *, outputs: Outputs | None = None) -> dict[str, object]:
        """What the daemon writes as `NAME.json` for this picture: everything that produced it.

        Args:
            picture: The file that `save` has written.
            outputs: As in `save`.
        """
        width, height = self.size
        about = sidecar.Painted(
            job_id="",
            name=picture.stem,
            attempt=1,
            inputs=self.inputs,
            width=width,
            height=height,
            settings=asdict(self.settings),
            machine=self.machine,
            iterations=self.iterations,
            losses=self.losses,
            seconds=self.timings,
            calibration=self.calibration,
            history=history.columns(self.history),
            notes=self.notes,
            outputs=(outputs or Outputs()).picture,
        )
        with reading(str(picture)):
            written = sidecar.Written(picture.name, sha256_file(picture), picture.stat().st_size)
        return sidecar.build(about, written, datetime.now(UTC))

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()

    def _channels(self) -> Tensor:
        alpha = self.rendering.picture.alpha
        return self.tensor if alpha is None else torch.cat([self.tensor, alpha])

    @staticmethod
    def _outputs(path: Path, quality: int | None, depth: int | None, outputs: Outputs) -> Outputs:
        known = format_of_file(path)
        given = {"format": known.name, "quality": quality, "depth": depth}
        return with_overrides(outputs, {k: v for k, v in given.items() if v is not None})

    @staticmethod
    def _write(path: StrPath, make: Callable[[], bytes], overwrite: bool) -> Path:
        check_output(Path(path), overwrite=overwrite)
        write_output(Path(path), make(), overwrite=overwrite)
        return Path(path)
