"""The engine, put together for one device: used by the workers, the commands and the importable API alike."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from time import monotonic
from typing import TypeVar

import torch

from nst_daemon.engine import stylize as engine
from nst_daemon.engine.batching import Together
from nst_daemon.engine.efficientnet import EfficientNet
from nst_daemon.engine.images import Picture, load_picture, resize
from nst_daemon.engine.masks import regions as find_regions
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.targets import OnnxTargets, StyleCache
from nst_daemon.engine.vgg import VGG, compute_dtype
from nst_daemon.errors import DeviceError, ModelError, SettingsError
from nst_daemon.export.graph import GraphSpec, export_onnx
from nst_daemon.export.parity import ParityRow, parity
from nst_daemon.export.weights import load as load_weights
from nst_daemon.files import default_cache_dir
from nst_daemon.weights_file import find_weights

log = logging.getLogger(__name__)

T = TypeVar("T")
Source = Picture | str | os.PathLike[str] | int

#: How many networks (one for each choice of layers, pooling and padding) stay loaded.
RESIDENT = 4
#: How many plans of cuFFT stay loaded on a GPU.
PLANS = 32
#: How many ONNX files (50 MB each) stay in the cache folder.
ONNX_FILES = 20


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready to be painted: decoded, its targets computed.

    content: as it was decoded (its alpha and metadata belong to the result); notes: what people should know.
    """

    scene: engine.Scene
    settings: RenderSettings
    content: Picture
    styles: tuple[Picture, ...]
    notes: tuple[str, ...]

    def picture(self, step: engine.Step) -> Picture:
        """The result as a step left it, on the CPU, with the content's transparency and metadata."""
        rgb = step.image()[0].detach().float().cpu()
        alpha = self.content.alpha
        if alpha is not None:
            alpha = resize(alpha, (rgb.shape[1], rgb.shape[2]))
        return Picture(rgb, alpha, self.content.metadata, (*self.notes, *step.events))


