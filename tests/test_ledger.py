"""The queue and the history."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nst_daemon.errors import LedgerError, StorageError, UsageError
from nst_daemon.jobs import (
    TRANSITIONS,
    BatchCell,
    Changes,
    Fingerprint,
    Job,
    JobInput,
    JobState,
    Role,
)
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_file import back_up, connect
from nst_daemon.ledger_listing import JobFilter, JobLists

S = JobState
MARK = Fingerprint(2, 3, 4, 5)
NUMBERS = itertools.count()


def job(name: str = "dog", **changes: Any) -> Job:
    """A job as it is claimed."""
    made = Job(
        id=f"{next(NUMBERS):032x}",
        name=name,
        source="pair",
        state=S.CLAIMED,
        inputs=(
            JobInput(Role.CONTENT, "dog.png", "dog.png", "0" * 64, 3, "d\udcff/dog.png", MARK),
            JobInput(Role.STYLE, "starry.png", "starry.png", "1" * 64, 4),
        ),
        created=1.0,
        updated=1.0,
        settings={"size": 64, "style_layers": {"relu1_1": 0.5}},
    )
    return replace(made, **changes)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


@contextmanager
def at_once(ledger: Ledger) -> Iterator[None]:
    """Many changes in one transaction, because each one of its own waits for the disk."""
    with ledger._transaction(), mock.patch.object(ledger, "_transaction", nullcontext):
        yield


def queue(ledger: Ledger, *jobs: Job) -> None:
    """Enter jobs and bring them into the queue."""
    for each in jobs:
        ledger.add(each)
        ledger.move(each.id, S.QUEUED, now=2.0)


def test_a_job_comes_back_as_it_went_in(ledger: Ledger) -> None:
    """Every field survives, also paths that are not UTF-8, and after reopening."""
    added = job()
    ledger.add(added)
    assert ledger.get(added.id) == added
    with Ledger.attach(ledger.path) as other:
        assert other.get(added.id) == added


def test_a_job_is_entered_once_and_only_as_claimed(ledger: Ledger) -> None:
    """A second job of one id, and one that begins in another state, are refused."""
    added = job()
    ledger.add(added)
    with pytest.raises(LedgerError, match="is in the ledger already"):
        ledger.add(added)
    with pytest.raises(LedgerError, match="cannot begin as queued"):
        ledger.add(job(state=S.QUEUED))


def path_to(state: JobState) -> list[JobState]:
    """A shortest legal way from `claimed` to a state."""
    ways = [[S.CLAIMED]]
    while True:
        way = ways.pop(0)
        if way[-1] is state:
            return way[1:]
        ways += [[*way, following] for following in TRANSITIONS[way[-1]]]


@pytest.mark.parametrize("start", S)
def test_only_legal_moves_are_made(ledger: Ledger, start: JobState) -> None:
    """From each state exactly the listed moves succeed; a refused one changes nothing."""
    for target in S:
        moved = job()
        ledger.add(moved)
        for step in path_to(start):
            ledger.move(moved.id, step, now=2.0)
        before = ledger.get(moved.id), ledger.events(moved.id)
        if target in TRANSITIONS[start]:
            assert ledger.move(moved.id, target, now=3.0).state is target
        else:
            with pytest.raises(LedgerError, match=f"cannot go from {start} to {target}"):
                ledger.move(moved.id, target, now=3.0)
            assert (ledger.get(moved.id), ledger.events(moved.id)) == before


def test_an_attempt_is_counted_before_it_starts(ledger: Ledger) -> None:
    """Moving to `running` counts, and nothing else does."""
    waiting = job()
    queue(ledger, waiting)
    counted = [
        ledger.move(waiting.id, state, now=3.0).attempts
        for state in (S.RUNNING, S.QUEUED, S.RUNNING, S.RETRYING, S.QUEUED, S.RUNNING, S.STAGED)
    ]
    assert counted == [1, 1, 2, 2, 2, 3, 3]


def test_a_retry_by_a_person_begins_afresh(ledger: Ledger) -> None:
    """Leaving an ended state forgets attempts, deaths, error and result, and keeps the history."""
    failed = job()
    queue(ledger, failed)
    ledger.move(failed.id, S.RUNNING, now=3.0)
    ledger.move(failed.id, S.FAILED, now=4.0, error="bad", deaths=1, not_before=9.0)
    again = ledger.move(failed.id, S.QUEUED, now=5.0)
    assert (again.attempts, again.deaths, again.error, again.not_before) == (0, 0, "", 0.0)
    assert [event.note for event in ledger.events(failed.id)].count("bad") == 1


def test_history_is_complete(ledger: Ledger) -> None:
    """Each move leaves one event with its time, its attempt and its reason."""
    told = job()
    queue(ledger, told)
    ledger.move(told.id, S.RUNNING, now=3.0)
    ledger.move(told.id, S.RETRYING, now=4.0, note="device fell off the bus")
    found = [(event.at, event.state, event.attempt, event.note) for event in ledger.events(told.id)]
    assert found == [
        (1.0, S.CLAIMED, 0, ""),
        (2.0, S.QUEUED, 0, ""),
        (3.0, S.RUNNING, 1, ""),
        (4.0, S.RETRYING, 1, "device fell off the bus"),
    ]


def test_unknown_jobs_and_fields_are_refused(ledger: Ledger) -> None:
    """A move of a job that is not there, or of a field that may not change, raises and changes nothing."""
    known = job()
    ledger.add(known)
    with pytest.raises(LedgerError, match="there is no job"):
        ledger.move("f" * 32, S.QUEUED, now=2.0)
    for name in {field.name for field in fields(Job)} & {
        "id",
        "inputs",
        "created",
        "source",
        "state",
    }:
        with pytest.raises(LedgerError, match=f"{name} cannot be changed"):
            ledger.note(known.id, now=2.0, **{name: "x"})
    with pytest.raises(LedgerError, match="speed cannot be changed"):
        ledger.move(known.id, S.QUEUED, now=2.0, speed=1)
    assert ledger.get(known.id) == known


def test_groups_take_turns(ledger: Ledger) -> None:
    """With one full group and two small ones, each group is served once before any is served twice."""
    queue(ledger, *[job(f"a{n}", group="a", created=float(n)) for n in range(4)])
    queue(ledger, job("b", group="b", created=10.0), job("c", group="", created=11.0))
    order = []
    while (following := ledger.next_queued()) is not None:
        order.append(following.name)
        ledger.move(following.id, S.RUNNING, now=20.0)
    assert order == ["a0", "b", "c", "a1", "a2", "a3"]


def test_priority_comes_before_turns(ledger: Ledger) -> None:
    """The higher number goes first, whoever's turn it is."""
    queue(ledger, job("low", priority=-1), job("usual"), job("high", priority=5, created=9.0))
    order = []
    while (following := ledger.next_queued()) is not None:
        order.append(following.name)
        ledger.move(following.id, S.RUNNING, now=20.0)
    assert order == ["high", "usual", "low"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b"]), st.integers(-1, 1), st.integers(0, 3)),
        max_size=9,
    ),
    st.integers(0, 3),
    st.integers(-1, 10),
)
def test_the_queue_is_all_jobs_in_order(
    waiting: list[tuple[str, int, int]], served: int, limit: int
) -> None:
    """The queue is what sorting all waiting jobs by priority, turn of the group, age and id gives, cut to the limit."""
    folder = tempfile.TemporaryDirectory()  # Hypothesis does not go with a folder per test
    turns: dict[str, int] = {}
    with Ledger.open(Path(folder.name) / "ledger.sqlite") as ledger:
        with at_once(ledger):
            for group, priority, created in waiting:
                queue(ledger, job(group=group, priority=priority, created=float(created)))
        for turn in range(1, served + 1):
            if following := ledger.next_queued():
                ledger.move(following.id, S.RUNNING, now=3.0)
                turns[following.group] = turn
        left = sorted(
            ledger.jobs(S.QUEUED),
            key=lambda j: (-j.priority, turns.get(j.group, 0), j.created, j.id),
        )
        assert ledger.queue(limit) == (left[:limit] if limit >= 0 else left)
    folder.cleanup()


