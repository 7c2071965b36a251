"""Keeping colours: on pictures with known results, and in paintings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nst_daemon.engine import color
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.errors import SettingsError
from tests.engine.conftest import SceneMaker

METHODS = ("luminance", "histogram", "pca", "cholesky")


def noise(seed: int, height: int = 40, width: int = 56) -> Tensor:
    """(3, H, W) in [0.35, 0.65]: far enough from black and white that nothing is clamped."""
    generator = torch.Generator().manual_seed(seed)
    return 0.35 + 0.3 * torch.rand(3, height, width, generator=generator)


def mixed(image: Tensor) -> Tensor:
    """Another palette: correlated channels with another mean."""
    A = torch.tensor([[0.5, 0.2, 0.0], [0.1, 0.4, 0.3], [-0.3, 0.1, 0.3]])
    return (torch.einsum("ij,jhw->ihw", A, image - 0.5) + 0.5).clamp(0, 1)


def luma(image: Tensor) -> np.ndarray[Any, Any]:
    red, green, blue = image.double().numpy()
    return np.asarray(0.299 * red + 0.587 * green + 0.114 * blue)


def test_luminance_is_bt_601s() -> None:
    """Y is 0.299 R + 0.587 G + 0.114 B of the encoded values."""
    image = noise(0)
    assert np.allclose(color.luminance(image)[0].numpy(), luma(image), atol=1e-6)


def test_chroma_put_on_another_luminance_keeps_both() -> None:
    """Y is the one picture's and R − Y, G − Y and B − Y are the other's, where nothing leaves [0, 1]."""
    bright, colors = noise(1), noise(2)
    image = color.with_chroma(bright, colors)
    assert np.allclose(luma(image), luma(bright), atol=1e-6)
    assert torch.allclose(
        image - color.luminance(image), colors - color.luminance(colors), atol=1e-6
    )


def test_saturation_gives_way_before_luminance_and_hue() -> None:
    """Chroma that does not fit the luminance is reduced: Y is exact, and the channels keep their proportion."""
    bright = torch.full((3, 2, 2), 0.97)
    colors = torch.tensor([0.9, 0.1, 0.2]).view(3, 1, 1).expand(3, 2, 2)
    image = color.with_chroma(bright, colors)
    assert np.allclose(luma(image), 0.97, atol=1e-6)
    before, now = colors - color.luminance(colors), image - color.luminance(image)
    ratio = now / before
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), atol=1e-5)
    assert 0 < float(ratio.mean()) < 0.2


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_have_no_chroma(level: float) -> None:
    """Colours put on black leave black, and on white leave white."""
    image = torch.full((3, 4, 4), level)
    assert torch.equal(color.with_chroma(image, noise(3, 4, 4)), image)


def test_luminance_gets_the_palettes_mean_and_spread() -> None:
    """The picture becomes grey with the palette's mean and standard deviation of Y."""
    image = color.match_luminance(noise(4), mixed(noise(5, 30, 30)))
    assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
    wanted = luma(mixed(noise(5, 30, 30)))
    assert luma(image).mean() == pytest.approx(wanted.mean(), abs=1e-6)
    assert luma(image).std() == pytest.approx(wanted.std(), abs=1e-6)


@pytest.mark.parametrize("method", ["histogram", "pca", "cholesky"])
def test_a_picture_in_its_own_palette_stays_as_it_is(method: Any) -> None:
    """A picture that is matched with itself, flat areas and all, is returned."""
    image = (noise(6) * 12).round() / 12
    settings = RenderSettings(keep_colors=method)
    _, (same,) = color.before(image, [image], settings)
    assert torch.allclose(same, image, atol=2e-6)


def test_a_histogram_undoes_what_only_grew_or_shrank() -> None:
    """Pixels in another order, each channel bent by a growing function, come back to the values they had."""
    image = noise(7)
    order = torch.randperm(image[0].numel(), generator=torch.Generator().manual_seed(0))
    palette = image.reshape(3, -1)[:, order].reshape(image.shape)
    bent = torch.stack([image[0] ** 3, image[1] * 0.2, image[2].sqrt()])
    assert torch.allclose(color.match_histogram(bent, palette), image, atol=1e-6)


def test_a_histogram_is_matched_as_numpy_would() -> None:
    """With a palette of another size each value is that of its quantile, restated in float64."""
    image, palette = (noise(8, 9, 11) * 20).round() / 20, noise(9, 13, 7)
    result = color.match_histogram(image, palette)
    for x, p, y in zip(*(t.double().numpy() for t in (image, palette, result)), strict=True):
        own, wanted = np.sort(x, None), np.sort(p, None)
        middle = (np.searchsorted(own, x, "left") + np.searchsorted(own, x, "right")) / 2
        places = (np.arange(len(wanted)) + 0.5) / len(wanted)
        assert np.allclose(y, np.interp(middle / len(own), places, wanted), atol=1e-6)


def test_equal_colours_stay_equal() -> None:
    """A flat area has one colour after its histogram was matched."""
    image = torch.zeros(3, 8, 8)
    image[:, :, 4:] = 1
    result = color.match_histogram(image, noise(10))
    assert len(result[0, :, :4].unique()) == len(result[0, :, 4:].unique()) == 1


@pytest.mark.parametrize("root", ["pca", "cholesky"])
def test_the_covariance_of_colours_becomes_the_palettes(root: Any) -> None:
    """Mean and covariance of the result are the palette's, up to the ε of one 8-bit step squared."""
    palette = mixed(noise(12, 33, 21))
    result = color.match_covariance(noise(11), palette, root)
    got, wanted = (x.reshape(3, -1).double().numpy() for x in (result, palette))
    assert np.allclose(got.mean(1), wanted.mean(1), atol=1e-6)
    assert np.allclose(np.cov(got, bias=True), np.cov(wanted, bias=True), atol=2e-5)


