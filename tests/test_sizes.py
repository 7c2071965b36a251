"""The benchmark that makes the tables of docs/sizes.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sizes import write

PAGE = Path(__file__).parent.parent / "docs" / "sizes.md"


@pytest.mark.parametrize("name", ["measured", "predicted"])
def test_a_table_is_replaced_and_the_rest_stays(tmp_path: Path, name: str) -> None:
    """A new table stands in the place of the old one, and nothing else of the page changes."""
    page = tmp_path / "sizes.md"
    old = PAGE.read_text(encoding="utf-8")
    page.write_text(old, encoding="utf-8")
    write(page, name, "| a new table |")
    write(page, name, "| a new table |")
    before, _, rest = old.partition(f"<!-- {name} -->")
    after = rest.partition(f"<!-- /{name} -->")[2]
    expected = f"{before}<!-- {name} -->\n\n| a new table |\n\n<!-- /{name} -->{after}"
    assert page.read_text(encoding="utf-8") == expected


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    """A page without the markers ends the program and stays as it is."""
    page = tmp_path / "other.md"
    page.write_text("text", encoding="utf-8")
    with pytest.raises(SystemExit, match="measured"):
        write(page, "measured", "table")
    assert page.read_text(encoding="utf-8") == "text"
