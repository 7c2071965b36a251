"""A short one of what `make torture` does for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.kills import TRIALS, torture


@pytest.mark.slow
def test_killed_at_random_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """After a few kills at random moments each input has one outcome, and each painting that was done one result."""
    figures = torture(TRIALS["fake"], kills=6, folder=tmp_path / "root", seed=7)
    assert figures["kills"] >= 6
    assert figures["results"] == figures["done"] > 0
