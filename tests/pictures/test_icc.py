"""Colours of every dtype are converted by profiles of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from nst_daemon.errors import PictureError
from nst_daemon.pictures.icc import to_srgb
from nst_daemon.pictures.raster import Raster
from tests.pictures import colorimetry
from tests.pictures.corpus.profiles import (
    CHANNELS,
    Profile,
    grey_profiles,
    matrix_profiles,
    table_profiles,
    values,
)
from tests.pictures.profile_writer import gamma_curve, grey_profile, parametric_curve

PROFILES = [*matrix_profiles(), *grey_profiles(), *table_profiles()]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_floating_point_is_converted_like_integers(profile: Profile) -> None:
    """Floating-point values of 0 to 1, of any kind of profile, become what its formula says."""
    exact = values(profile.space).astype(np.float32)
    found, notes = to_srgb(Raster(exact, profile.space), profile.data, "picture")
    expected = exact if profile.convert is None else profile.convert(exact.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=profile.tolerance)
    assert bool(notes) == (profile.convert is not None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(7, 9, 1), (300, 300, 1)])
def test_grey_of_any_size_is_converted(dtype: type, shape: tuple[int, ...]) -> None:
    """Each grey level becomes the same colour in small pictures and in those converted by a table."""
    full = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, full + 1, shape).astype(dtype)
    found, _ = to_srgb(Raster(pixels, "GRAY"), grey_profile(gamma_curve(1)), "picture")
    expected = colorimetry.srgb_curve(pixels / full).repeat(3, axis=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_lab_is_converted(dtype: type) -> None:
    """L*a*b*, with a* and b* of -128 to 127 in the range of the dtype, becomes the sRGB of its formula."""
    lab = np.random.default_rng(0).uniform((30, -20, -20), (80, 20, 20), (16, 24, 3))
    unit = lab / (100, 255, 255) + (0, 128 / 255, 128 / 255)
    full = 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels = (unit * full).round().astype(dtype) if full > 1 else unit.astype(dtype)
    stored = (pixels.astype(np.float64) / full - (0, 128 / 255, 128 / 255)) * (100, 255, 255)
    found, _ = to_srgb(Raster(pixels, "LAB"), None, "picture")
    np.testing.assert_allclose(found, colorimetry.from_lab(stored), rtol=0, atol=1 / 255)


@pytest.mark.parametrize("gamma", [-1.0, -30000.0])
def test_an_infinite_curve_gives_finite_colours(gamma: float) -> None:
    """A curve that becomes infinite at black gives colours within 0 to 1."""
    pixels = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5, 1)
    endless = grey_profile(parametric_curve(0, gamma))
    found, _ = to_srgb(Raster(pixels, "GRAY"), endless, "picture")
    assert ((found >= 0) & (found <= 1)).all()


def test_the_name_of_a_profile_is_one_short_line() -> None:
    """Control characters and a great length of a profile's name do not get into the note."""
    pixels = np.zeros((2, 2, 1), np.uint8)
    profile = grey_profile(gamma_curve(1), name="two\n\x1b[31m lines " + "x" * 5000)
    _, notes = to_srgb(Raster(pixels, "GRAY"), profile, "picture")
    assert notes[0].startswith("colours were converted to sRGB from two [31m lines xxx")
    assert notes[0].isprintable()
    assert len(notes[0]) < 150


def test_non_finite_pixels_are_refused() -> None:
    """NaN in the pixels is refused with a remedy."""
    pixels = np.full((2, 2, 3), np.nan, np.float32)
    with pytest.raises(PictureError, match="non-finite pixels; save it"):
        to_srgb(Raster(pixels, "RGB"), None, "picture")


def test_channels_are_known() -> None:
    """Every profile is for a space whose channels are known."""
    assert {profile.space for profile in PROFILES} == set(CHANNELS)
