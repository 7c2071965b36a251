"""The version, which comes from git's tags."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from nst_daemon import __version__
from nst_daemon.ops import doctor

ROOT = Path(__file__).parent.parent


def git(folder: Path, *arguments: str) -> bytes:
    """Standard output of git, as an author that needs no configuration."""
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    run = subprocess.run(["git", *author, *arguments], cwd=folder, capture_output=True, check=True)
    return run.stdout


def version_of(folder: Path) -> str:
    """The version that a build in this folder gets."""
    command = [sys.executable, "-m", "setuptools_scm"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with this project's settings of the version, and one commit without a tag."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("pyproject.toml", ".git_archival.txt", ".gitattributes"):
        shutil.copy(ROOT / name, folder)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_a_tag_is_the_version(source: Path) -> None:
    """The commit of a tag has its version; the next commit and a change have development versions of the next."""
    assert version_of(source).startswith("0.1.dev1+g")
    git(source, "tag", "v1.2.3")
    assert version_of(source) == "1.2.3"
    (source / "pyproject.toml").open("a").write("\n")
    assert version_of(source).startswith("1.2.4.dev0+g")
    git(source, "commit", "--quiet", "--all", "--message", "second")
    commit = git(source, "rev-parse", "--short", "HEAD").decode().strip()
    assert version_of(source).startswith(f"1.2.4.dev1+g{commit}")


def test_a_shallow_clone_without_tags_has_a_version(source: Path, tmp_path: Path) -> None:
    """A clone of the last commit without tags gets a development version that names the commit."""
    git(source, "tag", "v1.2.3")
    clone = ("clone", "--quiet", "--depth", "1", "--no-tags", f"file://{source}", "shallow")
    git(tmp_path, *clone)
    commit = git(source, "rev-parse", "--short", "HEAD").decode().strip()
    assert version_of(tmp_path / "shallow").startswith(f"0.1.dev1+g{commit}")


def test_an_archive_has_the_version_of_its_tag(source: Path, tmp_path: Path) -> None:
    """What `git archive` writes has the version of the last tag, without .git."""
    git(source, "tag", "v1.2.3")
    archive = tmp_path / "archive.tar"
    archive.write_bytes(git(source, "archive", "HEAD"))
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert version_of(tmp_path / "unpacked") == "1.2.3"


def test_a_copy_without_git_has_a_version(source: Path) -> None:
    """A copied folder gets the fallback; an unpacked sdist has the version of its PKG-INFO."""
    shutil.rmtree(source / ".git")
    assert version_of(source) == "0.1.dev0"
    (source / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: nst-daemon\nVersion: 1.2.3\n")
    assert version_of(source) == "1.2.3"


def test_the_installed_version_is_shown() -> None:
    """`--version` and doctor show the version of the installed package."""
    command = [sys.executable, "-m", "nst_daemon", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"nst-daemon {version('nst-daemon')}\n"
    assert doctor.check_program().message.startswith(f"{version('nst-daemon')}, Python ")
    assert __version__ == version("nst-daemon")
