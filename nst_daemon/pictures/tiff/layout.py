"""How the pixels of a TIFF are stored: sizes, bits, and where the strips or tiles are."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from nst_daemon.pictures.raster import Array, Size, UnsupportedPicture
from nst_daemon.pictures.tiff import directory as tags
from nst_daemon.pictures.tiff.directory import Directory

#: Values of Compression (TIFF 6.0, its supplements, and registered numbers).
RAW, CCITT_RLE, CCITT_G3, CCITT_G4, LZW, OLD_JPEG, JPEG = 1, 2, 3, 4, 5, 6, 7
#: Values of PhotometricInterpretation.
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, MASK, CMYK, YCBCR = 0, 1, 2, 3, 4, 5, 6
CIELAB, ICCLAB, ITULAB, LOG_L, LOG_LUV = 8, 9, 10, 32844, 32845
#: Each strip or tile takes time, more if it is a picture of its own, and so does each sample of a pixel.
MAX_SEGMENTS, MAX_PICTURES, MAX_SAMPLES, MAX_PIXEL_BYTES = 1 << 20, 1 << 17, 4096, 1024
#: Strips may overlap, but not so much that the file is read more than twice, or more than its pixels need.
_READ_TWICE, _READ_MORE = 2, 1 << 20
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_COMPLEX = {5, 6}
_FLOAT_BITS, _WHOLE_BITS = {16, 24, 32, 64}, {*range(1, 33), 64}


@dataclass(frozen=True)
class Layout:
    """How the pixels of a directory are stored.

    Attributes:
        bits: Of each sample of a pixel.
        kind: "u", "i" or "f", as in numpy.
        planar: Whether each sample has strips or tiles of its own.
        reverse: Whether the lowest bit of a byte is the first one.
        order: "<" or ">".
        segment: (height, width) of a strip or tile.
        chroma: How many columns and rows share a colour, if the compression does not know it.
    """

    size: Size
    bits: tuple[int, ...]
    kind: str
    compression: int
    photometric: int
    planar: bool
    predictor: int
    reverse: bool
    order: str
    segment: Size
    tiled: bool
    chroma: tuple[int, int] = (1, 1)

    @property
    def samples(self) -> int:
        """Of a pixel."""
        return len(self.bits)

    @property
    def grid(self) -> Size:
        """The number of strips or tiles down and across, of one plane."""
        down, across = (
            -(-side // part) for side, part in zip(self.size, self.segment, strict=True)
        )
        return down, across

    @property
    def segments(self) -> int:
        """The number of strips or tiles of one plane."""
        return prod(self.grid)

    def row_bytes(self, plane: int | None) -> int:
        """Of a strip or tile: of a plane, or of all samples for None."""
        bits = sum(self.bits) if plane is None else self.bits[plane]
        return (self.segment[1] * bits + 7) // 8

    def segment_bytes(self, rows: int, plane: int | None) -> int:
        """Of so many decompressed rows of a strip or tile."""
        (across, down), width = self.chroma, self.segment[1]
        if self.chroma == (1, 1) or plane == 0:
            return rows * self.row_bytes(plane)
        units = -(-rows // down) * -(-width // across)
        return units * (across * down + 2 if plane is None else 1) * self.bits[0] // 8

    @property
    def segment_samples(self) -> int:
        """Of a strip or tile."""
        return prod(self.segment) * (1 if self.planar else self.samples)


def read_layout(directory: Directory) -> Layout:
    """Interpret the tags. Raises ValueError for impossible values, and UnsupportedPicture."""
    height, width = directory.number(tags.HEIGHT), directory.number(tags.WIDTH)
    if height <= 0 or width <= 0:
        raise ValueError(f"its size is {width} × {height}")
    compression = directory.number(tags.COMPRESSION, RAW)
    samples = _samples(directory, compression)
    bits = _bits(directory, samples, compression)
    photometric = _photometric(directory, samples, compression)
    tiled = tags.TILE_WIDTH in directory.entries and tags.TILE_HEIGHT in directory.entries
    rows = directory.number(tags.ROWS_PER_STRIP, height)
    segment = min(rows if rows > 0 else height, height), width
    if tiled:
        segment = directory.number(tags.TILE_HEIGHT), directory.number(tags.TILE_WIDTH)
        if min(segment) <= 0 or directory.number(tags.TILE_DEPTH, 1) > 1:
            raise UnsupportedPicture(f"has tiles of {segment[1]} × {segment[0]} pixels")
    layout = Layout(
        size=(height, width),
        bits=bits,
        kind=_kind(directory, bits, photometric),
        compression=compression,
        photometric=photometric,
        planar=directory.number(tags.PLANAR, 1) == 2 and samples > 1,
        predictor=directory.number(tags.PREDICTOR, 1) if compression in PREDICTED else 1,
        reverse=directory.number(tags.FILL_ORDER, 1) == 2,
        order=directory.order,
        segment=segment,
        tiled=tiled,
        chroma=_chroma(directory, samples, compression, photometric),
    )
    if layout.segments > (MAX_PICTURES if compression in PICTURES else MAX_SEGMENTS):
        raise UnsupportedPicture(f"has {layout.segments} strips or tiles")
    if not layout.planar and sum(bits) > 8 * MAX_PIXEL_BYTES:
        raise UnsupportedPicture(f"has {samples} samples for each pixel")
    return layout


def _samples(directory: Directory, compression: int) -> int:
    default = 3 if compression == OLD_JPEG else 1
    samples = directory.number(tags.SAMPLES, default)
    if (
        directory.number(tags.PHOTOMETRIC, -1) in (RGB, YCBCR)
        and tags.SAMPLES not in directory.entries
    ):
        samples = max(len(directory.numbers(tags.BITS)), default)
    if not 0 < samples <= MAX_SAMPLES:
        raise UnsupportedPicture(f"has {samples} samples for each pixel")
    return samples


def _bits(directory: Directory, samples: int, compression: int) -> tuple[int, ...]:
    found = directory.numbers(tags.BITS, (8 if compression == OLD_JPEG else 1,))
    bits = (found + found[-1:] * samples)[:samples]
    if any(one not in _WHOLE_BITS for one in bits):
        raise UnsupportedPicture(f"has {max(bits)} bits for each sample")
    return bits


def _kind(directory: Directory, bits: tuple[int, ...], photometric: int) -> str:
    formats = {
        one if one in (2, 3, 5, 6) else 1
        for one in directory.numbers(tags.SAMPLE_FORMAT, (1,))[: len(bits)]
    }
    if formats & _COMPLEX:
        raise UnsupportedPicture("has complex numbers")
    if len(formats) > 1:
        raise UnsupportedPicture("has samples of several formats")
    if formats == {_FLOAT} and set(bits) <= _FLOAT_BITS and len(set(bits)) == 1:
        return "f"
    signed = formats == {_SIGNED} and photometric not in (CIELAB, ICCLAB, ITULAB, LOG_L, LOG_LUV)
    return "i" if signed else "u"


def _photometric(directory: Directory, samples: int, compression: int) -> int:
    """The tag; without it, what libtiff assumes."""
    found = directory.number(tags.PHOTOMETRIC, -1)
    if compression == OLD_JPEG and samples == 3 and found in (-1, RGB):
        return YCBCR
    if found >= 0:
        return found
    if compression in (CCITT_RLE, CCITT_G3, CCITT_G4):
        return WHITE_IS_0
    return RGB if samples >= 3 else BLACK_IS_0


def _chroma(
    directory: Directory, samples: int, compression: int, photometric: int
) -> tuple[int, int]:
    """TIFF 6.0, section 21. The codecs of pictures know it themselves."""
    if photometric != YCBCR or samples != 3 or compression in PICTURES:
        return 1, 1
    across, down = (*directory.numbers(tags.YCBCR_SUBSAMPLING), 2, 2)[:2]
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise UnsupportedPicture(f"has colours for each {across} × {down} pixels")
    return across, down


#: Compressions with a predictor, as in libtiff: LZW, Deflate, LZMA, ZSTD. Elsewhere the tag is ignored.
PREDICTED = {LZW, 8, 32946, 50013, 34925, 34926, 50000}
#: Compressions of whole pictures: JPEG, JPEG 2000, WebP, JPEG XL, PNG.
JPEGS = {OLD_JPEG, JPEG, 33007, 34892}
JPEG_2000, WEBP, JPEG_XL, PNG = (
    {33003, 33004, 33005, 34712},
    {34927, 50001},
    {50002, 52546},
    {34933},
)
PICTURES = JPEGS | JPEG_2000 | WEBP | JPEG_XL | PNG


def places(directory: Directory, layout: Layout, planes: int) -> tuple[Array, Array]:
    """The offsets and lengths of the strips or tiles of the first planes, as int64.

    Missing lengths are computed. A single length of 0 stays: its strip or tile was never written.

    Raises:
        ValueError: There are too few, or they overlap so much that reading them takes long.
        EOFError: The arrays are not all there.
    """
    number = layout.segments * planes
    offsets = directory.array(tags.TILE_OFFSETS, number)
    lengths = directory.array(tags.TILE_BYTES, number)
    if not offsets.size:
        offsets = directory.array(tags.STRIP_OFFSETS, number)
    if not lengths.size:
        lengths = directory.array(tags.STRIP_BYTES, number)
    if offsets.size < number:
        raise ValueError(f"it has {offsets.size} of {number} strips or tiles")
    offsets = offsets.clip(0, 1 << 62).astype(np.int64)
    lengths = lengths.clip(0, 1 << 62).astype(np.int64)
    if layout.compression == RAW:
        written = lengths > 0 if lengths.size == number and lengths.any() else offsets > 0
        lengths = np.where(written, _raw_lengths(layout, planes), 0)
    elif lengths.size < number or not lengths.any():
        lengths = _guessed_lengths(offsets, directory.file_size)
    readable = np.minimum(lengths, (directory.file_size - offsets).clip(0))
    decoded = layout.segments * layout.segment_bytes(layout.segment[0], None)
    if readable.sum() > _READ_TWICE * directory.file_size + decoded + _READ_MORE:
        raise ValueError("its strips or tiles overlap")
    return offsets, lengths


def _raw_lengths(layout: Layout, planes: int) -> Array:
    """Of uncompressed strips or tiles: the last strip may have fewer rows."""
    parts = []
    for plane in range(planes):
        chosen = plane if layout.planar else None
        part = np.full(layout.segments, layout.segment_bytes(layout.segment[0], chosen), np.int64)
        if not layout.tiled:
            part[-1] = layout.segment_bytes(rows_of(layout, layout.segments - 1), chosen)
        parts.append(part)
    return np.concatenate(parts)


def _guessed_lengths(offsets: Array, file_size: int) -> Array:
    """Up to the next strip, or to the end of the file."""
    ends = np.append(np.unique(offsets), file_size)
    following = np.searchsorted(ends, offsets, side="right").clip(0, len(ends) - 1)
    lengths: Array = (ends[following] - offsets).clip(0)
    return lengths


def rows_of(layout: Layout, index: int) -> int:
    """The rows of a strip or tile that are within the picture."""
    return min(layout.segment[0], layout.size[0] - index // layout.grid[1] * layout.segment[0])
