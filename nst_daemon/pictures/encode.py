"""Pixels and metadata → the bytes of a result's file, in every format. Equal arguments give equal bytes."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from itertools import accumulate
from typing import cast

import imagecodecs
import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

from nst_daemon.pictures.encode_avif import encode_avif
from nst_daemon.pictures.encode_jxl import encode_jxl
from nst_daemon.pictures.icc import srgb_profile
from nst_daemon.pictures.metadata import CARRIED, TAKEN
from nst_daemon.pictures.raster import Array

#: The keyword of PNG's iTXt chunk with the picture's essentials; other formats have them in EXIF's UserComment.
ABOUT = "nst-daemon"
#: EXIF 2.32, 4.6.5: a UserComment begins with the name of its character code.
ASCII = b"ASCII\0\0\0"

#: A longer UserComment, of settings with very long lists, is left out: all EXIF of a JPEG has at most 65,533 bytes.
_MAX_COMMENT = 55_000
#: Uncompressed bytes of a strip of a TIFF. A reader decodes each as a whole.
_STRIP_BYTES = 1 << 20
#: Values of Compression, PhotometricInterpretation, Predictor and ExtraSamples (TIFF 6.0; technical notes of Adobe).
_DEFLATE, _RGB, _HORIZONTAL, _STRAIGHT_ALPHA = 8, 2, 2, 2
#: Larger TIFFs are BigTIFFs; the directory is smaller than the difference to 4 GiB.
_CLASSIC_TIFF_BYTES = (1 << 32) - (1 << 26)


def encode_picture(
    pixels: Array, format: str, *, quality: int, metadata: Mapping[str, str], about: str = ""
) -> bytes | memoryview:
    """The bytes of a file that is marked as sRGB, by a profile or, in JPEG XL, by its own header.

    Args:
        pixels: (H, W, 3) or, if the format can hold transparency, (H, W, 4), sRGB; uint8, or uint16 for more bits per
            channel, as many as the format has (`output_formats`).
        format: A name of `output_formats`.
        quality: 1 to 100, where it applies.
        metadata: By the names of `metadata.CARRIED` and `datetime_original`.
        about: The picture's essentials, in ASCII.
    """
    exif = _exif_of(metadata, "" if format == "png" else about)
    match format:
        case "png":
            return encode_png(pixels, srgb_profile(), exif, about)
        case "tiff":
            return encode_tiff(pixels, srgb_profile(), exif)
        case "avif":
            return encode_avif(pixels, quality, srgb_profile(), exif)
        case "jxl":
            return encode_jxl(pixels, quality, exif)
    out = io.BytesIO()
    options = {"quality": quality, "icc_profile": srgb_profile(), "exif": exif}
    if format == "jpg":
        options["subsampling"] = 0  # subsampled chroma would blur the colour edges of strokes
    kind = {"jpg": "JPEG", "webp": "WEBP"}[format]
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, kind, **options)
    return out.getbuffer()


def encode_png(pixels: Array, profile: bytes, exif: Image.Exif, about: str) -> bytes:
    """A PNG of (H, W, 3 or 4) uint8 or uint16."""
    data = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    out = io.BytesIO()
    out.write(data[:33])  # the signature and IHDR, which must be the first chunk
    PngImagePlugin.putchunk(out, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    PngImagePlugin.putchunk(out, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    if about:  # the keyword, no compression, no language, no translation
        PngImagePlugin.putchunk(out, b"iTXt", f"{ABOUT}\0\0\0\0\0{about}".encode())
    out.write(memoryview(data)[33:])
    return out.getvalue()


def encode_tiff(
    pixels: Array, profile: bytes, exif: Image.Exif, *, classic_bytes: int = _CLASSIC_TIFF_BYTES
) -> bytes | memoryview:
    """A TIFF of (H, W, 3 or 4) uint8 or uint16, compressed by Deflate with a horizontal predictor.

    Pillow writes the directory: it is the one library that writes EXIF into a TIFF.

    Args:
        pixels: The picture.
        profile: An sRGB profile.
        exif: Its EXIF.
        classic_bytes: If the compressed pixels take more, the file is a BigTIFF.
    """
    height, width, channels = pixels.shape
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    rows = max(1, _STRIP_BYTES // (width * channels * pixels.itemsize))
    strips = [_strip(little[top : top + rows]) for top in range(0, height, rows)]
    lengths = [len(strip) for strip in strips]
    big = sum(lengths) > classic_bytes
    header = b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    for tag in exif:
        tags[tag] = exif.get_ifd(tag) if tag == ExifTags.IFD.Exif else exif[tag]
    tags[ExifTags.Base.ImageWidth] = width
    tags[ExifTags.Base.ImageLength] = height
    tags[ExifTags.Base.BitsPerSample] = (8 * pixels.itemsize,) * channels
    tags[ExifTags.Base.Compression] = _DEFLATE
    tags[ExifTags.Base.PhotometricInterpretation] = _RGB
    tags[ExifTags.Base.SamplesPerPixel] = channels
    tags[ExifTags.Base.RowsPerStrip] = rows
    # Relative to the end of the directory; the writer adds its length.
    tags[ExifTags.Base.StripOffsets] = tuple(accumulate(lengths[:-1], initial=0))
    tags[ExifTags.Base.StripByteCounts] = tuple(lengths)
    tags[ExifTags.Base.PlanarConfiguration] = 1
    tags[ExifTags.Base.Predictor] = _HORIZONTAL
    tags[ExifTags.Base.InterColorProfile] = profile
    if channels == 4:
        tags[ExifTags.Base.ExtraSamples] = _STRAIGHT_ALPHA
    if big:
        tags.tagtype[ExifTags.Base.StripOffsets] = TiffTags.LONG8
    out = io.BytesIO()
    tags.save(out)
    for strip in strips:
        out.write(strip)
    return out.getbuffer()


def _strip(rows: Array) -> bytes:
    """The compressed differences of neighbouring pixels of a row (TIFF 6.0, section 14)."""
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return bytes(imagecodecs.deflate_encode(differences.tobytes(), level=6, raw=False))


def _exif_of(metadata: Mapping[str, str], about: str) -> Image.Exif:
    exif = Image.Exif()
    for name, tag in CARRIED.items():
        if name in metadata:
            exif[tag] = metadata[name].encode()  # Pillow would replace non-ASCII characters of text
    sub = cast("dict[int, str | bytes]", exif.get_ifd(ExifTags.IFD.Exif))
    if TAKEN in metadata:
        sub[ExifTags.Base.DateTimeOriginal] = metadata[TAKEN]
    if about and len(about) <= _MAX_COMMENT:
        sub[ExifTags.Base.UserComment] = ASCII + about.encode("ascii")
    if sub:
        exif[ExifTags.IFD.Exif] = sub  # Pillow's TIFF writer overlooks it otherwise
    return exif
