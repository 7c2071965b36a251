"""Targets by onnxruntime, and the style cache, also with damaged files."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from nst_daemon.engine.losses import StyleStatistics
from nst_daemon.engine.onnx_session import OnnxSession
from nst_daemon.engine.style_cache import StyleCache, style_key
from nst_daemon.engine.targets import OnnxTargets
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import ModelError

BIG = 1 << 30


@pytest.fixture
def cache(tmp_path: Path) -> StyleCache:
    return StyleCache(tmp_path / "styles", BIG)


@pytest.fixture
def targets(statistics_file: Path, cache: StyleCache) -> OnnxTargets:
    return OnnxTargets(statistics_file, cache=cache)


def equal(a: Mapping[str, StyleStatistics], b: Mapping[str, StyleStatistics]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k].gram, b[k].gram) and torch.equal(a[k].mean, b[k].mean) for k in a
    )


def entry(cache: StyleCache) -> Path:
    """The only file in the cache."""
    (file,) = cache.folder.iterdir()
    return file


def poison(cache: StyleCache, key: str) -> None:
    """Replace an entry by values that no network computes, so that a hit is visible."""
    stored = cache.get(key)
    assert stored is not None
    cache.put(key, {name: torch.full_like(t, -1.0) for name, t in stored.items()})


def test_content_is_what_the_network_sees(
    targets: OnnxTargets, weights: Mapping[str, Tensor], content: Tensor
) -> None:
    """Content features equal torch's to 1e-4 relative, whatever the layout and precision of the picture fed."""
    with torch.no_grad():
        wanted = VGG(weights, ["relu4_2"])(content[None])["relu4_2"]
    for image in (
        content[None],
        content[None].double(),
        content.permute(1, 2, 0)[None].permute(0, 3, 1, 2),
    ):
        found = targets.content(image)
        assert found.keys() == {"relu4_2"}
        assert found["relu4_2"].dtype == torch.float32
        assert (found["relu4_2"] - wanted).norm() <= 1e-4 * wanted.norm()


def test_results_outlive_the_next_run(targets: OnnxTargets, content: Tensor) -> None:
    """What one run returned is not overwritten by the next one, though nothing is copied."""
    first = targets.content(content[None])["relu4_2"]
    kept = first.clone()
    for seed in range(3):
        targets.content(
            torch.rand(content.shape, generator=torch.Generator().manual_seed(seed))[None]
        )
    assert torch.equal(first, kept)


def test_a_guide_of_ones_is_no_guide(targets: OnnxTargets, style: Tensor) -> None:
    """Without a guide the statistics are those of one region that covers everything."""
    assert equal(targets.style(style[None]), targets.style(style[None], torch.ones(1, 1, 57, 61)))


def test_a_region_sees_only_its_part(targets: OnnxTargets, style: Tensor) -> None:
    """Changing the picture where a region's guide is zero, beyond what a layer sees, does not change its statistics."""
    guide = torch.zeros(1, 1, 57, 61)
    guide[..., :16] = 1
    other = style.clone()
    other[..., 20:] = 0.5  # relu1_1 sees one pixel to each side
    before, after = targets.style(style[None], guide), targets.style(other[None], guide)
    torch.testing.assert_close(before["relu1_1"].gram, after["relu1_1"].gram)
    assert not torch.allclose(before["relu5_1"].gram, after["relu5_1"].gram)


def random_picture(channels: int = 3) -> Tensor:
    """(1, channels, 150, 117), random; tile borders do not fall on cell borders of the deepest layers."""
    return torch.rand(1, channels, 150, 117, generator=torch.Generator().manual_seed(channels))


