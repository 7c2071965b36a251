"""The doctor's checks that need torch: `python -m nst_daemon.probe`.

They run in a separate process, so that the doctor stays small and survives a crash of a driver. Standard input is one
JSON object (network, weights, devices, threads, cache_dir, render, formats). Standard output is a JSON list with
[level, subject, message, remedy] for each finding.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from nst_daemon import units
from nst_daemon.engine.device import (
    device_name,
    find_device,
    find_devices,
    has_nvidia_gpu,
    no_gpu_reason,
)
from nst_daemon.engine.onnx_session import load_onnxruntime
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.vgg import compute_dtype
from nst_daemon.errors import NstError, first_line
from nst_daemon.export.onnx_files import packaged_graph
from nst_daemon.machine import threads_per_worker, useful_threads
from nst_daemon.painter import Painter
from nst_daemon.pictures.formats import FORMATS, NAMES, titles
from nst_daemon.unexpected import kind_and_message
from nst_daemon.weights_file import find_weights

Row = tuple[str, str, str, str]


def main() -> None:
    """Run all checks for the options in standard input, and print the findings."""
    options = json.load(sys.stdin)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        # Of all kernels that the checks compile: the doctor leaves the cache as it is.
        os.environ["TRITON_CACHE_DIR"] = folder
        for check in (_formats, _devices, _fused_kernels, _onnxruntime, _weights, _onnx_file):
            known = {message for _, _, message, _ in rows}
            rows += [row for row in _run(check, options) if row[2] not in known]
    json.dump(rows, sys.stdout)


def _run(
    check: Callable[[Mapping[str, Any]], Iterator[Row]], options: Mapping[str, Any]
) -> list[Row]:
    """The findings of a check. An error is a finding, too, so that the other checks still run."""
    subject = check.__name__.strip("_").replace("_", " ")
    try:
        return list(check(options))
    except NstError as error:
        return [("bad", subject, error.message, error.remedy)]
    except Exception as error:  # noqa: BLE001 (unexpected errors are findings)
        message = kind_and_message(error)
        return [("bad", subject, message, "check the versions of the installed packages")]


def _formats(options: Mapping[str, Any]) -> Iterator[Row]:
    """Whether the libraries that read the listed formats can be loaded."""
    broken: dict[str, str] = {}
    for known in FORMATS:
        try:
            import_module(f"nst_daemon.pictures.readers.{known.reader}")
        except Exception as error:  # noqa: BLE001 (broken libraries raise any exception)
            if known.name in options["formats"]:
                broken[known.name] = first_line(error)
    if broken:
        message = f"{titles(broken)} cannot be read: {'; '.join(dict.fromkeys(broken.values()))}"
        yield "bad", "formats", message, "install nst-daemon again into its environment"
    readable = [name for name in options["formats"] if name not in broken]
    unlisted = [name for name in NAMES if name not in options["formats"]]
    left_out = f"; limits.formats does not list {', '.join(unlisted)}" if unlisted else ""
    if readable:
        yield "good", "formats", f"{titles(readable)} can be read{left_out}", ""


def _device_names(options: Mapping[str, Any]) -> list[str]:
    devices = options["devices"]
    names = [devices] if isinstance(devices, str) else devices
    return [name for text in names for name in find_devices(text)]


def _devices(options: Mapping[str, Any]) -> Iterator[Row]:
    names = _device_names(options)
    if names == ["cpu"] and has_nvidia_gpu():
        yield (
            "warning",
            "GPU",
            f"there is an NVIDIA GPU, but torch cannot use it: {no_gpu_reason()}",
            "update the driver (nvidia-smi shows the CUDA version that it supports); under systemd, allow its devices",
        )
    elif names == ["cpu"] and torch.version.hip is not None:
        yield (
            "warning",
            "GPU",
            f"torch is built for ROCm, but uses no GPU: {no_gpu_reason()}",
            "`rocminfo` must list the GPU for this user, who needs the groups video and render",
        )
    for name in names:
        device = find_device(name)
        dtype = str(
            compute_dtype(resolve(options["render"], network=options["network"]).precision, device)
        ).removeprefix("torch.")
        if device.type == "cuda":
            size = units.size(torch.cuda.get_device_properties(device).total_memory)
        elif device.type == "mps":
            size = units.size(torch.mps.recommended_max_memory())
        else:
            threads = options["threads"]
            number = threads_per_worker(len(names)) if threads == "auto" else threads
            size = units.count(useful_threads(number), "thread")
        yield (
            "good",
            "device",
            f"{device}: {device_name(device)}, {size}, convolutions in {dtype}",
            "",
        )
        if kind := untested(device.type, torch.version.hip):
            yield (
                "warning",
                "device",
                f"{device}: nst-daemon has never been run on {kind}",
                "compare a picture with one of `nst-daemon stylize --device cpu`",
            )


def untested(device_type: str, hip: str | None) -> str:
    """The kind of a device that nobody has tested with this program; empty for the others.

    Args:
        device_type: `cpu`, `cuda` or `mps`.
        hip: The version of ROCm's HIP that torch is built for, if any.
    """
    if device_type == "mps":
        return "Apple's GPUs"
    return f"AMD's GPUs (ROCm {hip})" if device_type == "cuda" and hip else ""


def _fused_kernels(options: Mapping[str, Any]) -> Iterator[Row]:
    """Whether the kernels for an NVIDIA GPU can be compiled."""
    device = find_device(_device_names(options)[0])
    if device.type != "cuda" or torch.version.hip is not None:
        return
    from nst_daemon.engine import fused  # noqa: PLC0415 (imports Triton)

    if problem := fused.problem():
        yield (
            "warning",
            "fused kernels",
            f"they cannot be compiled, so painting takes about twice as long: {problem}",
            "install a C compiler and Python's headers (Debian: gcc and python3-dev)",
        )
    else:
        yield "good", "fused kernels", "they are compiled for this GPU", ""


def _onnxruntime(options: Mapping[str, Any]) -> Iterator[Row]:
    from onnx import TensorProto, helper  # noqa: PLC0415

    onnxruntime = load_onnxruntime()
    device = find_device(_device_names(options)[0])
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "probe", tensor[:1], tensor[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    wanted = ["CPUExecutionProvider"]
    if device.type == "cuda" and torch.version.hip is None:
        wanted.insert(0, "CUDAExecutionProvider")
    available = [name for name in wanted if name in onnxruntime.get_available_providers()]
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options, providers=available
    )
    loaded = session.get_providers()
    message = f"onnxruntime {onnxruntime.__version__} runs on {', '.join(loaded)}"
    if loaded[0] == wanted[0]:
        yield "good", "onnxruntime", message, ""
    else:
        yield (
            "warning",
            "onnxruntime",
            f"{message}: its CUDA provider is missing or could not be loaded, so targets are computed on the CPU",
            f"install only an onnxruntime-gpu for CUDA {torch.version.cuda}, the version that torch uses",
        )


def _weights(options: Mapping[str, Any]) -> Iterator[Row]:
    found = find_weights(options["weights"], options["network"])
    hint = "; ImageNet weights give better pictures: `nst-daemon model fetch`"
    message = f"{found.description}, SHA-256 {found.sha256[:12]}…"
    if found.warning:
        warning, _, remedy = found.warning.rpartition("; ")
        yield "warning", "weights", warning, remedy
        hint = ""
    yield "good", "weights", message + (hint if found.name == "bundled" else ""), ""


def _painter(options: Mapping[str, Any], cache: Path) -> Painter:
    device = _device_names(options)[0]
    return Painter(options["network"], options["weights"], device=device, cache_dir=cache)


def _onnx_file(options: Mapping[str, Any]) -> Iterator[Row]:
    settings: RenderSettings = resolve(options["render"], network=options["network"])
    cache = Path(options["cache_dir"])
    painter = _painter(options, cache)
    file = painter.onnx_file(settings)
    if file.exists():
        rows = painter.parity(settings)
    elif packaged_graph(painter.spec(settings)) is None:
        yield (
            "warning",
            "onnx file",
            f"{file} does not exist yet: the first picture waits for the export",
            "run `nst-daemon export` once",
        )
        return
    else:  # the first start makes it at once; the doctor leaves the cache as it is
        with tempfile.TemporaryDirectory() as folder:
            rows = _painter(options, Path(folder)).parity(settings)
    worst = max(rows, key=lambda row: row.error)
    message = f"{file}: onnxruntime and torch agree within {worst.error:.0e} relative"
    if all(row.passed for row in rows):
        yield "good", "onnx file", message, ""
    else:
        yield "bad", "onnx file", f"{message}, at {worst.output}", "run `nst-daemon export` again"


if __name__ == "__main__":
    main()
