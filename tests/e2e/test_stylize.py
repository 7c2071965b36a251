"""The command `stylize` as a process: what it paints, writes, prints and refuses."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.report import sidecar
from tests.e2e.conftest import DEADLINE, nst

SMALL = ("--size", "32", "--set", "iterations=1")


@pytest.fixture(autouse=True)
def shared_cache(model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The ONNX file is not exported again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_cache.parent))
    yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with photos and paintings."""
    (tmp_path / "more").mkdir()
    for seed, name in enumerate(("dog.png", "cat.png", "more/dog.png")):
        draw_scene(64, 48, seed).save(tmp_path / name)
    for name in ("swirls", "embers"):
        draw_painting(48, 48, style=name).save(tmp_path / f"{name}.png")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_several_contents_go_into_a_new_folder(folder: Path) -> None:
    """Each content, and each in a folder, has its picture in the new folder; equal names are numbered; failures are
    named at the end.
    """
    (folder / "bad.png").write_text("no picture")
    before = names(folder)
    contents = ("dog.png", "gone.png", "bad.png", "more")
    done = nst(folder, "stylize", *contents, "--style", "swirls.png", "-o", "new/out", *SMALL)
    assert done.returncode == 1
    assert done.stdout.split() == ["new/out/dog.png", "new/out/dog-2.png"]
    assert names(folder) - before == set(done.stdout.split())
    assert "gone.png does not exist; check the path" in done.stderr
    assert "bad.png is not an image file of a known format" in done.stderr
    *_, summary = done.stderr.splitlines()
    assert summary.startswith("nst-daemon: painted 2 of 4 pictures in ")
    assert summary.endswith("; failed: gone.png, bad.png")
    first = [sidecar.read(folder / path).inputs[0]["sha256"] for path in done.stdout.split()]
    assert first[0] != first[1]


def test_results_beside_the_contents_are_numbered(folder: Path) -> None:
    """A result is never called like its content, even with --overwrite, which replaces only other files."""
    content = (folder / "more" / "dog.png").read_bytes()
    words = ("stylize", "more/dog.png", "-s", "swirls.png", "-s", "embers.png", "-o", "more", "-q")
    for overwrite, expected in (((), "more/dog-2.png"), ((), "more/dog-3.png")):
        done = nst(folder, *words, *overwrite, *SMALL)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, expected, "")
    (folder / "more" / "dog-2.png").write_text("older")
    assert nst(folder, *words, "--overwrite", *SMALL).stdout.strip() == "more/dog-2.png"
    assert (folder / "more" / "dog-2.png").read_bytes() == (
        folder / "more" / "dog-3.png"
    ).read_bytes()
    assert (folder / "more" / "dog.png").read_bytes() == content


def test_everything_about_a_picture_is_written_and_printed(folder: Path) -> None:
    """--json prints one line; the loss curve, the time-lapse and the JSON file have the usual names, or those given."""
    words = ("stylize", "dog.png", "swirls.png", "--json", "--time-lapse", "--sidecar", *SMALL)
    done = nst(folder, *words, "--loss-plot=curve.png")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["output"] == "dog.swirls.png"
    assert found["time_lapse"] == "dog.swirls.progress.webp"
    assert found["loss_plot"] == "curve.png"
    assert found["sidecar"] == "dog.swirls.json"
    assert found["settings"]["size"] == 32
    assert (found["picture"]["width"], found["picture"]["height"]) == (32, 24)
    assert found["machine"]["device"] == "cpu"
    assert found["losses"]["total"] > 0
    assert found["seconds"]["paint"] > 0
    assert len(found["model"]["weights_sha256"]) == 64
    written = json.loads((folder / "dog.swirls.json").read_text())
    assert written["picture"]["sha256"] == found["picture"]["sha256"]
    assert sidecar.read(folder / "dog.swirls.json").name == "dog.swirls"
    for name in ("dog.swirls.png", "dog.swirls.progress.webp", "curve.png"):
        with Image.open(folder / name) as image:
            image.load()
    again = nst(folder, *words, "--loss-plot=curve.png")
    assert again.returncode == 2
    assert "curve.png exists; choose another name, or use --overwrite" in again.stderr


