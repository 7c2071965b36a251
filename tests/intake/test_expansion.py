"""Which pictures a batch asks for, and what it may read."""

from __future__ import annotations

import json
import time
import tracemalloc
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake.batch import Batch, parse
from nst_daemon.intake.drops import Rejection, Request
from nst_daemon.intake.expansion import Expansion, Reach, plan
from nst_daemon.jobs import BatchCell
from tests.intake.test_any_values import KEYS, VALUES


def without_count(values: Mapping[str, Any], pictures: int) -> RenderSettings:
    """The complete settings, whatever the number of style pictures is."""
    return resolve(values)


@pytest.fixture
def reach(tmp_path: Path) -> Reach:
    """Two contents in a folder that may be read, two styles in the library, and a picture outside of both."""
    for name in ("photos/a.jpg", "photos/b.jpg", "photos/deep/a.png", "styles/starry.jpg", "x.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "styles/starry.yaml").write_text("seed: 5")
    (tmp_path / "photos/notes.txt").touch()
    (tmp_path / "photos/.a.jpg.part").touch()
    (tmp_path / "photos/link.jpg").symlink_to(tmp_path / "x.jpg")
    roots = (tmp_path / "photos",)
    return Reach(roots, tmp_path / "styles", without_count, "vgg19", "0" * 64, 1 << 20)


def names(batch: Batch, reach: Reach) -> list[str]:
    """The names of the pictures that a batch asks for."""
    return [combination.name for combination in plan(batch, "night", reach)]


def test_every_combination_is_asked_for(reach: Reach) -> None:
    """2 contents × 1 style × 2 × 2 settings are 8 pictures with names of their own."""
    batch = parse(
        {"contents": "*.jpg", "styles": "starry", "sweep": {"seed": [1, 2], "tv_weight": [0, 1]}},
        "night.batch.yaml",
    )
    found = names(batch, reach)
    assert len(set(found)) == 8
    assert found[0] == "night/a_starry_seed=1_tv_weight=0"


def test_settings_come_from_style_batch_and_sweep(reach: Reach) -> None:
    """The library's YAML is overridden by the batch's settings, and these by the sweep."""
    one = plan(Batch(("a.jpg",), ("starry",)), "n", reach)
    two = plan(Batch(("a.jpg",), ("starry",), {"seed": 6}), "n", reach)
    three = plan(Batch(("a.jpg",), ("starry",), {"size": 64}, {"seed": (7,)}), "n", reach)
    assert [c.settings for (c,) in (one, two, three)] == [
        {"seed": 5},
        {"seed": 6},
        {"seed": 7, "size": 64},
    ]


def test_a_folder_of_the_library_is_one_style(reach: Reach, tmp_path: Path) -> None:
    """A folder of the library, named by a batch, is one style with all its pictures and the settings beside it."""
    (tmp_path / "styles/monet").mkdir()
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / "styles/monet" / name).write_bytes(name.encode())
    (tmp_path / "styles/monet.yaml").write_text("seed: 8")
    found = requests(reach, Batch(("a.jpg",), ("starry", "monet")))
    assert [wanted.name for wanted in found] == ["night/a_starry", "night/a_monet"]
    monet = found[1]
    assert isinstance(monet, Request)
    assert [file.path.rpartition("/")[2] for file in monet.files] == ["a.jpg", "a.jpg", "b.jpg"]
    assert monet.settings == {"seed": 8}


