"""Render the two pictures in nst_daemon/samples: `python -m benchmarks.drawings`."""

from __future__ import annotations

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.samples import CONTENT, STYLE

if __name__ == "__main__":
    draw_scene(640, 480, scene="riverside").save(CONTENT, optimize=True)
    draw_painting(640, 480).save(STYLE, optimize=True)
    print(CONTENT, STYLE, sep="\n")
