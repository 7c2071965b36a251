"""Checks and conversions of command-line arguments: `--set KEY=VALUE`, output files, inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_daemon import strict_yaml
from nst_daemon.digests import sha256_file
from nst_daemon.errors import SettingsError, UsageError
from nst_daemon.files import copied, storage
from nst_daemon.jobs import JobInput, Role
from nst_daemon.pictures.output_formats import OUTPUT_SUFFIXES, format_of_suffix, named_format


def assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ["tv_weight=0.1"] as {"tv_weight": 0.1}; values are YAML.

    Raises:
        UsageError: A pair is not KEY=VALUE, or its value is not valid.
    """
    out = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {pair} is not KEY=VALUE", remedy="for example --set seed=3")
        try:
            out[key] = strict_yaml.parse(value, f"--set {key}")
        except SettingsError as error:
            raise UsageError(error.message, remedy="write a number, a word or [a, list]") from error
    return out


def with_output_file(
    settings: Mapping[str, object], path: Path, *, overwrite: bool
) -> dict[str, object]:
    """Settings with the picture format that a file's suffix means, after a check that the file can be written.

    Raises:
        UsageError: The picture could not be written there.
    """
    known = format_of_suffix(path.suffix)
    if known is None:
        raise UsageError(
            f"{path} has no known picture format",
            remedy=f"use one of the suffixes {', '.join(OUTPUT_SUFFIXES)}",
        )
    asked = settings.get("format", known.name)
    if named_format(asked) != known.name:
        raise UsageError(
            f"{path} has the suffix of {known.title}, and --set asks for the format {asked}",
            remedy="remove one of them",
        )
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists", remedy="choose another name, or use --overwrite")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent} is not a writable folder", remedy="create it")
    return {**settings, "format": known.name}


def saved_pipe(path: Path, max_bytes: int) -> Path:
    """The path of a file; for a pipe, such as `<(command)`, that of an unnamed copy, which this process keeps.

    Args:
        path: What the command line names.
        max_bytes: Limit of what is read from a pipe.

    Raises:
        PictureError: There is more in the pipe.
        StorageError: It cannot be copied.
    """
    if not path.is_fifo():
        return path
    with storage(path), path.open("rb") as pipe:
        copy = copied(pipe, max_bytes, f"the pipe {path}")
        return Path(f"/proc/self/fd/{os.dup(copy.fileno())}")


def input_record(role: Role, path: Path) -> JobInput:
    """The record of an input that is not copied."""
    return JobInput(role, path.name, path.name, sha256_file(path), path.stat().st_size)
