"""The device that pictures are painted on: a CPU or an NVIDIA GPU."""

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
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(f"cuda:{i}" for i in range(count) if _supported(i))
    if name == "auto":
        return gpus or ("cpu",)
    if name == "cuda":
        if not gpus:
            raise _no_device("no GPU can be used", gpus)
        return gpus
    if name not in gpus:
        raise _no_device(f"{name} cannot be used", gpus)
    return (name,)


def no_gpu_reason() -> str:
    """Why torch uses no GPU, or not all of them, in one line."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return "CUDA_VISIBLE_DEVICES hides all GPUs"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 (torch raises several kinds)
        said = first_line(error).partition(". ")[0].removesuffix(".")
        return said.replace("Found no", "found no", 1)
    for i in range(torch.cuda.device_count()):
        if not _supported(i):
            major, minor = torch.cuda.get_device_capability(i)
            return (
                f"torch {torch.__version__} does not support {torch.cuda.get_device_name(i)} (cuda:{i}), which has "
                f"compute capability {major}.{minor}; it supports {', '.join(torch.cuda.get_arch_list())}"
            )
    return f"torch sees {torch.cuda.device_count()} NVIDIA GPUs"


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


def _supported(index: int) -> bool:
    """Whether torch has code for a GPU: of its generation, or in a form that its driver translates."""
    major, minor = torch.cuda.get_device_capability(index)
    for arch in torch.cuda.get_arch_list():
        kind, _, digits = arch.partition("_")
        number = int(digits.rstrip("abcdefghijklmnopqrstuvwxyz"))
        if kind == "sm" and number // 10 == major and number % 10 <= minor:
            return True
        if kind == "compute" and number <= 10 * major + minor:
            return True
    return not torch.cuda.get_arch_list()


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
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU this thread's current one, for operations that take it implicitly: streams, graphs, DLPack."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
