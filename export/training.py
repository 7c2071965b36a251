"""Trains the bundled VGG19 from random weights: `python -m nst_daemon.export.training --data FOLDER --out FOLDER`.

It trains a classifier of labelled pictures (`training_data` describes the formats) and writes its convolutions in
torchvision's layout, with a card, `README.md`, about how they were made. The option is a time, not a number of epochs:
the learning rate follows the elapsed fraction of the time, up and then down to zero (one cycle, Smith & Topin 2018).
Ctrl-C ends the training early, and the weights so far are written.

With `--adversarial` each picture is first moved by a radius in the direction in which the loss grows most. Features of
networks that are trained this way depend less on noise and more on shapes (Engstrom et al. 2019, Adversarial Robustness
as a Prior for Learned Representations). A step then takes about twice as long.
"""

from __future__ import annotations

import argparse
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from safetensors.torch import save
from torch import Tensor

from nst_daemon.engine.device import device_name, find_device
from nst_daemon.errors import Cancelled, NstError, OutOfMemory, UsageError
from nst_daemon.files import make_folder, write_atomic
from nst_daemon.names import printable
from nst_daemon.units import duration
from nst_daemon.weights_file import WeightsFile, find_weights

from .training_data import TrainingData, read_data
from .training_loop import Training, TrainingPlan, keep_better, train
from .training_network import NETWORK, Classifier, fold_batch_norm, scale_layers

#: The default learning rate for a batch of 512; it is proportional to the batch (Goyal et al. 2017).
LEARNING_RATE, LEARNING_BATCH = 0.4, 512
SCALING_PICTURES = 500  # on which the layers are scaled


def extract(network: Classifier, pictures: Tensor) -> dict[str, Tensor]:
    """The convolutions: batch normalisation folded, layers scaled, float16, on the CPU.

    Args:
        network: After training.
        pictures: (N, 3, S, S) uint8, on which each layer gets a mean activation of 1.

    Returns:
        Weights and biases in torchvision's layout.
    """
    scaled = scale_layers(fold_batch_norm(network.features), pictures)
    return {name: tensor.half().cpu().contiguous() for name, tensor in scaled.items()}


def card(
    weights: WeightsFile,
    data: TrainingData,
    training: Training,
    plan: TrainingPlan,
    *,
    top1: float,
    device: str,
    command: str,
) -> str:
    """The text of the card of a weights file, in Markdown."""
    side, count = data.training.pixels.shape[-1], len(data.training)
    epochs, batch = training.seen / count, min(plan.batch, count)
    noise = "noise"
    if plan.adversarial:
        noise += f", one-step attacks of radius {plan.adversarial:g} (L2, normalised pixels)"
    return f"""# {weights.path.name}

A VGG19 feature extractor: all 16 convolutions, float16, {weights.path.stat().st_size:,} bytes, SHA-256
`{weights.sha256}`.

- Layout: torchvision's (`features.0.weight` … `features.34.bias`): `torchvision.models.vgg19().features` loads it.
- Input: RGB in [0, 1], normalised by mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225).
- Training: VGG19 with batch normalisation and a linear head, from random weights.
  {count:,} pictures of {side} × {side} px in {data.classes} classes, {epochs:.2f} epochs, {training.steps:,} steps of
  {batch} pictures, {duration(round(training.seconds))} on {device}.
  SGD with momentum, peak learning rate {plan.peak:g}, random crops, mirroring, brightness, tint, {noise}.
- Result: {100 * top1:.1f} % top-1 on {len(data.validation):,} validation pictures. The batch normalisation was then
  folded into the convolutions, and each layer scaled so that its mean activation on validation pictures is 1. The
  classifier is not part of the file.
- Command: `{command}`
"""


# The command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    command = shlex.join(["python", "-m", "nst_daemon.export.training", *given])
    try:
        _run(options, command)
    except NstError as error:
        sys.exit(_complain(str(error), error.exit_code))
    except torch.OutOfMemoryError:
        out = OutOfMemory("the GPU's memory is full", remedy="use a smaller --batch or --side")
        sys.exit(_complain(str(out), out.exit_code))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", Cancelled.exit_code))


def _run(options: argparse.Namespace, command: str) -> None:
    """Read, train, write."""
    device = find_device(options.device)
    target = _target(options.out, options.data)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    began = time.monotonic()
    data = read_data(options.data, options.side).to(device)
    _report(
        f"{len(data.training):,} pictures to train and {len(data.validation):,} to validate with, "
        f"{data.classes} classes, read in {duration(time.monotonic() - began)}"
    )
    peak = options.lr or LEARNING_RATE * options.batch / LEARNING_BATCH
    plan = TrainingPlan(options.minutes, options.batch, peak, options.adversarial)
    network = Classifier(data.classes).to(device)
    with _stop_on_interrupt() as stop:
        training = train(network, data.training, plan, stop=stop, say=_report)
        _report("validating")
        top1 = keep_better(training, data.validation)
        tensors = extract(network, data.validation.sample(SCALING_PICTURES))
        about = {"network": NETWORK, "trained_on": options.data.resolve().name}
        write_atomic(target, save(tensors, about))
        text = card(
            *(find_weights(target, NETWORK), data, training, plan),
            top1=top1,
            device=device_name(device),
            command=command,
        )
        write_atomic(target.with_name("README.md"), text.encode())
    print(f"{target}: {100 * top1:.1f} % top-1 after {duration(round(training.seconds))}")


def _target(out: Path, data: Path) -> Path:
    """The weights file to write; its folder is created. Raises UsageError if it would replace a file."""
    target = out / f"{NETWORK}-{data.resolve().name}.safetensors"
    for path in (target, out / "README.md"):
        if path.exists():
            raise UsageError(f"{path} exists already", remedy="choose another folder for --out")
    make_folder(out)
    return target


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """A function that is true after the first Ctrl-C. The second Ctrl-C interrupts as usual."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _report("interrupted: writing the weights so far; Ctrl-C again discards them")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _complain(message: str, code: int) -> int:
    _report(f"training: {printable(message)}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nst_daemon.export.training",
        description="Train VGG19 on labelled pictures, and write its convolutions and a card.",
    )
    help_of = {
        "data": "a folder of pictures for each class, or *.nstw files",
        "out": "where the weights and README.md are written",
        "lr": f"peak learning rate (batch × {LEARNING_RATE}/{LEARNING_BATCH})",
        "adversarial": "attack each picture; 0.5 is a good radius at 64 px (off)",
    }
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FOLDER", help=help_of["data"])
    add("--out", type=Path, required=True, metavar="FOLDER", help=help_of["out"])
    add("--minutes", type=_above(0), default=6.0, help="time of the training (%(default)s)")
    add("--batch", type=_whole_above(1), default=512, help="pictures in a step (%(default)s)")
    add("--lr", type=_above(0), help=help_of["lr"])
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (%(default)s)")
    add("--adversarial", type=_above(0), metavar="RADIUS", default=0.0, help=help_of["adversarial"])
    add("--side", type=_whole_above(31), default=64, help="of a picture, in pixels (%(default)s)")
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    return parser


def _above(low: float) -> Callable[[str], float]:
    """Reads a finite number above `low`."""

    def number(text: str) -> float:
        if not low < (value := float(text)) < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a number above {low}")
        return value

    return number


def _whole_above(low: int) -> Callable[[str], int]:
    """Reads an integer above `low`."""

    def number(text: str) -> int:
        if (value := int(text)) <= low:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number above {low}")
        return value

    return number


if __name__ == "__main__":
    main()
