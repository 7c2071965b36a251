"""Where operations are fused, and that only rounding changes by it; on a CPU with stand-ins for the operations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nst_daemon.engine import fusion, memory
from nst_daemon.engine.cuda_graph import cuda_graph
from nst_daemon.engine.directions import WHOLE, Directions, cosine_distances
from nst_daemon.engine.losses import Objective
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.vgg import VGG, Padding
from tests.engine.conftest import CPU, TorchTargets

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
LAYERS = ("relu1_1", "conv2_2", "relu2_2", "conv4_1")
#: An odd picture: 37 × 51 pixels.
SHAPE = (1, 3, 37, 51)

Weights = Mapping[str, Tensor]


class Calls:
    """Stand-ins for the fused operations, in plain torch, which count."""

    def __init__(self) -> None:
        self.convolutions: list[tuple[torch.Size, int]] = []
        self.pools = self.distances = 0

    def convolution_relu(self, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        self.convolutions.append((weight.shape, padding))
        return nnf.conv2d(x, weight, bias, padding=padding).relu()

    def max_pool2(self, x: Tensor) -> Tensor:
        self.pools += 1
        return nnf.max_pool2d(x, 2)

    def cosine_distances(self, *arguments: Any) -> Tensor:
        self.distances += 1
        return torch.tensor(7.0)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A CPU with fused operations."""
    calls = Calls()
    kernels = SimpleNamespace(max_pool2=calls.max_pool2, cosine_distances=calls.cosine_distances)
    monkeypatch.setattr(fusion, "convolves", lambda *_: True)
    monkeypatch.setattr(fusion, "kernels", lambda *_: kernels)
    monkeypatch.setattr(fusion, "_convolution_relu", calls.convolution_relu)
    return calls


@contextmanager
def without_fusion() -> Iterator[None]:
    """torch's own operations, everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "_possible", lambda *_: False)
        patch.setattr(fusion, "convolves", lambda *_: False)
        patch.setattr(fusion, "kernels", lambda *_: None)
        yield


def picture(shape: Sequence[int] = SHAPE) -> Tensor:
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(3))


def maps_and_gradient(run: Callable[[Tensor], Mapping[str, Tensor]], image: Tensor) -> list[Tensor]:
    """All maps, and the gradient of a sum in which each of their values has its own factor."""
    image = image.detach().requires_grad_()
    maps = list(run(image).values())
    slopes = [torch.linspace(-1, 1, m.numel(), device=m.device).view(m.shape).to(m) for m in maps]
    return [*(m.detach() for m in maps), *torch.autograd.grad(maps, image, slopes)]


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
def test_the_fused_path_computes_the_same(weights: Weights, fused: Calls, padding: Padding) -> None:
    """With fused operations the maps are those without to 1e-5 of the norm, and so is the gradient, for odd sides."""
    network = VGG(weights, LAYERS, padding=padding)
    found = maps_and_gradient(network, picture())
    with without_fusion():
        wanted = maps_and_gradient(network, picture())
    assert len(found) == len(LAYERS) + 1 and fused.pools == 3
    assert max(map(relative, found, wanted)) < 1e-5


def test_only_convolutions_that_are_no_layers_are_fused(weights: Weights, fused: Calls) -> None:
    """Of the nine convolutions the seven that nobody looks at are fused; the first one has no padding of its own."""
    network = VGG(weights, LAYERS)
    network(picture())
    names = [name for name in network.names if name.startswith("conv")]
    left = [name for name in names if name not in LAYERS]
    assert [shape for shape, _ in fused.convolutions] == [
        network.features[network.names.index(name)].weight.shape for name in left
    ]
    assert [padding for _, padding in fused.convolutions] == [0] + [1] * (len(left) - 1)
    assert (len(names), len(left)) == (9, 7)


def test_a_part_that_ends_between_a_convolution_and_its_relu(
    weights: Weights, fused: Calls
) -> None:
    """The modules of a part are run one by one if it contains a convolution without its ReLU."""
    network = VGG(weights, ["relu1_2"])
    x = network.normalised(picture())
    between, _ = network.part(x, range(3))
    assert len(fused.convolutions) == 1 and (between < 0).any()


def test_recomputed_activations(weights: Weights, fused: Calls) -> None:
    """Fused operations may be recomputed in the backward pass, with the same bits."""
    network = VGG(weights, LAYERS)

    def recomputed(image: Tensor) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = checkpoint(network, image, use_reentrant=False)
        return found

    once = maps_and_gradient(network, picture())
    assert all(map(torch.equal, once, maps_and_gradient(recomputed, picture())))
    assert len(fused.convolutions) == 3 * 7


def test_other_poolings_are_torchs(weights: Weights, fused: Calls) -> None:
    """Only max-pooling is fused."""
    VGG(weights, LAYERS, pooling="average")(picture())
    VGG(weights, LAYERS, pooling="l2")(picture())
    assert fused.pools == 0


@pytest.mark.parametrize(
    ("features", "fits"),
    [
        (torch.ones(1, 64, 4, 5, device="meta").to(memory_format=torch.channels_last), True),
        (torch.ones(1, 9, 9, 64, device="meta").permute(0, 3, 1, 2)[..., 1:5, 2:7], True),
        (torch.ones(1, 64, 4, 5, device="meta"), False),
        (torch.ones(1, 4, 5, 48, device="meta").permute(0, 3, 1, 2), False),
        (torch.ones(1, 48, 4, 5), True),
    ],
    ids=["channels last", "a window", "channels first", "48 channels", "on a CPU"],
)
def test_which_maps_have_fused_cosine_distances(fused: Calls, features: Tensor, fits: bool) -> None:
    """Distances are fused for channels-last maps, also windows, with a power of two of channels; on a CPU for all."""
    target = Directions(torch.zeros_like(features[0, :, 0, 0]), torch.ones_like(features))
    cosine_distances(features, target, WHOLE)
    assert (fused.distances == 1) is fits


@pytest.mark.usefixtures("fused")
def test_large_maps_are_not_fused() -> None:
    """A convolution whose output has 2³¹ elements is torch's."""
    wide = torch.nn.Conv2d(3, 64, 3, device="meta")
    for h, fits in ((4095, True), (4096, False)):
        assert fusion.convolves_for(torch.empty(1, 3, h, 8192, device="meta"), wide) is fits


