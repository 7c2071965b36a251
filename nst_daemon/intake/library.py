"""The library of styles. The scan, batches, `submit` and the status page all read it here.

A style is an image file directly in the library, named by its stem, or a folder with image files directly in it, named
like the folder. `NAME.yaml` beside it holds its settings. A style that cannot be used stays in the listing with the
reason (`Style.problem`); an empty folder is not a style.
"""

from __future__ import annotations

import math
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from nst_daemon import files
from nst_daemon.errors import SettingsError
from nst_daemon.intake.drops import (
    MAX_STYLE_PICTURES,
    SETTINGS_SUFFIXES,
    Drop,
    Style,
    empty_picture,
    stem_of,
    suffix_of,
    unknown_kind,
)
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.settle import Arrival, ChangedMeanwhile
from nst_daemon.intake.walk import (
    always_complete,
    file_arrival,
    file_problem,
    list_folder,
    open_inner,
    opened,
    read_settings,
)
from nst_daemon.intake.writers import Writers
from nst_daemon.jobs import Fingerprint, Role
from nst_daemon.names import composed, natural_key, printable, shortened
from nst_daemon.pictures.formats import IMAGE_SUFFIXES
from nst_daemon.suggestions import did_you_mean
from nst_daemon.unexpected import explain_one

#: The most lines about what is not a style.
MAX_NOTES = 20
#: Has the file or folder (path below the library, "/" at the end of a folder) settled? The last argument tells
#: whether its contents have arrived.
HasSettled = Callable[[str, Fingerprint, Callable[[Writers], Arrival]], bool]
ReadSettings = Callable[[Drop], Mapping[str, Any]]


def list_styles(folder: Path, max_bytes: int) -> dict[str, Style]:
    """The styles as they are now, for a listing or a command; none if the library does not exist.

    Raises StorageError.
    """
    return read_library(folder, max_bytes) if folder.is_dir() else {}


def read_library(
    folder: Path,
    max_bytes: int,
    *,
    has_settled: HasSettled = lambda path, mark, arrival: True,
    read: ReadSettings | None = None,
    problems: list[str] | None = None,
) -> dict[str, Style]:
    """Every style by its name (in composed form), in natural order.

    Args:
        folder: the library; it may be reached through symbolic links, nothing in it may be one.
        max_bytes: of one file.
        has_settled: asked for every file and folder of a style.
        read: reads a settings file; by default from the disk, each time.
        problems: gets a line where the library cannot be listed.

    Raises:
        StorageError: the library is not there.
    """
    reader = _Reader(max_bytes, has_settled)
    problems = [] if problems is None else problems
    with opened(folder) as descriptor:
        for name, status in list_folder(descriptor, folder.name, problems):
            reader.add(descriptor, name, status)
    read = read or (lambda drop: read_settings(folder, drop.path, drop.fingerprint, max_bytes))
    parts = sorted(reader.parts.items(), key=lambda item: natural_key(item[0]))
    problems += [*reader.notes, *_settings_alone(parts)][:MAX_NOTES]
    return {name: _style(name, part, read) for name, part in parts if part.sources}


@dataclass(slots=True)
class _Parts:
    """The files of one style. sources: pictures by the file or the folder that they come from; there should be one."""

    sources: dict[str, list[Drop]] = field(default_factory=dict)
    settings: list[Drop] = field(default_factory=list)
    problem: str = ""
    settled: bool = True


