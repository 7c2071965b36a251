"""Sends one message by Apprise: `python -m nst_daemon.notify_process`, started by the daemon for each message.

Standard input has one line of JSON: `urls`, and `message` with title, body, kind and picture. Standard output gets one:
`failed`, the reasons by the index of the URL. No reason contains a part of a URL: URLs are secrets.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nst_daemon import extras
from nst_daemon.errors import ConfigError, NstError
from nst_daemon.managed_process import end_with_parent
from nst_daemon.names import printable

#: The longer side of an attached picture in pixels, and the largest picture that is reduced for it.
ATTACHED_SIDE, MOST_PIXELS, MOST_BYTES = 1024, 20_000_000, 128 * 1024 * 1024
#: Parts of a URL that are shorter than this are not removed from reasons: they would match parts of words.
SECRET_LENGTH = 4
_warnings: ContextVar[list[str]] = ContextVar("warnings")


def main() -> None:
    """Send what standard input asks for."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = json.loads(sys.stdin.readline())
    print(json.dumps({"failed": send(asked["urls"], asked["message"])}))


def send(urls: Sequence[str], message: Mapping[str, str]) -> dict[int, str]:
    """Send a message to each URL.

    Args:
        urls: Of Apprise.
        message: title, body, kind, and picture: a file or "".

    Returns:
        Why a URL was not reached, by its index; empty if all were.
    """
    if missing():
        why = f"Apprise is not installed; {extras.install('notify')}"
        return dict.fromkeys(range(len(urls)), why)
    with tempfile.TemporaryDirectory(prefix="nst-notify-") as folder:
        picture = attachment(message["picture"], Path(folder)) if message["picture"] else None
        with _collected(), ThreadPoolExecutor(max_workers=8) as pool:
            found = pool.map(lambda url: _send_one(url, message, picture), urls)
            return {index: why for index, why in enumerate(found) if why}


def missing() -> bool:
    """Whether Apprise is not installed."""
    return bool(extras.missing("apprise"))


def unusable(urls: Sequence[str]) -> list[int]:
    """The indices of the URLs that Apprise does not understand. Raises ConfigError if it is not installed."""
    if missing():
        raise ConfigError(
            "notify.urls needs Apprise, which is not installed", remedy=extras.install("notify")
        )
    with _collected():
        return [index for index, url in enumerate(urls) if not len(_service(url))]


def attachment(picture: str, folder: Path) -> Path | None:
    """A reduced copy of a picture as JPEG in `folder`; None if it is missing, damaged or very large."""
    from nst_daemon.report.thumbnails import ResultLimits, load  # noqa: PLC0415 (it loads NumPy)

    target = folder / "picture.jpg"
    try:
        limits = ResultLimits(MOST_BYTES, MOST_PIXELS, MOST_PIXELS)
        image = load(Path(picture), ATTACHED_SIDE, limits)
        image.convert("RGB").save(target, "JPEG", quality=85)
    except (NstError, OSError, ValueError):
        return None
    return target


@contextmanager
def _collected() -> Iterator[None]:
    """Collect what Apprise logs instead of printing it."""
    logger, handler = logging.getLogger("apprise"), _Reasons()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _service(url: str) -> Any:
    import apprise  # noqa: PLC0415 (optional)

    # No pictures and links of Apprise in the messages.
    asset = apprise.AppriseAsset(
        app_id="nst-daemon",
        app_desc="nst-daemon",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
    )
    service = apprise.Apprise(asset=asset)
    service.add(url)
    return service


def _send_one(url: str, message: Mapping[str, str], picture: Path | None) -> str:
    """Send to one URL; why it was not reached, or ""."""
    warnings: list[str] = []
    _warnings.set(warnings)
    try:
        service = _service(url)
        if not len(service):
            return "Apprise does not understand this URL"
        text = {"title": message["title"], "body": message["body"] or message["title"]}
        text |= {"notify_type": message["kind"], "body_format": "text"}
        attached = picture is not None and service[0].attachment_support
        if service.notify(**text, attach=str(picture) if attached else None):
            return ""
        said = "; ".join(dict.fromkeys(warnings))
    except Exception as error:  # noqa: BLE001 (whatever a plugin raises, the others are sent)
        said = f"{type(error).__name__}: {error}"
    return without_secrets(said or "the service refused it", url)


def without_secrets(text: str, url: str) -> str:
    """`text` in one line, without any part of the URL but its scheme."""
    raw = set(re.split(r"[/?&=:@#,;+]+", url))
    parts = raw | {unquote(part) for part in raw}
    scheme = url.partition("://")[0]
    for part in sorted(parts - {scheme}, key=len, reverse=True):
        if len(part) >= SECRET_LENGTH:
            text = text.replace(part, "***")
    return printable(" ".join(text.split()).rstrip("."))


class _Reasons(logging.Handler):
    """Collects the warnings of Apprise for the URL that is sent to. Apprise hands the context on to its threads."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            _warnings.get([]).append(record.getMessage())


if __name__ == "__main__":
    main()
