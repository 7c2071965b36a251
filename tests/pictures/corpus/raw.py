"""Camera raw: DNG files with every kind of raw data that tifffile writes.

A raw file is brightened until 1 % of its pixels are white, by three stops at most. Flat colours below 1/8 of white are
therefore brightened eightfold; other pictures here contain enough white.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, product
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from nst_daemon.pictures.metadata import upright
from tests.pictures.corpus.case import Array, Case
from tests.pictures.kinds import SRGB_PRIMARIES, pillow, srgb_curve, to_xyz

HEIGHT, WIDTH = 24, 32
CFA, LINEAR = 32803, 34892
#: A step of LibRaw's linear 16 bits after brightening by 8, at the steepest slope of sRGB's curve.
BRIGHTENED = 1.5 * 8 * 12.92 / 65535

#: From XYZ to the camera's colours: a camera with sRGB's primaries, and one like real cameras.
MATRICES = {
    "sRGB": np.linalg.inv(to_xyz(SRGB_PRIMARIES)),
    "camera": np.array([[0.7, -0.2, -0.05], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6]]),
}
#: What neutral grey is in the camera's colours.
NEUTRALS = {"daylight": (1.0, 1.0, 1.0), "tungsten": (0.5, 1.0, 0.7), "shade": (1.0, 0.8, 0.6)}
#: In linear sRGB.
COLOURS = ((0.1, 0.1, 0.1), (0.11, 0.05, 0.03), (0.02, 0.06, 0.11), (0.02, 0.02, 0.02))
PATTERNS = {"RGGB": (0, 1, 1, 2), "BGGR": (2, 1, 1, 0), "GRBG": (1, 0, 2, 1), "GBRG": (1, 2, 0, 1)}


@dataclass(frozen=True)
class Camera:
    """What a DNG says of its values."""

    matrix: Array = field(default_factory=lambda: MATRICES["sRGB"])
    neutral: tuple[float, ...] = NEUTRALS["daylight"]
    black: int = 0
    white: int = 65535
    orientation: int = 1

    def values(self, linear: Array) -> Array:
        """Raw values, rounded, of linear sRGB (…, 3)."""
        share = linear @ self._from_rgb().T * self.neutral
        return np.round(share * (self.white - self.black) + self.black)

    def linear(self, values: Array) -> Array:
        """Linear sRGB of raw values (…, 3)."""
        share = (values - self.black) / (self.white - self.black)
        return share / self.neutral @ np.linalg.inv(self._from_rgb()).T

    def _from_rgb(self) -> Array:
        """Neutral grey has equal values after the white balance: each row adds up to 1."""
        matrix = self.matrix @ to_xyz(SRGB_PRIMARIES)
        return matrix / matrix.sum(axis=1, keepdims=True)


def rationals(values: Any) -> tuple[int, ...]:
    """Numerators and denominators."""
    return tuple(n for value in np.ravel(values) for n in (round(value * 1_000_000), 1_000_000))


def tags(camera: Camera) -> list[tuple[Any, ...]]:
    """The tags of the first directory (DNG 1.7, chapter 4)."""
    return [
        (271, 2, None, "Maker", True),
        (272, 2, None, "Camera", True),
        (274, 3, 1, camera.orientation, True),
        (306, 2, None, "2024:05:06 07:08:09", True),
        (315, 2, None, "An Artist", True),
        (50706, 1, 4, (1, 4, 0, 0), True),
        (50707, 1, 4, (1, 1, 0, 0), True),
        (50708, 2, None, "Maker Camera", True),
        (50721, 10, 9, rationals(camera.matrix), True),
        (50728, 5, 3, rationals(camera.neutral), True),
        (50778, 3, 1, 21, True),
    ]


def raw_tags(camera: Camera, samples: int, pattern: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """The tags of the directory with the raw data."""
    levels = [
        (50714, 4, samples, (camera.black,) * samples, True),
        (50717, 4, samples, (camera.white,) * samples, True),
    ]
    mosaic = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, pattern, True)] if pattern else []
    return levels + mosaic


def dng(
    pixels: Array,
    camera: Camera,
    pattern: tuple[int, ...] = (),
    *,
    byteorder: str = "<",
    preview: Array | None = None,
    **options: Any,
) -> bytes:
    """A DNG with a colour filter array, or with LinearRaw without a pattern; a preview is the first picture then."""
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    options = {"photometric": CFA if pattern else LINEAR, "metadata": None, **options}
    own = raw_tags(camera, samples, pattern)
    out = io.BytesIO()
    with tifffile.TiffWriter(out, byteorder=byteorder) as file:
        if preview is None:
            file.write(pixels, extratags=tags(camera) + own, **options)
        else:
            file.write(
                iter([pillow(preview, "JPEG", quality=95)]), shape=preview.shape, dtype="uint8",
                photometric="ycbcr", compression="jpeg", rowsperstrip=len(preview), subifds=1,
                subfiletype=1, extratags=tags(camera), metadata=None,
            )  # fmt: skip
            file.write(pixels, extratags=own, **options)
    return out.getvalue()


def mosaic(values: Array, pattern: tuple[int, ...], dtype: Any = np.uint16) -> Array:
    """Of one colour."""
    tile = np.array(values)[list(pattern)].reshape(2, 2)
    return np.tile(tile, (HEIGHT // 2, WIDTH // 2)).astype(dtype)


def lossless_jpeg(pixels: Array, camera: Camera, pattern: tuple[int, ...]) -> bytes:
    """A DNG whose raw data are a lossless JPEG."""
    coded = iter([bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=16))])
    own = tags(camera) + raw_tags(camera, 1, pattern)
    out = io.BytesIO()
    tifffile.imwrite(
        out, coded, shape=pixels.shape, dtype=pixels.dtype, photometric=CFA, compression=7,
        rowsperstrip=HEIGHT, extratags=own, metadata=None,
    )  # fmt: skip
    return out.getvalue()


def flat(camera: Camera, values: Array) -> Array:
    """A picture of one dark colour becomes eight times as bright."""
    colour = srgb_curve((8 * camera.linear(values)).clip(0, 1))
    return np.broadcast_to(colour, (HEIGHT, WIDTH, 3))


def cases() -> Iterator[Case]:
    """Colour filter arrays, linear files, and refusals."""
    yield from _mosaics()
    yield from _stored()
    yield from _linear()
    yield from _refused()


def _mosaics() -> Iterator[Case]:
    """Patterns × bits × black levels × cameras × light, each with one of the colours."""
    colours = cycle(COLOURS)
    bits = (8, 10, 12, 14, 16)
    for key in product(PATTERNS, bits, (0, 1), MATRICES, NEUTRALS):
        name, depth, offset, matrix, light = key
        white = 2**depth - 1
        camera = Camera(MATRICES[matrix], NEUTRALS[light], offset * white // 16, white)
        values = camera.values(np.array(next(colours)))
        pixels = mosaic(values, PATTERNS[name], np.uint8 if depth == 8 else np.uint16)
        label = f"{name}, {depth} bits, black {camera.black}, {matrix}, {light}"
        packed = {"bitspersample": depth} if depth in (10, 12, 14) else {}
        for how, options in {"": {}, ", packed": packed}.items():
            if how and not options:
                continue
            make = partial(dng, pixels, camera, PATTERNS[name], **options)
            yield Case(label + how, make, flat(camera, values), tolerance=BRIGHTENED)


def _stored() -> Iterator[Case]:
    """How raw data are stored: byte orders, tiles, BigTIFF, lossless JPEG, floating point, with a preview first."""
    camera = Camera(MATRICES["camera"], NEUTRALS["tungsten"])
    values = camera.values(np.array(COLOURS[1]))
    expected, pattern = flat(camera, values), PATTERNS["RGGB"]
    pixels = mosaic(values, pattern)
    shares = (pixels / 65535).astype(np.float32)
    unit = Camera(camera.matrix, camera.neutral, white=1)
    preview = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    makers = {
        "big-endian": partial(dng, pixels, camera, pattern, byteorder=">"),
        "tiles": partial(dng, pixels, camera, pattern, tile=(16, 16)),
        "strips": partial(dng, pixels, camera, pattern, rowsperstrip=4),
        "lossless JPEG": partial(lossless_jpeg, pixels, camera, pattern),
        "preview first": partial(dng, pixels, camera, pattern, preview=preview),
        "float16": partial(dng, shares.astype(np.float16), unit, pattern),
        "float32": partial(dng, shares, unit, pattern),
        "float32, ZIP": partial(dng, shares, unit, pattern, compression="zlib", predictor=3),
    }
    for name, make in makers.items():
        # LibRaw converts floating-point values to 14 bits, half precision has 11.
        tolerance = 16 * BRIGHTENED if name.startswith("float") else BRIGHTENED
        yield Case(name, make, expected, tolerance=tolerance)


def _linear() -> Iterator[Case]:
    """LinearRaw has all colours for each pixel: any picture is exact. All orientations."""
    picture = np.random.default_rng(5).random((HEIGHT, WIDTH, 3))
    picture[:2] = 1
    for depth, matrix, orientation in product((8, 16), MATRICES, range(1, 9)):
        camera = Camera(MATRICES[matrix], white=2**depth - 1, orientation=orientation)
        values = camera.values(0.2 + 0.8 * picture)
        linear = camera.linear(values)
        dtype = np.uint8 if depth == 8 else np.uint16
        expected = upright(srgb_curve(linear.clip(0, 1)), orientation)
        name = f"LinearRaw, {depth} bits, {matrix}, orientation {orientation}"
        make = partial(dng, values.astype(dtype), camera)
        yield Case(name, make, expected, tolerance=BRIGHTENED)


def _refused() -> Iterator[Case]:
    """Damaged files, and raw data that LibRaw does not read."""
    camera, pattern = Camera(), PATTERNS["RGGB"]
    pixels = mosaic(np.array([100, 200, 300]), pattern)
    whole = dng(pixels, camera, pattern)
    yield Case("cut off", lambda: whole[:-500], None, refused="damaged or truncated: .*incomplete")
    jxl = partial(dng, pixels, camera, pattern, compression=52546)
    unknown = "contains raw data of an unknown or damaged kind, which is not supported"
    yield Case("JPEG XL", jxl, None, refused=unknown)
    yield Case("too small", lambda: dng(pixels[:8, :8], camera, pattern), None, refused=unknown)
    small = np.full((60, 80, 3), 99, np.uint8)
    yield Case(
        "JPEG XL, with a small preview",
        partial(dng, pixels, camera, pattern, compression=52546, preview=small),
        None,
        refused=unknown,
    )
