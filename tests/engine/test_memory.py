"""The ladder: what is chosen beforehand, and what is done where memory ends all the same."""

from __future__ import annotations

import io
import platform
import resource
from collections.abc import Mapping
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_daemon.engine import memory, stylize
from nst_daemon.engine.evaluation import whole
from nst_daemon.engine.memory import (
    FIXED,
    LEAST_HISTORY,
    SHARE,
    Way,
    exhausted,
    first_that_fits,
    free,
    ways,
)
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import OutOfMemory
from tests.engine.conftest import CPU, SceneMaker

#: One scale, shallow layers, small tiles would still be of one piece.
QUICK: dict[str, Any] = {
    "size": 48,
    "scales": [1.0],
    "iterations": 12,
    "content_layers": {"relu2_2": 1.0},
    "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5},
}


class Narrow(VGG):
    """A network that more pixels than `room` are too many for."""

    room = 10**9

    def normalised(self, image: Tensor) -> Tensor:
        if image.shape[-2] * image.shape[-1] > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return super().normalised(image)


def narrow(network: VGG, room: int) -> VGG:
    """The same network, with so much room."""
    network.__class__ = Narrow
    assert isinstance(network, Narrow)
    network.room = room
    return network


def test_the_ladder_goes_from_history_to_recomputation_to_tiles() -> None:
    """L-BFGS gives up its history first, then activations, then wholeness; Adam has no history to give."""
    ladder = ways(resolve({"history": 100}))
    assert [way.history for way in ladder[:3]] == [100, 25, 6]
    assert ladder[3] == Way(LEAST_HISTORY)
    assert ladder[4] == Way(LEAST_HISTORY, again=True)
    assert [way.side for way in ladder[5:]] == sorted(memory.SIDES, reverse=True)
    assert ways(resolve({"history": 3}))[1] == Way(3, again=True)
    assert [way.history for way in ways(resolve({"optimizer": "adam"}))] == [0] * 8


def test_each_step_of_the_ladder_needs_less(weights: Mapping[str, Tensor]) -> None:
    """Of a picture larger than any tile each way is estimated to take less than the one before, or as much."""
    network, size = VGG(weights, resolve().layers), (6000, 8000)
    needs = [way.canvas(size) + way.activations(size, network) for way in ways(resolve())]
    assert needs == sorted(needs, reverse=True)
    assert needs[-1] < needs[0] / 4


def test_the_estimate_holds(weights: Mapping[str, Tensor]) -> None:
    """What autograd keeps of a whole evaluation is within the estimate, and more than 40 % of it."""
    settings = resolve()
    network, kept = VGG(weights, settings.layers), {}
    image = torch.rand(1, 3, 64, 96)

    def seen(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] == (1,) and not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        network(image.requires_grad_())
    estimate = memory.activation_bytes(network, again=False) * 64 * 96
    assert 0.4 * estimate < sum(kept.values()) < estimate


def test_a_plan_leaves_room(weights: Mapping[str, Tensor]) -> None:
    """A way is taken exactly where canvas and activations are within SHARE of what is free; else the last is."""
    ladder, size = ways(resolve()), (768, 1024)
    network = VGG(weights, resolve().layers)
    needs = ladder[1].canvas(size) + ladder[1].activations(size, network)
    assert first_that_fits(ladder, size, network, 1.01 * needs / SHARE) == 1
    assert first_that_fits(ladder, size, network, 0.99 * needs / SHARE) > 1
    assert first_that_fits(ladder, size, network, 1e12) == 0
    assert first_that_fits(ladder, size, network, 0) == len(ladder) - 1


def test_free_memory_obeys_the_limits_of_the_process() -> None:
    """A limit of the address space or of data 1 GiB above what is used leaves at most that."""
    for limited in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        name = "VmSize" if limited == resource.RLIMIT_AS else "VmData"
        used = memory._kibibytes(memory.Path("/proc/self/status"))[name]
        before = resource.getrlimit(limited)
        resource.setrlimit(limited, (int(used) + (1 << 30), before[1]))
        try:
            assert 0 < free(CPU) <= 1 << 30
        finally:
            resource.setrlimit(limited, before)


