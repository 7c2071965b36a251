"""Tables of plain text, for a terminal of any width and for a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from nst_daemon.names import printable

#: Spaces between columns, before the lines of a note, and before the lines that continue one.
GAP, INDENT = "  ", "    "
#: A cell that is wider has a line of its own in a paragraph.
SHORT = 30


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one entry, and a text that is too long for a column, such as a reason."""

    cells: Sequence[object]
    note: str = ""


def terminal_width() -> int | None:
    """The columns of the terminal that standard output is; None if it is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(headings: Sequence[str], rows: Iterable[Row], width: int | None, note: str = "") -> str:
    """Aligned columns. An entry that is too wide for the terminal is a paragraph.

    Nothing is cut. In a pipe each entry is one line, its note is the last column, and an empty
    cell is a hyphen.

    Args:
        headings: One for each cell.
        rows: The entries.
        width: Columns of the terminal; None for a pipe.
        note: Heading of the notes.
    """
    entries = [(list(map(_text, row.cells)), _text(row.note)) for row in rows]
    if width is None:
        noted = any(said for _, said in entries)
        columns = [[*cells, said] if noted else cells for cells, said in entries]
        # Programs that split lines at two spaces find every column.
        columns = [[cell or "-" for cell in cells] for cells in columns]
        return _aligned([[*headings, note] if noted else list(headings), *columns])
    widths = _fitting_widths([list(headings), *(cells for cells, _ in entries)], width)
    shown = [_line(headings, widths)] if widths else []
    for number, (cells, said) in enumerate(entries):
        if widths and all(cell_len(cell) <= w for cell, w in zip(cells, widths, strict=True)):
            shown += [
                _line(cells, widths),
                *([wrapped(said, width, INDENT, INDENT)] if said else []),
            ]
        else:
            gap = [""] if number and not widths else []
            shown += [*gap, _paragraph(headings, cells, said, width)]
    return "\n".join(shown)


def facts(pairs: Iterable[tuple[str, str]], width: int | None) -> str:
    """One fact after the other, with their names in a column of their own."""
    told = [(name, _text(value)) for name, value in pairs if value]
    widest = max((cell_len(name) for name, _ in told), default=0)
    if width is not None and width < 3 * widest:
        return "\n".join(wrapped(f"{name}: {value}", width, "", INDENT) for name, value in told)
    return "\n".join(
        wrapped(value, width, _padded(name, widest) + GAP, " " * (widest + len(GAP)))
        for name, value in told
    )


def wrapped(text: str, width: int | None, first: str = "", rest: str = "") -> str:
    """Text in lines of at most `width` columns, unless one word is longer; words are never divided.

    Args:
        text: One line.
        width: Columns; None for no limit.
        first: What the first line begins with.
        rest: What each other line begins with.
    """
    if width is None or cell_len(first + text) <= width:
        return first + text
    lines, line, start = [], first, True
    for word in text.split(" "):
        longer = line + word if start else f"{line} {word}"
        if not start and cell_len(longer) > width:
            lines.append(line)
            line = rest + word
        else:
            line = longer
        start = False
    return "\n".join([*lines, line])


def _paragraph(headings: Sequence[str], cells: Sequence[str], said: str, width: int) -> str:
    """An entry on lines of its own: the first cell, then the others with their headings, then the note."""
    named = [pair for pair in zip(headings[1:], cells[1:], strict=True) if pair[1]]
    short = [f"{name} {value}" for name, value in named if cell_len(value) <= SHORT]
    lines = [", ".join(short), *(f"{n}: {v}" for n, v in named if cell_len(v) > SHORT)]
    more = [wrapped(line, width, INDENT, 2 * INDENT) for line in lines if line]
    more += [wrapped(said, width, INDENT, INDENT)] if said else []
    return "\n".join([wrapped(cells[0], width), *more])


def _fitting_widths(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """The widths of columns that hold the headings and most lines, without the longest if need be; [] if none do.

    lines: The headings, then the entries.
    """
    heading, *entries = lines
    entries.sort(key=lambda cells: sum(map(cell_len, cells)))
    fewest = (len(entries) + 1) // 2
    for number in range(len(entries), fewest - 1, -1):
        widths = _widths([heading, *entries[:number]])
        if sum(widths) + len(GAP) * (len(widths) - 1) <= width:
            return widths
    return []


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns that are as wide as their widest cell."""
    widths = _widths(lines)
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells in columns, without spaces at the end."""
    return GAP.join(_padded(cell, w) for cell, w in zip(cells, widths, strict=True)).rstrip(" ")


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _text(value: object) -> str:
    return printable(str(value))