def test_pictures_come_in_the_order_of_the_axes(reach: Reach, tmp_path: Path) -> None:
    """Contents follow the globs, in natural order within one; styles, keys and values come as they are written."""
    for name in ("photos/IMG_10.jpg", "photos/IMG_2.jpg", "styles/a.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    sweep = {"tv_weight": (1, 0), "seed": (2, 10, 1)}
    batch = Batch(("IMG*", "a.jpg"), ("starry", "a"), {}, sweep)
    found = plan(batch, "night", reach)
    assert [c.name for c in found if c.cell.position[1:] == (0, 0)] == [
        "night/IMG_2_starry_tv_weight=1_seed=2",
        "night/IMG_10_starry_tv_weight=1_seed=2",
        "night/a_starry_tv_weight=1_seed=2",
    ]
    assert [c.name for c in found[:12]] == [
        f"night/IMG_2_{style}_tv_weight={tv}_seed={seed}"
        for style in ("starry", "a")
        for tv in (1, 0)
        for seed in (2, 10, 1)
    ]
    positions = [c.cell.position for c in found]
    assert positions == sorted(positions)
    assert positions[-1] == (2, 1, 5)


def test_a_picture_knows_its_cell(reach: Reach, tmp_path: Path) -> None:
    """A request carries its batch, the name of its style, and the swept values in their order, and nothing else."""
    (tmp_path / "photos/wave.png").write_bytes(b"wave")
    batch = Batch(("a.jpg",), ("starry", "wave.png"), {"size": 64}, {"seed": (7,), "detail": (0,)})
    cells = [wanted.batch for wanted in requests(reach, batch) if isinstance(wanted, Request)]
    swept = {"seed": 7, "detail": 0}
    assert cells == [
        BatchCell("night", "starry", swept, (0, 0, 0)),
        BatchCell("night", "wave", swept, (0, 1, 0)),
    ]
    assert [list(cell.swept) for cell in cells if cell] == [["seed", "detail"]] * 2


def test_a_glob_over_the_library_finds_its_styles(reach: Reach, tmp_path: Path) -> None:
    """A file of the library that a glob matches is that style, with its settings; twice named it is painted once."""
    wide = replace(reach, roots=(tmp_path,))
    (combination,) = plan(Batch(("x.jpg",), ("styles/*.jpg", "starry")), "night", wide)
    assert (combination.settings, combination.cell.style) == ({"seed": 5}, "starry")
    (tmp_path / "styles/starry.png").write_bytes(b"another")
    for word in ("styles/*.jpg", "styles/*.png", "starry"):
        with pytest.raises(InputError, match=r"starry cannot be used: .* have the same name"):
            plan(Batch(("x.jpg",), (word,)), "night", wide)


def test_one_weight_for_a_folder_is_one_for_each_of_its_pictures(
    reach: Reach, tmp_path: Path
) -> None:
    """A batch spreads `style_weights` as the inbox does."""
    (tmp_path / "styles/monet").mkdir()
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / "styles/monet" / name).write_bytes(name.encode())
    batch = Batch(("a.jpg",), ("monet",), {"style_weights": [3]})
    assert plan(batch, "n", reach)[0].settings["style_weights"] == [1.5, 1.5]


def test_equal_names_get_numbers(reach: Reach) -> None:
    """Two contents of the same name in two folders are two pictures."""
    assert names(Batch(("**/a.*",), ("starry",)), reach) == ["night/a_starry", "night/a_starry-2"]


def test_ten_thousand_equal_names_are_numbered_quickly(reach: Reach, tmp_path: Path) -> None:
    """Names that are all cut off at the same place get numbers without comparing each with each."""
    folder = tmp_path / "photos" / "many"
    folder.mkdir()
    for number in range(2000):
        (folder / f"{'x' * 200}{number}.jpg").touch()
    began = time.process_time()
    found = names(Batch(("many/*",), ("starry",), {}, {"seed": (1, 2, 3, 4, 5)}), reach)
    assert time.process_time() - began < 10
    assert len(set(found)) == 10_000
    assert found[0] == f"night/{'x' * 200}" and found[9999] == f"night/{'x' * 200}-10000"


def test_a_name_with_a_number_is_not_used_twice(reach: Reach, tmp_path: Path) -> None:
    """A content called like the second of another name gets a name of its own."""
    for name in ("deep/b.png", "deep/b_starry.jpg", "b_starry-2.jpg", "deep/a_starry-2.png"):
        (tmp_path / "photos" / name).write_bytes(name.encode())
    found = names(Batch(("**/*",), ("starry",)), reach)
    assert len(set(found)) == len(found) == 7


