"""Put jobs into the inbox: under the right names, and only after every file is complete."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import yaml

from nst_daemon import files
from nst_daemon.digests import find_files
from nst_daemon.errors import InputError, NstError, UsageError
from nst_daemon.intake.drops import (
    MAX_STYLE_PICTURES,
    Style,
    new_job_id,
    suffix_of,
    too_many_pictures,
    unknown_kind,
)
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.library import style_problem
from nst_daemon.jobs import PICTURE_ROLES, Role
from nst_daemon.names import NAME_BYTES, clean_name, composed, natural_key, numbered, printable
from nst_daemon.pictures.camera_raw import recognise
from nst_daemon.pictures.formats import IMAGE_SUFFIXES, LIST_IT, NAMES, not_listed


class MissingInput(InputError):  # noqa: N818 (it names the state)
    """No file has the contents of an input of an earlier job. name: of the input."""

    name = ""


@dataclass(frozen=True, slots=True)
class DroppedJob:
    """A job that is in the inbox now. id: the one that it gets when the daemon takes it."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """A picture of a job. number: of its style, from 1, if there are several; else 0."""

    role: Role
    path: Path
    number: int = 0

    @property
    def ending(self) -> str:
        """The part of the file name after the job's name: ".style-2.jpg"."""
        word = self.role.value
        if self.number:
            word = word.replace("style", f"style-{self.number}")
        return f".{word}{self.path.suffix.lower()}"


def drop(
    inbox: Path,
    name: str,
    parts: Sequence[Part],
    settings: Mapping[str, object],
    formats: Collection[str] = NAMES,
) -> DroppedJob:
    """Put one job into the inbox: the arguments and errors are those of `drop_all`."""
    return drop_all(inbox, [(name, parts)], settings, formats)[0]


def drop_all(
    inbox: Path,
    jobs: Sequence[tuple[str, Sequence[Part]]],
    settings: Mapping[str, object],
    formats: Collection[str] = NAMES,
) -> list[DroppedJob]:
    """Copy the pictures of jobs into the inbox, and the id and the settings of each as NAME.yaml: all jobs, or none.

    Args:
        inbox: the inbox.
        jobs: the wanted name and the pictures of each; the name is made safe, and numbered if the inbox has it already.
        settings: of each job, `style` and `priority` included.
        formats: those of `limits.formats`.

    Returns:
        The name and the id of each job.

    Raises:
        UsageError: a file does not exist, is not an image file, has another format, or cannot be read.
        StorageError: the inbox cannot be written.
    """
    for part in {part.path: part for _, parts in jobs for part in parts}.values():
        _check(part.path, formats)
    with ExitStack() as stack, files.storage(inbox):
        wanted: list[DroppedJob] = []
        deliveries: list[Delivery] = []
        for name, parts in jobs:
            delivery = stack.enter_context(Delivery(inbox))
            wanted.append(DroppedJob(new_job_id(), name))
            deliveries.append(delivery)
            delivery.file(".yaml").write(settings_file(settings, wanted[-1].id))
            for part in parts:
                with part.path.open("rb") as source:
                    shutil.copyfileobj(source, delivery.file(part.ending), files.CHUNK)
            delivery.check_name(name)
            delivery.complete()
        return appear_all(deliveries, wanted)


def appear_all(deliveries: Sequence[Delivery], wanted: Sequence[DroppedJob]) -> list[DroppedJob]:
    """Make jobs visible to the daemon: all, or none. If the process is killed meanwhile, `complete_killed` goes on.

    Args:
        deliveries: complete ones.
        wanted: the id and the wanted name of each.

    Raises:
        StorageError: the inbox cannot be written. The message names the jobs that the daemon has taken before they
            could be removed again.
    """
    appeared: list[DroppedJob] = []
    with _naming, _noted(deliveries, [job.name for job in wanted]) as names:
        try:
            for delivery, job, name in zip(deliveries, wanted, names, strict=True):
                appeared.append(DroppedJob(job.id, delivery.appear(name)))
        except BaseException as error:
            # The delivery that failed may have placed some of its files.
            complete = [delivery.withdraw() for delivery in deliveries[: len(appeared) + 1]]
            pairs = zip(appeared, complete, strict=False)
            taken = [printable(job.name) for job, removed in pairs if not removed]
            if taken and isinstance(error, NstError):
                said = f"{error.message}; the daemon has taken {', '.join(taken)} already"
                raise type(error)(said, remedy=error.remedy) from error
            raise
    return appeared


