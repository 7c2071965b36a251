"""The modes of the files that a daemon makes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.service.conftest import Served


def test_new_files_follow_the_folder_and_not_the_umask(served: Served) -> None:
    """With umask 077 in setgid folders, the group can use every file and folder that a daemon has made."""
    served.root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        served.start()
    finally:
        os.umask(before)
    (served.root / "log").chmod(0o664)
    served.pair("dog", iterations=5)
    results = served.root / "results"
    served.until(lambda: list(results.glob("dog.json")), "result")
    served.until(lambda: not list((served.root / "state" / "spool").iterdir()), "end of the job")
    assert served.end() == 0
    closed = [
        str(path.relative_to(served.root))
        for path in served.root.rglob("*")
        if path.stat().st_mode & 0o060 != 0o060 and not path.is_relative_to(served.root / "inbox")
    ]
    dropped = {"dog.content.png", "dog.style.png"}
    assert {Path(name).name for name in closed} <= dropped
    assert not [name for name in closed if not name.startswith("done/")]
