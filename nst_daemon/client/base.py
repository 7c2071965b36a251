"""The first part of the client: the connection, the state of the daemon, uploads and submissions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pydantic import BaseModel

from nst_daemon.client.transport import ApiError, HttpTransport
from nst_daemon.errors import UsageError
from nst_daemon.names import printable
from nst_daemon.web.models import (
    HEARTBEAT_SECONDS,
    CheckResult,
    ContentRef,
    HealthInfo,
    JobInfo,
    LimitsInfo,
    RepeatedStyle,
    SessionInfo,
    SettingsInfo,
    StatusInfo,
    StyleRef,
    Submission,
    Submitted,
    SubmittedJob,
    UploadInfo,
)

if TYPE_CHECKING:
    import httpx2

#: Seconds until a stream of events is opened again if the server ended it before the last event.
RECONNECT_SECONDS = 1.0
#: A picture: the path of a file, or an earlier upload.
PictureLike = str | os.PathLike[str] | UploadInfo
#: A content: a picture, or a reference with a name or a mask.
ContentLike = PictureLike | ContentRef
#: A style: the name of a library style as text, a file as a Path, an earlier upload, or a reference with a mask.
StyleLike = str | Path | UploadInfo | StyleRef
#: A job, or its id.
JobLike = str | JobInfo | SubmittedJob


class ClientBase:
    """A connection to one daemon: its state, uploads and submissions. Use it as a context manager, or call `close`.

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
        self._transport = HttpTransport(
            url, token, timeout=timeout, retries=retries, pause=retry_pause, http=http
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

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
            for event in self._transport.events("/events", silence=HEARTBEAT_SECONDS):
                if event.name == "status":
                    yield StatusInfo.model_validate_json(event.data)
            time.sleep(RECONNECT_SECONDS)

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
        self._transport.call(type(None), "DELETE", f"/uploads/{id_of(upload)}")

    def submit(
        self,
        contents: ContentLike | Sequence[ContentLike],
        styles: StyleLike | Sequence[StyleLike] = (),
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
        contents: ContentLike | Sequence[ContentLike],
        styles: StyleLike | Sequence[StyleLike] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> CheckResult:
        """Everything for which `submit` would be refused, and the estimated time. Files are uploaded."""
        body = self._submission(contents, styles, settings, 0)
        return self._transport.call(CheckResult, "POST", "/jobs/check", json=body)

    def _submission(
        self,
        contents: ContentLike | Sequence[ContentLike],
        styles: StyleLike | Sequence[StyleLike],
        settings: Mapping[str, Any] | None,
        priority: int,
    ) -> Submission:
        references = References(self.upload)
        return Submission(
            contents=references.contents(contents),
            styles=references.styles(styles),
            settings=settings or {},
            priority=priority,
        )


class References:
    """The references of one request. A file that is named twice is uploaded once.

    Args:
        upload: Uploads a file.
    """

    def __init__(self, upload: Callable[[Path], UploadInfo]) -> None:
        self._upload, self._known = upload, dict[Path, UploadInfo]()

    def contents(self, contents: ContentLike | Sequence[ContentLike]) -> list[ContentRef]:
        """References to contents."""
        return [
            c if isinstance(c, ContentRef) else ContentRef(upload=self._id(c))
            for c in listed(contents)
        ]

    def styles(self, styles: StyleLike | Sequence[StyleLike]) -> list[StyleRef]:
        """References to styles."""
        return [self._style(style) for style in listed(styles)]

    def repeated(
        self, styles: StyleLike | RepeatedStyle | Sequence[StyleLike | RepeatedStyle]
    ) -> list[RepeatedStyle]:
        """References to styles of a job that is painted again."""
        return [
            style
            if isinstance(style, RepeatedStyle)
            else RepeatedStyle.model_validate(dict(self._style(style)))
            for style in listed(styles)
        ]

    def mask(self, mask: PictureLike | int | None) -> str | int | None:
        """A reference to a mask of a job that is painted again. int: an input of the earlier job."""
        return mask if mask is None or isinstance(mask, int) else self._id(mask)

    def pictures(self, pictures: PictureLike | Sequence[PictureLike]) -> list[str]:
        """The ids of the uploads of pictures."""
        return [self._id(picture) for picture in listed(pictures)]

    def _style(self, style: StyleLike) -> StyleRef:
        if isinstance(style, StyleRef):
            return style
        if isinstance(style, str):
            return StyleRef(library=style)
        return StyleRef(upload=self._id(style))

    def _id(self, picture: PictureLike) -> str:
        if isinstance(picture, UploadInfo):
            return picture.id
        path = Path(picture)
        if path not in self._known:
            self._known[path] = self._upload(path)
        return self._known[path].id


def listed(values: Any) -> list[Any]:
    """A single value as a list."""
    single = isinstance(values, str | os.PathLike | bytes) or not isinstance(values, Iterable)
    return [values] if single or isinstance(values, BaseModel) else list(values)


def id_of(job: str | JobInfo | SubmittedJob | UploadInfo) -> str:
    """An id, which becomes a part of a path."""
    return segment(job if isinstance(job, str) else job.id)


def segment(text: str) -> str:
    return quote(text, safe="")
