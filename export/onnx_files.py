"""The ONNX files of a cache folder: found, or made where they are missing.

The package holds the exported graphs of VGG19 for the presets' layers without their weights, about 10 KB each. For
these, a file is made by filling in the weights, which takes a moment. For everything else torch exports the network in
a process of its own, `export_process`: an export takes seconds and several hundred megabytes that the process keeps.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from torch import Tensor

from nst_daemon import errors, machine
from nst_daemon.errors import ModelError, OutOfMemory
from nst_daemon.files import make_folder, nearest, write_atomic
from nst_daemon.machine import cpu_seconds
from nst_daemon.managed_process import (
    ManagedProcess,
    child_environment,
    crashed,
    exit_reason,
    own_module,
)
from nst_daemon.units import duration
from nst_daemon.weights_file import WeightsFile

from .graph import GraphSpec

log = logging.getLogger(__name__)

#: How many ONNX files (14 to 80 MB each) stay in a folder.
KEPT_FILES = 20
#: Seconds between two looks at an export, or at a lock.
LOOK_SECONDS = 0.2
#: The name of a network's tensors in a graph begins with this, and goes on as in a weights file.
_PREFIX = "vgg."

Report = Callable[[str], None]


class OnnxFiles:
    """The files of one folder. If it cannot be written, new files go to a temporary folder.

    Args:
        folder: Where the files are.
        kept: How many stay when another is made; the least recently used are removed.
        report: Called with what is being done, again and again as long as it advances.
    """

    def __init__(
        self, folder: Path, *, kept: int = KEPT_FILES, report: Report = lambda step: None
    ) -> None:
        self._folder, self._kept, self._report = folder, kept, report
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def path(self, spec: GraphSpec) -> Path:
        """Where the file of a graph is, or will be."""
        path = self._folder / spec.filename
        if self._temporary is not None and not path.exists():
            return Path(self._temporary.name) / spec.filename
        return path

    def make(self, spec: GraphSpec, weights: WeightsFile, state: Mapping[str, Tensor]) -> Path:
        """Make a missing file, unless another process makes it first.

        Args:
            spec: The graph.
            weights: The weights' file.
            state: Its tensors.

        Raises:
            ModelError: The export failed.
            OutOfMemory: Memory is short.
            StorageError: The file cannot be written.
        """
        folder = self._writable_folder()
        path = folder / spec.filename
        with self._locked(folder):
            if not path.exists():
                graph = packaged_graph(spec)
                if graph is None:
                    self._export(spec, weights, folder)
                else:
                    self._report("writing the ONNX file")
                    write_atomic(path, filled(graph, spec, state))
                    machine.trim_heap()
                self._remove_others(path)
        return path

    def export(self, spec: GraphSpec, weights: WeightsFile) -> Path:
        """Export by torch, and replace the file if it exists. Raises as `make` does."""
        folder = self._writable_folder()
        with self._locked(folder):
            self._export(spec, weights, folder)
            self._remove_others(folder / spec.filename)
        return folder / spec.filename

    def _writable_folder(self) -> Path:
        """The folder, or a temporary one if this user may not write there."""
        if self._temporary is None:
            parent = nearest(self._folder)
            if not parent.is_dir() or os.access(parent, os.W_OK | os.X_OK):
                make_folder(self._folder)
                return self._folder
            self._temporary = tempfile.TemporaryDirectory(prefix="nst-daemon-onnx-")
            log.warning(
                "%s is not writable: ONNX files are kept in %s until this process ends",
                self._folder,
                self._temporary.name,
            )
        return Path(self._temporary.name)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Lock the folder, so that two processes do not make the same file. The kernel releases the lock."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while not _lock(descriptor):
                self._report("waiting for another process that makes the ONNX file")
                sleep(LOOK_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _export(self, spec: GraphSpec, weights: WeightsFile, folder: Path) -> None:
        began = monotonic()
        step = f"exporting {spec.network} to ONNX"
        log.info("%s (once for these layers and weights)", step)
        request = {"spec": asdict(spec), "weights": str(weights.path), "folder": str(folder)}
        process = ManagedProcess(
            own_module("nst_daemon.export.export_process"),
            # One thread: nothing of the export runs in parallel.
            environment=child_environment() | {"OMP_NUM_THREADS": "1"},
            first_input=json.dumps(request).encode() + b"\n",
            capture=True,
        )
        try:
            used = -1.0
            while (code := process.wait(LOOK_SECONDS)) is None:
                if (now := cpu_seconds(process.pid)) > used:
                    used = now
                    self._report(step)
            _check_end(spec, code, process.last_output(4000))
        finally:
            process.kill()
            process.close(patience=1.0)
        log.info("exported %s in %s", folder / spec.filename, duration(monotonic() - began))

    def _remove_others(self, path: Path) -> None:
        """Remove the least recently used files, but not `path`."""
        others = set(path.parent.glob("*.onnx")) - {path}
        for old in sorted(others, key=_modified, reverse=True)[self._kept - 1 :]:
            with suppress(OSError):
                old.unlink()


def _lock(descriptor: int) -> bool:
    """Try to lock; True also where the file system has no locks, because files are replaced atomically."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def packaged_graph(spec: GraphSpec) -> bytes | None:
    """The exported graph without weights, if the package has it."""
    file = resources.files("nst_daemon.export") / "graphs" / without_weights(spec).filename
    return file.read_bytes() if file.is_file() else None


