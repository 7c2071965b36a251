"""The painting: `prepare` a scene, then `stylize` it step by step, from coarse to fine."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from nst_daemon.engine import color
from nst_daemon.engine.batching import Together
from nst_daemon.engine.cuda_graph import Recorded
from nst_daemon.engine.evaluation import Evaluation
from nst_daemon.engine.images import resize
from nst_daemon.engine.losses import Objective, StyleStatistics, TargetSource
from nst_daemon.engine.masks import Regions, StyleRegions, at_layer
from nst_daemon.engine.memory import exhausted, first_that_fits, free, ways
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.optimizers import LBFGS, Adam
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.vgg import MEAN, VGG, compute_dtype
from nst_daemon.errors import OutOfMemory, PaintingError, PictureError, SettingsError

log = logging.getLogger(__name__)

Size = tuple[int, int]  # (height, width) in pixels

#: The longer side that `size: auto` does not exceed.
AUTO_SIZE = {"cuda": 1280, "cpu": 512}
#: How often the host looks at the loss: rarely enough not to slow a GPU, often enough to lose little.
CHECK_EVERY = 10
MAX_ROLLBACKS = 5
BETTER_SETTINGS = "try other settings (a smaller step, precision float32) or other weights"
#: A region of a style with fewer positions than this at a layer has no statistics there.
LEAST = 0.1
#: A loss this many times that of the last good picture, and above that of zero activations, has diverged.
DIVERGED = 4.0
#: Root mean square of L-BFGS's first step and of its longest, in units of the pixels' range.
FIRST_STEP, LONGEST_STEP = 0.01, 0.5


@dataclass(frozen=True)
class Scale:
    """One size of the painting and its targets.

    content: (1, 3, h, w), as the network sees it; colors: the same in its own colours, for `color.after`.
    """

    size: Size
    content: Tensor
    colors: Tensor
    objective: Objective


@dataclass(frozen=True)
class Scene:
    """Everything about a picture that can be made ready while another one is being painted.

    size: of the result; start: (1, 3, h, w) at the coarsest scale; notes: what people should know, for the log and
    the sidecar.
    """

    size: Size
    scales: tuple[Scale, ...]
    start: Tensor
    notes: tuple[str, ...]

    @property
    def calibration(self) -> list[dict[str, float | list[float]]]:
        """What each term was divided by, for each scale; a list where it is done region by region."""
        energies = (scale.objective.energies for scale in self.scales)
        return [{name: e.squeeze().tolist() for name, e in each.items()} for each in energies]


def picture_size(content: Size, size: int | str, device: torch.device) -> Size:
    """(height, width) of the result: `size` is the longer side, `original` or `auto`; proportions are kept."""
    longer = max(content)
    if size == "original":
        return content
    wanted = min(longer, AUTO_SIZE.get(device.type, 512)) if size == "auto" else int(size)
    h, w = (max(1, round(side * wanted / longer)) for side in content)
    return h, w


def scale_sizes(size: Size, settings: RenderSettings) -> list[Size]:
    """The sizes to paint at, from coarse to fine, the last one being `size`.

    Raises SettingsError where `size` leaves the deepest layer nothing to see; smaller scales that would are left out.
    """
    least = minimum_side(settings.layers)
    if min(size) < least:
        raise SettingsError(
            f"a picture of {size[1]} × {size[0]} pixels is too small for layer "
            f"{max(settings.layers, key=lambda name: minimum_side([name]))}",
            remedy=f"its shorter side must be {least} pixels or more: set a larger size",
        )
    if isinstance(settings.scales, str):
        ratio = 2.0 if settings.scales == "halves" else sqrt(2)
        fractions = [1.0]
        while max(size) * fractions[0] / ratio >= settings.coarsest:
            fractions.insert(0, fractions[0] / ratio)
    else:
        fractions = list(settings.scales)
    sizes = [(round(size[0] * f), round(size[1] * f)) for f in fractions]
    return [s for s in sizes if min(s) >= least]


def prepare(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: RenderSettings,
    targets: TargetSource,
    *,
    device: torch.device,
    start: Tensor | None = None,
    regions: Regions | None = None,
) -> Scene:
    """Sizes, resized pictures, targets and calibration for each scale.

    content, styles, start: (3, H, W), RGB in [0, 1]; start: what to paint over where `settings.start` is `given`;
    regions: what masks say; without them every style goes everywhere. Raises SettingsError where settings and pictures
    do not go together, PictureError where a region is too small.
    """
    regions = regions or Regions((StyleRegions(),) * len(styles))
    shares = _shares(settings, styles, regions)
    colors = content
    content, styles = color.before(content, styles, settings)
    if (settings.start == "given") != (start is not None):
        raise SettingsError(
            f"setting start is {settings.start!r} and {'no' if start is None else 'a'} picture to start from is given",
            remedy="give a picture exactly where start is 'given'",
        )
    size = picture_size(_size(content), settings.size, device)
    sizes = scale_sizes(size, settings)
    _refuse_what_cannot_fit(size, settings, device)
    scales = []
    for scale_size in sizes:
        small = resize(content[None], scale_size)
        blended = _blend(_seen(styles, regions, scale_size, settings, targets), shares, regions)
        features = {k: v.to(device) for k, v in targets.content(small).items()}
        statistics = {
            k: StyleStatistics(v.gram.to(device), v.mean.to(device)) for k, v in blended.items()
        }
        guides = _guides(regions, scale_size, settings, device)
        objective = Objective(features, statistics, settings, guides)
        shown = small.to(device)
        own = shown if colors is content else resize(colors[None], scale_size).to(device)
        scales.append(Scale(scale_size, shown, own, objective))
    first = _start(settings, scales[0].content, styles[0], start)
    return Scene(size, tuple(scales), first.to(device), _notes(content, styles, size, settings))


def _refuse_what_cannot_fit(size: Size, settings: RenderSettings, device: torch.device) -> None:
    """Raises OutOfMemory where the picture and the optimiser alone are too large: better now than after hours."""
    least, memory = ways(settings)[-1], free(device)
    if least.canvas(size) > memory:
        raise out_of_memory(
            size, f"{memory / 1e9:.1f} GB are free", fits=least.largest_side(memory)
        )


def out_of_memory(size: Size, cause: str, fits: int = 0) -> OutOfMemory:
    """The error; fits: the longer side of a 4:3 picture for which there is room, 0 where nobody knows."""
    hint = f": about {fits} px should fit (4:3)" if fits else ""
    return OutOfMemory(
        f"{size[1]} × {size[0]} pixels do not fit into memory, in tiles either ({cause})",
        remedy=f"choose a smaller size{hint}, or free some memory",
    )


def style_size(style: Size, painted: Size, settings: RenderSettings) -> Size:
    """The style's size that gives it `style_scale`² times the area of the picture being painted.

    Strokes then keep their proportion to the picture at any size. Raises SettingsError where that leaves the deepest
    layer nothing to see.
    """
    factor = settings.style_scale * sqrt(painted[0] * painted[1] / (style[0] * style[1]))
    size = (max(1, round(style[0] * factor)), max(1, round(style[1] * factor)))
    least = minimum_side(settings.style_layers)
    if min(size) < least:
        raise SettingsError(
            f"setting style_scale {settings.style_scale} shows the style at {size[1]} × {size[0]} pixels",
            remedy=f"its style layers need {least} or more: set a larger style_scale or size",
        )
    return size


class Step:
    """The painting after one iteration. `losses`, `image` and `state` hold until the next step is asked for.

    iteration: from 1, over all scales (it jumps where a scale ends early); iterations: planned in all; scale: from 1;
    size: being painted; events: what went wrong and was mended since the start, or ended early, one line each.
    """

    def __init__(self, painting: _Painting) -> None:
        self._painting = painting
        self.iteration = painting.offset + painting.done
        self.iterations = sum(painting.plan)
        self.scale = painting.scale + 1
        self.scales = len(painting.plan)
        self.size = painting.now.size
        self.events = tuple(painting.events)

    @property
    def losses(self) -> Mapping[str, float]:
        """Unweighted terms, their sums and the weighted total (`Objective.by_name`), of `image` before averaging.

        Reading it waits for the device.
        """
        return self._painting.now.objective.by_name(self._painting.values)

    def image(self) -> Tensor:
        """(1, 3, h, w) in [0, 1], on the device, in the colours that the settings ask for."""
        painting = self._painting
        return color.after(painting.picture().clamp(0, 1), painting.now.colors, painting.settings)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from here: plain values and CPU tensors, for torch.save."""
        return self._painting.state()

    def settle(self) -> None:
        """Replace a non-finite picture by the last good one, with its losses and one more event.

        The last step of a painting is settled already; one at which a painting is interrupted may not be.

        Raises:
            PaintingError: No picture of this painting had a finite loss.
        """
        self._painting.settle()
        self.events = tuple(self._painting.events)


