"""JPEG XL."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

from tests.pictures import colorimetry, kinds
from tests.pictures import profile_writer as icc
from tests.pictures.corpus.case import DEEP, EXACT, LOSSY, Array, Case
from tests.pictures.corpus.profiles import cmyk_lab
from tests.pictures.jxl_writer import (
    ENCODED,
    GREY,
    NOISE,
    RGB,
    SMOOTH,
    SPACES,
    START,
    Fields,
    box,
    boxed,
    channel,
    chosen,
    coded,
    encoding,
    enum,
    frames_of,
    integers,
    levels,
    number,
    profile_bits,
    shares,
    stored_profile,
    upright,
)

#: A step of 8 bits: libjxl dithers what it reduces to 8 bits.
DITHERED = 1.01 / 255
#: Tolerance after a colour conversion from 8 and from 16 bits.
CONVERTED, CONVERTED_DEEP = 1.5 / 255, 0.3 / 255


def picked(channels: int, values: Array = NOISE) -> Array:
    """Grey, grey with opacity, RGB, or all."""
    return values[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]


def squeezed(pixels: Array) -> Array:
    """As imagecodecs wants grey."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def grey_space(channels: int) -> str:
    """The bits of sRGB for so many channels."""
    return encoding(GREY, 13).bits if channels < 3 else "1"


def plain(channels: int, bits: int = 8, **more: object) -> tuple[Fields, Array]:
    """The fields of lossless integers, and the pixels."""
    depth = integers(bits)
    extra = (channel(0, depth),) if channels in (2, 4) else ()
    fields = Fields(depth=depth, extra=extra, space=grey_space(channels))
    return replace(fields, **more), levels(picked(channels), bits)


def expected(channels: int, bits: int = 8) -> tuple[Array, Array | None]:
    """Colours and opacity of `plain`."""
    values = shares(picked(channels), bits)
    if channels in (2, 4):
        return kinds.greys(values[..., 0]) if channels == 2 else values[..., :3], values[..., -1]
    return values, None


def lossless(pixels: Array, bits: int | None = None) -> bytes:
    """Frames of integers or floating point."""
    options = {"bitspersample": bits} if bits and pixels.dtype.kind == "u" else {}
    return frames_of(squeezed(pixels), lossless=True, **options)


def file(fields: Fields, pixels: Array, bits: int | None = None) -> bytes:
    """A naked codestream of lossless pixels."""
    return coded(fields, lossless(pixels, bits))


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (
        depths,
        floats,
        orientations,
        premultiplied,
        extra_channels,
        inks,
        spaces,
        xyb_spaces,
    ):
        yield from part()
    for part in (profiles, recompressed, animations, containers, sizes, lossy, others):
        yield from part()


def depths() -> Iterator[Case]:
    """Integers of every size."""
    for bits, channels in product(range(1, 17), (1, 2, 3, 4)):
        fields, pixels = plain(channels, bits)
        colours, alpha = expected(channels, bits)
        tolerance = EXACT if bits <= 8 else DEEP
        make = partial(file, fields, pixels, bits)
        yield Case(f"{bits} bits, {channels} channels", make, colours, alpha, tolerance)
    for bits in range(17, 25):
        fields, pixels = plain(3, 16)
        make = partial(file, replace(fields, depth=integers(bits)), pixels, 16)
        yield Case(f"{bits} bits", make, pixels / ((1 << bits) - 1), tolerance=DEEP)
    for bits, opacity in ((8, 16), (16, 8), (10, 8), (8, 10)):
        _, pixels = plain(4, max(bits, opacity))
        pixels[..., :3] >>= max(bits, opacity) - bits
        pixels[..., 3] >>= max(bits, opacity) - opacity
        fields = Fields(depth=integers(bits), extra=(channel(0, integers(opacity)),))
        alpha = pixels[..., 3] / ((1 << opacity) - 1)
        yield Case(
            f"{bits} bits with an opacity of {opacity}",
            partial(file, fields, pixels, max(bits, opacity)),
            pixels[..., :3] / ((1 << bits) - 1),
            alpha,
            DITHERED if opacity > bits else 0.51 / ((1 << bits) - 1),
        )


