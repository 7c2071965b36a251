"""The classic experiments of style transfer, and the effect of each option, as contact sheets.

    python -m benchmarks.experiments beta                 # one of them, into beta.jpg
    python -m benchmarks.experiments all --out docs/images/objective

beta: weight of the style; gamma: weight of the total variation; content-layer: from shallow to deep; alone: the style
without content (a texture) and the content without style (a reconstruction); start: from the content and from noise
after equal numbers of iterations. The others vary the option in their name. The losses of every cell are printed. What
is about a balance of content and style, or about the start, uses Gram matrices (`STATISTICS`), the rest the defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.captioned import captioned_sheet
from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.engine.images import from_image, to_image
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import Step
from nst_daemon.painter import Painter, decode

Settings = Mapping[str, object]
Paint = Callable[[RenderSettings], Iterator[Step]]
Experiment = Callable[[Paint, Settings], list["Cell"]]

STATISTICS: Settings = {"style_loss": "gram"}


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet; image: (1, 3, H, W) in [0, 1]; losses: as in `Step.losses`."""

    caption: str
    image: Tensor
    losses: Mapping[str, float]
    settings: Settings


def beta_sweep(paint: Paint, base: Settings) -> list[Cell]:
    """The style's weight, from a thousandth of the default to ten times the default."""
    base = {**STATISTICS, **base}
    weights = [resolve(base).style_weight * 10.0**e for e in (-3, -2, -1, 0, 1)]
    return [_final(paint, base, f"beta {w:g}", style_weight=w) for w in weights]


def gamma_sweep(paint: Paint, base: Settings) -> list[Cell]:
    """No total variation, the default weight, and ten and a hundred times the default."""
    weights = [resolve(base).tv_weight * factor for factor in (0, 1, 10, 100)]
    return [_final(paint, base, f"gamma {w:g}", tv_weight=w) for w in weights]


def content_layer_sweep(paint: Paint, base: Settings) -> list[Cell]:
    """The content taken from one layer of each block; the style layers stay."""
    base = {**STATISTICS, **base}
    layers = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2")
    return [_final(paint, base, layer, content_layers={layer: 1.0}) for layer in layers]


def alone(paint: Paint, base: Settings) -> list[Cell]:
    """The style alone from noise (a texture), and the content alone from grey (a reconstruction).

    From noise, a reconstruction would keep the colours of the noise: a deep layer hardly depends on colours.
    """
    base = {**STATISTICS, **base}
    texture: Settings = {**base, "start": "noise", "content_weight": 0.0}
    reconstruction: Settings = {
        **base,
        "start": "grey",
        "style_weight": 0.0,
        "content_weight": 1.0,
    }
    return [_final(paint, texture, "beta only"), _final(paint, reconstruction, "alpha only")]


def presets(paint: Paint, base: Settings) -> list[Cell]:
    """Every preset, with four times the iterations of the others: most use optimisers that need them."""
    longer = {**base, "iterations": 4 * resolve(base).iterations[0]}
    return [_final(paint, longer, name, preset=name) for name in PRESETS]


def start_strips(paint: Paint, base: Settings, rows: int = 5) -> list[Cell]:
    """A strip from the content and one from noise, at one scale; each cell after twice the iterations of the last."""
    cells = []
    for start in ("content", "noise"):
        settings = {**STATISTICS, **base, "start": start, "scales": (1.0,)}
        steps = resolve(settings).iterations[0]
        wanted = {max(1, steps >> i) for i in range(rows)}
        for step in paint(resolve(settings)):
            if step.iteration in wanted:
                caption = f"{start}, {step.iteration}"
                cells.append(Cell(caption, step.image().clone(), step.losses, settings))
    return cells


def variants(*each: Settings, base: Settings | None = None) -> Experiment:
    """An experiment with one cell for each set of settings. `base`: settings of all cells."""

    def run(paint: Paint, common: Settings) -> list[Cell]:
        common = {**common, **(base or {})}
        return [_final(paint, common, _caption(override), **override) for override in each]

    return run


def _caption(override: Settings) -> str:
    """Keys and values; for layers, the deepest layer."""
    values = [f"up to {[*v][-1]}" if isinstance(v, Mapping) else v for v in override.values()]
    return ", ".join(f"{key} {value}" for key, value in zip(override, values, strict=True))


def _final(paint: Paint, base: Settings, caption: str, **override: object) -> Cell:
    settings = {**base, **override}
    for step in paint(resolve(settings)):  # noqa: B007 (only the last step is used)
        pass
    return Cell(caption, step.image(), step.losses, settings)


_FIVE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
_BARE: Settings = {"preset": "gatys-pytorch", "calibrate": "off", "scales": (1.0,)}

