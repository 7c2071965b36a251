"""Which GPUs torch has code for, and what depends on the kind of a device."""

from __future__ import annotations

import sys

import pytest
import torch

from nst_daemon.engine import vgg
from nst_daemon.engine.device import find_devices, runs_amd_code, runs_nvidia_code, widest_float
from nst_daemon.engine.onnx_session import load_onnxruntime, providers
from nst_daemon.errors import ModelError, NoDevice

#: `torch.cuda.get_arch_list()` of the builds for CUDA 12.6 and 13.0.
CUDA_12 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        (CUDA_12, (6, 1), True),  # GeForce GTX 10: code for 6.0
        (CUDA_13, (6, 1), False),
        (CUDA_12, (8, 9), True),  # code for 8.6 runs on 8.9
        (CUDA_13, (8, 9), True),
        (CUDA_12, (12, 0), False),
        (CUDA_13, (12, 0), True),
        (CUDA_13, (12, 1), True),
        (CUDA_13, (13, 0), True),  # by translation of compute_120
        (["sm_90a", "sm_100f"], (10, 3), True),
        (["sm_90a", "sm_100f"], (8, 0), False),
        ([], (3, 5), True),
    ],
)
def test_code_for_nvidia(archs: list[str], capability: tuple[int, int], runs: bool) -> None:
    """A GPU runs code of its own generation up to its own number, and older code that can be translated."""
    assert runs_nvidia_code(archs, *capability) is runs


@pytest.mark.parametrize(
    ("archs", "name", "runs"),
    [
        (["gfx90a", "gfx942", "gfx1100"], "gfx942", True),
        (["gfx90a", "gfx942", "gfx1100"], "gfx1030", False),
        (["gfx90a", "gfx10-3-generic"], "gfx1030", True),
        ([], "gfx1030", True),
    ],
)
def test_code_for_amd(archs: list[str], name: str, runs: bool) -> None:
    """A GPU of AMD runs code of its own architecture; names for several architectures are believed."""
    assert runs_amd_code(archs, name) is runs


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a GPU of Apple's")
def test_apples_gpu_is_refused_where_there_is_none() -> None:
    """`mps` on another machine is an error that says which devices there are."""
    with pytest.raises(NoDevice, match=r"mps cannot be used: .*this machine has cpu"):
        find_devices("mps")


def test_apples_gpu_gets_no_float64() -> None:
    """Small systems are solved in float64, except on Apple's GPUs, which would refuse it."""
    wanted = {"cpu": torch.float64, "cuda": torch.float64, "mps": torch.float32}
    assert {kind: widest_float(torch.device(kind)) for kind in wanted} == wanted


def test_apples_gpu_convolves_in_float32() -> None:
    """The CPU's bfloat16 says nothing about another device."""
    assert vgg.compute_dtype("auto", torch.device("mps")) == torch.float32


def test_bfloat16_needs_no_private_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch's private functions, which a release may remove, a CPU convolves in float32."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert vgg.compute_dtype("auto", torch.device("cpu")) == torch.float32


def test_the_private_functions_that_are_used_exist() -> None:
    """The installed torch has each private function that the engine uses."""
    assert callable(torch.cpu._is_avx512_bf16_supported)
    assert callable(torch.cpu._is_amx_tile_supported)
    if torch.version.cuda is not None:
        assert callable(torch._C._cuda_endAllocateToPool)
        assert callable(torch._C._cuda_releasePool)


def test_the_cuda_provider_is_asked_for_where_it_is() -> None:
    """onnxruntime is asked for CUDA for a GPU if it is built with it, and for the CPU in any case."""
    cuda, both = torch.device("cuda:1"), ["CUDAExecutionProvider", "CPUExecutionProvider"]
    (name, options), *rest = providers(cuda, both)
    assert (name, options["device_id"], rest) == (both[0], 1, both[1:])
    for device, available in ((cuda, both[1:]), (torch.device("cpu"), both)):
        assert providers(device, available) == both[1:]


def test_a_missing_onnxruntime_is_one_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where neither onnxruntime can be loaded, the error names the command that installs one."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ModelError, match=r"onnxruntime cannot be loaded: .*pip install onnxruntime-gpu"
    ):
        load_onnxruntime()
