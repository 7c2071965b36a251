"""Pictures painted at the same time, with one pass through the network for all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from nst_daemon.engine.batching import TRIALS, Batching, batched
from nst_daemon.engine.evaluation import checkpointed, whole
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.scene import Scene, prepare
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.vgg import VGG
from tests.engine.conftest import CPU, QUICK, TorchTargets, pyramid_of

Case = tuple[VGG, list[Pyramid], list[Tensor]]


@pytest.fixture
def case(weights: Mapping[str, Tensor]) -> Case:
    """A network in float64, and three pictures of one size, each with contents and styles of its own."""
    settings = resolve(QUICK, {"tv": "nine-point", "style_levels": 2})
    network = VGG(weights, settings.layers).compute_in(torch.float64)
    targets = TorchTargets(network, settings)
    generator = torch.Generator().manual_seed(0)

    def random(*hw: int) -> Tensor:
        return torch.rand(1, 3, *hw, generator=generator, dtype=torch.float64)

    objectives = [pyramid_of(random(48, 67), random(51, 50), settings, targets) for _ in range(3)]
    return network, objectives, [random(48, 67) for _ in range(3)]


def scenes(network: VGG, number: int, **extra: Any) -> Iterator[Scene]:
    """Different pictures of one size."""
    settings = resolve(QUICK, {"style_levels": 2, **extra})
    for seed in range(number):
        generator = torch.Generator().manual_seed(seed)
        content, style = (torch.rand(3, 40, 48, generator=generator) for _ in range(2))
        yield prepare(content, [style], settings, TorchTargets(network, settings), device=CPU)


def error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest relative error of terms, total and gradient."""
    return max(float((f - w).norm() / w.norm()) for f, w in zip(found, wanted, strict=True))


def test_one_pass_finds_what_several_do(case: Case) -> None:
    """Terms, total and gradient of each picture in a batch equal those of a separate evaluation, to 1e-12."""
    network, objectives, images = case
    values, totals, gradients = batched(network, tuple(objectives), torch.cat(images))
    terms = values.view(3, -1)
    for i, (objective, image) in enumerate(zip(objectives, images, strict=True)):
        found = terms[i], totals[i], gradients[i : i + 1]
        assert error(found, whole(network, objective, image)) < 1e-12


def test_each_gets_its_own(case: Case) -> None:
    """Each of several threads gets the evaluation of its own picture, by the evaluation that it passed."""
    network, objectives, images = case
    batching, all_there = Batching(), Barrier(3)

    def ask(i: int) -> float:
        with batching.joined():
            all_there.wait()
            way = checkpointed if i == 2 else whole
            found = batching(way, network, objectives[i], images[i])
        return error(found, whole(network, objectives[i], images[i]))

    with ThreadPoolExecutor(3) as pool:
        assert max(pool.map(ask, range(3))) < 1e-12


def test_shared_passes_give_the_same_pictures(
    weights: Mapping[str, Tensor],
) -> None:
    """Pictures painted at the same time end like those painted alone, and most of their passes are shared."""
    settings = [resolve(QUICK, {"style_levels": 2, "iterations": (12, n)}) for n in (14, 5)]
    network = VGG(weights, settings[0].layers)
    painted = list(scenes(network, 2))
    alone = [
        [step.image().clone() for step in stylize(scene, network, s)][-1]
        for scene, s in zip(painted, settings, strict=True)
    ]
    passes: list[int] = []

    def counted(network: VGG, objectives: Any, images: Any) -> Any:
        passes.append(len(objectives))
        return batched(network, objectives, images)

    # The clock runs ahead by less in each trial: the second way, one pass, is the faster one.
    ticks = count()
    batching = Batching(lambda: -float(next(ticks) ** 2), trials=1, one_pass=counted)

    def paint(i: int) -> Tensor:
        steps = stylize(painted[i], network, settings[i], batching=batching)
        return [step.image().clone() for step in steps][-1]

    with ThreadPoolExecutor(2) as pool:
        with batching.joined():  # or the first could be over before the second begins
            ends = [pool.submit(paint, i) for i in range(2)]
            while batching.waiting < 2:
                time.sleep(0.001)  # for the threads, which nothing else tells of
        side_by_side = [end.result() for end in ends]
    # Both take 12 and 5 steps; at either size the first is a trial of the other way.
    assert passes == [2] * (11 + 4)
    for mine, own in zip(side_by_side, alone, strict=True):
        assert float((mine - own).abs().max()) < 0.02


class Timed(VGG):
    """A network that notes the size of each batch, and takes `seconds` of a test's clock for it."""

    now = 0.0
    seconds: ClassVar[dict[int, float]] = {}
    batches: ClassVar[list[int]] = []

    def normalised(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        self.now += self.seconds[len(image)]
        return super().normalised(image)


@pytest.mark.parametrize("in_one_pass", [1.0, 3.0])
def test_the_faster_way_is_used(case: Case, in_one_pass: float) -> None:
    """Both ways are timed equally often, and then only the faster one is used."""
    network, objectives, images = case
    network.__class__ = Timed
    assert isinstance(network, Timed)
    network.seconds, network.batches = {1: 1.0, 2: in_one_pass}, []  # type: ignore[misc]
    batching, rounds = Batching(lambda: network.now), 2 * TRIALS + 3
    meeting = Barrier(2)

    def ask(i: int) -> None:
        with batching.joined():
            meeting.wait()
            for _ in range(rounds):
                batching(whole, network, objectives[i], images[i])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, range(2)))
    faster = 2 if in_one_pass < 2 else 1
    levels = len(objectives[0].levels)  # one pass for each
    assert network.batches.count(2) == levels * (TRIALS + 3 * (faster == 2))
    assert network.batches.count(1) == levels * 2 * (TRIALS + 3 * (faster == 1))


def test_a_batch_that_does_not_fit_is_taken_apart(case: Case) -> None:
    """If one pass runs out of memory, all are evaluated one by one; another error reaches every waiting thread."""
    network, objectives, images = case
    trouble: list[Exception] = [MemoryError()]

    def fails(*_: Any) -> Any:
        raise trouble[-1]

    # The clock runs ahead by less in each trial: the second way, one pass, is the faster one.
    ticks = count()
    batching = Batching(lambda: -float(next(ticks) ** 2), trials=1, one_pass=fails)
    meeting = Barrier(2)

    def ask(i: int) -> bool:
        with batching.joined():
            meeting.wait()
            for _ in range(2):  # a trial of each way
                batching(whole, network, objectives[i], images[i])
            found = batching(whole, network, objectives[i], images[i])
            meeting.wait()
            trouble.append(RuntimeError("the device failed"))
            with pytest.raises(RuntimeError, match="the device failed"):
                batching(whole, network, objectives[i], images[i])
        return error(found, whole(network, objectives[i], images[i])) == 0

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == [True, True]


def test_a_failing_evaluation_does_not_block_the_others(case: Case) -> None:
    """An evaluation that raises does so in its own thread; the other threads get their results."""
    network, objectives, images = case
    batching, meeting = Batching(), Barrier(2)

    def broken(*_: Any) -> Any:
        raise ValueError("broken")

    def ask(i: int) -> str:
        try:
            with batching.joined():
                meeting.wait()
                for _ in range(1 + i):
                    batching([broken, whole][i], network, objectives[i], images[i])
        except ValueError as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == ["broken", "done"]
