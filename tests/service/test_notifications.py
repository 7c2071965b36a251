"""What becomes a message, when, and with which words."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from nst_daemon.config import Config, Notify
from nst_daemon.jobs import Job, JobState
from nst_daemon.service import outbox
from nst_daemon.service.notifications import Notifications, page_url
from nst_daemon.service.outbox import Message, Outbox
from nst_daemon.workers.messages import Failed, Retry
from tests.bench import Bench
from tests.receivers import http_receiver

S = JobState
URL = "json://example.org/secret-path"


class KeptMessages(Outbox):
    """Keeps messages instead of sending them."""

    def __init__(self) -> None:
        super().__init__(["/no/command"])
        self.messages: list[Message] = []

    def add(self, message: Message, urls: object, now: float) -> None:
        self.messages.append(message)

    def titles(self) -> list[str]:
        """The titles since the last call."""
        found = [message.title for message in self.messages]
        self.messages = []
        return found


def job(name: str, state: JobState = S.DONE, **fields: object) -> Job:
    """A job that has ended."""
    made = Job("1" * 32, name, "pair", state, (), 0.0, 0.0)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def made(**options: object) -> tuple[Notifications, KeptMessages]:
    """Notifications with these keys of `notify`, and their messages."""
    config = Config(notify=Notify(urls=[URL], **options))  # type: ignore[arg-type]
    kept = KeptMessages()
    return Notifications(config, kept), kept


def test_a_single_picture_is_one_message_with_its_name_and_picture() -> None:
    """Two seconds after the picture the message has its name, path, page and picture."""
    config = Config(notify=Notify(urls=[URL]), status_page_url="https://pictures.example.org/")
    kept = KeptMessages()
    told = Notifications(config, kept)
    told.job_ended(job("dog\x1b", result="dog.png"))
    told.tend(100.0)
    assert kept.messages == []
    told.tend(102.0)
    (message,) = kept.messages
    assert (message.title, message.kind) == ("Painted: dog\\x1b", "success")
    assert message.picture == str(config.folders.results / "dog.png")
    assert message.body.splitlines() == [
        f"The picture is {message.picture}",
        "",
        f"https://pictures.example.org/#/jobs/{'1' * 32}",
    ]


def test_a_failure_has_its_reason() -> None:
    """The message about a failed job has the job's error and no picture."""
    told, kept = made()
    told.job_ended(job("cat", S.FAILED, error="cat.png is damaged; send it again"))
    told.tend(0.0)
    told.tend(2.0)
    assert kept.messages == [Message("Failed: cat", "cat.png is damaged; send it again", "failure")]


def test_thousands_of_pictures_are_few_messages() -> None:
    """3000 pictures within 5 hours are fewer than 12 messages, and none of the pictures is left out of the counts."""
    told, kept = made()
    for number in range(3000):
        told.job_ended(job(f"dog{number}", result="x.png"))
        told.tend(6.0 * number)
        told.tend(6.0 * number + 3.0)
    told.close(18_000.0, 0.0)
    titles = kept.titles()
    assert titles[0] == "Painted: dog0"
    assert len(titles) < 12
    counts = [int(title.split()[0].replace(",", "")) for title in titles[1:]]
    assert sum(counts) + 1 == 3000


def test_after_a_break_messages_come_at_once_again() -> None:
    """The interval has doubled while pictures followed each other; after an hour of rest it is the first one again."""
    told, kept = made(interval=60.0)
    sent = []
    for second in range(1000):
        told.job_ended(job("dog"))
        told.tend(float(second))
        sent += [second] * len(kept.titles())
    assert sent == [2, 62, 182, 422, 902]
    told.tend(1862.0)
    kept.titles()
    for second in (20_000, 20_002, 20_010, 20_050, 20_062):
        told.job_ended(job("cat"))
        told.tend(float(second))
        sent += [second] * len(kept.titles())
    assert sent[5:] == [20_002, 20_062]


def test_a_long_list_is_shortened() -> None:
    """A message about 40 pictures and 30 failures lists ten names of each and counts the others."""
    told, kept = made()
    for number in range(40):
        told.job_ended(job(f"dog{number}"))
    for number in range(30):
        told.job_ended(job(f"cat{number}", S.QUARANTINED, error="e" * 1000))
    told.tend(0.0)
    told.tend(2.0)
    (message,) = kept.messages
    assert message.title == "40 pictures painted; 30 jobs failed"
    assert message.kind == "failure"
    assert "- dog9" in message.body
    assert "- dog10" not in message.body
    assert "… and 30 more" in message.body
    assert "… and 20 more" in message.body
    assert len(message.body) < 4500


