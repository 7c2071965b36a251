"""Region masks: their meaning, the guided objective against a restatement, and pictures painted with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from nst_daemon.engine.images import from_image
from nst_daemon.engine.losses import Objective, statistics, style_sums
from nst_daemon.engine.masks import Regions, at_layer, flat_colors, regions
from nst_daemon.engine.scene import Scene, prepare
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import PictureError, SettingsError
from tests.engine.conftest import SceneMaker

RED, GREEN, BLUE, WHITE, BLACK = "#ff0000", "#00ff00", "#0000ff", "#ffffff", "#000000"


def halves(left: str, right: str, size: tuple[int, int] = (64, 48), at: float = 0.5) -> Image.Image:
    """A mask of (width, height) in two colours that meet at a fraction of the width."""
    mask = Image.new("RGB", size, left)
    ImageDraw.Draw(mask).rectangle((round(size[0] * at), 0, *size), fill=right)
    return mask


def tensor(image: Image.Image) -> Tensor:
    return from_image(image).rgb


def both(mask: Image.Image, *styles: Image.Image) -> Regions:
    """The masks of a content and of styles that have their sizes."""
    sizes = [(s.height, s.width) for s in styles]
    return regions(
        from_image(mask), [from_image(s) for s in styles], (mask.height, mask.width), sizes
    )


def guide_of(mask: Image.Image) -> Tensor:
    found = both(mask, mask)
    assert found.content is not None
    return found.content((mask.height, mask.width))[0]


def test_flat_colours_are_found_the_most_frequent_first() -> None:
    """Three flat areas give their three colours in the order of their areas."""
    mask = halves(RED, BLUE, at=0.7)
    ImageDraw.Draw(mask).rectangle((0, 0, 9, 9), fill=WHITE)
    found = (flat_colors(tensor(mask), "it") * 255).tolist()
    assert found == [[255, 0, 0], [0, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize("blur", [0, 1, 3])
@pytest.mark.parametrize("size", [(64, 48), (1500, 40)])
def test_soft_edges_are_no_colours_of_their_own(blur: float, size: tuple[int, int]) -> None:
    """However far an edge is blurred, two colours remain, at any size of mask."""
    mask = halves(RED, BLUE, size).filter(ImageFilter.GaussianBlur(blur * max(size) / 64))
    assert len(flat_colors(tensor(mask), "it")) == 2


def test_jpegs_noise_makes_no_colours(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A mask that was saved as JPEG has its two colours, and its regions are where they were."""
    path = tmp_path_factory.mktemp("mask") / "mask.jpg"
    halves(RED, BLUE, (128, 96), at=0.6).save(path, quality=80)
    with Image.open(path) as mask:
        guide = guide_of(mask.convert("RGB"))
    assert len(guide) == 2
    assert guide[0, :, :68].min() > 0.95 and guide[1, :, 86:].min() > 0.95


def test_hard_edges_divide_the_picture() -> None:
    """Every pixel of a flat mask belongs to its own region and to no other."""
    guide = guide_of(halves(RED, BLUE, at=0.25))
    expected = torch.zeros(48, 64)
    expected[:, 16:] = 1
    assert torch.allclose(guide, torch.stack([expected, 1 - expected]), atol=1e-6)


def test_soft_edges_belong_to_both_in_proportion() -> None:
    """Between red and blue, a pixel of r red and 1 − r blue has weights r and 1 − r."""
    mask = halves(RED, BLUE).filter(ImageFilter.GaussianBlur(4))
    guide = guide_of(mask)
    assert torch.allclose(guide.sum(0), torch.ones(48, 64), atol=1e-5)
    red = tensor(mask)[0]
    number = 0 if guide[0, 0, 0] > 0.5 else 1
    assert torch.allclose(guide[number], red, atol=0.02)
    assert 0.3 < guide[number, 20, 32] < 0.7


