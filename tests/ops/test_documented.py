"""docs/jobs.md against the program."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from nst_daemon.config import load
from nst_daemon.engine.presets import PRESETS
from nst_daemon.jobs import Changes, Job, JobInput, JobState, Role
from nst_daemon.ledger_reader import JobEvent
from nst_daemon.ops import status
from nst_daemon.ops.doctor import Finding
from nst_daemon.service.live_status import LiveStatus, PaintingStatus
from nst_daemon.tokens import TokenRow
from nst_daemon.weights_file import ModelRow

PAGE = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("| command | keys |")[2]
JOB = Job(
    "0" * 32, "dog", "pair", JobState.FAILED, (JobInput(Role.CONTENT, "a", "a", "", 1),), 1.0, 1.0
)
STORY = status.story(JOB, [JobEvent(1.0, JobState.FAILED, 1, "no")])
BATCH = status.batch_summary("night", 1, [JOB], [], {})


def gathered(root: Path) -> Mapping[str, Any]:
    found = status.gather(load(None, {"NST_FOLDERS__ROOT": str(root)}, search=()).folders)
    return found.as_json()


def live() -> Mapping[str, Any]:
    shown = LiveStatus(1, 0.0, 0.0, "idle", "", "idle")
    found = status.Status(Path(), shown, True, {}, (), (), (), {}).as_json()["live"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ("`status`", gathered(Path("/nonexistent"))),
        ("`status`, `live`", live()),
        ("`status`, an entry of `live.paintings`", [f.name for f in fields(PaintingStatus)]),
        ("`history`, an entry", status.brief(JOB)),
        ("`history JOB`", STORY.keys() - status.brief(JOB).keys()),
        ("`history JOB`, an entry of `inputs`", STORY["inputs"][0]),
        ("`history JOB`, `changes`", asdict(Changes())),
        ("`history JOB`, an entry of `events`", STORY["events"][0]),
        ("`batch`", BATCH),
        ("`batch`, an entry", BATCH["jobs"][0].keys() - status.brief(JOB).keys()),
        ("`presets`", asdict(PRESETS["bold"])),
        ("`token list`", [f.name for f in fields(TokenRow)]),
        ("`model list`", [f.name for f in fields(ModelRow)]),
        ("`doctor`", [f.name for f in fields(Finding)]),
    ],
)
def test_the_keys_of_json_are_documented(row: str, keys: Any) -> None:
    """The page lists exactly the keys that the commands print."""
    starts = [line for line in TABLE.splitlines() if line.startswith(f"| {row}")]
    line = min(starts, key=lambda found: len(found.split("|")[1]))
    listed = re.findall(r"`([a-z_0-9]+)`", line.split("|")[2].replace("of `history`", ""))
    assert set(listed) == set(keys)


def test_the_states_are_documented() -> None:
    """The page lists every state of a job."""
    sentence = PAGE[PAGE.index("`state` is") :]
    assert re.findall(r"`([a-z]+)`", sentence)[1:] == [state.value for state in JobState]
