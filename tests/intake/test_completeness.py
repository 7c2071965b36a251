"""Is a file complete? Files of many encoders, cut off everywhere, and files whose space was allocated first."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageFilter

from nst_daemon.intake import file_data
from nst_daemon.intake.completeness import looks_whole
from nst_daemon.pictures.encode_jxl import encode_jxl
from tests.corpus import chunk, png, tiff
from tests.pictures.corpus.case import cases_of
from tests.pictures.corpus.psd import COMPRESSIONS, RAW, RGB, RLE, sample

WIDE = np.random.default_rng(1).integers(0, 4, (3, 1100, 3), dtype=np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def check(data: bytes) -> bool:
    """Whether a file with these bytes is complete."""
    descriptor = os.memfd_create("file")
    try:
        os.write(descriptor, data)
        return looks_whole(descriptor, len(data))
    finally:
        os.close(descriptor)


def encode(kind: str, pixels: np.ndarray = NOISE, mode: str = "RGB", **options: object) -> bytes:
    """Pixels in one of Pillow's formats; `frames=3` for a file with three images."""
    buffer = io.BytesIO()
    frames = [
        Image.fromarray(np.roll(pixels, n)).convert(mode) for n in range(options.pop("frames", 1))
    ]  # type: ignore[call-overload]
    if len(frames) > 1:
        options |= {"save_all": True, "append_images": frames[1:]}
    frames[0].save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def heif(pixels: np.ndarray = NOISE, images: int = 1) -> bytes:
    """An HEIC file."""
    container = pillow_heif.HeifFile()
    for _ in range(images):
        container.add_frombytes("RGB", pixels.shape[1::-1], pixels.tobytes())
    buffer = io.BytesIO()
    container.save(buffer, quality=90)
    return buffer.getvalue()


def camera_jpeg(**options: object) -> bytes:
    """A JPEG with a thumbnail in its EXIF segment."""
    thumbnail = encode("JPEG", NOISE[:16, :16])
    ifd = b"II*\0" + struct.pack("<IHI", 8, 0, 14) + struct.pack("<H", 2)
    ifd += struct.pack("<HHII", 513, 4, 1, 44) + struct.pack("<HHII", 514, 4, 1, len(thumbnail))
    return encode("JPEG", exif=b"Exif\0\0" + ifd + bytes(4) + thumbnail, **options)


def big_tiff(order: str) -> bytes:
    """A BigTIFF with two directories and two strips each, all at the end of the file."""
    strip = b"\x80" * 60
    mark = b"II" if order == "<" else b"MM"
    data = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    for page in range(2):
        start = len(data)
        entries = [(256, 3, 1, 10), (257, 3, 1, 4), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2)]
        entries += [(277, 3, 1, 3), (278, 3, 1, 2), (273, 4, 2, 0), (279, 4, 2, 0)]
        after = start + 8 + 20 * len(entries) + 8
        directory = struct.pack(order + "Q", len(entries))
        for tag, kind, number, value in entries:
            directory += struct.pack(order + "HHQ", tag, kind, number)
            if tag == 258:
                directory += struct.pack(order + "HHHH", 8, 8, 8, 0)
            elif tag in {273, 279}:
                values = (after, after + 60) if tag == 273 else (60, 60)
                directory += struct.pack(order + "II", *values)
            else:
                directory += struct.pack(order + "HHHH", value, 0, 0, 0)
        following = 0 if page else after + 120
        data += directory + struct.pack(order + "Q", following) + strip * 2
    return data


