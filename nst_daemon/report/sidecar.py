"""The sidecar `NAME.json` of a picture: everything that produced it, enough to paint it again.

The most important part is stored in the picture as well, in case the sidecar is lost. `schema` is increased when the
meaning of a key changes or a key is removed; new keys do not change it.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nst_daemon import __version__, files
from nst_daemon.errors import InputError, first_line
from nst_daemon.jobs import PICTURE_ROLES, JobInput
from nst_daemon.names import printable

SIDECAR_SCHEMA = 1
#: The beginning of the essentials in a picture. They are JSON in ASCII, in one piece and uncompressed in every format
#: (`engine.images.encoded`), so they are found without reading the file's structure.
_BEGINNING = re.compile(rb'\{\s*"schema":\s*\d+,\s*"program":\s*"nst-daemon"')
MAX_ESSENTIALS_BYTES = 1 << 20
#: Settings that older sidecars lack, with the values that paint their pictures: a preset may have others.
ADDED_LATER: Mapping[str, object] = {
    "moments_weight": 0.0,
    "style_levels": 1,
    "style_level_weights": [],
    "content_level": 0,
}


@dataclass(frozen=True, slots=True)
class Written:
    """The file of a picture: name, digest, and size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Painted:
    """The facts about a finished picture.

    Attributes:
        job_id, name, attempt: of the job; the id is empty for a picture that was painted without the daemon.
        width, height: size in pixels.
        settings: all settings, from `dataclasses.asdict`.
        outputs: format, depth and quality of the picture, from `Outputs.picture`.
        machine: `Painter.info()`: device, threads, network, weights with digest, providers, versions.
        iterations: done and planned.
        losses: the last losses, by term.
        seconds: duration of each stage.
        calibration: the divisor of each term, for each scale.
        history: the loss curve, from `history.columns`.
        resumed: the iterations after which the job was resumed.
        notes: conversions, corrections and automatic choices, for people.
        batch: the `BatchCell` of a batch's picture, from `dataclasses.asdict`.
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
    outputs: Mapping[str, object] = field(default_factory=dict)


_PROGRAM = {"schema": SIDECAR_SCHEMA, "program": "nst-daemon", "version": __version__}
#: The keys of `Painter.info()` that describe the model.
MODEL = ("network", "weights", "weights_sha256", "weights_description")


def embed(
    inputs: Sequence[JobInput],
    settings: Mapping[str, object],
    machine: Mapping[str, object],
    outputs: Mapping[str, object],
) -> str:
    """The part of the sidecar that is stored in the picture, as ASCII. For the arguments see `Painted`.

    It contains no times, no job and no file names: equal paintings are equal bytes, and a picture does not reveal the
    names of its inputs. Their digests identify them.
    """
    # Settings files are left out: the resolved settings are included.
    pictures = [i for i in inputs if i.role in PICTURE_ROLES]
    pictured = [{"role": i.role, "sha256": i.sha256, "bytes": i.size} for i in pictures]
    essentials = {
        **_PROGRAM,
        "inputs": pictured,
        "settings": settings,
        "outputs": outputs,
        "model": _model(machine),
    }
    return json.dumps(essentials, allow_nan=False, separators=(",", ":"))


def _model(machine: Mapping[str, object]) -> dict[str, object]:
    return {key: machine[key] for key in MODEL if key in machine}


def build(painted: Painted, written: Written, when: datetime) -> dict[str, object]:
    """The sidecar as plain values. `when`: the end of the painting, with a time zone."""
    machine = {key: value for key, value in painted.machine.items() if key not in MODEL}
    versions = machine.pop("versions", {})
    done, planned = painted.iterations
    return {
        **_PROGRAM,
        "finished": when.astimezone(UTC).isoformat(timespec="seconds"),
        **_job(painted),
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
        "outputs": dict(painted.outputs),
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


def _job(painted: Painted) -> dict[str, object]:
    if not painted.job_id:
        return {}
    name = printable(painted.name)
    return {"job": {"id": painted.job_id, "name": name, "attempt": painted.attempt}}


def encode(sidecar: Mapping[str, object]) -> bytes:
    """The sidecar as indented JSON in UTF-8. Raises ValueError for NaN, which JSON cannot represent."""
    text = json.dumps(sidecar, indent=2, ensure_ascii=False, allow_nan=False)
    # Put lists of numbers on one line. (Strings are unaffected: JSON escapes their line breaks.)
    text = re.sub(r"\[\n[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), text)
    return text.encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is needed to paint a picture again.

    Attributes:
        name: the job's name; if only a picture is read, the stem of its file.
        settings: every setting of the painting, not validated.
        outputs: format, depth and quality of the picture, not validated; older versions did not record them.
        inputs: role, sha256 and bytes of each input; from a sidecar also its name.
        weights_sha256: digest of the weights' file.
        weights: a description of the weights for people.
    """

    name: str
    settings: Mapping[str, Any]
    outputs: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...]
    weights_sha256: str
    weights: str


def read(path: Path) -> Recipe:
    """Read the recipe in a sidecar or a picture. Raises InputError if there is none, or if its schema is newer."""
    label = printable(str(path))
    try:
        found = _parsed(path)
        if found["schema"] > SIDECAR_SCHEMA:
            raise InputError(
                f"{label} was written by nst-daemon {found['version']}",
                remedy="use that version or a later one",
            )
        settings = completed(found["settings"])
        if settings.get("content_style_ratio") is not None:  # in older sidecars
            del settings["content_weight"]  # it was unused, and the two contradict each other
        outputs = dict(found.get("outputs", {}))
        name = found["job"]["name"] if "job" in found else path.stem
        digest = found["model"]["weights_sha256"]
        described = f"{found['model'].get('weights_description', 'unknown')} ({digest[:12]})"
        return Recipe(name, settings, outputs, tuple(found["inputs"]), digest, described)
    except OSError as error:
        raise files.unreadable(label, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{label} is neither a picture painted by nst-daemon nor its .json file: {_lack(error)}",
            remedy="name a result, or its .json file",
        ) from error


def _lack(error: Exception) -> str:
    """What a file lacks that should be a recipe."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return "it is not valid JSON" if isinstance(error, json.JSONDecodeError) else first_line(error)


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a sidecar, with those that its version did not have yet."""
    added = {key: value for key, value in ADDED_LATER.items() if key not in settings}
    return {**settings, **added}


def _parsed(path: Path) -> Any:
    """The JSON of a sidecar, or that in a picture. Raises OSError, or ValueError if the file contains no JSON."""
    if path.suffix.lower() == ".json":
        return json.loads(files.read_file(path))
    with (
        os.fdopen(files.open_file(path), "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        found = _BEGINNING.search(data)
        if not found:
            raise ValueError("it has no settings in its metadata")
        text = data[found.start() : found.start() + MAX_ESSENTIALS_BYTES].decode("ascii", "replace")
    return json.JSONDecoder().raw_decode(text)[0]
