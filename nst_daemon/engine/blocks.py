"""Blocks of large tensors that are worked on one after the other: to bound memory, or to stay in a CPU's caches."""

from __future__ import annotations


def blocks(length: int, step: int) -> list[slice]:
    """Consecutive parts of `length` elements, of at most `step` ≥ 1 each."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
