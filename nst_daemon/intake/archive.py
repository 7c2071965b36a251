"""From the spool into done/ or failed/, and the card that says whose folder it is. Every step can be repeated."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nst_daemon import files
from nst_daemon.errors import PathError, StorageError
from nst_daemon.jobs import BatchCell, Changes, Fingerprint, Job, JobInput, JobState, Role
from nst_daemon.names import numbered, printable, spellings
from nst_daemon.publishing import move_folder

#: The job as it was claimed. It is written last, so a folder of the spool without it is an unfinished copy. It stays in
#: the archive, so that only the job's own folder is pruned or retried.
CARD = ".job.json"
ERROR_FILE = "error.txt"
#: A folder in the archive, with a finished picture that could not be published.
RESULT = "result"


def archive(
    job: Job,
    spool: Path,
    root: Path,
    *,
    error: str = "",
    detail: str = "",
    pictures: Sequence[Path] = (),
) -> str:
    """Move spool/ID/ to root/NAME/; may be repeated.

    Args:
        job: a job that has ended.
        spool: the spool folder.
        root: done/ or failed/.
        error: first line of error.txt; "" for a finished job, whose copies of library files are not archived.
        detail: further lines of error.txt.
        pictures: finished files to move into its folder `RESULT`, as far as they exist.

    Returns:
        The path of the archive below `root`.

    Raises:
        StorageError: a folder cannot be written.
    """
    folder = spool / job.id
    if not folder.is_dir():
        if found := _find_archive(job, root):
            return found
        files.make_folder(folder)
    elif job.archive and card_id(root / job.archive) == job.id:
        _add_to_archive(job, folder, root / job.archive)
        return job.archive
    kept = {file.spooled for file in job.inputs if error or file.origin} | {CARD, RESULT}
    with files.storage(folder):
        for path in list(folder.iterdir()):
            if path.name not in kept:
                files.remove(path)
        for path in pictures:
            if path.is_file():
                (folder / RESULT).mkdir(exist_ok=True)
                path.replace(folder / RESULT / path.name)
    if not (folder / CARD).exists():  # the job was refused
        files.write_atomic(folder / CARD, card_json(job))
    if error:
        write_error(folder, error, detail, name=job.name)
    return str(move_folder(folder, root, job.name).relative_to(root))


def _add_to_archive(job: Job, folder: Path, target: Path) -> None:
    """Move inputs that came into the spool later, such as an original that could not be moved before.

    What else is there are copies for a retry that was interrupted. Raises StorageError.
    """
    with files.storage(target):
        for name in (file.spooled for file in job.inputs):
            if os.path.lexists(folder / name) and not os.path.lexists(target / name):
                shutil.move(folder / name, target / name)
    files.remove_tree(folder)


def write_error(folder: Path, error: str, detail: str = "", *, name: str) -> None:
    """Write error.txt: one line for people, what they can do, and the detail. Raises StorageError.

    name: of the job.
    """
    command = f"nst-daemon retry {shlex.quote(printable(name))}"
    ways = (
        f"To try again: {command} (--set KEY=VALUE changes a setting), or drop these files again."
    )
    text = "\n\n".join(filter(None, (printable(error), ways, detail.rstrip()))) + "\n"
    files.write_atomic(folder / ERROR_FILE, text.encode(errors="backslashreplace"))


def _find_archive(job: Job, root: Path) -> str:
    """The archive that an earlier call has made; "" if it has made none."""
    for spelling in spellings(job.name):
        for name in numbered(spelling):
            if not os.path.lexists(root / name):
                break
            if card_id(root / name) == job.id:
                return name
    return ""


def is_there(archive: str, root: Path) -> bool:
    """Whether root/ARCHIVE/ is the archive of a job whose files were not removed yet."""
    return (root / archive / CARD).exists()


def prune_archive(job: Job, root: Path) -> bool:
    """Remove the job's files from root/ARCHIVE/; files that people have added stay.

    Returns whether anything was removed. Raises StorageError.
    """
    folder = root / job.archive
    card = read_card(folder) if job.archive else None
    if card is None or card.id != job.id:
        return False
    # After a retry the ledger has other inputs than the card: files that a person has added.
    names = {file.spooled for file in (*card.inputs, *job.inputs)}
    problems: list[StorageError] = []
    for name in (*names, RESULT, ERROR_FILE):
        try:
            files.remove(folder / name)
        except StorageError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    # The card comes last: it says whose folder this is.
    files.remove(folder / CARD)
    with suppress(OSError):  # not empty
        folder.rmdir()
    return True


# The card


def card_json(job: Job) -> bytes:
    """The contents of the card."""
    # `asdict` would copy each setting.
    settings = {"settings": dict(job.settings), "outputs": dict(job.outputs)}
    return json.dumps(asdict(replace(job, settings={}, outputs={})) | settings).encode()


def read_card(folder: Path) -> Job | None:
    """The job whose files are in a folder, in state `claimed`; None if the card is missing or damaged.

    Raises StorageError if it cannot be read.
    """
    with files.storage(folder / CARD):
        try:
            text = files.read_file(folder / CARD)
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        card = json.loads(text)
        inputs = tuple(_input_from_json(file) for file in card.pop("inputs"))
        card["staged_files"] = tuple(card["staged_files"])
        card["changes"] = Changes.from_json(card.get("changes", {}))
        card["batch"] = BatchCell.from_json(card.get("batch"))
        return replace(Job(inputs=inputs, **card), state=JobState.CLAIMED)
    except Exception:  # noqa: BLE001 (a damaged card may hold anything)
        return None


def card_id(folder: Path) -> str:
    """The id of the job whose files are in a folder of the archive; "" if there is no card that can be read.

    Raises StorageError.
    """
    with suppress(PathError):
        if job := read_card(folder):
            return job.id
    return ""


def _input_from_json(values: dict[str, Any]) -> JobInput:
    mark = values.pop("fingerprint")
    return JobInput(
        **{**values, "role": Role(values["role"])},
        fingerprint=None if mark is None else Fingerprint.from_json(mark),
    )
