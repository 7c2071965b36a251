"""The tool that makes a release, without its installations: `make release` runs those."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from datetime import date
from pathlib import Path

import pytest

from release.__main__ import checked, publishing
from release.artefacts import normalise
from release.changelog import KINDS, UNRELEASED, section_of, sections
from release.check import about_us

ROOT = Path(__file__).parent.parent
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
GOOD = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-12-31

### Added

- A line.

## [1.2.2] - 2026-12-01

- An older line.
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository that may be released as 1.2.3."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "CHANGELOG.md").write_text(GOOD)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def git(folder: Path, *arguments: str) -> None:
    """Run git with an author of its own."""
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True)


def test_the_section_of_a_release_is_found(checkout: Path) -> None:
    """A clean checkout with a dated section is accepted, and the section ends before the next one."""
    section = checked(checkout, "1.2.3")
    assert (section.date, section.text) == ("2026-12-31", "### Added\n\n- A line.")
    assert checked(checkout, "1.2.3").text in GOOD


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("## [1.2.3] - 2026-12-31\n", "", r"no section of 1\.2\.3"),
        ("[1.2.3] - 2026-12-31", "[1.2.3]", "date of 1.2.3 is missing"),
        ("2026-12-31", "31.12.2026", "date of 1.2.3 is 31.12.2026"),
        ("- A line.\n", "", r"no entry below 1\.2\.3"),
        ("## [Unreleased]", "## [1.3.0] - 2027-01-01", r"1\.3\.0 above 1\.2\.3"),
    ],
)
def test_a_changelog_that_is_not_ready_is_refused(old: str, new: str, reason: str) -> None:
    """A section that is missing, undated, empty or not the newest is refused with what is wrong."""
    assert old in GOOD
    with pytest.raises(ValueError, match=reason):
        section_of("1.2.3", GOOD.replace(old, new))


@pytest.mark.parametrize("version", ["", "next", "v1.2.3", "1.2.3.dev1", "1.2.3+local", "01.2"])
def test_only_versions_of_releases_are_accepted(version: str, checkout: Path) -> None:
    """A name, a development version and an unusual spelling are refused."""
    with pytest.raises(ValueError, match="version"):
        checked(checkout, version)


def test_a_checkout_with_changes_is_refused(checkout: Path) -> None:
    """A changed and a new file are refused, and named."""
    (checkout / "new.txt").touch()
    with pytest.raises(ValueError, match=r"has changes, such as new\.txt"):
        checked(checkout, "1.2.3")


def test_a_version_that_has_a_tag_is_refused(checkout: Path) -> None:
    """A version is released once."""
    git(checkout, "tag", "v1.2.3")
    with pytest.raises(ValueError, match=r"the tag v1\.2\.3 exists"):
        checked(checkout, "1.2.3")


def sdist(path: Path, *, seconds: int, mode: int, names: list[str]) -> str:
    """Write an sdist as setuptools might, normalise it, and return its digest."""
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(name), seconds, mode
            member.uid, member.uname = seconds, f"user{seconds}"
            tar.addfile(member, io.BytesIO(name.encode()))
    os.utime(path, (seconds, seconds))
    normalise(path, 1_700_000_000)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_sdist_does_not_depend_on_the_machine(tmp_path: Path) -> None:
    """Other owners, times, modes and orders give the same bytes, and the files keep their contents."""
    one = sdist(tmp_path / "a.tar.gz", seconds=1, mode=0o644, names=["p/a", "p/b"])
    other = sdist(tmp_path / "b.tar.gz", seconds=99, mode=0o664, names=["p/b", "p/a"])
    assert one == other
    assert one != sdist(tmp_path / "c.tar.gz", seconds=1, mode=0o755, names=["p/a", "p/b"])
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        member = tar.extractfile("p/b")
        assert member is not None
        assert member.read() == b"p/b"


def test_the_list_of_packages_is_about_this_program() -> None:
    """The program is the subject of the list, its packages the rest, and no path of the machine is named."""
    site = {"type": "website", "url": "https://example.com"}
    file = {"type": "distribution", "url": "file:///home/me/dist/nst_daemon-1.2.3.whl"}
    own = {"name": "nst-daemon", "type": "library", "externalReferences": [site, file]}
    found = about_us({"metadata": {"timestamp": "t"}, "components": [{"name": "torch"}, own]})
    program = {"name": "nst-daemon", "type": "application", "externalReferences": [site]}
    assert found["metadata"] == {"timestamp": "t", "component": program}
    assert found["components"] == [{"name": "torch"}]


def test_the_last_commands_are_those_of_this_version() -> None:
    """The printed commands tag, push and upload the version and its files, and nothing is uploaded to PyPI."""
    said = publishing("1.2.3", [Path("dist/a b.whl")], Path("dist/notes.md"))
    assert "git tag --sign v1.2.3" in said
    assert "git push origin HEAD v1.2.3" in said
    assert "'dist/a b.whl'" in said
    assert "twine" not in said


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    """The first section is of what is not released, every other has a date, and changes are below known headings."""
    first, *released = sections(CHANGELOG)
    assert first.name == UNRELEASED
    assert [section.name for section in released if not date.fromisoformat(section.date)] == []
    for section in (first, *released):
        headings = [line[4:] for line in section.text.splitlines() if line.startswith("### ")]
        assert headings, section.name
        assert set(headings) <= set(KINDS), section.name
    assert CHANGELOG.count("\n## ") == 1 + len(released)
