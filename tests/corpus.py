"""Everything bad that people and attackers drop, made by code, each with what it must be told.

`build` writes all of it into an inbox; the keys are the names below failed/, the values patterns for the first line of
error.txt. Whoever runs it sets LIMITS, and a library with the style "starry".
"""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

#: Settings of the daemon that the corpus counts on.
LIMITS = {
    "NST_LIMITS__MAX_BYTES": "4000000",
    "NST_LIMITS__MAX_PIXELS": "1000000",
    "NST_LIMITS__MAX_SIDE": "5000",
    "NST_SERVICE__PAIR_TIMEOUT": "1",
}

Bad = dict[str, tuple[bytes, str]]


def picture(
    kind: str = "PNG", size: tuple[int, int] = (64, 48), seed: int = 0, **options: object
) -> bytes:
    """A picture with something in it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    """A PNG of any size that it says it has."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + chunk(b"IEND", b"")


def tiff(entries: dict[int, tuple[int, int, int]], following: int = 0) -> bytes:
    """A little-endian TIFF with one directory. entries: tag -> (type, count, value)."""
    directory = struct.pack("<H", len(entries))
    for tag, (kind, count, value) in sorted(entries.items()):
        directory += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", following) + bytes(200)


#: What a TIFF needs besides its width (256) and height (257): 8-bit grey in one strip.
STRIP = {
    258: (3, 1, 8),
    259: (3, 1, 1),
    262: (3, 1, 1),
    273: (4, 1, 8),
    278: (4, 1, 90_000),
    279: (4, 1, 8),
}


def bmp(width: int, height: int) -> bytes:
    """A BMP of any size that it says it has."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + header + bytes(100)


def not_a_number() -> bytes:
    """A floating-point TIFF without a number in it."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def flipped(data: bytes, position: int) -> bytes:
    """Some bytes with 40 of them inverted."""
    middle = bytes(byte ^ 0xFF for byte in data[position : position + 40])
    return data[:position] + middle + data[position + 40 :]


UNKNOWN = "is not an image file of a known format; known formats are "
DAMAGED = "is damaged or truncated: "
PIXELS = "has too many pixels|pixels; the limits are"

#: Contents of a pair whose style is good: name -> (suffix, bytes, what is said).
CONTENTS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("png", b"", "is empty; copy the file again"),
    "zeros": ("png", bytes(2000), UNKNOWN),
    "one-byte": ("jpg", b"\xff", UNKNOWN),
    "random": ("jpg", np.random.default_rng(1).bytes(5000), UNKNOWN),
    "text": ("png", b"this is not a picture\n", UNKNOWN),
    "html": ("jpg", b"<!doctype html><title>404 Not Found</title>", UNKNOWN),
    "svg-bytes": ("png", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", UNKNOWN),
    "eps-bytes": ("png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", UNKNOWN),
    "pdf-bytes": ("jpg", b"%PDF-1.4\n1 0 obj<<>>endobj\n", UNKNOWN),
    "ppm-bytes": ("png", picture("PPM"), UNKNOWN),
    "pcx-bytes": ("png", picture("PCX"), UNKNOWN),
    "tga-bytes": ("jpg", picture("TGA"), UNKNOWN),
    "ico-bytes": ("png", picture("ICO"), UNKNOWN),
    "jp2-cut": ("jp2", picture("JPEG2000", (640, 480))[:4000], DAMAGED),
    "icns-bytes": ("png", picture("ICNS"), UNKNOWN),
    "zip-bytes": ("jpg", b"PK\x03\x04" + bytes(500), UNKNOWN),
    "gzip-bytes": ("png", b"\x1f\x8b\x08" + bytes(500), UNKNOWN),
    "psd-bytes": ("png", b"8BPS\0\x01" + bytes(500), DAMAGED),
    "fli-bytes": ("gif", bytes(4) + b"\x11\xaf" + bytes(500), UNKNOWN),
    "jpeg-cut": ("jpg", picture("JPEG", (640, 480), quality=95)[:4000], DAMAGED),
    "jpeg-head": ("jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xd9", UNKNOWN + "|" + DAMAGED),
    "png-cut": ("png", picture(size=(640, 480))[:3000], DAMAGED),
    "png-head": ("png", b"\x89PNG\r\n\x1a\n", UNKNOWN + "|" + DAMAGED),
    "png-flipped": ("png", flipped(picture(size=(640, 480)), 2000), DAMAGED),
    "png-crc": ("png", picture()[:20] + b"\x01" + picture()[21:], UNKNOWN + "|" + DAMAGED),
    "png-no-width": ("png", png(0, 10), UNKNOWN + "|" + DAMAGED + "|pixels"),
    "png-no-pixels": ("png", png(64, 64), DAMAGED),
    "webp-cut": ("webp", picture("WEBP", (640, 480))[:1000], UNKNOWN + "|" + DAMAGED),
    "gif-cut": ("gif", picture("GIF", (640, 480))[:3000], DAMAGED),
    "bmp-cut": ("bmp", picture("BMP", (640, 480))[:3000], DAMAGED),
    "tiff-cut": ("tiff", picture("TIFF", (640, 480))[:3000], UNKNOWN + "|" + DAMAGED),
    "tiff-loop": ("tif", tiff({256: (3, 1, 8), 257: (3, 1, 8)}, following=8), UNKNOWN + "|" + DAMAGED),
    "tiff-no-tags": ("tif", tiff({}), UNKNOWN + "|" + DAMAGED),
    "tiff-nan": ("tif", not_a_number(), "has non-finite pixels; save it with 8 or 16 bits per channel"),
    "png-bomb": ("png", png(50_000, 50_000, pixels=bytes(10_000)), PIXELS),
    "png-thin": ("png", png(1, 20_000, pixels=bytes(80_000)), PIXELS),
    "gif-bomb": ("gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;", PIXELS),
    "bmp-bomb": ("bmp", bmp(60_000, 60_000), PIXELS),
    "tiff-bomb": ("tif", tiff(STRIP | {256: (4, 1, 90_000), 257: (4, 1, 90_000)}), PIXELS),
}  # fmt: skip

