"""Batches of the API: checked, submitted, listed."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from starlette.testclient import TestClient

from nst_daemon.engine.settings import resolve
from nst_daemon.intake import batch as batch_files
from nst_daemon.intake.expansion import plan
from nst_daemon.jobs import BatchCell, Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.batches import batch_reach
from nst_daemon.web.options import PageOptions
from tests.web.conftest import client, limited

S = JobState
BATCHES = "/api/v1/batches"


@pytest.fixture
def options(options: PageOptions) -> PageOptions:
    """A page for a root with two library styles; a file may have 100 kB."""
    for name in ("dots", "waves"):
        (options.folders.styles / f"{name}.png").write_bytes(picture())
    return limited(options, max_bytes=100_000)


def picture(color: str = "orange", size: tuple[int, int] = (40, 20)) -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def upload(visitor: TestClient, name: str, data: bytes = b"") -> str:
    """Upload a picture. Returns its id."""
    answer = visitor.post("/api/v1/uploads", params={"name": name}, content=data or picture())
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def request(visitor: TestClient, name: str = "night", **changes: Any) -> dict[str, Any]:
    """A batch of two contents in two styles, one of them uploaded, with two seeds."""
    return {
        "name": name,
        "contents": [
            {"upload": upload(visitor, "dog.png")},
            {"upload": upload(visitor, "cat.jpg")},
        ],
        "styles": [{"library": "dots"}, {"upload": upload(visitor, "mine.png", picture("red"))}],
        "sweep": {"seed": [1, 2]},
        **changes,
    }


def planned(options: PageOptions, name: str = "night") -> list[str]:
    """The names of the pictures that the daemon makes of the batch file in the inbox."""
    file = options.folders.inbox / f"{name}.batch.yaml"
    reach = batch_reach(options.config, [options.folders.batches / name])
    return [found.name for found in plan(batch_files.read(file), name, reach)]


def test_a_batch_is_submitted(visitor: TestClient, options: PageOptions) -> None:
    """The batch file asks for every content in every style with every swept value, in the order of the request."""
    visitor = client(options)
    body = request(visitor, settings={"size": 64}, priority=3)
    check = visitor.post(f"{BATCHES}/check", json=body).json()
    assert check == {"problems": [], "estimate": {"pictures": 8, "seconds": None}}
    assert not options.folders.batches.exists(), "a check changes nothing"
    answer = visitor.post(BATCHES, json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert (made["name"], made["pictures"], made["waiting"]) == ("night", 8, True)
    assert planned(options) == [
        f"night/{content}_{style}_seed={seed}"
        for content in ("dog", "cat")
        for style in ("dots", "mine")
        for seed in (1, 2)
    ]
    asked = batch_files.read(options.folders.inbox / "night.batch.yaml")
    assert (dict(asked.settings), asked.priority) == ({"size": 64}, 3)
    assert visitor.get(f"{BATCHES}/night").json() == made
    assert visitor.get(BATCHES).json() == {"batches": [made]}
    assert not list(options.folders.batches.glob(".*"))


def test_pictures_of_one_name_are_told_apart(options: PageOptions) -> None:
    """Contents keep their order and their names; of equal names later ones are numbered, also beside library styles."""
    visitor = client(options)
    names = ["b.png", "[a] *.png", "b.png", "B.PNG", "10.png", "9.png"]
    contents = [{"upload": upload(visitor, name)} for name in names]
    contents.append({"upload": contents[0]["upload"], "name": "again"})
    styles = [{"upload": upload(visitor, "dots.png")}, {"library": "dots"}]
    body = request(visitor, contents=contents, styles=styles, sweep={})
    assert visitor.post(BATCHES, json=body).status_code == 201
    stems = ["b", "[a] *", "b-2", "B-3", "10", "9", "again"]
    assert planned(options) == [
        f"night/{stem}_{style}" for stem in stems for style in ("dots-2", "dots")
    ]


PROBLEMS: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": "..."}, ["name"]),
    ({"name": "~$night"}, ["name"]),
    ({"contents": [{"upload": "0" * 32}]}, ["contents.0.upload"]),
    ({"styles": [{"library": "nothing"}, {"library": "dots"}]}, ["styles.0.library"]),
    ({"settings": {"size": 0, "sise": 3}}, ["settings.size", "settings.sise"]),
    ({"settings": {"format": "gif"}}, ["settings.format"]),
    ({"sweep": {"seed": [1, -1], "size": []}}, ["sweep.seed.1", "sweep.size"]),
    ({"sweep": {"sede": [1]}}, ["sweep.sede.0"]),
    ({"sweep": {"seed": [1, 2, "1"]}}, ["sweep.seed.2"]),
    ({"settings": {"seed": 1}}, ["sweep.seed"]),
    ({"sweep": {"format": ["png", "jpeg"], "depth": [8, 16]}}, ["sweep"]),
    ({"settings": {"start": "given"}}, ["sweep"]),
    ({"settings": {"start": "given"}, "sweep": {}}, ["settings"]),
    ({"sweep": {"seed": list(range(200)), "size": list(range(64, 164))}}, [""]),
    ({"settings": {"preset": "x" * 70_000}}, ["settings.preset"]),
]


@pytest.mark.parametrize(("changes", "fields"), PROBLEMS, ids=lambda v: str(v)[:60])
def test_problems_are_named(
    options: PageOptions, changes: dict[str, Any], fields: list[str]
) -> None:
    """The check names every field that is wrong; the submission is refused for the first, and leaves nothing."""
    visitor = client(options)
    body = request(visitor) | changes
    found = visitor.post(f"{BATCHES}/check", json=body)
    assert sorted(p["field"] for p in found.json()["problems"]) == sorted(fields), found.text
    assert found.json()["estimate"] == {"pictures": 0, "seconds": None}
    answer = visitor.post(BATCHES, json=body)
    assert (answer.status_code, answer.json()["field"]) == (
        400,
        found.json()["problems"][0]["field"],
    )
    assert answer.json() == found.json()["problems"][0]
    assert list(options.folders.inbox.iterdir()) == []
    assert not options.folders.batches.exists()


def test_masks_are_refused(options: PageOptions) -> None:
    """A batch has no masks: each is named, and nothing is submitted."""
    visitor = client(options)
    body = request(visitor)
    body["contents"][0]["mask"] = body["styles"][1]["mask"] = upload(visitor, "m.png")
    found = visitor.post(f"{BATCHES}/check", json=body).json()["problems"]
    assert [problem["field"] for problem in found] == ["contents.0.mask", "styles.1.mask"]
    assert visitor.post(BATCHES, json=body).status_code == 400


def test_a_name_in_use_is_refused(options: PageOptions) -> None:
    """A name is in use by a batch of the inbox, of the ledger or of uploads, and by a folder of results."""
    visitor = client(options)
    assert visitor.post(BATCHES, json=request(visitor)).status_code == 201
    (options.folders.inbox / "night.batch.yaml").unlink()
    (options.folders.inbox / "own.batch.yml").write_text("contents: '*'\nstyles: dots")
    (options.folders.results / "pairs").mkdir()
    add(options, "old", 0, S.DONE)
    for name in ("night", "own", "pairs", "old"):
        answer = visitor.post(BATCHES, json=request(visitor, name))
        assert answer.status_code == 409, name
        assert answer.json()["remedy"] == f"choose another name, such as {name}-2"
        assert answer.json()["field"] == "name"
        (problem,) = visitor.post(f"{BATCHES}/check", json=request(visitor, name)).json()[
            "problems"
        ]
        assert problem["field"] == "name"


def test_too_little_space_is_refused(options: PageOptions) -> None:
    """A batch whose pictures do not leave limits.min_free_disk is refused, and leaves nothing."""
    body = request(client(options))
    answer = client(limited(options, min_free_disk=1 << 60)).post(BATCHES, json=body)
    assert answer.status_code == 507
    assert not options.folders.batches.exists()
    assert list(options.folders.inbox.iterdir()) == []


def test_a_batch_without_an_inbox_leaves_nothing(options: PageOptions) -> None:
    """If the batch file cannot be put into the inbox, the copied pictures are removed."""
    visitor = client(options)
    body = request(visitor)
    options.folders.inbox.chmod(0o500)
    try:
        if os.access(options.folders.inbox, os.W_OK):
            options.folders.inbox.rmdir()  # root may write everywhere
        answer = visitor.post(BATCHES, json=body)
    finally:
        if options.folders.inbox.is_dir():
            options.folders.inbox.chmod(0o700)
    assert answer.status_code in {400, 507}
    assert not options.folders.batches.exists() or not list(options.folders.batches.iterdir())


def add(options: PageOptions, batch: str, number: int, *moves: S, at: float = 5.0) -> str:
    """A job of a batch, moved through these states. Returns its id."""
    cell = BatchCell(batch, "dots", {"seed": number}, (0, 0, number))
    values = json.loads(json.dumps(asdict(resolve({"size": 64}))))
    way = {S.DONE: (S.QUEUED, S.RUNNING, S.STAGED, S.PUBLISHED, S.DONE)}
    with Ledger.open(options.folders.ledger) as ledger:
        job = f"{len(ledger.ids()) + 1:032x}"
        new = Job(
            job, f"{batch}/{number}", "batch", S.CLAIMED, (), at, at, values, batch, batch=cell
        )
        ledger.add(new)
        for state in [step for move in moves for step in way.get(move, (move,))]:
            at += 1
            ledger.move(job, state, now=at)
    return job


def test_batches_are_listed(options: PageOptions) -> None:
    """Each batch has the number of its jobs in each state; the latest comes first; one in the inbox is listed too."""
    visitor = client(options)
    add(options, "first", 0, S.DONE)
    add(options, "first", 1, S.QUEUED, S.CANCELLED)
    add(options, "second", 0, S.FAILED, at=20.0)
    add(options, "second", 1, at=21.0)
    (options.folders.inbox / "mine.batch.yaml").write_text("contents: '*'\nstyles: dots")
    (options.folders.results / "first").mkdir()
    (options.folders.results / "first" / "contact-sheet.jpg").write_bytes(b"a sheet")
    mine, second, first = visitor.get(BATCHES).json()["batches"]
    assert (mine["name"], mine["waiting"], mine["pictures"]) == ("mine", True, None)
    assert {k: n for k, n in second["counts"].items() if n} == {"failed": 1, "claimed": 1}
    assert {k: n for k, n in first["counts"].items() if n} == {"done": 1, "cancelled": 1}
    assert (first["created"], first["updated"], first["pictures"]) == (5.0, 10.0, 2)
    assert (first["waiting"], second["sheet"]) == (False, 0)
    version = (options.folders.results / "first" / "contact-sheet.jpg").stat().st_mtime_ns
    assert first["sheet"] == version // 1_000_000
    assert visitor.get(f"{BATCHES}/first").json() == first
    sheet = visitor.get(f"{BATCHES}/first/sheet", params={"v": first["sheet"]})
    assert "immutable" in sheet.headers["cache-control"]
    assert (sheet.content, sheet.headers["content-type"]) == (b"a sheet", "image/jpeg")
    for path in ("second/sheet", "third", "third/sheet", "../first", "%2e%2e/sheet"):
        assert visitor.get(f"{BATCHES}/{path}").status_code == 404, path


def test_a_refused_batch_is_listed(options: PageOptions) -> None:
    """It names the job with the reason, until the file is in the inbox again or accepted."""
    refused = "f" * 32
    with Ledger.open(options.folders.ledger) as ledger:
        ledger.add(Job(refused, "night", "batch-file", S.CLAIMED, (), 5.0, 5.0))
        ledger.move(refused, S.FAILED, now=6.0)
    visitor = client(options)
    (found,) = visitor.get(BATCHES).json()["batches"]
    assert (found["name"], found["refused"], found["pictures"]) == ("night", refused, None)
    assert (found["created"], found["updated"], set(found["counts"].values())) == (5.0, 6.0, {0})
    assert visitor.get(f"{BATCHES}/night").json() == found
    file = options.folders.inbox / "night.batch.yaml"
    file.write_text("contents: '*'\nstyles: dots")
    assert visitor.get(f"{BATCHES}/night").json()["refused"] == ""
    file.unlink()
    add(options, "night", 0, at=20.0)
    assert visitor.get(f"{BATCHES}/night").json()["refused"] == ""


def test_a_sheet_is_inside_of_the_results(options: PageOptions, tmp_path: Path) -> None:
    """A link to a sheet outside of results/ is not followed."""
    add(options, "first", 0, S.DONE)
    (tmp_path / "contact-sheet.jpg").write_bytes(b"secret")
    (options.folders.results / "first").symlink_to(tmp_path)
    assert not client(options).get(f"{BATCHES}/first").json()["sheet"]
    assert client(options).get(f"{BATCHES}/first/sheet").status_code == 404


def act(visitor: TestClient, **body: Any) -> Any:
    """Request an action."""
    return visitor.post("/api/v1/jobs/actions", json=body)


def test_a_whole_batch_is_cancelled(options: PageOptions) -> None:
    """Cancelling a batch requests it for its open jobs and removes its file; other batches stay."""
    visitor = client(options)
    assert visitor.post(BATCHES, json=request(visitor)).status_code == 201
    add(options, "night", 0, S.DONE)
    open_jobs = [add(options, "night", n, S.QUEUED) for n in (1, 2)]
    add(options, "other", 0, S.QUEUED)
    answer = act(visitor, action="cancel", batch="night")
    assert (answer.status_code, answer.json()) == (202, {"requested": open_jobs, "problems": []})
    assert not list(options.folders.inbox.iterdir())
    assert (options.folders.batches / "night").exists(), "its jobs have not ended"
    assert not visitor.get(f"{BATCHES}/night").json()["waiting"]
    answer = act(visitor, action="cancel", batch="night")
    assert (answer.status_code, answer.json()["error"]) == (
        409,
        "cancel is not possible for any job of the batch night",
    )


def test_a_batch_without_jobs_is_cancelled(options: PageOptions) -> None:
    """A batch that the daemon has not begun leaves nothing, so its name is free again."""
    visitor = client(options)
    assert visitor.post(BATCHES, json=request(visitor)).status_code == 201
    assert act(visitor, action="cancel", batch="night").status_code == 202
    assert visitor.get(f"{BATCHES}/night").status_code == 404
    assert visitor.post(BATCHES, json=request(visitor)).status_code == 201


def test_a_batch_file_of_a_person_is_not_removed(options: PageOptions) -> None:
    """A batch file that was dropped stays: it may be the only copy."""
    file = options.folders.inbox / "own.batch.yaml"
    file.write_text("contents: '*'\nstyles: dots")
    answer = act(client(options), action="cancel", batch="own")
    assert (answer.status_code, answer.json()["remedy"]) == (
        400,
        "move the file out of the inbox first",
    )
    assert file.exists()


def test_jobs_of_a_batch_in_a_state_are_retried(options: PageOptions) -> None:
    """With states and a batch only the jobs of the batch in these states are meant."""
    add(options, "night", 0, S.QUEUED)
    add(options, "other", 0, S.QUEUED)
    second = add(options, "night", 1, S.QUEUED)
    with Ledger.open(options.folders.ledger) as ledger:
        ledger.move(second, S.RUNNING, now=90.0)
    answer = act(client(options), action="priority", batch="night", states=["running"], priority=5)
    assert answer.json()["requested"] == [second]


def test_an_estimate_of_a_batch(options: PageOptions) -> None:
    """The time of a batch is that of its pictures, by the sizes of their contents and earlier pictures."""
    visitor = client(options)
    with Ledger.open(options.folders.ledger) as ledger:
        values = json.loads(json.dumps(asdict(resolve({"size": 400, "scales": [1.0]}))))
        ledger.add(Job("1" * 32, "x", "pair", S.CLAIMED, (), 1.0, 1.0, values))
        for state, at in (
            (S.QUEUED, 2.0),
            (S.RUNNING, 10.0),
            (S.STAGED, 30.0),
            (S.PUBLISHED, 30.0),
        ):
            ledger.move("1" * 32, state, now=at)
        ledger.move("1" * 32, S.DONE, now=31.0, result="x.png")
    (options.folders.results / "x.json").write_text('{"picture": {"width": 400, "height": 200}}')
    body = request(visitor, settings={"scales": [1.0]}, sweep={"size": [400, 800]})
    check = visitor.post(f"{BATCHES}/check", json=body).json()
    assert check["problems"] == []
    assert check["estimate"]["pictures"] == 8
    assert check["estimate"]["seconds"] == pytest.approx(4 * 20 + 4 * 80)


def test_a_batch_without_a_ledger(options: PageOptions) -> None:
    """A batch that was submitted is not answered with an error, although the ledger cannot be read."""
    options.folders.ledger.unlink()
    visitor = client(options)
    assert visitor.get(f"{BATCHES}/night").status_code == 503
    assert visitor.post(BATCHES, json=request(visitor)).status_code == 201


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("🎨" * 200, None),
        ("ü" * 200, None),
        ("x" * 200, None),
        ("night.batch", "night_batch"),
        ("x" * 193 + " . y", "x" * 193),
        (" x ", "x"),
        ("a/b", "a_b"),
        ("a\x00b\n", "a_b_"),
        ("..\\x", "__x"),
        ("check", "check"),
        ("2 $(id)", "2 $(id)"),
    ],
)
def test_names_are_made_safe(options: PageOptions, name: str, stored: str | None) -> None:
    """A batch of any name is found under the name of the response, and the daemon reads its file."""
    visitor = client(options)
    answer = visitor.post(BATCHES, json=request(visitor, name, sweep={}))
    assert answer.status_code == 201, answer.text
    found = answer.json()["name"]
    assert found == (stored or found)
    assert visitor.get(f"{BATCHES}/{quote(found, safe='')}").json() == answer.json()
    assert len(planned(options, found)) == 4
