"""The settings of a job: how its picture is painted (`RenderSettings`), and how it is written (`Outputs`).

A settings file, a style's settings, a batch's `settings` and `sweep`, and `--set` hold both as plain keys. `format`,
`depth` and `quality` do not change the painting, so they are no part of a picture's identity.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace

from nst_daemon.config import Config, Outputs, config_keys
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import SettingsError
from nst_daemon.names import printable, shortened
from nst_daemon.pictures.output_formats import (
    DEPTHS,
    OUTPUT_KEYS,
    OUTPUT_NAMES,
    depth_problem,
    formats_with,
    listed,
    named_format,
    output_format,
)
from nst_daemon.suggestions import did_you_mean, similar
from nst_daemon.units import count

#: Every key of a job's settings.
JOB_KEYS = (*(field.name for field in fields(RenderSettings)), *OUTPUT_KEYS)
EVERY_SETTING = "`nst-daemon settings` and the page list every setting"


def resolve_job(
    config: Config,
    settings: Mapping[str, object],
    places: Mapping[str, str] | None = None,
    pictures: int | None = None,
) -> tuple[RenderSettings, Outputs]:
    """The complete settings of a job.

    Args:
        config: Its `render` and `outputs` are the defaults.
        settings: What the job changes.
        places: The file of each of these settings, for the message.
        pictures: The number of style pictures, which `style_weights` has to match; None if it is unknown.

    Raises:
        SettingsError: A key or value is not allowed.
    """
    render = {key: value for key, value in settings.items() if key not in OUTPUT_KEYS}
    try:
        check_names(settings)
        resolved = config.render_settings(render)
        _check_weights(resolved, pictures)
        return resolved, job_outputs(config, settings)
    except SettingsError as error:
        raise error.placed(places or {}) from error


def _check_weights(settings: RenderSettings, pictures: int | None) -> None:
    """Raise SettingsError if the number of `style_weights` is not that of the style pictures."""
    number = len(settings.style_weights)
    if pictures is not None and number not in {0, pictures}:
        error = SettingsError(
            f"style_weights has {count(number, 'weight')}, and the job has {count(pictures, 'style picture')}",
            remedy="give one weight for each picture, or one for each style",
        )
        error.key = "style_weights"
        raise error


def job_problems(
    config: Config,
    settings: Mapping[str, object],
    places: Mapping[str, str] | None = None,
    pictures: int | None = None,
) -> Iterator[SettingsError]:
    """Every reason for which `resolve_job` refuses settings, each with its key. The arguments are those of it."""
    left = dict(settings)
    while True:
        try:
            resolve_job(config, left, places, pictures)
        except SettingsError as error:
            yield error
            # Without the setting that is wrong, the others can be checked.
            if error.key not in left:
                return
            del left[error.key]
        else:
            return


def job_outputs(config: Config, settings: Mapping[str, object]) -> Outputs:
    """The outputs of a job whose settings may hold keys of the painting too. Raises SettingsError."""
    return with_overrides(
        config.outputs, {key: settings[key] for key in OUTPUT_KEYS if key in settings}
    )


def with_overrides(outputs: Outputs, written: Mapping[str, object]) -> Outputs:
    """Outputs with the format, depth and quality of a job.

    A job that chooses a format and no depth gets the configured depth, or the largest one that its format can hold.

    Raises:
        SettingsError: A value is not allowed, or the format cannot hold the depth.
    """
    written = {
        key: named_format(value) if key == "format" else value for key, value in written.items()
    }
    for key, value in written.items():
        if not _allowed(key, value):
            error = SettingsError(
                f"{key}: {shortened(printable(repr(value)))} is not allowed",
                remedy=_remedy(key, value),
            )
            error.key = key
            raise error
    chosen: Outputs = replace(outputs, **written)  # type: ignore[arg-type]
    depths = output_format(chosen.format).depths
    if "depth" not in written and chosen.depth not in depths:
        return replace(chosen, depth=max(d for d in depths if d <= chosen.depth))
    if problem := depth_problem(chosen.format, chosen.depth):
        raise SettingsError(
            problem,
            remedy=f"set depth to {listed(depths)}, or format to {formats_with(chosen.depth)}",
        )
    return chosen


def correction(name: str, key: str, settings: Mapping[str, object]) -> str:
    """The command that retries a job without an unknown setting of its file; "" if the key is not one.

    Args:
        name: The name of the job.
        key: The setting that was refused.
        settings: Those of the file.
    """
    if key in JOB_KEYS or key not in settings:
        return ""
    words = ["nst-daemon", "retry", name, "--unset", key]
    meant, value = similar(key, JOB_KEYS), settings[key]
    if len(meant) == 1 and not isinstance(value, Mapping):
        words += ["--set", f"{meant[0]}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(map(printable, words))


def _allowed(key: str, value: object) -> bool:
    if key == "format":
        return value in OUTPUT_NAMES
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and (value in DEPTHS if key == "depth" else value in range(1, 101))


def _remedy(key: str, value: object) -> str:
    if key == "quality":
        return "write a whole number from 1 to 100"
    if key == "depth":
        return f"write {listed(DEPTHS)}"
    hint = did_you_mean(value, OUTPUT_NAMES)
    return f"write {listed(OUTPUT_NAMES)}" + (f" ({hint})" if hint else "")


def check_names(keys: Iterable[str]) -> None:
    """Raise SettingsError for a key that is not a setting of a job."""
    for key in keys:
        if key in JOB_KEYS:
            continue
        shown = shortened(printable(repr(key)))
        if key in {"render", "outputs"}:
            remedy = "a job's settings have no sections: write its keys without it"
        elif whole := [name for name in config_keys() if key in name.split(".")]:
            remedy = f"it belongs to the configuration ({whole[0]})"
        else:
            remedy = did_you_mean(key, JOB_KEYS) or EVERY_SETTING
        error = SettingsError(f"unknown setting {shown}", remedy=remedy)
        error.key = key
        raise error
