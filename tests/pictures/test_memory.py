"""Memory of decoding: estimates, refusals, and pictures that are reduced while they are decoded."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
import torch
from PIL import ExifTags, Image

from nst_daemon.config import Limits
from nst_daemon.engine.device_errors import explain
from nst_daemon.engine.images import Picture, load_picture, resize
from nst_daemon.engine.onnx_session import unusable
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import InputError, ModelError, OutOfMemory, PictureError, Retry
from nst_daemon.painter import Painter, decode
from nst_daemon.pictures.memory import LITTLE, MARGIN, REDUCED_FROM, reduced_size, require_memory
from nst_daemon.pictures.raster import Array
from tests.corpus import chunk
from tests.pictures import jxl_writer
from tests.pictures.corpus import bmp, psd, raw

WIDTH, HEIGHT, USED = 1601, 1201, 200

Encoder = Callable[[Array], bytes]


@cache
def scene(width: int = WIDTH, height: int = HEIGHT) -> Array:
    """(H, W, 4) in [0, 1]: waves of several lengths with some noise; the last channel is an opacity above 1/8."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    noise = np.random.default_rng(0).normal(0, 0.02, (height, width, 3))
    waves = np.stack([np.sin(40 * x), np.cos(90 * y), np.sin(25 * (x + y))], -1)
    colours = (0.5 + 0.4 * waves + noise).clip(0, 1)
    made = np.concatenate([colours, (0.2 + 0.8 * x)[..., None].clip(0, 1)], -1)
    made.flags.writeable = False  # it serves many tests
    return made


FAST = Image.Quantize.FASTOCTREE


def pillow(format: str, mode: str = "RGB", **options: object) -> Encoder:
    """What encodes pixels by Pillow in a mode."""

    def encode(pixels: Array) -> bytes:
        image = Image.fromarray((pixels * 255).round().astype(np.uint8))
        out = io.BytesIO()
        # Pillow's own choice of a palette takes seconds, and does not change how a file is decoded.
        shown = image.quantize(method=FAST) if format == "GIF" else image.convert(mode)
        shown.save(out, format, **options)
        return out.getvalue()

    return encode


def palette(pixels: Array) -> bytes:
    """A PNG of 64 colours, one of which is transparent."""
    out = io.BytesIO()
    Image.fromarray((pixels[..., :3] * 255).astype(np.uint8)).quantize(64).save(
        out, "PNG", transparency=0
    )
    return out.getvalue()


