"""The messages that the guides quote are those of the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: A string with fewer letters of its own matches too much, and is not taken as a message.
LEAST_LETTERS = 10
INSERTED = "\n"
SEPARATOR = "; "
#: Each line of a block ```text in these pages is a message.
QUOTED = [
    pytest.param(page, line, id=f"{page}: {line[:60]}")
    for page in ("troubleshooting.md", "first-picture.md")
    for block in re.findall(
        r"(?ms)^```text\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8")
    )
    for line in block.splitlines()
]


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
    return tuple(re.compile(".*".join(map(re.escape, p.split(INSERTED)))) for p in sorted(found))


def is_message(text: str) -> bool:
    """Whether each part of a text is one of the program: a message and its remedy."""
    return all(any(m.fullmatch(part) for m in messages()) for part in text.split(SEPARATOR))


@pytest.mark.parametrize(("page", "line"), QUOTED)
def test_quoted_messages_exist(page: str, line: str) -> None:
    """The program can still print each message that a guide quotes."""
    assert is_message(line), f"docs/{page}: no string of the package makes {line!r}"


def test_other_texts_are_not_messages() -> None:
    """A message with another word, or without a remedy of the package, is not taken for one."""
    assert len(QUOTED) >= 15
    assert is_message("unknown setting 'sise'; did you mean size?")
    assert not is_message("unknown sitting 'sise'; did you mean size?")
    assert not is_message("unknown setting 'sise'; guess once more, please")