@dataclass(slots=True)
class _Reader:
    """Collects the files of each style."""

    max_bytes: int
    has_settled: HasSettled
    parts: dict[str, _Parts] = field(default_factory=lambda: defaultdict(_Parts))
    #: Lines about what is not a style.
    notes: list[str] = field(default_factory=list)

    def add(self, library: int, name: str, status: os.stat_result) -> None:
        """A file or folder in the library. An unexpected exception costs its style, and no other."""
        try:
            if stat.S_ISDIR(status.st_mode):
                self.add_folder(library, name)
            elif stat.S_ISLNK(status.st_mode) and _leads_to_folder(library, name):
                part = self.parts[composed(name)]
                part.sources[name] = []
                part.problem = f"{printable(name)} is a symbolic link; use a real folder"
            elif suffix_of(name) in IMAGE_SUFFIXES | SETTINGS_SUFFIXES:
                self.add_file(library, name, status)
            elif self.has_settled(name, files.fingerprint(status), always_complete):
                self.notes.append(f"styles/{printable(name)} is not a style: {unknown_kind(name)}")
        except Exception as error:  # noqa: BLE001 (the other styles can be used)
            folder = stat.S_ISDIR(status.st_mode)
            part = self.parts[composed(name) if folder else stem_of(name)]
            part.sources.setdefault(name, [])
            part.problem = part.problem or explain_one(error)

    def add_file(self, library: int, name: str, status: os.stat_result) -> None:
        """A picture or a settings file directly in the library."""
        part = self.parts[stem_of(name)]
        drop = self._file(library, name, name, status, part)
        if drop.role is Role.STYLE:
            part.sources[name] = [drop]
        else:
            part.settings.append(drop)

    def add_folder(self, library: int, folder: str) -> None:
        """A folder of pictures; one without any is not a style."""
        part = _Parts()
        found: list[Drop] = []
        unreadable: list[str] = []
        with open_inner(folder, library, folder, unreadable) as descriptor:
            if descriptor is not None:
                mark = files.fingerprint(os.fstat(descriptor))
                part.settled = self.has_settled(f"{folder}/", mark, always_complete)
                found = [
                    self._file(descriptor, name, f"{folder}/{name}", status, part)
                    for name, status in list_folder(descriptor, folder, unreadable)
                    if suffix_of(name) in IMAGE_SUFFIXES
                ]
        if found or unreadable:
            style = self.parts[composed(folder)]
            style.sources[folder] = sorted(found, key=lambda drop: natural_key(drop.name))
            style.settled = style.settled and part.settled
            style.problem = style.problem or part.problem or "".join(unreadable[:1])
        elif part.settled:
            self.notes.append(
                f"styles/{printable(folder)} has no pictures in it: it is not a style"
            )

    def _file(
        self, folder: int, name: str, path: str, status: os.stat_result, part: _Parts
    ) -> Drop:
        """A file of the library; what is wrong with it is noted in `part`. path: below the library."""
        mark = files.fingerprint(status)
        problem = file_problem(status, name, self.max_bytes)
        part.problem = part.problem or problem
        arrival = partial(file_arrival, name, folder, status.st_size)
        # Every file is looked at, also behind one that has not settled: each has its own time.
        settled = self.has_settled(path, mark, always_complete if problem else arrival)
        part.settled = part.settled and settled
        role = Role.STYLE if suffix_of(name) in IMAGE_SUFFIXES else Role.SETTINGS
        if settled and role is Role.STYLE and status.st_size == 0:
            part.problem = part.problem or empty_picture(name)
        return Drop(role, path, mark, "styles")


def _settings_alone(parts: Iterable[tuple[str, _Parts]]) -> Iterator[str]:
    """A line for each settings file without a picture."""
    for name, part in parts:
        if not part.sources and part.settled:
            for drop in part.settings:
                yield f"styles/{printable(drop.path)} has no picture: add styles/{printable(name)}.jpg"


def _style(name: str, part: _Parts, read: ReadSettings) -> Style:
    """The style that consists of these files. Settings are read once everything has settled."""
    pictures = tuple(next(iter(part.sources.values())))
    settled, settings = part.settled, {}
    problem = part.problem or name_problem(name) or _files_problem(part)
    if part.settings and settled and not problem:
        try:
            settings = dict(read(part.settings[0]))
        except SettingsError as error:
            problem = str(error)
        except ChangedMeanwhile:
            settled = False
        except Exception as error:  # noqa: BLE001 (the other styles can be used)
            problem = explain_one(error)
    file = part.settings[0].path if part.settings else ""
    style = Style(name, pictures, settings, problem, settled, file)
    return replace(style, problem=problem or weights_problem(settings, len(pictures)))


def name_problem(name: str) -> str:
    """Why a style of this name has no folder in the inbox, "" if it has one."""
    if not ignored(name, folder=True):
        return ""
    return (
        f"{printable(name)} is the name of a temporary file, which is ignored in the inbox; "
        "give the style another name"
    )


