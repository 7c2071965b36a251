"""Memory plans: which one is chosen beforehand, and what happens when memory runs out all the same."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from nst_daemon import machine
from nst_daemon.engine import memory
from nst_daemon.engine import scene as scene_module
from nst_daemon.engine.evaluation import whole
from nst_daemon.engine.images import size_of
from nst_daemon.engine.memory import (
    FIXED_BYTES,
    MINIMUM_HISTORY,
    SHARE,
    MemoryPlan,
    exhausted,
    first_fitting,
    free_memory,
    memory_plans,
)
from nst_daemon.engine.neighbours import Matching, StyleMaps
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import OutOfMemory
from nst_daemon.machine import proc_bytes
from tests.engine.conftest import CPU, QUICK, SceneMaker, moved

#: One scale.
SINGLE: dict[str, Any] = {**QUICK, "scales": [1.0], "iterations": 12}


class Narrow(VGG):
    """A network that runs out of memory for more than `room` pixels."""

    room = 10**9

    def normalised(self, image: Tensor) -> Tensor:
        if image.shape[-2] * image.shape[-1] > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return super().normalised(image)


def narrow(network: VGG, room: int) -> VGG:
    """The same network, with memory for `room` pixels."""
    network.__class__ = Narrow
    assert isinstance(network, Narrow)
    network.room = room
    return network


def test_the_plans_go_from_history_to_recomputation_to_tiles() -> None:
    """First the history of L-BFGS is shortened, then activations are recomputed, then tiles shrink."""
    plans = memory_plans(resolve({"history": 100}), CPU)
    assert [plan.history for plan in plans[:3]] == [100, 25, 6]
    assert plans[3] == replace(plans[0], history=MINIMUM_HISTORY)
    assert plans[4] == replace(plans[3], recompute=True)
    assert [plan.tile for plan in plans[5:]] == sorted(memory.TILE_SIDES, reverse=True)
    few = memory_plans(resolve({"history": 3}), CPU)
    assert few[1] == replace(few[0], recompute=True)
    assert [plan.history for plan in memory_plans(resolve({"optimizer": "adam"}), CPU)] == [0] * 8


@pytest.mark.parametrize(("style_loss", "least"), [("gram", 1 / 4), ("neighbours", 2 / 3)])
def test_each_plan_needs_less(weights: Mapping[str, Tensor], style_loss: str, least: float) -> None:
    """For a picture larger than any tile no plan is estimated to take more than the one before."""
    settings, size = resolve({"style_loss": style_loss}), (6000, 8000)
    network = VGG(weights, settings.layers)
    needs = [plan.peak_bytes(size, network) for plan in memory_plans(settings, CPU)]
    assert needs == sorted(needs, reverse=True)
    assert needs[-1] < needs[0] * least


def test_the_estimate_holds(weights: Mapping[str, Tensor]) -> None:
    """The memory that autograd keeps for a whole evaluation is between 40 % and 100 % of the estimate."""
    settings = resolve()
    network, kept = VGG(weights, settings.layers), {}
    image = torch.rand(1, 3, 64, 96)

    def seen(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] == (1,) and not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        network(image.requires_grad_())
    estimate = memory.bytes_per_pixel(network, recompute=False) * 64 * 96
    assert 0.4 * estimate < sum(kept.values()) < estimate


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("styles", "by_layer"), [(1, False), (3, False), (1, True)])
def test_the_estimate_of_a_search_holds(
    weights: Mapping[str, Tensor], precision: str, styles: int, by_layer: bool
) -> None:
    """What the search for neighbours allocates is between half of the estimate and all of it, with its targets."""
    settings, size = resolve({"precision": precision}), (192, 256)
    dtype = getattr(torch, precision)
    network = VGG(weights, settings.layers).compute_in(dtype)
    picture, other = torch.rand(2, 1, 3, *size)
    with torch.no_grad():
        style = {layer: map_.to(dtype) for layer, map_ in network(other).items()}
    own = [StyleMaps(style, None, 1.0)] * styles
    search = Matching(settings, picture, own, None, 1, by_layer)
    allocated = most_allocated(lambda: search.begin(network, picture))
    targets = sum(map_.nbytes for map_ in style.values())
    estimate = memory_plans(settings, CPU, styles=styles)[0].search_bytes(size) + targets
    assert 0.5 * estimate < allocated < estimate


def most_allocated(work: Callable[[], object]) -> int:
    """The largest sum of all bytes that torch had allocated and not freed yet while it did some work."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        work()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(change for _, change in changes))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_features_of_a_scene_are_those_of_the_estimate(
    scene_of: SceneMaker, precision: str
) -> None:
    """The features of three styles at all scales, and targets, take 0.95 to 1 of what the plan counts."""
    settings = resolve({"size": 256, "coarsest": 32, "precision": precision})
    content, *styles = torch.rand(4, 3, 192, 256)
    scene, _ = scene_of(settings, content=content, styles=styles)
    searches = [s.objective for s in scene.scales if isinstance(s.objective, Matching)]
    maps = [map_ for search in searches for style in search.styles for map_ in style.maps.values()]
    held = {map_.data_ptr(): map_.nbytes for map_ in maps}  # passes at full size share theirs
    targets = sum(map_.nbytes for map_ in searches[-1].styles[0].maps.values())
    counted = scene.plans[0].features * size_of(content)[0] * size_of(content)[1]
    assert 0.95 * counted < sum(held.values()) + targets <= counted