def test_a_cpu_loads_no_triton() -> None:
    """An evaluation on a CPU imports neither Triton nor the module that uses it."""
    code = (
        "import sys, torch\n"
        "from nst_daemon.engine.directions import WHOLE, Directions, cosine_distances\n"
        "from nst_daemon.engine.vgg import VGG, bare_features\n"
        "state = {f'features.{k}': torch.zeros(v.shape) for k, v in bare_features().state_dict().items()}\n"
        "x = torch.rand(1, 3, 16, 16, requires_grad=True)\n"
        "features = VGG(state, ['relu2_1'])(x)['relu2_1']\n"
        "target = Directions(torch.zeros(128), torch.ones_like(features))\n"
        "cosine_distances(features, target, WHOLE).backward()\n"
        "print({'triton', 'nst_daemon.engine.fused'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("version", "dtype", "deterministic", "wanted"),
    [
        (None, torch.float32, False, True),
        (None, torch.bfloat16, False, True),
        (None, torch.float64, False, False),
        (None, torch.float16, False, False),
        ("7.0", torch.float32, False, False),
        (None, torch.float32, True, False),
    ],
)
def test_which_gpus_fuse_convolutions(
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    dtype: torch.dtype,
    deterministic: bool,
    wanted: bool,
) -> None:
    """NVIDIA's GPUs do in float32 and bfloat16, except in deterministic mode; ROCm's do not."""
    monkeypatch.setattr(torch.version, "hip", version)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    monkeypatch.setattr(fusion, "_cudnn_fuses", lambda *_: True)
    assert fusion.convolves(torch.device("cuda"), dtype) is wanted


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_cpu_fuses_in_the_dtypes_of_paintings_only(dtype: torch.dtype) -> None:
    """On a CPU nothing is fused in float64 and float16, and convolutions only if oneDNN is there."""
    assert fusion.kernels(CPU, dtype) is None and not fusion.convolves(CPU, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert not fusion._onednn_fuses.__wrapped__(torch.float32)


def test_a_failing_cudnn_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If cuDNN's operation raises, convolutions are not fused and the log says why."""

    def refuse(*arguments: Any) -> Tensor:
        raise RuntimeError(f"no engine for {len(arguments)} arguments")

    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(fusion, "_convolution_relu", refuse)
    assert not fusion._cudnn_fuses.__wrapped__(CPU, torch.float32, True)
    assert caplog.messages == ["convolutions and ReLUs are separate: no engine for 4 arguments"]


@pytest.mark.parametrize("wrong", [None, 0.1, torch.nan])
@pytest.mark.parametrize("dtype", fusion.DTYPES)
def test_a_wrong_cudnn_is_not_used(
    monkeypatch: pytest.MonkeyPatch, wrong: float | None, dtype: torch.dtype
) -> None:
    """cuDNN's operation is used if it is right, but not if it adds a tenth or makes NaN."""

    def operation(*arguments: Any) -> Tensor:
        y = Calls().convolution_relu(*arguments)
        return y if wrong is None else y + wrong * y

    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(fusion, "_convolution_relu", operation)
    assert fusion._cudnn_fuses.__wrapped__(CPU, dtype, True) is (wrong is None)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e19])
