"""Every kind of picture file that people drop, made by code, each with the pixels that it must become.

`python -m tests.pictures.kinds` writes the table of docs/images.md from this list, and the suffixes of docs/inbox.md
from those of the formats; tests hold the pages to them.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image

from nst_daemon.pictures.formats import FORMATS
from tests.corpus import chunk
from tests.pictures import heif_writer, jpeg2000_writer
from tests.pictures.tiff_writer import LONG
from tests.pictures.tiff_writer import file as tiff_file
from tests.pictures.tiff_writer import page as tiff_page

Array = NDArray[Any]
PAGE = Path(__file__).parents[2] / "docs" / "images.md"
INBOX = PAGE.with_name("inbox.md")

#: Half a step of 8 bits and of 16; two steps, for codecs that lose something even of flat colours.
EXACT, DEEP, LOSSY = 1e-6, 0.51 / 65535, 2.5 / 255
SAME = "the same pixels"

#: (5, 7, 4) of 16 bits, opacity last: some of it hidden, some full, the low bytes as full as the high ones.
WIDE = np.random.default_rng(3).integers(0, 65536, (5, 7, 4)).astype(np.uint16)
WIDE[..., 3] = np.linspace(0, 65535, 35).reshape(5, 7)
WIDE[0, :2, 3] = 0
WIDE[:, 5:, 3] = 65535
NARROW = (WIDE >> 8).astype(np.uint8)
#: Two flat halves of whole blocks, which codecs keep: (32, 48, 3).
FLAT = np.zeros((32, 48, 3), np.uint8)
FLAT[:, :16], FLAT[:, 16:] = (200, 80, 40), (30, 90, 160)

#: Light that a camera has measured, with enough white to keep its brightness: (24, 32, 3).
LIGHT = np.random.default_rng(4).integers(4000, 65536, (24, 32, 3)).astype(np.uint16)
LIGHT[:2] = 65535


@dataclass(frozen=True)
class Kind:
    """A kind of file. make: its bytes; rgb, alpha: what they must become, in [0, 1], within `tolerance`.

    becomes: the same in words; note: what the sidecar says (a part of it), "" where nothing is to be said.
    Colours under alpha 0 are nobody's: they are tested elsewhere.
    """

    name: str
    becomes: str
    make: Callable[[], bytes]
    rgb: Array
    alpha: Array | None = None
    tolerance: float = EXACT
    note: str = ""


# How files are made


def pillow(image: Image.Image | Array, kind: str, **options: object) -> bytes:
    """A file written by Pillow."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def heic(image: Array, mode: str = "RGB", **options: object) -> bytes:
    """A HEIC without loss but for its colour space."""
    buffer = io.BytesIO()
    size = (image.shape[1], image.shape[0])
    pillow_heif.encode(mode, size, image.tobytes(), buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


def png(pixels: Array, *chunks: bytes) -> bytes:
    """A PNG with the array's bits and with chunks behind its header."""
    data = bytes(imagecodecs.png_encode(pixels.copy(order="C")))
    return data[:33] + b"".join(chunks) + data[33:]


def tiff(pixels: Array, photometric: str = "rgb", **options: Any) -> bytes:
    """A TIFF with the array's bits, by libtiff."""
    given = pixels.copy(order="C")
    return bytes(imagecodecs.tiff_encode(given, photometric=photometric, **options))


def jxl(pixels: Array) -> bytes:
    """A JPEG XL with the array's bits. More than 8 bits are linear."""
    return bytes(imagecodecs.jpegxl_encode(pixels.copy(order="C"), lossless=True))


def icc(data: bytes) -> bytes:
    """PNG's chunk for a profile."""
    import zlib

    return chunk(b"iCCP", b"p\0\0" + zlib.compress(data))


def turned(orientation: int) -> Image.Exif:
    """EXIF that says so."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def palette(*, transparent: bool = False) -> bytes:
    """A palette of 35 colours, one for each pixel."""
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7), "P")
    image.putpalette(NARROW[..., :3].tobytes())
    options = {"transparency": NARROW[..., 3].tobytes()} if transparent else {}
    return pillow(image, "PNG", **options)


def gif(*, transparent: bool = False, frames: int = 1) -> bytes:
    """A GIF of the same palette; its first colour may be see-through."""
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7), "P")
    image.putpalette(NARROW[..., :3].tobytes())
    others = [Image.fromarray(255 - NARROW[..., :3])] * (frames - 1)
    options: dict[str, object] = {"transparency": 0} if transparent else {}
    if others:
        options |= {"save_all": True, "append_images": others}
    return pillow(image, "GIF", **options)


def dng(linear: Array) -> bytes:
    """A camera raw file with all colours for each pixel."""
    from tests.pictures.corpus import raw

    return raw.dng(linear, raw.Camera())


def psd(pixels: Array, mode: str = "RGB", **options: Any) -> bytes:
    """A PSD with the array's bits."""
    from tests.pictures.corpus import psd as writer

    depth = {1: 8, 2: 16, 4: 32}[pixels.itemsize]
    number = {"RGB": writer.RGB, "CMYK": writer.CMYK}[mode]
    channels = np.moveaxis(pixels, 2, 0)
    return writer.Psd(channels, number, depth, compression=writer.RLE, **options).encode()


# What they must become


def unit(pixels: Array) -> Array:
    """[0, 1] of whole numbers, in float64."""
    return pixels.astype(np.float64) / np.iinfo(pixels.dtype).max


def greys(values: Array) -> Array:
    """(H, W, 3) of (H, W)."""
    return np.stack([values] * 3, axis=-1)


def srgb_curve(linear: Array) -> Array:
    """IEC 61966-2-1, 4.2: light → the value that is stored."""
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    )