def turned(pixels: Array) -> bytes:
    """A JPEG that is stored on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return pillow("JPEG", quality=95, exif=exif)(pixels)


def deep_png(pixels: Array) -> bytes:
    """With 16 bits and alpha."""
    return bytes(imagecodecs.png_encode((pixels * 65535).round().astype(np.uint16), level=1))


def deep_tiff(pixels: Array) -> bytes:
    """With 16 bits, compressed."""
    out = io.BytesIO()
    rgb = (pixels[..., :3] * 65535).round().astype(np.uint16)
    tifffile.imwrite(out, rgb, photometric="rgb", compression="zlib")
    return out.getvalue()


def mosaic_dng(pixels: Array) -> bytes:
    """A camera raw file whose colours are those of the scene."""
    values = (pixels[..., :3] ** 2.2 * 65535).round().astype(np.uint16)
    values[:40] = 65535  # LibRaw needs white to keep the brightness
    mosaic = values[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = values[::2, ::2, 0], values[1::2, 1::2, 2]
    return raw.dng(mosaic, raw.Camera(), raw.PATTERNS["RGGB"])


def linear_dng(pixels: Array) -> bytes:
    """A camera raw file with all colours for each pixel."""
    return raw.dng((pixels[..., :3] * 65535).round().astype(np.uint16), raw.Camera())


def jpeg2000(bits: int = 8, channels: int = 3) -> Encoder:
    """What encodes pixels as JPEG 2000."""

    def encode(pixels: Array) -> bytes:
        given = (pixels[..., :channels] * ((1 << bits) - 1)).round()
        kind = np.uint8 if bits == 8 else np.uint16
        return bytes(
            imagecodecs.jpeg2k_encode(
                np.ascontiguousarray(given.astype(kind)), 0, reversible=True, bitspersample=bits
            )
        )

    return encode


def heif(mode: str = "RGB", **options: object) -> Encoder:
    """What encodes pixels as HEIC."""
    channels, _, bits = mode.partition(";")
    most, kind = (1 << int(bits or 8)) - 1, np.uint16 if bits else np.uint8

    def encode(pixels: Array) -> bytes:
        given = (pixels[..., : len(channels)] * most).round().astype(kind)
        out, size = io.BytesIO(), given.shape[1::-1]
        chosen = {"quality": 90, "enc_params": {"preset": "ultrafast"}, **options}
        pillow_heif.encode(mode, size, np.ascontiguousarray(given).tobytes(), out, **chosen)
        return out.getvalue()

    return encode


def avif(bits: int = 8, channels: int = 3, **options: object) -> Encoder:
    """What encodes pixels as AVIF."""

    def encode(pixels: Array) -> bytes:
        given = (pixels[..., :channels] * ((1 << bits) - 1)).round()
        kind = np.uint8 if bits == 8 else np.uint16
        return bytes(
            imagecodecs.avif_encode(
                np.ascontiguousarray(given.astype(kind)),
                90,
                speed=10,
                bitspersample=bits,
                **options,
            )
        )

    return encode


def jxl(kind: str = "u1", channels: int = 3, **options: object) -> Encoder:
    """What encodes pixels as JPEG XL."""
    most = 1 if kind[0] == "f" else (1 << 8 * int(kind[1])) - 1

    def encode(pixels: Array) -> bytes:
        given = np.ascontiguousarray(pixels[..., :channels] * most).round(0 if most > 1 else 9)
        return bytes(imagecodecs.jpegxl_encode(given.astype(kind), effort=3, **options))

    return encode


def hdr_jxl(pixels: Array) -> bytes:
    """A JPEG XL in PQ and BT.2020."""
    levels = jxl_writer.levels(0.6 * pixels[..., :3], 16)
    fields = jxl_writer.Fields(
        size=levels.shape[1::-1],
        depth=jxl_writer.integers(16),
        space=jxl_writer.encoding(jxl_writer.RGB, 16, 9).bits,
    )
    return jxl_writer.coded(fields, jxl_writer.frames_of(levels, lossless=True, effort=3))


def without_end(pixels: Array) -> bytes:
    """A JPEG whose last marker is missing."""
    return pillow("JPEG", quality=90)(pixels)[:-2]


def jpeg_12(pixels: Array) -> bytes:
    """A JPEG with 12 bits."""
    values = (pixels[..., :3] * 4095).round().astype(np.uint16)
    return bytes(imagecodecs.jpeg8_encode(values, 95, bitspersample=12))


def masked_bmp(pixels: Array) -> bytes:
    """A BMP with masks of 10 bits."""
    values = (pixels[..., :3] * 1023).round().astype(np.uint32)
    packed = values[..., 0] << 20 | values[..., 1] << 10 | values[..., 2]
    masks = 0x3FF00000, 0xFFC00, 0x3FF
    return bmp.bmp(packed[::-1].tobytes(), packed.shape, 32, compression=bmp.MASKS, masks=masks)


def run_length_bmp(pixels: Array) -> bytes:
    """A BMP of literal runs."""
    values = (pixels[..., 0] * 255).round().astype(int)
    code = bmp.runs_of(values, 8, "literal")
    colours = bmp.stored_palette(np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1), bmp.INFO)
    return bmp.bmp(code, values.shape, 8, compression=bmp.RLE8, palette=colours)


def photoshop(bits: int, *, transparent: bool = False) -> Encoder:
    """What encodes pixels as PSD."""

    def encode(pixels: Array) -> bytes:
        shares = np.moveaxis(pixels, 2, 0)[: 4 if transparent else 3]
        if transparent:  # blended with white
            shares = np.concatenate([1 - shares[3] * (1 - shares[:3]), shares[3:]])
        values = psd.stored(shares, bits)
        layers = "mark" if transparent else ""
        return psd.Psd(values, psd.RGB, bits, compression=psd.RLE, layers=layers).encode()

    return encode


def with_code_points(pixels: Array) -> bytes:
    """A PNG in Display P3, by cICP."""
    data = pillow("PNG", compress_level=1)(pixels)
    return data[:33] + chunk(b"cICP", bytes([12, 13, 0, 1])) + data[33:]


def png_without_end(pixels: Array) -> bytes:
    """A PNG that is cut behind its rows."""
    return pillow("PNG", compress_level=1)(pixels)[:-18]


ENCODERS: dict[str, Encoder] = {
    "JPEG": pillow("JPEG", quality=90),
    "progressive JPEG": pillow("JPEG", quality=90, progressive=True, subsampling=0),
    "CMYK": pillow("JPEG", "CMYK", quality=90),
    "turned JPEG": turned,
    "PNG": pillow("PNG", compress_level=1),
    "PNG with code points": with_code_points,
    "PNG without an end": png_without_end,
    "PNG with alpha": pillow("PNG", "RGBA", compress_level=1),
    "grey with alpha": pillow("PNG", "LA", compress_level=1),
    "palette": palette,
    "TIFF": pillow("TIFF", compression="tiff_lzw"),
    "WebP": pillow("WEBP", quality=80, method=0),
    "lossless WebP": pillow("WEBP", lossless=True, method=0),
    "WebP with alpha": pillow("WEBP", "RGBA", quality=80, method=0),
    "GIF": pillow("GIF"),
    "GIF with transparency": pillow("GIF", transparency=3),
    "BMP": pillow("BMP"),
    "BMP with a palette": pillow("BMP", "P"),
    "BMP with alpha": lambda p: bytes(imagecodecs.bmp_encode((p * 255).round().astype(np.uint8))),
    "BMP with masks": masked_bmp,
    "BMP with run lengths": run_length_bmp,
    "JPEG without an end": without_end,
    "12-bit JPEG": jpeg_12,
    "16-bit PNG with alpha": deep_png,
    "16-bit TIFF": deep_tiff,
    "DNG": mosaic_dng,
    "PSD": photoshop(8),
    "16-bit PSD": photoshop(16),
    "16-bit PSD with alpha": photoshop(16, transparent=True),
    "linear DNG": linear_dng,
    "JPEG XL": jxl(level=90),
    "lossless JPEG XL": jxl(lossless=True),
    "16-bit JPEG XL with alpha": jxl("u2", 4, lossless=True),
    "floating-point JPEG XL": jxl("f4", level=90),
    "HDR JPEG XL": hdr_jxl,
    "HEIC": heif(),
    "HEIC with alpha": heif("RGBA"),
    "10-bit HEIC": heif("RGB;10"),
    "12-bit HEIC with alpha": heif("RGBA;12", chroma=444),
    "HEIC in Display P3": heif(color_primaries=12, transfer_characteristics=13),
    "AVIF": avif(),
    "AVIF with alpha": avif(channels=4),
    "10-bit AVIF": avif(10),
    "12-bit AVIF with alpha": avif(12, 4),
    # PQ's 0.6 is a little brighter than white.
    "HDR AVIF": lambda pixels: avif(10, primaries=9, transfer=16)(0.6 * pixels),
    "JPEG 2000": jpeg2000(),
    "12-bit JPEG 2000": jpeg2000(12),
    "16-bit JPEG 2000 with alpha": jpeg2000(16, 4),
}


@cache
def encoded(name: str) -> bytes:
    """The scene, encoded."""
    return ENCODERS[name](scene())


def both(data: bytes, folder: Path, used: float = USED) -> tuple[Picture, Picture]:
    """A file decoded whole, and reduced."""
    path = folder / "picture"
    path.write_bytes(data)
    return load_picture(path), load_picture(path, used=lambda _: used)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "DNG"])
def test_a_reduced_picture_is_the_whole_one(name: str, tmp_path: Path) -> None:
    """At the size that is used, a picture reduced while decoding differs by less than a JPEG's noise (0.9 of 255)."""
    whole, reduced = both(encoded(name), tmp_path)
    assert reduced.file_size == whole.size == reduced.size
    assert max(reduced.rgb.shape) == round(MARGIN * USED)
    size = (150, 200) if whole.rgb.shape[1] < whole.rgb.shape[2] else (200, 150)
    difference = 255 * (resize(reduced.rgb[None], size) - resize(whole.rgb[None], size))
    if whole.alpha is not None:
        difference = difference * resize(whole.alpha[None], size)
    assert difference.square().mean().sqrt() < 0.4
    assert (whole.alpha is None) == (reduced.alpha is None)
    if whole.alpha is not None and reduced.alpha is not None:
        faded = resize(reduced.alpha[None], size) - resize(whole.alpha[None], size)
        assert faded.square().mean().sqrt() < 0.5 / 255
    assert reduced.notes == whole.notes
    assert reduced.metadata == whole.metadata