#: A file with the old and the new names of all files of a submission, while they are renamed.
_NOTES = re.compile(r"\.[0-9a-f]{16}\.names\.part")


@contextmanager
def _noted(deliveries: Sequence[Delivery], names: Sequence[str]) -> Iterator[list[str]]:
    """Yields a free name for each delivery. All new names of their files are in a locked file inside."""
    if not deliveries:
        yield []
        return
    inbox = deliveries[0].inbox
    free = _free_names(inbox, map(job_name, names))
    renames = [pair for d, name in zip(deliveries, free, strict=True) for pair in d.renames(name)]
    path = inbox / f".{secrets.token_hex(8)}.names.part"
    with files.storage(inbox):
        try:
            with path.open("xb") as file:
                files.lock(file)
                file.write(json.dumps(renames).encode())
                file.flush()
                os.fsync(file.fileno())
                yield free
        finally:
            path.unlink(missing_ok=True)


def complete_killed(inbox: Path) -> None:
    """Complete submissions of killed processes that the daemon can see a part of. Raises StorageError."""
    with files.storage(inbox):
        for path in inbox.iterdir() if inbox.is_dir() else ():
            if not _NOTES.fullmatch(path.name):
                continue
            with path.open("rb") as file:
                if not files.lock(file):  # it is being submitted now
                    continue
                with suppress(
                    ValueError
                ):  # the process was killed before the first file had its name
                    for hidden, name in json.loads(file.read()):
                        if not os.path.lexists(inbox / name):
                            with suppress(FileNotFoundError):
                                (inbox / hidden).rename(inbox / name)
                    files.fsync_folder(inbox)
                path.unlink()


def settings_file(settings: Mapping[str, object], job_id: str) -> bytes:
    """The contents of NAME.yaml: first the id of the job, then its settings."""
    values = {"id": job_id, **settings}
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False).encode()


#: The length of the number of a job whose name is in use: "-12345".
_NUMBER_BYTES = 6
#: Two jobs must not choose the same name.
_naming = threading.RLock()


class Delivery:
    """The files of one job on their way into the inbox. They are hidden from the scan until `appear` names them.

    A context manager: without `appear` all files are removed. Raises UsageError if there is no inbox.

    Attributes:
        inbox: where they will be.
    """

    def __init__(self, inbox: Path) -> None:
        if not inbox.is_dir():
            raise UsageError(
                f"no daemon has run on this root: there is no inbox at {inbox}",
                remedy="name its configuration with --config, or start the daemon",
            )
        self.inbox = inbox
        self._files: list[tuple[BinaryIO, Path, str]] = []
        self._placed: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file, hidden, _ending in self._files:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                hidden.unlink(missing_ok=True)

    def file(self, ending: str) -> BinaryIO:
        """A new file to write to. ending: the part of its name after the job's name. Raises StorageError."""
        hidden = self.inbox / files.part_name()
        with files.storage(self.inbox):
            # A new file instead of a copy with the original's mode: the inbox's group must be able to read it.
            file = hidden.open("xb")
        self._files.append((file, hidden, ending))
        return file

    def check_name(self, name: str) -> None:
        """Raise UsageError if the inbox ignores files of this name."""
        for _, _, ending in self._files:
            check_name(name, ending)

    def complete(self) -> None:
        """Make the contents of the files durable, and close them. Raises StorageError."""
        with files.storage(self.inbox):
            for file, _, _ in self._files:
                if not file.closed:
                    file.flush()
                    os.fsync(file.fileno())
                    file.close()

    def withdraw(self) -> bool:
        """Remove the files after `appear`; False if the daemon has taken one of them already."""
        complete = True
        while self._placed:
            try:
                self._placed.pop().unlink()
            except OSError:
                complete = False
        return complete

    def appear(self, name: str, folder: str = "") -> str:
        """Give the files their names, so that the scan sees them.

        Args:
            name: the wanted name of the job; it is made safe, and numbered if it is in use.
            folder: a folder of the inbox, which is created if it is missing; "" for the inbox itself.

        Returns:
            The name of the job.

        Raises:
            UsageError: the inbox ignores files of this name, or the folder is not a real folder.
            StorageError: the inbox cannot be written.
        """
        place = self._place(folder)
        self.check_name(name)
        self.complete()
        with _naming, files.storage(place):
            (name,) = _free_names(place, [job_name(name)])
            for hidden, target in self.renames(name):
                (self.inbox / hidden).rename(place / target)
                self._placed.append(place / target)
            files.fsync_folder(place)
        return name

    def renames(self, name: str) -> list[tuple[str, str]]:
        """The present and the final name of each file of a job. The content is last: the other files wait for it."""
        ordered = sorted(self._files, key=lambda file: file[2].startswith(".content."))
        return [(hidden.name, f"{name}{ending}") for _, hidden, ending in ordered]

    def _place(self, folder: str) -> Path:
        """The inbox, or a real folder in it. Raises UsageError if that is a file or a link."""
        if not folder:
            return self.inbox
        place, label = self.inbox / folder, printable(folder)
        if folder != clean_name(folder):
            raise UsageError(f"{label} is not a valid name for a folder of the inbox")
        with files.storage(self.inbox), suppress(FileExistsError):
            place.mkdir()
        if place.is_symlink() or not place.is_dir():
            raise UsageError(f"inbox/{label} is not a folder", remedy="rename or remove it")
        return place


