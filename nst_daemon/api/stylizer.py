"""`stylize` paints a picture in the style of others; a `Stylizer` paints many. The command `stylize` uses it too."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Self, Unpack, cast, get_args

import torch

from nst_daemon.api.result import Result
from nst_daemon.api.sources import ImageSource, Inputs, single_pictures
from nst_daemon.config import Limits, Outputs
from nst_daemon.engine.keywords import SettingKeywords
from nst_daemon.engine.memory import empty_cache
from nst_daemon.engine.settings import RenderSettings, StartName, resolve
from nst_daemon.engine.stylize import Step
from nst_daemon.errors import SettingsError, UsageError
from nst_daemon.jobs import Role
from nst_daemon.ops.progress_bars import StepProgress
from nst_daemon.painter import Painter, Prepared, Rendering
from nst_daemon.pictures.destination import Destination
from nst_daemon.suggestions import question, similar
from nst_daemon.workers.process.recorder import Recorder

#: Called after each iteration. It may return False: the painting ends, and the picture so far is the result.
Watch = Callable[[Step], object]
_KEYWORDS = (
    "settings", "start", "content_mask", "style_masks", "progress", "time_lapse", "network", "weights", "device"
)  # fmt: skip


class Stylizer:
    """Paints pictures one after the other, with the network loaded once. Use `stylize` for a single picture.

    It is a context manager, and several threads may use it.

    Args:
        network: `vgg19`, `vgg16` or `efficientnet_b0`.
        weights: `auto` (ImageNet's if their file is on this machine, else the bundled ones), `imagenet`, `bundled` or
            the path of a file.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        threads: CPU threads of this process; torch's choice unless given.
        limits: For files of pictures.
        cache_dir: For ONNX files and statistics of styles; the user's cache folder unless given.

    Raises:
        ModelError: The weights are missing or damaged.
        DeviceError: The device is missing or has failed.

    >>> from nst_daemon import Stylizer
    >>> from nst_daemon.samples import CONTENT, STYLE
    >>> with Stylizer(device="cpu") as stylizer:
    ...     for seed in (1, 2):
    ...         result = stylizer.stylize(CONTENT, STYLE, size=48, iterations=2, start="noise", seed=seed)
    ...         print(result.save(f"painted-{seed}.png"))
    painted-1.png
    painted-2.png
    """

    def __init__(
        self,
        *,
        network: str = "vgg19",
        weights: str | os.PathLike[str] = "auto",
        device: str = "auto",
        threads: int | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        cache_dir: Path | None = None,
    ) -> None:
        self._network, self._limits = network, limits
        painter = Painter(
            network, os.fspath(weights), device=device, threads=threads, cache_dir=cache_dir
        )
        self._painter: Painter | None = painter
        #: The device that paints, such as `cpu` or `cuda:0`.
        self.device: torch.device = painter.device
        self._preparing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the network and its memory."""
        self._painter = None
        gc.collect()
        empty_cache(self.device)

    def stylize(
        self,
        content: ImageSource,
        style: ImageSource | Sequence[ImageSource],
        *,
        settings: RenderSettings | Mapping[str, object] | None = None,
        start: StartName | ImageSource | None = None,
        content_mask: ImageSource | None = None,
        style_masks: ImageSource | Sequence[ImageSource] = (),
        progress: bool | Watch = False,
        time_lapse: bool = False,
        destination: Destination | None = None,
        **keywords: Unpack[SettingKeywords],
    ) -> Result:
        """Paint a picture; arguments and errors are those of the function `stylize`.

        destination: Where the result will be written: checked, with the free space there, before anything is painted.
        """
        chosen, first = self._settings(settings, dict(keywords), start)
        painter, began = self._painter, monotonic()
        if painter is None:
            raise UsageError("this Stylizer is closed", remedy="create another one")
        with ExitStack() as stack:
            inputs = Inputs(self._limits, stack)
            stack.enter_context(self._preparing)
            prepared = painter.prepare(
                inputs.add(Role.CONTENT, content),
                [inputs.add(Role.STYLE, one) for one in single_pictures(style)],
                chosen,
                start=None if first is None else inputs.add(Role.START, first),
                content_mask=None
                if content_mask is None
                else inputs.add(Role.CONTENT_MASK, content_mask),
                style_masks=[
                    inputs.add(Role.STYLE_MASK, one) for one in single_pictures(style_masks)
                ],
                limits=self._limits,
                destination=destination,
            )
        painting = monotonic()
        rendering, recorder, notes = _paint(painter, prepared, progress, time_lapse)
        picture = replace(rendering.picture, notes=(*rendering.notes, *notes))
        return Result(
            replace(rendering, picture=picture),
            tuple(inputs.records),
            {"prepare": painting - began, "paint": monotonic() - painting},
            recorder.history,
            recorder.frames,
            painter.info(),
            prepared.scene.calibration,
        )

    def _settings(
        self,
        settings: RenderSettings | Mapping[str, object] | None,
        keywords: dict[str, object],
        start: StartName | ImageSource | None,
    ) -> tuple[RenderSettings, ImageSource | None]:
        """The settings, and the picture to begin with."""
        named = isinstance(start, str) and start in get_args(StartName)
        if start is not None:
            keywords["start"] = start if named else "given"
        if isinstance(settings, RenderSettings):
            if others := keywords.keys() - {"start"}:
                raise SettingsError(
                    f"both settings and {min(others)!r} were given",
                    remedy="give either RenderSettings or keywords",
                )
            wanted = cast("StartName", keywords.get("start", settings.start))
            chosen = replace(settings, start=wanted)
        else:
            _check_keywords(keywords)
            chosen = resolve(settings or {}, keywords, network=self._network)
        first = None if named or start is None else start
        if chosen.start == "given" and first is None:
            raise SettingsError(
                "'given' names no picture to begin with",
                remedy="give the picture itself as start",
            )
        return chosen, first


def stylize(
    content: ImageSource,
    style: ImageSource | Sequence[ImageSource],
    *,
    settings: RenderSettings | Mapping[str, object] | None = None,
    start: StartName | ImageSource | None = None,
    content_mask: ImageSource | None = None,
    style_masks: ImageSource | Sequence[ImageSource] = (),
    progress: bool | Watch = False,
    time_lapse: bool = False,
    network: str = "vgg19",
    weights: str | os.PathLike[str] = "auto",
    device: str = "auto",
    **keywords: Unpack[SettingKeywords],
) -> Result:
    """Paint a picture in the style of others. The network stays loaded for the next call.

    A picture is a path, a Pillow image, the bytes of an image file, an open file, a numpy array (H, W) or (H, W, C), or
    a torch tensor (C, H, W). Arrays and tensors are in sRGB: uint8, uint16, or floats in [0, 1]; 1 to 4 channels.

    Args:
        content: The picture to be painted.
        style: One or several pictures, or folders of them; several are blended.
        settings: All settings, or a mapping of some; keywords change single ones.
        start: The picture to begin with, or `content`, `noise`, `mix`, `style` or `grey`.
        content_mask: Regions of the content, each in one flat colour.
        style_masks: The same colours on the styles (`engine.masks`), one mask for each style picture.
        progress: True shows a progress bar. A function is called after each iteration with a `Step`; if it returns
            False, the painting ends early with the picture so far.
        time_lapse: Record frames for `Result.save_time_lapse`.
        network: `vgg19`, `vgg16` or `efficientnet_b0`.
        weights: `auto`, `imagenet`, `bundled` or the path of a file.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        keywords: The settings of the painting, such as `size=512`, `preset="bold"` or `seed=3` (docs/objective.md).

    Returns:
        The picture, with the content's transparency and metadata.

    Raises:
        PictureError: A picture cannot be read.
        SettingsError: The settings are not allowed, or do not fit the pictures.
        UsageError: The arguments contradict each other.
        ModelError: The weights are missing or damaged.
        DeviceError: The device is missing or has failed; OutOfMemory: its memory is short.
        PaintingError: No picture had a finite loss.

    >>> from nst_daemon import stylize
    >>> from nst_daemon.samples import CONTENT, STYLE
    >>> result = stylize(CONTENT, STYLE, size=48, iterations=2)
    >>> result.image.size
    (48, 36)
    >>> result.array.shape
    (36, 48, 3)
    >>> result.save("painted.jpg", quality=95).name
    'painted.jpg'
    >>> mixed = stylize(result.image, [STYLE, result.array], size=48, iterations=2, style_weights=[2, 1])
    >>> mixed.iterations
    (6, 6)
    """
    return _shared(network, os.fspath(weights), device).stylize(
        content,
        style,
        settings=settings,
        start=start,
        content_mask=content_mask,
        style_masks=style_masks,
        progress=progress,
        time_lapse=time_lapse,
        **keywords,
    )


@lru_cache(maxsize=1)
def _shared(network: str, weights: str, device: str) -> Stylizer:
    return Stylizer(network=network, weights=weights, device=device)


def _paint(
    painter: Painter, prepared: Prepared, progress: bool | Watch, time_lapse: bool
) -> tuple[Rendering, Recorder, list[str]]:
    """Paint to the end, or until the watcher returns False: the picture, what was recorded, and notes on that."""
    notes: list[str] = []
    recorder = Recorder(
        prepared.sketch,
        outputs=Outputs(progress=time_lapse),
        preview=None,
        clock=monotonic,
        note=notes.append,
    )
    began = monotonic()
    with _watching(prepared, progress) as watch, closing(painter.paint(prepared)) as steps:
        for step in steps:
            recorder.see(step, monotonic() - began)
            if watch(step) is False:
                break
        return painter.finish(prepared, step), recorder, notes


@contextmanager
def _watching(prepared: Prepared, progress: bool | Watch) -> Iterator[Watch]:
    """What is called after each iteration."""
    if progress is not True:
        yield progress or (lambda step: None)
        return
    bar = StepProgress("painting")
    bar.start(prepared.settings)
    try:
        yield bar.update
    finally:
        bar.stop()


def _check_keywords(keywords: Mapping[str, object]) -> None:
    """Raise SettingsError for a misspelt argument; `resolve` refuses other unknown ones."""
    known = [setting.name for setting in fields(RenderSettings)]
    for key in keywords.keys() - set(known):
        close = similar(key, (*known, *_KEYWORDS))
        if close and close[0] in _KEYWORDS:
            raise SettingsError(f"unknown argument {key!r}", remedy=question(close))
