"""Repeated iterations: captured after the first call, on the same memory, and called directly if the capture fails."""

from __future__ import annotations

import gc
import logging
import weakref
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_daemon.engine import cuda_graph as module
from nst_daemon.engine.cuda_graph import WARM_UP, Repeated, Run, cuda_graph
from nst_daemon.engine.iteration import Iteration
from nst_daemon.engine.memory import MemoryPlan
from nst_daemon.engine.scene import Scale, Scene
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import stylize
from tests.engine.conftest import ADAM, QUICK, HostReads, SceneMaker, last, moved

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
#: The default objective at two scales, in milliseconds.
NEIGHBOURS: dict[str, Any] = {**QUICK, "style_loss": "neighbours"}


@pytest.fixture(autouse=True)
def unsaid() -> None:
    """Forget earlier tests' warnings."""
    module.warn_once.cache_clear()


def test_a_function_is_captured_once_after_the_first_call() -> None:
    """The function runs directly at first; it is captured once, and only what the capture returned runs afterwards."""
    runs: list[str] = []

    def capture(run: Run) -> Run:
        runs.append("captured")
        return lambda: runs.append("replayed")

    repeated = Repeated(lambda: runs.append("direct"), capture)
    for _ in range(4):
        repeated()
    assert runs == ["direct"] * WARM_UP + ["captured"] + ["replayed"] * (4 - WARM_UP)


def test_without_a_graph_the_function_itself_is_called(caplog: pytest.LogCaptureFixture) -> None:
    """If captures fail every call runs the function, and one log line for all of them says why."""

    def broken(run: Run) -> Run:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    runs: list[int] = []
    with caplog.at_level(logging.WARNING):
        for number in range(2):
            repeated = Repeated(lambda number=number: runs.append(number), broken)  # type: ignore[misc]
            for _ in range(3):
                repeated()
    assert runs == [0, 0, 0, 1, 1, 1]
    assert len(caplog.messages) == 1
    assert "not permitted when stream is capturing" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]


def test_out_of_memory_is_not_hidden() -> None:
    """Out of memory during a capture is raised as such, even if the end of the capture fails with another error."""

    def full(run: Run) -> Run:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    repeated = Repeated(lambda: None, full)
    repeated()
    with pytest.raises(torch.OutOfMemoryError):
        repeated()


def test_an_out_of_memory_error_frees_its_memory() -> None:
    """After the error of a capture is handled, all its memory is freed without garbage collection."""
    held: list[weakref.ref[Tensor]] = []

    def filling(run: Run) -> Run:
        large = torch.ones(1000)
        held.append(weakref.ref(large))
        raise MemoryError

    repeated = Repeated(lambda: None, filling)
    repeated()
    gc.collect()
    gc.disable()
    try:
        with suppress(MemoryError):
            repeated()
            raise AssertionError("there was memory")
        assert [reference() for reference in held] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("base", [QUICK, NEIGHBOURS], ids=["gram", "neighbours"])
