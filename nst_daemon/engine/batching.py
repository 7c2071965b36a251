"""Pictures that are painted side by side, each by a thread of its own, with one pass through the network for all.

Small pictures do not fill a GPU: several of them in one batch take hardly longer than one. Each keeps its own
objective, optimiser and course; only the evaluations meet.
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

from nst_daemon.engine.cuda_graph import Recorded
from nst_daemon.engine.evaluation import Evaluation, Found, whole
from nst_daemon.engine.losses import Objective, Sums
from nst_daemon.engine.memory import exhausted
from nst_daemon.engine.vgg import VGG

#: How often each way is timed before the faster one is taken, by its best time.
TRIALS = 4
#: Sizes whose times are remembered; they are few where a batch pays, and in months there may be any number of others.
SIZES = 1000


def batched(network: VGG, objectives: tuple[Objective, ...], images: Tensor) -> Found:
    """As `evaluation.whole` of each of the images (B, 3, H, W), in one pass.

    Returns the terms of all in a row, the totals (B,) and the gradients (B, 3, H, W).
    """
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
class _Wish:
    """An evaluation that somebody waits for, and what became of it."""

    evaluation: Evaluation
    network: VGG
    objective: Objective
    image: Tensor
    found: Found | None = None
    error: Exception | None = None

    @property
    def alike(self) -> tuple[object, ...]:
        """What those must share that are evaluated in one pass."""
        found = self.evaluation
        plain = found.evaluation if isinstance(found, Recorded) else found
        return (self.network, self.image.shape) if plain is whole else (self,)


class Together:
    """Where the evaluations of all pictures that are being painted meet.

    Each painting has `joined`, and calls this instead of its evaluation. The call returns when all have called or left.
    Those of one size in one network, whole, are evaluated in one pass, where that has proven faster: both ways are
    taken in turn at first, and timed. clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._changed = threading.Condition()  # guards what follows
        self._members = 0
        self._wishes: list[_Wish] = []
        # (how many, their shape, in one pass?) → seconds
        self._times: dict[tuple[int, torch.Size, bool], list[float]] = defaultdict(list)
        # (how many, their shape) → the pass, where it is recorded
        self._recorded: dict[tuple[int, torch.Size], Recorded[tuple[Objective, ...]]] = {}

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be one of those whom the others wait for."""
        self._change_members(1)
        try:
            yield
        finally:
            self._change_members(-1)

    def _change_members(self, by: int) -> None:
        with self._changed:
            self._members += by
            self._recorded.clear()  # they were of others, and hold memory
            self._changed.notify_all()

    def __call__(
        self, evaluation: Evaluation, network: VGG, objective: Objective, image: Tensor
    ) -> Found:
        """What the evaluation finds. Raises what it raises."""
        wish = _Wish(evaluation, network, objective, image)
        with self._changed:
            self._wishes.append(wish)
            while wish.found is None and wish.error is None:
                if len(self._wishes) >= self._members:
                    self._fulfil()
                    self._changed.notify_all()
                else:
                    self._changed.wait()
        if wish.error is not None:
            try:
                raise wish.error
            finally:
                wish.error = None  # its traceback leads here: a cycle, in which all that filled the memory would stay
        assert wish.found is not None
        return wish.found

    def _fulfil(self) -> None:
        """Evaluate all that is wanted."""
        groups: dict[object, list[_Wish]] = defaultdict(list)
        for wish in self._wishes:
            groups[wish.alike].append(wish)
        self._wishes = []
        for group in groups.values():
            try:
                if len(group) == 1:
                    _singly(group)
                else:
                    self._faster(group)
            except Exception as error:  # noqa: BLE001 (nobody may be left waiting)
                for wish in group:
                    wish.error = error

    def _faster(self, group: list[_Wish]) -> None:
        """Several of one size, in the way that is faster as far as is known."""
        if len(self._times) > 2 * SIZES:
            self._times.clear()
        keys = [(len(group), group[0].image.shape, in_one) for in_one in (False, True)]
        singly, in_one = (self._times[key] for key in keys)
        if len(singly) < TRIALS or len(in_one) < TRIALS:
            way, times = (_singly, singly) if len(singly) <= len(in_one) else (self._in_one, in_one)
            _wait_for(group)
            began = self._clock()
            way(group)
            _wait_for(group)
            times.append(self._clock() - began)
        elif min(in_one) < min(singly):
            self._in_one(group)
        else:
            _singly(group)

    def _in_one(self, group: Sequence[_Wish]) -> None:
        """In one pass; one after the other where there is no memory for that. Raises what the pass raises."""
        objectives = tuple(wish.objective for wish in group)
        try:
            images = torch.cat([wish.image for wish in group])
            found = self._pass(group)(group[0].network, objectives, images)
        except Exception as error:
            if not exhausted(error):
                raise
            found = None
        if found is None:
            _singly(group)
            return
        values, totals, gradients = found
        each = torch.split(values, [len(objective.names) for objective in objectives])
        for i, wish in enumerate(group):
            wish.found = each[i], totals[i], gradients[i : i + 1]

    def _pass(self, group: Sequence[_Wish]) -> Callable[..., Found]:
        """`batched`, recorded where the evaluations themselves are."""
        if not isinstance(group[0].evaluation, Recorded):
            return batched
        key = len(group), group[0].image.shape
        if key not in self._recorded:
            self._recorded[key] = Recorded(batched)
        return self._recorded[key]


def _singly(group: Sequence[_Wish]) -> None:
    """One after the other; each has its own error."""
    for wish in group:
        try:
            wish.found = wish.evaluation(wish.network, wish.objective, wish.image)
        except Exception as error:  # noqa: BLE001 (it is raised where it belongs)
            wish.error = error


def _wait_for(group: Sequence[_Wish]) -> None:
    """Until the device has done what it was given."""
    if group[0].image.is_cuda:
        torch.cuda.synchronize(group[0].image.device)
