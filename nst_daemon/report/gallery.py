"""`results/index.html`: all results on one page that makes no network requests.

The page is static. It contains its data, styles and script and links to pictures by relative paths; its
Content-Security-Policy allows nothing else. Names and notes reach it only as JSON, and the script sets them as text.

Thumbnails are in `results/.gallery/`, named by the digest of their picture, so each is made once and is kept after the
inputs have been removed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files as resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nst_daemon import files
from nst_daemon.digests import find_files
from nst_daemon.errors import NstError, first_line
from nst_daemon.jobs import PICTURE_ROLES, BatchCell
from nst_daemon.machine import usable_cpus
from nst_daemon.names import printable
from nst_daemon.pictures.decode import DEFAULT_LIMITS, PictureLimits
from nst_daemon.pictures.formats import IMAGE_SUFFIXES
from nst_daemon.publishing import KEY_DIGITS, LOSS_PLOT, THUMBNAILS, TIME_LAPSE
from nst_daemon.report.rerun_command import RerunCommand, known_inputs
from nst_daemon.report.sidecar import SIDECAR_SCHEMA, completed
from nst_daemon.report.thumbnails import ResultLimits, reduced

log = logging.getLogger(__name__)

PAGE = "index.html"
#: Keys of an entry that the script does not get as they are.
_NOT_SHOWN = frozenset({"thumbnails", "settings", "batch", "sidecar", "inputs"})
#: Longer sides in pixels: of a thumbnail on the page, and of the content under the slider.
THUMBNAIL_SIDE, SLIDER_SIDE = 360, 1024
#: Suffixes of results that all browsers show. Of others the page shows a reduced copy.
SHOWN_SUFFIXES = frozenset({".png", ".jpg", ".webp", ".avif"})
#: Pictures that are decoded at the same time: each takes memory.
MAX_THREADS = 4
#: Unused thumbnails are removed after this many seconds. (Another process may just have made them.)
UNUSED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A reduced picture.

    Attributes:
        sha256, size: digest and size in bytes of the picture's file.
        side: the longer side of the thumbnail in pixels.
        source: the picture's file, if it is known.
    """

    sha256: str
    side: int
    size: int
    source: Path | None = None

    @property
    def key(self) -> str:
        """The key of the picture."""
        return self.sha256[:KEY_DIGITS]

    @property
    def name(self) -> str:
        """The name of the thumbnail's file."""
        return f"{self.key}-{self.side}.webp"


def write(
    results: Path,
    places: Sequence[Path],
    command: RerunCommand | None = None,
    limits: PictureLimits = DEFAULT_LIMITS,
) -> Path:
    """Write the page for all results in a folder.

    Args:
        results: the folder. JSON files in it that are damaged or are not sidecars are skipped.
        places: folders that are searched for the inputs, by their contents.
        command: the `rerun` commands on the page, and the folders with other inputs.
        limits: of the inputs.

    Returns:
        The path of the page.

    Raises:
        StorageError: the page or a thumbnail cannot be written.
    """
    command = command or RerunCommand()
    newest = sorted(found(results), key=lambda entry: str(entry["finished"]), reverse=True)
    with files.storage(results):
        folder = results / THUMBNAILS
        folder.mkdir(exist_ok=True)
        wanted = {t.name: t for entry in newest for t in entry["thumbnails"]}
        there = {path.name for path in folder.iterdir()}
        missing = [t for name, t in wanted.items() if name not in there]
        inputs = {digest: size for entry in newest for digest, size in entry["inputs"]}
        known = known_inputs(folder, inputs, command.inputs)
        there |= _make(missing, folder, places, limits)
        _remove_unused(folder, there - set(wanted))
    files.write_atomic(results / PAGE, page(data(newest, there, command, known)).encode())
    return results / PAGE


def remember_inputs(results: Path, inputs: Sequence[Path]) -> None:
    """Note where inputs are, for `rerun` and later pages.

    Args:
        results: the folder of results.
        inputs: files and folders with inputs that are not in the folders of the root.

    Raises:
        StorageError: the list cannot be written.
    """
    with files.storage(results):
        (results / THUMBNAILS).mkdir(exist_ok=True)
    wanted = {digest: size for entry in found(results) for digest, size in entry["inputs"]}
    known_inputs(results / THUMBNAILS, wanted, inputs)


