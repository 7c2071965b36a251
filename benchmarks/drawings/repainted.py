"""Our own scenes painted by hand: in oil, with a knife, in watercolour, in pencil and in planes.

A scene is drawn small, and a painter's choices are made on it: what is light and dark, which way strokes run, where
fine ones are needed (Hertzmann 1998). Lengths are in mean sides of the picture, as in `benchmarks.drawings.strokes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.drawings.harbour import harbour
from benchmarks.drawings.mountains import mountains
from benchmarks.drawings.raster import (
    Array,
    Colour,
    Drawing,
    grid,
    mix,
    noise,
    ramp,
    resize,
    rgb,
    smoothstep,
    to_array,
)
from benchmarks.drawings.still_life import still_life
from benchmarks.drawings.strokes import Brush, Canvas, sample, trace

CELLS = 300  # of a motif, to a mean side
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)  # Rec. 709


@dataclass(frozen=True)
class Motif:
    """What is painted: colours (rows, columns, 3) in [0, 1]."""

    colours: Array

    @property
    def tone(self) -> Array:
        """Luminance, (rows, columns)."""
        return np.asarray(self.colours @ LUMINANCE)

    def blurred(self, radius: float) -> Array:
        """The colours without what is finer than `radius`."""
        return blurred(self.colours, radius)

    def flow(self, rng: np.random.Generator, radius: float) -> Array:
        """Unit directions along the edges, (rows, columns, 2); where there are none, those of a slow wave.

        The main direction of the structure tensor, averaged over `radius`.
        """
        down, right = np.gradient(blurred(self.tone, 0.004))
        xx, yy, xy = (
            blurred(np.asarray(part), radius) for part in (right * right, down * down, right * down)
        )
        rows, columns = xx.shape
        wave = 2.4 * pi * (noise(rng, columns, rows, 2.0, octaves=2) - 0.5)
        faint = 0.02 * float((xx + yy).mean()) + 1e-9
        across = xx - yy - faint * np.cos(2 * wave)
        angle = 0.5 * np.arctan2(2 * xy - faint * np.sin(2 * wave), across) + pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def motif(scene: Drawing, width: int, height: int, rng: np.random.Generator, variant: int) -> Motif:
    """A scene in the picture's proportions; a variant other than 0 is not what the scene itself shows."""
    rng = rng.spawn(variant)[-1] if variant else rng
    unit = sqrt(width * height)
    columns, rows = (max(16, round(CELLS * side / unit)) for side in (width, height))
    return Motif(np.asarray(scene(columns, rows, rng), dtype=np.float32).clip(0, 1))