class Painter:
    """Holds the network and the targets' sessions of one device from picture to picture.

    network: of `engine.networks`; weights: as `weights_file.find_weights` takes them; device: `auto` (the first
    GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, …; cache_dir: where ONNX files and style statistics are kept, the
    user's own cache folder unless given; cache_bytes: how much room the statistics may take; threads: of the CPU, for
    this whole process (torch's own choice where None).

    One thread may prepare while others paint. Raises ModelError where the weights are missing or damaged,
    DeviceError where the device is not there.
    """

    def __init__(
        self,
        network: str = "vgg19",
        weights: str | Path = "auto",
        *,
        device: str = "auto",
        cache_dir: Path | None = None,
        cache_bytes: int = 1 << 30,
        threads: int | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = find_device(device)
        if self.device.type == "cuda":
            # cuBLAS reads this when its first handle is made; `deterministic` pictures need it.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            # Each plan holds memory that torch does not count, and each size of picture has its own.
            torch.backends.cuda.cufft_plan_cache[self.device.index].max_size = PLANS
        self.weights = find_weights(weights, network)
        self._state = load_weights(self.weights)
        folder = cache_dir or default_cache_dir()
        self._onnx_folder = folder / "onnx"
        self._cache = StyleCache(folder / "styles", cache_bytes) if cache_bytes else None
        self._together = Together()
        self._networks: dict[Hashable, VGG] = {}
        self._targets: dict[Hashable, OnnxTargets] = {}
        # Two locks: an export, which takes seconds, must not hold up whoever paints.
        self._networks_lock = threading.Lock()
        self._targets_lock = threading.Lock()
        log.info("painting on %s with %s", self.device, self.weights.description)

    def prepare(
        self,
        content: Source,
        styles: Sequence[Source],
        settings: RenderSettings,
        *,
        start: Source | None = None,
        content_mask: Source | None = None,
        style_masks: Sequence[Source] = (),
        max_pixels: int = 200_000_000,
        max_side: int = 32_768,
    ) -> Prepared:
        """Decode what is not decoded yet and compute the targets.

        start: the picture to begin with, where the settings say `start: given`; content_mask, style_masks: which
        regions of the content take which regions of the styles (`engine.masks`). Raises PictureError, SettingsError.
        """

        def decode(source: Source) -> Picture:
            if isinstance(source, Picture):
                return source
            return load_picture(source, max_pixels=max_pixels, max_side=max_side)

        picture, references = decode(content), tuple(decode(style) for style in styles)
        regions = find_regions(
            None if content_mask is None else decode(content_mask).rgb,
            [decode(mask).rgb for mask in style_masks],
            _size(picture),
            [_size(reference) for reference in references],
        )
        first = None if start is None else decode(start).rgb
        with engine.current(self.device):
            scene = engine.prepare(
                picture.rgb,
                [reference.rgb for reference in references],
                settings,
                self.targets(settings),
                device=self.device,
                start=first,
                regions=regions,
            )
        decoded = (note for p in (picture, *references) for note in p.notes)
        return Prepared(scene, settings, picture, references, (*decoded, *scene.notes))

    def paint(
        self, prepared: Prepared, state: Mapping[str, object] | None = None
    ) -> Generator[engine.Step]:
        """Paint, yielding after each iteration; state: `Step.state()` of an interrupted run, to go on from there.

        Several threads may paint at once; what they paint at one size shares its passes through the network.
        """
        return engine.stylize(
            prepared.scene,
            self.network(prepared.settings),
            prepared.settings,
            state=state,
            together=self._together,
        )

    def load(self, settings: RenderSettings | None = None) -> None:
        """Make ready what pictures with these settings will need, so that the first does not wait for it."""
        settings = settings or RenderSettings()
        self.network(settings)
        self.targets(settings)

    def info(self) -> dict[str, object]:
        """Device, weights, versions and the onnxruntime providers that really loaded (none before `load`)."""
        with self._targets_lock:
            loaded = {p for targets in self._targets.values() for p in targets.providers}
        packages = ("nst-daemon", "torch", "torchvision", "onnx", _onnxruntime_package())
        with engine.current(self.device):
            precision = str(compute_dtype("auto", self.device)).removeprefix("torch.")
        return {
            "device": str(self.device),
            "device_name": device_name(self.device),
            "threads": torch.get_num_threads(),
            "precision": precision,
            "network": self.weights.network,
            "weights": self.weights.name,
            "weights_sha256": self.weights.sha256,
            "weights_description": self.weights.description,
            "providers": sorted(loaded),
            "versions": {name: version(name) for name in packages},
        }

    def network(self, settings: RenderSettings) -> VGG:
        """The network for these settings, on the device, loaded once."""
        spec = self.spec(settings)
        with self._networks_lock:
            return _resident(self._networks, spec, lambda: self._vgg(spec).to(self.device))

    def targets(self, settings: RenderSettings) -> OnnxTargets:
        """The targets' source for these settings; its ONNX file is exported where it is missing."""
        spec = self.spec(settings)
        with self._targets_lock:
            return _resident(self._targets, spec, lambda: self._open_targets(spec))

    def spec(self, settings: RenderSettings) -> GraphSpec:
        """What these settings ask of the network."""
        return GraphSpec.of(
            self.weights.sha256,
            settings.style_layers,
            settings.content_layers,
            network=self.weights.network,
            pooling=settings.pooling,
            rescale_pooling=settings.rescale_pooling,
            padding=settings.padding,
        )

    def onnx_file(self, settings: RenderSettings) -> Path:
        """Where the ONNX file for these settings is, or will be."""
        return self._onnx_folder / str(self.spec(settings).filename)

    def export(self, settings: RenderSettings | None = None) -> Path:
        """Write the ONNX file for these settings, whether it is there or not, and return its path."""
        return self._export(self.spec(settings or RenderSettings()))

    def parity(self, settings: RenderSettings | None = None) -> list[ParityRow]:
        """onnxruntime against torch for these settings' file: one row per output and size."""
        settings = settings or RenderSettings()
        spec = self.spec(settings)
        file = self.targets(settings).file
        rows: list[ParityRow] = parity(file, self._vgg(spec), spec, device=self.device)
        return rows

    def _vgg(self, spec: GraphSpec) -> VGG:
        kind = EfficientNet if spec.network == "efficientnet_b0" else VGG
        return kind(
            self._state,
            spec.layers,
            pooling=spec.pooling,
            rescale_pooling=spec.rescale_pooling,
            padding=spec.padding,
            network=spec.network,
        )

    def _export(self, spec: GraphSpec) -> Path:
        """Export, then remove the files that were used longest ago."""
        began = monotonic()
        log.info("exporting %s to ONNX (once for these layers and weights)", spec.network)
        path: Path = export_onnx(self._vgg(spec), spec, self._onnx_folder)
        log.info("exported %s in %.1f s", path, monotonic() - began)
        others = set(self._onnx_folder.glob("*.onnx")) - {path}
        for old in sorted(others, key=_modified, reverse=True)[ONNX_FILES - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def _open_targets(self, spec: GraphSpec) -> OnnxTargets:
        path = self._onnx_folder / spec.filename
        if path.exists():
            try:
                return self._open(path)
            except ModelError as error:
                log.warning("%s", error)
        return self._open(self._export(spec))

    def _open(self, path: Path) -> OnnxTargets:
        targets = OnnxTargets(path, device=self.device, cache=self._cache)
        with suppress(OSError):
            os.utime(path)  # used: see _export
        return targets


def stylize(
    content: Source,
    style: Source | Sequence[Source],
    settings: RenderSettings | None = None,
    *,
    network: str = "vgg19",
    weights: str | Path = "auto",
    device: str = "auto",
    content_mask: Source | None = None,
    style_masks: Sequence[Source] = (),
    progress: Callable[[engine.Step], None] | None = None,
    **overrides: object,
) -> Picture:
    """Paint `content` in the manner of `style`; several styles are blended.

    Pictures are paths, open descriptors or `Picture`s. The choices come as `RenderSettings`, or as keywords that change
    a preset (`preset="gatys2016"`, or the default one). Masks say which region of the content takes which region of
    the styles (`engine.masks`). `progress` is called after each iteration. The model stays loaded for the next call.
    Raises PictureError, SettingsError, ModelError, DeviceError, PaintingError.

    >>> from nst_daemon import stylize
    >>> from nst_daemon.engine.images import save_picture
    >>> from nst_daemon.samples import CONTENT, STYLE
    >>> painting = stylize(CONTENT, STYLE, size=48, iterations=2)
    >>> tuple(painting.rgb.shape)  # red, green and blue in [0, 1], height, width
    (3, 36, 48)
    >>> save_picture(painting.rgb, Path("painting.png"))
    """
    if settings is not None and overrides:
        raise SettingsError(
            f"settings and {next(iter(overrides))!r} were given both",
            remedy="give either RenderSettings or keywords",
        )
    settings = settings or resolve(overrides, network=network)
    styles = [style] if isinstance(style, Picture | str | os.PathLike | int) else list(style)
    painter = _shared_painter(network, str(weights), device)
    prepared = painter.prepare(
        content, styles, settings, content_mask=content_mask, style_masks=style_masks
    )
    for step in painter.paint(prepared):
        if progress:
            progress(step)
    return prepared.picture(step)


@lru_cache(maxsize=1)
def _shared_painter(network: str, weights: str, device: str) -> Painter:
    return Painter(network, weights, device=device)


def _size(picture: Picture) -> tuple[int, int]:
    """(height, width)."""
    return picture.rgb.shape[1], picture.rgb.shape[2]


def find_device(name: str = "auto") -> torch.device:
    """`auto` is the first GPU where torch can use one, else the CPU. Raises DeviceError for one that is not there."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"there is no kind of device {name!r}", remedy="devices are auto, cpu, cuda, cuda:1, …"
        ) from error
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"there is no {device}: torch sees {count} NVIDIA GPUs",
                remedy="look at nvidia-smi and `nst-daemon doctor`, or use another device",
            )
    elif device.type != "cpu":
        raise DeviceError(f"{name} is not supported", remedy="use cpu or an NVIDIA GPU (cuda)")
    return device


def device_name(device: torch.device) -> str:
    """What people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _resident(shelf: dict[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    """Look up or make; the one that was used longest ago leaves a full shelf."""
    item = shelf.pop(key, None) or make()
    shelf[key] = item
    if len(shelf) > RESIDENT:
        del shelf[next(iter(shelf))]
    return item


def _modified(path: Path) -> float:
    """Seconds since the epoch; 0 where another process has just removed the file."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _onnxruntime_package() -> str:
    """The name under which onnxruntime is installed (there is one for GPUs)."""
    return packages_distributions()["onnxruntime"][0]
