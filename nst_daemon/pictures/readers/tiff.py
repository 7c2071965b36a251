"""TIFF and BigTIFF with 1 to 64 bits per sample, by imagecodecs.

The directories are read here (`tiff.directory`): the first picture that is neither a reduced one nor a mask is used.
The strips and tiles are decoded one by one (`tiff.pixels`), so that nothing is allocated by what a compressed stream
says. libtiff decodes only the oldest compressions (`tiff.old`).

Values become shares of the largest value of their number of bits. Signed integers are shifted: the smallest is black.
Floating-point values mean 0 to 1 with the curve of sRGB or of the profile, as in ImageMagick, and others are clipped;
libvips takes floating-point RGB as linear light. If most of them are above 1, as of programs that keep 8 or 16 bits in
floating point, they are divided by 255 or 65535.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

import numpy as np

from nst_daemon.pictures.metadata import MAX_TEXT
from nst_daemon.pictures.raster import Array, Raster, Size, StoredPicture, UnsupportedPicture, full
from nst_daemon.pictures.tiff import directory as tags
from nst_daemon.pictures.tiff import layout as layouts
from nst_daemon.pictures.tiff.codecs import INNER_BYTES, LZMA_BYTES, full_range
from nst_daemon.pictures.tiff.colours import (
    lab_colours,
    log_colours,
    palette_colours,
    unit_floats,
    ycbcr_to_rgb,
)
from nst_daemon.pictures.tiff.directory import Directory, Pages, read_pages
from nst_daemon.pictures.tiff.layout import Layout, read_layout
from nst_daemon.pictures.tiff.old import LIBTIFF
from nst_daemon.pictures.tiff.pixels import decode, dtype_of, require_support

_ASSOCIATED, _UNASSOCIATED = 1, 2
_CMYK_INKS = 1
_GREYS = {layouts.WHITE_IS_0, layouts.BLACK_IS_0, layouts.MASK}
_LABS = {layouts.CIELAB, layouts.ICCLAB, layouts.ITULAB}
_LOGS = {layouts.LOG_L: 1, layouts.LOG_LUV: 3}
_COLOURS = {layouts.RGB: 3, layouts.YCBCR: 3, layouts.CMYK: 4, layouts.PALETTE: 1}
#: JPEG 2000 with YCbCr, whatever PhotometricInterpretation says (Aperio).
_YCBCR_JPEG_2000 = 33003
#: Per pixel, to reduce a decoded picture of 8 bits per sample, and of more. Measured: 5.4, 8.4.
_REDUCING_BYTES, _DEEP_REDUCING_BYTES = 6.0, 9.0
#: Longer profiles are cut.
_MAX_PROFILE = 1 << 26


@dataclass(frozen=True)
class _Channels:
    """The samples that are used.

    Attributes:
        space: As in Raster.
        colours: How many; they are the first samples.
        alpha: The sample with the opacity, or None.
        premultiplied: Whether the colours are multiplied with it.
        certain: Whether the file says that it is the opacity.
    """

    space: str
    colours: int
    alpha: int | None = None
    premultiplied: bool = False
    certain: bool = True

    @property
    def wanted(self) -> Sequence[int]:
        """The numbers of the samples."""
        return [*range(self.colours), *(() if self.alpha is None else (self.alpha,))]


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the directories. Damaged files raise any exception."""
    pages = read_pages(file)
    layout = read_layout(pages.main)
    require_support(layout)
    channels = _channels(pages.main, layout)
    return StoredPicture(
        size=layout.size,
        alpha=channels.alpha is not None,
        cmyk=channels.space == "CMYK",
        decode=lambda _: _decoded(pages.main, layout, channels),
        decoding_bytes=lambda reduced: _decoding_bytes(pages.main, layout, channels, reduced),
        profile=_profile(pages),
        exif=partial(_exif, pages),
        frames=pages.count,
    )