def test_the_largest_side_fits_and_no_more() -> None:
    """A 4:3 picture of the side that is said takes no more than there is, one a tenth longer does."""
    way = ways(resolve())[-1]
    side = way.largest_side(2e9)
    assert way.canvas((side * 3 // 4, side)) <= 2e9
    assert way.canvas((int(1.1 * side) * 3 // 4, int(1.1 * side))) > 2e9
    assert way.largest_side(FIXED) == 0


@pytest.mark.parametrize("extra", [{}, {"optimizer": "adam"}], ids=["lbfgs", "adam"])
def test_a_painting_steps_down_while_it_runs(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    """Where memory ends it goes on, step by step down to tiles that fit, and says each; the loss falls as ever."""
    monkeypatch.setattr(memory, "SIDES", (32, 16))
    settings = resolve(QUICK, extra)
    scene, network = scene_of(settings)
    *_, clean = stylize.stylize(scene, network, settings)
    *_, step = stylize.stylize(scene, narrow(network, 730), settings)
    assert step.iteration == 12
    history = [] if extra else ["a history of 5"]
    found = [event.partition("): ")[2] for event in step.events]
    last = "a history of 5, " if history else ""
    assert found == [
        *history,
        f"{last}activations computed twice",
        f"{last}tiles of 32 px",
        f"{last}tiles of 16 px",
    ]
    assert all("out of memory" in event for event in step.events)
    assert step.losses["total"] < 1.2 * clean.losses["total"]


def test_a_painting_that_fits_no_way_is_out_of_memory(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the last tile there is nothing: OutOfMemory, with the picture's size."""
    monkeypatch.setattr(memory, "SIDES", (32, 16))
    settings = resolve(QUICK)
    scene, network = scene_of(settings)
    with pytest.raises(OutOfMemory, match="48 × 40 pixels do not fit"):
        list(stylize.stylize(scene, narrow(network, 20 * 20), settings))


def test_what_is_planned_beforehand_never_runs_out(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little memory free the painting begins in tiles, is within its room throughout, and says why."""
    monkeypatch.setattr(memory, "SIDES", (32, 16))
    monkeypatch.setattr(stylize, "free", lambda _: 0.0)
    monkeypatch.setattr(stylize, "_refuse_what_cannot_fit", lambda *_: None)
    settings = resolve(QUICK)
    scene, network = scene_of(settings)
    *_, step = stylize.stylize(scene, narrow(network, 32 * 32), settings)
    assert step.events == (
        "scale 1, iteration 0: 0.0 GB of memory are free: a history of 5, tiles of 16 px",
    )


def test_a_way_is_kept_over_a_restart(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restored painting goes on in the way that it had come to, and ends in the same bits."""
    monkeypatch.setattr(memory, "SIDES", (32, 16))
    settings = resolve(QUICK)
    scene, network = scene_of(settings)
    steps = stylize.stylize(scene, narrow(network, 32 * 32), settings)
    *_, at = islice(steps, 5)
    file = io.BytesIO()
    torch.save(at.state(), file)
    *_, last = steps
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    *_, restored = stylize.stylize(scene, network, settings, state=state)
    assert torch.equal(restored.image(), last.image())
    assert restored.events == last.events


def test_a_picture_that_cannot_fit_is_refused_before_any_work(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the optimiser alone is too large for what is free, prepare says so, and what would fit."""
    monkeypatch.setattr(stylize, "free", lambda _: 3e8)
    monkeypatch.setattr(VGG, "part", None)
    with pytest.raises(OutOfMemory, match=r"4000 × 3333 pixels .* about \d+ px should fit"):
        scene_of(resolve(QUICK, {"size": 4000}))


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError(), False),
    ],
)
def test_the_end_of_memory_is_recognised(error: Exception, meant: bool) -> None:
    """Errors that mean a lack of memory are told from others."""
    assert exhausted(error) is meant


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc offers it")
def test_freed_memory_goes_back_to_the_machine() -> None:
    """Of 64 MB that were freed below a block in use, more than half leave the process."""

    def resident() -> float:
        return memory._kibibytes(memory.Path("/proc/self/status"))["VmRSS"]

    blocks = [bytearray(64_000) for _ in range(1000)]
    above = bytearray(64_000)
    blocks.clear()
    before = resident()
    memory.give_back()
    assert before - resident() > 32e6
    assert len(above) == 64_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_stays_within_the_estimate(
    scene_of: SceneMaker, weights: Mapping[str, Tensor], precision: str
) -> None:
    """On a GPU the peak of an evaluation in each way is no higher than estimated."""
    device = torch.device("cuda")
    settings = resolve({"size": 1024, "scales": [1.0], "precision": precision})
    content, style = torch.rand(3, 768, 1024), torch.rand(3, 200, 300)
    scene, network = scene_of(settings, content=content, styles=[style])
    objective = type(scene.scales[0].objective)(
        {k: v.to(device) for k, v in scene.scales[0].objective.content.items()},
        {
            k: type(v)(v.gram.to(device), v.mean.to(device))
            for k, v in scene.scales[0].objective.style.items()
        },
        settings,
    )
    network = network.to(device).compute_in(getattr(torch, precision))
    image = scene.scales[0].content.to(device)
    whole(network, objective, image)  # libraries load, algorithms are chosen
    for way in (Way(0), Way(0, again=True), Way(0, side=256)):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way.evaluation(network, objective, image)
        peak = torch.cuda.max_memory_allocated() - before
        assert peak < way.activations((768, 1024), network) + FIXED, way
