"""The Python client: against the application, against a real daemon, and against servers that fail."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from nst_daemon.client import ApiError, Client
from nst_daemon.errors import UsageError
from nst_daemon.web.models import (
    ContentRef,
    JobDetails,
    JobInfo,
    JobPage,
    JobProgress,
    RepeatedStyle,
    StyleRef,
)
from nst_daemon.web.options import PageOptions
from tests.web.conftest import client as visitor_of
from tests.web.conftest import limited, picture
from tests.web.site import UNICODE, Site, serving

URL = "http://127.0.0.1:8787"
HEALTHY = {"status": "ok"}


def scripted(*answers: Any, **options: Any) -> tuple[Client, list[httpx2.Request]]:
    """A client whose server gives these answers, and the requests that were sent; exceptions are raised."""
    left, sent = list(answers), list[httpx2.Request]()

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, httpx2.Response)
        return found

    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    return Client(URL, http=http, retry_pause=0.0, **options), sent


def ok(document: Any = HEALTHY) -> httpx2.Response:
    return httpx2.Response(200, json=document)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon with the fake painter and a page."""
    with serving(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with Client(site.address) as made:
        yield made


# With a daemon


def test_a_picture_is_submitted_waited_for_and_downloaded(
    site: Site, client: Client, tmp_path: Path
) -> None:
    """A file becomes a result on the disk of the client, with the settings that were asked for."""
    (job,) = client.submit([site.picture("dog.png")], [UNICODE], {"size": 96}, priority=3)
    done = client.wait(job, timeout=60)
    assert (done.state, done.name, done.priority) == ("done", "dog", 3)
    assert done.settings["size"] == 96
    with Image.open(client.download(job, tmp_path / "out.png")) as image:
        assert image.format == "PNG"
    named = client.download(job, tmp_path)
    assert (named.name, named.read_bytes()) == ("dog.png", (tmp_path / "out.png").read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog.png", "out.png"]


def test_files_styles_and_names_are_told_apart(site: Site, client: Client) -> None:
    """Contents are files, uploads or references with a name; styles are names, Paths and uploads."""
    path = site.picture("cat.png")
    upload = client.upload(path)
    assert (upload.name, upload.width, upload.height) == ("cat.png", 160, 120)
    jobs = client.submit(
        [path, upload, ContentRef(upload=upload.id, name="kitten")], [Path(path), upload, UNICODE]
    )
    assert [job.name for job in jobs][::2] == ["cat", "kitten"]
    for job in jobs:
        assert client.wait(job, timeout=60).state == "done"


def test_a_job_is_painted_again_with_other_pictures(site: Site, client: Client) -> None:
    """A file, and a style of the earlier job, are its new styles, each with the mask that is named."""
    content, style = site.picture("fox.png"), Path(site.picture("brush.png"))
    (job,) = client.submit(content, Path(content))
    assert client.wait(job, timeout=60).state == "done"
    mask = client.upload(style).id
    styles = [RepeatedStyle(input=1, mask=mask), StyleRef(upload=mask, mask=mask)]
    again = client.wait(client.repeat(job, styles=styles, content_mask=style), timeout=60)
    roles = ["content", "style", "style", "content-mask", "style-mask", "style-mask"]
    assert [i.role for i in again.inputs if i.role != "settings"] == roles
    assert again.inputs[1].sha256 == again.inputs[0].sha256 != again.inputs[2].sha256


def test_jobs_are_listed_page_by_page(site: Site, client: Client) -> None:
    """The iterator passes all pages, and its filters are those of the API."""
    jobs = client.submit([site.picture("many.png")] * 3, UNICODE)
    for job in jobs:
        client.wait(job, timeout=60)
    listed = list(client.jobs(name="MANY"))
    assert {job.id for job in listed} == {job.id for job in jobs}
    assert list(client.jobs(state=["failed"], name="many")) == []


def test_jobs_that_change_while_they_are_listed() -> None:
    """A job that moves to the front of the list while its parts are read is found, and no job comes twice."""

    def page(names: str, after: str = "") -> httpx2.Response:
        jobs = [
            JobInfo(
                id=name * 32, short_id=name, name=name, title=name, source="pair", state="done",
                created=1.0, updated=7.0, priority=0, attempts=1, error="", result="", batch=None,
                styles=[], requested="", actions=[],
            )
            for name in names
        ]  # fmt: skip
        return ok(JobPage(jobs=jobs, next=after, total=4).model_dump(mode="json"))

    client, sent = scripted(page("ab", "later"), page("bc"), page("da"))
    assert [job.name for job in client.jobs(since=3.0)] == ["a", "b", "c", "d"]
    assert [request.url.params["since"] for request in sent] == ["3.0", "3.0", "7.0"]


def test_an_action_reaches_all_jobs_that_were_just_submitted() -> None:
    """If some of several jobs are still in the inbox, the action is requested for these again."""

    def result(requested: str, problems: str = "") -> httpx2.Response:
        said = {"error": "no", "cause": "no"}
        document = {
            "requested": [name * 32 for name in requested],
            "problems": [{"id": name * 32, **said} for name in problems],
        }
        return httpx2.Response(202, json=document)

    def state(name: str) -> httpx2.Response:
        details = dict.fromkeys(JobDetails.model_fields, "") | {"state": name, "id": "c" * 32}
        details |= dict.fromkeys(("created", "updated", "priority", "attempts"), 0)
        details |= {key: [] for key in ("styles", "actions", "inputs", "events", "files")}
        return ok(details | {"settings": {}, "outputs": {}, "batch": None})

    answers = (result("a", "bc"), state("done"), state("inbox"), result("c", "b"), state("done"))
    client, sent = scripted(*answers)
    found = client.cancel("a" * 32, "b" * 32, "c" * 32)
    assert found.requested == ["a" * 32, "c" * 32]
    assert [problem.id for problem in found.problems] == ["b" * 32]
    assert json.loads(sent[3].content)["ids"] == ["b" * 32, "c" * 32]


def test_the_status_is_followed(site: Site, client: Client) -> None:
    """The first event is the present status, and a new job causes another one."""
    events = client.events()
    first = next(events)
    assert first.running
    client.submit(site.picture("followed.png"), UNICODE)
    assert next(events).changed >= first.changed


def test_what_the_daemon_refuses_is_an_error_with_its_words(site: Site, client: Client) -> None:
    """A wrong setting, an unknown job and bytes that are no picture have status code, cause, remedy and field."""
    with pytest.raises(ApiError) as caught:
        client.submit(site.picture("dog.png"), UNICODE, {"size": -1})
    assert (caught.value.status, caught.value.field) == (400, "settings.size")
    assert "size" in caught.value.cause
    with pytest.raises(ApiError, match="there is no job") as caught:
        client.job("0" * 32)
    assert caught.value.status == 404
    with pytest.raises(ApiError) as caught:
        client.upload(b"no picture", "dog.png")
    assert caught.value.status == 400
    with pytest.raises(ApiError):
        client.upload(b"", "dog.png")
    with pytest.raises(TimeoutError, match="after 0 s"):
        (job,) = client.submit(site.picture("slow.png", gate=str(site.gate), steps=50), UNICODE)
        client.wait(job, timeout=0)


def test_a_job_that_is_not_done_has_no_result(site: Site, client: Client, tmp_path: Path) -> None:
    """Downloading too early is an error, and leaves no file behind."""
    (job,) = client.submit(site.picture("gated.png", gate=str(site.gate)), UNICODE)
    with pytest.raises(ApiError) as caught:
        client.download(job, tmp_path / "out.png")
    assert caught.value.status == 404
    assert list(tmp_path.iterdir()) == []
    site.gate.touch()


def test_a_job_can_be_cancelled_as_soon_as_it_is_submitted(site: Site, client: Client) -> None:
    """The client waits until the daemon has taken a job from its inbox; without the client the error says to wait."""
    (job,) = client.submit(site.picture("soon.png", seconds=0.2, iterations=3000), UNICODE)
    body = {"action": "cancel", "ids": [job.id]}
    answer = httpx2.post(f"{site.address}api/v1/jobs/actions", json=body)
    assert answer.status_code == 202 or "soon is still in the inbox" in answer.json()["error"]
    client.cancel(job)
    assert client.wait(job, timeout=60).state == "cancelled"
    with pytest.raises(ApiError) as caught:
        client.cancel("0" * 32)
    assert (caught.value.status, caught.value.cause) == (404, f"there is no job {'0' * 32}")


# Against servers that fail


def test_requests_that_only_read_are_repeated() -> None:
    """GET is sent again after a broken connection; a POST only if it has not arrived."""
    broken, refused = httpx2.ReadError("reset"), httpx2.ConnectError("refused")
    client, sent = scripted(broken, refused, ok())
    assert client.health().status == "ok"
    assert len(sent) == 3
    client, sent = scripted(refused, ok({"jobs": [{"id": "0" * 32, "name": "dog"}]}))
    assert len(client.submit([ContentRef(upload="0" * 32)])) == 1
    client, sent = scripted(broken, ok())
    with pytest.raises(ApiError, match=r"no answer from http://127.0.0.1:8787: reset") as caught:
        client.submit([ContentRef(upload="0" * 32)])
    assert (caught.value.status, len(sent)) == (0, 1)


def test_a_job_is_followed_beyond_a_restart_of_the_server() -> None:
    """A stream that ends or breaks before the job has ended is opened again; after the last event it is not."""

    def event(percent: int, end: str = "") -> str:
        job = JobProgress(
            id="0" * 32, short_id="00000000", name="dog", title="dog", source="pair", state="running",
            created=1, updated=2, priority=0, attempts=1, error="", result="", batch=None, styles=[],
            requested="", actions=[], percent=percent, left=None,
        )  # fmt: skip
        return f"{end}event: job\ndata: {job.model_dump_json()}\n\n"

    def broken() -> Iterator[bytes]:
        yield event(2).encode()
        raise httpx2.RemoteProtocolError("incomplete chunked read")

    texts = (event(1), broken(), event(3) + event(4, "id: end\n"))
    client, sent = scripted(*[httpx2.Response(200, content=text) for text in texts])
    assert [job.percent for job in client.progress("0" * 32)] == [1, 2, 3, 4]
    assert len(sent) == 3


def test_repeating_ends() -> None:
    """After `retries` repetitions the error is raised, with what to check."""
    client, sent = scripted(*[httpx2.ConnectError("refused")] * 9, retries=2)
    with pytest.raises(ApiError, match="check the address"):
        client.status()
    assert len(sent) == 3


def test_a_server_that_asks_for_patience_gets_it() -> None:
    """After 429 with Retry-After the request is sent again, unless the pause would be too long."""
    slow = httpx2.Response(429, headers={"Retry-After": "0"}, json={})
    client, sent = scripted(slow, ok())
    assert client.health().status == "ok"
    assert len(sent) == 2
    body = {"error": "too many requests", "cause": "too many requests", "remedy": "", "field": ""}
    slow = httpx2.Response(429, headers={"Retry-After": "3600"}, json=body)
    client, sent = scripted(slow)
    with pytest.raises(ApiError, match="too many requests") as caught:
        client.health()
    assert (caught.value.status, len(sent)) == (429, 1)


def test_an_upload_is_sent_again_from_its_beginning(tmp_path: Path) -> None:
    """If the connection for an upload cannot be made at first, the second request has the whole file."""
    (tmp_path / "dog.png").write_bytes(b"12345")
    info = {
        "id": "0" * 32,
        "name": "d",
        "bytes": 5,
        "format": "png",
        "width": 1,
        "height": 1,
        "expires": 0,
    }
    bodies: list[bytes] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.read())
        assert request.headers["Content-Length"] == "5"
        if len(bodies) == 1:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(201, json=info)

    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    assert Client(URL, http=http, retry_pause=0.0).upload(tmp_path / "dog.png").id == "0" * 32
    assert bodies == [b"12345", b"12345"]


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (
            httpx2.Response(502, text="<h1>Bad\n gateway</h1>"),
            502,
            "answered 502 Bad Gateway: <h1>",
        ),
        (
            httpx2.Response(301, headers={"Location": "https://x/"}),
            301,
            "use the address https://x/",
        ),
        (httpx2.Response(200, text="<html>"), 0, "unexpected form"),
        (httpx2.Response(200, json={"status": "fine"}), 0, "use the same version"),
        (httpx2.Response(500, json=["x"]), 500, "answered 500 Internal Server Error"),
    ],
)
def test_other_servers_are_recognised(answer: httpx2.Response, status: int, message: str) -> None:
    """Responses that do not come from the API are errors that say what was received."""
    client, _ = scripted(answer)
    with pytest.raises(ApiError) as caught:
        client.health()
    assert caught.value.status == status
    assert message in str(caught.value)


