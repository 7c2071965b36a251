"""What makes two results the same picture."""

from __future__ import annotations

from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.identity import picture_identity

INPUTS = [("content", "a" * 64), ("style", "b" * 64)]


def identity(
    inputs: list[tuple[str, str]] = INPUTS,
    settings: RenderSettings | None = None,
    network: str = "vgg19",
    weights: str = "c" * 64,
) -> str:
    return picture_identity(inputs, settings or resolve(), network, weights)


def test_each_part_of_the_identity_counts() -> None:
    """Another input, order of styles, setting, network or weights file is another picture."""
    others = {
        identity(inputs=[("content", "d" * 64), INPUTS[1]]),
        identity(inputs=INPUTS[::-1]),
        identity(inputs=[*INPUTS, ("style", "e" * 64)]),
        identity(settings=resolve({"seed": 1})),
        identity(network="vgg16"),
        identity(weights="d" * 64),
    }
    assert len(others | {identity()}) == 7


def test_the_same_settings_in_other_words_are_the_same_picture() -> None:
    """A settings file's bytes do not count, nor how a setting was spelled."""
    spelled = resolve({"content_style_ratio": 0.5, "style_weight": 2.0})
    plain = resolve({"content_weight": 1.0, "style_weight": 2.0})
    assert identity(settings=spelled) == identity(settings=plain)
    assert identity(inputs=[*INPUTS, ("settings", "f" * 64)]) == identity()
    assert identity(inputs=[*INPUTS, ("unused", "f" * 64)]) == identity()