def test_a_mask_of_another_size_and_the_same_proportions_fits() -> None:
    """Half as many pixels, even where halves are rounded, are the same regions at the picture's size."""
    content, style = halves(RED, BLUE, (33, 24)), halves(RED, BLUE, (20, 15))
    found = regions(from_image(content), [from_image(style)], (47, 65), [(150, 200)])
    assert found.content is not None
    guide = found.content((47, 65))
    assert guide.shape == (1, 2, 47, 65)
    assert guide[0, :, :, :28].amax((1, 2)).sum() == pytest.approx(1, abs=0.01)


def test_styles_have_the_regions_of_their_colours() -> None:
    """Region numbers are the content's; a style with one colour has that region alone; JPEG's shifts do not matter."""
    found = both(
        halves(RED, BLUE, at=0.75), halves(BLUE, "#fa0305", at=0.75), Image.new("RGB", (9, 9), BLUE)
    )
    assert [style.numbers for style in found.styles] == [(1, 0), (1,)]
    assert found.count == 2


def test_masks_of_styles_alone_say_where_in_the_content() -> None:
    """Without a mask of the content, a style's mask is white where it goes, grey where it goes in part."""
    ramp = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    found = regions(
        None, [from_image(halves(WHITE, BLACK)), from_image(ramp)], (48, 64), [(5, 5), (7, 9)]
    )
    assert found.content is not None
    guide = found.content((48, 64))[0]
    assert guide[0, :, :31].min() > 0.99 and guide[0, :, 33:].max() < 0.01
    assert torch.allclose(guide[1], tensor(ramp)[0], atol=1e-6)
    assert [(s.numbers, s.guide) for s in found.styles] == [((0,), None), ((1,), None)]


def refused(
    content: Image.Image | None, styles: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]
) -> str:
    masks = [from_image(s) for s in styles]
    with pytest.raises(PictureError) as error:
        regions(None if content is None else from_image(content), masks, (48, 64), list(sizes))
    assert error.value.remedy
    return str(error.value)


def test_masks_that_do_not_fit_are_refused() -> None:
    """Other proportions, other colours, too many or none, a missing mask, a black one: each refusal says which."""
    good, square = halves(RED, BLUE), halves(RED, BLUE, (50, 50))
    assert "mask of the content is 50 × 50" in refused(square, [good], [(48, 64)])
    assert "mask of style 2 is 64 × 48" in refused(good, [good, good], [(48, 64), (64, 48)])
    assert "mask of style 1 is 50 × 50" in refused(None, [square], [(50, 50)])
    assert "#00ff00, but the content mask does not have it" in refused(
        good, [halves(RED, GREEN)], [(48, 64)]
    )
    assert "#0000ff, but no style mask" in refused(
        good, [Image.new("RGB", (64, 48), RED)], [(48, 64)]
    )
    assert (
        refused(good, [good], [(48, 64)] * 2)
        == "2 style pictures with 1 style mask; give one mask for each style picture"
    )
    assert (
        refused(good, [], [(48, 64)])
        == "1 style picture with 0 style masks; give one mask for each style picture"
    )
    noise = Image.effect_noise((64, 48), 100).convert("RGB")
    assert "no flat colours" in refused(noise, [good], [(48, 64)])
    stripes = Image.new("RGB", (1000, 750))
    for i in range(20):
        ImageDraw.Draw(stripes).rectangle(
            (50 * i, 0, 50 * i + 49, 750), fill=(12 * i, 0, 20 * (i % 2))
        )
    assert "20 flat colours" in refused(stripes, [good], [(48, 64)])
    assert "style 1 is black" in refused(None, [Image.new("RGB", (64, 48))], [(5, 5)])


