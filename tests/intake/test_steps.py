"""Long work in steps gives what the same work at once gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.intake import steps
from nst_daemon.intake.steps import (
    do_some,
    finish,
    first_in_order,
    in_order,
    in_turns,
    keep_only,
    release,
)

WORDS = st.lists(st.text("ab1", max_size=3), max_size=40)


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few items are several runs."""
    monkeypatch.setattr(steps, "RUN", 3)


@given(WORDS)
def test_items_are_sorted_and_equal_ones_keep_their_order(words: list[str]) -> None:
    """Sorting in runs gives what `sorted` gives, also where the keys of different items are equal."""
    assert finish(in_order(words, len)) == sorted(words, key=len)


@given(WORDS, st.integers(1, 5))
def test_the_first_are_those_of_the_sorted_list(words: list[str], number: int) -> None:
    """The first items are the beginning of the sorted list."""
    assert finish(first_in_order(words, number, len)) == sorted(words, key=len)[:number]


@given(WORDS)
def test_each_group_has_its_turn(words: list[str]) -> None:
    """The first of each group come before the second of any."""
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault(word[:1], []).append(word)
    turns = chain.from_iterable(zip_longest(*groups.values()))
    assert finish(in_turns(words, lambda word: word[:1])) == tuple(
        word for word in turns if word is not None
    )


def test_only_wanted_keys_stay() -> None:
    """Keys that are not wanted are removed, whatever their place is."""
    known = {"a": 1, "b": 2, "c": 3}
    finish(keep_only(known, {"b"}))
    assert known == {"b": 2}


def test_what_is_released_is_empty() -> None:
    """Lists, dictionaries and sets are empty then, and no more than one item was removed in a step."""
    containers = [1, 2], {"a": 1, "b": 2}, {"a", "b", "c"}
    assert len(list(release(*containers))) == 7
    assert containers == ([], {}, set())


def test_work_is_left_alone_when_its_time_is_over() -> None:
    """A call does at least one step, none after the time is over, and says when all are done."""
    time, done = 0.0, 0

    def work() -> Iterator[None]:
        nonlocal time, done
        for _ in range(4):
            time += 1.0
            done += 1
            yield

    left = work()
    calls = [(do_some(left, seconds, lambda: time), done) for seconds in (2.0, 0.0, 9.0)]
    assert calls == [(False, 2), (False, 3), (True, 4)]
