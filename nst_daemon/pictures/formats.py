"""The formats of image files that are read: their names, suffixes and first bytes.

Loads no library: the scan of the inbox and the configuration use it too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, get_args

from nst_daemon.suggestions import similar

#: So many bytes at the beginning of a file tell its format.
HEAD_BYTES = 64

#: Names of formats in `limits.formats`.
Name = Literal[
    "jpeg", "png", "webp", "tiff", "avif", "heif", "jxl", "jpeg2000", "bmp", "gif", "raw", "psd"
]
NAMES: tuple[Name, ...] = get_args(Name)

#: Sizes of the headers of BMP files.
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}


@dataclass(frozen=True, slots=True)
class Format:
    """A format of image files.

    Attributes:
        name: In `limits.formats`.
        title: In messages.
        suffixes: Of such files, in lower case, with the dot. A file's contents decide, not its suffix.
        begins: Whether a file with these first bytes is of this format.
        reader: The module of `pictures.readers` that reads it.
    """

    name: Name
    title: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    reader: str


def _is_bmp(head: bytes) -> bool:
    reserved, header = any(head[6:10]), int.from_bytes(head[14:18], "little")
    return head[:2] == b"BM" and (not reserved or header in BMP_HEADERS)


#: ISO 23008-12, annexes B to F; the last of each three are sequences.
_HEIF_BRANDS = (
    *(b"mif1", b"mif2", b"msf1"),
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"avci", b"avcs", b"vvic", b"vvis", b"jpeg", b"jpgs", b"j2ki", b"j2is"),
)


def _is_box_file(head: bytes, *brands: bytes) -> bool:
    """Whether `ftyp`, the first box, names one of these brands as the major one or as compatible (ISO 14496-12)."""
    if head[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(head[:4], "big"), len(head))
    named = (head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4)))
    return any(brand in named for brand in brands)


#: What camera raw files begin with that do not begin like a TIFF: RW2 and RWL of Panasonic and Leica, ORF of Olympus,
#: RAF of Fujifilm, X3F of Sigma, MRW of Minolta.
_RAW_MAGICS = (b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILM", b"FOVb", b"\0MRM")


def _is_raw(head: bytes) -> bool:
    """Whether it is a camera raw file by its first bytes. `camera_raw.recognise` tells those that begin like a TIFF."""
    return (
        head.startswith(_RAW_MAGICS)
        or head[6:14] == b"HEAPCCDR"  # CRW
        or (head[:4] in {b"II*\0", b"MM\0*"} and head[8:10] == b"CR")  # CR2
        or head[4:12] == b"ftypcrx "  # CR3
    )


#: Of camera raw files that LibRaw reads: Canon, Nikon, Sony, Fujifilm, Olympus, Panasonic and Leica, Pentax, Samsung,
#: Hasselblad, Phase One and Leaf, Sigma, Minolta, Epson, Kodak, GoPro; DNG is Adobe's and that of phones.
RAW_SUFFIXES = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf"),
    *(".rw2", ".rwl", ".pef", ".srw", ".3fr", ".fff", ".iiq", ".mos", ".mef", ".x3f", ".mrw"),
    *(".erf", ".kdc", ".dcr", ".gpr"),
)

#: In the order in which they are tried.
FORMATS: tuple[Format, ...] = (
    Format(
        "jpeg",
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        lambda head: head.startswith(b"\xff\xd8\xff"),
        "jpeg",
    ),
    Format(
        "png", "PNG", (".png", ".apng"), lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), "png"
    ),
    Format("raw", "camera raw", RAW_SUFFIXES, _is_raw, "raw"),
    Format("psd", "PSD", (".psd", ".psb"), lambda head: head.startswith(b"8BPS"), "psd"),
    Format(
        "webp",
        "WebP",
        (".webp",),
        lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
        "webp",
    ),
    Format(
        "tiff",
        "TIFF",
        (".tif", ".tiff"),
        lambda head: head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"},
        "tiff",
    ),
    Format("avif", "AVIF", (".avif",), lambda head: _is_box_file(head, b"avif", b"avis"), "avif"),
    Format(
        "heif",
        "HEIC",
        (".heic", ".heif", ".hif"),
        lambda head: _is_box_file(head, *_HEIF_BRANDS),
        "heif",
    ),
    Format(
        "jxl",
        "JPEG XL",
        (".jxl",),
        lambda head: head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
        "jxl",
    ),
    Format(
        "jpeg2000",
        "JPEG 2000",
        (".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".jpc"),
        lambda head: head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
        "jpeg2000",
    ),
    Format("bmp", "BMP", (".bmp", ".dib"), _is_bmp, "bmp"),
    Format("gif", "GIF", (".gif",), lambda head: head[:6] in {b"GIF87a", b"GIF89a"}, "gif"),
)


def suffixes(names: Collection[str]) -> frozenset[str]:
    """The suffixes of the formats with these names, with the dot."""
    return frozenset(s for known in FORMATS if known.name in names for s in known.suffixes)


def titles(names: Collection[str] = NAMES) -> str:
    """The formats with these names, for messages: "JPEG, PNG and TIFF"."""
    *first, last = [known.title for known in FORMATS if known.name in names]
    return f"{', '.join(first)} and {last}" if first else last


IMAGE_SUFFIXES = suffixes(NAMES)

#: The remedy for a file of a format that `limits.formats` does not list.
LIST_IT = "save it in another format, or add the format to limits.formats"


def not_listed(known: Format) -> str:
    """The message for such a file, after its name."""
    article = "an" if known.title[0] in "AEIO" else "a"
    return f"is {article} {known.title} file, and limits.formats does not list {known.name}"


def checked_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The value of `limits.formats`. Raises ValueError that says which name was meant."""
    if not names:
        raise ValueError("the list is empty, so no file could be read")
    for name in names:
        if name not in NAMES:
            meant = _meant(name.lower())
            hint = f" (did you mean {meant}?)" if meant else ""
            raise ValueError(f"{name!r} is not a format{hint}; the formats are {', '.join(NAMES)}")
    return names


def _meant(word: str) -> str:
    """The name of a format that is written like this, or has this suffix."""
    for known in FORMATS:
        if word == known.title.lower() or "." + word.removeprefix(".") in known.suffixes:
            return known.name
    return next(iter(similar(word, NAMES, cutoff=0.6)), "")


def detect(head: bytes) -> Format | None:
    """The format of a file with these first bytes; None if it is unknown."""
    return next((known for known in FORMATS if known.begins(head)), None)


#: With these bytes, or the first of them, begin the files of all formats.
_MAGICS = (
    *(
        b"\xff\xd8\xff",
        b"\xff\x0a",
        b"\xff\x4f",
        b"\x89PNG",
        b"GIF8",
        b"RIFF",
        b"BM",
        b"II",
        b"MM",
        b"\0",
    ),
    *(b"FUJIFILM", b"FOVb", b"8BPS"),
)


def may_begin_an_image(head: bytes) -> bool:
    """Whether a file that is shorter than any image may be the beginning of one."""
    return any(magic.startswith(head) or head.startswith(magic) for magic in _MAGICS)
