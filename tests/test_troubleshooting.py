"""The messages that the guides quote are those of the program."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from benchmarks.drawings import draw_painting

ROOT = Path(__file__).parent.parent
#: A string with fewer letters of its own matches too much, and is not taken as a message.
LEAST_LETTERS = 10
INSERTED = "\n"
SEPARATOR = "; "
#: Each line of a block ```text in these pages is a message.
MESSAGES = {
    line: page
    for page in ("troubleshooting.md", "first-picture.md")
    for block in re.findall(
        r"(?ms)^```text\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8")
    )
    for line in block.splitlines()
}


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string of a module; what is inserted is a line break, which messages do not contain."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[-0-9.]*[sdgrf]", INSERTED, node.value)
        elif isinstance(node, ast.JoinedStr):
            constants = (p.value if isinstance(p, ast.Constant) else INSERTED for p in node.values)
            yield "".join(map(str, constants))


@cache
def messages() -> tuple[re.Pattern[str], ...]:
    """The strings of the package that may be messages, each without its remedy, and the remedies."""
    found = {
        part
        for folder in ("nst_daemon", "export")
        for path in (ROOT / folder).rglob("*.py")
        for text in strings(ast.parse(path.read_text(encoding="utf-8")))
        for part in text.split(SEPARATOR)
        if len(re.sub(r"\W", "", part)) >= LEAST_LETTERS
    }
    patterns = (".*".join(map(re.escape, part.split(INSERTED))) for part in sorted(found))
    return tuple(re.compile(rf"{pattern}(: .*)?") for pattern in patterns)  # with a cause


def is_message(text: str) -> bool:
    """Whether each part of a text is one of the program: a message and its remedy."""
    return all(any(m.fullmatch(part) for m in messages()) for part in text.split(SEPARATOR))


@pytest.mark.parametrize("line", MESSAGES)
def test_quoted_messages_exist(line: str) -> None:
    """The program can still print each message that a guide quotes."""
    assert is_message(line), f"docs/{MESSAGES[line]}: no string of the package makes {line!r}"


def test_other_texts_are_not_messages() -> None:
    """A message with another word, or without a remedy of the package, is not taken for one."""
    assert len(MESSAGES) >= 15
    assert is_message("unknown setting 'sise'; did you mean size?")
    assert not is_message("unknown sitting 'sise'; did you mean size?")
    assert not is_message("unknown setting 'sise'; guess once more, please")


PROVOKED = [
    ("status", {}),
    ("stylize cut.jpg style.png -o out.png", {}),
    ("stylize text.jpg style.png -o out.png", {}),
    ("stylize style.png style.png -o out.png --set sise=64", {}),
    ("stylize style.png style.png -o out.png --device cuda:63", {}),
    ("stylize style.png style.png -o out.png", {"NST_MODEL__WEIGHTS": "imagenet"}),
    ("status -c misspelt.yaml", {}),
    ("status -c twice.yaml", {}),
    ("status -c nope.yaml", {}),
    ("status -c damaged.yaml", {}),
    ("once --wait 1", {"NST_LIMITS__MIN_FREE_DISK": "4096TiB"}),
]


@pytest.mark.parametrize(("words", "variables"), PROVOKED, ids=[words for words, _ in PROVOKED])
def test_provoked_messages_are_quoted(
    tmp_path: Path, words: str, variables: dict[str, str]
) -> None:
    """The program prints a line of the page, apart from paths, numbers and names of formats."""
    draw_painting(64, 48).save(tmp_path / "style.png")
    draw_painting(64, 48).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-600])
    (tmp_path / "text.jpg").write_text("text", encoding="utf-8")
    (tmp_path / "misspelt.yaml").write_text("seize: 64\n", encoding="utf-8")
    (tmp_path / "twice.yaml").write_text("a: 1\na: 2\n", encoding="utf-8")
    (tmp_path / "damaged.yaml").write_text("folders: {root: damaged}\n", encoding="utf-8")
    (tmp_path / "nst").mkdir()
    (tmp_path / "damaged" / "state").mkdir(parents=True)
    (tmp_path / "damaged" / "state" / "ledger.sqlite").write_bytes(b"x" * 9000)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NST_")}
    environment |= {"TORCH_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "nst_daemon", *words.split()],
        cwd=tmp_path,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    printed = {comparable(line) for line in (done.stdout + done.stderr).splitlines()}
    quoted = {comparable(line) for line in MESSAGES if MESSAGES[line] == "troubleshooting.md"}
    assert printed & quoted, done.stdout + done.stderr


def comparable(line: str) -> str:
    """A message without the time, the program's name, paths, names of files, numbers and formats."""
    line = re.sub(r"^(nst-daemon: |[-\d]+ [:\d]+ \w+ +)", "", line)
    line = re.sub(r"known formats are .*", "known formats are …", line)
    line = re.sub(r"[\w.-]*/[\w./-]+|[\w.-]+\.(jpg|yaml)\b", "FILE", line)
    return re.sub(r"[\d.,]+( [KMGT]iB)?", "N", line)
