"""The library of styles: one answer for the scan, batches, `submit` and the status page."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nst_daemon.engine.settings import resolve
from nst_daemon.errors import InputError, StorageError, UsageError
from nst_daemon.intake.batch import Batch
from nst_daemon.intake.drops import Drop, Style
from nst_daemon.intake.expansion import Reach, plan
from nst_daemon.intake.library import list_styles, merge_settings, read_library, usable
from nst_daemon.intake.submit import styles_and_names
from nst_daemon.jobs import Fingerprint, Role
from tests.intake.conftest import MAX_BYTES, PNG, House

MARK = Fingerprint(0, 0, 0, 0)


def put(folder: Path, *names: str, text: str = "") -> None:
    """Write pictures, or settings where there is a text."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode() or PNG)


def put_two_pictures(folder: Path) -> None:
    put(folder, "s.jpg", "s.png")


def put_file_and_folder(folder: Path) -> None:
    put(folder, "s.png", "s/a.png")


def put_two_settings(folder: Path) -> None:
    put(folder, "s.png")
    put(folder, "s.yaml", "s.yml", text="seed: 1")


def put_link(folder: Path) -> None:
    put(folder.parent, "private.png")
    (folder / "s.png").symlink_to(folder.parent / "private.png")


def put_link_to_folder(folder: Path) -> None:
    put(folder.parent, "art/a.png")
    (folder / "s").symlink_to(folder.parent / "art")


def put_link_in_folder(folder: Path) -> None:
    put(folder, "s/a.png")
    (folder / "s" / "b.png").symlink_to("/etc/passwd")


def put_hard_link(folder: Path) -> None:
    put(folder.parent, "other.png")
    os.link(folder.parent / "other.png", folder / "s.png")


def put_linked_settings(folder: Path) -> None:
    put(folder, "s.png")
    (folder / "s.yaml").symlink_to("/etc/passwd")


def put_pipe(folder: Path) -> None:
    os.mkfifo(folder / "s.png")


def put_large_file(folder: Path) -> None:
    put(folder, "s.png")
    os.truncate(folder / "s.png", MAX_BYTES + 1)


def put_many(folder: Path) -> None:
    put(folder, *(f"s/{i}.png" for i in range(33)))


def put_bad_settings(folder: Path) -> None:
    put(folder, "s.png")
    put(folder, "s.yaml", text="seed: !!str 1")


def put_bad_weights(folder: Path) -> None:
    put(folder, "s/a.png", "s/b.png")
    put(folder, "s.yaml", text="style_weights: [1, 2, 3]")


def put_zero_weights(folder: Path) -> None:
    put(folder, "s/a.png", "s/b.png")
    put(folder, "s.yaml", text="style_weights: [0, 0]")


FAULTS: dict[Callable[[Path], None], str] = {
    put_two_pictures: "s.jpg and s.png have the same name; keep one of them",
    put_file_and_folder: "s and s.png have the same name; keep one of them",
    put_two_settings: "s.yaml and s.yml have the same name; keep one of them",
    put_link: "s.png is a symbolic link; drop a copy of the file itself",
    put_link_to_folder: "s is a symbolic link; use a real folder",
    put_link_in_folder: "b.png is a symbolic link; drop a copy of the file itself",
    put_hard_link: "s.png has 2 hard links, so another name may change its contents; drop a copy",
    put_linked_settings: "s.yaml is a symbolic link; drop a copy of the file itself",
    put_pipe: "s.png is a named pipe; drop a copy of the file itself",
    put_large_file: (
        "s.png has 977 KiB, more than limits.max_bytes (976 KiB); drop a smaller file, or raise that limit"
    ),
    put_many: "it has 33 pictures, and at most 32 are blended; remove some of them",
    put_bad_settings: "s.yaml cannot be read: line 1: tags are not supported; write plain `key: value` lines",
    put_bad_weights: "its style_weights must be a list of 2: one for each picture",
    put_zero_weights: "its style_weights must be numbers ≥ 0, and one of them > 0",
}


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__.removeprefix("put_"))
def test_a_faulty_style_is_refused_everywhere_in_the_same_words(
    house: House, make: Callable[[Path], None]
) -> None:
    """The scan, a batch, `submit` and the listing of the page give one reason for a style that cannot be used."""
    make(house.styles)
    house.style("fine.png")
    said = f"the style s cannot be used: {FAULTS[make]}"
    house.drop("s/photo.png")
    assert [found.reason for found in house.settled().rejections] == [said]
    library = list_styles(house.styles, MAX_BYTES)
    assert (library["s"].problem, list(usable(library))) == (FAULTS[make], ["fine"])
    with pytest.raises(UsageError) as refused:
        styles_and_names(["s"], library)
    assert str(refused.value) == said
    put(house.root, "photos/a.png")
    reach = Reach(
        (house.root / "photos",),
        house.styles,
        lambda values, _: resolve(values),
        "vgg19",
        "",
        MAX_BYTES,
    )
    with pytest.raises(InputError) as failed:
        plan(Batch(("*",), ("s",)), "night", reach)
    assert str(failed.value) == said