def top_down_bmp() -> bytes:
    """A BMP with a negative height, 16 bits per pixel and masks."""
    header = struct.pack("<IiiHHIIiiII", 40, 30, -20, 1, 16, 3, 0, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    pixels = NOISE.tobytes()[: 60 * 20]
    return b"BM" + struct.pack("<IHHI", 66 + 1200, 0, 0, 66) + header + masks + pixels


def core_bmp() -> bytes:
    """A BMP with the header of OS/2."""
    pixels = NOISE.tobytes()[: 92 * 20]
    size = struct.pack("<IHHI", 26 + len(pixels), 0, 0, 26)
    return b"BM" + size + struct.pack("<IHHHH", 12, 30, 20, 1, 24) + pixels


def cr2() -> bytes:
    """A camera raw file of Canon: a TIFF whose first directory follows its own mark."""
    tags = {256: (4, 10), 257: (4, 10), 258: (3, 8), 259: (3, 6), 273: (4, 94), 279: (4, 300)}
    entries = [struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items()]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I4s4x", 16, b"CR\x02\0") + directory + NOISE.tobytes()[:300]


def cr3() -> bytes:
    """A camera raw file of Canon: boxes."""
    boxes = {b"ftyp": b"crx \0\0\0\1crx isom", b"moov": b"m" * 90, b"mdat": NOISE.tobytes()[:300]}
    return b"".join(struct.pack(">I", 8 + len(data)) + kind + data for kind, data in boxes.items())


def raf() -> bytes:
    """A camera raw file of Fujifilm: a list of its parts, and the parts."""
    parts = [NOISE.tobytes()[:200], b"d" * 60, NOISE.tobytes()[200:500]]
    starts = [120, 320, 380]
    pairs = [n for start, part in zip(starts, parts, strict=True) for n in (start, len(part))]
    head = b"FUJIFILMCCD-RAW 0201FF000000Camera".ljust(84, b" ") + struct.pack(">6I", *pairs)
    return head.ljust(120, b" ") + b"".join(parts)


def artist() -> Image.Exif:
    """Some EXIF."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A. Painter"
    return exif


ENCODED = {
    "jpeg": encode("JPEG"),
    "jpeg, thumbnail": camera_jpeg(),
    "jpeg, progressive, thumbnail": camera_jpeg(progressive=True),
    "jpeg, restart markers": encode("JPEG", restart_marker_blocks=2),
    "jpeg, grey": encode("JPEG", mode="L", optimize=True),
    "jpeg, fill bytes": encode("JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb"),
    "png": encode("PNG"),
    "png, interlaced chunks": png(8, 8, chunk(b"tEXt", b"k\0IEND\xae\x42\x60\x82"), pixels=bytes(200)),
    "apng": encode("PNG", frames=3),
    "gif": encode("GIF"),
    "gif, animated": encode("GIF", frames=3, comment=b"; not the end ;"),
    "webp": encode("WEBP"),
    "webp, lossless": encode("WEBP", lossless=True),
    "webp, animated": encode("WEBP", frames=3),
    "webp, profile": encode("WEBP", icc_profile=b"p" * 301),
    "bmp": encode("BMP"),
    "bmp, palette": encode("BMP", mode="P"),
    "bmp, 1 bit": encode("BMP", mode="1"),
    "bmp, top-down": top_down_bmp(),
    "bmp, OS/2": core_bmp(),
    "avif": encode("AVIF"),
    "heic": heif(),
    "heic, 3 images": heif(images=3),
    "jxl": bytes(imagecodecs.jpegxl_encode(NOISE, lossless=True)),
    "jxl, lossy": bytes(imagecodecs.jpegxl_encode(NOISE, level=90)),
    "jxl, animated": bytes(imagecodecs.jpegxl_encode(np.stack([NOISE, NOISE]), lossless=True)),
    "jxl, many sections": bytes(imagecodecs.jpegxl_encode(WIDE, lossless=True, effort=1)),
    "jp2": encode("JPEG2000"),
    "jp2, tiles": encode("JPEG2000", tile_size=(16, 16), quality_layers=[20, 5]),
    "j2k": encode("JPEG2000", no_jp2=True, irreversible=True),
    "jxl, container": bytes(imagecodecs.jpegxl_encode(NOISE, level=90, usecontainer=True)),
    "jxl, level 10": bytes(imagecodecs.jpegxl_encode(NOISE.astype(np.uint16), lossless=True)),
    "jxl, of a jpeg": bytes(imagecodecs.jpegxl_encode_jpeg(encode("JPEG"))),
    "jxl, with exif": encode_jxl(NOISE, 90, artist()),
    **{
        f"tiff, {compression}": encode("TIFF", compression=compression)
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    },
    "tiff, group 4": encode("TIFF", mode="1", compression="group4"),
    "tiff, tiles": encode("TIFF", compression="tiff_lzw", tiffinfo={322: 16, 323: 16}),
    "cr2": cr2(),
    "cr3": cr3(),
    "raf": raf(),
    **{
        f"psd, {COMPRESSIONS[kind]}{' (psb)' if big else ''}": sample(RGB, 8, compression=kind, big=big).encode()
        for kind in (RAW, RLE)
        for big in (False, True)
    },
    "bigtiff": big_tiff("<"),
    "bigtiff, big-endian": big_tiff(">"),
}  # fmt: skip
UNCOMPRESSED = {
    name for name in ENCODED if name.startswith(("bmp", "tiff, raw", "bigtiff", "psd, raw"))
}


@pytest.mark.parametrize("name", ENCODED)
def test_what_encoders_write_is_complete(name: str) -> None:
    """A file is complete as its encoder has written it, and with bytes of other programs after its end."""
    assert check(ENCODED[name])
    assert check(ENCODED[name] + b"\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7" * 10)


@pytest.mark.parametrize("name", ENCODED)
def test_a_file_that_is_cut_off_is_incomplete(name: str) -> None:
    """Wherever a file is cut off, the rest is incomplete, even if only the last byte is missing."""
    data = ENCODED[name]
    complete = [n for n in range(len(data)) if check(data[:n])]
    assert complete == []


@pytest.mark.parametrize("name", ENCODED)
def test_zeros_in_place_of_the_rest_are_incomplete(name: str) -> None:
    """A file of its final size whose rest is zeros is incomplete: 32 zeros in coded data, 4096 in raw pixels."""
    data = ENCODED[name]
    least = 4096 if name in UNCOMPRESSED else 32
    data = encode("BMP", np.tile(NOISE, (2, 2, 1))) if name == "bmp" else data
    data = encode("TIFF", np.tile(NOISE, (2, 2, 1))) if name == "tiff, raw" else data
    lengths = range(0, len(data) - least, 7)
    complete = [n for n in lengths if check(data[:n] + bytes(len(data) - n))]
    assert complete == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIC"])
def test_a_hole_is_incomplete(kind: str, tmp_path: Path) -> None:
    """A file of its final size with a hole before its end is incomplete, wherever the hole is."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    data = heif(pixels) if kind == "HEIC" else encode(kind, pixels)
    path = tmp_path / "file"
    for start in (0, 8192, len(data) // 2, len(data) - 8192):
        with path.open("wb") as file:
            file.write(data[:start])
            file.seek(start + 8192)
            file.write(data[start + 8192 :])
            file.truncate(len(data))
        if path.stat().st_blocks * 512 >= len(data):
            pytest.skip("this file system has no holes")
        with path.open("rb") as file:
            assert not looks_whole(file.fileno(), len(data)), start


def test_a_black_picture_is_only_delayed_by_what_may_be_missing() -> None:
    """Black pixels delay an uncompressed picture only where 4096 bytes of them are at its end."""
    assert not check(encode("BMP", np.zeros((40, 50, 3), np.uint8)))
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF"):
        for value in (0, 255):
            flat = np.full((1000, 1000, 3), value, np.uint8)
            assert check(encode(kind, flat)), (kind, value)
    border = NOISE.copy()
    border[:20] = 0
    assert check(encode("BMP", border))  # its last rows are the topmost
    assert check(encode("TIFF", np.zeros((400, 500, 3), np.uint8), compression="tiff_lzw"))


@pytest.mark.parametrize("quality", [30, 80, 100])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_a_picture_with_a_plain_end_is_complete(kind: str, quality: int) -> None:
    """Coded data may be zeros where pixels are plain: a picture that ends with them is not delayed."""
    for value in (0, 128, 255):
        pixels = np.tile(NOISE, (8, 8, 1))
        pixels[100:] = value
        blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(5))
        for each in (pixels, np.asarray(blurred)):
            assert check(encode(kind, each, quality=quality)), value


def jpeg_with_data_after_the_end() -> bytes:
    """A JPEG with more behind its end than the end is looked for in."""
    return encode("JPEG") + b"MotionPhoto" * 20_000


def gif_with_bytes_between_blocks() -> bytes:
    """A GIF with zeros between its images, which decoders skip."""
    return encode("GIF").replace(b"\0,", b"\0\0\0\0,", 1)


def webp_without_padding() -> bytes:
    """A WebP whose last chunk is not padded to an even length."""
    body = b"WEBPVP8 " + struct.pack("<I", 21) + b"abcdefghijklmnopqrstu"
    return b"RIFF" + struct.pack("<I", len(body) + 1) + body


def heic_with_exif_that_ends_with_zeros() -> bytes:
    """An HEIC whose metadata has padding at the end of the file."""
    buffer = io.BytesIO()
    container = pillow_heif.HeifFile()
    container.add_frombytes("RGB", (50, 40), NOISE.tobytes())
    container[0].info["exif"] = b"Exif\0\0II*\0\x08\0\0\0" + bytes(200)
    container.save(buffer)
    return buffer.getvalue()


def tiff_without_lengths() -> bytes:
    """A TIFF of an old writer: one strip without its length."""
    tags = {256: (3, 1, 10), 257: (3, 1, 10), 258: (3, 1, 8), 259: (3, 1, 1), 273: (4, 1, 100)}
    return tiff(tags)[:100] + b"\x80" * 100


def corpus_file(container: str, name: str) -> bytes:
    """The first file of a module of the corpus whose name ends with this."""
    return next(case.make() for case in cases_of(container) if case.name.endswith(name))


@pytest.mark.parametrize(
    "make",
    [
        jpeg_with_data_after_the_end,
        gif_with_bytes_between_blocks,
        webp_without_padding,
        heic_with_exif_that_ends_with_zeros,
        tiff_without_lengths,
        lambda: corpus_file("jxl", "an empty part"),
        lambda: corpus_file("jpeg2000", "zeros after the file"),
        lambda: corpus_file("webp", "a wrong total"),
        lambda: corpus_file("webp", "a chunk without padding"),
        lambda: encode("MPO", frames=3),
        lambda: encode("JPEG", np.full((800, 900, 3), 128, np.uint8), optimize=True),
        lambda: encode("JPEG") + bytes(5000),
        lambda: encode("PNG") + bytes(5000),
        lambda: b"size: 64\n",
        lambda: b"BM" + b"is not a picture",
        lambda: b"P6 1 1 255\nabc",
    ],
)
def test_odd_files_are_complete(make: object) -> None:
    """Files that decoders read although something is unusual are not held back."""
    assert check(make())  # type: ignore[operator]


@pytest.mark.parametrize("data", [b"", b"\0", bytes(5000), b"size: 64\n" + bytes(100)])
def test_a_file_without_its_bytes_is_incomplete(data: bytes) -> None:
    """An empty file, zeros, and text that ends with zeros are incomplete."""
    assert not check(data)


@pytest.mark.parametrize("name", ENCODED)
def test_damaged_files_take_bounded_time(name: str) -> None:
    """Random bytes in a structure neither raise nor take long."""
    random = np.random.default_rng(1)
    began = time.monotonic()
    for _ in range(150):
        data = bytearray(ENCODED[name])
        for place in random.integers(0, min(len(data), 300), 3):
            data[place] = random.integers(0, 256)
        check(bytes(data))
    assert time.monotonic() - began < 20


def test_a_structure_without_end_is_left_to_the_decoder() -> None:
    """A walk of more than MAX_STEPS steps is given up, and the file counts as complete."""
    empty = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    data = b"\x89PNG\r\n\x1a\n" + empty * (file_data.MAX_STEPS + 10)
    assert check(data)


def test_parts_without_numbers_are_left_to_the_decoder() -> None:
    """65,535 items of 65,535 parts whose offsets and lengths have no bytes take less than a second."""
    entries = struct.pack(">HHH", 1, 0, 65_535) * 65_535
    iloc = struct.pack(">I4s4x2xH", 16 + len(entries), b"iloc", 65_535) + entries
    meta = struct.pack(">I4s4x", 12 + len(iloc), b"meta") + iloc
    began = time.process_time()
    assert check(struct.pack(">I4s4s4x", 16, b"ftyp", b"avif") + meta)
    assert time.process_time() - began < 1


def test_directories_in_a_circle_end() -> None:
    """A TIFF whose directories refer to one another is walked once."""
    tags = {256: (3, 1, 10), 257: (3, 1, 10), 258: (3, 1, 8), 259: (3, 1, 1), 273: (4, 1, 100)}
    assert check(tiff(tags, following=8)[:100] + b"\x80" * 100)