def style_pictures(styles: Iterable[Path]) -> list[Path]:
    """Files as they are, and folders as the image files directly in them. Raises UsageError for none or too many."""
    found: list[Path] = []
    for style in styles:
        inside = pictures_in(style) if style.is_dir() else [style]
        if not inside:
            raise UsageError(
                f"there is no image file in {printable(str(style))}",
                remedy="name a folder that has one",
            )
        found += inside
    if len(found) > MAX_STYLE_PICTURES:
        raise UsageError(too_many_pictures(len(found), "this job"))
    return found


def pictures_in(folder: Path) -> list[Path]:
    """The image files directly in a folder that is not in the library, in natural order of their names."""
    with files.storage(folder):
        return sorted(filter(_shown, folder.iterdir()), key=lambda path: natural_key(path.name))


def styles_and_names(
    styles: Iterable[str], library: Mapping[str, Style]
) -> tuple[list[Path], list[str]]:
    """Split style arguments into picture files and names of library styles.

    Each argument is an image file, the name of a style in the library, or a folder of image files. Raises UsageError
    for anything else, and for a style that cannot be used.
    """
    paths: list[Path] = []
    names: list[str] = []
    for style in styles:
        path, name = Path(style), composed(style)
        files.check_local(path)
        if path.is_file() or path.is_fifo() or (path.is_dir() and name not in library):
            paths.append(path)
        elif problem := style_problem(library, name):
            prefix = "" if name in library else f"{printable(style)} is not a file or folder, and "
            raise UsageError(prefix + problem)
        else:
            names.append(style)
    return style_pictures(paths), names


def job_parts(
    content: Path,
    styles: Sequence[Path],
    content_mask: Path | None = None,
    style_masks: Sequence[Path] = (),
) -> list[Part]:
    """The parts of a job. Raises UsageError if there are masks, but not one for each style."""
    if (content_mask or style_masks) and len(style_masks) != len(styles):
        raise UsageError(
            f"there are {len(style_masks)} masks for {len(styles)} style pictures",
            remedy="give one --style-mask for each, in their order",
        )
    masks = [(Role.CONTENT_MASK, content_mask)] if content_mask else []
    masks += [(Role.STYLE_MASK, path) for path in style_masks]
    return _numbered([(Role.CONTENT, content), *((Role.STYLE, p) for p in styles), *masks])


