"""Captured evaluations: the same numbers as direct ones, and the direct evaluation if the capture fails."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor

from nst_daemon.engine import cuda_graph as module
from nst_daemon.engine.batching import Batching, EvaluationRequest, batched
from nst_daemon.engine.cuda_graph import Captured, CudaGraphEvaluation, Run, cuda_graph
from nst_daemon.engine.evaluation import Evaluated, Evaluation, checkpointed, whole
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.scene import Scale, Scene
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import deterministic, stylize
from nst_daemon.engine.vgg import VGG
from tests.engine.conftest import ADAM, QUICK, SceneMaker, last, moved

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def by_hand(run: Run) -> Captured:
    """Imitate a graph without a GPU: each replay computes from and into the same memory."""
    found = run()

    def replay() -> None:
        for kept, new in zip(found, run(), strict=True):
            kept.copy_(new)

    return found, replay


@pytest.fixture(autouse=True)
def unsaid() -> None:
    """Forget earlier tests' warnings."""
    module.warn_once.cache_clear()


def subject(scene_of: SceneMaker) -> tuple[VGG, Pyramid, list[Tensor]]:
    scene, network = scene_of(resolve(QUICK))
    scale = scene.scales[-1]
    pictures = [(scale.content * factor).clamp(0, 1) for factor in (1.0, 0.9, 0.5)]
    return network, scale.objective, pictures


def test_replays_find_what_the_evaluation_finds(scene_of: SceneMaker) -> None:
    """Values, total and gradient of each replay equal the evaluation's to the bit; earlier results do not change."""
    network, objective, pictures = subject(scene_of)
    recorded = CudaGraphEvaluation(whole, by_hand)
    found = [recorded(network, objective, picture) for picture in pictures]
    for picture, own in zip(pictures, found, strict=True):
        for tensor, wanted in zip(own, whole(network, objective, picture), strict=True):
            assert torch.equal(tensor, wanted)


def test_another_size_is_captured_again(scene_of: SceneMaker) -> None:
    """Each scale with its own objective is captured once, and evaluated correctly."""
    scene, network = scene_of(resolve(QUICK))
    recordings: list[Run] = []

    def counted(run: Run) -> Captured:
        recordings.append(run)
        return by_hand(run)

    recorded = CudaGraphEvaluation(whole, counted)
    for scale in scene.scales:
        for _ in range(3):
            found = recorded(network, scale.objective, scale.content)
            assert torch.equal(found[2], whole(network, scale.objective, scale.content)[2])
    assert len(recordings) == len(scene.scales) == 2


def broken(run: Run) -> Captured:
    raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def stale(run: Run) -> Captured:
    values, total, gradient = run()
    return (values, total, 2 * gradient), lambda: None


@pytest.mark.parametrize(
    ("recorder", "cause"),
    [
        (broken, "not permitted when stream is capturing"),
        (stale, "its replay gives another result"),
    ],
)
def test_without_a_graph_results_are_direct_evaluations(
    scene_of: SceneMaker,
    caplog: pytest.LogCaptureFixture,
    recorder: Callable[[Run], Captured],
    cause: str,
) -> None:
    """If a capture fails or its replay differs, all results are direct evaluations, and one log line says why."""
    network, objective, pictures = subject(scene_of)
    with caplog.at_level(logging.WARNING):
        for recorded in (
            CudaGraphEvaluation(whole, recorder),
            CudaGraphEvaluation(whole, recorder),
        ):
            for picture in pictures:
                found = recorded(network, objective, picture)
                assert torch.equal(found[2], whole(network, objective, picture)[2])
    assert len(caplog.messages) == 1
    assert cause in caplog.messages[0] and "\n" not in caplog.messages[0]


def test_a_non_finite_picture_does_not_end_capturing(scene_of: SceneMaker) -> None:
    """After a non-finite picture the graph is still used."""
    network, objective, pictures = subject(scene_of)
    recorded = CudaGraphEvaluation(whole, by_hand)
    recorded(network, objective, torch.full_like(pictures[0], torch.nan))
    assert recorded.usable