def test_a_daemon_that_is_away_is_no_error() -> None:
    """`health` answers "away" where the API has the status code 503."""
    client, _ = scripted(httpx2.Response(503, json={"status": "away"}))
    assert client.health().status == "away"


@pytest.mark.parametrize("url", ["nas:8787", "", "ftp://nas/", "http://", "http://[", "nas"])
def test_addresses_without_http_are_refused(url: str) -> None:
    """The address needs http:// or https:// and a host; the message shows how it is written."""
    with pytest.raises(UsageError, match="write it as http://HOST:PORT"):
        Client(url)


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}/api/v1/", f" {URL} "])
def test_addresses_may_end_with_a_slash_or_the_prefix(url: str) -> None:
    """The prefix of the API is added once; the token is sent with each request."""
    sent: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return ok()

    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    Client(url, "secret-token", http=http).health()
    assert str(sent[0].url) == f"{URL}/api/v1/health"
    assert sent[0].headers["Authorization"] == "Bearer secret-token"


def test_names_from_the_server_stay_in_the_folder(tmp_path: Path) -> None:
    """A name with folders in Content-Disposition becomes a plain name in the target folder."""
    header = "attachment; filename*=UTF-8''..%2F..%2Fevil.png"
    client, _ = scripted(
        httpx2.Response(200, headers={"Content-Disposition": header}, content=b"x"),
        httpx2.Response(200, content=b"y"),
    )
    path = client.download("0" * 32, tmp_path)
    assert path.resolve().parent == tmp_path.resolve()
    assert client.download("0" * 32, tmp_path, "sidecar").name == f"{'0' * 32}-sidecar"


