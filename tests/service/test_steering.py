"""submit, status, history, cancel, retry and rerun: against a real daemon with a fake painter, and without one."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from nst_daemon import cli, files
from nst_daemon.digests import sha256_file
from nst_daemon.errors import InputError, SettingsError, UsageError
from nst_daemon.intake.dropped import find
from nst_daemon.intake.library import list_styles
from nst_daemon.intake.scan import Intake
from nst_daemon.intake.submit import (
    Delivery,
    Part,
    drop,
    recipe_parts,
    style_pictures,
    styles_and_names,
)
from nst_daemon.jobs import JobState, Role
from nst_daemon.ledger import Ledger
from tests.torture.root import Root, Victim
from tests.torture.victim import SOME_FAILED

S = JobState
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A root, and the environment that makes it the command line's."""
    made = Root(tmp_path / "nst")
    configuration = tmp_path / "config.yaml"
    configuration.touch()
    monkeypatch.setenv("NST_CONFIG", str(configuration))
    monkeypatch.setenv("NST_FOLDERS__ROOT", str(made.path))
    monkeypatch.setenv("NST_SERVICE__SETTLE_SECONDS", "0.05")
    return made


@pytest.fixture
def daemon(root: Root) -> Iterator[Victim]:
    """A daemon that serves the root until the end of the test."""
    victim = root.start(once=False)
    yield victim
    if victim.process.poll() is None:
        victim.kill()


def call(*arguments: str, code: int = 0) -> str:
    """What the command prints; UsageErrors and the like are raised, as `main` gets them."""
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def picture(path: Path, **script: object) -> Path:
    """A content for the fake painter."""
    path.write_text(json.dumps({"iterations": 3, "tag": path.stem, **script}))
    return path


def settled(inbox: Path, styles: Path) -> dict[str, list[tuple[Role, str]]]:
    """The jobs that the inbox means, by name: roles and files."""
    styles.mkdir(exist_ok=True)
    intake = Intake(
        inbox,
        styles,
        settle_seconds=0,
        truncated_grace=0,
        pair_timeout=9,
        rescan_seconds=1,
        max_bytes=1 << 20,
    )
    intake.scan(0, 0)
    requests = intake.scan(60, 60).requests
    return {r.name: [(file.role, file.path) for file in r.files] for r in requests}


# Putting into the inbox


def test_submitted_masks_come_along(root: Root, tmp_path: Path) -> None:
    """Masks given to submit lie beside their pictures under names that make one job of all."""
    content, one, two, a, b, c = (
        picture(tmp_path / f"{n}.png") for n in ("dog", "one", "two", "a", "b", "c")
    )
    root.inbox.mkdir(parents=True, exist_ok=True)
    masks = ["--content-mask", str(a), "--style-mask", str(b), "--style-mask", str(c)]
    call("submit", str(content), str(one), str(two), *masks)
    found = settled(root.inbox, root.path / "styles")["dog"]
    sources = {
        Role.CONTENT: [content], Role.STYLE: [one, two],
        Role.CONTENT_MASK: [a], Role.STYLE_MASK: [b, c],
    }  # fmt: skip
    for role, paths in sources.items():
        dropped = [(root.inbox / path).read_text() for own, path in found if own is role]
        assert dropped == [path.read_text() for path in paths]


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (["--content-mask"], "0 masks for 1 style"),
        (["--style-mask", "--style-mask"], "2 masks for 1 style"),
    ],
)
def test_masks_that_do_not_match_are_not_submitted(
    root: Root, tmp_path: Path, masks: list[str], said: str
) -> None:
    """A mask too few or too many is a usage error, and nothing is put into the inbox."""
    file = str(picture(tmp_path / "any.png"))
    root.inbox.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UsageError, match=said):
        call("submit", file, file, *(word for option in masks for word in (option, file)))
    assert list(root.inbox.iterdir()) == []


