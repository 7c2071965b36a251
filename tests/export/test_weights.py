"""Which weights are used, and what happens with files that are missing, damaged or malicious."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from nst_daemon import weights_file
from nst_daemon.errors import ModelError
from nst_daemon.export import weights
from nst_daemon.painter import Painter
from nst_daemon.weights_file import find_weights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for torchvision's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"features.0.weight": torch.rand(4, 3, 3, 3), "features.0.bias": torch.rand(4)}


@pytest.fixture
def imagenet(hub: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of torchvision's layout under a name that holds its own digest, as torchvision names its files."""
    unnamed = hub / "unnamed.pth"
    torch.save(state | {"classifier.0.bias": torch.rand(2)}, unnamed)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()
    file = unnamed.rename(hub / f"vgg19-{digest[:8]}.pth")
    monkeypatch.setattr(weights_file, "IMAGENET_FILES", {"vgg19": file.name})
    return file


def test_auto_takes_the_bundled_ones_by_default(hub: Path) -> None:
    """Without ImageNet's file on the machine `auto` is the bundled weights."""
    assert find_weights("auto") == find_weights("bundled")


def test_auto_takes_imagenets_where_they_are(imagenet: Path, state: dict[str, Tensor]) -> None:
    """With ImageNet's file on the machine `auto` takes it, and loads its convolutions only."""
    found = find_weights("auto")
    assert (found.name, found.path) == ("imagenet", imagenet)
    loaded = weights.load(found)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def truncate(file: Path) -> None:
    """Cut the last byte off."""
    file.write_bytes(file.read_bytes()[:-1])


def replace_by_folder(file: Path) -> None:
    """A folder of the same name."""
    file.unlink()
    file.mkdir()


def replace_by_dead_link(file: Path) -> None:
    """A link of the same name to a file that does not exist."""
    file.unlink()
    file.symlink_to("gone")


DAMAGES = [
    (truncate, r"is damaged: its SHA-256 is"),
    (lambda file: file.write_bytes(b"<!DOCTYPE html>"), r"is damaged: its SHA-256 is"),
    (replace_by_folder, r"is not a file"),
    (replace_by_dead_link, r"is not a file"),
]


@pytest.mark.parametrize(("damage", "cause"), DAMAGES)
def test_damaged_imagenet_weights_are_refused_by_name_and_replaced_by_auto(
    imagenet: Path, damage: Callable[[Path], object], cause: str
) -> None:
    """With a damaged file `imagenet` is an error; `auto` is the bundled weights with a warning of one line."""
    damage(imagenet)
    with pytest.raises(ModelError, match=rf"{imagenet.name} {cause}.*model fetch --network vgg19"):
        find_weights("imagenet")
    found = find_weights("auto")
    assert (found.name, found.sha256) == ("bundled", find_weights("bundled").sha256)
    assert imagenet.name in found.warning
    assert "the bundled weights are used instead" in found.warning
    assert "\n" not in found.warning
    assert not find_weights("bundled").warning


def test_an_unreadable_imagenet_file_is_replaced_by_auto(imagenet: Path) -> None:
    """A file that this user may not read is a warning for `auto` as well."""
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    imagenet.chmod(0)
    assert find_weights("auto").name == "bundled"


