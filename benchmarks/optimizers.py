"""Loss against time and iterations: this package's L-BFGS and Adam, and torch's, on one objective.

    python -m benchmarks.optimizers --size 128 --evaluations 200

All use the same pictures, targets (`benchmarks.fixed`), weights, start and scale; an iteration is one evaluation of the
loss and its gradient. Ours runs by default and on plain pixels, torch's L-BFGS with lr 1, history 100 and
no line search (as in published programs), both Adams with step 0.02. Writes OUT.json and OUT.png, and prints the number
of evaluations and seconds that each needs to reach the final loss of torch's L-BFGS.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.curves import Curve, draw, reaches
from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from nst_daemon.engine.images import from_image
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.scene import Scene
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.vgg import VGG
from nst_daemon.painter import Painter, decode

Run = Callable[[Scene, VGG, RenderSettings], Iterator[float]]


def ours(scene: Scene, network: VGG, settings: RenderSettings) -> Iterator[float]:
    """The painting loop itself."""
    for step in stylize(scene, network, settings):
        yield step.losses["total"]


def torch_lbfgs(scene: Scene, network: VGG, settings: RenderSettings) -> Iterator[float]:
    """torch.optim.LBFGS with one evaluation per iteration."""
    image = scene.start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [image], lr=1, max_iter=1, history_size=100, tolerance_grad=0, tolerance_change=0
    )
    return _torch_loop(optimizer, image, scene, network, settings)


def torch_adam(scene: Scene, network: VGG, settings: RenderSettings) -> Iterator[float]:
    """torch.optim.Adam with the step of our Adam."""
    image = scene.start.clone().requires_grad_()
    return _torch_loop(torch.optim.Adam([image], lr=0.02), image, scene, network, settings)


def _torch_loop(
    optimizer: torch.optim.Optimizer,
    image: Tensor,
    scene: Scene,
    network: VGG,
    settings: RenderSettings,
) -> Iterator[float]:
    objective = scene.scales[-1].objective
    assert isinstance(objective, Pyramid), "the targets are not found"

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = objective(network, image) @ objective.weights
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    for _ in range(settings.iterations[0]):
        # The loss before the step.
        yield float(optimizer.step(closure))  # type: ignore[arg-type]


def contenders(base: RenderSettings) -> Mapping[str, tuple[Run, RenderSettings]]:
    """Function and settings of each optimiser, by name."""
    adam = replace(base, optimizer="adam", step=0.02, precondition=0.0)
    return {
        "L-BFGS, default": (ours, base),
        "L-BFGS, plain pixels": (ours, replace(base, precondition=0.0)),
        "Adam, ours": (ours, adam),
        "torch L-BFGS": (torch_lbfgs, base),
        "torch Adam": (torch_adam, base),
    }


def measure(scene: Scene, network: VGG, base: RenderSettings) -> dict[str, Curve]:
    """The curve of each optimiser, measured one after the other on the same scene."""
    curves = {}
    for name, (run, settings) in contenders(base).items():
        start = perf_counter()
        curves[name] = [(perf_counter() - start, total) for total in run(scene, network, settings)]
        print(f"{name:22} {curves[name][-1][1]:.5f} in {curves[name][-1][0]:.0f} s", flush=True)
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--content", type=Path, help="a picture; the sample scene by default")
    parser.add_argument("--style", type=Path, help="a picture; the sample painting by default")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("bench/optimizers"), help="without suffix")
    args = parser.parse_args()
    base = resolve({"size": args.size, "scales": (1.0,), "iterations": args.evaluations})
    content = decode(args.content) if args.content else from_image(draw_scene())
    style = decode(args.style) if args.style else from_image(draw_painting())
    painter = Painter()
    network = painter.network(base)
    scene = fixed(painter.prepare(content, [style], base).scene, network)
    curves = measure(scene, network, base)
    target = curves["torch L-BFGS"][-1][1]
    for name, curve in curves.items():
        found = reaches(curve, target)
        after = f"{found[0]} evaluations, {found[1]:.1f} s" if found else "not reached"
        print(f"{name:22} to {target:.5f}: {after}")
    draw(curves, args.out.with_suffix(".png"), against=("evaluations", "seconds"))
    args.out.with_suffix(".json").write_text(
        json.dumps({"size": args.size, "curves": curves}) + "\n"
    )


if __name__ == "__main__":
    main()