def blurred(field: Array, radius: float) -> Array:
    """A field (rows, columns) or (rows, columns, 3) of a motif, smoothed over `radius`: three boxes, each way."""
    size = max(1, round(radius * CELLS))
    if size < 2:
        return field
    out = field.astype(np.float64)
    for axis in (0, 1):
        for _ in range(3):
            pad = [(0, 0)] * out.ndim
            pad[axis] = (size // 2 + 1, size - 1 - size // 2)
            total = np.cumsum(np.pad(out, pad, mode="edge"), axis=axis)
            upper = np.take(total, range(size, total.shape[axis]), axis)
            out = (upper - np.take(total, range(total.shape[axis] - size), axis)) / size
    return out.astype(np.float32)


# --- Oil --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hand:
    """How strokes are laid.

    Attributes:
        brushes: From large to fine.
        wanted: Detail of the motif, in [0, 1], from which each brush is used; 0 paints all over.
        broken: Standard deviation of the colours of strokes.
        sides: Difference of the colours at a stroke's two edges.
        relief, gloss: As in `Canvas.lit`.
        smooth: Over what distance directions are averaged.
    """

    brushes: Sequence[Brush]
    wanted: Sequence[float]
    broken: float
    sides: float
    relief: float
    gloss: float
    smooth: float


OIL = Hand(
    (
        Brush(0.200, 0.062, 16, 0.05, 0.18, 3.6),
        Brush(0.110, 0.030, 10, 0.07, 0.22, 2.4),
        Brush(0.055, 0.0150, 6, 0.08, 0.25, 2.6),
        Brush(0.026, 0.0075, 4, 0.08, 0.25, 2.6),
    ),
    (0.0, 0.012, 0.022, 0.026),
    broken=0.055,
    sides=0.05,
    relief=0.6,
    gloss=0.1,
    smooth=0.012,
)
KNIFE = Hand(
    (
        Brush(0.260, 0.130, 34, 0.035, 0.05, 4.2),
        Brush(0.130, 0.064, 18, 0.04, 0.06, 2.2),
        Brush(0.068, 0.030, 10, 0.05, 0.08, 1.8),
        Brush(0.034, 0.0125, 5, 0.05, 0.1, 1.4),
    ),
    (0.0, 0.024, 0.030, 0.040),
    broken=0.04,
    sides=0.13,
    relief=0.85,
    gloss=0.16,
    smooth=0.03,
)


def market(width: int, height: int, rng: np.random.Generator) -> Array:
    """A town on the water in broken colours: warm lights, blue and violet shadows, thick strokes of many sizes."""
    found = motif(harbour, width, height, rng, 1)
    tone = blurred(found.tone, 0.006)[..., None]
    colours = vivid(found.colours, 1.25)
    colours = colours**0.82
    colours = mix(colours, rgb((84, 76, 150)), 0.42 * smoothstep(0.42, 0.05, tone[..., 0]))
    colours = mix(colours, rgb((255, 226, 190)), 0.35 * smoothstep(0.45, 0.95, tone[..., 0]))
    return _oil(Motif(colours.clip(0, 1).astype(np.float32)), OIL, (width, height), rng)


def knife(width: int, height: int, rng: np.random.Generator) -> Array:
    """Mountains over a lake in planes of colour, spread with a palette knife."""
    found = motif(mountains, width, height, rng, 4)
    tone = found.tone
    colours = vivid(found.colours, 1.7)
    colours = mix(colours, rgb((24, 60, 92)), 0.35 * smoothstep(0.35, 0.05, tone))
    colours = mix(
        colours,
        rgb((255, 176, 108)),
        0.5 * smoothstep(0.5, 0.75, tone) * smoothstep(1.0, 0.8, tone),
    )
    return _oil(Motif(colours.clip(0, 1).astype(np.float32)), KNIFE, (width, height), rng)


def vivid(colours: Array, factor: float) -> Array:
    """Colours with `factor` times the saturation."""
    tone = (colours @ LUMINANCE)[..., None]
    return np.asarray((tone + factor * (colours - tone)).clip(0, 1))


def _oil(found: Motif, hand: Hand, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """A motif in oil; `size` is the picture's width and height."""
    canvas = Canvas(*size)
    flow = found.flow(rng, hand.smooth)
    canvas.prime(mix(found.blurred(0.05), rgb((168, 120, 84)), 0.15))
    coarser = goal = found.blurred(0.45 * hand.brushes[0].width)
    for brush, wanted in zip(hand.brushes, hand.wanted, strict=True):
        coarser, goal = goal, found.blurred(0.45 * brush.width)
        middles = canvas.scatter(rng, brush)
        if wanted:  # only where the larger brush could not show what there is
            lost = blurred(np.abs(goal - coarser).mean(-1), 0.5 * brush.width)
            chance = rng.uniform(0.6, 1.4, len(middles))
            middles = middles[sample(lost, middles, CELLS) * chance > wanted]
        lengths = brush.length * rng.uniform(0.55, 1.25, (len(middles), 1))
        paths = trace(flow, middles, lengths, 9, CELLS)
        colours = sample(goal, middles, CELLS)[:, None] + np.zeros((1, 2, 1))
        colours = colours * rng.normal(1, hand.broken, (len(middles), 1, 1))
        colours = colours + rng.normal(0, 0.6 * hand.broken, (len(middles), 1, 3))
        apart = hand.sides * rng.normal(0, 1, (len(middles), 1, 1))
        colours = colours * (1 + apart * np.array([[[-1], [1]]]))
        canvas.lay(rng, brush, paths, colours.clip(0, 1))
    return canvas.lit(hand.relief, hand.gloss)


# --- Watercolour ------------------------------------------------------------------------------------------------------

PAPER: Colour = (252, 249, 240)
WASHES = (0.86, 0.68, 0.50, 0.33, 0.18)  # a wash covers what is darker than this


def watercolour(width: int, height: int, rng: np.random.Generator) -> Array:
    """Washes over white paper, from light to dark: granulation, dark edges, colours that run, and drops."""
    found = motif(mountains, width, height, rng, 1)
    colours = _warmed(found.blurred(0.012))
    tone = found.blurred(0.008) @ LUMINANCE
    low, high = np.percentile(tone, (2, 97))
    tone = ((tone - low) / (high - low)).clip(0, 1)
    unit = sqrt(width * height)
    tooth = _tooth(rng, width, height)
    x, y = grid(width, height, unit)
    left = np.ones((height, width, 3), dtype=np.float32)  # the light that the paint lets through
    for number, threshold in enumerate(WASHES):
        # Each wash is laid by hand: its border is not quite that of the last.
        wander = [0.022 * (noise(rng, width, height, 7.0, octaves=4) - 0.5) for _ in range(2)]
        points = np.stack([x + wander[0], y + wander[1]], axis=-1)
        here = _smooth_sample(tone, points)
        pigment = _smooth_sample(colours, points)
        bleed = 0.16 * (noise(rng, width, height, 4.0, octaves=5) - 0.5)
        soft = 0.018 + 0.10 * smoothstep(0.56, 0.7, noise(rng, width, height, 2.5, octaves=2))
        wet = smoothstep(0, 1, (0.5 + (threshold - here + bleed) / (2 * soft)).clip(0, 1))
        if number > 1:  # the brush runs dry on the tooth of the paper
            dry = smoothstep(0.6, 0.75, noise(rng, width, height, 5.0, octaves=3))
            wet = wet * (1 - 0.6 * dry * smoothstep(0.45, 0.65, tooth))
        density = wet * (0.6 + 0.8 * (noise(rng, width, height, 2.5, octaves=4) - 0.5))
        density += 0.75 * (wet - _softened(wet, 0.007)).clip(0)  # pigment gathers at the edge
        density *= 1 + 0.8 * (tooth - 0.5)
        strength = (0.36, 0.44, 0.55, 0.66, 0.8)[number]
        left *= np.exp(-strength * density[..., None] * _absorbing(pigment))
    left *= _drops(rng, width, height, unit)
    paper = rgb(PAPER) * (0.97 + 0.05 * (tooth - 0.5))[..., None]
    margin = 0.035 + 0.02 * (noise(rng, width, height, 6.0, octaves=4) - 0.5)
    edge = np.minimum(np.minimum(x, width / unit - x), np.minimum(y, height / unit - y))
    inside = smoothstep(0.0, 0.004, edge - margin)
    return np.asarray(paper * mix(np.ones(3), left, inside))


def _warmed(colours: Array) -> Array:
    """Colours of a paint box: greens turn to olive and ochre, greys to umber and violet."""
    red, green, blue = np.moveaxis(vivid(colours, 1.3) ** 0.75, -1, 0)
    leafy = smoothstep(0.0, 0.16, green - np.maximum(red, blue))
    stony = smoothstep(0.14, 0.03, np.ptp(colours, axis=-1)) * smoothstep(0.9, 0.7, green)
    out = np.stack([red, green, blue], axis=-1)
    out = mix(out, np.stack([1.25 * green, 0.98 * green, 0.45 * green], axis=-1), 0.6 * leafy)
    return mix(out, np.stack([1.1 * red, 0.8 * green, 0.85 * blue], axis=-1), 0.75 * stony).clip(
        0, 1
    )


def _absorbing(colours: Array) -> Array:
    """Absorption of a pigment of that colour, at least a little."""
    return np.asarray(-np.log(colours.clip(0.06, 0.97)))


def _tooth(rng: np.random.Generator, width: int, height: int) -> Array:
    """The roughness of paper, (H, W) in [0, 1]."""
    grain = noise(rng, width, height, 230.0, octaves=2)
    return np.asarray((0.5 + 1.3 * (grain - 0.5)).clip(0, 1))


def _smooth_sample(field: Array, points: Array) -> Array:
    """Bilinear values of a motif's field at points (H, W, 2)."""
    rows, columns = field.shape[:2]
    across = (points[..., 0] * CELLS - 0.5).clip(0, columns - 1.001)
    down = (points[..., 1] * CELLS - 0.5).clip(0, rows - 1.001)
    j, i = across.astype(int), down.astype(int)
    a, d = across - j, down - i
    if field.ndim == 3:
        a, d = a[..., None], d[..., None]
    upper = field[i, j] * (1 - a) + field[i, j + 1] * a
    lower = field[i + 1, j] * (1 - a) + field[i + 1, j + 1] * a
    return np.asarray(upper * (1 - d) + lower * d)


def _softened(field: Array, radius: float) -> Array:
    """A field of the picture's size in [0, 1], blurred."""
    height, width = field.shape
    image = Image.fromarray((field * 255).astype(np.uint8))
    return to_array(image.filter(ImageFilter.GaussianBlur(radius * sqrt(width * height))))


def _drops(rng: np.random.Generator, width: int, height: int, unit: float) -> Array:
    """Splashes of paint: the light they let through, (H, W, 3)."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    tints = ((96, 120, 160), (140, 110, 90), (88, 112, 80))
    for _ in range(70):
        x, y = rng.random(2) * (width, height)
        radius = unit * 0.0012 * rng.pareto(2.2) + 0.5
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=tints[rng.integers(3)])
    return 0.45 + 0.55 * to_array(image.filter(ImageFilter.GaussianBlur(unit / 1500)))


# --- Pencil -----------------------------------------------------------------------------------------------------------

SHEET: Colour = (240, 232, 214)
GRAPHITE: Colour = (52, 50, 54)
#: Direction in radians, the darkness from which it is used, and its strength in 0–255.
HATCHINGS = ((0.9, 0.2, 76), (0.62, 0.38, 74), (-0.7, 0.54, 80), (1.5, 0.7, 90))


def pencil(width: int, height: int, rng: np.random.Generator) -> Array:
    """Outlines, and hatching in several directions on grained paper."""
    found = motif(harbour, width, height, rng, 3)
    unit = sqrt(width * height)
    tone = blurred(found.tone, 0.006)
    low, high = np.percentile(tone, (3, 92))
    dark = 1 - ((tone - low) / (high - low)).clip(0, 1) ** 0.55
    extent = np.array([width, height]) / unit
    x, y = grid(dark.shape[1], dark.shape[0], CELLS)
    edge = np.minimum(np.minimum(x, extent[0] - x), np.minimum(y, extent[1] - y))
    fade = smoothstep(
        0.03, 0.16, edge + 0.1 * (noise(rng, dark.shape[1], dark.shape[0], 4.0) - 0.5)
    )
    dark = dark * fade
    layer = Image.new("L", (width, height), 0)
    wander = noise(rng, dark.shape[1], dark.shape[0], 2.5, octaves=2) - 0.5
    for turn, threshold, alpha in HATCHINGS:
        angle = turn + 0.5 * wander
        flow = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
        middles = _hatched(rng, extent, turn)
        depth = sample(dark, middles, CELLS) + rng.normal(0, 0.04, len(middles))
        middles, depth = middles[depth > threshold], depth[depth > threshold]
        lengths = 0.032 * rng.uniform(0.8, 1.5, (len(middles), 1))
        paths = trace(flow, middles, lengths, 7, CELLS)
        _scratch(layer, paths * unit, alpha + 90 * (depth - threshold), unit / 850, rng)
    sharp = np.hypot(*np.gradient(blurred(found.tone, 0.004))) * fade
    sharp = sharp / np.percentile(sharp, 97)
    flow = found.flow(rng, 0.006)
    for length, spacing, need in ((0.09, 0.011, 0.5), (0.05, 0.008, 0.3), (0.022, 0.0055, 0.22)):
        middles = _scattered(rng, extent, spacing)
        weight = sample(sharp, middles, CELLS)
        keep = weight > need * rng.uniform(0.8, 1.6, len(weight))
        middles = middles[keep]
        paths = trace(flow, middles, length * rng.uniform(0.5, 1.3, (len(middles), 1)), 9, CELLS)
        paths = paths + rng.normal(0, 0.0012, (len(paths), 1, 2))
        _scratch(layer, paths * unit, 75 + 70 * weight[keep].clip(0, 1.4), unit / 620, rng)
    marks = to_array(layer)
    tooth = _tooth(rng, width, height)
    grain = smoothstep(0.15, 0.75, tooth + 0.9 * marks - 0.35)
    cover = (marks * (0.35 + 0.75 * grain)).clip(0, 0.92)
    smudge = 0.16 * _softened(marks, 0.012)
    paper = rgb(SHEET) * (0.95 + 0.08 * tooth)[..., None]
    paper = paper * (0.97 + 0.05 * noise(rng, width, height, 1.5, octaves=2))[..., None]
    return mix(mix(paper, rgb((150, 144, 136)), smudge), rgb(GRAPHITE), cover)


def _hatched(rng: np.random.Generator, extent: Array, turn: float) -> Array:
    """Middles of parallel strokes, (n, 2): in lines that run at `turn`."""
    reach = float(np.hypot(*extent))
    across, along = np.meshgrid(np.arange(0, reach, 0.0062), np.arange(0, reach, 0.03))
    across = across + rng.normal(0, 0.0009, across.shape)
    along = along + rng.uniform(-0.012, 0.012, along.shape)
    across, along = (offset.ravel() - reach / 2 for offset in (across, along))
    c, s = np.cos(turn), np.sin(turn)
    points = np.stack([c * along + s * across, -s * along + c * across], axis=-1) + extent / 2
    return rng.permutation(points[((points > 0) & (points < extent)).all(1)])


def _scattered(rng: np.random.Generator, extent: Array, spacing: float) -> Array:
    """Points about `spacing` apart, (n, 2), in random order."""
    columns, rows = (extent / spacing).astype(int)
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    points = (cells + rng.random(cells.shape)) / (columns, rows)
    return rng.permutation(points * extent)


def _scratch(
    layer: Image.Image, paths: Array, alphas: Array, width: float, rng: np.random.Generator
) -> None:
    """Lines of graphite, (n, points, 2) in pixels, that add up where they cross."""
    if not len(paths):
        return
    over = Image.new("L", layer.size, 0)
    draw = ImageDraw.Draw(over)
    pressure = rng.normal(1, 0.15, len(paths))
    values = (alphas * pressure).clip(10, 230)
    parts = 3  # strokes of one part do not see those of another: they darken each other
    for part in range(parts):
        over.paste(0, (0, 0, *layer.size))
        for path, value in zip(paths[part::parts], values[part::parts], strict=True):
            draw.line(path.ravel().tolist(), fill=int(value), width=max(1, round(width)))
        soft = over.filter(ImageFilter.GaussianBlur(width / 4))
        below, above = to_array(layer), to_array(soft)
        layer.paste(Image.fromarray(((1 - (1 - below) * (1 - above)) * 255).astype(np.uint8)))


# --- Planes -----------------------------------------------------------------------------------------------------------

PLANES: tuple[Colour, ...] = (
    (14, 20, 24),
    (30, 42, 48),
    (52, 68, 72),
    (84, 92, 84),
    (134, 112, 78),
    (178, 152, 112),
    (222, 206, 172),
)
FLATS = (
    Brush(0.16, 0.050, 14, 0.07, 0.1, 2.4),
    Brush(0.075, 0.022, 8, 0.08, 0.15, 2.2),
    Brush(0.036, 0.0100, 5, 0.08, 0.2, 1.6),
)


def planes(width: int, height: int, rng: np.random.Generator) -> Array:
    """A still life broken into dark planes, each shaded from one edge to the other, in earth and slate."""
    found = motif(still_life, width, height, rng, 3)
    rows, columns = found.tone.shape
    tone = found.blurred(0.01) @ LUMINANCE
    low, high = np.percentile(tone, (1, 99))
    tone = ((tone - low) / (high - low)).clip(0, 1)
    facet, angle, shade = _facets(rng, tone)
    number = facet.astype(int)
    count = int(number.max()) + 1
    size = np.bincount(number.ravel(), minlength=count)
    mean = np.bincount(number.ravel(), tone.ravel(), count) / size.clip(1)
    mean = (mean + rng.normal(0, 0.09, count)).clip(0, 1)
    place = 0.1 + 0.92 * mean[number] + 0.26 * shade + 0.3 * (tone - mean[number])
    colours = ramp(PLANES, place.clip(0, 1))
    tint = found.blurred(0.03)
    colours = mix(colours, vivid(tint, 1.1) * colours.max(-1, keepdims=True) / 0.8, 0.22)
    flow = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    canvas = Canvas(width, height)
    canvas.prime(colours)
    painting = Motif(colours.clip(0, 1).astype(np.float32))
    for brush in FLATS:
        middles = canvas.scatter(rng, brush)
        lengths = brush.length * rng.uniform(0.5, 1.1, (len(middles), 1))
        paths = trace(flow, middles, lengths, 9, CELLS)
        # A stroke ends at the edge of its plane.
        own = sample(facet, paths, CELLS) == sample(facet, middles, CELLS)[:, None]
        paths = np.where(own[..., None], paths, middles[:, None])
        paint = sample(painting.colours, middles, CELLS)[:, None]
        paint = paint * rng.normal(1, 0.07, (len(middles), 2, 1))
        canvas.lay(rng, brush, paths, paint.clip(0, 1))
    border = (np.abs(np.diff(facet, axis=0, prepend=facet[:1])) > 0) | (
        np.abs(np.diff(facet, axis=1, prepend=facet[:, :1])) > 0
    )
    broken = smoothstep(0.4, 0.6, noise(rng, columns, rows, 6.0, octaves=3))
    line = resize(blurred(border * broken, 0.007).astype(np.float32), width, height)
    return mix(canvas.lit(0.45, 0.08), rgb((12, 14, 18)), (1.5 * line).clip(0, 0.75))


def _facets(rng: np.random.Generator, tone: Array) -> tuple[Array, Array, Array]:
    """Planes: the number of each point's, the direction of its strokes, and its shade in [-1, 1], (rows, columns).

    The picture is cut by lines again and again; where there is more to see, the pieces are smaller.
    """
    rows, columns = tone.shape
    x, y = (np.broadcast_to(axis, tone.shape) for axis in grid(columns, rows, CELLS))
    detail = np.hypot(*np.gradient(blurred(tone, 0.02)))
    down, right = np.gradient(blurred(tone, 0.03))
    facet, angle, shade = (np.zeros_like(tone) for _ in range(3))
    waiting, number = [np.arange(tone.size)], 0
    flat_x, flat_y = x.ravel(), y.ravel()
    limit = 0.014 / (0.35 + detail.ravel() / detail.mean())
    while waiting:
        mine = waiting.pop()
        area = len(mine) / CELLS**2
        px, py = flat_x[mine], flat_y[mine]
        along = 0.5 * np.arctan2(
            (2 * right * down).ravel()[mine].sum(), (right**2 - down**2).ravel()[mine].sum()
        )
        if area < float(limit[mine].mean()) * rng.uniform(0.5, 1.6) or area < 0.0006:
            turned = along + pi / 2 + rng.normal(0, 0.3)
            across = -np.sin(turned) * px + np.cos(turned) * py
            across = across - across.mean()
            facet.ravel()[mine] = number
            angle.ravel()[mine] = turned
            shade.ravel()[mine] = rng.choice((-1, 1)) * across / (np.abs(across).max() + 1e-6)
            number += 1
            continue
        spread = 0.5 * np.arctan2(2 * np.cov(px, py)[0, 1], np.var(px) - np.var(py))
        # Cut across the longer way, or along an edge of the motif.
        turned = (
            spread + rng.normal(0, 0.45) if rng.random() < 0.55 else along + rng.normal(0, 0.15)
        )
        place = np.cos(turned) * px + np.sin(turned) * py
        cut = np.quantile(place, rng.uniform(0.32, 0.68))
        waiting += [part for part in (mine[place < cut], mine[place >= cut]) if len(part) > 8]
        for part in (mine[place < cut], mine[place >= cut]):
            if 0 < len(part) <= 8:
                facet.ravel()[part] = number
    return facet, angle, shade
