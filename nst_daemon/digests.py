"""Files by their contents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from nst_daemon.files import open_file
from nst_daemon.intake.ignore import ignored


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with os.fdopen(open_file(path), "rb") as file:
        return sha256_stream(file)


def sha256_stream(file: BufferedReader) -> str:
    """Hex digest of the bytes from the current position of an open file to its end."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def find_files(
    wanted: Mapping[str, int], places: Iterable[Path], *, suffixes: Collection[str] = ()
) -> dict[str, Path]:
    """Find files by their contents.

    Only files of a wanted size are read. Links below a place are not followed, and names that the inbox ignores are
    skipped. Files and folders that vanish or cannot be read are skipped, too.

    Args:
        wanted: The size in bytes of each wanted file, by its SHA-256.
        places: Files, and folders that are searched at any depth. The first match counts.
        suffixes: Lower-case suffixes that a file may have; any if empty.

    Returns:
        The paths that were found, by SHA-256.
    """
    found: dict[str, Path] = {}
    sizes = set(wanted.values())
    for path in _files_below(places):
        if len(found) == len(wanted):
            break
        if suffixes and path.suffix.lower() not in suffixes:
            continue
        with suppress(OSError):
            if path.stat().st_size in sizes and (digest := sha256_file(path)) in wanted:
                found.setdefault(digest, path)
    return found


def _files_below(places: Iterable[Path]) -> Iterator[Path]:
    """The places that are files, and every regular file in those that are folders, in the order of their names."""
    for place in places:
        if place.is_file():
            yield place
        for folder, inner, names in os.walk(place):
            inner[:] = sorted(name for name in inner if not ignored(name, folder=True))
            for path in (Path(folder, name) for name in sorted(names) if not ignored(name)):
                if path.is_file() and not path.is_symlink():
                    yield path