def _channels(directory: Directory, layout: Layout) -> _Channels:
    """Interpret PhotometricInterpretation and ExtraSamples."""
    extra = directory.numbers(tags.EXTRA_SAMPLES)[: layout.samples]
    space, colours = _colours(directory, layout, extra)
    start = max(layout.samples - len(extra), colours)
    for number, meaning in enumerate(extra[len(extra) - (layout.samples - start) :], start):
        if meaning in (_ASSOCIATED, _UNASSOCIATED):
            return _Channels(space, colours, number, meaning == _ASSOCIATED)
    if not extra and layout.samples == colours + 1:  # as other programs do
        return _Channels(space, colours, colours, certain=False)
    return _Channels(space, colours)


def _colours(directory: Directory, layout: Layout, extra: Sequence[int]) -> tuple[str, int]:
    """The colour space, and the number of its samples."""
    photometric, samples = layout.photometric, layout.samples
    if photometric == layouts.CMYK:
        if samples < 4 or directory.number(tags.INK_SET, _CMYK_INKS) != _CMYK_INKS:
            raise UnsupportedPicture(f"has {samples} inks that are not those of CMYK")
        return "CMYK", 4
    if photometric in _LABS:
        return "LAB", 3 if samples >= 3 else 1
    if photometric in _LOGS:
        return "RGB" if samples >= 3 else "GRAY", 3 if samples >= 3 else 1
    if photometric == layouts.PALETTE:
        return "RGB", 1
    opacities = sum(meaning in (_ASSOCIATED, _UNASSOCIATED) for meaning in extra)
    if photometric in _GREYS:  # some programs write RGB as grey with more samples
        return ("RGB", 3) if samples - opacities >= 3 else ("GRAY", 1)
    if photometric in _COLOURS:
        return ("RGB", 3) if samples >= 3 else ("GRAY", 1)
    raise UnsupportedPicture(f"is a TIFF with the photometric interpretation {photometric}")


def _decoding_bytes(
    directory: Directory, layout: Layout, channels: _Channels, reduced: Size | None
) -> float:
    """The memory of decoding, estimated: the result with what is made of it, and a strip or tile."""
    pixels = layout.size[0] * layout.size[1]
    raw = layout.photometric in _LABS or layout.photometric == layouts.PALETTE
    item = dtype_of(layout, raw).itemsize
    result = item * len(channels.wanted) * pixels
    later = 0.0
    if layout.kind == "f" or layout.photometric in _LABS | _LOGS.keys():
        later = 12.0 * channels.colours * pixels
    elif channels.premultiplied:
        later = 9.0 * len(channels.wanted) * pixels
    elif layout.photometric == layouts.PALETTE:
        later = 14.0 * pixels
    if reduced and channels.alpha is None:
        later = max(later, (_REDUCING_BYTES if item == 1 else _DEEP_REDUCING_BYTES) * pixels)
    segment = layout.segment_samples
    whole = max(layout.bits) in (8, 16)
    part = segment * max(layout.bits) / 8 * 3 + (0 if whole else 3 * item * segment)
    if len(set(layout.bits)) > 1 or max(layout.bits) > 16:
        part += 16.0 * segment
    if layout.compression in layouts.PICTURES:
        part = (
            float(INNER_BYTES * segment)
            if layout.compression not in layouts.JPEGS
            else 6.0 * segment
        )
    if layout.compression in LIBTIFF:
        part = 12.0 * pixels * layout.samples + 2 * directory.file_size
    return result + later + part + (LZMA_BYTES if layout.compression == 34925 else 0)


