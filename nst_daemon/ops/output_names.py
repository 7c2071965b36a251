"""The files that `nst-daemon stylize` writes: their names, and what is checked before anything is painted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nst_daemon.errors import UsageError
from nst_daemon.names import clean_name, numbered, printable
from nst_daemon.pictures.destination import check_output
from nst_daemon.pictures.output_formats import format_of_suffix
from nst_daemon.publishing import LOSS_PLOT, TIME_LAPSE

TO_OVERWRITE = "--overwrite"
#: So many styles are in the default name of a picture.
NAMED_STYLES = 3


@dataclass(frozen=True, slots=True)
class Extras:
    """The files that are written with each picture.

    Attributes:
        loss_plot, time_lapse: A file; "" for the usual name beside the picture; None for none.
        sidecar: Whether the JSON file is written.
    """

    loss_plot: str | None = None
    time_lapse: str | None = None
    sidecar: bool = False

    @property
    def beside(self) -> Extras:
        """Those with the usual name beside the picture."""
        return Extras(
            None if self.loss_plot else self.loss_plot,
            None if self.time_lapse else self.time_lapse,
            self.sidecar,
        )


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """One picture to be painted, and the files that will be written."""

    content: Path
    picture: Path
    loss_plot: Path | None = None
    time_lapse: Path | None = None
    sidecar: Path | None = None

    @classmethod
    def named(cls, content: Path, picture: Path, extras: Extras) -> OutputFiles:
        """The files for a picture of this name."""

        def beside(wanted: str | None, suffix: str) -> Path | None:
            if wanted is None:
                return None
            return Path(wanted) if wanted else picture.with_name(picture.stem + suffix)

        sidecar = picture.with_name(f"{picture.stem}.json") if extras.sidecar else None
        return cls(
            content,
            picture,
            beside(extras.loss_plot, LOSS_PLOT),
            beside(extras.time_lapse, TIME_LAPSE),
            sidecar,
        )

    def all(self) -> Iterator[Path]:
        """Every file."""
        yield self.picture
        yield from filter(None, (self.loss_plot, self.time_lapse, self.sidecar))


def is_folder(output: str | None, contents: Sequence[Path]) -> bool:
    """True if `-o` names a folder: it is one, it ends with a slash, or there are several contents.

    Raises UsageError if it is a file, and there are several contents.
    """
    if output is None:
        return False
    if Path(output).is_dir() or output.endswith("/"):
        return True
    if len(contents) > 1 and format_of_suffix(Path(output).suffix):
        raise UsageError(
            f"{printable(output)} is one file, and there are {len(contents)} contents",
            remedy="name a folder, such as -o painted/",
        )
    return len(contents) > 1


def name_outputs(
    contents: Sequence[Path],
    output: str | None,
    suffix: str,
    *,
    styles: Sequence[str],
    extras: Extras,
    inputs: Sequence[Path],
    overwrite: bool,
) -> list[OutputFiles]:
    """Name and check the files of every picture.

    Args:
        contents: The pictures to be painted.
        output: `-o`. In a folder a picture has the name of its content, without `-o` also that of the style; it is
            numbered if another file has that name.
        suffix: Of pictures whose name is chosen here.
        styles: The styles as the command line names them.
        extras: What else is written.
        inputs: Files that must not be replaced.
        overwrite: Whether other files may be.

    Raises:
        UsageError: A file cannot be written.
    """
    folder = is_folder(output, contents)
    if len(contents) > 1 and (extras.loss_plot or extras.time_lapse):
        raise UsageError(
            "one file was named for the loss plots or time-lapses of several pictures",
            remedy="use --loss-plot and --time-lapse without a file",
        )
    named: list[OutputFiles] = []
    for content in contents:
        if output is not None and not folder:
            files = OutputFiles.named(content, Path(output), extras)
        else:
            stem = content.stem if folder else f"{content.stem}.{_style_name(styles)}"
            taken = [path for files in named for path in files.all()]
            paths = (Path(output or "", name + suffix) for name in numbered(clean_name(stem)))
            picture = next(
                path
                for path in paths
                if all(
                    one not in taken and _free(one, inputs, overwrite)
                    for one in OutputFiles.named(content, path, extras.beside).all()
                )
            )
            files = OutputFiles.named(content, picture, extras)
        for path in files.all():
            check_output(
                path, inputs, overwrite=overwrite, to_overwrite=TO_OVERWRITE, new_folder=folder
            )
        _check_different(files)
        named.append(files)
    return named


def partial(picture: Path) -> Path:
    """A free name for the picture of a painting that was interrupted."""
    names = numbered(f"{picture.stem}.partial")
    paths = (picture.with_name(name + picture.suffix) for name in names)
    return next(path for path in paths if not os.path.lexists(path))


def _style_name(styles: Sequence[str]) -> str:
    names = [Path(style).stem for style in styles[:NAMED_STYLES]]
    rest = len(styles) - len(names)
    return "+".join(names + ([str(rest)] if rest else []))


def _free(path: Path, inputs: Sequence[Path], overwrite: bool) -> bool:
    """True if a file of this name replaces nothing, or only what may be replaced."""
    if not os.path.lexists(path):
        return True
    is_input = any(one.exists() and path.exists() and path.samefile(one) for one in inputs)
    return overwrite and path.is_file() and not is_input


def _check_different(files: OutputFiles) -> None:
    """Raise UsageError if two outputs are one file."""
    paths = [os.path.realpath(path) for path in files.all()]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(
                f"{printable(path)} is named for two outputs", remedy="choose another name for one"
            )