#: Settings files of a pair whose pictures are good: name -> (text, what is said).
SIDECARS: dict[str, tuple[bytes, str]] = {
    "yaml-laughs": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "yaml-laughs.yaml .* line 1: anchors and aliases"),
    "yaml-python": (b"a: !!python/object/apply:os.system ['touch /tmp/owned']\n", "line 1: tags are not supported"),
    "yaml-deep": (b"a: " + b"[" * 100_000, "yaml-deep.yaml has more than 64 KiB"),
    "yaml-nested": (b"a: " + b"{a: " * 20 + b"1" + b"}" * 20, "nested deeper than 6"),
    "yaml-huge": (b"size: 64\n#" + b"x" * 200_000, "has more than 64 KiB; write only the settings"),
    "yaml-list": (b"- size\n- 64\n", "is not a mapping of settings; write plain `key: value` lines"),
    "yaml-twice": (b"size: 64\nsize: 65\n", "line 2: duplicate key 'size'"),
    "yaml-integer": (b"seed: " + b"9" * 5000 + b"\n", "line 1: the integer is too large"),
    "yaml-hex": (b"seed: 0x" + b"f" * 5000 + b"\n", "line 1: the integer is too large"),
    "yaml-latin": ("größe: 64\n".encode("latin-1"), "is not UTF-8 text; save it as UTF-8"),
    "yaml-syntax": (b"size: [64\n", "cannot be read: line "),
    "yaml-binary": (bytes(range(256)), "is not UTF-8 text|cannot be read"),
    "yaml-documents": (b"size: 64\n---\nsize: 65\n", "more than one document"),
    "key-unknown": (b"sise: 64\n", "sise"),
    "size-text": (b"size: enormous\n", "size"),
    "size-negative": (b"size: -5\n", "size"),
    "step-nan": (b"step: .nan\n", "step"),
    "preset-unknown": (b"preset: picasso\n", "preset"),
    "layer-unknown": (b"style_layers: {relu9_9: 1.0}\n", "relu9_9"),
    "weight-negative": (b"style_weight: -1\n", "style_weight"),
    "weights-too-many": (b"style_weights: [1, 2, 3]\n", "style_weights"),
    "style-path": (b"style: ../../../etc/passwd\n", "no style '../../../etc/passwd' in the library; the styles are: "),
    "style-unknown": (b"style: nosuch\n", "there is no style 'nosuch' in the library"),
    "style-number": (b"style: 5\n", "style must be the name of a style in the library"),
    "priority-word": (b"priority: high\n", "priority must be a whole number"),
}  # fmt: skip


