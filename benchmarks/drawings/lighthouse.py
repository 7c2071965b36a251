"""A lighthouse on a rocky headland above the sea, late in the afternoon.

Lengths are in metres. The sea is at height 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.drawings.nature import Clouds, cloudy, developed
from benchmarks.drawings.raster import Array, Colour, mix, noise, ramp, rgb, smoothstep
from benchmarks.drawings.solids import (
    camera,
    length,
    lit_part,
    normals,
    openness,
    textured,
    trace,
)

SKY: tuple[Colour, ...] = (
    (66, 104, 160),
    (112, 148, 190),
    (172, 186, 206),
    (236, 208, 184),
    (254, 204, 144),
    (255, 190, 120),
)
CLOUD_LIT: Colour = (255, 222, 184)
CLOUD_SHADE: Colour = (140, 138, 166)
SUN: Colour = (255, 196, 128)
SKYLIGHT: Colour = (116, 136, 182)
HAZE: Colour = (236, 204, 178)
ROCK: tuple[Colour, ...] = ((62, 52, 48), (112, 94, 80), (158, 134, 108), (192, 168, 136))
TURF: tuple[Colour, ...] = ((56, 70, 34), (94, 106, 48), (140, 138, 70), (176, 160, 92))
WHITE: Colour = (240, 236, 226)
RED: Colour = (184, 44, 36)
IRON: Colour = (52, 54, 60)
SLATE: Colour = (96, 84, 84)
LAMP: Colour = (255, 226, 150)
FOAM: Colour = (244, 242, 236)
SEA: tuple[Colour, ...] = ((12, 46, 66), (22, 84, 98), (60, 136, 134))

EYE = np.array([-8.0, 9.5, -62.0], dtype=np.float32)
TARGET = np.array([-1.0, 9.5, 10.0], dtype=np.float32)
TO_SUN = np.array([-0.80, 0.30, -0.38], dtype=np.float32) / np.float32(0.935)
ZOOM, SHIFT = 1.35, 0.10
FAR = 700.0
TEXTURE = 512  # pixels of a texture's side
TOWER = (11.0, 20.0)  # x and z of the lighthouse
TOP = 40.0  # no ground is higher
NEAR_X, NEAR_Z = (-45.0, 125.0), (-22.0, 110.0)
GRID = 600  # points each way

Tongues = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Coast:
    """The land.

    Attributes:
        tongues: x and z of both ends, the radii there, and the heights of their tops.
        texture: As in `solids.textured`.
        heights: The ground around the lighthouse, on a grid over `NEAR_X` and `NEAR_Z`.
        foot: The height at which the lighthouse stands.
    """

    tongues: Tongues
    texture: Array
    heights: Array
    foot: float


def lighthouse(width: int, height: int, rng: np.random.Generator) -> Array:
    """A white and red tower on cliffs, its keeper's house, rocks in the surf, and another headland far away."""
    rng = rng.spawn(5)[-1]  # other clouds than in the other scenes
    coast = _coast(rng)
    rays = camera(width, height, EYE, TARGET, zoom=ZOOM, shift=SHIFT)
    sky = _afternoon(width, height, rng)

    def nearest(points: Array) -> Array:
        return np.asarray(np.min(_surfaces(coast, points), axis=0))

    origins = np.broadcast_to(EYE, rays.shape)
    reach = trace(origins, rays, nearest, far=FAR, steps=170, slack=0.001)
    sea = np.where(rays[:, 1] < -1e-4, EYE[1] / -rays[:, 1].clip(None, -1e-4), np.inf)
    picture = sky.reshape(-1, 3).copy()
    land = np.nonzero(np.isfinite(reach) & (reach < sea))[0]
    points = EYE + reach[land, None] * rays[land]
    picture[land] = _land(coast, points.astype(np.float32), reach[land], nearest)
    wet = np.nonzero(np.isfinite(sea) & ~(np.isfinite(reach) & (reach < sea)))[0]
    points = (EYE + sea[wet, None] * rays[wet]).astype(np.float32)
    picture[wet] = _sea(coast, points, rays[wet], sky, wet % width)
    return developed(picture.reshape(height, width, 3).clip(0, 1))


