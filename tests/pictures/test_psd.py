"""Hostile PSD files: damage, sizes that lie, and little data that becomes much."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nst_daemon.errors import PictureError
from nst_daemon.pictures.decode import decode_file
from tests.pictures.corpus.psd import RGB, RLE, block_of, resource, sample, sized

HEAD = struct.pack(">4sH6x", b"8BPS", 1)


def refusal(data: bytes, folder: Path) -> str:
    """Why a file is refused."""
    path = folder / "picture"
    path.write_bytes(data)
    with pytest.raises(PictureError) as refused:
        decode_file(path, name="picture")
    return str(refused.value)


def head(height: int, width: int, channels: int = 3, version: int = 1) -> bytes:
    """The header and three empty sections of an RGB file of 8 bits."""
    start = struct.pack(">4sH6xHIIHH", b"8BPS", version, channels, height, width, 8, RGB)
    return start + sized(b"") + sized(b"") + sized(b"", version == 2)


def test_lengths_of_rows_that_lie_are_not_allocated(tmp_path: Path) -> None:
    """A file of 10,000 rows of 65,535 bytes each that ends after their lengths is refused."""
    lengths = b"\xff\xff" * 30_000
    text = refusal(head(10_000, 10_000) + struct.pack(">H", RLE) + lengths, tmp_path)
    assert "damaged or truncated: it ends too early" in text


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, 300_000), (300_000, 1)])
def test_sizes_are_checked_before_decoding(size: tuple[int, int], tmp_path: Path) -> None:
    """A PSB that is larger than the limits is refused by them."""
    assert "pixels; the limits are" in refusal(head(*size, version=2) + bytes(100), tmp_path)


def test_giant_sections_are_skipped(tmp_path: Path) -> None:
    """A section of layers that claims 2**63 bytes is refused, as is one that ends behind the file."""
    start = struct.pack(">4sH6xHIIHH", b"8BPS", 2, 4, 16, 16, 8, RGB) + sized(b"") + sized(b"")
    for length in (2**63 - 1, 2**63, 2**64 - 1, 10**9):
        assert "damaged or truncated" in refusal(
            start + struct.pack(">Q", length) + bytes(50), tmp_path
        )


@pytest.mark.timeout(60)
def test_thousands_of_resources_and_blocks_take_little_time(tmp_path: Path) -> None:
    """A file with 200,000 resources and as many blocks of layers is decoded within a minute."""
    psd = sample(RGB, 16, 1)
    data = psd.encode()
    resources = resource(4000, b"") * 200_000
    layers = sized(b"") + sized(b"") + block_of(b"abcd", b"", big=False) * 200_000
    path = tmp_path / "picture"
    path.write_bytes(data[:26] + sized(b"") + sized(resources) + sized(layers) + data[38:])
    assert decode_file(path).alpha is None


CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from nst_daemon.errors import PictureError
from nst_daemon.machine import proc_bytes
from nst_daemon.pictures.decode import decode_file
path = Path(sys.argv[1])
data = path.read_bytes()
random = np.random.default_rng(1)
counts = {}
for step in range(int(sys.argv[2])):
    changed = bytearray(data)
    for place in random.integers(0, 200 if step % 2 else len(data), random.integers(0, 6)):
        changed[place] = random.integers(0, 256)
    path.write_bytes(changed[: random.integers(0, len(data))] if step % 5 == 4 else changed)
    try:
        assert np.isfinite(decode_file(path, name="picture").colours).all()
        kind = "decoded"
    except PictureError as error:
        kind = "refused"
    counts[kind] = counts.get(kind, 0) + 1
print(json.dumps([counts, proc_bytes(Path("/proc/self/status"))["VmHWM"]]))
"""


@pytest.mark.parametrize(("depth", "layers"), [(8, ""), (8, "count"), (16, "block"), (32, "mark")])
def test_damaged_files_are_refused_or_decoded(depth: int, layers: str, tmp_path: Path) -> None:
    """300 damaged versions of a PSD end as a picture or as a refusal, with little memory."""
    path = tmp_path / "picture"
    path.write_bytes(sample(RGB, depth, 1, compression=RLE, layers=layers).encode())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), "300"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts, peak = json.loads(done.stdout)
    assert counts["decoded"] > 0
    assert counts["refused"] > 0
    assert peak < 300e6


def test_a_picture_of_runs_takes_what_is_estimated(tmp_path: Path) -> None:
    """1.4 MB of runs that become 65 megapixels take no more memory than is estimated for them."""
    side = 8064
    row = b"\x81\xff" * (side // 128)
    lengths = struct.pack(">H", len(row)) * side
    path = tmp_path / "picture"
    start = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 1, side, side, 8, 1)
    path.write_bytes(start + sized(b"") * 3 + struct.pack(">H", RLE) + lengths + row * side)
    code = (
        "import sys; from pathlib import Path\n"
        "from nst_daemon.machine import proc_bytes\n"
        "from nst_daemon.pictures.readers import psd\n"
        "before = proc_bytes(Path('/proc/self/status'))['VmHWM']\n"
        "stored = psd.open_picture(open(sys.argv[1], 'rb'))\n"
        "assert (stored.decode(None).colours == 255).all()\n"
        "print(proc_bytes(Path('/proc/self/status'))['VmHWM'] - before - stored.decoding_bytes(None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 24e6
    assert np.prod((side, side)) > 40 * path.stat().st_size
