"""Mountains over a lake on a summer morning.

A relief of ridged noise is seen along rays, one fan of them per column of the picture. On the ground, x is to the
right and z away from us, both in kilometres, like heights above the lake.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.drawings.nature import Clouds, cloudy, developed, rippled
from benchmarks.drawings.raster import (
    Array,
    Colour,
    Pencil,
    grid,
    mix,
    noise,
    pick,
    ramp,
    rgb,
    smoothstep,
    to_array,
    to_image,
)

MORNING_SKY: tuple[Colour, ...] = (
    (44, 92, 164),
    (84, 138, 196),
    (150, 190, 220),
    (222, 226, 222),
    (250, 232, 204),
)
CLOUD_LIT: Colour = (255, 246, 232)
CLOUD_SHADE: Colour = (164, 178, 204)
SUNSHINE: Colour = (255, 232, 196)
SKYLIGHT: Colour = (88, 118, 178)
HAZE: Colour = (190, 208, 226)
SNOW: Colour = (250, 250, 255)
ROCK: tuple[Colour, ...] = ((84, 78, 80), (130, 120, 112), (166, 150, 134))
FOREST: tuple[Colour, ...] = ((20, 42, 32), (36, 66, 42), (70, 96, 50))
MEADOW: tuple[Colour, ...] = ((96, 120, 52), (140, 150, 70), (178, 170, 96))
PINE: tuple[Colour, ...] = ((10, 22, 20), (18, 38, 28), (34, 60, 36))
DEEP_WATER: Colour = (18, 58, 72)

CELLS = 640  # of the relief, each way
SPAN = 8.0  # kilometres each way
# Distances in kilometres at which rays are compared with the relief.
DISTANCES = np.geomspace(0.3, 7.9, 320, dtype=np.float32)
EYE = 0.13  # kilometres above the lake
ZOOM = 1.2  # apparent height, in picture heights, of an object as high as its distance
HORIZON = 0.60  # picture heights from the top
# To the right, up and away from us: the sun stands on the left, behind us.
TO_SUN = (-0.74, 0.56, -0.36)


@dataclass(frozen=True)
class Ground:
    """The relief: row i lies at z = i · SPAN / CELLS, column j at x = j · SPAN / CELLS − SPAN / 2."""

    height: Array  # (CELLS, CELLS), kilometres above the lake; negative under water
    colour: Array  # (CELLS, CELLS, 3), in the light of the sun and the sky


def mountains(width: int, height: int, rng: np.random.Generator) -> Array:
    """Snowy peaks in the morning sun, woods, a lake that mirrors them, and pines close by."""
    relief = _relief(rng)
    ground = Ground(relief, _lit(relief, _cover(relief, rng)))
    sky = _morning(width, height, rng)
    elevations = HORIZON - grid(width, height, height)[1][:, 0]
    picture, level = _view(ground, sky, elevations, EYE, lake=0.0)
    picture = np.where(np.isfinite(level)[..., None], _rough(picture, rng), picture)
    # A reflection is what an eye at the same distance below the lake sees, without the surface in the way.
    below = elevations < 0
    mirrored, _ = _view(ground, sky, -elevations[below], -EYE, lake=-9.0)
    water = rippled(mirrored, rng, DEEP_WATER, choppiness=0.1)
    wet = smoothstep(0.004, 0.0, level[below])
    picture[below] = mix(picture[below], water, wet)
    image = to_image(developed(picture))
    _foreground(Pencil(image), rng)
    return to_array(image)


# --- The land ---------------------------------------------------------------------------------------------------------


def _relief(rng: np.random.Generator) -> Array:
    """Heights, (CELLS, CELLS): a lake in front, ridges that rise behind it and at its sides."""
    x, z = grid(CELLS, CELLS, CELLS / SPAN)
    x = x - SPAN / 2
    bend = noise(rng, CELLS, CELLS, 5.0, octaves=5) - 0.5
    inland = np.maximum((z - 2.3) / 3.0, (np.abs(x) - 0.55 - 0.12 * z) / 2.0) + 0.45 * bend
    rise = smoothstep(0.0, 1.15, inland)
    ridges, weight = np.zeros((CELLS, CELLS)), np.ones((CELLS, CELLS))
    for octave in range(7):
        cells = 4.0 * 2**octave
        ridge = 1 - np.abs(noise(rng, CELLS, CELLS, cells, octaves=1) - 0.5) / 0.4
        ridges += weight * ridge * 0.48**octave
        weight = (0.25 + ridge).clip(0, 1)  # rough on the ridges, smooth in the valleys
    height = 0.16 * inland.clip(-1, 0.6) + rise * (0.1 + 1.35 * (ridges - 0.5))
    return np.asarray(height, dtype=np.float32)


def _cover(relief: Array, rng: np.random.Generator) -> Array:
    """Colours of meadow, wood, rock and snow, (CELLS, CELLS, 3)."""
    patches = noise(rng, CELLS, CELLS, 24.0, octaves=4)
    grains = noise(rng, CELLS, CELLS, 320.0, octaves=1)
    slope_z, slope_x = np.gradient(relief, SPAN / CELLS)
    steep = np.hypot(slope_x, slope_z)
    cover = ramp(ROCK, (patches + 0.5 * (grains - 0.5)).clip(0, 1))
    trees = ramp(FOREST, (0.4 * patches + 0.9 * grains - 0.15).clip(0, 1))
    cover = mix(cover, trees, smoothstep(0.75, 0.55, relief + 0.5 * (patches - 0.5)))
    cover = mix(cover, rgb(ROCK[1]), smoothstep(1.5, 2.2, steep))
    grass = smoothstep(0.13, 0.07, relief + 0.22 * (patches - 0.5)) * smoothstep(0.7, 0.4, steep)
    cover = mix(cover, ramp(MEADOW, patches), grass)
    snow = smoothstep(0.75, 0.95, relief + 0.4 * (patches - 0.5) - 0.14 * steep)
    return mix(cover, rgb(SNOW), snow)


def _lit(relief: Array, cover: Array) -> Array:
    """`cover` in the sun, in its shadows and under the sky, (CELLS, CELLS, 3)."""
    slope_z, slope_x = np.gradient(relief, SPAN / CELLS)
    facing = -slope_x * TO_SUN[0] + TO_SUN[1] - slope_z * TO_SUN[2]
    lambert = (facing / np.sqrt(1 + slope_x**2 + slope_z**2)).clip(0, 1)
    # A point is in shadow where something to its left stands above its ray to the sun.
    ray = relief + np.arange(CELLS) * SPAN / CELLS * -TO_SUN[1] / TO_SUN[0]
    sunny = smoothstep(0.06, 0.0, np.maximum.accumulate(ray, axis=1) - ray)
    sun = (lambert * sunny)[..., None] * rgb(SUNSHINE) * 1.3
    return np.asarray(cover * (sun + 0.75 * rgb(SKYLIGHT)), dtype=np.float32)


# --- Looking ----------------------------------------------------------------------------------------------------------


def _view(
    ground: Ground, sky: Array, elevations: Array, eye: float, lake: float
) -> tuple[Array, Array]:
    """The view at `elevations` (rows,), in picture heights above the horizon, from `eye` kilometres.

    Gives the picture, (rows, W, 3), and how high the land is that is seen, (rows, W); infinite for the sky. The
    ground under water counts as `lake` kilometres high.
    """
    height, width = sky.shape[:2]
    bearing = (grid(width, height, height)[0][0] - width / height / 2) / ZOOM
    land = np.where(ground.height > 0, ground.height, np.float32(lake))
    heights = _at(land, bearing[:, None] * DISTANCES, DISTANCES)
    skyline = np.maximum.accumulate(ZOOM * (heights - eye) / DISTANCES, axis=1)
    steps = np.stack([np.searchsorted(line, elevations) for line in skyline], axis=1)
    picture = sky[((HORIZON - elevations) * height).astype(int).clip(0, height - 1)]
    level = np.full(steps.shape, np.inf)
    row, column = np.nonzero(steps < len(DISTANCES))
    after = steps[row, column]
    before = (after - 1).clip(0)
    low, high = skyline[column, before], skyline[column, after]
    part = ((elevations[row] - low) / (high - low + 1e-9)).clip(0, 1)
    distance = DISTANCES[before] + part * (DISTANCES[after] - DISTANCES[before])
    x = bearing[column] * distance
    haze = 1 - np.exp(-distance / 11)
    picture[row, column] = mix(_at(ground.colour, x, distance), rgb(HAZE), haze)
    level[row, column] = _at(ground.height, x, distance)
    return picture, level


def _rough(picture: Array, rng: np.random.Generator) -> Array:
    """`picture` with the grain of trees and stones, which is finer than the relief."""
    height, width = picture.shape[:2]
    grain = 0.88 + 0.24 * noise(rng, width, height, 150.0, octaves=2)
    return np.asarray(picture * grain[..., None])


def _at(field: Array, x: Array, z: Array) -> Array:
    """Values of a field on the ground's grid at (x, z), bilinear, clamped at the borders."""
    column = ((x + SPAN / 2) * CELLS / SPAN).clip(0, CELLS - 1.001)
    row = np.broadcast_to((z * CELLS / SPAN).clip(0, CELLS - 1.001), column.shape)
    j, i = column.astype(int), row.astype(int)
    across, away = column - j, row - i
    if field.ndim == 3:
        across, away = across[..., None], away[..., None]
    near = field[i, j] * (1 - across) + field[i, j + 1] * across
    far = field[i + 1, j] * (1 - across) + field[i + 1, j + 1] * across
    return np.asarray(near * (1 - away) + far * away)


