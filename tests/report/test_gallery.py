"""The page of all results: its contents and its safety."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from benchmarks.drawings import draw_scene
from nst_daemon.report import gallery
from nst_daemon.report.sidecar import ADDED_LATER
from tests.report.conftest import Root, drawn

HOSTILE = [
    "<script>alert(1)<_script>",
    "Ünïcode “quotes”",
    "</script><!--",
    "a&b'c\"d",
    "100% #1?",
    "javascript:alert(1)",
    "{{DATA}}",
    "-rf $(reboot) `x`",
]


def entries(root: Root) -> list[dict[str, Any]]:
    """The entries of the page, in order."""
    found: Any = root.data()["entries"]
    return list(found)


@pytest.mark.parametrize("name", [n for n in HOSTILE if "/" not in n])
def test_names_are_shown_as_they_are_and_lead_to_the_files(root: Root, name: str) -> None:
    """The page shows any name unchanged, its links lead to the files, and its command to the sidecar."""
    picture = root.add(name, content=f"{name}.jpg", style=f"{name}.png", extras=True)
    (entry,) = entries(root)
    assert entry["name"] == name
    assert entry["contents"][0][0] == f"{name}.jpg"
    for key, path in (
        ("picture", picture),
        ("json", picture.with_name(f"{name}.json")),
        ("curve", picture.with_name(f"{name}.loss.png")),
        ("lapse", picture.with_name(f"{name}.progress.webp")),
    ):
        assert re.fullmatch(r"[\w.~%-]+", entry[key]), "nothing in an address means anything"
        assert root.results / unquote(entry[key]) == path
        assert path.is_file()
    words = shlex.split(entry["command"])
    assert words == ["nst-daemon", "rerun", str(picture.with_name(f"{name}.json"))]


def test_no_name_or_note_becomes_part_of_the_page(root: Root) -> None:
    """With hostile names, inputs, notes and settings the page has the same elements as with plain ones."""

    class Elements(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[object] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found.append((tag, attrs))

        handle_endtag = handle_comment = lambda self, data: self.found.append(data)

    def elements() -> list[object]:
        parser = Elements()
        parser.feed(root.write().read_text(encoding="utf-8"))
        return parser.found

    root.add("plain")
    plain = elements()
    for i, name in enumerate(HOSTILE):
        path = root.add(f"job{i}", content=name, style=name, notes=[name, "<img src=x onerror=y>"])
        sidecar = json.loads(path.with_suffix(".json").read_bytes())
        sidecar["settings"]["</script><b>"] = sidecar["finished"] = "</script><b>"
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    assert elements() == plain


def test_the_policy_allows_this_page_alone(root: Root) -> None:
    """The Content-Security-Policy names the page's own script and style by digest, pictures beside it, nothing else."""
    root.add()
    text = root.write().read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)

    def digest(code: str) -> str:
        return f"'sha256-{b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "'self' file:",
        "style-src": digest(style),
        "script-src": digest(script),
    }
    code = text.split('<script id="data"')[0] + script
    assert "http://" not in code
    assert "https://" not in code
    assert "innerHTML" not in code


def test_the_newest_comes_first(root: Root) -> None:
    """Results are listed by the end of their painting, newest first, with their folder."""
    for name in ("b", "starry/x", "a", "night/sub/y"):
        (root.results / name).parent.mkdir(parents=True, exist_ok=True)
        root.add(name)
    assert [(e["group"], e["name"]) for e in entries(root)] == [
        ("night/sub", "y"),
        ("", "a"),
        ("starry", "x"),
        ("", "b"),
    ]


def test_thumbnails_are_made_once_and_outlive_the_inputs(root: Root) -> None:
    """Inputs are found in done/ and in the library; their thumbnails are made once and kept without the inputs."""
    root.size = (400, 300)
    root.add("starry/x", hot=True, style="starry.png")
    first = entries(root)
    made = {p.name: p.stat().st_mtime_ns for p in (root.results / gallery.THUMBNAILS).iterdir()}
    keys = [first[0]["key"], first[0]["contents"][0][1], first[0]["styles"][0][1]]
    names = {f"{key}-{gallery.THUMBNAIL_SIDE}.webp" for key in keys}
    assert set(made) == names | {f"{keys[1]}-{gallery.SLIDER_SIDE}.webp"}
    for name in names:
        with Image.open(root.results / gallery.THUMBNAILS / name) as image:
            assert max(image.size) == gallery.THUMBNAIL_SIDE
    for path in [*(root.folder / "done").rglob("*"), *(root.folder / "styles").iterdir()]:
        if path.is_file():
            path.unlink()
    assert entries(root) == first
    again = {p.name: p.stat().st_mtime_ns for p in (root.results / gallery.THUMBNAILS).iterdir()}
    assert again == made


