"""The device that pictures are painted on: a CPU, a GPU of NVIDIA or AMD (`cuda`), or Apple's (`mps`)."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch

from nst_daemon.engine.device_names import device_name_of
from nst_daemon.errors import DeviceError, NoDevice, first_line
from nst_daemon.machine import useful_threads


def find_devices(name: str) -> tuple[str, ...]:
    """The devices that a name means.

    Args:
        name: See `device_names`.

    Raises:
        NoDevice: There is no such device, or torch cannot use it.
        DeviceError: It is not the name of a device.
    """
    try:
        name = device_name_of(name)
    except ValueError as error:
        raise DeviceError(str(error)) from error
    if name == "cpu":
        return ("cpu",)
    gpus = _gpus()
    if name == "auto":
        return gpus or ("cpu",)
    if name == "cuda":
        found = tuple(gpu for gpu in gpus if gpu != "mps")
        if not found:
            raise _no_device("no GPU can be used", gpus)
        return found
    if name not in gpus:
        raise _no_device(f"{name} cannot be used", gpus)
    return (name,)


def _gpus() -> tuple[str, ...]:
    """The GPUs that torch can use. Builds for CUDA and for ROCm call theirs `cuda`."""
    if torch.cuda.is_available():
        return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()) if not _unsupported(i))
    return ("mps",) if torch.backends.mps.is_available() else ()


def no_gpu_reason() -> str:
    """Why torch uses no GPU, or not all of them, in one line."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA and ROCm"
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")[: 1 if torch.version.cuda else 2]:
        if os.environ.get(name) in {"", "-1"}:
            return f"{name} hides all GPUs"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 (torch raises several kinds)
        said = first_line(error).partition(". ")[0].removesuffix(".")
        return said.replace("Found no", "found no", 1)
    for i in range(torch.cuda.device_count()):
        if lacking := _unsupported(i):
            return (
                f"torch {torch.__version__} does not support {torch.cuda.get_device_name(i)} (cuda:{i}), which has "
                f"{lacking}; it supports {', '.join(torch.cuda.get_arch_list())}"
            )
    return f"torch sees {torch.cuda.device_count()} GPUs"


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether there is an NVIDIA GPU in this machine, or its driver, even if torch cannot use it."""
    if any((root / "dev").glob("nvidia[0-9]*")):
        return True
    for device in (root / "sys/bus/pci/devices").glob("*"):
        with suppress(OSError):
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
            if vendor.strip() == "0x10de" and kind.startswith("0x03"):
                return True
    return False


def _no_device(what: str, gpus: Sequence[str]) -> NoDevice:
    there = f"this machine has {', '.join(('cpu', *gpus))}"
    return NoDevice(
        f"{what}: {no_gpu_reason()}; {there}",
        remedy="name one of these; `nst-daemon doctor` checks the GPUs",
    )


def _unsupported(index: int) -> str:
    """What a GPU has that torch has no code for; empty if torch supports it."""
    archs = torch.cuda.get_arch_list()
    if torch.version.hip is not None:
        name = torch.cuda.get_device_properties(index).gcnArchName.partition(":")[0]
        return "" if runs_amd_code(archs, name) else f"the architecture {name}"
    major, minor = torch.cuda.get_device_capability(index)
    return "" if runs_nvidia_code(archs, major, minor) else f"compute capability {major}.{minor}"


def runs_nvidia_code(archs: Sequence[str], major: int, minor: int) -> bool:
    """Whether a GPU of this compute capability runs code for one of these (`compute_…` is translated).

    Args:
        archs: From `torch.cuda.get_arch_list`; empty means all.
        major: The first number of the compute capability.
        minor: The second.
    """
    for arch in archs:
        kind, _, digits = arch.partition("_")
        number = int(digits.rstrip("abcdefghijklmnopqrstuvwxyz"))
        if kind == "sm" and number // 10 == major and number % 10 <= minor:
            return True
        if kind == "compute" and number <= 10 * major + minor:
            return True
    return not archs


def runs_amd_code(archs: Sequence[str], name: str) -> bool:
    """Whether a GPU of AMD, such as `gfx942`, runs code for one of these; names with `-generic` are for several."""
    return not archs or name in archs or any(arch.endswith("-generic") for arch in archs)


def use_threads(number: int) -> None:
    """Set the CPU threads of this process, within reason."""
    torch.set_num_threads(useful_threads(number))


def find_device(name: str = "auto") -> torch.device:
    """The first device that a name means (see `find_devices`). Raises DeviceError."""
    _name_user()
    return torch.device(find_devices(name)[0])


def _name_user() -> None:
    """Give a user without a name one: torch names a folder after the user, and could not be used otherwise."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # KeyError until Python 3.12
        os.environ["LOGNAME"] = str(os.getuid())


def device_name(device: torch.device) -> str:
    """The product name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"GPU of an Apple {platform.machine()}"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def cpu_supports(*instructions: str) -> bool:
    """Whether the CPU has one of these sets of instructions, such as `avx512_bf16`.

    torch only has private functions for this, which a release may remove.
    """
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in instructions)


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU this thread's current one, for operations that take it implicitly: streams, graphs, DLPack."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
