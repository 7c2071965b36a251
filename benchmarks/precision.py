"""The effect of mixed precision on quality: pictures painted in float32 and in bfloat16, evaluated in float32.

    python -m benchmarks.precision --size 128 --evaluations 150

Three pairs of samples, the default settings at one scale, with targets for the content (`benchmarks.fixed`). The figure
is the float32 loss of the last picture painted in bfloat16, divided by that of the one painted in float32; the target
is at most 1.01. Hardware without bfloat16 gives the same losses; only its times mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from nst_daemon.engine.images import from_image
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.settings import resolve
from nst_daemon.painter import Painter

PAIRS = (("harbour", "swirls"), ("mountains", "embers"), ("mountains", "mosaic"))


def final(painter: Painter, pair: Sequence[str], size: int, evaluations: int, how: str) -> float:
    """The float32 loss of the last 4:3 picture of `size` pixels, painted in the precision `how`."""
    settings = resolve(
        {"size": size, "scales": (1.0,), "iterations": evaluations, "precision": how}
    )
    scene, style = pair
    content = from_image(draw_scene(size, size * 3 // 4, scene=scene))
    painting = from_image(draw_painting(size, size * 3 // 4, style=style))
    prepared = painter.prepare(content, [painting], settings)
    network = painter.network(settings)
    scene = fixed(prepared.scene, network)
    *_, last = painter.paint(replace(prepared, scene=scene))
    objective = scene.scales[-1].objective
    assert isinstance(objective, Pyramid), "the targets are not found"
    with torch.no_grad():
        return float(objective(network, last.image()) @ objective.weights)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128, help="the longer side")
    parser.add_argument("--evaluations", type=int, default=150)
    args = parser.parse_args()
    painter = Painter()
    for pair in PAIRS:
        precise, mixed = (
            final(painter, pair, args.size, args.evaluations, how)
            for how in ("float32", "bfloat16")
        )
        print(
            f"{' in '.join(pair):22} float32 {precise:.5f}, bfloat16 {mixed:.5f}, "
            f"ratio {mixed / precise:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
