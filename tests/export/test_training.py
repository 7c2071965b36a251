"""The training of weights: each piece, the command, and what it leaves."""

from __future__ import annotations

import hashlib
import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nst_daemon.engine.settings import resolve
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import ModelError
from nst_daemon.export import training as command
from nst_daemon.export.training_data import LabelledPictures, read_data
from nst_daemon.export.training_loop import (
    Training,
    TrainingPlan,
    WeightAverage,
    accuracy,
    attack,
    augment,
    keep_better,
    learning_rate,
    train,
)
from nst_daemon.export.training_network import (
    LAYERS,
    Classifier,
    fold_batch_norm,
    mean_activations,
    normalised,
    scale_layers,
)
from nst_daemon.export.weights import load
from nst_daemon.painter import Painter
from nst_daemon.samples import CONTENT, STYLE
from nst_daemon.weights_file import find_weights
from tests.export.stripes import draw, write_classes

WEIGHTS = "vgg19-stripes.safetensors"
RELUS = [name for name in LAYERS if name.startswith("relu")]


@pytest.fixture(scope="module")
def pictures() -> LabelledPictures:
    """Sixteen pictures of both classes."""
    arrays = [torch.from_numpy(draw(i % 2, i)).permute(2, 0, 1) for i in range(16)]
    return LabelledPictures(torch.stack(arrays), torch.arange(16) % 2)


@pytest.fixture
def network() -> Classifier:
    """Untrained, with statistics and factors of batch normalisation as after a training."""
    torch.manual_seed(0)
    network = Classifier(2)
    for module in network.features:
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.uniform_(-0.2, 0.2)
    return network


def clock() -> Iterator[float]:
    """Each reading is a second later."""
    return itertools.count(100.0)


# The network


@torch.no_grad()
def test_the_folded_network_computes_the_same(network: Classifier) -> None:
    """In float64 the convolutions with folded batch normalisation give the features of evaluation mode to 1e-12."""
    network.eval().double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    wanted = network.features(x)
    for i, (name, tensors) in enumerate(convolutions(fold_batch_norm(network.features))):
        if name.startswith("conv"):
            x = torch.nn.functional.conv2d(x, *tensors, padding=1)
        elif name.startswith("relu"):
            x = x.relu()
        else:
            x = torch.nn.functional.max_pool2d(x, 2)
        assert x.dtype == torch.float64, i
    assert (x - wanted).norm() <= 1e-12 * wanted.norm()


