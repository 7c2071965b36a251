"""`results/index.html`: every result on one page, which asks nobody for anything.

The page is static: data, styles and script stand in it, pictures are linked relative to it, and its
Content-Security-Policy allows nothing else. What comes from names and notes reaches it as JSON only, and the script
sets it as text.

Thumbnails lie in `results/.gallery/`, named by the digest of what they show, so each is made once and outlives the
inputs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nst_daemon import files
from nst_daemon.digests import find_files
from nst_daemon.jobs import BatchCell
from nst_daemon.names import printable
from nst_daemon.publishing import LOSS_PLOT, TIME_LAPSE
from nst_daemon.report.sidecar import SCHEMA
from nst_daemon.report.thumbnails import reduced

log = logging.getLogger(__name__)

PAGE, THUMBNAILS = "index.html", ".gallery"
#: So many hex digits of a digest, 96 bits, are enough to tell pictures apart.
KEY = 24
#: Longer sides in pixels: on the page, and of the content under the slider.
THUMB, VIEW = 360, 1024
#: What `sidecar` says a picture may be.
SUFFIXES = frozenset({".png", ".jpg", ".webp", ".tiff"})
#: Seconds for which a thumbnail that nothing refers to is left alone: another process may just have made it.
SPARED = 3600.0


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A reduced picture: of the file with this digest and size in bytes, or of `source` where that is known."""

    sha256: str
    side: int
    size: int
    source: Path | None = None

    @property
    def key(self) -> str:
        """What tells it from other pictures."""
        return self.sha256[:KEY]

    @property
    def name(self) -> str:
        """Its file's."""
        return f"{self.key}-{self.side}.webp"


def write(results: Path, places: Sequence[Path]) -> Path:
    """Write the page for everything in `results` and return its path.

    places: folders in which the inputs are looked for, by their contents. Files that are no sidecars, or damaged
    ones, are left out. Raises StorageError.
    """
    newest = sorted(found(results), key=lambda entry: str(entry["finished"]), reverse=True)
    with files.storage(results):
        folder = results / THUMBNAILS
        folder.mkdir(exist_ok=True)
        wanted = {t.name: t for entry in newest for t in entry["thumbnails"]}
        there = {path.name for path in folder.iterdir()}
        there |= _make([t for name, t in wanted.items() if name not in there], folder, places)
        _forget(folder, there - set(wanted))
    files.write_atomic(results / PAGE, page(data(newest, there)).encode())
    return results / PAGE


# What there is to show


def found(results: Path) -> Iterator[dict[str, Any]]:
    """What every sidecar below `results` says whose picture is there; links are not followed."""
    for parent, folders, names in os.walk(results):
        folders[:] = [name for name in folders if not name.startswith(".")]
        present = set(names)
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                path = Path(parent, name)
                try:
                    entry = _entry(path, results, present, json.loads(path.read_bytes()))
                except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    log.warning("%s is left out: %r", printable(str(path)), error)
                else:
                    if entry is not None:
                        yield entry


def _entry(path: Path, results: Path, present: set[str], s: Any) -> dict[str, Any] | None:
    """What the page says about one result; None where its picture is not there. Raises KeyError, TypeError, …"""
    if s["program"] != "nst-daemon" or s["schema"] > SCHEMA:
        raise ValueError("of another program or a later version")
    suffix = Path(s["picture"]["file"]).suffix
    if suffix not in SUFFIXES or path.stem + suffix not in present:
        return None
    # Publishing may have numbered the name: what lies beside the sidecar counts, not what it calls itself.
    relative = path.relative_to(results)
    picture = path.with_name(path.stem + suffix)
    result = Thumbnail(_digest(s["picture"]["sha256"]), THUMB, 0, picture)
    inputs = [
        (i["role"], str(i["name"]), _digest(i["sha256"]), int(i["bytes"])) for i in s["inputs"]
    ]
    contents = [i for i in inputs if i[0] == "content"]
    styles = [i for i in inputs if i[0] == "style"]
    thumbnails = [result]
    thumbnails += [Thumbnail(i[2], THUMB, i[3]) for i in contents + styles]
    thumbnails += [Thumbnail(i[2], VIEW, i[3]) for i in contents]
    curve, lapse = path.stem + LOSS_PLOT, path.stem + TIME_LAPSE
    return {
        "name": printable(path.stem),
        "group": printable(str(relative.parent)) if relative.parent.parts else "",
        "finished": str(s["finished"]),
        "width": int(s["picture"]["width"]),
        "height": int(s["picture"]["height"]),
        "picture": _url(picture.relative_to(results)),
        "curve": _url(relative.with_name(curve)) if curve in present else "",
        "lapse": _url(relative.with_name(lapse)) if lapse in present else "",
        "json": _url(relative),
        "key": result.key,
        "contents": [(i[1], i[2][:KEY]) for i in contents],
        "styles": [(i[1], i[2][:KEY]) for i in styles],
        "settings": dict(s["settings"]),
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
        "command": shlex.join(["nst-daemon", "rerun", str(path)]),
        "thumbnails": thumbnails,
    }