def build(inbox: Path, outside: Path) -> dict[str, str]:
    """Write the corpus; what each must be told, by its name below failed/. outside: an empty folder."""
    expected: dict[str, str] = {}

    def put(path: str, data: bytes = b"") -> Path:
        target = inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target

    for name, (suffix, data, said) in CONTENTS.items():
        put(f"{name}.content.{suffix}", data)
        put(f"{name}.style.png", picture(seed=5))
        expected[name] = rf"{name}\.content\.{suffix} .*({said})"
    for name in ("empty", "text", "jpeg-cut"):  # the style's turn
        suffix, data, said = CONTENTS[name]
        put(f"style-{name}-x.content.png", picture())
        put(f"style-{name}-x.style.{suffix}", data)
        expected[f"style-{name}-x"] = rf"style-{name}-x\.style\.{suffix} .*({said})"
    for name, (text, said) in SIDECARS.items():
        put(f"{name}.content.png", picture())
        put(f"{name}.style.png", picture(seed=5))
        put(f"{name}.yaml", text)
        expected[name] = said
    put("starry/bad.jpg", b"a bad one in a hot folder")
    expected["starry/bad"] = UNKNOWN
    for name, said in {
        "drawing.svg": "is a vector drawing; export it as PNG",
        "figure.eps": "is a vector drawing; export it as PNG",
        "paper.pdf": "is a document; save the page as a picture",
        "notes.txt": "is not an image file; known formats are JPEG, PNG",
        "photo.cdr": "is a vector drawing; export it as PNG",
        "setup.exe": "is not an image file; known formats are JPEG, PNG",
        "movie.mp4": "is a video; save one of its frames as a picture",
    }.items():
        path = name.replace(".", ".content.")
        put(path, b"anything")
        expected[name.partition(".")[0]] = f"{path} {said}"
    _special_files(inbox, outside, expected)
    _folders(put, expected)
    put("half.content.png", picture())
    expected["half"] = r"half\.content\.png has no style: .* \(waited for"
    put("other-half.style.png", picture())
    expected["other-half"] = (
        r"other-half\.style\.png has no content: add other-half\.content\.jpg \(waited for"
    )
    put("alone.png", picture())
    expected["alone"] = "alone.png has no style: "
    put("settings-alone.yaml", b"size: 64\n")
    expected["settings-alone"] = r"settings-alone\.yaml has no picture: add .* \(waited for"
    for role in ("content.png", "content.jpg", "style.png"):
        put(f"twice.{role}", picture())
    expected["twice"] = (
        "twice.content.* and twice.content.* are both the content of twice; drop only one"
    )
    for role in ("content", "style", "content-mask"):
        put(f"masked.{role}.png", picture())
    expected["masked"] = (
        r"masked\.content(-mask)?\.png has no style mask: add .*, or remove the masks"
    )
    for role, size in (("content", 64), ("style", 64), ("content.mask", 48), ("style.mask", 64)):
        put(f"misfit.{role}.png", picture(size=(size, 48)))
    expected["misfit"] = (
        r"the mask of the content is 48 × 48 pixels, but its picture is 64 × 48; give the mask"
    )
    os.truncate(put("heavy.content.png"), 2**40)
    put("heavy.style.png", picture())
    expected["heavy"] = (
        r"heavy.content.png has 1 TiB, more than limits\.max_bytes \(3\.8 MiB\); drop a smaller file"
    )
    return expected


def _special_files(inbox: Path, outside: Path, expected: dict[str, str]) -> None:
    """What is no plain file."""
    secret = outside / "secret.png"
    secret.write_bytes(picture())
    makers: dict[str, tuple[Callable[[Path], object], str]] = {
        "link": (lambda path: path.symlink_to(secret), "is a symbolic link"),
        "dangling": (lambda path: path.symlink_to("/nowhere"), "is a symbolic link"),
        "hard": (lambda path: os.link(secret, path), "has 2 hard links"),
        "pipe": (os.mkfifo, "is a named pipe"),
        "socket": (_socket, "is a socket"),
    }
    if os.geteuid() == 0:
        makers["device"] = (
            lambda path: os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5)),
            "is a character device",
        )
    for name, (make, said) in makers.items():
        make(inbox / f"{name}.content.png")
        (inbox / f"{name}.style.png").write_bytes(picture())
        expected[name] = rf"{name}\.content\.png {said}"


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # paths of sockets are short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _folders(put: Callable[[str, bytes], Path], expected: dict[str, str]) -> None:
    """Folders that are no job."""
    for name in ("content.png", "style.png", "more.png"):
        put(f"untidy/{name}", picture())
    expected["untidy"] = "more.png has no meaning in a job folder"
    put("styleless/content.png", picture())
    expected["styleless"] = "content.png has no style: "
    put("contentless/style.png", picture())
    expected["contentless"] = (
        r"style\.png has no content: add contentless/content\.jpg \(waited for"
    )
    put("bad-settings/content.png", picture())
    put("bad-settings/style.png", picture())
    put("bad-settings/job.yaml", b"sise: 3\n")
    expected["bad-settings"] = "sise"
    put("/".join("abcdefghijk") + "/deep.content.png", picture())
    expected["a/b/c/d/e/f/g/h/i"] = "is more than 8 folders deep; drop it further up"
