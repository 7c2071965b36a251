"""Builds a release in dist/, checks it, and prints the commands that publish it.

`python -m release 1.2.3` needs the packages `build` and `cyclonedx-bom`, git and a network. It changes nothing but
dist/: the tag, the push and the upload are left to a person.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.version import InvalidVersion, Version

from release.artefacts import build, commit_time, digest, run
from release.changelog import Section, section_of
from release.check import SIZE, bill_of_materials, install, paint

ROOT = Path(__file__).parent.parent


def checked(root: Path, version: str) -> Section:
    """The changes of a version, if the checkout may be released.

    Args:
        root: a git checkout.
        version: such as 1.2.3.

    Raises:
        ValueError: The version is none, the checkout has changes, the tag exists, or the changelog has no section.
    """
    try:
        parsed = Version(version)
    except InvalidVersion:
        raise ValueError(f"{version!r} is not a version; call make release VERSION=1.2.3") from None
    if str(parsed) != version or parsed.is_devrelease or parsed.local:
        raise ValueError(f"{version} is not the version of a release; write it as 1.2.3 or 1.2rc1")
    if changes := run(["git", "status", "--porcelain"], cwd=root):
        first = changes.splitlines()[0][3:]
        raise ValueError(f"{root} has changes, such as {first}; commit or remove them")
    if run(["git", "tag", "--list", f"v{version}"], cwd=root):
        raise ValueError(f"the tag v{version} exists; choose the next version")
    return section_of(version, (root / "CHANGELOG.md").read_text(encoding="utf-8"))


def release(root: Path, version: str, dist: Path, options: list[str], folder: Path) -> list[Path]:
    """Build, check and list a release.

    Args:
        root: a git checkout.
        version: such as 1.2.3.
        dist: where the files are written.
        options: of pip, for the environments of the checks.
        folder: an empty folder.

    Returns:
        The files.

    Raises:
        ValueError: Two builds differ, or what was built does not work.
    """
    dist.mkdir(parents=True, exist_ok=True)
    builds = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        builds.append(build(root, version, folder / name))
    for one, other in zip(*builds, strict=True):
        if digest(one) != digest(other):
            raise ValueError(f"{one.name} is not reproducible: two builds of one commit differ")
        print(f"built twice with the same bytes: {one.name}", flush=True)
    files = [Path(shutil.copy(path, dist)) for path in builds[0]]
    materials = dist / f"nst-daemon-{version}.cdx.json"
    for artefact in files:
        place = folder / artefact.name
        place.mkdir()
        python = install(artefact, place / "environment", options)
        paint(python, version, place)
        print(f"installed, and painted the sample pair at {SIZE} px: {artefact.name}", flush=True)
        if artefact.suffix == ".whl":
            bill_of_materials(python, materials, commit_time(root))
        shutil.rmtree(place)  # an environment takes gigabytes
    files.append(materials)
    sums = dist / "SHA256SUMS"
    sums.write_text("".join(f"{digest(path)}  {path.name}\n" for path in files))
    return [*files, sums]


def publishing(version: str, files: list[Path], notes: Path) -> str:
    """The commands that a person calls after a look at the files."""
    names = " ".join(shlex.quote(str(path)) for path in files)
    return (
        f"Look at these files. The next commands publish them:\n"
        f"  git tag --sign v{version} --message 'nst-daemon {version}'\n"
        f"  git push origin HEAD v{version}\n"
        f"  gh release create v{version} --verify-tag --notes-file {shlex.quote(str(notes))} {names}\n"
        f"nst-daemon is not on PyPI: upload it there only once the name belongs to this project."
    )


def main(arguments: list[str] | None = None) -> int:
    """Make the release that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", help="such as 1.2.3")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="the folder of the files")
    parser.add_argument("--pip-options", default="", help="for the environments of the checks")
    asked = parser.parse_args(arguments)
    try:
        section = checked(ROOT, asked.version)
        with tempfile.TemporaryDirectory(prefix="nst-release-") as folder:
            options = shlex.split(asked.pip_options)
            files = release(ROOT, asked.version, asked.dist, options, Path(folder))
    except (ValueError, subprocess.CalledProcessError) as error:
        print(f"make release: {error}", file=sys.stderr)
        return 1
    print((asked.dist / "SHA256SUMS").read_text(), end="")
    notes = asked.dist / f"notes-{asked.version}.md"
    notes.write_text(section.text + "\n", encoding="utf-8")
    print(publishing(asked.version, files, notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
