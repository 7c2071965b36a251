"""New batches of uploaded pictures: checked as the daemon will check them, and put into the inbox as a batch file.

The pictures are copied to state/batches/NAME/contents/NUMBER/ and .../styles/NUMBER/. Only the batch of this name may
read them there (`service.batches`). The folder is complete before it gets its name, and has its name before the batch
file is in the inbox, so an interrupted call leaves nothing that the daemon would read.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nst_daemon import files, strict_yaml
from nst_daemon.config import Config, Folders
from nst_daemon.errors import (
    InputError,
    NameInUseError,
    NstError,
    SettingsError,
    StorageError,
    UsageError,
)
from nst_daemon.intake import batch as batch_files
from nst_daemon.intake.batch import Batch, repeated
from nst_daemon.intake.drops import Style
from nst_daemon.intake.expansion import Combination, Reach, plan
from nst_daemon.intake.library import style_problem
from nst_daemon.intake.submit import Delivery, check_name, job_name
from nst_daemon.job_settings import job_problems, resolve_job
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import clean_name, composed, numbered, printable
from nst_daemon.ops.estimates import Planned
from nst_daemon.ops.submission import FieldProblem

#: Seconds that the daemon needs to make a job of a batch, at most, in nearly all cases.
STOP_SECONDS = 0.5


#: A file in the folder of a batch until its batch file is in the inbox.
SUBMITTING = "submitting"


@dataclass(frozen=True, slots=True)
class BatchPicture:
    """An uploaded picture of a new batch.

    Attributes:
        stem: its name in the batch, without suffix; it is made safe, and numbered if another picture has it.
        path: the file, with its suffix.
        size: width and height in pixels.
    """

    stem: str
    path: Path
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to submit.

    Attributes:
        name: of the batch, and of its folder in results/.
        contents: pictures that exist.
        styles: pictures that exist, and names of styles of the library.
        settings: of all pictures.
        sweep: settings with the values that are combined.
        priority: of each job.
    """

    name: str
    contents: Sequence[BatchPicture]
    styles: Sequence[BatchPicture | str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """What a new batch means: everything for which the daemon would refuse it, or else its pictures."""

    problems: Sequence[FieldProblem]
    pictures: Sequence[Combination] = ()

    def planned(self, batch: NewBatch) -> list[Planned]:
        """The pictures for an estimate of their time, those that take equally long together."""
        sizes = [content.size for content in batch.contents]
        numbers: Counter[tuple[int, tuple[int, int]]] = Counter()
        resolved = {}
        for picture in self.pictures:
            settings = picture.resolved
            numbers[id(settings), sizes[picture.cell.position[0]]] += 1
            resolved[id(settings)] = settings
        return [Planned(resolved[key], size, n) for (key, size), n in numbers.items()]


def check(config: Config, library: Mapping[str, Style], batch: NewBatch) -> CheckedBatch:
    """Check a batch by the code that reads batch files.

    Args:
        config: of the daemon.
        library: its styles.
        batch: the batch.
    """
    problems = [
        *_name_problems(config.folders, batch.name),
        *_file_problems("contents", batch.contents),
        *_file_problems("styles", batch.styles),
        *_style_problems(library, batch.styles),
        *_setting_problems(config, batch),
    ]
    if problems:
        return CheckedBatch(problems)
    root = config.folders.batches / batch_name(batch.name)
    stored = _stored(root, batch)
    reach = Reach(
        roots=(root,),
        library=config.folders.styles,
        resolve=lambda settings, pictures: resolve_job(config, settings, pictures=pictures)[0],
        network=config.model.network,
        weights_sha256="",  # of identities, which a plan does not need
        max_bytes=config.limits.max_bytes,
    )
    try:
        asked = _parsed(_text(root, batch), batch.name)
        pictures = plan(asked, batch_name(batch.name), reach, _Stored(root, stored))
    except SettingsError as error:
        return CheckedBatch([FieldProblem("sweep" if batch.sweep else "settings", error)])
    except InputError as error:
        return CheckedBatch([FieldProblem("", error)])
    return CheckedBatch([], pictures)


def submit(config: Config, batch: NewBatch) -> str:
    """Submit a batch without problems. Returns its name.

    Raises:
        NameInUseError: another batch has got the name meanwhile.
        StorageError: state/ or the inbox cannot be written.
    """
    folders, name = config.folders, batch_name(batch.name)
    root = folders.batches / name
    with Delivery(folders.inbox) as delivery:
        delivery.file(f"{batch_files.SUFFIX}.yaml").write(_text(root, batch))
        delivery.complete()
        _store(folders, root, _stored(root, batch))
        try:
            if delivery.appear(name) != name:
                delivery.withdraw()
                raise _in_use(folders, name)
        except NstError:
            files.remove_tree(root)
            raise
    with files.storage(root):
        (root / SUBMITTING).unlink(missing_ok=True)
    return name


def batch_name(name: str) -> str:
    """The name that the daemon gives to a batch for which this one is wanted."""
    return clean_name(job_name(name))


def waiting_batches(folders: Folders) -> dict[str, Path]:
    """The batch files directly in the inbox, by the names of their batches. Raises StorageError."""
    found: dict[str, Path] = {}
    with files.storage(folders.inbox):
        for path in folders.inbox.iterdir():
            if batch_files.is_batch_file(path.name):
                with suppress(InputError):
                    found[batch_files.name_of(path)] = path
    return found


def pictures_of(folders: Folders, name: str, file: Path) -> int | None:
    """The number of pictures of a batch of uploads whose file is in the inbox; None for other batches."""
    contents = folders.batches / name / "contents"
    try:
        number = len(list(contents.iterdir()))
        values = strict_yaml.parse_mapping(files.read_file(file), file.name)
        asked = batch_files.parse(values, file.name)
    except (OSError, InputError):
        return None
    return number * len(asked.styles) * asked.combinations


def withdraw(folders: Folders, name: str, pause: Callable[[float], object] = time.sleep) -> bool:
    """Remove the file of a batch from the inbox, so that the daemon makes no more jobs of it.

    Args:
        folders: the folders of the root.
        name: of the batch.
        pause: sleeps for a number of seconds, in which the daemon finishes the job that it is making.

    Returns:
        Whether there was such a file.

    Raises:
        UsageError: the file is not one of `submit`: it may be the only copy.
        StorageError: the inbox cannot be written.
    """
    file = waiting_batches(folders).get(name)
    if file is None:
        return False
    if not (folders.batches / name).is_dir():
        raise UsageError(
            f"{printable(file.name)} is in the inbox, and more jobs of this batch will come",
            remedy="move the file out of the inbox first",
        )
    with files.storage(folders.inbox):
        file.unlink(missing_ok=True)
    pause(STOP_SECONDS)
    if not _has_jobs(folders, name):
        files.remove_tree(folders.batches / name)
    return True


def _name_problems(folders: Folders, name: str) -> Iterator[FieldProblem]:
    file = f"{name}{batch_files.SUFFIX}.yaml"
    if fault := batch_files.name_fault(name, file):
        yield FieldProblem("name", UsageError(fault))
        return
    try:
        check_name(name, f"{batch_files.SUFFIX}.yaml")
    except UsageError as error:
        yield FieldProblem("name", error)
        return
    if _is_in_use(folders, batch_name(name)):
        yield FieldProblem("name", _in_use(folders, batch_name(name)))


def _in_use(folders: Folders, name: str) -> NameInUseError:
    free = next(other for other in numbered(name) if not _is_in_use(folders, other))
    other = f", such as {printable(free)}" if free != name else ""
    return NameInUseError(
        f"there is a batch or a folder of results called {printable(name)}",
        remedy=f"choose another name{other}",
    )


def _is_in_use(folders: Folders, name: str) -> bool:
    places = (folders.batches / name, folders.results / name)
    taken = any(map(os.path.lexists, places)) or name in waiting_batches(folders)
    return taken or _has_jobs(folders, name)


def _has_jobs(folders: Folders, name: str) -> bool:
    """Whether the ledger has jobs of a batch."""
    if not folders.ledger.exists():
        return False
    with LedgerReader.attach(folders.ledger) as ledger:
        return bool(ledger.batch_counts(name))


def _file_problems(field: str, pictures: Sequence[BatchPicture | str]) -> Iterator[FieldProblem]:
    for number, picture in enumerate(pictures):
        if not isinstance(picture, str):
            try:
                check_name(picture.stem, picture.path.suffix.lower())
            except UsageError as error:
                yield FieldProblem(f"{field}.{number}.name", error)


def _style_problems(
    library: Mapping[str, Style], styles: Sequence[BatchPicture | str]
) -> Iterator[FieldProblem]:
    for number, style in enumerate(styles):
        if isinstance(style, str) and (problem := style_problem(library, composed(style))):
            yield FieldProblem(f"styles.{number}.library", UsageError(problem))


def _setting_problems(config: Config, batch: NewBatch) -> Iterator[FieldProblem]:
    """Settings and swept values that are not allowed by themselves."""
    for key in batch.settings.keys() & batch.sweep.keys():
        error = SettingsError(f"{printable(key)} is in both settings and sweep", remedy="keep one")
        yield FieldProblem(f"sweep.{key}", error)
    sound = dict(batch.settings)
    for error in job_problems(config, batch.settings):
        known = error.key in batch.settings
        sound.pop(error.key, None)
        yield FieldProblem(f"settings.{error.key}" if known else "settings", error)
    for key, values in batch.sweep.items():
        if not values:
            error = SettingsError(
                f"{printable(key)} has no values", remedy="give some, or leave it out"
            )
            yield FieldProblem(f"sweep.{key}", error)
        if (again := repeated(values)) is not None:
            error = SettingsError(f"{printable(key)} has this value twice", remedy="remove one")
            yield FieldProblem(f"sweep.{key}.{again}", error)
        for number, value in enumerate(values):
            refused = job_problems(config, {**sound, key: value})
            for error in (error for error in refused if error.key == key):
                yield FieldProblem(f"sweep.{key}.{number}", error)


@dataclass(frozen=True, slots=True)
class _StoredPicture:
    """Where a picture of a batch is stored. word: what the batch file has for it."""

    word: str
    path: Path
    source: Path


def _stored(root: Path, batch: NewBatch) -> list[_StoredPicture]:
    """Where the pictures of a batch are stored: contents, then styles, each in a folder of its own."""
    contents = _placed(root / "contents", str(root / "contents/*/*"), batch.contents, ())
    library = [style for style in batch.styles if isinstance(style, str)]
    pictures = [style for style in batch.styles if not isinstance(style, str)]
    return [*contents, *_placed(root / "styles", "", pictures, library)]


def _placed(
    folder: Path, word: str, pictures: Iterable[BatchPicture], names: Iterable[str]
) -> Iterator[_StoredPicture]:
    """Names are told apart, from these names too. word: for all pictures; "" for one for each."""
    taken = {composed(name).casefold() for name in names}
    for number, picture in enumerate(pictures, 1):
        stem = clean_name(picture.stem)
        stem = next(name for name in numbered(stem) if composed(name).casefold() not in taken)
        taken.add(composed(stem).casefold())
        place = folder / str(number)
        path = place / f"{stem}{picture.path.suffix.lower()}"
        yield _StoredPicture(word or str(place / "*"), path, picture.path)


class _Stored:
    """Finds pictures by their words where they will be stored."""

    def __init__(self, root: Path, pictures: Sequence[_StoredPicture]) -> None:
        self._root, self._pictures = root, pictures

    def find(self, globs: Iterable[str]) -> list[Path]:
        """The pictures of these words."""
        wanted = set(globs)
        return [picture.path for picture in self._pictures if picture.word in wanted]


def _text(root: Path, batch: NewBatch) -> bytes:
    """The batch file. root: the folder of its pictures."""
    words = iter([p.word for p in _stored(root, batch)][len(batch.contents) :])
    values = {
        "contents": [str(root / "contents/*/*")],
        "styles": [style if isinstance(style, str) else next(words) for style in batch.styles],
        "settings": dict(batch.settings),
        "sweep": {key: list(listed) for key, listed in batch.sweep.items()},
        "priority": batch.priority,
    }
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False).encode()


def _parsed(text: bytes, name: str) -> Batch:
    file = f"{name}{batch_files.SUFFIX}.yaml"
    return batch_files.parse(strict_yaml.parse_mapping(text, file), file)


def _store(folders: Folders, root: Path, pictures: Iterable[_StoredPicture]) -> None:
    """Copy pictures to their places in `root`, all or none. Raises NameInUseError, StorageError."""
    hidden = root.with_name(files.part_name())
    try:
        files.make_folder(hidden)
        with files.storage(root.parent):
            (hidden / SUBMITTING).touch()
            for picture in pictures:
                target = hidden / picture.path.relative_to(root)
                files.make_folder(target.parent)
                files.copy_durably(picture.source, target)
            try:
                hidden.rename(root)
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise _in_use(folders, root.name) from error
                raise
            files.fsync_folder(root.parent)
    finally:
        with suppress(StorageError):
            files.remove_tree(hidden)
