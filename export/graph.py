"""The export to ONNX: one file computes all targets of a picture.

    image  (1, 3, H, W)  RGB in [0, 1]; the graph normalises it
    guide  (1, R, H, W)  weights ≥ 0 of R regions; ones if there are no regions
        ↓
    <layer>.gram  (R, N, N)   G_r = Σ_p w_rp F_p F_pᵀ / Σ_p w_rp     for each style layer
    <layer>.mean  (R, N)      μ_r = Σ_p w_rp F_p / Σ_p w_rp
    <layer>       (1, N, h, w)                                       for each content layer

w_r is the guide averaged down to the layer's size (Gatys et al. 2017, §3.2, with Σ w instead of the number of
positions, so that one region of ones gives the Gram matrix per position). Because the graph takes the sums, a style
costs one run and a few megabytes of output at any size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_daemon.engine.efficientnet import EfficientNet
from nst_daemon.engine.memory import exhausted
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.vgg import VGG, Padding, Pooling, check_layers, layer_names
from nst_daemon.errors import ModelError, OutOfMemory, first_line
from nst_daemon.files import make_folder, write_atomic

#: Increased whenever the graph computes something else for the same settings; files of older formats are not used.
FORMAT = 1

#: (H, W) of the picture that the exporter traces; the file works for any size.
_EXAMPLE_SIZE = (80, 112)


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """Everything that an ONNX file depends on; its name is computed from this alone."""

    network: str
    weights_sha256: str
    style_layers: tuple[str, ...]
    content_layers: tuple[str, ...]
    pooling: Pooling = "max"
    rescale_pooling: bool = False
    padding: Padding = "replicate"
    format: int = FORMAT

    @classmethod
    def of(
        cls,
        weights_sha256: str,
        style_layers: Iterable[str],
        content_layers: Iterable[str],
        *,
        network: str = "vgg19",
        pooling: Pooling = "max",
        rescale_pooling: bool = False,
        padding: Padding = "replicate",
    ) -> GraphSpec:
        """A spec with its layers in the network's order, so that equal sets of layers give equal files.

        Raises:
            SettingsError: A layer is unknown.
        """
        names = layer_names(network)
        style, content = set(style_layers), set(content_layers)
        check_layers(style | content, network)
        return cls(
            network=network,
            weights_sha256=weights_sha256,
            style_layers=tuple(n for n in names if n in style),
            content_layers=tuple(n for n in names if n in content),
            pooling=pooling,
            rescale_pooling=rescale_pooling,
            padding=padding,
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer, once, style before content."""
        return tuple(dict.fromkeys(self.style_layers + self.content_layers))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs, in order."""
        style = (f"{n}.{kind}" for n in self.style_layers for kind in ("gram", "mean"))
        return (*style, *self.content_layers)

    @property
    def filename(self) -> str:
        """`vgg19-<16 digits>.onnx`, the digits from the SHA-256 of everything above."""
        canonical = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{self.network}-{hashlib.sha256(canonical).hexdigest()[:16]}.onnx"

    def metadata(self) -> dict[str, str]:
        """The file's `metadata_props`: everything above and the versions that wrote it."""
        packages = ("nst-daemon", "torch", "torchvision", "onnx", "onnxscript")
        about = {key: _text(value) for key, value in asdict(self).items()}
        return about | {f"{name}_version": version(name) for name in packages}


class TargetGraph(nn.Module):
    """The module that is exported: the network, followed by the sums of the formula above."""

    def __init__(self, vgg: VGG, spec: GraphSpec) -> None:
        super().__init__()
        self.vgg = vgg
        self.spec = spec

    def forward(self, image: Tensor, guide: Tensor) -> tuple[Tensor, ...]:
        """image (1, 3, H, W), guide (1, R, H, W) → the tensors of `spec.outputs`, in that order."""
        maps = self.vgg(image)
        style: dict[str, tuple[Tensor, Tensor]] = {}
        stride = 1
        for name in self.vgg.names:
            if minimum_side([name]) > stride:
                stride *= 2
                guide = F.avg_pool2d(guide, 2)  # an area average
            if name in self.spec.style_layers:
                style[name] = statistics(maps[name], guide)
        pairs = (tensor for name in self.spec.style_layers for tensor in style[name])
        return (*pairs, *(maps[name] for name in self.spec.content_layers))


def statistics(features: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
    """Gram matrix per position (R, N, N) and channel means (R, N) of (1, N, h, w) under a guide (1, R, h, w)."""
    x = features[0].flatten(1)  # (N, M)
    w = guide[0].flatten(1)  # (R, M)
    w = w / w.sum(1, keepdim=True).clamp_min(1e-8)
    return (w[:, None] * x) @ x.T, w @ x.T


def network_of(state: Mapping[str, Tensor], spec: GraphSpec) -> VGG:
    """The network of a graph, float32, on the CPU.

    Args:
        state: Tensors in torchvision's layout.
        spec: Network, layers, pooling and padding are taken from here.

    Raises:
        ModelError: A tensor is missing or has another shape.
    """
    kind = EfficientNet if spec.network == "efficientnet_b0" else VGG
    return kind(
        state,
        spec.layers,
        pooling=spec.pooling,
        rescale_pooling=spec.rescale_pooling,
        padding=spec.padding,
        network=spec.network,
    )


def export_onnx(vgg: VGG, spec: GraphSpec, folder: Path) -> Path:
    """Write the ONNX file of a network, with its weights inside.

    The file is written atomically, so two processes may export it at the same time.

    Args:
        vgg: float32, on the CPU.
        spec: What to compute; gives the file's name.
        folder: Where the file goes.

    Returns:
        The file's path.

    Raises:
        ModelError: The exporter failed.
        StorageError: The folder cannot be written.
    """
    make_folder(folder)  # before the export, which takes seconds
    program = _trace(TargetGraph(vgg, spec), spec)
    model = program.model_proto
    del model.metadata_props[:]
    for key, value in spec.metadata().items():
        model.metadata_props.add(key=key, value=value)
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, model.graph):
        # The exporter writes stack traces here, with paths of this machine.
        del item.metadata_props[:]
    path = folder / spec.filename
    write_atomic(path, model.SerializeToString(deterministic=True))
    return path


def _trace(graph: TargetGraph, spec: GraphSpec) -> torch.onnx.ONNXProgram:
    height, width = _EXAMPLE_SIZE
    least = minimum_side(spec.layers)
    sides = {
        2: torch.export.Dim("height", min=least),
        3: torch.export.Dim("width", min=least),
    }
    example = (torch.zeros(1, 3, height, width), torch.ones(1, 2, height, width))
    try:
        with torch.no_grad(), _quietly():
            program = torch.onnx.export(
                graph.eval(),
                example,
                dynamo=True,
                verbose=False,
                input_names=["image", "guide"],
                output_names=list(spec.outputs),
                dynamic_shapes={
                    "image": sides,
                    "guide": {1: torch.export.Dim("regions", min=1)} | sides,
                },
            )
    except Exception as error:
        if exhausted(error):
            raise OutOfMemory(
                f"there is not enough memory to export {spec.network} to ONNX",
                remedy="free some memory, or raise limits.max_memory if it is set",
            ) from error
        raise ModelError(
            f"the export of {spec.network} to ONNX failed: {first_line(error)}",
            remedy="check the versions of torch, onnx and onnxscript",
        ) from error
    assert program is not None
    return program


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter's warnings and reports about its internals."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