def found(results: Path) -> Iterator[dict[str, Any]]:
    """The entries of all sidecars in a folder, at any depth, whose pictures exist. Links are not followed."""
    for parent, folders, names in os.walk(results):
        folders[:] = [name for name in folders if not name.startswith(".")]
        present = set(names)
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                path = Path(parent, name)
                try:
                    entry = _entry(path, results, present, json.loads(files.read_file(path)))
                except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    reason = first_line(error) if isinstance(error, OSError) else "it is damaged"
                    reason = str(error) if type(error) is ValueError else reason
                    log.warning("%s was skipped: %s", printable(str(path)), reason)
                else:
                    if entry is not None:
                        yield entry


def _entry(path: Path, results: Path, present: set[str], s: Any) -> dict[str, Any] | None:
    """The entry of one result; None if its picture does not exist. Raises KeyError, TypeError, … for damage."""
    if s["program"] != "nst-daemon" or s["schema"] > SIDECAR_SCHEMA:
        raise ValueError("it is from another program or a later version")
    suffix = Path(s["picture"]["file"]).suffix
    if suffix not in IMAGE_SUFFIXES or path.stem + suffix not in present:
        return None
    # Publishing may have numbered the name: the name of the sidecar counts, not the name in it.
    relative = path.relative_to(results)
    picture = path.with_name(path.stem + suffix)
    result = Thumbnail(_digest(s["picture"]["sha256"]), THUMBNAIL_SIDE, 0, picture)
    inputs = [
        (i["role"], str(i["name"]), _digest(i["sha256"]), int(i["bytes"])) for i in s["inputs"]
    ]
    contents = [i for i in inputs if i[0] == "content"]
    styles = [i for i in inputs if i[0] == "style"]
    thumbnails = [result]
    shown = _url(picture.relative_to(results))
    if suffix not in SHOWN_SUFFIXES:
        thumbnails.append(replace(result, side=SLIDER_SIDE))
        shown = f"{THUMBNAILS}/{thumbnails[-1].name}"
    thumbnails += [Thumbnail(i[2], THUMBNAIL_SIDE, i[3]) for i in contents + styles]
    thumbnails += [Thumbnail(i[2], SLIDER_SIDE, i[3]) for i in contents]
    curve, lapse = path.stem + LOSS_PLOT, path.stem + TIME_LAPSE
    return {
        "name": printable(path.stem),
        "group": printable(str(relative.parent)) if relative.parent.parts else "",
        "finished": str(s["finished"]),
        "width": int(s["picture"]["width"]),
        "height": int(s["picture"]["height"]),
        "picture": _url(picture.relative_to(results)),
        "shown": shown,
        "curve": _url(relative.with_name(curve)) if curve in present else "",
        "lapse": _url(relative.with_name(lapse)) if lapse in present else "",
        "json": _url(relative),
        "key": result.key,
        "contents": [(i[1], i[2][:KEY_DIGITS]) for i in contents],
        "styles": [(i[1], i[2][:KEY_DIGITS]) for i in styles],
        "settings": completed(s["settings"]),
        "batch": BatchCell.from_json(s.get("batch")),
        "model": " · ".join(
            str(v)
            for v in (s["model"].get("weights_description"), s["machine"].get("device_name"))
            if v
        ),
        "iterations": int(s["iterations"]["done"]),
        "seconds": float(s["seconds"]["paint"]),
        "loss": float(s["losses"]["total"]),
        "notes": [str(note) for note in s["notes"]],
        "sidecar": path,
        "inputs": [(i[2], i[3]) for i in inputs if i[0] in PICTURE_ROLES],
        "thumbnails": thumbnails,
    }


def _digest(text: object) -> str:
    """Check a digest, because it becomes part of a file name."""
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is not a SHA-256")
    return text


def _url(relative: Path) -> str:
    return "/".join(quote(os.fsencode(part), safe="") for part in relative.parts)


