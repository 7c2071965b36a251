"""`benchmarks.looks`: pairs and settings are read, painted once, and laid out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks import looks
from benchmarks.drawings import PAIRS, SCENES, STYLES, draw_painting, draw_scene
from benchmarks.pairs import drawn_pairs, named_settings, read_pairs
from nst_daemon.errors import InputError

PAIR = "{content: town.png, style: night.png}"
QUICK = "quick: iterations=1 coarsest=32"
TINY = ["--size", "32", "--height", "48", "--weights", "bundled"]


@pytest.fixture
def folder(tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures, a file that is no picture, and a cache with the exported network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_cache.parent))
    draw_scene(48, 36).save(tmp_path / "town.png")
    draw_painting(48, 36).save(tmp_path / "night.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def pairs_file(folder: Path, text: str) -> Path:
    path = folder / "pairs.yaml"
    path.write_text(text)
    return path


def test_a_pair_has_styles_a_name_and_references(folder: Path) -> None:
    """Paths are relative to the file; captions default to the files' names."""
    text = (
        "- {content: town.png, styles: [night.png, town.png], name: both, references: "
        "[night.png, {picture: town.png, caption: theirs}]}\n- " + PAIR
    )
    both, plain = read_pairs([pairs_file(folder, text)])
    assert (both.name, plain.name) == ("both", "town in night")
    assert [style.path.name for style in both.styles] == ["night.png", "town.png"]
    assert [reference.caption for reference in both.references] == ["night", "theirs"]
    assert plain.content.sha256 == both.styles[1].sha256


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("pairs: 3", "not a list of pairs"),
        ("", "not a list of pairs"),
        ("- town.png", "pair 1 is not a mapping"),
        ("- {content: town.png}", "pair 1 needs either `style` or `styles`"),
        ("- {style: night.png}", "pair 1, content is missing"),
        ("- {content: town.png, styles: night.png}", "are lists"),
        ("- {content: town.png, styel: night.png}", "unknown key 'styel'"),
        (f"- {PAIR}\n- {{content: gone.png, style: night.png}}", "pair 2, content: there is no"),
        ("- {content: town.png, style: broken.png}", "pair 1, style: "),
        ("- {content: town.png, style: night.png, references: [gone.png]}", "reference: there is"),
        (
            "- {content: town.png, style: night.png, references: [{file: night.png}]}",
            "unknown key 'file'",
        ),
        (f"- {PAIR}\n- {PAIR}", "two pairs are called 'town in night'"),
        ("- {content: [", "cannot be read"),
    ],
)
def test_a_bad_pairs_file_is_one_line_with_file_cause_and_remedy(
    folder: Path, text: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with the code of a bad input before anything is painted."""
    path = pairs_file(folder, text)
    assert looks.main(["--pairs", str(path), "--out", str(folder / "out")]) == InputError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert cause in line
    assert "; " in line
    assert not (folder / "out").exists()


def test_settings_are_a_preset_assignments_or_a_file(folder: Path) -> None:
    """The three forms of `--settings`, with values in YAML."""
    (folder / "more.yaml").write_text("bold: {tv_weight: 2}\nplain:")
    with pytest.raises(InputError, match="'plain' is not a mapping"):
        named_settings([str(folder / "more.yaml")])
    (folder / "more.yaml").write_text("bold: {tv_weight: 2}")
    layers = "deep: style_layers='{relu4_1: 1}' iterations=[3, 2]".replace(", ", ",")
    read = named_settings(["wasserstein", layers, "seed=3", str(folder / "more.yaml")])
    assert read == {
        "wasserstein": {"preset": "wasserstein"},
        "deep": {"style_layers": {"relu4_1": 1}, "iterations": [3, 2]},
        "seed=3": {"seed": 3},
        "bold": {"tv_weight": 2},
    }


@pytest.mark.parametrize("option", ["a: seed=1 x", "a: x='", "a: seed=[", "gone.yaml"])
def test_bad_settings_are_refused(option: str) -> None:
    """Each is an error of one line."""
    with pytest.raises(InputError) as caught:
        named_settings([option])
    assert "\n" not in str(caught.value)


def test_two_settings_of_one_name_are_refused() -> None:
    """They would be one column."""
    with pytest.raises(InputError, match="two settings are called 'a'"):
        named_settings(["a: seed=1", "a: seed=2"])


def test_a_run_is_extended_and_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run paints only the new column, and shows the first run's pictures and the reference."""
    text = f"- {PAIR[:-1]}, references: [town.png]}}\n- {PAIR[:-1]}, name: again}}"
    common = ["--pairs", str(pairs_file(folder, text)), "--cache", str(folder / "cache"), *TINY]
    first, second = folder / "first", folder / "second"
    assert looks.main([*common, "--settings", QUICK, "--out", str(first)]) == 0
    out = capsys.readouterr().out
    assert "[1/2] town in night, quick: " in out
    assert "[2/2] again, quick (cache): " in out  # the same picture under another name
    other = "seeded: start=noise iterations=1 coarsest=32"
    more = ["--settings", QUICK, "--settings", other, "--out", str(second), "--beside", str(first)]
    assert looks.main([*common, *more]) == 0
    out = capsys.readouterr().out
    assert out.count("(cache)") == 3
    assert "[2/4] town in night, seeded: " in out
    kept = {path.name for path in (second / "pictures" / "town in night").iterdir()}
    assert kept == {"quick.png", "quick.json", "seeded.png", "seeded.json"}
    with Image.open(first / "page-1.jpg") as before, Image.open(second / "page-1.jpg") as after:
        # Columns: content, style, quick, reference; then also seeded and the first run's.
        assert (before.width - 6) // 4 == (after.width - 6) // 6 == 64 + 6
        assert before.height == after.height


def test_other_code_paints_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture of other code counts only with --older-code."""
    command = ["--pairs", str(pairs_file(folder, f"- {PAIR}")), "--cache", str(folder / "cache")]
    command += ["--settings", QUICK, "--out", str(folder / "out"), *TINY]
    looks.main(command)
    for path in (folder / "cache").iterdir():
        path.rename(path.with_name(path.name.rpartition("-")[0] + "-0123abcd" + path.suffix))
    capsys.readouterr()
    looks.main([*command, "--older-code"])
    assert "(cache)" in capsys.readouterr().out
    looks.main(command)
    assert "(cache)" not in capsys.readouterr().out


def test_a_failure_costs_one_cell(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that do not fit the pictures are a failure in their cell, and the others are painted."""
    command = ["--pairs", str(pairs_file(folder, f"- {PAIR}")), "--cache", str(folder / "cache")]
    command += ["--settings", "two: style_weights=[1,2]", "--settings", QUICK, *TINY]
    assert looks.main([*command, "--out", str(folder / "out"), "--format", "png"]) == 1
    out = capsys.readouterr().out
    assert "two: failed: " in out
    assert "[2/2] town in night, quick: " in out
    assert (folder / "out" / "page-1.png").exists()


def test_pairs_fill_pages(folder: Path) -> None:
    """With one row on a page, two pairs fill two pages."""
    text = f"- {PAIR}\n- {PAIR[:-1]}, name: again}}"
    command = ["--pairs", str(pairs_file(folder, text)), "--cache", str(folder / "cache")]
    command += ["--settings", QUICK, "--rows", "1", "--out", str(folder / "out"), *TINY]
    assert looks.main(command) == 0
    assert sorted(path.name for path in (folder / "out").glob("page-*")) == [
        "page-1.jpg",
        "page-2.jpg",
    ]


def test_drawn_pairs_show_every_drawing(tmp_path: Path) -> None:
    """Every scene and every style is in a drawn pair, and each is a file."""
    pairs = drawn_pairs(tmp_path, (48, 36))
    assert {name for pair in PAIRS for name in pair} == {*SCENES, *STYLES}
    assert all(file.path.is_file() for pair in pairs for file in (pair.content, *pair.styles))