def test_a_failure_is_json_too(folder: Path) -> None:
    """With --json, a content that cannot be read is a line with its error and exit code."""
    done = nst(folder, "stylize", "gone.png", "swirls.png", "--json", *SMALL)
    assert done.returncode == 4
    found = json.loads(done.stdout)
    assert (found["content"], found["exit_code"]) == ("gone.png", 4)
    assert found["error"] == "gone.png does not exist; check the path"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("dog.png", "no style was named; write nst-daemon stylize CONTENT STYLE, or"),
        ("dog.png swirls.png -o gone/a.png", "gone does not exist; create it"),
        ("dog.png swirls.png -o a", "a: it has no suffix; use one of .png, .jpg, .jpeg, .jpe, .jfif, .webp, .tiff"),
        ("dog.png swirls.png -o a", "or a/ for a folder"),
        ("dog.png swirls.png -o a.gif", "a.gif: .gif is not an output format; use one of .png, .jpg"),
        ("dog.png swirls.png -o -", "not written to the standard output; name a file"),
        ("dog.png swirls.png -o embers.png", "embers.png exists; choose another name, or use --over"),
        ("dog.png swirls.png -o pipe.png --overwrite", "pipe.png is a named pipe; name a file"),
        ("dog.png swirls.png -o dog.png --overwrite", "dog.png is one of the inputs, which are never"),
        ("dog.png swirls.png -o link.png --overwrite", "link.png is one of the inputs"),
        ("dog.png swirls.png -o hard.png --overwrite", "hard.png is one of the inputs"),
        ("dog.png swirls.png -o a.png --loss-plot=dog.png --overwrite", "is one of the inputs"),
        ("dog.png swirls.png -o a.png --loss-plot=a.png", "a.png is named for two outputs"),
        ("dog.png swirls.png --start cat.png -o cat.png --overwrite", "is one of the inputs"),
        ("dog.png swirls.png --loss-plot a.png", "write --loss-plot=a.png for that file, or move"),
        ("dog.png cat.png -s swirls.png -o a.png", "a.png is one file, and there are 2 contents"),
        ("dog.png cat.png -s swirls.png -o hard.png", "hard.png is one file"),
        ("dog.png cat.png -s swirls.png --loss-plot=a.png", "use --loss-plot and --time-lapse wit"),
        ("dog.png cat.png -s swirls.png --style-mask cat.png", "masks belong to one content"),
        ("dog.png gone.png", "gone.png does not exist; name a style picture"),
        ("dog.png https://a.org/b.jpg", "https://a.org/b.jpg is an address and not a file; download"),
        ("https://a.org/b.jpg swirls.png", "https://a.org/b.jpg is an address and not a file"),
        ("dog.png swirls.png --start nois", "nois does not exist; name a picture, or one of content"),
        ("dog.png swirls.png --start cat.png --set start=mix", "contradict each other"),
        ("dog.png swirls.png --set start=given", "start=given names no picture; use --start FILE"),
        ("dog.png swirls.png --style-weight 1 --style-weight 2", "--style-weight is given 2 times for 1 style"),
        ("empty swirls.png", "there is no image file in empty"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_anything_is_loaded(
    folder: Path, words: str, reason: str
) -> None:
    """A mistake is exit code 2 and one line with a remedy; no file is written or changed."""
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("dog.png")
    os.link(folder / "swirls.png", folder / "hard.png")
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    done = nst(folder, "stylize", *words.split())
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert reason in line
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


def test_pictures_come_from_pipes(folder: Path) -> None:
    """`-` is the standard input and a named pipe is read: both give the picture of the file, with its digest."""
    words = ("swirls.png", *SMALL)
    os.mkfifo(folder / "pipe")
    plain = nst(folder, "stylize", "dog.png", *words).stdout.strip()
    with (folder / "dog.png").open("rb") as file:
        command = [sys.executable, "-m", "nst_daemon", "stylize", "-", *words, "--device=cpu"]
        piped = subprocess.run(
            command, cwd=folder, stdin=file, capture_output=True, text=True, check=True
        ).stdout.strip()
    with subprocess.Popen(["cp", "dog.png", "pipe"], cwd=folder):
        done = nst(folder, "stylize", "pipe", *words)
    assert "nst-daemon: reading the pipe pipe: it waits for the program that writes" in done.stderr
    named = done.stdout.strip()
    assert (plain, piped, named) == ("dog.swirls.png", "stdin.swirls.png", "pipe.swirls.png")
    assert {(folder / name).read_bytes() for name in (piped, named)} == {
        (folder / plain).read_bytes()
    }


def test_styles_of_the_library_are_blended_with_their_weights(folder: Path) -> None:
    """A name means a style of the library, with its settings; weights are shares of the styles as they are named."""
    (folder / "styles" / "two").mkdir(parents=True)
    for name in ("swirls", "embers"):
        (folder / f"{name}.png").rename(folder / "styles" / "two" / f"{name}.png")
    (folder / "styles" / "two.yaml").write_text("style_scale: 0.5\n")
    done = nst(
        folder, "stylize", "dog.png", "two", "cat.png", "--style-weight", "3", "--style-weight", "1",
        "--start", "noise", *SMALL,
    )  # fmt: skip
    assert done.stdout.strip() == "dog.two+cat.png", done.stderr
    recipe = sidecar.read(folder / "dog.two+cat.png")
    assert recipe.settings["style_scale"] == 0.5
    assert recipe.settings["style_weights"] == [1, 1.5, 1.5]
    assert recipe.settings["start"] == "noise"
    assert len(recipe.inputs) == 4


def test_a_picture_is_where_the_painting_begins(folder: Path) -> None:
    """`--start FILE` is recorded as an input, and changes the picture."""
    Image.new("RGB", (64, 48), "white").save(folder / "white.png")
    pictures = []
    for words in (("--start", "white.png"), ()):
        done = nst(folder, "stylize", "dog.png", "swirls.png", *words, *SMALL)
        pictures.append(folder / done.stdout.strip())
    assert [record["role"] for record in sidecar.read(pictures[0]).inputs][-1] == "start"
    assert sidecar.read(pictures[0]).settings["start"] == "given"
    with Image.open(pictures[0]) as begun, Image.open(pictures[1]) as plain:
        assert sum(begun.convert("L").histogram()[200:]) > sum(plain.convert("L").histogram()[200:])


def test_an_interrupted_painting_is_saved(folder: Path) -> None:
    """Ctrl-C ends it after the iteration: the picture so far has a name of its own, and the exit code is 130."""
    (folder / "out.partial.png").write_text("older")
    words = ("dog.png", "swirls.png", "-o", "out.png", "--size=32", "--set=iterations=5000")
    with subprocess.Popen(
        [sys.executable, "-m", "nst_daemon", "stylize", *words, "--device=cpu"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "scale 1 of 3" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert out.strip() == "out.partial-2.png"
    assert err.startswith("nst-daemon: interrupted after ")
    assert err.endswith("of 15000 iterations; the picture so far is out.partial-2.png\n")
    assert sidecar.read(folder / "out.partial-2.png").settings["size"] == 32
    assert (folder / "out.partial.png").read_text() == "older"
    assert not (folder / "out.png").exists()


def test_a_bar_is_drawn_on_a_terminal() -> None:
    """On a terminal, a bar shows the scale, the iteration, the speed and the time left, and is removed at the end."""
    from types import SimpleNamespace

    from rich.console import Console

    from nst_daemon.engine.settings import resolve
    from nst_daemon.ops.progress_bars import StepProgress

    out, now = io.StringIO(), iter(float(i) for i in range(100))
    bar = StepProgress(
        "dog.png",
        say=pytest.fail,
        clock=lambda: next(now),
        console=Console(file=out, force_terminal=True, width=100),
    )
    bar.start(resolve({"scales": [1.0], "iterations": 10, "preset": "gatys2016"}))
    for i in range(1, 6):
        bar.update(
            SimpleNamespace(
                iteration=i, iterations=10, scale=1, scales=1, size=(48, 64), last=False
            )
        )
    bar.stop()
    shown = out.getvalue()
    assert "dog.png" in shown
    assert "50 % scale 1/1 64 px, 5/10, 1 it/s, 5 s left" in shown


def test_the_memory_of_the_command_has_the_limit_of_the_configuration(folder: Path) -> None:
    """A picture that does not fit into limits.max_memory is refused before it is painted."""
    words = ("stylize", "dog.png", "swirls.png", "--size", "30000", "--device", "cpu")
    (folder / "config.yaml").write_text("limits: {max_memory: 3GiB}")
    done = nst(folder, *words)
    assert done.returncode == 8
    free = re.search(
        r"do not fit into memory, even in tiles \(([\d.]+) ([GM]iB) is free\)", done.stderr
    )
    assert free and float(free[1]) * {"GiB": 1024, "MiB": 1}[free[2]] < 3 * 1024
