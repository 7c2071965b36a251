"""Submissions: what is checked, and what is in the inbox afterwards."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from nst_daemon.intake.scan import Intake
from nst_daemon.jobs import Role
from nst_daemon.web.options import PageOptions
from tests.web.conftest import client, inbox, limited
from tests.web.test_uploads import png

JOBS, CHECK = "/api/v1/jobs", "/api/v1/jobs/check"
MISSING = "0" * 32


def upload(visitor: TestClient, name: str = "dog.png", data: bytes = b"") -> str:
    """Upload a picture. Returns its id."""
    answer = visitor.post("/api/v1/uploads", params={"name": name}, content=data or png())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def add_style(options: PageOptions, name: str, settings: str = "", pictures: int = 1) -> None:
    """A style of the library."""
    styles = options.folders.styles
    if pictures > 1:
        (styles / name).mkdir()
    for number in range(pictures):
        path = styles / name / f"{number}.png" if pictures > 1 else styles / f"{name}.png"
        path.write_bytes(png())
    if settings:
        (styles / f"{name}.yaml").write_text(settings)


def post(visitor: TestClient, **body: Any) -> tuple[int, Any]:
    """Submit jobs. Returns status and JSON of the response."""
    answer = visitor.post(JOBS, json=body)
    return answer.status_code, answer.json()


def settings_of(options: PageOptions, name: str) -> dict[str, Any]:
    """The settings file of a job in the inbox, without its id."""
    found = yaml.safe_load((options.folders.inbox / f"{name}.yaml").read_text())
    assert next(iter(found)) == "id"
    return {key: value for key, value in found.items() if key != "id"}


def scanned(options: PageOptions) -> dict[str, list[Role]]:
    """The jobs that the intake finds: the roles of the files of each, and nothing else is in the inbox."""
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
    seen = intake.scan(60, 60)
    assert not seen.rejections
    return {request.name: [file.role for file in request.files] for request in seen.requests}


def test_each_content_is_a_job(visitor: TestClient, options: PageOptions) -> None:
    """One submission has a job for each content, named like its file or as wished, with all styles and settings."""
    add_style(options, "starry")
    dog, waves = upload(visitor, "dog.JPG"), upload(visitor, "waves.png")
    code, found = post(
        visitor,
        contents=[{"upload": dog}, {"upload": dog}, {"upload": dog, "name": "cat"}],
        styles=[{"upload": waves}, {"library": "starry"}],
        settings={"size": 64, "format": "webp"},
        priority=3,
    )
    assert code == 201
    assert [job["name"] for job in found["jobs"]] == ["dog", "dog-2", "cat"]
    assert len({job["id"] for job in found["jobs"]}) == 3
    for job in found["jobs"]:
        text = (options.folders.inbox / f"{job['name']}.yaml").read_text()
        assert text.startswith((f"id: {job['id']}\n", f"id: '{job['id']}'\n"))
        assert settings_of(options, job["name"]) == {
            "size": 64,
            "format": "webp",
            "style": ["starry"],
            "priority": 3,
        }
    roles = [Role.CONTENT, Role.STYLE, Role.STYLE, Role.SETTINGS]
    found_roles = {name: sorted(found) for name, found in scanned(options).items()}
    assert found_roles == dict.fromkeys(("dog", "dog-2", "cat"), sorted(roles))


def test_uploads_can_be_used_again(visitor: TestClient, options: PageOptions) -> None:
    """The same uploads make a second job, and jobs keep their pictures when the uploads are deleted."""
    dog = upload(visitor)
    pair = {"contents": [{"upload": dog}], "styles": [{"upload": dog}]}
    assert post(visitor, **pair)[1]["jobs"][0]["name"] == "dog"
    assert post(visitor, **pair)[1]["jobs"][0]["name"] == "dog-2"
    visitor.delete(f"/api/v1/uploads/{dog}")
    assert post(visitor, **pair)[0] == 400
    assert set(scanned(options)) == {"dog", "dog-2"}


def test_masks(visitor: TestClient, options: PageOptions) -> None:
    """Masks of contents and styles are parts of the job."""
    dog = upload(visitor)
    masked = {"upload": dog, "mask": dog}
    assert post(visitor, contents=[masked], styles=[masked, masked])[0] == 201
    assert {name for name in inbox(options) if not name.endswith(".yaml")} == {
        "dog.content.png",
        "dog.content-mask.png",
        "dog.style-1.png",
        "dog.style-2.png",
        "dog.style-1-mask.png",
        "dog.style-2-mask.png",
    }
    (roles,) = scanned(options).values()
    assert roles.count(Role.STYLE_MASK) == 2


@pytest.mark.parametrize(
    ("content_mask", "style_mask", "expected"),
    [
        ("wide", "tall", []),
        ("tall", "tall", ["contents.0.mask: the mask of the content is 20 × 40 pixels"]),
        ("wide", "wide", ["styles.0.mask: the mask of style 1 is 40 × 20 pixels, but its picture"]),
        (None, "wide", []),
        (None, "tall", ["styles.0.mask: the mask of style 1 is 20 × 40 pixels, but the content"]),
    ],
)
def test_a_mask_has_the_proportions_of_its_picture(
    visitor: TestClient, content_mask: str | None, style_mask: str, expected: list[str]
) -> None:
    """A mask of a style is laid over the style if the content has a mask, else over the content."""
    sizes = {"wide": (40, 20), "tall": (20, 40)}
    files = {name: upload(visitor, f"{name}.png", png(size)) for name, size in sizes.items()}
    content = {"upload": files["wide"], "mask": content_mask and files[content_mask]}
    style = {"upload": files["tall"], "mask": files[style_mask]}
    answer = visitor.post(CHECK, json={"contents": [content], "styles": [style]})
    found = answer.json()["problems"]
    said = [f"{problem['field']}: {problem['error']}" for problem in found]
    assert len(said) == len(expected)
    assert all(map(str.startswith, said, expected))


def test_without_a_style_the_default_style_is_used(options: PageOptions) -> None:
    """A submission without a style takes default_style of the configuration."""
    add_style(options, "starry")
    config = replace(options.config, default_style="starry")
    visitor = client(replace(options, config=config))
    assert post(visitor, contents=[{"upload": upload(visitor)}])[0] == 201
    assert settings_of(options, "dog")["style"] == ["starry"]


def test_a_default_style_that_cannot_be_used_is_said(options: PageOptions) -> None:
    """If default_style of the configuration is not in the library, the error says where the name is from."""
    visitor = client(replace(options, config=replace(options.config, default_style="stary")))
    add_style(options, "starry")
    code, answer = post(visitor, contents=[{"upload": upload(visitor)}])
    assert (code, answer["field"]) == (400, "styles")
    assert answer["error"].startswith("default_style of the configuration: there is no style")


@pytest.mark.parametrize(
    ("weights", "written"),
    [([1, 2, 3], [2, 1, 3]), ([1, 2, 3, 4], [3, 1, 2, 4]), (None, None)],
)
def test_weights_belong_to_the_styles_in_their_order(
    visitor: TestClient, options: PageOptions, weights: list[int] | None, written: list[int] | None
) -> None:
    """A drop has uploaded styles before those of the library; the weights follow them."""
    add_style(options, "two", pictures=2)
    add_style(options, "one")
    dog = upload(visitor)
    styles = [{"library": "two"}, {"upload": dog}, {"library": "one"}]
    wanted = {"style_weights": weights} if weights else {}
    assert post(visitor, contents=[{"upload": dog}], styles=styles, settings=wanted)[0] == 201
    assert settings_of(options, "dog").get("style_weights") == written


PROBLEMS: list[tuple[dict[str, Any], str, str]] = [
    ({"contents": [{"upload": MISSING}]}, "contents.0.upload", "there is no upload"),
    ({"contents": [{"upload": "dog", "mask": MISSING}]}, "contents.0.mask", "no upload"),
    ({"styles": [{"upload": MISSING}]}, "styles.0.upload", "there is no upload"),
    ({"styles": [{"upload": "dog", "mask": MISSING}]}, "styles.0.mask", "there is no upload"),
    ({"styles": []}, "styles", "no default_style"),
    ({"styles": [{"library": "stary"}]}, "styles.0.library", "did you mean starry?"),
    ({"styles": [{"library": "linked"}]}, "styles.0.library", "cannot be used"),
    ({"styles": [{"library": "../starry"}]}, "styles.0.library", "there is no style"),
    ({"styles": [{"library": "badly"}]}, "styles", "styles/badly.yaml"),
    ({"styles": [{"upload": "dog"}] * 3 + [{"library": "many"}]}, "styles", "at most 32"),
    ({"contents": [{"upload": "dog", "mask": "dog"}]}, "styles.0.library", "cannot have a mask"),
    (
        {"styles": [{"upload": "dog", "mask": "dog"}, {"upload": "dog"}]},
        "styles.1.mask",
        "style 2 has no mask",
    ),
    ({"settings": {"sise": 64}}, "settings.sise", "did you mean size?"),
    ({"settings": {"size": 0}}, "settings.size", "a whole number ≥ 1"),
    ({"settings": {"start": "given"}}, "settings.start", "no picture to start with"),
    ({"settings": {"seed": 2**63}}, "settings.seed", "from 0 to 9223372036854775807"),
    ({"settings": {"size": True}}, "settings.size", "a whole number ≥ 1"),
    ({"settings": {"style": "starry"}}, "settings.style", "unknown setting"),
    ({"settings": {"priority": 1}}, "settings.priority", "unknown setting"),
    ({"settings": {"id": MISSING}}, "settings.id", "unknown setting"),
    ({"settings": {"render": {"size": 64}}}, "settings.render", "no sections"),
    ({"settings": {"format": "bmp"}}, "settings.format", "write png"),
    ({"settings": {"format": "jpg", "depth": 16}}, "settings", "set depth to 8"),
    ({"settings": {"style_weights": [1, 2]}}, "settings.style_weights", "one for the style"),
    ({"settings": {"style_weights": [-1]}}, "settings.style_weights", "≥ 0"),
    ({"contents": [{"upload": "dog", "name": "~dog"}]}, "contents.0.name", "another name"),
]


@pytest.mark.parametrize("case", PROBLEMS, ids=lambda case: f"{case[1]}: {case[2]}")
def test_what_cannot_be_painted_is_refused(
    visitor: TestClient, options: PageOptions, case: tuple[dict[str, Any], str, str]
) -> None:
    """Each problem is an error that names its part of the request, also of the check, and nothing is submitted."""
    changed, field, said = case
    add_style(options, "starry")
    add_style(options, "badly", "sise: 64")
    add_style(options, "many", pictures=30)
    (options.folders.styles / "linked.png").symlink_to("/etc/hosts")
    dog = upload(visitor)
    whole = {"contents": [{"upload": "dog"}], "styles": [{"library": "starry"}], **changed}
    body = _with_upload(whole, dog)
    before = inbox(options)
    code, answer = post(visitor, **body)
    assert (code, answer["field"], said in answer["error"]) == (400, field, True), answer
    checked = visitor.post(CHECK, json=body)
    assert checked.status_code == 200
    assert checked.json()["problems"][0] == answer
    assert inbox(options) == before == {}


def _with_upload(value: Any, upload_id: str) -> Any:
    """The value with the id of the upload in place of "dog"."""
    if isinstance(value, dict):
        return {key: _with_upload(inner, upload_id) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_upload(inner, upload_id) for inner in value]
    return upload_id if value == "dog" else value


def test_the_check_tells_every_problem_at_once(visitor: TestClient, options: PageOptions) -> None:
    """One check names every part of the request that is wrong, and what the request would paint."""
    body = {
        "contents": [{"upload": MISSING}, {"upload": MISSING, "name": ".part"}],
        "styles": [{"library": "nowhere"}],
        "settings": {"sise": 1, "content_weight": -1, "format": "bmp"},
    }
    found = visitor.post(CHECK, json=body).json()
    assert [problem["field"] for problem in found["problems"]] == [
        "contents.0.upload",
        "contents.1.upload",
        "styles.0.library",
        "settings.sise",
        "settings.content_weight",
        "settings.format",
    ]
    assert found["estimate"] == {"pictures": 2, "seconds": None}
    assert inbox(options) == {}


INVALID: list[tuple[dict[str, Any], str]] = [
    ({}, "contents"),
    ({"contents": []}, "contents"),
    ({"contents": [{"upload": MISSING}] * 201}, "contents"),
    ({"contents": [{"upload": "../x"}]}, "contents.0.upload"),
    ({"contents": [{"upload": MISSING}], "size": 64}, "size"),
    ({"contents": [{"upload": MISSING, "size": 64}]}, "contents.0.size"),
    ({"contents": [{"upload": MISSING}], "styles": [{}]}, "styles.0"),
    (
        {"contents": [{"upload": MISSING}], "styles": [{"library": "a", "upload": MISSING}]},
        "styles.0",
    ),
    ({"contents": [{"upload": MISSING}], "priority": 1001}, "priority"),
    ({"contents": [{"upload": MISSING, "name": "x" * 201}]}, "contents.0.name"),
]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case[1])
def test_a_body_of_another_form_is_refused(
    visitor: TestClient, options: PageOptions, case: tuple[dict[str, Any], str]
) -> None:
    """Unknown keys and values of other types are errors that name the key."""
    body, field = case
    for url in (JOBS, CHECK):
        answer = visitor.post(url, json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert answer.json()["error"]
    assert inbox(options) == {}


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"contents=1", "application/x-www-form-urlencoded", "not a JSON object"),
        (b"{}", "text/plain", "not a JSON object"),
        (b"[]", "application/json", "not a JSON object"),
        (b"{", "application/json", "not valid JSON"),
        (b"[" * 100_000, "application/json", "body"),
        (b'{"contents": [{"name": "\\ud800"}]}', "application/json", "contents.0"),
        (b'{"priority": ' + b"9" * 5000 + b"}", "application/json", "body"),
        (b'{"priority": NaN}', "application/json", ""),
        (b"\xff\xfe", "application/json", "body"),
        (b"", "application/json", "there is no body"),
    ],
)
def test_a_body_that_is_not_json_is_refused(
    visitor: TestClient, body: bytes, kind: str, said: str
) -> None:
    """A body of another type, and invalid JSON, are errors with a reason."""
    answer = visitor.post(JOBS, content=body, headers={"Content-Type": kind})
    assert answer.status_code in {400, 422}
    assert said in answer.json()["error"]


def test_a_setting_in_the_query_is_refused(visitor: TestClient, options: PageOptions) -> None:
    """`?size=64` is an error, and it is not ignored."""
    dog = upload(visitor)
    body = {"contents": [{"upload": dog}], "styles": [{"upload": dog}]}
    for url in (JOBS, CHECK):
        answer = visitor.post(f"{url}?size=64", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "size")
    assert inbox(options) == {}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../../etc/passwd", "__.._.._etc_passwd"),
        ("/etc/cron.d/dog", "_etc_cron.d_dog"),
        (".hidden", "_hidden"),
        ("line\nbreak", "line_break"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("Ünïcode “q”", "Ünïcode “q”"),
        ("a\\b\0c", "a_b_c"),
        ("night.batch", "night_batch"),
        (" ", "_"),
        ("style", "style"),
        ("dog.content", "dog.content"),
        ("dog_style", "dog_style"),
        ("dog.style-2", "dog.style-2"),
        ("dog.mask", "dog.mask"),
        ("job", "job"),
        ("dog.yaml", "dog.yaml"),
        ("é" * 200, "é" * 97),
    ],
)
def test_a_job_of_any_name_is_one_job(
    visitor: TestClient, options: PageOptions, given: str, name: str
) -> None:
    """A job of any name is directly in the inbox under a safe name, and the intake takes it as one job."""
    dog = upload(visitor)
    before = {p for p in options.folders.root.rglob("*") if options.folders.inbox not in p.parents}
    content = {"upload": dog, "name": given}
    body = {"contents": [content, content], "styles": [{"upload": dog}]}
    # JSON in ASCII: surrogates as escapes.
    sent = json.dumps(body).encode()
    answer = visitor.post(JOBS, content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert [job["name"] for job in answer.json()["jobs"]] == [name, f"{name}-2"]
    assert all("/" not in path and path.isprintable() for path in inbox(options))
    after = {p for p in options.folders.root.rglob("*") if options.folders.inbox not in p.parents}
    assert before == after
    found = scanned(options)
    assert len(found) == 2
    assert {tuple(sorted(roles)) for roles in found.values()} == {("content", "settings", "style")}


def test_all_jobs_or_none(options: PageOptions) -> None:
    """If the disk has no room for one of the jobs, none of them is submitted."""
    roomy = client(options)
    dog = upload(roomy)
    full = client(limited(options, min_free_disk=1 << 62))
    code, answer = post(full, contents=[{"upload": dog}] * 3, styles=[{"upload": dog}])
    assert (code, "min_free_disk" in answer["error"]) == (507, True)
    assert inbox(options) == {}


def test_jobs_that_are_submitted_at_once_have_names_of_their_own(
    visitor: TestClient, options: PageOptions
) -> None:
    """Of jobs of one name that are submitted side by side, each has its own files, also while uploads are deleted."""
    dog = upload(visitor)
    body = {"contents": [{"upload": dog}] * 2, "styles": [{"upload": dog}]}

    def send(number: int) -> Any:
        if number == 5:
            visitor.delete(f"/api/v1/uploads/{dog}")  # 204, or 409 while it is used
        return visitor.post(JOBS, json=body)

    answers = [send(0)]
    with ThreadPoolExecutor(8) as pool:
        answers += pool.map(send, range(12))
    jobs = [job for a in answers if a.status_code == 201 for job in a.json()["jobs"]]
    assert {answer.status_code for answer in answers} <= {201, 400, 404}
    assert len(inbox(options)) == 3 * len(jobs) >= 3 * 2
    for job in jobs:
        text = (options.folders.inbox / f"{job['name']}.yaml").read_text()
        assert yaml.safe_load(text)["id"] == job["id"]


def test_a_folder_that_is_missing_is_said(visitor: TestClient, options: PageOptions) -> None:
    """Without the inbox the error names it, its cause and the remedy."""
    dog = upload(visitor)
    options.folders.inbox.rmdir()
    code, answer = post(visitor, contents=[{"upload": dog}], styles=[{"upload": dog}])
    assert code == 507
    assert answer["error"] == f"{options.folders.inbox} does not exist; mount it or create it"


def test_an_estimate(visitor: TestClient, options: PageOptions) -> None:
    """Without earlier pictures the time is unknown; the number of pictures is that of the contents."""
    dog = upload(visitor)
    body = {"contents": [{"upload": dog}] * 2, "styles": [{"upload": dog}]}
    found = visitor.post(CHECK, json=body).json()
    assert found == {"problems": [], "estimate": {"pictures": 2, "seconds": None}}
    assert inbox(options) == {}
