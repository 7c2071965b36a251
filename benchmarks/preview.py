"""Does a preview predict the large picture? Luminance correlation of both, the large one reduced to the preview's size.

    python -m benchmarks.preview --small 256 --large 1024

Three pairs of samples, the default settings; the target is at least 0.9 for each.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.engine.images import from_image, resize
from nst_daemon.engine.settings import resolve
from nst_daemon.painter import Painter

PAIRS = (("harbour", "swirls"), ("mountains", "embers"), ("mountains", "mosaic"))
LUMINANCE = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)  # Rec. 709


def correlation(preview: Tensor, large: Tensor) -> float:
    """Pearson correlation of the luminance of (3, h, w) and of (3, H, W) reduced to its size, both in [0, 1]."""
    reduced = resize(large, (preview.shape[1], preview.shape[2]))
    both = torch.stack([(image * LUMINANCE).sum(0).flatten() for image in (preview, reduced)])
    return float(torch.corrcoef(both)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=int, default=256)
    parser.add_argument("--large", type=int, default=1024)
    args = parser.parse_args()
    painter = Painter()
    for scene, style in PAIRS:
        content = from_image(draw_scene(args.large, args.large * 3 // 4, scene=scene))
        painting = from_image(draw_painting(args.large, args.large * 3 // 4, style=style))
        pictures = []
        for size in (args.small, args.large):
            prepared = painter.prepare(content, [painting], resolve({"size": size}))
            *_, last = painter.paint(prepared)
            pictures.append(last.image()[0].cpu())
        print(f"{scene} in {style}: {correlation(*pictures):.4f}", flush=True)


if __name__ == "__main__":
    main()
