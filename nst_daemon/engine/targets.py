"""What a picture is compared with: content features and style statistics, computed by onnxruntime, styles cached.

The ONNX file (see `nst_daemon.export.graph`) takes `image` (1, 3, H, W) and `guide` (1, R, H, W) and has the outputs
`<layer>.gram` (R, N, N), `<layer>.mean` (R, N) for style layers and `<layer>` (1, N, h, w) for content layers.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch  # before onnxruntime: its CUDA libraries are the ones that both shall use
import torch.nn.functional as nnf
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from nst_daemon.engine.cuda_graph import RECORDING
from nst_daemon.engine.losses import StyleStatistics
from nst_daemon.engine.memory import SHARE, SIDES, exhausted, free, give_back
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.tiles import Tile, margin, tiles
from nst_daemon.engine.vgg import layer_names
from nst_daemon.errors import ModelError, StorageError
from nst_daemon.files import make_folder, write_atomic

log = logging.getLogger(__name__)

#: Bytes that onnxruntime takes for each pixel: three maps of the first, widest block, and one that a guide weighs.
PIXEL = 4 * 64 * 4


def load_onnxruntime() -> Any:
    """The module onnxruntime, which reports to its maker by the network from 1.29 on unless it is told not to.

    Telling it after the import is too late: that only ends what would follow the first report.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 (slow; not needed once a style is cached)

    return onnxruntime


