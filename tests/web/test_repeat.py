"""Jobs that are painted again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from httpx2 import Response
from starlette.testclient import TestClient

from nst_daemon.engine.settings import resolve
from nst_daemon.intake.archive import CARD, card_json
from nst_daemon.jobs import Changes, JobInput, Role
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.web.options import PageOptions
from nst_daemon.weights_file import configured_weights
from tests.web.conftest import add, client, inbox, limited, picture

API = "/api/v1"


@pytest.fixture
def options(options: PageOptions) -> PageOptions:
    """A page whose limit allows the pictures of these tests."""
    return limited(options, max_bytes=1_000_000)


@pytest.fixture
def visitor(options: PageOptions) -> TestClient:
    """A visitor of the page."""
    return client(options)


def given(path: Path, role: Role, spooled: str) -> JobInput:
    """The input that this file is."""
    data = path.read_bytes()
    return JobInput(role, path.name, spooled, hashlib.sha256(data).hexdigest(), len(data))


def done(options: PageOptions, name: str = "holiday/dog", **fields: object) -> str:
    """A finished job with its content in done/ and its style in the library. Returns its id."""
    folder = options.folders.done / "dog"
    picture(folder / "dog.png", (64, 32))
    picture(options.folders.styles / "dots.png", (32, 32))
    inputs = (
        given(folder / "dog.png", Role.CONTENT, "dog.png"),
        given(options.folders.styles / "dots.png", Role.STYLE, "dots.png"),
    )
    config = options.config
    weights = configured_weights(config.model, config.folders.cache).sha256
    settings = asdict(resolve({"size": 64, "seed": 7}))
    values = {"settings": settings, "outputs": {"format": "png", "depth": 8, "quality": 90}}
    values |= {"inputs": inputs, "weights": weights, "archive": "dog", "result": "dog.png"}
    return add(options, name, **(values | fields))  # type: ignore[arg-type]


def repeat(visitor: TestClient, job: str, **body: object) -> Response:
    """The response to the request to paint a job again."""
    return visitor.post(f"{API}/jobs/{job}/repeat", json=body)


def test_a_job_is_submitted_again_with_its_inputs_and_settings(
    visitor: TestClient, options: PageOptions
) -> None:
    """The inbox gets the same pictures and settings under a name without a folder, and the id of the response."""
    answer = repeat(visitor, done(options))
    assert answer.status_code == 201, answer.text
    (job,) = answer.json()["jobs"]
    assert job["name"] == "holiday-dog"
    files = inbox(options)
    assert files["holiday-dog.content.png"] == (options.folders.done / "dog/dog.png").read_bytes()
    assert files["holiday-dog.style.png"] == (options.folders.styles / "dots.png").read_bytes()
    settings = yaml.safe_load(files["holiday-dog.yaml"])
    assert settings["id"] == job["id"]
    assert (settings["size"], settings["seed"], settings["format"]) == (64, 7, "png")


def test_a_job_is_repeated_with_changes(visitor: TestClient, options: PageOptions) -> None:
    """Settings are replaced and removed, and so are the styles, the name and the priority."""
    job = done(options)
    picture(options.folders.styles / "lines.png", (16, 16))
    styles = [{"library": "lines"}, {"library": "dots"}]
    body = {"set": {"size": 80, "format": "jpg"}, "unset": ["seed"], "styles": styles}
    answer = repeat(visitor, job, **body, name="cat", priority=5)
    assert answer.status_code == 201, answer.text
    files = inbox(options)
    assert files.keys() == {"cat.yaml", "cat.content.png"}
    settings = yaml.safe_load(files["cat.yaml"])
    assert (settings["size"], settings["format"], settings["priority"]) == (80, "jpg", 5)
    assert settings["style"] == ["lines", "dots"]
    assert "seed" not in settings


def test_a_job_that_began_with_a_picture_is_repeated(
    visitor: TestClient, options: PageOptions
) -> None:
    """The picture is submitted with it, unless the new job has another start."""
    start, content = (
        options.folders.done / "dog" / "first.png",
        options.folders.done / "dog/dog.png",
    )
    picture(start, (8, 8))
    picture(content, (64, 32))
    inputs = (given(content, Role.CONTENT, "dog.png"), given(start, Role.START, "first.png"))
    settings = asdict(resolve({"size": 64, "start": "given"}))
    picture(options.folders.styles / "dots.png", (32, 32))
    inputs += (given(options.folders.styles / "dots.png", Role.STYLE, "dots.png"),)
    started = done(options, inputs=inputs, settings=settings)
    assert repeat(visitor, started, name="a").status_code == 201
    assert "a.start.png" in inbox(options)
    assert repeat(visitor, started, name="b", set={"start": "noise"}).status_code == 201
    assert not any(name.startswith("b.start") for name in inbox(options))


def masked(options: PageOptions) -> str:
    """A finished job of a content and two styles, with masks: its inputs 0 to 5. Returns its id."""
    folder = options.folders.done / "dog"
    roles = {"photo": Role.CONTENT, "a": Role.STYLE, "b": Role.STYLE, "areas": Role.CONTENT_MASK}
    roles |= {"of-a": Role.STYLE_MASK, "of-b": Role.STYLE_MASK}
    for number, name in enumerate(roles):
        picture(folder / f"{name}.png", (64, 33 + number))
    inputs = (given(folder / f"{name}.png", role, f"{name}.png") for name, role in roles.items())
    settings = asdict(resolve({"size": 64, "style_weights": [1, 2]}))
    return done(options, name="dog", inputs=tuple(inputs), settings=settings)


BOTH = {"style-1": "a", "style-2": "b", "style-1-mask": "of-a", "style-2-mask": "of-b"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, BOTH | {"content-mask": "areas"}),
        ({"content_mask": "new"}, BOTH | {"content-mask": "new"}),
        ({"styles": [{"input": 1}]}, {"style": "a"}),
        (
            {"styles": [{"input": 2, "mask": 5}, {"upload": "new", "mask": "new"}]},
            {"style-1": "b", "style-2": "new", "style-1-mask": "of-b", "style-2-mask": "new"},
        ),
        (
            {"styles": [{"upload": "new", "mask": "new"}], "content_mask": 3},
            {"style": "new", "content-mask": "areas", "style-mask": "new"},
        ),
    ],
)
def test_styles_and_masks_of_a_repeated_job(
    visitor: TestClient, options: PageOptions, body: dict[str, object], expected: dict[str, str]
) -> None:
    """Without styles, those of the earlier job and all masks stay; else the masks are those of the request."""
    job, folder = masked(options), options.folders.done / "dog"
    picture(folder / "new.png", (128, 66))
    data = (folder / "new.png").read_bytes()
    uploaded = visitor.post(f"{API}/uploads", params={"name": "new.png"}, content=data).json()["id"]
    answer = repeat(visitor, job, **json.loads(json.dumps(body).replace('"new"', f'"{uploaded}"')))
    assert answer.status_code == 201, answer.text
    names = {path.read_bytes(): path.stem for path in folder.iterdir()}
    files = inbox(options)
    weights = yaml.safe_load(files.pop("dog.yaml")).get("style_weights")
    found = {name.split(".")[1]: names[content] for name, content in files.items()}
    assert found == {"content": "photo"} | expected
    assert weights == (None if "styles" in body else [1, 2])


def test_a_new_mask_has_the_proportions_of_the_earlier_picture(
    visitor: TestClient, options: PageOptions
) -> None:
    """An uploaded mask is compared with the content of the earlier job."""
    job, wrong = masked(options), options.folders.root / "wrong.png"
    picture(wrong, (64, 50))
    answer = visitor.post(
        f"{API}/uploads", params={"name": "wrong.png"}, content=wrong.read_bytes()
    )
    refused = repeat(visitor, job, content_mask=answer.json()["id"])
    assert (refused.status_code, refused.json()["field"]) == (400, "content_mask")
    assert "is 64 × 50 pixels, but its picture is 64 × 33" in refused.json()["error"]


@pytest.mark.parametrize(
    ("body", "expected", "words"),
    [
        ({"set": {"size": -1}}, (400, "set.size"), "size"),
        ({"set": {"start": "given"}}, (400, "set.start"), "no picture to start with"),
        ({"set": {"seeed": 1}}, (400, "set.seeed"), "did you mean seed?"),
        ({"set": {"size": 64}, "unset": ["size"]}, (400, ""), "both set and unset"),
        ({"styles": [{"library": "none"}]}, (400, "styles.0.library"), "none"),
        ({"styles": [{"upload": "0" * 32}]}, (400, "styles.0.upload"), "no upload"),
        (
            {"styles": [{"input": 0}]},
            (400, "styles.0.input"),
            "input 0 of holiday/dog is not a style",
        ),
        ({"styles": [{"input": 1, "mask": 9}]}, (400, "styles.0.mask"), "is not a style mask"),
        ({"styles": [{"input": 1, "mask": "x"}]}, (422, "styles.0.mask"), ""),
        ({"content_mask": "0" * 32}, (400, "content_mask"), "no upload"),
        ({"content_mask": 0}, (400, "content_mask"), "is not a content mask"),
        ({"name": "~dog"}, (400, "name"), "temporary file"),
        ({"priority": 1001}, (422, "priority"), ""),
        ({"sets": {}}, (422, "sets"), ""),
    ],
)
def test_changes_that_are_not_possible(
    visitor: TestClient,
    options: PageOptions,
    body: dict[str, object],
    expected: tuple[int, str],
    words: str,
) -> None:
    """What the daemon would refuse is refused at once, with the part of the request, and nothing is submitted."""
    answer = repeat(visitor, done(options), **body)
    assert (answer.status_code, answer.json()["field"]) == expected, answer.text
    assert words in answer.json()["error"]
    assert inbox(options) == {}


def test_other_weights_must_be_allowed(visitor: TestClient, options: PageOptions) -> None:
    """A picture of other weights is repeated only if the request says so."""
    job = done(options, weights="0" * 64)
    refused = repeat(visitor, job)
    assert (refused.status_code, refused.json()["field"]) == (400, "other_weights")
    assert inbox(options) == {}
    assert repeat(visitor, job, other_weights=True).status_code == 201


def test_a_job_whose_inputs_are_gone_is_not_repeated(
    visitor: TestClient, options: PageOptions
) -> None:
    """The response names the input that is gone; a job that was refused before has no settings."""
    job = done(options)
    (options.folders.done / "dog" / "dog.png").unlink()
    answer = repeat(visitor, job)
    assert answer.status_code == 409
    assert "dog.png of holiday/dog" in answer.json()["cause"]
    refused = add(options, "refused", error="no")
    assert repeat(visitor, refused).status_code == 409
    assert repeat(visitor, "0" * 32).status_code == 404
    assert inbox(options) == {}


def test_a_refused_job_is_painted_in_another_style(
    visitor: TestClient, options: PageOptions
) -> None:
    """Its settings are those of its file with the changes of retries, without the styles that were refused."""
    folder = options.folders.failed / "dog"
    picture(folder / "dog.png", (64, 32))
    picture(options.folders.styles / "dots.png", (32, 32))
    (folder / "dog.yaml").write_text("id: 1\nstyle: none\npriority: 3\nsize: 64\nformat: webp\n")
    names = {"dog.png": Role.UNKNOWN, "dog.yaml": Role.SETTINGS}
    inputs = tuple(
        JobInput(role, name, name, "", (folder / name).stat().st_size, name)
        for name, role in names.items()
    )
    changes = Changes({"seed": 7}, ("format",))
    job = add(options, "dog", error="no style", inputs=inputs, archive="dog", changes=changes)
    with LedgerReader.attach(options.folders.ledger) as ledger:
        (failed,) = ledger.find("dog")
    (folder / CARD).write_bytes(card_json(failed))
    refused = repeat(visitor, job)
    assert (refused.status_code, "choose styles" in refused.json()["remedy"]) == (409, True)
    answer = repeat(visitor, job, styles=[{"library": "dots"}], unset=["size"])
    assert answer.status_code == 201, answer.text
    settings = yaml.safe_load(inbox(options)["dog.yaml"])
    settings.pop("id")
    assert settings == {"seed": 7, "style": ["dots"]}
    assert "dog.content.png" in inbox(options)