def test_a_bad_pixel_shows_although_a_relu_hides_it(
    weights: Weights, fused: Calls, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """All terms are NaN if a pixel is not finite or beyond 2e19, even if ReLUs make 0 of NaN and tv has no weight."""

    def hiding(*arguments: Any) -> Tensor:
        return Calls.convolution_relu(fused, *arguments).nan_to_num(0.0, 0.0, 0.0)

    settings = resolve({"style_loss": "gram", "tv_weight": 0.0})
    network = VGG(weights, settings.layers)
    targets = TorchTargets(network, settings)
    objective = Objective(targets.content(picture()), targets.style(picture()), settings)
    monkeypatch.setattr(fusion, "_convolution_relu", hiding)
    image = picture()
    assert objective(network(image), image).isfinite().all()
    image[0, 1, 20, 30] = value
    features = network(image)
    if value != 3e19:
        assert all(map_.isfinite().all() for map_ in features.values())
    assert objective(features, image).isnan().all()


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_fusion_saves_memory(weights: Weights, precision: torch.dtype) -> None:
    """With everything kept an evaluation of cosines is estimated to take less with fused operations than without."""
    network = VGG(weights, resolve({"style_loss": "neighbours"}).layers).compute_in(precision)
    found = memory.bytes_per_pixel(network, recompute=False, cosine=True)
    with without_fusion():
        assert found < 0.97 * memory.bytes_per_pixel(network, recompute=False, cosine=True)


@pytest.mark.usefixtures("fused")
def test_the_estimate_holds_with_fusion(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd keeps of fused convolutions is the maps of the ReLUs: neither pooled maps nor those before."""
    network, kept = VGG(weights, ["relu1_2", "relu2_2", "relu3_1"]), {}
    image = picture((1, 3, 64, 96)).requires_grad_()

    def seen(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] == (1,) and tensor.shape[1:2] not in {(3,), (1,)}:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    # As the fused one, it keeps no map of its own.
    monkeypatch.setattr(fusion.kernels(CPU, torch.float32), "max_pool2", lambda x: x[..., ::2, ::2])
    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        maps = network(image)
    assert len(maps) == 3
    transient = memory.FUSED_TRANSIENT_MAPS * 64 * 4
    estimate = memory.bytes_per_pixel(network, recompute=False) - transient
    assert sum(kept.values()) == estimate * 64 * 96


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("shape", [(1, 3, 256, 320), SHAPE], ids=["even", "odd"])
def test_a_gpu_computes_the_same(
    weights: Weights, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    """On a GPU fused maps and gradients agree with torch's, also if the output's memory held NaN before."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network = VGG(weights, LAYERS).to("cuda")
    image = picture(shape).to("cuda")
    found = {}
    for dtype in fusion.DTYPES:
        assert fusion.convolves(image.device, dtype) and fusion.kernels(image.device, dtype)
        own = network.computing_in(dtype)
        with without_fusion():
            found[dtype, False] = maps_and_gradient(own, image)
            maps_and_gradient(own, image * torch.nan)  # its memory is used again
        found[dtype, True] = maps_and_gradient(own, image)
        for ours, wanted in zip(found[dtype, True][:-1], found[dtype, False][:-1], strict=True):
            assert relative(ours, wanted) < (1e-3 if dtype == torch.float32 else 0.05)
            assert ours.is_contiguous(memory_format=torch.channels_last)
    exact = found[torch.float32, False][-1]
    assert relative(found[torch.float32, True][-1], exact) < 0.01
    # Rounding to bfloat16 decides which of two nearly equal values is a maximum, so that gradients differ by some
    # percent: fused ones are about as near to those in float32 as torch's own.
    errors = {fused: relative(found[torch.bfloat16, fused][-1], exact) for fused in (False, True)}
    assert errors[True] < 1.3 * errors[False]


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 0.01), (torch.bfloat16, 0.1)], ids=["32", "16"]
)
def test_in_a_captured_graph(weights: Weights, dtype: torch.dtype, tolerance: float) -> None:
    """Captured in a CUDA graph, fused maps and gradients of other pictures are those found directly."""
    network = VGG(weights, LAYERS).to("cuda").compute_in(dtype)
    image = picture().to("cuda")

    made: list[Tensor] = []

    def run() -> None:
        made[:] = maps_and_gradient(network, image)

    run()  # compiles
    replay = cuda_graph(run)
    outputs = list(made)
    for _ in range(2):
        image.copy_(1 - image.square())
        replay()
        run()
        assert max(map(relative, outputs, made)) < tolerance