def floats() -> Iterator[Case]:
    """Floating point."""
    depths = {
        np.float16: "1" + chosen(1) + number(4, 4),
        np.float32: "1" + chosen(0) + number(7, 4),
    }
    for (dtype, depth), channels in product(depths.items(), (1, 2, 3, 4)):
        extra = (channel(0, depth),) if channels in (2, 4) else ()
        fields = Fields(depth=depth, extra=extra, space=grey_space(channels))
        for name, values in (("", picked(channels)), ("beyond 0 to 1", 2 * picked(channels) - 0.5)):
            pixels = values.astype(dtype)
            want = pixels.astype(np.float64).clip(0, 1)
            alpha = want[..., -1] if extra else None
            colours = kinds.greys(want[..., 0]) if channels < 3 else want[..., :3]
            title = f"{dtype.__name__}, {channels} channels {name}"
            yield Case(title, partial(file, fields, pixels), colours, alpha, DEEP)
    for value in (np.nan, np.inf):
        pixels = picked(3).astype(np.float32)
        pixels[2, 3] = value
        fields = Fields(depth=depths[np.float32])
        yield Case(f"{value}", partial(file, fields, pixels), None, refused="non-finite")
    fields = Fields(depth="1" + chosen(2) + number(6, 4))
    make = partial(file, fields, picked(3).astype(np.float32))
    yield Case("24-bit floating point", make, None, refused="floating-point values of 24 bits")


