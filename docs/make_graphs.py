"""Write export/graphs/: the exported graphs of VGG19 for the presets' layers, without weights (`make graphs`).

Run it after a change of the graph, of a preset's layers or of torch's exporter.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import resolve
from nst_daemon.export.graph import GraphSpec
from nst_daemon.export.onnx_files import stripped, without_weights
from nst_daemon.painter import Painter

FOLDER = Path(__file__).parent.parent / "export" / "graphs"


def specs(painter: Painter) -> dict[str, tuple[str, GraphSpec]]:
    """File name → the first preset that uses the graph, and its spec."""
    found: dict[str, tuple[str, GraphSpec]] = {}
    for preset in PRESETS:
        spec = painter.spec(resolve({"preset": preset}))
        found.setdefault(without_weights(spec).filename, (preset, spec))
    return found


def main() -> None:
    """Export each graph, and remove those that no preset uses."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        painter = Painter(weights="bundled", device="cpu", cache_dir=Path(folder))
        graphs = specs(painter)
        for name, (preset, _) in graphs.items():
            file = painter.export(resolve({"preset": preset}))
            (FOLDER / name).write_bytes(stripped(file.read_bytes()))
    for path in FOLDER.glob("*.onnx"):
        if path.name not in graphs:
            path.unlink()


if __name__ == "__main__":
    main()
