"""What sends a message by Apprise, against servers on this machine."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nst_daemon.notify_process import attachment, send, unusable, without_secrets
from tests.receivers import http_receiver, mail_receiver

MESSAGE = {"title": "Painted: dog", "body": "<b>The</b> picture", "kind": "success", "picture": ""}


def picture(path: Path, side: int = 2000) -> str:
    """A PNG with noise."""
    noise = np.random.default_rng(0).integers(0, 255, (side // 2, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


def test_a_webhook_gets_text_and_picture(tmp_path: Path) -> None:
    """A json:// URL gets title, text and kind, and the picture as a JPEG of at most 1024 px."""
    with http_receiver() as received:
        url = f"json://127.0.0.1:{received.port}/hook"
        assert send([url], {**MESSAGE, "picture": picture(tmp_path / "dog.png")}) == {}
    (_, body) = received.requests[0]
    found = json.loads(body)
    assert (found["title"], found["message"], found["type"]) == (
        "Painted: dog",
        "<b>The</b> picture",
        "success",
    )
    (attached,) = found["attachments"]
    with Image.open(io.BytesIO(base64.b64decode(attached["base64"]))) as image:
        assert (image.format, image.size) == ("JPEG", (1024, 512))


def test_a_mail_has_subject_text_and_picture(tmp_path: Path) -> None:
    """A mailto:// URL becomes a mail to the address, with the title as its subject and the picture attached."""
    with mail_receiver() as received:
        url = f"mailto://127.0.0.1:{received.port}?from=nst@example.org&to=ann@example.org"
        assert send([url], {**MESSAGE, "picture": picture(tmp_path / "dog.png")}) == {}
    (mail,) = received.mails
    assert (mail["Subject"], "ann@example.org" in mail["To"]) == ("Painted: dog", True)
    parts = {part.get_content_type(): part for part in mail.walk()}
    assert "image/jpeg" in parts
    text = next(part for kind, part in parts.items() if kind.startswith("text/"))
    shown = text.get_payload(decode=True)
    assert isinstance(shown, bytes)
    assert b"&lt;b&gt;The" in shown or text.get_content_type() == "text/plain"


def test_ntfy_gets_the_topic_and_no_picture_of_others() -> None:
    """An ntfy:// URL of another server posts title and text to its topic, without an icon from elsewhere."""
    with http_receiver() as received:
        assert send([f"ntfy://127.0.0.1:{received.port}/paintings"], MESSAGE) == {}
    (_, body) = received.requests[0]
    assert json.loads(body) == {
        "topic": "paintings",
        "title": "Painted: dog",
        "message": "<b>The</b> picture",
    }


def test_the_reason_of_each_failure_is_its_own_and_has_no_secret() -> None:
    """Of four URLs only those that failed have a reason, and none contains a password, a path or a key."""
    with http_receiver() as bad, http_receiver() as good:
        bad.status = 403
        urls = [
            f"json://ann:hunter2@127.0.0.1:{bad.port}/key-4711",
            f"json://127.0.0.1:{good.port}/fine",
            "json://ann:hunter2@127.0.0.1:1/key-4711",
            "nonsense://hunter2/key-4711",
        ]
        failed = send(urls, MESSAGE)
    assert sorted(failed) == [0, 2, 3]
    assert "error=403" in failed[0]
    assert "Connection error" in failed[2]
    assert "does not understand" in failed[3]
    assert not [why for why in failed.values() if "hunter2" in why or "4711" in why]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("POST https://h.org/AbCd failed", "POST https://***/*** failed"),
        ("password p w!", "password ***"),
        ("a\nb\x1b", "a b\\x1b"),
        ("A connection error occurred.", "A connection error occurred"),
    ],
)
def test_no_part_of_a_url_stays_in_a_reason(text: str, shown: str) -> None:
    """Hosts, paths and passwords of the URL are replaced, also if they are quoted in it."""
    assert without_secrets(text, "https://ann:p%20w!@h.org/AbCd") == shown


def test_pictures_that_cannot_be_reduced_are_left_out(tmp_path: Path) -> None:
    """A missing and a damaged file are no reason not to send the text."""
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for path in (tmp_path / "missing.png", tmp_path / "bad.png"):
        assert attachment(str(path), tmp_path) is None
        with http_receiver() as received:
            url = f"json://127.0.0.1:{received.port}/"
            assert send([url], {**MESSAGE, "picture": str(path)}) == {}
        assert json.loads(received.requests[0][1])["attachments"] == []


def test_urls_are_checked_without_sending() -> None:
    """`unusable` names the places of the URLs that Apprise does not understand."""
    urls = ["json://localhost/x", "nonsense://x", "mailtos://a:b@example.org", "tgram://short"]
    assert unusable(urls) == [1, 3]


def test_the_process_answers_in_one_line() -> None:
    """The process reads one line and prints one with the URLs that were not reached; it loads no torch and no NumPy."""
    asked = {"urls": ["json://127.0.0.1:1/secret-key"], "message": MESSAGE}
    code = (
        "import runpy, sys\n"
        "runpy.run_module('nst_daemon.notify_process', run_name='__main__')\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(asked) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    assert list(json.loads(line)["failed"]) == ["0"]
    assert "secret-key" not in done.stdout + done.stderr
