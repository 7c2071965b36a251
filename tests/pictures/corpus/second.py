"""libvips, a decoder that people trust, beside ours: `--second` of the table lists where they differ."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nst_daemon.errors import NstError
from nst_daemon.pictures.decode import decode_file
from tests.pictures.corpus.case import Case

#: The largest difference that does not count: two steps of 8 bits.
CLOSE = 2.01 / 255


def disagreement(case: Case) -> str:
    """How libvips and ours differ on a file; "" if they agree, or if libvips cannot open it."""
    data = case.make()
    try:
        theirs = _by_libvips(data)
    except Exception:  # noqa: BLE001 (libvips cannot open it)
        return ""
    try:
        ours = _by_us(data)
    except NstError as error:
        return f"only libvips opens it; ours says: {error}"
    if ours.shape[:2] != theirs.shape[:2]:
        return f"ours is {ours.shape[:2]}, that of libvips {theirs.shape[:2]}"
    off = np.abs(ours - theirs).max()
    return f"they differ by {255 * off:.1f} of 255" if off > CLOSE else ""


def disagreements(cases: Iterator[Case]) -> Iterator[tuple[Case, str]]:
    """The files on which both differ, with how."""
    for case in cases:
        if said := disagreement(case):
            yield case, said


def _by_us(data: bytes) -> NDArray[Any]:
    """(H, W, 4): colours multiplied with their opacity, so that hidden ones do not count, and the opacity."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        path.write_bytes(data)
        found = decode_file(path)
    alpha = np.ones((*found.colours.shape[:2], 1)) if found.alpha is None else found.alpha
    return np.concatenate([found.colours * alpha, alpha], axis=-1)


def _by_libvips(data: bytes) -> NDArray[Any]:
    """The same by libvips: upright, in sRGB."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "", fail_on="error").autorot()
    alpha = np.ones((image.height, image.width, 1))
    if image.hasalpha():
        full = 65535.0 if image.interpretation in ("rgb16", "grey16") else 255.0
        last = image[image.bands - 1].numpy().astype(np.float64)[..., None]
        alpha = last if image.format in ("float", "double") and last.max() <= 1 else last / full
        image = image[: image.bands - 1]
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="relative", depth=16)
    image = image.colourspace("rgb16")
    colours = image.numpy().astype(np.float64).reshape(image.height, image.width, -1) / 65535
    if colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    colours = colours[..., :3]  # others mean neither colour nor opacity
    alpha = alpha.clip(0, 1)
    return np.concatenate([colours.clip(0, 1) * alpha, alpha], axis=-1)
