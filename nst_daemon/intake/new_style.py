"""New styles of the library: complete before the daemon can see them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath

import yaml

from nst_daemon import files
from nst_daemon.errors import NameInUseError, UsageError
from nst_daemon.intake.drops import SETTINGS_SUFFIXES, stem_of, suffix_of
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.library import name_problem
from nst_daemon.names import clean_name, composed, printable
from nst_daemon.pictures.formats import IMAGE_SUFFIXES

#: Two styles must not get the same name.
_naming = threading.Lock()


def add_style(
    library: Path, name: str, pictures: Sequence[tuple[str, Path]], settings: Mapping[str, object]
) -> str:
    """Copy pictures into the library: as NAME.SUFFIX, or as a folder if there are several; settings as NAME.yaml.

    Args:
        library: the folder of the styles.
        name: the wanted name; it is made safe.
        pictures: the name and the path of each.
        settings: of the style.

    Returns:
        The name of the style.

    Raises:
        NameInUseError: there is such a style.
        UsageError: the name is one of temporary files, which are ignored.
        StorageError: the library cannot be written.
    """
    name = clean_name(name)
    suffix = pictures[0][1].suffix if len(pictures) == 1 else ""
    problem = name_problem(name)
    if problem or ignored(name + suffix, folder=not suffix):
        raise UsageError(problem or f"{printable(name + suffix)} is the name of a temporary file")
    hidden = library / files.part_name()
    with files.storage(library):
        try:
            if suffix:
                files.copy_durably(pictures[0][1], hidden)
            else:
                hidden.mkdir()
                for number, (label, path) in enumerate(pictures, 1):
                    files.copy_durably(path, hidden / _inner_name(number, label, path.suffix))
                files.fsync_folder(hidden)
            with _naming:
                _place(library, hidden, name, name + suffix, settings)
        except BaseException:
            if hidden.is_dir():
                shutil.rmtree(hidden, ignore_errors=True)
            else:
                hidden.unlink(missing_ok=True)
            raise
    return name


def _place(
    library: Path, hidden: Path, name: str, file: str, settings: Mapping[str, object]
) -> None:
    """Give the files their names. The settings come first: without a picture they are not a style."""
    if _in_use(library, name):
        raise NameInUseError(
            f"the library has the name {printable(name)} already", remedy="choose another name"
        )
    written = library / f"{name}.yaml"
    if settings:
        text = yaml.safe_dump(dict(settings), allow_unicode=True, sort_keys=False)
        files.write_atomic(written, text.encode(), replace=False)
    try:
        hidden.rename(library / file)
    except BaseException:
        if settings:
            with suppress(OSError):
                written.unlink()
        raise
    files.fsync_folder(library)


def _in_use(library: Path, name: str) -> bool:
    """Whether a style or its settings have this name; some file systems do not distinguish upper and lower case."""
    wanted = composed(name).casefold()
    for path in library.iterdir():
        known = suffix_of(path.name) in IMAGE_SUFFIXES | SETTINGS_SUFFIXES
        names = {composed(path.name)} | ({stem_of(path.name)} if known else set())
        if any(found.casefold() == wanted for found in names):
            return True
    return False


def _inner_name(number: int, label: str, suffix: str) -> str:
    """The name of a picture in a folder. The number keeps the order, and makes it unique."""
    name = f"{number}-{PurePath(label).stem}{suffix}"
    return f"{number}{suffix}" if ignored(name) else name