def stylize(
    scene: Scene,
    network: VGG,
    settings: RenderSettings,
    *,
    state: Mapping[str, Any] | None = None,
    together: Together | None = None,
) -> Generator[Step]:
    """Paint `scene`, yielding after every iteration; the last step's image is the picture.

    network: float32, on the scene's device, with the settings' pooling and padding; state: of an earlier `Step` of
    the same scene and settings: on a CPU, or with `deterministic`, the end is the same to the bit; together: where it
    meets the pictures that other threads paint at the same time.

    Raises PaintingError where the loss stays non-finite or diverges in spite of rolling back, SettingsError where
    `state` belongs to something else.
    """
    together = together or Together()
    # Never while somebody else's code runs, between the steps.
    with current(scene.start.device):
        painting = _Painting(scene, network, settings, together)
        if state is not None:
            painting.load(state)
    with together.joined():
        while True:
            with (
                current(scene.start.device),
                _reproducible() if settings.deterministic else nullcontext(),
            ):
                if not painting.advance():
                    return
            yield Step(painting)


def current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one of this thread, for what asks for no other: streams, graphs, handing tensors over."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _reproducible() -> Iterator[None]:
    """Only algorithms whose sums always run in the same order, where there is one (a warning says where not).

    cuBLAS has been told by `Painter`, because it listens only once.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


class _Coordinates:
    """What the optimiser moves: z, flat, with picture = base + irfft(rfft(z) · (0.52/(f + 0.02))^exponent).

    f is in cycles per pixel, so that the finest detail is moved one to one and broad changes many times as easily.
    The map is linear and self-adjoint. With exponent 0 z is the picture itself and the base is 0.
    """

    def __init__(self, base: Tensor, exponent: float) -> None:
        self.shape = base.shape
        self.exponent = exponent
        self.base = base if exponent else torch.zeros_like(base)
        self.start = (torch.zeros_like(base) if exponent else base).flatten()
        if exponent:
            h, w = base.shape[-2:]
            fy = torch.fft.fftfreq(h, device=base.device)[:, None]
            fx = torch.fft.rfftfreq(w, device=base.device)[None]
            self.gain = (0.52 / ((fy.square() + fx.square()).sqrt() + 0.02)) ** exponent

    def picture(self, z: Tensor) -> Tensor:
        """(1, 3, h, w) of z (n,)."""
        return self.base + self._spread(z.view(self.shape))

    def gradient(self, g: Tensor) -> Tensor:
        """With respect to z (n,), of one with respect to the picture."""
        return self._spread(g).flatten()

    def _spread(self, x: Tensor) -> Tensor:
        if not self.exponent:
            return x
        spread: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * self.gain, s=x.shape[-2:])
        return spread


class _Painting:
    """The moving parts of one picture: which scale, how far, and what the optimiser knows."""

    optimizer: LBFGS | Adam
    coordinates: _Coordinates
    evaluation: Evaluation
    origin: Tensor  # (1, 3, h, w), where the optimiser set out
    good: Tensor  # (1, 3, h, w), the best picture that a check has seen at this scale, at first the start
    fresh: bool  # has the optimiser told nothing since it set out
    good_loss: float  # infinite until a check has seen a picture
    good_values: Tensor  # (terms,), of `good`; NaN until it is evaluated
    values: Tensor  # (terms,), of the optimiser's solution
    moved: Tensor  # () bool, has any step been accepted since the last check
    blank: Tensor  # (), the total for activations that are all zero

    def __init__(
        self, scene: Scene, network: VGG, settings: RenderSettings, together: Together
    ) -> None:
        self.scene, self.settings = scene, settings
        self.network = network
        self.together = together
        dtype = compute_dtype(settings.precision, scene.start.device)
        self.fast_network = network.computing_in(dtype)
        counts = settings.iterations
        self.plan = [counts[min(i, len(counts) - 1)] for i in range(len(scene.scales))]
        self.events: list[str] = []
        self.rollbacks = 0
        self.ways = ways(settings)
        self.way = 0  # which of them is gone
        self.tried = 0  # those before it have run out of memory
        self.scale = -1
        self.ended = True
        self.done = 0

    @property
    def now(self) -> Scale:
        return self.scene.scales[self.scale]

    @property
    def offset(self) -> int:
        """Iterations planned for the scales before this one."""
        return sum(self.plan[: self.scale])

    def picture(self) -> Tensor:
        """(1, 3, h, w), not yet held in [0, 1]."""
        return self.coordinates.picture(self.optimizer.solution())

    def advance(self) -> bool:
        """One iteration, in less memory where that runs out; False where there is none left."""
        if self.ended and self.scale + 1 == len(self.plan):
            return False
        cause = None
        while True:
            try:
                if cause:
                    self._step_down(cause)
                if self.ended:
                    self._next_scale()
                self._iterate()
                return True
            except Exception as error:
                if not exhausted(error):
                    raise
                # What filled the memory goes with the error, so all that is kept of it is a line.
                cause = str(error).partition("\n")[0] or "no more is given"

    def _iterate(self) -> None:
        z = self.optimizer.propose()
        values, total, gradient = self._evaluate(z)
        self.optimizer.tell(total, gradient)
        if self.fresh:  # z was the picture that the optimiser set out from
            self.good_values, self.fresh = values, False
        self.values = torch.where(self.optimizer.accepted, values, self.values)
        self.moved = self.moved | self.optimizer.accepted
        self.done += 1
        self.ended = self.done == self.plan[self.scale]
        if self.done % CHECK_EVERY == 0 or self.ended:
            self._check()
        if self.done == self.plan[self.scale] // 2:
            self.optimizer.set_step(self._step())

    def _evaluate(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Terms (terms,), total () and gradient with respect to z (n,)."""
        network, objective = self._network(), self.now.objective
        free = self.coordinates.picture(z)
        image = free.clamp(0, 1) if self.settings.clamp else free
        if self.done == 0:
            self.blank = objective.blank(image) @ objective.weights
        values, total, gradient = self.together(self.evaluation, network, objective, image)
        if self.settings.clamp:
            # The objective of the picture as it is saved. Where a pixel is held, what would push it further out counts
            # no more, and what leads back does (projected gradient; Bertsekas 1982).
            outwards = torch.where(free < 0, gradient > 0, (free > 1) & (gradient < 0))
            gradient = gradient.masked_fill(outwards, 0.0)
        return values, total, self.coordinates.gradient(gradient)

    def _evaluation(self) -> Evaluation:
        """How loss and gradient are found; on a GPU recorded, but for tiles, so large that nothing is gained, and for
        eigenvalues, for which the host is asked."""
        way = self.ways[self.way]
        recordable = not way.side and self.settings.style_loss != "wasserstein"
        recorded = self.scene.start.is_cuda and recordable
        return Recorded(way.evaluation) if recorded else way.evaluation

    def _network(self) -> VGG:
        return self.network if self.rollbacks else self.fast_network

    def _next_scale(self) -> None:
        if self.scale < 0:
            base, moments = self.scene.start, None
        else:
            finer = self.scene.scales[self.scale + 1]
            base = self._enlarged(finer)
            moments = self._enlarged_moments(finer.size)
        self.__dict__.pop("evaluation", None)  # a recorded one holds memory
        self.__dict__.pop("good_values", None)  # of the scale before
        self.scale += 1
        self.done, self.ended = 0, False
        self._choose_way()
        self._begin(base, moments)

    def _choose_way(self) -> None:
        """The first one that the scale fits, as far as can be told."""
        memory = free(self.scene.start.device)
        fits = first_that_fits(self.ways, self.now.size, self._network(), memory)
        before, self.way = self.way, max(fits, self.tried)
        if self.way and self.way != before:
            self._note(f"{memory / 1e9:.1f} GB of memory are free: {self.ways[self.way]}")

    def _step_down(self, cause: str) -> None:
        """Go on from the last good picture in less memory."""
        if self.way + 1 == len(self.ways):
            raise out_of_memory(self.now.size, cause)
        self.way = self.tried = self.way + 1
        self._note(f"out of memory ({cause}): {self.ways[self.way]}")
        self.__dict__.pop("evaluation", None)
        before = self.__dict__.pop("optimizer", None)  # none where there was no room for it either
        moments = before.moments() if isinstance(before, Adam) else None
        del before
        gc.collect()  # errors and their tracebacks hold each other, and what filled the memory
        if self.scene.start.is_cuda:
            torch.cuda.empty_cache()
        self._begin(self.good, moments)

    def _begin(self, base: Tensor, moments: Mapping[str, Tensor] | None = None) -> None:
        """Set out from a picture with an optimiser that knows nothing (but carried moments)."""
        s = self.settings
        self.origin = base
        self.good, self.good_loss = base, float("inf")
        self.fresh = True
        self.evaluation = self._evaluation()
        self.coordinates = _Coordinates(base, s.precondition)
        start, step = self.coordinates.start, self._step()
        if s.optimizer == "lbfgs":
            self.optimizer = LBFGS(
                start,
                step=step,
                history=self.ways[self.way].history,
                first=FIRST_STEP,
                longest=LONGEST_STEP,
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
            terms = len(self.now.objective.names)
            self.good_values = torch.full((terms,), torch.nan, device=base.device)
        self.values = self.good_values
        self.moved = torch.zeros((), dtype=torch.bool, device=base.device)

    def _step(self) -> float:
        """The optimiser's step: halved by each rollback, decayed from half-way through the scale on."""
        s = self.settings
        decayed = self.done >= self.plan[self.scale] // 2
        return s.step * 0.5**self.rollbacks * (s.step_decay if decayed else 1.0)

    def _check(self) -> None:
        """What the host has to decide, now and then: is it going well, is it worth going on?"""
        loss, moved, blank = self._total(self.values), bool(self.moved), float(self.blank)
        before, limit = self.good_loss, DIVERGED * self.good_loss
        if not isfinite(before):
            # The first check is held against the start. Adam's first steps may add noise to a smooth start, and it
            # recovers from that: the loss of zero activations is the scale for what is too much.
            before = self._total(self.good_values)
            limit = DIVERGED * max(before, blank)
        self.moved = torch.zeros_like(self.moved)
        if not isfinite(loss):
            self._roll_back("the loss was not finite")
        elif loss > limit and loss > blank:
            self._roll_back(f"the loss diverged from {before:.4g} to {loss:.4g}")
        elif not moved and not self.rollbacks:
            self._roll_back(f"no step improved on a loss of {loss:.4g}")
        elif not moved or self._stalled(loss):
            if not self.ended:
                self._note(f"ended early, at a loss of {loss:.4g} that no longer improves")
            self.ended = True
        elif loss < self.good_loss:
            self.good, self.good_loss, self.good_values = self.picture(), loss, self.values

    def _total(self, values: Tensor) -> float:
        """The weighted total of terms (terms,), on the host."""
        return float(values @ self.now.objective.weights)

    def _stalled(self, loss: float) -> bool:
        least = self.settings.min_improvement
        return least > 0 and self.good_loss - loss < least * self.good_loss

    def _roll_back(self, reason: str) -> None:
        """Go on from the last good picture with more care, or end with it where no iteration is left."""
        if self.ended and self.scale + 1 == len(self.plan):
            self._end_with_good(reason)
            return
        self.rollbacks += 1
        if self.rollbacks > MAX_ROLLBACKS:
            raise PaintingError(
                f"{reason} after {MAX_ROLLBACKS} rollbacks",
                remedy=BETTER_SETTINGS,
            )
        self._note(f"{reason}: back to the last good picture, on in float32 with half the step")
        self._begin(self.good)

    def settle(self) -> None:
        """See `Step.settle`."""
        if not self.values.isfinite().all():
            self._end_with_good("the loss was not finite")

    def _end_with_good(self, reason: str) -> None:
        """Take the last good picture as the result, with its losses. Raises PaintingError where there is none."""
        self._begin(self.good)
        if not self.values.isfinite().all():  # only an earlier scale has seen it
            self.values = self._evaluate(self.optimizer.propose())[0]
        if not self.values.isfinite().all():
            raise PaintingError(
                f"{reason}, and no picture before had a finite loss", remedy=BETTER_SETTINGS
            )
        self._note(f"{reason}: the result is the last good picture")

    def _note(self, text: str) -> None:
        self.events.append(f"scale {self.scale + 1}, iteration {self.done}: {text}")
        log.info("%s", self.events[-1])

    def _enlarged(self, finer: Scale) -> Tensor:
        """The picture at the next size, with some of the content's detail that enlarging cannot bring."""
        larger = resize(self.picture(), finer.size)
        if not self.settings.content_weight:
            return larger
        blurred = resize(self.now.content, finer.size)
        return larger + self.settings.detail * (finer.content - blurred)

    def _enlarged_moments(self, size: Size) -> Mapping[str, Tensor] | None:
        """Adam's moments at the next size (crowsonkb); second moments must stay positive."""
        if not isinstance(self.optimizer, Adam):
            return None
        moments = dict(self.optimizer.moments())
        for name in ("exp_avg", "exp_avg_sq"):
            mode = "bicubic" if name == "exp_avg" else "bilinear"
            map_ = moments[name].view(self.coordinates.shape)
            moments[name] = torch.nn.functional.interpolate(map_, size=size, mode=mode).flatten()
        return moments

    def state(self) -> dict[str, Any]:
        tensors = {name: getattr(self, name) for name in self._TENSORS}
        return {
            "settings": asdict(self.settings),
            "sizes": [list(scale.size) for scale in self.scene.scales],
            "tensors": _copied(tensors),
            "optimizer": _copied(self.optimizer.state()),
            **{name: copy.copy(getattr(self, name)) for name in self._VALUES},
        }

    _TENSORS = ("origin", "values", "moved", "good", "good_values", "blank")
    _VALUES = (
        "scale",
        "done",
        "ended",
        "rollbacks",
        "events",
        "good_loss",
        "fresh",
        "way",
        "tried",
    )

    def load(self, state: Mapping[str, Any]) -> None:
        sizes = [list(scale.size) for scale in self.scene.scales]
        if state["settings"] != asdict(self.settings) or state["sizes"] != sizes:
            raise SettingsError(
                "the saved state belongs to other settings or sizes", remedy="begin anew without it"
            )
        for name in self._VALUES:
            setattr(self, name, copy.copy(state[name]))
        device = self.scene.start.device
        tensors = {name: t.to(device, copy=True) for name, t in state["tensors"].items()}
        self._begin(tensors["origin"])
        self.optimizer.load(state["optimizer"])
        for name, tensor in tensors.items():
            setattr(self, name, tensor)
        self.good_loss, self.fresh = state["good_loss"], state["fresh"]


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _size(image: Tensor) -> Size:
    return int(image.shape[-2]), int(image.shape[-1])


def _shares(settings: RenderSettings, styles: Sequence[Tensor], regions: Regions) -> list[float]:
    """Each style's share of the blend; they sum to 1."""
    if not styles:
        raise SettingsError("there is no style", remedy="give at least one style picture")
    weights = settings.style_weights or (1.0,) * len(styles)
    if len(weights) != len(styles):
        raise SettingsError(
            f"setting style_weights has {len(weights)} weights for {len(styles)} styles",
            remedy="give one weight for each style, or none",
        )
    used = zip(weights, regions.styles, strict=True)
    painted = {number for weight, own in used if weight for number in own.numbers}
    if len(painted) < regions.count:
        raise SettingsError(
            f"setting style_weights {list(weights)} leaves a region of the masks without a style",
            remedy="give its style a weight above 0",
        )
    return [w / sum(weights) for w in weights]


def _seen(
    styles: Sequence[Tensor],
    regions: Regions,
    size: Size,
    settings: RenderSettings,
    targets: TargetSource,
) -> list[Mapping[str, StyleStatistics]]:
    """Each style's statistics, of its own regions, for a painting of this size."""
    each = []
    for style, own in zip(styles, regions.styles, strict=True):
        shown = resize(style[None], style_size(_size(style), size, settings))
        each.append(targets.style(shown, _guide(own, shown, settings)))
    return each


def _blend(
    each: Sequence[Mapping[str, StyleStatistics]], shares: Sequence[float], regions: Regions
) -> dict[str, StyleStatistics]:
    """The statistics of a mixture: second moments and means are averaged, region by region."""

    def mixed(tensors: Sequence[Tensor]) -> Tensor:  # each (R of that style, …) -> (R, …)
        rows = []
        for number in range(regions.count):
            parts = [
                (share, tensor[own.numbers.index(number)])
                for share, tensor, own in zip(shares, tensors, regions.styles, strict=True)
                if number in own.numbers
            ]
            whole = sum(share for share, _ in parts)
            rows.append(torch.stack([share / whole * row for share, row in parts]).sum(0))
        return torch.stack(rows)

    return {
        layer: StyleStatistics(
            mixed([s[layer].gram for s in each]), mixed([s[layer].mean for s in each])
        )
        for layer in each[0]
    }


def _guide(own: StyleRegions, style: Tensor, settings: RenderSettings) -> Tensor | None:
    """The guide of a style (1, 3, H, W) at its size. Raises PictureError where a region cannot be seen at it."""
    if own.guide is None:
        return None
    guide = own.guide(_size(style))
    deepest = max(settings.style_layers, key=lambda layer: minimum_side([layer]))
    if at_layer(guide, deepest).sum((2, 3)).min() < LEAST:
        raise PictureError(
            f"a region of a style's mask is too small for layer {deepest}",
            remedy="draw it larger, or set a larger size",
        )
    return guide


def _guides(
    regions: Regions, size: Size, settings: RenderSettings, device: torch.device
) -> dict[str, Tensor]:
    """The content's guide at each style layer; none where one region covers everything."""
    if regions.content is None:
        return {}
    guide = regions.content(size).to(device)
    return {layer: at_layer(guide, layer) for layer in settings.style_layers}


def _start(
    settings: RenderSettings, content: Tensor, style: Tensor, given: Tensor | None
) -> Tensor:
    """(1, 3, h, w): what is painted over at the coarsest scale."""
    size = _size(content)
    match settings.start:
        case "style":
            return resize(style[None], size)
        case "given":
            assert given is not None
            return resize(given[None], size)
        case "grey":
            return torch.full_like(content, 0.5)
        case "content":
            return content
    # The CPU's generator: the same seed is the same noise on every device.
    noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(settings.seed))
    noise = noise * settings.noise_std + torch.tensor(MEAN).view(1, 3, 1, 1)
    if settings.start == "noise":
        return noise
    return settings.noise_ratio * noise + (1 - settings.noise_ratio) * content.cpu()


def _notes(
    content: Tensor, styles: Sequence[Tensor], size: Size, settings: RenderSettings
) -> tuple[str, ...]:
    notes = [f"painted at {size[1]} × {size[0]} pixels (size: {settings.size})"]
    if max(size) > max(_size(content)):
        notes.append(f"the content, {content.shape[2]} × {content.shape[1]}, was enlarged to that")
    for i, style in enumerate(styles, 1):
        factor = style_size(_size(style), size, settings)[1] / style.shape[2]
        if factor > 1.5:
            notes.append(
                f"style {i} was enlarged {factor:.1f} times: a larger one has finer strokes"
            )
    return tuple(notes)
