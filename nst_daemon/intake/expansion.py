"""From a batch to requests: which pictures it asks for, in which order, and what identifies each of them.

Contents come in the order of the globs (in natural order within a glob), styles and swept values as they are written.
A picture is identified by its inputs, settings and weights and not by its name, so a batch that was interrupted, or is
run again after more files came, paints only what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from nst_daemon import files
from nst_daemon.digests import sha256_stream
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.identity import picture_identity
from nst_daemon.intake.batch import Batch
from nst_daemon.intake.drops import (
    ANYWHERE,
    Drop,
    Rejection,
    Request,
    Root,
    Style,
    stem_of,
)
from nst_daemon.intake.globs import Search
from nst_daemon.intake.library import (
    list_styles,
    merge_settings,
    setting_places,
    style_problem,
)
from nst_daemon.jobs import BatchCell, Fingerprint, Role
from nst_daemon.names import clean_name, composed, printable
from nst_daemon.unexpected import explain_one

#: The most pictures that one batch may ask for.
MAX_PICTURES = 10_000
#: Stands for the version of a file until it is read.
_NOT_READ_YET = Fingerprint(0, 0, 0, 0)


class Finder(Protocol):
    """What finds the files of a batch: `globs.Search`."""

    def find(self, globs: Iterable[str]) -> list[Path]:
        """The image files that these globs match. Raises InputError."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a batch may read, and what its pictures are painted with.

    roots: folders that globs are relative to, and outside of which nothing is read; library: the folder of styles;
    resolve: turns overrides into complete settings, for a number of style pictures (raises SettingsError); network,
    weights_sha256: of the feature network; max_bytes: of one file; max_names, max_seconds: limits of the search for
    the files of a batch.
    """

    roots: tuple[Path, ...]
    library: Path
    resolve: Callable[[Mapping[str, Any], int], RenderSettings]
    network: str
    weights_sha256: str
    max_bytes: int
    max_names: int = 500_000
    max_seconds: float = 10.0

    def search(self) -> Search:
        """A new search in these folders."""
        return Search(
            self.roots,
            max_found=MAX_PICTURES,
            max_names=self.max_names,
            max_seconds=self.max_seconds,
        )


@dataclass(frozen=True, slots=True)
class Combination:
    """One picture of a batch.

    files: the content and the style's pictures, not looked at yet; settings: overrides, as in a settings file;
    resolved: the complete settings that they lead to.
    """

    name: str
    files: tuple[Drop, ...]
    settings: Mapping[str, Any]
    resolved: RenderSettings
    cell: BatchCell


def plan(batch: Batch, name: str, reach: Reach, search: Finder | None = None) -> list[Combination]:
    """Every picture that a batch asks for, content by content. Their number is checked before they are listed.

    Args:
        batch: what to combine.
        name: of the batch, and of its folder in results/.
        reach: what the batch may read.
        search: finds its files, and counts those that are passed over; by default a new one.

    Raises:
        InputError: a glob matches nothing or leaves the folders that may be read, the search takes too long, a style
            cannot be used, a setting is not valid, or there are more than MAX_PICTURES pictures.
    """
    search = search or reach.search()
    contents = search.find(batch.contents)
    styles = _find_styles(batch.styles, reach, search)
    number = len(contents) * len(styles) * batch.combinations
    if number > MAX_PICTURES:
        raise InputError(
            f"{name} asks for {number:,} pictures, and at most {MAX_PICTURES:,} are painted in one batch",
            remedy="split it",
        )
    sweep = [
        dict(zip(batch.sweep, values, strict=True)) for values in product(*batch.sweep.values())
    ]
    settings = {
        (s, k): merge_settings([style], {**batch.settings, **swept})
        for (s, style), (k, swept) in product(enumerate(styles), enumerate(sweep))
    }
    try:
        resolved = {
            (s, k): reach.resolve(overrides, len(styles[s].pictures))
            for (s, k), overrides in settings.items()
        }
    except SettingsError as error:
        places = setting_places(styles, {**batch.settings, **batch.sweep}, batch.label)
        raise error.placed(places) from error
    if any(settings.start == "given" for settings in resolved.values()):
        raise SettingsError(
            f"{batch.label}: start is 'given', and a batch has no pictures to start with",
            remedy="choose another start",
        )
    taken: dict[str, int] = {}
    combinations = []
    for (c, content), (s, style), (k, swept) in product(
        enumerate(contents), enumerate(styles), enumerate(sweep)
    ):
        words = [content.stem, style.name, *(f"{key}={value}" for key, value in swept.items())]
        chosen = _unused(f"{name}/{clean_name('_'.join(words))}", taken)
        drops = (_drop(Role.CONTENT, content), *style.pictures)
        cell = BatchCell(name, printable(style.name), swept, (c, s, k), str(content))
        combinations.append(Combination(chosen, drops, settings[s, k], resolved[s, k], cell))
    return combinations


def _unused(wanted: str, taken: dict[str, int]) -> str:
    """The name, or the first NAME-2, NAME-3, … that is not taken. taken: the numbers of names so far, by name."""
    number = taken.get(wanted, 0) + 1
    while (chosen := wanted if number == 1 else f"{wanted}-{number}") in taken:
        number += 1
    taken[wanted] = number
    taken.setdefault(chosen, 1)
    return chosen


def _drop(role: Role, path: Path) -> Drop:
    return Drop(role, str(path.relative_to(ANYWHERE)), _NOT_READ_YET, "anywhere")


def _find_styles(words: Iterable[str], reach: Reach, search: Finder) -> list[Style]:
    """The styles that these names and globs mean, each once, in order. Raises InputError."""
    library = list_styles(reach.library, reach.max_bytes)
    folder = reach.library.resolve()
    found: dict[str, Style] = {}
    for word in words:
        if composed(word) in library:
            found[composed(word)] = _usable(composed(word), library)
            continue
        try:
            paths = search.find([word])
        except InputError as error:
            if Path(word).suffix or set(word) & set("/*?["):  # it is not the name of a style
                raise
            problem = style_problem(library, composed(word))
            raise InputError(problem, remedy="name one, or write a glob of files") from error
        for path in paths:
            # A file of the library is that style, also where a glob matches it: its settings apply.
            name = stem_of(path.name) if path.parent == folder else ""
            if name in library:
                found[name] = _usable(name, library)
            else:
                found[str(path)] = Style(stem_of(path.name), (_drop(Role.STYLE, path),))
    return list(found.values())


def _usable(name: str, library: Mapping[str, Style]) -> Style:
    if problem := style_problem(library, name):
        raise InputError(problem)
    return library[name]


class Expansion:
    """A batch on its way into the ledger, picture by picture: `current` until it is there, then `advance`.

    since: seconds since the epoch; pictures that failed before are tried again, those that failed after are not.
    skipped: ids of jobs that have painted a picture before, by the name that it would have had.
    passed_over: the number of files that a glob matched and that are not image files, by suffix.
    """

    def __init__(
        self, name: str, batch: Batch, reach: Reach, *, since: float, file: Drop | None = None
    ) -> None:
        self.name = name
        self.since = since
        self.file = file
        search = reach.search()
        self.combinations = plan(batch, name, reach, search)
        self.names = frozenset(combination.name for combination in self.combinations)
        self.passed_over = search.passed_over
        self.skipped: dict[str, str] = {}
        self._priority, self._reach = batch.priority, reach
        self._roots: Mapping[Root, Path] = {"anywhere": ANYWHERE, "styles": reach.library}
        self._next = 0
        self._measure = lru_cache(maxsize=1024)(self._measure_file)

    def advance(self) -> None:
        """The current picture is in the ledger."""
        self._next += 1

    def current(self) -> Request | Rejection | None:
        """The picture to request now, a rejection where its inputs cannot be read, None at the end."""
        if self._next == len(self.combinations):
            return None
        combination = self.combinations[self._next]
        try:
            return self._request(combination)
        except InputError as error:
            reason = str(error)
        except OSError as error:
            reason = _cause(error)
        except Exception as error:  # noqa: BLE001 (the other pictures of the batch continue)
            reason = explain_one(error)
        return Rejection(combination.name, "batch", self.name, (), reason)

    def _request(self, combination: Combination) -> Request:
        drops, inputs = [], []
        for drop in combination.files:
            mark, digest = self._measure(drop.root, drop.path)
            drops.append(replace(drop, fingerprint=mark))
            inputs.append((drop.role.value, digest))
        return Request(
            name=combination.name,
            source="batch",
            group=self.name,
            files=tuple(drops),
            settings=combination.settings,
            priority=self._priority,
            identity=picture_identity(
                inputs, combination.resolved, self._reach.network, self._reach.weights_sha256
            ),
            batch=combination.cell,
        )

    def _measure_file(self, root: Root, path: str) -> tuple[Fingerprint, str]:
        """The version of a file and the digest of its contents."""
        with files.folder_of(self._roots[root], path) as (folder, name):
            descriptor, status = files.open_regular(name, folder, self._reach.max_bytes)
            with os.fdopen(descriptor, "rb") as file:
                digest = sha256_stream(file)
        return files.fingerprint(status), digest


def _cause(error: OSError) -> str:
    named = isinstance(error.filename, str | bytes) and error.filename
    where = printable(os.fsdecode(named)) if named else "a file of this batch"
    return f"{where} cannot be read: {error.strerror}; check the file, and run the batch again"
