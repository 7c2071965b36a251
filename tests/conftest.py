"""What several rooms' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the ONNX file of the default settings: exporting it takes seconds, so it is shared.

    It is called `nst-daemon`, so its parent serves as XDG_CACHE_HOME.
    """
    from nst_daemon.painter import Painter

    folder = tmp_path_factory.mktemp("cache") / "nst-daemon"
    Painter(device="cpu", cache_dir=folder, cache_bytes=0).export()
    return folder
