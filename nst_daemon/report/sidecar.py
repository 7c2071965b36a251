"""`NAME.json` beside a picture: everything that made it, enough to make it again.

The essentials stand in the picture as well, so that it can be made again where the file beside it is lost.

The form, for programs: `schema` is raised whenever a key changes its meaning or goes; keys may be added without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from nst_daemon import __version__
from nst_daemon.errors import InputError
from nst_daemon.jobs import JobInput, Role
from nst_daemon.names import printable

SCHEMA = 1
#: Where the essentials stand in a picture: the keyword of PNG's iTXt chunk, the head of EXIF's UserComment elsewhere.
#: `engine.images.save_picture` writes both.
KEYWORD, ASCII = "nst-daemon", b"ASCII\0\0\0"
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")


@dataclass(frozen=True, slots=True)
class Written:
    """The picture's file: its name, its digest, its size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Painted:
    """What a finished picture has to say of itself.

    width, height: of the picture, in pixels; settings: every one, as `dataclasses.asdict` gives them; machine:
    `Painter.info()`: device, threads, network, weights with digest, providers, versions; iterations: done and planned;
    losses: the last ones, by term; calibration: what each term was divided by, for each scale; history: the loss curve,
    as `history.columns` gives it; seconds: by stage; resumed: the iterations after which it was taken up again; notes:
    what was converted, mended or chosen.
    """

    job_id: str
    name: str
    attempt: int
    inputs: Sequence[JobInput]
    width: int
    height: int
    settings: Mapping[str, object]
    machine: Mapping[str, object]
    iterations: tuple[int, int]
    losses: Mapping[str, float]
    seconds: Mapping[str, float]
    calibration: Sequence[Mapping[str, object]] = ()
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    resumed: Sequence[int] = ()
    notes: Sequence[str] = field(default=())
    batch: Mapping[str, object] | None = None


_PROGRAM = {"schema": SCHEMA, "program": "nst-daemon", "version": __version__}
#: What a sidecar says of the network, of all that `Painter.info()` does.
MODEL = ("network", "weights", "weights_sha256", "weights_description")


def embed(
    inputs: Sequence[JobInput], settings: Mapping[str, object], machine: Mapping[str, object]
) -> str:
    """The essentials for the inside of a picture, in ASCII; see `Painted` for the arguments.

    No time, no job and no names: equal paintings are equal bytes, and a picture that is passed on does not tell what
    files were called. The digests say which they were.
    """
    # Not the file of settings: it may say the same in other words, and what it came to is here.
    pictures = [i for i in inputs if i.role is not Role.SETTINGS]
    files = [{"role": i.role, "sha256": i.sha256, "bytes": i.size} for i in pictures]
    essentials = {**_PROGRAM, "inputs": files, "settings": settings, "model": _model(machine)}
    return json.dumps(essentials, allow_nan=False, separators=(",", ":"))


def _model(machine: Mapping[str, object]) -> dict[str, object]:
    return {key: machine[key] for key in MODEL if key in machine}


def build(painted: Painted, written: Written, when: datetime) -> dict[str, object]:
    """The sidecar as plain values; when: the end of the painting, with its time zone."""
    machine = {key: value for key, value in painted.machine.items() if key not in MODEL}
    versions = machine.pop("versions", {})
    done, planned = painted.iterations
    return {
        **_PROGRAM,
        "finished": when.astimezone(UTC).isoformat(timespec="seconds"),
        "job": {"id": painted.job_id, "name": printable(painted.name), "attempt": painted.attempt},
        **({"batch": dict(painted.batch)} if painted.batch else {}),
        "picture": {
            "file": written.name,
            "sha256": written.sha256,
            "bytes": written.size,
            "width": painted.width,
            "height": painted.height,
        },
        "inputs": [
            {"role": i.role, "name": printable(i.name), "sha256": i.sha256, "bytes": i.size}
            for i in painted.inputs
        ],
        "settings": dict(painted.settings),
        "model": _model(painted.machine),
        "machine": machine,
        "versions": versions,
        "iterations": {"done": done, "planned": planned, "resumed_after": list(painted.resumed)},
        "losses": dict(painted.losses),
        "calibration": [dict(scale) for scale in painted.calibration],
        "loss_history": dict(painted.history),
        "seconds": {stage: round(seconds, 3) for stage, seconds in painted.seconds.items()},
        "notes": list(painted.notes),
    }


def encode(sidecar: Mapping[str, object]) -> bytes:
    """The file's bytes: JSON in UTF-8, indented for people. Raises ValueError for NaN, which JSON has not."""
    text = json.dumps(sidecar, indent=2, ensure_ascii=False, allow_nan=False)
    # A list of numbers takes one line. (No string is touched: none holds a line break.)
    text = re.sub(r"\[\n[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), text)
    return text.encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is needed to paint a picture again.

    Attributes:
        name: the job's name; if only a picture is read, the stem of its file.
        settings: every setting, not validated.
        inputs: role, sha256 and bytes of each input; from a sidecar also its name.
        weights_sha256: digest of the weights' file.
        weights: a description of the weights for people.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...]
    weights_sha256: str
    weights: str


def read(path: Path) -> Recipe:
    """The recipe in a sidecar or in a picture. Raises InputError where there is none, or one of a later schema."""
    label = printable(path.name)
    try:
        found = json.loads(_text(path))
        if found["schema"] > SCHEMA:
            raise InputError(
                f"{label} was written by nst-daemon {found['version']}",
                remedy="use that version or a later one",
            )
        settings = found["settings"]
        if settings["content_style_ratio"] is not None:
            del settings["content_weight"]  # it did not count, and the two contradict each other
        name = found["job"]["name"] if "job" in found else path.stem
        digest = found["model"]["weights_sha256"]
        described = f"{found['model'].get('weights_description', 'unknown')} ({digest[:12]})"
        return Recipe(name, settings, tuple(found["inputs"]), digest, described)
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise InputError(
            f"{label} is not a sidecar of nst-daemon, nor a picture that it has painted ({error})",
            remedy="name a result, or the .json that lies beside it",
        ) from error


def _text(path: Path) -> str | bytes:
    """The JSON in a file: all of it, or what a picture says of itself."""
    if path.suffix.lower() == ".json":
        return path.read_bytes()
    with Image.open(path, formats=FORMATS) as image:
        if image.format == "PNG":
            return str(image.info[KEYWORD])
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        return bytes(comment).removeprefix(ASCII)
