"""Paint a list of pairs with several settings and weights, and lay the pictures out beside references.

    python -m benchmarks.looks --settings painting --settings bold         # the drawn pairs, into bench/looks/
    python -m benchmarks.looks --pairs my/pairs.yaml --weights bundled --weights trained.safetensors
    python -m benchmarks.looks --settings "soft: preset=bold content_weight=0.2" --beside bench/before

Each pair is a row: the content, the style, one picture for each choice of settings and weights, the pictures of
earlier runs (`--beside`) and the references. `benchmarks.pairs` describes the pairs file. OUT/page-1.jpg, … are
written again after each row, and OUT/pictures/PAIR/ keeps the single pictures.

A picture that has been painted before is taken from the cache, so a run can be interrupted and extended. It is painted
again if a picture, the resolved settings, the weights or the engine's code have changed; `--older-code` accepts those
that were painted by other code.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

import nst_daemon
from benchmarks.captioned import Cell, captioned_sheet
from benchmarks.pairs import Pair, drawn_pairs, named_settings, read_pairs
from nst_daemon.config import Outputs
from nst_daemon.digests import sha256_file
from nst_daemon.engine.images import to_image
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.errors import NstError, UsageError
from nst_daemon.files import default_cache_dir, write_atomic
from nst_daemon.identity import picture_identity
from nst_daemon.jobs import JobInput, Role
from nst_daemon.names import clean_name
from nst_daemon.ops.progress_bars import Bars
from nst_daemon.painter import Painter, decode

WIDEST = 1.6  # of a cell, in heights
#: Modules of the engine that only choose settings, which the identity of a picture holds already.
_CHOICES = frozenset({"presets.py", "settings.py"})


@dataclass(frozen=True)
class Choice:
    """What is painted in one column."""

    name: str
    settings: RenderSettings
    painter: Painter


@dataclass(frozen=True)
class Look:
    """A picture of the sheet."""

    column: str
    picture: Path | None
    seconds: float = 0.0
    losses: Mapping[str, float] | None = None
    problem: str = ""

    @property
    def figures(self) -> str:
        """Seconds and final losses, or what went wrong."""
        if self.losses is None:
            return self.problem
        shown = (f"{k} {self.losses[k]:.3g}" for k in ("total", "content", "style", "tv"))
        return f"{self.seconds:.1f} s  " + "  ".join(shown)


class Cache:
    """Pictures by identity and code: KEY-CODE.png, and KEY-CODE.json with seconds and losses.

    Args:
        folder: is made if it is missing.
        older_code: also find pictures that were painted by other code.
    """

    def __init__(self, folder: Path, *, older_code: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._older_code = folder, older_code

    def path(self, pair: Pair, choice: Choice) -> Path:
        """Where the picture is or will be."""
        inputs = [(Role.CONTENT.value, pair.content.sha256)]
        inputs += [(Role.STYLE.value, style.sha256) for style in pair.styles]
        weights = choice.painter.weights
        key = picture_identity(inputs, choice.settings, weights.network, weights.sha256)[:24]
        path = self._folder / f"{key}-{code_digest()[:8]}.png"
        if self._older_code and not path.with_suffix(".json").exists():
            others = [p.with_suffix(".png") for p in self._folder.glob(f"{key}-*.json")]
            path = max(others, key=lambda p: p.stat().st_mtime, default=path)
        return path


def read_look(path: Path, column: str) -> Look | None:
    """A picture that was painted before, or None."""
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
        return Look(column, path, record["seconds"], record["losses"])
    except (OSError, ValueError, KeyError):
        return None


@cache
def code_digest() -> str:
    """A digest of the code that decides how a picture looks; comments and formatting do not count."""
    package = Path(nst_daemon.__file__).parent
    digest = hashlib.sha256()
    for path in [package / "painter.py", *sorted((package / "engine").glob("*.py"))]:
        if path.name not in _CHOICES:
            digest.update(ast.dump(ast.parse(path.read_bytes())).encode())
    return digest.hexdigest()


def choices(
    settings: Mapping[str, Mapping[str, object]], painters: Sequence[Painter], size: int
) -> list[Choice]:
    """The columns: every settings with every painter. `size` counts where settings give none."""
    files = [painter.weights for painter in painters]
    names = [file.name for file in files]
    labels = [f.name if names.count(f.name) == 1 else f"{f.name} {f.sha256[:6]}" for f in files]
    return [
        Choice(
            f"{name}, {label}" if len(painters) > 1 else name,
            resolve({"size": size}, chosen, network=painter.weights.network),
            painter,
        )
        for name, chosen in settings.items()
        for label, painter in zip(labels, painters, strict=True)
    ]


def paint(pair: Pair, choice: Choice, path: Path, bars: Bars) -> Look:
    """Paint into the cache. A failure becomes a look without a picture, so that the others are still painted."""
    painter = choice.painter
    try:
        painter.load(choice.settings)  # exports the network once: that is not the picture's time
        began = time.monotonic()
        prepared = painter.prepare(
            pair.content.path, [style.path for style in pair.styles], choice.settings
        )
        for step in painter.paint(prepared):
            bars.update("painting", choice.name, step.iteration, step.iterations)
        rendering = painter.finish(prepared, step)
        seconds = time.monotonic() - began
    except NstError as error:
        return Look(choice.name, None, problem=f"failed: {error}")
    finally:
        bars.end("painting")
    inputs = [_record(Role.CONTENT, pair.content.path)]
    inputs += [_record(Role.STYLE, style.path) for style in pair.styles]
    rendering.save(path, Outputs(), inputs)
    record = {
        "seconds": seconds,
        "losses": dict(rendering.losses),
        "device": str(painter.device),
    }
    write_atomic(path.with_suffix(".json"), json.dumps(record).encode())
    return Look(choice.name, path, seconds, rendering.losses)


def _record(role: Role, path: Path) -> JobInput:
    """The record of an input that is painted where it lies."""
    return JobInput(role, path.name, path.name, sha256_file(path), path.stat().st_size)


def keep(look: Look, folder: Path) -> None:
    """Copy a picture and its figures out of the cache, as COLUMN.png and COLUMN.json."""
    if look.picture is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{clean_name(look.column)}.png"
    for suffix in (".png", ".json"):
        shutil.copyfile(look.picture.with_suffix(suffix), target.with_suffix(suffix))


def kept(folders: Sequence[Path], pair: Pair) -> Iterator[Look]:
    """The pictures of a pair in the folders of earlier runs."""
    names = [folder.resolve().name for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        label = name if names.count(name) == 1 else str(folder)
        for path in sorted((folder / "pictures" / clean_name(pair.name)).glob("*.png")):
            if look := read_look(path, f"{label}: {path.stem}"):
                yield look


class Sheet:
    """The pages: rows of pairs, columns of looks.

    Args:
        out: the folder of the pages.
        pairs: all rows.
        columns: names of the columns between the style and the references.
        rows: pairs on a page.
        height: of a picture in pixels.
        suffix: of the pages, `jpg` or `png`.
    """

    def __init__(
        self, out: Path, pairs: Sequence[Pair], columns: Sequence[str], *, rows: int, height: int,
        suffix: str,
    ) -> None:  # fmt: skip
        self._out, self._pairs, self._columns = out, pairs, columns
        self._rows, self._height, self._suffix = rows, height, suffix
        self._references = max(len(pair.references) for pair in pairs)

    def write(self, looks: Mapping[str, Mapping[str, Look]], last: Pair) -> Path:
        """Write the page of a pair. `looks`: by the names of pairs and columns, as far as they are painted."""
        page = self._pairs.index(last) // self._rows
        shown = self._pairs[page * self._rows : (page + 1) * self._rows]
        cells = [cell for pair in shown for cell in self._row(pair, looks.get(pair.name, {}))]
        sheet = captioned_sheet(
            cells, columns=len(cells) // len(shown), height=self._height, widest=WIDEST
        )
        path = self._out / f"page-{page + 1}.{self._suffix}"
        sheet.save(path, quality=90)
        return path

    def _row(self, pair: Pair, looks: Mapping[str, Look]) -> list[Cell]:
        content, *styles = (opened(file.path) for file in (pair.content, *pair.styles))
        names = " + ".join(style.path.stem for style in pair.styles)
        cells: list[Cell] = [
            (f"{pair.name}\ncontent", content),
            (f"{names}\nstyle", joined(styles)),
        ]
        for column in self._columns:
            look = looks.get(column) or Look(column, None)
            picture = opened(look.picture) if look.picture else None
            cells.append((f"{column}\n{look.figures}", picture))
        shown = [(f"{r.caption}\nreference", opened(r.path)) for r in pair.references]
        return [*cells, *shown, *[("", None)] * (self._references - len(shown))]


def opened(path: Path) -> Image.Image:
    """A picture as the program reads it: upright, in sRGB."""
    return to_image(decode(path).rgb)


def joined(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, at the height of the first."""
    height = pictures[0].height
    scaled = [p.resize((max(1, round(p.width * height / p.height)), height)) for p in pictures]
    whole = Image.new("RGB", (sum(p.width for p in scaled), height))
    for i, picture in enumerate(scaled):
        whole.paste(picture, (sum(p.width for p in scaled[:i]), 0))
    return whole


