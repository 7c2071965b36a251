"""Lists of jobs, and one job."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from nst_daemon.jobs import BatchCell, JobInput, JobState, Role
from nst_daemon.ledger import Ledger
from nst_daemon.web.options import PageOptions
from tests.web.conftest import add, picture

API = "/api/v1"


def names(visitor: TestClient, query: str) -> list[str]:
    """The names of the jobs that are listed."""
    answer = visitor.get(f"{API}/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return [job["name"] for job in answer.json()["jobs"]]


def test_filters(visitor: TestClient, options: PageOptions) -> None:
    """Jobs are found by state, by a part of the name in any case, by result, by group and by time."""
    add(options, "Ärger/waits", now=10.0, group="Ärger")
    add(options, "50%_a", error="no", now=20.0)
    add(options, "dog", result="dog.png", now=30.0)
    assert names(visitor, "") == ["dog", "50%_a", "Ärger/waits"]
    assert names(visitor, "order=oldest") == ["Ärger/waits", "50%_a", "dog"]
    assert names(visitor, "state=failed&state=queued") == ["50%_a", "Ärger/waits"]
    assert names(visitor, "q=ärGER") == ["Ärger/waits"]
    assert names(visitor, "q=DO") == ["dog"]
    assert names(visitor, "q=%25_") == ["50%_a"]
    assert names(visitor, "q=_o") == []
    assert names(visitor, "result=true") == ["dog"]
    assert names(visitor, "group=Ärger") == ["Ärger/waits"]
    assert names(visitor, "since=20&before=31") == ["50%_a"]


def test_filter_by_style(visitor: TestClient, options: PageOptions) -> None:
    """Jobs are found by a style picture, by the folder of a style and by the style of a batch, not by a longer name."""

    def styled(*names: str) -> tuple[JobInput, ...]:
        return tuple(JobInput(Role.STYLE, name, name, "0" * 64, 1) for name in names)

    add(options, "blend", now=10.0, inputs=styled("oil.jpg", "100%_a.png"))
    add(options, "other", now=20.0, inputs=styled("oil.two.jpg", "100__a.png"))
    add(options, "oil/hot", now=30.0, source="style", group="oil", inputs=styled("1.png"))
    cell = BatchCell("oil", "swirls", {}, (0, 0, 0))
    add(options, "evening", now=35.0, inputs=styled("evening.style.png", "evening.style-2.jpg"))
    add(options, "batch", now=40.0, source="batch", group="oil", batch=cell)
    assert names(visitor, "style=oil") == ["oil/hot", "blend"]
    assert names(visitor, "style=100%25_a") == ["blend"]
    assert names(visitor, "style=swirls") == ["batch"]
    assert names(visitor, "style=evening") == ["evening"]
    styles = [job["styles"] for job in visitor.get(f"{API}/jobs?order=oldest").json()["jobs"]]
    assert styles == [["oil", "100%_a"], ["oil.two", "100__a"], ["1"], ["evening"], []]


def test_parts_of_a_list(visitor: TestClient, options: PageOptions) -> None:
    """The parts of a list hold every job once, also jobs with the same time; the total counts all."""
    for number in range(7):
        add(options, f"job-{number}", now=float(number // 3))
    for order in ("newest", "oldest"):
        found, cursor = [], ""
        while True:
            query = f"order={order}&limit=2&cursor={cursor}"
            page = visitor.get(f"{API}/jobs?{query}").json()
            assert page["total"] == 7
            found += [job["name"] for job in page["jobs"]]
            cursor = page["next"]
            if not cursor:
                break
        assert len(found) == 7
        assert sorted(found) == [f"job-{number}" for number in range(7)]


@pytest.mark.parametrize(
    "query",
    [
        *("cursor=x", "cursor=1_2", "cursor=newest_._" + "0" * 32, "cursor=oldest_1_" + "0" * 32),
        "order=queue&cursor=queue_99999999999999999999_" + "0" * 32,
        *("limit=0", "limit=201", "state=odd"),
        *("since=nan", "before=inf", "order=other", "q=" + "x" * 201),
    ],
)
def test_invalid_queries_are_refused(visitor: TestClient, query: str) -> None:
    """A query that means nothing is an error with the reason."""
    answer = visitor.get(f"{API}/jobs?{query}")
    assert answer.status_code in {400, 422}
    assert answer.json()["error"]


def test_titles_tell_pictures_of_a_batch_apart(visitor: TestClient, options: PageOptions) -> None:
    """The title of a picture of a batch has its content, its style and its swept settings."""
    cell = BatchCell("holiday", "starry", {"size": 512, "clamp": True}, (0, 0, 0))
    inputs = (JobInput(Role.CONTENT, "dog.jpg", "dog.jpg", "0" * 64, 1),)
    add(options, "holiday/x", source="batch", group="holiday", batch=cell, inputs=inputs)
    add(options, "dog")
    by_name = {job["name"]: job for job in visitor.get(f"{API}/jobs").json()["jobs"]}
    assert by_name["holiday/x"]["title"] == "dog, starry, size: 512, clamp: true"
    assert by_name["holiday/x"]["batch"]["swept"] == {"size": 512, "clamp": True}
    assert by_name["dog"]["title"] == "dog"
    assert names(visitor, "batch=holiday") == ["holiday/x"]


def test_actions_follow_the_state_and_the_requests(
    visitor: TestClient, options: PageOptions
) -> None:
    """A job says what can be requested, and what was requested and is not handled yet."""
    waits = add(options, "waits")
    failed = add(options, "failed", error="no", archive="failed")
    done = add(options, "done", result="done.png")
    actions = {job["id"]: job["actions"] for job in visitor.get(f"{API}/jobs").json()["jobs"]}
    assert actions == {
        waits: ["cancel", "priority"],
        failed: ["retry", "delete"],
        done: ["delete"],
    }
    with Ledger.open(options.folders.ledger) as ledger:
        ledger.request(waits, "cancel", now=9.0)
    job = visitor.get(f"{API}/jobs/{waits}").json()
    assert (job["requested"], job["actions"]) == (
        "cancel",
        ["retry", "priority", "delete"],
    )


def test_details_of_a_job(visitor: TestClient, options: PageOptions) -> None:
    """A job has its inputs, settings and history."""
    inputs = (JobInput(Role.CONTENT, "dog.jpg", "dog.jpg", "0" * 64, 123),)
    job = add(options, "dog", error="no <picture>", inputs=inputs, settings={"size": 64})
    found = visitor.get(f"{API}/jobs/{job}").json()
    assert found["inputs"] == [
        {"role": "content", "name": "dog.jpg", "bytes": 123, "sha256": "0" * 64, "available": False}
    ]
    assert found["settings"] == {"size": 64}
    assert [event["state"] for event in found["events"]] == ["claimed", "failed"]
    assert (found["short_id"], found["error"]) == (job[:8], "no <picture>")


def test_a_missing_ledger_is_said(visitor: TestClient, options: PageOptions) -> None:
    """If the ledger was removed, no route responds that a job does not exist."""
    options.folders.ledger.unlink()
    number = "0" * 32
    for path in ("status", "jobs", f"jobs/{number}", f"results.zip?id={number}", "batches"):
        answer = visitor.get(f"{API}/{path}")
        assert (answer.status_code, "does not exist" in answer.json()["cause"]) == (503, True), path
    assert act(visitor, "cancel", states=["queued"]).status_code == 503


def test_a_ledger_that_cannot_be_read_is_said(visitor: TestClient, options: PageOptions) -> None:
    """With a damaged ledger or one of another version, every route responds with the reason."""
    job = add(options, "dog", result="dog.png")
    paths = ("jobs", f"jobs/{job}", f"jobs/{job}/result", f"results.zip?id={job}")
    database = sqlite3.connect(options.folders.ledger)
    database.execute("PRAGMA user_version = 99")
    database.close()
    for path in paths:
        answer = visitor.get(f"{API}/{path}")
        assert (answer.status_code, "newer version" in answer.json()["error"]) == (503, True)
    options.folders.ledger.write_bytes(b"this is no ledger" * 100)
    for path in paths:
        answer = visitor.get(f"{API}/{path}")
        assert answer.status_code == 503, path
        assert "damaged" in answer.json()["error"], path


def act(visitor: TestClient, action: str, **body: object) -> Response:
    """The response to the request of an action."""
    return visitor.post(f"{API}/jobs/actions", json={"action": action, **body})


def requests(options: PageOptions) -> list[tuple[str, str, dict[str, object]]]:
    """The requests in the ledger: job, verb and what is written."""
    with Ledger.open(options.folders.ledger) as ledger:
        return [(r.job_id, r.verb, dict(r.changes.written)) for r in ledger.pending_requests()]


def test_actions_are_stored_for_the_daemon(visitor: TestClient, options: PageOptions) -> None:
    """An action stores a request for each job for which it is possible, and says why not for the others."""
    waits, done = add(options, "waits"), add(options, "done", result="done.png")
    unknown = "f" * 32
    answer = act(visitor, "cancel", ids=[waits, done, unknown, waits])
    assert answer.status_code == 202
    assert answer.json()["requested"] == [waits]
    problems = {problem["id"]: problem["cause"] for problem in answer.json()["problems"]}
    assert problems.keys() == {done, unknown}
    assert "has ended already (done)" in problems[done]
    assert requests(options) == [(waits, "cancel", {})]
    assert act(visitor, "delete", ids=[done]).json() == {"requested": [done], "problems": []}
    assert requests(options)[1:] == [(done, "delete", {})]


def test_a_retry_with_changes(visitor: TestClient, options: PageOptions) -> None:
    """A retry is checked at once: settings that would be refused are an error, others are stored."""
    failed = add(options, "dog", error="no")
    refused = act(visitor, "retry", ids=[failed], set={"seeed": 1})
    assert refused.status_code == 400
    assert "did you mean seed?" in refused.json()["error"]
    assert requests(options) == []
    body = {"set": {"size": 80}, "unset": ["seed"], "priority": 5}
    assert act(visitor, "retry", states=["failed"], **body).status_code == 202
    assert requests(options) == [(failed, "retry", {"size": 80, "priority": 5})]
    both = act(visitor, "retry", ids=[failed], set={"size": 80}, unset=["size"])
    assert both.status_code == 400


def test_a_priority_is_requested_for_jobs_that_have_not_ended(
    visitor: TestClient, options: PageOptions
) -> None:
    """The latest priority counts; a job that has ended has none to change."""
    waits, failed = add(options, "waits"), add(options, "failed", error="no")
    for priority in (3, -4):
        answer = act(visitor, "priority", states=["queued", "failed"], priority=priority)
        assert answer.json() == {"requested": [waits], "problems": []}
    assert requests(options) == [(waits, "priority", {"priority": -4})]
    assert act(visitor, "priority", ids=[failed], priority=1).status_code == 409
    assert act(visitor, "priority", ids=[waits], priority=1001).status_code == 422


def test_an_action_for_what_does_not_exist_is_status_404(visitor: TestClient) -> None:
    """Unknown jobs and batches are not found; what exists but cannot be cancelled is a conflict."""
    for body, said in (
        ({"batch": "no"}, "there is no batch no"),
        ({"ids": ["0" * 32]}, "there is no job 0"),
    ):
        answer = act(visitor, "cancel", **body)
        assert answer.status_code == 404, body
        assert answer.json()["error"].startswith(said)
    assert act(visitor, "cancel", states=["queued"]).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {"action": "cancel"},
        {"action": "cancel", "states": ["failed"]},
        {"action": "cancel", "states": ["queued"], "set": {"size": 1}},
        {"action": "delete", "states": ["queued"], "priority": 1},
        {"action": "priority", "states": ["queued"]},
        {"action": "retry", "ids": ["0" * 31]},
        {"action": "explode", "states": ["queued"]},
        {"action": "cancel", "state": ["queued"]},
    ],
)
def test_actions_that_mean_nothing_are_refused(
    visitor: TestClient, options: PageOptions, body: dict[str, object]
) -> None:
    """Without a job, with changes that do not belong to it, or with a misspelt key nothing is stored."""
    add(options, "waits")
    answer = visitor.post(f"{API}/jobs/actions", json=body)
    assert answer.status_code in {400, 409, 422}
    assert answer.json()["error"]
    assert requests(options) == []


def drop_job(options: PageOptions, name: str, text: str) -> str:
    """Put a job into the inbox. Returns its id."""
    job = f"{len(list(options.folders.inbox.iterdir())) + 0xA000:032x}"
    (options.folders.inbox / f"{name}.yaml").write_text(f"id: {job}\n{text}")
    picture(options.folders.inbox / f"{name}.content.png", (8, 8))
    picture(options.folders.inbox / f"{name}.style-2.png", (9, 9))
    return job


def test_a_job_in_the_inbox_is_a_job(visitor: TestClient, options: PageOptions) -> None:
    """A job that the daemon has not taken yet is listed and described, with its pictures in the order of the ledger."""
    job = drop_job(options, "my dog", "style: starry\npriority: 3\nsize: 64\n")
    picture(options.folders.inbox / "my dog.content.mask.png", (8, 8))
    add(options, "older")
    found = visitor.get(f"{API}/jobs/{job}").json()
    assert (found["state"], found["name"], found["priority"]) == ("inbox", "my dog", 3)
    assert (found["styles"], found["settings"], found["actions"]) == (["starry"], {"size": 64}, [])
    assert [(i["role"], i["available"]) for i in found["inputs"]] == [
        ("content", True),
        ("style", True),
        ("content-mask", True),
    ]
    small = visitor.get(f"{API}/jobs/{job}/inputs/0")
    assert small.content == (options.folders.inbox / "my dog.content.png").read_bytes()
    assert visitor.get(f"{API}/jobs/{job}/inputs/3").status_code == 404
    assert names(visitor, "") == ["my dog", "older"]
    assert names(visitor, "order=oldest") == ["older", "my dog"]
    assert names(visitor, "state=inbox") == ["my dog"]
    assert names(visitor, "state=inbox&state=queued&order=queue") == ["older", "my dog"]
    assert names(visitor, "state=queued") == ["older"]
    assert names(visitor, "q=MY") == ["my dog"]
    assert names(visitor, "result=true") == []
    assert visitor.get(f"{API}/jobs?limit=1").json()["total"] == 2


@pytest.mark.parametrize("order", ["newest", "oldest", "queue"])
def test_parts_have_at_most_the_limit_with_jobs_of_the_inbox(
    visitor: TestClient, options: PageOptions, order: str
) -> None:
    """Jobs of the inbox come first or last, in parts as small as others; one that is taken meanwhile is not lost."""
    for number in range(3):
        drop_job(options, f"new-{number}", "")
        add(options, f"old-{number}", now=float(number))
    found, cursor = [], ""
    for number in range(10):
        page = visitor.get(f"{API}/jobs?order={order}&limit=2&cursor={cursor}").json()
        assert len(page["jobs"]) <= 2
        assert page["total"] == 6
        found += [job["name"] for job in page["jobs"]]
        cursor = page["next"]
        if not cursor:
            break
        if number == 1:
            (options.folders.inbox / "new-1.yaml").unlink()
            add(options, "new-1", now=9.0)
    assert set(found) == {f"{kind}-{number}" for kind in ("old", "new") for number in range(3)}
    assert found[0].startswith("new" if order == "newest" else "old")
    assert len(found) <= 7  # the one that was taken may be listed twice


def test_a_strange_file_in_the_inbox_harms_no_list(
    visitor: TestClient, options: PageOptions
) -> None:
    """A settings file that is invalid, a link or not UTF-8 is no error of the page."""
    job = drop_job(options, "odd", "size: [1\n")
    (options.folders.inbox / "link.yaml").symlink_to("odd.yaml")
    with (options.folders.inbox / "name\udcff.yaml").open("wb") as file:
        file.write(b"id: " + b"b" * 32 + b"\nsize: 8\n\xff")
    assert len(names(visitor, "")) == 2
    assert visitor.get(f"{API}/jobs/{job}").json()["settings"] == {}
    assert visitor.get(f"{API}/jobs/{'b' * 32}").status_code == 200


def test_the_queue_is_listed_as_it_will_be_painted(
    visitor: TestClient, options: PageOptions
) -> None:
    """Groups take turns within a priority, and the parts of the list continue where the last one ended."""
    for number in range(3):
        add(options, f"a{number}", group="a", created=float(number))
        add(options, f"b{number}", group="b", created=10.0 + number)
    add(options, "a-first", group="a", priority=5, created=50.0)
    add(options, "done", result="done.png")
    wanted = ["a-first", "b0", "a0", "b1", "a1", "b2", "a2"]
    assert names(visitor, "order=queue") == wanted
    assert names(visitor, "order=queue&group=b") == ["b0", "b1", "b2"]
    assert names(visitor, "order=queue&state=done") == []
    first = visitor.get(f"{API}/jobs?order=queue&limit=3").json()
    assert ([job["name"] for job in first["jobs"]], first["total"]) == (wanted[:3], 7)
    with Ledger.open(options.folders.ledger) as ledger:
        ledger.move(first["jobs"][0]["id"], JobState.RUNNING, now=60.0)
    assert names(visitor, f"order=queue&cursor={first['next']}") == wanted[3:]


def test_the_end_of_a_job_is_waited_for(visitor: TestClient, options: PageOptions) -> None:
    """`wait` ends with the job, at once for one that has ended, and after its time otherwise."""
    job, ended = add(options, "waits"), add(options, "done", result="done.png")
    began = time.monotonic()
    assert visitor.get(f"{API}/jobs/{ended}?wait=30").json()["state"] == "done"
    assert visitor.get(f"{API}/jobs/{job}?wait=0.1").json()["state"] == "queued"

    def cancel() -> None:
        with Ledger.open(options.folders.ledger) as ledger:
            ledger.move(job, JobState.CANCELLED, now=9.0)

    timer = threading.Timer(0.2, cancel)
    timer.start()
    assert visitor.get(f"{API}/jobs/{job}?wait=30").json()["state"] == "cancelled"
    timer.join()
    assert time.monotonic() - began < 20
    for wait in ("61", "-1", "nan"):
        assert visitor.get(f"{API}/jobs/{job}?wait={wait}").status_code == 422
