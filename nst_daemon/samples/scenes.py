"""Scenes that look like photographs: a harbour at dusk, mountains over a lake.

Lengths are in picture heights from the upper left corner; a picture `aspect` heights wide ends at x = aspect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from nst_daemon.samples.raster import (
    Array,
    Colour,
    Drawing,
    grid,
    mix,
    noise,
    ramp,
    rgb,
    smoothstep,
    to_array,
    to_image,
)

DUSK_SKY: tuple[Colour, ...] = (
    (40, 62, 118),
    (72, 96, 154),
    (134, 128, 170),
    (214, 150, 144),
    (250, 192, 136),
    (255, 220, 162),
)
CLOUD_SHADE: Colour = (92, 84, 124)
CLOUD_LIT: Colour = (255, 190, 150)
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
    (142, 66, 48),
    (118, 56, 46),
    (158, 84, 58),
    (80, 72, 82),
    (104, 60, 54),
)
STONE: Colour = (136, 122, 112)
TIMBER: Colour = (58, 40, 34)
DARK_PANE: Colour = (42, 48, 66)
LAMPLIGHT: tuple[Colour, ...] = ((255, 206, 112), (255, 186, 84), (255, 226, 152))
FOLIAGE: tuple[Colour, ...] = ((22, 36, 30), (44, 64, 38), (84, 94, 46), (158, 136, 64))
HULLS: tuple[Colour, ...] = ((150, 44, 38), (30, 74, 108), (230, 222, 206), (36, 86, 76))
DEEP_WATER: Colour = (20, 42, 62)

Point = tuple[float, float]

WATERLINE = 0.70


class Pencil:
    """Draws on an RGB picture in picture heights; colours may have an opacity as a fourth number, 0–255."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.unit = image.height
        self.aspect = image.width / image.height
        self.draw = ImageDraw.Draw(image, "RGBA")

    def polygon(self, points: Sequence[Point], fill: tuple[int, ...]) -> None:
        self.draw.polygon([(x * self.unit, y * self.unit) for x, y in points], fill=fill)

    def box(
        self, left: float, top: float, right: float, bottom: float, fill: tuple[int, ...]
    ) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def line(self, points: Sequence[Point], width: float, fill: tuple[int, ...]) -> None:
        pixels = max(1, round(width * self.unit))
        self.draw.line([(x * self.unit, y * self.unit) for x, y in points], fill=fill, width=pixels)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: tuple[int, ...]) -> None:
        u = self.unit
        self.draw.ellipse(((x - rx) * u, (y - ry) * u, (x + rx) * u, (y + ry) * u), fill=fill)


def _shade(colour: Colour, light: float, haze: float = 0.0) -> Colour:
    """`colour` under so much light (1 leaves it), seen through so much haze in [0, 1]."""
    red, green, blue = (
        int(min(255.0, max(0.0, c * light * (1 - haze) + h * haze)))
        for c, h in zip(colour, HAZE, strict=True)
    )
    return red, green, blue


def _pick(rng: np.random.Generator, palette: Sequence[Colour]) -> Colour:
    return palette[int(rng.integers(len(palette)))]


# --- Harbour ----------------------------------------------------------------------------------------------------------


def harbour(width: int, height: int, rng: np.random.Generator) -> Array:
    """A small town with its church on a bay, the lamps just lit, everything once more in the water."""
    sun = 0.2 * width / height
    sky = _dusk_sky(width, height, rng, sun)
    land = _hills(sky, rng, sun)
    image = to_image(land)
    pencil = Pencil(image)
    _town(pencil, rng)
    _quay(pencil, rng)
    _boats(pencil, rng)
    town = _weathered(to_array(image), land, rng)
    water = _water(town, rng, sun)
    return _developed(water)