class OnnxTargets:
    """A `TargetSource` over one ONNX file.

    device: where the results are wanted; onnxruntime runs there too if its CUDA provider loads, else on the CPU;
    threads: of the CPU, as many as torch has unless given; cache: where style statistics are kept, if anywhere.

    Pictures are (1, 3, H, W), float32, RGB in [0, 1], on any device; results are float32 on `device`. Raises
    ModelError where the file is missing, damaged or not of our making.
    """

    def __init__(
        self,
        onnx_file: Path,
        *,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        cache: StyleCache | None = None,
    ) -> None:
        self.file = onnx_file
        self.device = torch.device(device)
        self._threads = threads or torch.get_num_threads()
        self._cache = cache
        try:
            self.digest = hashlib.sha256(onnx_file.read_bytes()).hexdigest()
            outputs = _output_names(onnx_file)
        except Exception as error:
            raise _unusable(onnx_file, error) from error
        self.style_layers = tuple(n[:-5] for n in outputs if n.endswith(".gram"))
        self.content_layers = tuple(n for n in outputs if "." not in n)
        self._sessions: dict[str, _Session] = {}

    def content(self, image: Tensor) -> dict[str, Tensor]:
        """The features (1, N, h, w) of each content layer."""
        if not self.content_layers:
            return {}
        return self._in_less_memory(self._content, image, self.content_layers)

    def style(self, image: Tensor, guide: Tensor | None = None) -> dict[str, StyleStatistics]:
        """Gram matrices (R, N, N) and means (R, N) of each style layer.

        guide: (1, R, H, W), one map of weights ≥ 0 for each region; without it one region covers everything.
        """
        if not self.style_layers:
            return {}
        if guide is None:
            guide = torch.ones_like(image[:, :1])
        found = self._cache.get(key := self._key(image, guide)) if self._cache else None
        if found is None:
            found = self._in_less_memory(partial(self._style, guide), image, self.style_layers)
            if self._cache:
                self._cache.put(key, found)
        return {
            name: StyleStatistics(
                gram=found[f"{name}.gram"].to(self.device),
                mean=found[f"{name}.mean"].to(self.device),
            )
            for name in self.style_layers
        }

    def _in_less_memory(
        self,
        run: Callable[[Tensor, list[Tile]], dict[str, Tensor]],
        image: Tensor,
        layers: Sequence[str],
    ) -> dict[str, Tensor]:
        """All at once where that fits, as far as can be told; else in tiles, smaller ones where memory still ends."""
        names = layer_names()  # of VGG19: in VGG16 as many layers, or fewer, see as far, or less
        if not set(layers) <= set(names):  # in EfficientNet each cell sees everything: no tiles
            everything = slice(0, image.shape[-2]), slice(0, image.shape[-1])
            return run(image, [Tile(everything, everything)])
        names = names[: 1 + max(names.index(layer) for layer in layers)]
        size = int(image.shape[-2]), int(image.shape[-1])
        around = 2 * margin(names)
        fits = SHARE * self._free() / PIXEL
        areas = [
            (side, min(side + around, size[0]) * min(side + around, size[1])) for side in SIDES
        ]
        sides = [max(size) + around] if size[0] * size[1] <= fits else []  # one tile
        sides += [side for side, area in areas if area <= fits and side < max(size)]
        for side in sides or SIDES[-1:]:
            try:
                return run(image, list(tiles(size, side, names)))
            except Exception as error:
                if not exhausted(error) or side <= SIDES[-1]:
                    raise
                log.info("out of memory (%s): smaller tiles", str(error).partition("\n")[0])
        raise AssertionError("the last of the sides either returns or raises")

    def _free(self) -> float:
        """Bytes that onnxruntime can still take; what torch keeps for itself on a GPU is not among them."""
        if self.device.type == "cuda" and self.providers[0] == "CUDAExecutionProvider":
            return torch.cuda.mem_get_info(self.device)[0]
        return free(torch.device("cpu"))

    def _content(self, image: Tensor, plan: list[Tile]) -> dict[str, Tensor]:
        """Each tile's own cells, put where they belong."""
        session = self._session("content")
        if len(plan) == 1:
            return session.run({"image": image})
        maps: dict[str, Tensor] = {}
        for tile in plan:
            found = session.run({"image": image[(..., *tile.area)]})
            for layer, part in found.items():
                if layer not in maps:
                    stride = minimum_side([layer])
                    h, w = image.shape[-2] // stride, image.shape[-1] // stride
                    maps[layer] = part.new_empty(1, part.shape[1], h, w)
                outside, inside = tile.cells(layer)
                maps[layer][(..., *outside)] = part[(..., *inside)]
        return maps

    def _style(self, guide: Tensor, image: Tensor, plan: list[Tile]) -> dict[str, Tensor]:
        """The tiles' statistics, each of its core alone, in the mean by the weight that the core has."""
        session = self._session("style")
        if len(plan) == 1:
            return session.run({"image": image, "guide": guide})
        sums: dict[str, Tensor] = {}
        total = _weights(guide, self.style_layers)
        for tile in plan:
            own = torch.zeros_like(guide)
            own[(..., *tile.core)] = guide[(..., *tile.core)]
            own = own[(..., *tile.area)]
            weights = _weights(own, self.style_layers)
            found = session.run({"image": image[(..., *tile.area)], "guide": own})
            for name, value in found.items():
                layer = name.partition(".")[0]
                share = (weights[layer] / total[layer].clamp_min(1e-8)).to(value)
                shared = value * share.view(-1, *[1] * (value.dim() - 1))
                sums[name] = sums[name] + shared if name in sums else shared
        return sums

    @property
    def providers(self) -> tuple[str, ...]:
        """onnxruntime's providers that really loaded, the first one preferred."""
        return self._session("content" if self.content_layers else "style").providers

    def _key(self, image: Tensor, guide: Tensor) -> str:
        """SHA-256 of everything that the statistics depend on: the graph, the pixels, the guide."""
        digest = hashlib.sha256(self.digest.encode())
        for tensor in (image, guide):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def _session(self, kind: str) -> _Session:
        """Content and style each have a session of their own, which computes nothing that the other alone needs."""
        if kind not in self._sessions:
            if kind == "content":
                inputs, outputs = ["image"], list(self.content_layers)
            else:
                inputs = ["image", "guide"]
                outputs = [f"{n}.{k}" for n in self.style_layers for k in ("gram", "mean")]
            self._sessions[kind] = _Session(self.file, inputs, outputs, self.device, self._threads)
        return self._sessions[kind]


