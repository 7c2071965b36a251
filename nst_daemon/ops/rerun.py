"""A job that is painted again, also with changes. For `nst-daemon rerun` and the REST API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nst_daemon.digests import sha256_file
from nst_daemon.errors import InputError
from nst_daemon.intake import archived
from nst_daemon.intake.archived import open_settings
from nst_daemon.intake.drops import suffix_of
from nst_daemon.intake.submit import recipe_parts
from nst_daemon.jobs import NO_CHANGES, PICTURE_ROLES, Changes, Job, JobInput, Role
from nst_daemon.ops.submission import JobContent, NewJobs, StyleChoice
from nst_daemon.pictures.formats import IMAGE_SUFFIXES
from nst_daemon.report.sidecar import Recipe, completed
from nst_daemon.weights_file import WeightsFile

#: A file, or the number of an input of the earlier job.
Source = Path | int


@dataclass(frozen=True, slots=True)
class ChosenStyle:
    """A style of the new job: the name of one in the library, or a picture and perhaps its mask."""

    library: str = ""
    picture: Source | None = None
    mask: Source | None = None


@dataclass(frozen=True, slots=True)
class RerunChanges:
    """What differs from the earlier job.

    Attributes:
        settings: keys that are written and removed.
        styles: instead of its own styles, with all of its masks; empty for these.
        content_mask: of the new job; None: without `styles`, that of the earlier job.
        name: of the new job; empty for the same.
        priority: of the new job.
    """

    settings: Changes = NO_CHANGES
    styles: Sequence[ChosenStyle] = ()
    content_mask: Source | None = None
    name: str = ""
    priority: int = 0


def recipe_of(job: Job) -> Recipe:
    """What is needed to paint a job of the ledger again."""
    inputs = [
        {"role": file.role.value, "name": file.name, "sha256": file.sha256, "bytes": file.size}
        for file in job.inputs
    ]
    digest = job.weights if job.result else ""
    settings = completed(job.settings)
    return Recipe(job.name, settings, job.outputs, tuple(inputs), digest, f"({digest[:12]})")


def refused_recipe(job: Job, failed: Path, max_bytes: int) -> Recipe:
    """What is needed to paint a job that was refused before its settings were known, in other styles.

    Args:
        job: As the ledger has it.
        failed: The folder with its files.
        max_bytes: Of one file.

    Raises:
        InputError: The files are gone, its settings file cannot be read, or its content is not known.
        ChangedMeanwhile: The settings file is being changed.
    """
    settings = job.changes.apply(archived.settings_values(job, failed, max_bytes))
    for key in ("style", "style_weights", "priority", "id"):
        settings.pop(key, None)
    pictures = [number for number, file in enumerate(job.inputs) if _is_picture(file)]
    inputs = []
    for number, file in enumerate(job.inputs):
        path, digest, role = failed / job.archive / file.spooled, file.sha256, file.role
        if pictures == [number]:
            role = Role.CONTENT
        if role in PICTURE_ROLES and not digest and path.is_file():
            digest = sha256_file(path)
        given = {"role": role.value, "name": file.name, "sha256": digest, "bytes": file.size}
        inputs.append(given)
    if [given["role"] for given in inputs].count(Role.CONTENT.value) != 1:
        raise InputError("it is not known which picture is the content", remedy="submit a new job")
    return Recipe(job.name, settings, {}, tuple(inputs), "", "")


def _is_picture(file: JobInput) -> bool:
    """Whether a file of a refused job is a picture. Its role may be unknown."""
    unknown = file.role is Role.UNKNOWN and suffix_of(file.name) in IMAGE_SUFFIXES
    return unknown or file.role in PICTURE_ROLES


def weights_difference(recipe: Recipe, weights: WeightsFile, label: str) -> str:
    """How the configured weights differ from those of a picture; "" if they do not, or if there is no picture.

    Args:
        recipe: Of the picture.
        weights: The configured ones.
        label: The name of the picture.
    """
    if not recipe.weights_sha256 or recipe.weights_sha256 == weights.sha256:
        return ""
    return (
        f"{label} was painted with the weights {recipe.weights}, "
        f"and the configured weights are {weights.description} ({weights.sha256[:12]})"
    )


def prepare(
    recipe: Recipe,
    places: Sequence[Path],
    noted: Iterable[Path] = (),
    changes: RerunChanges = RerunChanges(),
) -> NewJobs:
    """The new job, for `submission.problems` and `submission.submit`. Its inputs are found by their contents.

    Args:
        recipe: Of the earlier job.
        places: Files, and folders that are searched.
        noted: Files that are searched too, and not listed in messages.
        changes: What differs.

    Raises:
        InputError: An input was not found.
    """
    numbers = _by_role(recipe)
    styles, content_mask = changes.styles or _own_styles(numbers), changes.content_mask
    if not changes.styles and content_mask is None:
        content_mask = next(iter(numbers[Role.CONTENT_MASK]), None)
    settings = changes.settings.apply(_settings(recipe, changes, numbers[Role.STYLE]))
    starts = numbers[Role.START] if settings.get("start") == "given" else []
    sources: list[Source | None] = [*numbers[Role.CONTENT], *starts, content_mask]
    sources += [source for style in styles for source in (style.picture, style.mask)]
    wanted = sorted({source for source in sources if isinstance(source, int)})
    parts = recipe_parts([recipe.inputs[number] for number in wanted], places, noted)
    found = {number: part.path for number, part in zip(wanted, parts, strict=True)}

    def path(source: Source | None) -> Path | None:
        return found[source] if isinstance(source, int) else source

    (content,) = numbers[Role.CONTENT]
    start = path(starts[0]) if starts else None
    name = (changes.name or recipe.name).replace("/", "-")
    return NewJobs(
        [JobContent(name, found[content], path(content_mask), start)],
        [StyleChoice(style.library, path(style.picture), path(style.mask)) for style in styles],
        settings,
        changes.priority,
    )


def _by_role(recipe: Recipe) -> dict[Role, list[int]]:
    """The numbers of the inputs of each role."""
    numbers: dict[Role, list[int]] = {role: [] for role in Role}
    for number, given in enumerate(recipe.inputs):
        numbers[Role(str(given["role"]))].append(number)
    return numbers


def _own_styles(numbers: Mapping[Role, Sequence[int]]) -> list[ChosenStyle]:
    """The styles of the earlier job."""
    masks = dict(enumerate(numbers[Role.STYLE_MASK]))
    return [
        ChosenStyle(picture=picture, mask=masks.get(position))
        for position, picture in enumerate(numbers[Role.STYLE])
    ]


def _settings(recipe: Recipe, changes: RerunChanges, own: Sequence[int]) -> dict[str, object]:
    """The settings of the earlier job. own: the numbers of its style pictures."""
    settings = open_settings(recipe.settings, recipe.outputs, changes.settings)
    if changes.styles and [style.picture for style in changes.styles] != own:
        settings.pop("style_weights", None)  # their number may be another one
    return settings