def test_a_plan_leaves_room(weights: Mapping[str, Tensor]) -> None:
    """A plan is chosen if optimiser and activations are within SHARE of the free memory; the last if none fits."""
    plans, size = memory_plans(resolve(), CPU), (768, 1024)
    network = VGG(weights, resolve().layers)
    needs = plans[1].iteration_bytes(size, network)
    assert first_fitting(plans, size, network, 1.01 * needs / SHARE) == 1
    assert first_fitting(plans, size, network, 0.99 * needs / SHARE) > 1
    assert first_fitting(plans, size, network, 1e12) == 0
    assert first_fitting(plans, size, network, 0) == len(plans) - 1


def test_free_memory_obeys_the_limits_of_the_process() -> None:
    """A limit of the address space or of data 1 GiB above what is used leaves that, and what the heap has free."""
    for limited in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        name = "VmSize" if limited == resource.RLIMIT_AS else "VmData"
        used = proc_bytes(Path("/proc/self/status"))[name]
        before = resource.getrlimit(limited)
        resource.setrlimit(limited, (int(used) + (1 << 30), before[1]))
        try:
            # Between the two looks at the heap a few kilobytes are allocated or freed.
            assert 0 < free_memory(CPU) <= (1 << 30) + machine._free_in_heap() + (1 << 20)
        finally:
            resource.setrlimit(limited, before)