D65 = (0.3127, 0.3290)
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3_PRIMARIES = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
#: Adobe RGB (1998), 4.3.
WIDE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> Array:
    """The matrix from linear RGB to XYZ of D65 (SMPTE RP 177)."""

    def xyz(x: float, y: float) -> list[float]:
        return [x / y, 1, (1 - x - y) / y]

    columns = np.array([xyz(*p) for p in primaries]).T
    return columns * np.linalg.solve(columns, xyz(*D65))


def from_wide(values: Array) -> Array:
    """sRGB of values in a space with Adobe's primaries and a gamma of 2.2, cut to what sRGB has."""
    linear = values**2.2 @ (np.linalg.inv(to_xyz(SRGB_PRIMARIES)) @ to_xyz(WIDE_PRIMARIES)).T
    return srgb_curve(linear).clip(0, 1)


def from_p3(values: Array) -> Array:
    """sRGB of values in Display P3, cut to what sRGB has."""
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = linear @ (np.linalg.inv(to_xyz(SRGB_PRIMARIES)) @ to_xyz(P3_PRIMARIES)).T
    return srgb_curve(linear.clip(0, 1))


def wide_profile() -> bytes:
    """A profile for that space."""
    primaries = [c for x, y in WIDE_PRIMARIES for c in (x, y, 1.0)]
    return bytes(
        imagecodecs.cms_profile("rgb", whitepoint=[*D65, 1.0], primaries=primaries, gamma=2.2)
    )


def linear_profile(space: str) -> bytes:
    """A profile for grey (`gray`) or sRGB's primaries (`rgb`) in proportion to light."""
    primaries = [c for x, y in SRGB_PRIMARIES for c in (x, y, 1.0)]
    options = {"primaries": primaries} if space == "rgb" else {}
    return bytes(imagecodecs.cms_profile(space, whitepoint=[*D65, 1.0], gamma=1.0, **options))