def _digest(text: object) -> str:
    """A digest may become part of a file's name, so it has to be one."""
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is not a SHA-256")
    return text


def _url(relative: Path) -> str:
    return "/".join(quote(os.fsencode(part), safe="") for part in relative.parts)


# Thumbnails


def _make(wanted: Sequence[Thumbnail], folder: Path, places: Sequence[Path]) -> set[str]:
    """Make what can be made, on all cores; the names."""
    sources = find_files({t.sha256: t.size for t in wanted if not t.source}, places)
    pairs = [(t.source or sources.get(t.sha256), t) for t in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the interpreter
        made = pool.map(lambda pair: _reduce(pair[0], pair[1], folder) if pair[0] else "", pairs)
    return {name for name in made if name}


def _reduce(source: Path, thumbnail: Thumbnail, folder: Path) -> str:
    """Make one; its name, or "" where the picture cannot be shown."""
    temporary = folder / f".{secrets.token_hex(8)}.part"
    try:
        temporary.write_bytes(reduced(source, thumbnail.side))
        temporary.replace(folder / thumbnail.name)
    except Exception as error:  # noqa: BLE001 (whatever Pillow raises, the page does without this one)
        log.warning("%s cannot be shown: %r", printable(str(source)), error)
        temporary.unlink(missing_ok=True)
        return ""
    return thumbnail.name


def _forget(folder: Path, names: set[str]) -> None:
    """Remove thumbnails of what has gone; whatever else lies there is not ours."""
    for name in names:
        path = folder / name
        if re.fullmatch(r"[0-9a-f]{24}-\d+\.webp|\.[0-9a-f]{16}\.part", name):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - SPARED:
                    path.unlink()


# The page


def data(found: Sequence[Mapping[str, Any]], thumbnails: set[str]) -> dict[str, Any]:
    """What the script gets.

    Settings are mostly alike: those of the first result of each preset are listed, others by how they differ from
    them, as (number of the listed ones, {key: value}). thumbnails: the names of those that exist.
    """
    bases: dict[tuple[object, ...], tuple[int, Mapping[str, Any]]] = {}
    entries = []
    for entry in found:
        shown = {k: v for k, v in entry.items() if k not in ("thumbnails", "settings", "batch")}
        own = entry["settings"]
        kind = (str(own.get("preset")), *own)  # versions of this program know different settings
        number, base = bases.setdefault(kind, (len(bases), own))
        shown["settings"] = (number, {k: v for k, v in own.items() if v != base[k]})
        for role in ("contents", "styles"):
            shown[role] = [
                (name, key if f"{key}-{THUMB}.webp" in thumbnails else "")
                for name, key in entry[role]
            ]
        if f"{entry['key']}-{THUMB}.webp" not in thumbnails:
            shown["key"] = ""
        entries.append(shown)
    return {
        "entries": entries,
        "settings": [base for _, base in bases.values()],
        "thumb": THUMB,
        "view": VIEW,
    }


def page(values: Mapping[str, Any]) -> str:
    """The whole of index.html."""
    parts = resources("nst_daemon.report")
    template, theme, own, script = (
        (parts / name).read_text(encoding="utf-8")
        for name in ("gallery.html", "theme.css", "gallery.css", "gallery.js")
    )
    style = theme + own
    # Inside <script> only "</script" and "<!--" mean anything: without "<" there is neither.
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    pieces = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": text}
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda m: pieces[m[1]], template)


def _hash(text: str) -> str:
    """A source expression of CSP for an inline element with this text."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"