def test_a_regions_statistics_are_of_its_pixels_alone() -> None:
    """G_r = Σ w F Fᵀ / Σ w with weights averaged down to the layer, restated in float64."""
    F = torch.randn(1, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    guide = torch.rand(1, 3, 13, 17, generator=torch.Generator().manual_seed(1))
    small = at_layer(guide, "relu2_1")
    assert small.shape == (1, 3, 6, 8)
    got = statistics(F, small)
    f, w = F[0].double().numpy().reshape(5, -1), guide[0].double().numpy()[:, :12, :16]
    for r in range(3):
        weights = w[r].reshape(6, 2, 8, 2).mean((1, 3)).reshape(-1)
        gram = (f * weights) @ f.T / weights.sum()
        assert np.allclose(got.gram[r].numpy(), gram, atol=1e-5)
        assert np.allclose(got.mean[r].numpy(), f @ weights / weights.sum(), atol=1e-5)


ONE_LAYER = {
    "style_loss": "gram",
    "style_layers": {"relu1_1": 1.0},
    "content_layers": {"relu1_1": 1.0},
}


@pytest.mark.parametrize("style_loss", ["covariance", "gram", "wasserstein"])
@pytest.mark.parametrize("calibrate", ["auto", "off"])
def test_the_guided_objective_is_the_sum_of_its_regions(style_loss: str, calibrate: str) -> None:
    """The style term is that of each region as a picture of its own, times the fraction of the picture it covers."""
    layer = "relu1_1"
    settings = resolve(
        {"style_loss": style_loss, "calibrate": calibrate, "gram_norm": "mean",
         "style_layers": {layer: 1.0}, "content_layers": {layer: 1.0}}
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    F, S, P = (torch.rand(1, 4, 6, 10, generator=generator, dtype=torch.float64) for _ in range(3))
    guide = torch.zeros(1, 2, 6, 10, dtype=torch.float64)
    guide[:, 0, :, :3], guide[:, 1, :, 3:] = 1, 1
    image = torch.rand(1, 3, 6, 10, dtype=torch.float64)

    def style_term(F: Tensor, S: Tensor, P: Tensor, guide: Tensor | None) -> Tensor:
        target = {layer: statistics(S, guide)}
        guides = {} if guide is None else {layer: guide}
        objective = Objective({layer: P}, target, settings, guides)
        return objective({layer: F}, image)[objective.names.index(f"style {layer}")]

    left, right = (
        style_term(F[..., cut], S[..., cut], P[..., cut], None) for cut in (slice(3), slice(3, 10))
    )
    assert torch.allclose(style_term(F, S, P, guide), 0.3 * left + 0.7 * right, rtol=1e-10)


def test_a_regions_gradient_comes_from_its_own_target_alone() -> None:
    """Another style in region 2 changes the gradient there, and nowhere in region 1."""
    settings = resolve(ONE_LAYER)
    generator = torch.Generator().manual_seed(3)
    F, A, B = (torch.rand(1, 4, 6, 10, generator=generator) for _ in range(3))
    guide = torch.zeros(1, 2, 6, 10)
    guide[:, 0, :, :4], guide[:, 1, :, 4:] = 1, 1

    def gradient(second: Tensor) -> Tensor:
        x = F.clone().requires_grad_()
        S = torch.cat([A[..., :4], second[..., 4:]], dim=-1)
        objective = Objective(
            {"relu1_1": F}, {"relu1_1": statistics(S, guide)}, settings, {"relu1_1": guide}
        )
        (found,) = torch.autograd.grad(objective({"relu1_1": x}, torch.zeros(1, 3, 6, 10))[1], x)
        return found

    one, other = gradient(A), gradient(B)
    assert torch.equal(one[..., :4], other[..., :4])
    assert not torch.allclose(one[..., 4:], other[..., 4:])


def test_sums_of_tiles_are_those_of_the_whole() -> None:
    """Guided sums over two windows of a map add up to those over all of it."""
    generator = torch.Generator().manual_seed(4)
    F, guide = (
        torch.rand(1, 4, 6, 10, generator=generator),
        torch.rand(1, 2, 6, 10, generator=generator),
    )
    settings = resolve(ONE_LAYER)
    objective = Objective(
        {"relu1_1": F}, {"relu1_1": statistics(F, guide)}, settings, {"relu1_1": guide}
    )
    windows = [(slice(None), slice(7)), (slice(None), slice(7, 10))]
    tiles = [objective.sums({"relu1_1": F[(..., *w)]}, {"relu1_1": w}) for w in windows]
    added, whole = tiles[0] + tiles[1], style_sums(F, guide)
    assert torch.allclose(added.style["relu1_1"].products, whole.products, rtol=1e-5)
    assert torch.allclose(added.style["relu1_1"].weight, whole.weight, rtol=1e-5)


def test_a_region_without_positions_is_harmless() -> None:
    """A region of the content without positions at a deep layer gives finite terms and gradients."""
    settings = resolve(ONE_LAYER)
    F = torch.rand(1, 4, 6, 10).requires_grad_()
    guide = torch.zeros(1, 2, 6, 10)
    guide[:, 0] = 1
    target = statistics(torch.rand(1, 4, 6, 10), torch.ones(1, 2, 6, 10))
    objective = Objective(
        {"relu1_1": F.detach()}, {"relu1_1": target}, settings, {"relu1_1": guide}
    )
    terms = objective({"relu1_1": F}, torch.zeros(1, 3, 6, 10))
    (gradient,) = torch.autograd.grad(terms.sum(), F)
    assert terms.isfinite().all() and gradient.isfinite().all()


# Pictures

SHALLOW = {
    "style_loss": "gram",
    "style_levels": 2,
    "tv_weight": 0.5,
    "size": 64,
    "iterations": 12,
    "coarsest": 64,
    "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5},
    "content_layers": {"relu2_2": 1.0},
    "content_weight": 0.01,
}


@pytest.fixture(scope="session")
def grey() -> Tensor:
    """(3, 48, 64), with a little structure."""
    y, x = torch.meshgrid(torch.linspace(0, 9, 48), torch.linspace(0, 12, 64), indexing="ij")
    return (0.5 + 0.05 * torch.sin(x + y)).expand(3, -1, -1).contiguous()


@pytest.fixture(scope="session")
def warm_and_cold() -> Tensor:
    """(3, 48, 64): orange stripes on the left, blue ones on the right."""
    stripes = 0.2 * (torch.arange(64) // 3 % 2).float().expand(48, 64)
    warm = torch.stack([0.7 + stripes, 0.4 + stripes, 0.1 + stripes])
    return torch.cat([warm[..., :32], warm.flip(0)[..., 32:]], dim=2)


def painted(scene: Scene, network: VGG, settings: RenderSettings) -> Tensor:
    *_, step = stylize(scene, network, settings)
    return step.image()[0]


def warmth(image: Tensor) -> float:
    return float((image[0] - image[2]).mean())


def test_each_region_takes_its_own_regions_style(
    scene_of: SceneMaker, grey: Tensor, warm_and_cold: Tensor
) -> None:
    """Each side of the content is painted in the half of the style with the same mask colour."""
    settings = resolve(SHALLOW)
    for mask, sign in ((halves(RED, BLUE), 1), (halves(BLUE, RED), -1)):
        found = both(mask, halves(RED, BLUE))
        image = painted(
            *scene_of(settings, content=grey, styles=[warm_and_cold], regions=found), settings
        )
        assert sign * warmth(image[..., :28]) > 0.15
        assert sign * warmth(image[..., 36:]) < -0.15


def test_each_style_goes_where_its_mask_is_white(scene_of: SceneMaker, grey: Tensor) -> None:
    """With a mask for each of two styles, one is painted above and the other below, unmixed."""
    # A flat style has no covariance, and at reduced levels the edge between the regions covers much of the picture.
    settings = resolve({**SHALLOW, "style_levels": 1, "style_loss": "gram"})
    above = halves(WHITE, BLACK, (48, 64)).rotate(-90, expand=True)
    below = above.rotate(180)
    orange = torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1) * torch.ones(3, 40, 40)
    styles = [orange, orange.flip(0)]
    found = regions(None, [from_image(above), from_image(below)], (48, 64), [(40, 40), (40, 40)])
    image = painted(*scene_of(settings, content=grey, styles=styles, regions=found), settings)
    assert warmth(image[:, :20]) > 0.15
    assert warmth(image[:, 28:]) < -0.15


def test_a_mask_of_one_region_changes_nothing(
    scene_of: SceneMaker, grey: Tensor, warm_and_cold: Tensor
) -> None:
    """Masks in one colour paint the same picture as none."""
    settings = resolve({**SHALLOW, "iterations": 3})
    red = Image.new("RGB", (64, 48), RED)
    plain = painted(*scene_of(settings, content=grey, styles=[warm_and_cold]), settings)
    guided = painted(
        *scene_of(settings, content=grey, styles=[warm_and_cold], regions=both(red, red)), settings
    )
    assert torch.allclose(plain, guided, atol=1e-3)


def test_two_styles_blend_in_the_regions_that_both_have(
    scene_of: SceneMaker, grey: Tensor, warm_and_cold: Tensor
) -> None:
    """A region's target is the weighted mean over the styles that have it."""
    settings = resolve({**SHALLOW, "style_weights": (3, 1)})
    masks = both(halves(RED, BLUE), halves(RED, BLUE), Image.new("RGB", (64, 48), BLUE))
    second = warm_and_cold.flip(2) * 0.5
    scene, network = scene_of(settings, content=grey, styles=[warm_and_cold, second], regions=masks)
    (scale,) = scene.scales
    with torch.no_grad():
        first_maps, second_maps = network(warm_and_cold[None]), network(second[None])
    content = masks.content
    assert content is not None
    guide = at_layer(content((48, 64)), "relu2_1")
    target = scale.objective.levels[0].style["relu2_1"].gram
    one = statistics(first_maps["relu2_1"], guide).gram
    two = statistics(second_maps["relu2_1"]).gram
    red = 0 if guide[0, 0, 0, 0] > 0.5 else 1
    assert torch.allclose(target[red], one[red], rtol=1e-4, atol=1e-6)
    assert torch.allclose(
        target[1 - red], 0.75 * one[1 - red] + 0.25 * two[0], rtol=1e-4, atol=1e-6
    )


def test_what_cannot_be_painted_is_refused_before_any_target(
    grey: Tensor, warm_and_cold: Tensor
) -> None:
    """A region whose only style has weight 0 is refused before any target is computed."""

    class Nothing:
        def content(self, image: Tensor) -> dict[str, Tensor]:
            raise AssertionError("targets were computed")

        style = content

    masks = both(
        halves(RED, BLUE), Image.new("RGB", (64, 48), RED), Image.new("RGB", (64, 48), BLUE)
    )
    settings = resolve({**SHALLOW, "style_weights": (1, 0)})
    with pytest.raises(SettingsError, match="without a style"):
        prepare(
            grey, [warm_and_cold] * 2, settings, Nothing(), device=torch.device("cpu"), regions=masks
        )  # fmt: skip


def test_a_region_that_a_deep_layer_cannot_see_is_refused(
    scene_of: SceneMaker, grey: Tensor
) -> None:
    """A region of the style on the last few columns, which pooling cuts off, is a PictureError with a remedy."""
    settings = resolve({"size": 64, "iterations": 1, "preset": "gatys-pytorch"})
    style = torch.rand(3, 48, 76)
    masks = regions(
        from_image(halves(RED, BLUE)),
        [from_image(halves(RED, BLUE, (76, 48), at=0.95))],
        (48, 64),
        [(48, 76)],
    )
    with pytest.raises(PictureError, match="larger"):
        scene_of(settings, content=grey, styles=[style], regions=masks)
