"""The year in small of the benchmarks, with few jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.year import Run


def test_sixty_jobs_through_a_kill_and_a_stop_are_all_accounted_for(tmp_path: Path) -> None:
    """No job is lost, expired inputs are removed, and a result that is missing afterwards would be noticed."""
    root = tmp_path / "root"
    run = Run(root, jobs=60, keep=3.0, weeks=4, say=lambda line: None)
    run()
    found = run.check()
    assert found["done"] + found["failed"] + found["cancelled"] == 61  # one more is killed
    assert found["failed"] == 8
    assert found["deleted"] == 4
    assert found["inputs removed by age"] > 0
    assert run.troubles.keys() == {"kill while painting", "stop"}
    assert run.rotated == 4
    next((root / "results").glob("*-pair*.png")).unlink()
    with pytest.raises(AssertionError, match="lost"):
        run.check()