def _make(
    wanted: Sequence[Thumbnail], folder: Path, places: Sequence[Path], limits: PictureLimits
) -> set[str]:
    """Make those thumbnails whose pictures are found. Returns their names."""
    sources = find_files({t.sha256: t.size for t in wanted if not t.source}, places)
    pairs = [(t.source or sources.get(t.sha256), t) for t in wanted]

    def make(pair: tuple[Path | None, Thumbnail]) -> str:
        source, thumbnail = pair
        own = ResultLimits.of(limits) if thumbnail.source else limits
        return _reduce(source, thumbnail, folder, own) if source else ""

    with ThreadPoolExecutor(min(MAX_THREADS, usable_cpus())) as pool:  # decoders release the GIL
        return set(pool.map(make, pairs)) - {""}


def _reduce(source: Path, thumbnail: Thumbnail, folder: Path, limits: PictureLimits) -> str:
    """Make a thumbnail. Returns its name, or an empty string if the picture cannot be read."""
    temporary = folder / f".{secrets.token_hex(8)}.part"
    try:
        temporary.write_bytes(reduced(source, thumbnail.side, limits))
        temporary.replace(folder / thumbnail.name)
    except Exception as error:  # noqa: BLE001 (one unreadable picture must not cost the page)
        reason = first_line(error) if isinstance(error, NstError) else repr(error)
        log.warning("no thumbnail of %s: %s", printable(str(source)), reason)
        temporary.unlink(missing_ok=True)
        return ""
    return thumbnail.name


def _remove_unused(folder: Path, names: set[str]) -> None:
    """Remove unused thumbnails, and temporary files. Other files are left alone."""
    for name in names:
        path = folder / name
        if re.fullmatch(r"[0-9a-f]{24}-\d+\.webp|\.[0-9a-f]{16}\.part", name):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - UNUSED_SECONDS:
                    path.unlink()


def data(
    found: Sequence[Mapping[str, Any]],
    thumbnails: set[str],
    command: RerunCommand,
    known: Mapping[str, Path],
) -> dict[str, Any]:
    """The data of the script.

    Most settings are alike. Those of the first result of each preset are listed; other results have the number of such
    a list and their differences from it.

    Args:
        found: entries, newest first.
        thumbnails: names of the thumbnails that exist.
        command: that paints a result again.
        known: inputs that it has to name, by SHA-256.
    """
    bases: dict[tuple[object, ...], tuple[int, Mapping[str, Any]]] = {}
    entries = []
    for entry in found:
        shown = {k: v for k, v in entry.items() if k not in _NOT_SHOWN}
        named = dict.fromkeys(known[digest] for digest, _ in entry["inputs"] if digest in known)
        shown["command"] = command.text(entry["sidecar"], named)
        own = entry["settings"]
        kind = (str(own.get("preset")), *own)  # other versions have other settings
        number, base = bases.setdefault(kind, (len(bases), own))
        shown["settings"] = (number, {k: v for k, v in own.items() if v != base[k]})
        for role in ("contents", "styles"):
            shown[role] = [
                (name, key if f"{key}-{THUMBNAIL_SIDE}.webp" in thumbnails else "")
                for name, key in entry[role]
            ]
        if f"{entry['key']}-{THUMBNAIL_SIDE}.webp" not in thumbnails:
            shown["key"] = ""
        entries.append(shown)
    return {
        "entries": entries,
        "settings": [base for _, base in bases.values()],
        "thumb": THUMBNAIL_SIDE,
        "view": SLIDER_SIDE,
    }


def page(values: Mapping[str, Any]) -> str:
    """The text of index.html."""
    parts = resources("nst_daemon.report")
    template, theme, own, units, gallery = (
        (parts / name).read_text(encoding="utf-8")
        for name in ("gallery.html", "theme.css", "gallery.css", "units.js", "gallery.js")
    )
    style, script = theme + own, units + gallery
    # Inside <script>, only "</script" and "<!--" have a meaning: without "<" there is neither.
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    pieces = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": text}
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda m: pieces[m[1]], template)


def _hash(text: str) -> str:
    """The CSP source expression for an inline element with this text."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"