def without_weights(spec: GraphSpec) -> GraphSpec:
    """The same graph for any weights; it names a file of the package."""
    return replace(spec, weights_sha256="")


def stripped(file: bytes) -> bytes:
    """The graph of an ONNX file without the network's weights."""
    model = _parsed(file)
    for tensor in _weights_of(model):
        tensor.ClearField("raw_data")
    return _finished(model, weights_sha256="")


def filled(graph: bytes, spec: GraphSpec, state: Mapping[str, Tensor]) -> bytes:
    """The ONNX file of a graph with weights: the inverse of `stripped`.

    Raises:
        ModelError: A tensor is missing or has another shape.
    """
    model = _parsed(graph)
    for tensor in _weights_of(model):
        name = tensor.name.removeprefix(_PREFIX)
        found = state.get(name)
        if found is None or tuple(found.shape) != tuple(tensor.dims):
            raise ModelError(
                f"the weights do not have {name} with shape {tuple(tensor.dims)}",
                remedy=f"use a complete file of {spec.network}",
            )
        tensor.raw_data = found.float().contiguous().numpy().tobytes()
    return _finished(model, weights_sha256=spec.weights_sha256)


def _parsed(file: bytes) -> Any:
    import onnx  # noqa: PLC0415 (slow; not needed while the file exists)

    return onnx.load_from_string(file)


def _weights_of(model: Any) -> Iterator[Any]:
    return (tensor for tensor in model.graph.initializer if ".features." in tensor.name)


def _finished(model: Any, *, weights_sha256: str) -> bytes:
    for entry in model.metadata_props:
        if entry.key == "weights_sha256":
            entry.value = weights_sha256
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _check_end(spec: GraphSpec, code: int, output: str) -> None:
    """Raise the error that the export ended with, if any."""
    if code == 0:
        return
    last = output.rpartition("\n")[2]
    with suppress(ValueError, AttributeError, TypeError, KeyError):
        said = json.loads(last)
        raise getattr(errors, said["kind"])(said["message"], remedy=said["remedy"])
    message = f"the export of {spec.network} to ONNX failed: its process {exit_reason(code)}"
    if code > 0 or crashed(code):
        remedy = "check the versions of torch, onnx and onnxscript"
        raise ModelError(f"{message}: {last}".removesuffix(": "), remedy=remedy)
    raise OutOfMemory(
        message,
        remedy="free some memory: an export takes 1.2 GB; `nst-daemon export` does it in advance",
    )


def _modified(path: Path) -> float:
    """Seconds since the epoch; 0 if another process has just removed the file."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
