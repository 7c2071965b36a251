"""The files of jobs: what is sent, how, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from nst_daemon.jobs import BatchCell, JobInput, Role
from nst_daemon.ledger import Ledger
from nst_daemon.service.live_status import LiveStatus, PaintingStatus
from nst_daemon.web.app import make_app
from nst_daemon.web.options import PageOptions
from nst_daemon.web.stored_files import FileRequest, StoredFile
from nst_daemon.web.thumbnails import ReducedPictures
from tests.web.conftest import HOST, add, client, limited, picture

API = "/api/v1"


def given(path: Path, role: Role = Role.CONTENT, spooled: str = "") -> JobInput:
    """The input that this file is."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return JobInput(role, path.name, spooled or path.name, digest, len(data))


def test_files_of_a_result(visitor: TestClient, options: PageOptions) -> None:
    """A finished job has its picture, thumbnails and the files that exist beside it; others are 404 with the reason."""
    results = options.folders.results
    picture(results / "starry" / "Ünïcode “q”.v2.png")
    picture(results / "starry" / "Ünïcode “q”.v2.loss.png", (10, 10))
    (results / "starry" / "Ünïcode “q”.v2.json").write_text("{}")
    job = add(options, "x", result="starry/Ünïcode “q”.v2.png")
    whole = visitor.get(f"{API}/jobs/{job}/result")
    assert whole.content == (results / "starry" / "Ünïcode “q”.v2.png").read_bytes()
    assert whole.headers["content-type"] == "image/png"
    small = visitor.get(f"{API}/jobs/{job}/result?size=thumbnail")
    with Image.open(io.BytesIO(small.content)) as image:
        assert (image.format, image.size) == ("WEBP", (360, 180))
    assert visitor.get(f"{API}/jobs/{job}/loss-plot").status_code == 200
    assert visitor.get(f"{API}/jobs/{job}/sidecar").json() == {}
    assert visitor.get(f"{API}/jobs/{job}").json()["files"] == ["result", "sidecar", "loss-plot"]
    for path in ("time-lapse", "preview"):
        answer = visitor.get(f"{API}/jobs/{job}/{path}")
        assert answer.status_code == 404, path
        assert answer.json()["error"], path


def test_an_input_that_is_being_moved_is_found(visitor: TestClient, options: PageOptions) -> None:
    """While the daemon moves the files of a job, a request for an input waits until the ledger says where it is."""
    dog = options.folders.failed / "x" / "dog.png"
    picture(dog, (10, 10))
    job = add(options, "x", error="out of memory", inputs=(given(dog),))

    def archived() -> None:
        with Ledger.open(options.folders.ledger) as ledger:
            ledger.note(job, now=1.0, archive="x")

    timer = threading.Timer(0.05, archived)
    timer.start()
    try:
        assert visitor.get(f"{API}/jobs/{job}/inputs/0").status_code == 200
    finally:
        timer.join()


def test_only_ids_of_jobs_have_files(visitor: TestClient, options: PageOptions) -> None:
    """An unknown id and a job without a result are 404; what is no id is refused."""
    waits = add(options, "waits")
    for unknown in ("0" * 32, waits):
        for path in ("result", "sidecar", "zip", "time-lapse", "inputs/0"):
            answer = visitor.get(f"{API}/jobs/{unknown}/{path}")
            assert answer.status_code == 404, (unknown, path)
            assert answer.json()["error"]
    for wrong in (waits[:8], "..%2fresults", "%2e%2e", "x"):
        assert visitor.get(f"{API}/jobs/{wrong}/result").status_code in {404, 422}, wrong


def test_a_result_that_browsers_cannot_show_is_shown_reduced(
    visitor: TestClient, options: PageOptions
) -> None:
    """A TIFF result is sent as it is with its type, and as a WebP of at most 1600 pixels as a view."""
    picture(options.folders.results / "dog.tiff", (3200, 1600))
    job = add(options, "dog", result="dog.tiff")
    assert visitor.get(f"{API}/jobs/{job}/result").headers["content-type"] == "image/tiff"
    view = visitor.get(f"{API}/jobs/{job}/result?size=view")
    with Image.open(io.BytesIO(view.content)) as image:
        assert (image.format, image.size) == ("WEBP", (1600, 800))


