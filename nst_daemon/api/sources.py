"""What the API takes for a picture."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nst_daemon.config import Limits
from nst_daemon.digests import sha256_file
from nst_daemon.engine.images import Picture, from_array, from_image, from_tensor, load_picture
from nst_daemon.errors import PictureError
from nst_daemon.files import check_local, copied, kind
from nst_daemon.intake.submit import style_pictures
from nst_daemon.jobs import JobInput, Role
from nst_daemon.names import printable
from nst_daemon.painter import NamedFile
from nst_daemon.pictures.decode import reading

StrPath = str | os.PathLike[str]
#: What can be painted: a path, a Pillow image, an array, a tensor, the bytes of a file, or an open file.
ImageSource = StrPath | Image.Image | NDArray[Any] | Tensor | Picture | bytes | IO[bytes]


def single_pictures(sources: ImageSource | Sequence[ImageSource]) -> list[ImageSource]:
    """Single pictures; a folder stands for those in it."""
    many = sources if isinstance(sources, list | tuple) else [sources]
    found: list[ImageSource] = []
    for source in cast("Sequence[ImageSource]", many):
        if isinstance(source, str | os.PathLike) and Path(source).is_dir():
            found += style_pictures([Path(source)])
        else:
            found.append(source)
    return found


class Inputs:
    """The pictures of one painting, in the form that `Painter.prepare` takes, and the records of their files.

    Args:
        limits: For reading.
        stack: Closes what was opened.
    """

    def __init__(self, limits: Limits, stack: ExitStack) -> None:
        self._limits, self._stack = limits, stack
        self.records: list[JobInput] = []

    def add(self, role: Role, source: ImageSource) -> Picture | NamedFile:
        """Accept a picture in any of its forms. Raises PictureError."""
        label = f"the {role.value.replace('.', ' ')}"
        match source:
            case Picture():
                return source
            case Image.Image():
                return from_image(source, label)
            case Tensor():
                return from_tensor(source, label)
            case str() | os.PathLike():
                return self._file(role, Path(source))
        data = source if isinstance(source, bytes) else _read(source)
        if data is not None:
            digest = hashlib.sha256(data).hexdigest()
            self.records.append(JobInput(role, label, label, digest, len(data)))
            return load_picture(io.BytesIO(data), self._limits, name=label)
        if hasattr(source, "__array__"):
            return from_array(np.asarray(source), label)
        raise PictureError(
            f"{label} is of the type {type(source).__name__}",
            remedy="give a path, a Pillow image, an array, a tensor, bytes or an open file",
        )

    def _file(self, role: Role, path: Path) -> NamedFile:
        """A file; a pipe is copied. Its digest is taken before it is painted."""
        label = printable(str(path))
        check_local(path)
        with reading(label):
            found = NamedFile(path, label)
            if path.is_fifo():
                with path.open("rb") as pipe:
                    copy = copied(pipe, self._limits.max_bytes, f"the pipe {label}")
                self._stack.callback(copy.close)
                found = NamedFile(Path(f"/proc/self/fd/{copy.fileno()}"), label)
            elif path.exists() and not path.is_file():
                raise PictureError(
                    f"{label} is {kind(path.stat().st_mode)}", remedy="name an image file"
                )
            size = found.path.stat().st_size
            digest = sha256_file(found.path)
        self.records.append(JobInput(role, path.name, path.name, digest, size))
        return found


def _read(source: object) -> bytes | None:
    """The contents of an open file; None for anything else."""
    read = getattr(source, "read", None)
    data = read() if callable(read) else None
    return data if isinstance(data, bytes) else None
