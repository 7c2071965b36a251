from __future__ import annotations

import io
from itertools import islice
from math import isfinite
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from nst_daemon.engine import memory, winograd
from nst_daemon.engine.evaluation import whole
from nst_daemon.engine.images import from_image
from nst_daemon.engine.neighbours import Matching
from nst_daemon.engine.preconditioner import Preconditioner
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.pyramid import Evaluated, Pyramid
from nst_daemon.engine.scene import Scene, picture_size, prepare, scale_sizes, style_size
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import Step, stylize
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import PaintingError, SettingsError
from tests.engine.conftest import ADAM, CPU, QUICK, HostReads, SceneMaker, TorchTargets, last


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    """Through torch.save, and back without executing pickled code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


def test_steps_count_over_all_scales(scene_of: SceneMaker) -> None:
    """Iterations run from 1 to the planned total, scales from coarse to fine, up to the size asked for."""
    settings = resolve(QUICK)
    scene, network = scene_of(settings)
    seen = [(s.iteration, s.scale, s.size) for s in stylize(scene, network, settings)]
    assert [i for i, _, _ in seen] == list(range(1, 27))
    assert seen[11][1:] == (1, (20, 24))
    assert seen[12][1:] == (2, (40, 48))
    step = last(stylize(scene, network, settings))
    image = step.image()
    assert step.iterations == 26 and step.scales == 2
    assert image.shape == (1, 3, 40, 48)
    assert image.min() >= 0 and image.max() <= 1 and not image.requires_grad


@pytest.mark.parametrize("extra", [{}, ADAM, {"style_loss": "wasserstein", "tv": "nine-point"}])
def test_painting_lowers_the_loss(scene_of: SceneMaker, extra: dict[str, Any]) -> None:
    """At each scale the total at the end is below half of the total at its first step."""
    settings = resolve(QUICK, {"iterations": 30, **extra})
    scene, network = scene_of(settings)
    totals = [s.losses["total"] for s in stylize(scene, network, settings)]
    assert totals[29] < totals[0] / 2
    assert totals[59] < totals[30]


@pytest.mark.parametrize(
    ("preset", "iterations", "quick"),
    [("painting", 33, True), ("painting", 34, False), ("texture", 30, False)],
)
def test_few_iterations_with_cosine_distances_are_quick(
    scene_of: SceneMaker,
    monkeypatch: pytest.MonkeyPatch,
    preset: str,
    iterations: int,
    quick: bool,
) -> None:
    """A quick network evaluates pictures with up to 100 iterations in three passes at a size, and finds no targets."""
    painted, searched = [], []

    def evaluate(network: VGG, objective: Pyramid, image: Tensor) -> Evaluated:
        painted.append(network._quick)
        return whole(network, objective, image)

    def begin(matching: Matching, network: VGG, picture: Tensor) -> Pyramid:
        searched.append(network._quick)
        return found(matching, network, picture)

    found = Matching.begin
    monkeypatch.setattr(memory, "whole", evaluate)
    monkeypatch.setattr(Matching, "begin", begin)
    chosen = {"preset": preset, "size": 48, "scales": [1.0], "iterations": iterations}
    scene, network = scene_of(resolve(chosen))
    next(stylize(scene, network, resolve(chosen)))
    assert painted == [quick] and not any(searched)


def shown_loss(scene: Scene, network: VGG, step: Step) -> float:
    """The total of the picture as a step shows it."""
    objective, image = scene.scales[-1].objective, step.image()
    with torch.no_grad():
        return float(objective(network, image) @ objective.weights)


def test_the_loss_is_that_of_the_clamped_picture(scene_of: SceneMaker) -> None:
    """With `clamp` a step's loss is that of the picture as it is saved, and it ends lower than without."""
    ends = []
    for clamp in (True, False):
        settings = resolve(QUICK, {"clamp": clamp, "iterations": 40})
        scene, network = scene_of(settings)
        step = last(stylize(scene, network, settings))
        ends.append(shown_loss(scene, network, step))
        told = step.losses["total"]
        assert (told == pytest.approx(ends[-1], rel=1e-5)) == clamp
    assert ends[0] < ends[1]


