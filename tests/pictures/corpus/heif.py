"""HEIC."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import numpy as np
import pillow_heif

from tests.pictures import heif_cases
from tests.pictures.corpus.case import EXACT, LOSSY, Case
from tests.pictures.heif_cases import rgb, whole_range
from tests.pictures.heif_writer import Item, box, container, heic, hevc, ispe


def cases() -> Iterator[Case]:
    """What HEIC shares with AVIF, subsampling, brands, several images, and other codecs."""
    yield from heif_cases.cases(heic, hevc, b"heic")
    yield from _subsampled()
    yield from _containers()


def _subsampled() -> Iterator[Case]:
    """Evenly coloured pictures."""
    for chroma, whole, matrix, bits in itertools.product(
        (420, 422, 444), (0, 1), (1, 5, 6, 9), (8, 10, 12)
    ):
        for seed in range(3):
            top = (1 << bits) - 1
            colour = np.random.default_rng(seed).integers(0, top + 1, 3)
            values = np.full((16, 24, 3), colour, np.uint8 if bits == 8 else np.uint16)

            def make(
                values: np.ndarray = values, chroma: int = chroma, whole: int = whole,
                matrix: int = matrix, bits: int = bits,
            ) -> bytes:  # fmt: skip
                out = io.BytesIO()
                mode = "RGB" if bits == 8 else f"RGB;{bits}"
                pillow_heif.encode(
                    mode, (24, 16), values.tobytes(), out, quality=100, chroma=chroma,
                    full_range_flag=whole, matrix_coefficients=matrix,
                    color_primaries=1, transfer_characteristics=13,
                )  # fmt: skip
                return out.getvalue()

            yield Case(
                f"{bits} bits, 4:{str(chroma)[1]}:{str(chroma)[2]}, range {whole}, matrix {matrix}, colour {seed}",
                make, rgb(values, bits), None, LOSSY,
            )  # fmt: skip


def _containers() -> Iterator[Case]:
    values = whole_range(8)
    other = 255 - values
    for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"):
        yield Case(
            f"brand {brand.decode()}",
            lambda brand=brand: container([hevc(values, 8)], brand),
            rgb(values, 8), None, EXACT,
        )  # fmt: skip
    for primary in (1, 2):
        for sizes in (4, 8):
            yield Case(
                f"two images, the primary one is {primary}, offsets of {sizes} bytes",
                lambda primary=primary, sizes=sizes: container(
                    [hevc(values, 8), hevc(other, 8)], b"heic", primary, sizes
                ),
                rgb(values if primary == 1 else other, 8),
            )
    yield Case("with a thumbnail", lambda: _second("thmb"), rgb(values, 8))
    yield Case("with a depth image", lambda: _second("auxl"), rgb(values, 8))
    for kind, named in {
        b"avc1": "H.264", b"vvc1": "H.266", b"jpeg": "JPEG", b"j2k1": "JPEG 2000", b"av01": "AV1",
    }.items():  # fmt: skip
        yield Case(
            f"coded as {kind.decode()}",
            lambda kind=kind: container([Item(kind, bytes(100), [ispe(16, 24)])], b"mif1"),
            None,
            refused=f"is a HEIF file with {named}.*not supported",
        )
    yield Case(
        "only a sequence of frames",
        lambda: box(b"ftyp", b"hevc", bytes(4), b"msf1") + box(b"moov", box(b"mvhd", bytes(100))),
        None,
        refused=r"contains only a sequence of frames \(a video\), which is not supported",
    )
    yield Case(
        "without an image",
        lambda: container([], b"heic"),
        None,
        refused="damaged or truncated: it has no primary image",
    )


def _second(kind: str) -> bytes:
    """A file whose second image is a thumbnail or a depth image."""
    small = hevc(255 - whole_range(8)[..., 0], 8)
    small.references[kind] = [1]
    if kind == "auxl":
        urn = b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth\0"
        small.properties = [*small.properties, _full_auxc(urn)]
    return container([hevc(whole_range(8), 8), small], b"heic")


def _full_auxc(urn: bytes) -> bytes:
    return (12 + len(urn)).to_bytes(4, "big") + b"auxC" + bytes(4) + urn
