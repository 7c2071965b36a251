"""The methods of the client: one for each thing that the API does."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote, unquote

from pydantic import BaseModel

from nst_daemon.client.transport import ApiError, Transport
from nst_daemon.errors import UsageError
from nst_daemon.names import clean_name, printable
from nst_daemon.web.models import (
    ActionRequest,
    ActionResult,
    BatchInfo,
    BatchList,
    BatchRequest,
    CheckResult,
    ContentRef,
    HealthInfo,
    JobDetails,
    JobInfo,
    JobPage,
    LimitsInfo,
    NewStyle,
    Repeat,
    SessionInfo,
    SettingsInfo,
    StatusInfo,
    StyleInfo,
    StyleRef,
    Submission,
    Submitted,
    SubmittedJob,
    UploadInfo,
)

if TYPE_CHECKING:
    import httpx2

#: A picture: the path of a file, or an earlier upload.
Picture = str | os.PathLike[str] | UploadInfo
#: A content, if it has a name or a mask of its own.
Content = Picture | ContentRef
#: A style: the name of a library style as text, a file as a Path, or an earlier upload.
StyleChoice = str | Path | UploadInfo | StyleRef
#: A job, or its id.
JobLike = str | JobInfo | SubmittedJob
FileOfJob = Literal["result", "sidecar", "loss-plot", "time-lapse", "preview", "zip"]
PictureSize = Literal["original", "view", "thumbnail"]

#: The longest time in seconds that one request waits for the end of a job; the limit of the server.
LONG_POLL = 60
#: The server sends a comment at least this often, in seconds.
HEARTBEAT = 15.0
#: Seconds between two looks at a batch.
BATCH_POLL = 2.0
ENDED = frozenset({"done", "failed", "quarantined", "cancelled"})


class Client:
    """A client of one daemon. Use it as a context manager, or call `close`.

        with Client("http://nas.local:8787", token="…") as client:
            (job,) = client.submit(["dog.jpg"], ["starry"], {"size": 1024})
            client.wait(job)
            client.download(job, "dog-in-starry.png")

    Args:
        url: The address of the status page.
        token: A token of the page, or "" if it has none.
        timeout: Seconds without any data after which a request fails.
        retries: How often a request is repeated after a connection error; requests that change something only if they
            have not arrived.
        retry_pause: Seconds before the first repetition, doubled with each further one.
        http: An `httpx2.Client` that sends the requests, for proxies and certificates of your own.

    Raises:
        UsageError: httpx2 is not installed, or `url` is not an address.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        timeout: float = 30.0,
        retries: int = 3,
        retry_pause: float = 0.5,
        http: httpx2.Client | None = None,
    ) -> None:
        self._transport = Transport(
            url, token, timeout=timeout, retries=retries, pause=retry_pause, http=http
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    # The daemon

    def status(self) -> StatusInfo:
        """What the daemon is doing."""
        return self._transport.get(StatusInfo, "/status")

    def health(self) -> HealthInfo:
        """Whether a daemon is running. This needs no token."""
        try:
            return self._transport.get(HealthInfo, "/health")
        except ApiError as error:
            if error.status != 503:
                raise
            return HealthInfo(status="away")

    def session(self) -> SessionInfo:
        """The name and the rights of the token."""
        return self._transport.get(SessionInfo, "/session")

    def limits(self) -> LimitsInfo:
        """What the daemon accepts."""
        return self._transport.get(LimitsInfo, "/limits")

    def settings(self) -> SettingsInfo:
        """All settings and presets."""
        return self._transport.get(SettingsInfo, "/settings")

    def events(self) -> Iterator[StatusInfo]:
        """The status now and after each change, without an end. It connects again if the server was restarted.

        Raises:
            ApiError: The server cannot be reached any more.
        """
        while True:
            for event in self._transport.events("/events", silence=HEARTBEAT):
                if event.name == "status":
                    yield StatusInfo.model_validate_json(event.data)
            time.sleep(1.0)

    # Uploads and submissions

    def upload(self, picture: str | os.PathLike[str] | bytes, name: str = "") -> UploadInfo:
        """Upload a picture. The daemon removes it some time after its last use.

        Args:
            picture: A file, or the bytes of one.
            name: Of the file, with its suffix; needed for bytes.

        Raises:
            ApiError: The daemon does not accept the picture.
            OSError: The file cannot be read.
        """
        if isinstance(picture, bytes):
            if not name:
                raise UsageError(
                    "bytes need a name", remedy="give one with a suffix, such as dog.jpg"
                )
            return self._upload(picture, name)
        path = Path(picture)
        with path.open("rb") as file:

            def rewound() -> Any:
                file.seek(0)
                return file

            # An empty file has no length for the library.
            return self._upload(rewound if path.stat().st_size else b"", name or path.name)

    def _upload(self, body: Any, name: str) -> UploadInfo:
        params = {"name": printable(name)}
        return self._transport.call(UploadInfo, "POST", "/uploads", params=params, body=body)

    def remove_upload(self, upload: str | UploadInfo) -> None:
        """Remove an upload. Jobs that were submitted with it keep their copies."""
        self._transport.call(type(None), "DELETE", f"/uploads/{_id(upload)}")

    def submit(
        self,
        contents: Content | Sequence[Content],
        styles: StyleChoice | Sequence[StyleChoice] = (),
        settings: Mapping[str, Any] | None = None,
        *,
        priority: int = 0,
    ) -> list[SubmittedJob]:
        """Submit one job for each content. Files are uploaded first.

        Args:
            contents: Files, uploads, or `ContentRef` for a name and a mask.
            styles: Names of library styles (text), files (`Path`), uploads, or `StyleRef`. Several are blended in each
                picture. Empty: the default style of the daemon.
            settings: Settings of the painting, and format, depth and quality.
            priority: Jobs with a higher one are painted first.

        Returns:
            The jobs, in the order of the contents.
        """
        body = self._submission(contents, styles, settings, priority)
        return self._transport.call(Submitted, "POST", "/jobs", json=body).jobs

    def check(
        self,
        contents: Content | Sequence[Content],
        styles: StyleChoice | Sequence[StyleChoice] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> CheckResult:
        """Everything for which `submit` would be refused, and the estimated time. Files are uploaded."""
        body = self._submission(contents, styles, settings, 0)
        return self._transport.call(CheckResult, "POST", "/jobs/check", json=body)

    def _submission(
        self,
        contents: Content | Sequence[Content],
        styles: StyleChoice | Sequence[StyleChoice],
        settings: Mapping[str, Any] | None,
        priority: int,
    ) -> Submission:
        uploaded: dict[Path, UploadInfo] = {}
        return Submission(
            contents=[self._content(content, uploaded) for content in _listed(contents)],
            styles=[self._style(style, uploaded) for style in _listed(styles)],
            settings=settings or {},
            priority=priority,
        )

    def _content(self, content: Any, uploaded: dict[Path, UploadInfo]) -> ContentRef:
        if isinstance(content, ContentRef):
            return content
        return ContentRef(upload=self._uploaded(content, uploaded).id)

    def _style(self, style: Any, uploaded: dict[Path, UploadInfo]) -> StyleRef:
        if isinstance(style, StyleRef):
            return style
        if isinstance(style, str):
            return StyleRef(library=style)
        return StyleRef(upload=self._uploaded(style, uploaded).id)

    def _uploaded(self, picture: Any, uploaded: dict[Path, UploadInfo]) -> UploadInfo:
        """The upload of a picture; a file that is named twice is uploaded once."""
        if isinstance(picture, UploadInfo):
            return picture
        path = Path(picture)
        if path not in uploaded:
            uploaded[path] = self.upload(path)
        return uploaded[path]

    # Jobs

    def jobs(
        self,
        *,
        state: Iterable[str] = (),
        name: str = "",
        batch: str = "",
        group: str = "",
        since: float | None = None,
        before: float | None = None,
        result: bool | None = None,
        order: Literal["newest", "oldest", "queue"] = "newest",
    ) -> Iterator[JobInfo]:
        """All jobs, fetched in parts as they are needed.

        Args:
            state: States, such as ["queued", "running"]; empty: all.
            name: A part of the name; upper and lower case are the same.
            batch: The name of a batch.
            group: The name of a group.
            since: Seconds since the epoch.
            before: Seconds since the epoch.
            result: True: only jobs with a result.
            order: "queue" is the order in which they are painted.
        """
        cursor = ""
        while True:
            page = self._transport.get(
                JobPage,
                "/jobs",
                params={
                    "state": list(state),
                    "q": name,
                    "batch": batch,
                    "group": group,
                    "since": since,
                    "before": before,
                    "result": result,
                    "order": order,
                    "cursor": cursor,
                    "limit": 200,
                },
            )
            yield from page.jobs
            if not page.next:
                return
            cursor = page.next

    def job(self, job: JobLike) -> JobDetails:
        """Everything about a job."""
        return self._transport.get(JobDetails, f"/jobs/{_id(job)}")

    def wait(self, job: JobLike, timeout: float | None = None) -> JobDetails:
        """Wait until a job has ended: done, failed, quarantined or cancelled. Its `state` and `error` tell how.

        Args:
            job: The job or its id.
            timeout: The longest time in seconds; None: no limit.

        Raises:
            TimeoutError: The job has not ended in time.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL if end is None else end - time.monotonic()
            seconds = int(max(0, min(LONG_POLL, left)))
            path = f"/jobs/{_id(job)}"
            found = self._transport.get(JobDetails, path, params={"wait": seconds}, wait=seconds)
            if found.state in ENDED:
                return found
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"{found.name} is {found.state} after {timeout:g} s")
            if seconds == 0:
                time.sleep(min(0.2, max(0.0, left)))

    def progress(self, job: JobLike) -> Iterator[Mapping[str, Any]]:
        """The events of a job until it has ended: each is a JobInfo as a mapping, with its progress."""
        for event in self._transport.events(f"/jobs/{_id(job)}/events", silence=HEARTBEAT):
            if event.name == "job":
                yield json.loads(event.data)

    def download(
        self,
        job: JobLike,
        target: str | os.PathLike[str] = ".",
        file: FileOfJob = "result",
        *,
        size: PictureSize = "original",
    ) -> Path:
        """Write a file of a job.

        Args:
            job: The job or its id.
            target: The file to write, or a folder, where it gets the name that the daemon gives it.
            file: Which one.
            size: Of the result.

        Returns:
            The path of the file.

        Raises:
            ApiError: There is no such file (yet).
        """
        params = {"size": size} if size != "original" else {}
        return self._save(f"/jobs/{_id(job)}/{file}", target, f"{_id(job)}-{file}", params)

    def download_all(self, jobs: Iterable[JobLike], target: str | os.PathLike[str]) -> Path:
        """Write the results of several jobs and their settings as one zip file. Returns its path."""
        ids = {"id": [_id(job) for job in jobs]}
        return self._save("/results.zip", target, "results.zip", ids)

    def _save(
        self, path: str, target: str | os.PathLike[str], default: str, params: Mapping[str, Any]
    ) -> Path:
        with self._transport.stream(path, params=params) as response:
            place = Path(target)
            if place.is_dir():
                place /= _file_name(response.headers.get("content-disposition", "")) or default
            part = place.with_name(f".{place.name}.part")
            try:
                with part.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                part.replace(place)
            finally:
                part.unlink(missing_ok=True)
        return place

    def cancel(self, *jobs: JobLike) -> ActionResult:
        """Ask the daemon to cancel jobs."""
        return self._act(ActionRequest(action="cancel", ids=list(map(_id, jobs))))

    def retry(
        self,
        *jobs: JobLike,
        set: Mapping[str, Any] | None = None,
        unset: Sequence[str] = (),
        priority: int | None = None,
    ) -> ActionResult:
        """Ask the daemon to try failed or cancelled jobs again.

        Args:
            jobs: Jobs or their ids.
            set: Settings to change.
            unset: Settings that take their defaults.
            priority: A new one.
        """
        ids = list(map(_id, jobs))
        return self._act(
            ActionRequest(
                action="retry", ids=ids, set=set or {}, unset=list(unset), priority=priority
            )
        )

    def set_priority(self, priority: int, *jobs: JobLike) -> ActionResult:
        """Ask the daemon to paint jobs earlier or later."""
        ids = list(map(_id, jobs))
        return self._act(ActionRequest(action="priority", ids=ids, priority=priority))

    def delete(self, *jobs: JobLike) -> ActionResult:
        """Ask the daemon to delete the results and inputs of jobs that have ended."""
        return self._act(ActionRequest(action="delete", ids=list(map(_id, jobs))))

    def _act(self, request: ActionRequest) -> ActionResult:
        return self._transport.call(ActionResult, "POST", "/jobs/actions", json=request)

    def repeat(
        self,
        job: JobLike,
        *,
        set: Mapping[str, Any] | None = None,
        unset: Sequence[str] = (),
        styles: StyleChoice | Sequence[StyleChoice] = (),
        name: str = "",
        priority: int = 0,
        other_weights: bool = False,
    ) -> SubmittedJob:
        """Paint a job again as a new job.

        Args:
            job: The job or its id.
            set: Settings that replace those of the job.
            unset: Settings that take their defaults.
            styles: Styles that replace those of the job; see `submit`.
            name: Of the new job; empty: that of the job.
            priority: Of the new job.
            other_weights: Also if the weights have changed since.
        """
        body = Repeat(
            set=set or {},
            unset=list(unset),
            styles=[self._style(style, {}) for style in _listed(styles)],
            name=name,
            priority=priority,
            other_weights=other_weights,
        )
        path = f"/jobs/{_id(job)}/repeat"
        (submitted,) = self._transport.call(Submitted, "POST", path, json=body).jobs
        return submitted

    # Styles and batches

    def styles(self) -> list[StyleInfo]:
        """All styles of the library."""
        return self._transport.get(list[StyleInfo], "/styles")

    def add_style(
        self,
        name: str,
        pictures: Picture | Sequence[Picture],
        settings: Mapping[str, Any] | None = None,
    ) -> StyleInfo:
        """Add a style to the library.

        Args:
            name: Of the style.
            pictures: Its pictures: files or uploads.
            settings: Of the jobs that use it.
        """
        uploads = [self._uploaded(picture, {}).id for picture in _listed(pictures)]
        body = NewStyle(name=name, uploads=uploads, settings=settings or {})
        return self._transport.call(StyleInfo, "POST", "/styles", json=body)

    def submit_batch(
        self,
        name: str,
        contents: Content | Sequence[Content],
        styles: StyleChoice | Sequence[StyleChoice],
        settings: Mapping[str, Any] | None = None,
        sweep: Mapping[str, Sequence[Any]] | None = None,
        *,
        priority: int = 0,
    ) -> BatchInfo:
        """Paint every content in every style with every combination of the swept settings.

        Args:
            name: Of the batch.
            contents: See `submit`.
            styles: See `submit`; each is painted by itself.
            settings: Of all pictures.
            sweep: The values of each swept setting.
            priority: Of all jobs.
        """
        uploaded: dict[Path, UploadInfo] = {}
        body = BatchRequest(
            name=name,
            contents=[self._content(content, uploaded) for content in _listed(contents)],
            styles=[self._style(style, uploaded) for style in _listed(styles)],
            settings=settings or {},
            sweep={key: list(values) for key, values in (sweep or {}).items()},
            priority=priority,
        )
        return self._transport.call(BatchInfo, "POST", "/batches", json=body)

    def batches(self) -> list[BatchInfo]:
        """All batches, the newest first."""
        return self._transport.get(BatchList, "/batches").batches

    def batch(self, name: str) -> BatchInfo:
        """A batch with the number of its jobs in each state; `jobs(batch=name)` has the jobs."""
        return self._transport.get(BatchInfo, f"/batches/{_segment(name)}")

    def wait_batch(self, name: str, timeout: float | None = None) -> BatchInfo:
        """Wait until all jobs of a batch have ended. Raises TimeoutError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self.batch(name)
            if found.counts and ENDED.issuperset(found.counts):
                return found
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"the batch {name} has not ended after {timeout:g} s")
            time.sleep(BATCH_POLL)


def _listed(values: Any) -> list[Any]:
    """A single value as a list."""
    single = isinstance(values, str | os.PathLike | bytes) or not isinstance(values, Iterable)
    return [values] if single or isinstance(values, BaseModel) else list(values)


def _id(job: str | JobInfo | SubmittedJob | UploadInfo) -> str:
    """An id, which becomes a part of a path."""
    return _segment(job if isinstance(job, str) else job.id)


def _segment(text: str) -> str:
    return quote(text, safe="")


def _file_name(disposition: str) -> str:
    """The name in a Content-Disposition header, without folders; "" if there is none."""
    encoded = re.search(r"filename\*=(?:UTF-8|utf-8)''([^;]+)", disposition)
    plain = re.search(r'filename="?([^";]+)"?', disposition)
    found = unquote(encoded[1]) if encoded else plain[1] if plain else ""
    return clean_name(found) if found else ""