@pytest.mark.parametrize("extra", [{}, ADAM], ids=["lbfgs", "adam"])
def test_an_iteration_stays_on_the_device_and_in_its_memory(
    scene_of: SceneMaker,
    base: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """What a graph needs: an iteration reads no value on the host, and all that it changes stays where it is."""
    settings = resolve(base, extra)
    scene, network = scene_of(settings)
    # On a CPU, torch's Adam reads its own counter; on a GPU it does not.
    allowed = {"aten._local_scalar_dense.default"} if extra else set()
    found: list[tuple[Iteration, set[int]]] = []

    def watched(iteration: Run) -> Run:
        assert isinstance(iteration, Iteration)
        reads = HostReads()

        def run() -> None:
            places = _places(iteration)
            with reads:
                iteration()
            assert set(reads.seen) <= allowed
            assert _places(iteration) == places
            found.append((iteration, places))

        return run

    step = last(stylize(scene, network, settings, repeat=watched))
    assert len(found) == step.iterations
    assert torch.equal(step.image(), last(stylize(scene, network, settings)).image())
    assert len({id(iteration) for iteration, _ in found}) == len(scene.scales)


def _places(iteration: Iteration) -> set[int]:
    """Where the memory is of everything that an iteration changes."""
    state = iteration._optimizer.state()
    kept = (
        *state.values(),
        iteration._optimizer.accepted,
        iteration._values,
        iteration._moved,
        iteration.told,
    )
    return {tensor.data_ptr() for tensor in kept}


def test_tiles_and_eigenvalues_are_not_captured(scene_of: SceneMaker) -> None:
    """An evaluation in tiles, and one that computes eigenvalues on the host, is never given to be captured."""

    def refused(run: Run) -> Run:
        raise AssertionError("it was given to be captured")

    tiled = [MemoryPlan(20, tile=32)]
    settings = resolve(QUICK, {"iterations": (2, 2)})
    assert last(stylize(*scene_of(settings), settings, repeat=refused, plans=tiled)).last
    settings = resolve(QUICK, {"iterations": (2, 2), "style_loss": "wasserstein"})
    assert last(stylize(*scene_of(settings), settings, repeat=refused)).last


def on_gpu(scene: Scene) -> Scene:
    """The same scene, on the GPU."""

    def on_device(scale: Scale) -> Scale:
        objective = moved(scale.objective, torch.device("cuda"))
        return Scale(scale.size, scale.content.cuda(), scale.colors.cuda(), objective)

    scales = tuple(on_device(scale) for scale in scene.scales)
    return Scene(scene.size, scales, scene.start.cuda(), scene.notes, scene.plans)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("style_loss", ["neighbours", "gram", "covariance"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("extra", [{}, ADAM], ids=["lbfgs", "adam"])
def test_a_painting_by_graphs_ends_as_well(
    scene_of: SceneMaker,
    caplog: pytest.LogCaptureFixture,
    style_loss: str,
    precision: str,
    extra: dict[str, Any],
) -> None:
    """On a GPU a painting by graphs ends with a loss within 2 % of the one without, and no capture fails."""
    settings = resolve(extra, {"size": 128, "precision": precision, "style_loss": style_loss})
    scene, network = scene_of(settings)
    scene, network = on_gpu(scene), network.cuda()
    with caplog.at_level(logging.WARNING):
        found = last(stylize(scene, network, settings)).losses["total"]
    assert caplog.messages == []
    direct = last(stylize(scene, network, settings, repeat=lambda run: run)).losses["total"]
    assert found == pytest.approx(direct, rel=0.02)


@pytest.mark.gpu
@GPU
def test_a_graph_continues_a_restored_painting(scene_of: SceneMaker) -> None:
    """On a GPU in deterministic mode a restored painting ends in the same bits as an uninterrupted one."""
    settings = resolve(QUICK, {"deterministic": True})
    scene, network = scene_of(settings)
    scene, network = on_gpu(scene), network.cuda()
    *_, whole_run = stylize(scene, network, settings)
    steps = stylize(scene, network, settings)
    state = [next(steps) for _ in range(7)][-1].state()
    restored = last(stylize(scene, network, settings, state=state))
    assert torch.equal(restored.image(), whole_run.image())


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_graphs_are_captured_on_the_second_gpu_too(scene_of: SceneMaker) -> None:
    """A painting on another GPU than the current one ends with a loss within 2 % of the CPU's."""
    settings = resolve(QUICK, {"precision": "float32"})
    scene, network = scene_of(settings)
    wanted = last(stylize(scene, network, settings)).losses["total"]
    with torch.device("cuda:1"), torch.cuda.device(1):
        scene = on_gpu(scene)
    found = last(stylize(scene, network.to("cuda:1"), settings)).losses["total"]
    assert found == pytest.approx(wanted, rel=0.02)


@pytest.mark.gpu
@GPU
def test_a_replay_does_what_the_function_does() -> None:
    """On a GPU each replay adds to the same tensor what a call of the function adds."""
    x = torch.zeros(1000, device="cuda")
    repeated = Repeated(lambda: x.add_(1))
    for _ in range(5):
        repeated()
    assert (x == 5).all()


@pytest.mark.gpu
@GPU
def test_a_failed_capture_leaves_nothing_behind() -> None:
    """After a capture that reads a value the thread is back on its stream, and memory and random numbers are usable."""
    x = torch.ones(1 << 20, device="cuda")
    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        cuda_graph(lambda: x.mul_(float((x * 2)[0])))
    assert torch.cuda.current_stream() == stream
    filled = torch.empty(1 << 26, device="cuda")
    reserved = torch.cuda.memory_reserved()
    del filled
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= reserved - (1 << 28)
    assert 0 <= float(torch.rand(1, device="cuda")) < 1
