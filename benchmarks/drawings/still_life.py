"""A still life by a window: fruit, a jug and a bottle on a cloth.

Lengths are in decimetres. The table is at height 0, and the window is on the left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import cos, sin

import numpy as np

from benchmarks.drawings.nature import developed
from benchmarks.drawings.raster import Array, Colour, mix, noise, ramp, rgb, smoothstep
from benchmarks.drawings.solids import (
    camera,
    length,
    lit_part,
    normals,
    openness,
    textured,
    trace,
    united,
)

WALL: tuple[Colour, ...] = ((70, 80, 84), (122, 126, 116), (172, 164, 140), (200, 188, 158))
WOOD: tuple[Colour, ...] = ((58, 32, 20), (104, 62, 36), (146, 94, 54), (176, 122, 74))
LINEN: Colour = (236, 230, 216)
GLAZE: tuple[Colour, ...] = ((40, 84, 122), (70, 120, 150), (120, 162, 172))
BOTTLE: Colour = (16, 44, 26)
APPLE: tuple[Colour, ...] = ((232, 190, 84), (206, 66, 40), (164, 26, 30), (112, 14, 26))
PEAR: tuple[Colour, ...] = ((120, 132, 44), (176, 172, 62), (214, 184, 78), (200, 120, 56))
LEMON: tuple[Colour, ...] = ((214, 160, 22), (246, 206, 48))
ORANGE: tuple[Colour, ...] = ((214, 96, 16), (244, 142, 36))
STALK: Colour = (74, 52, 30)
WINDOW: Colour = (255, 240, 214)
ROOM: Colour = (104, 116, 138)

TO_WINDOW = np.array([-0.66, 0.5, -0.56], dtype=np.float32)
EYE = np.array([0.3, 3.1, -8.2], dtype=np.float32)
TARGET = np.array([0.1, 1.25, 0.6], dtype=np.float32)
WALL_Z = 3.6
TEXTURE = 512  # pixels of a texture's side

#: Radius by height of the jug and of the bottle.
JUG = (
    (0, 0.62),
    (0.15, 0.72),
    (0.7, 0.98),
    (1.2, 1.02),
    (1.7, 0.8),
    (2.1, 0.5),
    (2.5, 0.46),
    (2.75, 0.56),
)
FLASK = (
    (0, 0.52),
    (0.1, 0.56),
    (1.9, 0.56),
    (2.3, 0.46),
    (2.7, 0.2),
    (3.3, 0.16),
    (3.35, 0.19),
    (3.5, 0.19),
)


@dataclass(frozen=True)
class Thing:
    """A solid on the table.

    Attributes:
        at: (3,), its foot.
        turn: angle about the upright axis, and how far it leans over, in radians.
        radius: of a ball around it, whose middle is `radius` above the foot.
        distance: in its own measures, from its foot.
        paint: colours (n, 3) at points in its own measures; the texture is (TEXTURE, TEXTURE) in [0, 1].
        gloss: strength and sharpness of the window's reflection.
    """

    at: tuple[float, float, float]
    turn: tuple[float, float]
    radius: float
    distance: Callable[[Array], Array]
    paint: Callable[[Array, Array], Array]
    gloss: tuple[float, float]

    def local(self, points: Array) -> Array:
        """Points in the thing's own measures."""
        x, y, z = (points - np.asarray(self.at, dtype=np.float32)).T
        c, s = cos(self.turn[0]), sin(self.turn[0])
        x, z = c * x - s * z, s * x + c * z
        c, s = cos(self.turn[1]), sin(self.turn[1])
        y = y - self.radius
        x, y = c * x - s * y, s * x + c * y
        return np.stack([x, y + self.radius, z], axis=1)


