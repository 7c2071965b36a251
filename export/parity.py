"""Does onnxruntime compute what torch computes? Every output, at two odd sizes."""

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

_MARGINS = ((20, 58), (74, 2))  # added to the smallest odd side: no halving divides these sizes


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One output at one size (height, width in pixels)."""

    output: str
    size: tuple[int, int]
    error: float

    @property
    def passed(self) -> bool:
        """True where the error is within the tolerance (never for a NaN)."""
        return self.error <= TOLERANCE


def parity(
    onnx_file: Path, vgg: VGG, spec: GraphSpec, *, device: torch.device | str = "cpu"
) -> list[ParityRow]:
    """Feed both with the same noise, under a guide of two soft regions; one row per output and size.

    vgg: the network that the file was exported from, on the CPU, float32; device: where onnxruntime runs.
    """
    graph = TargetGraph(vgg, spec).eval()
    targets = OnnxTargets(onnx_file, device=device)  # no cache: it is the file that is on trial
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
    """Raise ModelError where an output differs."""
    failed = [row for row in rows if not row.passed]
    if failed:
        worst = max(failed, key=lambda row: row.error)
        raise ModelError(
            f"onnxruntime and torch disagree at {len(failed)} of {len(rows)} outputs, most at {worst.output} "
            f"(relative error {worst.error:.1e}, allowed {TOLERANCE:.0e})",
            remedy="remove the ONNX file and run `nst-daemon export`; if it stays so, use other versions",
        )


def _outputs(targets: OnnxTargets, image: Tensor, guide: Tensor) -> dict[str, Tensor]:
    out = dict(targets.content(image))
    for layer, statistics in targets.style(image, guide).items():
        out[f"{layer}.gram"], out[f"{layer}.mean"] = statistics.gram, statistics.mean
    return out


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.cpu() - wanted).norm() / wanted.norm())
