"""Formats and depths of results, by the real commands and the real daemon."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from nst_daemon.pictures.decode import decode_file
from tests.e2e.conftest import DEADLINE, Daemon, nst


@pytest.mark.parametrize(
    ("name", "options", "container"),
    [
        ("a.avif", (), "avif"),
        ("a.AVIF", ("--set", "depth=10"), "avif"),
        ("a.jxl", ("--set", "depth=16", "--set", "quality=100"), "jxl"),
        ("a.TIF", ("--set", "depth=16"), "tiff"),
        ("a.jpe", ("--set", "quality=50"), "jpeg"),
    ],
)
def test_stylize_writes_what_the_suffix_says(
    pair: tuple[Path, Path], tmp_path: Path, name: str, options: tuple[str, ...], container: str
) -> None:
    """`stylize -o NAME` writes the format of the suffix under exactly this name, and it is read back."""
    done = nst(tmp_path, "stylize", *pair, "-o", name, "--size", 48, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name
    decoded = decode_file(tmp_path / name)
    assert decoded.colours.shape == (36, 48, 3)
    first = (tmp_path / name).read_bytes()[:16]
    beginnings = {"avif": b"ftypavif", "jxl": b"JXL ", "tiff": b"II*\0", "jpeg": b"\xff\xd8\xff"}
    assert beginnings[container] in first


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ("a.webp --size 17000", 4, "a.webp cannot be written: 17000 × 12750 pixels are too many"),
        ("a.png --size 1000001", 4, "choose the format tiff or jxl, or a smaller size"),
        ("a.tif --size 40000000", 4, "a.tif may need"),
        ("a.jpg --set depth=16", 4, "jpg has 8 bits per channel, not 16"),
        ("a.jpg --set format=png", 2, "remove one of them"),
        ("a.bmp", 2, "use one of .png, .jpg, .jpeg"),
        ("a.jpg --set fromat=png", 4, "did you mean format"),
    ],
)
def test_stylize_refuses_before_it_paints(
    pair: tuple[Path, Path], tmp_path: Path, words: str, code: int, reason: str
) -> None:
    """An output that cannot be written ends the command at once, in one line with the remedy, and without a file."""
    done = nst(tmp_path, "stylize", *pair, "-o", *words.split())
    assert done.returncode == code, done.stderr
    assert reason in done.stderr.replace("\n", " ")
    assert "%" not in done.stderr  # no progress bar
    assert not (tmp_path / words.split(maxsplit=1)[0]).exists()


def test_submit_checks_outputs_together_with_the_styles(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """A depth that the configured format lacks is taken if the style's format has it, and refused if not."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "styles").mkdir()
    for style in ("light", "print"):
        (tmp_path / "styles" / f"{style}.png").write_bytes(pair[1].read_bytes())
    (tmp_path / "styles" / "light.yaml").write_text("format: avif\n")
    taken = nst(tmp_path, "submit", pair[0], "light", "--set", "depth=10")
    assert taken.returncode == 0, taken.stderr
    refused = nst(tmp_path, "submit", pair[0], "print", "--set", "depth=10")
    assert refused.returncode == 4
    assert "png has 8 or 16 bits per channel, not 10" in refused.stderr.replace("\n", " ")


@pytest.mark.slow
def test_each_job_of_the_daemon_has_its_format_and_rerun_repeats_it(
    daemon: Daemon, pair: tuple[Path, Path]
) -> None:
    """Jobs with a format and depth in their YAML, of a hot folder and by `submit --set`, have their files; `rerun` of
    a picture alone gives the same bytes.
    """
    inbox, styles, results = (daemon.root / name for name in ("inbox", "styles", "results"))
    content, style = pair
    inbox.mkdir()
    styles.mkdir()
    for name, text in (
        ("deep", "format: tiff\ndepth: 16\n"),
        ("small", "format: avif\ndepth: 10\n"),
    ):
        (inbox / f"{name}.content.png").write_bytes(content.read_bytes())
        (inbox / f"{name}.style.png").write_bytes(style.read_bytes())
        (inbox / f"{name}.yaml").write_text(text)
    (inbox / "wide.content.png").write_bytes(content.read_bytes())
    (inbox / "wide.style.png").write_bytes(style.read_bytes())
    (inbox / "wide.yaml").write_text("format: webp\nsize: 17000\n")
    (styles / "waves.png").write_bytes(style.read_bytes())
    (styles / "waves.yaml").write_text("format: jxl\ndepth: 16\nquality: 90\n")
    (inbox / "waves").mkdir()
    (inbox / "waves" / "x.png").write_bytes(content.read_bytes())
    sent = nst(
        daemon.root,
        "submit",
        content,
        style,
        "--name",
        "sent",
        "--set",
        "format=jpg",
        "--set",
        "quality=40",
    )
    assert sent.returncode == 0, sent.stderr
    daemon.start("once")
    assert daemon.process is not None
    assert daemon.process.wait(DEADLINE) == 1, daemon.text()  # one job failed

    error = (daemon.root / "failed" / "wide" / "error.txt").read_text()
    assert error.startswith(
        "wide.webp cannot be written: 17000 × 12750 pixels are too many for WebP"
    )
    assert tifffile.imread(results / "deep.tiff").dtype == np.uint16
    assert imagecodecs.avif_decode((results / "small.avif").read_bytes()).dtype == np.uint16
    assert imagecodecs.jpegxl_decode((results / "waves" / "x.jxl").read_bytes()).dtype == np.uint16
    assert imagecodecs.jpeg_decode((results / "sent.jpg").read_bytes()).dtype == np.uint8
    recorded = json.loads((results / "waves" / "x.json").read_text())
    assert recorded["outputs"] == {"format": "jxl", "depth": 16, "quality": 90}

    first = {}
    for path in (results / "small.avif", results / "waves" / "x.jxl", results / "deep.tiff"):
        alone = daemon.root / path.name
        alone.write_bytes(path.read_bytes())
        first[path.name] = path.read_bytes()
        again = nst(daemon.root, "rerun", alone)
        assert again.returncode == 0, again.stderr
    daemon.start("once")
    assert daemon.process.wait(DEADLINE) == 0, daemon.text()
    for name, again in (
        ("small.avif", "small-2.avif"),
        ("x.jxl", "x.jxl"),
        ("deep.tiff", "deep-2.tiff"),
    ):
        assert (results / again).read_bytes() == first[name]

    assert nst(daemon.root, "gallery").returncode == 0
    page = (results / "index.html").read_text()
    for name in ("small.avif", "waves/x.jxl", "deep.tiff", "sent.jpg"):
        assert f'"{name}"' in page
    thumbnails = list((results / ".gallery").glob("*-360.webp"))
    assert (
        len(thumbnails) == 4 + 2
    )  # of four paintings (each again is equal to its first), the photo and the painting
