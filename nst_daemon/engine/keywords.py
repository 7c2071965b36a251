"""The render settings as typed keywords of the Python API. A test compares them with `RenderSettings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class SettingKeywords(TypedDict, total=False):
    """Every field of `RenderSettings` but `start`. `nst-daemon settings` and docs/objective.md explain them."""

    preset: str
    size: int | Literal["auto", "original"]
    style_scale: float
    style_weights: Sequence[float]
    keep_colors: Literal["off", "luminance", "histogram", "pca", "cholesky"]
    keep_colors_when: Literal["before", "after"]
    content_weight: float
    content_layers: Mapping[str, float]
    content_loss: Literal["mean", "half-sum", "sum"]
    style_weight: float
    style_layers: Mapping[str, float]
    style_loss: Literal["neighbours", "covariance", "gram", "wasserstein"]
    moments_weight: float
    style_levels: int
    style_level_weights: Sequence[float]
    content_level: int
    gram_norm: Literal["sum", "mean", "quarter-mean", "channels", "elements"]
    content_style_ratio: float | None
    tv_weight: float
    tv: Literal["absolute", "squared", "nine-point"]
    calibrate: Literal["auto", "off"]
    pooling: Literal["max", "average", "l2"]
    rescale_pooling: bool
    padding: Literal["replicate", "zeros"]
    precision: Literal["auto", "float32", "bfloat16"]
    noise_ratio: float
    noise_std: float
    seed: int
    optimizer: Literal["lbfgs", "adam"]
    step: float
    step_decay: float
    betas: tuple[float, float]
    averaging: float
    clamp: bool
    history: int
    precondition: float
    scales: Literal["halves", "roots"] | Sequence[float]
    coarsest: int
    iterations: int | Sequence[int]
    detail: float
    min_improvement: float
    deterministic: bool