@pytest.mark.parametrize(
    ("weights", "said"),
    [("[1, 2]", ""), ("[1, 2, 3]", "one for each style (2)"), ("[1]", "one for each style (2)")],
)
def test_weights_belong_to_the_styles_as_they_are_named(
    root: Root, tmp_path: Path, weights: str, said: str
) -> None:
    """A library style that is named before a file keeps its weight, and a wrong number of weights is refused."""
    file = str(picture(tmp_path / "any.png"))
    for folder in (root.inbox, root.path / "styles"):
        folder.mkdir(parents=True, exist_ok=True)
    picture(root.path / "styles" / "starry.png")
    arguments = ("submit", file, "starry", file, "--set", f"style_weights={weights}")
    if said:
        with pytest.raises(SettingsError, match=re.escape(said)):
            call(*arguments)
        assert list(root.inbox.iterdir()) == []
    else:
        call(*arguments)
        written = yaml.safe_load((root.inbox / "any.yaml").read_text())
        assert (written["style_weights"], written["style"]) == ([2, 1], ["starry"])


def test_submitted_files_form_the_job(root: Root, tmp_path: Path) -> None:
    """What submit has dropped is one job with all its parts, and is readable for the group."""
    content, one, two = (picture(tmp_path / n) for n in ("dog.JPG", "a.png", "b.webp"))
    content.chmod(0o600)
    name = call("submit", str(content), str(one), str(two), "--set", "seed=4", "--priority", "7")
    assert name == "dog\n"
    assert settled(root.inbox, tmp_path / "styles") == {
        "dog": [
            (Role.CONTENT, "dog.content.jpg"),
            (Role.STYLE, "dog.style-1.png"),
            (Role.STYLE, "dog.style-2.webp"),
            (Role.SETTINGS, "dog.yaml"),
        ]
    }
    written = yaml.safe_load((root.inbox / "dog.yaml").read_text())
    assert {**written, "id": ""} == {"id": "", "seed": 4, "priority": 7}
    assert find(root.inbox, written["id"]) == "dog"
    shared = (root.inbox / "dog.yaml").stat().st_mode
    assert stat.S_IMODE((root.inbox / "dog.content.jpg").stat().st_mode) == stat.S_IMODE(shared)
    assert {p.name for p in root.inbox.iterdir() if p.name.startswith(".")} == set()
    assert content.exists()


def test_a_taken_name_gets_a_number(root: Root, tmp_path: Path) -> None:
    """Submitting the same name again, or one whose half waits in the inbox, disturbs nothing that is there."""
    content, style = picture(tmp_path / "dog.png"), picture(tmp_path / "s.png")
    (root.inbox / "cat_style.png").write_bytes(b"somebody's half")
    names = [call("submit", str(content), str(style)).strip() for _ in range(2)]
    assert names == ["dog", "dog-2"]
    assert call("submit", str(content), str(style), "--name", "cat").strip() == "cat-2"
    assert (root.inbox / "cat_style.png").read_bytes() == b"somebody's half"


def test_a_delivery_lands_in_a_folder_of_the_inbox(root: Root) -> None:
    """Files for a hot folder get its next free name; no name leads anywhere else, and what fails leaves nothing."""
    outside = root.path / "outside"
    outside.mkdir()
    (root.inbox / "linked").symlink_to(outside)
    (root.inbox / "starry").mkdir()
    (root.inbox / "starry" / "dog.png").write_bytes(b"there already")
    with Delivery(root.inbox) as delivery:
        delivery.file(".png").write(b"a picture")
        assert delivery.appear("dog", "starry") == "dog-2"
    assert (root.inbox / "starry" / "dog-2.png").read_bytes() == b"a picture"
    for name, folder in (
        ("dog", ".."),
        ("dog", "."),
        ("dog", "a/b"),
        ("dog", "linked"),
        ("~dog", "starry"),
    ):
        with Delivery(root.inbox) as delivery, pytest.raises(UsageError):
            delivery.file(".png").write(b"a picture")
            delivery.appear(name, folder)
    with Delivery(root.inbox) as delivery:
        delivery.file(".png")
        assert delivery.appear("../../dog", "new") == "__.._dog"
    inside = {str(p.relative_to(root.inbox)) for p in root.inbox.rglob("*") if p.is_file()}
    assert inside == {"starry/dog.png", "starry/dog-2.png", "new/__.._dog.png"}
    assert list(outside.iterdir()) == []