def test_a_painter_logs_the_warning_and_reports_it(
    imagenet: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A painter with `auto` and a damaged ImageNet file logs one warning, and `info` has it for the daemon's log."""
    truncate(imagenet)
    painter = Painter(device="cpu", cache_dir=tmp_path)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == [painter.info()["weights_warning"]]
    assert "is damaged" in warnings[0]


def test_missing_imagenet_weights_name_the_command(hub: Path) -> None:
    """Asking for ImageNet's weights where they are missing names the command that fetches them."""
    with pytest.raises(ModelError, match=r"not on this machine.*nst-daemon model fetch"):
        find_weights("imagenet")


def test_a_network_without_bundled_weights_says_so(hub: Path) -> None:
    """VGG16 has no bundled weights: `bundled` and `auto` both say how to get some."""
    for name in ("bundled", "auto"):
        with pytest.raises(ModelError, match="model fetch"):
            find_weights(name, "vgg16")


def test_an_unknown_network_is_refused() -> None:
    """An unknown network is named, with those that are known."""
    with pytest.raises(ModelError, match=r"unknown network 'vgg20'.*vgg19"):
        find_weights("auto", "vgg20")


def test_the_names_are_torchvisions() -> None:
    """The files that are looked for have the names of the URLs that torchvision itself downloads."""
    for network, file in weights_file.IMAGENET_FILES.items():
        url = torchvision.models.get_model_weights(network).IMAGENET1K_V1.url
        assert url.rpartition("/")[2] == file


def test_the_bundled_file_is_the_one_on_its_card() -> None:
    """The digest of the bundled weights stands on their card."""
    found = find_weights("bundled")
    assert found.sha256 in (found.path.parent / "README.md").read_text()


def test_files_load_alike(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """The same tensors in a .pth and in a .safetensors file load as the same."""
    torch.save(state, tmp_path / "mine.pth")
    save_file(state, tmp_path / "mine.safetensors")
    for suffix in (".pth", ".safetensors"):
        found = find_weights(tmp_path / f"mine{suffix}")
        assert found.name == "mine"
        loaded = weights.load(found)
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path with nothing there is named, with what may be written instead."""
    with pytest.raises(
        ModelError, match=r"no weights file at .*gone\.pth.*auto, imagenet, bundled"
    ):
        find_weights(tmp_path / "gone.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_file_is_named(
    tmp_path: Path, state: dict[str, Tensor], suffix: str, damage: str
) -> None:
    """Cut short, overwritten or empty: loading ends with a ModelError that names the file."""
    file = tmp_path / f"mine{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "noise": bytes(1000), "empty": b""}[damage])
    with pytest.raises(ModelError, match=rf"mine\{suffix}"):
        weights.load(find_weights(file))


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    """A .pth that would run code when unpickled is refused, and the code does not run."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    file = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Trap()}, file)
    with pytest.raises(ModelError, match=r"evil\.pth"):
        weights.load(find_weights(file))
    file.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ModelError, match=r"evil\.pth"):
        weights.load(find_weights(file))
    assert not trap.exists()


@pytest.mark.parametrize("content", [{"conv1_1.weight": torch.zeros(1)}, [1, 2], {}])
def test_another_layout_names_the_import(tmp_path: Path, content: object) -> None:
    """A file without `features.…` is refused, and the command that converts other layouts is named."""
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth have no .*model import"):
        weights.load(find_weights(tmp_path / "other.pth"))


def test_the_list_marks_what_auto_takes(hub: Path, imagenet: Path) -> None:
    """The list has a row for each kind of weights, and marks the one that `auto` takes."""
    rows = {(row.network, row.name): row for row in weights_file.list_models()}
    assert rows["vgg19", "imagenet"].automatic
    assert rows["vgg19", "bundled"].present
    assert not rows["vgg19", "bundled"].automatic
    imagenet.unlink()
    rows = {(row.network, row.name): row for row in weights_file.list_models()}
    assert not rows["vgg19", "imagenet"].present
    assert rows["vgg19", "bundled"].automatic


def test_the_list_says_what_is_damaged(imagenet: Path) -> None:
    """A damaged file stays in the list, as present, with what is wrong with it."""
    imagenet.write_bytes(b"")
    row = next(row for row in weights_file.list_models() if row.name == "imagenet")
    assert row.present
    assert "damaged" in row.note


def test_the_whole_digest_counts_from_the_first_use_on(imagenet: Path) -> None:
    """Once used, ImageNet's file is held against its whole digest, which stands beside it as sha256sum writes it."""
    found = find_weights("auto")
    weights.load(found)
    record = imagenet.with_name(imagenet.name + ".sha256")
    assert record.read_text() == f"{found.sha256}  {imagenet.name}\n"
    assert find_weights("auto") == found
    record.write_text(found.sha256[:8] + "0" * 56 + f"  {imagenet.name}\n")
    with pytest.raises(ModelError, match="damaged"):
        find_weights("imagenet")


def test_a_folder_that_cannot_be_written_is_no_obstacle(imagenet: Path) -> None:
    """Where the digest cannot be written down, the weights are used all the same."""
    imagenet.with_name(imagenet.name + ".sha256").mkdir()
    assert weights.load(find_weights("auto"))
