"""Pictures painted at the same time, each in its own thread, with one pass through the network for all of them.

Small pictures do not fill a GPU: a batch of several takes little longer than one. Each picture keeps its own objective
and optimiser; only the evaluations are shared.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from nst_daemon.engine.cuda_graph import CudaGraphEvaluation
from nst_daemon.engine.evaluation import Evaluation, whole
from nst_daemon.engine.losses import Objective, Sums
from nst_daemon.engine.memory import exhausted
from nst_daemon.engine.pyramid import Evaluated, Pyramid, over_levels
from nst_daemon.engine.vgg import VGG

#: How often each way is timed before the one with the better best time is used.
TRIALS = 4
#: Sizes whose times are remembered: a bound for services that run for months.
SIZES = 1000

#: Evaluates several objectives, each at its own picture of (B, 3, H, W).
BatchEvaluation = Callable[[VGG, tuple[Pyramid, ...], Tensor], Evaluated]


def batched(network: VGG, pyramids: tuple[Pyramid, ...], images: Tensor) -> Evaluated:
    """`evaluation.whole` of each of the images (B, 3, H, W), in one pass for each level.

    The pyramids have equal numbers of levels.

    Returns:
        The terms of all pictures in a row, the totals (B,) and the gradients (B, 3, H, W).
    """

    def evaluate(k: int, pictures: Tensor) -> Evaluated:
        return _batched_level(network, [pyramid.levels[k] for pyramid in pyramids], pictures)

    values, totals, gradients = over_levels(evaluate, images, len(pyramids[0].levels))
    return torch.stack(values).sum(0), torch.stack(totals).sum(0), gradients


def _batched_level(network: VGG, objectives: Sequence[Objective], images: Tensor) -> Evaluated:
    """`batched` at one level."""
    batch = images.detach().requires_grad_()
    rows = [slice(i, i + 1) for i in range(len(objectives))]
    with torch.enable_grad():
        x, sums = network.normalised(batch), [Sums() for _ in objectives]
        for stage in network.stages():
            x, maps = network.part(x, stage)
            sums = [
                own + objective.sums({layer: map_[row] for layer, map_ in maps.items()})
                for objective, own, row in zip(objectives, sums, rows, strict=True)
            ]
        values = [
            objective.terms(own, batch[row])
            for objective, own, row in zip(objectives, sums, rows, strict=True)
        ]
        totals = torch.stack([v @ o.weights for v, o in zip(values, objectives, strict=True)])
        (gradient,) = torch.autograd.grad(totals.sum(), batch)
    return torch.cat(values).detach(), totals.detach(), gradient


@dataclass(eq=False)
class EvaluationRequest:
    """An evaluation that a thread waits for, and its result or error."""

    evaluation: Evaluation
    network: VGG
    objective: Pyramid
    image: Tensor
    result: Evaluated | None = None
    error: Exception | None = None

    @property
    def group(self) -> tuple[object, ...]:
        """Requests with the same value can be evaluated in one pass."""
        evaluation = self.evaluation
        plain = evaluation.evaluation if isinstance(evaluation, CudaGraphEvaluation) else evaluation
        levels = len(self.objective.levels)
        return (self.network, self.image.shape, levels) if plain is whole else (self,)

    def answer(self) -> None:
        """Evaluate, and keep the result or the error."""
        try:
            self.result = self.evaluation(self.network, self.objective, self.image)
        except Exception as error:  # noqa: BLE001 (raised in the thread that waits)
            self.error = error


class Batching:
    """Collects the evaluations of all pictures that are painted at the same time.

    Each painting is a member while `joined`, and calls this object instead of its evaluation. A call returns once all
    members have called or left. Requests of one size and network, evaluated whole, share a pass if that has proved
    faster: at first both ways are taken in turn, and timed.

    Args:
        clock: Seconds.
        trials: How often each way is timed.
        one_pass: Evaluates several pictures in one pass.
    """

    def __init__(
        self,
        clock: Callable[[], float] = perf_counter,
        *,
        trials: int = TRIALS,
        one_pass: BatchEvaluation = batched,
    ) -> None:
        self._clock, self._trials, self._one_pass = clock, trials, one_pass
        self._changed = threading.Condition()  # guards what follows
        self._members = 0
        self._requests: list[EvaluationRequest] = []
        # (number of pictures, their shape, in one pass?) → seconds
        self._times: dict[tuple[int, torch.Size, bool], list[float]] = defaultdict(list)
        # (number of pictures, their shape) → the pass as a CUDA graph
        self._graphs: dict[tuple[int, torch.Size], CudaGraphEvaluation[tuple[Pyramid, ...]]] = {}

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the other members."""
        return len(self._requests)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be a member, for which the others wait."""
        self._change_members(1)
        try:
            yield
        finally:
            self._change_members(-1)

    def _change_members(self, by: int) -> None:
        with self._changed:
            self._members += by
            self._graphs.clear()  # of other pictures; they hold memory
            self._changed.notify_all()

    def __call__(
        self, evaluation: Evaluation, network: VGG, objective: Pyramid, image: Tensor
    ) -> Evaluated:
        """The result of the evaluation. Raises what it raises."""
        request = EvaluationRequest(evaluation, network, objective, image)
        with self._changed:
            self._requests.append(request)
            while request.result is None and request.error is None:
                if len(self._requests) >= self._members:
                    self._answer_all()
                    self._changed.notify_all()
                else:
                    self._changed.wait()
        if request.error is not None:
            try:
                raise request.error
            finally:
                # Its traceback refers to this frame: the cycle would keep alive all that filled the memory.
                request.error = None
        assert request.result is not None
        return request.result

    def _answer_all(self) -> None:
        groups: dict[object, list[EvaluationRequest]] = defaultdict(list)
        for request in self._requests:
            groups[request.group].append(request)
        self._requests = []
        for group in groups.values():
            # In the same order each time: a graph belongs to its objectives in their order.
            group.sort(key=lambda request: id(request.objective))
            try:
                if len(group) == 1:
                    group[0].answer()
                else:
                    self._answer_faster(group)
            except Exception as error:  # noqa: BLE001 (every waiting thread must get an answer)
                for request in group:
                    request.error = error

    def _answer_faster(self, group: list[EvaluationRequest]) -> None:
        """Answer several requests of one size in the way that is faster as far as known."""
        if len(self._times) > 2 * SIZES:
            self._times.clear()
        keys = [(len(group), group[0].image.shape, in_one) for in_one in (False, True)]
        singly, in_one = (self._times[key] for key in keys)
        if len(singly) < self._trials or len(in_one) < self._trials:
            one_pass_next = len(in_one) < len(singly)
            _synchronize(group)
            began = self._clock()
            (self._answer_in_one if one_pass_next else _answer_singly)(group)
            _synchronize(group)
            (in_one if one_pass_next else singly).append(self._clock() - began)
        elif min(in_one) < min(singly):
            self._answer_in_one(group)
        else:
            _answer_singly(group)

    def _answer_in_one(self, group: Sequence[EvaluationRequest]) -> None:
        """Answer in one pass, or one by one if memory does not suffice. Raises what the pass raises."""
        objectives = tuple(request.objective for request in group)
        try:
            images = torch.cat([request.image for request in group])
            result = self._batch_evaluation(group)(group[0].network, objectives, images)
        except Exception as error:
            if not exhausted(error):
                raise
            result = None
        if result is None:
            _answer_singly(group)
            return
        values, totals, gradients = result
        each = torch.split(values, [len(objective.names) for objective in objectives])
        for i, request in enumerate(group):
            request.result = each[i], totals[i], gradients[i : i + 1]

    def _batch_evaluation(self, group: Sequence[EvaluationRequest]) -> BatchEvaluation:
        """The pass for all, as a CUDA graph if the single evaluations are CUDA graphs."""
        if not isinstance(group[0].evaluation, CudaGraphEvaluation):
            return self._one_pass
        key = len(group), group[0].image.shape
        if key not in self._graphs:
            self._graphs[key] = CudaGraphEvaluation(self._one_pass)
        return self._graphs[key]


def _answer_singly(group: Sequence[EvaluationRequest]) -> None:
    for request in group:
        request.answer()


def _synchronize(group: Sequence[EvaluationRequest]) -> None:
    """Wait until the device has finished its work, so that times are comparable."""
    if group[0].image.is_cuda:
        torch.cuda.synchronize(group[0].image.device)