def test_contents_by_many_globs_are_limited(reach: Reach, tmp_path: Path) -> None:
    """More contents than pictures in a batch end the search, before anything is listed."""
    folder = tmp_path / "photos" / "many"
    folder.mkdir()
    for number in range(10_001):
        (folder / f"{number}.jpg").touch()
    with pytest.raises(InputError, match=r"many/\* matches more than 10,000 image files"):
        names(Batch(("many/*",), ("starry",)), reach)


def test_what_is_passed_over_is_known_to_the_expansion(reach: Reach) -> None:
    """An expansion counts the files that its globs match and that are not image files."""
    assert Expansion("n", Batch(("*",), ("starry",)), reach, since=0).passed_over == {".txt": 1}


def test_a_style_is_named_in_either_form_of_unicode(reach: Reach, tmp_path: Path) -> None:
    """A library style from macOS is found by its name, its file and its settings in either form."""
    nfc, nfd = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    (tmp_path / f"styles/{nfd}.png").write_bytes(b"summer")
    (tmp_path / f"styles/{nfc}.yaml").write_text("size: 32")
    wide = replace(reach, roots=(tmp_path,))
    for word in (nfc, nfd, f"styles/{nfc}.png", f"styles/{nfd}.*"):
        (combination,) = plan(Batch(("x.jpg",), (word,)), "night", wide)
        assert (combination.settings, combination.cell.style) == ({"size": 32}, nfc)


def test_an_unexpected_exception_costs_one_picture(reach: Reach) -> None:
    """Where the identity of a picture cannot be made, that picture is refused and the next one can be asked for."""

    class Broken(dict[str, object]):
        def items(self) -> Any:
            raise ZeroDivisionError("a fault")

    def resolved(values: Mapping[str, Any], pictures: int) -> RenderSettings:
        return replace(resolve(values), style_layers=Broken({"relu1_1": 1.0}))

    broken = replace(reach, resolve=resolved)
    found = requests(broken, Batch(("*.jpg",), ("starry",)))
    assert [type(wanted) for wanted in found] == [Rejection, Rejection]
    assert "unexpected error (ZeroDivisionError: a fault)" in found[0].reason  # type: ignore[union-attr]


GLOBS = st.one_of(
    st.sampled_from(
        [
            "*",
            "**/*.JPG",
            "starry",
            "**.png",
            "a.jpg",
            "x" * 300,
            "[",
            "../*",
            "/etc/*",
            "./*",
            "deep\\*",
        ]
    ),
    st.text(max_size=8),
)
SWEEPS = st.dictionaries(
    st.sampled_from([*KEYS, "seed", "size"]),
    st.lists(st.one_of(VALUES, st.integers(0, 100)), min_size=1, max_size=3),
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {
            "contents": st.one_of(GLOBS, st.lists(GLOBS, max_size=3), VALUES),
            "styles": st.one_of(GLOBS, VALUES),
        },
        optional={"sweep": st.one_of(SWEEPS, VALUES), "settings": VALUES, "priority": VALUES},
    )
)
def test_any_batch_asks_for_pictures_or_is_refused(reach: Reach, values: dict[str, Any]) -> None:
    """Whatever a batch file holds, it leads to requests that JSON takes, or to one short line."""
    try:
        found = requests(reach, parse(values, "n"))
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 2500
    else:
        for wanted in found:
            assert isinstance(wanted, Request) and wanted.batch
            json.dumps([dict(wanted.settings), dict(wanted.batch.swept)], allow_nan=False)
            wanted.name.encode()


def test_nothing_else_is_found(reach: Reach) -> None:
    """Links, hidden and partial files and what is no picture are not contents."""
    assert len(names(Batch(("*",), ("starry",)), reach)) == 2


@pytest.mark.parametrize(
    "glob", ["../x.jpg", "/etc/*", "{tmp}/x.jpg", "", "**/**/*.jpg", "no*.jpg"]
)
def test_nothing_outside_is_reached(reach: Reach, tmp_path: Path, glob: str) -> None:
    """A glob that leaves the allowed folders, has two `**` or matches nothing is refused."""
    with pytest.raises(InputError):
        plan(Batch((glob.format(tmp=tmp_path),), ("starry",)), "night", reach)


def test_absolute_globs_within_a_root_are_fine(reach: Reach, tmp_path: Path) -> None:
    """A root may be named in full."""
    assert len(names(Batch((f"{tmp_path}/photos/*.jpg",), ("starry",)), reach)) == 2


