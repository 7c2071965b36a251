"""Where the inputs of earlier jobs are searched by their contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nst_daemon.config import Config


def input_places(config: Config, first: Sequence[Path] = ()) -> list[Path]:
    """The folders that `rerun`, the gallery, contact sheets and the page search for inputs, in this order."""
    folders = config.folders
    batches = [*config.batch_roots, folders.batches]
    return [*first, folders.done, folders.styles, *batches, folders.failed]
