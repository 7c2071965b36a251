"""The training loop: augmentation, attacks, steps of the optimiser, averaged weights, and the choice at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_daemon.engine.vgg import compute_dtype
from nst_daemon.errors import ModelError
from nst_daemon.units import duration

from .training_data import LabelledPictures
from .training_network import Classifier, normalised

WARM_UP = 0.1  # the fraction of the time in which the learning rate rises
AVERAGED_FROM = 0.6  # the fraction of the time after which weights are averaged
AVERAGING = 0.002  # the share of the latest weights in their average, once it is old
MOMENTUM, WEIGHT_DECAY, LABEL_SMOOTHING, MAX_NORM = 0.9, 5e-4, 0.1, 5.0
#: Augmentation: the smallest crop, as a fraction of the side, and the ranges of brightness, tint and noise, in [0, 1].
MIN_CROP, BRIGHTNESS, TINT, NOISE = 0.5, 0.15, 0.1, 0.08
EVALUATION_BATCH = 250
REPORT_SECONDS = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How to train.

    Attributes:
        minutes: The time of the training, without reading and evaluation.
        batch: Pictures in a step.
        peak: The highest learning rate.
        adversarial: Radius (L2) of the attack on each picture, in the units of normalised pixels; 0 for none.
    """

    minutes: float
    batch: int
    peak: float
    adversarial: float = 0.0


@dataclass(slots=True)
class Training:
    """A training and how far it is: `seen` counts pictures, repeated ones too."""

    network: Classifier
    average: WeightAverage
    steps: int = 0
    seen: int = 0
    seconds: float = 0.0


def train(
    network: Classifier,
    pictures: LabelledPictures,
    plan: TrainingPlan,
    *,
    clock: Callable[[], float] = time.monotonic,
    stop: Callable[[], bool] = lambda: False,
    say: Say = print,
) -> Training:
    """Train until the time is over, for one step at least.

    Args:
        network: On the device of the pictures; it is changed.
        pictures: To train with.
        plan: How to train.
        clock: Seconds; read once before the first step, and then before and after each.
        stop: Asked after each step whether to end early.
        say: Gets a line of progress every five seconds.

    Raises:
        ModelError: The loss is not finite.
    """
    optimizer = _optimizer(network)
    training = Training(network.train(), WeightAverage(network))
    batch, total = min(plan.batch, len(pictures)), 60 * plan.minutes
    began = clock()
    report = _ProgressLines(say, len(pictures), total)
    for index in _batches(len(pictures), batch, pictures.labels.device):
        fraction = (clock() - began) / total
        if training.steps and (fraction >= 1 or stop()):
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(fraction, plan.peak)
        chosen = pictures[index]
        x = normalised(augment(chosen.pixels))
        if plan.adversarial:
            x = attack(network, x, chosen.labels, plan.adversarial)
        loss = _step(network, optimizer, x, chosen.labels)
        if fraction >= AVERAGED_FROM:
            training.average.update()
        training.steps += 1
        training.seen += batch
        training.seconds = clock() - began
        report.add(training, loss)
    report.write(training)
    return training


class _ProgressLines:
    """Writes a line of progress after the first step and then every five seconds, with the mean loss since the last.

    Args:
        say: Gets the lines.
        count: Pictures in an epoch.
        total: Seconds of the whole training.
    """

    def __init__(self, say: Say, count: int, total: float) -> None:
        self._say, self._count, self._total = say, count, total
        self._losses: list[Tensor] = []  # since the last line
        self._seconds, self._seen = 0.0, 0  # at the last line

    def add(self, training: Training, loss: Tensor) -> None:
        """Note the loss of a step. Raises ModelError if a line is due and the loss is not finite."""
        self._losses.append(loss)
        if training.steps == 1 or training.seconds - self._seconds >= REPORT_SECONDS:
            self.write(training)

    def write(self, training: Training) -> None:
        """Write a line if there was a step since the last. Raises ModelError if the loss is not finite."""
        if not self._losses:
            return
        loss = float(torch.stack(self._losses).mean())
        if not math.isfinite(loss):
            raise ModelError(
                f"the training diverged: its loss is {loss}", remedy="use a lower --lr"
            )
        rate = (training.seen - self._seen) / max(training.seconds - self._seconds, 1e-9)
        left = duration(round(self._total - training.seconds))
        epochs = training.seen / self._count
        self._say(f"epoch {epochs:.2f}, loss {loss:.3f}, {rate:.0f} pictures/s, {left} left")
        self._losses = []
        self._seconds, self._seen = training.seconds, training.seen