def test_a_clamped_pixel_can_come_back(scene_of: SceneMaker, content: Tensor) -> None:
    """From a start far outside [0, 1] a painting with `clamp` ends as well as from the border."""
    settings = resolve(QUICK, {"start": "given", "scales": [1.0], "iterations": 60})
    ends = []
    for white in (1.0, 1.3):
        scene, network = scene_of(settings, start=torch.full_like(content, white))
        ends.append(last(stylize(scene, network, settings)).losses["total"])
    assert ends[1] < 1.1 * ends[0]


@pytest.mark.parametrize("extra", [{}, ADAM], ids=["lbfgs", "adam"])
@pytest.mark.parametrize("stop", [1, 7, 12, 13, 20])
def test_a_restored_painting_ends_in_the_same_bits(
    scene_of: SceneMaker, extra: dict[str, Any], stop: int
) -> None:
    """Stopped anywhere, saved, loaded in a new scene and finished, it is bit for bit the uninterrupted one."""
    settings = resolve(QUICK, extra)
    scene, network = scene_of(settings)
    whole = last(stylize(scene, network, settings))
    half = last(islice(stylize(scene, network, settings), stop))
    state = saved_and_loaded(half.state())
    again, network = scene_of(settings)
    rest = list(stylize(again, network, settings, state=state))
    assert rest[0].iteration == stop + 1
    assert rest[-1].iteration == whole.iteration
    assert torch.equal(rest[-1].image(), whole.image())
    assert rest[-1].losses == whole.losses


def test_a_state_is_not_changed_by_what_comes_after(scene_of: SceneMaker) -> None:
    """The same saved state serves twice."""
    settings = resolve(QUICK)
    scene, network = scene_of(settings)
    steps = stylize(scene, network, settings)
    state = last(islice(steps, 5)).state()
    first = last(stylize(scene, network, settings, state=state)).image()
    list(steps)
    assert torch.equal(last(stylize(scene, network, settings, state=state)).image(), first)


def test_a_state_of_another_job_is_refused(scene_of: SceneMaker) -> None:
    """A state saved under other settings raises SettingsError before anything is painted."""
    settings = resolve(QUICK)
    scene, network = scene_of(settings)
    state = next(stylize(scene, network, settings)).state()
    other = resolve(QUICK, {"tv_weight": 9})
    scene, network = scene_of(other)
    with pytest.raises(SettingsError, match="other settings"):
        next(stylize(scene, network, other, state=state))


def test_the_same_seed_is_the_same_picture(scene_of: SceneMaker) -> None:
    """Two runs from noise with one seed agree to the bit; another seed does not."""
    pictures = []
    for seed in (3, 3, 4):
        settings = resolve(QUICK, {"start": "noise", "seed": seed, "deterministic": True})
        pictures.append(last(stylize(*scene_of(settings), settings)).image())
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_holds_while_painting_and_no_longer(
    scene_of: SceneMaker, deterministic: bool
) -> None:
    """torch's deterministic mode is on exactly inside a step that asked for it, and as before outside."""
    settings = resolve(QUICK, {"deterministic": deterministic})
    scene, network = scene_of(settings)
    modes: list[bool] = []
    normalised = network.normalised

    def spied(image: Tensor) -> Tensor:
        modes.append(torch.are_deterministic_algorithms_enabled())
        return normalised(image)

    network.normalised = spied  # type: ignore[method-assign]
    next(stylize(scene, network, settings))
    assert modes == [deterministic]
    assert not torch.are_deterministic_algorithms_enabled()


class Faulty(VGG):
    """A network whose maps are multiplied by `factor` in some of its calls."""

    calls = 0
    faults: range = range(0)
    factor = float("nan")

    def normalised(self, image: Tensor) -> Tensor:
        self.calls += 1
        return super().normalised(image)

    def part(self, x: Tensor, modules: range) -> tuple[Tensor, dict[str, Tensor]]:
        x, maps = super().part(x, modules)
        if self.calls in self.faults:
            return x, {name: m * self.factor for name, m in maps.items()}
        return x, maps


def faulty(network: VGG, faults: range, factor: float) -> VGG:
    network.__class__ = Faulty
    assert isinstance(network, Faulty)
    network.faults, network.factor = faults, factor
    return network


