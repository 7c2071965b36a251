"""Daemons of the tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.torture.root import Victim


@pytest.fixture
def victims() -> Iterator[list[Victim]]:
    """Daemons that are killed when the test is over."""
    started: list[Victim] = []
    yield started
    for victim in started:
        if victim.process.poll() is None:
            victim.kill()
