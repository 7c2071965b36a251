"""A short one of what `python -m tests.torture.pictures` does for long."""

from __future__ import annotations

from tests.torture.pictures import fuzz, samples


def test_damaged_files_are_read_or_refused() -> None:
    """Some hundred damaged files give no finding, and all of them are tried."""
    figures = fuzz(samples(["bmp", "gif", "psd", "webp"]), 400, seed=1)
    assert not figures["findings"]
    assert sum(count for name, count in figures.items() if name.endswith(" files")) == 400
