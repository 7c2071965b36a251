"""Sends messages in a process of its own (`nst_daemon.notify_process`), one after the other, and retries.

Messages are kept in memory only: those that were not sent when the daemon ends are lost. A URL is a secret: the log
names its place in `notify.urls` and its scheme.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from nst_daemon.managed_process import (
    ManagedProcess,
    child_environment,
    exit_reason,
    own_module,
)
from nst_daemon.names import printable, shortened
from nst_daemon.units import duration

log = logging.getLogger(__name__)

#: The most messages that wait; the oldest ones are dropped.
MOST_WAITING = 20
#: Seconds that the process may take.
SEND_SECONDS = 60.0
#: Seconds before each further attempt.
RETRY_PAUSES = (30.0, 300.0, 1800.0)
#: The last bytes of the process's output, which have its answer.
ANSWER_BYTES = 20_000
#: Addresses of proxies may have a password. The process is our own program and needs them.
PROXIES = tuple(
    form for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for form in (name, name.lower())
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message. kind: its colour or symbol, where a service has one; picture: a file to attach, or ""."""

    title: str
    body: str
    kind: Literal["info", "success", "warning", "failure"] = "info"
    picture: str = ""


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message on its way. places: of its URLs in `notify.urls`, from 1; attempt: from 0; due: monotonic seconds."""

    message: Message
    urls: tuple[str, ...]
    places: tuple[int, ...]
    attempt: int
    due: float


class Outbox:
    """The messages that wait, and the one that is being sent.

    Args:
        command: Reads one line of JSON, sends, and prints one line of JSON; `nst_daemon.notify_process` unless given.
        start: Starts a process.
    """

    def __init__(
        self,
        command: Sequence[str] = (),
        start: Callable[..., ManagedProcess] = ManagedProcess,
    ) -> None:
        self._command = command or own_module("nst_daemon.notify_process")
        self._start = start
        self._waiting: list[_Letter] = []
        self._sending: _Letter | None = None
        self._process: ManagedProcess | None = None
        self._late = False  # the process was killed, because it took too long
        self._failing: set[str] = set()

    def add(self, message: Message, urls: Sequence[str], now: float) -> None:
        """Send a message to each URL as soon as possible. now: monotonic seconds."""
        places = tuple(range(1, len(urls) + 1))
        self._put(_Letter(message, tuple(urls), places, 0, now))

    def tend(self, now: float) -> None:
        """See what the process has done, and start the next one. Never waits. now: monotonic seconds."""
        if self._process is not None:
            if self._process.overdue(now):
                self._late = True
                self._process.kill()
                self._process.wait(1.0)
            code = self._process.exit_code()
            if code is None:
                return
            self._note_end(self._process, code, now)
        if due := [letter for letter in self._waiting if letter.due <= now]:
            self._waiting.remove(due[0])
            self._send(due[0], now)

    @property
    def sending(self) -> bool:
        """Whether a process is at work."""
        return self._process is not None

    @property
    def waiting(self) -> list[str]:
        """The titles of the messages that wait, the oldest first."""
        return [letter.message.title for letter in self._waiting]

    def wait(self, seconds: float) -> None:
        """Wait for the end of the process for at most `seconds`; `tend` then takes its answer."""
        if self._process is not None:
            self._process.wait(seconds)

    def close(self, now: float, seconds: float) -> None:
        """Send what has not been tried yet, for at most `seconds`; what is left then is lost."""
        until = now + seconds
        retries = [letter for letter in self._waiting if letter.attempt]
        self._waiting = [letter for letter in self._waiting if not letter.attempt]
        self.tend(now)
        while self._process is not None and now < until:
            step = min(0.1, until - now)
            self.wait(step)
            now += step
            self.tend(now)
        lost = len(self._waiting) + len(retries) + (self._sending is not None)
        if self._process is not None:
            self._process.kill()
            self._process.close(1.0)
            self._process = self._sending = None
        if lost:
            log.warning("notifications that were not sent before the daemon stopped: %d", lost)
        self._waiting.clear()

    def _put(self, letter: _Letter) -> None:
        self._waiting.append(letter)
        if len(self._waiting) > MOST_WAITING:
            lost = self._waiting.pop(0)
            log.warning("a notification was dropped: too many wait (%s)", lost.message.title)

    def _send(self, letter: _Letter, now: float) -> None:
        asked = {"urls": letter.urls, "message": asdict(letter.message)}
        line = json.dumps(asked, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        environment = child_environment(keep=PROXIES)
        self._sending, self._late = letter, False
        try:
            self._process = self._start(
                self._command,
                environment=environment,
                first_input=line,
                capture=True,
                deadline=now + SEND_SECONDS,
            )
        except OSError as error:
            self._book(
                now,
                f"the process that sends it cannot be started: {os.strerror(error.errno or 0)}",
                {},
            )

    def _note_end(self, process: ManagedProcess, code: int, now: float) -> None:
        output = process.last_output(ANSWER_BYTES)
        process.close(1.0)
        self._process = None
        try:
            found = json.loads(output.splitlines()[-1])
            failed = {int(place): str(why) for place, why in found["failed"].items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            late = f"had no answer within {duration(SEND_SECONDS)}"
            self._book(
                now, f"the process that sends it {late if self._late else exit_reason(code)}", {}
            )
        else:
            self._book(now, "", failed)

    def _book(self, now: float, reason: str, failed: dict[int, str]) -> None:
        """Log how the sending went, and retry it where it failed.

        Args:
            now: Monotonic seconds.
            reason: Why nothing was sent; "" if the process has answered.
            failed: Why a URL was not reached, by its index in the letter.
        """
        letter, self._sending = self._sending, None
        assert letter is not None
        if reason:
            failed = dict.fromkeys(range(len(letter.urls)), reason)
        left = [index for index in range(len(letter.urls)) if index in failed]
        last = letter.attempt >= len(RETRY_PAUSES)
        for index, url in enumerate(letter.urls):
            self._log(service_name(letter.places[index], url), failed.get(index, ""))
        if left and last:
            log.warning(
                "a notification was given up after %d attempts (%s)",
                letter.attempt + 1,
                letter.message.title,
            )
        elif left:
            self._put(
                _Letter(
                    # A service may have shown the text and refused the picture.
                    replace(letter.message, picture=""),
                    tuple(letter.urls[index] for index in left),
                    tuple(letter.places[index] for index in left),
                    letter.attempt + 1,
                    now + RETRY_PAUSES[letter.attempt],
                )
            )

    def _log(self, service: str, reason: str) -> None:
        """Log the first failure of a service, and that it works again."""
        if reason and service not in self._failing:
            self._failing.add(service)
            text = shortened(printable(reason), 500)
            log.warning(
                "a notification did not reach %s: %s; it is sent again later", service, text
            )
        elif not reason and service in self._failing:
            self._failing.remove(service)
            log.info("notifications reach %s again", service)


def service_name(place: int, url: str) -> str:
    """What may be shown of a URL: its place in `notify.urls`, from 1, and its scheme."""
    return f"notify.urls {place} ({url.partition('://')[0].lower()})"