def _numbered(pictures: Sequence[tuple[Role, Path]]) -> list[Part]:
    """Parts with numbers for the styles and their masks, if there are several styles."""
    several = sum(role is Role.STYLE for role, _ in pictures) > 1
    counts: Counter[Role] = Counter()
    parts = []
    for role, path in pictures:
        counts[role] += 1
        numbered = several and role in {Role.STYLE, Role.STYLE_MASK}
        parts.append(Part(role, path, counts[role] if numbered else 0))
    return parts


def recipe_parts(
    inputs: Iterable[Mapping[str, object]], places: Sequence[Path], noted: Iterable[Path] = ()
) -> list[Part]:
    """Find the pictures that a sidecar names, by their contents.

    Args:
        inputs: `role`, `sha256` and `bytes` of each input, and perhaps its `name`.
        places: Files, and folders that are searched.
        noted: Files that are searched too, and not listed in messages.

    Raises:
        MissingInput: A picture was not found.
    """
    wanted = [i for i in inputs if Role(str(i["role"])) in PICTURE_ROLES]
    sizes = {str(i["sha256"]): int(str(i["bytes"])) for i in wanted}
    found = find_files(sizes, [*places, *noted], suffixes=IMAGE_SUFFIXES)
    for i in wanted:
        if i["sha256"] not in found:
            name = str(i.get("name", i["role"]))
            where = ", ".join(printable(str(place)) for place in places)
            error = MissingInput(
                f"{printable(name)} is in none of {where}",
                remedy="name it, or the folder that it is in, with --input (or another root with --config)",
            )
            error.name = name
            raise error
    return _numbered([(Role(str(i["role"])), found[str(i["sha256"])]) for i in wanted])


def _shown(path: Path) -> bool:
    return suffix_of(path.name) in IMAGE_SUFFIXES and not ignored(path.name) and path.is_file()


def picture_suffix(name: str) -> str:
    """The suffix of an image file in lower case, with its dot. Raises UsageError for any other file."""
    suffix = suffix_of(name)
    if suffix not in IMAGE_SUFFIXES:
        raise UsageError(unknown_kind(name))
    return suffix


def _check(path: Path, formats: Collection[str]) -> None:
    label = printable(str(path))
    if not path.is_file():
        raise UsageError(f"{label} does not exist or is not a file")
    picture_suffix(path.name)
    if not os.access(path, os.R_OK):
        raise UsageError(f"{label} cannot be read", remedy="check its permissions")
    check_format(path, label, formats)


def check_format(path: Path, label: str, formats: Collection[str]) -> None:
    """Raise UsageError if a file has a known format that is not among these of `limits.formats`."""
    with path.open("rb") as file:
        known = recognise(file)
    if known and known.name not in formats:
        raise UsageError(f"{label} {not_listed(known)}", remedy=LIST_IT)


def job_name(name: str) -> str:
    """A wanted name, made safe.

    "night.batch" would have the settings file of a batch. A number fits behind the name: `clean_name`, which the
    intake uses too, would cut it off.
    """
    name = clean_name(name).encode()[: NAME_BYTES - _NUMBER_BYTES].decode(errors="ignore")
    return f"{name[:-6]}_batch" if name.lower().endswith(".batch") else name


def check_name(name: str, ending: str = ".content.jpg") -> None:
    """Raise UsageError if the inbox ignores files of this name. ending: what follows it."""
    file = job_name(name) + ending
    if ignored(file):
        raise UsageError(
            f"{printable(file)} has the name of a temporary file, which the inbox ignores",
            remedy="give it another name",
        )


def _free_names(inbox: Path, names: Iterable[str]) -> list[str]:
    """Each name, or the first NAME-2, NAME-3, … that no file in the inbox and no earlier name has."""
    with files.storage(inbox):
        taken = {job for path in inbox.iterdir() for job in _jobs_of(composed(path.name))}
    found = []
    for name in names:
        found.append(next(free for free in numbered(name) if free not in taken))
        taken.add(found[-1])
    return found


def _jobs_of(file: str) -> Iterator[str]:
    """The names that a job cannot have because of a file: NAME, NAME.…, NAME_content… and the like."""
    yield file
    for separator in re.finditer(r"\.|[_-](?:content|style)", file):
        yield file[: separator.start()]