def test_out_of_memory_is_not_hidden(scene_of: SceneMaker) -> None:
    """Out of memory during a capture is raised as such, even if the end of the capture fails with another error."""

    def full(run: Run) -> Captured:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    network, objective, pictures = subject(scene_of)
    with pytest.raises(torch.OutOfMemoryError):
        CudaGraphEvaluation(whole, full)(network, objective, pictures[0])


def test_cudnn_is_not_tuned_in_deterministic_mode(scene_of: SceneMaker) -> None:
    """The flag is set during a capture, except in deterministic mode, and restored afterwards."""
    network, objective, pictures = subject(scene_of)
    seen: list[bool] = []

    def spying(network: VGG, objective: Pyramid, image: Tensor) -> Evaluated:
        seen.append(torch.backends.cudnn.benchmark)
        return whole(network, objective, image)

    before = torch.backends.cudnn.benchmark
    CudaGraphEvaluation(spying, by_hand)(network, objective, pictures[0])
    with deterministic():
        CudaGraphEvaluation(spying, by_hand)(network, objective, pictures[0])
    assert seen == [True] * 3 + [False] * 3
    assert torch.backends.cudnn.benchmark == before


@pytest.mark.parametrize("extra", [{}, ADAM], ids=["lbfgs", "adam"])
def test_a_painting_by_replays_is_the_same_picture(
    scene_of: SceneMaker, extra: dict[str, object]
) -> None:
    """With every evaluation captured and replayed, over two scales, the picture is the same to the bit."""
    settings = resolve(QUICK, extra)
    plain = last(stylize(*scene_of(settings), settings)).image()
    made: list[CudaGraphEvaluation[Pyramid]] = []

    def captured(evaluation: Evaluation) -> CudaGraphEvaluation[Pyramid]:
        made.append(CudaGraphEvaluation(evaluation, by_hand))
        return made[-1]

    step = last(stylize(*scene_of(settings), settings, capture=captured))
    assert torch.equal(step.image(), plain)
    assert len(made) == 2 and all(recorded.usable for recorded in made)