def run(pairs: Sequence[Pair], columns: Sequence[Choice], args: argparse.Namespace) -> int:
    """Paint what is not in the cache, row by row, and write the pages. Returns the number of failures."""
    store = Cache(args.cache, older_code=args.older_code)
    earlier = {pair.name: {look.column: look for look in kept(args.beside, pair)} for pair in pairs}
    names = dict.fromkeys(choice.name for choice in columns)
    names |= dict.fromkeys(column for looks in earlier.values() for column in looks)
    sheet = Sheet(
        args.out, pairs, list(names), rows=args.rows, height=args.height, suffix=args.format
    )
    looks: dict[str, dict[str, Look]] = {}
    number, total, failures = 0, len(pairs) * len(columns), 0
    with Bars(enabled=sys.stderr.isatty()) as bars:
        for pair in pairs:
            row = looks[pair.name] = dict(earlier[pair.name])
            for choice in columns:
                number += 1
                path = store.path(pair, choice)
                known = read_look(path, choice.name)
                look = row[choice.name] = known or paint(pair, choice, path, bars)
                failures += look.picture is None
                keep(look, args.out / "pictures" / clean_name(pair.name))
                source = " (cache)" if known else ""
                label = f"[{number}/{total}] {pair.name}, {choice.name}"
                print(f"{label}{source}: {look.figures}", flush=True)
            print(sheet.write(looks, pair), flush=True)
    return failures


