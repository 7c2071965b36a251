"""The client: jobs, styles and batches, in addition to what its base does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from nst_daemon.client.base import (
    RECONNECT_SECONDS,
    ClientBase,
    ContentLike,
    JobLike,
    PictureLike,
    References,
    StyleLike,
    id_of,
    segment,
)
from nst_daemon.client.transport import ApiError
from nst_daemon.jobs import JobState
from nst_daemon.names import clean_name
from nst_daemon.web.models import (
    HEARTBEAT_SECONDS,
    LAST_EVENT,
    MAX_LISTED,
    MAX_WAIT,
    ActionRequest,
    ActionResult,
    BatchInfo,
    BatchList,
    BatchRequest,
    JobDetails,
    JobFile,
    JobInfo,
    JobPage,
    JobProgress,
    NewStyle,
    Order,
    PictureSize,
    Repeat,
    RepeatedStyle,
    StyleInfo,
    Submitted,
    SubmittedJob,
)

#: Seconds between two looks at a batch.
BATCH_POLL = 2.0
#: The longest wait in seconds for jobs that are still in the inbox, and the time between two looks at them.
INBOX_SECONDS, INBOX_POLL = 60.0, 0.5
ENDED = frozenset(state for state in JobState if state.terminal)


class Client(ClientBase):
    """A client of one daemon. Use it as a context manager, or call `close`.

    with Client("http://nas.local:8787", token="…") as client:
        (job,) = client.submit(["dog.jpg"], ["starry"], {"size": 1024})
        client.wait(job)
        client.download(job, "dog-in-starry.png")
    """

    # Jobs

    def jobs(
        self,
        *,
        state: Iterable[str] = (),
        name: str = "",
        batch: str = "",
        group: str = "",
        style: str = "",
        since: float | None = None,
        before: float | None = None,
        result: bool | None = None,
        order: Order = "newest",
    ) -> Iterator[JobInfo]:
        """All jobs, each once, fetched in parts as they are needed.

        Args:
            state: States, such as ["queued", "running"]; empty: all.
            name: A part of the name; upper and lower case are the same.
            batch: The name of a batch.
            group: A folder of the inbox, or a batch.
            style: The name of a style.
            since: Seconds since the epoch.
            before: Seconds since the epoch.
            result: True: only jobs with a result.
            order: "queue" is the order in which they are painted.
        """
        params = {
            "state": list(state),
            "q": name,
            "batch": batch,
            "group": group,
            "style": style,
            "since": since,
            "before": before,
            "result": result,
            "order": order,
        }
        latest, seen = since or 0.0, set[str]()

        def new(page: JobPage) -> Iterator[JobInfo]:
            yield from (job for job in page.jobs if job.id not in seen)
            seen.update(job.id for job in page.jobs)

        pages = self._pages(params)
        first = next(pages)
        latest = max([latest, *(job.updated for job in first.jobs)])
        yield from new(first)
        for page in pages:
            yield from new(page)
        if first.next and order == "newest":
            # Jobs that have changed meanwhile are now in front of the parts that were read later.
            for page in self._pages({**params, "since": latest}):
                yield from new(page)

    def _pages(self, params: Mapping[str, Any]) -> Iterator[JobPage]:
        cursor = ""
        while True:
            query = {**params, "cursor": cursor, "limit": MAX_LISTED}
            page = self._transport.get(JobPage, "/jobs", params=query)
            yield page
            if not page.next:
                return
            cursor = page.next

    def job(self, job: JobLike) -> JobDetails:
        """Everything about a job."""
        return self._transport.get(JobDetails, f"/jobs/{id_of(job)}")

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
            left = MAX_WAIT if end is None else end - time.monotonic()
            seconds = int(max(0, min(MAX_WAIT, left)))
            path = f"/jobs/{id_of(job)}"
            found = self._transport.get(JobDetails, path, params={"wait": seconds}, wait=seconds)
            if found.state in ENDED:
                return found
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"{found.name} is {found.state} after {timeout:g} s")
            if seconds == 0:
                time.sleep(min(0.2, max(0.0, left)))

    def progress(self, job: JobLike) -> Iterator[JobProgress]:
        """The job now and after each change, with its progress, until it has ended."""
        path, last = f"/jobs/{id_of(job)}/events", ""
        while last != LAST_EVENT:
            for event in self._transport.events(path, silence=HEARTBEAT_SECONDS):
                last = event.id
                if event.name == "job":
                    yield JobProgress.model_validate_json(event.data)
            if last != LAST_EVENT:  # the server was restarted, or the connection broke
                time.sleep(RECONNECT_SECONDS)

    def download(
        self,
        job: JobLike,
        target: str | os.PathLike[str] = ".",
        file: JobFile | Literal["zip"] = "result",
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
        return self._save(f"/jobs/{id_of(job)}/{file}", target, f"{id_of(job)}-{file}", params)

    def download_all(self, jobs: Iterable[JobLike], target: str | os.PathLike[str]) -> Path:
        """Write the results of several jobs and their settings as one zip file. Returns its path."""
        ids = {"id": [id_of(job) for job in jobs]}
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
        return self._act(ActionRequest(action="cancel", ids=list(map(id_of, jobs))))

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
        ids = list(map(id_of, jobs))
        return self._act(
            ActionRequest(
                action="retry", ids=ids, set=set or {}, unset=list(unset), priority=priority
            )
        )

    def set_priority(self, priority: int, *jobs: JobLike) -> ActionResult:
        """Ask the daemon to paint jobs earlier or later."""
        ids = list(map(id_of, jobs))
        return self._act(ActionRequest(action="priority", ids=ids, priority=priority))

    def delete(self, *jobs: JobLike) -> ActionResult:
        """Ask the daemon to delete the results and inputs of jobs that have ended."""
        return self._act(ActionRequest(action="delete", ids=list(map(id_of, jobs))))

    def _act(self, request: ActionRequest) -> ActionResult:
        """Send the request again until the daemon has taken the jobs from its inbox, if they were just submitted."""
        until = time.monotonic() + INBOX_SECONDS
        requested = list[str]()
        while True:
            try:
                found = self._transport.call(ActionResult, "POST", "/jobs/actions", json=request)
            except ApiError as error:
                left = request.ids
                if error.status != 409 or time.monotonic() >= until:
                    raise
                if not any(map(self._is_in_inbox, left)):
                    raise
            else:
                requested += found.requested
                left = [p.id for p in found.problems if self._is_in_inbox(p.id)]
                if not left or time.monotonic() >= until:
                    return found.model_copy(update={"requested": requested})
                request = request.model_copy(update={"ids": [p.id for p in found.problems]})
            time.sleep(INBOX_POLL)

    def _is_in_inbox(self, job: str) -> bool:
        try:
            return self.job(job).state == "inbox"
        except ApiError:
            return False

    def repeat(
        self,
        job: JobLike,
        *,
        set: Mapping[str, Any] | None = None,
        unset: Sequence[str] = (),
        styles: StyleLike | RepeatedStyle | Sequence[StyleLike | RepeatedStyle] = (),
        content_mask: PictureLike | int | None = None,
        name: str = "",
        priority: int = 0,
        other_weights: bool = False,
    ) -> SubmittedJob:
        """Paint a job again as a new job. The earlier job stays as it is, also if it has failed.

        Args:
            job: The job or its id.
            set: Settings that replace those of the job.
            unset: Settings that take their defaults.
            styles: Styles that replace those of the job, with all of its masks; see `submit`. `RepeatedStyle` names
                a style picture of the job.
            content_mask: A file, an upload, or the number of a mask in `inputs` of the job.
            name: Of the new job; empty: that of the job.
            priority: Of the new job.
            other_weights: Also if the weights have changed since.
        """
        references = References(self.upload)
        body = Repeat(
            set=set or {},
            unset=list(unset),
            styles=references.repeated(styles),
            content_mask=references.mask(content_mask),
            name=name,
            priority=priority,
            other_weights=other_weights,
        )
        path = f"/jobs/{id_of(job)}/repeat"
        (submitted,) = self._transport.call(Submitted, "POST", path, json=body).jobs
        return submitted

    # Styles and batches

    def styles(self) -> list[StyleInfo]:
        """All styles of the library."""
        return self._transport.get(list[StyleInfo], "/styles")

    def add_style(
        self,
        name: str,
        pictures: PictureLike | Sequence[PictureLike],
        settings: Mapping[str, Any] | None = None,
    ) -> StyleInfo:
        """Add a style to the library.

        Args:
            name: Of the style.
            pictures: Its pictures: files or uploads.
            settings: Of the jobs that use it.
        """
        uploads = References(self.upload).pictures(pictures)
        body = NewStyle(name=name, uploads=uploads, settings=settings or {})
        return self._transport.call(StyleInfo, "POST", "/styles", json=body)

    def submit_batch(
        self,
        name: str,
        contents: ContentLike | Sequence[ContentLike],
        styles: StyleLike | Sequence[StyleLike],
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
        references = References(self.upload)
        body = BatchRequest(
            name=name,
            contents=references.contents(contents),
            styles=references.styles(styles),
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
        return self._transport.get(BatchInfo, f"/batches/{segment(name)}")

    def wait_batch(self, name: str, timeout: float | None = None) -> BatchInfo:
        """Wait until all jobs of a batch have ended, or until its file is refused.

        Raises TimeoutError after `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self.batch(name)
            present = {state for state, number in found.counts.items() if number}
            ended = ENDED.issuperset(present) and bool(present or found.refused)
            if ended and not found.waiting:
                return found
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"the batch {name} has not ended after {timeout:g} s")
            time.sleep(BATCH_POLL)


def _file_name(disposition: str) -> str:
    """The file name in a Content-Disposition header, without folders; "" if the header has no name."""
    encoded = re.search(r"filename\*=(?:UTF-8|utf-8)''([^;]+)", disposition)
    plain = re.search(r'filename="?([^";]+)"?', disposition)
    found = unquote(encoded[1]) if encoded else plain[1] if plain else ""
    return clean_name(found) if found else ""
