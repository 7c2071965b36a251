"""A short one of what `python -m tests.torture.pictures` does for long."""

from __future__ import annotations

import re
import subprocess
import sys


def test_damaged_files_are_read_or_refused() -> None:
    """Some hundred damaged files give no finding, and all of them are tried."""
    formats = ("bmp", "gif", "psd", "webp")
    words = [sys.executable, "-m", "tests.torture.pictures", "--files", "400", "--seed", "1"]
    done = subprocess.run([*words, *formats], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 findings" in done.stdout
    assert sum(map(int, re.findall(r"(\d+) files", done.stdout))) == 400
