"""New jobs: checked as the daemon will check them, and put into the inbox. For `nst-daemon submit` and the REST API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from nst_daemon.config import Config
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import NstError, PictureError, SettingsError, UsageError
from nst_daemon.intake.drops import MAX_STYLE_PICTURES, Style, too_many_pictures
from nst_daemon.intake.library import merge_settings, setting_places, style_problem
from nst_daemon.intake.submit import (
    DroppedJob,
    Part,
    check_name,
    drop_all,
    job_parts,
    styles_and_names,
)
from nst_daemon.job_settings import job_problems, resolve_job
from nst_daemon.jobs import Role
from nst_daemon.names import composed, printable
from nst_daemon.pictures.proportions import check_proportions

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StyleChoice:
    """A style of a new job: the name of one in the library, or a picture and perhaps its mask."""

    library: str = ""
    picture: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class JobContent:
    """The content of a new job.

    name: of the job; it is made safe, and numbered if it is in use; start: the picture that `start: given` begins with.
    """

    name: str
    picture: Path
    mask: Path | None = None
    start: Path | None = None


@dataclass(frozen=True, slots=True)
class NewJobs:
    """Jobs with the same styles and settings, one for each content.

    Attributes:
        contents: pictures that exist.
        styles: blended in each picture, in the order of `style_weights`.
        settings: of the painting, and format, depth and quality.
        priority: of each job.
        sizes: height and width of the pictures and masks for which they are known, in pixels.
    """

    contents: Sequence[JobContent]
    styles: Sequence[StyleChoice]
    settings: Mapping[str, object] = field(default_factory=dict)
    priority: int = 0
    sizes: Mapping[Path, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """Why jobs cannot be submitted. field: the part of the request, such as settings.size or styles.0."""

    field: str
    error: NstError


def problems(config: Config, library: Mapping[str, Style], jobs: NewJobs) -> Iterator[FieldProblem]:
    """Everything for which the daemon would refuse these jobs.

    Args:
        config: of the daemon.
        library: its styles.
        jobs: with pictures that exist.
    """
    for number, content in enumerate(jobs.contents):
        try:
            check_name(content.name)
        except UsageError as error:
            yield FieldProblem(f"contents.{number}.name", error)
    yield from _style_problems(library, jobs)
    yield from _size_problems(jobs)
    found = [library.get(composed(style.library)) for style in jobs.styles if style.library]
    named = [style for style in found if style and not style.problem]
    own = sum(style.picture is not None for style in jobs.styles)
    known = len(named) == len(found) and bool(jobs.styles)
    settings = dict(jobs.settings)
    pictures = own + sum(len(style.pictures) for style in named)
    if known:
        if weights := _weights_problem(library, jobs):
            yield FieldProblem("settings.style_weights", weights)
            settings.pop("style_weights")
        if pictures > MAX_STYLE_PICTURES:
            yield FieldProblem("styles", UsageError(too_many_pictures(pictures, "this job")))
    merged = merge_settings(named, settings, own=own) if known else settings
    places = setting_places(named, {}, "")
    refusals = list(job_problems(config, merged, places, pictures if known else None))
    if known and not refusals:
        yield from _start_problems(resolve_job(config, merged)[0].start, jobs)
    for refused in refusals:
        wrong = f"settings.{refused.key}" if refused.key in jobs.settings else "settings"
        yield FieldProblem("styles" if refused.key in places else wrong, refused)


def _start_problems(start: str, jobs: NewJobs) -> Iterator[FieldProblem]:
    """Why jobs cannot begin with `given`, which needs a picture."""
    if start == "given" and not all(content.start for content in jobs.contents):
        error = SettingsError(
            "start is 'given', and there is no picture to start with",
            remedy="choose another start",
        )
        yield FieldProblem("settings.start", error)


def resolved(config: Config, library: Mapping[str, Style], jobs: NewJobs) -> RenderSettings:
    """All settings of the painting of jobs without `problems`."""
    named = [library[composed(style.library)] for style in jobs.styles if style.library]
    own = sum(style.picture is not None for style in jobs.styles)
    return resolve_job(config, merge_settings(named, jobs.settings, own=own))[0]


def submit(config: Config, library: Mapping[str, Style], jobs: NewJobs) -> list[DroppedJob]:
    """Put jobs into the inbox: all of them, or none.

    Args:
        config: of the daemon.
        library: its styles.
        jobs: without `problems`.

    Returns:
        The jobs, in the order of their contents.

    Raises:
        UsageError: there is no inbox.
        StorageError: the inbox cannot be written.
    """
    ordered = _own_first(jobs.styles, jobs.styles)
    names = [style.library for style in ordered if style.library]
    pictures = [style.picture for style in ordered if style.picture]
    masks = [style.mask for style in ordered if style.mask]
    settings = dict(jobs.settings)
    if weights := settings.get("style_weights"):
        settings["style_weights"] = _ordered_weights(library, jobs, weights)
    if names:
        settings["style"] = names
    if jobs.priority:
        settings["priority"] = jobs.priority
    parts = [(c.name, _parts(c, pictures, masks)) for c in jobs.contents]
    return drop_all(config.folders.inbox, parts, settings, config.limits.formats)


def _parts(content: JobContent, styles: Sequence[Path], masks: Sequence[Path]) -> list[Part]:
    parts = job_parts(content.picture, styles, content.mask, masks)
    return [*parts, Part(Role.START, content.start)] if content.start else parts


def style_choices(
    styles: Sequence[str],
    library: Mapping[str, Style],
    masks: Sequence[Path] = (),
    *,
    masked: bool = False,
) -> list[StyleChoice]:
    """The styles that a command line names: image files, folders of them, and styles of the library.

    Args:
        styles: arguments.
        library: the styles by their names.
        masks: one for each picture among the styles, or none.
        masked: whether the content has a mask.

    Raises:
        UsageError: an argument is none of these, a style cannot be used, or the number of masks is wrong.
    """
    found = []
    for style in styles:
        pictures, names = styles_and_names([style], library)
        found += [StyleChoice(library=name) for name in names]
        found += [StyleChoice(picture=picture) for picture in pictures]
    own = [choice.picture for choice in found if choice.picture]
    if (masks or (masked and own)) and len(masks) != len(own):
        raise UsageError(
            f"there are {len(masks)} masks for {len(own)} style pictures",
            remedy="give one --style-mask for each, in their order",
        )
    left = iter(masks)
    return [
        replace(choice, mask=next(left, None)) if choice.picture else choice for choice in found
    ]


def _style_problems(library: Mapping[str, Style], jobs: NewJobs) -> Iterator[FieldProblem]:
    if not jobs.styles:
        yield FieldProblem(
            "styles",
            UsageError(
                "there is no style, and no default_style is configured",
                remedy="choose a style of the library, or upload one",
            ),
        )
    masked = any(content.mask for content in jobs.contents) or any(s.mask for s in jobs.styles)
    for number, style in enumerate(jobs.styles):
        if style.library and (problem := style_problem(library, composed(style.library))):
            yield FieldProblem(f"styles.{number}.library", UsageError(problem))
        elif style.library and masked:
            said = f"the library style {printable(style.library)} cannot have a mask"
            error = UsageError(said, remedy="use its picture as a file, with a mask")
            yield FieldProblem(f"styles.{number}.library", error)
        elif masked and not style.mask:
            error = UsageError(
                f"style {number + 1} has no mask, and other pictures of the job have one",
                remedy="add a mask for each style, or use none",
            )
            yield FieldProblem(f"styles.{number}.mask", error)


def _size_problems(jobs: NewJobs) -> Iterator[FieldProblem]:
    """The masks with other proportions than their pictures. A mask of a style is laid over a content without a mask."""
    laid: list[tuple[str, Path | None, Path | None, str, str]] = [
        (f"contents.{number}.mask", content.mask, content.picture, "the content", "its picture")
        for number, content in enumerate(jobs.contents)
    ]
    contents = [content.picture for content in jobs.contents if not content.mask]
    for number, style in enumerate(jobs.styles):
        field, label = f"styles.{number}.mask", f"style {number + 1}"
        laid += [(field, style.mask, content, label, "the content") for content in contents]
        if len(contents) < len(jobs.contents):
            laid.append((field, style.mask, style.picture, label, "its picture"))
    refused: set[str] = set()
    for field, mask, picture, label, whose in laid:
        known = [jobs.sizes.get(path) for path in (mask, picture) if path]
        if field not in refused and len(known) == 2 and known[0] and known[1]:
            try:
                check_proportions(known[0], known[1], label, whose)
            except PictureError as error:
                refused.add(field)
                yield FieldProblem(field, error)


def _own_first(styles: Sequence[StyleChoice], values: Sequence[T]) -> list[T]:
    """One value for each style, in the order in which a drop has them: pictures before styles of the library."""
    pairs = list(zip(styles, values, strict=True))
    return [v for s, v in pairs if s.picture] + [v for s, v in pairs if not s.picture]


def _counts(library: Mapping[str, Style], styles: Sequence[StyleChoice]) -> list[int]:
    """The number of pictures of each style."""
    return [1 if s.picture else len(library[composed(s.library)].pictures) for s in styles]


def _weights_problem(library: Mapping[str, Style], jobs: NewJobs) -> SettingsError | None:
    """Why the number of `style_weights` is wrong. Their values are checked as those of all settings."""
    weights = jobs.settings.get("style_weights")
    total = sum(_counts(library, jobs.styles))
    if not isinstance(weights, list | tuple) or len(weights) in {0, len(jobs.styles), total}:
        return None
    number = len(jobs.styles)
    each = f"one for each style ({number})" if number > 1 else "one for the style"
    each += f", or one for each picture ({total})" if total != number else ""
    return SettingsError(f"style_weights has {len(weights)} weights", remedy=f"give {each}")


def _ordered_weights(library: Mapping[str, Style], jobs: NewJobs, weights: object) -> object:
    """The weights in the order in which the drop has the styles."""
    if not isinstance(weights, list | tuple):
        return weights
    if len(weights) == len(jobs.styles):
        return _own_first(jobs.styles, weights)
    left = iter(weights)
    blocks = [[next(left) for _ in range(count)] for count in _counts(library, jobs.styles)]
    return [weight for block in _own_first(jobs.styles, blocks) for weight in block]