def _morning(width: int, height: int, rng: np.random.Generator) -> Array:
    """The sky: a gradient and some clouds."""
    _, y = grid(width, height, height)
    drift = noise(rng, width, height, 2.0, octaves=3, stretch=4)
    sky = ramp(MORNING_SKY, (y / HORIZON * 1.1 + 0.12 * (drift - 0.5)).clip(0, 1))
    return cloudy(sky, rng, Clouds(CLOUD_LIT, CLOUD_SHADE, (0.0, 0.3), clear=0.5), HORIZON)


# --- Close by ---------------------------------------------------------------------------------------------------------


def _foreground(pencil: Pencil, rng: np.random.Generator) -> None:
    """Pines at both sides, on a bank of grass."""
    places = np.concatenate(
        [rng.uniform(-0.02, 0.2, 5), pencil.aspect - rng.uniform(-0.02, 0.26, 6)]
    )
    for x in rng.permutation(places):
        edge = min(x, pencil.aspect - x)
        tall = (0.5 - 0.9 * edge) * rng.uniform(0.75, 1.15)
        _pine(pencil.at(x, 1.0 - 0.14 * max(0.0, 0.2 - edge), tall), rng)
    _bank(pencil, rng)


def _pine(draw: Pencil, rng: np.random.Generator) -> None:
    """One pine, standing at the origin and 1 high: drooping twigs from the foot to the top, lit on the left."""
    draw.polygon([(-0.018, 0), (0, -1), (0.018, 0)], PINE[0])
    up = np.repeat(np.linspace(0.06, 0.98, 46), 9)
    side = rng.uniform(-1, 1, up.shape)
    reach = (0.2 * (1 - up) ** 0.85 + 0.012) * rng.uniform(0.75, 1.1, up.shape)
    droop = 0.07 * np.abs(side) + rng.normal(0, 0.008, up.shape)
    light = 0.4 - 0.45 * side + rng.normal(0, 0.22, up.shape)
    colours = (ramp(PINE, light.clip(0, 1)) * 255).astype(int).tolist()
    tips = np.stack([side * reach, droop - up], axis=-1).tolist()
    for height, tip, colour in zip(up.tolist(), tips, colours, strict=True):
        draw.line([(0, -height - 0.02), tip], 0.013, tuple(colour))


def _bank(pencil: Pencil, rng: np.random.Generator) -> None:
    """Grass along the lower border, higher at the sides."""
    blades = round(2000 * pencil.aspect)
    for x in rng.uniform(0, pencil.aspect, blades):
        edge = min(x, pencil.aspect - x) / pencil.aspect
        top = 0.985 - 0.1 * (0.5 - edge) ** 2 / 0.25 + rng.uniform(-0.01, 0.04)
        lean = rng.normal(0, 0.006)
        colour = pick(rng, (*PINE, *PINE, *FOREST))
        pencil.line([(x, top + 0.09), (x, top + 0.02), (x + lean, top)], 0.0016, colour)
