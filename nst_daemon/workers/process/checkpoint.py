"""A painting that was interrupted, on disk: what it is, whose it is, and a digest over all of it.

The file: one line with the format's name and the SHA-256 of everything behind that line; one line of JSON; the engine's
state as the studio wrote it.
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


class UnusableCheckpoint(Exception):  # noqa: N818 (never an error for anyone: the picture is begun anew)
    """The file is damaged, or belongs to another picture; `str` says which, in a few words."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What a checkpoint belongs to.

    picture: everything without which it would become another picture (inputs, settings, weights, size, our own
    version); machine: what may change the last bits (device, threads, torch's version).
    """

    picture: Mapping[str, object]
    machine: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SoFar:
    """How far it was, for the sidecar of the picture that it becomes.

    iteration: the last one that is in the state; seconds: of painting until then; history: the loss curve; frames: the
    time-lapse, in JPEG; resumed: the iterations after which it was taken up before.
    """

    iteration: int
    seconds: float
    history: tuple[Sample, ...] = ()
    frames: tuple[bytes, ...] = ()
    resumed: tuple[int, ...] = field(default=())


def save(path: Path, owner: Owner, so_far: SoFar, state: bytes) -> None:
    """Write the checkpoint, durably; at any moment either the old one or the whole new one is there.

    Raises StorageError.
    """
    frames = [b64encode(frame).decode() for frame in so_far.frames]
    values = {"owner": asdict(owner), "so_far": asdict(so_far) | {"frames": frames}}
    head = json.dumps(values, default=str)
    rest = head.encode() + b"\n" + state
    digest = hashlib.sha256(rest).hexdigest().encode()
    files.write_atomic(path, _MAGIC + digest + b"\n" + rest)


def load(path: Path, owner: Owner, *, exactly: bool) -> tuple[SoFar, bytes] | None:
    """How far the painting was and the engine's state, or None where there is no checkpoint.

    exactly: refuse one of another machine too, because the picture shall come out the same to the last bit. Raises
    UnusableCheckpoint.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableCheckpoint(f"cannot be read: {error.strerror}") from error
    head, state = _verified(data)
    _compare(head["owner"]["picture"], owner.picture)
    if exactly:
        _compare(head["owner"]["machine"], owner.machine)
    found = head["so_far"]
    history = tuple(Sample(*sample) for sample in found["history"])
    frames = tuple(b64decode(frame) for frame in found["frames"])
    so_far = SoFar(found["iteration"], found["seconds"], history, frames, tuple(found["resumed"]))
    return so_far, state


def _verified(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and state, where the digest agrees."""
    first, _, rest = data.partition(b"\n")
    if first != _MAGIC + hashlib.sha256(rest).hexdigest().encode():
        raise UnusableCheckpoint("is damaged")
    head, _, state = rest.partition(b"\n")
    return json.loads(head), state


def _compare(found: dict[str, object], wanted: Mapping[str, object]) -> None:
    # Through JSON, as what was found has been: tuples are lists there.
    ours = json.loads(json.dumps(wanted, default=str))
    different = sorted(key for key in found | ours if found.get(key) != ours.get(key))
    if different:
        raise UnusableCheckpoint(f"belongs to a painting with other {', '.join(different)}")
