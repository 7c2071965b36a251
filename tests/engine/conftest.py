"""Small pictures, the bundled weights, and targets computed by torch instead of onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import nst_daemon
from nst_daemon.engine.images import size_of
from nst_daemon.engine.losses import Objective, StyleStatistics, statistics
from nst_daemon.engine.masks import Regions, at_layer
from nst_daemon.engine.memory import free_memory
from nst_daemon.engine.neighbours import Matching
from nst_daemon.engine.pyramid import Pyramid, levels_of, shares
from nst_daemon.engine.scene import Scene, prepare
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.stylize import Step
from nst_daemon.engine.vgg import VGG

CPU = torch.device("cpu")
#: Two scales, shallow layers: a few milliseconds for each iteration.
QUICK: dict[str, Any] = {
    "size": 48,
    "coarsest": 24,
    "iterations": (12, 14),
    "content_layers": {"relu2_2": 1.0},
    "style_loss": "gram",
    "style_levels": 1,
    "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5},
    "content_weight": 0.08,
    "tv_weight": 0.5,
    "precision": "float32",  # on every machine
}
ADAM: dict[str, Any] = {"optimizer": "adam", "averaging": 0.9, "clamp": True, "step_decay": 0.5}


def last(steps: Any) -> Step:
    *_, step = steps
    assert isinstance(step, Step)
    return step


def pyramid_of(
    content: Tensor, style: Tensor, settings: RenderSettings, targets: TorchTargets
) -> Pyramid:
    """The objective of a content and a style, (1, 3, h, w) each, both at the size that is given."""
    own = shares(size_of(content), size_of(style), settings, limit=settings.style_levels)
    pictures = zip(levels_of(content, len(own)), levels_of(style, len(own)), own, strict=True)
    return Pyramid(
        tuple(
            Objective(targets.content(c), targets.style(s), settings, shares=share)
            for c, s, share in pictures
        )
    )


def moved(objective: Pyramid | Matching, device: torch.device) -> Pyramid | Matching:
    """The same objective on another device; one whose targets are not found yet stays so."""
    if isinstance(objective, Matching):
        styles = [
            replace(style, maps={k: map_.to(device) for k, map_ in style.maps.items()})
            for style in objective.styles
        ]
        return replace(objective, content=objective.content.to(device), styles=styles)

    def level(objective: Objective) -> Objective:
        style = {
            k: StyleStatistics(v.gram.to(device), v.mean.to(device))
            for k, v in objective.style.items()
        }
        content = {k: v.to(device) for k, v in objective.content.items()}
        return Objective(content, style, objective.settings, shares=objective.shares)

    return Pyramid(tuple(level(each) for each in objective.levels))


class TorchTargets:
    """A `TargetSource` that uses the network itself."""

    def __init__(self, network: VGG, settings: RenderSettings) -> None:
        self.network, self.settings = network, settings

    def content(self, image: Tensor) -> Mapping[str, Tensor]:
        with torch.no_grad():
            features = self.network(image)
        return {layer: features[layer] for layer in self.settings.map_layers}

    def style(self, image: Tensor, guide: Tensor | None = None) -> Mapping[str, StyleStatistics]:
        with torch.no_grad():
            features = self.network(image)
        guides = {k: None if guide is None else at_layer(guide, k) for k in features}
        return {
            layer: statistics(features[layer], guides[layer])
            for layer in self.settings.style_layers
        }


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Use one thread: it is faster for small maps, and threads cannot wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def weights() -> dict[str, Tensor]:
    folder = Path(nst_daemon.__file__).parent / "weights"
    return load_file(folder / "vgg19-tinyimagenet.safetensors")


@pytest.fixture(scope="session")
def content() -> Tensor:
    """(3, 40, 48): a bright disc over a gradient."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 48), indexing="ij")
    disc = ((x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.06).float()
    return torch.stack([0.3 + 0.5 * disc, 0.6 * y + 0.2 * disc, 0.8 - 0.5 * x]).clamp(0, 1)


@pytest.fixture(scope="session")
def style() -> Tensor:
    """(3, 57, 61): slanted stripes in two warm colours."""
    y, x = torch.meshgrid(torch.arange(57.0), torch.arange(61.0), indexing="ij")
    wave = 0.5 + 0.5 * torch.sin((x + 0.7 * y) * 0.9)
    return torch.stack([0.5 + 0.5 * wave, 0.7 * wave, 0.1 + 0.2 * (1 - wave)])


SceneMaker = Callable[..., tuple[Scene, VGG]]


@pytest.fixture(scope="session")
def scene_of(weights: Mapping[str, Tensor], content: Tensor, style: Tensor) -> SceneMaker:
    """A maker of (scene, network) for settings, by default of the pictures above."""

    def make(
        settings: RenderSettings,
        *,
        content: Tensor = content,
        styles: Sequence[Tensor] = (style,),
        start: Tensor | None = None,
        regions: Regions | None = None,
        free: Callable[[torch.device], float] = free_memory,
    ) -> tuple[Scene, VGG]:
        network = VGG(
            weights,
            settings.layers,
            pooling=settings.pooling,
            rescale_pooling=settings.rescale_pooling,
            padding=settings.padding,
        )
        targets = TorchTargets(network, settings)
        scene = prepare(
            content, styles, settings, targets, device=CPU, start=start, regions=regions, free=free
        )
        return scene, network

    return make


class HostReads(TorchDispatchMode):
    """Records every operation that waits for values from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "_to_copy", "equal")):
            target = (kwargs or {}).get("device")
            if "_to_copy" not in name or target is not None:
                self.seen.append(name)
        return func(*args, **(kwargs or {}))