def _coast(rng: np.random.Generator) -> Coast:
    """The headland with the lighthouse, two rocks before it, and a far shore."""
    dx, dz = (float(d) for d in rng.uniform(-2, 2, 2))
    tongues = (
        (9.0 + dx, 17.0, 78.0, 62.0 + dz, 11.0, 44.0, 12.5, 27.0),
        (-15.0 + dx, 18.0 + dz, -14.0, 20.0, 3.0, 2.0, 5.5, 4.0),
        (-24.0 + dz, 4.0 + dx, -22.0, 5.0, 2.4, 1.4, 2.6, 2.0),
        (-190.0, 420.0, -420.0, 520.0, 70.0, 120.0, 30.0, 37.0),
    )
    texture = noise(rng, TEXTURE, TEXTURE, 10.0, octaves=6)
    across, away = (np.linspace(*span, GRID, dtype=np.float32) for span in (NEAR_X, NEAR_Z))
    x, z = (axis.ravel() for axis in np.meshgrid(across, away))
    heights = _raised(tongues, texture, np.stack([x, 0 * x, z], axis=1)).reshape(GRID, GRID)
    column, row = (
        round((at - low) / (high - low) * (GRID - 1))
        for at, (low, high) in zip(TOWER, (NEAR_X, NEAR_Z), strict=True)
    )
    return Coast(tongues, texture, heights, float(heights[row, column]) - 0.4)


# --- Distances --------------------------------------------------------------------------------------------------------


def _shore(tongues: Tongues, texture: Array, points: Array) -> tuple[Array, Array]:
    """Distance to the nearest shore (negative on land), and how high the land there is."""
    x, z = points[:, 0], points[:, 2]
    near = np.full(len(points), 1e3, dtype=np.float32)
    high = np.zeros(len(points), dtype=np.float32)
    rough = textured(texture, x / 60, z / 60) - 0.5
    rough = 9.0 * rough + 2.2 * (textured(texture, x / 13, z / 13) - 0.5)
    for ax, az, bx, bz, ra, rb, top_a, top_b in tongues:
        along = ((x - ax) * (bx - ax) + (z - az) * (bz - az)) / ((bx - ax) ** 2 + (bz - az) ** 2)
        along = along.clip(0, 1)
        away = np.hypot(x - ax - along * (bx - ax), z - az - along * (bz - az))
        size = ra + along * (rb - ra)
        away = away - size - rough * (0.25 + 0.05 * size).clip(0, 1.2)
        closer = away < near
        near = np.where(closer, away, near)
        high = np.where(closer, top_a + along * (top_b - top_a), high)
    return near, high


def _ground(coast: Coast, points: Array) -> Array:
    """Height of the land at x and z; below 0 in the sea."""
    across, away = (
        (points[:, i] - low) * ((GRID - 1) / (high - low))
        for i, (low, high) in ((0, NEAR_X), (2, NEAR_Z))
    )
    inside = (across >= 0) & (across < GRID - 1) & (away >= 0) & (away < GRID - 1)
    height = np.full(len(points), -2.5, dtype=np.float32)
    far = np.nonzero(~inside & (points[:, 2] > NEAR_Z[1]))[0]
    if len(far):
        height[far] = _raised(coast.tongues, coast.texture, points[far])
    near = np.nonzero(inside)[0]
    j, i = across[near].astype(np.int32), away[near].astype(np.int32)
    a, d = across[near] - j, away[near] - i
    field = coast.heights
    upper = field[i, j] * (1 - a) + field[i, j + 1] * a
    height[near] = upper * (1 - d) + (field[i + 1, j] * (1 - a) + field[i + 1, j + 1] * a) * d
    return height


