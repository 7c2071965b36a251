"""What torch and onnxruntime can really do here: `python -m nst_daemon.probe`, for the doctor.

It runs in a process of its own, so that a driver that crashes takes nobody along and the doctor stays light. It reads
one JSON object from standard input (network, weights, devices, cache_dir, render) and prints one JSON list of
[level, subject, message, remedy] for each thing that it looked at.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nst_daemon.engine.device import all_devices, device_name, find_device
from nst_daemon.engine.onnx_session import load_onnxruntime
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.vgg import compute_dtype
from nst_daemon.errors import NstError
from nst_daemon.painter import Painter
from nst_daemon.weights_file import find_weights

Row = tuple[str, str, str, str]


def main() -> None:
    """Look at everything that `stdin` asks for, and print what was found."""
    asked = json.load(sys.stdin)
    rows: list[Row] = []
    for look in (_devices, _onnxruntime, _weights, _onnx_file):
        told = {message for _, _, message, _ in rows}
        rows += [row for row in _safely(look, asked) if row[2] not in told]
    json.dump(rows, sys.stdout)


def _safely(
    look: Callable[[Mapping[str, Any]], Iterator[Row]], asked: Mapping[str, Any]
) -> list[Row]:
    """What a look found; an error is a finding too, and does not keep the others from being looked at."""
    subject = look.__name__.strip("_").replace("_", " ")
    try:
        return list(look(asked))
    except NstError as error:
        return [("bad", subject, error.message, error.remedy)]
    except Exception as error:  # noqa: BLE001 (this is the place where the unexpected is to be reported)
        message = f"{type(error).__name__}: {error}".partition("\n")[0]
        return [("bad", subject, message, "see whether the packages fit together")]


def _device_names(asked: Mapping[str, Any]) -> list[str]:
    devices = asked["devices"]
    if devices == "auto":
        return list(all_devices())
    return [devices] if isinstance(devices, str) else list(devices)


def _devices(asked: Mapping[str, Any]) -> Iterator[Row]:
    names = _device_names(asked)
    if names == ["cpu"] and any(Path("/dev").glob("nvidia[0-9]*")):
        yield (
            "warning",
            "GPU",
            f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it",
            "update the driver (nvidia-smi names what it supports), and under systemd allow the devices",
        )
    for name in names:
        device = find_device(name)
        dtype = str(
            compute_dtype(resolve(asked["render"], network=asked["network"]).precision, device)
        ).removeprefix("torch.")
        if device.type == "cuda":
            memory = torch.cuda.get_device_properties(device).total_memory / 2**30
            size = f"{memory:.0f} GiB"
        else:
            size = f"{torch.get_num_threads()} threads"
        yield (
            "good",
            "device",
            f"{device}: {device_name(device)}, {size}, convolutions in {dtype}",
            "",
        )


def _onnxruntime(asked: Mapping[str, Any]) -> Iterator[Row]:
    from onnx import TensorProto, helper  # noqa: PLC0415

    onnxruntime = load_onnxruntime()
    device = find_device(_device_names(asked)[0])
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "probe", tensor[:1], tensor[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    wanted = ["CPUExecutionProvider"]
    if device.type == "cuda":
        wanted.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=wanted)
    loaded = session.get_providers()
    message = f"onnxruntime {onnxruntime.__version__} runs on {', '.join(loaded)}"
    if loaded[0] == wanted[0]:
        yield "good", "onnxruntime", message, ""
    else:
        yield (
            "warning",
            "onnxruntime",
            f"{message}: its CUDA provider does not load, so targets are computed on the CPU",
            f"install an onnxruntime-gpu for CUDA {torch.version.cuda}, as torch has it",
        )


def _weights(asked: Mapping[str, Any]) -> Iterator[Row]:
    found = find_weights(asked["weights"], asked["network"])
    finer = "; ImageNet's paint finer: `nst-daemon model fetch`" if found.name == "bundled" else ""
    yield "good", "weights", f"{found.description}, SHA-256 {found.sha256[:12]}…{finer}", ""


def _onnx_file(asked: Mapping[str, Any]) -> Iterator[Row]:
    settings: RenderSettings = resolve(asked["render"], network=asked["network"])
    painter = Painter(
        asked["network"],
        asked["weights"],
        device=_device_names(asked)[0],
        cache_dir=Path(asked["cache_dir"]),
    )
    file = painter.onnx_file(settings)
    if not file.exists():
        yield (
            "warning",
            "onnx file",
            f"{file} is not there yet: the first picture waits for the export",
            "run `nst-daemon export` once",
        )
        return
    rows = painter.parity(settings)
    worst = max(rows, key=lambda row: row.error)
    message = f"{file}: onnxruntime and torch agree within {worst.error:.0e} relative"
    if all(row.passed for row in rows):
        yield "good", "onnx file", message, ""
    else:
        yield "bad", "onnx file", f"{message}, at {worst.output}", "run `nst-daemon export` again"


if __name__ == "__main__":
    main()