def convolutions(state: dict[str, Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """The name of each layer, with its weight and bias if it is a convolution."""
    for i, name in enumerate(LAYERS):
        keys = [f"features.{i}.weight", f"features.{i}.bias"]
        yield name, tuple(state[key] for key in keys if key in state)


def test_scaled_layers_have_a_mean_activation_of_one(
    network: Classifier, pictures: LabelledPictures
) -> None:
    """After scaling, in float16, the mean of every ReLU's map is 1 to within 1e-3."""
    tensors = command.extract(network, pictures.pixels)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    means = mean_activations(tensors, pictures.pixels)
    assert list(means) == RELUS
    assert means == pytest.approx(dict.fromkeys(RELUS, 1.0), abs=1e-3)


def test_scaling_changes_features_by_a_factor(
    network: Classifier, pictures: LabelledPictures
) -> None:
    """Each ReLU's map on other pictures is the unscaled one, divided by the unscaled mean."""
    folded = fold_batch_norm(network.features)
    means = mean_activations(folded, pictures.pixels)
    other = torch.rand(1, 3, 48, 48)
    before, after = (
        VGG(state, RELUS)(other) for state in (folded, scale_layers(folded, pictures.pixels))
    )
    for name in RELUS:
        wanted = before[name] / means[name]
        assert (after[name] - wanted).norm() <= 1e-4 * wanted.norm(), name


def test_a_silent_layer_is_named(network: Classifier, pictures: LabelledPictures) -> None:
    """A layer whose activations are all zero cannot be scaled; the message names it."""
    folded = fold_batch_norm(network.features)
    folded["features.5.bias"] -= 1000
    with pytest.raises(ModelError, match=r"mean activation of conv2_1 is 0.*; train for longer"):
        scale_layers(folded, pictures.pixels)


# The steps


def test_the_learning_rate_rises_and_falls() -> None:
    """The learning rate is highest after a tenth of the time, half of that at 5 % and 55 %, and small at the end."""
    rates = [learning_rate(f, 2.0) for f in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([2e-4, 1.0, 2.0, 1.0, 2e-4])


def test_augmented_pictures_differ_and_stay_in_range(pictures: LabelledPictures) -> None:
    """Two augmentations of a picture differ, and all values are in [0, 1]."""
    torch.manual_seed(0)
    first, second = augment(pictures.pixels), augment(pictures.pixels)
    assert first.shape == (16, 3, 32, 32)
    assert first.min() >= 0 and first.max() <= 1
    assert ((first - second).abs().mean((1, 2, 3)) > 0.01).all()


def test_crops_stay_inside_the_picture() -> None:
    """Crops of a ramp have half to the whole of its slope, half are mirrored, and no border is repeated."""
    torch.manual_seed(0)
    ramp = torch.arange(64, 192, 2, dtype=torch.uint8).expand(300, 3, 64, 64)
    slopes = augment(ramp).diff(dim=3).mean((1, 2)) * 255 / 2  # of each picture, column by column
    mean = slopes.mean(1)
    assert 0.35 < mean.abs().min() < 0.6  # brightness and tint change it by up to a quarter
    assert 0.9 < mean.abs().max() < 1.3
    assert 120 < int((mean < 0).sum()) < 180
    upward = slopes * mean.sign()[:, None]
    for edge in (upward[:, :4], upward[:, -4:]):
        assert edge.mean() > 0.85 * upward.mean()


def test_the_attack_has_its_radius_and_raises_the_loss(
    network: Classifier, pictures: LabelledPictures
) -> None:
    """Each picture moves by the radius (L2), its loss grows, and the network's statistics do not change."""
    x = normalised(pictures.pixels / 255)
    statistics = {name: tensor.clone() for name, tensor in network.named_buffers()}
    moved = attack(network, x, pictures.labels, 0.5)
    lengths = (moved - x).flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([0.5] * 16, rel=1e-3)
    assert network.training
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in network.named_buffers())
    network.eval()
    with torch.no_grad():
        before, after = (
            torch.nn.functional.cross_entropy(network(v), pictures.labels) for v in (x, moved)
        )
    assert after > before


def test_the_average_is_a_mean_at_first() -> None:
    """After three updates the average is the mean of the three weights; counters are the last ones."""
    module = torch.nn.BatchNorm1d(1)
    average = WeightAverage(module)
    assert not average.state()
    for value in (1.0, 2.0, 6.0):
        module.weight.data.fill_(value)
        assert module.num_batches_tracked is not None
        module.num_batches_tracked.fill_(int(value))
        average.update()
    assert average.state()["weight"].item() == pytest.approx(3.0)
    assert average.state()["num_batches_tracked"].item() == 6


def test_the_training_keeps_to_its_time(pictures: LabelledPictures) -> None:
    """With a clock of one second for each reading, 9 seconds are 4 steps; the last ones are averaged."""
    said: list[str] = []
    network = Classifier(2)
    seconds = clock()
    plan = TrainingPlan(minutes=9 / 60, batch=4, peak=0.01)
    training = train(network, pictures, plan, clock=lambda: next(seconds), say=said.append)
    assert (training.steps, training.seen, training.seconds) == (4, 16, 8.0)
    assert training.average.state()
    assert re.fullmatch(r"epoch 0\.25, loss \d\.\d+, 2 pictures/s, 7 s left", said[0])
    assert said[-1].startswith("epoch 1.00, ") and said[-1].endswith(" 1 s left")


def test_the_loss_falls(pictures: LabelledPictures) -> None:
    """Sixteen steps on a handful of pictures, with attacks, lower the loss to less than half of the first."""
    torch.manual_seed(0)
    said: list[str] = []
    seconds = clock()
    plan = TrainingPlan(minutes=32 / 60, batch=16, peak=0.02, adversarial=0.1)
    train(Classifier(2), pictures, plan, clock=lambda: next(seconds), say=said.append)
    losses = [float(re.search(r"loss ([\d.]+)", line)[1]) for line in said]  # type: ignore[index]
    assert losses[-1] < 0.5 * losses[0], said


def test_one_step_is_done_at_least(pictures: LabelledPictures) -> None:
    """A training that is stopped at once, with a batch larger than the pictures, has done one step with all of them."""
    plan = TrainingPlan(minutes=1, batch=500, peak=0.01)
    training = train(Classifier(2), pictures, plan, stop=lambda: True, say=lambda line: None)
    assert (training.steps, training.seen) == (1, 16)
    assert not training.average.state()


def test_a_diverging_training_ends(pictures: LabelledPictures) -> None:
    """A loss that is not finite ends the training; the message names the option."""
    network = Classifier(2)
    network.head.bias.data.fill_(torch.nan)
    with pytest.raises(ModelError, match=r"diverged: its loss is nan; use a lower --lr"):
        train(network, pictures, TrainingPlan(1, 4, 0.01), say=lambda line: None)


@pytest.mark.parametrize("last_is_better", [False, True])
def test_the_better_weights_are_kept(pictures: LabelledPictures, last_is_better: bool) -> None:
    """Of the last and the averaged weights, those with the higher top-1 stay in the network."""
    network = Classifier(2)
    network.head.weight.data.zero_()
    training = Training(network, WeightAverage(network))
    zeros = LabelledPictures(pictures.pixels, torch.zeros(16, dtype=torch.int64))
    good, bad = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    network.head.bias.data.copy_(bad if last_is_better else good)
    training.average.update()
    network.head.bias.data.copy_(good if last_is_better else bad)
    assert keep_better(training, zeros) == 1.0
    assert torch.equal(network.head.bias.data, good)
    assert accuracy(network, pictures) == 0.5


# The command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the command has written, and its output."""
    folder = tmp_path_factory.mktemp("training")
    write_classes(folder / "stripes", 6)
    done = start(folder, "--minutes", "0.05").communicate(timeout=240)
    return folder / "out", done[0]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command on the CPU, with small pictures."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "nst_daemon.export.training", "--data", "stripes"),
            *("--out", "out", "--batch", "4", "--side", "32", "--device", "cpu", *arguments),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_command_reports_its_progress(trained: tuple[Path, str]) -> None:
    """The output has the pictures, lines of progress, and the file with its top-1."""
    folder, output = trained
    assert output.startswith("10 pictures to train and 2 to validate with, 2 classes, read in ")
    assert re.search(r"(?m)^epoch 0\.40, loss \d\.\d+, \d+ pictures/s, \d s left$", output)
    assert re.search(r"out/vgg19-stripes\.safetensors: \d+\.0 % top-1 after \d+ s\n$", output), (
        output
    )
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, "README.md"}


def test_the_written_weights_load(trained: tuple[Path, str]) -> None:
    """The weights load, and have the names, shapes and type of the bundled ones."""
    tensors, bundled = load(find_weights(trained[0] / WEIGHTS)), load(find_weights("bundled"))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in bundled.items()
    }


