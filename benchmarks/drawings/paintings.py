"""Paintings made of brush strokes, of a palette knife's strokes, and of glass."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

from benchmarks.drawings.raster import (
    Array,
    Colour,
    grid,
    mix,
    noise,
    ramp,
    rgb,
    smoothstep,
)
from benchmarks.drawings.strokes import Brush, Canvas, along_flow, lattice, sample, trace

NIGHT: tuple[Colour, ...] = (
    (12, 16, 56),
    (20, 36, 104),
    (30, 66, 156),
    (52, 112, 192),
    (112, 170, 208),
    (214, 226, 210),
)
STARLIGHT: tuple[Colour, ...] = (
    (104, 160, 198),
    (196, 206, 150),
    (246, 196, 52),
    (255, 222, 92),
    (255, 248, 214),
)
FIELDS: tuple[Colour, ...] = (
    (8, 18, 42),
    (14, 40, 66),
    (26, 76, 88),
    (70, 116, 84),
    (180, 168, 84),
)
EMBERS: tuple[Colour, ...] = (
    (22, 15, 16),
    (66, 20, 20),
    (138, 28, 22),
    (198, 60, 26),
    (222, 128, 38),
    (236, 184, 88),
    (248, 228, 184),
)
GLASS: tuple[Colour, ...] = (
    (18, 40, 120),
    (24, 92, 168),
    (20, 130, 116),
    (60, 150, 70),
    (240, 190, 40),
    (230, 104, 26),
    (190, 26, 38),
    (122, 28, 96),
)
LEAD: tuple[Colour, ...] = ((14, 13, 18), (30, 29, 34), (84, 82, 88))

# --- Swirls: a night that turns ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whirl:
    """A centre of rotation of the night sky: a vortex or a star."""

    x: float
    y: float
    radius: float
    spin: float  # +1 or -1

    def distance(self, x: Array, y: Array) -> Array:
        """From points (1, W) and (H, 1) to the middle, (H, W)."""
        return np.asarray(np.hypot(x - self.x, y - self.y))


@dataclass(frozen=True)
class Night:
    """Whirls and horizon of the swirls."""

    vortices: list[Whirl]
    stars: list[Whirl]
    horizon: Array  # height at each column of the lattice, (columns,)


SKY_BRUSHES = (
    Brush(0.36, 0.060, 18, 0.09, 0.2, 2.4),
    Brush(0.19, 0.030, 10, 0.10, 0.25, 1.3),
    Brush(0.10, 0.017, 6, 0.12, 0.3, 1.1),
    Brush(0.055, 0.010, 4, 0.12, 0.3, 0.55),
)
STAR_BRUSH = Brush(0.0, 0.0115, 4, 0.07, 0.25, 0.0)


def swirls(width: int, height: int, rng: np.random.Generator) -> Array:
    """A night sky that swirls around its stars above dark hills, in thick short strokes."""
    canvas = Canvas(width, height)
    x, y = lattice(canvas)
    vortices = _place(rng, (0.2, 0.15, 0.12), canvas.extent, [])
    stars = _place(rng, tuple(0.058 * rng.uniform(0.25, 1, 9) ** 0.8), canvas.extent, vortices)
    night = Night(vortices, stars, _horizon(rng, x.size, canvas.extent[1]))
    flow = _turning(x, y, night)
    colours = _night_colours(x, y, night, along_flow(rng, flow))
    canvas.prime(colours)
    for brush in SKY_BRUSHES:
        middles = canvas.scatter(rng, brush)
        lengths = brush.length * rng.uniform(0.6, 1.2, (len(middles), 1))
        tones = rng.normal(1, 0.1, (len(middles), 2, 1))
        paths = trace(flow, middles, lengths, 11)
        canvas.lay(rng, brush, paths, sample(colours, middles)[:, None] * tones)
    for star in stars:
        canvas.lay(rng, STAR_BRUSH, *_star_strokes(rng, star))
    return canvas.lit(relief=0.5, gloss=0.2)


def _place(
    rng: np.random.Generator,
    radii: tuple[float, ...],
    extent: tuple[float, float],
    taken: list[Whirl],
) -> list[Whirl]:
    """A whirl of each radius in the upper part of the picture, clear of each other and of those `taken`."""
    placed: list[Whirl] = []
    for radius in radii:
        tries = (rng.random((20, 2)) * (0.88, 0.5) + (0.06, 0.08)) * extent
        others = np.array([(w.x, w.y, w.radius) for w in taken + placed] or [(-9, -9, 0)])
        gaps = np.linalg.norm(tries[:, None] - others[:, :2], axis=-1) - others[:, 2]
        x, y = tries[np.argmax(gaps.min(axis=1))].tolist()
        placed.append(Whirl(x, y, float(radius), float(rng.choice((-1.0, 1.0)))))
    return placed


def _horizon(rng: np.random.Generator, columns: int, bottom: float) -> Array:
    """Height of the hills' outline at each column of the lattice."""
    wave = noise(rng, columns, columns, 2.0, octaves=3)[columns // 2]
    return np.asarray(bottom * (0.8 + 0.28 * (wave - 0.5)))


def _turning(x: Array, y: Array, night: Night) -> Array:
    """Unit directions, (rows, columns, 2): a slow wave to the right that turns about the whirls; rows on the fields."""
    along = np.ones(np.broadcast_shapes(x.shape, y.shape))
    down = 0.45 * np.sin(5 * x + 2 * y)
    for whirl in night.vortices + night.stars:
        distance = whirl.distance(x, y) + 1e-4
        pull = 5 * whirl.spin * np.exp(-((distance / whirl.radius) ** 2) / 1.6) / distance
        along = along - pull * (y - whirl.y)
        down = down + pull * (x - whirl.x)
    fields = y > night.horizon
    along = np.where(fields, 1.0, along)
    down = np.where(fields, 0.5 * np.sin(7 * x + 9 * y), down)
    speed = np.hypot(along, down) + 1e-6
    return np.stack([along / speed, down / speed], axis=-1)


def _night_colours(x: Array, y: Array, night: Night, bands: Array) -> Array:
    """Colours of the strokes, (rows, columns, 3); `bands` (rows, columns) runs along the flow."""
    colours = ramp(NIGHT, (bands * (0.62 + 0.3 * y)).clip(0, 1))
    for vortex in night.vortices:
        core = np.exp(-((vortex.distance(x, y) / vortex.radius) ** 2))
        colours = mix(colours, rgb(NIGHT[5]), 0.75 * core * smoothstep(0.35, 0.75, bands))
    for star in night.stars:
        glow = np.exp(-((star.distance(x, y) / star.radius) ** 2) / 1.6)
        colours = mix(colours, ramp(STARLIGHT, 0.7 * glow), (1.3 * glow).clip(0, 1))
    depth = ((y - night.horizon) / 0.25).clip(0, 1)
    fields = ramp(FIELDS, (0.85 * bands + 0.25 * (1 - depth) - 0.15).clip(0, 1))
    return np.where((y > night.horizon)[..., None], fields, colours)


def _star_strokes(rng: np.random.Generator, star: Whirl) -> tuple[Array, Array]:
    """Rings of short arcs about a star, paths (n, 9, 2) and colours (n, 2, 3), the outer and darker ones first."""
    rings = (1.55, 1.3, 1.05, 0.8, 0.55, 0.3, 0.1)
    radius = np.concatenate([np.full(round(4 + 6 * ring), ring) for ring in rings])
    start = rng.uniform(0, 2 * pi, radius.shape)
    angle = start[:, None] + np.linspace(0, 0.62, 9) / np.sqrt(radius)[:, None]
    reach = (radius * star.radius * rng.normal(1, 0.05, radius.shape))[:, None]
    paths = np.stack([star.x + reach * np.cos(angle), star.y + reach * np.sin(angle)], axis=-1)
    tones = (1.05 - 0.68 * radius)[:, None] + rng.normal(0, 0.08, (len(radius), 2))
    return paths, ramp(STARLIGHT, tones.clip(0, 1))


# --- Embers: a palette knife ------------------------------------------------------------------------------------------

KNIVES = (
    Brush(0.34, 0.130, 30, 0.05, 0.12, 2.6),
    Brush(0.22, 0.075, 18, 0.06, 0.16, 1.6),
    Brush(0.13, 0.030, 8, 0.08, 0.2, 0.5),
)


def embers(width: int, height: int, rng: np.random.Generator) -> Array:
    """Ochre, red and black in broad strokes of a knife, a bright band across them."""
    canvas = Canvas(width, height)
    x, y = lattice(canvas)
    warmth = _warmth(rng, x, y, canvas.extent[1])
    flow = _slants(rng, x.size, y.size)
    canvas.prime(ramp(EMBERS, 0.6 * warmth))
    for knife in KNIVES:
        middles = canvas.scatter(rng, knife)
        lengths = knife.length * rng.uniform(0.5, 1.2, (len(middles), 1))
        # Unmixed paint: the two sides of a knife carry different colours.
        tones = sample(warmth, middles)[:, None] + rng.normal(0, 0.13, (len(middles), 2))
        paths = trace(flow, middles, lengths, 9)
        canvas.lay(rng, knife, paths, ramp(EMBERS, tones.clip(0, 1)))
    return canvas.lit(relief=0.75, gloss=0.16)


def _warmth(rng: np.random.Generator, x: Array, y: Array, bottom: float) -> Array:
    """Place in the palette, (rows, columns) in [0, 1]: a bright band across the picture, broken by noise."""
    phase, lift = rng.uniform(0, 2 * pi), rng.uniform(0.38, 0.56)
    middle = bottom * lift + 0.13 * np.sin(4 * x + phase)
    band = np.exp(-(((y - middle) / 0.24) ** 2))
    broken = noise(rng, x.size, y.size, 3.0, octaves=4)
    return np.asarray((0.05 + 0.7 * band * (0.45 + broken) + 0.5 * (broken - 0.45)).clip(0, 1))


def _slants(rng: np.random.Generator, columns: int, rows: int) -> Array:
    """Unit directions, (rows, columns, 2): two slants of the hand that change from patch to patch."""
    patches = noise(rng, columns, rows, 3.0, octaves=2)
    wander = noise(rng, columns, rows, 2.0, octaves=2) - 0.5
    angle = np.where(patches > 0.5, -0.55, 0.75) + 1.2 * wander
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


# --- Mosaic: stained glass --------------------------------------------------------------------------------------------

SECTORS = 26  # panes in a ring
CORE = 0.1  # keeps the panes from shrinking to nothing at the centre, where
BOSS = 0.045  # the radius of one round pane


def mosaic(width: int, height: int, rng: np.random.Generator) -> Array:
    """Stained glass: panes in rings about a bright centre, and dark lead between them."""
    unit = sqrt(width * height)
    x, y = grid(width, height, unit)
    dx = x - width / unit * rng.uniform(0.34, 0.6)
    dy = y - height / unit * rng.uniform(0.36, 0.56)
    rings, sectors = _around(rng, dx, dy)
    colours, edge = _panes(rng, rings, sectors)
    # Panes grow outward; the lead between them is equally wide everywhere.
    rings_per_unit = np.hypot(*np.gradient(rings)) * unit
    edge = edge / rings_per_unit
    radius = np.hypot(dx, dy)
    colours = np.where((radius < BOSS)[..., None], rgb(GLASS[4]), colours)
    edge = np.where(radius < BOSS, BOSS - radius, np.minimum(edge, radius - BOSS))
    bright = 0.75 + 0.45 * smoothstep(0.0, 0.03, edge) + 0.4 * np.exp(-radius / 0.35)
    light = _glass(rng, width, height) * bright
    return _leaded(colours * light[..., None], edge)


def _around(rng: np.random.Generator, dx: Array, dy: Array) -> tuple[Array, Array]:
    """Rings and sectors about the centre, (H, W) each, counted in panes.

    Log-polar coordinates are conformal: panes that are compact in them are compact in the picture too.
    """
    height, width = np.broadcast_shapes(dx.shape, dy.shape)
    wander = noise(rng, width, height, 2.0, octaves=1) - 0.5
    scale = SECTORS / (2 * pi)
    rings = scale * (np.log(np.hypot(dx, dy) + CORE) - np.log(CORE) + 0.25 * wander) + 1
    sectors = scale * (np.arctan2(dy, dx) + 0.3 * wander) % SECTORS
    return rings, sectors


def _panes(rng: np.random.Generator, rings: Array, sectors: Array) -> tuple[Array, Array]:
    """Voronoi panes: their colour at each point, (H, W, 3), and its distance to the nearest edge, (H, W).

    The sites are jittered lattice points, so the nearest are among those of the nine cells around (Worley 1996).
    """
    count = int(rings.max()) + 3
    jitter = rng.uniform(0.15, 0.85, (count * SECTORS, 2)).astype(np.float32)
    row, column = np.floor(rings).astype(int), np.floor(sectors).astype(int)
    near = np.full(
        (4, *rings.shape), np.inf, dtype=np.float32
    )  # squared distance, site (2), its index
    next_near = near.copy()
    for i, j in np.ndindex(3, 3):
        index = (row + i - 1) % count * SECTORS + (column + j - 1) % SECTORS
        site_ring = row + i - 1 + jitter[index, 0]
        site_sector = column + j - 1 + jitter[index, 1]
        squared = (site_ring - rings) ** 2 + (site_sector - sectors) ** 2
        found = np.stack([squared, site_ring, site_sector, index]).astype(np.float32)
        next_near = np.where(
            squared < near[0], near, np.where(squared < next_near[0], found, next_near)
        )
        near = np.where(squared < near[0], found, near)
    apart = np.hypot(next_near[1] - near[1], next_near[2] - near[2])
    edge = (next_near[0] - near[0]) / (2 * apart)  # to the bisector between the two nearest sites
    return _pane_colours(rng, count)[near[3].astype(int)], edge


def _pane_colours(rng: np.random.Generator, rings: int) -> Array:
    """Colours of all panes, (rings * SECTORS, 3): spiral arms through the palette, each pane a little off."""
    ring, sector = np.divmod(np.arange(rings * SECTORS), SECTORS)
    arms = 3 * 2 * pi * sector / SECTORS + 0.8 * ring
    place = 0.5 + 0.42 * np.sin(arms) + rng.normal(0, 0.09, ring.shape)
    palette = np.asarray(GLASS, dtype=np.float32) / 255
    chosen = palette[(place * len(palette)).astype(int).clip(0, len(palette) - 1)]
    return np.asarray(chosen * rng.uniform(0.75, 1.2, (len(chosen), 1)), dtype=np.float32)


def _glass(rng: np.random.Generator, width: int, height: int) -> Array:
    """How much light the glass lets through, (H, W) about 1: streaks and clouds."""
    streaks = noise(rng, width, height, 9.0, octaves=4, stretch=0.35)
    clouds = noise(rng, width, height, 3.0, octaves=3)
    return np.asarray(1 + 0.5 * (streaks - 0.5) + 0.7 * (clouds - 0.5))


def _leaded(glass: Array, edge: Array) -> Array:
    """Lead over the glass where `edge` is small; it is round, so it shines along its middle."""
    lead = smoothstep(0.0068, 0.0052, edge)
    shine = smoothstep(0.004, 0.0005, edge)
    return mix(glass, ramp(LEAD, 0.8 * shine), lead)
