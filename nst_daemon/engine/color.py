"""Keeping the content's colours: the style is recoloured before the painting, or the result afterwards.

Methods: Gatys, Bethge, Hertzmann & Shechtman, Preserving Color in Neural Artistic Style Transfer (2016), and Gatys et
al., Controlling Perceptual Factors in Neural Style Transfer (2017), §5.

Everything is computed in encoded sRGB with values in [0, 1]. Luminance is the luma of BT.601, Y = 0.299 R + 0.587 G +
0.114 B, as in YIQ, YUV and YCbCr, which share their Y and differ only in the axes of the chroma plane. Pictures are
(3, H, W) or (1, 3, H, W); results have the shape of what is recoloured; palettes may have another size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nst_daemon.engine.device import widest_float
from nst_daemon.engine.settings import RenderSettings

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
#: Added to the variances that are compared: one 8-bit step, squared. Without it a grey picture's noise would be
#: amplified to the palette's colours.
EPSILON = (1 / 255) ** 2


def before(
    content: Tensor, styles: Sequence[Tensor], settings: RenderSettings
) -> tuple[Tensor, list[Tensor]]:
    """Content and styles as the network sees them, by the method of `settings.keep_colors`.

    Colours are matched in the styles only. With `luminance` everything is painted in grey and `after` restores the
    content's chroma; each style gets the content's mean and standard deviation of luminance (2017, §5).
    """
    if settings.keep_colors == "off" or settings.keep_colors_when == "after":
        return content, list(styles)
    if settings.keep_colors == "luminance":
        return _grey(luminance(content), content), [match_luminance(s, content) for s in styles]
    return content, [_match(style, content, settings.keep_colors) for style in styles]


def needs_content_after(settings: RenderSettings) -> bool:
    """Whether `after` uses the content."""
    matched = settings.keep_colors != "off" and settings.keep_colors_when == "after"
    return matched or settings.keep_colors == "luminance"


def after(image: Tensor, content: Tensor, settings: RenderSettings) -> Tensor:
    """The result in the content's colours if the settings say so, else as it is.

    Args:
        image: What was painted.
        content: In its own colours, of the same size.
        settings: Say by which method.
    """
    if settings.keep_colors == "off" or not needs_content_after(settings):
        return image
    if settings.keep_colors == "luminance":
        return with_chroma(image, content)
    return _match(image, content, settings.keep_colors)


def _match(
    image: Tensor, palette: Tensor, method: Literal["histogram", "pca", "cholesky"]
) -> Tensor:
    if method == "histogram":
        return match_histogram(image, palette)
    return match_covariance(image, palette, method)


def luminance(image: Tensor) -> Tensor:
    """Y (…, 1, H, W) of (…, 3, H, W)."""
    weights = image.new_tensor(LUMA).view(3, 1, 1)
    return (image * weights).sum(-3, keepdim=True)


def match_luminance(image: Tensor, palette: Tensor) -> Tensor:
    """The picture in grey, Y' = (Y − μ)·σ_p/σ + μ_p, with the palette's mean and standard deviation of luminance."""
    own, wanted = luminance(image), luminance(palette)
    spread = wanted.std(correction=0) / own.std(correction=0).clamp_min(EPSILON**0.5)
    return _grey(((own - own.mean()) * spread + wanted.mean()).clamp(0, 1), image)


def with_chroma(image: Tensor, colors: Tensor) -> Tensor:
    """The luminance of one picture with the chroma of another of the same size, Y + t·(C − Y_c).

    t is 1, or less where a channel would leave [0, 1]: luminance and hue are kept, saturation is reduced.
    """
    Y = luminance(image).clamp(0, 1)
    chroma = colors - luminance(colors)
    room = torch.where(chroma > 0, 1 - Y, Y)  # how far each channel may go
    t = (room / chroma.abs().clamp_min(1e-12)).amin(-3, keepdim=True).clamp_max(1)
    return (Y + t * chroma).clamp(0, 1)


def match_histogram(image: Tensor, palette: Tensor) -> Tensor:
    """Each of R, G and B gets the palette's histogram: a value is mapped to the palette's value of the same quantile.

    Equal values stay equal: their quantile is that of the middle of their ranks. Between two values of the palette the
    quantile function is linear.
    """
    channels = zip(
        image.reshape(3, -1).contiguous(), palette.reshape(3, -1).contiguous(), strict=True
    )
    return torch.stack([_equalised(x, p) for x, p in channels]).reshape(image.shape)


def _equalised(x: Tensor, palette: Tensor) -> Tensor:
    """Values (M,) mapped to those of the same quantile in a palette (K,)."""
    own, wanted = x.sort().values, palette.sort().values
    ranks = torch.searchsorted(own, x) + torch.searchsorted(own, x, right=True)  # twice the middle
    place = (ranks.to(widest_float(x.device)) / (2 * len(own)) * len(wanted) - 0.5).clamp(
        0, len(wanted) - 1
    )
    below = place.long()
    above = (below + 1).clamp_max(len(wanted) - 1)
    return torch.lerp(wanted[below], wanted[above], (place - below).to(wanted))


def match_covariance(image: Tensor, palette: Tensor, root: Literal["pca", "cholesky"]) -> Tensor:
    """A(x − μ) + μ_p for each pixel x, with A such that the covariance of colours becomes the palette's.

    `pca`: A = Σ_p^½ Σ^−½ with symmetric roots; `cholesky`: A = L_p L⁻¹ with Σ = L Lᵀ (both from Gatys et al. 2016).
    ε·I is added to both covariances (our change: see EPSILON); results are clamped to [0, 1].
    """
    wide = widest_float(image.device)
    x, p = image.reshape(3, -1).to(wide), palette.reshape(3, -1).to(wide)
    own, wanted = _root(x, root), _root(p, root)
    A = torch.linalg.solve(own, wanted, left=False)
    matched: Tensor = A @ (x - x.mean(1, keepdim=True)) + p.mean(1, keepdim=True)
    return matched.clamp(0, 1).to(image).reshape(image.shape)


def _root(x: Tensor, kind: Literal["pca", "cholesky"]) -> Tensor:
    """R (3, 3) with R Rᵀ = the covariance of (3, M) + εI: symmetric, or lower triangular."""
    covariance = torch.cov(x, correction=0) + EPSILON * torch.eye(3, device=x.device, dtype=x.dtype)
    if kind == "cholesky":
        lower: Tensor = torch.linalg.cholesky(covariance)
        return lower
    values, vectors = torch.linalg.eigh(covariance)
    symmetric: Tensor = (vectors * values.sqrt()) @ vectors.mT
    return symmetric


def _grey(Y: Tensor, like: Tensor) -> Tensor:
    """(…, 3, H, W) of (…, 1, H, W)."""
    return Y.expand(like.shape).contiguous()
