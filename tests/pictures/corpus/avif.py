"""AVIF."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from tests.pictures import heif_cases
from tests.pictures.corpus.case import EXACT, LOSSY, Case
from tests.pictures.heif_cases import rgb, whole_range
from tests.pictures.heif_writer import av1, avif, container


def cases() -> Iterator[Case]:
    """What AVIF shares with HEIC, subsampling, ranges, animations and several images."""
    yield from heif_cases.cases(avif, av1, b"avif")
    yield from _subsampled()
    yield from _animated()
    yield from _several()


def _saved(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "AVIF", quality=100, speed=8, **options)
    return out.getvalue()


def _subsampled() -> Iterator[Case]:
    """Evenly coloured pictures."""
    for chroma, limits, seed, alpha, even in itertools.product(
        ("4:4:4", "4:2:2", "4:2:0"), ("full", "limited"), range(6), (False, True), (True, False)
    ):
        colour = np.random.default_rng(seed).integers(0, 256, 4)
        size = (16, 24) if even else (15, 23)
        values = np.full((*size, 4), np.maximum(colour, 1), np.uint8)
        pixels = values if alpha else values[..., :3]
        share = values[..., 3] / 255 if alpha else None
        yield Case(
            f"{chroma}, {limits} range, colour {seed}, {size}{', alpha' if alpha else ''}",
            partial(_saved, pixels, subsampling=chroma, range=limits),
            rgb(values[..., :3], 8), share, LOSSY,
        )  # fmt: skip
    for limits in ("full", "limited"):
        grey = whole_range(8, 1)[..., 0]
        make = partial(_saved, grey, subsampling="4:0:0", range=limits)
        yield Case(f"4:0:0, {limits} range", make, rgb(grey, 8), None, LOSSY)


def _animated() -> Iterator[Case]:
    values = np.full((16, 24, 4), (200, 90, 30, 120), np.uint8)
    other = Image.fromarray(255 - values)
    for alpha, frames in itertools.product((False, True), (2, 3, 7)):
        pixels = values if alpha else values[..., :3]
        more = [other if alpha else other.convert("RGB")] * (frames - 1)
        yield Case(
            f"animated, {frames} frames{', alpha' if alpha else ''}",
            partial(_saved, pixels, subsampling="4:4:4", save_all=True, append_images=more),
            rgb(values[..., :3], 8), values[..., 3] / 255 if alpha else None, LOSSY,
            f"only the first of {frames} frames was used",
        )  # fmt: skip


def _several() -> Iterator[Case]:
    values = whole_range(8)
    for primary, sizes in itertools.product((1, 2), (4, 8)):
        yield Case(
            f"two images, the primary one is {primary}, offsets of {sizes} bytes",
            lambda primary=primary, sizes=sizes: container(
                [av1(values, 8), av1(255 - values, 8)], b"avif", primary, sizes
            ),
            rgb(values if primary == 1 else 255 - values, 8), None, EXACT,
        )  # fmt: skip
