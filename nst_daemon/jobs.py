"""The job, its states, and the legal moves between them.

    seen → settling → (waiting) → claimed → queued → running → staged → published → done
                                               ↑        │
                                               └─ retrying        aside: failed · quarantined · cancelled

`seen`, `settling` and `waiting` are states of files. They are kept in memory only, because after a restart the inbox
shows them again. The ledger holds a row from `claimed` on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class JobState(StrEnum):
    """The states that the ledger knows."""

    CLAIMED = (
        "claimed"  # the copies are durable in the spool; the originals may still be in the inbox
    )
    QUEUED = "queued"  # the originals have left the inbox; a worker may take it
    RUNNING = "running"  # an attempt has begun; it was counted before
    RETRYING = "retrying"  # a transient error; waits for `not_before`
    STAGED = "staged"  # the finished picture and its other files are durable in the stage
    PUBLISHED = "published"  # the picture is in results/
    DONE = "done"  # the inputs are archived too
    FAILED = "failed"
    QUARANTINED = "quarantined"  # it killed its worker twice
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in _ENDED


S = JobState
#: The legal moves. `retry` leads from an ended state back to `queued`; a picture of a batch that another job has
#: painted is `staged` at once.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        S.CLAIMED: frozenset({S.QUEUED, S.FAILED}),
        S.QUEUED: frozenset({S.RUNNING, S.STAGED, S.FAILED, S.CANCELLED}),
        S.RUNNING: frozenset(
            {S.STAGED, S.QUEUED, S.RETRYING, S.FAILED, S.QUARANTINED, S.CANCELLED}
        ),
        S.RETRYING: frozenset({S.QUEUED, S.FAILED, S.CANCELLED}),
        S.STAGED: frozenset({S.PUBLISHED, S.QUEUED, S.FAILED, S.CANCELLED}),
        S.PUBLISHED: frozenset({S.DONE}),
        S.DONE: frozenset(),
        S.FAILED: frozenset({S.QUEUED}),
        S.QUARANTINED: frozenset({S.QUEUED}),
        S.CANCELLED: frozenset({S.QUEUED}),
    }
)
_ENDED = frozenset({S.DONE, S.FAILED, S.QUARANTINED, S.CANCELLED})


class Role(StrEnum):
    """The role of an input file in its job."""

    CONTENT = "content"
    STYLE = "style"
    CONTENT_MASK = "content-mask"
    STYLE_MASK = "style-mask"
    START = "start"  # the picture that `start: given` begins with
    SETTINGS = "settings"
    BATCH = "batch"
    UNUSED = (
        "unused"  # a raw file, or one of another kind, beside the picture; it is kept with the job
    )
    UNKNOWN = "unknown"  # refused before its role was known


#: The roles of the files that are decoded.
PICTURE_ROLES = frozenset(Role) - {Role.SETTINGS, Role.BATCH, Role.UNUSED, Role.UNKNOWN}


class Fingerprint(NamedTuple):
    """Identifies a file and its version: equal fingerprints of one path mean that the file was not changed.

    The device number is not a part of it: it may change at each start of the system. The change time, which the kernel
    sets in nanoseconds, already tells files of one path apart.
    """

    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def from_json(cls, values: Sequence[int]) -> Fingerprint:
        """The fingerprint that JSON has made a list of. Version 0.1.0 wrote the device number in front of it."""
        return cls(*values[-4:])


@dataclass(frozen=True, slots=True)
class JobInput:
    """One file of a job, as it is in the spool.

    role: what it is; name: as the person named it (for people, never used as a path); spooled: its file name inside
    the job's spool folder; sha256: hex digest of its bytes, "" if it was refused unread; size: bytes.

    origin: path of the original below the inbox, or below failed/ for a retry (undecodable bytes as surrogates); ""
    for a file that is not the job's own, like a style of the library. fingerprint: of the original in the inbox, None
    for a file from anywhere else. Both serve to finish an interrupted claim and nothing else.
    """

    role: Role
    name: str
    spooled: str
    sha256: str
    size: int
    origin: str = ""
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class BatchCell:
    """Where a picture stands in its batch.

    name: of the batch; style: the style's name in the library, or the stem of its file; swept: the swept settings and
    their values for this picture, in the order in which the batch file names them; position: indices of content,
    style and combination of swept values, from 0; content: the path of the content, "" if it is unknown. The archive
    has no copy of it.
    """

    name: str
    style: str
    swept: Mapping[str, object]
    position: tuple[int, int, int]
    content: str = field(default="", compare=False)

    def published(self) -> dict[str, object]:
        """What the sidecar has: everything but the path, which does not concern those who get the result."""
        return {key: value for key, value in asdict(self).items() if key != "content"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> BatchCell | None:
        """The cell that `dataclasses.asdict` and JSON have made plain values of."""
        if values is None:
            return None
        content, style, swept = values["position"]
        return cls(**{**values, "position": (content, style, swept)})


def listed(settings: Mapping[str, object]) -> str:
    """Settings in one line, as in a settings file: "size: 512, clamp: true"."""
    words = {
        k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in settings.items()
    }
    return ", ".join(f"{key}: {value}" for key, value in words.items())


@dataclass(frozen=True, slots=True)
class Changes:
    """What `retry --set` and `--unset`, and `priority`, change in the settings of a job.

    written: keys of a settings file (`priority` and `style` too) with their values; removed: keys that do not count.
    """

    written: Mapping[str, object] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.written or self.removed)

    def __str__(self) -> str:
        removed = (f"without {key}" for key in self.removed)
        return ", ".join(filter(None, (listed(self.written), *removed)))

    def apply(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a settings file, changed."""
        kept = {key: value for key, value in values.items() if key not in self.removed}
        return {**kept, **self.written}

    def then(self, later: Changes) -> Changes:
        """These changes and later ones as one."""
        removed = dict.fromkeys((*self.removed, *later.removed))
        return Changes(
            later.apply(self.written), tuple(key for key in removed if key not in later.written)
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Changes:
        """The changes that `dataclasses.asdict` and JSON have made plain values of."""
        return cls(dict(values.get("written", {})), tuple(values.get("removed", ())))


NO_CHANGES = Changes()


#: The digits of an id that are shown.
ID_DIGITS = 8


def short_id(job_id: str) -> str:
    """The first digits of a job's id."""
    return job_id[:ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the ledger.

    id: 32 hex digits, unique for ever; name: where the result goes below results/, without suffix ("dog",
    "starry/IMG_1"); source: what kind of drop it came from; settings: every render setting, resolved when the job was
    admitted; outputs: format, depth and quality of the picture (`Outputs.picture`), {} if an older version
    admitted the job and the configuration decides; group: whose turn it is counted as (fairness between hot folders);
    times are seconds since the epoch.
    """

    id: str
    name: str
    source: str
    state: JobState
    inputs: tuple[JobInput, ...]
    created: float
    updated: float
    settings: Mapping[str, object] = field(default_factory=dict)
    group: str = ""
    priority: int = 0
    attempts: int = 0
    deaths: int = 0  # attempts that ended with the worker's death
    not_before: float = 0.0
    error: str = ""
    result: str = ""  # path of the picture below results/, once it is published
    staged_files: tuple[str, ...] = ()  # names in the stage folder, the picture last
    staged_sha256: str = ""  # digest of the staged picture
    archive: str = (
        ""  # the folder below done/ or failed/ that holds the inputs, once they are there
    )
    identity: str = ""  # equal where the picture is the same: see `identity.picture_identity`
    batch: BatchCell | None = None  # which picture of its batch it is
    weights: str = ""  # SHA-256 of the weights that the identity was made with
    outputs: Mapping[str, object] = field(default_factory=dict)
    changes: Changes = NO_CHANGES  # what requests have changed in its settings file
    deleted: bool = False  # its files were deleted by request

    @property
    def short_id(self) -> str:
        """The id as tables and messages show it."""
        return short_id(self.id)
