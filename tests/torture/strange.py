"""Strange drops: names, kinds of files, settings, batches and folders that people and programs leave in an inbox.

`drop` does one of them. Each depends only on the `Random` that it is given, so an episode is repeated by its seeds.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import stat
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from random import Random

import numpy as np
import pillow_heif
from PIL import Image

from nst_daemon.engine.settings import RenderSettings
from nst_daemon.intake.batch import KEYS
from nst_daemon.intake.ignore import is_litter

pillow_heif.register_heif_opener()

#: Suffix → the name of the format for Pillow.
FORMATS = {
    "png": "PNG", "jpg": "JPEG", "JPEG": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF",
    "heic": "HEIF",
}  # fmt: skip
#: The files that are larger are known by their inode and not by a digest.
DIGEST_BYTES = 1 << 22

WORDS = [
    b"dog", b"cat", b"M\xfcnchen", b"caf\xe9", "é".encode(), unicodedata.normalize("NFD", "é").encode(), "犬".encode(),
    "🐕‍🦺".encode(), b"a b", b" lead", b"trail ", b"dot.", b"dots...", b"-", b"--help", b"-rf", b"~", b"~x", b"*",
    b"?",
    b"**", b"[a", b"'", b'"', b"a'b\"c", b"$(x)", b"`x`", b";", b"|", b"\\", b"a\\b", b"%s%n", b"{}", b"#1", b"\x01",
    b"\x1b[31m", b"new\nline", b"\n", b"\r", b"\t", b"\x7f", b"\xff\xfe", b"\xed\xa0\x80", "\u202egnp".encode(),
    "\u200b".encode(), "\u2028".encode(), b"...", b".. ", b"..x", b"x..", b"CON", b"nul", b"aux.txt", b"error.txt",
    b".job.json", b"error", b"job", b"picture", b"ledger.sqlite", b"lock", b"spool", b"results", b"inbox", b"content",
    b"style", b"race-start", b"free_style", b"content.style", b"style-999", b"style-1", b"start", b"content.mask",
    b"dog-2", b"dog-2-2", b"1" * 60, b"9" * 240, b"x" * 240, b"x" * 250, "é".encode() * 120, b"\xe9" * 240, b":",
    b"a:b",
    b"<>", b"name.preview", b"a.batch", b"batch", b".hidden", b"Thumbs.db", b"night.progress", b"0", b"-0", b"1e5",
    b"null",
]  # fmt: skip
ROLES = [b".content", b".style", b"_content", b"-style", b".style-1", b".style-2", b".content.mask", b".style.mask",
         b".start", b"", b"", b""]  # fmt: skip

SCALARS = [
    "1" * 20, "1" * 81, "9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 9000, "0o7", "0" + "7" * 5000,
    "1_000", "_1", "1:30", "190:20:30", ":".join(["59"] * 70), ":".join(["59"] * 3000), "1:30.5", "1" * 400 + ":59.0",
    "1e400", "-1e400", "1" * 400 + ".0", ".nan", ".inf", "-.inf", "2001-12-14", "2001-12-14t21:59:43.10-05:00",
    "9999-99-99", "0000-00-00", "!!binary aGVsbG8=", "!!binary '***'", "!!set {a, b}", "!!omap [a: b]", "!!int abc",
    "!!float x", "!!timestamp x", "!!null x", "!!bool x", "!!python/object/apply:os.system [x]", "!x y", "&a [*a]",
    "*unknown",
    "{<<: {a: b}}", "{}", "[]", "[[]]", "{a: {b: {c: {d: {e: {f: {g: h}}}}}}}", "[" * 500, "{a: " * 2000, "[" * 60000,
    "null", "~", "true", "yes", "off", "on", "''", '"\\0"', '"\\ud800"', '"\\udc80"', '"\\x00"', '"\\U0010ffff"',
    "'a\nb'",
    "{[a]: b}", "{{a: b}: c}", "{1: 2}", "{null: 1}", "{true: 1}", "{.nan: 1}", "? [a]\n: b", "@", "`", "%", "\t",
    "|\n  text",
    ">-\n  text", "64", "32", "-1", "0", "1.5", "[1]", "[1, 2, 3]", "[1.5]", "[true]", "[[1]]", "[null]",
    "x" * 60000, "painting",
    "starry", "[starry]", "[starry, starry]", "[starry, none]", "{starry: 1}", "../../etc/passwd", "/etc/passwd",
    "é", "e\u0301",
    "=", "1e5", "1.e+5", "[.nan]", "{relu1_1: .nan}", "{relu1_1: 1}", "{relu9_9: 1}", "{'': 1}", "auto", "original",
    "1E400",
]  # fmt: skip
DOCUMENTS = [
    b"", b"\x00", b"\xef\xbb\xbf", b"\xff\xfes\x00i\x00", b"\xff" * 50, b"---\n---\n", b"%YAML 9.9\n---\n",
    b"%TAG ! x\n", b"a: b: c",
    b"- a\n- b", b"word", b"size: 64\nsize: 32", b"\tsize: 64", b"a: &x b\nc: *x", b"size 64", b"{", b"[", b"}",
    b"'", b'"',
    b"x: " + b"y" * 70_000, b"\n" * 70_000, b"- " * 30_000, b"? " * 3000, b"a:\n " * 3000, b"\xc2\x85",
    "\u2028: 1".encode(),
    b"9" * 5000 + b": 1", b"59:" * 3000 + b"59: 1", b".nan: 1", b"null: 1", b"<<: {a: b}", b"=: 1", b"!!int 'x': 1",
    b"... ...",
]  # fmt: skip
GLOBS = [
    "*.png", "*.PNG", "**.png", "**", "**/*.png", "**/**/*.png", "*" * 300, "*/" * 300, "x" * 300, "x" * 5000, "[",
    "[!", "[]", "[a-", "",
    ".", "..", "../*", "/", "/etc/*", "~/*", "~", "//", "\\*", "{a,b}", "?", "é.png", "e\u0301.png", "a\nb",
    "a.png", "a.png/*",
    "album/*", "%s", "$HOME/*", "*.p[n]g", "*.*", "-", "***", "****/*", "a**b", "**a/*.png", "\u202e", "starry",
    "none", "\x7f",
]  # fmt: skip
SETTINGS = [f.name for f in fields(RenderSettings)] + ["style", "priority", "unknown", "1", "é"]


@dataclass
class Dropped:
    """What came from the drops: what must be somewhere exactly once, and what may be gone."""

    inbox: Path
    library: Path
    #: Digest of a small file's contents, or its inode → how many names it has.
    names: dict[str | int, int] = field(default_factory=dict)
    withdrawn: set[str | int] = field(default_factory=set)
    tried: int = 0

    @property
    def inbox_bytes(self) -> bytes:
        """The inbox's path, with the slash behind it."""
        return os.fsencode(self.inbox) + b"/"

    def note(self, path: bytes) -> None:
        """There is a file now. What file managers leave in a folder is removed with the folder."""
        key = key_of(path)
        if key is not None and not is_litter(os.fsdecode(os.path.basename(path))):
            self.names[key] = self.names.get(key, 0) + 1

    def rename(self, path: bytes, target: bytes) -> None:
        """Give a file another name. A file manager's file counts as a drop from then on."""
        os.rename(path, target)
        if is_litter(os.fsdecode(os.path.basename(path))):
            self.note(target)

    def withdraw_with_others(self, path: bytes) -> None:
        """A file is going to be changed: where it cannot be removed, it is painted again, with what belongs to it."""
        top = os.path.dirname(path)
        self.withdraw(path)
        if not os.access(top, os.W_OK):
            for last in os.listdir(top):
                self.withdraw(os.path.join(top, last))

    def withdraw(self, path: bytes) -> None:
        """A file is going to be changed or removed by others than the daemon."""
        with suppress(OSError):
            key = key_of(path)
            if key is not None:
                self.withdrawn.add(key)


