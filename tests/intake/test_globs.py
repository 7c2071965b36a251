"""What the globs of a batch match, and what ends a search."""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.errors import InputError
from nst_daemon.intake.globs import MAX_GLOB, Search, describe

NFC, NFD = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))


def put(root: Path, *names: str) -> None:
    """Write files below a folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def search(
    *roots: Path, most: int = 100, names: int = 1000, clock: Callable[[], float] = lambda: 0.0
) -> Search:
    """A search with small limits and a clock that does not move."""
    return Search(roots, max_found=most, max_names=names, max_seconds=5.0, clock=clock)


def found(root: Path, *globs: str) -> list[str]:
    """The paths that globs match, below the root."""
    return [str(path.relative_to(root)) for path in search(root).find(globs)]


@pytest.mark.parametrize(
    "glob", ["h/*.jpg", "h/*.JPG", "./h/*.Jpg", "h\\*.jpg", "h/*", "**/*.jpg", "h/**", "h//*.jpg"]
)
def test_suffixes_match_without_regard_to_case(tmp_path: Path, glob: str) -> None:
    """a.jpg and IMG_0001.JPG are found by any spelling of the suffix, and of the glob."""
    put(tmp_path, "h/a.jpg", "h/IMG_0001.JPG")
    assert found(tmp_path, glob) == ["h/a.jpg", "h/IMG_0001.JPG"]


def test_the_rest_of_a_name_matches_exactly(tmp_path: Path) -> None:
    """Stems and folders are compared with regard to case, as the file system does."""
    put(tmp_path, "Trip/IMG_1.JPG", "trip/img_1.jpg")
    assert found(tmp_path, "Trip/*.jpg") == ["Trip/IMG_1.JPG"]
    assert found(tmp_path, "*/img*.jpg") == ["trip/img_1.jpg"]
    assert found(tmp_path, "trip/[hij]mg_?.[jJ]pg") == ["trip/img_1.jpg"]


def test_the_very_name_of_a_file_matches(tmp_path: Path) -> None:
    """A file or folder whose name contains brackets is found by that name, and by what the brackets mean."""
    put(tmp_path, "trip [a]/IMG [1].JPG", "trip a/IMG 1.jpg")
    assert found(tmp_path, "trip [a]/IMG [1].jpg") == ["trip [a]/IMG [1].JPG", "trip a/IMG 1.jpg"]
    assert found(tmp_path, "trip [a]/*") == ["trip [a]/IMG [1].JPG", "trip a/IMG 1.jpg"]


@pytest.mark.parametrize("form", [NFC, NFD])
def test_both_forms_of_unicode_match(tmp_path: Path, form: str) -> None:
    """Folders and files from macOS (é as two characters) and from elsewhere are found by either form."""
    put(tmp_path, f"{NFD}/{NFC}.jpg", f"{NFC}x/{NFD}.jpg")
    assert len(found(tmp_path, f"{form}*/{form}.jpg")) == 2
    assert found(tmp_path, f"{form}/*") == [f"{NFD}/{NFC}.jpg"]
    assert found(tmp_path, f"{tmp_path}/{form}/*.jpg") == [f"{NFD}/{NFC}.jpg"]


def test_an_absolute_glob_may_name_a_root_in_any_way(tmp_path: Path) -> None:
    """A glob with the root's path, its path behind links, or either form of Unicode in it finds what is below."""
    put(tmp_path, f"{NFD}/a.jpg")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / NFD)
    for root in (tmp_path / NFD, link):
        for start in (tmp_path / NFC, tmp_path / NFD, root):
            assert search(root).find([f"{start}/*.jpg"]) == [tmp_path / NFD / "a.jpg"]


def test_braces_are_explained(tmp_path: Path) -> None:
    """A glob with alternatives in braces that matches nothing is answered with how to write it."""
    put(tmp_path, "a.jpg", "{b}.jpg")
    with pytest.raises(InputError, match="write each of the alternatives"):
        search(tmp_path).find(["*.{jpg,png}"])
    assert found(tmp_path, "{b}*") == ["{b}.jpg"]


def test_two_stars_match_any_folders(tmp_path: Path) -> None:
    """`**` matches no folder, one or several, each file once, in natural order."""
    put(tmp_path, "a.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/z10/a.jpg", "x/y/z9/a.jpg")
    below = ["x/a.jpg", "x/y/a.jpg", "x/y/z9/a.jpg", "x/y/z10/a.jpg"]
    assert found(tmp_path, "**/*.jpg", "x/**") == ["a.jpg", *below]
    assert found(tmp_path, "x/**/*.jpg") == below
    assert found(tmp_path, "**/y/*.jpg") == ["x/y/a.jpg"]


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    """Files of other kinds that a glob matches are counted by suffix; sidecars, settings and other names are not."""
    put(
        tmp_path,
        "a.jpg",
        "a.CDR",
        "b.cdr",
        "notes",
        "a.jpg.xmp",
        "n.batch.yaml",
        ".hidden.txt",
        "sub/x.txt",
    )
    looked = search(tmp_path)
    looked.find(["*"])
    assert looked.passed_over == {".cdr": 2, "": 1}
    assert describe(looked.passed_over) == "3 files are not image files (2 .cdr, 1 without suffix)"
    assert describe(Counter({".txt": 1})) == "1 file is not an image file (1 .txt)"
    with pytest.raises(
        InputError,
        match=r"\*\.cdr matches no image file in .*: 2 files are not image files .*; name",
    ):
        looked.find(["*.cdr"])