def test_the_pictures_of_a_batch_have_one_message() -> None:
    """Pictures of a batch are reported at its end with their counts; a batch file that was refused is a failed job."""
    told, kept = made()
    told.job_ended(job("holiday/dog", source="batch", group="holiday"))
    told.job_ended(job("holiday/cat", S.FAILED, source="batch", group="holiday"))
    told.batch_ended("holiday", {S.DONE: 1200, S.FAILED: 1})
    told.tend(0.0)
    told.tend(2.0)
    (message,) = kept.messages
    assert message.title == "Batch holiday has ended: 1,200 painted, 1 failed"
    assert message.kind == "failure"
    told.job_ended(job("bad", S.FAILED, source="batch-file"))
    told.tend(100.0)
    told.tend(102.0)
    assert kept.titles()[1:] == ["Failed: bad"]


def test_only_what_is_asked_for_is_sent() -> None:
    """With events [failed] there is no message about pictures, batches and pauses; the pictures of a batch count."""
    told, kept = made(events=["failed"])
    told.job_ended(job("dog"))
    told.job_ended(job("cat", S.CANCELLED))
    told.batch_ended("holiday", {S.DONE: 2})
    for second in range(0, 100, 10):
        told.tend(float(second), "the disk is full")
    told.tend(100.0)
    assert kept.messages == []
    told.job_ended(job("holiday/cat", S.FAILED, source="batch", group="holiday"))
    told.tend(200.0)
    told.tend(202.0)
    assert kept.titles() == ["Failed: holiday/cat"]


def test_a_pause_that_lasts_is_announced_once_with_its_end() -> None:
    """A pause of 20 seconds is no message; a longer one is one message, and its end another."""
    told, kept = made()
    for second in (0, 10, 20):
        told.tend(float(second), "the disk is full")
    told.tend(25.0)
    assert kept.messages == []
    for second in range(30, 600, 10):
        told.tend(float(second), f"the disk is full {second}")
    told.tend(600.0)
    told.tend(610.0)
    paused, resumed = kept.messages
    assert paused.title == "The queue is paused"
    assert paused.body == "Nothing is painted: the disk is full 60"
    assert (resumed.title, resumed.kind) == ("The queue has resumed", "info")


def test_pauses_that_come_and_go_are_few_messages() -> None:
    """A disk that fails every two minutes for a day is announced less than 40 times."""
    told, kept = made()
    for minute in range(24 * 60):
        for second in (0, 40):
            told.tend(60.0 * minute + second, "no space" if minute % 2 else "")
    assert 2 < len(kept.messages) < 80


@pytest.mark.parametrize(
    ("keys", "url"),
    [
        ({}, ""),
        ({"status_page": "127.0.0.1:8787"}, ""),
        ({"status_page": "0.0.0.0:8787"}, ""),
        ({"status_page": "[::]:8787"}, ""),
        ({"status_page": "nas.local:8787"}, "http://nas.local:8787"),
        ({"status_page": "127.0.0.1:8787", "status_page_url": "https://x.org/"}, "https://x.org"),
    ],
)
def test_links_lead_where_others_can_open_them(keys: dict[str, str], url: str) -> None:
    """A link needs an address that other machines can open: status_page_url, or the address of the page."""
    assert page_url(Config(**keys)) == url  # type: ignore[arg-type]