@pytest.mark.parametrize(
    ("suffix", "kind"), [("avif", "avif"), ("jxl", "jxl"), ("webp", "webp"), ("jpg", "jpeg")]
)
def test_results_have_their_types(
    visitor: TestClient, options: PageOptions, suffix: str, kind: str
) -> None:
    """A result in any format is sent with the type of its format."""
    (options.folders.results / f"dog.{suffix}").write_bytes(b"a picture")
    job = add(options, "dog", result=f"dog.{suffix}")
    answer = visitor.get(f"{API}/jobs/{job}/result")
    assert answer.headers["content-type"] == f"image/{kind}"


def test_a_picture_that_is_cached_is_not_sent_again(
    visitor: TestClient, options: PageOptions
) -> None:
    """With the ETag of the file, the response is 304 without a body; after a change the picture is sent."""
    path = options.folders.results / "dog.png"
    job = add(options, "dog", result="dog.png")
    for size in ("thumbnail", "original"):
        picture(path)
        address = f"{API}/jobs/{job}/result?size={size}"
        first = visitor.get(address)
        assert first.headers["cache-control"] == "private, no-cache"
        known = {"If-None-Match": first.headers["etag"]}
        again = visitor.get(address, headers=known)
        assert (again.status_code, again.content) == (304, b"")
        picture(path, (400, 800))
        changed = visitor.get(address, headers=known)
        assert changed.status_code == 200
        assert changed.content != first.content
    kept = visitor.get(f"{API}/jobs/{job}/result?v=3.0").headers["cache-control"]
    assert kept == "private, max-age=31536000, immutable"


def test_downloads_have_the_name_of_the_result(visitor: TestClient, options: PageOptions) -> None:
    """Browsers save a download under the name of its file, in any script; without `download` they show it."""
    for name, plain, exact in (
        ("dog.png", "dog.png", ""),
        ('Mäd "x".png', "M_d _x_.png", "; filename*=UTF-8''M%C3%A4d%20%22x%22.png"),
    ):
        picture(options.folders.results / name)
        job = add(options, "x", result=name)
        saved = visitor.get(f"{API}/jobs/{job}/result?download=1").headers["content-disposition"]
        assert saved == f'attachment; filename="{plain}"{exact}'
        shown = visitor.get(f"{API}/jobs/{job}/result").headers["content-disposition"]
        assert shown == f'inline; filename="{plain}"{exact}'


def test_a_part_of_a_file(visitor: TestClient, options: PageOptions) -> None:
    """A range of bytes can be requested, so that an interrupted download continues."""
    (options.folders.results / "dog.png").write_bytes(b"0123456789")
    job = add(options, "dog", result="dog.png")
    answer = visitor.get(f"{API}/jobs/{job}/result", headers={"Range": "bytes=3-5"})
    assert (answer.status_code, answer.content) == (206, b"345")


def test_a_damaged_picture_has_no_thumbnail(visitor: TestClient, options: PageOptions) -> None:
    """A result that cannot be decoded has no thumbnail, and the reason is in the response."""
    (options.folders.results / "dog.png").write_bytes(b"no picture")
    job = add(options, "dog", result="dog.png")
    answer = visitor.get(f"{API}/jobs/{job}/result?size=thumbnail")
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("dog.png cannot be shown: ")


def test_results_are_shown_in_every_format(options: PageOptions) -> None:
    """limits.formats does not concern results: they are shown in every format."""
    picture(options.folders.results / "dog.png")
    job = add(options, "dog", result="dog.png")
    visitor = client(limited(options, formats=("webp", "gif"), max_bytes=10_000))
    assert visitor.get(f"{API}/jobs/{job}/result?size=thumbnail").status_code == 200


