"""The parity check: onnxruntime must compute what torch computes, at every output and two odd sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.targets import OnnxTargets
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import ModelError

from .graph import GraphSpec, TargetGraph

#: Largest relative error, ‖onnxruntime − torch‖ / ‖torch‖, that passes.
TOLERANCE = 1e-4

_MARGINS = (
    (20, 58),
    (74, 2),
)  # added to the smallest odd side; the sizes are odd, so that every halving rounds


@dataclass(frozen=True, slots=True)
class ParityRow:
    """The relative error of one output at one size (height, width in pixels)."""

    output: str
    size: tuple[int, int]
    error: float

    @property
    def passed(self) -> bool:
        """True if the error is within the tolerance; False for NaN."""
        return self.error <= TOLERANCE


def parity(
    onnx_file: Path, vgg: VGG, spec: GraphSpec, *, device: torch.device | str = "cpu"
) -> list[ParityRow]:
    """Compare both for the same noise, under a guide of two soft regions.

    Args:
        onnx_file: The file to check.
        vgg: The network that it was exported from, float32, on the CPU.
        spec: Of the file.
        device: Where onnxruntime runs.

    Returns:
        One row per output and size.
    """
    graph = TargetGraph(vgg, spec).eval()
    targets = OnnxTargets(onnx_file, device=device)  # no cache: the file itself is checked
    generator = torch.Generator().manual_seed(0)
    rows = []
    for margin in _MARGINS:
        height, width = ((minimum_side(spec.layers) | 1) + m for m in margin)
        image = torch.rand(1, 3, height, width, generator=generator)
        guide = torch.rand(1, 2, height, width, generator=generator)
        with torch.no_grad():
            wanted = dict(zip(spec.outputs, graph(image, guide), strict=True))
        found = _outputs(targets, image, guide)
        rows += [
            ParityRow(name, (height, width), _relative_error(found[name], wanted[name]))
            for name in spec.outputs
        ]
    return rows


def require_parity(rows: Sequence[ParityRow]) -> None:
    """Raise ModelError if an output differs."""
    failed = [row for row in rows if not row.passed]
    if failed:
        worst = max(failed, key=lambda row: row.error)
        raise ModelError(
            f"onnxruntime and torch disagree at {len(failed)} of {len(rows)} outputs, most at {worst.output} "
            f"(relative error {worst.error:.1e}, allowed {TOLERANCE:.0e})",
            remedy="remove the ONNX file and run `nst-daemon export`; if they still disagree, use other versions",
        )


def _outputs(targets: OnnxTargets, image: Tensor, guide: Tensor) -> dict[str, Tensor]:
    out = dict(targets.content(image))
    for layer, statistics in targets.style(image, guide).items():
        out[f"{layer}.gram"], out[f"{layer}.mean"] = statistics.gram, statistics.mean
    return out


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.cpu() - wanted).norm() / wanted.norm())