@pytest.mark.slow
def test_the_written_weights_paint(trained: tuple[Path, str], tmp_path: Path) -> None:
    """Two iterations with the default settings and the new weights give a picture that differs from the content."""
    painter = Painter(weights=trained[0] / WEIGHTS, device="cpu", cache_dir=tmp_path)
    prepared = painter.prepare(CONTENT, [STYLE], resolve({"size": 48, "iterations": 2}))
    *_, step = painter.paint(prepared)
    painted = painter.finish(prepared, step).picture.rgb
    assert painted.isfinite().all()
    assert (painted - prepared.scene.scales[-1].content[0]).abs().mean() > 0.001


def test_the_card_has_the_figures(trained: tuple[Path, str]) -> None:
    """The card names digest, size, pictures, classes, epochs, time, top-1 and the command."""
    folder, output = trained
    text, data = (folder / "README.md").read_text(), folder / WEIGHTS
    assert text.startswith("# vgg19-stripes.safetensors\n")
    assert hashlib.sha256(data.read_bytes()).hexdigest() in text
    top1 = re.search(r"(\d+\.\d) % top-1 after (\d+ s)", output)
    assert top1 is not None
    for figure in (
        f"{data.stat().st_size:,} bytes",
        "10 pictures of 32 × 32 px in 2 classes",
        "steps of\n  4 pictures",
        f", {top1[2]} on ",
        f"{top1[1]} % top-1 on 2 validation pictures",
        "`python -m nst_daemon.export.training --data stripes --out out --batch 4 --side 32 ",
    ):
        assert figure in text, figure