def orientations() -> Iterator[Case]:
    """The orientation of the header, whatever EXIF says."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
    for orientation, bits, channels in product(range(1, 9), (8, 16), (1, 2, 3, 4)):
        fields, pixels = plain(channels, bits, orientation=orientation)
        colours, alpha = expected(channels, bits)
        turned = None if alpha is None else upright(alpha, orientation)
        for wrapped in (False, True):

            def make(wrapped: bool = wrapped, given: tuple = (fields, pixels, bits)) -> bytes:
                return boxed(file(*given), box(b"Exif", data)) if wrapped else file(*given)

            yield Case(
                f"orientation {orientation}, {bits} bits, {channels} channels, EXIF {wrapped}",
                make,
                upright(colours, orientation),
                turned,
                EXACT if bits == 8 else DEEP,
            )


def premultiplied() -> Iterator[Case]:
    """Colours that are multiplied by the opacity."""
    for bits, channels, orientation in product((8, 10, 12, 16), (2, 4), (1, 6)):
        depth = integers(bits)
        pixels = levels(picked(channels), bits)
        most = (1 << bits) - 1
        pixels[..., :-1] = np.round(pixels[..., :-1] * (pixels[..., -1:] / most))
        fields, _ = plain(channels, bits, orientation=orientation)
        fields = replace(fields, extra=(channel(0, depth, premultiplied=True),))
        alpha = pixels[..., -1] / most
        colours = pixels[..., :-1] / np.maximum(pixels[..., -1:], 1)
        if channels == 2:
            colours = kinds.greys(colours[..., 0])
        yield Case(
            f"premultiplied, {bits} bits, {channels} channels, orientation {orientation}",
            partial(file, fields, pixels, bits),
            upright(colours.clip(0, 1), orientation),
            upright(alpha, orientation),
            1e-4,
        )


def extra_channels() -> Iterator[Case]:
    """Channels that are no opacity."""
    for (name, kind), bits in product(
        {"depth": 1, "selection": 3, "filter array": 5, "heat": 6, "optional": 16}.items(), (8, 16)
    ):
        depth = integers(bits)
        for channels in (2, 4):
            fields, pixels = plain(channels, bits, extra=(channel(kind, depth),))
            colours, _ = expected(channels, bits)
            make = partial(file, fields, pixels, bits)
            yield Case(
                f"extra channel: {name}, {bits} bits, {channels} channels",
                make,
                colours,
                tolerance=EXACT if bits == 8 else DEEP,
            )
        for alpha_at in (0, 1, 2):
            planes = levels(np.moveaxis(NOISE, 2, 0), bits)
            kinds_of = [kind, kind, kind]
            kinds_of[alpha_at] = 0
            fields = Fields(
                depth=depth,
                extra=tuple(channel(one, depth) for one in kinds_of),
                space=encoding(GREY, 13).bits,
            )
            frames = partial(frames_of, planes, lossless=True, planar=True, photometric="gray")
            most = (1 << bits) - 1
            yield Case(
                f"grey, {name} and opacity as channel {alpha_at + 1}, {bits} bits",
                lambda fields=fields, frames=frames: coded(fields, frames()),
                kinds.greys(planes[0] / most),
                planes[1 + alpha_at] / most,
                EXACT if bits == 8 else DEEP,
            )
    fields, pixels = plain(4, extra=(channel(2, integers(8)),))
    spot = (pixels[..., 3:] / 255) * np.array([1, 0, 0])
    colours = pixels[..., :3] / 255 * (1 - pixels[..., 3:] / 255) + spot
    yield Case("a spot colour", partial(file, fields, pixels), colours, tolerance=DITHERED)
    fields, pixels = plain(4, extra=(channel(4, integers(10)),))
    make = partial(file, fields, pixels)
    yield Case("CMYK with a black of other bits", make, None, refused="CMYK colours with other")


def inks() -> Iterator[Case]:
    """CMYK, where 0 is full ink and black is an extra channel."""
    lab = partial(cmyk_lab, 15)
    profile = icc.profile("CMYK", {"A2B0": icc.lut16(4, lab)}, kind="prtr", pcs="Lab ")
    for bits, orientation in product((8, 10, 16), (1, 6)):
        depth = integers(bits)
        fields, pixels = plain(4, bits, extra=(channel(4, depth),), orientation=orientation)
        for name, given in (
            ("", replace(fields, space="01" + enum(RGB), profile=stored_profile(profile))),
            (" without a profile", fields),
        ):
            ink = 1 - pixels / ((1 << bits) - 1)
            want = (
                colorimetry.from_lab(lab(ink))
                if name == ""
                else (1 - ink[..., :3]) * (1 - ink[..., 3:])
            )
            yield Case(
                f"CMYK, {bits} bits, orientation {orientation}{name}",
                partial(file, given, pixels, bits),
                upright(want, orientation),
                tolerance=2.5 / 255 if name == "" else EXACT,
                note="colours were converted to sRGB from" if name == "" else "without a profile",
            )


def spaces() -> Iterator[Case]:
    """Colour encodings of lossless pixels."""
    for (name, space), bits in product(SPACES.items(), (8, 16)):
        channels = 1 if name.startswith("grey") else 3
        fields, pixels = plain(channels, bits, space=space.bits)
        yield Case(
            f"{name}, {bits} bits",
            partial(file, fields, pixels, bits),
            space.to_srgb(shares(picked(channels), bits)),
            tolerance=CONVERTED if bits == 8 else CONVERTED_DEEP,
            note=space.note,
        )
    for name, enums in (("XYB", 2), ("unknown", 3)):
        bits = (
            "00"
            + enum(enums)
            + (enum(1) if enums == 2 else enum(1) + enum(1) + "0" + enum(13) + enum(1))
        )
        fields, pixels = plain(3, 8, space=bits)
        yield Case(f"space {name}", partial(file, fields, pixels), None, refused="space other than")


def xyb_spaces() -> Iterator[Case]:
    """XYB, which libjxl converts to the encoding that the header names."""
    for (name, space), bits in product(SPACES.items(), (8, 16)):
        if "curve 16" in name or "curve 18" in name:
            continue
        channels = 1 if name.startswith("grey") else 3
        values = levels(picked(channels, SMOOTH))
        fields, _ = plain(channels, bits, space=space.bits, xyb=True)
        frames = partial(frames_of, squeezed(values), distance=0.1, lossless=False)
        yield Case(
            f"XYB, {name}, {bits} bits",
            lambda fields=fields, frames=frames: coded(fields, frames()),
            shares(picked(channels, SMOOTH)),
            tolerance=2 * LOSSY if bits == 8 else LOSSY,
            note=space.note,
        )


def profiles() -> Iterator[Case]:
    """Embedded profiles."""
    wide, linear = kinds.wide_profile(), kinds.linear_profile("rgb")
    curves = [("wide", wide, kinds.from_wide), ("linear", linear, kinds.srgb_curve)]
    for (name, profile, to_srgb), bits, channels in product(curves, (8, 16), (3, 4)):
        embedded = "01" + enum(RGB)
        fields, pixels = plain(channels, bits, space=embedded, profile=profile_bits(profile))
        colours, alpha = expected(channels, bits)
        yield Case(
            f"profile {name}, {bits} bits, {channels} channels",
            partial(file, fields, pixels, bits),
            to_srgb(colours),
            alpha,
            CONVERTED if bits == 8 else CONVERTED_DEEP,
            note=ENCODED,
        )
    grey = kinds.linear_profile("gray")
    for bits, channels in product((8, 16), (1, 2)):
        coded_profile = profile_bits(grey, grey=True)
        fields, pixels = plain(channels, bits, space="01" + enum(GREY), profile=coded_profile)
        colours, alpha = expected(channels, bits)
        title = f"profile for grey, {bits} bits, {channels} channels"
        want = kinds.srgb_curve(colours)
        yield Case(title, partial(file, fields, pixels, bits), want, alpha, CONVERTED_DEEP, ENCODED)
    for name, profile in (("wide", wide), ("linear", linear)):
        for bits, channels in product((8, 16), (3, 4)):
            values = levels(picked(channels, SMOOTH))
            fields = Fields(
                depth=integers(bits),
                extra=(channel(0, integers(8)),) * (channels == 4),
                xyb=True,
                space="01" + enum(RGB),
                profile=profile_bits(profile),
            )
            frames = partial(frames_of, values, distance=0.1, lossless=False)
            want = shares(picked(channels, SMOOTH))
            yield Case(
                f"XYB with profile {name}, {bits} bits, {channels} channels",
                lambda fields=fields, frames=frames: coded(fields, frames()),
                want[..., :3],
                want[..., 3] if channels == 4 else None,
                LOSSY,
            )
    values = levels(picked(1, SMOOTH))
    fields, _ = plain(1, xyb=True, space="01" + enum(GREY), profile=profile_bits(grey, grey=True))
    frames = partial(frames_of, squeezed(values), distance=0.1, lossless=False)
    want = shares(picked(1, SMOOTH))
    yield Case("XYB, grey with a profile", lambda: coded(fields, frames()), want, tolerance=LOSSY)


def recompressed() -> Iterator[Case]:
    """JPEG files that were recompressed without loss."""
    flat = kinds.FLAT
    grey = levels(kinds.greys(SMOOTH[..., 0]))
    for orientation, subsampling, wrapped in product(range(1, 9), (0, 2), (False, True)):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation

        pixels = grey if subsampling else flat

        def make(given: tuple = (pixels, exif, subsampling, wrapped)) -> bytes:
            options = {"exif": given[1], "subsampling": given[2]}
            jpeg = kinds.pillow(given[0], "JPEG", quality=100, **options)
            return bytes(imagecodecs.jpegxl_encode_jpeg(jpeg, usecontainer=given[3]))

        yield Case(
            f"JPEG, orientation {orientation}, subsampling {subsampling}, container {wrapped}",
            make,
            upright(pixels / 255, orientation),
            tolerance=LOSSY,
        )
    for progressive, profile in product((False, True), (None, kinds.wide_profile())):
        options = {"quality": 100, "subsampling": 0, "progressive": progressive}
        options |= {"icc_profile": profile} if profile else {}
        yield Case(
            f"JPEG, progressive {progressive}, profile {bool(profile)}",
            lambda options=options: bytes(
                imagecodecs.jpegxl_encode_jpeg(kinds.pillow(flat, "JPEG", **options))
            ),
            kinds.from_wide(flat / 255) if profile else flat / 255,
            tolerance=2 * LOSSY if profile else LOSSY,
            note=ENCODED if profile else "",
        )
    jpeg = kinds.pillow(flat[..., 0], "JPEG", quality=100)
    make_grey = partial(imagecodecs.jpegxl_encode_jpeg, jpeg)
    yield Case("JPEG, grey", make_grey, kinds.greys(flat[..., 0] / 255), tolerance=LOSSY)


def animations() -> Iterator[Case]:
    """The first frame."""
    for bits, channels, count in product((8, 16), (3, 4), (2, 5)):
        pixels = levels(picked(channels), bits)
        stack = np.stack([pixels, *[np.flip(pixels, 0)] * (count - 1)])
        colours, alpha = expected(channels, bits)
        colours = (
            kinds.srgb_curve(colours) if bits == 16 else colours
        )  # imagecodecs calls it linear
        yield Case(
            f"{count} frames, {bits} bits, {channels} channels",
            lambda stack=stack: bytes(imagecodecs.jpegxl_encode(stack, lossless=True)),
            colours,
            alpha,
            EXACT if bits == 8 else CONVERTED_DEEP,
            f"only the first of {count} frames was used",
        )


def containers() -> Iterator[Case]:
    """Boxes in every order."""
    fields, pixels = plain(4)
    colours, alpha = expected(4)
    naked = partial(file, fields, pixels)

    def parts(count: int, *between: bytes) -> bytes:
        data = naked()
        cuts = [len(data) * i // count for i in range(count + 1)]
        boxes = [
            box(
                b"jxlp", struct.pack(">I", i | (i == count - 1) << 31) + data[cuts[i] : cuts[i + 1]]
            )
            for i in range(count)
        ]
        return START + b"".join(one + b"".join(between) for one in boxes)

    def many(count: int) -> bytes:
        return parts(count)

    free, exif = box(b"free", b"abc"), box(b"Exif", bytes(4) + b"II*\0\x08\0\0\0\0\0")
    broken = (
        box(b"Exif", b""),
        box(b"Exif", b"\xff" * 9),
        box(b"brob", b"Exif\xff\xff"),
        box(b"brob", b""),
    )
    long_box = lambda: START + struct.pack(">I4sQ", 1, b"jxlc", len(naked()) + 16) + naked()  # noqa: E731
    makers: dict[str, Callable[[], bytes]] = {
        "one box": lambda: boxed(naked()),
        "level 10": lambda: boxed(naked(), box(b"jxll", b"\x0a")),
        "unknown boxes": lambda: boxed(naked(), free, free) + free,
        "metadata first": lambda: boxed(naked(), exif),
        "metadata last": lambda: boxed(naked()) + exif,
        "a box to the end": lambda: START + b"\0\0\0\0jxlc" + naked(),
        "a long length": long_box,
        "bytes after the last box": lambda: boxed(naked()) + b"abc",
        "several codestreams": lambda: boxed(naked()) + box(b"jxlc", b"x"),
        "boxes between parts": lambda: parts(3, free, exif),
        "an empty part": lambda: (
            START + box(b"jxlp", bytes(4)) + box(b"jxlp", b"\x80\0\0\x01" + naked())
        ),
        **{f"{count} parts": partial(many, count) for count in (1, 2, 3, 17, 300)},
        **{f"broken metadata {i}": partial(boxed, naked(), one) for i, one in enumerate(broken)},
    }
    for name, make in makers.items():
        yield Case(name, make, colours, alpha)
    wrong = START + box(b"jxlp", b"\0\0\0\x01" + naked()) + box(b"jxlp", b"\x80\0\0\0")
    yield Case("parts out of order", lambda: wrong, None, refused="out of order")
    yield Case("no codestream", lambda: START + free, None, refused="no JPEG XL codestream")


def sizes() -> Iterator[Case]:
    """Pictures of any size, in the four ways to say it."""
    for width, height in ((1, 1), (1, 7), (7, 1), (2, 3), (255, 9), (257, 8), (600, 3), (3, 1100)):
        for channels, bits in product((3, 4), (8, 16)):
            random = np.random.default_rng(width)
            pixels = levels(random.random((height, width, channels)), bits)
            if channels == 4:
                pixels[0, 0, 3] = pixels[..., 3].max() // 2 + 1
            fields, _ = plain(channels, bits, size=(width, height))
            want = pixels / ((1 << bits) - 1)
            yield Case(
                f"{width} × {height}, {channels} channels, {bits} bits",
                partial(file, fields, pixels, bits),
                want[..., :3],
                want[..., 3] if channels == 4 else None,
                EXACT if bits == 8 else DEEP,
            )
    ratios = ((48, 48), (48, 40), (64, 48), (48, 32), (64, 36), (50, 40), (80, 40))
    for width, height in (*ratios, (40, 64), (256, 256), (8, 8), (100, 100)):
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        make = partial(imagecodecs.jpegxl_encode, pixels, lossless=True)
        yield Case(f"{width} × {height} by the encoder", make, pixels / 255)


def lossy() -> Iterator[Case]:
    """The encoder's ways to encode with and without loss."""
    for effort, channels, bits in product(range(1, 8), (1, 2, 3, 4), (8, 16)):
        values = levels(picked(channels, SMOOTH), bits)
        want = shares(picked(channels, SMOOTH), bits)
        colours = kinds.greys(want[..., 0]) if channels < 3 else want[..., :3]
        alpha = want[..., -1] if channels in (2, 4) else None
        for loss, speed in ((True, 0), (True, 4), (False, 0)):
            note = "" if bits == 8 else ENCODED
            yield Case(
                f"effort {effort}, {channels} channels, {bits} bits, loss {loss}, speed {speed}",
                partial(
                    imagecodecs.jpegxl_encode, squeezed(values),
                    effort=effort, lossless=not loss, distance=0.1 if loss else None, decodingspeed=speed,
                ),
                kinds.srgb_curve(colours) if bits == 16 else colours,
                alpha,
                2 * LOSSY if loss else EXACT if bits == 8 else CONVERTED_DEEP,
                note,
            )  # fmt: skip


def others() -> Iterator[Case]:
    """A preview, a size to show the picture at, a brightness."""
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    fields, pixels = plain(3)
    colours, _ = expected(3)
    previewed = replace(fields, preview="0" + chosen(0, 7, 6) + "001")
    both = lambda: coded(previewed, lossless(small)) + lossless(pixels)  # noqa: E731
    yield Case("a preview", both, colours)
    shown = replace(fields, shown=(48, 34))
    yield Case("a size to show it at", partial(file, shown, pixels), colours)
    bright = replace(fields, brightest=1000.0)
    yield Case("a brightness", partial(file, bright, pixels), colours)
    for name, cut in (("half", 0.5), ("the header", 0.01), ("all but the last byte", 0.999)):
        data = file(fields, pixels)
        part = data[: max(3, int(len(data) * cut))]
        yield Case(f"only {name}", partial(bytes, part), None, refused="damaged or truncated")
