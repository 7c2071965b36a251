"""A new root: its folders, and a configuration file to edit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nst_daemon import rights
from nst_daemon.config import Folders, config_keys, find_file
from nst_daemon.config_search import NAMES, SHARED_NAME
from nst_daemon.errors import UsageError
from nst_daemon.files import make_folder, storage
from nst_daemon.names import printable

#: config.yaml as it is shipped: every key behind a #, with its default.
_TEMPLATE = Path(__file__).parent / SHARED_NAME
_ROOT_LINE = "\n  #root: nst\n"


@dataclass(frozen=True, slots=True)
class NewRoot:
    """What was made.

    Attributes:
        root: The folder.
        config: The configuration file.
        created: The names of the files and folders that did not exist before, each with its purpose.
        kept: Files that exist and were not touched, each with what to know about it.
        closing: The command that closes the folders to other users of the machine; "" if they are closed.
    """

    root: Path
    config: Path
    created: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, str], ...] = ()
    closing: str = ""


def make_root(folder: Path) -> NewRoot:
    """Make a folder with the folders of a root and a configuration file. Nothing is overwritten.

    Raises:
        UsageError: The folder has a configuration, or something of it is in the way. Nothing was made.
        StorageError: A file or folder cannot be made.
    """
    label = printable(str(folder))
    if not str(folder).isprintable():
        raise UsageError(f"{label} is not a printable name in UTF-8", remedy="choose another name")
    names = [name for name in vars(Folders()) if name != "root"]
    folders = {name: folder / getattr(Folders(), name) for name in names}
    with storage(folder):
        for place in (folder, *folders.values()):
            if place.exists() and not place.is_dir():
                raise UsageError(
                    f"{printable(str(place))} exists and is not a folder",
                    remedy="move it, or choose another folder",
                )
        config, kept = _config_file(folder)
    make_folder(folder)
    created = [(config.name, "every setting, with its default; remove the # of those you change")]
    for name, place in folders.items():
        if not place.is_dir():
            make_folder(place, folder)
            created.append((f"{place.name}/", config_keys()[f"folders.{name}"].help))
    text = _TEMPLATE.read_text(encoding="utf-8").replace(_ROOT_LINE, "\n  root: .\n", 1)
    with storage(config), config.open("x", encoding="utf-8") as file:
        file.write(text)
    made = Folders(folder, **folders)
    closing = rights.closing(made, [folder]) if rights.open_to_others(made) else ""
    return NewRoot(folder.absolute(), config, tuple(created), kept, closing)


def _config_file(folder: Path) -> tuple[Path, tuple[tuple[str, str], ...]]:
    """The configuration file to write, and files of other programs. Raises UsageError if there is one of ours."""
    usual = [folder / name for name in NAMES]
    found = find_file(None, {}, usual)
    if found.path:
        raise UsageError(
            f"{printable(str(found.path))} exists, and nothing was changed",
            remedy="edit it, or choose another folder",
        )
    foreign = folder / SHARED_NAME
    if found.outcome(foreign) == "missing":
        return foreign, ()
    reason = f"belongs to another program and is kept; the settings are in {NAMES[0]}"
    return folder / NAMES[0], ((str(foreign), reason),)
