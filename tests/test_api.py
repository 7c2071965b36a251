"""The Python API: what it paints, returns, writes and refuses."""

from __future__ import annotations

import doctest
import gc
import io
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from pydantic import TypeAdapter

import nst_daemon
from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon import (
    NstError,
    OutOfMemory,
    PictureError,
    RenderSettings,
    Result,
    SettingsError,
    Stylizer,
    UsageError,
    stylize,
)
from nst_daemon.engine.keywords import SettingKeywords
from nst_daemon.engine.scene import Scene
from nst_daemon.engine.settings import StartName, resolve
from nst_daemon.pictures.decode import decode_file
from nst_daemon.report import sidecar
from tests.conftest import largest_file

ROOT = Path(__file__).parent.parent
SMALL: dict[str, Any] = {"size": 32, "iterations": 1}


@pytest.fixture(scope="module")
def stylizer(model_cache: Path) -> Stylizer:
    return Stylizer(device="cpu", cache_dir=model_cache)


@pytest.fixture(scope="module")
def result(stylizer: Stylizer) -> Result:
    """A painted picture with a time-lapse."""
    return stylizer.stylize(draw_scene(64, 48), draw_painting(48, 48), time_lapse=True, **SMALL)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo in a file."""
    draw_scene(64, 48).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("documented", [stylize, Stylizer], ids=["stylize", "Stylizer"])
def test_the_docstrings_examples_run(
    documented: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_cache: Path
) -> None:
    """The examples of the docstrings give the stated output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_cache.parent))
    (example,) = doctest.DocTestFinder(recurse=False).find(documented, "example", globs={})
    assert len(example.examples) >= 3
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_cache: Path
) -> None:
    """Every example of docs/python.md runs, with small pictures and few iterations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_cache.parent))
    Path("photos").mkdir()
    for name in ("dog.jpg", "cat.jpg", "photos/a.jpg"):
        draw_scene(64, 48).save(name)
    for name in ("hokusai.jpg", "starry.jpg"):
        draw_painting(64, 48).save(name)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 6
    for example in examples:
        small = re.sub(r"size=\d+", "size=32, iterations=1", example)
        exec(small.replace("result.show()", "result.image"), {})
    assert Path("painted.png").is_file()
    assert Path("a.png").is_file()


def test_the_package_offers_the_api() -> None:
    """Each public name can be imported from the package, and another name is an AttributeError."""
    for name in nst_daemon.__all__:
        assert getattr(nst_daemon, name) is not None
        assert name in dir(nst_daemon)
    assert issubclass(OutOfMemory, NstError)
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        nst_daemon.paint  # noqa: B018


# Settings


def test_keywords_are_the_settings() -> None:
    """The typed keywords are the fields of RenderSettings but `start`, each with the same choices."""
    keywords, settings = get_type_hints(SettingKeywords), get_type_hints(RenderSettings)
    assert set(keywords) == set(settings) - {"start"}
    for name, hint in keywords.items():
        assert choices(hint) == choices(settings[name]), name
    assert set(get_args(StartName)) == choices(settings["start"])


def test_keywords_take_the_defaults() -> None:
    """A type checker takes every default of RenderSettings as a keyword."""
    defaults = asdict(RenderSettings())
    del defaults["start"]
    hints = get_type_hints(SettingKeywords)
    for name, value in defaults.items():
        TypeAdapter(hints[name]).validate_python(value, strict=True)


def choices(hint: Any) -> set[object]:
    """The values of every Literal in a type."""
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    return set().union(*(choices(part) for part in get_args(hint) if not isinstance(part, str)))


def test_settings_are_used_and_returned(stylizer: Stylizer, result: Result) -> None:
    """Keywords change a preset or a mapping, RenderSettings are used as they are, and the result has them all."""
    assert result.settings == resolve(SMALL)
    pair = draw_scene(64, 48), draw_painting(48, 48)
    mapped = stylizer.stylize(*pair, settings={"preset": "bold", "size": 99}, **SMALL)
    assert mapped.settings == resolve({"preset": "bold"}, SMALL)
    again = stylizer.stylize(*pair, settings=result.settings)
    assert np.array_equal(again.array, result.array)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"settings": RenderSettings(), "size": 64}, "both settings and 'size' were given"),
        ({"iteration": 5}, "iterations"),
        ({"devce": "cpu"}, "unknown argument 'devce'; did you mean device?"),
        ({"stylemasks": []}, "did you mean style_masks?"),
        ({"start": "given"}, "give the picture itself as start"),
        ({"size": 0}, "size: 0 is not allowed"),
    ],
)
def test_wrong_arguments_are_refused(
    stylizer: Stylizer, arguments: dict[str, Any], reason: str
) -> None:
    """Wrong arguments are a SettingsError with a remedy, before any picture is read."""
    with pytest.raises(SettingsError, match=re.escape(reason)):
        stylizer.stylize("missing.png", "missing.png", **arguments)


# Pictures


def bytes_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


KINDS: dict[str, Callable[[Image.Image], Any]] = {
    "image": lambda image: image,
    "opened": lambda image: Image.open(io.BytesIO(bytes_of(image))),
    "bytes": bytes_of,
    "file": lambda image: io.BytesIO(bytes_of(image)),
    "uint8": np.asarray,
    "uint16": lambda image: np.asarray(image).astype(np.uint16) * 257,
    "big-endian": lambda image: (np.asarray(image).astype(np.uint16) * 257).astype(">u2"),
    "float64": lambda image: np.asarray(image) / 255,
    "RGBA": lambda image: np.dstack([np.asarray(image), np.full((48, 64), 255, np.uint8)]),
    "tensor": lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1),
    "batch": lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_painted_like_its_file(
    stylizer: Stylizer, photo: Path, kind: str
) -> None:
    """A picture in memory, as content and as style, gives the picture of the file."""
    image = draw_scene(64, 48)
    expected = stylizer.stylize(photo, str(photo), **SMALL).array
    found = stylizer.stylize(KINDS[kind](image), [KINDS[kind](image)], **SMALL).array
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(
    "grey",
    [
        Image.new("L", (40, 30), 128),
        Image.new("I;16", (40, 30), 128 * 257),
        Image.new("I", (40, 30), 128 * 257),
        Image.new("F", (40, 30), 128 / 255),
        np.full((30, 40), 128, np.uint8),
        np.full((30, 40, 1), 128 / 255, np.float16),
    ],
    ids=["L", "I;16", "I", "F", "2 dimensions", "1 channel"],
)
def test_grey_pictures_keep_their_level(stylizer: Stylizer, grey: Any) -> None:
    """A flat grey picture in memory, of any depth, is seen as the same grey."""
    painted = stylizer.stylize(grey, grey, size=32, iterations=1)
    assert painted.size == (32, 24)
    assert abs(float(painted.array.mean()) - 128 / 255) < 0.01


def test_images_are_seen_as_their_files(stylizer: Stylizer, tmp_path: Path) -> None:
    """`Image.open` gives the picture of the path: its orientation, its profile, its capture date and transparency."""
    rotated = draw_scene(64, 48).convert("RGBA")
    rotated.putalpha(Image.linear_gradient("L").resize((64, 48)).point(lambda v: max(v, 9)))
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "A. Painter"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    rotated.save(tmp_path / "a.png", exif=exif, icc_profile=profile)
    style = draw_painting(48, 48)
    by_path = stylizer.stylize(tmp_path / "a.png", style, **SMALL)
    with Image.open(tmp_path / "a.png") as opened:
        by_image = stylizer.stylize(opened, style, **SMALL)
    assert by_path.size == by_image.size == (24, 32)
    assert np.array_equal(by_image.array, by_path.array)
    assert by_image.alpha is not None
    assert by_image.alpha.shape == (32, 24)
    assert by_image.image.mode == "RGBA"
    by_image.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as saved:
        assert saved.getexif()[0x8298] == "A. Painter"


def test_a_turned_image_is_not_turned_again(stylizer: Stylizer, tmp_path: Path) -> None:
    """Pillow keeps the orientation of the file in an image that a person has turned: it is ignored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_scene(64, 48).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        turned = opened.rotate(-90, expand=True)
    assert stylizer.stylize(turned, draw_painting(48, 48), **SMALL).size == (24, 32)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((3, 40, 50)), "use array.transpose(1, 2, 0)"),
        (np.zeros((2, 40, 50, 3)), "the content has the shape 2 × 40 × 50 × 3"),
        (np.zeros((40, 50, 5)), "with 1 to 4 channels"),
        (np.zeros((0, 50, 3)), "the shape 0 × 50 × 3"),
        (np.float32(1), "has the shape no dimensions"),
        (np.full((40, 50, 3), 200.0), "values from 0 to 200, and floats must be from 0 to 1"),
        (np.full((40, 50, 3), np.nan), "non-finite values"),
        (np.zeros((40, 50, 3), np.int64), "values of the type int64; convert it to uint8"),
        (np.zeros((40, 50, 3), complex), "values of the type complex128"),
        (np.zeros((40, 50, 4)), "fully transparent"),
        (torch.zeros(40, 50, 3), "use tensor.permute(2, 0, 1)"),
        (torch.zeros(2, 3, 40, 50), "the shape 2 × 3 × 40 × 50"),
        (b"no picture", "the content is not an image file of a known format"),
        (b"", "the content is empty"),
        (io.StringIO("text"), "of the type StringIO; give a path"),
        (None, "of the type NoneType"),
        (3.5, "of the type float"),
        ("missing.png", "missing.png does not exist; check the path"),
        ("/", "/ is a folder; name an image file"),
        ("/dev/null", "/dev/null is a character device"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture_is_refused(stylizer: Stylizer, picture: Any, reason: str) -> None:
    """What cannot be painted is a PictureError that says what it is and what can be."""
    with pytest.raises(PictureError, match=re.escape(reason)):
        stylizer.stylize(picture, draw_painting(48, 48), **SMALL)


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "file:///a.jpg", "s3://b/a.jpg"])
def test_addresses_are_refused(stylizer: Stylizer, address: str) -> None:
    """The address of a picture is a UsageError that shows the whole address and says to download it."""
    with pytest.raises(UsageError, match=f"{address} is an address and not a file; download"):
        stylizer.stylize(address, draw_painting(48, 48), **SMALL)


