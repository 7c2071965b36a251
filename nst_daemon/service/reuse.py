"""A batch's picture that another job has painted already: its files are copied instead of painting it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from nst_daemon import files
from nst_daemon.config import Outputs
from nst_daemon.digests import sha256_file
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import portable, printable
from nst_daemon.publishing import LOSS_PLOT, TIME_LAPSE


@dataclass(frozen=True, slots=True)
class Reusable:
    """A result that is still as it was painted.

    Args:
        name: Of the picture, below the folder of results.
        picture: The file.
        sha256: Its digest.
        sidecar: What the file NAME.json says.
    """

    name: str
    picture: Path
    sha256: str
    sidecar: dict[str, Any]

    def stage(self, job: Job, folder: Path) -> tuple[str, ...]:
        """Copy the files into the empty stage folder of a job, with a sidecar that names this job.

        Returns:
            The names of the files, the picture last.

        Raises:
            StorageError: A file cannot be copied.
        """
        stem = portable(PurePath(job.name).name)
        sidecar = {
            **self.sidecar,
            "job": {**self.sidecar["job"], "id": job.id, "name": printable(job.name)},
            "batch": job.batch and job.batch.published(),
            "notes": [*self.sidecar["notes"], f"painted as {printable(self.name)}"],
        }
        text = json.dumps(sidecar, indent=2, ensure_ascii=False)
        files.write_atomic(folder / f"{stem}.json", text.encode(errors="backslashreplace") + b"\n")
        names = [f"{stem}.json"]
        for suffix in (LOSS_PLOT, TIME_LAPSE, self.picture.suffix):
            source = self.picture.with_name(self.picture.stem + suffix)
            with files.storage(source):
                data = source.read_bytes() if source.is_file() else None
            if data is not None:
                # Not a link: a file with two names is not taken from the inbox.
                files.write_atomic(folder / (stem + suffix), data)
                names.append(stem + suffix)
        files.flush((), [folder.parent])
        return tuple(names)


def same_file(job: Job, outputs: Outputs) -> bool:
    """Whether a job's picture is written with this format, depth and quality.

    Jobs of older versions do not say: of those the suffix of the result counts, and those without a result are written
    as the configuration says.
    """
    if job.outputs:
        return dict(job.outputs) == outputs.picture
    return not job.result or PurePath(job.result).suffix == f".{outputs.format}"


def find_reusable(
    job: Job, ledger: LedgerReader, results: Path, outputs: Outputs
) -> Reusable | None:
    """The newest result of another job that is the same picture in an equal file.

    Args:
        job: Its identity is what has to be equal.
        ledger: The history.
        results: The folder.
        outputs: Of this job.
    """
    return next(_reusable(job, ledger, results, outputs), None)


def _reusable(
    job: Job, ledger: LedgerReader, results: Path, outputs: Outputs
) -> Iterator[Reusable]:
    for other in ledger.alike(job.identity):
        picture = results / other.result
        if other.id == job.id or other.state is not JobState.DONE or not same_file(other, outputs):
            continue
        try:
            unchanged = picture.is_file() and sha256_file(picture) == other.staged_sha256
        except OSError:  # it cannot be read: paint it again
            unchanged = False
        sidecar = _sidecar(picture) if unchanged else None
        if sidecar is not None:
            yield Reusable(other.result, picture, other.staged_sha256, sidecar)


def _sidecar(picture: Path) -> dict[str, Any] | None:
    """What NAME.json says; None if it is missing, or a person has changed its form."""
    try:
        found: dict[str, Any] = json.loads(files.read_file(picture.with_suffix(".json")))
        as_expected = isinstance(found["job"], dict) and isinstance(found["notes"], list)
        return found if as_expected else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