def test_the_queue_takes_no_longer_when_it_is_long(ledger: Ledger) -> None:
    """SQLite takes as many steps to find the next of 200 waiting jobs as of 20, to within a tenth."""
    steps = []
    for more in (20, 180):
        with at_once(ledger):
            queue(ledger, *[job(group=f"g{n % 4}", created=float(n)) for n in range(more)])
        counted = itertools.count()
        ledger._db.set_progress_handler(lambda c=counted: next(c) < 0, 1)
        assert ledger.next_queued() is not None
        ledger._db.set_progress_handler(None, 0)
        steps.append(next(counted))
    assert steps[1] < 1.1 * steps[0]


def test_counts_and_lists_agree(ledger: Ledger) -> None:
    """`counts` has every state, and `jobs` as many of each."""
    queue(ledger, job(), job())
    ledger.add(job())
    counts = ledger.counts()
    assert set(counts) == set(S)
    assert all(counts[state] == len(ledger.jobs(state)) for state in S)
    assert len(ledger.jobs()) == 3


def test_history_filters(ledger: Ledger) -> None:
    """History is newest first and can be asked by state, time, name pattern and number."""
    for number, name in enumerate(["a/1", "a/2", "b"]):
        added = job(name)
        ledger.add(added)
        ledger.move(added.id, S.FAILED if name == "b" else S.QUEUED, now=10.0 + number)
    assert [found.name for found in ledger.history()] == ["b", "a/2", "a/1"]
    assert [found.name for found in ledger.history(S.FAILED)] == ["b"]
    assert [found.name for found in ledger.history(name="a/*")] == ["a/2", "a/1"]
    assert [found.name for found in ledger.history(since=11.0, limit=1)] == ["b"]