def test_an_interrupt_keeps_the_weights_so_far(tmp_path: Path) -> None:
    """After Ctrl-C the command ends in time, with exit code 0, a file that loads, and its card."""
    write_classes(tmp_path / "stripes", 6)
    process = start(tmp_path, "--minutes", "100")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "interrupted: writing the weights so far" in output
    assert load(find_weights(tmp_path / "out" / WEIGHTS))
    assert "100 min" not in (tmp_path / "out" / "README.md").read_text()


def test_a_second_interrupt_discards(tmp_path: Path) -> None:
    """Ctrl-C twice ends the command with 130 and without a file."""
    write_classes(tmp_path / "stripes", 6)
    process = start(tmp_path, "--minutes", "100")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(("epoch", "interrupted")):
            process.send_signal(signal.SIGINT)
        if line.startswith("interrupted"):
            break
    output, _ = process.communicate(timeout=240)
    assert (process.returncode, output.splitlines()[-1]) == (130, "training: interrupted")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("gone new", 4, r"there is no folder .*gone; name"),
        ("empty new", 4, r"empty has no pictures to train with; it needs"),
        ("empty full", 2, r"full/README\.md exists already; choose"),
        ("empty new --device cuda:99", 8, r"cuda:99 cannot be used: .*; this machine has"),
        ("empty new --device tpu", 8, r"unknown device 'tpu': use auto, cpu"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: str, code: int, message: str
) -> None:
    """What prevents a training is one line on standard error, with the exit code of its kind."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("precious")
    data, out, *options = arguments.split()
    with pytest.raises(SystemExit) as exit_:
        command.main(["--data", str(tmp_path / data), "--out", str(tmp_path / out), *options])
    assert exit_.value.code == code
    assert re.fullmatch(f"training: .*{message}.*\n", capfd.readouterr().err)
    assert (tmp_path / "full" / "README.md").read_text() == "precious"


@pytest.mark.parametrize(
    "option", ["--minutes=0", "--minutes=nan", "--batch=1", "--lr=-1", "--side=16", "--lr=inf"]
)
def test_options_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number out of range is refused before anything is read; the message names the option."""
    with pytest.raises(SystemExit) as exit_:
        command.main(["--data", "gone", "--out", "gone", option])
    assert exit_.value.code == 2
    assert f"argument {option.partition('=')[0]}: " in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_learns_the_stripes(tmp_path: Path) -> None:
    """On a GPU ten seconds are enough to tell the two classes apart, with attacks and in bfloat16."""
    write_classes(tmp_path / "stripes", 200)
    torch.manual_seed(0)
    data = read_data(tmp_path / "stripes", 64).to(torch.device("cuda"))
    network = Classifier(2).cuda()
    plan = TrainingPlan(minutes=0.15, batch=64, peak=0.05, adversarial=0.2)
    training = train(network, data.training, plan)
    assert keep_better(training, data.validation) >= 0.9
    tensors = command.extract(network, data.validation.pixels)
    assert {str(tensor.device) for tensor in tensors.values()} == {"cpu"}
    means = mean_activations(tensors, data.validation.pixels.cpu())
    assert means == pytest.approx(dict.fromkeys(RELUS, 1.0), abs=0.01)
