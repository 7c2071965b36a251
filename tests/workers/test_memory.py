"""How large a picture would have fitted."""

from __future__ import annotations

import pytest
import torch

from nst_daemon.workers.memory import SHARE, Footprint, footprint, peak_bytes

GIB = 1 << 30


def test_nothing_is_said_before_anything_is_known() -> None:
    """Without a single painting there is no guess."""
    assert Footprint(limit=8 * GIB, base=GIB).largest_side() is None


def test_the_largest_side_follows_from_bytes_per_pixel() -> None:
    """With 1 kB a pixel and 7 GiB to spare, a 4:3 picture of SHARE of 7 Mi pixels is said to fit."""
    f = Footprint(limit=8 * GIB, base=GIB)
    f.painted(640 * 480, GIB + 640 * 480 * 1024)
    side = f.largest_side()
    assert side is not None
    assert side * side * 3 / 4 == pytest.approx(SHARE * 7 * (1 << 20), rel=0.01)
    assert side % 10 == 0


def test_the_largest_picture_counts() -> None:
    """What was learnt from a large picture is not forgotten for a small one, whose peak is not its own."""
    f = Footprint(limit=8 * GIB, base=GIB)
    f.painted(10**6, 2 * GIB)
    known = f.largest_side()
    f.painted(10**4, 2 * GIB)
    assert f.largest_side() == known


def test_the_peak_is_counted_from_the_footprint_on() -> None:
    """A peak of before is no part of the base, and one of after is seen."""
    block = torch.ones(64 << 20, dtype=torch.uint8)
    before = peak_bytes(torch.device("cpu"))
    del block
    f = footprint(torch.device("cpu"))
    assert f.base < before - (48 << 20)
    block = torch.ones(96 << 20, dtype=torch.uint8)
    assert peak_bytes(torch.device("cpu")) > f.base + (80 << 20)
    assert block.numel() == 96 << 20