def _raised(tongues: Tongues, texture: Array, points: Array) -> Array:
    """What `_ground` is read from."""
    near, high = _shore(tongues, texture, points)
    x, z = points[:, 0], points[:, 2]
    rise = smoothstep(1.0, -6.5, near)
    broken = textured(texture, x / 22, z / 22 + 0.3) - 0.5
    ledges = 4.5 * broken * smoothstep(1.5, -2.0, near) * (1.35 - rise)
    rolling = 2.4 * (textured(texture, x / 70 + 0.2, z / 70) - 0.5) * rise
    return np.asarray(-2.5 + (high + 2.5) * rise + ledges + rolling)


def _surfaces(coast: Coast, points: Array) -> list[Array]:
    """Distance to the ground, the tower and the house."""
    y = points[:, 1]
    ground = y - TOP
    low = np.nonzero((ground < 0.5) & (y > -4))[0]
    if len(low):
        near = points[low]
        x, z = near[:, 0], near[:, 2]
        # Cracks and ledges of the rock, which hardly show on the turf.
        crack = textured(coast.texture, x / 8 + near[:, 1] / 23, z / 8 + near[:, 1] / 9) - 0.5
        ground[low] = (near[:, 1] - _ground(coast, near) - 0.7 * crack) * 0.36
    high = ground >= 0.5
    ground[high] += 0.4
    return [ground, _tower(coast, points), _house(coast, points)]


def _tower(coast: Coast, points: Array) -> Array:
    """A tapering shaft, the gallery and the lantern."""
    x, y, z = points[:, 0] - TOWER[0], points[:, 1] - coast.foot, points[:, 2] - TOWER[1]
    ring = np.hypot(x, z)
    shaft = np.maximum((ring - 2.15 + 0.052 * y) * 0.95, np.abs(y - 7) - 9.0)
    gallery = np.maximum(ring - 1.95, np.abs(y - 16.1) - 0.22)
    rail = np.maximum(np.abs(ring - 1.85) - 0.05, np.abs(y - 17.15) - 0.06)
    lantern = np.maximum(ring - 1.0, np.abs(y - 17.3) - 1.3)
    dome = np.maximum(np.sqrt(ring**2 + ((y - 18.5) * 1.1) ** 2) - 1.25, 18.5 - y)
    rod = np.maximum(ring - 0.06, np.abs(y - 20.2) - 0.9)
    return np.asarray(np.min([shaft, gallery, rail, lantern, dome, rod], axis=0))


def _house(coast: Coast, points: Array) -> Array:
    """The keeper's house with a gable roof and a chimney."""
    x, y, z = _in_house(coast, points)
    body = np.maximum(np.abs(x) - 4.2, np.maximum(np.abs(z) - 2.5, np.abs(y) - 3.2))
    slope = (y - 3.2 + 0.9 * (np.abs(z) - 2.5)) * 0.74
    roof = np.maximum(np.abs(slope - 0.1) - 0.12, np.maximum(np.abs(x) - 4.5, np.abs(z) - 2.9))
    gable = np.maximum(np.maximum(slope, np.abs(x) - 4.2), np.maximum(np.abs(z) - 2.5, 2 - y))
    chimney = np.maximum(np.maximum(np.abs(x - 3.2) - 0.35, np.abs(z) - 0.4), np.abs(y - 5.4) - 1.2)
    return np.asarray(np.min([body, roof, gable, chimney], axis=0))


def _in_house(coast: Coast, points: Array) -> tuple[Array, Array, Array]:
    x, z = points[:, 0] - TOWER[0] - 10.5, points[:, 2] - TOWER[1] - 5.5
    return 0.96 * x + 0.28 * z, points[:, 1] - coast.foot - 1.2, -0.28 * x + 0.96 * z


# --- Light and colour -------------------------------------------------------------------------------------------------


