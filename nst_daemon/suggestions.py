"""Did you mean …? The known names that a misspelt name probably stands for.

Everything that people can misspell uses these functions: settings, configuration keys, variables, presets, formats,
styles, jobs and choices.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher

#: At most so many suggestions.
MOST = 3
#: How similar two names must be (the ratio of `difflib.SequenceMatcher`).
SIMILAR = 0.66
#: Suggestions that are less similar than the best one by more than this are left out.
_MARGIN = 0.1
#: Longer words are not compared completely.
_LONGEST = 100

#: Usual names of other programs and papers for our settings.
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "iterations": (
        *("iteration", "iters", "niter", "numiter", "numiterations", "maxiter", "maxiterations"),
        *("steps", "numsteps", "epochs", "numepochs"),
    ),
    "size": (
        *("width", "height", "resolution", "imagesize", "imsize", "imgsize", "outputsize"),
        *("maxsize", "longside", "dimension", "dimensions", "pixels"),
    ),
    "content_weight": ("alpha", "contentstrength"),
    "style_weight": ("beta", "stylestrength", "strength"),
    "tv_weight": ("gamma", "tvstrength", "totalvariation", "totalvariationweight", "smoothness"),
    "style_scale": ("stylesize", "scale", "brushsize", "strokesize"),
    "keep_colors": (
        *("originalcolors", "originalcolours", "preservecolor", "preservecolors", "preservecolour"),
        *("preservecolours", "colorpreservation", "keepcolor", "keepcolours", "colors", "colours"),
    ),
    "step": ("lr", "learningrate", "stepsize"),
    "start": ("init", "initial", "initialimage", "initimage", "startimage", "initialization"),
    "seed": ("randomseed", "rng"),
    "pooling": ("pool", "pooltype"),
    "preset": ("profile", "look"),
    "format": ("outputformat", "filetype", "extension", "suffix"),
    "depth": ("bits", "bitdepth"),
    "devices": ("device", "gpu", "gpus", "cuda"),
    "threads": ("cpus", "cores", "numthreads", "workers"),
    "network": ("arch", "architecture", "backbone"),
    "inbox": ("input", "inputs", "inputfolder", "incoming"),
    "results": ("output", "outputfolder", "out"),
    "settle_seconds": ("settle", "delay", "debounce"),
    "loss_plot": ("lossplot", "losscurve"),
    "progress": ("timelapse",),
    "max_memory": ("memory", "ram", "memorylimit"),
}
_MEANT = {word: name for name, words in _SYNONYMS.items() for word in words}


def similar(word: object, known: Iterable[str], *, cutoff: float = SIMILAR) -> list[str]:
    """The known names that are probably meant, the most similar first; at most three.

    Case, spaces, `_` and `-` do not count. A name that differs only in these, or a synonym, is the only suggestion.
    """
    wanted = _plain(str(word)[:_LONGEST])
    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_plain(name), name)
    if wanted in plain:
        return [plain[wanted]]
    if (meant := _MEANT.get(wanted, "")) and _plain(meant) in plain:
        return [plain[_plain(meant)]]
    matcher = SequenceMatcher(b=wanted)
    found: list[tuple[float, str]] = []
    for text, name in plain.items():
        matcher.set_seq1(text)
        if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= cutoff:
            found.append((matcher.ratio(), name))
    found = sorted(((r, n) for r, n in found if r >= cutoff), key=lambda pair: -pair[0])
    return [name for ratio, name in found[:MOST] if ratio >= found[0][0] - _MARGIN]


def question(names: Collection[object]) -> str:
    """ "did you mean a, b or c?"; "" without names."""
    if not names:
        return ""
    *first, last = map(str, names)
    return f"did you mean {', '.join(first)} or {last}?" if first else f"did you mean {last}?"


def did_you_mean(word: object, known: Iterable[str], *, cutoff: float = SIMILAR) -> str:
    """ "did you mean size?"; "" if no known name is similar to the word."""
    return question(similar(word, known, cutoff=cutoff))


def similar_keys(key: str, known: Collection[str]) -> list[str]:
    """The dotted keys that are probably meant: in the same section, or of the same name in another one.

    "size" and "service.size" mean "render.size"; "servise.settle_seconds" means "service.settle_seconds".
    """
    section, _, name = key.rpartition(".")
    if not section:
        top = {whole.partition(".")[0] for whole in known}
        if key not in top and (found := similar(key, sorted(top), cutoff=0.8)):
            return found
    leaves: dict[str, list[str]] = {}
    for whole in known:
        leaves.setdefault(whole.rpartition(".")[2], []).append(whole)
    own = [leaf for leaf, keys in leaves.items() if any(_in_section(k, section) for k in keys)]
    if section and (found := similar(name, own)):
        return [f"{section}.{leaf}" for leaf in found]
    exact = similar(name, leaves, cutoff=1.0)
    if exact:
        return leaves[exact[0]][:MOST]
    return similar(key, known) or [k for leaf in similar(name, leaves) for k in leaves[leaf]][:MOST]


def _in_section(key: str, section: str) -> bool:
    return key.rpartition(".")[0] == section


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())