def test_a_reduced_raw_file_is_shifted_by_a_fraction_of_a_pixel(tmp_path: Path) -> None:
    """Each 2 × 2 pixels of a mosaic become one, at the place of their middle: reds and blues move by 1/8 pixel at most.

    At the size that is used, the steepest of the scene's waves makes at most 6 levels of 255 of that.
    """
    whole, reduced = both(encoded("DNG"), tmp_path)
    assert reduced.file_size == whole.size
    size = (150, 200)
    difference = 255 * (resize(reduced.rgb[None], size) - resize(whole.rgb[None], size))
    assert difference.square().mean().sqrt() < 3.5
    assert difference.mean().abs() < 0.2


def test_a_deep_picture_keeps_its_bits_when_it_is_reduced(tmp_path: Path) -> None:
    """A slope of 16-bit steps within one 8-bit step is still a slope after the reduction."""
    slope = np.linspace(0.5, 0.5 + 1 / 255, WIDTH)
    pixels = np.broadcast_to(slope[None, :, None], (HEIGHT, WIDTH, 4)).copy()
    for encode in (deep_png, deep_tiff):
        _, reduced = both(encode(pixels), tmp_path)
        assert len(reduced.rgb[0, 10].unique()) > 100


def test_only_much_larger_pictures_are_reduced() -> None:
    """A picture is reduced to twice the side that is used, if it has four times that side and over a megapixel."""
    assert reduced_size((4000, 3000), 1000) == (2000, 1500)
    assert reduced_size((4000, 3000), 4000 / REDUCED_FROM + 1) is None
    assert reduced_size((1000, 1000), 10) is None
    assert reduced_size((30_000, 40), 100) == (200, 1)


