"""The contact sheet of a batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nst_daemon.digests import find_files
from nst_daemon.errors import InputError
from nst_daemon.jobs import BatchCell
from nst_daemon.report import batch_sheet, contact_sheet, gallery
from tests.report.conftest import Root


class Drawn:
    """The table of the batch: cells by (row, column), and texts and pictures of the margins."""

    def __init__(self, root: Root) -> None:
        found = sorted(gallery.found(root.results / "night"), key=lambda e: str(e["finished"]))
        inputs = {t.sha256: t.size for e in found for t in e["thumbnails"] if not t.source}
        files = find_files(inputs, [root.folder / "done", root.folder / "styles"])
        table = batch_sheet.table(found, {d[: gallery.KEY_DIGITS]: p for d, p in files.items()})
        rows, columns = table.rows.places(), table.columns.places()
        labels = [table.rows.labels[k] for k in rows], [table.columns.labels[k] for k in columns]
        self.rows, self.columns = ([[x.text for x in line] for line in side] for side in labels)
        self.pictures = [x.picture for side in labels for line in side for x in line]
        self.cells = {(rows[r], columns[c]): p.stem for (r, c), p in table.pictures.items()}


def sheet(root: Root) -> Image.Image:
    """The sheet of the batch, as a picture."""
    places = [root.folder / "done", root.folder / "styles"]
    with Image.open(batch_sheet.write(root.results / "night", places)) as image:
        image.load()
        return image


def add(
    root: Root, content: str, style: str, cell: BatchCell | None = None, **settings: object
) -> None:
    """Add a picture to the batch. Each name of an input is another picture."""
    words = [content, style, *(f"{k}={v}" for k, v in settings.items())]
    root.add(
        f"night/{'_'.join(words)}",
        content=f"{content}.jpg",
        style=f"{style}.png",
        shifts=(ord(content[0]), ord(style[0])),
        batch=cell,
        **settings,
    )


def test_contents_stand_against_styles(root: Root) -> None:
    """Without a sweep there is a row for each content and a column for each style, with their pictures."""
    for content in ("dog", "Ünïcode “quotes”"):
        for style in ("<script>", "waves", "embers"):
            add(root, content, style)
    image, drawn = sheet(root), Drawn(root)
    assert drawn.rows == [["dog"], ["Ünïcode “quotes”"]]
    assert drawn.columns == [["<script>"], ["waves"], ["embers"]]
    assert drawn.cells == {
        (i, j): f"{content}_{style}"
        for i, content in enumerate(("dog", "Ünïcode “quotes”"))
        for j, style in enumerate(("<script>", "waves", "embers"))
    }
    assert len(drawn.pictures) == 5
    assert all(isinstance(path, Path) for path in drawn.pictures), "all inputs were found"
    assert image.width > image.height


def test_a_sweep_stands_along_the_top(root: Root) -> None:
    """With several pairs, each pair is a row and each painted combination of settings a column, in order."""
    for seed in (10, 9):
        for scale in (0.5, 1.0):
            add(root, "dog", "waves", style_scale=scale, seed=seed)
            add(root, "cat", "waves", style_scale=scale, seed=seed)
    drawn = Drawn(root)
    assert drawn.rows == [["dog", "waves"], ["cat", "waves"]]
    assert drawn.columns == [
        ["style_scale 0.5", "seed 9"],
        ["style_scale 0.5", "seed 10"],
        ["style_scale 1", "seed 9"],
        ["style_scale 1", "seed 10"],
    ]


def test_a_sweep_of_one_pair_is_a_table_of_its_settings(root: Root) -> None:
    """With one pair and two swept settings, one setting is along the left margin and one along the top."""
    for tv in (0.0, 1.0):
        for seed in (1, 2, 3):
            add(root, "dog", "waves", tv_weight=tv, seed=seed)
    drawn = Drawn(root)
    assert drawn.rows == [["dog", "waves", "tv_weight 0"], ["dog", "waves", "tv_weight 1"]]
    assert drawn.columns == [["seed 1"], ["seed 2"], ["seed 3"]]


def test_presets_are_one_setting(root: Root) -> None:
    """If presets are swept, the settings that follow from them are not in the margins."""
    for preset in ("painting", "gatys2016", "wasserstein"):
        add(root, "dog", "waves", preset=preset)
    assert Drawn(root).columns == [
        ["preset painting"], ["preset gatys2016"], ["preset wasserstein"]
    ]  # fmt: skip


def cell(*position: int, style: str = "waves", **swept: object) -> BatchCell:
    """The record in the sidecar of a picture of the batch."""
    content, of_style, step = position
    return BatchCell("night", style, swept, (content, of_style, step))


def test_axes_are_in_the_order_of_the_batch_file(root: Root) -> None:
    """Contents, styles and values are in the order of the batch file, not in the order of painting."""
    for step, seed in ((2, 1), (0, 3), (1, 2)):
        for i, style in ((1, "embers"), (0, "waves")):
            for j, content in ((1, "ant"), (0, "dog")):
                recorded = cell(j, i, step, style=style, seed=seed)
                add(root, content, style, recorded, seed=seed)
    drawn = Drawn(root)
    assert drawn.rows == [["dog", "waves"], ["dog", "embers"], ["ant", "waves"], ["ant", "embers"]]
    assert drawn.columns == [["seed 3"], ["seed 2"], ["seed 1"]]
    assert drawn.cells[1, 2] == "dog_embers_seed=1"


@pytest.mark.parametrize("missing", [0, 1, 3, 5])
def test_a_missing_picture_does_not_change_the_order(root: Root, missing: int) -> None:
    """The table of a single pair keeps the order of both swept settings if a picture is missing."""
    swept = [(tv, seed) for tv in (1, 0) for seed in (9, 7, 8)]
    for step in (5, 3, 4, 1, 2, 0):
        tv, seed = swept[step]
        if step != missing:
            add(
                root,
                "dog",
                "waves",
                cell(0, 0, step, tv_weight=tv, seed=seed),
                tv_weight=tv,
                seed=seed,
            )
    drawn = Drawn(root)
    assert drawn.rows == [["dog", "waves", "tv_weight 1"], ["dog", "waves", "tv_weight 0"]]
    assert drawn.columns == [["seed 9"], ["seed 7"], ["seed 8"]]
    assert len(drawn.cells) == 5


def test_styles_have_their_names_in_the_library(root: Root) -> None:
    """A style is labelled by its name, not by the file of its first picture; settings beside it are not swept."""
    add(root, "dog", "wheat", cell(0, 0, 0, style="monet"), style_scale=0.5)
    add(root, "dog", "waves", cell(0, 1, 0, style="starry"), style_scale=2.0)
    drawn = Drawn(root)
    assert (drawn.rows, drawn.columns) == ([["dog"]], [["monet"], ["starry"]])


def test_older_pictures_stand_before_recorded_ones(root: Root) -> None:
    """A picture whose sidecar records no cell is still shown, with the value of the swept setting that it has."""
    add(root, "dog", "waves", cell(0, 0, 0, seed=5), seed=5)
    add(root, "dog", "waves", seed=8)
    drawn = Drawn(root)
    assert drawn.columns == [["seed 8"], ["seed 5"]]
    assert len(drawn.cells) == 2


def test_of_two_pictures_in_one_cell_the_later_is_shown(root: Root) -> None:
    """A cell that was painted again shows the new picture."""
    add(root, "dog", "waves", cell(0, 0, 0))
    root.add(
        "night/again", content="dog.jpg", style="waves.png", shifts=(100, 119), batch=cell(0, 0, 0)
    )
    assert Drawn(root).cells == {(0, 0): "again"}


def test_a_damaged_record_leaves_the_picture_out(root: Root) -> None:
    """A sidecar whose batch entry lacks keys or is not a mapping counts as damaged."""
    add(root, "dog", "waves", cell(0, 0, 0))
    add(root, "cat", "waves", cell(1, 0, 0))
    path = root.results / "night" / "cat_waves.json"
    for damage in ("night", {"name": "night"}, {"position": [0, 0, 0]}):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"batch": damage}))
        assert Drawn(root).rows == [["dog"]]


def test_what_is_missing_leaves_its_cell_empty(root: Root) -> None:
    """Missing and damaged pictures leave empty cells, and missing inputs are shown by name."""
    add(root, "dog", "waves")
    add(root, "cat", "embers")
    add(root, "cat", "waves")
    (root.results / "night" / "cat_waves.png").write_bytes(b"damaged")
    for path in (root.folder / "done").rglob("*.jpg"):
        path.unlink()
    image, drawn = sheet(root), Drawn(root)
    assert len(drawn.cells) == 3
    assert drawn.rows == [["dog"], ["cat"]]
    pixels = np.asarray(image)
    corner = pixels[-image.height // 5 : -10, -image.width // 5 : -10]
    assert corner.std() > 5


def test_a_folder_without_results_is_an_input_error(root: Root) -> None:
    """A folder without results is refused, and the message says what to name."""
    (root.results / "night").mkdir()
    with pytest.raises(InputError, match=r"no results in .*night; name the folder of a batch"):
        sheet(root)


def test_a_result_of_that_name_is_not_overwritten(root: Root) -> None:
    """A result named contact-sheet is kept, and no sheet is written."""
    picture = root.add("night/contact-sheet")
    before = picture.read_bytes()
    with pytest.raises(InputError, match="is a result, and is not overwritten"):
        sheet(root)
    assert picture.read_bytes() == before
    assert not picture.with_name(batch_sheet.SHEET).exists()


def test_large_batches_stay_pictures(tmp_path: Path) -> None:
    """In a grid of 30 columns, a picture is still shown at 64 × 48 pixels or more."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    labels = [[contact_sheet.Label(f"seed {i}")] for i in range(30)]
    side = max(batch_sheet.MIN_SIDE, batch_sheet.SHEET_WIDTH // 31)
    image = contact_sheet.grid({(0, 29): tmp_path / "a.png"}, labels[:1], labels, side=side)
    red = (np.asarray(image) == (255, 0, 0)).all(axis=2)
    assert red.sum() >= 64 * 48
    assert red[:, : image.width // 2].sum() == 0