def test_bad_settings_are_refused_before_any_work(reach: Reach) -> None:
    """One value of a sweep that cannot be refuses the whole batch."""
    with pytest.raises(SettingsError, match="tv_weight"):
        plan(Batch(("*",), ("starry",), {}, {"tv_weight": (1, -1)}), "n", reach)


def test_too_many_are_refused(reach: Reach) -> None:
    """A sweep that multiplies to more than 10,000 pictures is refused before they are listed."""
    sweep = {"seed": tuple(range(200)), "size": tuple(range(16, 76))}
    with pytest.raises(InputError, match="24,000"):
        plan(Batch(("*",), ("starry",), {}, sweep), "n", reach)


def test_a_hundred_million_are_refused_without_being_built(reach: Reach) -> None:
    """A sweep of 4 × 100 values takes no memory to refuse."""
    sweep = {key: tuple(range(100)) for key in ("seed", "size", "history", "coarsest")}
    tracemalloc.start()
    with pytest.raises(InputError, match="200,000,000"):
        plan(Batch(("*",), ("starry",), {}, sweep), "n", reach)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def requests(reach: Reach, batch: Batch) -> list[Request | Rejection]:
    """Everything that an expansion asks for."""
    expansion = Expansion("night", batch, reach, since=0)
    found = []
    while wanted := expansion.current():
        assert expansion.current() == wanted
        found.append(wanted)
        expansion.advance()
    return found


def test_identity_is_of_contents_and_settings(reach: Reach, tmp_path: Path) -> None:
    """A renamed content keeps its identity; another content, setting or network has another."""
    batch = Batch(("*.jpg",), ("starry",))

    def identities(reach: Reach, batch: Batch) -> set[str]:
        return {r.identity for r in requests(reach, batch) if isinstance(r, Request)}

    first = identities(reach, batch)
    assert len(first) == 2
    (tmp_path / "photos/a.jpg").rename(tmp_path / "photos/renamed.jpg")
    assert identities(reach, batch) == first
    # The style's own YAML says the same: how a setting came about makes no difference.
    assert identities(reach, Batch(("*.jpg",), ("starry",), {"seed": 5})) == first
    assert not identities(reach, Batch(("*.jpg",), ("starry",), {"seed": 6})) & first
    assert not identities(replace(reach, weights_sha256="1" * 64), batch) & first
    assert not identities(replace(reach, network="vgg16"), batch) & first
    (tmp_path / "photos/b.jpg").write_bytes(b"changed")
    assert len(identities(reach, batch) & first) == 1


def test_what_cannot_be_read_is_one_refusal(reach: Reach, tmp_path: Path) -> None:
    """A content that goes away between planning and asking costs its own pictures and no others."""
    expansion = Expansion("night", Batch(("*.jpg",), ("starry",)), reach, since=0)
    (tmp_path / "photos/a.jpg").unlink()
    first = expansion.current()
    assert isinstance(first, Rejection)
    assert "a.jpg" in first.reason
    expansion.advance()
    assert isinstance(expansion.current(), Request)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            Batch(("nothing/*.jpg",), ("starry",)),
            "nothing/*.jpg matches no image file in {root}; "
            "write a path relative to this folder, or add its folder to batch_roots",
        ),
        (
            Batch(("a.jpg",), ("starri",)),
            "there is no style 'starri' in the library; the styles are: starry "
            "(did you mean starry?); name one, or write a glob of files",
        ),
        (
            Batch(("a.jpg",), ("starry",), {}, {"sizes": (1,)}, label="night.batch.yaml"),
            "night.batch.yaml: unknown setting 'sizes'; did you mean size?",
        ),
    ],
)
def test_a_batch_that_names_nothing_says_what_to_write(
    reach: Reach, batch: Batch, message: str
) -> None:
    """A glob without a match, a style that does not exist and an unknown setting name cause and remedy."""
    with pytest.raises(InputError) as refused:
        plan(batch, "night", reach)
    (root,) = reach.roots
    assert str(refused.value) == message.format(root=root)
