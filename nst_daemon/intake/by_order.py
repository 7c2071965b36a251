"""Two pictures without roles as a pair: the first is the content, and the second is the style (`pair_by_order`).

Only two pictures of one folder are paired, and only if no other drop waits in that folder or is still arriving there.
So three pictures that are dropped together are never two of a pair and a rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nst_daemon.intake.advice import Lack
from nst_daemon.intake.parts import DropSet
from nst_daemon.jobs import Role
from nst_daemon.names import natural_key

#: Two files whose ctimes differ by less than this have arrived at one moment, and are ordered by their names.
MOMENT_NS = 1_000_000_000
#: What says which of the two pictures is the content.
_OF_CONTENT = frozenset({Role.CONTENT_MASK, Role.START})


def paired_by_order(lacks: Sequence[Lack], window: float) -> DropSet | None:
    """The pair that two pictures are, None if they are not one.

    The content is the picture with the mask of a content or a start, or the one whose partner has the mask of a style.
    Otherwise it is the one that has arrived first, by its ctime; of two that arrived at one moment, the one whose name
    comes first. The settings file of either picture is that of the pair.

    Args:
        lacks: all incomplete sets of one folder, in which nothing else is arriving.
        window: seconds within which both must have arrived.
    """
    if len(lacks) != 2 or not all(map(_can_be_paired, lacks)):
        return None
    first, second = sorted((lack.files for lack in lacks), key=_arrival)
    if _arrival(second) - _arrival(first) > window * 1e9:
        return None
    if _arrival(second) - _arrival(first) < MOMENT_NS:
        first, second = sorted((first, second), key=lambda files: natural_key(files.paths[0]))
    if _must_be_content(second) or _must_be_style(first):
        first, second = second, first
    if _must_be_content(second) or _must_be_style(first):
        return None
    style = [
        replace(part, role=Role.STYLE) if part.role is Role.CONTENT else part
        for part in second.parts
    ]
    pair = replace(first, source="order", parts=[*first.parts, *style], plain=False)
    masks = {part.role for part in pair.parts if part.role in {Role.CONTENT_MASK, Role.STYLE_MASK}}
    if len(pair.of(Role.SETTINGS)) > 1 or masks == {Role.CONTENT_MASK}:
        return None
    return pair


def _can_be_paired(lack: Lack) -> bool:
    parts = lack.files.parts
    allowed = {Role.CONTENT, Role.SETTINGS, Role.START, Role.CONTENT_MASK, Role.STYLE_MASK}
    return (
        lack.lone
        and len(lack.files.of(Role.CONTENT)) == 1
        and all(part.explicit and not part.number and part.role in allowed for part in parts)
    )


def _arrival(files: DropSet) -> int:
    """When the picture of a set arrived, in nanoseconds of the wall clock."""
    (picture,) = files.of(Role.CONTENT)
    return picture.entry.fingerprint.ctime_ns


def _must_be_content(files: DropSet) -> bool:
    return any(part.role in _OF_CONTENT for part in files.parts)


def _must_be_style(files: DropSet) -> bool:
    return any(part.role is Role.STYLE_MASK for part in files.parts)
