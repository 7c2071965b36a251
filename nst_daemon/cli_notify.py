"""The command `notify test`."""

from __future__ import annotations

from typing import Any

import typer

from nst_daemon.cli_help import Commands
from nst_daemon.cli_options import ConfigOption, JsonOption, configured, show
from nst_daemon.errors import ConfigError
from nst_daemon.service.notifications import page_url
from nst_daemon.service.outbox import service_name

app = Commands(help="Messages by mail, chat and push services and webhooks.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Messages by mail, chat and push services and webhooks."""


@app.command("test")
def notify_test(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send a test message to each URL of notify.urls, and list which services were reached.

    Exit code 1 if one was not.
    """
    from nst_daemon.notify_process import send

    loaded = configured(config)
    urls = loaded.notify.urls
    if not urls:
        remedy = "set it in the configuration, or as NST_NOTIFY__URLS; see docs/notifications.md"
        raise ConfigError("notify.urls is empty", remedy=remedy)
    message = {
        "title": "A test of nst-daemon",
        "body": "\n\n".join(
            filter(None, ["Messages of nst-daemon arrive here.", page_url(loaded)])
        ),
        "kind": "info",
        "picture": "",
    }
    failed = send(urls, message)
    rows: list[dict[str, Any]] = [
        {
            "service": service_name(index + 1, url),
            "reached": index not in failed,
            "reason": failed.get(index, ""),
        }
        for index, url in enumerate(urls)
    ]
    show(lambda width: "\n".join(_line(row) for row in rows), rows, as_json)
    if failed:
        raise typer.Exit(1)


def _line(row: dict[str, Any]) -> str:
    return f"{row['service']}: " + (
        "reached" if row["reached"] else f"not reached: {row['reason']}"
    )