def test_what_killed_deliveries_left_is_swept_away(root: Root) -> None:
    """Hidden files that nobody has written to of late are removed; others, and those of other programs, stay."""
    old, new = Delivery(root.inbox), Delivery(root.inbox)
    old.file(".png")
    (left,) = root.inbox.iterdir()
    os.utime(left, (1000, 1000))
    new.file(".png")
    (root.inbox / ".dog.png.part").touch()
    os.utime(root.inbox / ".dog.png.part", (1000, 1000))
    files.remove_parts(root.inbox, before=2000)
    assert not left.exists()
    assert len(list(root.inbox.iterdir())) == 2
    new.__exit__()


def test_a_style_of_the_library_is_named(root: Root, tmp_path: Path) -> None:
    """A style that is no file is looked for in the library, and stays there."""
    styles = root.path / "styles"
    styles.mkdir()
    picture(styles / "starry.png")
    call("submit", str(picture(tmp_path / "dog.png")), "starry")
    assert settled(root.inbox, styles) == {
        "dog": [
            (Role.CONTENT, "dog.content.png"),
            (Role.SETTINGS, "dog.yaml"),
            (Role.STYLE, "starry.png"),
        ]
    }
    with pytest.raises(UsageError, match="the styles are: starry"):
        styles_and_names(["stary"], list_styles(styles, 1 << 20))


def test_folders_are_styles(tmp_path: Path) -> None:
    """A folder is all pictures directly in it; a style of the library comes before a folder of its name."""
    library, folder = tmp_path / "styles", tmp_path / "paintings"
    for name in ("styles/monet/a.png", "paintings/b.png", "paintings/a.jpg", "paintings/x/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(tmp_path / name)
    styles = list_styles(library, 1 << 20)
    found = styles_and_names(["monet", str(folder), str(folder / "b.png")], styles)
    assert found == ([folder / "a.jpg", folder / "b.png", folder / "b.png"], ["monet"])
    with pytest.raises(UsageError, match="no image file in"):
        styles_and_names([str(tmp_path)], styles)
    with pytest.raises(UsageError, match="has 33 pictures, and at most 32"):
        style_pictures([folder / "b.png"] * 33)


def test_nothing_is_dropped_that_could_not_be_painted(root: Root, tmp_path: Path) -> None:
    """A missing file, a file that is no picture or a setting that does not exist leaves the inbox as it was."""
    good, text = picture(tmp_path / "dog.png"), picture(tmp_path / "dog.txt")
    for arguments in ((text, good), (good, text), (tmp_path / "no.png", good)):
        with pytest.raises(UsageError):
            call("submit", *map(str, arguments))
    with pytest.raises(InputError, match="seeed"):
        call("submit", str(good), str(good), "--set", "seeed=1")
    real, limits = tmp_path / "real.png", tmp_path / "limits.yaml"
    real.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(60))
    limits.write_text("limits: {formats: [jpeg]}\n")
    with pytest.raises(
        UsageError, match=r"real\.png is a PNG file, and limits\.formats does not list png"
    ):
        call("submit", str(good), str(real), "--config", str(limits))
    assert list(root.inbox.iterdir()) == []


def test_an_interrupted_copy_leaves_nothing(root: Root, tmp_path: Path) -> None:
    """Where the second of two copies fails, the first one's hidden file is removed as well."""
    good, locked = picture(tmp_path / "a.png"), tmp_path / "b.png"
    locked.mkdir()
    with pytest.raises(UsageError):
        drop(root.inbox, "a", [Part(Role.STYLE, good), Part(Role.CONTENT, locked)], {})
    assert list(root.inbox.iterdir()) == []


# Steering a daemon that runs


