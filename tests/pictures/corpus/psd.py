"""PSD and PSB, written by hand: modes × bits × compressions × extra channels × profiles × layers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import imagecodecs
import numpy as np

from nst_daemon.pictures.metadata import upright
from tests.pictures.corpus.case import DEEP, EXACT, Array, Case
from tests.pictures.kinds import (
    from_lab,
    from_wide,
    linear_profile,
    srgb_curve,
    turned,
    wide_profile,
)

HEIGHT, WIDTH = 16, 27
BITMAP, GRAY, INDEXED, RGB, CMYK, MULTICHANNEL, DUOTONE, LAB = 0, 1, 2, 3, 4, 7, 8, 9
MODES = {
    BITMAP: "bitmap",
    GRAY: "grey",
    INDEXED: "indexed",
    RGB: "RGB",
    CMYK: "CMYK",
    DUOTONE: "duotone",
    LAB: "Lab",
}
COLOURS = {BITMAP: 1, GRAY: 1, INDEXED: 1, RGB: 3, CMYK: 4, DUOTONE: 1, LAB: 3}
DEPTHS = {
    BITMAP: (1,),
    GRAY: (8, 16, 32),
    INDEXED: (8,),
    RGB: (8, 16, 32),
    CMYK: (8, 16),
    DUOTONE: (8,),
    LAB: (8, 16),
}
RAW, RLE, ZIP, PREDICTED = 0, 1, 2, 3
COMPRESSIONS = {RAW: "raw", RLE: "RLE", ZIP: "ZIP", PREDICTED: "ZIP with prediction"}
TYPES = {1: "u1", 8: "u1", 16: ">u2", 32: ">f4"}
#: Where a file says that its first extra channel is the opacity of the merged picture.
LAYERS = ("count", "block", "mark")

RANDOM = np.random.default_rng(8)
SHARES = RANDOM.random((5, HEIGHT, WIDTH))
SHARES[:, :, :6] = SHARES[:, :, :1]  # runs
SHARES[4, 0], SHARES[4, 1] = 0, 1
PALETTE = RANDOM.integers(0, 256, (256, 3)).astype(np.uint8)


@dataclass(frozen=True)
class Psd:
    """A file. channels: (C, H, W) of values as they are stored."""

    channels: Array
    mode: int
    depth: int
    big: bool = False
    compression: int = RAW
    palette: bytes = b""
    resources: tuple[tuple[int, bytes], ...] = ()
    layers: str = ""

    def encode(self) -> bytes:
        """Its bytes."""
        number, height, width = self.channels.shape
        head = struct.pack(
            ">4sH6xHIIHH", b"8BPS", 1 + self.big, number, height, width, self.depth, self.mode
        )
        resources = b"".join(resource(*each) for each in self.resources)
        sections = (sized(self.palette), sized(resources), sized(self._layers(), self.big))
        return head + b"".join(sections) + struct.pack(">H", self.compression) + self.pixels()

    def _layers(self) -> bytes:
        """Layer information, without layers: only their number matters."""
        if not self.layers:
            return b""
        info = struct.pack(">h", 1 if self.layers == "opaque" else -1) + bytes(2)
        if self.layers in ("count", "opaque"):
            return sized(info, self.big) + sized(b"")
        block = block_of(b"abcd", b"x" * 5, big=False)
        if self.layers == "block":
            key = b"Lr32" if self.depth == 32 else b"Lr16"
            block += block_of(key, info, big=self.big)
        else:
            key = {8: b"Mtrn", 16: b"Mt16", 32: b"Mt32"}[self.depth]
            block += block_of(key, b"", big=self.big)
        return sized(b"", self.big) + sized(b"mask") + block

    def _rows(self) -> list[list[bytes]]:
        if self.depth == 1:
            return [[np.packbits(row).tobytes() for row in plane] for plane in self.channels]
        planes = self.channels.astype(TYPES[self.depth])
        return [[row.tobytes() for row in plane] for plane in planes]

    def pixels(self) -> bytes:
        """The merged picture, compressed."""
        rows = [row for plane in self._rows() for row in plane]
        if self.compression == RLE:
            coded = [bytes(imagecodecs.packbits_encode(row)) for row in rows]
            lengths = [len(row) for row in coded]
            return struct.pack(f">{len(rows)}{'I' if self.big else 'H'}", *lengths) + b"".join(
                coded
            )
        if self.compression == PREDICTED:
            rows = [predicted(row, self.depth) for row in rows]
        data = b"".join(rows)
        return zlib.compress(data) if self.compression in (ZIP, PREDICTED) else data


def predicted(row: bytes, depth: int) -> bytes:
    """A row as differences; with 32 bits, of its bytes by their significance."""
    if depth == 16:
        values = np.frombuffer(row, ">u2").astype(np.uint16)
        return np.diff(values, prepend=np.uint16(0)).astype(">u2").tobytes()
    values = np.frombuffer(row, np.uint8)
    if depth == 32:
        values = values.reshape(-1, 4).T.ravel()
    return np.diff(values, prepend=np.uint8(0)).tobytes()


def sized(data: bytes, wide: bool = False) -> bytes:
    """A section with its length, of 4 or 8 bytes."""
    return struct.pack(">Q" if wide else ">I", len(data)) + data


def resource(kind: int, data: bytes, name: bytes = b"") -> bytes:
    """An image resource."""
    label = bytes([len(name)]) + name
    label += bytes(len(label) % 2)
    return b"8BIM" + struct.pack(">H", kind) + label + sized(data) + bytes(len(data) % 2)


def block_of(key: bytes, data: bytes, *, big: bool) -> bytes:
    """A block of additional layer information."""
    return b"8BIM" + key + sized(data, big) + bytes(-len(data) % 4)


def stored(shares: Array, depth: int) -> Array:
    """Values of shares of white."""
    if depth == 32:
        return shares.astype(np.float32)
    return np.round(shares * (2**depth - 1)).astype(np.uint16 if depth == 16 else np.uint8)


def unit(values: Array) -> Array:
    """Shares of values."""
    return values / (1.0 if values.dtype.kind == "f" else np.iinfo(values.dtype).max)


def shown(psd: Psd) -> Array:
    """(H, W, 3) in sRGB, of a file without a profile and without transparency."""
    values = psd.channels[: COLOURS[psd.mode]]
    if psd.mode == BITMAP:
        return np.repeat(1.0 - values[0][..., None], 3, 2)
    if psd.mode == INDEXED:
        return PALETTE[values[0]] / 255
    return painted(np.moveaxis(unit(values), 0, -1), psd)


def painted(shares: Array, psd: Psd) -> Array:
    """sRGB of shares (H, W, C) of the channels' range."""
    if psd.mode == CMYK:  # 1 is no ink
        return shares[..., :3] * shares[..., 3:]
    if psd.mode == LAB:
        steps = 255 if psd.depth == 8 else 65535 / 256
        lab = shares * (100, steps, steps) - (0, 128, 128)
        flat = [from_lab(tuple(colour)).clip(0, 1) for colour in lab.reshape(-1, 3)]
        return np.array(flat).reshape(shares.shape)
    colours = srgb_curve(shares.clip(0, 1)) if psd.depth == 32 else shares
    return np.repeat(colours, 3, 2) if shares.shape[2] == 1 else colours