def test_lbfgs_paints_on_through_a_few_bad_numbers(scene_of: SceneMaker) -> None:
    """Three non-finite evaluations cost those iterations only, and every picture shown is finite."""
    settings = resolve(QUICK, {"iterations": 40, "coarsest": 48})
    scene, network = scene_of(settings)
    clean = last(stylize(scene, network, settings)).losses["total"]
    network = faulty(network, range(8, 11), float("nan"))
    steps = [
        (s.image().isfinite().all(), s.losses["total"]) for s in stylize(scene, network, settings)
    ]
    assert all(finite for finite, _ in steps)
    assert steps[-1][1] < 1.5 * clean


@pytest.mark.parametrize("factor", [float("nan"), 1e3], ids=["non-finite", "diverging"])
def test_adam_rolls_back_to_the_last_good_picture(scene_of: SceneMaker, factor: float) -> None:
    """After bad iterations the picture is the last good one, with an event, and improves again."""
    settings = resolve(QUICK, ADAM, {"iterations": 60, "coarsest": 48, "averaging": 0.0})
    scene, network = scene_of(settings)
    network = faulty(network, range(18, 21), factor)
    seen = [
        (s.losses["total"], s.image().clone(), s.events) for s in stylize(scene, network, settings)
    ]
    assert seen[18][2] == ()
    assert len(seen[19][2]) == 1
    assert "iteration 20" in seen[19][2][0] and "float32 with half the step" in seen[19][2][0]
    torch.testing.assert_close(seen[19][1], seen[9][1])
    assert seen[-1][0] < seen[9][0]
    assert len(seen[-1][2]) == 1


def test_a_hopeless_painting_is_given_up(scene_of: SceneMaker) -> None:
    """A network that never gives a finite loss raises PaintingError, after five rollbacks."""
    settings = resolve(QUICK, {"iterations": 200})
    scene, network = scene_of(settings)
    network = faulty(network, range(1, 10_000), float("nan"))
    with pytest.raises(PaintingError, match="after 5 rollbacks"):
        list(stylize(scene, network, settings))


@pytest.mark.parametrize("factor", [float("nan"), 1e3], ids=["non-finite", "diverging"])
def test_a_rollback_at_the_last_check_ends_with_the_last_good_picture(
    scene_of: SceneMaker, factor: float
) -> None:
    """The last step has the picture, the losses and the events of the last check that found a good one."""
    settings = resolve(QUICK, ADAM, {"iterations": 11, "coarsest": 48, "averaging": 0.0})
    scene, network = scene_of(settings)
    network = faulty(network, range(11, 12), factor)
    seen = [(s.losses, s.image().clone(), s.events) for s in stylize(scene, network, settings)]
    assert seen[10][:1] == seen[9][:1]
    assert torch.equal(seen[10][1], seen[9][1])
    assert len(seen[10][2]) == 1
    assert seen[10][2][0].endswith("the result is the last good picture")


def test_the_good_picture_of_an_earlier_scale_is_a_result(scene_of: SceneMaker) -> None:
    """Where a scale ends without a finite loss, the result is its start, and its losses are evaluated."""
    settings = resolve(QUICK, ADAM, {"iterations": (10, 3)})
    scene, network = scene_of(settings)
    network = faulty(network, range(11, 14), float("nan"))
    step = last(stylize(scene, network, settings))
    assert step.losses["total"] == pytest.approx(shown_loss(scene, network, step), rel=1e-5)
    assert len(step.events) == 1


def test_without_any_finite_picture_there_is_no_result(scene_of: SceneMaker) -> None:
    """A painting that ends before a finite loss was found raises PaintingError instead of giving its start."""
    settings = resolve(QUICK, {"iterations": 5, "coarsest": 48})
    scene, network = scene_of(settings)
    network = faulty(network, range(1, 100), float("nan"))
    with pytest.raises(PaintingError, match="no earlier picture had a finite loss"):
        list(stylize(scene, network, settings))


def test_an_interrupted_painting_settles_on_its_last_good_picture(scene_of: SceneMaker) -> None:
    """`settle` leaves a finite step alone and replaces a non-finite one by the picture of the last check."""
    settings = resolve(QUICK, ADAM, {"iterations": 20, "coarsest": 48, "averaging": 0.0})
    scene, network = scene_of(settings)
    steps = stylize(scene, faulty(network, range(13, 14), float("nan")), settings)
    good = last(islice(steps, 10))
    good.settle()
    losses, image = good.losses, good.image().clone()
    bad = last(islice(steps, 4))
    bad.settle()
    assert bad.losses == losses
    assert torch.equal(bad.image(), image)
    assert len(bad.events) == 1


