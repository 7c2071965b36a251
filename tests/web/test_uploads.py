"""Uploads: complete, checked, in their folder and nowhere else, and removed after a time."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from nst_daemon.errors import NotFoundError, StorageError
from nst_daemon.web.disk_space import DiskSpace
from nst_daemon.web.error_bodies import ConflictError
from nst_daemon.web.options import PageOptions
from nst_daemon.web.uploads import LIFETIME, Uploads
from tests.web.conftest import client, limited

URL = "/api/v1/uploads"


def png(size: tuple[int, int] = (4, 3), **options: Any) -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, "orange").save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def post(visitor: TestClient, name: str, data: bytes) -> tuple[int, Any]:
    """Upload a file. Returns status and JSON of the response."""
    answer = visitor.post(URL, params={"name": name}, content=data)
    return answer.status_code, answer.json()


def stored(options: PageOptions) -> set[str]:
    """The names of all files in the store."""
    folder = options.folders.uploads
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@dataclass
class Clock:
    """Seconds since the epoch, set by the test."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def store(options: PageOptions, clock: Clock, space: DiskSpace | None = None) -> Uploads:
    """The store, as a new process has it."""
    return Uploads(options.folders.uploads, options.limits, space or DiskSpace(0), clock)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """A body in parts."""
    for part in parts:
        yield part


def receive(uploads: Uploads, name: str = "dog.png", data: bytes = b"") -> str:
    """Upload a picture. Returns the id."""
    data = data or png()
    return asyncio.run(uploads.receive(name, len(data), chunks(data))).id


def test_an_upload_is_described_and_can_be_removed(
    visitor: TestClient, options: PageOptions
) -> None:
    """An uploaded picture is stored as it is, with its name, format and dimensions, until it is deleted."""
    code, found = post(visitor, "Ünïcode “q”.PNG", png((7, 5)))
    assert code == 201
    assert (found["name"], found["format"]) == ("Ünïcode “q”.PNG", "png")
    assert (found["width"], found["height"], found["bytes"]) == (7, 5, len(png((7, 5))))
    url = f"{URL}/{found['id']}"
    assert visitor.get(url).json() == found
    assert (options.folders.uploads / f"{found['id']}.png").read_bytes() == png((7, 5))
    thumbnail = visitor.get(f"{url}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/webp"
    assert visitor.delete(url).status_code == 204
    assert stored(options) == set()
    for answer in (visitor.get(url), visitor.get(f"{url}/thumbnail"), visitor.delete(url)):
        assert answer.status_code == 404
        assert "upload the picture again" in answer.json()["remedy"]


def test_the_dimensions_are_those_of_the_upright_picture(visitor: TestClient) -> None:
    """A photo that its EXIF turns has the width and height that people see."""
    exif = Image.Exif()
    exif[0x0112] = 6
    code, found = post(visitor, "photo.jpg", png((8, 4), format="JPEG", exif=exif))
    assert (code, found["format"], found["width"], found["height"]) == (201, "jpeg", 4, 8)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("<script>.png", "<script>.png"),
        ("../../../etc/passwd.png", "passwd.png"),
        ("/etc/cron.d/dog.png", "dog.png"),
        ("a\\..\\b.png", "a_.._b.png"),
        (".hidden.png", "_hidden.png"),
        ("line\r\nbreak.png", "line__break.png"),
        ("nul\0.png", "nul_.png"),
        ("x" * 300 + ".png", "x" * 196 + ".png"),
        ("\u202egnp.exe.png", "_gnp.exe.png"),
    ],
)
def test_no_name_leads_out_of_the_store(
    visitor: TestClient, options: PageOptions, given: str, name: str
) -> None:
    """A picture of any name is stored under its id, and its name is made safe."""
    folder = options.folders.uploads
    before = {p for p in options.folders.root.rglob("*") if folder not in (p, *p.parents)}
    code, found = post(visitor, given, png())
    assert (code, found["name"]) == (201, name)
    assert stored(options) == {f"{found['id']}.png", f"{found['id']}.json"}
    after = {p for p in options.folders.root.rglob("*") if folder not in (p, *p.parents)}
    assert before == after


