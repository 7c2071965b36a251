"""Pixels and metadata → files of more than 8 bits per channel, which Pillow cannot write."""

from __future__ import annotations

import io
import zlib

import imagecodecs
import tifffile
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from nst_daemon.pictures.raster import Array


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