def test_reducing_changes_no_size_and_no_note(tmp_path: Path, model_cache: Path) -> None:
    """The result of a reduced content has the size, the scales and the notes of the whole one; so has its alpha."""
    painter = Painter(device="cpu", cache_dir=model_cache)
    (tmp_path / "content.png").write_bytes(ENCODERS["PNG with alpha"](scene(1999, 1501)))
    (tmp_path / "style.jpg").write_bytes(ENCODERS["JPEG"](scene(3001, 1000)))
    settings = resolve({"size": 96, "iterations": 1, "content_layers": {"relu2_2": 1.0}})
    paths = tmp_path / "content.png", tmp_path / "style.jpg"
    small = painter.prepare(paths[0], [paths[1]], settings)
    large = painter.prepare(decode(paths[0]), [decode(paths[1])], settings)
    assert small.alpha is not None and max(small.alpha.shape) == MARGIN * 96
    assert [s.size for s in small.scene.scales] == [s.size for s in large.scene.scales]
    assert small.notes == large.notes
    error = small.scene.scales[-1].content - large.scene.scales[-1].content
    assert 255 * error.square().mean().sqrt() < 0.4
    *_, step = painter.paint(small)
    result = painter.finish(small, step).picture
    assert result.alpha is not None
    assert result.alpha.shape[1:] == result.rgb.shape[1:] == large.scene.size


