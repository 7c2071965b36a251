"""Names of files: harmless, printable, numbered, compared and sorted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import PurePath

#: Maximum length of a name in bytes of UTF-8, so that "-2", ".progress.webp" and ".part" fit into 255.
NAME_BYTES = 200
#: The same for file systems that hold fewer: eCryptfs takes 143 bytes, and ".NAME-2.progress.webp.part" must fit.
PORTABLE_BYTES = 100

#: What FAT, NTFS and SMB refuse in a name.
_RESERVED = re.compile(r'[\\:*?"<>|]|[. ]+$')
#: Parts of letters and emoji: invisible themselves, and harmless between other characters.
_JOINERS = "\u200c\u200d"
_EDGES = re.compile(rf"^[\s{_JOINERS}]+|[\s{_JOINERS}]+$")
_DIGITS = re.compile(r"(\d{1,4000})")


def printable(name: str) -> str:
    """`name` for logs and messages: control characters, bidirectional overrides and undecodable bytes escaped."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() or c in _JOINERS else _escape(c) for c in name)


def shortened(text: str, most: int = 100) -> str:
    """`text` for a message of one line: at most `most` characters, with "…" at the end if some are left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def clean_name(name: str) -> str:
    """`name` as a safe file name: valid UTF-8 (NFC), printable, at most NAME_BYTES long, never hidden.

    Unprintable characters and path separators become "_". A suffix survives shortening.
    """
    name = unicodedata.normalize("NFC", name)
    if not name.isprintable() or "/" in name or "\\" in name:
        allowed = ((c.isprintable() and c not in "/\\") or c in _JOINERS for c in name)
        name = "".join(c if good else "_" for c, good in zip(name, allowed, strict=True))
    name = _EDGES.sub("", _within(_EDGES.sub("", name), NAME_BYTES))
    if name.startswith(".") or not name:
        name = "_" + name.lstrip(".")
    return name


def _within(name: str, limit: int) -> str:
    """`name` with at most `limit` bytes of UTF-8; a short suffix survives."""
    if len(name.encode()) <= limit:
        return name
    suffix = PurePath(name).suffix
    if len(suffix.encode()) > 20:
        suffix = ""
    room = limit - len(suffix.encode())
    return name.removesuffix(suffix).encode()[:room].decode(errors="ignore") + suffix


def portable(name: str) -> str:
    """A clean name in a form that every common file system takes (FAT, NTFS, SMB, eCryptfs), if it refuses the name.

    Reserved characters and a dot or space at the end become "_". "/" stays. Each part has at most PORTABLE_BYTES.
    """
    parts = (_RESERVED.sub("_", part) for part in name.split("/"))
    return "/".join(_within(part, PORTABLE_BYTES) for part in parts)


def spellings(name: str) -> list[str]:
    """A clean name, then the names to try where a file system refuses it or a folder of it cannot be used."""
    flat = portable(name.replace("/", "_"))
    return list(dict.fromkeys((name, portable(name), flat, _ascii(flat))))


def _ascii(name: str) -> str:
    """Letters without their accents, and "_" for all that ASCII does not have."""
    letters = (c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "_" for c in letters)


def numbered(name: str) -> Iterator[str]:
    """name, name-2, name-3, …"""
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def composed(name: str) -> str:
    """`name` in Unicode's composed form (NFC). Names are compared in it: macOS writes é as two characters."""
    return unicodedata.normalize("NFC", name)


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Sort key under which IMG_2 comes before IMG_10, and upper and lower case do not matter."""
    return [
        (False, int(part), part) if part.isdecimal() else (True, 0, part.casefold())
        for part in _DIGITS.split(name)
        if part
    ]
