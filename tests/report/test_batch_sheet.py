"""The contact sheet of a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nst_daemon.errors import InputError
from nst_daemon.report import batch_sheet, contact_sheet
from tests.report.conftest import Root


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the last sheet was made of: cells, and the texts of rows and columns."""
    made: dict[str, object] = {}

    def grid(cells: object, rows: object, columns: object, *, side: int) -> Image.Image:
        made["cells"] = {place: path.stem for place, path in cells.items()}  # type: ignore[attr-defined]
        made["rows"] = [[label.text for label in labels] for labels in rows]  # type: ignore[attr-defined]
        made["columns"] = [[label.text for label in labels] for labels in columns]  # type: ignore[attr-defined]
        made["pictures"] = [label.picture for labels in [*rows, *columns] for label in labels]  # type: ignore[misc]
        return contact_sheet.grid(cells, rows, columns, side=side)  # type: ignore[arg-type]

    monkeypatch.setattr(batch_sheet, "grid", grid)
    return made


def sheet(root: Root) -> Image.Image:
    """The sheet of the batch, as a picture."""
    places = [root.folder / "done", root.folder / "styles"]
    with Image.open(batch_sheet.write(root.results / "night", places)) as image:
        image.load()
        return image


def add(root: Root, content: str, style: str, **settings: object) -> None:
    """A picture of the batch; its inputs are pictures of their own for each name."""
    words = [content, style, *(f"{k}={v}" for k, v in settings.items())]
    root.add(
        f"night/{'_'.join(words)}",
        content=f"{content}.jpg",
        style=f"{style}.png",
        shifts=(ord(content[0]), ord(style[0])),
        **settings,
    )


def test_contents_stand_against_styles(root: Root, drawn: dict[str, object]) -> None:
    """Without a sweep there is a row for each content and a column for each style, with their pictures."""
    for content in ("dog", "Ünïcode “quotes”"):
        for style in ("<script>", "waves", "embers"):
            add(root, content, style)
    image = sheet(root)
    assert drawn["rows"] == [["dog"], ["Ünïcode “quotes”"]]
    assert drawn["columns"] == [["<script>"], ["waves"], ["embers"]]
    assert drawn["cells"] == {
        (i, j): f"{content}_{style}"
        for i, content in enumerate(("dog", "Ünïcode “quotes”"))
        for j, style in enumerate(("<script>", "waves", "embers"))
    }
    pictures = drawn["pictures"]
    assert isinstance(pictures, list)
    assert all(isinstance(path, Path) for path in pictures), "all inputs were found"
    assert image.width > image.height


def test_a_sweep_stands_along_the_top(root: Root, drawn: dict[str, object]) -> None:
    """With several pairs each is a row, and each combination of settings that was painted a column, in order."""
    for seed in (10, 9):
        for scale in (0.5, 1.0):
            add(root, "dog", "waves", style_scale=scale, seed=seed)
            add(root, "cat", "waves", style_scale=scale, seed=seed)
    sheet(root)
    assert drawn["rows"] == [["dog", "waves"], ["cat", "waves"]]
    assert drawn["columns"] == [
        ["style_scale 0.5", "seed 9"],
        ["style_scale 0.5", "seed 10"],
        ["style_scale 1.0", "seed 9"],
        ["style_scale 1.0", "seed 10"],
    ]


def test_a_sweep_of_one_pair_is_a_table_of_its_settings(
    root: Root, drawn: dict[str, object]
) -> None:
    """One content in one style, two settings swept: one goes down the margin and one along the top."""
    for tv in (0.0, 1.0):
        for seed in (1, 2, 3):
            add(root, "dog", "waves", tv_weight=tv, seed=seed)
    sheet(root)
    rows, columns = drawn["rows"], drawn["columns"]
    assert isinstance(rows, list)
    assert isinstance(columns, list)
    assert [row[2:] for row in rows] + columns in (
        [["seed 1"], ["seed 2"], ["seed 3"], ["tv_weight 0.0"], ["tv_weight 1.0"]],
        [["tv_weight 0.0"], ["tv_weight 1.0"], ["seed 1"], ["seed 2"], ["seed 3"]],
    )


def test_presets_are_one_setting(root: Root, drawn: dict[str, object]) -> None:
    """Where presets are swept, the many settings that follow from them are not in the margins."""
    for preset in ("default", "gatys2016", "wasserstein"):
        add(root, "dog", "waves", preset=preset)
    sheet(root)
    assert drawn["columns"] == [["preset default"], ["preset gatys2016"], ["preset wasserstein"]]


def test_what_is_missing_leaves_its_cell_empty(root: Root, drawn: dict[str, object]) -> None:
    """Of an unfinished batch with a damaged picture the rest is shown; inputs that are gone are named."""
    add(root, "dog", "waves")
    add(root, "cat", "embers")
    add(root, "cat", "waves")
    (root.results / "night" / "cat_waves.png").write_bytes(b"damaged")
    for path in (root.folder / "done").rglob("*.jpg"):
        path.unlink()
    image = sheet(root)
    cells = drawn["cells"]
    assert isinstance(cells, dict)
    assert len(cells) == 3
    assert drawn["rows"] == [["dog"], ["cat"]]
    pixels = np.asarray(image)
    corner = pixels[-image.height // 5 : -10, -image.width // 5 : -10]
    assert corner.std() > 5


def test_a_folder_without_results_is_an_input_error(root: Root) -> None:
    """Any other folder is refused with what to name instead."""
    (root.results / "night").mkdir()
    with pytest.raises(InputError, match=r"no results in .*night; name the folder of a batch"):
        sheet(root)


def test_a_result_of_that_name_is_not_overwritten(root: Root) -> None:
    """Where a result is called contact-sheet, there is no sheet and the result stays as it is."""
    picture = root.add("night/contact-sheet")
    before = picture.read_bytes()
    with pytest.raises(InputError, match="is a result, and is not overwritten"):
        sheet(root)
    assert picture.read_bytes() == before
    assert not picture.with_name(batch_sheet.NAME).exists()


def test_large_batches_stay_pictures(tmp_path: Path) -> None:
    """A grid of 30 columns has cells that can still be seen."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    labels = [[contact_sheet.Label(f"seed {i}")] for i in range(30)]
    side = max(batch_sheet.SMALLEST, batch_sheet.WIDTH // 31)
    image = contact_sheet.grid({(0, 29): tmp_path / "a.png"}, labels[:1], labels, side=side)
    red = (np.asarray(image) == (255, 0, 0)).all(axis=2)
    assert red.sum() >= 64 * 48
    assert red[:, : image.width // 2].sum() == 0
