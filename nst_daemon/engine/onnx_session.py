"""An onnxruntime session over a part of an ONNX file, fed with torch's tensors where they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch  # before onnxruntime: both must use torch's CUDA libraries
from torch import Tensor

from nst_daemon import machine
from nst_daemon.engine.cuda_graph import CAPTURE_LOCK
from nst_daemon.engine.memory import exhausted
from nst_daemon.errors import ModelError, NstError, OutOfMemory, first_line


def load_onnxruntime() -> Any:
    """The module onnxruntime, with its telemetry off.

    From 1.29 on it reports to its maker unless told not to. It must be told before the import: later, only further
    reports are prevented.

    Raises:
        ModelError: It is not installed, or cannot be loaded.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: PLC0415 (slow; not needed for a cached style)
    except ImportError as error:
        raise ModelError(
            f"onnxruntime cannot be loaded: {first_line(error)}",
            remedy=f"`{sys.executable} -m pip install onnxruntime-gpu`, or onnxruntime without an NVIDIA GPU",
        ) from error
    return onnxruntime


class OnnxSession:
    """Runs the part of a graph that leads to some of its outputs.

    Args:
        file: The ONNX file.
        inputs: Names of the inputs that the outputs need.
        outputs: Names of the outputs.
        device: Where results are wanted; onnxruntime uses it if its CUDA provider loads, else the CPU.
        threads: CPU threads.

    Raises:
        ModelError: The file cannot be used.
    """

    def __init__(
        self,
        file: Path,
        *,
        inputs: list[str],
        outputs: list[str],
        device: torch.device,
        threads: int,
    ) -> None:
        import onnx  # noqa: PLC0415 (slow; not needed for a cached style)
        import onnx.utils  # noqa: PLC0415

        onnxruntime = load_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning idle threads would take the cores from torch, which paints at the same time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Sizes change from run to run: neither memory plans nor arenas for one size are worth keeping.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3  # errors only; `providers` says what loaded
        self._options = onnxruntime.RunOptions()
        self._value = onnxruntime.OrtValue
        try:
            part = onnx.utils.Extractor(onnx.load(file)).extract_model(inputs, outputs)
            with CAPTURE_LOCK:
                self._session = onnxruntime.InferenceSession(
                    part.SerializeToString(),
                    options,
                    providers=providers(device, onnxruntime.get_available_providers()),
                )
            del part
        except Exception as error:
            raise unusable(file, error) from error
        machine.trim_heap()  # the graph has been in memory several times
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        on_gpu = self.providers[0] == "CUDAExecutionProvider"
        if on_gpu:
            self._options.add_run_config_entry(
                "memory.enable_memory_arena_shrinkage", f"gpu:{device.index or 0}"
            )
        self._wanted = device
        self._device = device if on_gpu else torch.device("cpu")

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute all outputs, on the session's device.

        Inputs and outputs are bound in place, in torch's own memory, so on a GPU nothing is copied to the host.
        """
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            fed = tensor.detach().to(self._device, torch.float32).contiguous()
            binding.bind_ortvalue_input(name, self._value.from_dlpack(fed))
        names = [output.name for output in self._session.get_outputs()]
        for name in names:
            binding.bind_output(name, self._device.type, self._device.index or 0)
        if self._device.type == "cuda":
            # onnxruntime computes on a stream of its own, and waits for it at the end of the run.
            torch.cuda.current_stream(self._device).synchronize()
        # Returning memory synchronises the whole GPU too.
        with CAPTURE_LOCK if self._device.type == "cuda" else nullcontext():
            self._session.run_with_iobinding(binding, self._options)
        values = (torch.utils.dlpack.from_dlpack(value) for value in binding.get_outputs())
        return {n: value.to(self._wanted) for n, value in zip(names, values, strict=True)}


def output_names(file: Path) -> list[str]:
    """The names of a graph's outputs. Raises ValueError, or an error of onnx, for a file without any."""
    import onnx  # noqa: PLC0415

    names = [output.name for output in onnx.load(file).graph.output]
    if not names:
        raise ValueError("it has no outputs")
    return names


def unusable(file: Path, error: Exception) -> NstError:
    """The error for an ONNX file that cannot be used."""
    if exhausted(error):
        return OutOfMemory(
            f"there is not enough memory to load the ONNX file {file}",
            remedy="free some memory, or raise limits.max_memory if it is set",
        )
    return ModelError(
        f"cannot use the ONNX file {file}: {first_line(error)}",
        remedy="remove it: it is exported again when needed",
    )


def providers(device: torch.device, available: Sequence[str]) -> list[Any]:
    """The providers to try, in order; onnxruntime uses the next if one does not load.

    Args:
        device: Where results are wanted.
        available: The providers that this onnxruntime is built with.
    """
    if device.type != "cuda" or "CUDAExecutionProvider" not in available:
        return ["CPUExecutionProvider"]
    cuda = {
        "device_id": device.index or 0,
        # The exhaustive search, which is the default, takes half a second for each new size.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",  # targets are computed once and used in hundreds of iterations
    }
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