def test_a_running_job_is_seen_and_cancelled(daemon: Victim, root: Root, tmp_path: Path) -> None:
    """status shows the job with its speed while it is painted, cancel ends it, history tells of it."""
    content = picture(tmp_path / "slow.png", iterations=100_000, seconds=0.01)
    style = picture(tmp_path / "style.png")
    assert daemon.until(lambda: "serving" in root.text())
    call("submit", str(content), str(style))

    def painted() -> bool:
        found = json.loads(call("status", "--json"))
        live = found["live"]
        return bool(live and live["paintings"] and live["paintings"][0]["left"])

    assert daemon.until(painted), root.text()
    found = json.loads(call("status", "--json"))
    assert found["running"]
    assert found["live"]["memory"] > 10 << 20
    assert found["live"]["workers"][0]["memory"] > 10 << 20
    assert found["jobs"]["running"] == 1
    assert "slow" in call("status")
    call("cancel", "slow")
    assert daemon.until(lambda: daemon.state("slow") is S.CANCELLED), root.text()
    (row,) = json.loads(call("history", "--json", "--state", "cancelled"))
    assert row["name"] == "slow"
    assert json.loads(call("history", "--json", "--name", "f*")) == []
    assert "cancelled by request" in call("history", "slow")
    assert call("cancel", "slow") == ""
    assert "slow.content.png" in {p.name for p in (root.path / "failed" / "slow").iterdir()}
    assert "error   slow" not in root.text()


def test_steering_waits_for_the_next_start(root: Root) -> None:
    """Where no daemon runs, retry --failed says so, status shows it, and the next start does it."""
    root.pair("bad", S.DONE, do="raise", at=1, once="failed-once")
    assert root.run() == SOME_FAILED
    with Ledger.attach(root.ledger_path) as ledger:
        (job,) = ledger.jobs(S.FAILED)
    call("retry", "--failed")
    found = json.loads(call("status", "--json"))
    assert not found["running"]
    assert found["asked"] == {job.id: "retry"}
    assert root.run() == 0
    assert root.check_end() == {"bad": S.DONE}
    with pytest.raises(UsageError, match=r"bad .* is done"):
        call("retry", "bad")
    with pytest.raises(UsageError, match="--failed"):
        call("retry")


def test_rerun_makes_the_same_picture(root: Root, tmp_path: Path) -> None:
    """A result's own JSON, with its inputs found in done/ and the library, gives the same bytes again."""
    styles = root.path / "styles"
    styles.mkdir()
    picture(styles / "starry.png")
    (root.inbox / "starry").mkdir()
    picture(root.inbox / "starry" / "dog.png")
    assert root.run() == 0, root.text()
    result = root.path / "results" / "starry" / "dog.png"
    assert call("rerun", str(result), "--other-weights").strip() == "starry-dog"
    assert root.run() == 0, root.text()
    again = root.path / "results" / "starry-dog.png"
    assert again.read_bytes() == result.read_bytes()


def test_rerun_says_what_is_lost(tmp_path: Path) -> None:
    """An input that is nowhere is named, and --input is the remedy."""
    wanted = {"role": "content", "name": "dog.png", "sha256": "0" * 64, "bytes": 3}
    with pytest.raises(InputError, match=r"dog\.png is in none of .*--input"):
        recipe_parts([wanted], [tmp_path])


def test_rerun_keeps_the_order_of_styles(tmp_path: Path) -> None:
    """Two styles and their masks get numbers in the order in which they were blended."""
    roles = ("content", "style", "style", "content-mask", "style-mask", "style-mask")
    inputs = []
    for i, role in enumerate(roles):
        path = picture(tmp_path / f"{9 - i}.png")
        size, digest = path.stat().st_size, sha256_file(path)
        inputs.append({"role": role, "sha256": digest, "bytes": size})
    endings = [(part.path.name, part.ending) for part in recipe_parts(inputs, [tmp_path])]
    assert endings == [
        ("9.png", ".content.png"),
        ("8.png", ".style-1.png"),
        ("7.png", ".style-2.png"),
        ("6.png", ".content-mask.png"),
        ("5.png", ".style-1-mask.png"),
        ("4.png", ".style-2-mask.png"),
    ]


def test_presets_are_listed() -> None:
    """Every preset is listed with its source."""
    found = json.loads(call("presets", "--json"))
    assert {"gatys2016", "painting"} <= found.keys()
    assert all(preset["source"] for preset in found.values())