def test_a_folder_is_a_style(stylizer: Stylizer, tmp_path: Path) -> None:
    """A folder stands for the pictures in it, and the record names their files."""
    for seed in range(2):
        draw_painting(48, 48, seed).save(tmp_path / f"{seed}.png")
    painted = stylizer.stylize(draw_scene(64, 48), tmp_path, **SMALL)
    assert [record.name for record in painted.inputs] == ["0.png", "1.png"]


def test_a_pipe_is_read_once(stylizer: Stylizer, photo: Path, tmp_path: Path) -> None:
    """A pipe gives the picture of the file with its digest, and its copy is closed afterwards."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(photo.read_bytes()))
    writer.start()
    style = draw_painting(48, 48)
    expected = stylizer.stylize(photo, style, **SMALL)
    before = len(list(Path("/proc/self/fd").iterdir()))
    piped = stylizer.stylize(tmp_path / "pipe", style, **SMALL)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    writer.join()
    assert np.array_equal(piped.array, expected.array)
    assert piped.inputs[0].sha256 == expected.inputs[0].sha256


def test_it_begins_with_the_given_picture(stylizer: Stylizer) -> None:
    """`start` takes a picture in any form, and the names of the other initial images."""
    pair = draw_scene(64, 48), draw_painting(48, 48)
    white = stylizer.stylize(*pair, start=np.ones((48, 64, 3)), **SMALL)
    assert white.settings.start == "given"
    assert white.array.mean() > stylizer.stylize(*pair, start="grey", **SMALL).array.mean() + 0.1


def test_masks_are_arrays_too(stylizer: Stylizer) -> None:
    """Boolean arrays are masks: each style applies where its own is true."""
    left = np.zeros((48, 64), bool)
    left[:, :32] = True
    scene, light, dark = (Image.new("RGB", (64, 48), c) for c in ("grey", "white", "black"))
    painted = stylizer.stylize(
        scene, [light, dark], style_masks=[left, ~left], size=64, iterations=3
    )
    assert painted.array[:, :20].mean() > painted.array[:, 44:].mean() + 0.2


# Progress


def test_a_watcher_ends_the_painting(stylizer: Stylizer) -> None:
    """A function is called after each iteration; when it returns False, the result is the picture so far."""
    seen = []

    def watch(step: Any) -> bool:
        seen.append((step.iteration, step.losses["total"]))
        return step.iteration < 2

    painted = stylizer.stylize(
        draw_scene(64, 48), draw_painting(48, 48), size=32, iterations=5, progress=watch
    )
    assert [iteration for iteration, _ in seen] == [1, 2]
    assert painted.iterations == (2, 15)
    assert painted.losses["total"] == seen[-1][1]


def test_progress_is_a_line_for_each_scale(
    stylizer: Stylizer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, `progress=True` prints a line at the beginning of each scale, on standard error only."""
    stylizer.stylize(draw_scene(64, 48), draw_painting(48, 48), progress=True, **SMALL)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"painting: scale {number} of 3 (32 px)" for number in (1, 2, 3)
    ]


