"""The engine, put together for one device: used by the workers, the commands and the Python API (`api`).

`Painter.prepare`, `paint` and `finish` are the one way from files to a picture, `Rendering.save` the one way to a file.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from nst_daemon.config import Cache, Limits, Outputs
from nst_daemon.engine.device import (
    current_device,
    device_name,
    find_device,
    has_nvidia_gpu,
    no_gpu_reason,
    use_threads,
)
from nst_daemon.engine.device_errors import explained
from nst_daemon.engine.images import Picture, encoded, load_picture, resize, size_of, to_image
from nst_daemon.engine.masks import SEARCH_SIDE
from nst_daemon.engine.masks import regions as find_regions
from nst_daemon.engine.memory import exhausted
from nst_daemon.engine.scene import Scene, picture_size, prepare, used_side
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.style_cache import StyleCache
from nst_daemon.engine.stylize import Step
from nst_daemon.engine.stylize import stylize as optimize
from nst_daemon.engine.targets import OnnxTargets
from nst_daemon.engine.vgg import VGG, compute_dtype
from nst_daemon.errors import ModelError, PictureError
from nst_daemon.export.graph import GraphSpec, network_of
from nst_daemon.export.onnx_files import KEPT_FILES, OnnxFiles, Report
from nst_daemon.export.parity import ParityRow, parity
from nst_daemon.export.weights import load as load_weights
from nst_daemon.files import default_cache_dir, storage
from nst_daemon.jobs import JobInput
from nst_daemon.pictures.destination import Destination
from nst_daemon.pictures.output_formats import check_size, format_of_suffix
from nst_daemon.pictures.raster import Size
from nst_daemon.report import sidecar
from nst_daemon.weights_file import find_weights

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How many networks (one for each choice of layers, pooling and padding) stay loaded.
LOADED_NETWORKS = 4
#: How many cuFFT plans stay loaded on a GPU.
CUFFT_PLANS = 32


@dataclass(frozen=True, slots=True)
class NamedFile:
    """An image file, and what messages call it."""

    path: Path
    name: str


Source = Picture | NamedFile | str | os.PathLike[str] | int


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready to be painted: its files are decoded and its targets computed.

    Attributes:
        alpha: Of the content, (1, H, W), or None; the result takes it over.
        metadata: Of the content; the result takes it over.
        notes: What was converted or chosen, one line each.
    """

    scene: Scene
    settings: RenderSettings
    alpha: Tensor | None
    metadata: Mapping[str, str]
    notes: tuple[str, ...]

    def sketch(self, step: Step, side: int) -> Image.Image:
        """The picture after a step in RGB, of one size at every scale, on a white background.

        side: The longer side in pixels, at most.
        """
        height, width = self.scene.size
        factor = min(1.0, side / max(width, height))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        rgb = resize(step.image().detach().float(), size)[0].cpu()
        if self.alpha is not None:
            shown = resize(self.alpha, size)
            rgb = rgb * shown + (1 - shown)
        return to_image(rgb)