@pytest.mark.parametrize("what", ["result", "result?size=thumbnail", "sidecar", "zip"])
def test_no_address_leads_out_of_the_results(
    visitor: TestClient, options: PageOptions, tmp_path: Path, what: str
) -> None:
    """A link in results/ to a file outside, and a path in the ledger that leads outside, are 404."""
    picture(tmp_path / "secret.png")
    (tmp_path / "secret.json").write_text("{}")
    results = options.folders.results
    (results / "link.png").symlink_to(tmp_path / "secret.png")
    (results / "link.json").symlink_to(tmp_path / "secret.json")
    (results / "folder").symlink_to(tmp_path)
    (results / "loop.png").symlink_to("loop.png")
    paths = ("link.png", "folder/secret.png", "../../secret.png", str(tmp_path / "secret.png"))
    for result in (*paths, "loop.png", "folder", "..", "\0"):
        job = add(options, "x", result=result)
        answer = visitor.get(f"{API}/jobs/{job}/{what}")
        assert answer.status_code == 404, result
        assert answer.json()["error"]


def test_a_link_inside_the_results_is_followed(visitor: TestClient, options: PageOptions) -> None:
    """A person may sort results with links inside of results/."""
    picture(options.folders.results / "best" / "dog.png")
    (options.folders.results / "dog.png").symlink_to("best/dog.png")
    job = add(options, "dog", result="dog.png")
    for size in ("original", "thumbnail"):
        assert visitor.get(f"{API}/jobs/{job}/result?size={size}").status_code == 200


def test_inputs_of_a_job(visitor: TestClient, options: PageOptions, tmp_path: Path) -> None:
    """Inputs are found in the spool, in done/ and in failed/, and a TIFF is shown as WebP."""
    visitor = client(limited(options, max_bytes=10_000_000))
    picture(tmp_path / "dog.tif", (1000, 500))
    inputs = (given(tmp_path / "dog.tif", spooled="copy.tif"),)
    places = options.folders
    for place, options_of in (
        (places.done / "a" / "dog", {"result": "dog.png", "archive": "a/dog"}),
        (places.failed / "dog", {"error": "broken", "archive": "dog"}),
    ):
        place.mkdir(parents=True)
        (place / "copy.tif").write_bytes((tmp_path / "dog.tif").read_bytes())
        job = add(options, "dog", inputs=inputs, **options_of)
        whole = visitor.get(f"{API}/jobs/{job}/inputs/0?download=1")
        assert whole.content == (tmp_path / "dog.tif").read_bytes()
        assert whole.headers["content-disposition"] == 'attachment; filename="dog.tif"'
        small = visitor.get(f"{API}/jobs/{job}/inputs/0?size=thumbnail")
        with Image.open(io.BytesIO(small.content)) as image:
            assert (image.format, image.size) == ("WEBP", (360, 180))
        assert visitor.get(f"{API}/jobs/{job}").json()["inputs"][0]["available"]
        (place / "copy.tif").unlink()
        assert visitor.get(f"{API}/jobs/{job}/inputs/0").status_code == 404
        assert not visitor.get(f"{API}/jobs/{job}").json()["inputs"][0]["available"]
    job = add(options, "dog", inputs=inputs)
    (places.spool / job).mkdir(parents=True)
    (places.spool / job / "copy.tif").write_bytes((tmp_path / "dog.tif").read_bytes())
    assert visitor.get(f"{API}/jobs/{job}/inputs/0").status_code == 200
    for number in ("1", "-1", "x"):
        assert visitor.get(f"{API}/jobs/{job}/inputs/{number}").status_code in {404, 422}


def test_a_library_style_of_a_finished_job_is_found_in_the_library(
    options: PageOptions,
) -> None:
    """The archive has no copy of a library style: the style with these bytes is sent, and no other one."""
    visitor = client(limited(options, max_bytes=100_000))
    path = options.folders.styles / "dots.png"
    picture(path)
    inputs = (given(path, Role.STYLE),)
    job = add(options, "dog", result="dog.png", archive="dog", inputs=inputs)
    assert visitor.get(f"{API}/jobs/{job}/inputs/0").content == path.read_bytes()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert visitor.get(f"{API}/jobs/{job}/inputs/0").status_code == 404


