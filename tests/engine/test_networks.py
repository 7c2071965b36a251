"""VGG16 and EfficientNet-B0 instead of VGG19: their layers, and presets for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nst_daemon.engine.efficientnet import EfficientNet
from nst_daemon.engine.networks import NETWORKS, minimum_side
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.tiles import halo
from nst_daemon.engine.vgg import VGG, bare_features, layer_names
from nst_daemon.errors import SettingsError
from tests.weights import random_weights


def test_torch_knows_the_networks_by_the_same_layers() -> None:
    """Each network's table names its modules in order, VGG's by their kind, and counts how often each halves."""
    for network in NETWORKS:
        modules, names = bare_features(network), layer_names(network)
        assert len(modules) == len(names)
        if network.startswith("vgg"):
            kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
            assert [kinds[type(m)] for m in modules] == [name[:4] for name in names]
        x = torch.empty(1, 3, 64, 96, device="meta")
        for name, module in zip(names, modules, strict=True):
            x = module(x)
            assert x.shape[2:] == (64 // minimum_side([name]), 96 // minimum_side([name])), name


@pytest.mark.parametrize("network", NETWORKS)
def test_the_modules_are_torchvisions(network: str) -> None:
    """Each network has torchvision's modules, all with the same options, and weights of the same names and shapes."""
    import torchvision.models

    ours, theirs = bare_features(network), getattr(torchvision.models, network)().features
    assert repr(ours) == repr(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


def test_the_files_are_torchvisions() -> None:
    """The file that `model fetch` brings is the one that torchvision has for each network."""
    from torchvision.models import get_model_weights

    for name, network in NETWORKS.items():
        assert get_model_weights(name).IMAGENET1K_V1.url.rpartition("/")[2] == network.weights


@pytest.mark.parametrize("network", NETWORKS)
def test_every_preset_finds_its_layers(network: str) -> None:
    """Each preset resolves for each network to layers that it has, with the same sum of weights."""
    for preset in PRESETS:
        chosen = {"preset": preset} | ({} if NETWORKS[network].pooling else {"pooling": "max"})
        settings = resolve(chosen, network=network)
        assert settings.layers <= set(layer_names(network))
        usual = resolve({"preset": preset})
        assert sum(settings.style_layers.values()) == pytest.approx(
            sum(usual.style_layers.values())
        )


def test_layers_stand_at_the_nearest_resolution() -> None:
    """VGG16 takes the last convolution of a block for a fourth one, EfficientNet the last stage of a layer's size."""
    tv = resolve({"preset": "maxpool-tv"}, network="vgg16")
    assert list(tv.style_layers) == [
        "conv1_2",
        "relu1_2",
        "relu2_2",
        "relu3_3",
        "relu4_3",
        "relu5_3",
    ]
    chosen = resolve({"preset": "gatys-pytorch"}, network="efficientnet_b0")
    assert list(chosen.style_layers) == ["stem", "stage1", "stage2", "stage3", "stage5"]
    assert list(chosen.content_layers) == ["stage3"]


@pytest.mark.parametrize(
    ("network", "layer", "allowed"),
    [
        ("vgg16", "relu4_4", "conv5_3, relu1_1"),
        ("efficientnet_b0", "relu4_2", "stem, stage1, stage2"),
        ("vgg19", "stage2", "conv5_4, relu1_1"),
    ],
)
def test_a_layer_of_another_network_is_refused(network: str, layer: str, allowed: str) -> None:
    """A layer that a person names and the network has not is refused with those that it has."""
    with pytest.raises(SettingsError, match=rf"style_layers.*{layer}.*{allowed}.*\({network}\)"):
        resolve({"style_layers": {layer: 1.0}}, network=network)


def test_pooling_can_be_chosen_only_where_there_is_some() -> None:
    """EfficientNet has no pooling: any choice but the default is refused, naming what is allowed."""
    with pytest.raises(SettingsError, match=r"pooling.*'max': efficientnet_b0 has no pooling"):
        resolve({"pooling": "average"}, network="efficientnet_b0")


def test_efficientnet_computes_what_torchvision_does() -> None:
    """At a size that five halvings divide, with zeros padded, the maps are those of torchvision's own modules."""
    state = random_weights("efficientnet_b0")
    network = EfficientNet(
        state, ["stem", "stage3", "head"], padding="zeros", network="efficientnet_b0"
    )
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    whole = bare_features("efficientnet_b0").to_empty(device="cpu").eval()
    whole.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
    with torch.no_grad():
        found = network(image)
        x = network.normalised(image)
        for name, module in zip(layer_names("efficientnet_b0"), whole, strict=True):
            x = module(x)
            if name in found:
                torch.testing.assert_close(found[name], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(33, 47), (32, 32), (97, 65)])
def test_efficientnet_halves_as_vgg_does(size: tuple[int, int]) -> None:
    """At odd sizes its maps have the same sizes as VGG's."""
    names = layer_names("efficientnet_b0")
    network = EfficientNet(random_weights("efficientnet_b0"), names, network="efficientnet_b0")
    with torch.no_grad():
        maps = network(torch.rand(1, 3, *size))
    for name in names:
        stride = minimum_side([name])
        assert maps[name].shape[2:] == (size[0] // stride, size[1] // stride)


def test_replicated_borders_are_not_dark() -> None:
    """With padding `replicate` a flat picture gives a flat stem."""
    network = EfficientNet(random_weights("efficientnet_b0"), ["stem"], network="efficientnet_b0")
    with torch.no_grad():
        stem = network(torch.full((1, 3, 33, 33), 0.7))["stem"]
    torch.testing.assert_close(stem, stem[..., :1, :1].expand_as(stem), rtol=0, atol=1e-5)


def test_tiles_refuse_a_network_that_sees_everything() -> None:
    """Tiles are refused for a network whose cells see the whole picture."""
    with pytest.raises(SettingsError, match=r"efficientnet_b0 cannot paint in tiles.*vgg19"):
        halo(layer_names("efficientnet_b0"))


def test_vgg16_is_a_vgg() -> None:
    """VGG16 with weights of its own gives maps of the sizes that its names say."""
    network = VGG(random_weights("vgg16", ["relu4_2"]), ["relu4_2"], network="vgg16")
    with torch.no_grad():
        assert network(torch.rand(1, 3, 35, 51))["relu4_2"].shape == (1, 512, 4, 6)


def test_a_network_owns_its_weights_in_the_order_of_convolutions() -> None:
    """Weights are float32 and channels last, and do not change with the caller's tensors."""
    state = random_weights("vgg19")
    network = VGG(state, ["relu1_1"])
    weight = network.get_parameter("features.0.weight")
    before = weight.clone()
    state["features.0.weight"].zero_()
    assert weight.dtype == torch.float32
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, before) and before.any()