def test_the_largest_side_fits_and_no_more() -> None:
    """A 4:3 picture of `largest_side` fits into the memory; one a tenth longer does not."""
    plan = memory_plans(resolve(), CPU)[-1]
    side = plan.largest_side(2e9)
    assert plan.least_bytes((side * 3 // 4, side)) <= 2e9
    assert plan.least_bytes((int(1.1 * side) * 3 // 4, int(1.1 * side))) > 2e9
    assert plan.largest_side(plan.least_bytes((0, 0))) == 0


@pytest.mark.parametrize("extra", [{}, {"optimizer": "adam"}], ids=["lbfgs", "adam"])
def test_a_painting_steps_down_while_it_runs(scene_of: SceneMaker, extra: dict[str, Any]) -> None:
    """When memory runs out it goes on with plan after plan down to tiles that fit, with an event for each."""
    settings = resolve(SINGLE, extra)
    scene, network = scene_of(settings)
    *_, clean = stylize(scene, network, settings)
    plans = memory_plans(settings, CPU, (32, 16))
    *_, step = stylize(scene, narrow(network, 730), settings, plans=plans)
    assert step.iteration == 12
    history = [] if extra else ["a history of 5"]
    found = [event.partition("): ")[2] for event in step.events]
    last, short = ("a history of 5, ", "a history of 2 in bfloat16, ") if history else ("", "")
    assert found == [
        *history,
        f"{last}recomputed activations",
        f"{short}tiles of 32 px",
        f"{short}tiles of 16 px",
    ]
    assert all("out of memory" in event for event in step.events)
    assert step.losses["total"] < 1.2 * clean.losses["total"]


def test_a_painting_that_fits_no_plan_is_out_of_memory(scene_of: SceneMaker) -> None:
    """After the last plan it is OutOfMemory, with the picture's size."""
    settings = resolve(SINGLE)
    scene, network = scene_of(settings)
    with pytest.raises(OutOfMemory, match="48 × 40 pixels do not fit"):
        list(
            stylize(
                scene,
                narrow(network, 20 * 20),
                settings,
                plans=memory_plans(settings, CPU, (32, 16)),
            )
        )


def test_a_plan_chosen_beforehand_never_runs_out(scene_of: SceneMaker) -> None:
    """With little memory free the painting begins in tiles, never exceeds its memory, and an event says why."""
    settings = resolve(SINGLE)
    scene, network = scene_of(settings)
    *_, step = stylize(
        scene,
        narrow(network, 32 * 32),
        settings,
        plans=memory_plans(settings, CPU, (32, 16)),
        free=lambda _: 0.0,
    )
    assert step.events == (
        "scale 1, iteration 0: 0 bytes of memory is free: a history of 2 in bfloat16, tiles of 16 px",
    )


@pytest.mark.parametrize("style_loss", ["gram", "neighbours"])
def test_what_the_scene_holds_is_not_counted_twice(scene_of: SceneMaker, style_loss: str) -> None:
    """The first plan is chosen where the free memory lacks half of what the scene has allocated already, and not where
    it lacks twice as much.
    """
    settings = resolve(SINGLE, {"iterations": 1, "style_loss": style_loss})
    scene, network = scene_of(settings)
    assert scene.held_bytes >= scene.start.nbytes + scene.scales[0].content.numel()
    plans = memory_plans(settings, CPU)
    size = scene.size
    needed = plans[0].iteration_bytes(size, network)

    def events(lacking: float) -> tuple[str, ...]:
        free = needed / SHARE - lacking * scene.held_bytes
        *_, step = stylize(scene, network, settings, free=lambda _: free)
        return step.events

    assert events(0.5) == ()
    assert len(events(2.0)) == 1


@pytest.mark.parametrize("style_loss", ["gram", "covariance", "wasserstein", "neighbours"])
def test_a_picture_that_hardly_fits_is_painted(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch, style_loss: str
) -> None:
    """If memory is short from the start each kind of objective ends, in the last plan, near the loss of the first."""
    settings = resolve(SINGLE, {"style_loss": style_loss})
    whole_scene, network = scene_of(settings)
    *_, expected = stylize(whole_scene, network, settings)
    monkeypatch.setattr(scene_module, "memory_is_short", lambda *_, **__: True)
    scene, network = scene_of(settings)
    assert scene.scales[0].content.dtype == torch.float16
    plan = replace(scene.plans[-1], tile=16)
    *_, step = stylize(scene, network, settings, plans=[plan])
    assert step.iteration == expected.iteration
    assert step.losses["total"] < 1.2 * expected.losses["total"]


def test_a_plan_is_kept_over_a_restart(scene_of: SceneMaker) -> None:
    """A restored painting goes on with the plan that it had come to, and ends in the same bits."""
    settings = resolve(SINGLE)
    plans = memory_plans(settings, CPU, (32, 16))
    scene, network = scene_of(settings)
    steps = stylize(scene, narrow(network, 32 * 32), settings, plans=plans)
    *_, at = islice(steps, 5)
    file = io.BytesIO()
    torch.save(at.state(), file)
    *_, last = steps
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    *_, restored = stylize(scene, network, settings, state=state, plans=plans)
    assert torch.equal(restored.image(), last.image())
    assert restored.events == last.events


def test_a_picture_that_cannot_fit_is_refused_before_any_work(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the optimiser alone exceeds the free memory, `prepare` refuses the picture, and says which size would fit."""
    monkeypatch.setattr(VGG, "part", None)
    with pytest.raises(OutOfMemory, match=r"4000 × 3333 pixels .* about \d+ px should fit"):
        scene_of(resolve(SINGLE, {"size": 4000}), free=lambda _: 3e8)


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
def test_out_of_memory_errors_are_recognised(error: Exception, meant: bool) -> None:
    """Errors that mean a lack of memory are distinguished from others."""
    assert exhausted(error) is meant


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_stays_within_the_estimate(
    scene_of: SceneMaker, weights: Mapping[str, Tensor], precision: str
) -> None:
    """On a GPU the peak of an evaluation by each plan is no higher than estimated."""
    device = torch.device("cuda")
    settings = resolve(
        {"size": 1024, "scales": [1.0], "precision": precision, "style_loss": "gram"}
    )
    content, style = torch.rand(3, 768, 1024), torch.rand(3, 200, 300)
    scene, network = scene_of(settings, content=content, styles=[style])
    objective = moved(scene.scales[0].objective, device)
    network = network.to(device).compute_in(getattr(torch, precision))
    image = scene.scales[0].content.to(device)
    whole(network, objective, image)  # libraries load, algorithms are chosen
    for plan in (MemoryPlan(0), MemoryPlan(0, recompute=True), MemoryPlan(0, tile=256)):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        plan.evaluation(network, objective, image)
        peak = torch.cuda.max_memory_allocated() - before
        assert peak < plan.activation_bytes((768, 1024), network) + FIXED_BYTES, plan
