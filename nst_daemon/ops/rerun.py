"""A job that is painted again, also with changes. For `nst-daemon rerun` and the REST API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nst_daemon.intake.archived import open_settings
from nst_daemon.intake.submit import recipe_parts
from nst_daemon.jobs import NO_CHANGES, Changes, Job, Role
from nst_daemon.ops.submission import JobContent, NewJobs, StyleChoice
from nst_daemon.report.sidecar import Recipe, completed
from nst_daemon.weights_file import WeightsFile

_STYLES = {Role.STYLE.value, Role.STYLE_MASK.value}


@dataclass(frozen=True, slots=True)
class RerunChanges:
    """What differs from the earlier job.

    Attributes:
        settings: keys that are written and removed.
        styles: instead of its own styles; empty for these.
        name: of the new job; empty for the same.
        priority: of the new job.
    """

    settings: Changes = NO_CHANGES
    styles: Sequence[StyleChoice] = ()
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
    inputs = [i for i in recipe.inputs if not changes.styles or i["role"] not in _STYLES]
    parts = recipe_parts(inputs, places, noted)

    def paths(role: Role) -> list[Path]:
        return [part.path for part in parts if part.role is role]

    settings = open_settings(recipe.settings, recipe.outputs, changes.settings)
    if changes.styles:  # their number may be another one
        settings.pop("style_weights", None)
    masks = paths(Role.STYLE_MASK)
    own = [
        StyleChoice(picture=picture, mask=masks[number] if masks else None)
        for number, picture in enumerate(paths(Role.STYLE))
    ]
    (content,) = paths(Role.CONTENT)
    content_mask, start = (
        next(iter(paths(role)), None) for role in (Role.CONTENT_MASK, Role.START)
    )
    settings = changes.settings.apply(settings)
    if settings.get("start") != "given":
        start = None
    name = (changes.name or recipe.name).replace("/", "-")
    return NewJobs(
        [JobContent(name, content, content_mask, start)],
        changes.styles or own,
        settings,
        changes.priority,
    )
