"""Collects what has happened and makes messages of it, for `notify`.

A picture, a failure or the end of a batch waits a moment, so that what happens at the same time becomes one message.
Between two messages lies at least `notify.interval`. `outbox` sends them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from nst_daemon import extras
from nst_daemon.addresses import is_local, split_address
from nst_daemon.config import Config
from nst_daemon.jobs import Job, JobState
from nst_daemon.names import printable, shortened
from nst_daemon.notify_process import missing
from nst_daemon.service.outbox import Message, Outbox
from nst_daemon.units import count

log = logging.getLogger(__name__)

S = JobState
#: Seconds from the first event to its message: what happens at the same time becomes one message.
GATHER_SECONDS = 2.0
#: A pause is worth a message after this many seconds: most disk errors are over by then.
PAUSE_SECONDS = 30.0
#: The longest time in seconds between two messages, while they follow each other without a break.
LONGEST_INTERVAL = 3600.0
#: The most names of one kind in a message, and the most characters of one line.
LISTED, LINE = 10, 300


class MessagePace:
    """When the next message may be sent. The interval doubles while messages follow each other without a break."""

    def __init__(self) -> None:
        self._sent, self._interval = -math.inf, 0.0

    @property
    def next(self) -> float:
        """The earliest time of the next message, on the clock of `sent`."""
        return self._sent + self._interval

    def sent(self, now: float, interval: float) -> None:
        """A message was made. interval: the shortest time to the next one in seconds."""
        longest = max(interval, LONGEST_INTERVAL)
        busy = now - self._sent <= 2 * self._interval
        self._interval = min(2 * self._interval, longest) if busy else interval
        self._sent = now


@dataclass(slots=True)
class _Events:
    """What has happened since the last message. Names and lines are listed up to `LISTED`; counts have all."""

    done: int = 0
    failed: int = 0
    painted: list[Job] = field(default_factory=list)
    failures: list[Job] = field(default_factory=list)
    batches: dict[str, Mapping[JobState, int]] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        return bool(self.done or self.failed or self.batches)


class Notifications:
    """The events of one daemon. Its methods never wait.

    Args:
        config: The configuration.
        outbox: Sends the messages.
    """

    def __init__(self, config: Config, outbox: Outbox) -> None:
        self._outbox = outbox
        self.reconfigure(config)
        self._events = _Events()
        self._first_seen: float | None = None
        self._pace, self._pause_pace = MessagePace(), MessagePace()
        self._paused_since: float | None = None
        self._announced = False  # the present pause

    def reconfigure(self, config: Config) -> None:
        """Continue with another configuration. The log says if messages cannot be sent."""
        self._config = config
        if config.notify.urls and missing():
            remedy = extras.install("notify")
            log.warning("notify.urls needs Apprise, which is not installed; %s", remedy)

    def job_ended(self, job: Job) -> None:
        """A job is done or has failed. The pictures of a batch are reported at its end, if that is reported."""
        if job.source == "batch" and self._wanted("batch"):
            return
        if job.state is S.DONE and self._wanted("done"):
            self._events.done += 1
            self._events.painted = [*self._events.painted, job][:LISTED]
        elif job.state in (S.FAILED, S.QUARANTINED) and self._wanted("failed"):
            self._events.failed += 1
            self._events.failures = [*self._events.failures, job][:LISTED]

    def batch_ended(self, name: str, counts: Mapping[JobState, int]) -> None:
        """The last job of a batch has ended. counts: its jobs in each state."""
        if self._wanted("batch"):
            self._events.batches[name] = counts

    def tend(self, now: float, paused: str = "") -> None:
        """Make the messages that are due, and look after those that are being sent.

        Args:
            now: Monotonic seconds.
            paused: Why nothing is painted although it should be; "" while all is well.
        """
        self._watch_pause(now, paused)
        if self._events.any and self._first_seen is None:
            self._first_seen = now
        if self._first_seen is not None and now >= max(
            self._first_seen + GATHER_SECONDS, self._pace.next
        ):
            self._flush(now)
        self._outbox.tend(now)

    def close(self, now: float, seconds: float) -> None:
        """Send what is left, and wait for that at most `seconds`. now: monotonic seconds."""
        if self._events.any:
            self._flush(now)
        self._outbox.close(now, seconds)

    def _wanted(self, event: str) -> bool:
        return bool(self._config.notify.urls) and event in self._config.notify.events

    def _flush(self, now: float) -> None:
        self._pace.sent(now, self._config.notify.interval)
        self._add(self._message(self._events), now)
        self._events, self._first_seen = _Events(), None

    def _add(self, message: Message, now: float) -> None:
        self._outbox.add(message, self._config.notify.urls, now)

    def _watch_pause(self, now: float, paused: str) -> None:
        """Announce a pause that lasts, and its end."""
        if not paused:
            if self._announced and self._wanted("resumed"):
                self._add(Message("The queue has resumed", self._link(), "info"), now)
            self._paused_since, self._announced = None, False
            return
        if self._paused_since is None:
            self._paused_since = now
        due = max(self._paused_since + PAUSE_SECONDS, self._pause_pace.next)
        if not self._announced and now >= due and self._wanted("paused"):
            self._announced = True
            self._pause_pace.sent(now, self._config.notify.interval)
            reason = shortened(printable(paused), LINE)
            body = _paragraphs([f"Nothing is painted: {reason}", self._link()])
            self._add(Message("The queue is paused", body, "warning"), now)

    # Texts

    def _message(self, events: _Events) -> Message:
        if events.done == 1 and not events.failed and not events.batches:
            (job,) = events.painted
            result = self._config.folders.results / job.result
            picture = str(result) if self._config.notify.attach_picture else ""
            body = _paragraphs([f"The picture is {printable(str(result))}", self._link(job)])
            return Message(f"Painted: {_name(job)}", body, "success", picture)
        if events.failed == 1 and not events.done and not events.batches:
            (job,) = events.failures
            body = _paragraphs([shortened(printable(job.error), LINE), self._link(job)])
            return Message(f"Failed: {_name(job)}", body, "failure")
        batches = [_batch_line(name, counts) for name, counts in events.batches.items()]
        parts = [batches[0] if len(batches) == 1 else f"{len(batches)} batches have ended"]
        parts = parts if batches else []
        parts += [f"{count(events.done, 'picture')} painted"] if events.done else []
        parts += [f"{count(events.failed, 'job')} failed"] if events.failed else []
        failures = [f"{_name(job)}: {printable(job.error)}" for job in events.failures]
        body = _paragraphs(
            [
                _list("", batches, len(batches)) if len(batches) > 1 else "",
                _list("Failed:", failures, events.failed),
                _list("Painted:", [_name(job) for job in events.painted], events.done),
                self._link(),
            ]
        )
        bad = events.failed or any(
            state in counts
            for counts in events.batches.values()
            for state in (S.FAILED, S.QUARANTINED)
        )
        return Message(shortened("; ".join(parts), LINE), body, "failure" if bad else "success")

    def _link(self, job: Job | None = None) -> str:
        """The address of the page, or of a job on it; "" if there is no page that others can open."""
        base = page_url(self._config)
        where = f"#/jobs/{quote(job.id)}" if job else "#/jobs"
        return f"{base}/{where}" if base else ""


def page_url(config: Config) -> str:
    """The address of the status page without "/" at its end; "" if other machines cannot open one."""
    if config.status_page_url or not config.status_page:
        return config.status_page_url.rstrip("/")
    host, _ = split_address(config.status_page)
    open_to_all = host in ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)
    return "" if open_to_all or is_local(host) else f"http://{config.status_page}"


def _name(job: Job) -> str:
    return shortened(printable(job.name))


def _batch_line(name: str, counts: Mapping[JobState, int]) -> str:
    said = ", ".join(
        f"{number:,} {'painted' if state is S.DONE else state.value}"
        for state, number in sorted(counts.items())
    )
    return f"Batch {shortened(printable(name))} has ended: {said}"


def _list(heading: str, lines: list[str], total: int) -> str:
    """A heading with a line for each element, and the number of those that are left out; "" for none."""
    if not lines:
        return ""
    shown = [f"- {shortened(line, LINE)}" for line in lines[:LISTED]]
    more = [f"… and {total - len(shown):,} more"] if total > len(shown) else []
    return "\n".join([*([heading] if heading else []), *shown, *more])


def _paragraphs(parts: list[str]) -> str:
    return "\n\n".join(filter(None, parts))