AVIF = b"\0\0\0\x18ftypavif" + bytes(12)
REFUSED: list[tuple[str, bytes, int, str]] = [
    ("dog.txt", png(), 400, "not an image file"),
    ("dog", png(), 400, "has no suffix"),
    ("dog.png", b"", 400, "is empty"),
    ("dog.png", bytes(1001), 413, "limits.max_bytes"),
    ("dog.png", b"this is no picture", 400, "not an image file of a known format"),
    ("dog.png", png()[:45], 400, "truncated"),
    ("dog.jpg", png((32, 32), format="JPEG")[:-9], 400, "dog.jpg is damaged or truncated"),
    ("wide.png", png((41, 2)), 400, "41 × 2 pixels"),
    ("many.png", png((40, 40)), 400, "40 × 40 pixels"),
    ("dog.jpg", AVIF, 400, "dog.jpg is an AVIF file, and limits.formats does not list avif"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[3])
def test_a_file_that_cannot_be_painted_is_refused_and_leaves_nothing(
    options: PageOptions, case: tuple[str, bytes, int, str]
) -> None:
    """What the daemon would refuse is refused with a reason, by its contents and header, and nothing remains."""
    name, data, code, said = case
    strict = limited(options, formats=("jpeg", "png"), max_side=40, max_pixels=1500)
    found, answer = post(client(strict), name, data)
    assert (found, said in answer["error"]) == (code, True), answer
    assert stored(options) == set()


def test_a_picture_is_taken_if_only_something_else_is_cut(visitor: TestClient) -> None:
    """A JPEG without its last marker, and a PNG without its last chunk, can be painted and are taken."""
    for name, data in (
        ("dog.jpg", png((32, 32), format="JPEG", quality=30)[:-2]),
        ("dog.png", png()[:-12]),
    ):
        code, answer = post(visitor, name, data)
        assert code == 201, answer


def test_a_length_is_required(visitor: TestClient, options: PageOptions) -> None:
    """A request without Content-Length is refused."""
    answer = visitor.post(URL, params={"name": "dog.png"}, content=iter([png()]))
    assert answer.status_code == 411
    assert "Content-Length" in answer.json()["error"]
    assert stored(options) == set()


@pytest.mark.parametrize("query", ["", "?name=", "?nam=dog.png", "?name=dog.png&size=64"])
def test_a_wrong_query_is_refused(visitor: TestClient, options: PageOptions, query: str) -> None:
    """An upload without a name, or with an unknown parameter, is an error that names the parameter."""
    answer = visitor.post(URL + query, content=png())
    assert answer.status_code == 422
    assert answer.json()["field"] in {"name", "nam", "size"}
    assert stored(options) == set()


@pytest.mark.parametrize("missing", ["0" * 32, "../../ledger.sqlite", "0" * 31, "%2e%2e"])
def test_no_id_leads_out_of_the_store(visitor: TestClient, missing: str) -> None:
    """An id that no upload has, and one that is not an id, are errors."""
    for answer in (visitor.get(f"{URL}/{missing}"), visitor.delete(f"{URL}/{missing}")):
        assert answer.status_code in {404, 405, 422}


def test_a_picture_is_hidden_until_it_is_whole(options: PageOptions, clock: Clock) -> None:
    """A picture that is arriving is no upload, and it is removed if no more data arrives."""
    uploads, seen = store(options, clock), []

    async def half() -> AsyncIterator[bytes]:
        yield png()[:20]
        seen.extend(stored(options))
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(uploads.receive("dog.png", len(png()), half(), idle=0.01))
    assert [name.partition(".")[2] for name in seen] == ["part"]
    assert stored(options) == set()


@pytest.mark.parametrize("body", [png()[:-1], png() + b"x", b""])
def test_a_body_of_another_length_leaves_nothing(
    options: PageOptions, clock: Clock, body: bytes
) -> None:
    """A body that is shorter or longer than its Content-Length is refused."""
    with pytest.raises(Exception, match=r"incomplete|longer"):
        asyncio.run(store(options, clock).receive("dog.png", len(png()), chunks(body)))
    assert stored(options) == set()


def test_a_client_that_disconnects_leaves_nothing(options: PageOptions, clock: Clock) -> None:
    """If the upload is cancelled while it is arriving, its file and its space are released."""
    space = DiskSpace(0, lambda _: 2 * len(png()))
    uploads = store(options, clock, space)

    async def disconnected() -> AsyncIterator[bytes]:
        yield png()[:20]
        raise ConnectionResetError

    for _ in range(5):
        with pytest.raises(ConnectionResetError):
            asyncio.run(uploads.receive("dog.png", len(png()), disconnected()))
    assert stored(options) == set()
    assert receive(uploads)


def test_a_full_disk_is_an_error(options: PageOptions) -> None:
    """If an upload would leave less than limits.min_free_disk, nothing is written."""
    full = limited(options, min_free_disk=1 << 62)
    code, answer = post(client(full), "dog.png", png())
    assert (code, "limits.min_free_disk" in answer["error"]) == (507, True)
    assert stored(options) == set()


def test_uploads_that_arrive_together_respect_the_free_space(
    options: PageOptions, clock: Clock
) -> None:
    """Space that another upload will need is not free: of three at once for which two fit, one is refused."""
    size = len(png())
    uploads = store(options, clock, DiskSpace(100, lambda _: 100 + 2 * size))

    async def slow(go: asyncio.Event) -> AsyncIterator[bytes]:
        await go.wait()
        yield png()

    async def together() -> list[object]:
        go = asyncio.Event()
        tasks = [asyncio.create_task(uploads.receive("dog.png", size, slow(go))) for _ in range(3)]
        await asyncio.sleep(0.2)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(together())
    assert [isinstance(one, StorageError) for one in found].count(True) == 1


def test_space_is_given_back_as_it_is_written(tmp_path: Path) -> None:
    """A reservation counts only the bytes that are not on the disk yet, and nothing after its end."""
    space = DiskSpace(0, lambda _: 100)
    with space.reserved(tmp_path, 80) as reservation:
        with pytest.raises(StorageError, match="free space"), space.reserved(tmp_path, 30):
            pass
        reservation.release(50)
        with space.reserved(tmp_path, 70):
            pass
    with space.reserved(tmp_path, 100):
        pass


def test_an_upload_expires_after_its_last_use(options: PageOptions, clock: Clock) -> None:
    """An upload is removed a day after its last use, and not before."""
    uploads = store(options, clock)
    kept, unused = receive(uploads), receive(uploads)
    clock.now += LIFETIME - 1
    uploads.sweep()
    with uploads.used([kept]):
        pass
    assert uploads.get(kept).expires == pytest.approx(clock.now + LIFETIME)
    assert uploads.get(kept).path.stat().st_mtime == clock.now  # the daemon looks at it
    clock.now += 2
    with pytest.raises(NotFoundError):  # also before it is removed
        uploads.get(unused)
    uploads.sweep()
    assert stored(options) == {f"{kept}.png", f"{kept}.json"}
    clock.now += LIFETIME
    uploads.sweep()
    assert stored(options) == set()


def test_an_upload_in_use_is_not_removed(options: PageOptions, clock: Clock) -> None:
    """While a request uses an upload, it does not expire and cannot be deleted."""
    uploads = store(options, clock)
    upload_id = receive(uploads)
    with uploads.used([upload_id, upload_id]) as found:
        clock.now += 2 * LIFETIME
        uploads.sweep()
        assert found[upload_id].path.exists()
        clock.now -= LIFETIME + 10
        with pytest.raises(ConflictError, match="in use"):
            uploads.delete(upload_id)
    uploads.delete(upload_id)
    assert stored(options) == set()


def test_uploads_survive_a_restart(options: PageOptions, clock: Clock) -> None:
    """A new process finds the uploads, and removes what an earlier one had not completed."""
    upload_id = receive(store(options, clock))
    folder = options.folders.uploads
    for left in (f"{'1' * 32}.part", f"{'2' * 32}.png"):
        (folder / left).write_bytes(b"left")
    (folder / "notes.txt").write_bytes(b"of somebody else")
    restarted = store(options, clock)
    restarted.sweep()
    assert f"{'1' * 32}.part" in stored(options)  # it may be arriving
    restarted.sweep(start=True)
    assert stored(options) == {f"{upload_id}.png", f"{upload_id}.json", "notes.txt"}
    assert restarted.get(upload_id).name == "dog.png"


@pytest.mark.parametrize("noted", ["", "{", "[]", "null", '{"suffix": ".png"}', '{"suffix": 1}'])
def test_a_damaged_upload_is_missing(options: PageOptions, clock: Clock, noted: str) -> None:
    """An upload whose notes are damaged is not found; it expires like all others."""
    uploads = store(options, clock)
    upload_id = receive(uploads)
    path = options.folders.uploads / f"{upload_id}.json"
    path.write_text(noted)
    os.utime(path, (clock.now, clock.now))
    with pytest.raises(NotFoundError):
        uploads.get(upload_id)
    clock.now += LIFETIME
    uploads.sweep()
    assert stored(options) == set()


@contextmanager
def in_use(uploads: Uploads, ids: list[str]) -> Iterator[None]:
    """Another thread uses the uploads."""
    begun, end = threading.Event(), threading.Event()

    def use() -> None:
        with uploads.used(ids):
            begun.set()
            end.wait(10)

    thread = threading.Thread(target=use)
    thread.start()
    assert begun.wait(10)
    yield
    end.set()
    thread.join()


def test_requests_use_the_same_upload_at_once(options: PageOptions, clock: Clock) -> None:
    """An upload stays in use until the last request that uses it has ended."""
    uploads = store(options, clock)
    upload_id = receive(uploads)
    with in_use(uploads, [upload_id]):
        with uploads.used([upload_id]):
            pass
        with pytest.raises(ConflictError):
            uploads.delete(upload_id)
    uploads.delete(upload_id)