def test_a_daemon_without_apprise_says_so(tmp_path: Path) -> None:
    """If messages are configured and Apprise is not installed, the log names the command that installs it."""
    code = (
        "import logging, sys\n"
        "logging.basicConfig(format='%(message)s')\n"
        "sys.modules['apprise'] = None\n"
        "from nst_daemon.config import Config, Notify\n"
        "from nst_daemon.service.notifications import Notifications\n"
        "from nst_daemon.service.outbox import Outbox\n"
        "Notifications(Config(), Outbox())\n"
        f"Notifications(Config(notify=Notify(urls=[{URL!r}])), Outbox())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert "Apprise, which is not installed" in line
    assert "pip install 'apprise>=" in line


# With the real process


def waited(box: Outbox, now: float) -> None:
    """Let the process end."""
    box.wait(60)
    box.tend(now)
    assert not box.sending


def test_messages_of_a_daemon_reach_a_webhook(tmp_path: Path) -> None:
    """A painted and a failed job of a real supervisor reach an HTTP server, the picture with its message."""
    with http_receiver() as received:
        notify = Notify(urls=[f"json://127.0.0.1:{received.port}/hook"])
        bench = Bench(tmp_path / "nst", notify=notify)
        bench.drop("dog")
        bench.executor.paint()
        bench.step(1, times=2)
        bench.drop("cat")
        bench.executor.answer(
            lambda task: Failed("fake", task.job_id, Retry.NEVER, "it is damaged")
        )
        bench.step(1, times=2)
        bench.supervisor.stop(bench.now)
    told = [json.loads(body) for _, body in received.requests]
    assert [message["title"] for message in told] == ["Painted: dog", "Failed: cat"]
    assert told[1]["message"] == "it is damaged"
    assert {path for path, _ in received.requests} == {"/hook"}


def test_a_service_that_fails_is_tried_again_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only the URL that failed gets the message again, after the pauses; the log has one line without its secrets."""
    caplog.set_level(logging.INFO, "nst_daemon")
    with http_receiver() as good, http_receiver() as bad:
        bad.status = 500
        box = Outbox()
        urls = [
            f"json://127.0.0.1:{good.port}/fine",
            f"json://name:hunter2@127.0.0.1:{bad.port}/secret-key",
        ]
        box.add(Message("t", "b"), urls, 0.0)
        now = 0.0
        for pause in (0.0, *outbox.RETRY_PAUSES[:2]):
            now += pause
            box.tend(now - 0.1)
            box.tend(now)
            waited(box, now)
        assert (len(good.requests), len(bad.requests)) == (1, 3)
        assert caplog.text.count("did not reach notify.urls 2 (json)") == 1
        assert "error=500" in caplog.text
        bad.status = 200
        box.tend(now + outbox.RETRY_PAUSES[2])
        waited(box, now)
        assert len(bad.requests) == 4
    assert "notifications reach notify.urls 2 (json) again" in caplog.text
    assert not {"hunter2", "secret-key"} & set(caplog.text.replace("/", " ").split())
    assert "hunter2" not in caplog.text
    assert "secret-key" not in caplog.text


def test_a_message_is_given_up_after_four_attempts(caplog: pytest.LogCaptureFixture) -> None:
    """A message that never arrives is dropped after the last retry, and the log says so."""
    box = Outbox([sys.executable, "-c", 'print(\'{"failed": {"0": "no"}}\')'])
    box.add(Message("Painted: dog", ""), ["json://127.0.0.1:1/x"], 0.0)
    now = 0.0
    for pause in (0.0, *outbox.RETRY_PAUSES, 10_000.0):
        now += pause
        box.tend(now)
        waited(box, now)
    assert "given up after 4 attempts (Painted: dog)" in caplog.text
    assert box.waiting == []


def test_a_process_that_hangs_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    """After its time the process is killed, and the message waits for its next attempt."""
    box = Outbox([sys.executable, "-c", "import time; time.sleep(600)"])
    box.add(Message("t", "b"), [URL], 0.0)
    box.tend(0.0)
    box.tend(outbox.SEND_SECONDS - 1)
    assert box.sending
    box.tend(outbox.SEND_SECONDS)
    assert not box.sending
    assert "no answer within 60 s" in caplog.text


def test_a_process_that_others_kill_is_not_called_slow(caplog: pytest.LogCaptureFixture) -> None:
    """A process that something else has killed is reported as killed, and not as one without an answer."""
    box = Outbox([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    box.add(Message("t", "b"), [URL], 0.0)
    box.tend(0.0)
    waited(box, 1.0)
    assert "the process that sends it was killed by signal 9 (SIGKILL)" in caplog.text
    assert "no answer" not in caplog.text


def test_messages_that_wait_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Of 100 messages the newest 20 wait, and each that is dropped is logged."""
    box = Outbox(["/no/command"])
    for number in range(100):
        box.add(Message(f"message {number}", ""), [URL], 1000.0)
    assert box.waiting == [f"message {number}" for number in range(80, 100)]
    assert caplog.text.count("too many wait") == 80


def test_the_end_does_not_wait_for_a_service(caplog: pytest.LogCaptureFixture) -> None:
    """At the end a process that hangs is killed after the time that is given, and what is lost is counted."""
    box = Outbox([sys.executable, "-c", "import time; time.sleep(600)"])
    for _ in range(3):
        box.add(Message("t", "b"), [URL], 0.0)
    box.close(0.0, 0.3)
    assert not box.sending
    assert "not sent before the daemon stopped: 3" in caplog.text


def test_a_command_that_cannot_start_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """If the process cannot be started, the message is retried later and nothing is raised."""
    box = Outbox(["/no/command"])
    box.add(Message("t", "b"), [URL], 0.0)
    box.tend(0.0)
    assert "cannot be started: No such file" in caplog.text
    assert box.waiting == ["t"]