def test_tiles_have_the_targets_of_the_whole(targets: OnnxTargets, statistics_file: Path) -> None:
    """Content features and the statistics of soft regions, one of them in a corner, are the same in tiles, to 1e-5."""
    image, guide = random_picture(), random_picture(2)
    guide[:, 1, 40:] = guide[:, 1, :, 40:] = 0
    whole = targets.content(image), targets.style(image, guide)
    again = OnnxTargets(statistics_file, tile_sides=(128, 64, 32), free=lambda _: 0.0)
    content, style = again.content(image), again.style(image, guide)
    for layer, wanted in whole[0].items():
        torch.testing.assert_close(content[layer], wanted, rtol=1e-4, atol=1e-5)
    for layer, statistics in whole[1].items():
        for kind in ("gram", "mean"):
            found, wanted = getattr(style[layer], kind), getattr(statistics, kind)
            assert (found - wanted).norm() < 1e-5 * wanted.norm(), (layer, kind)


class LimitedSession(OnnxSession):
    """A session that fails for more than `room` pixels, with the error `words`."""

    room = 10**9
    words = "Failed to allocate memory for requested buffer"
    seen: ClassVar[list[int]] = []

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append(inputs["image"].shape[-2] * inputs["image"].shape[-1])
        if self.seen[-1] > self.room:
            raise RuntimeError(self.words)
        return super().run(inputs)


def limited(room: int, words: str = LimitedSession.words) -> type[LimitedSession]:
    return type("Limited", (LimitedSession,), {"room": room, "words": words, "seen": []})


def test_smaller_tiles_are_taken_when_memory_runs_out(statistics_file: Path) -> None:
    """Tiles become smaller until they fit; below the smallest it is an error; other errors are not tried again."""
    image = random_picture()
    wanted = OnnxTargets(statistics_file).content(image)["relu4_2"]

    def found(session: type[LimitedSession]) -> Tensor:
        targets = OnnxTargets(statistics_file, tile_sides=(64, 32), open_session=session)
        return targets.content(image)["relu4_2"]

    narrow = limited(117 * 130)
    torch.testing.assert_close(found(narrow), wanted, rtol=1e-4, atol=1e-5)
    assert narrow.seen[0] == 117 * 150
    assert narrow.seen[-1] <= 117 * 130
    with pytest.raises(RuntimeError, match="Failed to allocate"):
        found(limited(0))
    bad = limited(0, "bad model")
    with pytest.raises(RuntimeError, match="bad model"):
        found(bad)
    assert len(bad.seen) == 1


def test_the_second_time_comes_from_the_cache(
    targets: OnnxTargets, cache: StyleCache, style: Tensor
) -> None:
    """The same pixels are not computed twice: the cache's entry is returned."""
    first = targets.style(style[None])
    assert equal(first, targets.style(style[None].clone()))
    poison(cache, entry(cache).stem)
    assert (targets.style(style[None])["relu1_1"].gram == -1).all()


def test_one_pixel_or_guide_apart_is_another_style(
    targets: OnnxTargets, cache: StyleCache, style: Tensor
) -> None:
    """A different pixel, size, guide or ONNX file is another entry."""
    changed = style.clone()
    changed[0, 3, 4] += 1 / 512
    half = torch.ones(1, 1, 57, 61)
    half[..., :30] = 0
    targets.style(style[None])
    targets.style(changed[None])
    targets.style(style[None, :, :48])
    targets.style(style[None], half)
    targets.digest = "another file"
    targets.style(style[None])
    assert len(list(cache.folder.iterdir())) == 5