def test_original_size_is_decoded_whole(tmp_path: Path, model_cache: Path) -> None:
    """With `size: original` no pixel is lost."""
    painter = Painter(device="cpu", cache_dir=model_cache)
    (tmp_path / "content.png").write_bytes(ENCODERS["PNG"](scene(1100, 1000)))
    style = decode(tmp_path / "content.png")
    layers = {"content_layers": {"relu1_1": 1.0}, "style_layers": {"relu1_1": 1.0}}
    settings = resolve(
        {"size": "original", "scales": [1.0], "style_scale": 0.05, "style_loss": "gram", **layers}
    )
    prepared = painter.prepare(tmp_path / "content.png", [style], settings)
    assert torch.equal(prepared.scene.scales[-1].content[0], style.rgb)
    assert prepared.scene.size == (1000, 1100)


MEASURE = """
import json, sys
from pathlib import Path
from importlib import import_module
import nst_daemon.painter
from nst_daemon.config import Limits
from nst_daemon.engine import images
from nst_daemon.pictures import memory
from nst_daemon.pictures.camera_raw import recognise
from nst_daemon.machine import proc_bytes, trim_heap

def measured(path, used):
    with open(path, "rb") as file:
        known = recognise(file)
        reader = import_module("nst_daemon.pictures.readers." + known.reader)
        stored = reader.open_picture(file)
        size = memory.reduced_size(stored.size, used) if used else None
        estimate = memory.peak_bytes(stored, size)
    trim_heap()
    Path("/proc/self/clear_refs").write_text("5")
    before = proc_bytes(Path("/proc/self/status"))["VmRSS"]
    images.load_picture(path, Limits(max_pixels=10**9, max_side=10**6), used=(lambda _: used) if used else None)
    return estimate, proc_bytes(Path("/proc/self/status"))["VmHWM"] - before

measured(sys.argv[1], 0)  # libraries are loaded
print(json.dumps([[path, used, *measured(path, used)] for path in sys.argv[1:] for used in (0, 200)]))
"""


def test_estimates_hold(tmp_path: Path) -> None:
    """For each kind of file, whole and reduced, decoding takes no more than is estimated, up to 12 MB."""
    for name in ENCODERS:
        (tmp_path / name).write_bytes(encoded(name))
    paths = [str(tmp_path / name) for name in ENCODERS]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        check=True, capture_output=True, text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)},  # what is freed leaves the process
    )  # fmt: skip
    rows = json.loads(done.stdout)
    wrong = [row for row in rows if row[3] > row[2] + 12e6]
    assert wrong == []
    assert all(estimate < 30e6 or peak > 0.25 * estimate for _, _, estimate, peak in rows)


def test_a_file_that_takes_too_much_is_refused_by_the_numbers() -> None:
    """Above half of the limit a file is refused for good; above what is free it is a lack of memory. Both name keys.

    Nothing is asked for small files.
    """
    with pytest.raises(PictureError) as refused:
        require_memory(3e9, "a.jpg", limit=4e9, free=8e9)
    assert str(refused.value) == (
        "decoding a.jpg takes about 2.8 GiB of memory, more than the 1.8 GiB that one file may take "
        "(50% of limits.max_memory, of the control group or of the machine); "
        "reduce the picture, set a smaller size, or raise that limit"
    )
    assert refused.value.retry is Retry.NEVER
    with pytest.raises(
        OutOfMemory, match=r"about 2\.8 GiB, and 953 MiB is free.*max_memory"
    ) as later:
        require_memory(3e9, "a.jpg", limit=8e9, free=1e9)
    assert later.value.retry is Retry.ALONE
    require_memory(3e9, "a.jpg", limit=8e9, free=4e9)
    require_memory(LITTLE - 1, "a.jpg", limit=0, free=0)


