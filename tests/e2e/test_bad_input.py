"""Everything bad at once, with the real daemon, the real worker and the real decoder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import corpus
from tests.e2e.conftest import Daemon

GOOD = ("good", "also good", "starry/good", "日本")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_bad_drop_is_told_what_is_wrong_and_good_ones_finish(
    daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of all bad input in one inbox, each ends in failed/ with its own line, and the good jobs are painted."""
    daemon.environment |= corpus.LIMITS
    inbox = daemon.root / "inbox"
    (daemon.root / "styles").mkdir()
    (daemon.root / "styles" / "starry.png").write_bytes(corpus.picture(seed=7))
    inbox.mkdir()
    expected = corpus.build(inbox, tmp_path_factory.mktemp("outside"))
    assert len(expected) >= 60
    for name in GOOD:
        (inbox / f"{name}.content.png").parent.mkdir(exist_ok=True)
        suffix = ".png" if "/" in name else ".content.png"
        (inbox / f"{name}{suffix}").write_bytes(corpus.picture("JPEG"))
        if "/" not in name:
            (inbox / f"{name}.style.webp").write_bytes(corpus.picture("WEBP", seed=3))
    daemon.start()
    daemon.until(lambda: finished(daemon, expected), "end of every job")
    assert daemon.end() == 0

    told = {name: first_line(daemon.root / "failed" / name) for name in expected}
    wrong = {name: told[name] for name, said in expected.items() if not re.search(said, told[name])}
    assert wrong == {}
    assert not [line for line in told.values() if "Traceback" in line or "/state/" in line]
    files = [daemon.root / "failed" / name / "error.txt" for name in expected]
    assert not [path for path in files if "Traceback" in path.read_text()]
    assert {name for name in GOOD if (daemon.root / "results" / f"{name}.png").is_file()} == set(
        GOOD
    )
    left = {path for path in inbox.rglob("*") if not path.is_dir()}
    assert left == set()
    assert not Path("/tmp/owned").exists()


def finished(daemon: Daemon, expected: dict[str, str]) -> bool:
    """Whether everything has come to its end."""
    failed = all((daemon.root / "failed" / name / "error.txt").exists() for name in expected)
    return failed and all((daemon.root / "done" / name).is_dir() for name in GOOD)


def first_line(folder: Path) -> str:
    """What a person is told."""
    return (folder / "error.txt").read_text().partition("\n")[0]
