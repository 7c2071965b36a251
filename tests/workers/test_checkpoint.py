"""Checkpoints on disk."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.errors import StorageError
from nst_daemon.report.history import Sample
from nst_daemon.workers.process import checkpoint
from nst_daemon.workers.process.checkpoint import Owner, Reached, UnusableCheckpoint
from nst_daemon.workers.process.renderer import Renderer

OWNER = Owner({"inputs": [("content", "ab")], "settings": {"betas": (0.9, 0.99)}}, {"threads": 2})
REACHED = Reached(
    7,
    1.5,
    (Sample(1, 0.1, 64, {"total": 2.0}), Sample(7, 1.4, 64, {"total": 1.0}, 2)),
    (b"\xff\xd8",),
    (3,),
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Progress and state come back as they were, tuples and all."""
    path = tmp_path / "checkpoint"
    state = bytes(range(256)) + b"\n\n"
    checkpoint.save(path, OWNER, REACHED, state)
    assert checkpoint.load(path, OWNER, exactly=True) == (REACHED, state)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    """Where there is no file there is nothing to take up, and nothing to complain about."""
    assert checkpoint.load(tmp_path / "none", OWNER, exactly=True) is None


@given(data=st.data())
def test_any_damage_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A file with any one byte changed, or cut off anywhere, is unusable."""
    path = tmp_path_factory.mktemp("damage") / "checkpoint"
    checkpoint.save(path, OWNER, REACHED, b"the engine's state")
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[place] ^= data.draw(st.integers(1, 255))
    else:
        del whole[place:]
    path.write_bytes(whole)
    with pytest.raises(UnusableCheckpoint, match="is damaged"):
        checkpoint.load(path, OWNER, exactly=False)


def test_another_picture_s_checkpoint_is_refused(tmp_path: Path) -> None:
    """A checkpoint of other settings is refused with the name of what differs."""
    checkpoint.save(tmp_path / "c", OWNER, REACHED, b"")
    other = Owner(dict(OWNER.picture) | {"settings": {"betas": (0.8, 0.99)}}, OWNER.machine)
    with pytest.raises(UnusableCheckpoint, match=r"with other settings$"):
        checkpoint.load(tmp_path / "c", other, exactly=False)


def test_another_machine_s_checkpoint_is_refused_only_where_bits_count(tmp_path: Path) -> None:
    """With another number of threads a painting goes on, unless it shall be the same to the last bit."""
    checkpoint.save(tmp_path / "c", OWNER, REACHED, b"state")
    other = Owner(OWNER.picture, {"threads": 3})
    assert checkpoint.load(tmp_path / "c", other, exactly=False) == (REACHED, b"state")
    with pytest.raises(UnusableCheckpoint, match=r"with other threads$"):
        checkpoint.load(tmp_path / "c", other, exactly=True)


def test_what_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    """A folder that is not there is a StorageError, which pauses the queue, and not a crash."""
    with pytest.raises(StorageError):
        checkpoint.save(tmp_path / "none" / "c", OWNER, REACHED, b"")


def test_a_state_of_views_is_dumped_whole() -> None:
    """Tensors that are small parts of large ones, which torch saves as well, come back from a dump."""
    large = torch.arange(4 << 20, dtype=torch.float32)
    state = {"scale": 1, "tensors": {"good": large[:5]}, "optimizer": {"base": large[7:9]}}
    step: Any = SimpleNamespace(state=lambda *, copied: state)
    renderer: Any = None  # the dump needs none
    dumped = Renderer.dump(renderer, step)
    found = torch.load(io.BytesIO(dumped), weights_only=True)
    assert found["tensors"]["good"].tolist() == [0, 1, 2, 3, 4]
    assert (found["scale"], found["optimizer"]["base"].tolist()) == (1, [7, 8])