def sample(mode: int, depth: int, extra: int = 0, **options: Any) -> Psd:
    """A picture of every value."""
    number = COLOURS[mode] + extra
    if mode == BITMAP:
        channels = (SHARES[:number] > 0.5).astype(np.uint8)
        return Psd(channels, mode, depth, **options)
    if mode == INDEXED:
        options = {"palette": PALETTE.T.tobytes()} | options
    shares = SHARES[:number].copy()
    if mode == LAB:  # within sRGB
        shares[0] = 0.3 + 0.5 * shares[0]
        shares[1:3] = 0.5 + 0.08 * (shares[1:3] - 0.5)
    return Psd(stored(shares, depth), mode, depth, **options)


def cases() -> Iterator[Case]:
    """Every mode, extra channels, transparency, metadata, and refusals."""
    yield from _modes()
    yield from _transparent()
    yield from _not_blended()
    yield from _metadata()
    yield from _refused()


def _label(psd: Psd) -> str:
    kind = "PSB" if psd.big else "PSD"
    return f"{kind}, {MODES[psd.mode]}, {psd.depth} bits, {COMPRESSIONS[psd.compression]}"


def _tolerance(psd: Psd) -> float:
    if psd.mode == LAB:
        return 1 / 255  # littlecms is less exact
    return DEEP if psd.depth > 8 else EXACT


