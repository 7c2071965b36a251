"""The command that paints a result again, from any folder: it names the configuration and the inputs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nst_daemon import files
from nst_daemon.digests import find_files
from nst_daemon.pictures.formats import IMAGE_SUFFIXES

#: In the folder of thumbnails: where inputs were found that `rerun` would not find by itself, by SHA-256.
KNOWN_INPUTS = "inputs.json"


@dataclass(frozen=True, slots=True)
class RerunCommand:
    """What the commands of all results have in common.

    Attributes:
        variables: environment variables that the configuration needs.
        options: such as `--config FILE`.
        inputs: files and folders with inputs that are not in the folders of the root.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    inputs: Sequence[Path] = ()

    def text(self, result: Path, inputs: Iterable[Path] = ()) -> str:
        """The command for a shell.

        Args:
            result: the sidecar.
            inputs: files that the command names.
        """
        set_before = [f"{name}={value}" for name, value in self.variables.items()]
        words = ["env", *set_before] if set_before else []
        words += ["nst-daemon", "rerun", str(result.absolute()), *self.options]
        words += [word for path in inputs for word in ("--input", str(path))]
        return shlex.join(words)


def known_inputs(
    folder: Path, wanted: Mapping[str, int], inputs: Sequence[Path]
) -> dict[str, Path]:
    """Where inputs are that do not lie in the folders of the root: of this call and of earlier ones.

    Args:
        folder: keeps what was found, in `KNOWN_INPUTS`.
        wanted: the size in bytes of each input, by its SHA-256.
        inputs: files and folders to search.

    Returns:
        The files that exist, by SHA-256.

    Raises:
        StorageError: the list cannot be written.
    """
    before = noted_inputs(folder)
    known = {digest: path for digest, path in before.items() if digest in wanted and path.is_file()}
    missing = {digest: size for digest, size in wanted.items() if digest not in known}
    if inputs:
        found = find_files(missing, inputs, suffixes=IMAGE_SUFFIXES)
        known |= {digest: path.absolute() for digest, path in found.items()}
    if known != before:
        text = json.dumps({digest: str(path) for digest, path in known.items()}, indent=0)
        files.write_atomic(folder / KNOWN_INPUTS, text.encode())
    return known


def noted_inputs(folder: Path) -> dict[str, Path]:
    """What `known_inputs` has kept in a folder."""
    try:
        found = json.loads(files.read_file(folder / KNOWN_INPUTS))
        return {str(digest): Path(str(place)) for digest, place in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}