def _dusk_sky(width: int, height: int, rng: np.random.Generator, sun: float) -> Array:
    """Sky down to the waterline: a gradient, the sun's glow and clouds that are lit from below."""
    x, y = grid(width, height, height)
    drift = noise(rng, width, height, 2.0, octaves=3, stretch=4)
    picture = ramp(DUSK_SKY, (y / WATERLINE * 1.25 + 0.16 * (drift - 0.5)).clip(0, 1))
    distance = np.hypot((x - sun) * 0.8, y - 0.46)
    picture = mix(picture, rgb(SUN), 0.85 * np.exp(-((distance / 0.17) ** 2)))
    picture = mix(picture, rgb(SUN), 0.3 * np.exp(-distance / 0.3))
    clouds = noise(rng, width, height, 4.0, octaves=6, stretch=2.6)
    # Higher clouds are nearer: rows are taken closer together toward the horizon.
    depth = (1 - (y[:, 0] / WATERLINE).clip(0, 1)) ** 0.6
    rows = ((1 - depth) * 0.9 * (height - 1)).astype(int)
    clouds = clouds[rows]
    below = np.roll(clouds, -max(1, height // 60), axis=0)
    cover = smoothstep(0.47, 0.68, clouds) * (0.9 - 0.35 * y)
    lit = smoothstep(-0.05, 0.09, clouds - below) * np.exp(-distance * 0.8)
    colour = mix(mix(picture, rgb(CLOUD_SHADE), 0.75), rgb(CLOUD_LIT), lit)
    return mix(picture, colour, cover)


def _hills(sky: Array, rng: np.random.Generator, sun: float) -> Array:
    """Three ridges behind one another, the farther the hazier."""
    height, width = sky.shape[:2]
    x, y = grid(width, height, height)
    picture = sky
    for base, swing, haze in ((0.47, 0.16, 0.72), (0.53, 0.13, 0.48), (0.60, 0.12, 0.2)):
        ridge = base + swing * (0.5 - noise(rng, width, height, 2.0, octaves=6)[height // 3])
        woods = noise(rng, width, height, 22.0, octaves=5, stretch=1.3)
        slope = np.gradient(ridge) * height
        light = woods + 0.35 * np.tanh(3 * slope) * np.sign(x[0] - sun)
        colours = ramp(HILLSIDE, (light * 1.3 - 0.25).clip(0, 1))
        foot = smoothstep(0.0, 0.2, y - ridge)  # mist lies in the valleys
        colours = mix(colours, rgb(HAZE), (haze + (1 - haze) * 0.35 * foot).clip(0, 1))
        picture = mix(picture, colours, ((y - ridge) * height + 0.5).clip(0, 1))
    return picture


def _town(pencil: Pencil, rng: np.random.Generator) -> None:
    """Rows of houses down the slope to the quay, with the church and trees between them."""
    church = pencil.aspect * rng.uniform(0.54, 0.66)
    for foot, climb, scale, haze in (
        (0.585, 0.150, 0.42, 0.34),
        (0.615, 0.120, 0.50, 0.25),
        (0.645, 0.075, 0.60, 0.14),
    ):
        slope = Slope(church + 0.06, foot, climb)
        _row_of_houses(pencil, rng, slope, scale, haze)
        _trees(pencil, rng, slope, 0.07 * scale, haze)
        if climb == 0.120:
            _church(pencil, church, foot=0.56)
    quay = Slope(church, WATERLINE - 0.012, 0.0)
    _row_of_houses(pencil, rng, quay, 0.86, 0.0)
    _trees(pencil, rng, quay, 0.05, 0.0)


@dataclass(frozen=True)
class Slope:
    """Where a row of houses stands: on a hill whose top is at `top`."""

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
        facade = _pick(rng, [c for c in FACADES if c != previous])
        if rng.random() > 0.06:
            House(x, slope.foot(x + wide / 2), wide, tall, haze).draw(pencil, rng, facade)
        previous = facade
        x += wide * rng.uniform(0.96, 1.02)


@dataclass(frozen=True)
class House:
    """A house from the front: its lower left corner and size in picture heights, and the haze before it."""

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
        roof = _shade(_pick(rng, ROOFS), rng.uniform(0.85, 1.1), self.haze)
        if rng.random() < 0.6:
            self._gable(pencil, rng.uniform(0.5, 0.72), wall, roof)
        else:
            self._tiles(pencil, rng, roof)
        # The soil below the house is hidden by whatever stands before it.
        pencil.box(self.left, self.eaves, self.right, self.foot + 0.05, wall)
        pencil.box(
            self.right - self.wide * 0.1, self.eaves, self.right, self.foot, (20, 16, 40, 40)
        )
        pencil.box(
            self.left, self.eaves, self.right, self.eaves + self.tall * 0.04, (20, 10, 20, 70)
        )
        if rng.random() < 0.35:
            self._timbering(pencil)
        self._windows(pencil, rng)

    def _chimney(self, pencil: Pencil, top: float) -> None:
        x = self.left + self.wide * 0.22
        pencil.box(x, top, x + self.wide * 0.1, self.eaves, _shade(STONE, 0.6, self.haze))

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
            middle, self.eaves - self.wide * pitch * 0.35, self.wide * 0.06, self.wide * 0.07, pane
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
        shutter = _shade(_pick(rng, HULLS), 0.7, self.haze) if rng.random() < 0.5 else None
        door = int(rng.integers(columns))
        w, h = self.wide * 0.25 / columns, self.tall * 0.31 / storeys
        for storey in range(storeys):
            for column in range(columns):
                x = self.left + self.wide * (column + 0.5) / columns
                y = self.eaves + self.tall * (storey + 0.52) / storeys
                if storey == storeys - 1 and column == door:
                    wood = _shade(TIMBER, 1.1, self.haze)
                    pencil.box(x - w * 1.1, y - h * 0.9, x + w * 1.1, self.foot, wood)
                    continue
                if shutter:
                    pencil.box(x - w * 1.9, y - h, x + w * 1.9, y + h, shutter)
                self._window(pencil, rng, (x, y), (w, h))

    def _window(self, pencil: Pencil, rng: np.random.Generator, middle: Point, half: Point) -> None:
        """A window with frame and glazing bars; two in five are lit."""
        (x, y), (w, h) = middle, half
        frame = _shade((226, 216, 200), 0.9, self.haze)
        pane = _shade(DARK_PANE, rng.uniform(0.7, 1.5), self.haze)
        if rng.random() < 0.4:
            pane = _pick(rng, LAMPLIGHT)
        pencil.box(x - w * 1.2, y - h * 1.15, x + w * 1.2, y + h * 1.2, frame)
        pencil.box(x - w, y - h, x + w, y + h, pane)
        pencil.line([(x, y - h), (x, y + h)], w * 0.22, frame)
        pencil.line([(x - w, y - h * 0.2), (x + w, y - h * 0.2)], w * 0.22, frame)


def _church(pencil: Pencil, x: float, foot: float) -> None:
    """Nave, tower and spire, sunlit from the left."""
    lit, shaded, slate = (
        _shade((214, 190, 160), 1, 0.08),
        _shade((150, 124, 116), 1, 0.08),
        (72, 78, 96),
    )
    nave, tower, half = foot - 0.13, foot - 0.30, 0.036
    pencil.polygon(
        [(x, nave), (x + 0.05, nave - 0.085), (x + 0.27, nave - 0.085), (x + 0.3, nave)],
        (126, 66, 54),
    )
    pencil.box(x, nave, x + 0.3, foot, shaded)
    for i in range(4):
        window = x + 0.08 + 0.055 * i
        pencil.box(window - 0.009, nave + 0.03, window + 0.009, foot - 0.02, LAMPLIGHT[0])
        pencil.disc(window, nave + 0.03, 0.009, 0.014, LAMPLIGHT[0])
    pencil.box(x - half, tower, x + half * 0.3, foot, lit)
    pencil.box(x + half * 0.3, tower, x + half, foot, shaded)
    pencil.polygon(
        [(x - half * 1.15, tower), (x, tower - 0.2), (x + half * 0.3, tower)], _shade(slate, 1.25)
    )
    pencil.polygon(
        [(x + half * 0.3, tower), (x, tower - 0.2), (x + half * 1.15, tower)], _shade(slate, 0.75)
    )
    pencil.line([(x, tower - 0.2), (x, tower - 0.235)], 0.003, (60, 50, 50))
    pencil.line([(x - 0.008, tower - 0.225), (x + 0.008, tower - 0.225)], 0.003, (60, 50, 50))
    pencil.disc(x - 0.006, tower + 0.035, 0.015, 0.015, (240, 226, 190))
    for offset in (-0.02, 0.006):
        pencil.box(
            x + offset - 0.006, tower + 0.065, x + offset + 0.006, tower + 0.11, (54, 44, 52)
        )


def _trees(
    pencil: Pencil,
    rng: np.random.Generator,
    slope: Slope,
    size: float,
    haze: float,
) -> None:
    """A few round trees of many small leaves, lighter toward the sun and upward."""
    for x in rng.uniform(0, pencil.aspect, 5):
        radius = size * rng.uniform(0.8, 1.4)
        top = slope.foot(x) - radius
        leaves = rng.normal(0, 0.42, (240, 2)).clip(-1, 1)
        leaves = leaves[np.argsort(-leaves[:, 1])]
        light = 0.5 - 0.4 * leaves[:, 1] - 0.3 * leaves[:, 0] + rng.normal(0, 0.15, len(leaves))
        tones = (ramp(FOLIAGE, light.clip(0, 1)) * 255).astype(int).tolist()
        for (dx, dy), tone in zip(leaves, tones, strict=True):
            leaf = (x + dx * radius, top + dy * radius * 1.1)
            pencil.disc(*leaf, radius * 0.11, radius * 0.09, _shade(tuple(tone), 1, haze))


def _quay(pencil: Pencil, rng: np.random.Generator) -> None:
    """The wall along the water, in courses of stone, with lamps on it."""
    top = WATERLINE - 0.03
    pencil.box(0, top, pencil.aspect, WATERLINE, _shade(STONE, 0.8))
    for course in range(3):
        y, x = top + 0.01 * course, 0.0
        while x < pencil.aspect:
            wide = float(rng.uniform(0.02, 0.045))
            pencil.box(x, y, x + wide, y + 0.01, _shade(STONE, float(rng.uniform(0.55, 1.05))))
            x += wide
    pencil.box(0, top - 0.004, pencil.aspect, top, _shade(STONE, 1.35))
    pencil.box(0, WATERLINE - 0.008, pencil.aspect, WATERLINE, (10, 16, 20, 120))
    for x in np.arange(0.12, pencil.aspect, 0.3):
        pencil.line([(x, top), (x, top - 0.085)], 0.0035, (36, 32, 38))
        pencil.disc(x, top - 0.09, 0.007, 0.009, LAMPLIGHT[2])


def _boats(pencil: Pencil, rng: np.random.Generator) -> None:
    """Fishing boats and sailing boats along the quay."""
    x = rng.uniform(0.02, 0.15)
    while x < pencil.aspect - 0.1:
        long = rng.uniform(0.13, 0.24)
        _boat(pencil, rng, x, long)
        x += long * rng.uniform(1.15, 2.0)


def _boat(pencil: Pencil, rng: np.random.Generator, left: float, long: float) -> None:
    """One boat afloat at the waterline: hull, cabin, mast and stays."""
    hull, right, y = _pick(rng, HULLS), left + long, WATERLINE + 0.004
    deck = y - long * 0.15
    mast = left + long * 0.45
    tall = long * rng.uniform(1.0, 1.5)
    for end in (left + long * 0.02, right - long * 0.02):
        pencil.line([(end, deck), (mast, deck - tall)], 0.0014, (50, 40, 44, 200))
    pencil.line([(mast, deck), (mast, deck - tall)], 0.005, (92, 62, 46))
    pencil.line(
        [(mast, deck - long * 0.16), (right - long * 0.1, deck - long * 0.2)],
        0.013,
        (214, 196, 168),
    )
    pencil.box(
        left + long * 0.5, deck - long * 0.13, left + long * 0.78, deck + 0.01, (226, 214, 192)
    )
    for i in range(3):
        x = left + long * (0.54 + 0.08 * i)
        pencil.box(
            x,
            deck - long * 0.1,
            x + long * 0.045,
            deck - long * 0.04,
            LAMPLIGHT[0] if i else DARK_PANE,
        )
    sheer = [
        (left - long * 0.05, deck - long * 0.05),
        (left + long * 0.4, deck + long * 0.02),
        (right + long * 0.02, deck - long * 0.02),
    ]
    pencil.polygon([*sheer, (right - long * 0.05, y), (left + long * 0.07, y)], _shade(hull, 0.9))
    pencil.polygon(
        [
            (left + long * 0.02, y - long * 0.045),
            (right - long * 0.02, y - long * 0.045),
            (right - long * 0.05, y),
            (left + long * 0.07, y),
        ],
        _shade(hull, 0.5),
    )
    pencil.line(sheer, 0.004, (236, 224, 200))


def _weathered(drawn: Array, bare: Array, rng: np.random.Generator) -> Array:
    """Grain of plaster, tiles and leaves over everything that was drawn, and the glow of the lamps around them."""
    height, width = drawn.shape[:2]
    built = (np.abs(drawn - bare).max(axis=-1) > 0.01).astype(np.float32)
    coarse = noise(rng, width, height, 14.0, octaves=3)
    fine = noise(rng, width, height, 120.0, octaves=2, stretch=1.5)
    texture = 1 + built * (0.22 * (coarse - 0.5) + 0.5 * (fine - 0.5))
    drawn = drawn * texture[..., None]
    lamps = (
        smoothstep(0.5, 0.75, drawn[..., 0] - drawn[..., 2] + 0.0) * built * (drawn[..., 0] > 0.9)
    )
    light = Image.fromarray((lamps * 255).astype(np.uint8))
    halo = np.zeros((height, width), dtype=np.float32)
    for radius, gain in ((0.006, 0.8), (0.025, 0.9)):
        halo += (
            gain
            * np.asarray(light.filter(ImageFilter.GaussianBlur(radius * height)), dtype=np.float32)
            / 255
        )
    return drawn + halo[..., None] * rgb(LAMPLIGHT[1])


def _water(picture: Array, rng: np.random.Generator, sun: float) -> Array:
    """Below the waterline: the picture above it upside down, broken by ripples that grow toward us."""
    height, width = picture.shape[:2]
    top = round(WATERLINE * height)
    x, y = grid(width, height - top, height)
    near = y / (1 - WATERLINE)
    swell = _ripples(width, height - top, rng)
    down = y * 1.05 * height + swell * (5 + 26 * near) * height / 480
    across = np.roll(swell, 7, axis=0) * (1 + 7 * near) * height / 480
    rows = (top - 1 - down).clip(0, top - 1).astype(int)
    columns = (np.arange(width)[None, :] + across).clip(0, width - 1).astype(int)
    mirrored = picture[rows, columns]
    reflecting = (0.86 - 0.34 * near + 0.5 * swell).clip(0.15, 1)
    water = mix(np.broadcast_to(rgb(DEEP_WATER), mirrored.shape), mirrored, reflecting)
    glitter = smoothstep(0.16, 0.4, swell) * np.exp(-(((x - sun) / (0.1 + 0.15 * near)) ** 2))
    water = mix(water, rgb(SUN), 0.6 * glitter)
    picture = picture.copy()
    picture[top:] = water
    return picture


def _ripples(width: int, rows: int, rng: np.random.Generator) -> Array:
    """Slopes of the water's surface, (rows, width) about in [-0.5, 0.5], seen in perspective."""
    flat = noise(rng, width, rows * 2, 46.0, octaves=4, stretch=6.0) - 0.5
    # Equal steps on the water shrink toward the horizon: depth goes with 1 / distance below it.
    near = (np.arange(rows) + 1) / rows
    taken = (0.22 / (near + 0.12)) / (0.22 / 0.12)
    return np.asarray(1.6 * flat[(taken * (2 * rows - 1)).astype(int)])


def _developed(picture: Array) -> Array:
    """As a camera gives it: a little more contrast and darker corners."""
    height, width = picture.shape[:2]
    x, y = grid(width, height, height)
    corner = np.hypot((x - width / height / 2) / (width / height), y - 0.5)
    picture = picture * (1 - 0.35 * corner**2)[..., None]
    return mix(picture, smoothstep(0, 1, picture.clip(0, 1)), 0.35)


SCENES: Mapping[str, Drawing] = {"harbour": harbour}