def _note(psd: Psd) -> str:
    return {CMYK: "CMYK was converted to sRGB", DUOTONE: "replaced by grey"}.get(psd.mode, "")


def _modes() -> Iterator[Case]:
    """Modes × bits × compressions × PSD and PSB, without and with channels that are not opacity."""
    for mode in MODES:
        for depth, compression, big, extra in product(
            DEPTHS[mode], COMPRESSIONS, (False, True), (0, 1, 3)
        ):
            if depth == 1 and (compression > RLE or extra):
                continue
            extra_now = min(extra, 5 - COLOURS[mode])
            if extra_now != extra:
                continue
            layers = "opaque" if extra == 3 else ""
            psd = sample(mode, depth, extra, compression=compression, big=big, layers=layers)
            name = f"{_label(psd)}, {extra} extra channels"
            yield Case(name, psd.encode, shown(psd), tolerance=_tolerance(psd), note=_note(psd))


def _transparent() -> Iterator[Case]:
    """Modes × bits × where transparency is stated: colours are blended with white."""
    modes = (GRAY, RGB, CMYK)
    for mode, big, layers, compression in product(modes, (False, True), LAYERS, (RAW, RLE)):
        for depth in DEPTHS[mode]:
            if layers == "block" and depth == 8:
                continue
            number = COLOURS[mode]
            alpha = stored(SHARES[4], depth)
            opacity = unit(alpha)
            blended = SHARES[:number] * opacity + (1 - opacity)
            channels = np.concatenate([stored(blended, depth), alpha[None]])
            psd = Psd(channels, mode, depth, big, compression, layers=layers)
            share = np.maximum(opacity, 1e-9)
            plain = (unit(channels[:number]) - (1 - opacity)) / share
            colours = painted(np.moveaxis(plain.clip(0, 1), 0, -1), psd)
            # The rounding of float32 is divided by the opacity, too.
            tolerance = 2e-3 if depth == 32 else 1e-4
            name = f"{_label(psd)}, transparency by {layers}"
            yield Case(name, psd.encode, colours, opacity, tolerance, _note(psd))


def _not_blended() -> Iterator[Case]:
    """Transparency as some other programs write it: colours are not blended with white."""
    for mode, depth in product((GRAY, RGB, CMYK), (8, 16)):
        number = COLOURS[mode]
        alpha = stored(SHARES[4], depth)
        channels = np.concatenate([stored(SHARES[:number], depth), alpha[None]])
        psd = Psd(channels, mode, depth, layers="count")
        colours = painted(np.moveaxis(unit(channels[:number]), 0, -1), psd)
        name = f"{_label(psd)}, transparency without white"
        yield Case(name, psd.encode, colours, unit(alpha), 1e-4, _note(psd))