def test_a_replay_without_effect_is_noticed(
    scene_of: SceneMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty graph, whose memory still holds the outputs of the capture, is not used; the log says why."""
    network, objective, pictures = subject(scene_of)
    recorded = CudaGraphEvaluation(whole, lambda run: (run(), lambda: None))
    for picture in pictures:
        (_, total, _), (_, wanted, _) = (f(network, objective, picture) for f in (recorded, whole))
        assert torch.equal(total, wanted)
    assert not recorded.usable
    assert "its replay gives another result" in caplog.text


def test_an_out_of_memory_error_frees_its_memory(scene_of: SceneMaker) -> None:
    """After an evaluation's error is handled, all its memory is freed without garbage collection."""
    network, objective, (picture, *_) = subject(scene_of)
    held: list[weakref.ref[Tensor]] = []

    def filling(*_: object) -> Evaluated:
        large = torch.ones(1000)
        held.append(weakref.ref(large))
        if len(held) % 2 == 0:  # where it is recorded, the second time
            raise MemoryError
        found = large.sum()
        return found, found, found

    def failing(run: Run) -> Captured:
        return run(), lambda: None

    together = Batching()
    gc.collect()
    gc.disable()
    try:
        for evaluation in (
            CudaGraphEvaluation(filling, failing),
            lambda *_: filling() and filling(),
        ):
            with together.joined(), suppress(MemoryError):
                together(evaluation, network, objective, picture)
                raise AssertionError("there was memory")
            assert [reference() for reference in held] == [None] * len(held)
    finally:
        gc.enable()


def test_captured_evaluations_share_a_pass(scene_of: SceneMaker) -> None:
    """Requests of one size are in one group, captured or not; a request that is not evaluated whole is alone."""
    network, objective, pictures = subject(scene_of)

    def alike(evaluation: Evaluation) -> tuple[object, ...]:
        return EvaluationRequest(evaluation, network, objective, pictures[0]).group

    assert alike(CudaGraphEvaluation(whole)) == alike(CudaGraphEvaluation(whole)) == alike(whole)
    assert alike(CudaGraphEvaluation(checkpointed)) != alike(CudaGraphEvaluation(checkpointed))


def on_gpu(scene: Scene) -> Scene:
    """The same scene, on the GPU."""

    def on_device(scale: Scale) -> Scale:
        objective = moved(scale.objective, torch.device("cuda"))
        return Scale(scale.size, scale.content.cuda(), scale.colors.cuda(), objective)

    scales = tuple(on_device(scale) for scale in scene.scales)
    return Scene(scene.size, scales, scene.start.cuda(), scene.notes)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("style_loss", ["neighbours", "gram"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("again", [False, True], ids=["whole", "checkpointed"])
def test_a_graph_finds_what_the_evaluation_finds(
    scene_of: SceneMaker, style_loss: str, precision: str, again: bool
) -> None:
    """On a GPU each replay agrees with the evaluation to 1e-3 of the norm, and the graph stays in use."""
    settings = resolve({"size": 128, "precision": precision, "style_loss": style_loss})
    scene, network = scene_of(settings)
    scale = on_gpu(scene).scales[-1]
    network = network.cuda().compute_in(getattr(torch, precision))
    objective = scale.objective.begin(network, scale.content)
    evaluation = checkpointed if again else whole
    recorded = CudaGraphEvaluation(evaluation)
    for factor in (1.0, 0.9, 0.5):
        picture = (scale.content * factor).clamp(0, 1)
        found = recorded(network, objective, picture)
        with module._tuned():  # other algorithms round differently
            wanted = evaluation(network, objective, picture)
        for tensor, right in zip(found, wanted, strict=True):
            assert (tensor - right).norm() <= 1e-3 * right.norm()
    assert recorded.usable


@pytest.mark.gpu
@GPU
def test_a_painting_by_graphs_ends_as_well(scene_of: SceneMaker) -> None:
    """On a GPU a painting by graphs ends with a loss within 2 % of the one without, and in deterministic mode a
    restored one ends in the same bits as an uninterrupted one.
    """
    settings = resolve(QUICK, {"deterministic": True})
    scene, network = scene_of(settings)
    scene, network = on_gpu(scene), network.cuda()
    made: list[CudaGraphEvaluation[Pyramid]] = []

    def captured(evaluation: Evaluation) -> CudaGraphEvaluation[Pyramid]:
        made.append(CudaGraphEvaluation(evaluation))
        return made[-1]

    *_, whole_run = stylize(scene, network, settings, capture=captured)
    assert made and all(recorded.usable for recorded in made)
    steps = stylize(scene, network, settings, capture=captured)
    state = [next(steps) for _ in range(7)][-1].state()
    restored = last(stylize(scene, network, settings, state=state))
    assert torch.equal(restored.image(), whole_run.image())
    eager = last(stylize(scene, network, settings, capture=lambda evaluation: evaluation))
    assert whole_run.losses["total"] == pytest.approx(eager.losses["total"], rel=0.02)


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
def test_a_failed_capture_leaves_nothing_behind() -> None:
    """After a capture that reads a value the thread is back on its stream, and memory and random numbers are usable."""
    x = torch.ones(1 << 20, device="cuda")

    def reading() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = x * 2
        return y, y.sum() * float(y[0]), y

    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        cuda_graph(reading)
    assert torch.cuda.current_stream() == stream
    filled = torch.empty(1 << 26, device="cuda")
    reserved = torch.cuda.memory_reserved()
    del filled
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= reserved - (1 << 28)
    assert 0 <= float(torch.rand(1, device="cuda")) < 1


@pytest.mark.gpu
@GPU
def test_a_graph_serves_a_batch(scene_of: SceneMaker) -> None:
    """On a GPU a captured pass of two pictures agrees with the direct one to 1e-3 of the norm."""
    scene, network = scene_of(resolve({"size": 128}))
    scale, network = on_gpu(scene).scales[-1], network.cuda()
    objective = scale.objective.begin(network, scale.content)
    recorded, objectives = CudaGraphEvaluation(batched), (objective, objective)
    for factor in (1.0, 0.9, 0.5):
        pictures = torch.cat([scale.content * factor, scale.content.flip(3)])
        with module._tuned():
            wanted = batched(network, objectives, pictures)
        for found, right in zip(recorded(network, objectives, pictures), wanted, strict=True):
            assert (found - right).norm() <= 1e-3 * right.norm()
    assert recorded.usable
