"""Shared parts of the scenes: clouds, rippled water and the camera. Lengths are in picture heights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.drawings.raster import (
    Array,
    Colour,
    Point,
    grid,
    mix,
    noise,
    rgb,
    smoothstep,
)


@dataclass(frozen=True)
class Clouds:
    """Clouds: colours in light and shade, position of the sun, and clear part of the sky (0–1)."""

    lit: Colour
    shade: Colour
    sun: Point
    clear: float


def cloudy(sky: Array, rng: np.random.Generator, clouds: Clouds, horizon: float) -> Array:
    """`sky` (H, W, 3) with clouds that shrink toward the horizon and are lit from below, most near the sun."""
    height, width = sky.shape[:2]
    x, y = grid(width, height, height)
    density = noise(rng, width, height, 4.0, octaves=6, stretch=2.6)
    # Clouds are a ceiling: equal steps on it shrink toward the horizon.
    depth = 1 - (1 - (y[:, 0] / horizon).clip(0, 1)) ** 0.6
    density = density[(0.9 * depth * (height - 1)).astype(int)]
    below = np.roll(density, -max(1, height // 60), axis=0)
    distance = np.hypot((x - clouds.sun[0]) * 0.8, y - clouds.sun[1])
    light = smoothstep(-0.05, 0.09, density - below) * np.exp(-0.8 * distance)
    colour = mix(mix(sky, rgb(clouds.shade), 0.75), rgb(clouds.lit), light)
    cover = smoothstep(clouds.clear, clouds.clear + 0.21, density) * (0.9 - 0.35 * y)
    return mix(sky, colour, cover)


def rippled(mirror: Array, rng: np.random.Generator, deep: Colour, choppiness: float) -> Array:
    """Water that reflects `mirror` (H, W, 3), the reflection in perfectly still water, the far shore uppermost.

    Ripples shift the reflection, more in near water. Near water shows more of its own colour, because the view is
    steeper (Fresnel).
    """
    height, width = mirror.shape[:2]
    near = (np.arange(height, dtype=np.float32)[:, None] + 1) / height
    slope = _slopes(width, height, rng)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    reflected = np.zeros_like(mirror)
    for part in (0.4, 0.8, 1.2):  # a patch of water as small as a pixel still has many slopes
        throw = part * choppiness * slope * height
        row = (rows + throw * (0.1 + 0.5 * near)).clip(0, height - 1).astype(int)
        column = (columns + throw * (0.02 + 0.1 * near)).clip(0, width - 1).astype(int)
        reflected += mirror[row, column] / 3
    reflectance = (0.88 - 0.36 * near + 0.45 * slope).clip(0.15, 1)
    return mix(np.broadcast_to(rgb(deep), mirror.shape), reflected, reflectance)


def _slopes(width: int, height: int, rng: np.random.Generator) -> Array:
    """Slopes of ripples toward us, (height, width) about in [-0.5, 0.5], in perspective."""
    waves = noise(rng, width, 2 * height, 60.0, octaves=4, stretch=5.0)
    # Equal steps on the water shrink toward the far shore.
    near = (np.arange(height) + 1) / height
    depth = 0.14 / (near + 0.14)
    return np.asarray(1.5 * (waves[(depth * (2 * height - 1)).astype(int)] - 0.5))


def developed(picture: Array) -> Array:
    """The effect of a camera: a little more contrast, and darker corners."""
    height, width = picture.shape[:2]
    x, y = grid(width, height, height)
    aspect = width / height
    corner = np.hypot((x - aspect / 2) / aspect, y - 0.5)
    vignetted = picture * (1 - 0.35 * corner**2)[..., None]
    return mix(vignetted, smoothstep(0, 1, vignetted), 0.35)