def _metadata() -> Iterator[Case]:
    """Profiles, EXIF, transparent colours of palettes, and damaged or odd resources."""
    for depth, big in product((8, 16), (False, True)):
        psd = sample(RGB, depth, big=big, resources=((1039, wide_profile()),))
        wide = from_wide(np.moveaxis(unit(psd.channels), 0, -1))
        yield Case(
            f"{_label(psd)}, Adobe RGB",
            psd.encode,
            wide,
            tolerance=1e-3,
            note="converted to sRGB from",
        )
    linear = sample(RGB, 32, resources=((1039, linear_profile("rgb")),))
    yield Case(
        "32 bits, linear profile",
        linear.encode,
        shown(linear),
        tolerance=1e-3,
        note="converted to sRGB from",
    )
    grey = sample(GRAY, 16, resources=((1039, linear_profile("gray")),))
    light = srgb_curve(np.moveaxis(unit(grey.channels), 0, -1)).repeat(3, 2)
    yield Case(
        "grey, linear profile", grey.encode, light, tolerance=1e-3, note="converted to sRGB from"
    )
    plain = sample(RGB, 8)
    broken = replace(plain, resources=((1039, b"no profile"),))
    yield Case("broken profile", broken.encode, shown(plain), note="profile cannot be read")
    for orientation in range(1, 9):
        exif = turned(orientation).tobytes().removeprefix(b"Exif\0\0")
        psd = replace(plain, resources=((1005, b"resolution"), (1058, exif)))
        yield Case(f"orientation {orientation}", psd.encode, upright(shown(psd), orientation))
    yield Case(
        "EXIF is garbage", replace(plain, resources=((1058, b"garbage"),)).encode, shown(plain)
    )
    data = plain.encode()
    junk = data[:30] + sized(b"8BIM" + b"\xff" * 40) + data[34:]
    yield Case("resources are garbage", lambda: junk, shown(plain))
    many = replace(plain, resources=tuple((4000 + i, b"odd") for i in range(300)))
    yield Case("300 resources", many.encode, shown(plain))
    indexed = sample(
        INDEXED,
        8,
        resources=((1047, struct.pack(">H", int(sample(INDEXED, 8).channels[0, 3, 3]))),),
    )
    hidden = (indexed.channels[0] != indexed.channels[0, 3, 3]).astype(float)
    yield Case("transparent colour", indexed.encode, shown(indexed), hidden)
    merged = replace(plain, resources=((1057, struct.pack(">IB", 1, 1) + bytes(20)),))
    yield Case("it says that it is merged", merged.encode, shown(plain))
    bright = sample(RGB, 32)
    bright = replace(bright, channels=bright.channels * np.float32(3) - np.float32(1))
    yield Case("32 bits, outside of black and white", bright.encode, shown(bright), tolerance=DEEP)


def _refused() -> Iterator[Case]:
    """Files without a merged picture, other modes, and damage."""
    plain = sample(RGB, 8, compression=RLE)
    unmerged = replace(plain, resources=((1057, struct.pack(">IB", 1, 0) + bytes(20)),))
    yield Case(
        "no merged picture", unmerged.encode, None,
        refused="has no merged picture .*Maximize Compatibility.*, which is not supported; save it as",
    )  # fmt: skip
    multi = Psd(stored(SHARES, 8), MULTICHANNEL, 8)
    yield Case("multichannel", multi.encode, None, refused="is in multichannel mode, whose inks")
    nan = replace(sample(RGB, 32), channels=np.full((3, HEIGHT, WIDTH), np.nan, np.float32))
    yield Case("NaN", nan.encode, None, refused="non-finite pixels")
    hidden = Psd(
        np.concatenate([plain.channels, np.zeros((1, HEIGHT, WIDTH), np.uint8)]),
        RGB,
        8,
        layers="count",
    )
    yield Case("fully transparent", hidden.encode, None, refused="is fully transparent")
    damaged = "damaged or truncated: "
    for compression, big in product(COMPRESSIONS, (False, True)):
        data = replace(plain, compression=compression, big=big).encode()
        for cut in (20, 100, len(data) // 2, len(data) - 12):
            yield Case(
                f"{COMPRESSIONS[compression]}, PSB {big}, cut at {cut}",
                partial(data.__getitem__, slice(cut)), None, refused=damaged,
            )  # fmt: skip
    data = plain.encode()
    at = len(data) - len(plain.pixels())
    changes = {
        "version": (4, b"\0\3"),
        "no channels": (12, b"\0\0"),
        "too few channels": (12, b"\0\2"),
        "bits": (22, b"\0\1"),
        "compression": (at - 2, b"\0\7"),
        "row too long": (at, b"\0\1"),
        "giant rows": (at, b"\xff\xff" * 40),
        "giant resources": (30, b"\xff\xff\xff\xff"),
    }
    for name, (place, new) in changes.items():
        changed = data[:place] + new + data[place + len(new) :]
        yield Case(f"{name} changed", partial(io.BytesIO(changed).getvalue), None, refused=damaged)
    wide = data[:14] + struct.pack(">II", 60_000, 60_000) + data[22:]
    yield Case("60000 × 60000", lambda: wide, None, refused="pixels; the limits are")
    none = data[:14] + struct.pack(">II", 0, 60_000) + data[22:]
    yield Case("no height", lambda: none, None, refused=damaged)
