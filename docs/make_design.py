"""Write the generated tables of design.md: `python -m docs.make_design`, which `make docs` runs.

The descriptions are the first sentences of the modules' docstrings. The imports are `ALLOWED` in tests/test_imports.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.test_imports import ALLOWED, ENTRY, FILES, LEAVES, modules

PAGE = Path(__file__).parent / "design.md"
#: Names in the table for sets of modules that many parts may import.
GROUPS = {"basics": LEAVES, "file modules": FILES}


def main() -> None:
    """Replace the tables in the page."""
    PAGE.write_text(document(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def document(text: str) -> str:
    """The page with its tables replaced."""
    for name, lines in (("modules", module_table()), ("imports", import_table())):
        first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(first)
        _, _, after = rest.partition(last)
        text = before + first + "\n".join(lines) + "\n" + last + after
    return text


def module_table() -> Iterator[str]:
    """One row for each module, with the first sentence of its docstring."""
    yield "| module | what it does |"
    yield "|---|---|"
    for name, path in modules():
        if path.name not in ("__init__.py", "__main__.py"):
            yield f"| `{name}` | {summary(path)} |"


def import_table() -> Iterator[str]:
    """One row for each part of the package, with what it may import."""
    for title, group in GROUPS.items():
        yield f"{title.capitalize()}: {names(group)}.  "
    yield ""
    yield "| part | may import |"
    yield "|---|---|"
    for part, allowed in ALLOWED.items():
        groups = [title for title, group in GROUPS.items() if group <= allowed]
        others = allowed.difference(*(GROUPS[title] for title in groups))
        cells = groups + ([names(others)] if others else [])
        yield f"| `{part}` | {', '.join(cells) or 'nothing'} |"
    yield f"| {names(ENTRY)} | everything, but heavy parts only inside functions |"


def names(found: set[str]) -> str:
    """Module names in code font, sorted."""
    return ", ".join(f"`{name}`" for name in sorted(found))


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
