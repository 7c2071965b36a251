"""Solids given by their distance functions, seen along rays (sphere tracing, Hart 1996).

A distance function takes points (n, 3) and gives (n,): at most the distance to the nearest surface. x is to the right,
y up and z away from us.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.drawings.raster import Array

Distance = Callable[[Array], Array]

NEAR = 0.0015  # a ray that is nearer to a surface than this part of its length has met it
TETRAHEDRON = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], dtype=np.float32)


def camera(
    width: int, height: int, eye: Array, target: Array, *, zoom: float, shift: float = 0.0
) -> Array:
    """Unit directions of the rays through the pixels, (height · width, 3), row by row.

    Args:
        width, height: size of the picture in pixels.
        eye, target: (3,): where it is, and what is in the middle of the picture.
        zoom: distance of the picture plane in picture heights.
        shift: how far the picture plane is moved up, in picture heights: upright lines stay upright where `target` is
            as high as the eye.
    """
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(np.array([0, 1, 0]), forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    x = (np.arange(width) + 0.5 - width / 2) / height
    y = (height / 2 - np.arange(height) - 0.5) / height + shift
    rays = zoom * forward + x[None, :, None] * right + y[:, None, None] * up
    rays = rays.reshape(-1, 3)
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True), dtype=np.float32)


def trace(
    origins: Array, rays: Array, distance: Distance, *, far: float, steps: int, slack: float = NEAR
) -> Array:
    """How far each ray goes until it meets a surface, (n,); infinite where it meets none before `far`."""
    reach = np.zeros(len(rays), dtype=np.float32)
    met = np.full(len(rays), np.inf, dtype=np.float32)
    going = np.arange(len(rays))
    for step in range(steps):
        gap = distance(origins[going] + reach[going, None] * rays[going])
        reach[going] += gap
        # A ray that grazes a surface takes many short steps: late in the march it counts as having met it.
        tolerance = slack * (1 if step < steps * 0.7 else 4)
        arrived = gap < tolerance * reach[going] + 1e-5
        met[going[arrived]] = reach[going[arrived]]
        going = going[~arrived & (reach[going] < far)]
        if not len(going):
            break
    return met


def normals(points: Array, distance: Distance, width: float) -> Array:
    """Unit normals of the surfaces at points, (n, 3), from differences over `width`."""
    total = sum(corner * distance(points + width * corner)[:, None] for corner in TETRAHEDRON)
    return np.asarray(total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9))


def lit_part(
    points: Array, toward: Array, distance: Distance, *, far: float, sharpness: float, steps: int
) -> Array:
    """The visible part of a lamp in the direction `toward` (3,), (n,) in [0, 1]: shadows with soft edges."""
    seen = np.ones(len(points), dtype=np.float32)
    # Rays begin at different distances, which turns rings in soft edges into grain.
    phase = (np.arange(len(points)) * 0.618034 % 1).astype(np.float32)
    reach = 0.004 * far * (1 + 2 * phase)
    going = np.arange(len(points))
    for _ in range(steps):
        gap = distance(points[going] + reach[going, None] * toward)
        seen[going] = np.minimum(seen[going], (sharpness * gap / reach[going]).clip(0, 1))
        # Short steps: long ones would leave rings in the soft edge.
        reach[going] += gap.clip(0.004 * far, 0.03 * far)
        going = going[(seen[going] > 0.01) & (reach[going] < far)]
        if not len(going):
            break
    return np.asarray(seen * seen * (3 - 2 * seen))


def openness(points: Array, normal: Array, distance: Distance, reach: float) -> Array:
    """How much of the surroundings a point sees, (n,) in [0, 1]: corners and contacts are darker."""
    hidden = np.zeros(len(points), dtype=np.float32)
    for i in range(1, 6):
        away = reach * i / 5
        hidden += (away - distance(points + away * normal)).clip(0) / 2**i
    return np.asarray((1 - 1.6 * hidden / reach).clip(0, 1))


def length(vectors: Array) -> Array:
    """(n,) from (n, 3); quicker than numpy's for three numbers."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))


def united(first: Array, second: Array, blend: float) -> Array:
    """The union of two solids with a fillet of size `blend`."""
    share = (0.5 + 0.5 * (second - first) / blend).clip(0, 1)
    return np.asarray(second + (first - second) * share - blend * share * (1 - share))


def textured(texture: Array, u: Array, v: Array) -> Array:
    """A square texture that is repeated, mirrored at its borders, at u and v in its sides; bilinear."""

    def mirrored(t: Array) -> Array:
        return np.abs((t % 2) - 1) * (len(texture) - 1.001)

    across, down = mirrored(u), mirrored(v)
    j, i = across.astype(int), down.astype(int)
    a, d = across - j, down - i
    upper = texture[i, j] * (1 - a) + texture[i, j + 1] * a
    lower = texture[i + 1, j] * (1 - a) + texture[i + 1, j + 1] * a
    return np.asarray(upper * (1 - d) + lower * d)