def test_the_same_bytes_in_another_shape_are_another_style() -> None:
    """Two pictures with the same bytes and different sizes do not share an entry."""
    tall, wide = torch.full((1, 3, 64, 32), 0.5), torch.full((1, 3, 32, 64), 0.5)
    assert style_key("graph", tall, tall[:, :1]) != style_key("graph", wide, wide[:, :1])


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "digest only"])
def test_a_damaged_entry_is_a_miss(
    targets: OnnxTargets,
    cache: StyleCache,
    style: Tensor,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An entry with a flipped bit or a torn write is computed again and replaced, with a warning."""
    first = targets.style(style[None])
    file = entry(cache)
    whole = file.read_bytes()
    flipped = whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:]
    file.write_bytes(
        {"flipped": flipped, "cut": whole[:-5], "empty": b"", "digest only": whole[:32]}[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert equal(first, targets.style(style[None]))
    assert file.name in caplog.text
    assert file.read_bytes() == whole


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    """Beyond its limit the cache removes the least recently used entries."""
    tensors = {"t": torch.zeros(1000)}
    cache = StyleCache(tmp_path, 3 * 4500)
    for i, key in enumerate("abc"):
        cache.put(key, tensors)
        os.utime(tmp_path / f"{key}.style", (i, i))
    assert cache.get("a") is not None  # now the newest
    cache.put("d", tensors)
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.max_bytes


def test_leftovers_of_a_crash_go_too(tmp_path: Path) -> None:
    """A partial file of a crash counts, and is removed when it is the oldest."""
    (tmp_path / ".x.style.1234.part").write_bytes(bytes(5000))
    os.utime(tmp_path / ".x.style.1234.part", (0, 0))
    cache = StyleCache(tmp_path, 6000)
    cache.put("a", {"t": torch.zeros(1000)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.style"]


def test_what_exceeds_the_bound_alone_is_not_kept(tmp_path: Path) -> None:
    """An entry larger than the whole cache does not empty it."""
    cache = StyleCache(tmp_path, 5000)
    cache.put("small", {"t": torch.zeros(1000)})
    cache.put("large", {"t": torch.zeros(2000)})
    assert [path.stem for path in tmp_path.iterdir()] == ["small"]


def test_an_unusable_folder_only_costs_time(
    statistics_file: Path, tmp_path: Path, style: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """If the cache's folder cannot be used, styles are computed, with a warning."""
    (tmp_path / "styles").write_text("a file in the folder's place")
    targets = OnnxTargets(statistics_file, cache=StyleCache(tmp_path / "styles", BIG))
    with caplog.at_level(logging.WARNING):
        assert equal(targets.style(style[None]), targets.style(style[None]))
    assert "styles" in caplog.text


def _hammer(folder: Path, value: float) -> int:
    """Write and read the same few keys again and again; how many reads were wrong."""
    cache = StyleCache(folder, 5 * 4_500)
    wrong = 0
    for i in range(150):
        key = str(i % 8)
        cache.put(key, {"t": torch.full((1000,), value)})
        found = cache.get(key)
        wrong += found is not None and len(found["t"].unique()) != 1
    return wrong


def test_two_processes_share_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two processes that write, read and evict in one folder never see a torn entry, and keep the limit."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool, caplog.at_level(logging.WARNING):
        other = pool.apply_async(_hammer, (tmp_path, 1.0))
        assert _hammer(tmp_path, 2.0) == 0
        assert other.get(120) == 0
    assert not caplog.text
    StyleCache(tmp_path, 5 * 4_500).put("last", {"t": torch.zeros(1000)})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5 * 4_500


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """An ONNX file that is not there is named, with the remedy."""
    with pytest.raises(ModelError, match=r"gone\.onnx.*No such file"):
        OnnxTargets(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"not a graph", bytes(1000)])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    """An ONNX file that cannot be read, or holds no outputs of ours, is named."""
    file = tmp_path / "bad.onnx"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx.*exported again"):
        OnnxTargets(file)


def test_a_file_cut_short_is_named(statistics_file: Path, tmp_path: Path) -> None:
    """An ONNX file that ends too early is named, before any picture is painted with it."""
    file = tmp_path / "cut.onnx"
    whole = statistics_file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        OnnxTargets(file)


def test_what_really_loaded_is_said(targets: OnnxTargets) -> None:
    """Without a GPU the only provider that loads is the CPU's."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert targets.providers == ("CPUExecutionProvider",)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_computes_the_same(statistics_file: Path, style: Tensor) -> None:
    """On a GPU the CUDA provider loads, results stay there, and agree with the CPU's within 1e-4."""
    gpu = OnnxTargets(statistics_file, device="cuda")
    assert gpu.providers[0] == "CUDAExecutionProvider"
    found, wanted = gpu.style(style[None]), OnnxTargets(statistics_file).style(style[None])
    for layer, statistics in wanted.items():
        assert found[layer].gram.device.type == "cuda"
        error = (found[layer].gram.cpu() - statistics.gram).norm() / statistics.gram.norm()
        assert error <= 1e-4