def failing(network: VGG, at: int, error: BaseException) -> list[int]:
    """Let evaluation number `at` of the network, counted from 1, raise an error; the numbers so far."""
    evaluate, calls = network.normalised, []

    def normalised(image: Tensor) -> Tensor:
        calls.append(len(calls) + 1)
        if calls[-1] == at:
            raise error
        return evaluate(image)

    network.normalised = normalised  # type: ignore[method-assign]
    return calls


def test_an_interruption_of_the_search_for_targets_costs_nothing(scene_of: SceneMaker) -> None:
    """Ctrl-C while a larger scale finds its targets leaves the picture of the scale before, in its colours."""
    settings = resolve(
        {
            "size": 48, "coarsest": 24, "iterations": (10, 3), "precision": "float32",
            "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5},
            "keep_colors": "luminance", "keep_colors_when": "after",
        }
    )  # fmt: skip
    scene, network = scene_of(settings)
    failing(network, 12, KeyboardInterrupt())  # 1 search and 10 evaluations at the first scale
    with pytest.raises(KeyboardInterrupt):
        for step in stylize(scene, network, settings):  # noqa: B007 (the last one is used)
            pass
    step.settle()
    assert (step.iteration, step.events) == (10, ())
    assert step.image().shape == (1, 3, 20, 24)