LIMITED = """
import resource, sys
import nst_daemon.painter
from pathlib import Path
from nst_daemon.engine.images import load_picture
from nst_daemon.machine import proc_bytes
load_picture(sys.argv[2])
used = int(proc_bytes(Path("/proc/self/status"))["VmData"])
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
for wanted in (None, lambda _: 200):
    try:
        load_picture(sys.argv[1], used=wanted)
        print("decoded")
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_lack_of_memory_is_not_called_damage(tmp_path: Path) -> None:
    """With 64 MiB left, a JPEG of 12 megapixels is a lack of memory when decoded whole, and is decoded reduced."""
    (tmp_path / "large").write_bytes(ENCODERS["JPEG"](scene(4000, 3000)))
    (tmp_path / "small").write_bytes(ENCODERS["JPEG"](scene(40, 30)))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "large", tmp_path / "small"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    whole, reduced = done.stdout.splitlines()
    assert whole.startswith("OutOfMemory there is not enough memory to decode")
    assert "damaged" not in whole
    assert reduced == "decoded"


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (MemoryError(), ""),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
                      "you tried to allocate 4096 bytes. Error code 12"), "4096 bytes"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has … try setting "
                                "PYTORCH_ALLOC_CONF=expandable_segments:True"), "20.00 MiB"),
    ],
)  # fmt: skip
def test_errors_of_allocators_are_explained_in_our_words(error: Exception, asked: str) -> None:
    """A failed allocation of any library is a lack of memory; its own text and advice are not passed on."""
    known = explain(error)
    assert isinstance(known, OutOfMemory)
    assert asked in known.message
    assert "enforce" not in str(known)
    assert "PYTORCH" not in str(known)


def test_a_lack_of_memory_is_no_fault_of_the_onnx_file() -> None:
    """An allocation that fails while an ONNX file is loaded is a lack of memory, without advice to remove the file."""
    known = unusable(Path("vgg19.onnx"), MemoryError())
    assert isinstance(known, OutOfMemory)
    assert "remove" not in str(known)
    assert isinstance(unusable(Path("vgg19.onnx"), ValueError("no graph")), ModelError)


@contextmanager
def written(pipe: int, data: bytes) -> Iterator[None]:
    """Data is written into a pipe meanwhile."""

    def write() -> None:
        with os.fdopen(pipe, "wb") as end, suppress(BrokenPipeError):
            end.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    yield
    writer.join()


@pytest.mark.parametrize("name", ["JPEG", "16-bit TIFF", "16-bit PNG with alpha"])
def test_a_pipe_is_read_like_a_file(name: str, tmp_path: Path) -> None:
    """A picture from a pipe, by its path or its descriptor, is the same as from a file."""
    data = ENCODERS[name](scene(300, 200))
    (tmp_path / "file").write_bytes(data)
    for source in (lambda end: f"/dev/fd/{end}", lambda end: end):
        reading, writing = os.pipe()
        with written(writing, data):
            found = load_picture(source(reading))
        os.close(reading)
        assert torch.equal(found.rgb, load_picture(tmp_path / "file").rgb)


def test_an_open_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    """A descriptor of a 16-bit TIFF, read before, gives the picture."""
    (tmp_path / "file").write_bytes(deep_tiff(scene(30, 20)))
    with (tmp_path / "file").open("rb") as file:
        file.read()
        found = load_picture(file.fileno())
    assert torch.equal(found.rgb, load_picture(tmp_path / "file").rgb)


def test_a_pipe_is_bounded() -> None:
    """More than limits.max_bytes in a pipe is refused by the name of the key, after no more than that was read."""
    reading, writing = os.pipe()
    with written(writing, bytes(5_000_000)):
        with pytest.raises(InputError, match=r"has more than 976 KiB; raise limits\.max_bytes"):
            decode(reading, Limits(max_bytes=1_000_000))
        os.close(reading)
