"""A sample pair for the demo and the documentation: a photo-like scene and a painting, both drawn by code."""

from __future__ import annotations

import shutil
from pathlib import Path

CONTENT = Path(__file__).parent / "riverside.png"
STYLE = Path(__file__).parent / "swirls.png"


def lay_out(folder: Path) -> tuple[Path, Path]:
    """Copy the pair into a folder, with the names of a pair in an inbox.

    Returns:
        The paths of the content and of the style.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content, style = folder / "riverside.content.png", folder / "riverside.style.png"
    shutil.copyfile(CONTENT, content)
    shutil.copyfile(STYLE, style)
    return content, style
