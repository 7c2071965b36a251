"""Messages on standard error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def messages(folder: Path, *arguments: str) -> str:
    """What a command says in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NST_")}
    done = subprocess.run(
        [sys.executable, "-m", "nst_daemon", *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.mark.parametrize(
    ("option", "said"), [(("-c", "my root"), " -c 'my root'"), ((), "")], ids=["named", "here"]
)
def test_advice_means_the_same_configuration(
    tmp_path: Path, option: tuple[str, ...], said: str
) -> None:
    """A command in a message has the --config of the command that printed it, and none without one."""
    root = tmp_path / "my root"
    for name in ("inbox", "state"):
        (root / name).mkdir(parents=True)
    (root / "config.yaml").write_text("folders: {root: .}\n")
    picture = tmp_path / "dog.png"
    picture.write_bytes(b"a picture")
    place = tmp_path if option else root
    found = messages(place, "submit", str(picture), str(picture), *option)
    assert f"no daemon is running; `nst-daemon once{said}` paints what is in the inbox" in found
    found = messages(place, "cancel", "dog", *option)
    assert f"start one with `nst-daemon run{said}`" in found