def test_inputs_of_a_batch_are_found_among_its_uploads(options: PageOptions) -> None:
    """The archive has no copies of pictures of a batch: they come from its uploads, not from those of others."""
    visitor = client(limited(options, max_bytes=100_000))
    path = options.folders.batches / "night" / "contents" / "2" / "cat.png"
    picture(path)
    fields = {"inputs": (given(path, Role.CONTENT),), "archive": "cat", "source": "batch"}
    ours = add(options, "night/cat", result="cat.png", group="night", **fields)
    others = add(options, "day/cat", result="cat.png", group="day", **fields)
    assert visitor.get(f"{API}/jobs/{ours}/inputs/0").content == path.read_bytes()
    assert visitor.get(f"{API}/jobs/{others}/inputs/0").status_code == 404


def test_contents_of_a_batch_file_are_found_where_it_read_them(
    options: PageOptions, tmp_path: Path
) -> None:
    """The content of a batch's picture is the original as long as it is unchanged and in a folder for batches."""
    photo, secret = tmp_path / "photos" / "cat.png", tmp_path / "elsewhere" / "cat.png"
    picture(photo)
    picture(secret)
    roots = limited(options, max_bytes=100_000)
    visitor = client(
        replace(roots, config=replace(roots.config, batch_roots=(tmp_path / "photos",)))
    )
    codes = []
    for path in (photo, secret):
        cell = BatchCell("night", "starry", {}, (0, 0, 0), str(path))
        fields = {"inputs": (given(path),), "archive": "x", "source": "batch", "batch": cell}
        job = add(options, f"night/{path.parent.name}", result="cat.png", group="night", **fields)
        codes.append(visitor.get(f"{API}/jobs/{job}/inputs/0?size=view").status_code)
    assert codes == [200, 404]
    (first, *_) = visitor.get(f"{API}/jobs?order=oldest").json()["jobs"]
    assert visitor.get(f"{API}/jobs/{first['id']}").json()["inputs"][0]["available"]
    photo.write_bytes(photo.read_bytes()[:-1] + b"x")
    assert visitor.get(f"{API}/jobs/{first['id']}/inputs/0").status_code == 404


def test_refused_files_are_shown_unless_they_are_links(
    options: PageOptions, tmp_path: Path
) -> None:
    """A refused picture is shown; a refused symbolic link, hard link or folder is not."""
    visitor = client(limited(options, max_bytes=100_000))
    folder = options.folders.failed / "dog"
    picture(folder / "plain.png")
    picture(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "hard.png").hardlink_to(tmp_path / "secret.png")
    (folder / "folder.png").mkdir()
    names = ("plain.png", "link.png", "hard.png", "folder.png")
    inputs = tuple(JobInput(Role.UNKNOWN, name, name, "", 1) for name in names)
    job = add(options, "dog", error="refused", archive="dog", inputs=inputs)
    codes = [visitor.get(f"{API}/jobs/{job}/inputs/{n}").status_code for n in range(4)]
    assert codes == [200, 404, 404, 404]
    found = visitor.get(f"{API}/jobs/{job}").json()["inputs"]
    assert [file["available"] for file in found] == [True, False, False, False]


@pytest.mark.usefixtures("locked")
def test_the_preview(visitor: TestClient, options: PageOptions) -> None:
    """A job that is being painted has a preview; other jobs and paths outside results/ are 404."""
    picture(options.folders.previews / "dog.jpg")
    job = "1" * 32
    painting = PaintingStatus(job, "dog", "cpu", 1, 2, 50, None, None, [], ".preview/dog.jpg")
    live = LiveStatus(1, 0.0, 0.0, "painting", "", "painting dog", [painting])
    live.write(options.folders.status)
    shown = visitor.get(f"{API}/jobs/{job}/preview")
    assert shown.content == (options.folders.previews / "dog.jpg").read_bytes()
    assert visitor.get(f"{API}/jobs/{'2' * 32}/preview").status_code == 404
    replace(live, paintings=[replace(painting, preview="../secret")]).write(options.folders.status)
    assert visitor.get(f"{API}/jobs/{job}/preview").status_code == 404