def _decoded(directory: Directory, layout: Layout, channels: _Channels) -> Raster:
    photometric = layout.photometric
    raw = photometric in _LABS or photometric == layouts.PALETTE
    values = decode(directory, layout, channels.wanted, raw=raw)
    colours = values[..., : channels.colours]
    alpha = None if channels.alpha is None else values[..., channels.colours :]
    if alpha is not None and raw and layout.kind != "f":
        bits = layout.bits[channels.alpha or 0]
        alpha = full_range(alpha, bits, False, np.dtype(np.uint8 if bits <= 8 else np.uint16))
    if alpha is not None and not channels.certain and not alpha.any():
        alpha = None
    notes: list[str] = []
    if photometric == layouts.PALETTE:
        colours = palette_colours(colours, directory.array(tags.COLOUR_MAP, 3 << 16))
    elif photometric in _LABS:
        colours = lab_colours(colours, layout, directory.array(tags.DECODE))
    elif photometric in _LOGS:
        colours, notes = log_colours(colours)
    elif _is_ycbcr(layout):
        colours = ycbcr_to_rgb(
            colours, directory.array(tags.YCBCR_COEFFICIENTS), directory.array(tags.BLACK_WHITE)
        )
    elif colours.dtype.kind == "f" and layout.kind == "f":
        notes = unit_floats(colours)
    if photometric == layouts.WHITE_IS_0:
        colours = np.subtract(np.asarray(full(colours), colours.dtype), colours)
    if layout.kind == "i":
        notes.append("its values are signed; the smallest one became black")
    if alpha is not None and alpha.dtype.kind == "f":
        alpha = np.nan_to_num(alpha).clip(0, 1)
    if channels.premultiplied and alpha is not None:
        colours, alpha = _straight(colours, alpha)
    return Raster(colours, channels.space, alpha, tuple(notes))


def _is_ycbcr(layout: Layout) -> bool:
    """Whether the decoded samples are YCbCr. The codec converts those of JPEG and WebP, unless they are separate."""
    if layout.samples < 3:
        return False
    if layout.compression == _YCBCR_JPEG_2000:
        return True
    by_codec = layout.compression in layouts.JPEGS | layouts.WEBP | layouts.JPEG_XL
    return layout.photometric == layouts.YCBCR and not (by_codec and not layout.planar)


def _straight(colours: Array, alpha: Array) -> tuple[Array, Array]:
    """Premultiplied colours divided by their opacity, and the opacity, as float32 in [0, 1]."""
    shares = alpha.astype(np.float32)
    shares /= np.float32(full(alpha))
    result = colours.astype(np.float32)
    result /= np.float32(full(colours))
    result /= np.where(shares > 0, shares, np.float32(1))
    return result, shares


def _profile(pages: Pages) -> bytes | None:
    """That of the main picture; b"" if it is not there completely."""
    for directory in _described(pages):
        if tags.PROFILE in directory.entries:
            try:
                return directory.data(tags.PROFILE, _MAX_PROFILE)
            except EOFError:
                return b""
    return None


def _described(pages: Pages) -> list[Directory]:
    """The directories whose tags count for the main picture."""
    return [pages.main, pages.first] if pages.nested else [pages.main]


def _exif(pages: Pages) -> dict[int, object]:
    """The tags that are used: those of the main picture, then those of the first directory."""
    found: dict[int, object] = {}
    for directory in _described(pages):
        if tags.ORIENTATION in directory.entries:
            found.setdefault(tags.ORIENTATION, directory.number(tags.ORIENTATION, 1))
    for directory in (pages.main, pages.first):
        _add_texts(found, directory, (tags.DATE_TIME, tags.ARTIST, tags.COPYRIGHT))
        if tags.EXIF in directory.entries:
            _add_texts(found, _inner(directory), (tags.DATE_TIME_ORIGINAL,))
    return found


def _inner(directory: Directory) -> Directory | None:
    """The directory of EXIF; None if it is damaged."""
    try:
        return directory.directory(directory.number(tags.EXIF))
    except Exception:  # noqa: BLE001 (damaged metadata are ignored)
        return None


def _add_texts(
    found: dict[int, object], directory: Directory | None, wanted: Sequence[int]
) -> None:
    for tag in wanted:
        if directory is not None and tag in directory.entries and tag not in found:
            try:
                found[tag] = directory.data(tag, 4 * MAX_TEXT)
            except EOFError:
                continue
