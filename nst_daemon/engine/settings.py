"""Everything that can be chosen about a picture, and the only place of every default.

`RenderSettings` is plain data: it is sent between processes, becomes JSON through `dataclasses.asdict`, and needs
neither torch nor Pillow. Its defaults are the preset `painting`; `resolve` combines a preset and overrides.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, cast

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.config import ExtraValues

from nst_daemon.engine.networks import NETWORKS
from nst_daemon.engine.presets import PRESETS, STATISTICS
from nst_daemon.errors import SettingsError
from nst_daemon.key_types import without_booleans
from nst_daemon.names import printable, shortened
from nst_daemon.suggestions import did_you_mean

_EXTRA: ExtraValues = "forbid"
_LAYERS_ALLOWED = "a mapping of layers to weights ≥ 0, such as {relu1_1: 1.0, conv4_2: 0.5}"


def _auto_off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false."""
    return {True: "auto", False: "off"}[value] if isinstance(value, bool) else value


def _off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false, for settings without `auto`."""
    return "off" if value is False else value


def _one_or_many(value: object) -> object:
    """`iterations: 200` means `iterations: [200]`."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


#: The names of initial images.
StartName = Literal["content", "noise", "mix", "style", "grey", "given"]
Weight = Annotated[float, Ge(0), Lt(float("inf"))]
Fraction = Annotated[float, Ge(0), Le(1)]
Layers = Annotated[Mapping[str, Weight], MinLen(1)]