def test_archives(visitor: TestClient, options: PageOptions) -> None:
    """An archive holds the pictures and their sidecars under the names of results/, and lacks what was removed."""
    results = options.folders.results
    picture(results / "starry" / "dög.png")
    (results / "starry" / "dög.json").write_text("{}")
    picture(results / "cat.png")
    dog = add(options, "dog", result="starry/dög.png")
    cat, gone = add(options, "cat", result="cat.png"), add(options, "gone", result="gone.png")
    one = visitor.get(f"{API}/jobs/{dog}/zip")
    assert one.headers["content-type"] == "application/zip"
    assert one.headers["content-disposition"].startswith("attachment; ")
    with zipfile.ZipFile(io.BytesIO(one.content)) as archive:
        assert archive.namelist() == ["dög.png", "dög.json"]
        assert archive.read("dög.png") == (results / "starry" / "dög.png").read_bytes()
        assert archive.testzip() is None
    ids = [("id", job) for job in (dog, cat, gone, dog)]
    several = visitor.get(f"{API}/results.zip", params=ids)
    assert several.status_code == 200, several.text
    with zipfile.ZipFile(io.BytesIO(several.content)) as archive:
        assert archive.namelist() == ["starry/dög.png", "starry/dög.json", "cat.png"]
    for wanted in ([gone], ["0" * 32], [cat, "0" * 32]):
        answer = visitor.get(f"{API}/results.zip", params=[("id", job) for job in wanted])
        assert answer.status_code == 404, wanted
    for number in (0, 201):
        answer = visitor.get(f"{API}/results.zip", params=[("id", cat)] * number)
        assert answer.status_code == 422, number


def test_a_picture_that_is_moved_before_its_turn_is_sent(options: PageOptions) -> None:
    """A reduced picture is made of the file that was found, also if the daemon moves it while the request waits."""
    picture(options.folders.results / "dog.png")
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    wanted = FileRequest(Request(scope), download=False, version="")
    file = StoredFile(options.folders.results, "dog.png")
    limits = limited(options, max_bytes=1_000_000).limits
    response = ReducedPictures().send(wanted, file, "thumbnail", limits)
    (options.folders.results / "dog.png").unlink()
    assert TestClient(response).get("/").headers["content-type"] == "image/webp"


def test_other_requests_do_not_wait_for_pictures(options: PageOptions) -> None:
    """While more pictures are waited for than the server has threads, a list of jobs is sent."""
    options = limited(options, max_bytes=100_000_000)
    picture(options.folders.state / "dog.png", (400, 400))
    data = (options.folders.state / "dog.png").read_bytes()
    names = [f"{number}.png" for number in range(120)]
    inputs = tuple(JobInput(Role.STYLE, name, name, "0" * 64, len(data)) for name in names)
    job = add(options, "dog", inputs=inputs)
    (options.folders.spool / job).mkdir(parents=True)
    for name in names:
        (options.folders.spool / job / name).write_bytes(data)
    finished: list[str] = []

    async def get(visitor: AsyncClient, path: str) -> None:
        answer = await visitor.get(f"http://{HOST}{API}/{path}")
        assert answer.status_code == 200
        finished.append(path)

    async def load() -> None:
        transport = ASGITransport(make_app(options))
        async with AsyncClient(transport=transport, timeout=60) as visitor:
            paths = [f"jobs/{job}/inputs/{n}?size=thumbnail" for n in range(len(names))]
            tasks = [asyncio.create_task(get(visitor, path)) for path in paths]
            await asyncio.sleep(0.1)
            await get(visitor, "jobs")
            await asyncio.gather(*tasks)

    asyncio.run(load())
    assert finished.index("jobs") < 60
    assert len(finished) == 121
