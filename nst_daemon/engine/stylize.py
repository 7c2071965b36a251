"""The painting loop: `stylize` optimises a prepared `Scene` step by step, from coarse to fine."""

from __future__ import annotations

import copy
import gc
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from nst_daemon.engine import color
from nst_daemon.engine.cuda_graph import Repeated, Run
from nst_daemon.engine.device import current_device
from nst_daemon.engine.images import resize, size_of
from nst_daemon.engine.iteration import Iteration
from nst_daemon.engine.memory import (
    MemoryPlan,
    empty_cache,
    exhausted,
    first_fitting,
    free_memory,
    out_of_memory,
)
from nst_daemon.engine.optimizers import LBFGS, Adam
from nst_daemon.engine.preconditioner import Preconditioner
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.scene import Scale, Scene
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.vgg import VGG, compute_dtype
from nst_daemon.errors import PaintingError, SettingsError, first_line
from nst_daemon.pictures.raster import Size
from nst_daemon.units import size

log = logging.getLogger(__name__)

#: Iterations between two checks of the loss on the host: reading it more often would slow a GPU down.
CHECK_INTERVAL = 10
MAX_ROLLBACKS = 5
#: A loss this many times that of the last good picture, and above that of zero activations, has diverged.
DIVERGENCE_FACTOR = 4.0
#: Root mean square of L-BFGS's first step and of its longest, in units of the pixels' range.
FIRST_STEP, LONGEST_STEP = 0.01, 0.5

#: With `style_loss: neighbours` a picture of one size is painted with `VGG.quick` if it has at most this many
#: iterations: up to then the loss falls as fast as with direct convolutions, but the end of a long run takes more
#: iterations. Gram matrices add up the errors (benchmarks/NOTES.md).
QUICK_ITERATIONS = 100

_REMEDY = "try other settings (a smaller step, precision float32) or other weights"


class Step:
    """The state of a painting after one iteration. Its methods are valid until the next step is requested.

    Attributes:
        iteration: From 1, over all scales; it jumps if a scale ends early.
        iterations: Planned in total.
        scale: From 1.
        scales: How many there are.
        size: Height and width at this scale.
        events: Rollbacks, changes of the memory plan and early ends since the start, one line each.
        last: Whether the painting ends with this step; it may end before the planned iterations are done.
    """

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self.iteration = loop.offset + loop.done
        self.iterations = sum(loop.planned)
        self.scale = loop.scale + 1
        self.scales = len(loop.planned)
        self.size = loop.now.size
        self.events = tuple(loop.events)
        self.last = loop.at_the_end
        self._objective, self._values = loop.objective, loop.values

    @property
    def losses(self) -> Mapping[str, float]:
        """Unweighted terms, their sums and the weighted total (`Objective.by_name`), of `image` before averaging.

        Reading it waits for the device.
        """
        return self._objective.by_name(self._values)

    def image(self) -> Tensor:
        """(1, 3, h, w) in [0, 1], on the device, recoloured as the settings say."""
        loop = self._loop
        picture = loop.picture().clamp(0, 1)
        # While the next scale is prepared, the picture is still of the scale before.
        scale = next(s for s in loop.scene.scales if s.size == size_of(picture))
        return color.after(picture, scale.colors, loop.settings)

    def state(self, *, copied: bool = True) -> dict[str, Any]:
        """Everything needed to resume from here: plain values and CPU tensors, for torch.save.

        copied: False for the painting's own tensors, which change with the next step.
        """
        return self._loop.state(copied=copied)

    def settle(self) -> None:
        """Replace a non-finite picture by the last good one, with its losses and one more event.

        The last step of a painting is settled already; a step at which the painting is interrupted may not be.

        Raises:
            PaintingError: No picture of this painting had a finite loss.
        """
        loop = self._loop
        if loop.diverged or not self._values.isfinite().all():
            loop.end_with_good("the loss was not finite")
            self._objective, self._values = loop.objective, loop.values
            self.events = tuple(loop.events)