EXPERIMENTS: Mapping[str, Experiment] = {
    "beta": beta_sweep,
    "gamma": gamma_sweep,
    "content-layer": content_layer_sweep,
    "alone": alone,
    "start": start_strips,
    "presets": presets,
    "style-layers": variants(
        *({"style_layers": dict.fromkeys(_FIVE[:n], 1 / n)} for n in range(1, 6)), base=STATISTICS
    ),
    "style-loss": variants(
        *({"style_loss": loss} for loss in ("neighbours", "covariance", "gram", "wasserstein"))
    ),
    "content-weight": variants(*({"content_weight": w} for w in (0.3, 1.0, 3.0))),
    "style-levels": variants(*({"style_levels": n} for n in (1, 2, 3)), base=STATISTICS),
    "calibrate": variants({"calibrate": "auto"}, {"calibrate": "off"}, base=STATISTICS),
    "gram-norm": variants(
        *({"gram_norm": form} for form in ("mean", "quarter-mean", "channels")), base=_BARE
    ),
    "content-loss": variants(
        *({"content_loss": form} for form in ("mean", "half-sum", "sum")), base=_BARE
    ),
    "tv": variants(
        *(
            {"tv": form, "tv_weight": w}
            for form, w in (("absolute", 1.0), ("squared", 5.0), ("nine-point", 5.0))
        )
    ),
    "style-scale": variants(*({"style_scale": scale} for scale in (0.5, 1.0, 2.0))),
    "style-weights": variants(*({"style_weights": w} for w in ((1, 0), (2, 1), (1, 2), (0, 1)))),
    "pooling": variants(
        {"pooling": "max"},
        {"pooling": "average"},
        {"pooling": "average", "rescale_pooling": True},
        {"pooling": "l2"},
        {"pooling": "l2", "rescale_pooling": True},
    ),
    "padding": variants(
        *({"padding": p} for p in ("replicate", "zeros")),
        base={**STATISTICS, "start": "noise", "content_weight": 0.0},
    ),
    "starts": variants(
        *({"start": s} for s in ("content", "noise", "mix", "style", "grey")),
        base={**STATISTICS, "scales": (1.0,)},
    ),
    "noise": variants(
        *({"noise_ratio": r, "noise_std": s} for r, s in ((0.2, 0.2), (0.6, 0.2), (0.6, 0.6))),
        base={**STATISTICS, "start": "mix"},
    ),
    "optimizer": variants(
        {"optimizer": "lbfgs"},
        {"optimizer": "lbfgs", "precondition": 0.0},
        {"optimizer": "adam"},
        {"optimizer": "adam", "averaging": 0.95, "clamp": True},
    ),
    "scales": variants(
        {"scales": (1.0,)},
        {"scales": "halves", "coarsest": 32},
        {"scales": "roots", "coarsest": 32},
    ),
    "detail": variants(*({"detail": d} for d in (0.0, 0.5, 1.0)), base={"coarsest": 32}),
}


def save(cells: Sequence[Cell], out: Path, *, height: int = 160) -> None:
    """The sheet, as .jpg or .png."""
    columns = next(n for n in (5, 4, 3) if len(cells) % n == 0 or n == 3 or len(cells) <= n)
    pictures = [(cell.caption, to_image(cell.image)) for cell in cells]
    sheet = captioned_sheet(pictures, columns=min(columns, len(cells)), height=height)
    sheet.save(out, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    parser.add_argument("--content", type=Path, help="a picture; the sample scene by default")
    parser.add_argument("--styles", type=Path, nargs="+", help="pictures; the samples by default")
    parser.add_argument("--size", type=int, default=144)
    parser.add_argument("--iterations", type=int, default=50, help="at each scale")
    parser.add_argument("--out", type=Path, default=Path(), help="a folder for the sheets")
    args = parser.parse_args()
    content = decode(args.content) if args.content else from_image(draw_scene())
    samples = (draw_painting(style=name) for name in ("swirls", "embers"))
    styles = [decode(path) for path in args.styles or ()] or [from_image(p) for p in samples]
    painter = Painter()

    def paint(settings: RenderSettings) -> Iterator[Step]:
        used = styles if settings.style_weights else styles[:1]
        return painter.paint(painter.prepare(content, used, settings))

    args.out.mkdir(parents=True, exist_ok=True)
    for name in EXPERIMENTS if args.experiment == "all" else [args.experiment]:
        cells = EXPERIMENTS[name](paint, {"size": args.size, "iterations": args.iterations})
        for cell in cells:
            figures = "  ".join(
                f"{k} {cell.losses[k]:.4g}" for k in ("total", "content", "style", "tv")
            )
            print(f"{name:14} {cell.caption:60} {figures}", flush=True)
        save(cells, args.out / f"{name}.jpg")


if __name__ == "__main__":
    main()
