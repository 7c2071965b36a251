"""Batches: every content in every style with every setting of a sweep.

    contents: [holiday/*.jpg, portraits/**/*.png]    globs
    styles: [starry, paintings/*.jpg]                names of library styles, or globs
    settings: {size: 1024}                           for all of them
    sweep: {style_scale: [0.5, 1], seed: [1, 2, 3]}  each combination of these
    priority: -5

A picture is known by its identity (contents of its inputs, settings, network) and not by its name, so a batch that was
interrupted, or is run again after more files came, paints only what is not there yet.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path, PurePath
from typing import Any

from nst_daemon import files
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.pairing import PICTURES, Drop, Rejection, Request
from nst_daemon.intake.scan import Scan
from nst_daemon.intake.sidecar import MAX_BYTES, read_mapping
from nst_daemon.jobs import Fingerprint, Role
from nst_daemon.names import clean_name, composed, numbered, printable

#: The most pictures that one batch may ask for.
MOST = 10_000
SUFFIX = ".batch"
_KEYS = ("contents", "styles", "settings", "sweep", "priority")
#: The root of a `Drop` whose path is an absolute one without its first "/".
ANYWHERE = Path("/")


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch file says; see above."""

    contents: tuple[str, ...]
    styles: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Reach:
    """What a batch may read, and what its pictures are painted with.

    roots: folders that globs are relative to, and that nothing outside of is read; library: the folder of styles;
    resolve: the whole RenderSettings that overrides lead to (raises SettingsError); network: name and weights;
    max_bytes: of one file.
    """

    roots: tuple[Path, ...]
    library: Path
    resolve: Callable[[Mapping[str, Any]], Any]
    network: tuple[str, str]
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Combination:
    """One picture of a batch."""

    name: str
    content: Path
    styles: tuple[Path, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Style:
    """One style of a batch: its pictures, several where it is a folder of the library, and the settings beside it."""

    name: str
    pictures: tuple[Path, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def parse(values: Mapping[str, Any], name: str) -> Batch:
    """What a batch file holds, checked. Raises SettingsError, naming the file and the key."""
    label = printable(name)
    unknown = values.keys() - set(_KEYS)
    if unknown:
        raise SettingsError(
            f"{label}: {', '.join(sorted(unknown))} means nothing in a batch",
            remedy=f"it may hold {', '.join(_KEYS)}",
        )
    sweep = values.get("sweep") or {}
    if not isinstance(sweep, dict) or not all(isinstance(v, list) and v for v in sweep.values()):
        raise SettingsError(f"{label}: sweep must name a list of values for each setting")
    settings = values.get("settings") or {}
    if not isinstance(settings, dict) or settings.keys() & sweep.keys():
        raise SettingsError(f"{label}: settings must be a mapping, of other keys than sweep")
    priority = values.get("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > 1000:
        raise SettingsError(f"{label}: priority must be a whole number from -1000 to 1000")
    return Batch(
        _words(values, "contents", label),
        _words(values, "styles", label),
        settings,
        {key: tuple(listed) for key, listed in sweep.items()},
        priority,
    )


def _words(values: Mapping[str, Any], key: str, label: str) -> tuple[str, ...]:
    found = values.get(key)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not found or not all(isinstance(w, str) for w in found):
        raise SettingsError(
            f"{label}: {key} must be a glob, or a list of them",
            remedy=f"for example {key}: ['*.jpg']",
        )
    return tuple(found)


def plan(batch: Batch, name: str, reach: Reach) -> list[Combination]:
    """Every picture that a batch asks for, content by content. name: of the batch, and so of its folder in results/.

    Raises InputError where a glob finds nothing or leaves the folders that may be read, where a setting cannot be, or
    where it is too much.
    """
    contents = _find(batch.contents, reach)
    styles = _find_styles(batch.styles, reach)
    swept = [
        dict(zip(batch.sweep, values, strict=True)) for values in product(*batch.sweep.values())
    ]
    number = len(contents) * len(styles) * len(swept)
    if number > MOST:
        raise InputError(
            f"{name} asks for {number:,} pictures, and at most {MOST:,} are painted in one batch",
            remedy="split it",
        )
    taken: set[str] = set()
    combinations = []
    looks = [
        (style, {**style.settings, **batch.settings, **values}, values)
        for style in styles
        for values in swept
    ]
    for _, settings, _ in looks:
        reach.resolve(settings)
    for content, (style, settings, values) in product(contents, looks):
        words = [content.stem, style.name, *(f"{key}={value}" for key, value in values.items())]
        wanted = f"{name}/{clean_name('_'.join(words))}"
        chosen = next(n for n in numbered(wanted) if n not in taken)
        taken.add(chosen)
        combinations.append(Combination(chosen, content, style.pictures, settings))
    return combinations


def _find(globs: Iterable[str], reach: Reach) -> list[Path]:
    """The pictures that these globs find, each once, in order. Raises InputError."""
    found: dict[Path, None] = {}
    for glob in globs:
        matches = [path for root in reach.roots for path in _matches(root, glob)]
        if not matches:
            there = ", ".join(printable(str(root)) for root in reach.roots) or "no folder"
            raise InputError(
                f"{printable(glob)} finds no picture in {there}",
                remedy="name folders that batches may read in batch_roots",
            )
        found |= dict.fromkeys(matches)
    return list(found)


def _matches(root: Path, glob: str) -> Iterator[Path]:
    """Pictures below a root, sorted; nothing outside of it and nothing behind a symbolic link."""
    parts = PurePath(glob).parts
    if PurePath(glob).is_absolute():
        if not PurePath(glob).is_relative_to(root):
            return
        parts = PurePath(glob).relative_to(root).parts
    if not parts or ".." in parts or parts.count("**") > 1:
        raise InputError(
            f"{printable(glob)} is no glob for a batch",
            remedy="it may not be empty, hold `..`, or hold `**` more than once",
        )
    root = root.resolve()
    for path in sorted(root.glob("/".join(parts))):
        hidden = any(ignored(part) for part in path.relative_to(root).parts)
        linked = path.resolve() != path
        if path.suffix.lower() in PICTURES and not hidden and not linked and path.is_file():
            yield path


def _find_styles(words: Iterable[str], reach: Reach) -> list[_Style]:
    """Each style, once. Raises InputError."""
    library = _library(reach.library)
    own = {style.pictures: style for style in library.values()}
    found: dict[tuple[Path, ...], _Style] = {}
    for word in words:
        if composed(word) in library:
            styles = [library[composed(word)]]
        else:
            styles = [_Style(path.stem, (path,)) for path in _find([word], reach)]
        for style in styles:
            found[style.pictures] = own.get(style.pictures, style)
    return list(found.values())


def _library(folder: Path) -> dict[str, _Style]:
    """Every style of the library: a picture, or a folder with pictures."""
    pictures = {composed(path.stem): [path] for path in _matches(folder, "*")}
    inside: dict[str, list[Path]] = defaultdict(list)
    for path in _matches(folder, "*/*"):
        inside[composed(path.parent.name)].append(path)
    return {
        name: _Style(name, tuple(paths), _style_settings(folder, name))
        for name, paths in {**pictures, **inside}.items()
    }


def _style_settings(library: Path, name: str) -> Mapping[str, Any]:
    for suffix in (".yaml", ".yml"):
        beside = library / (name + suffix)
        if beside.is_file():
            return read_file(beside)
    return {}


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises SettingsError, or InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return read_mapping(file.read(MAX_BYTES + 1), path.name)
    except OSError as error:
        raise InputError(
            f"{printable(str(path))} cannot be read: {error.strerror}",
            remedy="look at its rights",
        ) from error


class Expansion:
    """A batch on its way into the ledger, one picture after the other: `current` until it is there, then `advance`.

    since: seconds since the epoch; pictures that failed before are tried again, those that failed after are not.
    skipped: ids of jobs that have painted a picture before, by the name that it would have had.
    """

    def __init__(
        self, name: str, batch: Batch, reach: Reach, *, since: float, file: Drop | None = None
    ) -> None:
        self.name = name
        self.since = since
        self.file = file
        self.combinations = plan(batch, name, reach)
        self.skipped: dict[str, str] = {}
        self._batch, self._reach = batch, reach
        self._next = 0
        self._measure = lru_cache(maxsize=1024)(self._measure_file)

    def advance(self) -> None:
        """The current one is in the ledger."""
        self._next += 1

    def current(self) -> Request | Rejection | None:
        """The picture to ask for now, a refusal where its inputs cannot be read, None at the end."""
        if self._next == len(self.combinations):
            return None
        combination = self.combinations[self._next]
        try:
            return self._request(combination)
        except (InputError, OSError) as error:
            reason = str(error) if isinstance(error, InputError) else _cause(error)
            return Rejection(combination.name, "batch", self.name, (), reason)

    def _request(self, combination: Combination) -> Request:
        drops, digests = [], []
        parts = [(Role.CONTENT, combination.content)]
        parts += [(Role.STYLE, path) for path in combination.styles]
        for role, path in parts:
            mark, digest = self._measure(path)
            drops.append(Drop(role, str(path.relative_to(ANYWHERE)), mark, "anywhere"))
            digests.append((role.value, digest))
        return Request(
            name=combination.name,
            source="batch",
            group=self.name,
            files=tuple(drops),
            settings=combination.settings,
            priority=self._batch.priority,
            identity=self._identity(digests, combination.settings),
        )

    def _measure_file(self, path: Path) -> tuple[Fingerprint, str]:
        """Which version of a file this is, and the digest of its contents."""
        with files.folder_of(ANYWHERE, str(path.relative_to(ANYWHERE))) as (folder, name):
            descriptor, status = files.open_regular(name, folder, self._reach.max_bytes)
            with os.fdopen(descriptor, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        return files.fingerprint(status), digest

    def _identity(self, digests: Sequence[tuple[str, str]], settings: Mapping[str, Any]) -> str:
        """Equal for pictures that would be equal: inputs by contents, all settings, the network."""
        whole = [digests, asdict(self._reach.resolve(settings)), self._reach.network]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _cause(error: OSError) -> str:
    where = printable(os.fsdecode(error.filename)) if error.filename else "a file of this batch"
    return f"{where} cannot be read: {error.strerror}; look at it, and run the batch again"


def name_of(path: Path) -> str:
    """night.batch.yaml → night"""
    stem = clean_name(path.stem)
    return stem[: -len(SUFFIX)] if stem.lower().endswith(SUFFIX) else stem


class NoInbox:
    """In the place of an `Intake` where only a batch is to be painted."""

    def scan(self, now: float, wall: float) -> Scan:
        """Nothing."""
        return Scan((), (), (), (), ())

    def mute(self, drops: Iterable[Drop]) -> None:
        """Nothing."""
