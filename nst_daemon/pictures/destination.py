"""Where a picture will be written: what is checked before it is painted, and how it is written without a daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nst_daemon import units
from nst_daemon.errors import PictureError, StorageError, UsageError
from nst_daemon.files import kind, nearest, write_atomic
from nst_daemon.mounts import Space, space
from nst_daemon.names import printable
from nst_daemon.pictures.output_formats import check_size, output_format

if TYPE_CHECKING:
    from nst_daemon.pictures.raster import Size

_MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Destination:
    """The file of a picture that is not painted yet.

    Attributes:
        path: Its folder exists.
        format: A name of `output_formats`.
        depth: Bits per channel.
        reserve: Bytes that have to stay free in its file system (`limits.min_free_disk`).
        space: Measures the file system of a folder.
    """

    path: Path
    format: str
    depth: int
    reserve: int = 0
    space: Callable[[Path], Space] = space

    def check(self, size: Size, *, alpha: bool) -> None:
        """Check that the picture can be written.

        Args:
            size: Height and width in pixels.
            alpha: Whether it is transparent somewhere.

        Raises:
            PictureError: The format or the disk cannot hold a picture of this size.
            StorageError: There is too little free space for the file.
        """
        name = printable(self.path.name)
        check_size(self.format, size, name)
        folder = self.path.parent
        needed, (free, total) = self.largest_file(size, alpha=alpha), self.space(folder)
        said = f"{name} may need {units.size(needed, up=True)}"
        if self.reserve:
            said += f" in addition to limits.min_free_disk ({units.size(self.reserve)})"
        if needed + self.reserve > total:
            raise PictureError(
                f"{said}, and the file system of {folder} has {units.size(total)} in total",
                remedy="choose a smaller size, or a format that compresses more, such as jpg",
            )
        if needed + self.reserve > free:
            raise StorageError(
                f"{said}, and {folder} has {units.size(free)} of free space",
                remedy="free some space, or choose a smaller size",
            )

    def largest_file(self, size: Size, *, alpha: bool) -> int:
        """An estimate of the most bytes that the file may take: its pixels, or half of them if it is lossy."""
        known = output_format(self.format)
        channels = 4 if alpha and known.alpha else 3
        pixels = size[0] * size[1] * channels * (1 if self.depth == 8 else 2)
        return pixels // 2 if known.quality else pixels


def check_output(
    path: Path,
    inputs: Iterable[Path] = (),
    *,
    overwrite: bool = False,
    to_overwrite: str = "overwrite=True",
    new_folder: bool = False,
) -> None:
    """Check that a file can be written.

    Args:
        path: The file; a symbolic link means the file that it leads to.
        inputs: Files that it must not replace, under any name.
        overwrite: Whether it may replace another file.
        to_overwrite: How a person allows that, for the message.
        new_folder: Whether its folder will be created if it is missing.

    Raises:
        UsageError: It cannot be written.
    """
    label = printable(str(path))
    if os.path.lexists(path):
        if any(_same_file(path, one) for one in inputs):
            raise UsageError(
                f"{label} is one of the inputs, which are never replaced",
                remedy="choose another name",
            )
        if path.exists() and not path.is_file():
            raise UsageError(
                f"{label} is {kind(path.stat().st_mode)}",
                remedy="name a file in it" if path.is_dir() else "name a file",
            )
        if not overwrite:
            raise UsageError(
                f"{label} exists", remedy=f"choose another name, or use {to_overwrite}"
            )
    folder = Path(os.path.realpath(path)).parent
    folder = nearest(folder) if new_folder else folder
    shown = printable(str(folder))
    if not os.path.lexists(folder):
        raise UsageError(f"the folder {shown} does not exist", remedy="create it")
    if not folder.is_dir():
        raise UsageError(f"{shown} is not a folder", remedy="name a file in a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {shown} is not writable", remedy="check its permissions")


def write_output(path: Path, data: bytes | memoryview, *, overwrite: bool = False) -> None:
    """Write a file atomically, and nothing if it cannot be written as a whole.

    Raises:
        UsageError: The file exists, although it did not when it was checked (`check_output`).
        StorageError: It cannot be written.
    """
    try:
        write_atomic(Path(os.path.realpath(path)), data, replace=overwrite)
    except FileExistsError as error:
        raise UsageError(
            f"{printable(str(path))} exists; it was written meanwhile",
            remedy="choose another name",
        ) from error


def _same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