class _Session:
    """An onnxruntime session over the part of the graph that leads to some of its outputs."""

    def __init__(
        self,
        file: Path,
        inputs: list[str],
        outputs: list[str],
        device: torch.device,
        threads: int,
    ) -> None:
        import onnx  # noqa: PLC0415 (slow to import; nothing of it is needed once a style is cached)
        import onnx.utils  # noqa: PLC0415

        onnxruntime = load_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads that spin would take the cores from torch, which paints beside this.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Sizes change from run to run: neither plans nor pools of memory for one of them are worth keeping.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3  # errors; what loads is asked for below
        self._options = onnxruntime.RunOptions()
        self._value = onnxruntime.OrtValue
        try:
            part = onnx.utils.Extractor(onnx.load(file)).extract_model(inputs, outputs)
            with RECORDING:
                self._session = onnxruntime.InferenceSession(
                    part.SerializeToString(), options, providers=_providers(device)
                )
            del part
        except Exception as error:
            raise _unusable(file, error) from error
        give_back()  # the graph has been in memory several times over
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        on_gpu = self.providers[0] == "CUDAExecutionProvider"
        if on_gpu:
            self._options.add_run_config_entry(
                "memory.enable_memory_arena_shrinkage", f"gpu:{device.index or 0}"
            )
        self._wanted = device
        self._device = device if on_gpu else torch.device("cpu")

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Feed the tensors and return all outputs, on the device that was asked for.

        Inputs and outputs are bound where they lie, in torch's own memory, so on a GPU nothing crosses to the host.
        """
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            fed = tensor.detach().to(self._device, torch.float32).contiguous()
            binding.bind_ortvalue_input(name, self._value.from_dlpack(fed))
        names = [output.name for output in self._session.get_outputs()]
        for name in names:
            binding.bind_output(name, self._device.type, self._device.index or 0)
        if self._device.type == "cuda":
            # onnxruntime computes on a stream of its own, and waits for it at the end of the run.
            torch.cuda.current_stream(self._device).synchronize()
        # Giving memory back, too, waits for the whole GPU.
        with RECORDING if self._device.type == "cuda" else nullcontext():
            self._session.run_with_iobinding(binding, self._options)
        values = (torch.utils.dlpack.from_dlpack(value) for value in binding.get_outputs())
        return {n: value.to(self._wanted) for n, value in zip(names, values, strict=True)}


@dataclass(frozen=True, slots=True)
class StyleCache:
    """Style statistics on disk: at most `max_bytes`, the longest unused go first.

    Several processes may share a folder. An entry appears whole or not at all; it begins with the SHA-256 of what
    follows, and one that does not agree with it is a miss. A folder that cannot be written only costs time.
    """

    folder: Path
    max_bytes: int

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors stored under the key, or None."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            digest, body = content[:_DIGEST], content[_DIGEST:]
            if hashlib.sha256(body).digest() != digest:
                raise SafetensorError("digest and content disagree")
            tensors: dict[str, Tensor] = safetensors.load(body)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            log.warning("cannot use the cached style %s (%s); computing it again", path, error)
            return None
        with suppress(OSError):
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Store the tensors under the key, then drop what exceeds the bound."""
        body = safetensors.save({k: v.cpu().contiguous() for k, v in tensors.items()})
        if _DIGEST + len(body) > self.max_bytes:
            return
        try:
            make_folder(self.folder)
            write_atomic(self._path(key), hashlib.sha256(body).digest() + body)
            self._trim()
        except (StorageError, OSError) as error:
            log.warning("cannot keep a style in the cache: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.style"

    def _trim(self) -> None:
        """Remove the oldest until the rest fits; leftovers of a crash age and go in the same way."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process trims too
                entries.append((path, path.stat()))
        total = sum(stat.st_size for _, stat in entries)
        for path, stat in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _weights(guide: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Layer → (R,), the sum of a guide (1, R, H, W) that was averaged down to the layer's size."""
    halved, sums = {1: guide.float()}, {}
    for layer in layers:
        stride = minimum_side([layer])
        while max(halved) < stride:
            halved[2 * max(halved)] = nnf.avg_pool2d(halved[max(halved)], 2)
        sums[layer] = halved[stride].sum((-2, -1))[0]
    return sums


_DIGEST = hashlib.sha256().digest_size


def _providers(device: torch.device) -> list[Any]:
    """What to ask onnxruntime for; it goes on with the next where one does not load."""
    if device.type != "cuda":
        return ["CPUExecutionProvider"]
    cuda = {
        "device_id": device.index or 0,
        # The exhaustive search, which is the default, takes half a second for each new size.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",  # targets are computed once and looked at for hundreds of iterations
    }
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _output_names(file: Path) -> list[str]:
    """The graph's outputs, without reading the weights into memory twice."""
    import onnx  # noqa: PLC0415

    names = [output.name for output in onnx.load(file).graph.output]
    if not names:
        raise ValueError("it has no outputs")
    return names


def _unusable(file: Path, error: Exception) -> ModelError:
    return ModelError(
        f"cannot use the ONNX file {file}: {str(error).strip().partition(chr(10))[0]}",
        remedy="remove it: it is exported again when it is needed",
    )
