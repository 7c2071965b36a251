"""The export by torch: `python -m nst_daemon.export.export_process`, started by `onnx_files`.

Standard input is one line of JSON: `spec`, `weights` (a file) and `folder`. The ONNX file is written into the folder.
If that fails, the last line of the output is JSON with the error: kind, message and remedy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nst_daemon import managed_process
from nst_daemon.digests import sha256_file
from nst_daemon.errors import ModelError, NstError

from .graph import GraphSpec, export_onnx, network_of
from .weights import read_tensors


def main() -> None:
    """Export once."""
    managed_process.end_with_parent()
    request = json.loads(sys.stdin.readline())
    fields = request["spec"]
    layers = {name: tuple(fields[name]) for name in ("style_layers", "content_layers")}
    try:
        run(GraphSpec(**fields | layers), Path(request["weights"]), Path(request["folder"]))
    except NstError as error:
        kind = type(error).__name__
        print(json.dumps({"kind": kind, "message": error.message, "remedy": error.remedy}))
        sys.exit(1)


def run(spec: GraphSpec, weights: Path, folder: Path) -> None:
    """Export the network with the weights of a file.

    Raises:
        ModelError: The weights are others than those that the spec names, or the exporter failed.
        StorageError: The folder cannot be written.
    """
    try:
        same = sha256_file(weights) == spec.weights_sha256
    except OSError as error:
        raise ModelError(
            f"cannot read the weights {weights}: {error.strerror}",
            remedy="check the file and its permissions",
        ) from error
    if not same:
        raise ModelError(
            f"the weights {weights} have changed since they were loaded",
            remedy="start the program again",
        )
    export_onnx(network_of(read_tensors(weights), spec), spec, folder)


if __name__ == "__main__":
    main()