def test_an_interruption_at_the_change_of_scale_costs_nothing(scene_of: SceneMaker) -> None:
    """Ctrl-C in the first evaluation of a scale leaves a finite step: no evaluation is repeated, and no event added."""
    settings = resolve(
        QUICK, ADAM, {"iterations": (10, 3), "averaging": 0.0, "precision": "float32"}
    )
    scene, network = scene_of(settings)
    calls = failing(network, 11, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        for step in stylize(scene, network, settings):  # noqa: B007 (the last one is used)
            pass
    step.settle()
    assert (step.iteration, len(calls), step.events) == (10, 11, ())
    assert all(isfinite(loss) for loss in step.losses.values())


def test_too_little_memory_for_the_last_check_keeps_the_picture(scene_of: SceneMaker) -> None:
    """Where memory runs out while the good picture is evaluated at the end, a smaller plan evaluates it."""
    settings = resolve(QUICK, ADAM, {"iterations": (10, 3), "precision": "float32"})
    scene, network = scene_of(settings)
    network = faulty(network, range(11, 14), float("nan"))
    failing(network, 14, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    step = last(stylize(scene, network, settings))
    assert step.last
    assert all(isfinite(loss) for loss in step.losses.values())
    assert "out of memory" in step.events[0]
    assert step.events[-1].endswith("the result is the last good picture")


def test_a_state_of_the_last_step_gives_the_picture(scene_of: SceneMaker) -> None:
    """A painting that ended early and was saved at its last step resumes with that step."""
    settings = resolve(QUICK, {"iterations": 40, "coarsest": 48, "min_improvement": 0.9})
    scene, network = scene_of(settings)
    step = last(stylize(scene, network, settings))
    assert step.last
    assert step.iteration < step.iterations
    (again,) = stylize(scene, network, settings, state=step.state())
    assert again.last
    assert again.losses == step.losses
    assert torch.equal(again.image(), step.image())


def test_divergence_is_seen_at_the_first_check(scene_of: SceneMaker) -> None:
    """A step far too large is rolled back at iteration 10: the start's loss is the reference."""
    settings = resolve(QUICK, {"optimizer": "adam", "step": 5.0, "clamp": False, "iterations": 12})
    scene, network = scene_of(settings)
    steps = [(s.losses["total"], s.events) for s in stylize(scene, network, settings)]
    assert steps[8][0] > 100 * steps[0][0]
    assert steps[9][0] == steps[0][0]
    assert steps[9][1][0].startswith("scale 1, iteration 10: the loss diverged from ")


@pytest.mark.parametrize("start", ["content", "noise"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_not_rolled_back(
    scene_of: SceneMaker, content: Tensor, preset: str, start: str
) -> None:
    """Every preset paints a pale pair without a rollback, also where its first steps raise the loss."""
    settings = resolve({"preset": preset, "start": start, "size": 32, "iterations": 20})
    pale = 0.5 + 0.1 * (content - 0.5)
    scene, network = scene_of(settings, content=pale, styles=[pale.flip(1)])
    assert last(stylize(scene, network, settings)).events == ()


def test_a_rollback_survives_a_restart(scene_of: SceneMaker) -> None:
    """A restored painting keeps its rollbacks and events."""
    settings = resolve(QUICK, ADAM, {"iterations": 40, "coarsest": 48})
    scene, network = scene_of(settings)
    steps = stylize(scene, faulty(network, range(8, 11), float("nan")), settings)
    state = saved_and_loaded(last(islice(steps, 15)).state())
    whole = last(steps)
    scene, network = scene_of(settings)
    restored = last(stylize(scene, network, settings, state=state))
    assert len(restored.events) == 1
    assert torch.equal(restored.image(), whole.image())


def test_a_scale_ends_early_when_nothing_improves(scene_of: SceneMaker) -> None:
    """With `min_improvement` a scale that stalls ends early, with an event; the next one begins as planned."""
    settings = resolve(QUICK, {"iterations": (200, 20), "min_improvement": 0.05})
    scene, network = scene_of(settings)
    steps = [(s.iteration, s.scale, s.events) for s in stylize(scene, network, settings)]
    first = [i for i, scale, _ in steps if scale == 1]
    second = [i for i, scale, _ in steps if scale == 2]
    assert len(first) < 200 and first[-1] % 10 == 0
    assert second[0] == 201
    assert "ended early" in steps[-1][2][0]


@pytest.mark.parametrize("extra", [{}, {"tv": "nine-point", "pooling": "l2"}])
def test_an_iteration_does_not_wait_for_the_device(
    scene_of: SceneMaker, extra: dict[str, Any]
) -> None:
    """Between two checks no value is read from the device."""
    settings = resolve(QUICK, extra)
    steps = stylize(*scene_of(settings), settings)
    next(steps)
    with HostReads() as reads:
        last(islice(steps, 8))
    assert reads.seen == []


def test_nothing_ends_early_unless_asked(scene_of: SceneMaker) -> None:
    """Without `min_improvement` all iterations are painted, also where a check finds the loss higher than the last."""
    settings = resolve(QUICK, {"optimizer": "adam", "iterations": 40, "coarsest": 48})
    scene, network = scene_of(settings)
    network = faulty(network, range(30, 31), 1.4)
    steps = [s.losses["total"] for s in stylize(scene, network, settings)]
    assert steps[29] > steps[19], "the case is the one meant: iteration 30 is checked"
    assert len(steps) == 40


def test_content_alone_reproduces_the_content(scene_of: SceneMaker) -> None:
    """From the content, with a content term only, the picture stays the content."""
    settings = resolve(QUICK, {"style_weight": 0, "tv_weight": 0, "coarsest": 48})
    scene, network = scene_of(settings)
    step = last(stylize(scene, network, settings))
    assert (step.image() - scene.scales[-1].content).abs().max() < 1e-3


@pytest.mark.parametrize("side", [8, 9, 13])
def test_the_smallest_pictures_are_painted(
    scene_of: SceneMaker, content: Tensor, style: Tensor, side: int
) -> None:
    """With the default settings a side of 8 pixels is enough, of the picture and of the style."""
    settings = resolve({"size": side, "iterations": 2})
    scene, network = scene_of(settings, content=content[..., :40], styles=[style[..., :57]])
    assert last(stylize(scene, network, settings)).image().shape == (1, 3, side, side)


@pytest.mark.parametrize(
    ("size", "device", "expected"),
    [
        ("original", "cpu", (600, 901)),
        ("auto", "cpu", (341, 512)),
        ("auto", "cuda", (600, 901)),
        (100, "cpu", (67, 100)),
        (1802, "cuda", (1200, 1802)),
    ],
)
def test_sizes_follow_the_rules(size: int | str, device: str, expected: tuple[int, int]) -> None:
    """`original` is the content's own, `auto` too within the device's limit, a number is the longer side."""
    assert picture_size((600, 901), size, torch.device(device)) == expected


def test_auto_is_limited_on_a_gpu() -> None:
    """On a GPU `auto` stops at 1280."""
    assert picture_size((2000, 4000), "auto", torch.device("cuda")) == (640, 1280)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({}, [(64, 128), (128, 256), (256, 512)]),
        ({"coarsest": 300}, [(256, 512)]),
        ({"scales": "roots", "coarsest": 250}, [(128, 256), (181, 362), (256, 512)]),
        ({"scales": (0.25, 1.0)}, [(64, 128), (256, 512)]),
        (
            {"coarsest": 16, "style_layers": {"relu5_1": 1.0}},
            [(16, 32), (32, 64), (64, 128), (128, 256), (256, 512)],
        ),
    ],
)
def test_scales_lead_up_to_the_size(override: dict[str, Any], expected: list[Any]) -> None:
    """Scales grow by 2 or its root from `coarsest` on, or are fractions; too small ones are left out."""
    assert scale_sizes((256, 512), resolve(override)) == expected


def test_a_preview_shares_its_scales_with_the_large_picture() -> None:
    """A picture of 1024 px begins with the scales of its 256 px preview."""
    settings = RenderSettings()
    preview = scale_sizes((192, 256), settings)
    assert scale_sizes((768, 1024), settings)[: len(preview)] == preview


def test_strokes_keep_their_proportion_to_the_picture() -> None:
    """The style is shown at the picture's area times style_scale², in its own proportions, whatever the size."""
    settings = resolve({"style_scale": 0.5})
    small, large = (style_size((300, 600), (s, s), settings) for s in (256, 1024))
    assert large == pytest.approx((4 * small[0], 4 * small[1]), abs=4)  # of rounding
    assert small[0] * small[1] == pytest.approx(256 * 256 * 0.25, rel=0.02)
    assert small[1] == pytest.approx(2 * small[0], abs=2)


def refuse(message: str, settings: RenderSettings, weights: Any, **pictures: Any) -> None:
    network = VGG(weights, settings.layers)
    targets = TorchTargets(network, settings)
    network.part = None  # type: ignore[method-assign, assignment]
    given = {"content": torch.rand(3, 60, 80), "styles": [torch.rand(3, 60, 80)], **pictures}
    with pytest.raises(SettingsError, match=message):
        prepare(settings=settings, targets=targets, device=CPU, **given)


def test_impossible_requests_are_refused_before_any_work(weights: Any) -> None:
    """Each is a SettingsError that names the problem, raised before the network is used."""
    two = [torch.rand(3, 60, 80)] * 2
    refuse("too small for layer relu4_1", resolve({"size": 7}), weights)
    refuse("too small for layer relu5_1", resolve({"preset": "gatys2016", "size": 15}), weights)
    refuse("too small for layer", resolve({"size": 50}), weights, content=torch.rand(3, 10, 80))
    refuse("style_scale 0.1", resolve({"style_scale": 0.1}), weights)
    refuse("1 weights for 2 styles", resolve({"style_weights": [1]}), weights, styles=two)
    refuse("there is no style", RenderSettings(), weights, styles=[])
    refuse("'given', but no start picture", resolve({"start": "given"}), weights)
    refuse("'content', but a start picture", RenderSettings(), weights, start=torch.rand(3, 9, 9))


def test_two_styles_blend_by_weight(scene_of: SceneMaker, style: Tensor) -> None:
    """The target is the weighted mean of both styles' Gram matrices; a weight of 0 leaves a style out."""
    other = style.flip(0)

    def gram(styles: list[Tensor], weights: tuple[float, ...]) -> Tensor:
        settings = resolve(QUICK, {"style_weights": weights})
        scene, _ = scene_of(settings, styles=styles)
        return scene.scales[0].objective.levels[0].style["relu2_1"].gram

    one, two = gram([style], ()), gram([other], ())
    torch.testing.assert_close(gram([style, other], (3, 1)), 0.75 * one + 0.25 * two)
    torch.testing.assert_close(gram([style, other], (2, 0)), one)


def test_each_start_is_what_it_says(scene_of: SceneMaker, content: Tensor, style: Tensor) -> None:
    """Content, style, grey and a given picture are taken as they are; a mixture lies between noise and content."""

    def start(name: str, **extra: Any) -> Tensor:
        settings = resolve(QUICK, {"start": name, "coarsest": 48, **extra})
        given = 1 - content if name == "given" else None
        return scene_of(settings, start=given)[0].start

    assert torch.equal(start("content")[0], content)
    assert start("grey").unique().tolist() == [0.5]
    assert torch.equal(start("given")[0], 1 - content)
    assert start("style").shape == (1, 3, 40, 48)
    noise = start("noise", noise_std=0.1)
    assert noise.std(dim=(2, 3)).mean().item() == pytest.approx(0.1, rel=0.1)
    torch.testing.assert_close(
        start("mix", noise_std=0.1, noise_ratio=0.3), 0.3 * noise + 0.7 * content[None]
    )


def test_enlarging_is_told(scene_of: SceneMaker) -> None:
    """The notes say that a content or a style was enlarged."""
    scene, _ = scene_of(resolve(QUICK, {"size": 120}))
    assert any("enlarged from 48 × 40" in note for note in scene.notes)
    assert any("style 1 was enlarged" in note for note in scene.notes)
    scene, _ = scene_of(resolve(QUICK))
    assert len(scene.notes) == 1


def test_texture_takes_no_detail_from_the_content(scene_of: SceneMaker) -> None:
    """Without a content weight the content's pixels have no influence on the picture."""
    settings = resolve(QUICK, {"content_weight": 0, "start": "grey"})
    pictures = []
    for brightness in (0.2, 0.9):
        scene, network = scene_of(settings, content=torch.full((3, 40, 48), brightness))
        pictures.append(last(stylize(scene, network, settings)).image())
    assert torch.equal(*pictures)


def test_adams_moments_grow_with_the_picture(scene_of: SceneMaker) -> None:
    """At the start of the second scale Adam has the first scale's moments, enlarged, and its count of steps."""
    settings = resolve(QUICK, ADAM)
    scene, network = scene_of(settings)
    state = last(islice(stylize(scene, network, settings), 13)).state()
    assert float(state["optimizer"]["step"]) == 13
    assert (state["optimizer"]["exp_avg_sq"] >= 0).all()
    assert state["optimizer"]["exp_avg"].numel() == 3 * 40 * 48


def test_the_preconditioner_is_self_adjoint_and_full() -> None:
    """⟨P·a, b⟩ = ⟨a, P·b⟩ at an odd size, and no direction is lost."""
    base = torch.rand(1, 3, 7, 9)
    preconditioner = Preconditioner(base, 0.75)
    a, b = torch.randn(2, base.numel())
    left = (preconditioner.picture(a) - base).flatten() @ b
    right = a @ preconditioner.gradient(b.view(base.shape))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
    assert preconditioner.gain.min() > 0.7
    assert torch.equal(preconditioner.picture(preconditioner.start()), base)


def test_bfloat16_paints_almost_the_same(scene_of: SceneMaker) -> None:
    """With bfloat16 convolutions the final float32 loss of a drawn pair is within 2 % of float32's."""
    scene_picture = from_image(draw_scene(64, 48)).rgb
    painting = from_image(draw_painting(64, 48)).rgb
    totals = []
    for precision in ("float32", "bfloat16"):
        settings = resolve(QUICK, {"precision": precision, "iterations": 30})
        scene, network = scene_of(settings, content=scene_picture, styles=[painting])
        totals.append(shown_loss(scene, network, last(stylize(scene, network, settings))))
    assert totals[1] < 1.02 * totals[0]


def test_the_quick_convolution_paints_almost_the_same(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default's objective and the quick convolution the final float32 loss is within 1 % of float32's."""
    monkeypatch.setattr(winograd, "cpu_supports", {"avx512_bf16"}.__contains__)
    pictures = [from_image(draw(96, 72)).rgb for draw in (draw_scene, draw_painting)]
    chosen = {"size": 96, "scales": [1.0], "iterations": 30}
    scene, network = scene_of(resolve(chosen), content=pictures[0], styles=pictures[1:])
    scene = fixed(scene, network)
    totals = []
    for precision in ("float32", "bfloat16"):
        settings = resolve(chosen, {"precision": precision})
        totals.append(shown_loss(scene, network, last(stylize(scene, network, settings))))
    assert totals[0] != totals[1] < 1.01 * totals[0]