def _files_problem(part: _Parts) -> str:
    """What is wrong with the number of files, "" if nothing is."""
    if len(part.sources) > 1 or len(part.settings) > 1:
        names = sorted(part.sources if len(part.sources) > 1 else (d.path for d in part.settings))
        return f"{' and '.join(map(printable, names))} have the same name; keep one of them"
    (pictures,) = part.sources.values()
    if len(pictures) > MAX_STYLE_PICTURES:
        return (
            f"it has {len(pictures)} pictures, and at most {MAX_STYLE_PICTURES} are blended; "
            "remove some of them"
        )
    return ""


def _leads_to_folder(library: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=library).st_mode)
    except OSError:
        return False


# Using styles


def style_problem(styles: Mapping[str, Style], name: str) -> str:
    """Why the style of this name (in composed form) cannot be used, "" if it can."""
    style = styles.get(name)
    label = shortened(printable(name))
    if style is None:
        known = shortened(", ".join(map(printable, sorted(usable(styles), key=natural_key))), 1000)
        none = "none of its styles can be used" if styles else "the library is empty"
        there = f"the styles are: {known}" if known else none
        hint = did_you_mean(name, map(printable, usable(styles)))
        there += f" ({hint})" if hint else ""
        return f"there is no style {label!r} in the library; {there}"
    return f"the style {label} cannot be used: {style.problem}" if style.problem else ""


def usable(styles: Mapping[str, Style]) -> dict[str, Style]:
    """The styles without a problem."""
    return {name: style for name, style in styles.items() if not style.problem}


def merge_settings(
    styles: Sequence[Style], settings: Mapping[str, object], own: int = 0
) -> dict[str, object]:
    """The settings of a job that is painted in these styles.

    A single style's settings apply. Where several styles are blended, their settings other than `style_weights` are
    merged in the order in which they are named, later ones over earlier ones. The job's own settings override both.

    `style_weights` of the job are the shares of the styles, equal by default; those of a folder style divide its share
    among its own pictures. The job may also give one weight for each picture.

    Args:
        styles: library styles of the job, in order.
        settings: the job's own settings.
        own: number of style pictures that come with the job; they come before those of the library.
    """
    merged: dict[str, object] = {}
    for style in styles:
        merged |= style.settings
    merged.pop("style_weights", None)
    merged |= settings
    weights = [[1.0]] * own + [_inner_weights(style) for style in styles]
    shares = settings.get("style_weights")
    if len(weights) == 1 and "style_weights" not in settings:
        if styles and styles[0].settings.get("style_weights"):
            merged["style_weights"] = styles[0].settings["style_weights"]
    elif any(len(inner) > 1 for inner in weights):
        shares = shares or [1.0] * len(weights)
        if _are_numbers(shares) and len(shares) == len(weights):
            merged["style_weights"] = [
                share * weight / sum(inner)
                for share, inner in zip(shares, weights, strict=True)
                for weight in inner
            ]
    return merged


def setting_places(
    styles: Sequence[Style], settings: Mapping[str, object], label: str
) -> dict[str, str]:
    """The settings file of each setting of `merge_settings`. label: the name of the job's own file."""
    places: dict[str, str] = {}
    for style in styles:
        places |= dict.fromkeys(style.settings, f"styles/{printable(style.settings_file)}")
    return places | dict.fromkeys(settings, label)


def _inner_weights(style: Style) -> list[float]:
    """The weights of a style's pictures; `read_library` has checked those of the settings."""
    given = style.settings.get("style_weights")
    return given if _are_numbers(given) and given else [1.0] * len(style.pictures)


def _are_numbers(value: object) -> TypeGuard[list[float]]:
    return isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in value
    )


def weights_problem(settings: Mapping[str, object], pictures: int) -> str:
    """What is wrong with `style_weights` in the settings of a style with so many pictures, "" if nothing is."""
    given = settings.get("style_weights")
    if not given:
        return ""
    if not _are_numbers(given) or len(given) != pictures:
        return f"its style_weights must be a list of {pictures}: one for each picture"
    if min(given) < 0 or not 0 < sum(given) < math.inf:
        return "its style_weights must be numbers ≥ 0, and one of them > 0"
    return ""