def still_life(width: int, height: int, rng: np.random.Generator) -> Array:
    """Apples, pears, a lemon, an orange, a jug and a bottle on a white cloth, lit from a window."""
    things = _arranged(rng)
    texture = noise(rng, TEXTURE, TEXTURE, 14.0, octaves=5)
    folds = [float(turn) for turn in rng.uniform(0, 6, 3)]

    def every(points: Array) -> list[Array]:
        found = [_cloth(points, folds), points[:, 1] + 0.02, WALL_Z - points[:, 2]]
        return found + [_bounded(thing, points) for thing in things]

    def nearest(points: Array) -> Array:
        return np.asarray(np.min(every(points), axis=0))

    rays = camera(width, height, EYE, TARGET, zoom=1.55)
    origins = np.broadcast_to(EYE, rays.shape)
    reach = trace(origins, rays, nearest, far=20.0, steps=90)
    reach = np.where(np.isfinite(reach), reach, 14.0)
    points = (origins + reach[:, None] * rays).astype(np.float32)
    normal = normals(points, nearest, 0.004)
    kind = np.argmin(every(points), axis=0)
    colours, gloss = _painted(points, kind, things, texture)
    seen = np.zeros(len(points), dtype=np.float32)
    facing = np.nonzero(normal @ TO_WINDOW > -0.09)[0]
    seen[facing] = lit_part(points[facing], TO_WINDOW, nearest, far=7.0, sharpness=6.0, steps=60)
    open_ = openness(points, normal, nearest, 0.7)
    light = _light(points, normal, seen, open_)
    mirrored = rays - 2 * (rays * normal).sum(1, keepdims=True) * normal
    shine = _window(mirrored, gloss[:, 1]) * gloss[:, 0] * (0.25 + 0.75 * seen)
    picture = colours * light + shine[:, None] * rgb(WINDOW)
    return developed(_exposed(picture).reshape(height, width, 3))


def _bounded(thing: Thing, points: Array) -> Array:
    """Distance to a thing; to a ball around it where that is far, which is quicker."""
    middle = np.asarray(thing.at, dtype=np.float32)
    middle[1] += thing.radius
    found = length(points - middle) - 1.15 * thing.radius
    near = np.nonzero(found < 0.35)[0]
    found += 0.1
    found[near] = thing.distance(thing.local(points[near]))
    return np.asarray(found, dtype=np.float32)


def _light(points: Array, normal: Array, seen: Array, open_: Array) -> Array:
    """The window, the dim room, and what the table throws back, (n, 3)."""
    facing = (normal @ TO_WINDOW * 0.92 + 0.08).clip(0, 1)
    # The window is near: things farther to the right get less of it.
    nearness = 1.25 / (1 + 0.012 * np.square(points - np.array([-4.0, 3, -2])).sum(1))
    window = 1.75 * facing * seen * nearness
    room = 0.42 * open_ * (0.6 + 0.4 * normal[:, 1])
    bounce = 0.34 * open_ * (0.5 - 0.5 * normal[:, 1]) * np.exp(-0.9 * points[:, 1].clip(0))
    return np.asarray(
        window[:, None] * rgb(WINDOW)
        + room[:, None] * rgb(ROOM) * 1.5
        + bounce[:, None] * rgb((255, 214, 160))
    )


def _window(mirrored: Array, sharpness: Array) -> Array:
    """How bright the window is in a direction: two panes with a bar between them, (n,)."""
    ahead = mirrored @ TO_WINDOW
    side = np.cross(TO_WINDOW, np.array([0, 1.0, 0]))
    side = side / np.linalg.norm(side)
    across, up = mirrored @ side, mirrored @ np.cross(side, TO_WINDOW)
    soft = 0.12 / sharpness
    inside = _edge(0.27 - np.abs(across), soft) * _edge(0.34 - np.abs(up), soft)
    bars = 1 - 0.8 * _edge(0.03 - np.abs(across), soft) - 0.5 * _edge(0.025 - np.abs(up), soft)
    return np.asarray(inside * bars.clip(0, 1) * (ahead > 0))