def _land(coast: Coast, points: Array, reach: Array, nearest: Any) -> Array:
    """Rock, turf and buildings in the sun and under the sky, in haze, (n, 3)."""
    normal = normals(points, nearest, 0.05)
    kind = np.argmin(_surfaces(coast, points), axis=0)
    colours, glow = _painted(coast, points, normal, kind)
    facing = (normal @ TO_SUN).clip(0, 1)
    seen = np.zeros(len(points), dtype=np.float32)
    toward = np.nonzero(facing > 0)[0]
    start = (points[toward] + 0.12 * normal[toward]).astype(np.float32)
    seen[toward] = lit_part(start, TO_SUN, nearest, far=60.0, sharpness=20.0, steps=50)
    open_ = openness(points, normal, nearest, 2.5)
    light = (1.8 * facing * seen)[:, None] * rgb(SUN)
    light = light + (0.62 * open_ * (0.6 + 0.4 * normal[:, 1]))[:, None] * rgb(SKYLIGHT)
    light = light + (0.15 * open_)[:, None] * rgb(SUN)
    shown = colours * light + glow[:, None] * rgb(LAMP)
    shown = shown * 1.35 / (1 + 0.38 * shown)
    return mix(shown, rgb(HAZE), 0.92 * (1 - np.exp(-reach / 420)))


def _painted(coast: Coast, points: Array, normal: Array, kind: Array) -> tuple[Array, Array]:
    """Colours (n, 3) and own light (n,)."""
    x, y, z = points.T
    fine = textured(coast.texture, x / 4 + y / 7, z / 4 + y / 5)
    broad = textured(coast.texture, x / 31, z / 31)
    bent = y + 0.25 * x + 3 * broad
    strata = textured(coast.texture, bent / 9, 0.1 + bent / 37)
    rock = ramp(ROCK, (0.1 + 0.6 * strata + 0.4 * (fine - 0.45)).clip(0, 1))
    rock = mix(rock, rgb((38, 38, 36)), 0.75 * smoothstep(1.6, 0.3, y + 1.2 * (fine - 0.5)))
    turf = ramp(TURF, (1.3 * fine - 0.35 + 0.9 * (broad - 0.4)).clip(0, 1))
    green = smoothstep(0.62, 0.8, normal[:, 1] + 0.25 * (fine - 0.5)) * smoothstep(4.5, 7.0, y)
    path = smoothstep(0.9, 0.4, np.abs(z - TOWER[1] - 0.5 - 0.25 * (x - TOWER[0]) - 1.2 * broad))
    turf = mix(turf, rgb((206, 184, 146)), 0.8 * path * (x > TOWER[0] - 3) * (x < TOWER[0] + 60))
    colours = mix(rock, turf, green)
    glow = np.zeros(len(points), dtype=np.float32)
    up = y - coast.foot
    grime = 0.86 + 0.2 * textured(coast.texture, x / 3, y / 14)
    bands = smoothstep(-0.03, 0.03, np.sin(up * (np.pi / 3.2) + 0.9))
    tower = mix(np.broadcast_to(rgb(WHITE), points.shape), rgb(RED), bands) * grime[:, None]
    door = (z < TOWER[1]) & (np.abs(x - TOWER[0] + 0.4) < 0.5)
    opening = door & ((up < 2.6) | (np.abs(up % 4.6 - 3.6) < 0.5)) & (up < 15)
    tower = np.where(opening[:, None], rgb(IRON), tower)
    tower = np.where((up > 15.85)[:, None], rgb(IRON), tower)
    tower = np.where((up > 18.5)[:, None], rgb(RED) * 0.9, tower)
    pane = (up > 16.5) & (up < 18.4) & (np.hypot(x - TOWER[0], z - TOWER[1]) < 1.1)
    bars = np.abs(np.sin(4 * np.arctan2(z - TOWER[1], x - TOWER[0]))) > 0.2
    glow[(kind == 1) & pane & bars] = 0.85
    colours = np.where((kind == 1)[:, None], tower, colours)
    hx, hy, hz = _in_house(coast, points)
    roof = (hy - 3.2 + 0.9 * (np.abs(hz) - 2.5)) > -0.06
    house = rgb(WHITE) * grime[:, None]
    window = (np.abs((hx + 4.2) % 2.1 - 1.05) < 0.42) & (np.abs(hy - 1.0) < 0.75) & (hz < 0)
    house = np.where(window[:, None], rgb(IRON), house)
    tiles = rgb((150, 66, 48)) * (0.75 + 0.5 * fine)[:, None]
    house = np.where(roof[:, None], tiles, house)
    return np.where((kind == 2)[:, None], house, colours), glow


