"""BMP: every header, depth, mask and run length; palettes, opacity, colour spaces, odd sizes, damage."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.pictures.corpus.case import DEEP, Case
from tests.pictures.kinds import SRGB_PRIMARIES, from_wide, srgb_curve, to_xyz, wide_profile

Array = NDArray[Any]

CORE, OS2_SHORT, OS2, INFO, V2, V3, V4, V5 = 12, 16, 64, 40, 52, 56, 108, 124
HEADERS = (CORE, OS2_SHORT, 24, 40, 52, 56, OS2, V4, V5)
RAW, RLE8, RLE4, MASKS, JPEG, PNG, ALPHA_MASKS = range(7)
SIZE = (16, 24)
WIDTHS = (1, 2, 3, 5, 8, 9, 24, 33)


def bmp(
    pixels: bytes,
    size: tuple[int, int],
    bits: int,
    *,
    header: int = INFO,
    compression: int = RAW,
    palette: bytes = b"",
    colours: int = 0,
    masks: Sequence[int] = (),
    top_down: bool = False,
    fields: bytes = b"",
    profile: bytes = b"",
    offset: int | None = None,
    total: int | None = None,
) -> bytes:
    """A BMP of rows that are packed already. fields: of version 4, from the kind of colour space on."""
    height, width = size
    height = -height if top_down else height
    if header == CORE:
        head = struct.pack("<IHHHH", CORE, width, size[0], 1, bits)
    else:
        head = struct.pack(
            "<IiiHHIIiiII",
            header,
            width,
            height,
            1,
            bits,
            compression,
            len(pixels),
            2835,
            2835,
            colours,
            0,
        )[:header]
    inside = struct.pack(f"<{len(masks)}I", *masks)
    if header >= V2 and header != OS2:
        head, inside = head + inside, b""
    if header in (V4, V5) and fields:
        head = head.ljust(56, b"\0")[:56] + fields
    head = head.ljust(header, b"\0")
    start = 14 + len(head) + len(inside) + len(palette)
    if profile:
        placed = struct.pack("<II", start - 14 + len(pixels), len(profile))
        head = head[:112] + placed + head[120:]
    whole = start + len(pixels) + len(profile)
    first = struct.pack(
        "<2sIHHI",
        b"BM",
        whole if total is None else total,
        0,
        0,
        start if offset is None else offset,
    )
    return first + head + inside + palette + pixels + profile


def packed(values: Array, bits: int, *, top_down: bool = False) -> bytes:
    """Rows of values (H, W), or of bytes (H, W, 3), from the bottom up, padded to 4 bytes."""
    rows = values if top_down else values[::-1]
    out = b""
    for row in rows:
        if bits < 8:
            digits = "".join(format(int(v), f"0{bits}b") for v in row)
            digits += "0" * (-len(digits) % 8)
            data = bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))
        else:
            data = row.astype({8: "<u1", 16: "<u2", 24: "<u1", 32: "<u4"}[bits]).tobytes()
        out += data + bytes(-len(data) % 4)
    return out


def random_palette(count: int, seed: int = 0) -> Array:
    """(count, 3) uint8."""
    return np.random.default_rng(seed + count).integers(0, 256, (count, 3)).astype(np.uint8)


def stored_palette(colours: Array, header: int) -> bytes:
    """Blue, green, red, and a byte that means nothing, except in the oldest header."""
    rows = colours[:, ::-1]
    if header != CORE:
        rows = np.concatenate([rows, np.full((len(rows), 1), 99, np.uint8)], 1)
    return rows.tobytes()


def case(name: str, data: bytes, colours: Array | None, **options: Any) -> Case:
    """A case of bytes that are there already."""
    return Case(name, lambda: data, colours, **options)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _palettes()
    yield from _true_colour()
    yield from _masks()
    yield from _opacity()
    yield from _runs()
    yield from _colour_spaces()
    yield from _damage()


def _palettes() -> Iterator[Case]:
    for bits, header, down, width in itertools.product(
        (1, 2, 4, 8), HEADERS, (False, True), WIDTHS
    ):
        if down and header == CORE:
            continue
        palette = random_palette(1 << bits)
        values = np.random.default_rng(width).integers(0, 1 << bits, (5, width))
        data = bmp(
            packed(values, bits, top_down=down), values.shape, bits, header=header,
            palette=stored_palette(palette, header), top_down=down,
        )  # fmt: skip
        name = (
            f"{bits} bits, header of {header}, {'top-down' if down else 'bottom-up'}, width {width}"
        )
        yield case(name, data, palette[values] / 255)
    for bits, header in itertools.product((1, 2, 4, 8), (CORE, INFO, V5)):
        full = 1 << bits
        values = np.random.default_rng(1).integers(0, full, SIZE)
        for count in sorted({1, full - 1, full // 2, full}):
            palette = random_palette(count)
            shown = np.concatenate([palette, np.zeros((full - count, 3), np.uint8)])
            stored = stored_palette(palette, header)
            for stated in sorted({count, 0, full, 3000}) if header != CORE else (0,):
                data = bmp(
                    packed(values, bits), SIZE, bits, header=header, palette=stored, colours=stated
                )
                name = f"{bits} bits, header of {header}, {count} colours, {stated} are stated"
                yield case(name, data, shown[values] / 255)
        palette = random_palette(full)
        stored = stored_palette(palette, header)
        data = bmp(packed(values, bits), SIZE, bits, header=header, palette=stored, offset=0)
        yield case(f"{bits} bits, header of {header}, no offset", data, palette[values] / 255)
        gap = bmp(bytes(100) + packed(values, bits), SIZE, bits, header=header, palette=stored,
                  offset=14 + header + len(stored) + 100)  # fmt: skip
        yield case(f"{bits} bits, header of {header}, a gap", gap, palette[values] / 255)
    for name, palette in {
        "black and white": np.array([[0] * 3, [255] * 3], np.uint8),
        "white and black": np.array([[255] * 3, [0] * 3], np.uint8),
        "two greys": np.array([[30] * 3, [90] * 3], np.uint8),
    }.items():
        values = np.random.default_rng(1).integers(0, 2, SIZE)
        stored = stored_palette(palette, INFO)
        yield case(name, bmp(packed(values, 1), SIZE, 1, palette=stored), palette[values] / 255)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    values = np.arange(16 * 24).reshape(SIZE) % 256
    for name, palette in {"grey": grey, "inverted grey": grey[::-1]}.items():
        data = bmp(packed(values, 8), SIZE, 8, palette=stored_palette(palette, INFO))
        yield case(name, data, palette[values] / 255)


def _true_colour() -> Iterator[Case]:
    for bits, header, down, width in itertools.product(
        (16, 24, 32), HEADERS, (False, True), WIDTHS
    ):
        if down and header == CORE:
            continue
        rgb = np.random.default_rng(width).integers(0, 256, (5, width, 3))
        name = (
            f"{bits} bits, header of {header}, {'top-down' if down else 'bottom-up'}, width {width}"
        )
        if bits == 24:
            rows, expected = packed(rgb[..., ::-1], 24, top_down=down), rgb / 255
        elif bits == 32:  # the fourth byte means nothing
            values = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2] | 77 << 24
            rows, expected = packed(values, 32, top_down=down), rgb / 255
        else:
            five = rgb >> 3
            values = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
            rows, expected = packed(values, 16, top_down=down), five / 31
        yield case(name, bmp(rows, rgb.shape[:2], bits, header=header, top_down=down), expected)
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
    rows = packed(rgb[..., ::-1], 24)
    for name, options in {
        "a palette that is not needed": {
            "palette": stored_palette(random_palette(7), INFO),
            "colours": 7,
        },
        "a wrong total": {"total": 17},
        "no total": {"total": 0},
        "no offset": {"offset": 0},
        "an offset within the header": {"offset": 20},
    }.items():
        yield case(f"24 bits, {name}", bmp(rows, SIZE, 24, **options), rgb / 255)  # type: ignore[arg-type]
    narrow = np.random.default_rng(0).integers(0, 256, (5, 5, 3))
    rows = packed(narrow[..., ::-1], 24)
    yield case("the last row has no padding", bmp(rows[:-1], (5, 5), 24), narrow / 255)
    yield case("bytes at the end", bmp(rows, (5, 5), 24) + b"text" * 9, narrow / 255)


LAYOUTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "555": (16, (0x7C00, 0x3E0, 0x1F, 0)),
    "565": (16, (0xF800, 0x7E0, 0x1F, 0)),
    "bgr 565": (16, (0x1F, 0x7E0, 0xF800, 0)),
    "444": (16, (0xF00, 0xF0, 0xF, 0)),
    "4444": (16, (0xF00, 0xF0, 0xF, 0xF000)),
    "1555": (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "332": (16, (0xE0, 0x1C, 0x3, 0)),
    "111": (16, (4, 2, 1, 0)),
    "one channel of 16 bits": (16, (0xFFFF, 0, 0, 0)),
    "bgrx": (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    "rgbx": (32, (0xFF, 0xFF00, 0xFF0000, 0)),
    "xbgr": (32, (0xFF000000, 0xFF0000, 0xFF00, 0)),
    "grb": (32, (0xFF00, 0xFF0000, 0xFF, 0)),
    "bgra": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "rgba": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    "abgr": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
    "10 bits and 2 of opacity": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
    "10 bits, red last": (32, (0x3FF, 0xFFC00, 0x3FF00000, 0)),
    "11, 11 and 10 bits": (32, (0xFFE00000, 0x1FFC00, 0x3FF, 0)),
    "7, 9 and 8 bits": (32, (0xFE000000, 0x1FF0000, 0xFF00, 0)),
    "4 bits in 32": (32, (0xF0000, 0xF00, 0xF, 0xF0000000)),
    "unaligned bytes": (32, (0xFF00000, 0xFF000, 0xFF0, 0)),
    "a channel of 20 bits": (32, (0xFFFFF000, 0xFC0, 0x3F, 0)),
    "24 bits": (24, (0xFF0000, 0xFF00, 0xFF, 0)),
    "24 bits, red first": (24, (0xFF, 0xFF00, 0xFF0000, 0)),
    "24 bits of 6": (24, (0x3F000, 0xFC0, 0x3F, 0)),
}  # fmt: skip


def shift(mask: int) -> int:
    """The position of the lowest bit."""
    return (mask & -mask).bit_length() - 1 if mask else 0


def under_masks(masks: Sequence[int], size: tuple[int, int], seed: int) -> tuple[Array, Array]:
    """Values of pixels, and (H, W, 4) in [0, 1]: the channels."""
    rng = np.random.default_rng(seed)
    values, channels = np.zeros(size, np.int64), []
    for mask in masks:
        top = mask >> shift(mask)
        part = rng.integers(0, top + 1, size)
        values |= part << shift(mask)
        channels.append(part / max(top, 1))
    return values, np.stack(channels, -1)


def _masks() -> Iterator[Case]:
    for (name, (bits, masks)), header, down in itertools.product(
        LAYOUTS.items(), (INFO, V2, V3, V4, V5), (False, True)
    ):
        stored = masks if header >= V3 else masks[:3]
        kind = MASKS
        if header == INFO and masks[3]:
            stored, kind = masks, ALPHA_MASKS
        for size in ((16, 24), (3, 5)):
            values, channels = under_masks(masks, size, bits + header)
            opaque = not masks[3] or (header == V2)
            if bits == 24:
                values = np.stack([values & 255, values >> 8 & 255, values >> 16], -1)
            data = bmp(
                packed(values, bits, top_down=down), size, bits, header=header, compression=kind,
                masks=stored, top_down=down,
            )  # fmt: skip
            deep = all(mask >> shift(mask) > 255 for mask in masks[:3])
            title = f"masks {name}, header of {header}, {'down' if down else 'up'}, width {size[1]}"
            yield case(
                title, data, channels[..., :3], alpha=None if opaque else channels[..., 3],
                **({"tolerance": DEEP * 1.5} if deep and opaque else {}),
            )  # fmt: skip
    for bits, header in ((16, INFO), (32, INFO), (32, V5), (16, V4)):
        masks = LAYOUTS["555" if bits == 16 else "bgrx"][1]
        values, channels = under_masks(masks, SIZE, bits)
        data = bmp(
            packed(values, bits),
            SIZE,
            bits,
            header=header,
            compression=MASKS,
            masks=(0,) * (3 if header == INFO else 4),
        )
        yield case(f"masks of 0, {bits} bits, header of {header}", data, channels[..., :3])
        other = LAYOUTS["565" if bits == 16 else "rgbx"][1]
        if header >= V4:
            data = bmp(packed(values, bits), SIZE, bits, header=header, masks=other)
            yield case(
                f"masks that do not count, {bits} bits, header of {header}", data, channels[..., :3]
            )


def _opacity() -> Iterator[Case]:
    """Opacity of 0 everywhere means that there is none."""
    for name, header, opacity in itertools.product(
        ("bgra", "rgba", "4444", "1555", "10 bits and 2 of opacity"), (V3, V4, V5), (0, 1)
    ):
        bits, masks = LAYOUTS[name]
        values, channels = under_masks(masks[:3], SIZE, 3)
        values = values | (masks[3] if opacity else 0)
        data = bmp(packed(values, bits), SIZE, bits, header=header, compression=MASKS, masks=masks)
        yield case(f"opacity {opacity} everywhere, {name}, header of {header}", data, channels)
        values[2, 3] ^= masks[3]
        alpha = np.full(SIZE, float(opacity))
        alpha[2, 3] = 1 - opacity
        data = bmp(packed(values, bits), SIZE, bits, header=header, compression=MASKS, masks=masks)
        yield case(
            f"opacity {opacity} but for a pixel, {name}, header of {header}",
            data,
            channels,
            alpha=alpha,
        )


def runs_of(values: Array, bits: int, style: str) -> bytes:
    """Run lengths of rows (H, W), from the bottom up."""
    out = b""
    for row in values[::-1].tolist():
        x = 0
        while x < len(row):
            left = len(row) - x
            if style == "literal" or (style == "mixed" and x % 2 and left >= 3):
                count = min(left, 255)
                if count >= 3:
                    out += literal(row[x : x + count], bits)
                    x += count
                    continue
            count = 1
            while count < min(left, 255) and row[x + count] == row[x]:
                count += 1
            out += bytes([count, row[x] * 17 if bits == 4 else row[x]])
            x += count
        out += b"\0\0"
    return out + b"\0\1"


def literal(row: Sequence[int], bits: int) -> bytes:
    """Pixels as they are."""
    data = bytes(row)
    if bits == 4:
        padded = [*row, 0] if len(row) % 2 else row
        data = bytes(a << 4 | b for a, b in zip(padded[::2], padded[1::2], strict=True))
    return bytes([0, len(row)]) + data + bytes(len(data) % 2)


def _runs() -> Iterator[Case]:
    for bits, style, header, width in itertools.product(
        (4, 8), ("runs", "literal", "mixed"), (24, INFO, OS2, V4, V5), (1, 2, 3, 4, 5, 24, 33, 300)
    ):
        palette = random_palette(1 << bits)
        rng = np.random.default_rng(width)
        values = rng.integers(0, 1 << bits, (5, -(-width // 3))).repeat(3, 1)[:, :width]
        data = bmp(
            runs_of(values, bits, style), values.shape, bits, header=header,
            compression=RLE4 if bits == 4 else RLE8, palette=stored_palette(palette, header),
        )  # fmt: skip
        yield case(
            f"RLE{bits}, {style}, header of {header}, width {width}", data, palette[values] / 255
        )
    palette = random_palette(256)

    def made(code: bytes, bits: int = 8, **options: Any) -> bytes:
        stored = stored_palette(palette[: 1 << bits], INFO)
        kind = RLE4 if bits == 4 else RLE8
        return bmp(code, (4, 6), bits, compression=kind, palette=stored, **options)

    def from_rows(*rows: str) -> Array:
        return palette[np.array([[int(c, 16) for c in row] for row in rows])] / 255

    odd: dict[str, tuple[bytes, int, tuple[str, ...]]] = {
        "an end at once": (b"\0\1", 8, ("000000",) * 4),
        "an early end": (b"\6\1\0\0\3\2\0\1", 8, ("000000", "000000", "222000", "111111")),
        "a delta": (b"\2\1\0\2\1\1\2\2\0\1", 8, ("000000", "000000", "000220", "110000")),
        "a delta of columns": (b"\1\1\0\2\3\0\2\2\0\1", 8, ("000000", "000000", "000000", "100022")),
        "a delta of rows": (b"\1\1\0\2\0\2\2\2\0\1", 8, ("000000", "022000", "000000", "100000")),
        "a delta beyond the end": (b"\1\1\0\2\0\xc8\2\2\0\1", 8, ("000000", "000000", "000000", "100000")),
        "empty rows": (b"\0\0\2\1\0\0\0\0\1\2\0\1", 8, ("200000", "000000", "110000", "000000")),
        "a row that is too long": (b"\x14\1\0\0\6\2\0\1", 8, ("000000", "000000", "222222", "111111")),
        "too many rows": (b"\6\1\0\0\6\2\0\0\6\3\0\0\6\4\0\0\6\5\0\1", 8, ("444444", "333333", "222222", "111111")),
        "no end of the last row": (b"\6\1\0\0\6\2\0\0\6\3\0\0\6\4\0\1", 8, ("444444", "333333", "222222", "111111")),
        "no end at all": (b"\6\1\0\0\6\2\0\0\6\3\0\0\6\4", 8, ("444444", "333333", "222222", "111111")),
        "two colours in turn": (b"\6\x12\0\0\5\x34\0\1", 4, ("000000", "000000", "343430", "121212")),
        "4 bits, a delta": (b"\2\x12\0\2\1\1\2\x55\0\1", 4, ("000000", "000000", "000550", "120000")),
        "4 bits, an odd literal": (b"\0\5\x12\x34\x50\0\0\0\0\3\x67\x80\0\1", 4,
            ("000000", "000000", "678000", "123450")),
        "4 bits, a literal that is too long": (b"\0\7\x12\x34\x56\x70\0\0\0\1", 4,
            ("000000", "000000", "000000", "123456")),
        "8 bits, a literal that is too long": (b"\0\7\1\2\3\4\5\6\7\0\0\0\0\1", 8,
            ("000000", "000000", "000000", "123456")),
    }  # fmt: skip
    for name, (code, bits, rows) in odd.items():
        yield case(f"RLE: {name}", made(code, bits), from_rows(*rows))
    top = palette[np.array([[1] * 6, [2] * 6, [0] * 6, [0] * 6])] / 255
    yield case("RLE: top-down", made(b"\6\1\0\0\6\2\0\1", top_down=True), top)
    rgb = random_palette(24).reshape(4, 6, 3)
    code = b"".join(
        b"".join(b"\1" + pixel[::-1].tobytes() for pixel in row) + b"\0\0" for row in rgb[::-1]
    )
    data = bmp(code + b"\0\1", (4, 6), 24, header=OS2, compression=4)
    yield case("RLE24 of OS/2, runs", data, rgb / 255)
    code = b"".join(b"\0\6" + row[:, ::-1].tobytes() + b"\0\0" for row in rgb[::-1])
    data = bmp(code + b"\0\1", (4, 6), 24, header=OS2, compression=4)
    yield case("RLE24 of OS/2, literal", data, rgb / 255)
    for name, code in {
        "in a row": b"\6\1\0\0\3",
        "after a row": b"\6\1\0\0",
        "in a literal": b"\6\1\0\0\0\6\1",
    }.items():
        yield case(f"RLE, cut {name}", made(code), None, refused="last rows are missing|is damaged")


def calibrated(endpoints: Array, gammas: Sequence[float]) -> bytes:
    """The fields of a header of version 4 from its colour space on."""
    numbers = [round(float(v) * (1 << 30)) for v in endpoints.reshape(-1)]
    return struct.pack("<I9i3I", 0, *numbers, *(round(g * 65536) for g in gammas))


def _colour_spaces() -> Iterator[Case]:
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
    rows, values = packed(rgb[..., ::-1], 24), rgb / 255
    wide = to_xyz(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))).T
    srgb = to_xyz(SRGB_PRIMARIES).T
    plain = {
        "sRGB": struct.pack("<I", 0x73524742),
        "of Windows": struct.pack("<I", 0x57696E20),
        "of no known kind": struct.pack("<I", 0x41424344),
        "calibrated, all zero": bytes(52),
        "calibrated, no gamma": calibrated(wide, (0, 0, 0)),
        "calibrated, the inverse of the gamma": calibrated(wide, (1 / 2.2,) * 3),
        "calibrated, gammas that differ": calibrated(wide, (1.8, 2.2, 2.4)),
        "calibrated, one primary three times": calibrated(np.tile(wide[:1], (3, 1)), (2.2,) * 3),
        "calibrated, negative": calibrated(-wide, (2.2,) * 3),
    }
    for header in (V4, V5):
        for name, fields in plain.items():
            yield case(
                f"colour space {name}, header of {header}",
                bmp(rows, SIZE, 24, header=header, fields=fields),
                values,
            )
        note = "colours were converted to sRGB from"
        for name, fields, expected in (
            ("of wide primaries", calibrated(wide, (2.2,) * 3), from_wide(values)),
            ("linear", calibrated(srgb, (1.0,) * 3), srgb_curve(values)),
        ):
            data = bmp(rows, SIZE, 24, header=header, fields=fields)
            yield case(
                f"colour space calibrated, {name}, header of {header}",
                data,
                expected,
                tolerance=1.5 / 255,
                note=note,
            )
    embedded = struct.pack("<I", 0x4D424544)
    data = bmp(rows, SIZE, 24, header=V5, fields=embedded, profile=wide_profile())
    note = "colours were converted to sRGB from"
    yield case("an embedded profile", data, from_wide(values), tolerance=1.5 / 255, note=note)
    note = "its colour profile is incomplete and was not used"
    yield case("an embedded profile, cut", data[:-50], values, note=note)
    without = bmp(rows, SIZE, 24, header=V5, fields=embedded)
    yield case("an embedded profile of 0 bytes", without, values, note=note)
    data = bmp(
        rows, SIZE, 24, header=V5, fields=struct.pack("<I", 0x4C494E4B), profile=b"profile.icc\0"
    )
    yield case("a linked profile", data, values, note="its linked colour profile was not used")


def _damage() -> Iterator[Case]:
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
    rows = packed(rgb[..., ::-1], 24)
    whole = bmp(rows, SIZE, 24)
    bad: dict[str, tuple[bytes, str]] = {
        "the last byte is missing": (whole[:-1], "last rows are missing"),
        "half of the rows": (whole[: len(whole) // 2], "last rows are missing"),
        "only headers": (whole[:54], "last rows are missing"),
        "cut in the header": (whole[:40], "ends within its header"),
        "a JPEG file": (bmp(b"\xff\xd8\xff", SIZE, 0, compression=JPEG), "contains a JPEG file"),
        "a PNG file": (bmp(b"\x89PNG", SIZE, 0, compression=PNG), "contains a PNG file"),
        "CMYK": (bmp(rows, SIZE, 32, compression=11), "has the compression 11"),
        "Huffman": (bmp(rows, SIZE, 1, header=OS2, compression=3), "has the compression Huffman"),
        "3 bits": (bmp(rows, SIZE, 3), "has 3 bits per pixel"),
        "64 bits": (bmp(rows, SIZE, 64), "has 64 bits per pixel"),
        "RLE8 with 4 bits": (bmp(rows, SIZE, 4, compression=RLE8), "has 4 bits per pixel with"),
        "masks with 8 bits": (bmp(rows, SIZE, 8, compression=MASKS, masks=(7, 56, 192)), "has 8 bits per pixel with"),
        "masks with gaps": (bmp(rows, SIZE, 32, compression=MASKS, masks=(0xF0F, 0xF0, 0xF000)), "masks with gaps"),
        "masks beyond the bits": (bmp(rows, SIZE, 16, compression=MASKS, masks=(0xFF0000, 0xFF00, 0xFF)), "masks"),
        "a width of 0": (bmp(rows, (16, 0), 24), "is damaged"),
        "a height of 0": (bmp(rows, (0, 24), 24), "is damaged"),
        "a negative width": (bmp(rows, (16, -24), 24), "is damaged"),
        "a header of 13 bytes": (whole[:14] + b"\x0d" + whole[15:], "its header has 13 bytes"),
        "an offset beyond the end": (bmp(rows, SIZE, 24, offset=100_000), "last rows are missing"),
    }  # fmt: skip
    for name, (data, cause) in bad.items():
        yield case(f"damage: {name}", data, None, refused=cause)
