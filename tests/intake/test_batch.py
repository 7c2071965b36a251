"""The contents of a batch file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake.batch import name_of, parse, read
from nst_daemon.strict_yaml import MAX_BYTES


def test_a_batch_file_is_read(tmp_path: Path) -> None:
    """One word stands for a list of one, and every key arrives as it is written, in its order."""
    file = tmp_path / "night.batch.yaml"
    file.write_text(
        "contents: '*.jpg'\nstyles: [b, a]\nsettings: {size: 64}\n"
        "sweep: {seed: [2, 1], detail: [0, 1, 0.5]}\npriority: -5\n"
    )
    batch = read(file)
    assert (batch.contents, batch.styles, batch.priority) == (("*.jpg",), ("b", "a"), -5)
    assert list(batch.sweep.items()) == [("seed", (2, 1)), ("detail", (0, 1, 0.5))]
    assert batch.combinations == 6


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """A missing file, a folder and a file beyond the limit are errors that name it and the cause."""
    with pytest.raises(InputError, match=r"none\.yaml does not exist; check the path$"):
        read(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a folder; name a file"):
        read(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(SettingsError, match=r"large\.yaml has more than 64 KiB"):
        read(large)


@pytest.mark.parametrize(
    "values",
    [
        {"contents": "*", "styles": "s", "colour": 1},
        {"styles": "s"},
        {"contents": [], "styles": "s"},
        {"contents": "*", "styles": "s", "sweep": {"seed": 1}},
        {"contents": "*", "styles": "s", "sweep": {"seed": []}},
        {"contents": "*", "styles": "s", "sweep": {"seed": [1]}, "settings": {"seed": 2}},
        {"contents": "*", "styles": "s", "priority": "high"},
        {"contents": "*", "styles": "s", "priority": 1001},
        {"contents": "*", "styles": "s", "settings": 3},
    ],
)
def test_what_is_no_batch(values: dict[str, Any]) -> None:
    """Unknown keys, missing ones and values of another kind are errors that name the file."""
    with pytest.raises(SettingsError, match=r"night\.batch\.yaml"):
        parse(values, "night.batch.yaml")


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    """A misspelt key is named together with what was probably meant."""
    with pytest.raises(SettingsError) as refused:
        parse({"content": "*", "style": "s"}, "night.batch.yaml")
    assert str(refused.value) == (
        "night.batch.yaml: unknown keys: content, style; "
        "allowed: contents, styles, settings, sweep, priority (did you mean contents, styles?)"
    )


@pytest.mark.parametrize(
    ("file", "name"),
    [("night.batch.yaml", "night"), ("x/Night.BATCH.yml", "Night"), ("a.yaml", "a")],
)
def test_names_of_batches(file: str, name: str) -> None:
    """The name is the file's, without its endings."""
    assert name_of(Path(file)) == name


@pytest.mark.parametrize("file", [".batch.yaml", " .batch.yml", "...batch.yaml", ". .batch.yaml"])
def test_a_batch_needs_a_name(file: str, tmp_path: Path) -> None:
    """A file without a name before its ending is refused, on the command line and in the inbox if it is not hidden."""
    with pytest.raises(
        InputError, match=r"has no name before \.batch; rename it.*night\.batch\.yaml"
    ):
        name_of(tmp_path / file)


@pytest.mark.parametrize("key", ["contents", "styles"])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_name_in_a_batch_is_refused(key: str, empty: str) -> None:
    """An empty entry is refused by the name of its key."""
    values = {"contents": ["*.jpg"], "styles": ["starry"], key: ["a", empty]}
    with pytest.raises(
        SettingsError, match=rf"^n\.batch\.yaml: {key} contains an empty name; remove it"
    ):
        parse(values, "n.batch.yaml")


@pytest.mark.parametrize(
    ("values", "refused"),
    [([1, 2, 1], True), ([1, "1.0"], True), ([[1], [1]], True), ([1, True], False), (["a"], False)],
)
def test_a_swept_value_that_is_given_twice_is_refused(values: list[object], refused: bool) -> None:
    """Equal values of a setting would paint each picture twice."""
    batch = {"contents": "*.jpg", "styles": "starry", "sweep": {"seed": values}}
    with (
        pytest.raises(SettingsError, match=r"seed has the value .* twice")
        if refused
        else nullcontext()
    ):
        parse(batch, "n.batch.yaml")