def learning_rate(fraction: float, peak: float) -> float:
    """The learning rate after a fraction of the time: linear up to `peak`, then linear down to (almost) 0."""
    rising, falling = fraction / WARM_UP, (1 - fraction) / (1 - WARM_UP)
    return peak * max(min(rising, falling), 1e-4)


def _optimizer(network: nn.Module) -> torch.optim.SGD:
    """Weights decay; biases and the parameters of batch normalisation do not."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)


def _batches(count: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Epoch after epoch, the pictures in random order; what does not fill a batch is left out."""
    while True:
        order = torch.randperm(count, device=device)
        yield from torch.split(order, batch)[: count // batch]


def _step(network: nn.Module, optimizer: torch.optim.SGD, x: Tensor, labels: Tensor) -> Tensor:
    """One step of the optimiser; the loss before it, as a tensor, so that a GPU need not wait."""
    loss = F.cross_entropy(_scores(network, x), labels, label_smoothing=LABEL_SMOOTHING)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), MAX_NORM)
    optimizer.step()
    return loss.detach()


def _scores(network: nn.Module, x: Tensor) -> Tensor:
    """The scores of each class in float32, computed in bfloat16 where the hardware is faster with it."""
    fast = compute_dtype("auto", x.device) == torch.bfloat16
    with torch.autocast(x.device.type, torch.bfloat16, enabled=fast):
        scores: Tensor = network(x)
    return scores.float()


def augment(pixels: Tensor) -> Tensor:
    """Random crops of at least half the side, mirrored at random, with another brightness and tint; half get noise.

    Args:
        pixels: (B, 3, S, S) uint8.

    Returns:
        (B, 3, S, S) in [0, 1].
    """
    count, device = len(pixels), pixels.device

    def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, device=device)

    size = uniform(1, low=MIN_CROP, high=1.0)
    place = torch.zeros(
        count, 2, 3, device=device
    )  # output position → input position, both in [-1, 1]
    place[:, 0, 0] = torch.where(uniform() < 0, size[:, 0], -size[:, 0])
    place[:, 1, 1] = size[:, 0]
    place[:, :, 2] = uniform(2) * (1 - size)
    shape = list(pixels.shape)
    grid = F.affine_grid(place, shape, align_corners=False)
    x = F.grid_sample(pixels / 255, grid, padding_mode="border", align_corners=False)
    noisy = uniform(1, 1, 1, low=0.0) * (uniform(1, 1, 1) < 0)
    x = x * (1 + BRIGHTNESS * uniform(1, 1, 1)) * (1 + TINT * uniform(3, 1, 1))
    x = x + NOISE * noisy * torch.randn_like(x)
    return x.clamp(0, 1)


def attack(network: nn.Module, x: Tensor, labels: Tensor, radius: float) -> Tensor:
    """Move each picture by `radius` (L2) in the direction in which its loss grows most.

    The network is in evaluation mode meanwhile, so that its statistics do not change.

    Args:
        network: In training mode before and after.
        x: (B, 3, S, S), normalised.
        labels: (B,).
        radius: In the units of `x`.
    """
    network.eval()
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(_scores(network, x), labels), x)
    network.train()
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    moved: Tensor = x.detach() + radius * gradient / length
    return moved


class WeightAverage:
    """The moving average of a network's weights and statistics: their mean at first, later exponential."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._state: dict[str, Tensor] = {}
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        self._updates += 1
        share = max(1 / self._updates, AVERAGING)
        for name, tensor in self._network.state_dict().items():
            if self._updates == 1 or not tensor.is_floating_point():
                self._state[name] = tensor.clone()
            else:
                self._state[name].lerp_(tensor, share)

    def state(self) -> dict[str, Tensor]:
        """The averages by name, for `load_state_dict`; empty before the first update."""
        return self._state


@torch.no_grad()
def accuracy(network: Classifier, pictures: LabelledPictures) -> float:
    """The fraction of pictures whose class gets the highest score (top-1)."""
    network.eval()
    right = 0
    for start in range(0, len(pictures), EVALUATION_BATCH):
        part = pictures[slice(start, start + EVALUATION_BATCH)]
        found = _scores(network, normalised(part.pixels / 255)).argmax(1)
        right += int((found == part.labels).sum())
    return right / len(pictures)


def keep_better(training: Training, validation: LabelledPictures) -> float:
    """Leave the last or the averaged weights in the network, whichever are better. Returns their top-1."""
    last = accuracy(training.network, validation)
    average = training.average.state()
    if not average:
        return last
    own = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    training.network.load_state_dict(average)
    averaged = accuracy(training.network, validation)
    if averaged < last:
        training.network.load_state_dict(own)
    return max(last, averaged)