def test_find_takes_the_beginning_of_an_id_or_a_name(ledger: Ledger) -> None:
    """A job is found by its name and by the first digits of its id; wildcards mean nothing."""
    added = job("dog", id="abc" + "0" * 29)
    ledger.add(added)
    assert ledger.find("dog") == ledger.find("abc") == ledger.find(added.id) == [added]
    assert ledger.find("") == ledger.find("%") == ledger.find("a_c") == []


def test_what_was_claimed_is_known_by_path_and_version(ledger: Ledger) -> None:
    """The same version of the same path is recognised; another version or another path is not."""
    added = job()
    ledger.add(added)
    assert ledger.claimed_before("d\udcff/dog.png", MARK) == added
    assert ledger.claimed_before("d\udcff/dog.png", MARK._replace(ctime_ns=6)) is None
    assert ledger.claimed_before("dog.png", MARK) is None


def test_pruning_takes_only_what_ended_long_ago(ledger: Ledger) -> None:
    """Ended jobs from before the time go with their events; younger ones and living ones stay."""
    old, young, living = job("old"), job("young"), job("living")
    for added in (old, young, living):
        ledger.add(added)
    ledger.move(old.id, S.FAILED, now=10.0)
    ledger.move(young.id, S.FAILED, now=20.0)
    assert ledger.prune(15.0, limit=9) == 1
    assert ledger.events(old.id) == []
    assert ledger.ids() == {young.id, living.id}


