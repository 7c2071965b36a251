"""Styles of the library: listed, shown, and made from uploads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nst_daemon.files import remove_parts
from nst_daemon.web.options import PageOptions
from tests.web.conftest import client, limited
from tests.web.test_submissions import MISSING, add_style, upload
from tests.web.test_uploads import png

URL = "/api/v1/styles"


def post(visitor: TestClient, name: str, uploads: Sequence[str], **settings: Any) -> Any:
    """Make a style."""
    body = {"name": name, "uploads": uploads, "settings": settings}
    return visitor.post(URL, json=body)


def files(options: PageOptions) -> dict[str, bytes]:
    """Every file in the library, hidden ones too."""
    folder = options.folders.styles
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_styles_are_listed_and_shown(visitor: TestClient, options: PageOptions) -> None:
    """Every style is listed with its settings and pictures, and has a thumbnail; a bad one has its problem."""
    add_style(options, "<b>starry", "size: 64")
    add_style(options, "two", pictures=2)
    (options.folders.styles / "linked.png").symlink_to("/etc/hosts")
    found = {style["name"]: style for style in visitor.get(URL).json()}
    assert found["<b>starry"] | {"version": 0} == {
        "name": "<b>starry",
        "pictures": 1,
        "problem": "",
        "settings": {"size": 64},
        "version": 0,
    }
    assert found["<b>starry"]["version"] > 0
    assert found["two"]["pictures"] == 2
    assert "symbolic link" in found["linked"]["problem"]
    for name, code in (("%3Cb%3Estarry", 200), ("two", 200), ("linked", 404), ("none", 404)):
        assert visitor.get(f"{URL}/{name}/thumbnail").status_code == code, name


@pytest.mark.parametrize("name", ["..%2f..%2fsecret", "%2e%2e%2fstate%2fledger.sqlite", "secret"])
def test_no_name_leads_out_of_the_library(
    visitor: TestClient, options: PageOptions, tmp_path: Path, name: str
) -> None:
    """The thumbnail of a strange name, and of a picture that cannot be decoded, is missing."""
    (tmp_path / "secret.png").write_bytes(png())
    (options.folders.styles / "damaged.png").write_bytes(b"no picture")
    assert visitor.get(f"{URL}/{name}/thumbnail").status_code == 404
    assert visitor.get(f"{URL}/damaged/thumbnail").status_code == 404


def test_an_upload_becomes_a_style(visitor: TestClient, options: PageOptions) -> None:
    """One picture is NAME.SUFFIX in the library, and its settings are NAME.yaml."""
    waves = upload(visitor, "any.PNG")
    answer = post(visitor, "Ünïcode “q”", [waves], size=64, keep_colors="pca")
    assert answer.status_code == 201
    assert answer.json()["settings"] == {"size": 64, "keep_colors": "pca"}
    assert set(files(options)) == {"Ünïcode “q”.png", "Ünïcode “q”.yaml"}
    assert files(options)["Ünïcode “q”.png"] == png()
    assert visitor.get(URL).json() == [answer.json()]


def test_several_uploads_become_a_folder(visitor: TestClient, options: PageOptions) -> None:
    """Several pictures are a folder in their order, also the same one twice and one with an odd name."""
    ids = [upload(visitor, name) for name in ("z.png", "a.png", "~b.png")]
    answer = post(visitor, "three", [*ids, ids[0]], style_weights=[1, 2, 3, 4])
    assert (answer.status_code, answer.json()["pictures"]) == (201, 4)
    assert answer.json()["problem"] == ""
    assert [name for name in files(options) if "/" in name and "z" in name]
    assert sorted(files(options)) == [
        "three.yaml",
        "three/1-z.png",
        "three/2-a.png",
        "three/3-~b.png",
        "three/4-z.png",
    ]


@pytest.mark.parametrize("taken", ["starry.png", "starry.yaml", "starry/x.png", "Starry.jpg"])
def test_a_name_that_is_in_use_is_a_conflict(
    visitor: TestClient, options: PageOptions, taken: str
) -> None:
    """A style never replaces or changes another one, also one whose name has other capitals."""
    path = options.folders.styles / taken
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png())
    before, waves = files(options), upload(visitor)
    for uploads in ([waves], [waves, waves]):
        answer = post(visitor, "starry", uploads, size=64)
        assert (answer.status_code, "already" in answer.json()["error"]) == (409, True)
    assert files(options) == before


def test_of_styles_of_one_name_one_is_made(visitor: TestClient, options: PageOptions) -> None:
    """Of requests for the same name side by side, one is done and the others are conflicts."""
    waves = upload(visitor)

    def send(number: int) -> int:
        uploads = [waves] * (1 + number % 2)
        return int(post(visitor, "new", uploads, size=64 + number).status_code)

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(send, range(12)))
    assert codes == [201] + [409] * 11
    assert len({path.split("/")[0] for path in files(options)}) == 2


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/cron.d/x", "__.._etc_cron.d_x"),
        ("/etc/x", "_etc_x"),
        (".hidden", "_hidden"),
        ("line\nbreak", "line_break"),
        ("v1.2", "v1.2"),
        ("a.yaml", "a.yaml"),
        ("a.png", "a.png"),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_names_are_made_safe(
    visitor: TestClient, options: PageOptions, given: str, name: str, number: int
) -> None:
    """A style of any name is directly in the library under a safe name, and it can be used."""
    answer = post(visitor, given, [upload(visitor)] * number, size=64)
    assert (answer.status_code, answer.json()["name"]) == (201, name)
    assert answer.json()["problem"] == ""
    assert {part.split("/")[0] for part in files(options)} <= {name, f"{name}.png", f"{name}.yaml"}
    assert len(visitor.get(URL).json()) == 1


REFUSED: list[tuple[str, list[str], dict[str, Any], int, str, str]] = [
    ("new", [MISSING], {}, 400, "uploads.0", "there is no upload"),
    ("~new", ["dog"], {}, 400, "", "temporary file"),
    ("new.part", ["dog"] * 2, {}, 400, "", "temporary file"),
    ("new", ["dog"], {"sise": 1}, 400, "settings.sise", "did you mean size?"),
    ("new", ["dog"], {"size": -1}, 400, "settings.size", "a whole number"),
    ("new", ["dog"], {"priority": 1}, 400, "settings.priority", "unknown setting"),
    ("new", ["dog"] * 2, {"style_weights": [1]}, 400, "settings.style_weights", "list of 2"),
    ("new", ["dog"] * 33, {}, 422, "uploads", "32"),
    ("new", [], {}, 422, "uploads", "1"),
    ("", ["dog"], {}, 422, "name", "is empty"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0]} {case[5]}")
def test_a_style_that_cannot_be_used_is_refused_and_leaves_nothing(
    visitor: TestClient,
    options: PageOptions,
    case: tuple[str, list[str], dict[str, Any], int, str, str],
) -> None:
    """A style that the daemon would refuse is an error that names its part of the request."""
    name, uploads, settings, code, field, said = case
    dog = upload(visitor)
    answer = post(visitor, name, [dog if u == "dog" else u for u in uploads], **settings)
    assert (answer.status_code, answer.json()["field"]) == (code, field), answer.text
    assert said in answer.json()["error"]
    assert files(options) == {}


def test_a_full_disk_leaves_nothing(options: PageOptions) -> None:
    """A style that would leave less than limits.min_free_disk is refused."""
    dog = upload(client(options))
    full = client(limited(options, min_free_disk=1 << 62))
    assert post(full, "new", [dog]).status_code == 507
    assert files(options) == {}


def test_what_was_not_completed_is_removed(options: PageOptions) -> None:
    """A hidden file or folder of a style that was not completed is removed, and nothing else."""
    styles = options.folders.styles
    (styles / f".{'a' * 16}.part").write_bytes(b"half")
    (styles / f".{'b' * 16}.part").mkdir()
    (styles / f".{'b' * 16}.part" / "1-x.png").write_bytes(b"half")
    (styles / ".other.part").write_bytes(b"of another program")
    remove_parts(styles, 0)
    assert len(files(options)) == 3
    remove_parts(styles, 1e12)
    assert set(files(options)) == {".other.part"}
