"""A short one of the fuzz in `make torture`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from tests.torture.fuzz import Said, attempt


@pytest.fixture
def said() -> Iterator[Said]:
    """What the package logs meanwhile."""
    handler = Said()
    with handler.listening():
        yield handler


def test_strange_drops_have_one_outcome_each(said: Said) -> None:
    """Hundreds of strange drops end once each, and no exception leaves the supervisor."""
    chance = Random(11)
    figures: Counter[str] = Counter()
    for _ in range(16):
        seed, seeds = chance.randrange(1 << 40), [chance.randrange(1 << 40) for _ in range(25)]
        found, wrong, what = attempt(seed, seeds, said)
        assert not wrong, f"{wrong} after {what}"
        figures += found
    assert figures["drops"] > 350
    assert figures["failed"] > figures["done"] > 0
