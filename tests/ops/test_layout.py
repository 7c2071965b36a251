"""What commands print fits a terminal of any width, and programs that read it from a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len

from nst_daemon.config import load
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ops.layout import Row, facts, table, wrapped

NAMES = (
    "dog",
    "夜の富士山と桜",
    "🦊🎨 fox",
    "שלום",
    "two\nlines\x1b[31m\u202e",
    "night/" + "long" * 50,
)
REASON = (
    "the style of dog has 33 pictures, and at most 32 are blended; remove some of them from "
    "/var/lib/nst-daemon/styles/monet, then use `nst-daemon retry dog`"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose ledger has a failed and a finished job of each name."""
    folders = load(None, {"NST_FOLDERS__ROOT": str(tmp_path)}, search=()).folders
    folders.state.mkdir(parents=True)
    with Ledger.open(folders.ledger) as ledger:
        for number, name in enumerate(NAMES):
            job = Job(f"{number:032x}", name, "pair", JobState.CLAIMED, (), number, number)
            ledger.add(job)
            ledger.move(job.id, JobState.FAILED, now=9.0, error=REASON)
    return tmp_path


def environment(root: Path, **extra: str) -> dict[str, str]:
    return {**os.environ, "NST_FOLDERS__ROOT": str(root), "TERM": "xterm-256color", **extra}


def on_terminal(root: Path, width: int, *arguments: str, **extra: str) -> str:
    """What the command prints on a terminal of this width."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "nst_daemon", *arguments],
        env={k: v for k, v in environment(root, **extra).items() if k not in {"COLUMNS", "LINES"}},
        cwd=root,
        stdout=side,
        stderr=side,
        stdin=subprocess.DEVNULL,
    )
    os.close(side)
    read = b""
    try:
        while data := os.read(main, 65536):
            read += data
    except OSError:  # the terminal has no other end any more
        pass
    os.close(main)
    assert process.wait(60) == 0, read
    return read.decode().replace("\r\n", "\n")


def in_pipe(root: Path, *arguments: str, **extra: str) -> str:
    """What the command writes into a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "nst_daemon", *arguments],
        env=environment(root, **extra),
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=60,
    ).stdout


def check_width(text: str, width: int) -> None:
    """Lines fit the width, except those of one word that is longer."""
    for line in text.splitlines():
        words = line.strip().split(" ")
        assert cell_len(line) <= width or len(words) <= 2, line
    assert "…" not in text
    assert not set(text) & set("│─┃━┏┓┗┛╭╮╰╯")
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_history_fits_the_terminal(root: Path, width: int) -> None:
    """Every name and every word of each reason is on the terminal, and no line is wider than it."""
    text = on_terminal(root, width, "history")
    check_width(text, width)
    assert " ".join(text.split()).count(REASON) == len(NAMES)
    assert "two\\x0alines\\x1b[31m\\u202e" in text
    assert NAMES[-1] in text


@pytest.mark.parametrize(
    "command", [("history", "0" * 31 + "1"), ("status",), ("presets",), ("model", "list")]
)
@pytest.mark.parametrize("width", [40, 80])
def test_other_tables_fit_the_terminal(root: Path, width: int, command: Sequence[str]) -> None:
    """Status, presets, weights and the story of a job are as narrow as the terminal."""
    check_width(on_terminal(root, width, *command, NO_COLOR="1"), width)


def test_a_pipe_gets_one_line_for_each_job(root: Path) -> None:
    """In a pipe each job is one line with its whole reason, whatever COLUMNS says."""
    text = in_pipe(root, "history")
    assert text == in_pipe(root, "history", COLUMNS="40", NO_COLOR="1")
    heading, *lines = text.splitlines()
    assert heading.split() == [
        *["name", "id", "state", "changed", "attempts", "result", "or", "reason"]
    ]
    assert len(lines) == len(NAMES)
    assert all(line.endswith(f"  {REASON}") for line in lines)
    assert {len(line.split("  ")) > 5 for line in lines} == {True}


def test_columns_align_for_wide_characters() -> None:
    """A character that takes two columns of the terminal moves no column."""
    lines = table(("name", "state"), [Row(("夜の", "done")), Row(("dog", "failed"))], 80).split(
        "\n"
    )
    assert [cell_len(line[: line.rindex(" ")]) for line in lines] == [5, 5, 5]


def test_an_empty_cell_is_a_hyphen_in_a_pipe() -> None:
    """Programs that split lines at two spaces find as many columns in each line."""
    text = table(("a", "b", "c"), [Row(("1", "", "3")), Row(("1", "2", "3"), "why")], None, "note")
    assert [line.split() for line in text.split("\n")] == [
        ["a", "b", "c", "note"],
        ["1", "-", "3", "-"],
        ["1", "2", "3", "why"],
    ]


def test_a_long_word_is_not_divided() -> None:
    """A path can be copied from a narrow terminal in one piece."""
    assert (
        wrapped("see /a/very/long/path now", 10, "- ", "  ") == "- see\n  /a/very/long/path\n  now"
    )


def test_facts_are_a_list_on_a_narrow_terminal() -> None:
    """Names stand in a column of their own where there is room, and before the value elsewhere."""
    pairs = [("inputs are in", "dog"), ("id", "7"), ("result", "")]
    assert facts(pairs, 80) == "inputs are in  dog\nid             7"
    assert facts(pairs, 30) == "inputs are in: dog\nid: 7"


def test_json_is_the_same_everywhere(root: Path) -> None:
    """JSON does not depend on the terminal."""
    found = json.loads(on_terminal(root, 40, "history", "--json"))
    assert found == json.loads(in_pipe(root, "history", "--json"))
