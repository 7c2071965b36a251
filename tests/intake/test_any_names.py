"""Whatever names files and folders have: a scan looks at all of them, and each file has one outcome."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from nst_daemon.intake.drops import Rejection, Request
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.scan import Scan
from nst_daemon.jobs import JobState
from tests.intake.conftest import PNG, House

#: Parts of names that break programs which read names.
ODD = [
    b"M\xfcnchen", b"\xff\xfe", b"\x01", b"\n", b"\x1b[31m", b" ", b"..", b"...", b"\\", b":", b"%s", b"{}", b"-", b"_",
    b".", "é".encode(), "e\u0301".encode(), "\u202e".encode(), "\ufffe".encode(), b"\xed\xa0\x80", b"x" * 90,
    b"9" * 120, b"'", b"~",
]  # fmt: skip
STEMS = [
    b"dog",
    b"cat",
    b"starry",
    b"content",
    b"style",
    b"style-1",
    b"job",
    b"a.content",
    b"x-start",
    b"9" * 30,
    *ODD,
]
ROLES = [
    *[b""] * 6, b".content", b".style", b"_content", b"-style", b".style-2", b"_style.mask", b".content-mask",
    b".start", b"-start", b".batch",
]  # fmt: skip
SUFFIXES = [
    *[b".png"] * 6, b".jpg", b".PNG", b".yaml", b".yml", b".txt", b"", b".png.xmp", b".nextcloud", b":Zone.Identifier",
    b".part", b".temp", b".png.json",
]  # fmt: skip
DATA = [
    *[PNG] * 8, b"", b"size: 64\n", b"style: starry\n", b"seed: " + b"9" * 5000, b"\xff",
    b"contents: '**.png'\nstyles: x\n",
    b'style: "\\ud800"\n', b"priority: .inf\n", b"style: [[[[[[[[[[]]]]]]]]]]\n", b"size: 1:1:1:1:1:1\n",
]  # fmt: skip
KINDS = [*["file"] * 12, "link", "pipe", "folder"]


def name(chance: random.Random) -> bytes:
    """Any name."""
    if chance.random() < 0.1:
        made = chance.randbytes(chance.randrange(1, 30)).translate(None, b"\0/")
    else:
        pieces = [chance.choice(STEMS)] + [chance.choice(ODD)] * chance.choice([0, 0, 0, 1, 2])
        made = b"".join([*pieces, chance.choice(ROLES), chance.choice(SUFFIXES)])
    return made[:255] if made.strip(b".") else b"dog"


def make(root: Path, chance: random.Random, number: int) -> None:
    """Put this many files of any names and kinds below a folder."""
    folders = [b"", b"", b"starry", *(name(chance) for _ in range(8)), b"a/b/c/d/e/f/g/h/i/j"]
    for _ in range(number):
        path = os.path.join(os.fsencode(root), chance.choice(folders), name(chance))  # noqa: PTH118
        kind = chance.choice(KINDS)
        with suppress(OSError):  # the name is in use or too long
            os.makedirs(path.rpartition(b"/")[0], exist_ok=True)  # noqa: PTH103
            if kind == "link":
                os.symlink(b"/etc/passwd", path)  # noqa: PTH211
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "folder":
                os.mkdir(path)  # noqa: PTH102
            else:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                os.write(descriptor, chance.choice(DATA))
                os.close(descriptor)


def files_below(folder: Path) -> set[str]:
    """Every file below a folder that is not ignored."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir())
        and not ignored(path.name)
        and not any(ignored(p, folder=True) for p in path.relative_to(folder).parts[:-1])
    }


def check_words(scan: Scan) -> None:
    """What reaches the ledger, the status and the log is valid Unicode on one line."""
    wanted: tuple[Request | Rejection, ...] = (*scan.rejections, *scan.requests)
    said = [text for found in wanted for text in (found.name, found.group)]
    said += [*scan.problems, *scan.left_alone.values(), *(w.text for w in scan.waiting)]
    said += [rejection.reason for rejection in scan.rejections]
    said += [json.dumps(dict(request.settings), ensure_ascii=False) for request in scan.requests]
    assert all(text.isprintable() for text in said)
    "".join(said).encode()


@pytest.mark.parametrize("seed", range(int(os.environ.get("INBOX_EXAMPLES", "15"))))
def test_whatever_is_dropped_has_one_outcome(tmp_path: Path, seed: int) -> None:
    """Of any names in the inbox and in the library, each file is taken, refused, waiting or left alone, once."""
    chance = random.Random(seed)
    house = House(tmp_path, default_style=chance.choice(["", "starry"]), truncated_grace=0.0)
    house.style("starry.png")
    make(house.inbox, chance, 150)
    make(house.styles, chance, 20)
    before = files_below(house.inbox)
    assert len(before) > 20
    outcomes: Counter[str] = Counter()
    for _ in range(3):
        scan = house.settled()
        assert scan.settling == ()
        check_words(scan)
        for wanted in (*scan.rejections, *scan.requests):
            outcomes.update(file.path for file in wanted.files if file.root == "inbox")
            house.take(wanted)
    assert set(outcomes.values()) <= {1}
    left = {path for waiting in scan.waiting for path in waiting.paths} | set(scan.left_alone)
    folders = tuple(f"{path}/" for path in outcomes if path not in before)  # they are too deep
    taken = {path for path in before if path in outcomes or path.startswith(folders)}
    assert before == taken | left and not taken & left
    assert files_below(house.inbox) == left
    assert not house.ledger.jobs(JobState.CLAIMED)
    house.ledger.close()
