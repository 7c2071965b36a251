"""Time to equal quality: the defaults against other methods, written here in plain PyTorch.

    python -m benchmarks.peers --sizes 160 --evaluations 150

classic: one scale, torch.optim.LBFGS with lr 1, history 100, no line search (Gatys' own program and most after it);
from the content and from noise. multiscale-adam: √2 scales from 128 px, Adam 0.02, averaged iterates, twice as many
iterations at the first scale (crowsonkb's style-transfer-pytorch). All in float32 on contiguous tensors, at torch's
defaults.

    python -m benchmarks.peers --peers spst --sizes 1024 --evaluations 90

spst: for large pictures (`benchmarks.galerne`), only if named. EVALUATIONS are those of its coarsest scale, 600 in
the paper. A picture larger than a tile (`--tile`) is painted in tiles by it and by ours, and judged in tiles.

All minimise one objective, with the same weights and with the targets that belong to the content (`benchmarks.fixed`):
that of the defaults at full size, and against spst that of the preset `spst`. Time is measured with the model loaded
and the targets computed, and stops while the loss of a picture is computed: in float32 and clipped, as it would be
saved. Ours has reached a peer when its picture has at most the loss of the peer's last one; it gets no more evaluations
at full size than EVALUATIONS. Each method runs in a separate process, and its peak memory is reported. At the end,
iterations of ours and of the first peer are timed alternately, because the speed of the machine may change between
methods. Writes OUT-SIZE.json and OUT-SIZE.png.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor, nn

from benchmarks import galerne
from benchmarks.curves import Curve, draw, reaches
from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from benchmarks.plain_vgg import PlainVGG
from nst_daemon.engine.images import from_image, resize
from nst_daemon.engine.losses import Sums
from nst_daemon.engine.neighbours import Matching
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.scene import Scene, scale_sizes
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.tiles import tiles
from nst_daemon.painter import Painter, Prepared

T, R = TypeVar("T"), TypeVar("R")

#: Number of iterations between two measurements of the loss: of ours, and of a peer (only for its curve).
JUDGE_OURS, JUDGE_PEERS = 2, 25
#: Iterations of each that are timed alternately.
ROUNDS = 20
#: The same for a picture larger than this, and its number of iterations between two measurements.
LARGE, ROUNDS_OF_LARGE, JUDGE_LARGE = 640, 4, 5
#: The longest side of the sample pictures in pixels: larger ones would take more memory to draw than to paint.
DRAWN = 1280


@dataclass(frozen=True)
class Task:
    """The task of a process: name of the method, size in pixels, evaluations, and losses to reach.

    `tile`: the longest side of tiles; 0 for none.
    """

    contender: str
    size: int
    evaluations: int
    targets: tuple[float, ...] = ()
    tile: int = 0


@dataclass(frozen=True)
class Outcome:
    """`curve`: (seconds, loss), ending with the last picture; `memory`: peak in MiB."""

    curve: Curve
    iteration: float  # seconds, the median at full size
    memory: float

    @property
    def final(self) -> float:
        """The loss of the last picture."""
        return self.curve[-1][1]


def classic(scene: Scene, network: PlainVGG, task: Task) -> Iterator[Tensor | None]:
    """torch's L-BFGS at one scale, with one evaluation per iteration."""
    image = scene.start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [image], lr=1, max_iter=1, history_size=100, tolerance_grad=0, tolerance_change=0
    )
    objective = scene.scales[-1].objective

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = _total(objective, network, image)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    for _ in range(task.evaluations):
        optimizer.step(closure)  # type: ignore[arg-type]
        yield image.detach()


def multiscale_adam(scene: Scene, network: PlainVGG, task: Task) -> Iterator[Tensor | None]:
    """Adam on several scales; its moments are kept, and the picture is the average of the iterates."""
    image = scene.start.clone()
    moments: dict[str, Tensor] = {}
    for index, scale in enumerate(scene.scales):
        image = resize(image, scale.size).requires_grad_()
        optimizer = torch.optim.Adam([image], lr=0.02, betas=(0.9, 0.99))
        if moments:
            optimizer.state[image] = _enlarged(moments, scale.size)
        average, missing = torch.zeros_like(image), 1.0
        for _ in range(2 * task.evaluations if index == 0 else task.evaluations):
            optimizer.zero_grad()
            _total(scale.objective, network, image).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                image.clamp_(0, 1)
                average, missing = 0.99 * average + 0.01 * image, 0.99 * missing
            yield average / (1 - missing) if index == len(scene.scales) - 1 else None
        moments = optimizer.state[image]
        image = (average / (1 - missing)).detach()