# Results


def test_a_result_has_every_form(result: Result) -> None:
    """Image, array and tensor are one picture; the numbers are those of the painting."""
    assert (result.image.mode, result.image.size, result.size) == ("RGB", (32, 24), (32, 24))
    assert (result.array.dtype, result.array.shape) == (np.float32, (24, 32, 3))
    assert np.array_equal(result.tensor.numpy(), result.array.transpose(2, 0, 1))
    assert np.abs(np.asarray(result.image) - 255 * result.array).max() <= 0.51
    assert result.alpha is None
    assert result.seconds == sum(result.timings.values()) > 0
    assert result.history[-1].losses["total"] == result.losses["total"]
    assert repr(result).startswith("<Result 32 × 24, 3 iterations in ")
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert shown.tobytes() == result.image.tobytes()


@pytest.mark.parametrize(
    ("name", "keywords", "format"),
    [
        ("a.png", {}, "PNG"),
        ("a.PNG", {"depth": 16}, "PNG"),
        ("a.jpeg", {"quality": 50}, "JPEG"),
        ("a.tif", {}, "TIFF"),
        ("a.webp", {}, "WEBP"),
        ("a.avif", {}, "AVIF"),
    ],
)
def test_the_suffix_chooses_the_format(
    result: Result, tmp_path: Path, name: str, keywords: dict[str, Any], format: str
) -> None:
    """`save` writes the format of the suffix, with a profile and the settings inside."""
    path = result.save(tmp_path / name, **keywords)
    with Image.open(path) as image:
        assert image.format == format
        assert image.info["icc_profile"]
    assert np.abs(decode_file(path).colours - result.array).mean() < 0.1
    assert sidecar.read(path).settings == json.loads(json.dumps(asdict(result.settings)))