def positive(text: str) -> int:
    """An argument that is a whole number ≥ 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number ≥ 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.looks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = p.add_mutually_exclusive_group()
    source.add_argument("--pairs", type=Path, nargs="+", action="extend", help="YAML files")
    source.add_argument("--drawn", action="store_true", help="the drawn pairs (default)")
    p.add_argument(
        "--settings",
        action="append",
        help="a preset, 'NAME: KEY=VALUE …' or a YAML file of named settings; repeatable",
    )
    p.add_argument("--weights", action="append", help="as in config.yaml; repeatable")
    p.add_argument(
        "--size", type=positive, default=512, help="longer side; settings may override it"
    )
    p.add_argument("--out", type=Path, default=Path("bench/looks"), help="folder of the pages")
    p.add_argument("--beside", type=Path, action="append", default=[], help="OUT of another run")
    p.add_argument("--rows", type=positive, default=6, help="pairs on a page")
    p.add_argument("--height", type=positive, default=256, help="of a picture on a page, in pixels")
    p.add_argument("--format", choices=("jpg", "png"), default="jpg", help="of the pages")
    p.add_argument("--cache", type=Path, default=default_cache_dir() / "looks")
    p.add_argument("--older-code", action="store_true", help="accept pictures of other code")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where a picture failed, or the code of an error in the arguments."""
    args = parser().parse_args(argv)
    try:
        settings = named_settings(args.settings or ["default"])
        pairs = read_pairs(args.pairs) if args.pairs else drawn_pairs(args.cache / "drawn")
        painters = [Painter(weights=weights) for weights in args.weights or ["auto"]]
        columns = choices(settings, painters, args.size)
        for folder in args.beside:
            if not (folder / "pictures").is_dir():
                raise UsageError(
                    f"--beside {folder}: there are no pictures of an earlier run",
                    remedy="name the folder that was its --out",
                )
    except NstError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    args.out.mkdir(parents=True, exist_ok=True)
    return 1 if run(pairs, columns, args) else 0


if __name__ == "__main__":
    sys.exit(main())