@dataclass(frozen=True)
class Rendering:
    """A finished picture, ready to be saved.

    Attributes:
        picture: The result on the CPU, with the content's transparency and metadata; all values are finite.
        losses: Unweighted terms, their sums and the weighted total of this picture.
        iterations: Done and planned.
        settings: What it was painted with.
        model: Network and weights, as `Painter.model` gives them.
    """

    picture: Picture
    losses: Mapping[str, float]
    iterations: tuple[int, int]
    settings: RenderSettings
    model: Mapping[str, object]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted or chosen, and what happened during the painting, one line each."""
        return self.picture.notes

    def save(self, path: Path, outputs: Outputs, inputs: Sequence[JobInput]) -> None:
        """Write the picture with its essentials (inputs' digests, settings, model) embedded.

        Args:
            path: The file; its folder exists.
            outputs: Format, quality and depth are taken from here.
            inputs: The files that the picture was painted from.

        Raises:
            PictureError: The format cannot hold a picture of this size.
            StorageError: The file cannot be written.
        """
        save(self.picture, path, outputs, about=self._about(outputs, inputs))

    def encode(
        self, outputs: Outputs, inputs: Sequence[JobInput], label: str
    ) -> bytes | memoryview:
        """The bytes that `save` writes. label: names the file in messages."""
        return encode(self.picture, outputs, label, self._about(outputs, inputs))

    def _about(self, outputs: Outputs, inputs: Sequence[JobInput]) -> str:
        return sidecar.embed(inputs, asdict(self.settings), self.model, outputs.picture)


def encode(picture: Picture, outputs: Outputs, label: str, about: str = "") -> bytes | memoryview:
    """The bytes of a picture's file, with its transparency and metadata.

    Args:
        picture: Any picture.
        outputs: Format, quality and depth are taken from here.
        label: Names the file in messages.
        about: ASCII text to embed.

    Raises:
        PictureError: The format cannot hold a picture of this size.
        SettingsError: The format does not support the depth.
    """
    size = size_of(picture.rgb)
    check_size(outputs.format, size, label)
    try:
        return encoded(
            picture,
            format=outputs.format,
            quality=outputs.quality,
            depth=outputs.depth,
            about=about,
        )
    except (OSError, ValueError, RuntimeError) as error:  # an encoder raises any of these
        if exhausted(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise PictureError(
            f"{label}: {size[1]} × {size[0]} pixels cannot be written as {outputs.format}: {error}",
            remedy="choose another outputs.format, or a smaller size",
        ) from error


def save(
    picture: Picture,
    path: str | os.PathLike[str],
    outputs: Outputs | None = None,
    *,
    about: str = "",
) -> None:
    """Write a picture with its transparency and metadata.

    Args:
        picture: Any picture.
        path: The file; its folder exists.
        outputs: Format, quality and depth are taken from here. Unless given, the suffix decides the format; an unknown
            suffix means PNG.
        about: ASCII text to embed.

    Raises:
        PictureError: The format cannot hold a picture of this size.
        SettingsError: The format does not support the depth.
        StorageError: The file cannot be written.
    """
    if outputs is None:
        known = format_of_suffix(Path(path).suffix)
        outputs = Outputs(format=known.name) if known else Outputs()
    file = Path(path)
    with storage(file):
        data = encode(picture, outputs, os.fspath(path), about)
        with file.open("wb") as out:
            try:
                out.write(data)
                out.flush()
            except OSError:
                if file.is_file():  # no half of a picture
                    file.unlink()
                raise


def decode(
    source: Source,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    *,
    used: Callable[[Size], float] | None = None,
    exact: bool = False,
) -> Picture:
    """Read a picture within the limits; a `Picture` is returned as it is.

    Args:
        source: A path (also of a pipe), an open descriptor, a named file or a picture.
        limits: Largest number of pixels and longest side; for a pipe, also of bytes.
        used: As in `engine.images.load_picture`: a much larger picture is reduced.
        exact: Without adding colours.

    Raises:
        PictureError: The file cannot be read as a picture, or exceeds a limit.
        OutOfMemory: Memory is short.
    """
    if isinstance(source, Picture):
        return source
    name = source.name if isinstance(source, NamedFile) else None
    file = source.path if isinstance(source, NamedFile) else source
    return load_picture(file, limits, name=name, used=used, exact=exact)


class Painter:
    """Keeps the network and the targets' sessions of one device loaded between pictures.

    One thread may prepare while others paint.

    Args:
        network: A key of `engine.networks.NETWORKS`.
        weights: As in `weights_file.find_weights`.
        device: As in `engine.device.find_device`.
        cache_dir: For ONNX files and style statistics; the user's cache folder unless given.
        cache_bytes: Limit for the statistics; 0 turns their cache off.
        threads: CPU threads of this process; torch's choice unless given.
        onnx_files: How many ONNX files to keep.
        report: Called with what is being loaded or made, again and again as long as it advances.

    Raises:
        ModelError: The weights are missing or damaged.
        DeviceError: There is no such device.
    """

    def __init__(
        self,
        network: str = "vgg19",
        weights: str | Path = "auto",
        *,
        device: str = "auto",
        cache_dir: Path | None = None,
        cache_bytes: int = Cache.max_bytes,
        threads: int | None = None,
        onnx_files: int = KEPT_FILES,
        report: Report = lambda step: None,
    ) -> None:
        self._report = report
        if threads:
            use_threads(threads)
        report("opening the device")
        self.device = find_device(device)
        if self.device.type == "cuda":
            # Read by cuBLAS when its first handle is made; `deterministic` needs it.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            # Each size of picture has its own plan, with memory that torch does not count.
            torch.backends.cuda.cufft_plan_cache[self.device.index].max_size = CUFFT_PLANS
        self.weights = find_weights(weights, network)
        if self.weights.warning:
            log.warning("%s", self.weights.warning)
        report("loading the weights")
        self._state = load_weights(self.weights)
        folder = cache_dir or default_cache_dir()
        # Of the kernels that Triton compiles: a service has no home folder.
        os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
        self._onnx = OnnxFiles(folder / "onnx", kept=onnx_files, report=report)
        self._cache = StyleCache(folder / "styles", cache_bytes) if cache_bytes else None
        self._networks: dict[Hashable, VGG] = {}
        self._targets: dict[Hashable, OnnxTargets] = {}
        # Two locks: an export, which takes seconds, must not block the threads that paint.
        self._networks_lock = threading.Lock()
        self._targets_lock = threading.Lock()
        log.info("painting on %s with %s", self.device, self.weights.description)
        if device == "auto" and self.device.type == "cpu" and has_nvidia_gpu():
            log.warning("the NVIDIA GPU is not used: %s", no_gpu_reason())

    @explained()
    def prepare(
        self,
        content: Source,
        styles: Sequence[Source],
        settings: RenderSettings,
        *,
        start: Source | None = None,
        content_mask: Source | None = None,
        style_masks: Sequence[Source] = (),
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        destination: Destination | None = None,
    ) -> Prepared:
        """Decode what is not decoded yet and compute the targets.

        Args:
            content: The picture to be painted.
            styles: The pictures whose style it takes; several are blended.
            settings: How.
            start: The picture to begin with, where the settings say `start: given`.
            content_mask: Regions of the content, each in one flat colour (`engine.masks`).
            style_masks: Regions of the styles, in the styles' order.
            limits: For decoding.
            destination: Where the result will be written, if that is known. It is checked before anything else is done.

        Raises:
            PictureError: A picture cannot be read, masks do not fit, or the format cannot hold the result.
            SettingsError: The settings do not fit the pictures.
            StorageError: There is too little space for the result.
            OutOfMemory: Memory is short, or the picture is too large for the device, even in tiles.
            DeviceError: The device has failed.
        """

        def painted(size: Size) -> Size:
            return picture_size(size, settings.size, self.device)

        def decode_mask(mask: Source, used: Callable[[Size], float]) -> Picture:
            return decode(mask, limits, used=lambda own: max(used(own), SEARCH_SIDE), exact=True)

        picture = decode(content, limits, used=lambda size: max(painted(size)))
        size = painted(picture.size)
        if destination is not None:
            destination.check(size, alpha=picture.alpha is not None)

        def used_of_style(own: Size) -> float:
            return used_side(own, size, settings)

        references = [decode(style, limits, used=used_of_style) for style in styles]
        # Without a mask of the content, those of the styles lie over the content.
        used_of_mask = used_of_style if content_mask is not None else (lambda _: max(size))
        over = None if content_mask is None else decode_mask(content_mask, lambda _: max(size))
        masks = [decode_mask(mask, used_of_mask) for mask in style_masks]
        regions = find_regions(
            over,
            masks,
            picture.size,
            [reference.size for reference in references],
        )
        first = None if start is None else decode(start, limits, used=lambda _: max(size))
        with current_device(self.device):
            scene = prepare(
                picture.rgb,
                [reference.rgb for reference in references],
                settings,
                self.targets(settings),
                device=self.device,
                start=None if first is None else first.rgb,
                regions=regions,
                content_size=picture.size,
            )
        decoded = (
            note for p in (picture, *references, over, *masks, first) if p for note in p.notes
        )
        return Prepared(scene, settings, picture.alpha, picture.metadata, (*decoded, *scene.notes))

    def paint(
        self, prepared: Prepared, state: Mapping[str, object] | None = None
    ) -> Generator[Step]:
        """Paint, yielding after each iteration.

        Args:
            prepared: From `prepare`.
            state: `Step.state()` of an interrupted painting, to resume it.

        Raises:
            OutOfMemory: The picture does not fit into the memory with any plan.
            DeviceError: The device has failed.
            PaintingError: No picture had a finite loss.
        """
        with explained():
            yield from optimize(
                prepared.scene,
                self.network(prepared.settings),
                prepared.settings,
                state=state,
            )

    def finish(self, prepared: Prepared, step: Step) -> Rendering:
        """The end of a painting, also of an interrupted one: its last good picture, on the CPU.

        Raises:
            PaintingError: No picture of this painting had a finite loss.
        """
        with current_device(self.device):
            step.settle()
            rgb = step.image()[0].detach().float().cpu()
        alpha = prepared.alpha
        if alpha is not None:
            alpha = resize(alpha, (rgb.shape[1], rgb.shape[2]))
        notes = (*prepared.notes, *step.events)
        return Rendering(
            Picture(rgb, alpha, prepared.metadata, notes),
            dict(step.losses),
            (step.iteration, step.iterations),
            prepared.settings,
            self.model,
        )

    def load(self, settings: RenderSettings | None = None) -> None:
        """Load what pictures with these settings need, so that the first one does not wait for it."""
        settings = settings or RenderSettings()
        self.network(settings)
        self.targets(settings)

    @property
    def model(self) -> dict[str, object]:
        """Network and weights: name, SHA-256 and a description for people."""
        return {
            "network": self.weights.network,
            "weights": self.weights.name,
            "weights_sha256": self.weights.sha256,
            "weights_description": self.weights.description,
        }

    def info(self) -> dict[str, object]:
        """Device, weights, versions and the onnxruntime providers that have loaded (none before `load`)."""
        with self._targets_lock:
            loaded = {p for targets in self._targets.values() for p in targets.providers}
        packages = ("nst-daemon", "torch", "torchvision", "onnx", *_onnxruntime_packages())
        with current_device(self.device):
            precision = str(compute_dtype("auto", self.device)).removeprefix("torch.")
        return {
            "device": str(self.device),
            "device_name": device_name(self.device),
            "threads": torch.get_num_threads(),
            "precision": precision,
            **self.model,
            **({"weights_warning": self.weights.warning} if self.weights.warning else {}),
            "providers": sorted(loaded),
            "versions": {name: version(name) for name in packages},
        }

    def network(self, settings: RenderSettings) -> VGG:
        """The network for these settings, on the device, loaded once."""
        spec = self.spec(settings)
        with self._networks_lock:
            return _loaded(
                self._networks, spec, lambda: network_of(self._state, spec).to(self.device)
            )

    def targets(self, settings: RenderSettings) -> OnnxTargets:
        """The source of targets for these settings; its ONNX file is made if it is missing."""
        spec = self.spec(settings)
        with self._targets_lock:
            return _loaded(self._targets, spec, lambda: self._open_targets(spec))

    def spec(self, settings: RenderSettings) -> GraphSpec:
        """What the network must compute for these settings."""
        return GraphSpec.of(
            self.weights.sha256,
            settings.statistics_layers,
            settings.map_layers,
            network=self.weights.network,
            pooling=settings.pooling,
            rescale_pooling=settings.rescale_pooling,
            padding=settings.padding,
        )

    def onnx_file(self, settings: RenderSettings) -> Path:
        """Where the ONNX file for these settings is, or will be."""
        path: Path = self._onnx.path(self.spec(settings))
        return path

    def export(self, settings: RenderSettings | None = None) -> Path:
        """Export the network for these settings by torch, replace an existing ONNX file, and return its path."""
        path: Path = self._onnx.export(self.spec(settings or RenderSettings()), self.weights)
        return path

    def parity(self, settings: RenderSettings | None = None) -> list[ParityRow]:
        """Compare onnxruntime with torch for these settings: one row per output and size."""
        settings = settings or RenderSettings()
        spec = self.spec(settings)
        file = self.targets(settings).file
        vgg = network_of(self._state, spec)
        rows: list[ParityRow] = parity(file, vgg, spec, device=self.device)
        return rows

    def _open_targets(self, spec: GraphSpec) -> OnnxTargets:
        path = self._onnx.path(spec)
        if path.exists():
            try:
                return self._open(path)
            except ModelError as error:
                log.warning("%s", error)
                with suppress(OSError):
                    path.unlink()
        return self._open(self._onnx.make(spec, self.weights, self._state))

    def _open(self, path: Path) -> OnnxTargets:
        self._report("opening the ONNX file")
        targets = OnnxTargets(path, device=self.device, cache=self._cache)
        with suppress(OSError):
            os.utime(path)  # the least recently used files are removed
        return targets


def _loaded(cache: dict[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    """Look up or make an item; the least recently used one is removed from a full cache."""
    item = cache.pop(key, None) or make()
    cache[key] = item
    if len(cache) > LOADED_NETWORKS:
        del cache[next(iter(cache))]
    return item


def _onnxruntime_packages() -> list[str]:
    """The names under which onnxruntime is installed: there is one for GPUs."""
    return sorted(set(packages_distributions().get("onnxruntime", ())))