def key_of(path: bytes) -> str | int | None:
    """What a file is known by wherever it goes: its contents where they are small, or its inode.

    None for folders and empty files.
    """
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return None
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size > DIGEST_BYTES:
        return status.st_ino
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o400 == 0:
        os.chmod(path, mode | 0o400)
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    finally:
        if mode & 0o400 == 0:
            os.chmod(path, mode)


# Names


def name(chance: Random) -> bytes:
    """A part of a path that the system accepts."""
    kind = chance.random()
    if kind < 0.6:
        made = chance.choice(WORDS)
    elif kind < 0.8:
        made = chance.choice(WORDS) + chance.choice(WORDS)
    else:
        made = bytes(
            chance.choice([*range(1, 47), *range(48, 256)])
            for _ in range(chance.choice([1, 3, 20, 255]))
        )
    made = made[:255]
    return made if made not in {b".", b"..", b""} else b"..."


def stem(chance: Random, room: int = 30) -> bytes:
    """The beginning of a name: there is room for a role, a number and a suffix behind it."""
    made = name(chance)[: 255 - room]
    return made + b"%d" % chance.randrange(1000)


# Contents


def picture(chance: Random, suffix: str = "png") -> bytes:
    """A small picture unlike any other."""
    pixels = np.frombuffer(chance.randbytes(12 * 16 * 3), np.uint8).reshape(12, 16, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, FORMATS[suffix])
    return buffer.getvalue()


