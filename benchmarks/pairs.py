"""Lists of pairs to paint, and named settings to paint them with: what `benchmarks.looks` reads.

A pairs file is a YAML list. Paths are relative to the file:

    - content: photos/town.jpg
      style: paintings/night.jpg          # or `styles: [...]` for a blend
      name: town at night                 # for captions and file names; "town in night" by default
      references:                         # shown beside; not needed for painting
        - published/town.jpg              # the caption is the file's name
        - {picture: published/other.jpg, caption: another program}
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import drawings
from benchmarks.drawings import PAIRS, SCENES, draw_painting, draw_scene
from nst_daemon import strict_yaml
from nst_daemon.digests import sha256_file
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.painter import decode

_EXAMPLE = "write `- {content: photo.jpg, style: painting.jpg}` for each pair"
_KEYS = frozenset({"content", "style", "styles", "name", "references"})
DRAWN_SIZE = (768, 576)


@dataclass(frozen=True)
class File:
    """A picture of a pair that was found and can be read."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Reference:
    """A picture that is shown beside those that are painted."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Pair:
    """What is painted in one row; the name is unique."""

    name: str
    content: File
    styles: tuple[File, ...]
    references: tuple[Reference, ...] = ()


def read_pairs(files: Sequence[Path]) -> list[Pair]:
    """The pairs of all files, in order.

    Raises:
        InputError: A file is not a list of pairs, a picture is missing or damaged, or two pairs have one name.
    """
    pairs: list[Pair] = []
    for file in files:
        entries = _entries(file)
        pairs += [_pair(file, f"{file}, pair {n}", entry) for n, entry in enumerate(entries, 1)]
    names = [pair.name for pair in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{', '.join(map(str, files))}: two pairs are called {name!r}",
                remedy="give one of them another `name`",
            )
    return pairs


def drawn_pairs(folder: Path, size: tuple[int, int] = DRAWN_SIZE) -> list[Pair]:
    """The pairs of `benchmarks.drawings`, drawn below a folder; drawn again if their code has changed."""
    code = [path.read_bytes() for path in sorted(Path(drawings.__file__).parent.glob("*.py"))]
    folder = folder / hashlib.sha256(b"".join(code) + repr(size).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, File] = {}
    for name in dict.fromkeys(name for pair in PAIRS for name in pair):
        path = folder / f"{name}.png"
        if not path.exists():
            scene = name in SCENES
            picture = draw_scene(*size, scene=name) if scene else draw_painting(*size, style=name)
            picture.save(path.with_suffix(".part"), "PNG")
            path.with_suffix(".part").replace(path)
        drawn[name] = File(path, sha256_file(path))
    return [Pair(f"{c} in {s}", drawn[c], (drawn[s],)) for c, s in PAIRS]


def named_settings(options: Sequence[str]) -> dict[str, Mapping[str, object]]:
    """Settings by name.

    Args:
        options: Each is a preset (`bold`), assignments with or without a name (`soft: preset=bold tv_weight=2`), or a
            YAML file that maps names to settings. Values are YAML; those with spaces are quoted as in a shell.

    Raises:
        InputError: An option cannot be read, or two settings have one name.
    """
    named: dict[str, Mapping[str, object]] = {}
    for option in options:
        for name, settings in _settings(option).items():
            if name in named:
                raise SettingsError(
                    f"two settings are called {name!r}", remedy="give one of them another name"
                )
            named[name] = settings
    return named


def _settings(option: str) -> Mapping[str, Mapping[str, object]]:
    if option.endswith((".yaml", ".yml")):
        read = strict_yaml.parse_mapping(_bytes(Path(option)), option)
        for name, settings in read.items():
            if not isinstance(settings, dict):
                raise SettingsError(
                    f"{option}: {name!r} is not a mapping of settings",
                    remedy="write `name: {preset: bold, content_weight: 0.02}`",
                )
        return read
    match = re.fullmatch(r"\s*([^=:{]+):\s+(.*)", option)
    name, text = match.groups() if match else (option, option)
    if "=" not in text:
        return {name.strip(): {"preset": text.strip()}}
    try:
        words = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise SettingsError(
            f"--settings {option}: {error}", remedy="close the quotation marks"
        ) from error
    for key, separator, _ in words:
        if not separator:
            raise SettingsError(
                f"--settings {option}: {key!r} is not KEY=VALUE",
                remedy="for example 'soft: preset=bold tv_weight=2'",
            )
    return {name.strip(): {key: strict_yaml.parse(v, f"--settings {key}") for key, _, v in words}}


def _entries(file: Path) -> list[Any]:
    label = str(file)
    try:
        text = _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{label} is not UTF-8 text", remedy="save it as UTF-8") from error
    entries = strict_yaml.parse(text, label)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{label} is not a list of pairs", remedy=_EXAMPLE)
    return entries


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}", remedy="check the path"
        ) from error


def _pair(file: Path, label: str, entry: Any) -> Pair:
    if not isinstance(entry, dict):
        raise InputError(f"{label} is not a mapping", remedy=_EXAMPLE)
    if unknown := sorted(set(entry) - _KEYS):
        raise InputError(f"{label}: unknown key {unknown[0]!r}", remedy=f"use {sorted(_KEYS)}")
    if ("style" in entry) == ("styles" in entry):
        raise InputError(f"{label} needs either `style` or `styles`", remedy=_EXAMPLE)
    styles = entry["styles"] if "styles" in entry else [entry["style"]]
    references = entry.get("references") or []
    if not isinstance(styles, list) or not styles or not isinstance(references, list):
        raise InputError(f"{label}: `styles` and `references` are lists", remedy=_EXAMPLE)
    folder = file.parent
    content = _file(folder, f"{label}, content", entry.get("content"))
    found = tuple(_file(folder, f"{label}, style", style) for style in styles)
    name = f"{content.path.stem} in {' and '.join(style.path.stem for style in found)}"
    shown = tuple(_reference(folder, f"{label}, reference", r) for r in references)
    return Pair(str(entry.get("name") or name), content, found, shown)


def _reference(folder: Path, label: str, entry: Any) -> Reference:
    if not isinstance(entry, dict):
        entry = {"picture": entry}
    if unknown := sorted(set(entry) - {"picture", "caption"}):
        raise InputError(
            f"{label}: unknown key {unknown[0]!r}", remedy="use `picture` and `caption`"
        )
    path = _file(folder, label, entry.get("picture")).path
    return Reference(path, str(entry.get("caption") or path.stem))


def _file(folder: Path, label: str, value: Any) -> File:
    """Find and read a picture now, so that a mistake does not end a long run half-way."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{label} is missing, or is not a path", remedy=_EXAMPLE)
    path = folder / Path(value).expanduser()
    if not path.is_file():
        raise InputError(
            f"{label}: there is no file {path}", remedy=f"paths are relative to {folder}"
        )
    try:
        decode(path)
    except InputError as error:
        raise InputError(f"{label}: {error.message}", remedy=error.remedy) from error
    return File(path, sha256_file(path))