def test_inputs_that_are_gone_are_left_out(root: Root) -> None:
    """A result without its inputs is listed with their names and no thumbnails."""
    root.add()
    for path in (root.folder / "done" / "dog").iterdir():
        path.unlink()
    (entry,) = entries(root)
    assert entry["contents"] == [["dog.content.jpg", ""]]
    assert entry["key"]


def test_thumbnails_of_what_is_gone_are_removed_later(root: Root) -> None:
    """An unused thumbnail is removed after an hour; other files are kept."""
    picture = root.add()
    root.write()
    mine = root.results / gallery.THUMBNAILS / "notes.txt"
    mine.touch()
    for path in (picture, picture.with_suffix(".json")):
        path.unlink()
    root.write()
    made = list(mine.parent.iterdir())
    assert len(made) > 1
    for path in made:
        os.utime(path, (time.time() - 3700,) * 2)
    root.write()
    assert list(mine.parent.iterdir()) == [mine]


@pytest.mark.parametrize(
    "change",
    [
        {"program": "another"},
        {"schema": 99},
        {"picture": {"file": "../../etc/passwd", "sha256": "0" * 64, "width": 1, "height": 1}},
        {"picture": {"file": "dog.png", "sha256": "../" * 22, "width": 1, "height": 1}},
        {"inputs": [{"role": "content", "name": "x", "sha256": "../../../x", "bytes": 1}]},
        {"losses": []},
        {"notes": None},
    ],
    ids=str,
)
def test_foreign_and_damaged_json_is_left_out(root: Root, change: dict[str, Any]) -> None:
    """A JSON file that is damaged or is not a sidecar has no entry, and the others have theirs."""
    root.add("good")
    path = root.add("bad").with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    (root.results / "list.json").write_text("[1]")
    (root.results / "half.json").write_text('{"program": "nst')
    assert [e["name"] for e in entries(root)] == ["good"]


def test_links_are_not_followed(root: Root, tmp_path: Path) -> None:
    """A folder that is a link to outside results/ is not searched."""
    other = Root(tmp_path / "other")
    other.add("secret")
    (root.results / "link").symlink_to(other.results)
    assert entries(root) == []


def test_a_picture_that_cannot_be_read_is_listed_without_a_thumbnail(root: Root) -> None:
    """A damaged picture has an entry without a thumbnail, and the others have thumbnails."""
    root.add("bad").write_bytes(b"not a picture")
    root.add("good")
    found = {e["name"]: e["key"] for e in entries(root)}
    assert found["bad"] == ""
    assert found["good"]


def test_settings_that_an_older_sidecar_lacks_are_completed(root: Root) -> None:
    """A result without later settings differs from others only where its picture does."""
    root.add("dog", style_loss="gram", style_levels=1)
    path = root.results / "dog.json"
    whole = json.loads(path.read_bytes())
    older = {k: v for k, v in whole["settings"].items() if k not in ADDED_LATER}
    path.write_text(json.dumps(whole | {"settings": older}))
    data: Any = root.data()
    number, changes = data["entries"][0]["settings"]
    assert data["settings"][number] | changes == whole["settings"]


def test_settings_are_listed_once(root: Root) -> None:
    """For results of two presets, two sets of settings are listed, and the differences restore all others."""
    for i in range(6):
        root.add(f"dog{i}", seed=i, preset=("painting", "wasserstein")[i % 2])
    data: Any = root.data()
    assert [s["preset"] for s in data["settings"]] == ["wasserstein", "painting"]
    for entry in data["entries"]:
        sidecar = json.loads((root.results / f"{entry['name']}.json").read_bytes())
        number, changes = entry["settings"]
        assert data["settings"][number] | changes == sidecar["settings"]
        assert set(changes) <= {"seed"}


def test_pictures_that_browsers_cannot_show_are_reduced_copies(root: Root) -> None:
    """A TIFF result has a link to itself and a copy for the page; its HEIC content and 16-bit style have thumbnails."""
    picture = root.add("dog", content="dog.content.heic", style="dog.style.tif")
    document = json.loads(picture.with_suffix(".json").read_text())
    done, scene = root.folder / "done" / "dog", drawn(draw_scene, (96, 72))
    pillow_heif.from_pillow(scene).save(done / "dog.content.heic", quality=80)
    tifffile.imwrite(
        done / "dog.style.tif", np.asarray(scene).astype(np.uint16) * 257, photometric="rgb"
    )
    for i in document["inputs"]:
        data = (done / i["name"]).read_bytes()
        i |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    with Image.open(picture) as image:
        image.save(picture.with_suffix(".tiff"))
    picture.unlink()
    document["picture"]["file"] = "dog.tiff"
    picture.with_suffix(".json").write_text(json.dumps(document))
    (entry,) = entries(root)
    assert entry["picture"] == "dog.tiff"
    assert entry["shown"] == f".gallery/{entry['key']}-{gallery.SLIDER_SIDE}.webp"
    assert (root.results / entry["shown"]).is_file()
    assert entry["contents"][0][1] and entry["styles"][0][1]
