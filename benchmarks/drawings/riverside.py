"""An old town along a river in the evening sun, seen from the other bank.

Lengths are in metres. The river's surface is at height 0; the quay runs along x at z = QUAY. Houses stand in rows of
cells along x: each cell's house is drawn from a table by the number of the cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np

from benchmarks.drawings.nature import Clouds, cloudy, developed
from benchmarks.drawings.raster import Array, Colour, mix, noise, ramp, rgb, smoothstep
from benchmarks.drawings.solids import camera, length, lit_part, normals, openness, textured, trace

SKY: tuple[Colour, ...] = (
    (58, 106, 176),
    (102, 150, 204),
    (160, 190, 216),
    (224, 212, 196),
    (250, 216, 170),
    (255, 208, 150),
)
CLOUD_LIT: Colour = (255, 236, 212)
CLOUD_SHADE: Colour = (156, 160, 186)
SUN: Colour = (255, 206, 142)
SKYLIGHT: Colour = (120, 146, 196)
HAZE: Colour = (226, 206, 188)
FACADES: tuple[Colour, ...] = (
    (224, 190, 120),
    (214, 206, 188),
    (204, 130, 92),
    (226, 174, 158),
    (176, 186, 164),
    (196, 158, 106),
    (232, 224, 206),
    (206, 110, 84),
    (150, 168, 184),
    (222, 164, 70),
)
ROOFS: tuple[Colour, ...] = ((150, 74, 52), (126, 58, 44), (166, 92, 62), (104, 70, 62))
SHUTTERS: tuple[Colour, ...] = ((64, 92, 76), (110, 52, 44), (70, 84, 110), (92, 70, 52))
PANE: Colour = (34, 40, 54)
LAMPLIGHT: Colour = (255, 196, 104)
FRAME: Colour = (232, 226, 214)
STONE: tuple[Colour, ...] = ((92, 84, 74), (134, 122, 104), (172, 158, 132))
PAVING: Colour = (150, 138, 120)
LEAVES: tuple[Colour, ...] = ((26, 38, 20), (58, 76, 32), (110, 120, 46), (160, 148, 60))
GRASS: tuple[Colour, ...] = ((48, 66, 34), (88, 104, 50), (132, 134, 70))
SLATE: Colour = (82, 88, 100)
DEEP_WATER: Colour = (30, 48, 50)

QUAY = 0.0
TO_SUN = np.array([-0.74, 0.40, -0.54], dtype=np.float32)
EYE = np.array([34.0, 5.0, -30.0], dtype=np.float32)
TARGET = np.array([-6.0, 5.0, 6.0], dtype=np.float32)
FAR = 260.0
CELLS = 96  # houses of a row before they repeat
TEXTURE = 512  # pixels of a texture's side
TOWER = np.array([-33.0, 0.0, 36.0], dtype=np.float32)
WATER, QUAYSIDE, HILL, WALLS, TREES, CHURCH = range(6)


@dataclass(frozen=True)
class Row:
    """Houses side by side: `wide` from middle to middle, from z = `front` on, with feet at height `foot`."""

    wide: float
    front: float
    deep: float
    foot: float
    houses: Array  # (CELLS, 6): height to the eaves, pitch, setback, facade, roof, seed, all from 0 to 1


@dataclass(frozen=True)
class Alley:
    """Trees in a row, one in the middle of each cell of `wide` metres; a size of 0 is a gap."""

    wide: float
    z: float
    foot: float
    sizes: Array  # (CELLS,), radii


@dataclass(frozen=True)
class Town:
    """What stands on the far bank; `lamps` is the part of the windows that are lit."""

    rows: tuple[Row, ...]
    alleys: tuple[Alley, ...]
    texture: Array
    lamps: float


def riverside(width: int, height: int, rng: np.random.Generator) -> Array:
    """Gabled houses with a church behind them, trees on the quay, and all of it in the water."""
    town = _built(rng)
    rays = camera(width, height, EYE, TARGET, zoom=1.25, shift=0.13)
    sky = _evening(width, height, rng)
    picture, reach = _view(town, np.broadcast_to(EYE, rays.shape), rays, steps=110)
    behind = ~np.isfinite(reach)
    flat = sky.reshape(-1, 3)
    picture[behind] = flat[behind]
    wet = np.nonzero(
        (rays[:, 1] < 0) & (EYE[1] + np.where(behind, 1e4, reach) * rays[:, 1] < 0.01)
    )[0]
    picture[wet] = _river(town, sky, rays[wet], wet % width)
    return developed(picture.reshape(height, width, 3))


def _built(rng: np.random.Generator) -> Town:
    """Three rows up the hill, and trees along the quay and between the rows."""
    rows = tuple(
        Row(wide, front, deep, foot, rng.random((CELLS, 6)).astype(np.float32))
        for wide, front, deep, foot in (
            (6.4, 3.4, 9.0, 2.6),
            (7.2, 16.0, 9.0, 5.2),
            (7.8, 30.0, 10.0, 9.0),
        )
    )
    sizes = rng.uniform(1.3, 2.4, CELLS) * (rng.random(CELLS) < 0.5)
    alleys = (
        Alley(9.0, 1.7, 2.6, sizes.astype(np.float32)),
        Alley(8.5, 27.3, 8.4, rng.uniform(1.8, 3.4, CELLS).astype(np.float32)),
        Alley(9.5, 46.0, 11.5, rng.uniform(3.0, 4.4, CELLS).astype(np.float32)),
        Alley(9.0, 54.0, 14.0, rng.uniform(3.0, 4.4, CELLS).astype(np.float32)),
    )
    texture = noise(rng, TEXTURE, TEXTURE, 12.0, octaves=6)
    return Town(rows, alleys, texture, 0.14)


# --- Distances --------------------------------------------------------------------------------------------------------


def _surfaces(town: Town, points: Array) -> list[Array]:
    """Distance to each kind of surface but the water, in the order QUAYSIDE … CHURCH."""
    x, y, z = points.T
    quay = _box(x * 0, y - 1.1, z - 101.0, (1e3, 1.5, 101.0 + QUAY))
    hill = np.maximum((y - _ground(z)) * 0.85, 12 - z)
    walls = np.min([_houses(row, points) for row in town.rows], axis=0)
    return [quay, hill, walls, _foliage(town, points), _church(points)]


def _ground(z: Array) -> Array:
    """Height of the hill behind the quay."""
    return np.asarray(2.55 + 0.27 * (z - 13).clip(0, 40))


def _box(x: Array, y: Array, z: Array, half: tuple[float, float, float]) -> Array:
    """A box around the origin; `half` are halves of its sizes."""
    dx, dy, dz = np.abs(x) - half[0], np.abs(y) - half[1], np.abs(z) - half[2]
    outside = np.sqrt(dx.clip(0) ** 2 + dy.clip(0) ** 2 + dz.clip(0) ** 2)
    return np.asarray(outside + np.maximum(np.maximum(dx, dy), dz).clip(None, 0))


@dataclass(frozen=True)
class Local:
    """Points in the measures of their houses: x across from the middle, y from the foot, z from the facade."""

    x: Array
    y: Array
    z: Array
    tall: Array  # to the eaves
    pitch: Array
    own: Array  # (n, 6), as in `Row.houses`
    half: float


def _local(row: Row, points: Array) -> Local:
    x, y, z = points.T
    cell = np.floor(x / row.wide)
    own = row.houses[cell.astype(np.int32) % CELLS]
    tall = 5.6 + 4.2 * own[:, 0]
    pitch = 0.95 + 0.55 * own[:, 1]
    return Local(
        x - (cell + 0.5) * row.wide, y - row.foot, z - row.front - 0.9 * own[:, 2], tall, pitch,
        own, row.wide / 2 - 0.03,
    )  # fmt: skip


def _houses(row: Row, points: Array) -> Array:
    """Walls and roofs with gables toward the river; chimneys."""
    y, z = points[:, 1] - row.foot - 6, points[:, 2] - row.front - row.deep / 2
    near = _box(0 * y, y, z, (1e3, 11.0, row.deep / 2 + 1))
    found = near + 0.6
    close = np.nonzero(near < 0.6)[0]
    h = _local(row, points[close])
    depth = np.abs(h.z - row.deep / 2) - row.deep / 2
    walls = np.maximum(np.maximum(np.abs(h.x) - h.half, depth), h.y - h.tall - 8)
    slope = 1 / np.sqrt(1 + h.pitch**2)
    under = (h.y - h.tall - (h.half - np.abs(h.x)) * h.pitch) * slope
    body = np.maximum(walls, under)
    # The roof stands out over the facade and the eaves.
    slab = np.maximum(
        np.abs(under - 0.12) - 0.12, np.maximum(depth - 0.35, np.abs(h.x) - h.half - 0.02)
    )
    chimney = np.maximum(
        np.maximum(np.abs(h.x - 0.5 * h.half) - 0.28, np.abs(h.z - 2.5) - 0.32),
        np.abs(h.y - h.tall - 0.62 * h.half * h.pitch) - 1.0,
    )
    solid = np.minimum(np.minimum(body, slab), chimney)
    # A ray must not step over the next house: at most to the border of its cell, and a little farther.
    border = h.half - np.abs(h.x) + 0.9
    found[close] = np.minimum(solid * 0.9, border.clip(0.08))
    return found


def _foliage(town: Town, points: Array) -> Array:
    """Crowns of trees, rough with leaves."""
    found = np.full(len(points), 1e3, dtype=np.float32)
    for alley in town.alleys:
        cell = np.floor(points[:, 0] / alley.wide)
        size = alley.sizes[cell.astype(np.int32) % CELLS]
        x = points[:, 0] - (cell + 0.5) * alley.wide
        y = 0.82 * (points[:, 1] - alley.foot - 1.1 * size)
        z = points[:, 2] - alley.z
        away = np.sqrt(x * x + y * y + z * z) - size
        # A gap is far away; no ray steps over the next cell's tree.
        away = np.where(size > 0, away, 1e3)
        beyond = np.maximum(np.abs(z) - 4.5, alley.wide / 2 - np.abs(x) + 1.3)
        found = np.minimum(found, np.minimum(away, beyond))
    close = np.nonzero(found < 0.8)[0]
    x, y, z = points[close].T
    rough = np.sin(2.1 * x + 1.3 * y) * np.sin(2.3 * y + 0.7 * z) * np.sin(1.9 * z + 0.9 * x)
    fine = np.sin(6.1 * x + 2.0 * z) * np.sin(5.7 * y + x) * np.sin(6.5 * z + y)
    found[close] = (found[close] + 0.45 * rough + 0.2 * fine) * 0.6
    return found


def _church(points: Array) -> Array:
    """A tower with a tall spire, and the nave behind it."""
    x, y, z = (points - TOWER).T
    ax, az = np.abs(x), np.abs(z)
    shaft = _box(x, y - 14, z, (2.9, 17.0, 2.9))
    ledge = _box(x, y - 25.0, z, (3.2, 0.25, 3.2))
    spire = (np.maximum(np.maximum(ax, az), 0.74 * (ax + az)) - 0.22 * (46.5 - y)) * 0.95
    spire = np.maximum(spire, 31.0 - y)
    nave = np.maximum(_box(x - 13, y - 10, z, (11.0, 13.0, 5.0)), (y - 23 + 1.3 * az) * 0.6)
    return np.asarray(np.minimum(np.minimum(shaft, ledge), np.minimum(spire, nave)))


# --- Light and colour -------------------------------------------------------------------------------------------------


def _view(town: Town, origins: Array, rays: Array, steps: int) -> tuple[Array, Array]:
    """The colours that rays meet, (n, 3), and how far away, (n,); infinite for the sky."""

    def nearest(points: Array) -> Array:
        return np.asarray(np.min(_surfaces(town, points), axis=0))

    reach = trace(origins, rays, nearest, far=FAR, steps=steps, slack=0.0008)
    colours = np.zeros((len(rays), 3), dtype=np.float32)
    met = np.nonzero(np.isfinite(reach) & (origins[:, 1] + reach * rays[:, 1] > -0.3))[0]
    points = origins[met] + reach[met, None] * rays[met]
    normal = normals(points, nearest, 0.02)
    kind = np.argmin(_surfaces(town, points), axis=0) + 1
    surface = _painted(town, points, kind)
    facing = (normal @ TO_SUN).clip(0, 1)
    seen = np.zeros(len(points), dtype=np.float32)
    toward = np.nonzero(facing > 0)[0]
    start = points[toward] + 0.05 * normal[toward]
    seen[toward] = lit_part(start, TO_SUN, nearest, far=40.0, sharpness=26.0, steps=40)
    open_ = openness(points, normal, nearest, 1.6)
    light = (1.75 * facing * seen)[:, None] * rgb(SUN)
    light += (0.62 * open_ * (0.65 + 0.35 * normal[:, 1]))[:, None] * rgb(SKYLIGHT)
    light += (0.16 * open_)[:, None] * rgb(SUN)
    shown = surface[:, :3] * light + surface[:, 3:] * rgb(LAMPLIGHT)
    shown = shown * 1.3 / (1 + 0.35 * shown)
    haze = 1 - np.exp(-((reach[met].clip(0) / 150) ** 1.2))
    colours[met] = mix(shown, rgb(HAZE), 0.75 * haze)
    return colours, reach


def _painted(town: Town, points: Array, kind: Array) -> Array:
    """Colours and own light of surfaces, (n, 4)."""
    x, y, z = points.T
    out = np.zeros((len(points), 4), dtype=np.float32)
    broad = textured(town.texture, x / 40 + z / 57, y / 40 + z / 31)
    fine = textured(town.texture, x / 5 + z / 7, y / 5 + z / 9)
    course, along = np.floor(y / 0.42), x / 0.9
    block = textured(town.texture, np.floor(along + 0.5 * (course % 2)) * 0.137, course * 0.271)
    joint = smoothstep(0.1, 0.0, np.abs((y / 0.42) % 1 - 0.5) - 0.4)
    wall = (
        ramp(STONE, (0.2 + 0.5 * block + 0.5 * (fine - 0.3)).clip(0, 1))
        * (0.7 + 0.3 * joint)[:, None]
    )
    damp = smoothstep(1.1, 0.1, y + 0.8 * (broad - 0.5))
    wall = mix(wall, rgb((54, 58, 40)), 0.75 * damp)
    paved = (y > 2.5)[:, None]
    colours = np.where(paved, rgb(PAVING) * (0.8 + 0.4 * fine)[:, None], wall)
    colours = np.where((kind == HILL)[:, None], ramp(GRASS, fine), colours)
    leafy = textured(town.texture, x / 1.1 + z / 1.7, y / 1.1 + z / 2.3)
    leaves = ramp(LEAVES, (2.2 * leafy - 0.7 + 0.6 * (fine - 0.5)).clip(0, 1))
    colours = np.where((kind == TREES)[:, None], leaves, colours)
    spire = rgb(SLATE) * (0.8 + 0.4 * fine)[:, None]
    limestone = rgb((206, 188, 156)) * (0.75 + 0.4 * block)[:, None]
    sound = (np.abs(y - 26.8) < 1.7) & (np.abs(np.abs(x - TOWER[0]) - 1.1) < 0.6)
    clock = np.hypot(x - TOWER[0], y - 23.2)
    limestone = mix(limestone, rgb(FRAME), (clock < 1.1) & (z < TOWER[2] - 2.5))
    limestone = mix(limestone, rgb(PANE), (np.abs(clock - 0.95) < 0.12) & (z < TOWER[2] - 2.5))
    church = np.where((y > 31)[:, None], spire, limestone)
    church = np.where((sound & (z < TOWER[2]))[:, None], rgb(PANE), church)
    colours = np.where((kind == CHURCH)[:, None], church, colours)
    out[:, :3] = colours
    mine = np.nonzero(kind == WALLS)[0]
    if len(mine):
        which = np.argmin([_houses(row, points[mine]) for row in town.rows], axis=0)
        for number, row in enumerate(town.rows):
            own = mine[which == number]
            out[own] = _house_colours(town, row, points[own], fine[own], broad[own])
    return out


def _house_colours(town: Town, row: Row, points: Array, fine: Array, broad: Array) -> Array:
    """Plaster, timber, windows and tiles: (n, 4)."""
    h = _local(row, points)
    facades, roofs = np.array(FACADES, np.float32) / 255, np.array(ROOFS, np.float32) / 255
    shutters = np.array(SHUTTERS, np.float32) / 255
    plaster = (
        facades[(h.own[:, 3] * 9.99).astype(int)]
        * (0.86 + 0.2 * fine + 0.16 * (broad - 0.5))[:, None]
    )
    plaster = mix(
        plaster, rgb((120, 104, 88)), 0.5 * smoothstep(0.9, 0.0, h.y + 0.8 * (broad - 0.5))
    )
    lamp = np.zeros(len(points), dtype=np.float32)
    # Storeys of windows: on the facade, across; in the gable too, where there is room.
    storey_high, span = 2.35, 1.75
    storey, column = np.floor(h.y / storey_high), np.floor(h.x / span + 0.5)
    u, v = h.x - column * span, h.y - (storey + 0.55) * storey_high
    room = h.half - 0.5 - (h.y + 0.9 - h.tall).clip(0) / h.pitch
    front = (h.z < 0.3) & (np.abs(column) * span + 0.75 < room) & (storey < 6)
    shuttered = (h.own[:, 5] * 7 % 1 < 0.5) & (storey < 3)
    shutter = front & shuttered & (np.abs(np.abs(u) - 0.63) < 0.2) & (np.abs(v) < 0.68)
    colours = np.where(shutter[:, None], shutters[(h.own[:, 5] * 3.99).astype(int)], plaster)
    frame = front & (np.abs(u) < 0.46) & (np.abs(v) < 0.74)
    colours = np.where(frame[:, None], rgb(FRAME), colours)
    pane = front & (np.abs(u) < 0.38) & (np.abs(v) < 0.66)
    pane &= (np.abs(u) > 0.035) & (np.abs(v - 0.2) > 0.035)
    chance = np.abs(np.sin(37.7 * storey + 91.3 * column + 713.0 * h.own[:, 5])) % 1
    sheen = 0.35 + 0.5 * smoothstep(
        0.3, 0.9, textured(town.texture, h.x / 6 + h.own[:, 5], h.y / 9)
    )
    glass = rgb(PANE)[None] * (1 - sheen)[:, None] + rgb((150, 170, 196)) * (0.6 * sheen)[:, None]
    colours = np.where(pane[:, None], glass, colours)
    lamp[pane & (chance < town.lamps)] = 0.75
    timbered = (h.own[:, 4] * 5 % 1 < 0.33) & (h.z < 0.3) & ~frame & ~shutter & (h.y > 2.3)
    beam = (np.abs(v + 0.52 * storey_high) < 0.11) | (np.abs(np.abs(u) - span / 2) < 0.09)
    brace = np.abs(np.abs(u) - 0.45 - 0.35 * (v + 1.2)) < 0.07
    colours = np.where(
        (timbered & (beam | (brace & (v < -0.5))))[:, None], rgb((84, 56, 40)), colours
    )
    door = (h.z < 0.3) & (h.y < 2.05) & (np.abs(h.x - 0.2) < 0.6)
    colours = np.where(door[:, None], shutters[(h.own[:, 2] * 3.99).astype(int)] * 0.7, colours)
    lamp[door] = 0
    under = h.y - h.tall - (h.half - np.abs(h.x)) * h.pitch
    roof = (under > -0.03) | ((h.y > h.tall + 0.2) & (h.z > 0.4))
    tile = np.abs(np.sin(pi * (h.y * 2.6))) ** 0.5
    tiles = roofs[(h.own[:, 4] * 3.99).astype(int)] * (0.62 + 0.25 * tile + 0.4 * fine)[:, None]
    moss = smoothstep(0.55, 0.8, broad)
    tiles = mix(tiles, rgb((88, 88, 58)), 0.4 * moss)
    colours = np.where(roof[:, None], tiles, colours)
    lamp[roof] = 0
    return np.concatenate([colours, lamp[:, None]], axis=1)


def _evening(width: int, height: int, rng: np.random.Generator) -> Array:
    """The sky: a gradient and clouds lit from the left."""
    horizon = 0.63
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width)[None, :] + 0.5) / height
    drift = noise(rng, width, height, 2.0, octaves=3, stretch=4)
    warm = 0.10 * (1 - x / x.max())
    sky = ramp(SKY, (y / horizon * 0.86 + warm + 0.1 * (drift - 0.5)).clip(0, 1))
    return cloudy(sky, rng, Clouds(CLOUD_LIT, CLOUD_SHADE, (-0.2, 0.5), clear=0.46), horizon)


def _river(town: Town, sky: Array, rays: Array, column: Any) -> Array:
    """Water where rays reach it: what it mirrors, with ripples, and its own depth; `column` is each ray's."""
    height = len(sky)
    reach = EYE[1] / -rays[:, 1]
    points = EYE + reach[:, None] * rays
    x, z = points[:, 0], points[:, 2]
    calm = np.exp(-reach / 60)
    waves = textured(town.texture, x / 4, z / 9) + 0.6 * textured(town.texture, x / 17, z / 40)
    across = textured(town.texture, x / 5 + 0.4, z / 7 + 0.7) - 0.5
    tilt = np.stack([0.03 * across, np.ones_like(x), 0.055 * (waves - 0.8)], axis=1)
    tilt[:, [0, 2]] *= (0.25 + calm)[:, None]
    tilt /= length(tilt)[:, None]
    mirrored = rays - 2 * np.einsum("ij,ij->i", rays, tilt)[:, None] * tilt
    mirrored[:, 1] = np.abs(mirrored[:, 1])
    mirrored = mirrored.astype(np.float32)
    shown, met = _view(
        town, (points + np.array([0, 0.02, 0])).astype(np.float32), mirrored, steps=70
    )
    nothing = ~np.isfinite(met)
    climb = mirrored[nothing, 1] / np.sqrt(1 - mirrored[nothing, 1] ** 2).clip(0.1)
    row = ((0.63 - 1.25 * climb) * height).clip(0, height - 1).astype(int)
    shown[nothing] = sky[row, column[nothing]]
    steep = -np.einsum("ij,ij->i", rays, tilt)
    reflectance = (0.12 + 0.88 * (1 - steep.clip(0, 1)) ** 3.2).clip(0.18, 0.92)
    return mix(np.broadcast_to(rgb(DEEP_WATER), shown.shape), shown, reflectance)