def test_a_root_that_is_given_twice_is_searched_once(tmp_path: Path) -> None:
    """A root that is given twice is named once in messages, and its files are counted once."""
    put(tmp_path, "a.txt")
    with pytest.raises(InputError) as error:
        search(tmp_path, tmp_path).find(["*.txt"])
    assert f"matches no image file in {tmp_path}: 1 file is not an image file" in str(error.value)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Links to files and folders are left out, and loops of them are harmless."""
    put(tmp_path, "root/a.jpg", "out/b.jpg")
    (tmp_path / "root/link.jpg").symlink_to(tmp_path / "out/b.jpg")
    (tmp_path / "root/folder").symlink_to(tmp_path / "out")
    (tmp_path / "root/loop").symlink_to(tmp_path / "root")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert found(tmp_path / "root", "**/*") == ["a.jpg"]
    with pytest.raises(InputError, match="matches no image file"):
        search(tmp_path / "self").find(["*"])


@pytest.mark.parametrize(
    "glob",
    ["**.png", "a**", "x" * 300, "x" * 5000, "*" * 900, "a\0b", "[", "[!", "[]", "[z-a]*", "[[:x:]", "/", ".", "..",
     "../*", "x/../*", "", "/etc/*", "**/**/*.jpg", "**/" * 300, "*a" * 400 + "b", "?*" * 400 + "b", "\udcff*",
     "\\\\server\\share\\*", "C:\\x\\*.jpg", "{a,b}", "~/x", "a\nb"],
)  # fmt: skip
def test_odd_globs_are_refused_in_one_line(tmp_path: Path, glob: str) -> None:
    """Whatever a glob consists of, the answer is one short line."""
    put(tmp_path, "b.jpg", "a" * 200 + ".jpg")
    with pytest.raises(InputError) as refused:
        search(tmp_path, names=10_000).find([glob])
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


@given(st.text(st.sampled_from("ab/*?[]!-.\\^é\u0301\0~{}|()+$ "), max_size=MAX_GLOB // 50))
def test_any_glob_finds_files_or_is_refused(glob: str) -> None:
    """Whatever is put together from the characters of globs finds files in this folder, or is an InputError."""
    here = Path(__file__).parent
    try:
        assert all(path.is_relative_to(here) for path in search(here, names=10_000).find([glob]))
    except InputError as error:
        assert "\n" not in str(error)


@given(
    st.text(st.sampled_from("ab*?.J"), min_size=1, max_size=8),
    st.sampled_from(["a.jpg", "b.JPG", "ab.png"]),
)
def test_a_glob_matches_what_fnmatch_matches(
    tmp_path_factory: pytest.TempPathFactory, glob: str, name: str
) -> None:
    """In one folder, everything that the shell's rules match is found."""
    root = tmp_path_factory.mktemp("one")
    put(root, name)
    if "**" not in glob and not re.fullmatch(r"\.+", glob) and fnmatch.fnmatchcase(name, glob):
        assert found(root, glob) == [name]


def test_a_search_ends_at_its_limits(tmp_path: Path) -> None:
    """Too many matches, too many names and too much time each end the search, in words that say so."""
    put(tmp_path, *(f"{number}.jpg" for number in range(120)))
    with pytest.raises(
        InputError, match=r"\*\.jpg matches more than 100 image files, and at most 100"
    ):
        search(tmp_path).find(["*.jpg"])
    with pytest.raises(InputError, match="matches more than 100 image files"):
        search(tmp_path, names=5000).find([f"{number}*.jpg" for number in range(10)])
    with pytest.raises(
        InputError, match=r"the search for \*/x was ended after 50 names; write a glob"
    ):
        search(tmp_path, names=50).find(["*/x"])
    ticks = iter(range(1000))
    with pytest.raises(InputError, match="was ended after 5 s"):
        search(tmp_path, clock=lambda: next(ticks)).find(["*/x"])


def test_the_limit_on_names_holds_for_all_globs_together(tmp_path: Path) -> None:
    """A thousand globs do not look at a thousand times as many names."""
    put(tmp_path, *(f"{number}.jpg" for number in range(20)))
    with pytest.raises(InputError, match="was ended after 1,000 names"):
        search(tmp_path).find([f"{number % 20}.jpg" for number in range(1000)])


def test_names_that_are_not_utf_8_are_found(tmp_path: Path) -> None:
    """A file with undecodable bytes in its name, in a folder like it, is found, and the path leads to it."""
    name = os.fsdecode(b"M\xfcnchen")
    put(tmp_path, f"{name}/{name}.jpg")
    (path,) = search(tmp_path).find(["M*/M*.jpg"])
    assert path.read_bytes() == b"x"
