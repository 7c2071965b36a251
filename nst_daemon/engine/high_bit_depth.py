"""More than 8 bits per channel, which Pillow reduces to 8: imagecodecs (libpng) and tifffile read and write them.

Pillow opens a file first: its kind and size are known and within the limits, and tifffile refuses data that would
decompress to more than that size.
"""

from __future__ import annotations

import io
import zlib
from typing import IO

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from nst_daemon.engine.icc import Array, Raster, full

_SPACES = {
    tifffile.PHOTOMETRIC.MINISWHITE: "GRAY",
    tifffile.PHOTOMETRIC.MINISBLACK: "GRAY",
    tifffile.PHOTOMETRIC.RGB: "RGB",
    tifffile.PHOTOMETRIC.SEPARATED: "CMYK",
}
_COLOURS = {"GRAY": 1, "RGB": 3, "CMYK": 4}


def bits_of(image: Image.Image, file: IO[bytes]) -> int:
    """Bits per channel of a file that Pillow has opened, but not decoded, as `image`."""
    if image.format == "PNG":
        file.seek(24)  # IHDR is always the first chunk: PNG (3rd edition), 5.6
        return int(file.read(1)[0])
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))))
    return int(image.info.get("bit_depth", 8))  # set by pillow-heif


def read(image: Image.Image, file: IO[bytes]) -> Raster | None:
    """Decode all bits of a PNG or TIFF, not turned upright; None for other formats, which lose them.

    Damaged files raise any exception of the libraries.
    """
    file.seek(0)
    if image.format == "PNG":
        values = _with_channels(imagecodecs.png_decode(file.read()))
        return _split(values, "GRAY" if values.shape[2] < 3 else "RGB")
    if image.format == "TIFF":
        with tifffile.TiffFile(file, name="picture") as whole:
            return _from_page(whole.pages.first)
    return None


def _from_page(page: tifffile.TiffPage) -> Raster:
    """Interpret the tags PhotometricInterpretation, PlanarConfiguration and ExtraSamples (TIFF 6.0)."""
    space = _SPACES[tifffile.PHOTOMETRIC(page.photometric)]
    values = np.asarray(page.asarray())
    values = _with_channels(np.moveaxis(values, 0, 2) if page.axes == "SYX" else values)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = np.asarray(full(values) - values, values.dtype)
    opacity = page.extrasamples[:1]
    if opacity == (tifffile.EXTRASAMPLE.ASSOCALPHA,):
        values = _straight(values)
    elif opacity != (tifffile.EXTRASAMPLE.UNASSALPHA,):
        values = values[..., : _COLOURS[space]]
    return _split(values, space)


def _with_channels(values: Array) -> Array:
    return values[..., None] if values.ndim == 2 else values


def _split(values: Array, space: str) -> Raster:
    """Colours, and opacity if there is one more channel."""
    colours = _COLOURS[space]
    alpha = values[..., colours : colours + 1] if values.shape[2] > colours else None
    return Raster(values[..., :colours], space, alpha)


def _straight(values: Array) -> Array:
    """Premultiplied colours divided by their opacity, as float32 in [0, 1]."""
    result = values.astype(np.float32) / np.float32(full(values))
    alpha = result[..., -1:]
    result[..., :-1] /= np.where(alpha > 0, alpha, 1)
    return result


def encode_png(
    pixels: Array, profile: bytes, exif: Image.Exif, text: PngImagePlugin.PngInfo
) -> bytes:
    """A PNG of (H, W, 3 or 4) uint16 with its colour profile, EXIF and text."""
    chunks = [
        (b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)),
        (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        *((bytes(kind), bytes(content)) for kind, content, *_ in text.chunks),
    ]
    data = bytes(imagecodecs.png_encode(pixels))
    out = io.BytesIO()
    out.write(data[:33])  # the signature and IHDR, which must be the first chunk
    for kind, content in chunks:
        PngImagePlugin.putchunk(out, kind, content)
    out.write(data[33:])
    return out.getvalue()


def encode_tiff(pixels: Array, profile: bytes, exif: Image.Exif) -> bytes:
    """An uncompressed TIFF of (H, W, 3 or 4) uint16.

    tifffile writes no EXIF; Pillow's directory does, in the same place as in 8-bit TIFFs.
    """
    height, width, channels = pixels.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2()  # little-endian
    for tag in exif:
        tags[tag] = exif.get_ifd(tag) if tag == ExifTags.IFD.Exif else exif[tag]
    tags[ExifTags.Base.ImageWidth] = width
    tags[ExifTags.Base.ImageLength] = height
    tags[ExifTags.Base.BitsPerSample] = (16,) * channels
    tags[ExifTags.Base.Compression] = 1
    tags[ExifTags.Base.PhotometricInterpretation] = tifffile.PHOTOMETRIC.RGB.value
    tags[ExifTags.Base.SamplesPerPixel] = channels
    tags[ExifTags.Base.RowsPerStrip] = height
    tags[ExifTags.Base.StripOffsets] = 0  # after the directory; the writer adds its length
    tags[ExifTags.Base.StripByteCounts] = pixels.nbytes
    tags[ExifTags.Base.PlanarConfiguration] = 1
    tags[ExifTags.Base.InterColorProfile] = profile
    if channels == 4:
        tags[ExifTags.Base.ExtraSamples] = tifffile.EXTRASAMPLE.UNASSALPHA.value
    out = io.BytesIO()
    tags.save(out)
    out.write(pixels.astype("<u2").tobytes())
    return out.getvalue()
