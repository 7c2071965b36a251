"""Colour profiles of every kind, written by hand, in the containers that carry them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import tifffile
from PIL import Image

from tests.pictures import colorimetry
from tests.pictures import profile_writer as icc
from tests.pictures.corpus.case import DEEP, EXACT, Array, Case
from tests.pictures.corpus.png_metadata import iccp
from tests.pictures.png_writer import GREY, GREY_ALPHA, RGB, RGB_ALPHA, Pixels, file

Convert = Callable[[Array], Array]

UNREADABLE = "its colour profile cannot be read and was not used"
#: Conversions of 8 bits by matrices, of 16 bits and floating point; tables of 8 and of 16 bits.
MATRIX, FINE, TABLE8, TABLE16 = 1 / 255, 0.25 / 255, 2 / 255, 1.1 / 255
#: What JPEG loses of flat blocks.
JPEG = 3.5 / 255
CHANNELS = {"GRAY": 1, "RGB": 3, "CMYK": 4}


@dataclass(frozen=True)
class Profile:
    """A profile, the sRGB of device values (…, C) in [0, 1], and the largest error of conversions.

    convert: None for sRGB.
    """

    name: str
    space: str
    data: bytes
    convert: Convert | None
    tolerance: float = MATRIX


def cases() -> Iterator[Case]:
    """All files."""
    yield from _kinds()
    yield from _containers()
    yield from _sizes()
    yield from _useless()
    yield from _broken()


# Profiles

SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
#: Curves of versions 2 and 4: bytes, and the light of values.
CURVES: dict[str, tuple[bytes, Convert]] = {
    "linear": (icc.gamma_curve(1), lambda v: v),
    "gamma 1.8": (icc.gamma_curve(1.80078125), lambda v: v**1.80078125),
    "gamma 2.2": (icc.gamma_curve(2.19921875), lambda v: v**2.19921875),
    "sRGB table": (icc.table_curve(colorimetry.srgb_light, 4096), colorimetry.srgb_light),
    "table of 2": (icc.table_curve(lambda v: v, 2), lambda v: v),
}
#: Those of version 4 (parametricCurveType).
PARAMETRIC: dict[str, tuple[bytes, Convert]] = {
    "parametric 0": (icc.parametric_curve(0, 2.0), lambda v: v**2),
    "parametric 1": (icc.parametric_curve(1, 2, 1.25, -0.25), lambda v: np.maximum(1.25 * v - 0.25, 0) ** 2),
    "parametric 2": (icc.parametric_curve(2, 2, 0.9, 0.0625, 0.0615), lambda v: (0.9 * v + 0.0625) ** 2 + 0.0615),
    "parametric 3, sRGB": (icc.parametric_curve(3, *SRGB_CURVE), colorimetry.srgb_light),
    "parametric 4, sRGB": (icc.parametric_curve(4, *SRGB_CURVE, 0, 0), colorimetry.srgb_light),
}  # fmt: skip
SPACES = {
    "sRGB": colorimetry.BT709,
    "Adobe RGB": colorimetry.ADOBE,
    "Display P3": colorimetry.DISPLAY_P3,
    "ProPhoto RGB": colorimetry.PROPHOTO,
}


def dot_gain(values: Array) -> Array:
    """The light of printed grey whose dots of half the area print as 70 %."""
    ink = 1 - values
    return 1 - (ink + 0.8 * ink * (1 - ink))


def matrix_profiles() -> Iterator[Profile]:
    """RGB with primaries and curves."""
    for (space, points), version in product(SPACES.items(), (2, 4)):
        for curve, (data, light) in (CURVES | (PARAMETRIC if version == 4 else {})).items():
            same = points is colorimetry.BT709 and light is colorimetry.srgb_light
            yield Profile(
                f"{space}, {curve}, version {version}",
                "RGB",
                icc.matrix_profile(points, data, version=version),
                None if same else partial(_by_matrix, light, points),
            )


def _by_matrix(light: Convert, points: colorimetry.Points, values: Array) -> Array:
    return colorimetry.from_light(light(values), points)


def grey_profiles() -> Iterator[Profile]:
    """Grey with a curve to light or to L*."""
    curves = {**CURVES, "dot gain": (icc.table_curve(dot_gain), dot_gain)}
    for pcs, version in product(("XYZ ", "Lab "), (2, 4)):
        for curve, (data, light) in (curves | (PARAMETRIC if version == 4 else {})).items():
            yield Profile(
                f"grey, {curve}, {pcs.strip()}, version {version}",
                "GRAY",
                icc.grey_profile(data, pcs=pcs, version=version),
                partial(_grey_by_lab if pcs == "Lab " else _grey_by_light, light),
            )


def _grey_by_light(light: Convert, values: Array) -> Array:
    return colorimetry.srgb_curve(light(values)).repeat(3, axis=-1)


def _grey_by_lab(light: Convert, values: Array) -> Array:
    level = 100 * light(values)
    return colorimetry.from_lab(np.concatenate([level, 0 * level, 0 * level], axis=-1))


def rgb_lab(values: Array) -> Array:
    """L*a*b* of a made-up RGB device, within sRGB; linear, so that tables are exact."""
    r, g, b = np.moveaxis(values, -1, 0)
    return np.stack([2 + 96 * (0.25 * r + 0.65 * g + 0.1 * b), 15 * (r - g), 15 * (g - b)], -1)


def grey_lab(values: Array) -> Array:
    """L*a*b* of a made-up grey device, which is a little warm."""
    level = values[..., 0]
    return np.stack([10 + 85 * level, 4 * level, 6 * level], -1)


def cmyk_lab(black: float, values: Array) -> Array:
    """L*a*b* of made-up inks, linear in each; black: L* of full black ink."""
    c, m, y, k = np.moveaxis(values, -1, 0)
    paper = 1 - k
    level = black + (97 - black) * paper * (1 - 0.3 * c - 0.45 * m - 0.1 * y)
    return np.stack([level, 25 * paper * (m - c), 25 * paper * (y - 0.5 * c - 0.5 * m)], -1)


def table_profiles() -> Iterator[Profile]:
    """Tables to L*a*b* of each type, for each intent, class and version."""
    tables = {
        "lut8": icc.lut8,
        "lut16": icc.lut16,
        "lutAToB": icc.lut_a_to_b,
        "lutAToB of 8 bits": partial(icc.lut_a_to_b, deep=False),
    }
    devices: tuple[tuple[str, icc.Lab, icc.Lab], ...] = (
        ("RGB", rgb_lab, lambda v: rgb_lab(v) * 0.8),
        ("GRAY", grey_lab, lambda v: grey_lab(v) * 0.8),
        ("CMYK", partial(cmyk_lab, 0), lambda v: cmyk_lab(0, v) * 0.8),
        ("CMYK with grey black", partial(cmyk_lab, 15), lambda v: cmyk_lab(15, v) * 0.8),
    )
    for (type, make), (device, lab, other), version, kind in product(
        tables.items(), devices, (2, 4), ("scnr", "mntr", "prtr", "spac")
    ):
        if version == 2 and (type.startswith("lutAToB") or kind != "prtr"):
            continue
        if kind != "prtr" and type != "lut16":
            continue
        space = device.split()[0]
        channels = CHANNELS[space]
        perceptual, colorimetric = make(channels, other), make(channels, lab)
        every = {
            "perceptual only": {"A2B0": colorimetric},
            "both intents": {"A2B0": perceptual, "A2B1": colorimetric},
            "all intents": {"A2B0": perceptual, "A2B1": colorimetric, "A2B2": perceptual},
        }
        for intents, tags in every.items():
            if kind != "prtr" and intents != "perceptual only":
                continue
            for intent in range(4) if (intents, type) == ("all intents", "lut16") else (0,):
                yield Profile(
                    f"{device}, {type}, {intents}, header {intent}, {kind}, version {version}",
                    space,
                    icc.profile(space, tags, kind=kind, pcs="Lab ", version=version, intent=intent),
                    partial(_by_lab, lab),
                    TABLE8 if "8" in type else TABLE16,
                )


def _by_lab(lab: icc.Lab, values: Array) -> Array:
    return colorimetry.from_lab(lab(values))


# Containers


def values(space: str, *, alpha: bool = False, block: int = 1) -> Array:
    """(16, 24, C) in [0, 1], the same within each block."""
    channels = CHANNELS[space] + alpha
    found = np.random.default_rng(channels).random((16 // block, 24 // block, channels))
    if alpha:
        found[0, 0, -1], found[-1, -1, -1] = 1, 0.5
    return found.repeat(block, axis=0).repeat(block, axis=1)


def whole(unit: Array, depth: int) -> Array:
    """Integers of 8 or 16 bits."""
    return (unit * (2**depth - 1)).round().astype(np.uint8 if depth == 8 else np.uint16)


def png(pixels: Array, space: str, profile: bytes) -> bytes:
    """PNG; alpha is last."""
    kinds = {1: GREY, 2: GREY_ALPHA, 3: RGB, 4: RGB_ALPHA}
    picture = Pixels(kinds[pixels.shape[2]], 8 * pixels.itemsize, pixels.astype(int))
    return file(picture, before=iccp(profile))


def tiff(pixels: Array, space: str, profile: bytes) -> bytes:
    """TIFF; alpha is last."""
    buffer = io.BytesIO()
    photometric = {"GRAY": "minisblack", "RGB": "rgb", "CMYK": "separated"}[space]
    extra = ["unassalpha"] if pixels.shape[2] > CHANNELS[space] else None
    given = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    tifffile.imwrite(
        buffer,
        given,
        photometric=photometric,
        planarconfig="contig" if given.ndim == 3 else None,
        extrasamples=extra,
        iccprofile=profile,
        metadata=None,
    )
    return buffer.getvalue()


def by_pillow(format: str, pixels: Array, space: str, profile: bytes) -> bytes:
    """JPEG or WebP."""
    modes = {("GRAY", 1): "L", ("RGB", 3): "RGB", ("RGB", 4): "RGBA", ("CMYK", 4): "CMYK"}
    image = Image.new(modes[space, pixels.shape[2]], pixels.shape[1::-1])
    image.frombytes(np.ascontiguousarray(pixels).tobytes())
    buffer = io.BytesIO()
    options = {"lossless": True, "exact": True} if format == "WEBP" else {"quality": 100, "subsampling": 0}  # fmt: skip
    image.save(buffer, format, icc_profile=profile, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Container:
    """A way to store pixels with a profile. depth: 8 or 16 bits, 32 for floating point."""

    name: str
    write: Callable[[Array, str, bytes], bytes]
    spaces: tuple[str, ...]
    depth: int = 8
    alpha: bool = False
    lossy: bool = False


GREY_RGB, EVERY = ("GRAY", "RGB"), ("GRAY", "RGB", "CMYK")
PNG8, TIFF16 = Container("PNG", png, GREY_RGB), Container("TIFF", tiff, EVERY, 16)
CONTAINERS = (
    PNG8,
    Container("PNG", png, GREY_RGB, 16),
    Container("PNG", png, GREY_RGB, 8, alpha=True),
    Container("PNG", png, GREY_RGB, 16, alpha=True),
    Container("TIFF", tiff, EVERY, 8),
    TIFF16,
    Container("TIFF", tiff, GREY_RGB, 8, alpha=True),
    Container("TIFF", tiff, ("RGB",), 16, alpha=True),
    Container("JPEG", partial(by_pillow, "JPEG"), EVERY, lossy=True),
    Container("WebP", partial(by_pillow, "WEBP"), ("RGB",)),
    Container("WebP", partial(by_pillow, "WEBP"), ("RGB",), alpha=True),
)


def stored(
    title: str,
    container: Container,
    space: str,
    profile: bytes,
    convert: Convert | None,
    *,
    tolerance: float = MATRIX,
    note: str = "",
) -> Case:
    """A picture of a space in a container. convert: None if the profile changes nothing."""
    unit = values(space, alpha=container.alpha, block=8 if container.lossy else 1)
    pixels = unit.astype(np.float32) if container.depth == 32 else whole(unit, container.depth)
    exact = pixels.astype(np.float64) / (1 if container.depth == 32 else 2**container.depth - 1)
    colours = exact[..., : CHANNELS[space]]
    alpha = exact[..., -1] if container.alpha else None
    if convert is None:
        expected = _plain(space, colours)
        tolerance = EXACT if container.depth == 8 else DEEP
    else:
        expected = convert(colours)
        if container.depth != 8 and tolerance == MATRIX:
            tolerance = FINE
    bits = {8: "8 bit", 16: "16 bit", 32: "floating point"}[container.depth]
    return Case(
        f"{title}: {container.name}, {space}, {bits}" + ", alpha" * container.alpha,
        partial(container.write, pixels, space, profile),
        expected,
        alpha,
        JPEG if container.lossy else tolerance,
        note,
    )


def _plain(space: str, colours: Array) -> Array:
    if space == "CMYK":
        return (1 - colours[..., :3]) * (1 - colours[..., 3:])
    return colours if space == "RGB" else colours.repeat(3, axis=2)


GAMMA = icc.gamma_curve(2.19921875)


def _from_adobe(values: Array) -> Array:
    return colorimetry.from_light(values**2.19921875, colorimetry.ADOBE)


def _printer(space: str, table: bytes, tag: str = "A2B0") -> bytes:
    return icc.profile(space, {tag: table}, kind="prtr", pcs="Lab ")


def _kinds() -> Iterator[Case]:
    """Every profile, in 8 bits, in 16, and in floating point."""
    for profile in (*matrix_profiles(), *grey_profiles(), *table_profiles()):
        for depth in (8, 16):
            container = Container("TIFF", tiff, EVERY, depth)
            yield _converted(profile, container)


def _converted(profile: Profile, container: Container) -> Case:
    note = "colours were converted to sRGB from handmade" if profile.convert else ""
    return stored(
        profile.name,
        container,
        profile.space,
        profile.data,
        profile.convert,
        tolerance=profile.tolerance,
        note=note,
    )


def _containers() -> Iterator[Case]:
    """A profile of each kind in every container."""
    adobe = icc.matrix_profile(colorimetry.ADOBE, GAMMA)
    srgb = icc.matrix_profile(colorimetry.BT709, icc.parametric_curve(3, *SRGB_CURVE))
    rgb, inks = icc.lut16(3, rgb_lab), partial(cmyk_lab, 15)
    kinds = [
        Profile("Adobe RGB", "RGB", adobe, _from_adobe),
        Profile("sRGB", "RGB", srgb, None),
        Profile("RGB table", "RGB", _printer("RGB", rgb), partial(_by_lab, rgb_lab), TABLE16),
        Profile(
            "dot gain",
            "GRAY",
            icc.grey_profile(icc.table_curve(dot_gain)),
            partial(_grey_by_light, dot_gain),
        ),
        Profile(
            "CMYK table",
            "CMYK",
            _printer("CMYK", icc.lut16(4, inks)),
            partial(_by_lab, inks),
            TABLE16,
        ),
    ]
    for profile, container in product(kinds, CONTAINERS):
        if profile.space in container.spaces and (profile.convert or not container.lossy):
            yield _converted(profile, container)
    linear = icc.matrix_profile(colorimetry.ADOBE, icc.gamma_curve(1.80078125))
    for container in CONTAINERS:
        if "GRAY" in container.spaces and not container.lossy:
            convert = partial(_grey_by_light, lambda v: v**1.80078125)
            note = "converted to sRGB from handmade"
            yield stored("RGB profile of grey", container, "GRAY", linear, convert, note=note)


def _sizes() -> Iterator[Case]:
    """Large profiles; those of JPEG are in many segments."""
    for (name, extra), container in product(
        {"70 KB": 70_000, "1.3 MB": 1_300_000, "4 MB": 4_000_000}.items(), CONTAINERS
    ):
        if container.alpha or "RGB" not in container.spaces:
            continue
        columns = zip("rgb", colorimetry.to_xyz(colorimetry.ADOBE).T, strict=True)
        tags = {f"{c}XYZ": icc.xyz(column) for c, column in columns}
        tags |= {"zzzz": b"data" + bytes(extra)} | {f"{c}TRC": GAMMA for c in "rgb"}
        profile = Profile(f"profile of {name}", "RGB", icc.profile("RGB", tags), _from_adobe)
        yield _converted(profile, container)


def _useless() -> Iterator[Case]:
    """Profiles for other spaces, and classes that describe no picture."""
    rgb = icc.lut16(3, rgb_lab)
    others = {
        "GRAY": icc.grey_profile(GAMMA),
        "RGB": icc.matrix_profile(colorimetry.ADOBE, icc.gamma_curve(1)),
        "CMYK": _printer("CMYK", icc.lut16(4, partial(cmyk_lab, 0))),
        "LAB": icc.profile("Lab ", {"A2B0": rgb}, kind="abst", pcs="Lab "),
        "HSV": icc.profile("HSV ", {"A2B0": rgb}, kind="spac", pcs="Lab "),
    }
    for (meant, data), container in product(others.items(), CONTAINERS):
        for space in container.spaces:
            if meant == space or (space, meant) == ("GRAY", "RGB") or container.lossy:
                continue
            note = f"is for {meant} and was not used"
            yield stored(f"profile for {meant}", container, space, data, None, note=note)
    names = b"ncl2" + bytes(8) + struct.pack(">II", 0, 3) + bytes(64)
    useless = {
        "device link": icc.profile("RGB", {"A2B0": rgb}, kind="link", pcs="RGB "),
        "named colours": icc.profile("RGB", {"ncl2": names}, kind="nmcl", pcs="Lab "),
        "output only": _printer("RGB", rgb, "B2A0"),
        "no tags": icc.profile("RGB", {}),
    }
    for (name, data), container in product(useless.items(), CONTAINERS):
        if "RGB" in container.spaces and not container.lossy:
            yield stored(name, container, "RGB", data, None, note=UNREADABLE)


def _broken() -> Iterator[Case]:
    """Profiles that are cut or damaged."""
    cmyk = {"A2B0": icc.lut16(4, partial(cmyk_lab, 0), 5)}
    every = {
        "RGB": icc.matrix_profile(colorimetry.ADOBE, icc.gamma_curve(2.19921875)),
        "CMYK": icc.profile("CMYK", cmyk, kind="prtr", pcs="Lab "),
    }
    noise = np.random.default_rng(1).bytes(3000)
    for space, good in every.items():
        lengths = (1, 20, 127, 128, 131, 200, 250, len(good) - 20)
        broken = {f"cut to {length} bytes": good[:length] for length in lengths} | {
            "noise": noise,
            "zeros": bytes(500),
            "text": b"not a profile" * 20,
            "noise behind the header": good[:128] + noise,
            "no signature": good[:36] + b"xxxx" + good[40:],
            "version 9": good[:8] + b"\x09" + good[9:],
            "tags of an unknown type": good.replace(b"curv", b"abcd").replace(b"mft2", b"abcd"),
        }
        if space == "RGB":
            broken["columns of an unknown type"] = good.replace(b"XYZ \0\0\0\0", b"abcd\0\0\0\0")
        guessed = "; CMYK was converted to sRGB without a profile" if space == "CMYK" else ""
        for (name, data), container in product(broken.items(), CONTAINERS):
            if space in container.spaces and not container.lossy:
                yield stored(name, container, space, data, None, note=UNREADABLE + guessed)
