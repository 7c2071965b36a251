"""The checkpoint of a painting: to which picture it belongs, how far it is, and the engine's state.

The file has one line with the format's name and the SHA-256 of everything after that line, one line of JSON, and the
engine's state as the renderer wrote it.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nst_daemon import files
from nst_daemon.report.history import Sample

_MAGIC = b"nst-daemon checkpoint 2 "


class UnusableCheckpoint(Exception):  # noqa: N818 (not reported as an error: the painting starts from the beginning)
    """The file is damaged, or belongs to another picture; `str` says which, in a few words."""


@dataclass(frozen=True, slots=True)
class Owner:
    """To which picture a checkpoint belongs.

    Args:
        picture: What determines the picture: inputs, settings, weights, size, the program's version.
        machine: What may change the last bits: device, threads, torch's version.
    """

    picture: Mapping[str, object]
    machine: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Reached:
    """How far the painting was.

    Args:
        iteration: The last one that is in the state.
        seconds: Seconds of painting until then.
        history: The loss curve.
        frames: The time-lapse, in JPEG.
        resumed: The iterations after which earlier attempts were resumed.
    """

    iteration: int
    seconds: float
    history: tuple[Sample, ...] = ()
    frames: tuple[bytes, ...] = ()
    resumed: tuple[int, ...] = field(default=())


def save(path: Path, owner: Owner, reached: Reached, state: bytes | memoryview) -> None:
    """Write the checkpoint, durably and atomically.

    Raises:
        StorageError: The disk is full, or cannot be written.
    """
    frames = [b64encode(frame).decode() for frame in reached.frames]
    values = {"owner": asdict(owner), "reached": asdict(reached) | {"frames": frames}}
    head = json.dumps(values, default=str).encode() + b"\n"
    digest = hashlib.sha256(head)
    digest.update(state)  # not joined to the head: it is large
    first = _MAGIC + digest.hexdigest().encode() + b"\n"
    files.write_atomic(path, first, head, state)


def load(path: Path, owner: Owner, *, exactly: bool) -> tuple[Reached, memoryview] | None:
    """How far the painting was and the engine's state; None if there is no checkpoint.

    Args:
        exactly: Refuse a checkpoint of another machine, so that the picture is the same to the last bit.

    Raises:
        UnusableCheckpoint: The file is damaged, or belongs to another picture.
    """
    try:
        data = files.read_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableCheckpoint(f"cannot be read: {error.strerror}") from error
    head, state = _verified(data)
    _compare(head["owner"]["picture"], owner.picture)
    if exactly:
        _compare(head["owner"]["machine"], owner.machine)
    found = head["reached"]
    history = tuple(Sample(*sample) for sample in found["history"])
    frames = tuple(b64decode(frame) for frame in found["frames"])
    reached = Reached(
        found["iteration"], found["seconds"], history, frames, tuple(found["resumed"])
    )
    return reached, state


def _verified(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and state. Raises UnusableCheckpoint if the digest differs."""
    start = data.find(b"\n") + 1
    rest = memoryview(data)[start:]  # a slice of the bytes would be a copy
    if data[:start] != _MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n":
        raise UnusableCheckpoint("is damaged")
    end = data.index(b"\n", start)
    return json.loads(data[start:end]), rest[end + 1 - start :]


def _compare(found: dict[str, object], wanted: Mapping[str, object]) -> None:
    # Through JSON, as what was found has been: tuples are lists there.
    ours = json.loads(json.dumps(wanted, default=str))
    different = sorted(key for key in found | ours if found.get(key) != ours.get(key))
    if different:
        raise UnusableCheckpoint(f"belongs to a painting with other {', '.join(different)}")
