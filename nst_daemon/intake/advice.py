"""What drops wait for, and the exact names to give them. The log, `status`, `once`, the page and error.txt show it.

`advise` looks at the incomplete sets of one folder together: the file that one set lacks may be another one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nst_daemon.intake.drops import JobSettings, suffix_of
from nst_daemon.intake.parts import BARE, DropPart, DropSet
from nst_daemon.intake.role_words import Guess, close_name, guess_role
from nst_daemon.intake.steps import Steps
from nst_daemon.jobs import Role
from nst_daemon.names import clean_name, printable

#: With more incomplete sets than this in a folder, similar names are not looked for: that takes quadratic time.
MOST_COMPARED = 40
#: With more, misspelt roles are not looked for.
MOST_SPELLED = 2000
_NOT_BY_ORDER = (
    "; they are not paired by their order, because both have settings, their masks contradict it, or too much time "
    "has passed between them"
)
#: Why pictures are not paired by their order, although that is switched on.
_WHY_NO_ORDER = (
    "; service.pair_by_order pairs two pictures only if no other drop waits in their folder"
)
#: The keys of a batch file, which other settings files do not have.
_BATCH_KEYS = frozenset({"contents", "styles", "sweep"})


@dataclass(frozen=True, slots=True)
class Lack:
    """A settled set of files that cannot be painted yet.

    role, number: of the file that is missing; job: what its settings file says.
    """

    files: DropSet
    role: Role
    number: int = 0
    job: JobSettings = JobSettings()

    @property
    def picture(self) -> DropPart:
        """The file that names the drop: its content, or else a style, a mask, a start or the settings."""
        parts = self.files.parts
        if len(parts) == 1:
            return parts[0]
        order = (Role.CONTENT, Role.STYLE)
        return next((p for role in order for p in self.files.of(role)), parts[0])

    @property
    def lone(self) -> bool:
        """Whether it is a picture without a role that only lacks a style."""
        return self.files.plain and self.role is Role.STYLE


class Advice(NamedTuple):
    """Why a drop waits, and what to do about it."""

    cause: str
    remedy: str


def advise(
    lacks: Sequence[Lack], styles: Sequence[str], *, by_order: bool = False
) -> Steps[list[Advice]]:
    """What each of the incomplete sets of one folder waits for.

    Args:
        lacks: all of them.
        styles: names of the usable styles of the library.
        by_order: whether two pictures are paired by their order.
    """
    folder = _Folder(lacks, styles, by_order)
    yield from folder.read()
    advices = []
    for lack in lacks:
        advices.append(folder.advice(lack))
        yield
    return advices


class _Folder:
    """The incomplete sets of one folder. `read` comes before `advice`."""

    def __init__(self, lacks: Sequence[Lack], styles: Sequence[str], by_order: bool) -> None:
        self._lacks, self._styles, self._by_order = lacks, styles, by_order
        self._order = _WHY_NO_ORDER if by_order else ""
        self._other_way = _library_way(styles) + self._order
        self._half = _half_beside_picture(lacks)
        self._lones: list[Lack] = []
        self._guesses: dict[str, Guess] = {}
        #: Files that seem to be the content or the style of a stem, by (stem, role).
        self._meant: dict[tuple[str, str], str] = {}
        #: The pictures that are probably a pair, if they are two.
        self._two: list[Lack] = []
        #: Halves with a role, by (stem, role), and the set of each.
        self._halves: dict[tuple[str, str], str] = {}
        self._half_of: dict[str, Lack] = {}

    def read(self) -> Steps[None]:
        """Note what the names of all sets say."""
        for lack in self._lacks:
            if lack.lone:
                self._read_lone(lack)
            elif lack.files.source == "pair":
                self._read_half(lack)
            yield

    def _read_lone(self, lack: Lack) -> None:
        self._lones.append(lack)
        path, stem = lack.picture.entry.path, lack.picture.entry.stem
        guess = guess_role(stem, misspelt=len(self._lacks) <= MOST_SPELLED)
        if guess:
            self._guesses[path] = guess
            self._meant.setdefault((guess.stem.casefold(), guess.kind), path)
        if not guess or len(self._lacks) <= 2:
            self._two.append(lack)

    def _read_half(self, lack: Lack) -> None:
        for part in lack.files.parts:
            if part.role in {Role.CONTENT, Role.STYLE}:
                self._halves[lack.files.stem.casefold(), part.role.value] = part.entry.path
                self._half_of[part.entry.path] = lack

    def advice(self, lack: Lack) -> Advice:
        """What one of the sets waits for."""
        if lack.role is Role.CONTENT and all(p.role is Role.SETTINGS for p in lack.files.parts):
            return self._settings(lack)
        label = printable(lack.picture.entry.path)
        if not lack.files.stem.isprintable():
            return self._unprintable(lack, label)
        if lack.lone:
            return self._lone(lack)
        what = lack.role.value.replace("-", " ") + (f" {lack.number}" if lack.number else "")
        target = _target(lack.files, lack.role, lack.number)
        remedy = f"add {target}"
        if lack.files.masked and lack.role is Role.STYLE_MASK:
            remedy += ", or remove the masks"
        other = self._candidate(lack)
        if half := self._half_of.get(other):
            return self._two_halves(lack, half)
        if other:
            target = _target(lack.files, lack.role, lack.number, other)
            remedy = f"rename {printable(other)} to {target}, or {remedy}"
        return Advice(f"{label} has no {what}", remedy)

    def _unprintable(self, lack: Lack, label: str) -> Advice:
        """A name with characters that cannot be shown: another file of this name would be hard to make."""
        missing, own = Role.CONTENT, Role.STYLE
        if lack.role is not Role.CONTENT:
            missing, own = own, missing
        new = _target(lack.files, own, old=lack.picture.entry.path)
        return Advice(
            f"{label} has no {missing.value}, and its name has characters that cannot be shown",
            f"rename it to {new}, and add {_target(lack.files, missing)}",
        )

    def _settings(self, lack: Lack) -> Advice:
        """A settings file without a picture."""
        path, name = lack.picture.entry.path, lack.picture.entry.name
        label = printable(path)
        if lack.files.source == "folder":
            targets = [_target(lack.files, role) for role in (Role.CONTENT, Role.STYLE)]
            return Advice(f"{label} has no picture", f"add {' and '.join(targets)}")
        if _BATCH_KEYS & lack.job.settings.keys():
            stem, suffix = _shown(lack.files.stem), suffix_of(name)
            for end in ("batch", ".", "_", "-", " "):
                stem = stem.removesuffix(end)
            new = _join(lack.files.folder, f"{stem or 'NAME'}.batch{suffix}")
            return Advice(f"{label} has the keys of a batch file", f"rename it to {new}")
        stem = _join(lack.files.folder, _shown(lack.files.stem))
        named = bool(lack.files.style) or bool(lack.job.styles)
        pictures = f"{stem}.jpg" if named else f"{stem}.content.jpg and {stem}.style.jpg"
        return Advice(f"{label} has no picture", f"add {pictures}")

    def _candidate(self, lack: Lack) -> str:
        """A waiting file that is probably the one which is missing, "" if none is."""
        role = lack.role.value
        if lack.number or role not in {"content", "style"} or lack.files.source == "folder":
            return ""
        stem = lack.files.stem.casefold()
        found = self._meant.get((stem, role)) or self._halves.get((stem, role), "")
        if found or len(self._lacks) > MOST_COMPARED:
            return found
        halves = {other: path for (other, kind), path in self._halves.items() if kind == role}
        if close := close_name(stem, halves):
            return halves[close]
        if len(self._lacks) == 2:
            others = [path for path in halves.values() if path not in lack.files.paths]
            others += [lone.picture.entry.path for lone in self._lones]
            return others[0] if len(others) == 1 else ""
        return ""

    def _two_halves(self, lack: Lack, half: Lack) -> Advice:
        """A content and a style that are probably a pair. The text is the same for both of them."""
        content, style = (half, lack) if lack.role is Role.CONTENT else (lack, half)
        names = [found.picture.entry.path for found in (content, style)]
        target = _target(content.files, Role.STYLE, old=names[1])
        return Advice(
            f"{printable(names[0])} and {printable(names[1])} are not a pair, because their names differ",
            f"rename {printable(names[1])} to {target}",
        )

    # A picture without a role

    def _lone(self, lack: Lack) -> Advice:
        """A picture without a role and without a style."""
        files, entry = lack.files, lack.picture.entry
        label = printable(entry.path)
        top = files.folder.partition("/")[0]
        if top and (style := close_name(top, self._styles)):
            return Advice(
                f"inbox/{printable(top)} is not a style", f"did you mean {printable(style)}?"
            )
        if not files.folder and BARE.fullmatch(entry.stem):
            return self._bare(entry.stem.lower(), label)
        guess = self._guesses.get(entry.path)
        if guess and (advice := self._guessed(lack, guess)):
            return advice
        if len(self._two) == 2 and lack in self._two:
            return self._two_pictures()
        if top and len(self._lones) > 1:
            return self._folder_of_pictures(files.folder)
        remedy = f"add {_target(files, Role.STYLE)}"
        if self._half and self._half.role in {Role.CONTENT, Role.STYLE}:
            target = _target(self._half.files, self._half.role, old=entry.path)
            partner = printable(self._half.picture.entry.path)
            what = f"the {self._half.role.value} for {partner}"
            remedy = f"rename it to {target} if it is {what}, or {remedy}"
        return Advice(f"{label} has no style", f"{remedy}, or {self._other_way}")

    def _bare(self, role: str, label: str) -> Advice:
        """content.jpg or style.jpg directly in the inbox."""
        suffix = suffix_of(label)
        return Advice(
            f"{label} has no name besides its role",
            f"put content and style into a folder, such as inbox/NAME/{role}{suffix}, "
            f"or rename it to NAME.{role}{suffix}",
        )

    def _guessed(self, lack: Lack, guess: Guess) -> Advice | None:
        """A name that resembles a role; None if photos have such names, and nothing else speaks for the role."""
        files, path = lack.files, lack.picture.entry.path
        label = printable(path)
        meant = _named(files, guess.stem, guess.role, path)
        opposite = {"content": "style", "style": "content"}.get(guess.kind, "")
        key = (guess.stem.casefold(), opposite)
        if (other := self._meant.get(key)) and other != path:
            both = sorted(((path, guess), (other, self._guesses[other])), key=lambda x: x[1].role)
            names = [printable(name) for name, _ in both]
            stem = both[0][1].stem  # the content's, for both of them
            new = [_named(files, stem, g.role, name) for name, g in both]
            renames = [f"{old} to {to}" for old, to in zip(names, new, strict=True)]
            return Advice(f"{' and '.join(names)} have no roles", f"rename {' and '.join(renames)}")
        if half := self._halves.get(key):
            return Advice(
                f"{label} has no role", f"did you mean {meant}, beside {printable(half)}?"
            )
        if guess.evidence == "sure":
            return Advice(f"{label} has no role", f"did you mean {meant}?")
        if guess.evidence == "misspelt":
            return Advice(
                f"{label} has no style",
                f"did you mean {meant}? If not, add {_target(files, Role.STYLE)}",
            )
        if guess.evidence == "role" and opposite:
            missing = _named(files, guess.stem, opposite, ".jpg")
            own = _target(files, Role.STYLE)
            return Advice(
                f"{label} is not a pair yet",
                f"add {missing} if it is the {guess.role} of one, or {own} if it is a picture by itself",
            )
        return None

    def _two_pictures(self) -> Advice:
        """Two pictures whose names resemble no role, and no other such picture waits in this folder."""
        first, second = self._two
        paths = [lack.picture.entry.path for lack in self._two]
        one, two = map(printable, paths)
        not_by_order = _NOT_BY_ORDER if len(self._lacks) == 2 else self._order
        if first.files.folder:
            (suffix1, suffix2), folder = map(suffix_of, paths), printable(first.files.folder)
            ways = (
                f"rename {one} to {folder}/content{suffix1} and {two} to {folder}/style{suffix2}, "
                f"or the other way round"
            )
        else:
            ways = " or, the other way round, ".join(
                f"{printable(a.picture.entry.path)} to {_target(a.files, Role.CONTENT, old=a.picture.entry.path)} "
                f"and {printable(b.picture.entry.path)} to {_target(a.files, Role.STYLE, old=b.picture.entry.path)}"
                for a, b in ((first, second), (second, first))
            )
            ways = f"rename {ways}"
        return Advice(
            f"{one} and {two} have no roles",
            f"{ways}; or put the style into styles/ and the other picture into its folder in the inbox"
            + (not_by_order if self._by_order else "; or set service.pair_by_order: true"),
        )

    def _folder_of_pictures(self, folder: str) -> Advice:
        """Several pictures in a folder that is not one of a style. The text is the same for all of them."""
        label, top = printable(folder), printable(folder.partition("/")[0])
        return Advice(
            f"the pictures in inbox/{label} have no style, because there is no style {top} in the library",
            f"put it there as styles/{top}.jpg, or name pairs {label}/NAME.content.jpg and {label}/NAME.style.jpg"
            f"{self._order}",
        )


def _library_way(styles: Sequence[str]) -> str:
    """How to paint a picture in a style of the library."""
    if styles:
        return f"move it into the folder of a style, such as inbox/{printable(styles[0])}"
    return "put a style into styles/ and the picture into the folder that inbox/ then has for it"


def _half_beside_picture(lacks: Sequence[Lack]) -> Lack | None:
    """Half of a pair, if the only other set of the folder is a picture without a role."""
    halves = [lack for lack in lacks if not lack.lone] if len(lacks) == 2 else []
    if len(halves) == 1 and halves[0].files.source == "pair" and not halves[0].number:
        return halves[0]
    return None


# Names


def _target(files: DropSet, role: Role, number: int = 0, old: str = "") -> str:
    """The name of a file that completes a set; with the suffix of `old` if that is to be renamed."""
    word = "content" if role in {Role.CONTENT, Role.CONTENT_MASK} else role.value.partition("-")[0]
    word += f"-{number}" if number else ""
    mask = role in {Role.CONTENT_MASK, Role.STYLE_MASK}
    suffix = suffix_of(old) or (".png" if mask else ".jpg")
    return _named(files, files.stem, f"{word}.mask" if mask else word, suffix)


def _named(files: DropSet, stem: str, role: str, old: str) -> str:
    """The path of a file with a role, below the inbox. old: its path or suffix."""
    suffix = suffix_of(old)
    name = f"{role}{suffix}" if files.source == "folder" else f"{_shown(stem)}.{role}{suffix}"
    return _join(files.folder, name)


def _shown(stem: str) -> str:
    """A stem that people can type: without characters that cannot be shown."""
    return stem if stem.isprintable() else clean_name(stem)


def _join(folder: str, name: str) -> str:
    return f"{printable(folder)}/{name}" if folder else name
