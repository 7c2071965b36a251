"""Did you mean …?"""

from __future__ import annotations

import pytest

from nst_daemon.config import config_keys
from nst_daemon.config_report import setting_keys
from nst_daemon.engine.presets import PRESETS
from nst_daemon.suggestions import MOST, did_you_mean, question, similar, similar_keys


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("itertions", "iterations"),
        ("Style-Scale", "style_scale"),
        ("styleScale", "style_scale"),
        ("content weight", "content_weight"),
        ("steps", "iterations"),
        ("num_steps", "iterations"),
        ("epochs", "iterations"),
        ("width", "size"),
        ("image_size", "size"),
        ("resolution", "size"),
        ("alpha", "content_weight"),
        ("lr", "step"),
        ("learning-rate", "step"),
        ("keep_colours", "keep_colors"),
        ("preserve_color", "keep_colors"),
        ("optimiser", "optimizer"),
        ("fromat", "format"),
        ("init", "start"),
    ],
)
def test_the_setting_that_is_meant_comes_first(word: str, meant: str) -> None:
    """Misspelt names, other ways to write them and usual synonyms lead to the setting."""
    assert similar(word, setting_keys())[0] == meant


def test_at_most_three_names_are_suggested() -> None:
    """Of many names that are alike, three are named, and none if no name is alike."""
    assert len(similar("dog", [f"dog{n}" for n in range(50)])) == MOST
    assert similar("zzz", setting_keys()) == []
    assert question([]) == ""
    assert question(["a", "b", "c"]) == "did you mean a, b or c?"
    assert did_you_mean("BOLD", PRESETS) == "did you mean bold?"


@pytest.mark.parametrize("word", ["", " ", "\0", "x" * 100_000, "é" * 300, "__", None, 3])
def test_any_word_is_answered(word: object) -> None:
    """No word leads to an exception or to a long search."""
    similar(word, [*setting_keys(), *(f"job{n}" for n in range(1000))])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("size", ["render.size"]),
        ("service.size", ["render.size"]),
        ("outputs.settle_seconds", ["service.settle_seconds"]),
        ("service.settel_seconds", ["service.settle_seconds"]),
        ("servise.settle_seconds", ["service.settle_seconds"]),
        ("inbox", ["folders.inbox"]),
        ("device", ["devices"]),
        ("gpu", ["devices"]),
        ("render.iteration", ["render.iterations"]),
        ("render.steps", ["render.iterations"]),
        ("timeout", ["hooks.timeout"]),
        ("log_level", ["log.level"]),
    ],
)
def test_a_key_in_the_wrong_section_is_found(key: str, meant: list[str]) -> None:
    """A key without its section, in another section, or misspelt in its own leads to the whole key."""
    assert similar_keys(key, config_keys()) == meant