@pytest.mark.parametrize(
    ("name", "keywords", "reason"),
    [
        ("a.bmp", {}, "a.bmp: .bmp is not an output format; use one of .png"),
        ("a", {}, "a: it has no suffix; use one of .png"),
        ("a.jpg", {"depth": 16}, "jpg has 8 bits per channel, not 16"),
        ("a.jpg", {"quality": 101}, "quality: 101 is not allowed"),
        ("missing/a.png", {}, "missing does not exist; create it"),
        ("folder.png", {"overwrite": True}, "is a folder; name a file in it"),
        ("old.png", {}, "old.png exists; choose another name, or use overwrite=True"),
        ("dangling.png", {}, "dangling.png exists"),
    ],
)
def test_what_cannot_be_saved_is_refused(
    result: Result, tmp_path: Path, name: str, keywords: dict[str, Any], reason: str
) -> None:
    """A file that exists, a folder or an unknown format is refused with a remedy, and nothing is written."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "old.png").write_text("old")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises((UsageError, SettingsError), match=re.escape(reason)):
        result.save(tmp_path / name, **keywords)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "old.png").read_text() == "old"


def test_an_old_file_is_replaced_as_a_whole(result: Result, tmp_path: Path) -> None:
    """With `overwrite=True` a file is replaced, through a link too; if the disk is full, the old one stays."""
    old, link = tmp_path / "old.png", tmp_path / "link.png"
    old.write_text("old")
    link.symlink_to("old.png")
    with largest_file(500), pytest.raises(NstError, match="File too large"):
        result.save(old, overwrite=True)
    assert old.read_text() == "old"
    result.save(link, overwrite=True)
    assert link.is_symlink()
    assert decode_file(old).colours.shape == (24, 32, 3)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_loss_curve_and_the_time_lapse_are_saved(
    result: Result, stylizer: Stylizer, tmp_path: Path
) -> None:
    """Both are pictures; a time-lapse that was not recorded is refused."""
    with Image.open(result.save_loss_plot(tmp_path / "loss.png")) as image:
        assert image.size == (1200, 560)
    with Image.open(result.save_time_lapse(tmp_path / "lapse.webp")) as image:
        assert image.size == (32, 24)
    with pytest.raises(UsageError, match="exists"):
        result.save_loss_plot(tmp_path / "loss.png")
    other = stylizer.stylize(draw_scene(64, 48), draw_painting(48, 48), **SMALL)
    with pytest.raises(UsageError, match="paint with time_lapse=True"):
        other.save_time_lapse(tmp_path / "other.webp")


# Many pictures


@pytest.mark.filterwarnings(
    "ignore:.*reduce_op:FutureWarning"
)  # gc lists torch's deprecated objects
def test_nothing_of_a_painting_stays_in_memory(stylizer: Stylizer) -> None:
    """After a picture, also one that failed, its scene is released."""
    painted = stylizer.stylize(draw_scene(64, 48), draw_painting(48, 48), **SMALL)
    with pytest.raises(PictureError):
        stylizer.stylize(draw_scene(64, 48), "missing.png", **SMALL)
    gc.collect()
    assert painted.size == (32, 24)
    assert not [one for one in gc.get_objects() if isinstance(one, Scene)]


def test_threads_may_share_a_stylizer(stylizer: Stylizer, result: Result) -> None:
    """Two threads that paint at the same time get the pictures of one thread."""
    found: list[Result] = []
    style = draw_painting(48, 48)
    threads = [
        threading.Thread(
            target=lambda: found.append(stylizer.stylize(draw_scene(64, 48), style, **SMALL))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert all(np.abs(one.array - result.array).max() < 1e-3 for one in found)


@pytest.mark.filterwarnings("ignore:.*reduce_op:FutureWarning")
def test_a_closed_stylizer_is_refused(model_cache: Path) -> None:
    """After its block, a Stylizer is a UsageError, and its network is released."""
    from nst_daemon.painter import Painter

    def painters() -> int:
        gc.collect()
        return len([one for one in gc.get_objects() if isinstance(one, Painter)])

    before = painters()
    with Stylizer(device="cpu", cache_dir=model_cache) as closed:
        assert painters() == before + 1
    assert painters() == before
    with pytest.raises(UsageError, match="this Stylizer is closed; create another one"):
        closed.stylize("a.png", "b.png")


def test_no_configuration_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_cache: Path
) -> None:
    """A ./config.yaml and NST_ variables, even invalid ones, change nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NST_RENDER__SIZE", "nonsense")
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_cache.parent))
    Path("config.yaml").write_text("nonsense: [")
    assert stylize(draw_scene(64, 48), draw_painting(48, 48), device="cpu", **SMALL).size == (
        32,
        24,
    )
