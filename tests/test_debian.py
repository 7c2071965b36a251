"""The Debian package: what can be checked without building it, which takes minutes and downloads torch."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DEBIAN = ROOT / "debian"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg") is None, reason="there is no dpkg")
needs_parser = pytest.mark.skipif(
    shutil.which("dpkg-parsechangelog") is None, reason="there is no dpkg-dev"
)

TEXT = """# Changelog

Lines of an introduction.

## Unreleased

- A new thing.

## 0.2.0 - 2026-02-03

- A long line that has to be wrapped, because Debian wants no line of a changelog to be wider than a terminal is,
  and goes on here.
- Second.

## [0.1.0] (2026-01-02)

- First version.
"""


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """debian/make_changelog.py."""
    spec = importlib.util.spec_from_file_location("make_changelog", DEBIAN / "make_changelog.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_dpkg
def test_versions_have_the_order_of_python(maker: ModuleType) -> None:
    """dpkg sorts development versions and candidates before their release, and a build after a tag behind it."""
    versions = ["0.2.0.dev3+g12ab", "0.2.0rc1", "0.2.0", "0.2.0.post1", "0.2.1.dev1+gf"]
    packaged = [maker.debian_version(version, "cpu") for version in versions]
    assert packaged[0] == "0.2.0~dev3+g12ab+cpu"
    for older, newer in pairwise(packaged):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)


@needs_parser
@pytest.mark.parametrize(
    ("version", "newest", "changes"),
    [("0.2.0", "0.2.0+cuda", "Second."), ("0.3.0.dev1+gab", "0.3.0~dev1+gab+cuda", "A new thing.")],
)
def test_the_changelog_is_one_of_debian(
    maker: ModuleType, tmp_path: Path, version: str, newest: str, changes: str
) -> None:
    """dpkg reads every section of CHANGELOG.md without a warning; the packaged version is the first."""
    path = tmp_path / "changelog"
    path.write_text(maker.changelog(TEXT, version, "cuda", "Some One <one@example.com>", NOW))
    done = subprocess.run(
        ["dpkg-parsechangelog", "--all", "-l", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert re.findall(r"^Version: (.+)$", done.stdout, re.MULTILINE) == [newest]
    assert changes in done.stdout
    assert "0.1.0+cuda" in done.stdout
    assert "Fri, 02 Jan 2026" in path.read_text()
    assert max(map(len, path.read_text().splitlines())) <= 80


def test_entries_of_no_release_are_only_in_development_versions(maker: ModuleType) -> None:
    """The package of a release does not list changes made after it."""
    text = maker.changelog(TEXT, "0.2.0", "cpu", "Some One <one@example.com>", NOW)
    assert "A new thing" not in text


def test_units_are_those_of_make_install() -> None:
    """debian/ contains no unit, user or folder of its own: `make install` is the one place that installs them."""
    assert "$(MAKE) install DESTDIR=$(ROOT) PREFIX=/usr" in (DEBIAN / "rules").read_text()
    endings = (".service", ".timer", ".sysusers", ".tmpfiles", ".install")
    tracked = subprocess.run(
        ["git", "ls-files", "debian"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert tracked
    assert not [name for name in tracked if name.endswith(endings)]


def test_each_override_has_a_reason() -> None:
    """Each group of overrides of lintian begins with a comment."""
    text = (DEBIAN / "nst-daemon.lintian-overrides").read_text()
    for group in text.strip().split("\n\n"):
        assert group.startswith("# ")
        assert len(group.splitlines()) > 1


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_the_maintainer_scripts_are_shell(script: str) -> None:
    """sh accepts each maintainer script, and debhelper finds the place for its lines."""
    path = DEBIAN / f"nst-daemon.{script}"
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert "\n#DEBHELPER#\n" in path.read_text()
