"""Draw the two pictures in nst_daemon/samples, or all scenes and styles into a folder, with a sheet of them.

python -m benchmarks.drawings                 # the samples
python -m benchmarks.drawings bench/drawings  # all of them, 640 × 480
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.captioned import captioned_sheet
from benchmarks.drawings import SCENES, STYLES, draw_painting, draw_scene
from nst_daemon.samples import CONTENT, STYLE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="for all drawings and sheet.jpg")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.folder is None:
        draw_scene(640, 480, scene="riverside").save(CONTENT, optimize=True)
        draw_painting(640, 480).save(STYLE, optimize=True)
        print(CONTENT, STYLE, sep="\n")
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    cells = [(name, draw_scene(seed=args.seed, scene=name)) for name in SCENES]
    cells += [(name, draw_painting(seed=args.seed, style=name)) for name in STYLES]
    for name, picture in cells:
        picture.save(args.folder / f"{name}.png")
    captioned_sheet(cells, columns=4, height=300).save(args.folder / "sheet.jpg", quality=90)
    print(args.folder / "sheet.jpg")


if __name__ == "__main__":
    main()