def test_a_name_that_the_library_does_not_have_lists_those_that_can_be_used(house: House) -> None:
    """An unknown style is answered with the usable ones in natural order, or with "the library is empty"."""
    with pytest.raises(UsageError, match="no style 's' in the library; the library is empty"):
        styles_and_names(["s"], list_styles(house.styles, MAX_BYTES))
    put(house.styles, "x.png", "x.jpg")
    with pytest.raises(UsageError, match="none of its styles can be used"):
        styles_and_names(["s"], list_styles(house.styles, MAX_BYTES))
    put(house.styles, "p10.png", "p2.png")
    with pytest.raises(UsageError, match=r"no style 's' in the library; the styles are: p2, p10$"):
        styles_and_names(["s"], list_styles(house.styles, MAX_BYTES))


def test_what_is_not_a_style(house: House) -> None:
    """Empty folders, ignored names, other files and settings by themselves are not styles."""
    put(house.styles, ".hidden.png", "a.png.part", "notes.txt", "deep/.x.png")
    put(house.styles, "alone.yaml", text="seed: 1")
    (house.styles / "deep" / "er").mkdir()
    put(house.styles / "deep", "er/a.png")
    (house.styles / "readme").symlink_to("/etc/hosts")
    assert list_styles(house.styles, MAX_BYTES) == {}
    assert list_styles(house.root / "nowhere", MAX_BYTES) == {}
    with pytest.raises(StorageError):
        read_library(house.root / "nowhere", MAX_BYTES)


def test_names_are_compared_in_composed_form(house: House) -> None:
    """A picture named by macOS (é as two characters) has its settings under the name that others write."""
    put(house.styles, "cafe\u0301.png")
    put(house.styles, "caf\u00e9.yml", text="seed: 4")
    assert list_styles(house.styles, MAX_BYTES)["caf\u00e9"].settings == {"seed": 4}


def test_pictures_of_a_folder_come_in_natural_order(house: House) -> None:
    """p2 comes before p10, so that style_weights can be counted off."""
    put(house.styles, "s/p10.png", "s/p2.png", "s/P1.png")
    pictures = list_styles(house.styles, MAX_BYTES)["s"].pictures
    assert [picture.path for picture in pictures] == ["s/P1.png", "s/p2.png", "s/p10.png"]


def test_settings_that_are_being_written_hold_the_style_back(house: House) -> None:
    """While the YAML of a style changes, the style is unsettled, and what is dropped for it waits."""
    house.style("s.png")
    house.drop("s/photo.png")
    house.settled()
    house.style("s.yaml", "seed: 1\n")
    scan = house.scan(1)
    assert (scan.requests, scan.settling) == ((), ("s/photo.png",))
    assert house.scan(3).requests[0].settings == {"seed": 1}


# Settings of several styles


def style(name: str, pictures: int = 1, **settings: object) -> Style:
    """A style of the library with as many pictures."""
    paths = (f"{name}/{i}.png" for i in range(pictures))
    return Style(name, tuple(Drop(Role.STYLE, path, MARK, "styles") for path in paths), settings)


def test_a_setting_of_a_style_is_placed_in_its_file(house: House) -> None:
    """A request knows the file of each setting: the style's, or its own, which overrides it."""
    house.style("s.jpg")
    (house.styles / "s.yml").write_text("seed: 1\nsizes: 9\n")
    house.drop("s/a.jpg")
    house.drop("s/a.yaml", b"seed: 2")
    (request,) = house.settled().requests
    assert request.places == {"seed": "a.yaml", "sizes": "styles/s.yml"}


def test_a_single_style_brings_all_its_settings() -> None:
    """Settings of one style apply, with its style_weights, and the job overrides them."""
    monet = style("monet", 2, seed=1, size=9, style_weights=[3, 1])
    assert merge_settings([monet], {"size": 8}) == {"seed": 1, "size": 8, "style_weights": [3, 1]}
    assert merge_settings([monet], {"style_weights": [1, 4]})["style_weights"] == [1, 4]
    assert "style_weights" not in merge_settings([style("starry", 3)], {})


def test_settings_of_several_styles_merge_in_the_order_of_their_names_in_the_job() -> None:
    """Of two styles that are blended the one that is named later wins, and the job wins over both."""
    one, two = style("one", seed=1, size=1, preset="a"), style("two", seed=2, size=2)
    assert merge_settings([one, two], {"size": 3}) == {"preset": "a", "seed": 2, "size": 3}
    assert merge_settings([two, one], {})["seed"] == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [0.75, 0.25, 1.0]),
        ([2, 5], [1.5, 0.5, 5.0]),
        ([1, 2, 3], [1, 2, 3]),
        ([1], [1]),
        ("much", "much"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_weights_of_a_folder_divide_its_share_of_a_blend(
    given: object, expected: object, order: int
) -> None:
    """A folder's style_weights divide its share among its pictures and are never the weights of the blend."""
    styles = [style("monet", 2, style_weights=[3, 1]), style("starry", style_weights=[7])]
    settings = {} if given is None else {"style_weights": given}
    if order == -1 and given in (None, [2, 5]):
        styles, expected = styles[::-1], [expected[2], *expected[:2]]  # type: ignore[index]
        settings = {key: value[::-1] for key, value in settings.items()}  # type: ignore[index]
    assert merge_settings(styles, settings)["style_weights"] == expected


def test_styles_that_come_with_the_job_are_weighed_first() -> None:
    """A dropped style and one of the library have equal shares; of two single pictures none needs a weight."""
    merged = merge_settings([style("monet", 2, style_weights=[3, 1])], {}, own=1)
    assert merged["style_weights"] == [1.0, 0.75, 0.25]
    assert merge_settings([style("starry", style_weights=[7])], {}, own=1) == {}
