"""What exceptions of torch, onnxruntime and the decoders mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nst_daemon.engine.memory import exhausted
from nst_daemon.errors import DeviceError, NstError, OutOfMemory, first_line

#: What torch, onnxruntime and NVIDIA's libraries report when the device fails, partly in a plain RuntimeError. Errors
#: about memory are recognised first, because some of their texts contain these words.
_DEVICE_FAILURES = ("CUDA error", "CUDA failure", "cuDNN error", "CUDNN failure", "CUBLAS_STATUS_")
#: How torch says how much memory it asked for.
_ALLOCATION = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)")


def explain(error: BaseException) -> NstError | None:
    """What an exception of torch, onnxruntime or a decoder means; None if that is unknown."""
    if isinstance(error, NstError):
        return error
    text = str(error)
    if exhausted(error):
        wanted = _ALLOCATION.search(text)
        asked = f" ({wanted[1]} more were needed at once)" if wanted else ""
        return OutOfMemory(
            f"there is not enough memory{asked}",
            remedy="choose a smaller size, free some memory, or raise limits.max_memory if it is set",
        )
    if isinstance(error, torch.AcceleratorError) or any(
        words in text for words in _DEVICE_FAILURES
    ):
        return DeviceError(
            f"the device failed: {first_line(error)}", remedy="check nvidia-smi and dmesg"
        )
    return None


@contextmanager
def explained() -> Iterator[None]:
    """Turn exceptions of libraries into errors of ours, where their meaning is known."""
    try:
        yield
    except Exception as error:
        known = explain(error)
        if known is None or known is error:
            raise
        raise known from error