def contents(chance: Random, suffix: str) -> bytes:
    """What may be in a file with the suffix of a picture: mostly that picture."""
    data = picture(chance, suffix)
    half = len(data) // 2
    changed = bytearray(data)
    for _ in range(chance.choice([1, 5, 50])):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    kinds = {
        data: 60,
        data[: chance.randrange(1, len(data))]: 15,
        picture(chance, chance.choice(list(FORMATS))): 5,
        bytes(changed): 10,
        data + chance.randbytes(chance.choice([1, 100, 5000])): 3,
        data[:half] + bytes(half): 3,
        chance.randbytes(chance.choice([1, 2, 12, 100, 5000])): 4,
    }
    return chance.choices(list(kinds), list(kinds.values()))[0]


def settings(chance: Random) -> bytes:
    """What may be in a settings file."""
    if chance.random() < 0.15:
        return chance.choice(DOCUMENTS)
    keys = chance.sample(SETTINGS, chance.choice([1, 1, 1, 2, 4]))
    lines = [f"{key}: {chance.choice(SCALARS)}" for key in keys]
    return "\n".join([*lines, f"# {chance.random()}"]).encode(errors="surrogatepass")


def batch(chance: Random) -> bytes:
    """What may be in a batch file."""
    kind = chance.random()
    if kind < 0.1:
        return chance.choice(DOCUMENTS)
    if kind < 0.2:
        axes = ", ".join(f"{key}: [{', '.join(map(str, range(1, chance.choice([3, 101]))))}]"
                         for key in chance.sample(SETTINGS, 4))  # fmt: skip
        return f"contents: '*.png'\nstyles: starry\nsweep: {{{axes}}}".encode()
    if kind < 0.45:
        lines = [f"{chance.choice(KEYS)}: {chance.choice(SCALARS)}" for _ in range(2)]
        return "\n".join(
            ["contents: a.png", "styles: starry", *lines][chance.randrange(3) :]
        ).encode(errors="surrogatepass")
    quoted = [_quoted(chance.choice(GLOBS)) for _ in range(2)]
    sweep = (
        f"sweep: {{{chance.choice(SETTINGS)}: [{chance.choice(SCALARS)}]}}"
        if chance.random() < 0.4
        else ""
    )
    return f"contents: [{quoted[0]}]\nstyles: [{quoted[1] if kind < 0.7 else 'starry'}]\n{sweep}".encode(
        errors="surrogatepass"
    )


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\u{ord(c):04x}" if c in '"\\\n' else c for c in text) + '"'


# Drops


