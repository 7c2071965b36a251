"""Blended styles, masks and kept colours, from dropped files to the picture and its JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.drawings import draw_scene
from tests.e2e.conftest import DEADLINE, Daemon

ORANGE, BLUE, RED, GREEN = (230, 130, 30), (30, 110, 230), (255, 0, 0), (0, 255, 0)


def halves(path: Path, left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    """A picture or a mask of two colours."""
    image = Image.new("RGB", (64, 48), left)
    image.paste(right, (32, 0, 64, 48))
    image.save(path)


def paint(daemon: Daemon) -> None:
    daemon.start("once")
    assert daemon.process is not None
    assert daemon.process.wait(DEADLINE) == 0, daemon.text()


def sidecar(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((daemon.root / "results" / f"{name}.json").read_text())
    return found


def warmth(path: Path) -> tuple[float, float]:
    """Red minus blue, of the left and of the right of a picture."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    difference = pixels[..., 0] - pixels[..., 2]
    return float(difference[:, :24].mean()), float(difference[:, 40:].mean())


@pytest.mark.slow
def test_masks_weights_and_colours_reach_picture_and_json(daemon: Daemon) -> None:
    """A masked pair keeps to its regions, a blend has its weights, kept colours keep their hue; the JSON says all of
    it, and `rerun` of it paints the same bytes.
    """
    inbox = daemon.root / "inbox"
    (inbox / "blend").mkdir(parents=True)
    draw_scene(64, 48).save(inbox / "blend" / "content.png")
    halves(inbox / "blend" / "style-1.png", ORANGE, ORANGE)
    halves(inbox / "blend" / "style-2.png", BLUE, BLUE)
    (inbox / "blend" / "job.yaml").write_text(
        "style_weights: [3, 1]\nkeep_colors: luminance\nkeep_colors_when: after\n"
    )
    Image.new("RGB", (64, 48), (128, 128, 128)).save(inbox / "parts.content.png")
    halves(inbox / "parts.style.png", BLUE, ORANGE)
    halves(inbox / "parts.content.mask.png", RED, GREEN)
    halves(inbox / "parts.style.mask.png", GREEN, RED)
    (inbox / "parts.yaml").write_text("iterations: 15\ncontent_weight: 0.01\n")
    paint(daemon)

    left, right = warmth(daemon.root / "results" / "parts.png")
    assert left > 30 and right < -30
    recorded = {i["role"]: i["sha256"] for i in sidecar(daemon, "parts")["inputs"]}
    archive = daemon.root / "done" / "parts"
    for role, name in (("content-mask", "content"), ("style-mask", "style")):
        kept = (archive / f"parts.{name}.mask.png").read_bytes()
        assert recorded[role] == hashlib.sha256(kept).hexdigest()

    blend = sidecar(daemon, "blend")
    assert blend["settings"]["style_weights"] == [3, 1]
    assert blend["settings"]["keep_colors"] == "luminance"
    assert [i["name"] for i in blend["inputs"] if i["role"] == "style"] == [
        "style-1.png",
        "style-2.png",
    ]
    with Image.open(daemon.root / "results" / "blend.png") as image:
        shown = np.asarray(image.convert("YCbCr"), dtype=float)
    own = np.asarray(draw_scene(64, 48).convert("YCbCr"), dtype=float)
    assert np.abs(shown - own)[..., 1:].mean() < 3, "the chroma is the content's"
    assert np.abs(shown - own)[..., 0].mean() > 3, "the luminance is painted"

    daemon.start("rerun", str(daemon.root / "results" / "parts.json"))
    assert daemon.process is not None and daemon.process.wait(60) == 0, daemon.text()
    paint(daemon)
    again = daemon.root / "results" / "parts-2.png"
    assert again.read_bytes() == (daemon.root / "results" / "parts.png").read_bytes()