@pytest.mark.parametrize("root", ["pca", "cholesky"])
def test_the_map_of_colours_is_the_documented_one(root: Any) -> None:
    """A is Σ_p^½ Σ^−½ with symmetric roots, or L_p L⁻¹, restated in float64 by numpy's own decompositions."""
    image, palette = noise(13), mixed(noise(14))

    def factor(x: Tensor) -> np.ndarray[Any, Any]:
        S = np.cov(x.reshape(3, -1).double().numpy(), bias=True) + color.EPSILON * np.eye(3)
        if root == "cholesky":
            return np.linalg.cholesky(S)
        U, d, _ = np.linalg.svd(S)
        return np.asarray((U * np.sqrt(d)) @ U.T)

    A = factor(palette) @ np.linalg.inv(factor(image))
    x = image.reshape(3, -1).double().numpy()
    mean = palette.reshape(3, -1).double().numpy().mean(1, keepdims=True)
    expected = A @ (x - x.mean(1, keepdims=True)) + mean
    result = color.match_covariance(image, palette, root)
    assert np.allclose(result.reshape(3, -1).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("root", ["pca", "cholesky"])
def test_noise_in_a_grey_picture_is_not_amplified(root: Any) -> None:
    """A grey picture with chroma of a tenth of an 8-bit step stays nearly grey in a colourful palette."""
    grey = noise(15)[:1].expand(3, -1, -1) + (noise(16) - 0.5) * 0.1 / 255
    result = color.match_covariance(grey, mixed(noise(23)), root).flatten(1)
    spread = torch.linalg.svdvals(result - result.mean(1, keepdim=True))
    assert spread[1] < 0.1 * spread[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_of_one_colour_gives_finite_colours(method: Any) -> None:
    """A style without any variance gives finite colours in [0, 1]."""
    flat, content = torch.full((3, 16, 16), 0.25), noise(17)
    for when in ("before", "after"):
        settings = RenderSettings(keep_colors=method, keep_colors_when=when)
        _, (style,) = color.before(content, [flat], settings)
        shown = color.after(torch.full_like(content, 0.25), content, settings)
        for image in (style, shown):
            assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1


def test_nothing_is_recoloured_unless_asked() -> None:
    """With `off` neither the pictures nor the result are recoloured."""
    content, style = noise(18), noise(19)
    seen, (shown,) = color.before(content, [style], RenderSettings())
    assert seen is content and shown is style
    assert color.after(style, content, RenderSettings()) is style


def test_every_style_is_recoloured_and_the_content_is_not() -> None:
    """Before painting, each of several styles gets the content's palette; the content is unchanged."""
    content = mixed(noise(20))
    settings = RenderSettings(keep_colors="histogram")
    seen, styles = color.before(content, [noise(21), noise(22, 30, 30)], settings)
    assert seen is content
    assert len(styles) == 2
    for style in styles:
        assert torch.allclose(style.mean((1, 2)), content.mean((1, 2)), atol=1e-3)


def painted(scene_of: SceneMaker, **override: object) -> Tensor:
    settings = resolve({"size": 48, "iterations": 3, **override})
    *_, step = stylize(*scene_of(settings), settings)
    return step.image()[0]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_painting_has_the_contents_chroma(
    scene_of: SceneMaker, content: Tensor, when: str
) -> None:
    """With `luminance` each pixel of the result has the hue of the content's pixel."""
    image = painted(scene_of, keep_colors="luminance", keep_colors_when=when)
    now, own = image - color.luminance(image), content - color.luminance(content)
    assert torch.nn.functional.cosine_similarity(now, own, dim=0).min() > 0.99
    assert (color.luminance(image) - color.luminance(content)).abs().mean() > 0.003


@pytest.mark.parametrize("method", ["histogram", "pca", "cholesky"])
def test_the_painting_takes_the_contents_palette_afterwards(
    scene_of: SceneMaker, content: Tensor, method: str
) -> None:
    """Recoloured afterwards, the picture has the content's mean colour at every iteration."""
    plain = painted(scene_of)
    image = painted(scene_of, keep_colors=method, keep_colors_when="after")
    assert torch.allclose(image.mean((1, 2)), content.mean((1, 2)), atol=0.02)
    assert not torch.allclose(plain.mean((1, 2)), content.mean((1, 2)), atol=0.02)


def test_the_painting_is_drawn_to_the_contents_palette_beforehand(
    scene_of: SceneMaker, content: Tensor, style: Tensor
) -> None:
    """Recoloured before, the targets are those of the recoloured style, and the result is not recoloured."""
    chosen = {"size": 48, "iterations": 3, "style_loss": "gram"}
    settings = resolve(chosen, {"keep_colors": "pca"})
    scene, network = scene_of(settings)
    recoloured = color.match_covariance(style, content, "pca")
    plain, _ = scene_of(resolve(chosen), styles=(recoloured,))
    (scale,), (other,) = scene.scales, plain.scales
    found, wanted = scale.objective.levels[0].style, other.objective.levels[0].style
    assert found.keys() == settings.style_layers.keys()
    for layer, statistics in found.items():
        assert torch.equal(statistics.gram, wanted[layer].gram)
    *_, step = stylize(scene, network, settings)
    *_, same = stylize(plain, network, resolve(chosen))
    assert torch.equal(step.image(), same.image())


def test_yaml_off_is_off() -> None:
    """YAML reads a bare `off` as false, and that is `off`; another word is refused with those that are allowed."""
    assert resolve({"keep_colors": False}).keep_colors == "off"
    with pytest.raises(SettingsError, match="'luminance', 'histogram', 'pca'"):
        resolve({"keep_colors": "sepia"})
