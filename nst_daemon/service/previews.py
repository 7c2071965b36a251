"""Where the live preview of each job goes: results/.preview/NAME.jpg."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from nst_daemon.jobs import Job
from nst_daemon.names import numbered


class Previews:
    """The previews of the jobs that have been with a worker. folder: holds them, below the folder of results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, Path] = {}

    def path(self, job: Job) -> Path:
        """NAME.jpg, or a numbered name where another job of that name is in progress.

        Every part of a job's name has gone through `names.clean_name`.
        """
        if job.id not in self._paths:
            taken = self._paths.values()
            paths = (self._folder / f"{name}.jpg" for name in numbered(job.name))
            self._paths[job.id] = next(path for path in paths if path not in taken)
        return self._paths[job.id]

    def shown(self, job_id: str) -> str:
        """The preview's path below the folder of results; "" if the job has none."""
        path = self._paths.get(job_id)
        return str(path.relative_to(self._folder.parent)) if path else ""

    def left_by(self, job: Job) -> Path | None:
        """The last preview of a job that ended without a picture; None while another job writes there."""
        path = self._folder / f"{job.name}.jpg"
        return None if path in self._paths.values() else path

    def forget(self, job: Job, *, remove: bool) -> None:
        """The job has ended. remove: delete the file as well; one that cannot be deleted is left for `keep`."""
        if remove:
            with suppress(OSError):
                self.path(job).unlink(missing_ok=True)
        self._paths.pop(job.id, None)
