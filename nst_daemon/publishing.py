"""Results and archives appear atomically, under an unused name. The caller makes the names durable (`files.flush`)."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath

from nst_daemon.digests import sha256_file
from nst_daemon.errors import PathError
from nst_daemon.files import (
    NO_LINKS,
    copy_durably,
    fsync_file,
    link_new,
    make_folder,
    missing_folder,
    storage,
)
from nst_daemon.names import numbered, spellings
from nst_daemon.pictures.output_formats import RESULT_SUFFIXES

#: What follows the stem of a result in the names of its files.
LOSS_PLOT, TIME_LAPSE = ".loss.png", ".progress.webp"
#: The contact sheet in the folder of a batch.
SHEET = "contact-sheet.jpg"
#: The gallery's folder of thumbnails in results/, and the digits of a picture's digest that their names begin with.
THUMBNAILS, KEY_DIGITS = ".gallery", 24
_RESULT = (LOSS_PLOT, TIME_LAPSE, *RESULT_SUFFIXES)


def publish(
    stage: Path, files: Sequence[str], root: Path, name: str, *, overwrite: bool = False
) -> Path:
    """Publish a finished set of files as `root/name.*`; the picture appears last.

    It may be called again after a crash: it finds the files that it had placed by their contents, and finishes. So the
    first file of every set must have contents that no other job has. The staged files stay.

    Args:
        stage: folder of the files.
        files: their names, the picture last. All begin with the picture's stem, which is replaced.
        root: folder of the results.
        name: the new stem ("dog", "starry/IMG_1"); "name-2", "name-3", … if any file of that name exists.
        overwrite: replace an older result of that name, and remove its other files.

    Returns:
        The path of the picture.

    Raises:
        StorageError: `root` does not exist or cannot be written.
    """
    stem = PurePath(files[-1]).stem
    suffixes = [file.removeprefix(stem) for file in files]
    if not root.is_dir():
        raise missing_folder(root)
    sources = [stage / file for file in files]
    return _under_a_possible_name(
        name, lambda name: _publish(sources, suffixes, root, name, overwrite)
    )


def _under_a_possible_name(name: str, place: Callable[[str], Path]) -> Path:
    """Call `place` with the name, then with names that more file systems take, until one is not refused.

    Raises StorageError; PathError if every name is refused.
    """
    refused: list[PathError] = []
    for candidate in spellings(name):
        try:
            return place(candidate)
        except PathError as error:
            refused.append(error)
    raise refused[0]


def _publish(
    sources: Sequence[Path], suffixes: Sequence[str], root: Path, name: str, overwrite: bool
) -> Path:
    """Place files as `root/name` + suffix, or under a numbered name."""
    folder = (root / name).parent
    make_folder(folder, within=root)
    with storage(root / name, within=root):
        for candidate in numbered(PurePath(name).name):
            targets = [folder / (candidate + suffix) for suffix in suffixes]
            pairs = list(zip(sources, targets, strict=True))
            if overwrite:
                for source, target in pairs:
                    _place_over(source, target)
                _remove_rest(folder, candidate, keep=suffixes)
            elif not _place_all(pairs):
                continue
            return targets[-1]
    raise AssertionError("unreachable: there is always another number")


def _place_all(pairs: Iterable[tuple[Path, Path]]) -> bool:
    """Place all files or none; False if a name is in use."""
    pairs = list(pairs)
    if any(os.path.lexists(target) and not _same(source, target) for source, target in pairs):
        return False
    placed: list[Path] = []
    try:
        for source, target in pairs:
            if not _place(source, target):
                raise FileExistsError(errno.EEXIST, "the name was taken just now", str(target))
            placed.append(target)
    except OSError as error:
        for path in placed:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def _place(source: Path, target: Path) -> bool:
    """Link `source` to `target`, or copy it where links do not exist; False if another file has that name."""
    return link_new(source, target, _place_over) or _same(source, target)


def _place_over(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source`, atomically."""
    temporary = target.with_name(f".{target.name}.part")  # the same name again after a crash
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        copy_durably(source, temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # rename does nothing between two names of one file


def _remove_rest(folder: Path, stem: str, *, keep: Sequence[str]) -> None:
    """Remove the loss curve, the time-lapse and pictures in other formats of a result that was replaced."""
    for suffix in set(_RESULT) - set(keep):
        path = folder / (stem + suffix)
        # "dog.loss.png" with a "dog.loss.json" is the picture of the job "dog.loss", not the curve of "dog".
        if suffix.count(".") == 1 or not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)


def _same(source: Path, target: Path) -> bool:
    """Whether both are the same file or have the same contents."""
    ours, other = source.stat(), target.lstat()
    if not stat.S_ISREG(other.st_mode) or ours.st_size != other.st_size:
        return False
    return os.path.samestat(ours, other) or sha256_file(source) == sha256_file(target)


def move_folder(source: Path, root: Path, name: str) -> Path:
    """Move the folder `source` atomically to `root/name`, or to "name-2", … if that exists.

    name may contain "/". If the file system refuses it, another spelling is tried. Raises StorageError; PathError
    if every name is refused.
    """
    if not root.is_dir():
        raise missing_folder(root)
    return _under_a_possible_name(name, lambda name: _move_folder(source, root, name))


def _move_folder(source: Path, root: Path, name: str) -> Path:
    parent = (root / name).parent
    make_folder(parent, within=root)
    with storage(root / name, within=root):
        target = next(
            path
            for path in (parent / n for n in numbered(PurePath(name).name))
            if not os.path.lexists(path)
        )
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            temporary = target.with_name(f".{target.name}.part")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(source, temporary, symlinks=True)
            for path in temporary.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    fsync_file(path)
            temporary.rename(target)
            shutil.rmtree(source)
    return target