def stylize(
    scene: Scene,
    network: VGG,
    settings: RenderSettings,
    *,
    state: Mapping[str, Any] | None = None,
    plans: Sequence[MemoryPlan] = (),
    free: Callable[[torch.device], float] = free_memory,
    repeat: Callable[[Run], Run] | None = None,
) -> Generator[Step]:
    """Paint a scene, yielding after every iteration; the last step's image is the result.

    Args:
        scene: From `engine.scene.prepare`.
        network: float32, on the scene's device, with the settings' pooling and padding.
        settings: Those of the scene.
        state: Of an earlier `Step` of the same scene and settings. On a CPU, or with `deterministic`, the result is
            the same to the bit.
        plans: From the fastest to the one with the least memory; the scene's unless given.
        free: Bytes of memory that are free on a device.
        repeat: Makes a function that repeats an iteration; `cuda_graph.Repeated` on a GPU unless given.

    Raises:
        PaintingError: The loss stays non-finite or diverges in spite of rolling back.
        SettingsError: `state` belongs to another scene or other settings.
        OutOfMemory: No plan fits.
    """
    device = scene.start.device
    if repeat is None and device.type == "cuda":
        repeat = Repeated
    # Device and determinism are set only inside a step, not while the caller's code runs.
    with current_device(device):
        loop = _Loop(
            scene,
            network,
            settings,
            plans=plans or scene.plans,
            free=free,
            repeat=repeat,
        )
        if state is not None:
            loop.load(state)
    if state is not None and loop.at_the_end:  # saved at the last step
        yield Step(loop)
    while True:
        with current_device(device), deterministic(settings.deterministic):
            if not loop.advance():
                return
        yield Step(loop)


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Use only algorithms that sum in a fixed order, as far as they exist (a warning names the others).

    `Painter` has configured cuBLAS, which reads its setting only once.
    """
    if not wanted:
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    memory.fill_uninitialized_memory = False  # nothing reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        memory.fill_uninitialized_memory = filled


class _Loop:
    """The changing state of one painting: its scale, its iteration, its optimiser."""

    optimizer: LBFGS | Adam
    preconditioner: Preconditioner
    iteration: Iteration
    run: Run  # does an iteration
    values: Tensor  # (terms,) of the optimiser's solution
    moved: Tensor  # () bool: a step was accepted since the last check
    objective: Pyramid
    begun: Tensor  # (1, 3, h, w), the picture that the scale began with
    origin: Tensor  # (1, 3, h, w), where the optimiser started
    good: Tensor  # (1, 3, h, w), the best picture that a check has seen at this scale, at first the start
    good_loss: float  # infinite until a check has seen a picture
    good_values: Tensor  # (terms,) of `good`; NaN until it is evaluated
    fresh: bool  # the optimiser has been told nothing since it started
    zero_loss: Tensor  # (), the total for activations that are all zero

    def __init__(
        self,
        scene: Scene,
        network: VGG,
        settings: RenderSettings,
        *,
        plans: Sequence[MemoryPlan],
        free: Callable[[torch.device], float],
        repeat: Callable[[Run], Run] | None,
    ) -> None:
        self.scene, self.settings = scene, settings
        self.network = network
        self.free, self.repeat = free, repeat
        dtype = compute_dtype(settings.precision, scene.start.device)
        self.fast_network = network.computing_in(dtype)
        counts = settings.iterations
        self.planned = [counts[min(i, len(counts) - 1)] for i in range(len(scene.scales))]
        self.quick = _quick_scales(scene, settings, self.planned)
        self.events: list[str] = []
        self.rollbacks = 0
        self.plans = plans
        self.plan = 0  # the index of the plan in use
        self.first_plan = 0  # the plans before it have run out of memory
        self.scale = -1
        self.ended = True
        self.done = 0

    @property
    def now(self) -> Scale:
        return self.scene.scales[self.scale]

    @property
    def offset(self) -> int:
        """Iterations planned for the scales before this one."""
        return sum(self.planned[: self.scale])

    @property
    def at_the_end(self) -> bool:
        """True if no iteration is left."""
        return self.ended and self.scale + 1 == len(self.planned)

    def picture(self) -> Tensor:
        """(1, 3, h, w), not yet clamped to [0, 1]."""
        return self.preconditioner.picture(self.optimizer.solution())

    def advance(self) -> bool:
        """Do one iteration, with a smaller memory plan if memory runs out; False if no iteration is left."""
        if self.at_the_end:
            return False
        cause = None
        while True:
            try:
                self._try(cause)
                return True
            except Exception as error:
                if not exhausted(error):
                    raise
                # The error refers to what filled the memory; only one line of it is kept.
                cause = first_line(error)

    def _try(self, cause: str | None) -> None:
        """Do one iteration. cause: what the try before ran out of memory with."""
        if cause:
            self._use_less_memory(cause)
        if self.at_the_end:  # memory ran out in the last check
            self.end_with_good("out of memory")
            return
        if self.ended:
            self._next_scale()
        self._iterate()

    def _iterate(self) -> None:
        if self.done == 0:
            self.zero_loss = self.objective.terms_at_zero(self.begun) @ self.objective.weights
        self.run()
        if self.fresh:  # the picture that the optimiser started from was evaluated
            self.good_values, self.fresh = self.iteration.told.clone(), False
        self.done += 1
        self.ended = self.done == self.planned[self.scale]
        if self.done % CHECK_INTERVAL == 0 or self.ended:
            self._check()
        if self.done == self.planned[self.scale] // 2:
            self.optimizer.set_step(self._step())

    def _repeated(self, iteration: Iteration) -> Run:
        """The iteration, captured if possible.

        Tiles are so large that capturing gains nothing, and eigenvalues are computed with the host's help.
        """
        capturable = not self.plans[self.plan].tile and self.settings.style_loss != "wasserstein"
        return self.repeat(iteration) if self.repeat and capturable else iteration

    def _network(self) -> VGG:
        if self.rollbacks:
            return self.network
        return self.fast_network.quick() if self.quick[self.scale] else self.fast_network

    def _next_scale(self) -> None:
        if self.scale < 0:
            base, moments = self.scene.start, None
        else:
            finer = self.scene.scales[self.scale + 1]
            base = self._enlarged(finer)
            moments = self._enlarged_moments(finer.size)
            self.optimizer.release()
        self._forget("iteration", "run", "objective", "good_values")  # they hold memory
        self._return_freed()
        self.scale += 1
        self.done, self.ended = 0, False
        self.begun = base
        self._choose_plan()
        self._find_targets()
        self._return_freed()
        self._begin(base, moments)

    def _return_freed(self) -> None:
        """On a CPU, return freed memory to the system: blocks of other sizes are needed next."""
        if self.scene.start.device.type == "cpu":
            empty_cache(self.scene.start.device)

    def _find_targets(self) -> None:
        """Make the scale's objective; from one picture it is the same to the bit, also after a rollback."""
        try:
            self.objective = self.now.objective.begin(self.fast_network, self.begun)
        except Exception as error:
            if not exhausted(error):
                raise
            # The features that are compared are not in tiles: no plan needs less memory for them.
            raise out_of_memory(self.now.size, first_line(error), self.settings) from None

    def _choose_plan(self) -> None:
        """Use the first plan that the scale fits by estimate."""
        memory = self.free(self.scene.start.device)
        room = memory + self.scene.held_bytes
        fitting = first_fitting(self.plans, self.now.size, self._network(), room)
        before, self.plan = self.plan, max(fitting, self.first_plan)
        if self.plan and self.plan != before:
            self._note(f"{size(memory)} of memory is free: {self.plans[self.plan]}")

    def _use_less_memory(self, cause: str) -> None:
        """Resume from the last good picture with the next plan."""
        if self.plan + 1 == len(self.plans):
            raise out_of_memory(self.now.size, cause, self.settings)
        self.plan = self.first_plan = self.plan + 1
        self._note(f"out of memory ({cause}): {self.plans[self.plan]}")
        before = self.__dict__.get("optimizer")  # None if there was no memory for it either
        moments = before.moments() if isinstance(before, Adam) else None
        del before
        self._forget("optimizer", "iteration", "run")
        gc.collect()  # errors and their tracebacks are in cycles with what filled the memory
        empty_cache(self.scene.start.device)
        self._begin(self.good, moments)

    def _forget(self, *names: str) -> None:
        """Free the memory of attributes that are set again later."""
        for name in names:
            self.__dict__.pop(name, None)

    def _begin(self, base: Tensor, moments: Mapping[str, Tensor] | None = None) -> None:
        """Start a new optimiser from a picture, with no history but the moments given."""
        s = self.settings
        self._forget("optimizer", "iteration", "run")  # two of them may not fit
        self.origin = base
        self.good, self.good_loss, self.fresh = base, float("inf"), True
        self.preconditioner = Preconditioner(base, s.precondition)
        start, step = self.preconditioner.start(), self._step()
        if s.optimizer == "lbfgs":
            self.optimizer = LBFGS(
                start,
                step=step,
                history=self.plans[self.plan].history,
                first=FIRST_STEP,
                longest=LONGEST_STEP,
                stored=self.plans[self.plan].stored,
            )
        else:
            self.optimizer = Adam(
                start,
                step=step,
                betas=s.betas,
                averaging=s.averaging,
                clamp=s.clamp and not s.precondition,
                moments=moments,
            )
        if "good_values" not in self.__dict__:
            terms = len(self.objective.names)
            self.good_values = torch.full((terms,), torch.nan, device=base.device)
        self.values = self.good_values.clone()
        self.moved = torch.zeros((), dtype=torch.bool, device=base.device)
        evaluation = self.plans[self.plan].evaluation
        self.iteration = Iteration(
            partial(evaluation, self._network(), self.objective),
            self.optimizer,
            self.preconditioner,
            clamp=s.clamp,
            values=self.values,
            moved=self.moved,
        )
        self.run = self._repeated(self.iteration)

    def _step(self) -> float:
        """The optimiser's step: halved by each rollback, decayed in the second half of the scale."""
        s = self.settings
        decayed = self.done >= self.planned[self.scale] // 2
        return s.step * 0.5**self.rollbacks * (s.step_decay if decayed else 1.0)

    def _check(self) -> None:
        """Decide on the host whether the optimisation goes well and is worth continuing."""
        total = self.values @ self.objective.weights
        # One tensor, so that the host waits for the device once.
        loss, moved, zero_loss = torch.stack(
            [total, self.moved.to(total.dtype), self.zero_loss]
        ).tolist()
        before, limit = self.good_loss, DIVERGENCE_FACTOR * self.good_loss
        if not isfinite(before):
            # The first check compares with the start. Adam's first steps may add noise to a smooth start, from which
            # it recovers, so the loss of zero activations is the least reference.
            before = self._total(self.good_values)
            limit = DIVERGENCE_FACTOR * max(before, zero_loss)
        self.moved.zero_()
        if not isfinite(loss):
            self._roll_back("the loss was not finite")
        elif loss > limit and loss > zero_loss:
            self._roll_back(f"the loss diverged from {before:.4g} to {loss:.4g}")
        elif not moved and not self.rollbacks:
            self._roll_back(f"no step improved on a loss of {loss:.4g}")
        elif not moved or self._stalled(loss):
            if not self.ended:
                self._note(f"ended early at a loss of {loss:.4g} that no longer improves")
            self.ended = True
        elif loss < self.good_loss:
            self.good, self.good_loss, self.good_values = self.picture(), loss, self.values.clone()

    def _total(self, values: Tensor) -> float:
        """The weighted total of terms (terms,), on the host."""
        return float(values @ self.objective.weights)

    def _stalled(self, loss: float) -> bool:
        least = self.settings.min_improvement
        return least > 0 and self.good_loss - loss < least * self.good_loss

    def _roll_back(self, reason: str) -> None:
        """Resume from the last good picture more carefully, or end with it if no iteration is left."""
        if self.at_the_end:
            self.end_with_good(reason)
            return
        self.rollbacks += 1
        if self.rollbacks > MAX_ROLLBACKS:
            raise PaintingError(f"{reason} after {MAX_ROLLBACKS} rollbacks", remedy=_REMEDY)
        self._note(
            f"{reason}: back to the last good picture, continuing in float32 with half the step"
        )
        self._begin(self.good)

    @property
    def diverged(self) -> bool:
        """True if the current picture was evaluated and its loss is not finite."""
        return not self.fresh and not self.values.isfinite().all()

    def end_with_good(self, reason: str) -> None:
        """Take the last good picture as the result, with its losses. Raises PaintingError if there is none."""
        self._begin(self.good)
        if not self.values.isfinite().all():  # only an earlier scale had a good picture
            self.values.copy_(self.iteration.evaluate()[0])
        if not self.values.isfinite().all():
            raise PaintingError(
                f"{reason}, and no earlier picture had a finite loss", remedy=_REMEDY
            )
        self._note(f"{reason}: the result is the last good picture")

    def _note(self, text: str) -> None:
        self.events.append(f"scale {self.scale + 1}, iteration {self.done}: {text}")
        log.info("%s", self.events[-1])

    def _enlarged(self, finer: Scale) -> Tensor:
        """The picture at the next size, with some of the content's detail that enlarging cannot add."""
        larger = resize(self.picture(), finer.size)
        if not self.settings.content_weight or not self.settings.detail:
            return larger
        blurred = resize(self.now.content.to(larger.dtype), finer.size)
        return larger + self.settings.detail * (finer.content - blurred)

    def _enlarged_moments(self, size: Size) -> Mapping[str, Tensor] | None:
        """Adam's moments at the next size (crowsonkb, style-transfer-pytorch); second moments stay positive."""
        if not isinstance(self.optimizer, Adam):
            return None
        moments = dict(self.optimizer.moments())
        for name in ("exp_avg", "exp_avg_sq"):
            mode = "bicubic" if name == "exp_avg" else "bilinear"
            map_ = moments[name].view(self.preconditioner.shape)
            moments[name] = torch.nn.functional.interpolate(map_, size=size, mode=mode).flatten()
        return moments

    def state(self, *, copied: bool) -> dict[str, Any]:
        tensors = {name: getattr(self, name) for name in (*self._TENSORS, *self._IN_PLACE)}
        taken = _copied if copied else dict
        return {
            "settings": asdict(self.settings),
            "sizes": [list(scale.size) for scale in self.scene.scales],
            "tensors": taken(tensors),
            "optimizer": taken(self.optimizer.state()),
            **{name: copy.copy(getattr(self, name)) for name in self._VALUES},
        }

    _TENSORS = ("begun", "origin", "good", "good_values", "zero_loss")
    _IN_PLACE = ("values", "moved")
    _VALUES = (
        "scale", "done", "ended", "rollbacks", "events", "plan", "first_plan", "good_loss", "fresh",
    )  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        sizes = [list(scale.size) for scale in self.scene.scales]
        if state["settings"] != asdict(self.settings) or state["sizes"] != sizes:
            raise SettingsError(
                "the saved state belongs to other settings or sizes",
                remedy="start from the beginning without it",
            )
        values = {name: copy.copy(state[name]) for name in self._VALUES}
        self.__dict__.update(values)
        device = self.scene.start.device
        tensors = {name: t.to(device, copy=True) for name, t in state["tensors"].items()}
        self.begun = tensors["begun"]
        self._find_targets()
        self._begin(tensors["origin"])
        self.optimizer.load(state["optimizer"])
        for name in self._IN_PLACE:  # the iteration has them
            getattr(self, name).copy_(tensors.pop(name))
        self.__dict__.update(tensors)
        self.good_loss, self.fresh = state["good_loss"], state["fresh"]


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _quick_scales(scene: Scene, settings: RenderSettings, planned: Sequence[int]) -> list[bool]:
    """For each scale, whether it is painted with `VGG.quick`: `QUICK_ITERATIONS` is for all passes at its size."""
    totals: Counter[Size] = Counter()
    for scale, count in zip(scene.scales, planned, strict=True):
        totals[scale.size] += count
    suitable = settings.style_loss == "neighbours"
    return [suitable and totals[scale.size] <= QUICK_ITERATIONS for scale in scene.scales]