def test_pruning_begins_with_the_oldest_and_ends_at_its_limit(ledger: Ledger) -> None:
    """Of three old jobs, a limit of two leaves the youngest."""
    ages = {30.0: job("young"), 10.0: job("old"), 20.0: job("middle")}
    for ended, added in ages.items():
        ledger.add(added)
        ledger.move(added.id, S.FAILED, now=ended)
    assert ledger.prune(99.0, limit=2) == 2
    assert ledger.ids() == {ages[30.0].id}


def test_ended_jobs_come_in_parts_without_gaps(ledger: Ledger) -> None:
    """Parts of two list every archived job before the time once, also those that ended at the same moment."""
    ended = [job(f"n{number}") for number in range(5)]
    for number, added in enumerate(ended):
        ledger.add(added)
        ledger.move(added.id, S.FAILED, now=10.0 + number // 3)
        ledger.note(added.id, now=10.0 + number // 3, archive=added.name)
    late = job("late")
    ledger.add(late)
    ledger.move(late.id, S.FAILED, now=50.0)
    ledger.note(late.id, now=50.0, archive="late")
    seen: list[str] = []
    after = None
    while part := ledger.ended([S.FAILED], after, 20.0, limit=2):
        seen += [one.archive for one in part]
        after = part[-1]
    assert sorted(seen) == sorted(added.name for added in ended)


def test_pruning_keeps_jobs_whose_originals_cannot_be_removed(ledger: Ledger) -> None:
    """An ended job stays as long as one of its originals is marked, and the mark survives a new connection."""
    stuck = job()
    ledger.add(stuck)
    ledger.move(stuck.id, S.FAILED, now=10.0)
    (file, _) = stuck.inputs
    ledger.mark_unremovable(stuck.id, [file.origin])
    assert ledger.prune(15.0, limit=9) == 0
    ledger.recognise(stuck.id, file.origin, Fingerprint(6, 3, 7, 8))
    with Ledger.attach(ledger.path) as other:
        again = replace(file, fingerprint=Fingerprint(6, 3, 7, 8))
        assert other.unremovable() == {file.origin: (stuck.id, again)}
        assert other.claimed_before(file.origin, MARK) is None
    ledger.mark_unremovable(stuck.id, [])
    assert ledger.prune(15.0, limit=9) == 1


def test_requests_of_other_processes_arrive(ledger: Ledger) -> None:
    """What another connection asks for is pending until it is struck out; nonsense is refused."""
    added = job()
    ledger.add(added)
    with Ledger.attach(ledger.path) as other:
        other.request(added.id, "cancel", now=5.0)
        with pytest.raises(LedgerError, match="'explode' is not a request"):
            other.request(added.id, "explode", now=5.0)
        with pytest.raises(LedgerError, match="there is no job"):
            other.request("f" * 32, "cancel", now=5.0)
    (request,) = ledger.pending_requests()
    assert (request.job_id, request.verb, request.at) == (added.id, "cancel", 5.0)
    ledger.finish_request(request.number)
    assert ledger.pending_requests() == []


def test_others_read_while_the_daemon_writes(ledger: Ledger) -> None:
    """A reader is not held up by an open transaction of the daemon, and sees only what was committed."""
    added = job()
    ledger.add(added)
    with Ledger.attach(ledger.path) as other:
        ledger._db.execute("BEGIN IMMEDIATE")
        ledger._db.execute("UPDATE jobs SET name = 'cat'")
        found = other.get(added.id)
        ledger._db.execute("ROLLBACK")
    assert found == added


def test_jobs_are_known_by_their_folder(ledger: Ledger) -> None:
    """Only a folder whose files became a job has jobs; a folder with a similar name has none."""
    ledger.add(job(name="trip/dog"))
    assert ledger.has_jobs_in("trip")
    assert not any(map(ledger.has_jobs_in, ("tri", "trip/dog", "trip2", "tri?")))


def test_attaching_needs_a_ledger(tmp_path: Path) -> None:
    """Where no daemon has run, and in a wrong folder, the usage is wrong, and nothing is created."""
    with pytest.raises(UsageError, match=r"no daemon has run here yet, so there are no jobs"):
        Ledger.attach(tmp_path / "ledger.sqlite")
    with pytest.raises(UsageError, match=r"there is no \S+/nst/state, so this is not a root"):
        Ledger.attach(tmp_path / "nst" / "state" / "ledger.sqlite")
    assert list(tmp_path.iterdir()) == []


DIE_IN_TRANSACTION = """
import os, signal, sys
from pathlib import Path
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]))
job = Job("a" * 32, "dog", "pair", JobState.CLAIMED, (), 1.0, 1.0)
ledger.add(job)
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
ledger._event = die  # between the change of the row and the commit
ledger.move(job.id, JobState.QUEUED, now=2.0)
"""


def test_a_kill_in_a_transaction_leaves_the_state_before(tmp_path: Path) -> None:
    """A process killed between two statements of a move leaves the job as it was, with its events."""
    path = tmp_path / "ledger.sqlite"
    ended = subprocess.run([sys.executable, "-c", DIE_IN_TRANSACTION, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    with Ledger.open(path) as ledger:
        (found,) = ledger.jobs()
        assert (found.state, ledger.repaired) == (S.CLAIMED, "")
        assert len(ledger.events(found.id)) == 1


def test_it_is_written_for_power_cuts(ledger: Ledger) -> None:
    """The connection runs with WAL and synchronous=FULL (2), and keeps references sound."""
    pragmas = [
        ledger._db.execute(f"PRAGMA {p}").fetchone()[0]
        for p in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert pragmas == ["wal", 2, 1]


@pytest.mark.parametrize(
    "damage",
    [
        "head",
        "file format",
        "schema",
        "name",
        "middle",
        "text",
        "empty page",
        "empty",
        "one byte",
        "no table",
    ],
)
def test_a_damaged_ledger_is_kept_and_replaced_by_its_backup(tmp_path: Path, damage: str) -> None:
    """Whatever is damaged, opening keeps the file, restores the last backup and says so."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        for _ in range(50):
            ledger.add(job())
        back_up(path)
    data = bytearray(path.read_bytes())
    if damage == "text":
        data = bytearray(b"this is not a database\n" * 100)
    elif damage in {"empty", "one byte"}:
        data = bytearray(damage == "one byte")
    elif damage == "no table":
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE requests")
        database.close()
        data = bytearray(path.read_bytes())
    elif damage == "schema":
        data = data.replace(b"ON events (job)", b"ON events (j\xffb)")
    elif damage == "name":
        data = data.replace(b"jobs_in_queue", b"jobs_in_queu\xff")
    elif damage == "file format":
        data[44:48] = (99).to_bytes(4)
    else:
        start = {"head": 0, "middle": len(data) // 8192 * 4096, "empty page": 4096}[damage]
        data[start : start + 3000] = bytes(3000) if damage == "empty page" else os.urandom(3000)
    path.write_bytes(data)
    with Ledger.open(path) as ledger:
        assert "was damaged" in ledger.repaired
        assert "its backup ledger.sqlite.backup was restored" in ledger.repaired
        assert len(ledger.jobs()) == 50
    assert (tmp_path / "ledger.sqlite.damaged-1").read_bytes() == bytes(data)


def test_a_locked_ledger_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    """While another program has the ledger locked, opening raises StorageError and leaves the file in its place."""
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    before = path.read_bytes()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with (
            mock.patch.object(connect, "__defaults__", (0.01,)),
            pytest.raises(StorageError, match="is locked by another process"),
        ):
            Ledger.open(path)
        assert path.read_bytes() == before


def test_a_ledger_that_has_gone_is_replaced_by_its_backup(tmp_path: Path) -> None:
    """Where only the copy is left a start takes it, says so, and does not write an empty one over it."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        assert ledger.repaired == ""
        ledger.add(job())
        back_up(path)
    path.rename(tmp_path / "ledger.sqlite-wal")  # as good as any that is left behind
    for repaired in ("the ledger was missing; its backup ledger.sqlite.backup was restored", ""):
        with Ledger.open(path) as ledger:
            assert ledger.repaired.startswith(repaired)
            assert bool(ledger.repaired) == bool(repaired)
            assert len(ledger.jobs()) == 1


def test_without_a_sound_backup_a_new_ledger_is_begun(tmp_path: Path) -> None:
    """Where the backup is damaged too, both are kept and an empty ledger is opened."""
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    for file in (path, tmp_path / "ledger.sqlite.backup"):
        file.write_bytes(b"nonsense" * 1000)
    with Ledger.open(path) as ledger:
        assert "a new ledger was created" in ledger.repaired
        assert ledger.jobs() == []
        ledger.add(job())
    assert (tmp_path / "ledger.sqlite.damaged-1").exists()


def test_a_text_that_is_not_utf8_is_damage(ledger: Ledger) -> None:
    """A row with damaged text is a LedgerError, and no other exception."""
    ledger.add(job())
    ledger._db.execute("UPDATE jobs SET name = CAST(x'ff' AS TEXT)")
    with pytest.raises(LedgerError, match="is damaged"):
        ledger.jobs()


def test_damage_noticed_later_says_what_to_do(ledger: Ledger) -> None:
    """Damage that is met while the ledger is open is a LedgerError with its remedy."""
    for _ in range(50):
        ledger.add(job())
    ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with ledger.path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(100_000))
    with (
        Ledger.attach(ledger.path) as other,
        pytest.raises(LedgerError, match="restart the daemon"),
    ):
        other.jobs()


def test_a_ledger_that_was_replaced_is_noticed(ledger: Ledger) -> None:
    """Once another file stands in its place, or none, `check` raises StorageError."""
    ledger.check()
    away = ledger.path.with_suffix(".away")
    ledger.path.rename(away)
    with pytest.raises(StorageError, match=r"ledger\.sqlite does not exist"):
        ledger.check()
    ledger.path.write_bytes(away.read_bytes())
    with pytest.raises(StorageError, match="has been replaced by another file"):
        ledger.check()
    away.replace(ledger.path)
    ledger.check()


def test_a_locked_ledger_is_a_matter_of_storage(tmp_path: Path) -> None:
    """A ledger that another program holds locked raises a StorageError that says so, so that the queue waits."""
    Ledger.open(tmp_path / "ledger.sqlite").close()
    with Ledger.attach(tmp_path / "ledger.sqlite", busy_seconds=0.01) as ledger:
        other = sqlite3.connect(ledger.path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="is locked by another process"):
            ledger.add(job())
        other.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(S)), max_size=40))
def test_any_sequence_of_moves_keeps_the_books(moves: list[tuple[int, JobState]]) -> None:
    """After any moves, legal or not, each job's state is that of its last event and attempts never fall."""
    folder = tempfile.TemporaryDirectory()  # Hypothesis does not go with a folder per test
    ledger = Ledger.open(Path(folder.name) / "ledger.sqlite")
    jobs = [job(str(number)) for number in range(5)]
    for each in jobs:
        ledger.add(each)
    for number, state in moves:
        try:
            ledger.move(jobs[number].id, state, now=2.0)
        except LedgerError:
            continue
    for each in jobs:
        events = ledger.events(each.id)
        found = ledger.get(each.id)
        assert found is not None
        assert events[-1].state is found.state
        assert all(b.state in TRANSITIONS[a.state] for a, b in itertools.pairwise(events))
    ledger.close()
    folder.cleanup()


def test_settings_are_json(ledger: Ledger) -> None:
    """What is stored of the settings is JSON that any tool reads."""
    added = job()
    ledger.add(added)
    (text,) = ledger._db.execute("SELECT settings FROM jobs").fetchone()
    assert json.loads(text) == added.settings


@pytest.mark.parametrize("seed", range(5))
def test_the_painting_order_is_the_order_of_painting(tmp_path: Path, seed: int) -> None:
    """The list of the queue, whole or its beginning, is the order in which jobs are then taken one by one."""
    chance = random.Random(seed)
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger, JobLists(path, connect=connect) as lists:
        for number in range(25):
            group, priority = chance.choice("abcd"), chance.choice((0, 0, 1))
            added = job(f"{number}", group=group, priority=priority, created=chance.random())
            ledger.add(added)
            ledger.move(added.id, S.QUEUED, now=2.0)
            if number == 10:
                for _ in range(chance.randrange(4)):
                    ledger.move(ledger.queue(1)[0].id, S.RUNNING, now=3.0)
        queued = JobFilter(states=(S.QUEUED,))
        whole, first = lists.in_painting_order(queued, 100), lists.in_painting_order(queued, 7)
        painted = []
        while following := ledger.next_queued():
            painted.append(following.id)
            ledger.move(following.id, S.RUNNING, now=4.0)
    assert whole == painted
    assert first == painted[:7]


def test_requests_for_several_jobs_are_stored_together(ledger: Ledger) -> None:
    """With an unknown job none is stored; an equal request adds its changes to the earlier one."""
    first, second = job("1"), job("2")
    ledger.add(first)
    ledger.add(second)
    with pytest.raises(LedgerError, match="no job"):
        ledger.request_all([first.id, "f" * 32], "cancel", now=5.0)
    assert ledger.pending_requests() == []
    ledger.request_all([first.id, second.id], "retry", now=5.0, changes=Changes({"size": 64}))
    ledger.request_all([second.id], "retry", now=6.0, changes=Changes({"seed": 1}))
    found = {r.job_id: dict(r.changes.written) for r in ledger.pending_requests()}
    assert found == {first.id: {"size": 64}, second.id: {"size": 64, "seed": 1}}
    assert [r.job_id for r in ledger.pending_requests([second.id])] == [second.id]


def test_readmission_replaces_inputs_and_settings(tmp_path: Path) -> None:
    """A job that is admitted again has its new inputs and settings, no error and no attempts, and its old place."""
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        first = job(settings={"seed": 1})
        ledger.add(first)
        ledger.move(first.id, S.FAILED, now=2, error="bad", archive="dog")
        again = replace(first, inputs=first.inputs[:1], settings={"seed": 2}, created=50.0)
        ledger.readmit(again, now=60, note="retried")
        found = ledger.get(first.id)
        assert found is not None
        assert (found.state, found.error, found.attempts) == (S.QUEUED, "", 0)
        assert (found.inputs, found.settings) == (first.inputs[:1], {"seed": 2})
        assert (found.created, found.updated, found.archive) == (first.created, 60, "dog")
        assert ledger.events(first.id)[-1].note == "retried"
        with pytest.raises(LedgerError, match="cannot be readmitted from queued"):
            ledger.readmit(again, now=70, note="")


def test_the_cell_of_a_batch_is_kept(tmp_path: Path) -> None:
    """A batch's job comes out of the ledger with its style, position and swept values in the order written."""
    cell = BatchCell("night", "waves", {"seed": 1, "content_weight": 0.5}, (0, 2, 1))
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(replace(job(), batch=cell, weights="c" * 64))
        (found,) = ledger.jobs()
    assert found.batch == cell
    assert list(found.batch.swept) == ["seed", "content_weight"]
    assert found.weights == "c" * 64


def test_an_empty_ledger_is_not_a_root_without_a_daemon(tmp_path: Path) -> None:
    """A ledger whose file was cut off is said to be empty, with the way to restore it."""
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"x")
    with pytest.raises(
        LedgerError, match=r"ledger\.sqlite is empty; start the daemon: it restores"
    ):
        Ledger.attach(path)
