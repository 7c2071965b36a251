"""Putting things into the inbox as a careful person would: properly named, and never seen half-written."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from nst_daemon import files
from nst_daemon.errors import InputError, UsageError
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.pairing import PICTURES, normal
from nst_daemon.jobs import Role


@dataclass(frozen=True, slots=True)
class Part:
    """A picture of a job. number: of its style, from 1, where there are several; else 0."""

    role: Role
    path: Path
    number: int = 0

    @property
    def ending(self) -> str:
        """What follows the job's name: ".style-2.jpg"."""
        word = self.role.value
        if self.number:
            word = word.replace("style", f"style-{self.number}")
        return f".{word}{self.path.suffix.lower()}"


def drop(inbox: Path, name: str, parts: Sequence[Part], settings: Mapping[str, object]) -> str:
    """Copy the pictures of one job into the inbox, and its settings as NAME.yaml; the name that it got.

    name: as a person would have it; it is made harmless, and numbered where the inbox holds that name already;
    settings: of this job, with the inbox's own `style` and `priority` among them.
    Raises UsageError for what could not be painted, StorageError where the inbox cannot take it.
    """
    for part in parts:
        _check(part.path)
    if not inbox.is_dir():
        raise UsageError(
            f"there is no inbox at {inbox}", remedy="start the daemon once, or name its --config"
        )
    name = _free_name(inbox, files.clean_name(name))
    temporaries: list[tuple[Path, Path]] = []
    try:
        if settings:
            temporaries.append(_write(settings, inbox / f"{name}.yaml"))
        # The content comes last: whatever is there before it waits for it.
        for part in sorted(parts, key=lambda part: part.role is Role.CONTENT):
            temporaries.append(_copy(part.path, inbox / f"{name}{part.ending}"))
        with files.storage(inbox):
            for temporary, target in temporaries:
                temporary.rename(target)
            files.fsync_folder(inbox)
    finally:
        for temporary, _ in temporaries:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return name


def styles_and_names(styles: Iterable[str], library: Path) -> tuple[list[Path], list[str]]:
    """What a person means by each style: a picture's file, or the name of a style in the library.

    Raises UsageError for what is neither.
    """
    pictures: list[Path] = []
    names: list[str] = []
    known = {normal(path.stem): path for path in _pictures([library])}
    for style in styles:
        if Path(style).is_file():
            pictures.append(Path(style))
        elif normal(style) in known:
            names.append(style)
        else:
            there = ", ".join(sorted(map(files.printable, known))) or "none"
            raise UsageError(
                f"{files.printable(style)} is neither a file nor a style of the library",
                remedy=f"there are: {there}",
            )
    return pictures, names


def numbered_styles(pictures: Sequence[Path]) -> list[Part]:
    """One style, or several with numbers."""
    several = len(pictures) > 1
    return [Part(Role.STYLE, path, i if several else 0) for i, path in enumerate(pictures, start=1)]


def recipe_parts(inputs: Iterable[Mapping[str, object]], places: Sequence[Path]) -> list[Part]:
    """The pictures that a sidecar names, found again by their contents. places: files, and folders to look through.

    inputs: `role`, `sha256` and `bytes` of each, and perhaps its `name`. Raises InputError for one that is nowhere.
    """
    wanted = [i for i in inputs if Role(str(i["role"])) not in {Role.SETTINGS, Role.BATCH}]
    found: dict[object, Path] = {}
    sizes = {i["bytes"] for i in wanted}
    digests = {i["sha256"] for i in wanted}
    for path in _pictures(places):
        if len(found) == len(digests):
            break
        with suppress(OSError):  # gone meanwhile, or somebody else's
            if path.stat().st_size in sizes and (digest := files.sha256_file(path)) in digests:
                found.setdefault(digest, path)
    for i in wanted:
        if i["sha256"] not in found:
            raise InputError(
                f"{files.printable(str(i.get('name', i['role'])))} is in none of "
                + ", ".join(files.printable(str(place)) for place in places),
                remedy="name it, or the folder that it is in, with --input",
            )
    count = sum(i["role"] == Role.STYLE for i in wanted)
    numbers = dict.fromkeys((Role.STYLE, Role.STYLE_MASK), 0)
    parts = []
    for i in wanted:
        role = Role(str(i["role"]))
        if role in numbers and count > 1:
            numbers[role] += 1
        parts.append(Part(role, found[i["sha256"]], numbers.get(role, 0)))
    return parts


def _pictures(places: Iterable[Path]) -> Iterator[Path]:
    """Every picture among these files and in these folders."""
    for place in places:
        if place.is_file():
            yield place
        for folder, inner, names in os.walk(place):
            inner[:] = sorted(name for name in inner if not ignored(name))
            for name in sorted(names):
                path = Path(folder, name)
                if path.suffix.lower() in PICTURES and not ignored(name) and path.is_file():
                    yield path


def _check(path: Path) -> None:
    label = files.printable(str(path))
    if not path.is_file():
        raise UsageError(f"there is no file {label}", remedy="name one that exists")
    if path.suffix.lower() not in PICTURES:
        known = ", ".join(sorted(suffix[1:] for suffix in PICTURES))
        raise UsageError(f"{label} is no picture by its name", remedy=f"known are {known}")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{label} cannot be read", remedy="look at its rights")


def _free_name(inbox: Path, name: str) -> str:
    """The name, or the first NAME-2, NAME-3, … of which nothing is in the inbox."""
    with files.storage(inbox):
        taken = {normal(path.name) for path in inbox.iterdir()}
    return next(
        candidate
        for candidate in files.numbered(name)
        if not any(n == candidate or n.startswith(_belonging_to(candidate)) for n in taken)
    )


def _belonging_to(name: str) -> tuple[str, ...]:
    """How the names of files begin that are parts of the job `name`."""
    halves = (f"{name}{separator}{half}" for separator in "_-" for half in ("content", "style"))
    return (f"{name}.", *halves)


def _hidden(target: Path) -> Path:
    """The name that a file bears while it is written: the scan ignores it."""
    return target.with_name(f".{secrets.token_hex(8)}.part")


def _write(settings: Mapping[str, object], target: Path) -> tuple[Path, Path]:
    temporary = _hidden(target)
    text = yaml.safe_dump(dict(settings), allow_unicode=True, sort_keys=False)
    with files.storage(target.parent):
        temporary.write_text(text, encoding="utf-8")
    return temporary, target


def _copy(source: Path, target: Path) -> tuple[Path, Path]:
    """Not the mode and not the owner: the inbox's group has to be able to read it."""
    temporary = _hidden(target)
    with files.storage(target.parent), source.open("rb") as read, temporary.open("xb") as write:
        shutil.copyfileobj(read, write, files.CHUNK)
        write.flush()
        os.fsync(write.fileno())
    return temporary, target