def write(dropped: Dropped, path: bytes, data: bytes) -> None:
    """Write a file, over what may stand there."""
    with suppress(FileExistsError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        dropped.withdraw(path)
    with open(path, "wb") as file:
        file.write(data)
    dropped.note(path)


def loose_picture(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """One file of any name that calls itself a picture."""
    suffix = chance.choice(list(FORMATS))
    path = folder + stem(chance) + chance.choice(ROLES) + b"." + suffix.encode()
    write(dropped, path, contents(chance, suffix))


def pair(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """A pair, and perhaps its settings."""
    base = folder + stem(chance)
    for role in (b".content.", b".style."):
        suffix = chance.choice(list(FORMATS))
        write(dropped, base + role + suffix.encode(), contents(chance, suffix))
    if chance.random() < 0.5:
        write(dropped, base + b".yaml", settings(chance))


def any_file(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """A file of any name at all."""
    write(
        dropped,
        folder + name(chance),
        chance.choice([b"", b"text", picture(chance)]) + chance.randbytes(8),
    )


def batch_file(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """A batch file."""
    write(
        dropped,
        folder + stem(chance) + chance.choice([b".batch.yaml", b".BATCH.YML"]),
        batch(chance),
    )


def settings_file(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """Settings alone, or for a picture."""
    base = folder + stem(chance)
    write(dropped, base + chance.choice([b".yaml", b".yml", b".YAML"]), settings(chance))
    if chance.random() < 0.7:
        write(dropped, base + b".png", picture(chance))


def job_folder(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """A folder with a job in it, and perhaps something more."""
    base = folder + name(chance)[:200] + b"/"
    for role in (b"content.", b"style.", b"style-2.")[: chance.choice([1, 2, 2, 2, 3])]:
        suffix = chance.choice(list(FORMATS))
        write(dropped, base + role + suffix.encode(), contents(chance, suffix))
    more = chance.random()
    if more < 0.2:
        write(dropped, base + b"job.yaml", settings(chance))
    elif more < 0.4:
        any_file(chance, dropped, base)
    elif more < 0.5:
        special(chance, dropped, base)


def nested(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """A drop some folders down."""
    base = folder + b"".join(
        name(chance)[:60] + b"/" for _ in range(chance.choice([1, 2, 3, 12, 30]))
    )
    chance.choice([pair, loose_picture, any_file])(chance, dropped, base)


def hot(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """Something in a hot folder."""
    base = dropped.inbox_bytes + b"starry/" if chance.random() < 0.7 else folder + b"starry/"
    chance.choice([loose_picture, any_file, settings_file, special, job_folder])(
        chance, dropped, base
    )


def special(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """A file that is not a picture: empty, a pipe, a socket, a link, without rights, of a huge size."""
    os.makedirs(folder, exist_ok=True)
    path = (
        folder
        + stem(chance)
        + chance.choice([b".png", b".content.png", b".style.jpg", b".yaml", b".batch.yaml", b""])
    )
    if os.path.lexists(path):
        return
    kind = chance.choice(
        [
            "empty",
            "fifo",
            "socket",
            "link",
            "dangling",
            "loop",
            "hard",
            "rights",
            "sparse",
            "folder",
            "out",
        ]
    )
    if kind == "empty":
        write(dropped, path, b"")
        return
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        _socket(path)
    elif kind in {"link", "dangling", "loop", "out"}:
        target = {
            "link": b".",
            "dangling": b"nothing",
            "loop": os.path.basename(path),
            "out": b"/etc/passwd",
        }[kind]
        os.symlink(target, path)
    elif kind == "hard":
        write(dropped, path, picture(chance))
        other = folder + stem(chance) + b".png"
        if not os.path.lexists(other):
            os.link(path, other)
            dropped.note(other)
        return
    elif kind == "rights":
        write(dropped, path, picture(chance))
        os.chmod(path, chance.choice([0, 0o200, 0o111, 0o7777]))
        return
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.write(chance.randbytes(16))
            file.truncate(chance.choice([1 << 21, 1 << 40]))
    else:
        os.mkdir(path, chance.choice([0o755, 0o700, 0o777]))
        return
    dropped.note(path)


def _socket(path: bytes) -> None:
    """A socket's file; its address may be too long."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.fsencode(f"/proc/self/fd/{descriptor}/s"))
        os.rename("s", path, src_dir_fd=descriptor)
    finally:
        os.close(descriptor)


def style(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """Something in the library. The library's files are the owner's; they are never moved."""
    base = os.fsencode(dropped.library) + b"/" + name(chance)[:200]
    with suppress(OSError):
        for path, data in (
            (base + b".png", contents(chance, "png")),
            (base + b".yaml", settings(chance)),
            (base + b"/a.jpg", contents(chance, "jpg")),
        ):
            if chance.random() < 0.5:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(data)


def without_rights(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """A folder that others may not read, or not write."""
    base = folder + stem(chance) + b"/"
    chance.choice([pair, job_folder, loose_picture])(chance, dropped, base)
    os.chmod(base, chance.choice([0, 0o300, 0o400, 0o500, 0o100]))


def disturb(chance: Random, dropped: Dropped, folder: bytes) -> None:
    """Remove, replace, rename or touch something that was dropped."""
    found = [
        os.path.join(top, last) for top, _, files in os.walk(dropped.inbox_bytes) for last in files
    ]
    if not found:
        return
    path = chance.choice(sorted(found))
    kind = chance.choice(["remove", "replace", "rename", "touch", "grow", "tree"])
    with suppress(OSError):
        if kind == "tree":
            top = os.path.dirname(path)
            if top + b"/" != dropped.inbox_bytes:
                for at, folders, files in os.walk(top):
                    for last in files + folders:
                        dropped.withdraw(os.path.join(at, last))
                shutil.rmtree(top, ignore_errors=True)
            return
        if kind == "rename":
            dropped.rename(path, folder + stem(chance) + b".png")
            return
        if kind == "touch":
            dropped.withdraw_with_others(path)
            os.utime(path, follow_symlinks=False)
            return
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            return  # a change would reach all names of a file with hard links
        dropped.withdraw_with_others(path)
        if kind == "remove":
            os.unlink(path)
            return
        with open(path, "wb" if kind == "replace" else "ab") as file:
            file.write(picture(chance) if kind == "replace" else b"more")
        for _ in range(os.lstat(path).st_nlink):
            dropped.note(path)


KINDS: dict[Callable[[Random, Dropped, bytes], None], float] = {
    loose_picture: 4, pair: 4, any_file: 3, batch_file: 3, settings_file: 3, job_folder: 3, nested: 2, hot: 3,
    special: 4, style: 1, without_rights: 1, disturb: 2,
}  # fmt: skip


def drop(seed: int, dropped: Dropped) -> str:
    """Do one thing to the inbox; what it was."""
    chance = Random(seed)
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    try:
        kind(chance, dropped, dropped.inbox_bytes)
    except OSError as error:  # the system does not allow it, or something else stands there
        return f"{kind.__name__}: {error}"
    dropped.tried += 1
    return kind.__name__