def _edge(inside: Array, soft: Array) -> Array:
    t = (0.5 + inside / soft).clip(0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _exposed(picture: Array) -> Array:
    """A film's curve: bright parts are compressed."""
    picture = picture * 1.4
    return np.asarray((picture * (1 + picture / 6) / (1 + picture * 0.72)).clip(0, 1))


# --- The things -------------------------------------------------------------------------------------------------------


def _arranged(rng: np.random.Generator) -> list[Thing]:
    """The things at their places; another seed moves and turns them."""

    def near(x: float, z: float) -> tuple[float, float, float]:
        dx, dz = rng.uniform(-0.22, 0.22, 2)
        return float(x + dx), 0.03, float(z + dz)

    def turn(lean: float) -> tuple[float, float]:
        return float(rng.uniform(0, 6.28)), float(rng.normal(0, 1) * lean)

    side = float(rng.choice((-1.0, 1.0)))
    jug = Thing(near(-1.55 * side, 1.3), (0.6, 0), 1.45, _jug, _glazed, (0.75, 2.0))
    flask = Thing(near(0.55 * side, 1.9), (0, 0), 1.8, _flask, _glass, (1.1, 3.0))
    fruit = [
        Thing(near(-0.45 * side, 0.15), turn(0.25), 0.5, _apple, _apple_skin, (0.42, 1.2)),
        Thing(near(1.0 * side, 0.1), turn(0.35), 0.5, _apple, _apple_skin, (0.42, 1.2)),
        Thing(near(0.42 * side, -0.95), turn(0.5), 0.47, _orange, _orange_skin, (0.22, 0.7)),
        Thing(near(1.95 * side, 0.55), turn(0.1), 0.75, _pear, _pear_skin, (0.25, 0.8)),
        Thing(
            near(-0.85 * side, -1.1),
            (float(rng.uniform(-0.7, 0.7)), 0),
            0.42,
            _lemon,
            _lemon_skin,
            (0.3, 0.8),
        ),
        Thing(
            near(2.5 * side, -0.6),
            (float(rng.uniform(2, 4)), 1.25),
            0.6,
            _pear,
            _pear_skin,
            (0.25, 0.8),
        ),
    ]
    return [jug, flask, *fruit]


def _cloth(points: Array, folds: list[float]) -> Array:
    """A cloth that lies over a part of the table in soft folds."""
    x, y, z = points.T
    wave = 0.10 * np.sin(1.3 * x + 0.9 * z + folds[0]) + 0.07 * np.sin(2.3 * x - 1.7 * z + folds[1])
    wave += 0.03 * np.sin(5.1 * x + 2.2 * z + folds[2])
    crumpled = smoothstep(0.9, 2.6, np.hypot(x - 0.3, 1.3 * (z - 0.2)))
    height = 0.02 + crumpled * np.abs(wave) * 1.5
    edge = np.abs(x - 0.25) + 0.8 * np.abs(z + 0.1) - 3.6 + 0.25 * np.sin(2 * z + folds[1])
    return np.asarray(np.maximum((y - height) * 0.75, edge * 0.5))


def _revolved(points: Array, profile: tuple[tuple[float, float], ...]) -> Array:
    """A solid of revolution."""
    radii = _smooth(profile)
    top, bottom = profile[-1][0], profile[0][0]
    place = (points[:, 1] - bottom) * (len(radii) / (top - bottom))
    radius = radii[place.astype(np.int32).clip(0, len(radii) - 1)]
    beside = (np.hypot(points[:, 0], points[:, 2]) - radius) * 0.8
    above = np.maximum(points[:, 1] - top, bottom - points[:, 1])
    return np.asarray(np.maximum(beside, above))


@cache
def _smooth(profile: tuple[tuple[float, float], ...]) -> Array:
    """Smoothed radii of a profile at equal steps of the height."""
    heights = np.linspace(profile[0][0], profile[-1][0], 2000)
    corners = np.array(profile)
    radii = np.pad(np.interp(heights, corners[:, 0], corners[:, 1]), 120, mode="edge")
    window = np.hanning(241) / np.hanning(241).sum()
    return np.convolve(radii, window, "valid").astype(np.float32)


def _jug(points: Array) -> Array:
    """A jug with a handle, hollow at the top."""
    body = _revolved(points, JUG)
    inside = np.hypot(points[:, 0], points[:, 2]) - 0.4 - 0.1 * (points[:, 1] - 2.4)
    body = np.maximum(body, -np.maximum(inside * 0.8, 1.9 - points[:, 1]))
    x, y, z = points[:, 0] - 0.75, points[:, 1] - 1.75, points[:, 2]
    handle = np.hypot(np.hypot(x * 1.1, y * 0.8) - 0.56, z) - 0.085
    handle = np.maximum(handle, -(points[:, 0] - 0.3))
    return united(body, handle * 0.8, 0.1)


def _flask(points: Array) -> Array:
    return _revolved(points, FLASK)


def _apple(points: Array) -> Array:
    """A circle turned about an axis within it: dimples above and below; and a stalk."""
    x, y, z = points.T
    ring = np.hypot(x, z)
    flesh = np.hypot(ring - 0.17, (y - 0.42) * 0.95 + 0.12 * ring) - 0.36
    stalk = np.maximum(np.hypot(x - 0.1 * (y - 0.6), z) - 0.022, np.abs(y - 0.78) - 0.17)
    return np.asarray(np.minimum(flesh * 0.9, stalk))


def _pear(points: Array) -> Array:
    x, y, z = points.T
    belly = np.sqrt(x * x + (y - 0.48) ** 2 + z * z) - 0.48
    neck = np.sqrt((x - 0.05) ** 2 + ((y - 1.08) * 0.8) ** 2 + z * z) - 0.22
    stalk = np.maximum(np.hypot(x - 0.05 - 0.2 * (y - 1.2), z) - 0.025, np.abs(y - 1.42) - 0.18)
    return np.asarray(np.minimum(united(belly, neck, 0.4) * 0.9, stalk))


def _lemon(points: Array) -> Array:
    x, y, z = points[:, 0], points[:, 1] - 0.38, points[:, 2]
    body = (np.sqrt((x / 1.32) ** 2 + y * y + z * z) - 0.38) * 0.85
    tip = np.sqrt(((np.abs(x) - 0.5) / 1.6) ** 2 + y * y + z * z) - 0.07
    return united(body, tip, 0.12)


def _orange(points: Array) -> Array:
    x, y, z = points[:, 0], points[:, 1] - 0.46, points[:, 2]
    return np.asarray(np.sqrt(x * x + (1.05 * y) ** 2 + z * z) - 0.46)


# --- Their surfaces ---------------------------------------------------------------------------------------------------


def _painted(
    points: Array, kind: Array, things: list[Thing], texture: Array
) -> tuple[Array, Array]:
    """Colour (n, 3) and gloss (n, 2) of each point; `kind` is the number of its surface."""
    colours = np.empty((len(points), 3), dtype=np.float32)
    gloss = np.tile(np.array([0.0, 1.0], dtype=np.float32), (len(points), 1))
    painters = [_linen, _table, _plaster, *(thing.paint for thing in things)]
    for number, paint in enumerate(painters):
        mine = np.nonzero(kind == number)[0]
        own = points[mine] if number < 3 else things[number - 3].local(points[mine])
        colours[mine] = paint(own, texture)
        if number == 1:
            gloss[mine] = (0.10, 0.35)
        if number >= 3:
            gloss[mine] = things[number - 3].gloss
    return colours, gloss


def _around(points: Array) -> Array:
    """Angle about the upright axis, in turns."""
    return np.asarray(np.arctan2(points[:, 2], points[:, 0]) / (2 * np.pi))


def _plaster(points: Array, texture: Array) -> Array:
    x, y, _ = points.T
    tone = 0.35 * textured(texture, x / 20, y / 20) + 0.12 * textured(texture, x / 5, y / 5)
    return ramp(WALL, (tone + 0.42 - 0.03 * x).clip(0, 1))


def _table(points: Array, texture: Array) -> Array:
    """Boards with grain along them and dark joints."""
    x, _, z = points.T
    board = np.floor(z / 1.15)
    grain = textured(texture, x / 9 + 0.37 * board, z * 1.1 + 0.13 * board)
    tone = grain + 0.35 * (textured(texture, 0.4 * board, 0.3 * board) - 0.5)
    colours = ramp(WOOD, tone.clip(0, 1))
    joint = smoothstep(0.025, 0.0, np.abs(z / 1.15 - np.round(z / 1.15)))
    return mix(colours, rgb((30, 18, 12)), 0.7 * joint)


def _linen(points: Array, texture: Array) -> Array:
    x, _, z = points.T
    weave = 0.97 + 0.06 * textured(texture, x * 1.6, z * 1.6)
    stripe = smoothstep(0.035, 0.02, np.abs(np.abs(x - 0.25) + 0.8 * np.abs(z + 0.1) - 3.25))
    return mix(rgb(LINEN) * weave[:, None], rgb((60, 84, 140)), 0.75 * stripe)


def _glazed(points: Array, texture: Array) -> Array:
    """Blue glaze in runs over pale clay, with a pale band."""
    u, y = _around(points), points[:, 1]
    runs = textured(texture, 2 * u, y / 6)
    colours = ramp(GLAZE, (runs * 1.2 - 0.1).clip(0, 1))
    band = smoothstep(0.05, 0.02, np.abs(y - 1.55 + 0.08 * (runs - 0.5)))
    bare = smoothstep(0.30, 0.2, y + 0.25 * (runs - 0.5))
    colours = mix(colours, rgb((214, 204, 176)), band)
    return mix(colours, rgb((176, 138, 100)), bare)


def _glass(points: Array, texture: Array) -> Array:
    y = points[:, 1]
    label = smoothstep(0.02, 0.0, np.abs(y - 1.15) - 0.42) * (points[:, 2] < 0.3)
    foil = smoothstep(2.72, 2.76, y)
    paper = rgb((222, 206, 168)) * (0.9 + 0.2 * textured(texture, _around(points), y / 3))[:, None]
    lines = smoothstep(0.03, 0.02, np.abs(y - 1.3)) + smoothstep(0.015, 0.01, np.abs(y - 1.0))
    paper = mix(paper, rgb((110, 40, 34)), lines.clip(0, 1))
    colours = mix(np.broadcast_to(rgb(BOTTLE), points.shape), rgb((122, 24, 30)), foil)
    return mix(colours, paper, label)


def _apple_skin(points: Array, texture: Array) -> Array:
    """Red streaks from the stalk downward over yellow."""
    u, y = _around(points), points[:, 1]
    streaks = textured(texture, 6 * u, y / 5)
    blush = textured(texture, u, y / 4)
    colours = ramp(APPLE, (0.15 + 0.75 * blush + 0.55 * (streaks - 0.4)).clip(0, 1))
    ring = np.hypot(points[:, 0], points[:, 2])
    hollow = smoothstep(0.2, 0.05, ring) * (y > 0.4)
    colours = mix(colours, rgb((150, 140, 50)), 0.8 * hollow)
    return mix(colours, rgb(STALK), smoothstep(0.05, 0.03, ring) * (y > 0.6))


def _pear_skin(points: Array, texture: Array) -> Array:
    u, y = _around(points), points[:, 1]
    tone = 0.25 + 0.5 * textured(texture, u, y / 5) + 0.25 * np.cos(2 * np.pi * u)
    colours = ramp(PEAR, tone.clip(0, 1))
    freckles = smoothstep(0.62, 0.72, textured(texture, 9 * u, y * 2.2))
    colours = mix(colours, rgb((110, 84, 40)), 0.45 * freckles)
    return mix(colours, rgb(STALK), smoothstep(1.29, 1.33, y))


def _lemon_skin(points: Array, texture: Array) -> Array:
    return ramp(LEMON, textured(texture, points[:, 0] * 1.5, _around(points[:, [1, 0, 2]]) * 3))


def _orange_skin(points: Array, texture: Array) -> Array:
    pores = textured(texture, 8 * _around(points), 3 * points[:, 1])
    return ramp(ORANGE, (1.3 * pores - 0.1).clip(0, 1))
