"""Results and archives appear whole, under a name that nothing else has."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from nst_daemon.digests import sha256_file
from nst_daemon.files import fsync_file, fsync_folder, make_folder, missing_folder, storage
from nst_daemon.names import numbered

# What `link` says where hard links do not exist, or do not reach.
_NO_LINKS = frozenset(
    {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)


#: What may stand beside a picture, and what it may be: the names of a result, without its stem.
LOSS_PLOT, TIME_LAPSE = ".loss.png", ".progress.webp"


_RESULT = (LOSS_PLOT, TIME_LAPSE, ".png", ".jpg", ".webp")


def publish(
    stage: Path, files: Sequence[str], root: Path, name: str, *, overwrite: bool = False
) -> Path:
    """Move a finished set of files from `stage` to `root/name.*` and return the picture's path.

    files: names inside `stage`, the picture last. They share the picture's stem, which becomes `name` ("dog",
    "starry/IMG_1"), or "name-2", "name-3", … where any file of that name exists: nothing is overwritten unless
    `overwrite`; then what else an older result of that name has left goes. The picture appears last, whole. Calling it
    again after a crash finds what it had placed (same contents) and finishes; so every set needs a file whose contents
    no other job has, and comes first.
    The staged files stay until the caller removes them. Raises StorageError.
    """
    stem = PurePath(files[-1]).stem
    suffixes = [file.removeprefix(stem) for file in files]
    if not root.is_dir():
        raise missing_folder(root)
    folder = (root / name).parent
    make_folder(folder)
    with storage(folder):
        for candidate in numbered(PurePath(name).name):
            targets = [folder / (candidate + suffix) for suffix in suffixes]
            pairs = list(zip([stage / file for file in files], targets, strict=True))
            if overwrite:
                for source, target in pairs:
                    _place_over(source, target)
                _remove_rest(folder, candidate, keep=suffixes)
            elif not _place_all(pairs):
                continue
            fsync_folder(folder)
            return targets[-1]
    raise AssertionError("unreachable: there is always another number")


def _place_all(pairs: Iterable[tuple[Path, Path]]) -> bool:
    """Place all or nothing; False where a name belongs to something else."""
    pairs = list(pairs)
    if any(os.path.lexists(target) and not _same(source, target) for source, target in pairs):
        return False
    placed: list[Path] = []
    for source, target in pairs:
        if not _place(source, target):  # somebody took the name just now
            for path in placed:
                path.unlink()
            return False
        placed.append(target)
    return True


def _place(source: Path, target: Path) -> bool:
    """Give `source` the name `target` as well; False where something else has it."""
    try:
        os.link(source, target)
    except FileExistsError:
        return _same(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No atomic "rename unless it exists" from Python here; only this daemon writes into the folder.
        if os.path.lexists(target):
            return _same(source, target)
        _place_over(source, target)
    return True


def _place_over(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source`, atomically."""
    temporary = target.with_name(f".{target.name}.part")  # the same name again after a crash
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
        fsync_file(temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # rename does nothing between two names of one file


def _remove_rest(folder: Path, stem: str, *, keep: Sequence[str]) -> None:
    """Remove the curve, the time-lapse or the picture in another format of a result that has been replaced."""
    for suffix in set(_RESULT) - set(keep):
        path = folder / (stem + suffix)
        # "dog.loss.png" beside "dog.loss.json" is the picture of another job, and not the curve of "dog".
        if suffix.count(".") == 1 or not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)


def _same(source: Path, target: Path) -> bool:
    """True where both are the same file or have the same contents."""
    ours, other = source.stat(), target.lstat()
    if not stat.S_ISREG(other.st_mode) or ours.st_size != other.st_size:
        return False
    return os.path.samestat(ours, other) or sha256_file(source) == sha256_file(target)


def move_folder(source: Path, root: Path, name: str) -> Path:
    """Move the folder `source` to `root/name`, or "name-2", … where that exists; atomic, never merging.

    name may hold "/". Raises StorageError.
    """
    if not root.is_dir():
        raise missing_folder(root)
    parent = (root / name).parent
    make_folder(parent)
    with storage(parent):
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
        fsync_folder(parent)
    return target
