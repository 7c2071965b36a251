"""A harbour at dusk.

Lengths are in picture heights from the upper left corner; the picture is `aspect` heights wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.drawings.nature import Clouds, cloudy, developed, rippled
from benchmarks.drawings.raster import (
    Array,
    Colour,
    Pencil,
    Point,
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

DUSK_SKY: tuple[Colour, ...] = (
    (70, 104, 164),
    (116, 142, 190),
    (176, 168, 196),
    (234, 178, 164),
    (253, 206, 152),
    (255, 226, 172),
)
CLOUD_SHADE: Colour = (136, 122, 158)
CLOUD_LIT: Colour = (255, 206, 172)
SUN: Colour = (255, 236, 190)
HAZE: Colour = (226, 168, 150)
HILLSIDE: tuple[Colour, ...] = ((34, 46, 44), (66, 78, 54), (122, 112, 66))
FACADES: tuple[Colour, ...] = (
    (210, 152, 78),
    (196, 98, 72),
    (226, 202, 158),
    (168, 76, 62),
    (146, 168, 156),
    (218, 174, 122),
    (118, 140, 170),
    (230, 218, 194),
    (186, 130, 112),
)
ROOFS: tuple[Colour, ...] = (
    (132, 54, 40),
    (104, 46, 40),
    (146, 70, 46),
    (66, 60, 70),
    (92, 50, 46),
)
STONE: Colour = (136, 122, 112)
LIMESTONE: Colour = (214, 190, 160)
SLATE: Colour = (54, 56, 70)
CANVAS: Colour = (228, 216, 194)
TIMBER: Colour = (58, 40, 34)
DARK_PANE: Colour = (42, 48, 66)
LAMPLIGHT: tuple[Colour, ...] = ((255, 206, 112), (255, 186, 84), (255, 226, 152))
FOLIAGE: tuple[Colour, ...] = ((22, 36, 30), (44, 64, 38), (84, 94, 46), (158, 136, 64))
HULLS: tuple[Colour, ...] = ((150, 44, 38), (30, 74, 108), (230, 222, 206), (36, 86, 76))
DEEP_WATER: Colour = (20, 42, 62)

WATERLINE = 0.70  # of the bay, from the top


def _shade(colour: Colour, light: float, haze: float = 0.0) -> Colour:
    """`colour` scaled by `light` (1 keeps it), and mixed with haze (0–1)."""
    red, green, blue = (
        int(min(255.0, max(0.0, c * light * (1 - haze) + h * haze)))
        for c, h in zip(colour, HAZE, strict=True)
    )
    return red, green, blue


def harbour(width: int, height: int, rng: np.random.Generator) -> Array:
    """A small town with a church on a bay at dusk, with lit lamps and reflections in the water."""
    sun = (0.2 * width / height, 0.46)
    sky = _dusk(width, height, rng, sun)
    land = _hills(sky, rng, sun)
    image = to_image(land)
    pencil = Pencil(image)
    _town(pencil, rng)
    _quay(pencil, rng)
    _boats(pencil, rng)
    picture = _weathered(to_array(image), land, rng)
    shore = round(WATERLINE * height)
    picture[shore:] = _bay(picture[:shore], height - shore, rng, sun)
    return developed(picture)


def _dusk(width: int, height: int, rng: np.random.Generator, sun: Point) -> Array:
    """The sky: a gradient, the glow about the sun, and clouds."""
    x, y = grid(width, height, height)
    drift = noise(rng, width, height, 2.0, octaves=3, stretch=4)
    sky = ramp(DUSK_SKY, (y / WATERLINE * 1.25 + 0.16 * (drift - 0.5)).clip(0, 1))
    distance = np.hypot((x - sun[0]) * 0.8, y - sun[1])
    glow = 0.85 * np.exp(-((distance / 0.17) ** 2)) + 0.2 * np.exp(-distance / 0.3)
    sky = mix(sky, rgb(SUN), glow.clip(0, 1))
    return cloudy(sky, rng, Clouds(CLOUD_LIT, CLOUD_SHADE, sun, clear=0.47), WATERLINE)


def _bay(shore: Array, rows: int, rng: np.random.Generator, sun: Point) -> Array:
    """The water below `shore`, (rows, W, 3): reflections, and the glitter of the sun."""
    height, width = shore.shape[:2]
    x, y = grid(width, rows, height + rows)
    water = rippled(shore[::-1][:rows], rng, DEEP_WATER, choppiness=0.3)
    column = np.exp(-(((x - sun[0]) / (0.08 + 0.4 * y)) ** 2))
    sparks = smoothstep(0.62, 0.8, noise(rng, width, rows, 40.0, octaves=3, stretch=6))
    return mix(water, rgb(SUN), 0.55 * sparks * column)


def _hills(sky: Array, rng: np.random.Generator, sun: Point) -> Array:
    """Three ridges, the farther ones hazier."""
    height, width = sky.shape[:2]
    x, y = grid(width, height, height)
    picture = sky
    for base, swing, haze in ((0.47, 0.16, 0.72), (0.53, 0.13, 0.48), (0.60, 0.12, 0.2)):
        ridge = base + swing * (0.5 - noise(rng, width, height, 2.0, octaves=6)[height // 3])
        woods = noise(rng, width, height, 22.0, octaves=5, stretch=1.3)
        slope = np.gradient(ridge) * height
        light = woods + 0.35 * np.tanh(3 * slope) * np.sign(x[0] - sun[0])
        colours = ramp(HILLSIDE, (light * 1.3 - 0.25).clip(0, 1))
        foot = smoothstep(0.0, 0.2, y - ridge)  # mist lies in the valleys
        colours = mix(colours, rgb(HAZE), (haze + (1 - haze) * 0.35 * foot).clip(0, 1))
        picture = mix(picture, colours, ((y - ridge) * height + 0.5).clip(0, 1))
    return picture


def _town(pencil: Pencil, rng: np.random.Generator) -> None:
    """Rows of houses down the slope to the quay, with the church and trees between them."""
    church = pencil.aspect * rng.uniform(0.54, 0.66)
    for foot, climb, scale, haze in (
        (0.575, 0.190, 0.52, 0.34),
        (0.605, 0.140, 0.62, 0.25),
        (0.640, 0.080, 0.76, 0.14),
    ):
        slope = Slope(church + 0.06, foot, climb)
        _row_of_houses(pencil, rng, slope, scale, haze)
        _trees(pencil, rng, slope, 0.07 * scale, haze)
        if climb == 0.140:
            _church(pencil, church, foot=0.575)
    quay = Slope(church, WATERLINE - 0.012, 0.0)
    _row_of_houses(pencil, rng, quay, 1.08, 0.0)
    _trees(pencil, rng, quay, 0.058, 0.0)


@dataclass(frozen=True)
class Slope:
    """The ground of a row of houses: a hill whose top is at `top`."""

    top: float
    base: float
    climb: float

    def foot(self, x: float) -> float:
        return self.base - self.climb * exp(-(((x - self.top) / 0.42) ** 2))


def _row_of_houses(
    pencil: Pencil,
    rng: np.random.Generator,
    slope: Slope,
    scale: float,
    haze: float,
) -> None:
    """Houses side by side with a gap here and there; neighbours differ in colour."""
    x = -rng.uniform(0, 0.1)
    previous: Colour | None = None
    while x < pencil.aspect:
        wide, tall = scale * rng.uniform(0.115, 0.18), scale * rng.uniform(0.14, 0.235)
        facade = pick(rng, [c for c in FACADES if c != previous])
        if rng.random() > 0.06:
            House(x, slope.foot(x + wide / 2), wide, tall, haze).draw(pencil, rng, facade)
        previous = facade
        x += wide * rng.uniform(0.96, 1.02)


@dataclass(frozen=True)
class House:
    """A house from the front: lower left corner and size in picture heights, and haze in front of it."""

    left: float
    foot: float
    wide: float
    tall: float  # to the eaves
    haze: float

    @property
    def right(self) -> float:
        return self.left + self.wide

    @property
    def eaves(self) -> float:
        return self.foot - self.tall

    def draw(self, pencil: Pencil, rng: np.random.Generator, facade: Colour) -> None:
        """Walls, roof, chimney, windows and door."""
        wall = _shade(facade, rng.uniform(0.82, 1.02), self.haze)
        roof = _shade(pick(rng, ROOFS), rng.uniform(0.85, 1.1), self.haze)
        if rng.random() < 0.6:
            self._gable(pencil, rng.uniform(0.5, 0.72), wall, roof)
        else:
            self._tiles(pencil, rng, roof)
        # The ground below the house is hidden by what is in front of it.
        pencil.box(self.left, self.eaves, self.right, self.foot + 0.05, fill=wall)
        pencil.box(
            self.right - self.wide * 0.1, self.eaves, self.right, self.foot, fill=(20, 16, 40, 40)
        )
        pencil.box(
            self.left, self.eaves, self.right, self.eaves + self.tall * 0.04, fill=(20, 10, 20, 70)
        )
        if rng.random() < 0.35:
            self._timbering(pencil)
        self._windows(pencil, rng)

    def _chimney(self, pencil: Pencil, top: float) -> None:
        x = self.left + self.wide * 0.22
        pencil.box(x, top, x + self.wide * 0.1, self.eaves, fill=_shade(STONE, 0.6, self.haze))

    def _gable(self, pencil: Pencil, pitch: float, wall: Colour, roof: Colour) -> None:
        """A gable to the front, its edge of tiles, a round window in it."""
        middle, ridge, over = (
            self.left + self.wide / 2,
            self.eaves - self.wide * pitch,
            self.wide * 0.05,
        )
        self._chimney(pencil, ridge)
        lower = self.eaves + over
        pencil.polygon(
            [(self.left - over, lower), (middle, ridge - over * 1.4), (self.right + over, lower)],
            _shade(roof, 0.7),
        )
        pencil.polygon([(self.left, self.eaves), (middle, ridge), (self.right, self.eaves)], wall)
        pencil.polygon(
            [(middle, ridge), (self.right, self.eaves), (middle, self.eaves)], (20, 16, 40, 30)
        )
        pane = _shade(DARK_PANE, 1, self.haze)
        pencil.disc(
            middle,
            self.eaves - self.wide * pitch * 0.35,
            self.wide * 0.06,
            self.wide * 0.07,
            fill=pane,
        )

    def _tiles(self, pencil: Pencil, rng: np.random.Generator, roof: Colour) -> None:
        """A roof that slopes toward us, in rows of tiles."""
        rows, pitch, over = 8, self.wide * 0.38, self.wide * 0.04
        self._chimney(pencil, self.eaves - pitch * 1.25)
        for row in range(rows):
            upper, lower = row / rows, (row + 1) / rows
            corners = [
                (
                    self.left - over + self.wide * 0.08 * (1 - upper),
                    self.eaves - pitch * (1 - upper),
                ),
                (
                    self.right + over - self.wide * 0.08 * (1 - upper),
                    self.eaves - pitch * (1 - upper),
                ),
                (
                    self.right + over - self.wide * 0.08 * (1 - lower),
                    self.eaves - pitch * (1 - lower),
                ),
                (
                    self.left - over + self.wide * 0.08 * (1 - lower),
                    self.eaves - pitch * (1 - lower),
                ),
            ]
            pencil.polygon(corners, _shade(roof, rng.uniform(0.86, 1.12)))
            pencil.line(corners[2:], 0.0012, (20, 10, 20, 70))

    def _timbering(self, pencil: Pencil) -> None:
        """Beams of a half-timbered wall."""
        colour, thick = _shade(TIMBER, 1, self.haze), self.wide * 0.02
        upper, middle, lower = (self.eaves + self.tall * part for part in (0.02, 0.36, 0.68))
        for y in (upper, middle, lower):
            pencil.line([(self.left, y), (self.right, y)], thick, colour)
        for part in (0.01, 0.255, 0.5, 0.745, 0.99):
            x = self.left + self.wide * part
            pencil.line([(x, upper), (x, lower)], thick, colour)
        for x, lean in ((self.left, 0.24), (self.right, -0.24)):
            pencil.line([(x, middle), (x + lean * self.wide, lower)], thick, colour)

    def _windows(self, pencil: Pencil, rng: np.random.Generator) -> None:
        """Storeys of windows, some lit, and a door in the lowest."""
        columns = 3 if self.wide > 0.75 * self.tall else 2
        storeys = 3
        shutter = _shade(pick(rng, HULLS), 0.7, self.haze) if rng.random() < 0.5 else None
        door = int(rng.integers(columns))
        w, h = self.wide * 0.25 / columns, self.tall * 0.31 / storeys
        for storey in range(storeys):
            for column in range(columns):
                x = self.left + self.wide * (column + 0.5) / columns
                y = self.eaves + self.tall * (storey + 0.52) / storeys
                if storey == storeys - 1 and column == door:
                    wood = _shade(TIMBER, 1.1, self.haze)
                    pencil.box(x - w * 1.1, y - h * 0.9, x + w * 1.1, self.foot, fill=wood)
                    continue
                if shutter:
                    pencil.box(x - w * 1.9, y - h, x + w * 1.9, y + h, fill=shutter)
                self._window(pencil, rng, (x, y), (w, h))

    def _window(self, pencil: Pencil, rng: np.random.Generator, middle: Point, half: Point) -> None:
        """A window with frame and glazing bars; two in five are lit."""
        (x, y), (w, h) = middle, half
        frame = _shade((226, 216, 200), 0.9, self.haze)
        pane = _shade(DARK_PANE, rng.uniform(0.7, 1.5), self.haze)
        if rng.random() < 0.4:
            pane = pick(rng, LAMPLIGHT)
        pencil.box(x - w * 1.2, y - h * 1.15, x + w * 1.2, y + h * 1.2, fill=frame)
        pencil.box(x - w, y - h, x + w, y + h, fill=pane)
        pencil.line([(x, y - h), (x, y + h)], w * 0.22, frame)
        pencil.line([(x - w, y - h * 0.2), (x + w, y - h * 0.2)], w * 0.22, frame)


def _church(pencil: Pencil, x: float, foot: float) -> None:
    """Nave, tower and spire, sunlit from the left."""
    draw = pencil.at(x, foot, 0.31)  # in lengths of the nave
    lit, shaded = _shade(LIMESTONE, 1, 0.08), _shade(LIMESTONE, 0.7, 0.08)
    draw.polygon([(0, -0.43), (0.15, -0.72), (0.9, -0.72), (1, -0.43)], _shade(ROOFS[0], 0.95))
    draw.box(0, -0.43, 1, 0, fill=shaded)
    for window in (0.26, 0.44, 0.62, 0.8):
        draw.box(window - 0.03, -0.32, window + 0.03, -0.06, fill=LAMPLIGHT[0])
        draw.disc(window, -0.32, 0.03, 0.045, fill=LAMPLIGHT[0])
    draw.box(-0.12, -1, 0.04, 0, fill=lit)
    draw.box(0.04, -1, 0.12, 0, fill=shaded)
    draw.polygon([(-0.14, -1), (0, -1.55), (0.04, -1)], _shade(SLATE, 1.25))
    draw.polygon([(0.04, -1), (0, -1.55), (0.14, -1)], _shade(SLATE, 0.75))
    draw.line([(0, -1.55), (0, -1.64)], 0.01, TIMBER)
    draw.line([(-0.027, -1.615), (0.027, -1.615)], 0.01, TIMBER)
    draw.disc(-0.04, -0.88, 0.05, 0.05, fill=SUN)
    for opening in (-0.085, 0.0):
        draw.box(opening, -0.78, opening + 0.04, -0.63, fill=DARK_PANE)


def _trees(
    pencil: Pencil,
    rng: np.random.Generator,
    slope: Slope,
    size: float,
    haze: float,
) -> None:
    """A few round trees of many small leaves, lighter toward the sun and upward."""
    for x in (np.arange(5) + rng.random(5)) * pencil.aspect / 5:
        radius = size * rng.uniform(0.8, 1.4)
        top = slope.foot(x) - radius
        leaves = rng.normal(0, 0.42, (320, 2)).clip(-1, 1)
        leaves = leaves[np.argsort(-leaves[:, 1])]
        light = 0.5 - 0.4 * leaves[:, 1] - 0.3 * leaves[:, 0] + rng.normal(0, 0.15, len(leaves))
        tones = (ramp(FOLIAGE, light.clip(0, 1)) * 255).astype(int).tolist()
        for (dx, dy), tone in zip(leaves, tones, strict=True):
            middle = (x + dx * radius, top + dy * radius * 1.1)
            leaf_radius = radius * rng.uniform(0.05, 0.11)
            pencil.disc(*middle, leaf_radius, 0.8 * leaf_radius, fill=_shade(tuple(tone), 1, haze))


def _quay(pencil: Pencil, rng: np.random.Generator) -> None:
    """The wall along the water, in courses of stone, with lamps on it."""
    top = WATERLINE - 0.03
    pencil.box(0, top, pencil.aspect, WATERLINE, fill=_shade(STONE, 0.8))
    for course in range(3):
        y, x = top + 0.01 * course, 0.0
        while x < pencil.aspect:
            wide = float(rng.uniform(0.02, 0.045))
            pencil.box(x, y, x + wide, y + 0.01, fill=_shade(STONE, float(rng.uniform(0.55, 1.05))))
            x += wide
    pencil.box(0, top - 0.004, pencil.aspect, top, fill=_shade(STONE, 1.35))
    pencil.box(0, WATERLINE - 0.008, pencil.aspect, WATERLINE, fill=(10, 16, 20, 120))
    for x in np.arange(0.12, pencil.aspect, 0.3):
        pencil.line([(x, top), (x, top - 0.085)], 0.0035, (36, 32, 38))
        pencil.disc(x, top - 0.09, 0.007, 0.009, fill=LAMPLIGHT[2])


def _boats(pencil: Pencil, rng: np.random.Generator) -> None:
    """Fishing boats and sailing boats along the quay."""
    x = rng.uniform(0.02, 0.15)
    while x < pencil.aspect - 0.1:
        long = rng.uniform(0.13, 0.24)
        _boat(pencil, rng, x, long)
        x += long * rng.uniform(1.15, 2.0)


def _boat(pencil: Pencil, rng: np.random.Generator, left: float, long: float) -> None:
    """One boat afloat at the waterline: stays, mast, furled sail, cabin and hull."""
    draw = pencil.at(left, WATERLINE + 0.004, long)  # in lengths of the boat
    top = -0.15 - rng.uniform(1.0, 1.5)
    for end in (0.02, 0.98):
        draw.line([(end, -0.15), (0.45, top)], 0.008, (*TIMBER, 200))
    draw.line([(0.45, -0.15), (0.45, top)], 0.026, _shade(TIMBER, 1.6))
    draw.line([(0.45, -0.31), (0.9, -0.35)], 0.07, _shade(CANVAS, 0.93))
    draw.box(0.5, -0.28, 0.78, -0.14, fill=CANVAS)
    for window, pane in ((0.54, DARK_PANE), (0.62, LAMPLIGHT[0]), (0.70, LAMPLIGHT[0])):
        draw.box(window, -0.25, window + 0.045, -0.19, fill=pane)
    hull, sheer = pick(rng, HULLS), [(-0.05, -0.2), (0.4, -0.13), (1.02, -0.17)]
    draw.polygon([*sheer, (0.95, 0), (0.07, 0)], _shade(hull, 0.9))
    draw.polygon([(0.02, -0.045), (0.98, -0.045), (0.95, 0), (0.07, 0)], _shade(hull, 0.5))
    draw.line(sheer, 0.02, CANVAS)


def _weathered(drawn: Array, bare: Array, rng: np.random.Generator) -> Array:
    """Grain of plaster, tiles and leaves on everything drawn on `bare`, and a glow around the lamps."""
    height, width = drawn.shape[:2]
    built = np.abs(drawn - bare).max(axis=-1) > 0.01
    lamps = built & (drawn[..., 0] > 0.97) & (drawn[..., 0] - drawn[..., 2] > 0.35)
    coarse = noise(rng, width, height, 14.0, octaves=3) - 0.5
    fine = noise(rng, width, height, 200.0, octaves=2) - 0.5
    texture = 1 + built * (0.2 * coarse + 0.35 * fine)
    light = Image.fromarray((lamps * 255).astype(np.uint8))
    near, far = (
        to_array(light.filter(ImageFilter.GaussianBlur(radius * height)))[..., None]
        for radius in (0.005, 0.022)
    )
    return np.asarray(drawn * texture[..., None] + (0.35 * near + 0.45 * far) * rgb(LAMPLIGHT[1]))
