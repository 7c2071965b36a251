"""Named sets of settings, each with its source.

A preset's formula is that of its source. There are two sets of constants, because a source's constants assume the
activations of its own network: `bare` are the source's, for `calibrate: off`; `calibrated` are balances set by eye for
terms divided by their target's energy, for `calibrate: auto`. "Ours" marks what the source leaves open.

Keys are fields of `RenderSettings`; fields that a preset does not name have that class's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """A named set of settings.

    Attributes:
        summary: One line.
        source: Of the formula.
        settings: For both values of `calibrate`.
        bare: The source's constants, for `calibrate: off`.
        calibrated: Balances for `calibrate: auto`.
    """

    summary: str
    source: str
    settings: Mapping[str, object] = field(default_factory=dict)
    bare: Mapping[str, object] = field(default_factory=dict)
    calibrated: Mapping[str, object] = field(default_factory=dict)


def _layers(names: str, weights: float | Sequence[float]) -> dict[str, float]:
    layers = names.split()
    each = [float(weights)] * len(layers) if isinstance(weights, int | float) else weights
    return dict(zip(layers, each, strict=True))


_FIVE = "relu1_1 relu2_1 relu3_1 relu4_1 relu5_1"
_CHANNELS = (64, 128, 256, 512, 512)
#: The author's own weights, 1e3/N²; also those of the project's own presets without calibration.
_GATYS_PYTORCH_BARE: Mapping[str, object] = {
    "content_weight": 1.0,
    "style_weight": 1.0,
    "style_layers": _layers(_FIVE, [1e3 / n**2 for n in _CHANNELS]),
}
#: As in the papers: one scale, plain pixels, the network as trained.
_LITERAL: Mapping[str, object] = {
    "padding": "zeros",
    "rescale_pooling": False,
    "scales": (1.0,),
    "precondition": 0.0,
    "clamp": False,
    "tv_weight": 0.0,
    "detail": 0.0,
    "style_loss": "gram",
    "style_levels": 1,
    "content_layers": {"relu4_2": 1.0},
    "content_level": 0,
}

#: What presets that compare statistics have in common, unless they say otherwise.
STATISTICS = Preset(
    "Gram matrices or covariances at several sizes of the picture",
    "nst-daemon",
    {
        "style_loss": "covariance",
        # Statistics of deeper layers are what covers smooth areas with a mesh; smaller levels bring the large shapes.
        "style_layers": _layers("relu1_1 relu2_1 relu3_1", (0.4, 0.4, 0.2)),
        "style_levels": 4,
        "content_layers": {"relu3_1": 1.0},
        "content_level": 1,
        "tv": "squared",
        "precondition": 0.75,
        "coarsest": 128,
        "iterations": (80, 60, 40),
        "detail": 0.25,
    },
    bare={
        **_GATYS_PYTORCH_BARE,
        "style_layers": _layers("relu1_1 relu2_1 relu3_1", [1e3 / n**2 for n in _CHANNELS[:3]]),
        "tv_weight": 0.0,
    },
    calibrated={"content_weight": 0.3, "tv_weight": 4.0},
)

PRESETS: Mapping[str, Preset] = {
    "painting": Preset(
        "the default: each part in the paint of the part of the style that resembles it most",
        "Kolkin, Kucera, Paris, Sypnowich & Shechtman, Neural Neighbor Style Transfer, 2022",
    ),
    "bold": Preset(
        "large strokes: the style's shapes take over, the motif stays recognisable",
        "nst-daemon",
        {"content_weight": 0.25, "style_scale": 1.5},
    ),
    "gentle": Preset(
        "fine strokes: every detail of the photo stays readable",
        "nst-daemon",
        {"content_weight": 4.0, "style_scale": 0.75},
    ),
    "sketch": Preset(
        "for drawings: fine, crisp lines on paper",
        "nst-daemon",
        {"content_weight": 3.0, "tv_weight": 0.2, "style_scale": 0.75},
    ),
    "texture": Preset(
        "the style's patterns everywhere, without a motif",
        "nst-daemon",
        STATISTICS.settings,
        bare={**STATISTICS.bare, "content_weight": 0.0},
        calibrated={**STATISTICS.calibrated, "content_weight": 0.0},
    ),
    "gatys2016": Preset(
        "the paper: from noise, average pooling",
        "Gatys, Ecker & Bethge, Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, eq. 1-7",
        {
            **_LITERAL,
            "content_loss": "half-sum",
            "gram_norm": "quarter-mean",
            "style_layers": _layers(_FIVE, 1 / 5),
            "pooling": "average",
            "start": "noise",
            "iterations": (500,),
        },
        bare={"content_weight": 1.0, "style_weight": 1e3},
        calibrated={"content_weight": 0.5, "style_weight": 1.0},
    ),
    "gatys-pytorch": Preset(
        "the author's code: from the content, with a second pass at full size",
        "Gatys, PytorchNeuralStyleTransfer, NeuralStyleTransfer.ipynb",
        {
            **_LITERAL,
            "content_loss": "mean",
            "gram_norm": "mean",
            "history": 100,
            # The notebook paints at 512 and then 800 px (shorter side): the same ratio for any size.
            "scales": (0.64, 1.0),
            "iterations": (500, 200),
        },
        bare=_GATYS_PYTORCH_BARE,
        calibrated={"content_weight": 0.16, "style_layers": _layers(_FIVE, 1 / 5)},
    ),
    "neural-style": Preset(
        "the best-known program: mean losses, absolute total variation",
        "Johnson, neural-style, and its PyTorch port, neural-style-pt",
        {
            **_LITERAL,
            "content_loss": "mean",
            "gram_norm": "channels",
            "style_layers": _layers(_FIVE, 1.0),
            "tv": "absolute",
            "start": "noise",
            "noise_std": 0.001 / 255,  # 0.001 in its units, pixels in 0-255
            "history": 100,
            "iterations": (1000,),
        },
        bare={
            "content_weight": 5.0,
            "style_weight": 1e2,
            "tv_weight": 1e-3 * 255,  # its pixels are in 0-255, here in [0, 1]
        },
        calibrated={
            "content_weight": 0.2,
            "style_layers": _layers(_FIVE, 1 / 5),
            "tv_weight": 0.01,
        },
    ),
    "maxpool-tv": Preset(
        "six style layers down to the fifth block, squared total variation",
        "max pooling, content at relu3_4; decreasing weights, beta, gamma and the optimiser are ours",
        {
            **_LITERAL,
            "content_layers": {"relu3_4": 1.0},
            "content_loss": "mean",
            "gram_norm": "elements",
            "style_layers": _layers(
                "conv1_2 relu1_2 relu2_2 relu3_4 relu4_4 relu5_4", (1, 1, 0.8, 0.6, 0.4, 0.2)
            ),
            "tv": "squared",
            "optimizer": "adam",
            "iterations": (500,),
        },
        bare={"content_weight": 1.0, "style_weight": 1e3, "tv_weight": 1e-2},
        calibrated={"content_weight": 0.1, "style_weight": 0.25, "tv_weight": 0.1},
    ),
    "noisy-adam": Preset(
        "from the content mixed with noise, sums in all terms",
        "content and style as plain sums; layers, weights, the mixture and the optimiser's step are ours",
        {
            **_LITERAL,
            "content_loss": "half-sum",
            "gram_norm": "sum",
            "style_layers": _layers(_FIVE, 1 / 5),
            "start": "mix",
            "noise_ratio": 0.6,
            "optimizer": "adam",
            "iterations": (500,),
        },
        bare={"content_weight": 1.0, "style_weight": 4.0},
        calibrated={"content_weight": 0.08, "style_weight": 1.0},
    ),
    "ratio": Preset(
        "the balance as one number, alpha over beta",
        "Gatys' content term and mean Gram distances; layer weights, the ratio and the optimiser are ours",
        {
            **_LITERAL,
            "content_loss": "half-sum",
            "gram_norm": "mean",
            "style_layers": _layers(_FIVE, (1, 0.75, 0.2, 0.2, 0.2)),
            "optimizer": "adam",
            "iterations": (1000,),
        },
        bare={"content_style_ratio": 1e-6},
        calibrated={"content_style_ratio": 0.15},
    ),
    "normalised-gram": Preset(
        "Gram matrices divided by their channels",
        "four style layers, squared total variation; all constants and the step's decay are ours",
        {
            **_LITERAL,
            "content_loss": "sum",
            "gram_norm": "mean",  # Σ(Ĝ/N − Â/N)²
            "tv": "squared",
            # The source offers a blank picture, noise or the content; the content gives the best result.
            "start": "content",
            "optimizer": "adam",
            "step": 0.05,
            "step_decay": 0.2,
            "iterations": (200,),
        },
        bare={
            "content_weight": 6e-2,
            "style_layers": _layers("relu1_1 relu2_1 relu3_1 relu4_1", (2e4, 500, 12, 1)),
            "tv_weight": 5e-2,
        },
        calibrated={
            "content_weight": 0.08,
            "style_layers": _layers("relu1_1 relu2_1 relu3_1 relu4_1", 1 / 4),
            "tv_weight": 0.1,
        },
    ),
    "spst": Preset(
        "Gram matrices, means and standard deviations from coarse to fine: for large pictures",
        "Galerne, Raad, Lezama & Morel, Scaling Painting Style Transfer, EGSR 2024, and its code, spst-fast",
        {
            **_LITERAL,
            "content_loss": "mean",
            "gram_norm": "mean",
            # The coarsest scale is between 512 and 1023 px. The code shortens the history to 10 at the other scales.
            "scales": "halves",
            "coarsest": 512,
            "history": 100,
            "iterations": (600, 200, 66, 30),
        },
        bare={**_GATYS_PYTORCH_BARE, "moments_weight": 10.0},
        calibrated={
            "content_weight": 0.1,
            "style_layers": _layers(_FIVE, 1 / 5),
            "moments_weight": 0.5,
        },
    ),
    "wasserstein": Preset(
        "Gaussians instead of Gram matrices, root-2 scales, averaged iterates: slow, with fine results",
        "crowsonkb, style-transfer-pytorch",
        {
            "content_loss": "mean",
            "style_loss": "wasserstein",
            "style_levels": 1,
            "content_layers": {"relu4_2": 1.0},
            "content_level": 0,
            "style_layers": _layers(_FIVE, [w / 341 for w in (256, 64, 16, 4, 1)]),
            "tv": "nine-point",
            "optimizer": "adam",
            "step": 0.02,
            "betas": (0.9, 0.99),
            "averaging": 0.99,
            "clamp": True,
            "scales": "roots",
            "coarsest": 128,
            "iterations": (1000, 500),
            "detail": 0.0,
        },
        bare={"content_weight": 0.015, "tv_weight": 2.0},
        calibrated={
            "content_weight": 0.08,
            "style_layers": _layers(_FIVE, 1 / 5),
            "tv_weight": 0.5,
        },
    ),
}