#: How many times `style_loss: neighbours` matches each layer by itself at full size.
LAYER_PASSES = 2
#: The longer side in pixels that `size: auto` does not exceed, by the type of the device.
AUTO_SIZE: Mapping[str, int] = {"cuda": 1280, "cpu": 512}


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """The settings of one picture; the defaults are the preset `painting`.

    Each field's metadata holds `help` (one sentence) and `allowed` (its values). `docs/objective.md` has the formulas.
    """

    __pydantic_config__ = ConfigDict(extra=_EXTRA)

    # fmt: off
    preset: str = field(default="painting", metadata={
        "help": "The named set of settings that provides the defaults; `nst-daemon presets` lists them.",
        "allowed": "the name of a preset"})

    # The picture
    size: Annotated[int, Ge(1)] | Literal["auto", "original"] = field(default="auto", metadata={
        "help": "The longer side of the result in pixels; `original` is the content's size; `auto` is the same, but at "
                "most 1280 px on a GPU and 512 px on a CPU.",
        "allowed": "a whole number ≥ 1, 'auto' or 'original'"})
    style_scale: Annotated[float, Ge(0.05), Le(20)] = field(default=1.0, metadata={
        "help": "The size of the strokes: a factor on the size at which the network sees the style, relative to the "
                "picture.",
        "allowed": "a number from 0.05 to 20"})
    style_weights: tuple[Weight, ...] = field(default=(), metadata={
        "help": "The share of each style in a blend of several styles; empty: equal shares.",
        "allowed": "one number ≥ 0 for each style, not all 0"})

    keep_colors: Annotated[Literal["off", "luminance", "histogram", "pca", "cholesky"],
                           BeforeValidator(_off)] = field(default="off", metadata={
        "help": "Keep the content's colours: `luminance` transfers only the luminance; `histogram` matches histograms; "
                "`pca` and `cholesky` match means and covariances, with two kinds of matrix root.",
        "allowed": "'off', 'luminance', 'histogram', 'pca' or 'cholesky'"})
    keep_colors_when: Literal["before", "after"] = field(default="before", metadata={
        "help": "Recolour the style before painting, or the picture after painting.",
        "allowed": "'before' or 'after'"})

    # The objective: alpha * content + beta * sum of w_l * style_l + gamma * tv
    content_weight: Weight = field(default=1.0, metadata={
        "help": "The weight of the content term, alpha; with `style_loss: neighbours` the weight of the content in the "
                "search for neighbours, relative to that of the picture so far.", "allowed": "a number ≥ 0"})
    content_layers: Layers = field(default_factory=lambda: {"relu4_2": 1.0}, metadata={
        "help": "The layers of the content term, with their weights.",
        "allowed": _LAYERS_ALLOWED})
    content_loss: Literal["mean", "half-sum", "sum"] = field(default="mean", metadata={
        "help": "The content term of a layer: the mean of (F - P)^2, half of its sum, or its sum.",
        "allowed": "'mean', 'half-sum' or 'sum'"})
    style_weight: Weight = field(default=1.0, metadata={
        "help": "The weight of the style term, beta.", "allowed": "a number ≥ 0"})
    style_layers: Layers = field(default_factory=lambda: dict.fromkeys(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), 0.25), metadata={
        "help": "The layers of the style term, with their weights.",
        "allowed": _LAYERS_ALLOWED})
    style_loss: Literal["neighbours", "covariance", "gram", "wasserstein"] = field(
        default="neighbours", metadata={
        "help": "The distance of the style term: `neighbours` draws each part of the picture towards the part of the "
                "style that resembles it most; `gram` is the squared distance of Gram matrices, `covariance` that of "
                "covariances and of means, `wasserstein` the Wasserstein-2 distance of Gaussians with the same means "
                "and covariances.",
        "allowed": "'neighbours', 'covariance', 'gram' or 'wasserstein'"})
    moments_weight: Weight = field(default=0.0, metadata={
        "help": "The weight of the distances of channel means and standard deviations beside the Gram matrices "
                "(Galerne et al. 2024), relative to the Gram term.",
        "allowed": "a number ≥ 0"})
    style_levels: Annotated[int, Ge(1), Le(8)] = field(default=1, metadata={
        "help": "The number of sizes at which the style is compared: the picture's own, a half, a quarter, …; the "
                "smaller ones hold the larger strokes and shapes. Sizes that are too small for a layer are left out.",
        "allowed": "a whole number from 1 to 8"})
    style_level_weights: tuple[Weight, ...] = field(default=(), metadata={
        "help": "The share of each of these sizes in the style term, the picture's own first; empty: equal shares.",
        "allowed": "one number ≥ 0 for each of the style_levels, not all 0"})
    content_level: Annotated[int, Ge(0), Le(7)] = field(default=0, metadata={
        "help": "The size at which the content is compared: 0 is the picture's own, 1 a half, 2 a quarter; fine "
                "outlines can then be repainted.",
        "allowed": "a whole number from 0 to style_levels - 1"})
    gram_norm: Literal["sum", "mean", "quarter-mean", "channels", "elements"] = field(default="mean", metadata={
        "help": "The factor on the squared distance of two Gram matrices per position, with N channels and M "
                "positions: 1, 1/N^2, 1/(4 N^2), 1/N^4 or M/N^3. It cancels out if the terms are calibrated.",
        "allowed": "'sum', 'mean', 'quarter-mean', 'channels' or 'elements'"})
    content_style_ratio: Weight | None = field(default=None, metadata={
        "help": "alpha/beta as one number; use it instead of content_weight.",
        "allowed": "a number ≥ 0, or null"})
    tv_weight: Weight = field(default=1.0, metadata={
        "help": "The weight of the total variation term, gamma.", "allowed": "a number ≥ 0"})
    tv: Literal["absolute", "squared", "nine-point"] = field(default="nine-point", metadata={
        "help": "The form of the total variation: the sum of absolute differences of neighbours, the sum of squared "
                "differences, or the mean of squared differences to all eight neighbours.",
        "allowed": "'absolute', 'squared' or 'nine-point'"})
    calibrate: Annotated[Literal["auto", "off"], BeforeValidator(_auto_off)] = field(default="auto", metadata={
        "help": "`auto` divides each term by the energy of its target, so that the same weights work for any network "
                "weights and any size; `off` uses the original constants of the preset's source.",
        "allowed": "'auto' or 'off'"})

    # The network
    pooling: Literal["max", "average", "l2"] = field(default="max", metadata={
        "help": "The pooling of the network.", "allowed": "'max', 'average' or 'l2'"})
    rescale_pooling: bool = field(default=False, metadata={
        "help": "Rescale average-pooled and L2-pooled maps to the scale that the next layers were trained on.",
        "allowed": "true or false"})
    padding: Literal["replicate", "zeros"] = field(default="replicate", metadata={
        "help": "The padding of the first convolution: `replicate` repeats the edge; `zeros` is what the papers use, "
                "and darkens the border.",
        "allowed": "'replicate' or 'zeros'"})
    precision: Literal["auto", "float32", "bfloat16"] = field(default="auto", metadata={
        "help": "The arithmetic of the convolutions; `auto` uses bfloat16 if it is faster on this hardware; on a GPU "
                "`float32` means TF32, torch's default. Statistics, losses, the picture and the optimiser always use "
                "float32.",
        "allowed": "'auto', 'float32' or 'bfloat16'"})

    # Where it starts
    start: StartName = field(default="content", metadata={
        "help": "The initial image: the content, noise, a mix of both, the first style, plain grey, or a picture that "
                "is given with the job.",
        "allowed": "'content', 'noise', 'mix', 'style', 'grey' or 'given'"})
    noise_ratio: Fraction = field(default=0.6, metadata={
        "help": "The share of noise in `start: mix`.", "allowed": "a number from 0 to 1"})
    noise_std: Weight = field(default=0.2, metadata={
        "help": "The standard deviation of the noise around the network's mean colour, with pixels in [0, 1].",
        "allowed": "a number ≥ 0"})
    seed: Annotated[int, Ge(0), Lt(2**63)] = field(default=0, metadata={
        "help": "The seed of the noise.", "allowed": f"a whole number from 0 to {2**63 - 1}"})

    # The optimiser
    optimizer: Literal["lbfgs", "adam"] = field(default="lbfgs", metadata={
        "help": "The optimiser: L-BFGS needs fewer iterations, Adam less memory.",
        "allowed": "'lbfgs' or 'adam'"})
    step: Annotated[float, Gt(0), Lt(float("inf"))] = field(default=1.0, metadata={
        "help": "For L-BFGS a factor on the step length (default 1), for Adam the learning rate (default 0.02), with "
                "pixels in [0, 1].",
        "allowed": "a number > 0"})
    step_decay: Annotated[float, Gt(0), Le(1)] = field(default=1.0, metadata={
        "help": "A factor on Adam's step, applied once, half-way through each scale.",
        "allowed": "a number > 0 and ≤ 1"})
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = field(
        default=(0.9, 0.999), metadata={
        "help": "Adam's decay rates of the first and second moments.",
        "allowed": "two numbers ≥ 0 and < 1"})
    averaging: Annotated[float, Ge(0), Lt(1)] = field(default=0.0, metadata={
        "help": "The decay of the running average of Adam's iterates, which becomes the result; 0 uses the last "
                "iterate.",
        "allowed": "a number ≥ 0 and < 1"})
    clamp: bool = field(default=True, metadata={
        "help": "Keep the pixels in [0, 1] during painting; otherwise they are clipped at the end.",
        "allowed": "true or false"})
    history: Annotated[int, Ge(1), Le(1000)] = field(default=20, metadata={
        "help": "The number of past steps that L-BFGS stores; each takes the memory of two pictures.",
        "allowed": "a whole number from 1 to 1000"})
    precondition: Annotated[float, Ge(0), Le(2)] = field(default=1.0, metadata={
        "help": "Optimise in coordinates whose spectrum falls like 1/f to this power, so that broad changes are as "
                "easy as fine ones; 0 optimises plain pixels.",
        "allowed": "a number from 0 to 2"})

    # Coarse to fine
    scales: Literal["halves", "roots"] | tuple[Annotated[float, Gt(0), Le(1)], ...] = field(
        default="halves", metadata={
        "help": "The sizes at which the picture is painted, one after the other: `halves` and `roots` grow to the "
                "final size by factors of 2 or √2, starting at `coarsest` or just above it; or fractions of the final "
                "size, such as [0.5, 1].",
        "allowed": "'halves', 'roots', or increasing fractions that end with 1"})
    coarsest: Annotated[int, Ge(16)] = field(default=96, metadata={
        "help": "The smallest longer side, in pixels, at which `halves` and `roots` start.",
        "allowed": "a whole number ≥ 16"})
    iterations: Annotated[tuple[Annotated[int, Ge(1), Le(1_000_000)], ...], MinLen(1),
                          BeforeValidator(_one_or_many)] = field(default=(30, 30, 20), metadata={
        "help": "The number of iterations at each scale, coarsest first; the last number applies to all further "
                "scales.",
        "allowed": "a whole number ≥ 1, or a list of them"})
    detail: Fraction = field(default=0.0, metadata={
        "help": "The share of the content's fine detail that is added when the picture is enlarged for the next scale.",
        "allowed": "a number from 0 to 1"})

    # Ending early, and reproducibility
    min_improvement: Annotated[float, Ge(0), Lt(1)] = field(default=0.0, metadata={
        "help": "End a scale early if ten iterations improve the loss by less than this fraction; 0: never.",
        "allowed": "a number ≥ 0 and < 1"})
    deterministic: bool = field(default=False, metadata={
        "help": "Produce the same bytes for the same settings, pictures and machine; slower on a GPU.",
        "allowed": "true or false"})
    # fmt: on

    @property
    def layers(self) -> frozenset[str]:
        """Every layer that the objective uses."""
        return frozenset(self.map_layers) | frozenset(self.statistics_layers)

    @property
    def map_layers(self) -> tuple[str, ...]:
        """The layers whose maps are needed: the content's, or the style's for `style_loss: neighbours`."""
        neighbours = self.style_loss == "neighbours"
        return tuple(self.style_layers if neighbours else self.content_layers)

    @property
    def statistics_layers(self) -> tuple[str, ...]:
        """The layers whose statistics are needed."""
        return () if self.style_loss == "neighbours" else tuple(self.style_layers)

    @property
    def layer_passes(self) -> int:
        """Further passes at full size, after the scales; each has the iterations of a scale."""
        return LAYER_PASSES if self.style_loss == "neighbours" else 0

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of each term in the total loss: alpha·w_l of `content LAYER`, beta·w_l of `style LAYER`, gamma of
        `tv`."""
        content = {} if self.style_loss == "neighbours" else self.content_layers
        weights = {f"content {k}": self.content_weight * w for k, w in content.items()}
        weights |= {f"style {k}": self.style_weight * w for k, w in self.style_layers.items()}
        return weights | {"tv": self.tv_weight}


def scale_fractions(scales: str | Sequence[float], side: float, coarsest: float) -> list[float]:
    """The sizes to paint at as fractions of the final size, from coarse to fine; the last one is 1.

    Args:
        scales: `RenderSettings.scales`.
        side: The longer side of the picture in pixels.
        coarsest: `RenderSettings.coarsest`.
    """
    if not isinstance(scales, str):
        return list(scales)
    ratio = 2.0 if scales == "halves" else math.sqrt(2)
    fractions = [1.0]
    while side * fractions[0] / ratio >= coarsest:
        fractions.insert(0, fractions[0] / ratio)
    return fractions


_DEFAULTS = RenderSettings()

#: Defaults of each optimiser, unless the preset or a person sets something else.
OPTIMIZER_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "lbfgs": {},
    "adam": {"step": 0.02, "precondition": 0.0},
}
#: Settings of a preset that are dropped if a person chooses the other optimiser.
_OPTIMIZER_KEYS = frozenset({"step", "step_decay", "betas", "averaging", "history", "precondition"})


def resolve(*overrides: Mapping[str, object], network: str = "vgg19") -> RenderSettings:
    """Combine a preset and overrides.

    A preset has two sets of weights: the constants of its source (`calibrate: off`) and balances for calibrated terms
    (`calibrate: auto`); the final value of `calibrate` chooses. Presets name VGG19's layers, which are translated to
    the network's.

    Args:
        overrides: In order; the last `preset` among them counts.
        network: A key of `networks.NETWORKS`.

    Raises:
        SettingsError: A key or value is not allowed.
    """
    for override in overrides:
        _refuse_unknown(override)
        _refuse_contradiction(override)
    given: dict[str, object] = {}
    for override in overrides:
        if "content_weight" in override:  # the later way to say the same thing wins
            given.pop("content_style_ratio", None)
            given["content_style_ratio"] = None
        given |= override
    preset = _preset_values(given, network)
    for key in ("content_layers", "style_layers"):
        layers = cast("Mapping[str, float]", preset.get(key, getattr(_DEFAULTS, key)))
        preset[key] = NETWORKS[network].translated(layers)
    chosen = preset | given
    try:
        settings: RenderSettings = _validated(chosen)
    except ValidationError as error:
        raise _as_settings_error(error.errors()[0]) from None
    settings = _with_one_content_weight(settings)
    if "content_level" not in given:  # the preset's suits the number of levels of the preset
        level = min(settings.content_level, settings.style_levels - 1)
        settings = replace(settings, content_level=level)
    _check(settings, network)
    return settings


def settings_problems(
    override: Mapping[str, object], network: str = "vgg19"
) -> Iterator[tuple[str, SettingsError]]:
    """Every key or value of one set of overrides that is not allowed, with the key ("" if it concerns several)."""
    known = {f.name for f in fields(RenderSettings)}
    unknown = [key for key in override if key not in known]
    yield from ((str(key), _unknown(key)) for key in unknown)
    allowed = {key: value for key, value in override.items() if key in known}
    try:
        _validated(allowed)
    except ValidationError as error:
        wrong: set[str] = set()
        for found in error.errors():
            if (key := str(found["loc"][0])) not in wrong:
                wrong.add(key)
                yield key, _as_settings_error(found)
        allowed = {key: value for key, value in allowed.items() if key not in wrong}
    try:
        resolve(allowed, network=network)
    except SettingsError as refused:
        yield refused.key, refused


def _validated(values: Mapping[str, object]) -> RenderSettings:
    return _adapter().validate_python(without_booleans(values, RenderSettings))


def restore(values: Mapping[str, object]) -> RenderSettings:
    """Resolved settings from their `dataclasses.asdict`, as in the ledger and in messages; no preset is applied again.

    Settings that the version which wrote the ledger did not have yet get their field's default.

    Raises:
        SettingsError: A value is damaged.
    """
    try:
        settings: RenderSettings = _adapter().validate_python(dict(values))
    except ValidationError as error:
        raise _as_settings_error(error.errors()[0]) from None
    return settings


def own_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """The preset, and the settings that differ from it. settings: all settings of a job, as the ledger has them."""
    if settings.get("preset") not in PRESETS:  # of another version
        return dict(settings)
    usual = json.loads(json.dumps(asdict(resolve({"preset": settings["preset"]}))))
    return {k: v for k, v in settings.items() if k == "preset" or v != usual.get(k)}


def _with_one_content_weight(settings: RenderSettings) -> RenderSettings:
    """Replace `content_style_ratio` by `content_weight`, so that resolved settings can be overridden again."""
    ratio = settings.content_style_ratio
    if ratio is None:
        return settings
    weight = ratio * settings.style_weight
    if not math.isfinite(weight):
        raise _refusal(
            "content_style_ratio", ratio, "a number whose product with style_weight is finite"
        )
    return replace(settings, content_weight=weight, content_style_ratio=None)


def describe(name: str) -> Mapping[str, str]:
    """`help` and `allowed` of the field called `name`."""
    return next(f.metadata for f in fields(RenderSettings) if f.name == name)


@cache
def _adapter() -> TypeAdapter[RenderSettings]:
    return TypeAdapter(RenderSettings)


def _preset_values(given: dict[str, object], network: str) -> dict[str, object]:
    """The values of the preset named in `given`, for its style loss, optimiser and calibration."""
    name = given.get("preset", _DEFAULTS.preset)
    if name == "default":  # the name of `painting` in older configurations
        name = given["preset"] = _DEFAULTS.preset
    if not isinstance(name, str) or name not in PRESETS:
        raise _refusal(
            "preset",
            name,
            " or ".join(f"'{p}'" for p in PRESETS).replace(" or ", ", ", len(PRESETS) - 2),
        )
    preset = PRESETS[name]
    loss = preset.settings.get("style_loss", _DEFAULTS.style_loss)
    if loss == "neighbours" and not NETWORKS[network].pooling:
        given.setdefault("style_loss", "covariance")  # its layers suit no hypercolumns
    wanted_loss = given.get("style_loss", loss)
    if (wanted_loss == "neighbours") != (loss == "neighbours"):  # nothing else of it would fit
        preset = PRESETS[_DEFAULTS.preset] if wanted_loss == "neighbours" else STATISTICS
    own = dict(preset.settings)
    if wanted_loss != "neighbours":
        own = {**STATISTICS.settings, **own}
    optimizer = given.get("optimizer", own.get("optimizer", "lbfgs"))
    if optimizer != own.get("optimizer", "lbfgs"):
        own = {key: value for key, value in own.items() if key not in _OPTIMIZER_KEYS}
    bare = _auto_off(given.get("calibrate", own.get("calibrate", "auto"))) == "off"
    wanted = OPTIMIZER_DEFAULTS.get(str(optimizer), {})
    return {**wanted, **own, **(preset.bare if bare else preset.calibrated)}


def _refuse_unknown(override: Mapping[str, object]) -> None:
    known = {f.name for f in fields(RenderSettings)}
    for key in override:
        if key not in known:
            raise _unknown(key)


def _refuse_contradiction(override: Mapping[str, object]) -> None:
    if (
        override.get("content_style_ratio") is not None
        and override.get("content_weight") is not None
    ):
        raise SettingsError(
            "content_weight and content_style_ratio are both set",
            remedy="set one of them",
        )


def _check(settings: RenderSettings, network: str) -> None:
    """Check what depends on several fields or on the network."""
    for key in ("content_layers", "style_layers"):
        for layer in getattr(settings, key):
            if layer not in NETWORKS[network].layers:
                raise _refusal(key, layer, f"{NETWORKS[network].spelled} ({network})")
    if not NETWORKS[network].pooling and settings.style_loss == "neighbours":
        raise _refusal("style_loss", "neighbours", f"another one with {network}")
    if not NETWORKS[network].pooling and settings.pooling != "max":
        raise _refusal("pooling", settings.pooling, f"'max': {network} has no pooling to choose")
    _check_weights(settings)
    _check_levels(settings)
    if not isinstance(settings.scales, str) and not _grows_to_one(settings.scales):
        raise _refusal("scales", settings.scales, describe("scales")["allowed"])
    if settings.optimizer == "lbfgs":
        for key, neutral in (("averaging", 0.0), ("step_decay", 1.0)):
            if getattr(settings, key) != neutral:
                raise _refusal(key, getattr(settings, key), f"{neutral} with optimizer 'lbfgs'")


def _check_weights(settings: RenderSettings) -> None:
    if settings.style_weight == 0:
        if settings.style_loss == "neighbours":  # the content has no term of its own
            raise _refusal("style_weight", 0, "a number > 0 with style_loss 'neighbours'")
        if settings.content_weight == 0:
            raise _refusal("style_weight", 0, "a number > 0 if content_weight is 0")
    weights = settings.style_weights
    if weights and not any(weights):
        raise _refusal("style_weights", weights, describe("style_weights")["allowed"])


def _check_levels(settings: RenderSettings) -> None:
    weights, levels = settings.style_level_weights, settings.style_levels
    if weights and (len(weights) != levels or not any(weights)):
        raise _refusal("style_level_weights", weights, describe("style_level_weights")["allowed"])
    if settings.content_level >= levels:
        raise _refusal("content_level", settings.content_level, f"from 0 to {levels - 1}")


def _grows_to_one(scales: Sequence[float]) -> bool:
    return bool(scales) and scales[-1] == 1.0 and all(a < b for a, b in pairwise(scales))


def _refusal(label: str, value: object, allowed: str, key: str = "") -> SettingsError:
    """The error of a value. label: the key, or an element of its list; key: if it differs from the label."""
    hint = did_you_mean(value, re.findall(r"'([\w-]+)'", allowed)) if isinstance(value, str) else ""
    error = SettingsError(
        f"{label}: {_shown(value)} is not allowed",
        remedy=f"write {allowed}" + (f" ({hint})" if hint else ""),
    )
    error.key = key or label
    return error


def _unknown(key: object) -> SettingsError:
    known = [f.name for f in fields(RenderSettings)]
    hint = did_you_mean(key, known) or "`nst-daemon settings` and the page list every setting"
    error = SettingsError(f"unknown setting {_shown(key)}", remedy=hint)
    error.key = str(key)
    return error


def _shown(value: object) -> str:
    """A value for a message of one line."""
    return shortened(printable(repr(value)))


def _as_settings_error(first: Any) -> SettingsError:
    """An error of pydantic, as one line about one key."""
    key = str(first["loc"][0])
    inner = [str(part) for part in first["loc"][1:] if isinstance(part, int)]
    lists = ("iterations", "betas", "style_weights", "style_level_weights")
    label = f"{key}[{inner[0]}]" if inner and key in lists else key
    return _refusal(label, first["input"], describe(key)["allowed"], key)