def from_lab(lab: tuple[float, float, float]) -> Array:
    """sRGB of one CIE L*a*b* colour of D50 (ICC.1:2022, 6.3.4; Bradford to D65, Annex E)."""
    fy = (lab[0] + 16) / 116
    f = np.array([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1.0, 0.8249)
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    white = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    gain = (bradford @ white) / (bradford @ (0.9642, 1.0, 0.8249))
    adapted = np.linalg.solve(bradford, gain * (bradford @ xyz))
    return srgb_curve(np.linalg.solve(to_xyz(SRGB_PRIMARIES), adapted))


RGB, ALPHA = unit(NARROW[..., :3]), unit(NARROW[..., 3])
RGB16, ALPHA16 = unit(WIDE[..., :3]), unit(WIDE[..., 3])
GREY, GREY16 = greys(RGB[..., 0]), greys(RGB16[..., 0])
BITS = WIDE[..., 0] > 30_000
PAINTED = (1 - RGB) * (1 - ALPHA[..., None])
KEYED = np.ones((5, 7))
KEYED[2, 3] = 0
FIRST_HIDDEN = np.ones((5, 7))
FIRST_HIDDEN[0, 0] = 0
PREMULTIPLIED = np.round(WIDE[..., :3] * ALPHA16[..., None]).astype(np.uint16)
LAB = np.array([[[150, 30, 216]]], np.uint8)  # L 150/255, a 30, b 216 - 256: as TIFF stores them
ANIMATED = "only the first of 2 frames was used"
OTHER = Image.fromarray(255 - FLAT)

KINDS: tuple[Kind, ...] = (
    Kind(
        "JPEG",
        SAME,
        lambda: pillow(FLAT, "JPEG", quality=100, subsampling=0),
        unit(FLAT),
        tolerance=LOSSY,
    ),
    Kind(
        "JPEG, grey",
        "grey as RGB",
        lambda: pillow(FLAT[..., 0], "JPEG", quality=100),
        greys(unit(FLAT[..., 0])),
        tolerance=LOSSY,
    ),
    Kind(
        "JPEG, CMYK without a profile",
        "(1 − C)(1 − K), …",
        lambda: pillow(
            Image.fromarray(np.dstack([FLAT, FLAT[..., :1] // 4]), "CMYK"), "JPEG", quality=100
        ),
        (1 - unit(FLAT)) * (1 - unit(FLAT[..., :1] // 4)),
        tolerance=LOSSY,
        note="CMYK was converted to sRGB without a profile",
    ),
    Kind(
        "JPEG, rotated (EXIF orientation)",
        "upright",
        lambda: pillow(FLAT, "JPEG", quality=100, subsampling=0, exif=turned(6)),
        np.rot90(unit(FLAT), -1),
        tolerance=LOSSY,
    ),
    Kind(
        "JPEG without its end, if all pixels are there",
        SAME,
        lambda: pillow(FLAT, "JPEG", quality=100, subsampling=0)[:-2],
        unit(FLAT),
        tolerance=LOSSY,
    ),
    Kind(
        "JPEG, 12 bit",
        "all 12 bits",
        lambda: bytes(
            imagecodecs.jpeg8_encode(
                WIDE[..., 0] >> 4, bitspersample=12, lossless=True, predictor=1
            )
        ),
        greys((WIDE[..., 0] >> 4) / 4095),
        tolerance=DEEP,
    ),
    Kind(
        "JPEG with several pictures (MPO)",
        "the first",
        lambda: pillow(
            FLAT, "MPO", quality=100, subsampling=0, save_all=True, append_images=[OTHER]
        ),
        unit(FLAT),
        tolerance=LOSSY,
        note=ANIMATED,
    ),
    Kind("PNG", SAME, lambda: png(NARROW[..., :3]), RGB),
    Kind("PNG, grey", "grey as RGB", lambda: png(NARROW[..., 0]), GREY),
    Kind(
        "PNG, black and white (1 bit)",
        "0 and 1",
        lambda: pillow(BITS, "PNG"),
        greys(BITS.astype(float)),
    ),
    Kind("PNG, palette", "the palette's colours", palette, RGB),
    Kind(
        "PNG, palette with transparent colours",
        "the palette's colours and opacities",
        lambda: palette(transparent=True),
        RGB,
        ALPHA,
    ),
    Kind(
        "PNG, grey with a transparent value",
        "transparent where it has that value",
        lambda: png(
            np.arange(35, dtype=np.uint8).reshape(5, 7), chunk(b"tRNS", struct.pack(">H", 17))
        ),
        greys(np.arange(35).reshape(5, 7) / 255),
        KEYED,
    ),
    Kind(
        "PNG with a transparent colour",
        "transparent where it has that colour",
        lambda: png(
            NARROW[..., :3], chunk(b"tRNS", struct.pack(">3H", *map(int, NARROW[2, 3, :3])))
        ),
        RGB,
        KEYED,
    ),
    Kind(
        "PNG, grey with alpha",
        "grey as RGB, its opacity",
        lambda: png(NARROW[..., [0, 3]]),
        GREY,
        ALPHA,
    ),
    Kind("PNG with alpha", "the same pixels, their opacity", lambda: png(NARROW), RGB, ALPHA),
    Kind("PNG, 16 bit", "all 16 bits", lambda: png(WIDE[..., :3]), RGB16, tolerance=DEEP),
    Kind(
        "PNG, grey, 16 bit",
        "all 16 bits, grey as RGB",
        lambda: png(WIDE[..., 0]),
        GREY16,
        tolerance=DEEP,
    ),
    Kind(
        "PNG, grey with alpha, 16 bit",
        "all 16 bits",
        lambda: png(WIDE[..., [0, 3]]),
        GREY16,
        ALPHA16,
        DEEP,
    ),
    Kind("PNG with alpha, 16 bit", "all 16 bits", lambda: png(WIDE), RGB16, ALPHA16, DEEP),
    Kind(
        "PNG, 16 bit with a transparent colour",
        "all 16 bits, transparent where it has that colour",
        lambda: png(WIDE[..., :3], chunk(b"tRNS", struct.pack(">3H", *map(int, WIDE[2, 3, :3])))),
        RGB16,
        KEYED,
        DEEP,
    ),
    Kind(
        "PNG, 16 bit, rotated (EXIF orientation)",
        "all 16 bits, upright",
        lambda: png(WIDE, chunk(b"eXIf", turned(5).tobytes().removeprefix(b"Exif\0\0"))),
        RGB16.swapaxes(0, 1),
        ALPHA16.T,
        DEEP,
    ),
    Kind(
        "PNG with another profile, such as Adobe RGB",
        "converted to sRGB",
        lambda: png(NARROW[..., :3], icc(wide_profile())),
        from_wide(RGB),
        tolerance=1e-3,
        note="colours were converted to sRGB from RGB built-in",
    ),
    Kind(
        "PNG, 16 bit, with another profile",
        "converted to sRGB in 16 bits",
        lambda: png(WIDE[..., :3], icc(wide_profile())),
        from_wide(RGB16),
        tolerance=1e-3,
        note="colours were converted to sRGB from RGB built-in",
    ),
    Kind(
        "PNG with a profile that is sRGB, whatever its name",
        SAME,
        lambda: png(NARROW[..., :3], icc(bytes(imagecodecs.cms_profile("srgb")))),
        RGB,
    ),
    Kind(
        "PNG, linear sRGB",
        "converted to sRGB",
        lambda: png(WIDE[..., :3], icc(linear_profile("rgb"))),
        srgb_curve(RGB16),
        tolerance=1e-3,
        note="colours were converted to sRGB from",
    ),
    Kind(
        "PNG, grey with a profile for grey",
        "converted to sRGB",
        lambda: png(WIDE[..., 0], icc(linear_profile("gray"))),
        srgb_curve(GREY16),
        tolerance=1e-3,
        note="colours were converted to sRGB from gray built-in",
    ),
    Kind(
        "PNG, grey with a profile for RGB",
        "converted to sRGB, with equal R, G and B",
        lambda: png(WIDE[..., 0], icc(wide_profile())),
        from_wide(GREY16),
        tolerance=1e-3,
        note="colours were converted to sRGB from",
    ),
    Kind(
        "PNG with a profile for another colour space",
        SAME,
        lambda: png(NARROW[..., :3], icc(linear_profile("gray"))),
        RGB,
        note="is for GRAY and was not used",
    ),
    Kind(
        "PNG with a profile that cannot be read",
        SAME,
        lambda: png(NARROW[..., :3], icc(linear_profile("rgb")[:200])),
        RGB,
        note="its colour profile cannot be read and was not used",
    ),
    Kind(
        "PNG with another gamma (gAMA chunk)",
        "converted to sRGB",
        lambda: png(WIDE[..., :3], chunk(b"gAMA", struct.pack(">I", 100_000))),
        srgb_curve(RGB16),
        tolerance=1e-3,
        note="colours were converted to sRGB from gamma 1.0000",
    ),
    Kind(
        "PNG with code points (cICP chunk), such as those of linear light",
        "converted to sRGB; HDR (PQ, HLG) is tone-mapped",
        lambda: png(WIDE[..., :3], chunk(b"cICP", bytes([1, 8, 0, 1]))),
        srgb_curve(RGB16),
        tolerance=1e-4,
        note="colours were converted to sRGB from",
    ),
    Kind(
        "PNG with damaged, unknown or very large metadata",
        SAME,
        lambda: png(
            NARROW[..., :3],
            chunk(b"tEXt", b"damaged")[:-1] + b"?",
            chunk(b"eXIf", bytes(2_000_000)),
        ),
        RGB,
    ),
    Kind(
        "PNG without its end, if all rows are there", SAME, lambda: png(NARROW[..., :3])[:-14], RGB
    ),
    Kind(
        "PNG, animated (APNG)",
        "the first frame",
        lambda: pillow(FLAT, "PNG", save_all=True, append_images=[OTHER]),
        unit(FLAT),
        note=ANIMATED,
    ),
    Kind("TIFF", SAME, lambda: tiff(NARROW[..., :3]), RGB),
    Kind(
        "TIFF with alpha",
        "the same pixels, their opacity",
        lambda: tiff(NARROW, extrasample="unassalpha"),
        RGB,
        ALPHA,
    ),
    Kind(
        "TIFF, CMYK without a profile",
        "(1 − C)(1 − K), …",
        lambda: pillow(Image.fromarray(NARROW, "CMYK"), "TIFF"),
        PAINTED,
        note="CMYK was converted",
    ),
    Kind(
        "TIFF, CMYK without a profile, 16 bit",
        "the same in 16 bits",
        lambda: tiff(WIDE, "separated"),
        (1 - RGB16) * (1 - ALPHA16[..., None]),
        tolerance=DEEP,
        note="CMYK was converted to sRGB without a profile",
    ),
    Kind(
        "TIFF, L\\*a\\*b\\*",
        "converted to sRGB",
        lambda: pillow(Image.frombytes("LAB", (1, 1), LAB.tobytes()), "TIFF"),
        from_lab((150 / 2.55, 30, 216 - 256))[None, None],
        tolerance=1 / 255,
    ),
    Kind("TIFF, 16 bit", "all 16 bits", lambda: tiff(WIDE[..., :3]), RGB16, tolerance=DEEP),
    Kind(
        "TIFF, 16 bit, compressed (LZW, with a predictor)",
        "all 16 bits",
        lambda: tiff(WIDE[..., :3], compression="lzw", predictor=True),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, 16 bit, compressed (ZIP), big-endian",
        "all 16 bits",
        lambda: tiff(WIDE[..., :3], compression="deflate", byteorder=">"),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, 16 bit, one plane per colour",
        "all 16 bits",
        lambda: tiff(np.moveaxis(WIDE[..., :3], 2, 0), planarconfig="separate"),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, 16 bit, in tiles",
        "all 16 bits",
        lambda: tiff(WIDE[..., :3], tile=(16, 16)),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, 16 bit, BigTIFF",
        "all 16 bits",
        lambda: tiff(WIDE[..., :3], bigtiff=True),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF with alpha, 16 bit",
        "all 16 bits",
        lambda: tiff(WIDE, extrasample="unassalpha"),
        RGB16,
        ALPHA16,
        DEEP,
    ),
    Kind(
        "TIFF with premultiplied alpha, 16 bit",
        "divided by the opacity",
        lambda: tiff(np.dstack([PREMULTIPLIED, WIDE[..., 3]]), extrasample="assocalpha"),
        RGB16,
        ALPHA16,
        1e-3,
    ),
    Kind(
        "TIFF, 16 bit, with an extra channel that is not opacity",
        "the colours",
        lambda: tiff(WIDE, extrasample="unspecified"),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, grey, 16 bit",
        "all 16 bits, grey as RGB",
        lambda: tiff(WIDE[..., 0], "minisblack"),
        GREY16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, grey, 16 bit, white is 0",
        "inverted",
        lambda: tiff(WIDE[..., 0], "miniswhite"),
        1 - GREY16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, grey, 32 bit",
        "grey as RGB",
        lambda: tiff(WIDE[..., 0].astype(np.uint32) * 65537, "minisblack"),
        GREY16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, grey, floating point",
        "clipped to 0 to 1",
        lambda: tiff((2 * RGB16[..., 0] - 0.5).astype(np.float32), "minisblack"),
        (2 * GREY16 - 0.5).clip(0, 1),
        note="values outside of 0 to 1 were clipped",
    ),
    Kind(
        "TIFF, floating point",
        "0 to 1 as they are",
        lambda: tiff(RGB16.astype(np.float32)),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, grey, 12 bit",
        "all 12 bits, grey as RGB",
        lambda: tiff_file(tiff_page(WIDE[..., :1] >> 4, 12, 1)),
        ((WIDE[..., :1] >> 4) / 4095).repeat(3, axis=2),
        tolerance=DEEP,
    ),
    Kind(
        "TIFF, a thumbnail before the picture",
        "the picture",
        lambda: tiff_file(
            tiff_page(NARROW[:1, :1, :3], 8, 2, tags={254: (LONG, [1])}),
            tiff_page(NARROW[..., :3], 8, 2),
        ),
        RGB,
    ),
    Kind(
        "TIFF with several pages",
        "the first",
        lambda: tiff(255 - FLAT, appendto=tiff(FLAT)),
        unit(FLAT),
        note=ANIMATED,
    ),
    Kind(
        "WebP",
        SAME,
        lambda: pillow(FLAT[:, 16:], "WEBP", quality=100),
        unit(FLAT[:, 16:]),
        tolerance=LOSSY,
    ),
    Kind(
        "WebP with alpha",
        "the same pixels, their opacity",
        lambda: pillow(NARROW, "WEBP", lossless=True, exact=True),
        RGB,
        ALPHA,
    ),
    Kind(
        "WebP, animated",
        "the first frame",
        lambda: pillow(FLAT, "WEBP", lossless=True, save_all=True, append_images=[OTHER]),
        unit(FLAT),
        note=ANIMATED,
    ),
    Kind("GIF", "the palette's colours", gif, RGB),
    Kind(
        "GIF with a transparent colour",
        "transparent where it has that colour",
        lambda: gif(transparent=True),
        RGB,
        FIRST_HIDDEN,
    ),
    Kind("GIF, animated", "the first frame", lambda: gif(frames=2), RGB, note=ANIMATED),
    Kind("BMP", SAME, lambda: pillow(NARROW[..., :3], "BMP"), RGB),
    Kind(
        "BMP with alpha",
        "the same pixels, their opacity (none if it is 0 everywhere)",
        lambda: bytes(imagecodecs.bmp_encode(NARROW)),
        RGB,
        ALPHA,
    ),
    Kind("HEIC", SAME, lambda: heic(FLAT), unit(FLAT), tolerance=LOSSY),
    Kind(
        "HEIC with alpha",
        "the same pixels, their opacity",
        lambda: heic(np.dstack([FLAT, FLAT[..., 0]]), "RGBA"),
        unit(FLAT),
        unit(FLAT[..., 0]),
        LOSSY,
    ),
    Kind(
        "HEIC, rotated by the phone",
        "upright",
        lambda: heic(FLAT, exif=turned(6).tobytes()),
        np.rot90(unit(FLAT), -1),
        tolerance=LOSSY,
    ),
    Kind(
        "HEIC, 10 or 12 bit",
        "all bits",
        lambda: heic(FLAT.astype(np.uint16) * 257, "RGB;16"),
        unit(FLAT),
        tolerance=LOSSY,
    ),
    Kind(
        "AVIF",
        SAME,
        lambda: pillow(FLAT, "AVIF", quality=100, subsampling="4:4:4"),
        unit(FLAT),
        tolerance=LOSSY,
    ),
    Kind(
        "AVIF with alpha",
        "the same pixels, their opacity",
        lambda: pillow(np.dstack([FLAT, FLAT[..., 0]]), "AVIF", quality=100, subsampling="4:4:4"),
        unit(FLAT),
        unit(FLAT[..., 0]),
        LOSSY,
    ),
    Kind(
        "AVIF, rotated (EXIF orientation)",
        "upright",
        lambda: pillow(FLAT, "AVIF", quality=100, subsampling="4:4:4", exif=turned(8)),
        np.rot90(unit(FLAT), 1),
        tolerance=LOSSY,
    ),
    Kind(
        "camera raw (DNG, CR2, CR3, NEF, ARW, RAF, …)",
        "developed with the camera's white balance, in 16 bits",
        lambda: dng(LIGHT),
        srgb_curve(unit(LIGHT)),
        tolerance=2 / 255,
    ),
    Kind(
        "HEIC and AVIF with colours by code points, such as Display P3 or BT.2020",
        "converted to sRGB",
        lambda: heif_writer.avif(FLAT, 8, heif_writer.nclx(12, 13)),
        from_p3(unit(FLAT)),
        tolerance=1e-3,
        note="colours were converted to sRGB from Display P3",
    ),
    Kind(
        "HEIC and AVIF, HDR (PQ or HLG)",
        "tone-mapped to sRGB",
        lambda: heif_writer.avif(np.full((4, 4, 3), 594, np.uint16), 10, heif_writer.nclx(9, 16)),
        np.full((4, 4, 3), 0.8824),  # 203 cd/m²
        tolerance=2e-3,
        note="colours were tone-mapped to sRGB from BT.2020 (HDR, PQ)",
    ),
    Kind(
        "AVIF, 10 or 12 bit",
        "all bits",
        lambda: heif_writer.avif(NARROW[..., :3].astype(np.uint16) * 4, 10),
        NARROW[..., :3].astype(float) * 4 / 1023,
        tolerance=DEEP,
    ),
    Kind(
        "AVIF, animated",
        "the first frame",
        lambda: pillow(
            FLAT, "AVIF", quality=100, subsampling="4:4:4", save_all=True, append_images=[OTHER]
        ),
        unit(FLAT),
        tolerance=LOSSY,
        note=ANIMATED,
    ),
    Kind(
        "JPEG 2000 (JP2, codestream, HTJ2K)",
        SAME,
        lambda: jpeg2000_writer.stored(NARROW[..., :3], 8),
        RGB,
    ),
    Kind(
        "JPEG 2000 with alpha, up to 16 bit",
        "all bits, their opacity",
        lambda: jpeg2000_writer.stored(WIDE, 16),
        RGB16,
        ALPHA16,
        DEEP,
    ),
    Kind(
        "JPEG 2000, sYCC or CMYK",
        "converted to RGB",
        lambda: jpeg2000_writer.jp2(
            jpeg2000_writer.stored(NARROW, 8), jpeg2000_writer.enumerated(12)
        ),
        PAINTED,
        note="CMYK was converted",
    ),
    Kind("JPEG XL", SAME, lambda: jxl(NARROW[..., :3]), RGB),
    Kind(
        "JPEG XL with alpha, up to 16 bit",
        "all bits, their opacity",
        lambda: jxl(WIDE),
        srgb_curve(RGB16),  # imagecodecs writes linear sRGB
        ALPHA16,
        1e-3,
        note="colours were converted to sRGB from",
    ),
    Kind(
        "JPEG XL, floating point",
        "clipped to 0 to 1",
        lambda: jxl((2 * RGB16 - 0.5).astype(np.float32)),
        srgb_curve((2 * RGB16 - 0.5).clip(0, 1)),
        tolerance=1e-3,
        note="colours were converted to sRGB from",
    ),
    Kind(
        "JPEG XL, recompressed JPEG, rotated (EXIF orientation)",
        "upright",
        lambda: bytes(
            imagecodecs.jpegxl_encode_jpeg(
                pillow(FLAT, "JPEG", quality=100, subsampling=0, exif=turned(6))
            )
        ),
        np.rot90(unit(FLAT), -1),
        tolerance=LOSSY,
    ),
    Kind(
        "JPEG XL, animated",
        "the first frame",
        lambda: jxl(np.stack([FLAT, 255 - FLAT])),
        unit(FLAT),
        note=ANIMATED,
    ),
    Kind("PSD and PSB of Photoshop", "the merged picture", lambda: psd(NARROW[..., :3]), RGB),
    Kind(
        "PSD, 16 bit",
        "all 16 bits",
        lambda: psd(WIDE[..., :3]),
        RGB16,
        tolerance=DEEP,
    ),
    Kind(
        "PSD, 32 bit",
        "linear light as sRGB, clipped to 0 to 1",
        lambda: psd(RGB16.astype(np.float32)),
        srgb_curve(RGB16),
        tolerance=DEEP,
    ),
    Kind(
        "PSD with transparent layers",
        "the colours before they were blended with white, their opacity",
        lambda: psd(np.dstack([65535 - PREMULTIPLIED, WIDE[..., 3]]), layers="mark"),
        1 - RGB16,
        ALPHA16,
        1e-3,
    ),
    Kind(
        "PSD, CMYK without a profile",
        "(1 − C)(1 − K), …",
        lambda: psd(255 - NARROW, "CMYK"),
        PAINTED,
        note="CMYK was converted",
    ),
    Kind("a single pixel", SAME, lambda: png(NARROW[:1, :1, :3]), RGB[:1, :1]),
    Kind(
        "one row of 3000 pixels",
        SAME,
        lambda: png(np.tile(NARROW[:1, :6, :3], (1, 500, 1))),
        np.tile(RGB[:1, :6], (1, 500, 1)),
    ),
)


def table() -> str:
    """The list as Markdown."""
    rows = [f"| {k.name} | {k.becomes} | {_said(k.note)} |" for k in KINDS]
    return "\n".join(
        ["| input | pixels in the engine | note in the sidecar |", "|---|---|---|", *rows]
    )


def _said(note: str) -> str:
    return f"“… {note} …”" if note else ""


def with_table(page: str) -> str:
    """The page with the list between its marks."""
    between = re.compile(r"(<!-- kinds -->\n).*?(\n<!-- /kinds -->)", re.DOTALL)
    return between.sub(lambda found: found[1] + table() + found[2], page)


def with_suffixes(page: str) -> str:
    """The page with the suffixes of each format between its marks."""
    lines = [
        f"- {known.title} (`{known.name}`): {', '.join(s[1:] for s in known.suffixes)}"
        for known in FORMATS
    ]
    between = re.compile(r"(<!-- suffixes -->\n\n).*?(\n\n<!-- /suffixes -->)", re.DOTALL)
    return between.sub(lambda found: found[1] + "\n".join(lines) + found[2], page)


if __name__ == "__main__":
    INBOX.write_text(with_suffixes(INBOX.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
