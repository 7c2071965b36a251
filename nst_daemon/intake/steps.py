"""Long work in short steps, so that other things can be done in between. `finish` does all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from heapq import merge, nsmallest
from itertools import count, islice, zip_longest
from typing import Any, TypeVar

T = TypeVar("T")
#: Work that can be left alone after each step; its result is the return value.
Steps = Generator[None, None, T]
#: Items that are sorted in one step.
RUN = 500


def finish(steps: Steps[T]) -> T:
    """Do all steps, and return the result."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


def do_some(steps: Iterable[None], seconds: float, clock: Callable[[], float]) -> bool:
    """Do steps for so many seconds, at least one; whether all of them are done.

    Args:
        steps: The work.
        seconds: How long to go on.
        clock: Returns seconds.
    """
    end = clock() + seconds
    return all(clock() < end for _ in steps)


def in_order(found: Sequence[T], key: Callable[[T], Any]) -> Steps[list[T]]:
    """The same items sorted by their keys. Items with equal keys keep their order."""
    runs = []
    numbers = count()
    left = iter(found)
    while run := [(key(item), next(numbers), item) for item in islice(left, RUN)]:
        run.sort()  # the number decides between equal keys: items are not compared
        runs.append(run)
        yield
    ordered = []
    for _, _, item in merge(*map(_taken, runs)):
        ordered.append(item)
        yield
    return ordered


def _taken(items: list[Any]) -> Iterator[Any]:
    """The items one by one; the list keeps none of them."""
    items.reverse()
    while items:
        yield items.pop()


def first_in_order(found: Iterable[T], number: int, key: Callable[[T], Any]) -> Steps[list[T]]:
    """The first so many of the sorted items."""
    first: list[T] = []
    left = iter(found)
    while some := list(islice(left, RUN)):
        first = nsmallest(number, [*first, *some], key=key)
        yield
    return first


def in_turns(found: Iterable[T], group: Callable[[T], str]) -> Steps[tuple[T, ...]]:
    """The first of each group, then the second of each, so that a full folder does not delay the others."""
    groups: dict[str, list[T]] = {}
    for one in found:
        groups.setdefault(group(one), []).append(one)
        yield
    ordered: list[T] = []
    for turn in zip_longest(*groups.values()):
        ordered.extend(one for one in turn if one is not None)
        yield
    return tuple(ordered)


def keep_only(known: dict[str, Any], wanted: Container[str]) -> Steps[None]:
    """Remove the keys that are not wanted from a dictionary."""
    for key in list(known):
        if key not in wanted:
            del known[key]
        yield


def release(*containers: list[Any] | dict[str, Any] | set[str]) -> Steps[None]:
    """Empty lists, dictionaries and sets that are not needed any more: to free them at once may take long."""
    for container in containers:
        take = container.popitem if isinstance(container, dict) else container.pop
        while container:
            take()
            yield
