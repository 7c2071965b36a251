"""Named sets of settings, each with its source.

A preset's formula is its source's own. The constants come twice, because a source's constants assume the activations
of its own network: `bare` are the source's, for `calibrate: off`; `calibrated` are balances set by eye for terms that
are divided by their target's own energy, for `calibrate: auto`. Where a comment says "ours", the source leaves it open.

The names are those of `RenderSettings`' fields, and whatever a preset does not name stands at that class's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """summary: one line for people; source: where the formula is from; the rest: see above."""

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
#: The author's own weights, 1e3/N². They serve `default` too where somebody switches its calibration off.
_GATYS_PYTORCH_BARE: Mapping[str, object] = {
    "content_weight": 1.0,
    "style_weight": 1.0,
    "style_layers": _layers(_FIVE, [1e3 / n**2 for n in _CHANNELS]),
}
#: One scale of plain pixels through the network as it was trained: what the papers had.
_LITERAL: Mapping[str, object] = {
    "padding": "zeros",
    "rescale_pooling": False,
    "scales": (1.0,),
    "precondition": 0.0,
    "tv_weight": 0.0,
    "detail": 0.0,
}

PRESETS: Mapping[str, Preset] = {
    "default": Preset(
        "this project's own: coarse to fine, good at any size and with any weights",
        "nst-daemon",
        bare=_GATYS_PYTORCH_BARE,
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
        calibrated={"content_weight": 0.02, "style_weight": 1.0},
    ),
    "gatys-pytorch": Preset(
        "the author's own code: from the content, a second pass at the full size",
        "Gatys, PytorchNeuralStyleTransfer, NeuralStyleTransfer.ipynb",
        {
            **_LITERAL,
            "content_loss": "mean",
            "gram_norm": "mean",
            "history": 100,
            # The notebook paints at 512 and then 800 px of the shorter side: the same proportion of whatever size.
            "scales": (0.64, 1.0),
            "iterations": (500, 200),
        },
        bare=_GATYS_PYTORCH_BARE,
        calibrated={"content_weight": 0.01, "style_layers": _layers(_FIVE, 1 / 5)},
    ),
}
