"""The multi-scale loop: `prepare` a scene, then `stylize` it step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_daemon.engine.losses import TargetSource
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.vgg import VGG


@dataclass(frozen=True)
class Scene:
    """Everything about a picture that can be made ready while another one is being painted."""

    size: tuple[int, int]  # (height, width) of the result in pixels
    notes: tuple[str, ...]  # what people should know, for the log and the sidecar


class Step:
    """The state after one iteration; `image`, `losses` and `state` are valid until the next step is asked for."""

    iteration: int  # from 1, over all scales
    iterations: int  # planned in all
    scale: int  # from 1
    scales: int
    size: tuple[int, int]  # (height, width) being painted
    events: tuple[str, ...]  # what went wrong and was mended since the start, one line each

    @property
    def losses(self) -> Mapping[str, float]:
        """Unweighted terms and the weighted total; reading it waits for the device."""
        raise NotImplementedError

    def image(self) -> Tensor:
        """(1, 3, H, W) in [0, 1], on the device."""
        raise NotImplementedError

    def state(self) -> dict[str, object]:
        """Everything needed to go on from here: plain values and CPU tensors."""
        raise NotImplementedError


def prepare(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: RenderSettings,
    targets: TargetSource,
    *,
    device: torch.device,
    start: Tensor | None = None,
) -> Scene:
    """Sizes, resized pictures, targets and calibration for each scale.

    content, styles, start: (3, H, W), RGB in [0, 1].
    """
    raise NotImplementedError


def stylize(
    scene: Scene,
    network: VGG,
    settings: RenderSettings,
    *,
    state: Mapping[str, object] | None = None,
) -> Iterator[Step]:
    """Paint `scene`, yielding after every iteration; the last step's image is the picture."""
    raise NotImplementedError