def _enlarged(moments: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    def to_size(name: str, mode: str) -> Tensor:
        return nn.functional.interpolate(moments[name], size=size, mode=mode)

    average, squares = to_size("exp_avg", "bicubic"), to_size("exp_avg_sq", "bilinear")
    return {"step": moments["step"], "exp_avg": average, "exp_avg_sq": squares}


def spst(scene: Scene, network: PlainVGG, task: Task) -> Iterator[Tensor | None]:
    """`benchmarks.galerne`: torch's L-BFGS from coarse to fine, in blocks."""
    yield from galerne.paint(scene, network, task.evaluations, task.tile or max(scene.size))


def _total(objective: Pyramid | Matching, network: nn.Module, image: Tensor) -> Tensor:
    assert isinstance(objective, Pyramid), "the targets are not found"
    return objective(network, image) @ objective.weights


PEERS: dict[str, tuple[Callable[..., Iterator[Tensor | None]], dict[str, object]]] = {
    "classic, from content": (classic, {"scales": (1.0,)}),
    "classic, from noise": (classic, {"scales": (1.0,), "start": "noise"}),
    "multiscale-adam": (multiscale_adam, {}),
    "spst": (spst, {"preset": "spst"}),
}
#: Those that run unless others are named.
USUAL = ("classic, from content", "classic, from noise", "multiscale-adam")
#: From noise, coarse scales help; from the content they do not. So many evaluations at full size want a smaller
#: `precondition` than the few of a painting.
OURS: dict[str, dict[str, object]] = {
    "ours, from content": {"scales": (1.0,), "precondition": 0.5},
    "ours, from noise": {"start": "noise", "precondition": 0.5, "iterations": (30,)},
    # Its objective, painted as the project's own presets are.
    "ours, large": {
        "preset": "spst",
        "history": 20,
        "precondition": 1.0,
        "clamp": True,
        "iterations": (30,),
    },
}
#: The variant of ours that is compared with each peer.
RIVALS = {
    "classic, from content": "ours, from content",
    "classic, from noise": "ours, from noise",
    "multiscale-adam": "ours, from content",
    "spst": "ours, large",
}


def run(task: Task) -> Outcome:
    """Prepare, then paint and measure the time. Runs in a separate process."""
    painter = Painter()
    if task.contender in PEERS:
        loop, chosen = PEERS[task.contender]
        settings = resolve({"size": task.size, "precision": "float32", **chosen})
        if loop is multiscale_adam:
            settings = replace(settings, scales=adam_scales(task.size))
        prepared = _prepare(painter, settings)
        network = PlainVGG(painter.network(settings))
        steps = loop(prepared.scene, network, task)
    else:
        settings = resolve({"size": task.size, **OURS[task.contender]})
        prepared = _prepare(painter, _longer(settings, task.evaluations))
        network = painter.network(settings)  # in float32, whatever it is painted in
        steps = _ours(painter, prepared, task.tile)
    return _timed(steps, prepared.scene, network, task)


def _longer(settings: RenderSettings, evaluations: int) -> RenderSettings:
    """The settings with `evaluations` iterations at full size."""
    sizes = scale_sizes((settings.size, settings.size), settings)
    counts = (settings.iterations * len(sizes))[: len(sizes) - 1]
    return replace(settings, iterations=(*counts, evaluations))


def adam_scales(size: int) -> tuple[float, ...]:
    """√2 apart, from 128 px up, the last one at full size (crowsonkb)."""
    sides = [128.0]
    while sides[-1] * sqrt(2) < size:
        sides.append(sides[-1] * sqrt(2))
    return (*(side / size for side in sides if side < size), 1.0)


def _prepare(painter: Painter, settings: RenderSettings) -> Prepared:
    width = min(max(640, int(settings.size)), DRAWN)
    content, style = (
        from_image(draw(width, width * 3 // 4)) for draw in (draw_scene, draw_painting)
    )
    prepared = painter.prepare(content, [style], settings)
    return replace(prepared, scene=fixed(prepared.scene, painter.network(settings)))


def _ours(painter: Painter, prepared: Prepared, tile: int = 0) -> Iterator[Tensor | None]:
    settings = prepared.settings
    plan = replace(prepared.scene.plans[0], tile=tile)
    network = painter.network(settings)
    for step in stylize(prepared.scene, network, settings, plans=[plan]):
        yield step.image() if step.scale == step.scales else None


def _timed(steps: Iterator[Tensor | None], scene: Scene, network: nn.Module, task: Task) -> Outcome:
    """Measure the time, except while a loss is computed. Ours ends when it has reached all targets."""
    objective = scene.scales[-1].objective
    peer = task.contender in PEERS
    every = JUDGE_PEERS if peer else JUDGE_OURS
    if max(scene.size) > LARGE:
        every = JUDGE_LARGE if peer else JUDGE_OURS
    curve: Curve = []
    seconds, times, image = 0.0, [], scene.start
    start = perf_counter()
    for number, found in enumerate(steps, 1):
        if found is not None:
            if found.is_cuda:
                torch.cuda.synchronize()
            now = perf_counter()
            times.append(now - start)
            seconds += now - start
            image = found
            if number % every == 0:
                curve.append((seconds, judged(objective, network, image.clamp(0, 1), task.tile)))
                if not peer and curve[-1][1] <= min(task.targets):
                    break
            start = perf_counter()
    curve.append((seconds, judged(objective, network, image.clamp(0, 1), task.tile)))
    return Outcome(curve, median(times), peak())


def judged(
    objective: Pyramid | Matching, network: nn.Module, image: Tensor, tile: int = 0
) -> float:
    """The objective's float32 value of a picture at full size; in tiles if it is larger than `tile` > 0."""
    with torch.no_grad():
        if not tile or max(image.shape) <= tile:
            return float(_total(objective, network, image.float()))
        assert isinstance(objective, Pyramid)
        (level,), sums = objective.levels, Sums()
        for each in tiles((image.shape[-2], image.shape[-1]), tile, network.names):
            maps = network(image[(..., *each.area)].float())
            cells = {layer: each.cells(layer) for layer in maps}
            own = {layer: map_[(..., *cells[layer][1])] for layer, map_ in maps.items()}
            sums += level.sums(own, {layer: cells[layer][0] for layer in maps})
        return float(level.terms(sums, image) @ level.weights)


def in_turns(task: Task) -> float:
    """Time of an iteration of ours at full size divided by that of a peer, measured alternately in one process."""
    rounds = ROUNDS if task.size <= LARGE else ROUNDS_OF_LARGE
    loop, chosen = PEERS[task.contender]
    planned = max(rounds + 1, task.evaluations)  # it decides how ours convolves
    one = {"size": task.size, "scales": (1.0,), "iterations": (planned,)}
    ours, theirs = Painter(), Painter()
    prepared = _prepare(ours, resolve({**OURS[RIVALS[task.contender]], **one}))
    settings = resolve({**chosen, "precision": "float32", **one})
    scene = _prepare(theirs, settings).scene
    enough = replace(task, evaluations=rounds + 1)
    runs = [
        _ours(ours, prepared, task.tile),
        loop(scene, PlainVGG(theirs.network(settings)), enough),
    ]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, seconds in zip(runs, times, strict=True):
            start = perf_counter()
            next(run)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(perf_counter() - start)
    own, other = (median(seconds[rounds // 4 :]) for seconds in times)  # without the warm-up
    return own / other


def peak() -> float:
    """Peak memory in MiB: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def compare(size: int, evaluations: int, out: Path, peers: Sequence[str], tile: int) -> None:
    """Run some peers and ours at one size, print the table, and write JSON and the plot.

    Args:
        size: In pixels.
        evaluations: Of each peer.
        out: Common stem of the files.
        peers: Their names.
        tile: The longest side of tiles against `spst`.
    """
    outcomes: dict[str, Outcome] = {}
    rivals = {peer: RIVALS[peer] for peer in peers}
    for name in (*peers, *dict.fromkeys(rivals.values())):
        targets = tuple(outcomes[p].final for p, ours in rivals.items() if ours == name)
        large = name in ("spst", RIVALS["spst"])
        task = Task(name, size, evaluations, targets, tile if large else 0)
        found = outcomes[name] = alone(run, task)
        print(
            f"{size} px  {name:22} final {found.final:.5f} in {found.curve[-1][0]:7.1f} s, "
            f"iteration {found.iteration * 1e3:6.0f} ms, peak {found.memory:6.0f} MiB",
            flush=True,
        )
    for peer, ours in rivals.items():
        level = reaches(outcomes[ours].curve, outcomes[peer].final)
        whole = outcomes[peer].curve[-1][0]
        text = "not reached"
        if level:
            points, seconds = level
            text = f"{whole / seconds:.2f} times sooner ({seconds:.1f} s, {JUDGE_OURS * points} evaluations)"
        print(f"{size} px  {ours} reaches {peer}: {text}", flush=True)
    first = peers[0]
    ratio = alone(in_turns, Task(first, size, evaluations, (), tile if first == "spst" else 0))
    print(f"{size} px  an iteration of ours takes {ratio:.2f} of the time of one of {first}")
    stem = out.with_name(f"{out.name}-{size}")
    draw({name: outcome.curve for name, outcome in outcomes.items()}, stem.with_suffix(".png"))
    everything = {
        "size": size,
        "evaluations": evaluations,
        "iteration_in_turns": ratio,
        "outcomes": {name: asdict(outcome) for name, outcome in outcomes.items()},
    }
    stem.with_suffix(".json").write_text(json.dumps(everything) + "\n")


def alone(work: Callable[[T], R], what: T) -> R:
    """Call a function in a separate process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, what).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[160])
    parser.add_argument("--evaluations", type=int, default=150, help="of `classic`")
    parser.add_argument(
        "--out", type=Path, default=Path("bench/peers"), help="common stem of the files"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(USUAL), metavar="NAME")
    parser.add_argument("--tile", type=int, default=1024, help="longest side of tiles against spst")
    args = parser.parse_args()
    for size in args.sizes:
        compare(size, args.evaluations, args.out, args.peers, args.tile)


if __name__ == "__main__":
    main()
