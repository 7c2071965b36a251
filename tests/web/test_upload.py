"""Uploads: complete, with safe names, in the inbox and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nst_daemon.intake.scan import Intake
from nst_daemon.jobs import Role
from nst_daemon.web import upload
from nst_daemon.web.options import PageOptions
from tests.web.conftest import client, inbox, limited

CONTENT, STYLE = ("dog.JPG", b"a dog"), ("waves.png", b"a style")


def post(visitor: TestClient, *files: tuple[str, Any], **fields: str) -> tuple[int, Any]:
    """Send the form. Returns status and JSON of the response."""
    # A field is a part without a file name; httpx would send `data` behind the files.
    parts: list[Any] = [(name, (None, value)) for name, value in fields.items()]
    answer = visitor.post("/drop", files=[*parts, *files])
    return answer.status_code, answer.json()


def test_a_pair_is_a_job(visitor: TestClient, options: PageOptions) -> None:
    """A picture and a style become one job, named like the picture or by the field, and numbered."""
    pair = (("style", STYLE), ("content", CONTENT))
    assert post(visitor, *pair) == (201, {"folder": "", "names": ["dog"]})
    assert post(visitor, *pair) == (201, {"folder": "", "names": ["dog-2"]})
    assert post(visitor, *pair, name="cat")[1]["names"] == ["cat"]
    assert inbox(options) == {
        f"{name}.{role}": data
        for name in ("dog", "dog-2", "cat")
        for role, data in (("content.jpg", b"a dog"), ("style.png", b"a style"))
    }
    intake = Intake(
        options.folders.inbox,
        options.folders.styles,
        settle_seconds=0,
        truncated_grace=0,
        pair_timeout=9,
        rescan_seconds=1,
        max_bytes=1000,
    )
    intake.scan(0, 0)
    found = {r.name: [file.role for file in r.files] for r in intake.scan(60, 60).requests}
    assert found == {name: [Role.CONTENT, Role.STYLE] for name in ("dog", "dog-2", "cat")}


def test_pictures_for_a_hot_folder(visitor: TestClient, options: PageOptions) -> None:
    """With a library style, any number of pictures is put into its hot folder, one job each."""
    (options.folders.styles / "Ünïcode “quotes”.png").write_bytes(b"a style")
    twice = (("content", CONTENT), ("content", CONTENT))
    code, answer = post(visitor, *twice, library="Ünïcode “quotes”")
    assert (code, answer) == (201, {"folder": "Ünïcode “quotes”", "names": ["dog", "dog-2"]})
    assert set(inbox(options)) == {"Ünïcode “quotes”/dog.jpg", "Ünïcode “quotes”/dog-2.jpg"}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("<script>.jpg", "<script>"),
        ("Ünïcode “quotes”.png", "Ünïcode “quotes”"),
        ("../../../etc/passwd.png", "passwd"),
        ("/etc/cron.d/dog.png", "dog"),
        ("a\\..\\b.png", "a_.._b"),
        (".hidden.png", "_hidden"),
        ("line\r\nbreak.png", "line__break"),
        ("x" * 300 + ".png", "x" * 200),
        ("\u202egnp.exe.png", "_gnp.exe"),
    ],
)
def test_no_name_leads_out_of_the_inbox(
    visitor: TestClient, options: PageOptions, given: str, name: str
) -> None:
    """A picture of any name is put directly into the inbox under a visible, printable name."""
    before = {p for p in options.folders.root.rglob("*") if options.folders.inbox not in p.parents}
    # As browsers send it: only quotation marks and line breaks are escaped.
    sent = given.replace("\r", "_").replace("\n", "_")
    code, answer = post(visitor, ("content", (sent, b"dog")), ("style", STYLE))
    assert code == 201
    assert answer["names"] == [name]
    assert all("/" not in path and path.isprintable() for path in inbox(options))
    code, answer = post(visitor, ("content", CONTENT), ("style", STYLE), name="../../" + sent)
    assert code == 201
    assert all("/" not in path and path.isprintable() for path in inbox(options))
    after = {p for p in options.folders.root.rglob("*") if options.folders.inbox not in p.parents}
    assert before == after


@pytest.mark.parametrize("library", ["..", ".", "../results", "/etc", "nowhere", "a/b", "linked"])
def test_no_folder_leads_out_of_the_inbox(
    visitor: TestClient, options: PageOptions, tmp_path: Path, library: str
) -> None:
    """Nothing is put into a folder that is a link or does not belong to a library style."""
    (options.folders.styles / "linked.png").write_bytes(b"a style")
    (options.folders.inbox / "linked").symlink_to(tmp_path)
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    code, _ = post(visitor, ("content", CONTENT), library=library)
    assert code == 400
    assert inbox(options) == {}
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


REFUSED: list[tuple[list[tuple[str, Any]], dict[str, str], int, str]] = [
    ([("content", CONTENT)], {}, 400, "style is missing; choose both"),
    ([], {"name": "dog"}, 400, "there is no picture"),
    ([("content", CONTENT), ("content", CONTENT)], {}, 400, "is a second content"),
    ([("content", ("dog.txt", b"x")), ("style", STYLE)], {}, 400, "not an image file"),
    ([("content", ("dog.png", b"")), ("style", STYLE)], {}, 400, "is empty"),
    ([("content", ("dog.png", bytes(1001))), ("style", STYLE)], {}, 413, "larger than"),
    ([("other", CONTENT)], {}, 400, "neither content nor style"),
    (
        [("content", CONTENT), ("style", STYLE)],
        {"library": "starry"},
        400,
        "both a library style and a style file",
    ),
    ([("content", CONTENT)], {"name": "x" * 1001}, 400, "too long"),
    ([("content", CONTENT)] * 101, {"library": "starry"}, 400, "more than 100 parts"),
    ([("content", ("~dog.png", b"x"))], {"library": "starry"}, 400, "another name"),
    ([("content", CONTENT), ("name", (None, "dog"))], {}, 400, "before its files"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[3])
def test_a_form_that_is_not_a_job_leaves_nothing(
    visitor: TestClient, options: PageOptions, case: tuple[list[Any], dict[str, str], int, str]
) -> None:
    """A form that is not a job is refused with a reason, and none of its files remain."""
    (options.folders.styles / "starry.png").write_bytes(b"a style")
    files, fields, code, said = case
    found, answer = post(visitor, *files, **fields)
    assert (found, said in answer["error"]) == (code, True), answer
    assert inbox(options) == {}


def test_a_format_that_is_not_listed_is_refused(options: PageOptions) -> None:
    """A file whose first bytes are of a format that limits.formats does not list is refused, whatever its suffix."""
    visitor = client(limited(options, formats=("jpeg", "png")))
    avif = b"\0\0\0\x18ftypavif" + bytes(12)
    code, answer = post(visitor, ("style", STYLE), ("content", ("dog.jpg", avif)))
    assert (code, answer["error"]) == (
        400,
        "dog.jpg is an AVIF file, and limits.formats does not list avif; "
        "save it in another format, or add the format to limits.formats",
    )
    assert inbox(options) == {}


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("text/plain", b"hello", 400),
        ("multipart/form-data", b"--x--", 400),
        ("multipart/form-data; boundary=x", b"nonsense", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data", 400),
    ],
)
def test_an_invalid_form_is_refused(
    visitor: TestClient, options: PageOptions, kind: str, body: bytes, code: int
) -> None:
    """Bodies of another type, damaged and incomplete ones are errors, and leave no files."""
    answer = visitor.post("/drop", content=body, headers={"Content-Type": kind})
    assert answer.status_code == code
    assert inbox(options) == {}


def test_a_length_is_required(visitor: TestClient) -> None:
    """A request without Content-Length is refused."""
    answer = visitor.post("/drop", content=iter([b"x"]), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 411


def test_a_full_disk_is_an_error(options: PageOptions) -> None:
    """If an upload would leave less than limits.min_free_disk, nothing is written."""
    full = limited(options, min_free_disk=1 << 62)
    code, answer = post(client(full), ("content", CONTENT), ("style", STYLE))
    assert (code, "limits.min_free_disk" in answer["error"]) == (507, True)
    assert inbox(options) == {}


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="content"; filename="dog.png"\r\n\r\n'
    b"the first half"
)


async def chunks(options: PageOptions, seen: list[set[str]]) -> AsyncIterator[bytes]:
    """The first half of a form, then silence."""
    yield FORM
    seen.append(set(inbox(options)))
    await asyncio.Event().wait()


def test_a_picture_is_hidden_until_it_is_whole(options: PageOptions) -> None:
    """A picture that is arriving is a hidden file, which is removed if the rest does not arrive."""
    seen: list[set[str]] = []
    kind = "multipart/form-data; boundary=x"
    with pytest.raises(TimeoutError):
        asyncio.run(upload.drop(kind, 1000, chunks(options, seen), options, timeout=0.01))
    (hidden,) = seen[0]
    assert hidden.startswith(".")
    assert hidden.endswith(".part")
    assert inbox(options) == {}