def _afternoon(width: int, height: int, rng: np.random.Generator) -> Array:
    """The sky, warmer toward the sun on the left, with clouds."""
    horizon = _horizon()
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width)[None, :] + 0.5) / height
    drift = noise(rng, width, height, 2.0, octaves=3, stretch=4)
    warm = 0.12 * (1 - x / x.max())
    sky = ramp(SKY, (y / horizon * 0.9 + warm + 0.1 * (drift - 0.5)).clip(0, 1))
    return cloudy(sky, rng, Clouds(CLOUD_LIT, CLOUD_SHADE, (-0.1, 0.5), clear=0.44), horizon)


def _horizon() -> float:
    """The horizon's distance from the top, in picture heights."""
    return 0.5 + SHIFT


def _sea(coast: Coast, points: Array, rays: Array, sky: Array, column: Any) -> Array:
    """Waves that mirror the sky, glitter in the sun, and break on the rocks, (n, 3)."""
    x, z = points[:, 0], points[:, 2]
    away = length(points - EYE)
    swell = textured(coast.texture, x / 60 + 0.2 * np.sin(z / 23), z / 26)
    waves = textured(coast.texture, x / 19, z / 9)
    ripples = textured(coast.texture, x / 5, z / 3.1)
    calm = np.exp(-away / 160)
    lean = 0.55 * (swell - 0.5) + 0.42 * (waves - 0.5) + 0.30 * (ripples - 0.5) * calm
    side = 0.30 * (textured(coast.texture, x / 17 + 0.5, z / 13 + 0.3) - 0.5)
    tilt = np.stack([side, np.ones_like(x), 0.5 * lean], axis=1)
    tilt = tilt / length(tilt)[:, None]
    ahead = np.einsum("ij,ij->i", rays, tilt)
    mirrored = rays - 2 * ahead[:, None] * tilt
    climb = np.abs(mirrored[:, 1]) / np.sqrt(1 - mirrored[:, 1] ** 2).clip(0.1)
    row = ((_horizon() - ZOOM * climb.clip(0.01)) * len(sky)).clip(0, len(sky) - 1).astype(int)
    reflected = sky[row, column]
    reflectance = (0.04 + 0.96 * (1 + ahead).clip(0, 1) ** 4).clip(0.05, 0.85)
    depth = 0.45 + 0.9 * (swell - 0.5) + 0.7 * (waves - 0.5)
    water = mix(ramp(SEA, depth.clip(0, 1)) * 0.9, reflected, reflectance)
    glint = (mirrored @ TO_SUN).clip(0, 1)
    water = water + (0.9 * smoothstep(0.95, 0.995, glint))[:, None] * rgb(SUN)
    near, _ = _shore(coast.tongues, coast.texture, points)
    surf = near + 5.0 * (waves - 0.5) + 3.0 * (ripples - 0.5)
    foam = smoothstep(2.6, 0.2, surf) * (0.4 + 0.6 * smoothstep(0.35, 0.6, ripples))
    lines = smoothstep(0.09, 0.02, np.abs((near + 6 * swell) / 7.0 % 1 - 0.5)) * (near < 22)
    foam = np.maximum(foam, 0.65 * lines * smoothstep(0.45, 0.62, ripples))
    crests = smoothstep(0.66, 0.74, waves) * smoothstep(0.5, 0.6, ripples) * calm
    foam = np.maximum(foam, 0.7 * crests)
    water = mix(water, rgb(FOAM) * 0.95, foam.clip(0, 1))
    return mix(water, rgb(HAZE), 0.85 * (1 - np.exp(-away / 900)))