def test_a_download_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    """An error in the middle of a file is an ApiError, and neither the file nor a part of it stays."""

    def body() -> Iterator[bytes]:
        yield b"half"
        raise httpx2.ReadError("reset")

    client, _ = scripted(httpx2.Response(200, content=body()))
    (tmp_path / "out.png").write_bytes(b"old")
    with pytest.raises(ApiError, match="reset"):
        client.download("0" * 32, tmp_path / "out.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_unknown_ids_cannot_change_the_path() -> None:
    """An id with "/" is one part of the address."""
    client, sent = scripted(httpx2.Response(404, json={"cause": "there is no job", "remedy": ""}))
    with pytest.raises(ApiError):
        client.job("../../session")
    assert sent[0].url.raw_path == b"/api/v1/jobs/..%2F..%2Fsession"


def test_errors_survive_pickling() -> None:
    """An ApiError that crosses a process keeps all of its parts."""
    error = ApiError("no", remedy="do", status=404, field="a.b")
    again = pickle.loads(pickle.dumps(error))
    assert (again.cause, again.remedy, again.status, again.field) == ("no", "do", 404, "a.b")
    assert str(again) == "no; do"


def test_bytes_need_a_name() -> None:
    """Bytes without a name are refused before anything is sent."""
    client, sent = scripted()
    with pytest.raises(UsageError, match=r"such as dog\.jpg"):
        client.upload(b"x")
    assert sent == []


def test_without_httpx2_the_message_says_what_to_install() -> None:
    """Importing the client works without httpx2; making one names the extra. No torch is loaded."""
    code = (
        "import sys\n"
        "sys.modules['httpx2'] = None\n"
        "from nst_daemon.client import Client\n"
        "assert not {'torch', 'fastapi', 'numpy'} & set(sys.modules)\n"
        "try:\n"
        "    Client('http://x')\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "nst_daemon.client needs httpx2; install the extra client: "
        f"{sys.executable} -m pip install 'httpx2>=2.0'\n"
    )


def test_other_tests_can_use_the_application_directly(options: PageOptions) -> None:
    """The client works with the test client of the application instead of a connection."""
    with Client(URL, http=visitor_of(limited(options, max_bytes=10_000))) as made:
        assert made.styles() == []
        assert made.limits().max_bytes == 10_000
        assert not made.status().running


def test_uploads_are_removed(options: PageOptions, tmp_path: Path) -> None:
    """An upload is removed by its id, and can then neither be removed again nor become a job."""
    picture(tmp_path / "dog.png", (8, 8))
    with Client(URL, http=visitor_of(options)) as made:
        found = made.upload(tmp_path / "dog.png")
        made.remove_upload(found)
        for use in (made.remove_upload, made.submit):
            with pytest.raises(ApiError, match="there is no upload"):
                use(found)
