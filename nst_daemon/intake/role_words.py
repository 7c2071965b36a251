"""Names that resemble a role: misspelt words, and those of other languages and programs. They are only hints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from nst_daemon.intake.parts import IN_PAIR
from nst_daemon.names import composed
from nst_daemon.pictures.formats import IMAGE_SUFFIXES
from nst_daemon.suggestions import similar

#: Words that people and other programs use for a role.
_WORDS = {
    "content": """contents photo photos foto picture source src input original orig base subject
        inhalt contenu contenido conteúdo conteudo contenuto inhoud innehåll treść
        содержание контент 内容 コンテンツ""",
    "style": """styles painting paint artwork art artist reference ref
        stil stile estilo stijl styl gemälde tableau dipinto cuadro pintura стиль 风格 風格 スタイル 스타일""",
    "mask": "masks maks msak maske masque máscara mascara maschera masker maska matte segmentation маска",
    "start": "init initial",
}
_KNOWN = {
    composed(word).casefold(): role for role, words in _WORDS.items() for word in words.split()
}
#: Words that a misspelt word may be, and how similar it has to be (difflib's ratio).
_SPELLED = ("content", "style", "mask")
#: Roles that only need another separator.
_EXACT = frozenset({"content", "style"})
_CUTOFF = 0.79
#: What copying programs append: "dog.content (1).jpg", "dog.content - Copy.jpg".
_COPY = re.compile(
    r"\s*\(\d{1,3}\)$|[\s_-]+(copy|kopie|copie|copia)(\s*\(?\d{1,3}\)?)?$", re.IGNORECASE
)
_LAST = re.compile(
    r"(?P<stem>.+?)(?P<separator>[\s._\-(\[{+,;=~&!#@]+)(?P<word>[^\W\d_]{2,20})[\s._-]*(?P<number>\d{0,3})[)\]}\s._-]*",
    re.DOTALL,
)
_FIRST = re.compile(
    r"(?P<word>[^\W\d_]{4,20})[\s._-]?(?P<number>\d{0,3})(?P<separator>[\s._-]+)(?P<stem>.+)",
    re.DOTALL,
)

Evidence = Literal["sure", "role", "misspelt", "word"]


@dataclass(frozen=True, slots=True)
class Guess:
    """A role that a name seems to mean.

    stem: the rest of the name; role: as it is written in a name, such as "style-2" or "content.mask"; evidence:
    "sure", "role" (a role after "_" or "-", as in free_style), "misspelt" (cat_contnet, or "cat content") or "word"
    (dog_photo, a name that many pictures have).
    """

    stem: str
    role: str
    evidence: Evidence

    @property
    def kind(self) -> str:
        """The role without a number or a mask."""
        return "mask" if self.role.endswith("mask") else self.role.partition("-")[0]


def guess_role(stem: str, *, misspelt: bool = True) -> Guess | None:
    """What the stem of a picture's name seems to mean, None if it resembles no role.

    Args:
        stem: in composed form.
        misspelt: whether to look for misspelt words, which takes longer.
    """
    bare = _without_copy(stem)
    if match := IN_PAIR.fullmatch(bare):
        role = match["role"].lower().replace("_mask", ".mask").replace("-mask", ".mask")
        sure = match["separator"] == "." or bare != stem
        return Guess(match["stem"], role, "sure" if sure else "role")
    for pattern in (_LAST, _FIRST):
        match = pattern.fullmatch(bare)
        role, known = _role_of_word(match["word"].casefold(), misspelt) if match else ("", False)
        if match and role:
            dotted = match["separator"].strip() == "."
            if pattern is _FIRST and not (dotted or known):
                return None  # contest_winner
            exact = pattern is _LAST and match["word"].casefold() in _EXACT
            evidence: Evidence = "sure" if dotted else "word" if known and not exact else "misspelt"
            return _guess(match["stem"], role, match["number"], evidence)
    return None


def _guess(stem: str, role: str, number: str, evidence: Evidence) -> Guess:
    if role == "style" and number:
        return Guess(stem, f"style-{number}", evidence)
    if role != "mask":
        return Guess(stem, role, evidence)
    if match := IN_PAIR.fullmatch(stem):
        return Guess(match["stem"], f"{match['role'].lower()}.mask", evidence)
    return Guess(stem, "content.mask", evidence)


def _without_copy(stem: str) -> str:
    """The stem without what copying programs append, and without a second suffix, as in dog.content.jpg.png."""
    bare = _COPY.sub("", stem)
    head, dot, suffix = bare.rpartition(".")
    return head if head and dot + suffix.lower() in IMAGE_SUFFIXES else bare


@lru_cache(maxsize=4096)
def _role_of_word(word: str, misspelt: bool) -> tuple[str, bool]:
    """The role that a word means, "" for none; and whether it is a known word, not a misspelt one."""
    if role := _KNOWN.get(word, ""):
        return role, True
    if word in {*_SPELLED, "start"}:
        return word, True
    misspelt = misspelt and 4 <= len(word) <= 9
    found = similar(word, _SPELLED, cutoff=_CUTOFF) if misspelt else []
    return (found[0], False) if found else ("", False)


def close_name(name: str, names: Iterable[str]) -> str:
    """The name that `name` may be a misspelling of, "" if there is none. Case and Unicode forms do not count."""
    return _close_name(name, tuple(names))


@lru_cache(maxsize=256)
def _close_name(name: str, names: tuple[str, ...]) -> str:
    return next(iter(similar(composed(name), map(composed, names))), "")
